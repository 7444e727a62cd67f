#!/usr/bin/env bats

load test_helper

PROGRESS=.sprint/progress.json

@test "statuses, missing entries and counters are made to agree, every other byte stays" {
  given $PROGRESS '{
    "sprint" : "3",   "velocity": 1.50,
    "total_tasks": 99, "completed": 7, "pending": "many",
    "tasks": {
        "TASK-168B": {"status": "completed", "agent": "CC", "completed_at": "2025-01-01T00:00:00Z", "points": 12345678901234567890},
        "TASK-168C": {"status":"in_progress","agent":"CA","who":"größer"},
        "TASK-165C": {}
    }
}'
  runs recovery progress rebuild -v
  assert_output_has "rebuilt .sprint/progress.json: 5 changes, read back" "TASK-168B: completed -> pending" \
    "TASK-165C: pending -> completed" "added CC/TASK-169A (in_progress)" "total_tasks: 99 -> 4" "completed: 7 -> 1"
  assert_stderr_has '`pending` is no number'
  assert_equal '{
    "sprint" : "3",   "velocity": 1.50,
    "total_tasks": 4, "completed": 1, "pending": "many",
    "tasks": {
        "TASK-168B": {"status": "pending", "agent": "CC", "points": 12345678901234567890},
        "TASK-168C": {"status":"in_progress","agent":"CA","who":"größer"},
        "TASK-165C": {
            "status": "completed",
            "completed_at": "2025-05-29T00:00:00Z"
        },
        "TASK-169A": {
            "status": "in_progress",
            "agent": "CC",
            "title": "Load tests"
        }
    }
}' "$(<"$ROOT/$PROGRESS")"
  assert_no_stray_files
  assert_locks_free
}

@test "a list stays a list" {
  given $PROGRESS '{"total_tasks": 0, "tasks": [{"id": "TASK-168B", "status": "failed", "x": [1]}, {"note": "no id"}]}'
  runs recovery progress rebuild
  assert_json $PROGRESS '[t.get("id") for t in d["tasks"]], d["tasks"][0], d["total_tasks"]' \
    "(['TASK-168B', None, 'TASK-168C', 'TASK-165C', 'TASK-169A'], {'id': 'TASK-168B', 'status': 'pending', 'x': [1]}, 5)"
}

@test "the second time it is a no-op" {
  local text
  for text in '{"tasks": {}}' '{"tasks": []}' '{"total_tasks": 3}' '{"tasks": [{"id": "TASK-168B", "agent": "GONE"}]}'; do
    given $PROGRESS "$text"
    runs recovery progress rebuild
    remember_tree
    runs recovery progress rebuild
    assert_output "$PROGRESS agrees with the outboxes; nothing changed"
    assert_unchanged
  done
}

@test "it is made where there is none, in the form that is asked for" {
  rm -r "$ROOT/.sprint"
  runs recovery progress rebuild --dry-run
  assert_absent "$ROOT/.sprint"
  runs recovery progress rebuild
  assert_output "made $PROGRESS: 1 change, read back"
  assert_json $PROGRESS 'd["total_tasks"], d["completed"], d["in_progress"], d["pending"], sorted(d["tasks"])' \
    "(4, 1, 2, 1, ['TASK-165C', 'TASK-168B', 'TASK-168C', 'TASK-169A'])"
  refused 64 recovery progress rebuild --form list
  assert_stderr_has "object"
  rm "$ROOT/$PROGRESS"
  runs recovery progress rebuild --form list
  assert_json $PROGRESS '[t["id"] for t in d["tasks"]]' "['TASK-168C', 'TASK-168B', 'TASK-165C', 'TASK-169A']"
  refused 64 recovery progress rebuild --form tree
  given $PROGRESS '{"sprint": 3}'
  runs recovery progress rebuild --form list
  assert_json $PROGRESS 'd["sprint"], len(d["tasks"])' "(3, 4)"
}

@test "an entry that nobody has stays and is told; one that was archived is completed" {
  given postbox/CA/outbox.json '{"tasks": [], "history": [{"task_id": "OLD-1", "status": "completed"}]}'
  mkdir -p "$ROOT/postbox/CA/completed"
  given postbox/CA/completed/OLD-2_completion.json '{"task_id": "OLD-2", "status": "completed"}'
  given $PROGRESS '{"tasks": {"OLD-1": {"status": "pending"}, "OLD-2": {"agent": "CA"}, "NOBODY": {"status": "pending"}}}'
  runs recovery progress rebuild
  assert_stderr_has "NOBODY is in nobody's outbox; its entry (pending) stays"
  assert_json $PROGRESS '[d["tasks"][t].get("status") for t in ("OLD-1", "OLD-2", "NOBODY")]' \
    "['completed', 'completed', 'pending']"
}

@test "an id that two agents have is told, and each form lists what it can" {
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "TASK-168B", "status": "failed"}]}'
  given $PROGRESS '{"tasks": {"TASK-168B": {"status": "x", "agent": "CC"}}}'
  runs recovery progress rebuild
  assert_stderr_has "CA and CC each have a TASK-168B: two tasks, of which progress lists CC's"
  assert_json $PROGRESS 'd["tasks"]["TASK-168B"]["status"]' pending
  given $PROGRESS '{"tasks": [{"id": "TASK-168B", "agent": "CC"}, {"id": "TASK-168B", "agent": "CA"}]}'
  runs recovery progress rebuild
  assert_stderr_has "two tasks, both listed"
  assert_json $PROGRESS '[t.get("status", "pending") for t in d["tasks"][:2]]' "['pending', 'failed']"
}

@test "an entry that names the wrong agent gets the only one who has the task" {
  given $PROGRESS '{"tasks": [{"id": "TASK-168C", "agent": "CC", "status": "pending"}]}'
  runs recovery progress rebuild -v
  assert_output_has "TASK-168C: CC -> CA, who has it"
  assert_json $PROGRESS 'd["tasks"][0]' "{'id': 'TASK-168C', 'agent': 'CA', 'status': 'in_progress'}"
  runs recovery rollback progress/rebuild
  assert_equal '{"tasks": [{"id": "TASK-168C", "agent": "CC", "status": "pending"}]}' "$(<"$ROOT/$PROGRESS")"
}

@test "--dry-run says what would change, --json too" {
  remember_tree
  runs recovery progress rebuild --dry-run
  assert_output_has "would rebuild $PROGRESS" "  added CC/TASK-169A (in_progress)"
  assert_unchanged
  runs recovery progress rebuild --json
  assert_output_json 'd["changed"], d["changes"]' \
    "(True, ['added CC/TASK-165C (completed)', 'added CC/TASK-169A (in_progress)'])"
  runs recovery progress rebuild -q
  assert_output ""
}

@test "a damaged progress file or outbox is refused, untouched" {
  local text
  for text in '' '{' '[]' '{"tasks": 3}' '{"tasks": [3]}' '{"tasks": {"TASK-168B": 3}}' '{"tasks": {}, "tasks": {}}' \
    '{"tasks": [{"id": "TASK-168B"}, {"id": "TASK-168B"}]}'; do
    given $PROGRESS "$text"
    refused 65 recovery progress rebuild
  done
  rm -r "$ROOT/.sprint"
  given postbox/CA/outbox.json '{"tasks": ['
  refused 65 recovery progress rebuild
  assert_stderr_has postbox/CA/outbox.json
}

@test "other words are refused" {
  refused 64 recovery progress
  refused 64 recovery progress mend
  refused 64 recovery progress rebuild CC
}
