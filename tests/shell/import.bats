#!/usr/bin/env bats

load test_helper

FIXTURES=$SUITE/tests/fixtures

file() { # <name> <content>; in $FILE
  FILE=$BATS_TEST_TMPDIR/$1
  printf '%s' "$2" >"$FILE"
}

states() { # <agent>; id, status and dependencies of what was imported
  json "$ROOT/postbox/$1/outbox.json" \
    '"\n".join(" ".join([t["task_id"], t["status"], *t.get("dependencies", [])]) for t in d["tasks"] if "imported_from" in t)'
}

@test "Task Master's tasks.json: tasks and subtasks, statuses, priorities and dependencies" {
  runs recovery import "$FIXTURES/taskmaster.json" --agent CC
  assert_output "imported 8 tasks (CC 8); 6 files, read back"
  assert_equal "taskmaster-1 completed
taskmaster-2 in_progress taskmaster-1 taskmaster-2.1 taskmaster-2.2 taskmaster-2.3
taskmaster-2.1 completed taskmaster-1
taskmaster-2.2 ready_for_review taskmaster-2.1 taskmaster-1
taskmaster-2.3 pending taskmaster-2.2 taskmaster-2.1 taskmaster-1
taskmaster-3 deferred taskmaster-2
taskmaster-4 cancelled taskmaster-2 taskmaster-3
taskmaster-5 pending taskmaster-2" "$(states CC)"
  assert_equal "HIGH HIGH LOW MEDIUM" "$(task CC taskmaster-1 priority) $(task CC taskmaster-2.3 priority) \
$(task CC taskmaster-3 priority) $(task CC taskmaster-5 priority)"
  assert_equal "taskmaster-2 Folders and a build" "$(task CC taskmaster-2.3 parent) $(task CC taskmaster-1 description)"
  assert_equal "{'format': 'task-master', 'file': 'taskmaster.json', 'id': '2.3'}" "$(task CC taskmaster-2.3 imported_from)"
  assert_no_stray_files
  assert_locks_free
}

@test "what was done there is a completed entry, and nothing else: no record, no brief; completing it is a no-op" {
  runs recovery import "$FIXTURES/taskmaster.json" --agent CC
  assert_absent "$ROOT/postbox/CC/completed/taskmaster-1_completion.json" "$ROOT/postbox/CC/inbox/taskmaster-1.md" \
    "$ROOT/postbox/CC/inbox/taskmaster-4.md"
  assert_exists "$ROOT/postbox/CC/inbox/taskmaster-2.3.md"
  assert_json .sprint/progress.json 'd["total_tasks"], d["completed"], d["in_progress"], d["pending"]' "(12, 3, 3, 3)"
  runs complete_task CC taskmaster-1
  assert_output_has "already completed CC/taskmaster-1"
  runs complete_task CC taskmaster-5 "used"
  assert_completed CC taskmaster-5 "used"
}

@test "its tagged form: master, or the tag that is asked for" {
  runs recovery import "$FIXTURES/taskmaster-tagged.json" --agent CC
  assert_stderr_has "the tag master is taken; --tag takes another: side"
  assert_equal "Main line" "$(task CC taskmaster-tagged-1 title)"
  runs recovery import "$FIXTURES/taskmaster-tagged.json" --agent CC --tag side --prefix side
  assert_equal "Side line" "$(task CC side-1 title)"
  refused 65 recovery import "$FIXTURES/taskmaster-tagged.json" --agent CC --tag none
  assert_stderr_has '"none"' "master, side"
  refused 65 recovery import "$FIXTURES/taskmaster.json" --agent CC --tag master
  file tags.json '{"a": {"tasks": []}, "b": {"tasks": []}}'
  refused 65 recovery import "$FILE" --agent CC
  assert_stderr_has "several tags" "a, b"
}

@test "Claude Code's task files: a folder, hidden files left out, blocks and blockedBy" {
  runs recovery import "$FIXTURES/claude" --agent CC
  assert_equal "claude-1 completed
claude-2 in_progress claude-1
claude-10 pending claude-2" "$(states CC)"
  assert_equal "{'component': 'cache'}" "$(task CC claude-2 metadata)"
  refused 65 recovery import "$FIXTURES/claude/2.json" --agent CA --prefix one
  assert_stderr_has '"2" depends on "1"' --drop-missing
  runs recovery import "$FIXTURES/claude/2.json" --agent CA --prefix one --drop-missing
  assert_stderr_has '"2" depended on "1"'
  assert_equal "one-2 in_progress" "$(states CA)"
}

@test "a damaged file among Claude Code's is named, and nothing is taken over" {
  cp -R "$FIXTURES/claude" "$BATS_TEST_TMPDIR/list"
  echo '{"id": "3", "subject": "x", "status": "pending",}' >"$BATS_TEST_TMPDIR/list/3.json"
  refused 65 recovery import "$BATS_TEST_TMPDIR/list" --agent CC
  assert_stderr_has "list/3.json is damaged" "line 1, column 49"
  rm "$BATS_TEST_TMPDIR/list"/*.json
  refused 65 recovery import "$BATS_TEST_TMPDIR/list" --agent CC
  refused 64 recovery import "$BATS_TEST_TMPDIR/list" --agent CC --format markdown
}

@test "its todo lists: as a list or under todos, two with the same words are two" {
  runs recovery import "$FIXTURES/todos.json" --agent CC
  assert_equal "Read the log completed,Write the test in_progress,Write the test pending" \
    "$(json "$ROOT/postbox/CC/outbox.json" '",".join(t["title"] + " " + t["status"] for t in d["tasks"] if "imported_from" in t)')"
  file more.json '{"todos": [{"content": "One", "status": "pending", "id": "7", "priority": "high"}]}'
  runs recovery import "$FILE" --agent CA
  assert_equal "One HIGH" "$(task CA more-7 title) $(task CA more-7 priority)"
}

@test "Markdown check lists: nested, numbered, ticked, with priority and expertise; the rest is passed over" {
  runs recovery import "$FIXTURES/TODO.md" --agent CC
  assert_equal "Write the notes #docs HIGH pending
Collect what changed MEDIUM completed
Ask everybody LOW pending
Publish CRITICAL pending
Book the room MEDIUM completed
Say thank you MEDIUM pending" "$(json "$ROOT/postbox/CC/outbox.json" \
    '"\n".join(" ".join([t["title"], t["priority"], t["status"]]) for t in d["tasks"] if "imported_from" in t)')"
}

@test "a list that was ticked off, reordered or made longer brings only what is new" {
  file TODO.md $'- [ ] One\n- [ ] Two\n  - [ ] Sub\n'
  runs recovery import "$FILE" --agent CC
  file TODO.md $'# Plan\n\n- [x] Two\n  - [x] Sub\n- [ ] Three\n- [ ] One\n'
  runs recovery import "$FILE" --agent CC
  assert_output_has "imported 1 task (CC 1), 3 tasks there already"
  assert_equal "One Two Sub Three" "$(json "$ROOT/postbox/CC/outbox.json" \
    '" ".join(t["title"] for t in d["tasks"] if "imported_from" in t)')"
}

@test "an import is a no-op the second time, whatever the format" {
  local name
  for name in taskmaster.json taskmaster-tagged.json claude todos.json TODO.md; do
    runs recovery import "$FIXTURES/$name" --agent CC
    remember_tree
    runs recovery import "$FIXTURES/$name" --agent CC
    assert_output_has "already imported" "nothing changed"
    assert_unchanged
  done
  assert_no_stray_files
}

@test "--dry-run shows what would come, and changes nothing" {
  remember_tree
  runs recovery import "$FIXTURES/TODO.md" --agent CC --dry-run
  assert_output_has "would import 6 tasks (CC 6)" '(CRITICAL): "Publish"' "nothing changed"
  assert_unchanged
  assert_absent "$ROOT/data"
}

@test "--distribute shares them out" {
  given postbox/CA/outbox.json '{"expertise": ["docs"], "tasks": []}'
  runs recovery import "$FIXTURES/TODO.md" --distribute -v
  assert_output_has '-> CA (HIGH): expertise docs; load'
  refused 64 recovery import "$FIXTURES/TODO.md" --distribute --agent CC
  refused 64 recovery import "$FIXTURES/TODO.md"
  refused 64 recovery import "$FIXTURES/TODO.md" --agent CC --strict
}

@test "an agent who isn't there is refused, and made with --create" {
  refused 66 recovery import "$FIXTURES/TODO.md" --agent NEW
  assert_stderr_has "no agent NEW" --create
  assert_absent "$ROOT/postbox/NEW"
  runs recovery import "$FIXTURES/TODO.md" --agent NEW --create
  assert_output "imported 6 tasks (NEW 6); 6 files, read back"
  assert_json postbox/NEW/outbox.json 'd["agent_id"], len(d["tasks"])' "('NEW', 6)"
  refused 64 recovery import "$FIXTURES/TODO.md" --distribute --create
  file t.json '{"tasks": [{"id": 1, "title": "a", "dependencies": [2]}, {"id": 2, "title": "b", "dependencies": [1]}]}'
  refused 65 recovery import "$FILE" --agent NEWER --create
  refused 64 recovery import "$FIXTURES/TODO.md" --agent ../x
}

@test "ids get the prefix that is asked for, and become ids; stdin needs one" {
  runs recovery import "$FIXTURES/todos.json" --agent CC --prefix sprint.4
  assert_output_has "imported 3 tasks"
  refused 64 recovery import - --agent CC <"$FIXTURES/todos.json"
  assert_stderr_has --prefix
  refused 64 recovery import "$FIXTURES/todos.json" --agent CC --prefix ../x
  file ids.json '[{"id": "a/b $x", "subject": "One"}]'
  runs recovery import - --agent CC --prefix P <"$FILE"
  assert_equal One "$(task CC P-a-b--x title)"
  file ids.json '[{"id": "a/b", "subject": "One"}, {"id": "a b", "subject": "Two"}]'
  refused 65 recovery import "$FILE" --agent CC
  assert_stderr_has '"ids-a-b"'
}

@test "--format says what can't be told, and a wrong one is refused" {
  file list 'a text
- [ ] One'
  runs recovery import "$FILE" --agent CC --format markdown
  refused 65 recovery import "$FILE" --agent CC --format todos
  refused 64 recovery import "$FILE" --agent CC --format yaml
  file x.json '{"a": 1}'
  refused 65 recovery import "$FILE" --agent CC
  assert_stderr_has "--format" "task-master, claude-tasks, todos, markdown"
  file x.json '{"tasks": [{"task_id": "A", "title": "a"}]}'
  refused 65 recovery import "$FILE" --agent CC
  assert_stderr_has "recovery distribute"
}

@test "what can't be read is refused as a whole, with line and column" {
  local text
  for text in '' '{' '{"tasks": [{"id": 1}]}' '{"tasks": [{"title": "a"}]}' '{"tasks": [{"id": 1, "title": "a", "status": "odd"}]}' \
    '{"tasks": [{"id": 1, "title": "a", "priority": "odd"}]}' '{"tasks": [{"id": 1, "title": "a", "dependencies": [{}]}]}' \
    '{"tasks": [{"id": 1, "title": "a", "dependencies": [7]}]}' '{"tasks": [{"id": 1, "title": "a", "subtasks": 3}]}' \
    '{"tasks": [{"id": 1, "title": "a"}, {"id": 1, "title": "b"}]}' '{"tasks": [{"id": 1, "id": 2, "title": "a"}]}' \
    '{"tasks": [{"id": NaN, "title": "a"}]}' '{"tasks": [{"id": 1, "title": "a", "dependencies": [2]}, {"id": 2, "title": "b", "dependencies": [1]}]}' \
    '[{"content": "a", "status": "odd"}]' '[{"content": ""}]' '[{"content": "a"}, 3]' '[{"subject": "a"}]' '{"tasks": []}' \
    '[{"id": "1", "subject": "a", "blockedBy": "2"}]'; do
    file bad.json "$text"
    refused 65 recovery import "$FILE" --agent CC
    [[ $stderr == *"line "*", column "* || $stderr == *empty* || $stderr == *"no tasks"* ]] || fail "$text: $stderr"
  done
  for text in '- [y] a' '- []' '- [ ]a' '- [ ] ' '- [x]' '1. [/] a' $'- [ ] ok\n- [-] a' '- [ ] a (P1) !low' '- [ ] (P1)' 'prose'; do
    file bad.md "$text"
    refused 65 recovery import "$FILE" --agent CC
    [[ $stderr == *"line "*", column "* || $stderr == *"no check list"* ]] || fail "$text: $stderr"
  done
}

@test "escape codes of a file don't reach the terminal, and titles are stored exactly" {
  file TODO.md $'- [ ] \e[31mred $(touch PWNED) \xc3\xbc'
  runs recovery import "$FILE" --agent CC -v
  [[ $output$stderr != *$'\e'* ]]
  assert_equal $'\e[31mred $(touch PWNED) ü' "$(json "$ROOT/postbox/CC/outbox.json" 'd["tasks"][-1]["title"]')"
  assert_absent PWNED
}

@test "the whole is rolled back by its name, a new agent with it" {
  runs recovery import "$FIXTURES/TODO.md" --agent NEW --create --json
  runs recovery rollback "backlog/$(json - 'd["backlog"]' <<<"$output")"
  assert_absent "$ROOT/postbox/NEW/outbox.json"
  assert_json .sprint/progress.json 'd["total_tasks"], len(d["tasks"])' "(4, 2)"
}
