#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

load test_helper

@test "--json says what was done in one object" {
  runs complete_task --json CC TASK-168B
  assert_output_json 'd["ok"], d["code"], d["changed"], d["agent"], d["task"], d["status"], d["previous_status"]' \
    "(True, 0, True, 'CC', 'TASK-168B', 'completed', 'pending')"
  assert_output_json 'sorted(d["files"])' \
    "['.sprint/progress.json', 'postbox/CC/completed/TASK-168B_completion.json', 'postbox/CC/outbox.json']"
  assert_equal "" "$stderr"
}

@test "--json for a repeated completion says that nothing changed" {
  runs complete_task --json CC TASK-165C
  assert_output_json 'd["ok"], d["code"], d["changed"]' "(True, 0, False)"
}

@test "--json behind the message is still the option" {
  runs complete_task CC TASK-168B "message" --json
  assert_output_json 'd["changed"]' True
  assert_completed CC TASK-168B message
}

@test "--json for an error is one object with code, error, hint and next" {
  refused 66 complete_task --json CC TASK-999
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
  assert_output_json '"CC has no TASK-999" in d["error"] and "Nothing changed" in d["error"]' True
  assert_output_json 'bool(d["hint"]) and bool(d["next"])' True
}

@test "--json for a usage error is one object too" {
  refused 64 complete_task --json CC
  assert_output_json 'd["ok"], d["code"]' "(False, 64)"
  refused 64 complete_task --json --nonsense CC TASK-168B
  assert_output_json 'd["ok"], d["code"]' "(False, 64)"
}

@test "--json for a bad value in the environment is one object too" {
  export RECOVERY_MAX_ATTEMPTS=many
  refused 64 complete_task --json CC TASK-168B
  assert_output_json 'd["ok"], d["code"]' "(False, 64)"
}

@test "--json is one object when every try fails" {
  # each try stages once, and so does the count of it in the retry budget
  export RECOVERY_MAX_ATTEMPTS=3 RECOVERY_FAULT=stage:1=EIO,stage:2=EIO,stage:3=EIO,stage:4=EIO,stage:5=EIO
  run --separate-stderr -74 complete_task --json CC TASK-168B
  assert_output_json 'd["ok"], d["code"]' "(False, 74)"
  assert_stderr_has "try 1 of 3" "try 2 of 3"
  assert_open CC TASK-168B
}

@test "--json is one object when a later try succeeds" {
  hold "$ROOT/postbox/CC/.outbox.json.lock"
  mkfifo told
  with RECOVERY_LOCK_TIMEOUT=0.2 RECOVERY_MAX_ATTEMPTS=9999 RECOVERY_RETRY_DELAY=0.01 -- \
    complete_task --json CC TASK-168B >out 2>told 3>&- &
  local pid=$! line
  exec {told}<told
  while IFS= read -r -u "$told" line; do
    [[ $line != *"try 1 of"* ]] || break
  done
  let_go
  cat <&"$told" >/dev/null
  wait "$pid"
  output=$(<out)
  assert_output_json 'd["ok"], d["changed"]' "(True, True)"
  rm out told
  assert_no_stray_files
}

@test "-q says nothing on success" {
  runs complete_task -q CC TASK-168B
  assert_output ""
  assert_equal "" "$stderr"
  assert_completed CC TASK-168B
}

@test "-q still says why it refuses" {
  refused 66 complete_task --quiet CC TASK-999
  assert_output ""
  assert_stderr_has "CC has no TASK-999"
}

@test "-v names each file written and where it is recorded" {
  runs complete_task -v CC TASK-168B
  assert_output_has "completed CC/TASK-168B" "postbox/CC/outbox.json" \
    "postbox/CC/completed/TASK-168B_completion.json" ".sprint/progress.json" "data/changes/"
}

@test "--dry-run says what would be done and changes and creates nothing" {
  find "$ROOT" "$BATS_TEST_TMPDIR/lock dir" -printf '%p %m %i %T@ %C@\n' >before 2>/dev/null || :
  runs complete_task --dry-run CC TASK-168B
  assert_output "would complete CC/TASK-168B (pending -> completed); 3 files; nothing changed"
  find "$ROOT" "$BATS_TEST_TMPDIR/lock dir" -printf '%p %m %i %T@ %C@\n' >after 2>/dev/null || :
  run -0 diff before after
  rm before after
  assert_no_stray_files
}

@test "--dry-run refuses what the real run would refuse" {
  given postbox/CA/outbox.json '{"tasks": [}'
  refused 66 complete_task --dry-run CC TASK-999
  refused 65 complete_task --dry-run CA TASK-168C
  refused 64 complete_task --dry-run CC ..
  assert_absent "$ROOT/data" "$ROOT/postbox/CC/.outbox.json.lock" "$ORCHESTRATION_LOCK_DIR"
}

@test "--dry-run --json says so" {
  runs complete_task --dry-run --json CC TASK-168B
  assert_output_json 'd["ok"], d["changed"], d["dry_run"], len(d["files"])' "(True, False, True, 3)"
  assert_open CC TASK-168B
}

@test "--keep-backup leaves the outbox as it was beside it" {
  cp "$ROOT/postbox/CC/outbox.json" before
  runs complete_task --keep-backup CC TASK-168B
  cmp before "$ROOT/postbox/CC/outbox.json.backup_TASK-168B"
  rm before
  assert_no_stray_files "postbox/CC/outbox.json.backup_TASK-168B"
}

@test "--keep-backup doesn't overwrite an older backup that differs" {
  given postbox/CC/outbox.json.backup_TASK-168B "the only good copy somebody has"
  runs complete_task --keep-backup CC TASK-168B
  assert_equal "the only good copy somebody has" "$(<"$ROOT/postbox/CC/outbox.json.backup_TASK-168B.1")"
  assert_exists "$ROOT/postbox/CC/outbox.json.backup_TASK-168B"
}

@test "an older backup that differs survives a success without --keep-backup" {
  given postbox/CC/outbox.json.backup_TASK-168B "the only good copy somebody has"
  runs complete_task CC TASK-168B
  run -0 grep -rlx "the only good copy somebody has" "$ROOT/postbox/CC"
  assert_no_stray_files "postbox/CC/outbox.json.backup_TASK-168B*"
}

@test "-C names the workspace" {
  fill_workspace "$BATS_TEST_TMPDIR/other"
  runs complete_task -C "$BATS_TEST_TMPDIR/other" CC TASK-168B
  assert_open CC TASK-168B
  ROOT=$BATS_TEST_TMPDIR/other
  assert_completed CC TASK-168B
}

@test "an unknown option is refused" {
  refused 64 complete_task --frobnicate CC TASK-168B
  assert_stderr_has "unknown option" "--frobnicate"
  refused 64 complete_task CC TASK-168B message --frobnicate
  assert_open CC TASK-168B
}

@test "too many words are refused, with the advice to quote" {
  refused 64 complete_task CC TASK-168B two words
  assert_stderr_has "too many words" "quotes"
}

@test "no words, one word, an option without its value are refused" {
  refused 64 complete_task
  refused 64 complete_task CC
  refused 64 complete_task CC TASK-168B -m
  refused 64 complete_task CC TASK-168B -C
}

@test "a message given twice is refused" {
  refused 64 complete_task -m one CC TASK-168B two
}

@test "bad numbers in the environment are refused by name" {
  local name
  for name in RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE; do
    refused 64 with "$name=soon" -- complete_task CC TASK-168B
    assert_stderr_has "$name"
    refused 64 with "$name=-1" -- complete_task CC TASK-168B
    assert_stderr_has "$name"
  done
}

@test "durations may have a unit" {
  runs with RECOVERY_DEADLINE=1m RECOVERY_LOCK_TIMEOUT=30s RECOVERY_RETRY_DELAY=0.5s -- complete_task CC TASK-168B
  assert_completed CC TASK-168B
}

@test "RECOVERY_MAX_ATTEMPTS counts all tries" {
  export RECOVERY_FAULT=stage:1=EIO,stage:2=EIO,stage:3=EIO RECOVERY_MAX_ATTEMPTS=1
  run --separate-stderr -74 complete_task CC TASK-168B
  [[ $stderr != *"try 1"* ]]
  export RECOVERY_MAX_ATTEMPTS=2
  run --separate-stderr -74 complete_task CC TASK-168B
  assert_stderr_has "try 1 of 2"
  [[ $stderr != *"try 2"* ]]
  assert_open CC TASK-168B
}

@test "RECOVERY_DEBUG=1 traces to stderr and leaves stdout alone" {
  runs with RECOVERY_DEBUG=1 -- complete_task CC TASK-168B
  assert_output "completed CC/TASK-168B (pending -> completed); 3 files, read back"
  assert_stderr_has locked journal replace verified
}
