#!/usr/bin/env bats

load test_helper

@test "assigns a task in outbox, progress and inbox, and says so in one line" {
  runs assign_task CC TASK-1 "Write the report" HIGH 2.5
  assert_output "assigned CC/TASK-1 (HIGH); 3 files, read back"
  assert_equal "pending Write the report HIGH 2.5" \
    "$(task CC TASK-1) $(task CC TASK-1 title) $(task CC TASK-1 priority) $(task CC TASK-1 estimated_hours)"
  assert_json .sprint/progress.json 'd["tasks"]["TASK-1"]["title"], d["total_tasks"], d["pending"]' "('Write the report', 5, 2)"
  run -0 cat "$ROOT/postbox/CC/inbox/TASK-1.md"
  assert_output_has "TASK-1: Write the report" HIGH 2.5 "complete_task_with_recovery.sh CC TASK-1"
  assert_no_stray_files
  assert_locks_free
}

@test "takes AGENT/TASK as one word" {
  runs assign_task CC/TASK-1 "One" LOW
  assert_equal One "$(task CC TASK-1 title)"
}

@test "takes a priority in any case and stores it in capitals" {
  local word
  for word in low Medium hIGH CRITICAL; do
    runs assign_task CC "T-$word" "title" "$word"
    assert_equal "${word^^}" "$(task CC "T-$word" priority)"
  done
}

@test "a priority that is none is refused, with those there are" {
  refused 64 assign_task CC TASK-1 "title" URGENT
  assert_stderr_has URGENT "LOW MEDIUM HIGH CRITICAL"
  refused 64 assign_task CC TASK-1 "title" ""
}

@test "whole hours are stored as a whole number" {
  runs assign_task CC TASK-1 "title" LOW 4
  assert_equal 4 "$(task CC TASK-1 estimated_hours)"
}

@test "hours that are none are refused" {
  local word
  for word in 0 0.0 -1 x 1e3 1.2.3 inf nan "" 99999999999; do
    refused 64 assign_task -- CC TASK-1 "title" LOW "$word"
  done
  assert_stderr_has hours
}

@test "makes the outbox of a new agent" {
  assert_absent "$ROOT/postbox/NEW"
  runs assign_task NEW TASK-1 "First" MEDIUM
  assert_json postbox/NEW/outbox.json 'd["agent_id"], [t["task_id"] for t in d["tasks"]], d["history"]' \
    "('NEW', ['TASK-1'], [])"
  runs complete_task NEW TASK-1
  assert_completed NEW TASK-1
  assert_no_stray_files
}

@test "a file that is new has two-space indent, non-ASCII as is and a final newline" {
  runs assign_task NEW TASK-1 "größe" LOW
  run -0 grep -c '^  "tasks": \[$' "$ROOT/postbox/NEW/outbox.json"
  run -0 grep -c 'größe' "$ROOT/postbox/NEW/outbox.json"
  assert_equal 0a "$(tail -c 1 "$ROOT/postbox/NEW/outbox.json" | od -An -tx1 | tr -d ' ')"
}

@test "a new task goes behind the others, into an empty list too" {
  runs assign_task CC TASK-1 "title" LOW
  assert_json postbox/CC/outbox.json '[t["task_id"] for t in d["tasks"]]' "['TASK-168B', 'TASK-165C', 'TASK-169A', 'TASK-1']"
  given postbox/CA/outbox.json '{"tasks":[]}'
  runs assign_task CA TASK-1 "title" LOW
  assert_json postbox/CA/outbox.json '[t["task_id"] for t in d["tasks"]]' "['TASK-1']"
}

@test "45: the same assignment again is a no-op that says so" {
  runs assign_task CC TASK-1 "title" LOW
  remember_tree
  runs assign_task CC TASK-1 "title" LOW
  assert_output "already assigned CC/TASK-1 (pending); nothing changed"
  assert_unchanged
  assert_no_stray_files
}

@test "45: the same assignment after completion tells the status" {
  runs complete_task CC TASK-168B
  remember_tree
  runs assign_task CC TASK-168B "End to end tests" CRITICAL
  assert_output "already assigned CC/TASK-168B (completed); nothing changed"
  assert_unchanged
}

@test "45: the same id with another title is refused, and the title shown" {
  refused 65 assign_task CC TASK-168B "Something else" LOW
  assert_stderr_has 'with the title "End to end tests"' "Nothing changed." "another id"
}

@test "45: a task whose completion record is there is not assigned anew" {
  runs complete_task CC TASK-168B
  given postbox/CC/outbox.json '{"tasks": []}'
  refused 65 assign_task CC TASK-168B "End to end tests" LOW
}

@test "45: an older brief in the inbox stays as it is" {
  given postbox/CC/inbox/TASK-1.md "written by hand"
  runs assign_task CC TASK-1 "title" LOW
  assert_equal "written by hand" "$(<"$ROOT/postbox/CC/inbox/TASK-1.md")"
}

@test "31: titles are stored exactly and run nothing" {
  local n=0 title
  for title in "\$(touch pwned)" "\`touch pwned\`" "it's \"quoted\" '''x''' \\\" \\" $'two\nlines\tand a tab' \
    $'\U1F389 \u202Ertl\u202C \u4E2D' '-n' '@file' '--' $'EOF\nJSON' '*' ' '; do
    n=$((n + 1))
    runs assign_task -- CC "T-$n" "$title" LOW
    assert_equal "$title." "$(task CC "T-$n" title && echo .)"
    assert_json .sprint/progress.json "d['tasks']['T-$n']['title'] == [t for t in json.load(open('$ROOT/postbox/CC/outbox.json'))['tasks'] if t['task_id'] == 'T-$n'][0]['title']" True
  done
  assert_absent pwned
}

@test "an empty title is refused" {
  refused 64 assign_task CC TASK-1 "" LOW
}

@test "too few words and too many are refused" {
  refused 64 assign_task
  refused 64 assign_task CC TASK-1
  refused 64 assign_task CC TASK-1 title
  refused 64 assign_task CC TASK-1 title LOW 2 more
  refused 64 assign_task CC TASK-1 two words LOW 2 3
}

@test "an unknown option is refused" {
  refused 64 assign_task --frobnicate CC TASK-1 title LOW
  refused 64 assign_task --keep-backup CC TASK-1 title LOW
  refused 64 assign_task CC TASK-1 title LOW --frobnicate
}

@test "--dry-run says what would be done and changes and creates nothing" {
  find "$ROOT" -printf '%p %m %i %T@ %C@\n' >before
  runs assign_task --dry-run NEW TASK-1 title LOW
  assert_output_has "would assign NEW/TASK-1 (LOW)" "nothing changed"
  find "$ROOT" -printf '%p %m %i %T@ %C@\n' >after
  run -0 diff before after
  rm before after
  assert_absent "$ORCHESTRATION_LOCK_DIR"
}

@test "--json says what was done, and what was refused, in one object" {
  runs assign_task --json CC TASK-1 title low
  assert_output_json 'd["ok"], d["code"], d["changed"], d["priority"], len(d["files"])' "(True, 0, True, 'LOW', 3)"
  runs assign_task --json CC TASK-1 title low
  assert_output_json 'd["ok"], d["changed"]' "(True, False)"
  refused 65 assign_task --json CC TASK-1 other low
  assert_output_json 'd["ok"], d["code"]' "(False, 65)"
  refused 64 assign_task --json CC TASK-1 other nope
  assert_output_json 'd["ok"], d["code"]' "(False, 64)"
}

@test "-q says nothing, -v each file" {
  runs assign_task -q CC TASK-1 title LOW
  assert_output ""
  runs assign_task -v CC TASK-2 title LOW
  assert_output_has "assigned CC/TASK-2" postbox/CC/outbox.json postbox/CC/inbox/TASK-2.md .sprint/progress.json
}

@test "no progress file is made where there is none" {
  rm -r "$ROOT/.sprint"
  runs assign_task CC TASK-1 title LOW
  assert_output "assigned CC/TASK-1 (LOW); 2 files, read back"
  assert_absent "$ROOT/.sprint"
}
