#!/usr/bin/env bats

load test_helper

# A copy of the suite, with its postbox, in a folder with an odd name.

in_folder() { # <name>; assign, complete, roll back and look, from inside, from outside, and by ORCHESTRATION_ROOT
  unset ORCHESTRATION_ROOT
  export RECOVERY_PYTHON=$PYTHON # a copy has none to remember
  ROOT=$BATS_TEST_TMPDIR/$1
  copy_suite "$ROOT"
  fill_workspace "$ROOT"
  runs "$ROOT/bin/complete_task_with_recovery.sh" CC TASK-168B "from outside"
  assert_completed CC TASK-168B "from outside"
  cd -- "$ROOT" || return
  runs ./bin/complete_task_with_recovery.sh CC TASK-169A "from inside"
  assert_completed CC TASK-169A
  runs bin/assign_task.sh CC TASK-1 title LOW
  runs bin/recovery rollback CC TASK-168B
  assert_open CC TASK-168B
  runs bash bin/task_status.sh
  cd "$BATS_TEST_TMPDIR/elsewhere" || return
  runs with ORCHESTRATION_ROOT="$ROOT" -- complete_task CA TASK-168C
  assert_completed CA TASK-168C
  runs "$ROOT/bin/recovery" --help
  assert_absent "$BATS_TEST_TMPDIR/pwned" pwned "$ROOT/pwned"
}

@test "53: spaces, at the ends too" {
  in_folder "a b  c"
  in_folder " a "
}

@test "53: quotes and backslashes" {
  in_folder "it's \"here\""
  in_folder 'back\slash\n'
}

@test "53: command substitutions and variables" {
  in_folder "\$(touch pwned)"
  in_folder "\`touch pwned\`"
  in_folder "\$HOME \${x} & ; |"
}

@test "53: patterns" {
  in_folder '*'
  in_folder '[a-z]?{b,c}'
}

@test "53: a leading dash" {
  in_folder -n
  in_folder --help
}

@test "53: a leading tilde, a hash, a percent sign, an equals sign" {
  in_folder '~root'
  in_folder '#x'
  in_folder '100%s'
  in_folder 'a=b'
}

@test "53: non-ASCII, and bytes that are not UTF-8" {
  in_folder 'größe 中文 🎉'
  in_folder $'caf\xe9'
}

@test "53: a newline, a colon" {
  in_folder $'a\nb'
  in_folder $'newline at the end\n'
  in_folder 'a:b'
}
