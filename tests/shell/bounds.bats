#!/usr/bin/env bats

load test_helper

# What is written stays within its bounds, and completed tasks leave the outbox: as people and cron run it.

old_key() {
  given data/once/old.json '{"format": 1, "key": "old", "task_id": "T", "state": "done", "started_at": "2020-01-01T00:00:00Z"}'
}

@test "cleanup says what it removed and how full the workspace is; --dry-run says the same and changes nothing" {
  old_key
  runs recovery cleanup --dry-run
  [[ $output == "would have removed idempotency keys (1); "*" of 256 MB, "*" of 20000 files" ]] || fail "$output"
  assert_exists "$ROOT/data/once/old.json"
  runs recovery cleanup --dry-run -v
  [[ $output == *"removed data/once/old.json: settled 30 days ago"* ]] || fail "$output"
  runs recovery cleanup
  [[ $output == "removed idempotency keys (1); "* ]] || fail "$output"
  assert_absent "$ROOT/data/once/old.json"
  runs recovery cleanup
  [[ $output == "nothing to clean up; "* ]] || fail "$output"
}

@test "cleanup in cron's environment: no HOME, a short PATH, the current folder /, -q says nothing" {
  old_key
  cd /
  runs env -i PATH=/usr/bin:/bin RECOVERY_PYTHON="$PYTHON" "$SUITE/bin/recovery" -C "$ROOT" cleanup -q
  assert_output ""
}

@test "cleanup and archive: bad words are refused" {
  refused 64 recovery cleanup everything
  refused 64 recovery archive CC --older-than yesterday
  refused 64 recovery archive CC CA
  refused 64 recovery archive --restore CC
  refused 64 recovery archive --restore CC TASK-165C --older-than 3
  refused 66 recovery archive NOBODY
  refused 66 recovery archive --restore CC TASK-999
}

@test "archive --json names the tasks; --restore brings one back" {
  runs recovery archive --older-than 30d --json
  assert_output_json 'd["archived"]' "{'CC': ['TASK-165C']}"
  runs recovery status -t TASK-165C
  [[ $output == *"TASK-165C        archived"* ]] || fail "$output"
  runs recovery archive --restore CC/TASK-165C
  [[ $output == "restored CC/TASK-165C, archived at "*", to the outbox" ]] || fail "$output"
  assert_equal completed "$(task CC TASK-165C)"
  assert_locks_free
}
