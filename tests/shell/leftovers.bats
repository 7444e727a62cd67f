#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

load test_helper

# What an old crash, or somebody, left lying about is not believed, and a link is not followed.

@test "49: an old backup that is torn, empty or older is never put over the outbox" {
  local text
  for text in '' '{"tasks": [' '{"tasks": [{"task_id": "TASK-168B", "status": "completed"}]}'; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/* "$ROOT"/postbox/CC/*.backup_*
    given postbox/CC/outbox.json.backup_TASK-168B "$text"
    runs complete_task CC TASK-168B
    assert_completed CC TASK-168B
    assert_equal in_progress "$(task CC TASK-169A)"
    run -0 find "$ROOT/postbox/CC" -name '*.backup_*' -size "-$((${#text} + 1))c" -print
    assert_output_has backup_TASK-168B
  done
}

@test "49: a checkpoint that says completed doesn't make it so" {
  given data/checkpoints/TASK-168B_checkpoint.json '{"task_id": "TASK-168B", "state": "completed"}'
  runs complete_task CC TASK-168B
  assert_output_has "(pending -> completed)"
  assert_completed CC TASK-168B
}

@test "49: a checkpoint that is torn, or a folder, doesn't keep a task from completion" {
  given data/checkpoints/TASK-168B_checkpoint.json '{"task_'
  given data/checkpoints/TASK-168B_history.jsonl '{"task_'
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
  rm "$ROOT/data/checkpoints/TASK-168B_checkpoint.json"
  mkdir -p "$ROOT/data/checkpoints/TASK-169A_checkpoint.json"
  runs complete_task CC TASK-169A
  assert_completed CC TASK-169A
}

@test "49: files of an older program's temporary kind are neither read nor removed" {
  local name
  for name in outbox.json.tmp .outbox.json.tmp outbox.json.new outbox.json~; do
    given "postbox/CC/$name" garbage
  done
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
  for name in outbox.json.tmp .outbox.json.tmp outbox.json.new outbox.json~; do
    assert_equal garbage "$(<"$ROOT/postbox/CC/$name")"
  done
}

@test "49: a completion record of a task that is open in the outbox is not believed" {
  given postbox/CC/completed/TASK-168B_completion.json '{"task_id": "TASK-168B", "status": "completed"}'
  runs complete_task CC TASK-168B "the true one"
  assert_completed CC TASK-168B "the true one"
  assert_json .sprint/progress.json 'd["completed"]' 2
}

@test "49: a completion record that is torn is written anew" {
  given postbox/CC/completed/TASK-168B_completion.json '{"task_'
  runs complete_task CC TASK-168B "done"
  assert_completed CC TASK-168B "done"
}

@test "49: a record of a task that left the outbox is believed only if it is whole" {
  given postbox/CC/outbox.json '{"tasks": []}'
  given postbox/CC/completed/TASK-168B_completion.json '{"status": "comp'
  refused 66 complete_task CC TASK-168B
}

@test "49: a journal of garbage, of NULs, cut short, empty" {
  local text
  for text in garbage '\x00\x00\x00\x00' "$(repeat 70000 x)" ''; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/*
    given_octets data/journal "$text"
    runs complete_task CC TASK-168B
    assert_completed CC TASK-168B
    runs complete_task CA TASK-168C
    assert_completed CA TASK-168C
  done
}

@test "49: staged files of a dead process are cleared away" {
  local step
  for step in stage-synced backed-up recheck; do
    crash_at "$step" complete_task CC TASK-168B
    runs complete_task CC TASK-168B
    assert_no_stray_files
    runs recovery rollback CC TASK-168B
    runs complete_task --again CC TASK-168B
    runs recovery rollback CC TASK-168B
    rm -rf "$ROOT/data"
  done
}

@test "49: a workspace of a newer format is refused" {
  given data/config.json '{"format": 99, "backend": "files"}'
  refused 69 complete_task CC TASK-168B
  assert_stderr_has "format 99"
  refused 69 task_status
}

@test "49: a damaged config is refused" {
  given data/config.json '{"format": '
  refused 65 complete_task CC TASK-168B
  assert_stderr_has data/config.json
}

victim() { # <name under the root> <command>...; a link to a victim there; then the victim is as it was
  local name=$1
  shift
  echo precious >"$BATS_TEST_TMPDIR/victim"
  mkdir -p "$ROOT/${name%/*}"
  ln -sfn "$BATS_TEST_TMPDIR/victim" "$ROOT/$name"
  run --separate-stderr "$@"
  assert_equal precious "$(<"$BATS_TEST_TMPDIR/victim")"
  ((status == 0 || status == 65 || status == 69)) || fail "exit $status: $stderr"
  if ((status == 0)); then
    assert_equal completed "$(task CC TASK-168B)"
  else
    assert_equal pending "$(task CC TASK-168B)"
    assert_json .sprint/progress.json 'd["completed"]' 1
  fi
}

@test "50: a completion record that is a link to a victim" {
  victim postbox/CC/completed/TASK-168B_completion.json complete_task CC TASK-168B
}

@test "50: a backup that is a link to a victim" {
  victim postbox/CC/outbox.json.backup_TASK-168B complete_task --keep-backup CC TASK-168B
}

@test "50: a temporary file that is a link to a victim" {
  victim postbox/CC/outbox.json.tmp complete_task CC TASK-168B
  rm -rf "$ROOT/data"
  victim postbox/CC/.outbox.json.tmp complete_task CC TASK-168B
}

@test "50: a journal, change log, checkpoint or history that is a link to a victim" {
  local name
  for name in data/journal "data/changes/$(date -u +%Y-%m).jsonl" data/checkpoints/TASK-168B_checkpoint.json \
    data/checkpoints/TASK-168B_history.jsonl logs/recovery/TASK-168B_recovery.jsonl; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/logs" "$ROOT"/postbox/CC/completed/*
    victim "$name" complete_task CC TASK-168B
    [[ $stderr != *"this is a bug"* ]] || fail "$name: $stderr"
  done
}

@test "50: data/ itself, or completed/, that is a link out of the workspace" {
  local name
  for name in data postbox/CC/completed; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/postbox/CC/completed" "$BATS_TEST_TMPDIR/outside"
    mkdir "$BATS_TEST_TMPDIR/outside"
    ln -s "$BATS_TEST_TMPDIR/outside" "$ROOT/$name"
    refused 65 complete_task CC TASK-168B
    assert_equal "" "$(ls -A "$BATS_TEST_TMPDIR/outside")"
    rm "$ROOT/$name"
  done
}
