#!/usr/bin/env bats

load test_helper

setup() {
  make_workspace
  cd "$ROOT" || return
}

@test "explain tells of a command that was killed in its commit, and the command it names mends it" {
  crash_at replaced complete_task CC TASK-168B "all done"
  remember_tree
  runs recovery explain TASK-168B
  assert_output_has "CC/TASK-168B: " "stopped in the middle of complete CC/TASK-168B" "next: recovery recover"
  [[ ${lines[1]} == "cause: Pid "* ]]
  assert_unchanged
  runs recovery explain
  assert_output_has "1 thing since" "-> recovery recover"
  runs recovery recover
  runs recovery explain TASK-168B
  assert_output_has "Nothing is wrong: it was completed"
  runs recovery explain
  assert_output_has "nothing went wrong since"
}

@test "explain tells of a task that somebody removed, and the command it names shows it as it was" {
  runs assign_task CC TASK-1 $'esc\e[31m' LOW
  given postbox/CC/outbox.json '{"agent_id": "CC", "tasks": [], "history": []}'
  runs recovery explain CC/TASK-1
  assert_output_has "Somebody removed it from the outbox past the suite" "next: recovery history CC TASK-1 --at 1"
  refused 66 recovery explain NOBODY-1
  assert_stderr_has "nothing is known of NOBODY-1"
}

@test "explain shows both agents that have a task of the id, with one next command, and the same facts as --json" {
  runs assign_task CA TASK-168B other LOW
  runs recovery fail CC TASK-168B $'no \e[31mnetwork'
  runs recovery explain TASK-168B
  assert_output_has "CA/TASK-168B: pending" "CC/TASK-168B: failed" "It failed: no \\x1b[31mnetwork" "next: recovery reopen CC TASK-168B"
  (($(grep -c '^next:' <<<"$output") == 1))
  runs recovery explain TASK-168B --json
  assert_output_json '[t["status"] for t in d["tasks"]], d["next"]' "(['pending', 'failed'], 'recovery reopen CC TASK-168B')"
  refused 64 recovery explain CC TASK-168B more
  refused 64 recovery explain ../x
}

@test "explain knows an archived task beside another agent's of that id, with no change log either" {
  runs recovery archive CC --older-than 0
  rm -r "$ROOT/data/changes"
  runs recovery explain TASK-165C
  assert_output_has "it was completed" "archived    postbox/CC/archive/"
  runs recovery assign CA TASK-165C "another's" LOW 1
  runs recovery explain TASK-165C
  assert_output_has "CC/TASK-165C: " "archived    postbox/CC/archive/" "CA/TASK-165C: pending"
}

@test "explain names what it can't read, and doesn't take it for empty" {
  local as=env
  ((EUID)) || as=as_plain_root
  runs recovery archive CC --older-than 0
  runs recovery note CA TASK-168C "words"
  chmod 000 "$ROOT/postbox/CC"
  refused 77 "$as" "$SUITE/bin/recovery" explain TASK-169A
  assert_stderr_has postbox/CC ermission
  runs "$as" "$SUITE/bin/recovery" explain CC/TASK-169A
  assert_output_has "Its outbox can't be read" postbox/CC
  runs "$as" "$SUITE/bin/recovery" explain
  assert_output_has "postbox/CC can't be read"
  chmod 755 "$ROOT/postbox/CC"
  chmod 000 "$ROOT/data/changes"
  refused 77 "$as" "$SUITE/bin/recovery" explain NOBODY-1
  assert_stderr_has data/changes ermission
  chmod 755 "$ROOT/data/changes"
}

@test "a line that the log has lost is not taken for somebody's hand, and a hand in any of a task's files is seen" {
  local changes
  runs recovery start CC TASK-168B
  runs complete_task CC TASK-168B
  changes=$(echo "$ROOT"/data/changes/*.jsonl)
  cp "$changes" "$BATS_TEST_TMPDIR/whole"
  truncate -s -40 "$changes"
  runs recovery explain TASK-168B
  assert_output_has "cause: Change 2 (complete CC/TASK-168B of " "1 torn or foreign line of" "next: recovery doctor"
  [[ $output != *"past the suite"* ]]
  cp "$BATS_TEST_TMPDIR/whole" "$changes"
  sed -i '/TASK-168B/s/completed/pending/' "$ROOT/.sprint/progress.json"
  runs recovery explain TASK-168B
  assert_output_has "cause: .sprint/progress.json was changed past the suite" "next: recovery progress rebuild"
  runs recovery progress rebuild
  runs recovery explain TASK-168B
  assert_output_has "Nothing is wrong: it was completed"
  rm "$ROOT/postbox/CC/completed/TASK-168B_completion.json"
  runs recovery explain TASK-168B
  assert_output_has "cause: Somebody removed postbox/CC/completed/TASK-168B_completion.json, which"
}

@test "the command that explain names works where it is pasted, whatever the workspace is called" {
  local root name
  crash_at replaced complete_task CC TASK-168B "all done"
  cd "$BATS_TEST_TMPDIR/elsewhere"
  unset ORCHESTRATION_ROOT
  recovery() { "$SUITE/bin/recovery" "$@"; }
  export -f recovery
  export SUITE
  for name in "it's a \$(touch gone) \"place\"" $'new\nline \e[31m' $'\xff'; do
    root=$BATS_TEST_TMPDIR/$name
    cp -r "$ROOT" "$root"
    runs recovery explain -C "$root" TASK-168B
    [[ $output != *$'\e'* ]]
    runs bash -c "${output##*next: }"
    grep -q '"status": "completed"' "$root/postbox/CC/outbox.json"
    [[ ! -e gone ]]
  done
  ORCHESTRATION_ROOT=$ROOT runs recovery explain
  assert_output_has "next: recovery -C '$ROOT' recover"
  cd "$ROOT/postbox/CC"
  runs recovery explain
  assert_output_has "next: recovery recover"
}

@test "what a run of one agent's task went through is not told of another agent's task of that id" {
  runs assign_task CA TASK-168B other LOW
  run -1 recovery run CC TASK-168B --attempts 2 --delay 0.01 -- false
  run -127 recovery run CC TASK-169A -- /no/such/program
  runs recovery explain CC/TASK-168B
  assert_output_has "number 2 (1): CommandFailed: false exited with 1" "checkpoint  failed"
  runs recovery explain CA/TASK-168B
  assert_output_has "Nothing is wrong: it waits"
  [[ $output != *CommandFailed* && $output != *checkpoint* ]]
  runs recovery explain CC/TASK-169A
  assert_output_has "A person is needed: CommandFailed: /no/such/program"
  runs recovery explain --json
  assert_output_json '[(row["agent"], row["task"]) for row in d["findings"]]' "[('CC', 'TASK-169A'), ('CC', 'TASK-168B')]"
}

@test "explain --since tells of another period, and of a task from then on" {
  runs recovery fail CC TASK-168B "why"
  runs recovery explain --since 3d
  assert_output_has "1 thing since $(date -u -d '3 days ago' +%Y-%m-%dT)"
  runs recovery explain TASK-168B --since 2099-01-01
  assert_output_has "cause: It failed: why" "what happened before 2099-01-01T00:00:00Z is left out"
  [[ $output != *"change 1"* ]]
  refused 64 recovery explain --since yesterday
  refused 64 recovery explain --since ''
}

@test "a call of unknown outcome is in the overview, with a command that decides nothing" {
  run -137 recovery once 'the key' -- sh -c 'kill -9 $$'
  runs recovery explain
  assert_output_has "the key: Its call was started at 20" "next: recovery escalations"
  runs recovery explain --json
  assert_output_json '[(row["task"], row["next"]) for row in d["findings"]]' "[('the key', 'recovery escalations')]"
}

@test "explain tells of a command that died before its change was decided, and not of one that died behind it" {
  crash_at stage:2 complete_task CC TASK-168B
  runs recovery explain
  assert_output_has "CC/TASK-168B: Pid " "died in complete" "next: recovery recover"
  runs recovery explain TASK-168B
  assert_output_has "before" "its change was decided" "next: recovery recover"
  runs recovery recover
  runs recovery explain TASK-168B
  assert_output_has "Nothing is wrong: it waits"
  crash_at backup-remove complete_task CC TASK-168B
  runs recovery explain TASK-168B
  assert_output_has "Nothing is wrong: it was completed"
}

@test "a command that gave up is named with all that it was given" {
  local message=$'it\'s "done"\n $(touch gone) \e[31m'
  hold "$ROOT/postbox/CC/.outbox.json.lock"
  run -75 with RECOVERY_LOCK_TIMEOUT=0.05 RECOVERY_MAX_ATTEMPTS=1 -- recovery -C "$ROOT" complete -v CC TASK-168B "$message"
  let_go
  runs recovery explain TASK-168B
  assert_output_has "complete gave up after one try" "next: recovery complete -v CC TASK-168B "
  [[ $output != *$'\e'* ]]
  recovery() { "$SUITE/bin/recovery" "$@"; }
  export -f recovery
  export SUITE
  runs bash -c "${output##*next: }"
  assert_completed CC TASK-168B "$message"
  assert_absent gone
}

@test "from explain over the doctor to the repair, and to what a person is asked, by pasting alone" {
  truncate -s 200 "$ROOT/postbox/CC/outbox.json"
  cd "$BATS_TEST_TMPDIR/elsewhere"
  unset ORCHESTRATION_ROOT
  recovery() { "$SUITE/bin/recovery" "$@"; }
  export -f recovery
  export SUITE
  runs recovery explain -C "$ROOT"
  run -1 bash -c "${output##*next: }"
  assert_output_has "cut off" "next: recovery -C '$ROOT' doctor --repair"
  runs bash -c "${output##*next: }"
  assert_output_has "repaired postbox/CC/outbox.json"
  runs bash -c "${output##*next: }"
  assert_output_has "Undecided: " "next: recovery -C '$ROOT' escalations resolve doctor 0"
}
