#!/usr/bin/env bats

load test_helper

# start, review, reopen, note, fail and reassign: no step of a working day needs a hand edit.

setup() {
  make_workspace
  export RECOVERY_SESSION=blue
}

@test "a working day: start, note, review, start again, complete, reopen" {
  runs recovery start CC TASK-168B
  assert_output "started CC/TASK-168B (pending -> in_progress); 2 files, read back"
  runs recovery note CC TASK-168B "half of it"
  runs recovery review CC TASK-168B
  assert_output "handed over CC/TASK-168B (in_progress -> ready_for_review); 2 files, read back"
  runs recovery start CC TASK-168B
  runs recovery review CC/TASK-168B
  runs complete_task CC TASK-168B "all of it"
  runs recovery reopen CC TASK-168B
  assert_output "reopened CC/TASK-168B (completed -> pending); 3 files, read back"
  assert_open CC TASK-168B
  assert_json .sprint/progress.json \
    'd["completed"], d["in_progress"], d["pending"], d["tasks"]["TASK-168B"]' \
    "(1, 2, 1, {'status': 'pending', 'agent': 'CC', 'title': 'End to end tests'})"
  assert_no_stray_files
  assert_locks_free
}

@test "start, review, reopen, fail and note twice change nothing the second time, and say so" {
  local command
  for command in "start CC TASK-168B" "note CC TASK-168B words" "review CC TASK-168B" "reopen CC TASK-168B" \
    "fail CC TASK-168B why" "reopen CC TASK-168B" "reassign CC TASK-168B CA"; do
    # shellcheck disable=SC2086 # words
    runs recovery $command
    assert_output_has "read back"
    remember_tree
    # shellcheck disable=SC2086 # words
    runs recovery $command
    assert_output_has "nothing changed"
    assert_unchanged
  done
  assert_no_stray_files
}

@test "each is taken back by rollback, over all files" {
  local command
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "D", "dependencies": ["CC/TASK-168B"]}, {"task_id": "REV", "status": "in_progress"}]}'
  runs assign_task CC TASK-1 "first" LOW
  runs complete_task CA REV
  for command in "start CC TASK-168B" "note CC TASK-168B words" "fail CC TASK-168B why" "review CC TASK-169A" \
    "reopen CC TASK-165C" "reopen CA REV"; do
    remember_tree
    # shellcheck disable=SC2086 # words
    runs recovery $command
    # shellcheck disable=SC2086 # words
    set -- $command
    runs recovery rollback "$2" "$3"
    assert_output_has "rolled back $2/$3 ($1 of"
    assert_unchanged
  done
  assert_no_stray_files
}

@test "--dry-run of each says what would be done and changes nothing" {
  local command
  remember_tree
  for command in "start CC TASK-168B" "note CC TASK-168B words" "review CC TASK-169A" "reopen CC TASK-165C" \
    "fail CC TASK-168B why" "reassign CC TASK-168B NEW" "release CC TASK-168B"; do
    # shellcheck disable=SC2086 # words
    runs recovery $command --dry-run
    assert_output_has "nothing changed"
    assert_unchanged
  done
  assert_absent "$ROOT/data" "$ROOT/postbox/NEW"
}

@test "what the table of transitions doesn't allow is refused, and what would lead there is said" {
  refused 65 recovery review CC TASK-168B
  assert_stderr_has "is pending: it can't become ready_for_review" "recovery start CC TASK-168B"
  refused 65 recovery start CC TASK-165C
  assert_stderr_has "recovery reopen CC TASK-165C"
  refused 65 recovery fail CC TASK-165C why
}

@test "what isn't there, or was meant otherwise, is refused" {
  local verb
  for verb in start review reopen release; do
    refused 66 recovery "$verb" CC NOPE
    refused 66 recovery "$verb" NOBODY TASK-1
    refused 64 recovery "$verb" CC
    refused 64 recovery "$verb" CC TASK-168B more words
  done
  refused 64 recovery fail CC TASK-168B
  refused 64 recovery fail CC TASK-168B " "
  refused 64 recovery note CC TASK-168B
  refused 64 recovery reassign CC TASK-168B
  refused 64 recovery reassign CC TASK-168B CC
  refused 64 recovery reassign CC TASK-168B ../x
  refused 66 recovery reassign NOBODY TASK-1 CA
  assert_absent "$ROOT/postbox/NOBODY"
}

@test "reopening takes the record away, and what it said stays in the change log" {
  runs complete_task CC TASK-168B "said and done"
  runs recovery reopen CC TASK-168B
  assert_absent "$ROOT/postbox/CC/completed/TASK-168B_completion.json"
  grep -q "said and done" "$ROOT"/data/changes/*
  assert_equal None "$(task CC TASK-168B completed_at)"
  runs complete_task CC TASK-168B "once more"
  assert_completed CC TASK-168B "once more"
}

@test "a task in the archive is not reopened" {
  given postbox/CC/outbox.json '{"tasks": [], "history": [{"task_id": "OLD", "status": "completed"}]}'
  refused 65 recovery reopen CC OLD
  assert_stderr_has "in the archive"
}

@test "a rolled-back completion is still not done again by itself when a note came after" {
  runs complete_task CC TASK-168B
  runs recovery rollback CC TASK-168B
  runs recovery note CC TASK-168B "not yet"
  refused 65 complete_task CC TASK-168B
}

@test "a note keeps what stands there, and is data, never evaluated" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "A", "notes": "old words"}]}'
  runs recovery note CC A '$(touch PWNED) "q" ☃'
  assert_equal 'old words|$(touch PWNED) "q" ☃' \
    "$(json "$ROOT/postbox/CC/outbox.json" 'd["tasks"][0]["notes"][0] + "|" + d["tasks"][0]["notes"][1]["text"]')"
  assert_absent PWNED
  runs recovery note CC A -- "-n"
  runs recovery note CC A "-x"
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "A", "notes": {"mine": 1}}]}'
  refused 65 recovery note CC A words
}

# --- fail

@test "fail says why and when, and whoever depends on it learns in the same commit, in any outbox" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "A"}, {"task_id": "B", "dependencies": ["A (first)"], "blocked_by": ["X"]},
    {"task_id": "C", "dependencies": ["AA"]}, {"task_id": "E", "dependencies": ["A"], "status": "completed"}]}'
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "D", "dependencies": ["CC/A"]}, {"task_id": "F", "dependencies": ["A"]}]}'
  given postbox/CB/outbox.json '{"tasks": [{"task_id": "A"}, {"task_id": "G", "dependencies": ["A"]}]}'
  runs recovery fail CC A "no disk"
  assert_equal "failed no disk" "$(task CC A) $(task CC A failure_reason)"
  assert_equal "['X', 'A'] None None" "$(task CC B blocked_by) $(task CC C blocked_by) $(task CC E blocked_by)"
  assert_equal "['CC/A'] ['CC/A'] None" "$(task CA D blocked_by) $(task CA F blocked_by) $(task CB G blocked_by)"
  assert_equal 1 "$(wc -l <"$(echo "$ROOT"/data/changes/*)")"
  runs task_status
  assert_output_has "[blocked by X A]" "[blocked by CC/A]" "[failed: no disk]"
  refused 75 recovery claim CC --next
  assert_stderr_has "B waits for X, which failed, A, which failed"
}

@test "completing, reopening and starting it takes that out again" {
  local command
  for command in "complete CC A" "reopen CC A" "start CC A" "claim CC A"; do
    given postbox/CC/outbox.json '{"tasks": [{"task_id": "A"}, {"task_id": "B", "dependencies": ["A"], "blocked_by": ["X"]}]}'
    given postbox/CA/outbox.json '{"tasks": [{"task_id": "D", "dependencies": ["CC/A"]}]}'
    runs recovery fail CC A "no disk"
    # shellcheck disable=SC2086 # words
    runs recovery $command
    assert_equal "['X'] None None" "$(task CC B blocked_by) $(task CA D blocked_by) $(task CC A failure_reason)"
    rm -r "$ROOT"/data "$ROOT"/postbox/CC/completed
    mkdir "$ROOT"/postbox/CC/completed
  done
}

@test "a damaged outbox of somebody else's doesn't keep a task from failing, and is said" {
  given postbox/CA/outbox.json '{"tasks": ['
  runs recovery fail CC TASK-168B why
  assert_stderr_has "tasks of CA that depend on CC/TASK-168B can't learn of it"
  assert_equal failed "$(task CC TASK-168B)"
}

@test "fail ends a claim: the next one may take it at once" {
  runs recovery claim CC TASK-168B
  runs recovery fail CC TASK-168B why
  runs with RECOVERY_SESSION=red -- recovery claim CC TASK-168B
  assert_output_has "(failed -> in_progress), generation 2"
}

# --- reassign

@test "reassign moves the entry, its brief and its owner in progress, in one commit" {
  runs assign_task CC TASK-1 "A title" HIGH 2
  runs recovery claim CC TASK-1
  runs recovery reassign CC TASK-1 CA
  assert_output_has "reassigned CC/TASK-1 (in_progress -> pending) to CA; 5 files"
  assert_equal "pending A title HIGH 2" "$(task CA TASK-1) $(task CA TASK-1 title) $(task CA TASK-1 priority) $(task CA TASK-1 estimated_hours)"
  ! grep -q TASK-1\" "$ROOT/postbox/CC/outbox.json"
  assert_absent "$ROOT/postbox/CC/inbox/TASK-1.md"
  grep -q "complete_task_with_recovery.sh CA TASK-1" "$ROOT/postbox/CA/inbox/TASK-1.md"
  assert_json .sprint/progress.json 'd["tasks"]["TASK-1"]["agent"], d["tasks"]["TASK-1"]["status"], d["pending"]' "('CA', 'pending', 2)"
  runs with RECOVERY_SESSION=red -- recovery claim CA TASK-1
  assert_output_has "generation 2"
  runs with RECOVERY_SESSION=red -- complete_task CA TASK-1
  assert_no_stray_files
}

@test "reassign takes progress as a list, too, where two agents have a task of one name" {
  given .sprint/progress.json '{"pending": 1, "in_progress": 1, "tasks": [{"id": "TASK-168B", "agent": "CC", "status": "pending"},
    {"id": "TASK-168B", "agent": "XX", "status": "in_progress"}]}'
  remember_tree
  runs recovery reassign CC TASK-168B CA
  assert_json .sprint/progress.json '[(t["agent"], t["status"]) for t in d["tasks"]]' "[('XX', 'in_progress'), ('CA', 'pending')]"
  runs recovery rollback CC TASK-168B
  assert_json .sprint/progress.json 'sorted((t["agent"], t["status"]) for t in d["tasks"])' "[('CC', 'pending'), ('XX', 'in_progress')]"
  assert_equal pending "$(task CC TASK-168B)"
}

@test "reassign makes an agent, and rollback takes it away again" {
  runs recovery reassign CC TASK-168B NEW
  assert_equal "pending CRITICAL" "$(task NEW TASK-168B) $(task NEW TASK-168B priority)"
  runs recovery rollback CC TASK-168B
  assert_absent "$ROOT/postbox/NEW/outbox.json"
  assert_equal "pending CRITICAL" "$(task CC TASK-168B) $(task CC TASK-168B priority)"
}

@test "reassign is refused where the other has a task of that name, or it has ended" {
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "TASK-168B"}]}'
  refused 65 recovery reassign CC TASK-168B CA
  refused 65 recovery reassign CC TASK-165C CA
  given postbox/XX/completed/TASK-168B_completion.json '{"task_id": "TASK-168B", "status": "completed"}'
  refused 65 recovery reassign CC TASK-168B XX
}

@test "what depends on CC/TASK finds the task where it was given to" {
  given postbox/CB/outbox.json '{"tasks": [{"task_id": "W", "dependencies": ["CC/TASK-168B"]}]}'
  runs recovery reassign CC TASK-168B CA
  refused 75 recovery claim CB --next
  runs complete_task CA TASK-168B
  runs recovery claim CB --next
  assert_output_has "claimed CB/W"
}
