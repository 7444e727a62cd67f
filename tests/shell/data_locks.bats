#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

load test_helper

# The lock beside the data, .outbox.json.lock: flock(2), so flock(1) is seen.

setup() {
  make_workspace
  LOCK=$ROOT/postbox/CC/.outbox.json.lock
}

note_of() { # <pid> <start> [<boot>] [<namespace>] [<host>]; a holder's note as the suite writes it
  printf '{"state": "held", "pid": %s, "start": "%s", "boot": "%s", "namespace": "%s", "host": "%s", %s}\n' \
    "$1" "$2" "${3-$(</proc/sys/kernel/random/boot_id)}" "${4-$(readlink /proc/self/ns/pid)}" "${5-$(uname -n)}" \
    '"command": "complete CC/TASK-168B", "nonce": "abc", "files": ["postbox/CC/outbox.json"]' >"$LOCK"
}

at_once() { # <command>...; ends long before any timeout of ours
  RECOVERY_LOCK_TIMEOUT=20 run --separate-stderr -0 timeout 10 "$@"
}

@test "24: a lock that is held for ever ends the command in time, with a message, and nothing is changed" {
  hold "$LOCK"
  export RECOVERY_LOCK_TIMEOUT=0.3 RECOVERY_MAX_ATTEMPTS=1
  refused 75 timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "Failed to acquire lock on postbox/CC/.outbox.json.lock after 0.3 seconds (held by pid " "next:"
  refused 75 timeout 10 "$SUITE/bin/assign_task.sh" CC TASK-1 title LOW
  let_go
  assert_no_stray_files
  runs complete_task CC TASK-168B
}

@test "24: the deadline ends waits and tries together" {
  hold "$LOCK"
  export RECOVERY_DEADLINE=0.5 RECOVERY_LOCK_TIMEOUT=30 RECOVERY_MAX_ATTEMPTS=99
  refused 75 timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "Failed to acquire lock on postbox/CC/.outbox.json.lock"
}

@test "24: --json says so in one object, however many tries" {
  hold "$LOCK"
  export RECOVERY_LOCK_TIMEOUT=0.05 RECOVERY_MAX_ATTEMPTS=3
  refused 75 complete_task --json CC TASK-168B
  assert_output_json 'd["ok"], d["code"], "Failed to acquire lock" in d["error"]' "(False, 75, True)"
}

@test "24: the progress file's lock too" {
  hold "$ROOT/.sprint/.progress.json.lock"
  export RECOVERY_LOCK_TIMEOUT=0.2 RECOVERY_MAX_ATTEMPTS=1
  refused 75 complete_task CC TASK-168B
  assert_stderr_has .sprint/.progress.json.lock
}

@test "24: another agent's lock is nobody's business" {
  hold "$ROOT/postbox/CA/.outbox.json.lock"
  at_once "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_completed CC TASK-168B
}

@test "25: a lock held for a second is waited for, and for whom is said" {
  hold "$LOCK"
  mkfifo said
  complete_task CC TASK-168B 2>said >out 3>&- &
  local pid=$! line
  read -r line <said
  [[ $line == "recovery: waiting for postbox/CC/.outbox.json.lock (held by pid "* ]]
  assert_open CC TASK-168B
  let_go
  wait "$pid"
  assert_equal "completed CC/TASK-168B (pending -> completed); 3 files, read back" "$(<out)"
  rm said out
  assert_completed CC TASK-168B
  # the change says what it waited for, and for whom
  assert_json "data/changes/$(date -u +%Y-%m).jsonl" '[(w["lock"], w["seconds"] >= 1) for w in d["waited"]]' \
    "[('postbox/CC/.outbox.json.lock', True)]"
  assert_no_stray_files
}

@test "22: a lock file that is unlinked while somebody waits: the waiter moves to the new one" {
  hold "$LOCK"
  mkfifo said
  complete_task CC TASK-168B 2>said >out 3>&- &
  local pid=$! line
  read -r line <said
  rm "$LOCK"
  wait "$pid"
  assert_completed CC TASK-168B
  rm said out
}

@test "22: a lock file that is unlinked while it is held: the holder notices, and tries again or gives up" {
  export RECOVERY_FAULT="recheck=wait=$BATS_TEST_TMPDIR/go" RECOVERY_MAX_ATTEMPTS=1
  mkfifo "$BATS_TEST_TMPDIR/go.reached"
  complete_task CC TASK-168B >/dev/null 2>&1 3>&- &
  local pid=$! code=0
  : <"$BATS_TEST_TMPDIR/go.reached"
  rm "$LOCK"
  touch "$BATS_TEST_TMPDIR/go"
  wait "$pid" || code=$?
  assert_equal 75 "$code"
  assert_open CC TASK-168B
}

@test "26: an empty lock file, garbage and a note of a dead pid don't hold anybody up" {
  local text
  for text in "" garbage $'\x01\x02' '{"state": "held"' '[]' '{"state": "held", "pid": "x", "files": 7}' \
    '{"state": "held", "nonce": "../../x", "files": ["../../../x", "/etc/passwd", 3]}' 4194303; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/*
    printf '%s' "$text" >"$LOCK"
    at_once "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
    assert_completed CC TASK-168B
  done
  assert_no_stray_files
}

@test "26: a note of a dead process, of a pid used again, of an earlier boot" {
  local pid
  sh -c : &
  pid=$!
  wait "$pid"
  note_of "$pid" 1
  at_once "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  note_of $$ 1
  at_once "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-169A
  note_of $$ "$(cut -d' ' -f22 /proc/$$/stat)" 00000000-0000-0000-0000-000000000000
  at_once "$SUITE/bin/assign_task.sh" CC TASK-1 title LOW
  assert_no_stray_files
}

@test "26: a note never says more than the kernel: even a live process's is no lock" {
  note_of $$ "$(cut -d' ' -f22 /proc/$$/stat)"
  at_once "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
}

@test "62: a note of another container or host in a lock that is held makes nobody break it" {
  hold "$LOCK"
  export RECOVERY_LOCK_TIMEOUT=0.2 RECOVERY_MAX_ATTEMPTS=1
  note_of 4194303 1 "$(</proc/sys/kernel/random/boot_id)" "pid:[1]"
  refused 75 complete_task CC TASK-168B
  [[ $stderr != *gone* ]]
  note_of 4194303 1 "" "" elsewhere.example
  refused 75 complete_task CC TASK-168B
  [[ $stderr != *gone* ]]
}

@test "62: a holder in another pid namespace, whom nobody here can see, is waited for and named as that" {
  require_root
  unshare --pid --fork --mount-proc true 2>/dev/null || skip "no pid namespaces here"
  mkfifo "$BATS_TEST_TMPDIR/go.reached"
  RECOVERY_FAULT="recheck=wait=$BATS_TEST_TMPDIR/go" \
    complete_task CC TASK-168B >/dev/null 2>&1 3>&- &
  local pid=$!
  : <"$BATS_TEST_TMPDIR/go.reached"
  export ORCHESTRATION_LOCK_DIR="$BATS_TEST_TMPDIR/private tmp"
  run --separate-stderr -75 with RECOVERY_LOCK_TIMEOUT=0.2 RECOVERY_MAX_ATTEMPTS=1 -- \
    unshare --pid --fork --mount-proc "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-169A
  assert_stderr_has "held by pid" "another container"
  assert_open CC TASK-169A
  touch "$BATS_TEST_TMPDIR/go"
  wait "$pid"
  assert_completed CC TASK-168B
}

@test "27: a lock file that is a link: the victim is untouched, nothing is created, the command refuses" {
  local target
  echo precious >"$BATS_TEST_TMPDIR/victim"
  for target in "$BATS_TEST_TMPDIR/victim" "$BATS_TEST_TMPDIR/nothing" ../../victim outbox.json; do
    ln -sfn "$target" "$LOCK"
    refused 69 complete_task CC TASK-168B
    assert_stderr_has postbox/CC/.outbox.json.lock "not a regular file"
    assert_equal "$target" "$(readlink "$LOCK")"
  done
  assert_equal precious "$(<"$BATS_TEST_TMPDIR/victim")"
  assert_absent "$BATS_TEST_TMPDIR/nothing" "$ROOT/victim"
}

@test "27: the commit lock too" {
  mkdir "$ROOT/data"
  echo precious >"$BATS_TEST_TMPDIR/victim"
  ln -s "$BATS_TEST_TMPDIR/victim" "$ROOT/data/.commit.lock"
  refused 69 complete_task CC TASK-168B
  assert_stderr_has .commit.lock
  assert_equal precious "$(<"$BATS_TEST_TMPDIR/victim")"
}

@test "28: a lock file that is a folder, or a fifo, is refused at once" {
  mkdir "$LOCK"
  refused 69 timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has postbox/CC/.outbox.json.lock
  rmdir "$LOCK"
  mkfifo "$LOCK"
  refused 69 timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has postbox/CC/.outbox.json.lock "not a regular file"
  rm "$LOCK"
}

@test "28: a lock file that may not be opened is refused, and says so" {
  touch "$LOCK"
  chmod 000 "$LOCK"
  if ((EUID == 0)); then
    refused 77 as_plain_root "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  else
    refused 77 complete_task CC TASK-168B
  fi
  assert_stderr_has postbox/CC/.outbox.json.lock permission
}

@test "28: a lock file that may only be read still locks" {
  touch "$LOCK"
  chmod 444 "$LOCK"
  if ((EUID == 0)); then
    runs as_plain_root "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  else
    runs complete_task CC TASK-168B
  fi
  assert_completed CC TASK-168B
}

@test "23: a holder that is stopped is waited for, however old its lock file looks" {
  hold "$LOCK"
  kill -STOP "${STARTED[-1]}"
  touch -d '2001-01-01' "$LOCK"
  export RECOVERY_LOCK_TIMEOUT=0.2 RECOVERY_MAX_ATTEMPTS=1
  refused 75 complete_task CC TASK-168B
  assert_exists "$LOCK"
  kill -CONT "${STARTED[-1]}"
}

@test "60: a child of the data lock's holder is told at once, with the holder's name" {
  export RECOVERY_LOCK_TIMEOUT=30 RECOVERY_MAX_ATTEMPTS=1
  refused 75 timeout 10 flock "$LOCK" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "postbox/CC/.outbox.json.lock is held by pid" flock
}

@test "60: the same with the default of three tries" {
  export RECOVERY_LOCK_TIMEOUT=30
  refused 75 timeout 10 flock "$LOCK" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "is held by pid"
  [[ $stderr != *"try 1 of 3"* ]] || fail "waiting for oneself is tried again: $stderr"
}

@test "60: a grandchild too" {
  export RECOVERY_LOCK_TIMEOUT=30 RECOVERY_MAX_ATTEMPTS=1
  refused 75 timeout 10 flock "$LOCK" sh -c '"$@"; exit $?' sh sh -c '"$@"; exit $?' sh \
    "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "is held by pid"
}

@test "a lock file is never truncated and never unlinked" {
  local before
  printf '%4000s\n' "somebody's words" >"$LOCK"
  before=$(stat -c '%i %s' "$LOCK")
  runs complete_task CC TASK-168B
  runs complete_task CC TASK-168B
  assert_equal "$before" "$(stat -c '%i %s' "$LOCK")"
}

@test "a lock is let go when the command ends, whatever its end" {
  runs complete_task CC TASK-168B
  assert_locks_free
  run -66 complete_task CC TASK-999
  assert_locks_free
  crash_at stage complete_task CC TASK-169A
  assert_locks_free
}
