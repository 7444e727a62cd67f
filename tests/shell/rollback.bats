#!/usr/bin/env bats

load test_helper

@test "gives all files back, byte for byte" {
  remember_tree
  runs complete_task CC TASK-168B
  runs recovery rollback CC TASK-168B
  assert_output_has "rolled back CC/TASK-168B (complete of 20" "3 files, read back"
  assert_unchanged
  assert_no_stray_files
  assert_locks_free
}

@test "gives all files back, byte for byte, for an assignment" {
  remember_tree
  runs assign_task CC TASK-1 title LOW
  runs recovery rollback CC TASK-1
  assert_unchanged
  assert_no_stray_files
}

@test "gives the bytes back whatever their spacing" {
  local text
  for text in '{"tasks":[{"task_id":"TASK-168B"}]}' $'{"tasks": [ { "task_id" : "TASK-168B",\n"status":null } ]\n}' \
    '{"tasks": [{"status": "pending", "completed_at": null, "task_id": "TASK-168B", "completion_message": ""}]}'; do
    rm -rf "$ROOT/data"
    given postbox/CC/outbox.json "$text"
    remember_tree
    runs complete_task CC TASK-168B
    runs recovery rollback CC TASK-168B
    assert_unchanged
  done
}

@test "an assignment into an empty list is taken back to the very bytes" {
  given postbox/CC/outbox.json $'{"tasks": [ \n ], "history": []}'
  remember_tree
  runs assign_task CC TASK-1 title LOW
  runs recovery rollback CC TASK-1
  assert_unchanged
}

@test "takes the first outbox of an agent away again" {
  runs assign_task NEW TASK-1 title LOW
  runs recovery rollback NEW TASK-1
  assert_absent "$ROOT/postbox/NEW/outbox.json" "$ROOT/postbox/NEW/inbox/TASK-1.md"
}

@test "twice is a no-op that says so" {
  runs complete_task CC TASK-168B
  runs recovery rollback CC TASK-168B
  remember_tree
  runs recovery rollback CC TASK-168B
  assert_output_has "already rolled back CC/TASK-168B (complete)" "nothing changed"
  assert_unchanged
  assert_no_stray_files
}

@test "where somebody has put everything back by hand it is a no-op that says so" {
  cp -r "$ROOT" "$BATS_TEST_TMPDIR/before"
  runs complete_task CC TASK-168B
  cp "$BATS_TEST_TMPDIR/before/postbox/CC/outbox.json" "$ROOT/postbox/CC/outbox.json"
  cp "$BATS_TEST_TMPDIR/before/.sprint/progress.json" "$ROOT/.sprint/progress.json"
  rm "$ROOT/postbox/CC/completed/TASK-168B_completion.json"
  remember_tree
  runs recovery rollback --dry-run CC TASK-168B
  runs recovery rollback CC TASK-168B
  assert_output_has "nothing is left of CC/TASK-168B (complete of 20" "nothing changed"
  assert_unchanged
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
}

@test "takes AGENT/TASK and RECOVERY_AGENT like the others" {
  runs complete_task CC TASK-168B
  runs recovery rollback CC/TASK-168B
  assert_open CC TASK-168B
  runs complete_task --again CC TASK-168B
  runs with RECOVERY_AGENT=CC -- recovery rollback TASK-168B
  assert_open CC TASK-168B
}

@test "leaves what others did to the same files since" {
  runs complete_task CC TASK-168B
  runs complete_task CC TASK-169A "meanwhile"
  runs assign_task CC TASK-1 "new" LOW
  runs complete_task CA TASK-168C
  runs recovery rollback CC TASK-168B
  assert_open CC TASK-168B
  assert_completed CC TASK-169A meanwhile
  assert_completed CA TASK-168C
  assert_equal pending "$(task CC TASK-1)"
  assert_json .sprint/progress.json 'd["completed"], d["tasks"]["TASK-168B"]["status"]' "(3, 'pending')"
}

@test "leaves an edit of another field of the same task" {
  runs complete_task CC TASK-168B
  sed -i 's/"CRITICAL"/"LOW"/' "$ROOT/postbox/CC/outbox.json"
  runs recovery rollback CC TASK-168B
  assert_equal "pending LOW" "$(task CC TASK-168B) $(task CC TASK-168B priority)"
}

@test "refuses where somebody changed the same field since, with both values" {
  runs complete_task CC TASK-168B "ours"
  sed -i 's/"ours"/"theirs"/' "$ROOT/postbox/CC/outbox.json"
  refused 65 recovery rollback CC TASK-168B
  assert_stderr_has postbox/CC/outbox.json "changed by somebody since" theirs ours "Nothing changed."
}

@test "refuses where the completion record was changed since" {
  runs complete_task CC TASK-168B "ours"
  echo '{"status": "completed", "mine": 1}' >"$ROOT/postbox/CC/completed/TASK-168B_completion.json"
  refused 65 recovery rollback CC TASK-168B
  assert_stderr_has completed/TASK-168B_completion.json "Nothing changed."
}

@test "refuses a damaged outbox" {
  runs complete_task CC TASK-168B
  given postbox/CC/outbox.json '{"tasks": ['
  refused 65 recovery rollback CC TASK-168B
}

@test "refuses where the outbox is gone" {
  runs complete_task CC TASK-168B
  rm "$ROOT/postbox/CC/outbox.json"
  run --separate-stderr recovery rollback CC TASK-168B
  ((status == 65 || status == 66))
  assert_exists "$ROOT/postbox/CC/completed/TASK-168B_completion.json"
  assert_json .sprint/progress.json 'd["completed"]' 2
}

@test "refuses a task of which no change is recorded" {
  refused 66 recovery rollback CC TASK-168B
  assert_stderr_has "no change of CC/TASK-168B is recorded" "Nothing changed."
  refused 66 recovery rollback XX TASK-168B
  assert_absent "$ROOT/postbox/XX"
}

@test "takes back the last change only: first the completion" {
  runs assign_task CC TASK-1 title LOW
  runs complete_task CC TASK-1
  runs recovery rollback CC TASK-1
  assert_open CC TASK-1
  assert_equal pending "$(task CC TASK-1)"
}

@test "a completion of another agent's task with the same id is another change" {
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "TASK-168B", "status": "pending"}]}'
  runs complete_task CC TASK-168B
  runs complete_task CA TASK-168B
  runs recovery rollback CC TASK-168B
  assert_open CC TASK-168B
  assert_equal completed "$(task CA TASK-168B)"
}

@test "--dry-run says what would be done and changes nothing" {
  runs complete_task CC TASK-168B
  find "$ROOT" -type f -printf '%p %i %s %T@\n' | sort >before
  runs recovery rollback --dry-run CC TASK-168B
  assert_output_has "would roll back CC/TASK-168B" "nothing changed"
  find "$ROOT" -type f -printf '%p %i %s %T@\n' | sort >after
  run -0 diff before after
}

@test "--json says what was done, and what was refused, in one object" {
  runs complete_task CC TASK-168B
  runs recovery rollback --json CC TASK-168B
  assert_output_json 'd["ok"], d["changed"], d["status"], len(d["files"])' "(True, True, 'rolled_back', 3)"
  runs recovery rollback --json CC TASK-168B
  assert_output_json 'd["ok"], d["changed"]' "(True, False)"
  refused 66 recovery rollback --json CC TASK-999
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
}

@test "a rollback is recorded like any change" {
  runs complete_task CC TASK-168B
  runs recovery rollback CC TASK-168B
  run -0 cat "$ROOT"/data/changes/*.jsonl
  assert_equal 2 "${#lines[@]}"
  assert_equal rollback "$(json - 'd["op"]' <<<"${lines[1]}")"
  assert_json data/checkpoints/TASK-168B_checkpoint.json 'd["state"]' rolled_back
}

@test "unknown options and too many words are refused" {
  refused 64 recovery rollback
  refused 64 recovery rollback CC
  refused 64 recovery rollback CC TASK-168B more
  refused 64 recovery rollback --again CC TASK-168B
}
