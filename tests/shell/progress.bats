#!/usr/bin/env bats

load test_helper

@test "46: tasks as an object stays an object" {
  runs complete_task CC TASK-168B
  assert_json .sprint/progress.json 'type(d["tasks"]).__name__, d["tasks"]["TASK-168B"]["status"]' "('dict', 'completed')"
}

@test "46: tasks as a list stays a list" {
  given .sprint/progress.json '{"completed": 0, "tasks": [{"id": "X"}, {"id": "TASK-168B", "status": "pending"}]}'
  runs complete_task CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"], len(d["tasks"]), d["tasks"][1]["status"]' "(1, 2, 'completed')"
}

@test "46: no progress file" {
  rm "$ROOT/.sprint/progress.json"
  runs complete_task CC TASK-168B
  assert_absent "$ROOT/.sprint/progress.json"
}

@test "46: a progress file without tasks" {
  given .sprint/progress.json '{"sprint_id": "S"}'
  runs complete_task CC TASK-168B
  assert_equal completed "$(task CC TASK-168B)"
  json "$ROOT/.sprint/progress.json" d
}

@test "46: a task that is not listed is completed, and counted at most once" {
  runs complete_task CC TASK-169A
  assert_equal completed "$(task CC TASK-169A)"
  assert_json .sprint/progress.json 'd["completed"]' 2
  runs complete_task CC TASK-169A
  assert_json .sprint/progress.json 'd["completed"]' 2
}

@test "46: an assignment lists the task as the others are, object and list" {
  runs assign_task CC TASK-1 "One" LOW
  assert_json .sprint/progress.json 'd["tasks"]["TASK-1"]["status"], d["total_tasks"], d["pending"]' "('pending', 5, 2)"
  given .sprint/progress.json '{"total_tasks": 1, "tasks": [{"id": "X", "status": "pending"}]}'
  runs assign_task CC TASK-2 "Two" LOW
  assert_json .sprint/progress.json '[t["id"] for t in d["tasks"]], d["total_tasks"]' "(['X', 'TASK-2'], 2)"
}

@test "46: an entry of another agent with the same id is another task" {
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "TASK-168B", "status": "pending"}]}'
  runs complete_task CA TASK-168B
  assert_equal completed "$(task CA TASK-168B)"
  assert_json .sprint/progress.json 'd["tasks"]["TASK-168B"]' \
    "{'status': 'pending', 'agent': 'CC', 'title': 'End to end tests'}"
}

@test "46: a counter never goes below zero" {
  given .sprint/progress.json '{"completed": 0, "pending": 0, "tasks": {"TASK-168B": {"status": "pending"}}}'
  runs complete_task CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"], d["pending"]' "(1, 0)"
}

@test "47: a corrupt progress file keeps the outbox as it was" {
  local text
  for text in '{"tasks": {' '{"tasks": {},}' '{}{}' '{"a": NaN}' 'hello'; do
    given .sprint/progress.json "$text"
    refused 65 complete_task CC TASK-168B
    assert_stderr_has .sprint/progress.json "damaged" "nothing was changed"
    refused 65 assign_task CC TASK-1 title LOW
    assert_open CC TASK-168B
  done
  assert_no_stray_files
}

@test "47: an empty progress file, a list, a string, tasks of another kind" {
  local text
  for text in '' '[]' '"x"' '{"tasks": "x"}' '{"tasks": 3}' '{"tasks": ["TASK-168B"]}' '{"tasks": {"TASK-168B": 3}}'; do
    given .sprint/progress.json "$text"
    refused 65 complete_task CC TASK-168B
    assert_stderr_has .sprint/progress.json
  done
}

@test "47: a folder, a fifo, a link out of the workspace in the place of the progress file" {
  rm "$ROOT/.sprint/progress.json"
  mkdir "$ROOT/.sprint/progress.json"
  refused 65 complete_task CC TASK-168B
  rmdir "$ROOT/.sprint/progress.json"
  mkfifo "$ROOT/.sprint/progress.json"
  refused 65 timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  rm "$ROOT/.sprint/progress.json"
  echo '{"tasks": {}}' >"$BATS_TEST_TMPDIR/outside"
  ln -s "$BATS_TEST_TMPDIR/outside" "$ROOT/.sprint/progress.json"
  refused 65 complete_task CC TASK-168B
  assert_equal '{"tasks": {}}' "$(<"$BATS_TEST_TMPDIR/outside")"
}

@test "47: a dangling link in the place of the progress file" {
  ln -sfn nowhere "$ROOT/.sprint/progress.json"
  refused 65 complete_task CC TASK-168B
  assert_absent "$ROOT/.sprint/nowhere"
}
