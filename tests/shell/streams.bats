#!/usr/bin/env bats

load test_helper

# Closed, full and broken streams: the work is done all the same, and whole.

broken_pipe() { # <command>...; stdout is a pipe that nobody reads
  "$PYTHON" -I -S -c '
import os, signal, sys
r, w = os.pipe()
os.close(r)
os.dup2(w, 1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$@"
}

without() { # <redirection> <command>...; by name, for `run`
  case $1 in
  stdin) "${@:2}" <&- ;;
  stdout) "${@:2}" >&- ;;
  stderr) "${@:2}" 2>&- ;;
  all) "${@:2}" <&- >&- 2>&- ;;
  full-stdout) "${@:2}" >/dev/full ;;
  full-stderr) "${@:2}" 2>/dev/full ;;
  esac
}

@test "54: stdin closed" {
  runs without stdin complete_task CC TASK-168B
  assert_completed CC TASK-168B
  assert_no_stray_files
}

@test "54: stderr closed" {
  run -0 without stderr complete_task CC TASK-168B
  assert_output "completed CC/TASK-168B (pending -> completed); 3 files, read back"
  assert_completed CC TASK-168B
  run -66 without stderr complete_task CC TASK-999
}

@test "54: stderr full" {
  run -0 without full-stderr complete_task CC TASK-168B
  assert_completed CC TASK-168B
  run -66 without full-stderr complete_task CC TASK-999
}

@test "54: stdout closed" {
  run without stdout complete_task CC TASK-168B
  assert_completed CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 2
  assert_no_stray_files
}

@test "54: all three closed: none of our files becomes one of them" {
  run -0 without all complete_task CC TASK-168B
  assert_completed CC TASK-168B
  run -66 without all complete_task CC TASK-999
  run -0 without all assign_task CC TASK-1 title LOW
  run -1 grep -rlaE 'completed CC/TASK|assigned CC/TASK|recovery: ' "$ROOT" "$ORCHESTRATION_LOCK_DIR"
  runs recovery rollback CC TASK-168B
  assert_no_stray_files
}

@test "54: stdout full: said on stderr, and the change is whole" {
  run --separate-stderr -0 without full-stdout complete_task CC TASK-168B
  assert_stderr_has "stdout can't be written" "completed CC/TASK-168B"
  assert_completed CC TASK-168B
  assert_no_stray_files
}

@test "54: a pipe that nobody reads: the change is whole" {
  run --separate-stderr broken_pipe "$SUITE/bin/complete_task_with_recovery.sh" -v CC TASK-168B
  assert_completed CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 2
  assert_no_stray_files
  assert_locks_free
}

@test "54: a pipe that nobody reads, for --json" {
  run --separate-stderr broken_pipe "$SUITE/bin/complete_task_with_recovery.sh" --json CC TASK-168B
  assert_completed CC TASK-168B
}

@test "54: stdout closed or full, for what only looks: said, and 74; a health check is UNKNOWN still" {
  local how
  for how in stdout full-stdout; do
    run --separate-stderr -74 without "$how" task_status
    assert_stderr_has "stdout can't be written"
    run --separate-stderr -3 without "$how" "$SUITE/bin/health_check.sh" -C /nonexistent
    [[ $stderr != *"this is a bug"* ]]
  done
}

@test "54: a pipe that nobody reads, for status" {
  run --separate-stderr broken_pipe "$SUITE/bin/task_status.sh"
  [[ $stderr != *Traceback* && $stderr != *"this is a bug"* ]]
}

@test "54: a pipe of which only the first line is read" {
  task_status 2>"$BATS_TEST_TMPDIR/err" | head -1 >/dev/null
  run -1 grep -E 'Traceback|bug' "$BATS_TEST_TMPDIR/err"
}

@test "54: nothing is read from stdin" {
  printf 'one\ntwo\n' >in
  { complete_task CC TASK-168B >/dev/null && cat; } <in >out
  cmp in out
  rm in out
}
