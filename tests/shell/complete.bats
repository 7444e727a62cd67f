#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

load test_helper

@test "completes a task in outbox, progress and record, and says so in one line" {
  assert_open CC TASK-168B
  runs complete_task CC TASK-168B "all tests green"
  assert_output "completed CC/TASK-168B (pending -> completed); 3 files, read back"
  assert_equal "" "$stderr"
  assert_completed CC TASK-168B "all tests green"
  assert_json .sprint/progress.json 'd["completed"], d["pending"], d["in_progress"], d["total_tasks"]' "(2, 0, 2, 4)"
  assert_no_stray_files
  assert_locks_free
}

@test "counts two files where there is no progress file, and makes none" {
  rm -r "$ROOT/.sprint"
  runs complete_task CC TASK-168B
  assert_output "completed CC/TASK-168B (pending -> completed); 2 files, read back"
  assert_absent "$ROOT/.sprint"
  assert_no_stray_files
}

@test "a time of completion is UTC, ISO 8601, with Z, the same in outbox and record" {
  runs complete_task CC TASK-168B
  run task CC TASK-168B completed_at
  [[ $output =~ ^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$ ]]
  assert_json postbox/CC/completed/TASK-168B_completion.json 'd["completed_at"]' "$output"
  assert_json .sprint/progress.json 'd["tasks"]["TASK-168B"]["completed_at"]' "$output"
}

@test "leaves every other byte of outbox and progress as it was" {
  sed -e '/TASK-168B/,/}/s/"status": "pending"/"status": X/' "$ROOT/postbox/CC/outbox.json" >expected
  runs complete_task CC TASK-168B m
  sed -e '/TASK-168B/,/}/{s/"status": "completed"/"status": X/;/completed_at\|completion_message/d
    s/\("created_at": .*\),$/\1/;}' "$ROOT/postbox/CC/outbox.json" >actual
  run -0 diff expected actual
  rm expected actual
}

@test "says that nobody said anything, if nobody does" {
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B "Task completed successfully"
}

@test "an empty message is stored as an empty message" {
  runs complete_task CC TASK-168B ""
  assert_completed CC TASK-168B ""
}

@test "takes AGENT/TASK as one word" {
  runs complete_task CC/TASK-168B "done"
  assert_completed CC TASK-168B "done"
}

@test "takes the agent from RECOVERY_AGENT where only the task is given" {
  export RECOVERY_AGENT=CC
  runs complete_task TASK-168B
  assert_completed CC TASK-168B
}

@test "AGENT/TASK beats RECOVERY_AGENT" {
  export RECOVERY_AGENT=CA
  runs complete_task CC/TASK-168B
  assert_completed CC TASK-168B
  assert_open CA TASK-168C
}

@test "takes the message behind -m" {
  runs complete_task -m "short and sweet" CC TASK-168B
  assert_completed CC TASK-168B "short and sweet"
}

@test "takes the message behind -m with only a task and RECOVERY_AGENT" {
  export RECOVERY_AGENT=CC
  runs complete_task TASK-168B -m "from the environment"
  assert_completed CC TASK-168B "from the environment"
}

@test "completes a task that is in progress, and moves its counters" {
  runs complete_task CA TASK-168C
  assert_output "completed CA/TASK-168C (in_progress -> completed); 3 files, read back"
  assert_json .sprint/progress.json 'd["completed"], d["pending"], d["in_progress"], d["total_tasks"]' "(2, 1, 1, 4)"
}

@test "the same command again is a no-op that says so" {
  runs complete_task CC TASK-168B "done"
  remember_tree
  runs complete_task CC TASK-168B "done"
  [[ $output =~ ^"already completed CC/TASK-168B at 20"[0-9TZ:-]+"; nothing changed"$ ]]
  assert_unchanged
  assert_no_stray_files
}

@test "44: another message for a completed task changes nothing and shows the one that stands" {
  remember_tree
  runs complete_task CC TASK-165C "other words"
  assert_output 'already completed CC/TASK-165C at 2025-05-29T00:00:00Z; it says "all green"; nothing changed'
  assert_unchanged
  assert_no_stray_files
}

@test "a task that has gone to the archive is completed already" {
  given postbox/CC/outbox.json \
    '{"tasks": [], "history": [{"task_id": "TASK-9", "status": "completed", "timestamp": "2025-05-01T00:00:00Z"}]}'
  remember_tree
  runs complete_task CC TASK-9
  assert_output "already completed CC/TASK-9 at 2025-05-01T00:00:00Z; nothing changed"
  assert_unchanged
}

@test "a task that only its completion record remembers is completed already" {
  runs complete_task CC TASK-168B
  given postbox/CC/outbox.json '{"tasks": []}'
  remember_tree
  runs complete_task CC TASK-168B
  assert_output_has "already completed CC/TASK-168B" "nothing changed"
  assert_unchanged
}

@test "43: a task of another agent is refused, with where it is and what is open" {
  refused 66 complete_task CC TASK-168C
  assert_stderr_has "CC has no TASK-168C; CA has it (in_progress)." "Open for CC: TASK-168B, TASK-169A." "Nothing changed."
  assert_no_stray_files
}

@test "43: a task that nobody has is refused" {
  refused 66 complete_task CC TASK-999
  assert_stderr_has "CC has no TASK-999. Open for CC: TASK-168B, TASK-169A. Nothing changed."
}

@test "43: an agent that nobody knows is refused, and no folder is made for it" {
  refused 66 complete_task XX TASK-168B
  assert_stderr_has "there is no outbox of XX" "CC has it (pending)" "Nothing changed."
  assert_absent "$ROOT/postbox/XX"
  assert_no_stray_files
}

@test "43: the beginning of an id is not the id" {
  refused 66 complete_task CC TASK-168
  refused 66 complete_task C TASK-168B
}

@test "43: a dot in an id is a dot" {
  refused 66 complete_task CC TASK.168B
}

@test "43: upper and lower case are two ids" {
  refused 66 complete_task CC task-168b
  refused 66 complete_task cc TASK-168B
  assert_absent "$ROOT/postbox/cc"
}

@test "43: a refusal makes no folder for an agent who has only an outbox" {
  rmdir "$ROOT/postbox/CC/completed" "$ROOT/postbox/CC/inbox"
  refused 66 complete_task CC TASK-999
}

@test "44: a completion that is there already makes no folder either" {
  rmdir "$ROOT/postbox/CC/completed" "$ROOT/postbox/CC/inbox"
  remember_tree
  runs complete_task CC TASK-165C
  assert_unchanged
}

@test "a status that the table doesn't know is kept until the task is completed" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T1", "status": "blocked"}, {"task_id": "T2", "status": "odd"}]}'
  runs complete_task CC T1
  assert_output_has "(blocked -> completed)"
  assert_equal odd "$(task CC T2)"
}

@test "a task without a status counts as pending" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T1"}]}'
  runs complete_task CC T1
  assert_output_has "(pending -> completed)"
  assert_completed CC T1
}

@test "the same id under two agents is two tasks" {
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "TASK-168B", "status": "pending"}]}'
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
  assert_open CA TASK-168B
}
