#!/usr/bin/env bats

load test_helper

@test "63: a completion that was rolled back is not done again" {
  runs complete_task CC TASK-168B first
  runs recovery rollback CC TASK-168B
  refused 65 complete_task CC TASK-168B second
  assert_stderr_has "rolled back at" "Nothing changed." "--again"
  assert_open CC TASK-168B
}

@test "63: with --again it is, once" {
  runs complete_task CC TASK-168B first
  runs recovery rollback CC TASK-168B
  runs complete_task --again CC TASK-168B second
  assert_completed CC TASK-168B second
  assert_json .sprint/progress.json 'd["completed"]' 2
  runs complete_task --again CC TASK-168B third
  assert_output_has "already completed" "nothing changed"
  assert_json .sprint/progress.json 'd["completed"]' 2
  assert_no_stray_files
}

@test "63: an assignment that was rolled back is not done again, with --again it is" {
  runs assign_task CC TASK-9 "New" LOW
  runs recovery rollback CC TASK-9
  refused 65 assign_task CC TASK-9 "New" LOW
  assert_stderr_has "--again"
  runs assign_task --again CC TASK-9 "New" LOW
  assert_equal pending "$(task CC TASK-9)"
}

@test "63: a task that is in the archive is told so, and not assigned anew" {
  given postbox/CC/outbox.json \
    '{"tasks": [], "history": [{"task_id": "T-1", "status": "completed", "timestamp": "2025-05-01T00:00:00Z"}]}'
  runs complete_task CC T-1
  assert_output_has "already completed"
  refused 65 assign_task CC T-1 "again" LOW
  assert_stderr_has "completed before"
}

@test "--again for a task that was never rolled back is an ordinary completion" {
  runs complete_task --again CC TASK-168B
  assert_completed CC TASK-168B
}
