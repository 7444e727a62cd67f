#!/usr/bin/env bats

load test_helper

# What waits for a person: escalations, parked tasks, calls whose outcome nobody knows.

in_python() { # <code>; `manager`, and a function that dies in the middle of its call
  "$SUITE/.venv/bin/python" -I -c '
import logging, os, sys
sys.path.insert(0, sys.argv[1])
from recovery_manager import RecoveryManager
logging.disable()
manager = RecoveryManager(sys.argv[2], initial_retry_delay=0)
def denied():
    raise PermissionError("no entry")
def dies():
    os._exit(9)
'"$1" "$SUITE/py" "$ROOT"
}

given_escalation() { # <task> [<reason>]
  in_python "
try:
    manager.execute_with_recovery('$1', lambda: (_ for _ in ()).throw(PermissionError('${2:-no entry}')), strategy='ESCALATE')
except Exception:
    pass"
}

given_parked() { # <task>
  in_python "
try:
    manager.execute_with_recovery('$1', denied, strategy='MANUAL')
except Exception:
    pass"
}

given_unknown() { # <task> <key>
  run -9 in_python "manager.execute_with_recovery('$1', dies, idempotency_key='$2')"
}

next_of() { # <list> <index>; the command that is said to be run next
  json - "d['$1'][$2]['next']" <<<"$output"
}

everything() { # a checksum of all there is in the workspace, locks apart
  (cd "$ROOT" && find . -type f ! -name '.*.lock' ! -name '.*.turn' -exec sha256sum {} + | sort | sha256sum)
}

@test "nothing waits: said, and nothing made" {
  runs recovery escalations
  assert_output "nothing waits for a person"
  runs recovery escalations list --json
  assert_output_json 'd["ok"], d["escalations"], d["parked"], d["unknown"]' "(True, [], [], [])"
  assert_absent "$ROOT/data" "$ROOT/logs"
}

@test "all that waits is listed, and the commands it names deal with all of it" {
  local before list
  given_escalation TASK-1
  given_parked TASK-2
  given_unknown TASK-3 'the key/1'
  before=$(everything)
  runs recovery escalations
  assert_output_has "1 open escalation, 1 parked task, 1 call of unknown outcome" \
    "PermissionError: no entry" "(nobody was told)" "escalations resolve TASK-1 0" \
    "escalations clear TASK-2" "once 'the key/1' --done"
  assert_equal "$before" "$(everything)"
  runs recovery escalations --json
  local all=$output
  for list in escalations parked unknown; do
    output=$all
    runs bash -c "$(printf 'recovery() { "%s" "$@"; }; ' "$SUITE/bin/recovery")$(next_of "$list" 0)"
  done
  runs recovery escalations
  assert_output "nothing waits for a person"
  assert_locks_free
}

@test "resolve moves a task's escalations away, all or one, and they stay listed with --all" {
  given_escalation TASK-1 "the first"
  given_escalation TASK-1 "the second"
  given_escalation TASK-2 "the third"
  runs recovery escalations resolve TASK-1 1 --dry-run
  assert_output_has "would resolve 1 of TASK-1"
  runs recovery escalations resolve TASK-1 1
  assert_output "resolved 1 of TASK-1: logs/recovery/resolved/TASK-1_escalation.json"
  runs recovery escalations
  assert_output_has "the first" "the third"
  [[ $output != *"the second"* ]]
  runs recovery escalations resolve TASK-1 --json
  assert_output_json 'd["changed"], d["escalations"]' "(True, ['logs/recovery/resolved/TASK-1_escalation.1.json'])"
  runs recovery escalations list --all
  assert_output_has "1 open escalation," "resolved:" "the first" "the second"
  runs recovery escalations --all --json
  assert_output_json 'len(d["escalations"]), len(d["resolved"])' "(1, 2)"
  refused 66 recovery escalations resolve TASK-1
  assert_stderr_has "TASK-1 has no open escalation"
  refused 66 recovery escalations resolve TASK-2 7
  refused 64 recovery escalations resolve TASK-2 -- -1
  refused 64 recovery escalations resolve ../x
}

@test "show tells all that is known of a task" {
  given_escalation TASK-1
  given_parked TASK-1
  runs recovery escalations show TASK-1
  assert_output_has logs/recovery/TASK-1_escalation.json '"error_message": "no entry"' "TASK-1 is parked: no entry"
  runs recovery escalations show CC/TASK-1 0 --json
  assert_output_json 'd["escalations"][0]["entry"]["error_type"]' PermissionError
  refused 66 recovery escalations show TASK-1 1
  refused 66 recovery escalations show TASK-2
}

@test "clear lets a parked task run again, and twice is a no-op" {
  given_parked TASK-1
  runs recovery escalations clear TASK-1 --dry-run
  assert_exists "$ROOT/data/manual/TASK-1.json"
  runs recovery escalations clear TASK-1
  assert_output_has "TASK-1 may be run again"
  assert_absent "$ROOT/data/manual/TASK-1.json"
  in_python 'print(manager.execute_with_recovery("TASK-1", lambda: "ran"))'
  runs recovery escalations clear TASK-1 --json
  assert_output_json 'd["ok"], d["changed"]' "(True, False)"
  assert_locks_free
}

@test "an escalation that can't be read is listed all the same, and can be resolved" {
  given logs/recovery/TASK-1_escalation.json '{"task_id": '
  runs recovery escalations
  assert_output_has "TASK-1" "is damaged"
  runs recovery escalations show TASK-1
  assert_output_has "is damaged"
  runs recovery escalations resolve TASK-1
  assert_equal '{"task_id": ' "$(cat "$ROOT/logs/recovery/resolved/TASK-1_escalation.json")"
}

@test "an escape code in an error's text can't reach the terminal" {
  given logs/recovery/TASK-1_escalation.json '{"error_type": "E", "error_message": "\u001b[31m\u009b31mred", "timestamp": "\u001b[31m"}'
  runs recovery escalations
  [[ $output != *$'\e'* && $output != *$'\xc2\x9b'* ]]
  runs recovery escalations show TASK-1
  [[ $output != *$'\e'* && $output != *$'\xc2\x9b'* ]]
}

@test "notify tells of what nobody was told of, once" {
  given_escalation TASK-1
  given_escalation TASK-2
  export RECOVERY_NOTIFY_CMD="tee -a '$BATS_TEST_TMPDIR/told'"
  runs recovery escalations notify --dry-run
  assert_output_has "would tell of 2"
  assert_absent "$BATS_TEST_TMPDIR/told"
  runs recovery escalations notify
  assert_output "told of 2"
  assert_equal 2 "$(grep -c '"error_type": "PermissionError"' "$BATS_TEST_TMPDIR/told")"
  runs recovery escalations notify --json
  assert_output_json 'd["changed"], d["told"], d["left"]' "(False, [], [])"
  assert_equal 2 "$(wc -l <"$BATS_TEST_TMPDIR/told")"
  runs recovery escalations
  [[ $output != *"nobody was told"* ]]
}

@test "notify that reaches nobody ends with 1, and the next one tells" {
  given_escalation TASK-1
  refused 64 recovery escalations notify
  assert_stderr_has RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL
  run --separate-stderr -1 with RECOVERY_NOTIFY_CMD=false -- recovery escalations notify --json
  assert_output_json 'd["ok"], d["code"], d["changed"], len(d["left"]), bool(d["next"])' "(False, 1, False, 1, True)"
  assert_stderr_has "the command false" "nobody could be told of 1"
  runs with RECOVERY_NOTIFY_CMD=true -- recovery escalations notify
  assert_output "told of 1"
}

@test "once --done: the call is not made again; --undone: the next run makes it" {
  given_unknown TASK-1 pay-1
  given_unknown TASK-2 -odd
  runs recovery once pay-1 --done --dry-run
  assert_json data/once/pay-1.json 'd["state"]' started
  runs recovery once pay-1 --done
  assert_output "noted pay-1 as done"
  run -0 in_python 'print(manager.execute_with_recovery("TASK-1", dies, idempotency_key="pay-1"))'
  assert_output None
  runs recovery once --undone -- -odd
  run -0 in_python 'print(manager.execute_with_recovery("TASK-2", lambda: "made", idempotency_key="-odd"))'
  assert_output made
  assert_locks_free
}

@test "a task that is parked for a call of unknown outcome: first the call, then the task" {
  given_unknown TASK-1 pay-1
  run in_python 'manager.execute_with_recovery("TASK-1", dies, idempotency_key="pay-1")'
  runs recovery escalations --json
  assert_output_json 'd["parked"][0]["next"]' "recovery -C '$ROOT' once pay-1 --done  # or --undone"
  runs recovery once pay-1 --undone
  assert_output_has "TASK-1 is still parked" "escalations clear TASK-1"
}

@test "a key that isn't there, or whose outcome is known, is not found" {
  refused 66 recovery once pay-1 --done
  given_unknown TASK-1 pay-1
  runs recovery once pay-1 --done
  refused 66 recovery once pay-1 --done
  assert_stderr_has "is known: done at"
  refused 66 recovery once pay-1 --undone --json
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
  refused 64 recovery once pay-1
  refused 64 recovery once pay-1 --done --undone
  refused 64 recovery once '' --done
}

@test "a call that is being made is nobody's to settle, and isn't listed" {
  mkfifo "$BATS_TEST_TMPDIR/made" "$BATS_TEST_TMPDIR/go-on"
  in_python "
def slow():
    open('$BATS_TEST_TMPDIR/made', 'w').close()
    open('$BATS_TEST_TMPDIR/go-on').close()
manager.execute_with_recovery('TASK-1', slow, idempotency_key='pay-1')" 3>&- &
  STARTED+=("$!")
  : <"$BATS_TEST_TMPDIR/made"
  runs recovery escalations --json
  assert_output_json 'd["unknown"]' "[]"
  refused 75 recovery once pay-1 --done
  assert_stderr_has "is being made by pid"
  : >"$BATS_TEST_TMPDIR/go-on"
  wait "${STARTED[-1]}"
  unset 'STARTED[-1]'
  assert_json data/once/pay-1.json 'd["state"]' done
}

@test "a damaged record is listed, and not settled" {
  given data/once/pay-1.json '{"format": 1, '
  runs recovery escalations
  assert_output_has "pay-1" "is damaged"
  refused 65 recovery once pay-1 --done
  assert_equal '{"format": 1, ' "$(cat "$ROOT/data/once/pay-1.json")"
}

@test "with -C the commands to run next name the workspace" {
  given_parked TASK-1
  unset ORCHESTRATION_ROOT
  runs recovery -C "$ROOT" escalations
  assert_output_has "recovery -C '$ROOT' escalations clear TASK-1"
}
