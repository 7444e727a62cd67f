#!/usr/bin/env bats

load test_helper

@test "an undo gives all files back, byte for byte, and the undo of the undo does it again" {
  remember_tree
  runs complete_task CC TASK-168B "all done"
  runs recovery undo CC TASK-168B
  assert_output_has "undid CC/TASK-168B (complete of 20" "3 files, read back"
  assert_unchanged
  assert_no_stray_files
  runs recovery undo CC/TASK-168B
  assert_completed CC TASK-168B "all done"
  runs recovery undo CC TASK-168B
  assert_unchanged
}

@test "a completion that was undone is refused without --again, and one that was done again is not" {
  runs complete_task CC TASK-168B
  runs recovery undo CC TASK-168B
  refused 65 complete_task CC TASK-168B
  assert_stderr_has "was rolled back" "--again"
  runs recovery undo CC TASK-168B
  runs recovery undo CC TASK-168B
  refused 65 complete_task CC TASK-168B
  runs recovery undo CC TASK-168B
  runs complete_task CC TASK-168B
  assert_output_has "already completed"
}

@test "an undo takes back a rollback too, which a rollback doesn't" {
  runs complete_task CC TASK-168B
  runs recovery rollback CC TASK-168B
  runs recovery rollback CC TASK-168B
  assert_open CC TASK-168B
  runs recovery undo CC TASK-168B
  assert_completed CC TASK-168B
}

@test "an undo is refused where somebody changed the same field since, with both values" {
  runs complete_task CC TASK-168B "ours"
  sed -i 's/"ours"/"theirs"/' "$ROOT/postbox/CC/outbox.json"
  refused 65 recovery undo CC TASK-168B
  assert_stderr_has postbox/CC/outbox.json "changed by somebody since" theirs ours "Nothing changed."
}

@test "an undo of a named change may be repeated, and is refused once another came after it" {
  runs complete_task CC TASK-168B
  runs recovery undo CC TASK-168B --change 1
  assert_open CC TASK-168B
  remember_tree
  runs recovery undo CC TASK-168B --change 1
  assert_output_has "already undone CC/TASK-168B (complete)" "nothing changed"
  assert_unchanged
  runs recovery note CC TASK-168B "later"
  refused 65 recovery undo CC TASK-168B --change 1
  assert_stderr_has "number 3" "not 1"
}

@test "an undo whose end was not confirmed is finished by its second try, not undone" {
  runs complete_task CC TASK-168B
  runs with RECOVERY_FAULT=folder-sync:1=EIO -- recovery undo CC TASK-168B
  assert_output_has "already undone"
  assert_open CC TASK-168B
  run --separate-stderr -71 with RECOVERY_MAX_ATTEMPTS=1 RECOVERY_FAULT=folder-sync:1=EIO -- recovery undo CC TASK-168B
  assert_stderr_has "next: recovery undo CC TASK-168B --change 20"
  read -ra again <<<"${stderr##*next: recovery }"
  runs recovery "${again[@]}"
  assert_output_has "already undone"
  assert_completed CC TASK-168B
}

@test "history shows each change and its fields, and --at gives the very bytes of then" {
  cp "$ROOT/postbox/CC/outbox.json" before
  runs complete_task CC TASK-168B $'esc\e[31m'
  runs recovery note CC TASK-169A "words"
  runs recovery history CC
  assert_output_has "    1  20" "complete" "CC/TASK-168B" 'tasks.TASK-168B.status "pending" -> "completed"' "note"
  [[ $output != *$'\e'* ]]
  runs recovery history CC TASK-169A --limit 1
  [[ $output != *TASK-168B* ]]
  remember_tree
  "$SUITE/bin/recovery" history CC --at 0 >then
  run -0 cmp before then
  "$SUITE/bin/recovery" history CC --at 2 >then
  run -0 cmp "$ROOT/postbox/CC/outbox.json" then
  runs recovery history CC/TASK-168B --at 0
  assert_output_has '"status": "pending"'
  assert_unchanged
}

@test "history fits a narrow terminal, and a refusal's next command names the workspace that -C named" {
  runs complete_task CC TASK-168B
  runs script -qec "stty cols 40; '$SUITE/bin/recovery' history CC" /dev/null
  output=${output//$'\r'/}
  assert_output_has "complete" '"pending" ->'
  (($(wc -L <<<"$output") <= 40)) || fail "too wide: $output"
  unset ORCHESTRATION_ROOT
  refused 65 recovery undo -C "$ROOT" CC TASK-168B --change 9
  assert_stderr_has "next: recovery -C '$ROOT' history CC TASK-168B"
}

@test "history --at says where somebody wrote past the suite, and refuses what can't be told" {
  runs complete_task CC TASK-168B
  sed -i 's/"CRITICAL"/"LOW"/' "$ROOT/postbox/CC/outbox.json"
  runs recovery history CC TASK-168B --at 0
  assert_output_has '"status": "pending"' '"LOW"'
  assert_stderr_has "somebody wrote past the suite"
  refused 66 recovery history CC --at 2h
  sed -i 's/"completed_at"/"gone_at"/' "$ROOT/postbox/CC/outbox.json"
  refused 65 recovery history CC --at 0
  assert_stderr_has completed_at absent
  refused 66 recovery history CC --at 99
  refused 64 recovery history CC --at yesterday
  refused 64 recovery history CC --limit 0
  refused 64 recovery history
  refused 66 recovery history XX
}

lose_change() { # <number>; its line is blanked, as a repair leaves it
  sed -i "s/^{\"seq\": $1, .*\$//" "$ROOT"/data/changes/*.jsonl
}

@test "an undo is refused where a later change of the task may be lost from the log, the newest one too" {
  local verb
  runs recovery assign CC TASK-200 "one" HIGH 1
  runs recovery start CC TASK-200
  runs recovery complete CC TASK-200
  lose_change 3
  for verb in undo rollback; do
    refused 65 recovery "$verb" CC TASK-200
    assert_stderr_has "change 3 is lost" "recovery doctor" "Nothing changed."
  done
  runs recovery note CA TASK-168C "another's, behind the gap"
  refused 65 recovery undo CC TASK-200
  assert_stderr_has "change 3 is lost"
  rm "$ROOT"/data/changes/*.jsonl
  refused 66 recovery undo CC TASK-200
  assert_stderr_has "change 4 is lost" "recovery doctor"
}

@test "an undo goes on where the hashes prove that the lost change did not touch the task's outbox" {
  runs recovery complete CC TASK-168B
  runs recovery fail CA TASK-168C "another's"
  lose_change 2
  runs recovery undo CC TASK-168B
  assert_open CC TASK-168B
}

@test "the number of a change that was undone as a whole is not lost, whoever wrote past the suite since" {
  local n
  runs recovery complete CC TASK-168B
  for n in 1 2; do
    crash_at replace recovery fail CC TASK-169A "ours"
    sed -i "s/\"in_progress[^\"]*\"/\"in_progress $n\"/" "$ROOT/postbox/CC/outbox.json"
    run recovery recover
    runs recovery undo CC TASK-168B --dry-run
  done
  runs recovery note CA TASK-168C "behind the gap"
  runs recovery undo CC TASK-168B
  assert_open CC TASK-168B
}

@test "a hand in the outbox does not hide what is certain: the gap is elsewhere, or was set aside" {
  runs recovery complete CC TASK-168B
  runs recovery fail CA TASK-168C "another's"
  runs recovery note CC TASK-169A "behind the gap"
  lose_change 2
  sed -i 's/"Load tests"/"Load tests, by hand"/' "$ROOT/postbox/CC/outbox.json"
  runs recovery undo CC TASK-168B
  crash_at replace recovery fail CC TASK-169A "ours"
  sed -i 's/"in_progress"/"in_progress by hand"/' "$ROOT/postbox/CC/outbox.json"
  run recovery recover
  runs recovery note CA TASK-168C "of an older version: "
  sed -i 's/"aborted": \[[0-9, ]*\], *//; s/, "aborted": \[[0-9, ]*\]//' "$ROOT"/data/changes/*.jsonl
  run -1 grep -q aborted "$ROOT"/data/changes/*.jsonl
  mv "$ROOT/data/conflicts" "$BATS_TEST_TMPDIR/kept"
  refused 65 recovery undo CC TASK-168B
  assert_stderr_has "change 5 is lost"
  mv "$BATS_TEST_TMPDIR/kept" "$ROOT/data/conflicts"
  runs recovery undo CC TASK-168B
  assert_completed CC TASK-168B
}

@test "history --at says what its own last change did not leave, and what is lost from the log" {
  runs recovery assign CC TASK-200 orig HIGH 1
  sed -i 's/orig/FORGED/' "$ROOT/postbox/CC/outbox.json"
  runs recovery history CC TASK-200 --at 1
  assert_output_has FORGED
  assert_stderr_has "not what change 1" "somebody wrote past the suite"
  sed -i 's/FORGED/orig/' "$ROOT/postbox/CC/outbox.json"
  runs recovery history CC TASK-200 --at 1
  [[ -z $stderr ]]
  runs recovery start CC TASK-200
  lose_change 2
  refused 65 recovery history CC --at 1
  assert_stderr_has "change 2 is lost" "recovery doctor"
}

@test "history refuses a task, a number and a txid that nobody knows" {
  runs recovery complete CC TASK-168B
  refused 66 recovery history CC NOPE
  assert_stderr_has "CC has no NOPE"
  runs recovery history CC TASK-169A
  assert_output_has "no change of CC/TASK-169A is recorded"
  refused 66 recovery history CC --at 20250101T000000Z-abcdef
  assert_stderr_has "there is no such change"
}

@test "what can't be read is no empty history: it is refused, or named beside what can be shown" {
  local as=env
  ((EUID)) || as=as_plain_root
  runs recovery complete CC TASK-168B
  chmod 000 "$ROOT"/data/changes/*.jsonl
  refused 77 "$as" "$SUITE/bin/recovery" history CC
  assert_stderr_has data/changes/ ermission
  refused 77 "$as" "$SUITE/bin/recovery" history CC TASK-168B --at 0
  chmod 600 "$ROOT"/data/changes/*.jsonl
  chmod 000 "$ROOT/data/changes"
  refused 77 "$as" "$SUITE/bin/recovery" history CC
  chmod 700 "$ROOT/data/changes"
  : >"$ROOT/data/changes/2020-01.jsonl"
  chmod 000 "$ROOT/data/changes/2020-01.jsonl"
  run --separate-stderr -77 "$as" "$SUITE/bin/recovery" history CC
  assert_output_has "complete"
  assert_stderr_has 2020-01 "the other months are shown"
}
