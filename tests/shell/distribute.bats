#!/usr/bin/env bats

load test_helper

# CC can test, CA can do front ends, WA is not there any more.

setup() {
  make_workspace
  BACKLOG=$SUITE/tests/fixtures/sprint.json
  agent CC '["testing", "performance"]' 3
  agent CA '["CSS", "front_end"]' 1
  agent CB '["api"]' 6
}

agent() { # <agent> <expertise> <hours of open work> [<more members>]
  given "postbox/$1/outbox.json" "{
  \"agent_id\": \"$1\",
  \"expertise\": $2,${4-}
  \"tasks\": [
    {\"task_id\": \"$1-OLD\", \"title\": \"Old\", \"status\": \"pending\", \"estimated_hours\": $3},
    {\"task_id\": \"$1-DONE\", \"title\": \"Done\", \"status\": \"completed\", \"estimated_hours\": 90}
  ],
  \"history\": [{\"task_id\": \"$1-GONE\", \"status\": \"completed\"}]
}"
}

backlog() { # <json>; in $FILE
  FILE=$BATS_TEST_TMPDIR/backlog.json
  printf '%s' "$1" >"$FILE"
}

many() { # <how many>; a backlog of so many tasks
  backlog "[$(printf '{"id": "M-%d", "title": "t"}, ' $(seq 2 "$1")){\"id\": \"M-1\", \"title\": \"t\"}]"
}

ids() { # <agent>; the tasks that are neither old nor done
  json "$ROOT/postbox/$1/outbox.json" '" ".join(t["task_id"] for t in d["tasks"][2:])'
}

@test "a backlog goes out by expertise, then to whoever has the fewest open hours, each with its reason" {
  runs recovery distribute -v "$BACKLOG"
  assert_output_has "distributed 4 tasks (CA 2, CC 2); 7 files, read back" \
    'S-2 -> CA (CRITICAL): expertise css; load 1 h; "Dark mode"' \
    "S-1 -> CC (HIGH): expertise testing, Performance; load 3 h" \
    "S-3 -> CA (MEDIUM): nobody has kubernetes; load 2 h" \
    "S-4 -> CC (MEDIUM): named; load 5.5 h"
  assert_stderr_has "S-3: nobody has its expertise (kubernetes); it goes to CA"
  assert_equal "S-2 S-3" "$(ids CA)"
  assert_equal "S-1 S-4" "$(ids CC)"
  assert_no_stray_files
  assert_locks_free
}

@test "what the backlog says of a task is stored exactly, and runs nothing" {
  runs recovery distribute "$BACKLOG"
  assert_equal 'Load tests of the “gateway” $(touch PWNED)' "$(task CC S-1 title)"
  assert_equal "HIGH pending 2.5 a hundred users, größer later" \
    "$(task CC S-1 priority) $(task CC S-1) $(task CC S-1 estimated_hours) $(task CC S-1 description)"
  assert_equal "['S-1', 'S-3']" "$(task CC S-4 dependencies)"
  assert_absent PWNED
}

@test "progress lists and counts them, and each has its brief" {
  runs recovery distribute "$BACKLOG"
  assert_json .sprint/progress.json 'd["total_tasks"], d["pending"], d["tasks"]["S-3"]["agent"]' "(8, 5, 'CA')"
  run -0 cat "$ROOT/postbox/CA/inbox/S-2.md"
  assert_output_has "# S-2: Dark mode" "complete_task_with_recovery.sh CA S-2"
  runs complete_task CA S-2 "dark"
  assert_completed CA S-2 "dark"
}

@test "the same command again is a no-op that says so, also when the tasks were done, moved or archived" {
  runs recovery distribute "$BACKLOG"
  remember_tree
  runs recovery distribute "$BACKLOG"
  assert_output "already distributed 4 tasks of $BACKLOG; nothing changed"
  assert_unchanged
  runs complete_task CC S-1
  given postbox/CA/outbox.json '{"tasks": [], "history": [{"task_id": "S-2", "status": "completed"}]}'
  given postbox/CB/outbox.json '{"tasks": [{"task_id": "S-3", "title": "Cluster", "priority": "Medium",
    "estimated_hours": 4, "skills": ["kubernetes"]}]}'
  remember_tree
  runs recovery distribute -v "$BACKLOG"
  assert_output_has "nothing changed" "S-1 is with CC: there already" "S-2 is with CA: completed before" \
    "S-3 is with CB: there already"
  assert_unchanged
}

@test "a longer backlog gives out what is new" {
  backlog '[{"id": "N-1", "title": "One"}]'
  runs recovery distribute "$FILE"
  backlog '[{"id": "N-1", "title": "One"}, {"id": "N-2", "title": "Two", "dependencies": ["N-1", "CC-GONE", "CA-OLD"]}]'
  runs recovery distribute "$FILE"
  assert_output_has "distributed 1 task (CA 1), 1 task there already; 3 files"
}

@test "a task that is there and differs is refused, and nothing is given out" {
  backlog '[{"id": "N-1", "title": "One"}, {"id": "CC-OLD", "title": "New words"}]'
  refused 65 recovery distribute "$FILE"
  assert_stderr_has "CC/CC-OLD is there already, and differs" 'title' '"Old"' "line 1, column 33" "Nothing changed" --skip-existing
  runs recovery distribute --skip-existing "$FILE"
  assert_equal Old "$(task CC CC-OLD title)"
  assert_output_has "distributed 1 task" "1 task there already"
}

@test "--dry-run shows who would get what, and changes nothing" {
  remember_tree
  runs recovery distribute --dry-run "$BACKLOG"
  assert_output_has "would distribute 4 tasks (CA 2, CC 2); 7 files; nothing changed" "  S-2 -> CA (CRITICAL)"
  assert_unchanged
  assert_absent "$ROOT/data"
}

@test "--json says each placing, and each refusal" {
  runs recovery distribute --json "$BACKLOG"
  assert_output_json 'd["ok"], d["changed"], [(p["task"], p["agent"]) for p in d["placed"]], len(d["files"])' \
    "(True, True, [('S-2', 'CA'), ('S-1', 'CC'), ('S-3', 'CA'), ('S-4', 'CC')], 7)"
  runs recovery distribute --json "$BACKLOG"
  assert_output_json 'd["changed"], len(d["skipped"])' "(False, 4)"
  refused 66 recovery distribute --json nowhere.json
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
}

@test "-q says nothing" {
  runs recovery distribute -q "$BACKLOG"
  assert_output ""
}

@test "--strict refuses a task whose expertise nobody has" {
  refused 65 recovery distribute --strict "$BACKLOG"
  assert_stderr_has "S-3: nobody has its expertise (kubernetes)"
}

@test "--agents names who may get some, and who isn't there is refused" {
  backlog '[{"id": "N-1", "title": "One", "tags": ["css"]}]'
  refused 66 recovery distribute --agents CC,XX "$FILE"
  assert_stderr_has "no agent XX" "CA, CB, CC"
  refused 64 recovery distribute --agents CC,,CA "$FILE"
  refused 64 recovery distribute --agents CC,CC "$FILE"
  runs recovery distribute --agents CC,CB "$FILE"
  assert_equal N-1 "$(ids CC)"
}

@test "an agent whose outbox says that it rests gets nothing unless it is named" {
  agent WA '["kubernetes"]' 1 '"status": "DECOMMISSIONED - No longer active",'
  backlog '[{"id": "N-1", "title": "One", "tags": ["kubernetes"]}]'
  runs recovery distribute "$FILE"
  assert_stderr_has "WA gets nothing: its outbox says \"DECOMMISSIONED - No longer active\""
  assert_equal "" "$(ids WA)"
  backlog '[{"id": "N-2", "title": "Two", "tags": ["kubernetes"]}, {"id": "N-3", "title": "Three", "agent": "WA"}]'
  runs recovery distribute --agents WA,CC "$FILE"
  assert_equal "N-2 N-3" "$(ids WA)"
  backlog '[{"id": "N-4", "title": "Four", "agent": "WA"}]'
  runs recovery distribute "$FILE"
  assert_stderr_has "WA gets nothing but what names it: its outbox says"
}

@test "a task for an agent who isn't there is refused" {
  backlog '[{"id": "N-1", "title": "One"}, {"id": "N-2", "title": "Two", "agent": "XX"}]'
  refused 66 recovery distribute "$FILE"
  assert_stderr_has "N-2 is meant for XX"
}

@test "a circle of dependencies and one that nobody has are refused, with line and column" {
  backlog '[{"id": "A", "title": "a", "dependencies": ["B"]},
 {"id": "B", "title": "b", "dependencies": ["C"]}, {"id": "C", "title": "c", "dependencies": ["B"]}]'
  refused 65 recovery distribute "$FILE"
  assert_stderr_has "in a circle: B -> C -> B" "line 2, column 2"
  backlog '[{"id": "A", "title": "a", "dependencies": ["A"]}]'
  refused 65 recovery distribute "$FILE"
  backlog '[{"id": "A", "title": "a", "dependencies": ["NOBODY"]}]'
  refused 65 recovery distribute "$FILE"
  assert_stderr_has 'A depends on "NOBODY", which nobody has' "line 1, column 2"
}

@test "a circle that closes through a task in the postbox is refused" {
  given postbox/CB/outbox.json '{"tasks": [{"task_id": "Y", "title": "y", "dependencies": ["Z"]},
    {"task_id": "Z", "title": "z", "dependencies": ["Y"]}, {"task_id": "CB-1", "title": "x", "dependencies": ["A"]}]}'
  backlog '[{"id": "A", "title": "a", "dependencies": ["CB-1"]}]'
  refused 65 recovery distribute "$FILE"
  assert_stderr_has "in a circle: CB-1 -> A -> CB-1"
  backlog '[{"id": "A", "title": "a", "dependencies": ["Y"]}]'
  runs recovery distribute "$FILE"
}

@test "what is no backlog is refused, with line and column where there is one" {
  local text
  for text in '' ' ' '{' '[' 'hello' '{"tasks": 3}' '{"tasks": [3]}' '{"a": 1}' '[{"id": "A"}]' '[{"title": "a"}]' \
    '[{"id": 5, "title": "a"}]' '[{"id": "../A", "title": "a"}]' '[{"id": "A", "title": " "}]' \
    '[{"id": "A", "title": "a", "priority": "URGENT"}]' '[{"id": "A", "title": "a", "hours": 0}]' \
    '[{"id": "A", "title": "a", "hours": "2"}]' '[{"id": "A", "title": "a", "hours": true}]' \
    '[{"id": "A", "title": "a", "hours": NaN}]' '[{"id": "A", "title": "a", "x": 1e400}]' \
    '[{"id": "A", "title": "a", "title": "b"}]' '[{"id": "A", "task_id": "B", "title": "a"}]' \
    '[{"id": "A", "title": "a", "tags": "css"}]' '[{"id": "A", "title": "a", "tags": [3]}]' \
    '[{"id": "A", "title": "a", "agent": "../x"}]' '[{"id": "A", "title": "a", "status": "completed"}]' \
    '[{"id": "A", "title": "a"}, {"id": "A", "title": "a"}]' '[{"id": "A", "title": "\ud800"}]' \
    '[{"id": "A", "title": "a"},]' '[{"id": "A", "title": "a"}][]' '[]'; do
    backlog "$text"
    refused 65 recovery distribute "$FILE"
    assert_stderr_has backlog.json "Nothing changed"
    [[ $stderr == *"line "*", column "* || $stderr == *empty* || $stderr == *"no tasks"* ]] || fail "$text: $stderr"
  done
  printf '\xff' >"$FILE"
  refused 65 recovery distribute "$FILE"
  head -c 300000 /dev/zero | tr '\0' '[' >"$FILE"
  refused 65 recovery distribute "$FILE"
  assert_stderr_has nested
}

@test "a folder, a missing file and too many words are refused; a file anywhere, a pipe and stdin are read" {
  refused 64 recovery distribute
  refused 64 recovery distribute "$BACKLOG" more
  refused 64 recovery distribute "$BATS_TEST_TMPDIR"
  assert_stderr_has folder
  refused 66 recovery distribute nowhere.json
  refused 66 recovery distribute "$BACKLOG/x"
  backlog '[{"id": "N-1", "title": "One"}]'
  runs recovery distribute - <"$FILE"
  assert_output_has "distributed 1 task"
  runs recovery distribute <(printf '[{"id": "N-2", "title": "Two"}]')
  assert_output_has "distributed 1 task"
}

@test "2000 tasks go at once, 2001 are refused before anything is written" {
  many 2001
  refused 65 recovery distribute "$FILE"
  assert_stderr_has "2001 tasks" "2000"
  many 2000
  rm "$ROOT/.sprint/progress.json"
  runs recovery distribute "$FILE"
  assert_output_has "distributed 2000 tasks"
  runs recovery distribute "$FILE"
  assert_output_has "already distributed 2000 tasks"
}

@test "escape codes of a backlog don't reach the terminal" {
  backlog '[{"id": "N-1", "title": "\u001b[31mred", "tags": ["\u001b[0m"], "agent": "CC"}]'
  runs recovery distribute -v "$FILE"
  [[ $output$stderr != *$'\e'* ]]
  backlog '[{"id": "\u001b[31m", "title": "x"}]'
  refused 65 recovery distribute "$FILE"
  [[ $stderr != *$'\e'* ]]
}

@test "a damaged outbox or progress file is refused, and nobody gets anything" {
  given postbox/CB/outbox.json '{"tasks": [}'
  refused 65 recovery distribute "$BACKLOG"
  assert_stderr_has postbox/CB/outbox.json
  agent CB '[]' 1
  given .sprint/progress.json '{'
  refused 65 recovery distribute "$BACKLOG"
}

@test "a workspace without agents is refused" {
  rm -r "$ROOT/postbox"
  mkdir "$ROOT/postbox"
  backlog '[{"id": "N-1", "title": "One"}]'
  refused 66 recovery distribute "$FILE"
  assert_stderr_has "recovery assign"
}

@test "the whole is rolled back by its name, is not given out again by itself, and is with --again" {
  local name
  cp -R "$ROOT/postbox" before
  runs recovery distribute --json "$BACKLOG"
  name=$(json - 'd["backlog"]' <<<"$output")
  refused 65 recovery rollback CC S-1
  assert_stderr_has "rollback backlog/$name"
  runs recovery rollback "backlog/$name"
  run -0 diff -r before "$ROOT/postbox" --exclude='.*.lock' --exclude=inbox
  rm -r before
  refused 65 recovery distribute "$BACKLOG"
  assert_stderr_has "rolled back" --again
  runs recovery distribute --again "$BACKLOG"
  assert_output_has "distributed 4 tasks"
  runs recovery changes CC S-1
  assert_output_has "distribute backlog/$name" rollback
  assert_no_stray_files
}

@test "a rollback is refused once somebody has touched one of the tasks" {
  runs recovery distribute --json "$BACKLOG"
  local name
  name=$(json - 'd["backlog"]' <<<"$output")
  runs complete_task CC S-1
  refused 65 recovery rollback "backlog/$name"
  assert_completed CC S-1
}

@test "what another process left half done is finished first, and then counted" {
  crash_at journal-synced recovery distribute "$BACKLOG"
  runs recovery status
  assert_output_has "unfinished commit: distribute backlog/sprint-"
  backlog '[{"id": "N-1", "title": "One"}]'
  runs recovery distribute "$FILE"
  assert_stderr_has 'finished `distribute backlog/sprint-'
  runs recovery distribute "$BACKLOG"
  assert_output_has "already distributed"
  assert_json .sprint/progress.json 'd["total_tasks"]' 9
  assert_no_stray_files
}

@test "a crash before the commit point leaves nothing that the next command doesn't remove" {
  crash_at recheck recovery distribute "$BACKLOG"
  run -0 find "$ROOT/postbox" -name '*.stage'
  [[ -n $output ]]
  runs recovery distribute "$BACKLOG"
  assert_output_has "distributed 4 tasks"
  assert_no_stray_files
}

@test "hundreds of staged briefs are removed after a crash, of the distribution and of its rollback" {
  local name
  many 600
  crash_at recheck recovery distribute "$FILE"
  (($(find "$ROOT/postbox" -name '*.stage' | wc -l) > 600))
  runs recovery distribute --json "$FILE"
  assert_no_stray_files
  name=$(json - 'd["backlog"]' <<<"$output")
  crash_at recheck recovery rollback "backlog/$name"
  runs recovery rollback "backlog/$name"
  assert_no_stray_files
  (($(stat -c %s "$ROOT/postbox/CA/.outbox.json.lock") <= 4096))
}
