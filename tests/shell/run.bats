#!/usr/bin/env bats

load test_helper

# recovery run: claim a task, run a command for it, complete or fail it.

waiting() { # a command that says that it runs, and waits
  mkfifo go
  # shellcheck disable=SC2016 # for sh
  WAITING=(sh -c 'echo $$ >ready; read -r _ <go; echo all good')
}

claim_of() { # <agent> <task> <python expression of c>
  json "$ROOT/postbox/$1/outbox.json" "(lambda c: $3)({t['task_id']: t for t in d['tasks']}['$2'].get('claim'))"
}

lock_of() { # <agent> <task> <generation>
  printf '%s/data/claims/%s/%s.g%d.lock' "$ROOT" "$@"
}

@test "a command that succeeds completes its task, with the last line that it wrote" {
  runs recovery run CC TASK-168B -- sh -c 'echo working; echo "all 12 green"; echo'
  assert_output $'working\nall 12 green'
  assert_completed CC TASK-168B "all 12 green"
  assert_equal done "$(claim_of CC TASK-168B 'c["state"]')"
  assert_absent "$(lock_of CC TASK-168B 1)"
  assert_stderr_has "claimed CC/TASK-168B" "completed CC/TASK-168B"
}

@test "-m says the message instead" {
  runs recovery run -m "by hand" CC TASK-168B -- echo no
  assert_completed CC TASK-168B "by hand"
}

@test "the command knows for whom it works, and may end the claim itself: that stands" {
  # shellcheck disable=SC2016 # for sh
  runs recovery run CC/TASK-168B -- sh -c 'echo "$RECOVERY_AGENT $RECOVERY_TASK $RECOVERY_CLAIM"; "$1" complete "$RECOVERY_AGENT" "$RECOVERY_TASK" mine >&2' sh "$SUITE/bin/recovery"
  assert_output "CC TASK-168B CC/TASK-168B:1"
  assert_completed CC TASK-168B mine
  runs recovery assign CA TASK-1 "A title" LOW
  # shellcheck disable=SC2016
  run --separate-stderr -3 recovery run --attempts 2 CA TASK-1 -- \
    sh -c 'echo x >>tries; "$1" complete CA TASK-1 mine >&2; exit 3' sh "$SUITE/bin/recovery"
  assert_completed CA TASK-1 mine
  assert_equal 1 "$(wc -l <tries)"
  rm tries
}

@test "a command that fails to the last fails its task, with what it said" {
  run --separate-stderr -9 recovery run --attempts 2 CC TASK-168B -- sh -c 'echo "no disk" >&2; exit 9'
  assert_equal failed "$(task CC TASK-168B)"
  assert_equal "sh exited with 9: no disk (2 tries)" "$(task CC TASK-168B failure_reason)"
  assert_equal 3 "$(wc -l <"$ROOT/logs/recovery/TASK-168B_recovery.jsonl")"
}

@test "tried again until it works, it completes its task" {
  # shellcheck disable=SC2016
  runs recovery run CC TASK-168B -- sh -c 'echo x >>tries; test $(wc -l <tries) = 3'
  assert_completed CC TASK-168B
  rm tries
}

@test "one has the task, the others get 75 and take another" {
  waiting
  runs recovery assign CC TASK-1 "A title" LOW
  "$SUITE/bin/recovery" run CC TASK-168B -- "${WAITING[@]}" 3>&- &
  STARTED+=("$!")
  until_there ready
  refused 75 recovery run CC TASK-168B -- touch ran
  assert_absent ran
  runs recovery run CC --next --json -- true
  [[ $(json - 'd["task"]' <<<"$output") != TASK-168B ]]
  : >go
  ended_with 0
  assert_completed CC TASK-168B "all good"
  rm go ready
}

@test "what one has claimed oneself becomes the run's; another session's is refused" {
  runs with RECOVERY_SESSION=blue -- recovery claim CC TASK-168B
  refused 75 with RECOVERY_SESSION=red -- recovery run CC TASK-168B -- true
  runs with RECOVERY_SESSION=blue -- recovery run CC TASK-168B -- echo mine
  assert_stderr_has "generation 2, in place of your own claim (generation 1)"
  assert_completed CC TASK-168B mine
  runs with RECOVERY_SESSION=blue -- recovery claim --lease 1h CC TASK-169A
  waiting
  with RECOVERY_SESSION=blue -- "$SUITE/bin/recovery" run CC TASK-169A -- "${WAITING[@]}" 3>&- &
  STARTED+=("$!")
  until_there ready
  refused 75 with RECOVERY_SESSION=blue -- recovery run CC TASK-169A -- true # a run it is by now, and one at a time
  : >go
  ended_with 0
  assert_completed CC TASK-169A "all good"
  rm go ready
}

@test "a task that is completed already is left at that, and it is a success" {
  runs recovery run CC TASK-165C -- touch ran
  assert_output "already completed CC/TASK-165C; nothing was run"
  assert_absent ran
}

@test "bad words and unknown tasks are refused before anything is run" {
  refused 64 recovery run CC TASK-168B
  refused 64 recovery run CC -- touch ran
  refused 64 recovery run --next -- touch ran
  refused 64 recovery run CC TASK-168B --attempts 0 -- touch ran
  refused 64 recovery run CC ../x -- touch ran
  refused 66 recovery run CC TASK-999 -- touch ran
  refused 66 recovery run XX --next -- touch ran
  assert_absent ran
}

@test "a command that isn't there fails the task, 127" {
  run --separate-stderr -127 recovery run CC TASK-168B -- no-such-command
  assert_equal failed "$(task CC TASK-168B)"
}

@test "INT, TERM and HUP reach the command's group, and the task is pending again" {
  local signal number
  waiting
  for signal in TERM:143 HUP:129; do
    number=${signal#*:} signal=${signal%:*}
    "$SUITE/bin/recovery" run CC TASK-168B -- "${WAITING[@]}" 3>&- &
    STARTED+=("$!")
    until_there ready
    kill "-$signal" "${STARTED[-1]}"
    ended_with "$number"
    assert_gone "$(cat ready)"
    assert_equal pending "$(task CC TASK-168B)"
    assert_equal "released stopped by SIG$signal" "$(claim_of CC TASK-168B 'c["state"] + " " + c["why"]')"
    rm ready
  done
  rm go
}

@test "killed with -9, the claim stands as long as the command lives, and nobody can take it" {
  waiting
  "$SUITE/bin/recovery" run CC TASK-168B -- "${WAITING[@]}" 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -KILL "${STARTED[-1]}"
  ended_with 137
  refused 75 recovery run CC TASK-168B -- true
  run flock -n "$(lock_of CC TASK-168B 1)" true
  ((status == 1))
  : >go
  until flock -n "$(lock_of CC TASK-168B 1)" true; do read -rt 0.01 _ <> <(:) || :; done
  assert_open CC TASK-168B
  runs recovery run CC TASK-168B -- echo "second owner"
  assert_completed CC TASK-168B "second owner"
  assert_equal 2 "$(claim_of CC TASK-168B 'c["generation"]')"
  rm go ready
}

@test "the command's whole group killed with -9: that is a failed try" {
  waiting
  "$SUITE/bin/recovery" run --attempts 1 CC TASK-168B -- "${WAITING[@]}" 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -KILL -- "-$(cat ready)"
  ended_with 137
  assert_equal failed "$(task CC TASK-168B)"
  rm go ready
}

@test "a command that closes the lock's descriptor is known by its process group" {
  mkfifo go
  # shellcheck disable=SC2016 # for bash
  "$SUITE/bin/recovery" run CC TASK-168B -- bash -c 'for fd in /proc/self/fd/*; do fd=${fd##*/}; ((fd < 3)) || eval "exec $fd>&-"; done
    echo $$ >ready; read -r _ <go' 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -KILL "${STARTED[-1]}"
  ended_with 137
  flock -n "$(lock_of CC TASK-168B 1)" true
  refused 75 recovery run CC TASK-168B -- true
  assert_stderr_has "claimed by recovery run"
  : >go
  until [[ ! -e /proc/$(cat ready) ]]; do read -rt 0.01 _ <> <(:) || :; done
  runs recovery run CC TASK-168B -- true
  assert_completed CC TASK-168B
  rm go ready
}

@test "a daemon that is left behind is named, and has nothing to say any more" {
  mkfifo go
  # shellcheck disable=SC2016
  runs recovery run --json CC TASK-168B -- \
    sh -c '(read -r _ <go; "$1" complete CC TASK-168B late; echo $? >code) >/dev/null 2>&1 3>&- & echo done' sh "$SUITE/bin/recovery"
  assert_output_json 'd["status"], len(d["stragglers"])' "('completed', 1)"
  assert_stderr_has "left behind by the command"
  assert_completed CC TASK-168B done
  : >go
  until_there code
  assert_completed CC TASK-168B done
  rm go code
}

@test "a claim that was taken away meanwhile: 76, and the new owner's work stands" {
  waiting
  "$SUITE/bin/recovery" run CC TASK-168B -- "${WAITING[@]}" 2>said 3>&- &
  STARTED+=("$!")
  until_there ready
  runs recovery release --force CC TASK-168B
  runs recovery claim --lease 1h CC TASK-168B
  : >go
  ended_with 76
  assert_open CC TASK-168B
  rm go ready said
}

@test "an open breaker gives the task back" {
  runs recovery breaker trip api
  run --separate-stderr -69 recovery run --breaker api CC TASK-168B -- touch ran
  assert_equal pending "$(task CC TASK-168B)"
  assert_absent ran
}

@test "killed at any step, the task is completed by a repeat, once" {
  local step
  for step in claim-locked journal-synced replaced command-started committed; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/postbox/CC/completed" "$ROOT/data" "$ROOT/logs"
    run --separate-stderr with RECOVERY_FAULT="$step=kill" -- recovery run CC TASK-168B -- echo first
    until ! pgrep -f "echo first" >/dev/null; do read -rt 0.01 _ <> <(:) || :; done
    runs recovery recover
    runs recovery run CC TASK-168B -- echo again
    assert_completed CC TASK-168B
  done
}

@test "in a pid namespace of its own a command keeps its claim until it ends" {
  require_root
  unshare --pid --fork --mount-proc true 2>/dev/null || skip "no namespaces here"
  waiting
  "$SUITE/bin/recovery" run CC TASK-168B -- unshare --pid --fork --mount-proc "${WAITING[@]}" 3>&- &
  STARTED+=("$!")
  until_there ready
  refused 75 recovery run CC TASK-168B -- true
  : >go
  ended_with 0
  assert_completed CC TASK-168B "all good"
  rm go ready
}

@test "a run of the same task inside of a run is refused, and takes nothing from the outer one" {
  runs recovery run CC TASK-168B -- sh -c '
    "$1" run CC TASK-168B -- true >/dev/null 2>&1
    echo "inner $?"
    RECOVERY_CLAIM= RECOVERY_SESSION=other "$1" claim CC TASK-168B >/dev/null 2>&1
    echo "claim $?"
    echo "done by the outer one"' sh "$SUITE/bin/recovery"
  assert_output_has "inner 75" "claim 75"
  assert_completed CC TASK-168B
}
