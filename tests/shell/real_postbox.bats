#!/usr/bin/env bats

load test_helper

# The postbox of a real project, beside this repository.

setup() {
  make_workspace
  REAL=$SUITE/../shared/real-postbox
  [[ -d $REAL/postbox ]] || skip "NOT TESTED: there is no real postbox at $REAL"
  rm -rf "$ROOT"
  mkdir "$ROOT"
  cp -R "$REAL/postbox" "$REAL/.sprint" "$ROOT/"
  chmod -R u+w "$ROOT"
}

lines_changed() { # <file>; how many lines of the original are not there any more
  diff "$REAL/$1" "$ROOT/$1" | grep -c '^<'
}

@test "TASK-168B of CC and TASK-168C of CA are completed at the same time" {
  local one two
  assert_equal "pending in_progress" "$(task CC TASK-168B) $(task CA TASK-168C)"
  RECOVERY_FAULT="recheck=wait=$BATS_TEST_TMPDIR/go" complete_task CC TASK-168B "tests done" >one 2>&1 3>&- &
  one=$!
  complete_task CA TASK-168C "front end done" >two 2>&1 3>&- &
  two=$!
  touch "$BATS_TEST_TMPDIR/go"
  wait "$one"
  wait "$two"
  assert_completed CC TASK-168B "tests done"
  assert_completed CA TASK-168C "front end done"
  assert_output_of one "completed CC/TASK-168B (pending -> completed); 3 files, read back"
  assert_output_of two "completed CA/TASK-168C (in_progress -> completed); 3 files, read back"
  rm one two
  assert_no_stray_files
}

assert_output_of() { # <file> <text>
  assert_equal "$2" "$(<"$1")"
}

@test "nothing but the task's own lines changes" {
  runs complete_task CC TASK-168B
  assert_equal 1 "$(lines_changed postbox/CC/outbox.json)" || assert_equal 2 "$(lines_changed postbox/CC/outbox.json)"
  (($(lines_changed .sprint/progress.json) <= 6))
  runs recovery rollback CC TASK-168B
  run -0 diff -r "$REAL/.sprint" "$ROOT/.sprint" --exclude='.*.lock'
  cmp "$REAL/postbox/CC/outbox.json" "$ROOT/postbox/CC/outbox.json"
}

@test "every outbox there can be read, and every open task be completed and rolled back" {
  local agent task
  runs task_status
  for agent in "$ROOT"/postbox/*/; do
    agent=$(basename "$agent")
    [[ -f $ROOT/postbox/$agent/outbox.json ]] || continue
    for task in $(json "$ROOT/postbox/$agent/outbox.json" \
      '" ".join(t["task_id"] for t in d["tasks"] if t.get("status") != "completed")'); do
      runs complete_task "$agent" "$task"
      runs recovery rollback "$agent" "$task"
    done
    cmp "$REAL/postbox/$agent/outbox.json" "$ROOT/postbox/$agent/outbox.json"
  done
  cmp "$REAL/.sprint/progress.json" "$ROOT/.sprint/progress.json"
}

@test "a backlog is shared out over the real agents, and its rollback gives the very bytes back" {
  local name agent
  runs recovery distribute --json "$SUITE/tests/fixtures/sprint.json"
  name=$(json - 'd["backlog"]' <<<"$output")
  assert_output_json '[(p["task"], p["agent"]) for p in d["placed"]]' \
    "[('S-2', 'CA'), ('S-1', 'CC'), ('S-3', 'ARCH'), ('S-4', 'CC')]"
  assert_stderr_has "WA gets nothing"
  cmp "$REAL/postbox/WA/outbox.json" "$ROOT/postbox/WA/outbox.json"
  assert_equal 0 "$(lines_changed postbox/CC/outbox.json)" || assert_equal 1 "$(lines_changed postbox/CC/outbox.json)"
  runs recovery rollback "backlog/$name"
  for agent in CA CC ARCH; do
    cmp "$REAL/postbox/$agent/outbox.json" "$ROOT/postbox/$agent/outbox.json"
  done
  cmp "$REAL/.sprint/progress.json" "$ROOT/.sprint/progress.json"
}

@test "progress.json is rebuilt by what is missing there, and its rollback gives the very bytes back" {
  runs recovery progress rebuild
  assert_json .sprint/progress.json 'd["total_tasks"], d["completed"], d["in_progress"], len(d["tasks"])' "(11, 8, 2, 11)"
  runs recovery rollback progress/rebuild
  cmp "$REAL/.sprint/progress.json" "$ROOT/.sprint/progress.json"
}

@test "five documents glued together are refused, with line and column" {
  cp -f "$REAL/damaged/five-documents-glued.json" "$ROOT/postbox/CC/outbox.json"
  chmod u+w "$ROOT/postbox/CC/outbox.json"
  refused 65 complete_task CC TASK-168B
  [[ $stderr =~ "line "[1-9][0-9]*", column "[1-9] ]]
  assert_stderr_has "another document"
  refused 65 assign_task CC TASK-1 title LOW
}

@test "a trailing comma is refused, with line and column" {
  cp -f "$REAL/damaged/trailing-comma.json" "$ROOT/postbox/CC/outbox.json"
  chmod u+w "$ROOT/postbox/CC/outbox.json"
  refused 65 complete_task CC TASK-168B
  assert_stderr_has "line 81, column 7" "recovery doctor"
  run --separate-stderr -1 recovery doctor
  assert_output_has "postbox/CC/outbox.json:80:40: trailing comma"
}

@test "a repair brings back all five glued reports, and the real outbox with the trailing comma but for the comma" {
  cp -f "$REAL/damaged/five-documents-glued.json" "$ROOT/postbox/WA/outbox.json"
  cp -f "$REAL/damaged/trailing-comma.json" "$ROOT/postbox/CA/outbox.json"
  chmod -R u+w "$ROOT/postbox"
  runs recovery doctor --repair
  assert_output_has "repaired 2 things; nothing is broken now"
  assert_json postbox/WA/outbox.json '[e["task_id"] for e in d["history"]]' \
    "['TASK-161B', 'TASK-161E', 'TASK-161D', 'TASK-161K', 'TASK-161N']"
  [[ $(diff "$REAL/damaged/trailing-comma.json" "$ROOT/postbox/CA/outbox.json") == 80c80* ]]
  assert_json postbox/CA/outbox.json 'len(d["tasks"]), len(d["history"])' "(1, 14)"
  runs recovery doctor --repair
  assert_output_has "nothing is broken"
}
