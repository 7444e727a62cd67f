#!/usr/bin/env bats

load test_helper

limited() { # <ulimit option> <value> <command>...; in a process of its own
  (
    ulimit "$1" "$2" || exit 99
    shift 2
    exec "$@"
  )
}

old_or_new() { # <exit code>; all files OLD after a refusal, all NEW after a success, and the retry works
  if (($1 == 0)); then
    assert_completed CC TASK-168B
  else
    assert_open CC TASK-168B
    assert_json .sprint/progress.json 'd["completed"], d["tasks"]["TASK-168B"]["status"]' "(1, 'pending')"
  fi
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 2
  assert_locks_free
  assert_no_stray_files "postbox/CC/outbox.json.backup_TASK-168B"
}

@test "55: files of at most n KiB, SIGXFSZ as it comes" {
  local size
  for size in 0 1 2 8 32 63 64 65; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/logs" "$ROOT"/postbox/CC/completed/* "$ROOT"/postbox/CC/*.backup_*
    run --separate-stderr limited -f "$size" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
    ((status < 128)) || fail "ulimit -f $size: exit $status, $stderr"
    old_or_new "$status"
  done
}

@test "55: files of at most n KiB, SIGXFSZ ignored" {
  local size
  trap '' XFSZ
  for size in 0 1 63; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/logs" "$ROOT"/postbox/CC/completed/* "$ROOT"/postbox/CC/*.backup_*
    run --separate-stderr limited -f "$size" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
    ((status < 128)) || fail "ulimit -f $size: exit $status, $stderr"
    old_or_new "$status"
  done
}

@test "55: an outbox that is larger than a file may be is refused in words" {
  given postbox/CC/outbox.json "{\"tasks\": [{\"task_id\": \"TASK-168B\", \"x\": \"$(repeat 100000 x)\"}]}"
  export RECOVERY_MAX_ATTEMPTS=1
  refused 74 limited -f 80 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "too large"
}

@test "55: twelve open files, and fewer" {
  local n
  for n in 12 10 9 8 7; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/logs" "$ROOT"/postbox/CC/completed/* "$ROOT"/postbox/CC/*.backup_*
    run --separate-stderr limited -n "$n" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
    [[ $stderr != *Traceback* && $stderr != *"this is a bug"* ]] || fail "$n: $stderr"
    old_or_new "$status"
  done
}

@test "55: a little memory" {
  run --separate-stderr limited -v 200000 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  old_or_new "$status"
}

@test "four hundred agents are gone through with few open files" {
  local n folders=()
  for n in {1..400}; do folders+=("$ROOT/postbox/A$n"); done
  mkdir "${folders[@]}"
  for n in "${folders[@]}"; do printf '{"tasks": []}\n' >"$n/outbox.json"; done
  local command
  for command in "bin/task_status.sh" "bin/health_check.sh outboxes" "bin/recovery sweep" "bin/recovery doctor -q" \
    "bin/recovery explain" "bin/recovery archive" "bin/recovery receipts verify" "bin/recovery cleanup" \
    "bin/recovery recover" "bin/recovery locks"; do
    # shellcheck disable=SC2086 # words of a command
    runs limited -n 128 "$SUITE"/$command
  done
  # what locks all of them needs more, and says so
  run --separate-stderr -69 limited -n 128 "$SUITE/bin/recovery" progress rebuild
  assert_stderr_has "files would have to be open at once" "ulimit -Hn"
}
