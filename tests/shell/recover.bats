#!/usr/bin/env bats

load test_helper

@test "nothing to recover is said, and nothing made" {
  runs recovery recover
  assert_output "nothing to recover"
  assert_absent "$ROOT/data" "$ROOT/logs"
}

@test "finishes a completion whose process died behind the commit point" {
  crash_at journal-synced complete_task CC TASK-168B "half done"
  assert_open CC TASK-168B
  runs recovery recover
  assert_output_has "recovered:" "finished \`complete CC/TASK-168B\`"
  assert_completed CC TASK-168B "half done"
  assert_json .sprint/progress.json 'd["completed"]' 2
  assert_no_stray_files
  assert_locks_free
}

@test "twice: the second finds nothing" {
  crash_at journal-synced complete_task CC TASK-168B
  runs recovery recover
  remember_tree
  runs recovery recover
  assert_output "nothing to recover"
  assert_unchanged
}

@test "finishes a completion of which one file was in place" {
  crash_at replaced complete_task CC TASK-168B
  runs recovery recover
  assert_completed CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 2
  assert_no_stray_files
}

@test "clears away what a process left that died before the commit point" {
  remember_tree
  crash_at recheck complete_task CC TASK-168B
  runs recovery recover
  assert_open CC TASK-168B
  assert_unchanged
  assert_no_stray_files
}

@test "the same command again finishes the commit, says so, and has one effect" {
  crash_at journal-synced complete_task CC TASK-168B "done"
  runs complete_task CC TASK-168B "done"
  assert_stderr_has "finished \`complete CC/TASK-168B\`"
  assert_completed CC TASK-168B "done"
  assert_json .sprint/progress.json 'd["completed"]' 2
  assert_no_stray_files
}

@test "another command on the same agent finishes it first" {
  crash_at journal-synced complete_task CC TASK-168B
  runs complete_task CC TASK-169A
  assert_stderr_has "finished \`complete CC/TASK-168B\`"
  assert_completed CC TASK-168B
  assert_completed CC TASK-169A
  assert_json .sprint/progress.json 'd["completed"]' 3
}

@test "the recovery is logged" {
  crash_at journal-synced complete_task CC TASK-168B
  runs recovery recover
  run -0 cat "$ROOT/logs/recovery/TASK-168B_recovery.jsonl"
  assert_equal "OwnerDied True" "$(json - 'd["error_type"] + " " + str(d["success"])' <<<"${lines[0]}")"
}

@test "--json says what was done in one object" {
  crash_at journal-synced complete_task CC TASK-168B
  runs recovery recover --json
  assert_output_json 'd["ok"], d["changed"], len(d["done"]) > 0' "(True, True, True)"
  runs recovery recover --json
  assert_output_json 'd["ok"], d["changed"], d["done"]' "(True, False, [])"
}

@test "-q says nothing" {
  crash_at journal-synced complete_task CC TASK-168B
  runs recovery recover -q
  assert_output ""
  assert_completed CC TASK-168B
}

@test "finishes an interrupted rollback" {
  remember_tree
  runs complete_task CC TASK-168B
  crash_at journal-synced recovery rollback CC TASK-168B
  runs recovery recover
  assert_unchanged
  assert_no_stray_files
}

@test "finishes an interrupted assignment to a new agent" {
  crash_at journal-synced assign_task NEW TASK-1 title LOW
  runs recovery recover
  assert_equal pending "$(task NEW TASK-1)"
  assert_exists "$ROOT/postbox/NEW/inbox/TASK-1.md"
  assert_json .sprint/progress.json 'd["total_tasks"]' 5
  assert_no_stray_files
}

@test "58: what a person put back after the crash is not silently done again" {
  crash_at replaced:2 complete_task --keep-backup CC TASK-168B
  cp "$ROOT/postbox/CC/outbox.json.backup_TASK-168B" "$ROOT/postbox/CC/outbox.json"
  assert_equal pending "$(task CC TASK-168B)"
  run --separate-stderr -65 complete_task CC TASK-168B
  assert_stderr_has "put back by somebody" "run the same command again"
  assert_open CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"], d["tasks"]["TASK-168B"]["status"]' "(1, 'pending')"
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 2
}

@test "58: recover too leaves what a person put back" {
  crash_at replaced:2 complete_task --keep-backup CC TASK-168B
  cp "$ROOT/postbox/CC/outbox.json.backup_TASK-168B" "$ROOT/postbox/CC/outbox.json"
  runs recovery recover
  assert_output_has "undid" "put back by somebody"
  assert_open CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 1
}

@test "words and unknown options are refused" {
  refused 64 recovery recover now
  refused 64 recovery recover --frobnicate
}

@test "a plain file among the agents' folders is no agent, and in nobody's way" {
  given postbox/NOTES.md "our notes"
  runs recovery recover
  assert_output "nothing to recover"
}
