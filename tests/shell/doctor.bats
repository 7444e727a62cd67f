#!/usr/bin/env bats

load test_helper

glue() { # <agent>; a report behind its outbox, as `cat report.json >>outbox.json` does it
  printf '\n{"task_id": "TASK-161B", "timestamp": "2024-03-19T00:00:00Z", "report": {"summary": "sauber"}}\n' \
    >>"$ROOT/postbox/$1/outbox.json"
}

@test "nothing broken is said, exit 0, and nothing is made" {
  runs recovery doctor
  assert_output "nothing is broken; 2 agents, 3 files looked through"
  assert_absent "$ROOT/data" "$ROOT/logs"
}

@test "each finding says file, line, column, what it means and what --repair would do; then the next command" {
  glue CC
  refused_quietly 1 recovery doctor
  assert_output_has "1 finding; 2 agents, 3 files looked through; nothing changed" \
    "postbox/CC/outbox.json:24:1: several documents: another document begins here; " "--repair makes one of them" \
    "next: recovery doctor --repair"
}

refused_quietly() { # <code> <command>...; nothing is changed; stdout says what
  local code=$1
  shift
  remember_tree
  run --separate-stderr "-$code" "$@"
  assert_unchanged
}

@test "a repair makes history of a glued report, keeps the original, and the second one does nothing" {
  glue CC
  cp "$ROOT/postbox/CC/outbox.json" "$BATS_TEST_TMPDIR/hurt"
  refused 65 complete_task CC TASK-168B
  runs recovery doctor --repair
  assert_output_has "repaired 1 thing; nothing is broken now" "TASK-161B" "became an entry of"
  assert_json postbox/CC/outbox.json '[e["task_id"] for e in d["history"]]' "['TASK-161B']"
  assert_json postbox/CC/outbox.json 'len(d["tasks"])' 3
  cmp "$BATS_TEST_TMPDIR/hurt" "$ROOT"/data/quarantine/postbox@CC@outbox.json@????????????????
  remember_tree
  runs recovery doctor --repair
  assert_output "nothing is broken; 2 agents, 4 files looked through; nothing changed"
  assert_unchanged
  runs complete_task CC TASK-168B "done"
  assert_locks_free
}

@test "--json is one object with every finding, repair and source" {
  glue CC
  head -c 450 "$ROOT/postbox/CC/outbox.json" >"$BATS_TEST_TMPDIR/cut"
  cp "$BATS_TEST_TMPDIR/cut" "$ROOT/postbox/CC/outbox.json"
  run --separate-stderr -1 recovery doctor --json
  assert_output_json '[(f["file"], f["line"] > 0, f["kind"]) for f in d["findings"]]' "[('postbox/CC/outbox.json', True, 'cut')]"
  runs recovery doctor --repair --json
  assert_output_json 'd["code"], d["changed"], d["next"]' "(0, True, 'recovery escalations')"
  printf '%s' "$output" | json - 'd["repaired"][0]["from"]' >"$BATS_TEST_TMPDIR/from"
  grep -q "the file" "$BATS_TEST_TMPDIR/from"
}

@test "an outbox that is gone comes back as the change log has it" {
  runs assign_task CC TASK-900 "Brief and to the point" HIGH 2
  runs complete_task CC TASK-900 "as asked"
  rm "$ROOT/postbox/CC/outbox.json"
  runs recovery doctor --repair --agent CC
  assert_equal "Brief and to the point" "$(task CC TASK-900 title)"
  assert_completed CC TASK-900 "as asked"
}

@test "as many agents as there are: few files are open at once" {
  local n
  for n in {1..150}; do
    mkdir "$ROOT/postbox/A$n"
    cp "$ROOT/postbox/CA/outbox.json" "$ROOT/postbox/A$n/outbox.json"
  done
  : >"$ROOT/postbox/A77/outbox.json"
  ulimit -Sn 40
  run --separate-stderr -1 recovery doctor
  assert_output_has "1 finding; 152 agents" "postbox/A77/outbox.json:1:1: empty"
  runs recovery doctor --repair
}

@test "words, options and agents that there aren't are refused" {
  refused 64 recovery doctor now
  refused 64 recovery doctor --dry-run
  refused 64 recovery doctor --agent ../x
  refused 66 recovery doctor --agent NOBODY
}

@test "a refusal says which workspace it is about" {
  local words
  for words in 'doctor --agent NOBODY' 'doctor now' 'explain NOTHING' 'history NOBODY' 'receipts verify --agent NOBODY'; do
    # shellcheck disable=SC2086 # words
    run --separate-stderr recovery $words --json
    jq -e --arg root "$ROOT" '.ok == false and .root == $root' <<<"$output"
  done
}

@test "a folder that may not be read is named, and hides nobody" {
  require_root
  let_others_in
  glue CC
  chmod -R a+rX "$ROOT"
  chmod 700 "$ROOT/postbox/CA"
  run --separate-stderr -1 as_user 12345 12345 "$SUITE/bin/recovery" doctor
  assert_output_has "postbox/CA: no permission" "postbox/CC/outbox.json:24:1: several documents"
}
