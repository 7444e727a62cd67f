#!/usr/bin/env bats

load test_helper

# An id becomes part of a path: what is none is refused before a file is touched.

refused_everywhere() { # <id>; as agent and as task, of every command, not even a lock file made
  refused 64 complete_task -- "$1" TASK-168B
  refused 64 complete_task -- CC "$1"
  refused 64 assign_task -- "$1" TASK-1 title LOW
  refused 64 assign_task -- CC "$1" title LOW
  refused 64 recovery rollback -- "$1" TASK-168B
  refused 64 recovery rollback -- CC "$1"
  assert_absent "$ROOT/data" "$ROOT/logs" "$ROOT/postbox/CC/.outbox.json.lock" "$ORCHESTRATION_LOCK_DIR"
  assert_equal "$BEFORE" "$(everything)"
}

everything() { # all there is, inside the workspace and around it, but what bats makes
  find "$BATS_TEST_TMPDIR" ! -name 'separate-stderr-*' | sort
}

setup() {
  make_workspace
  BEFORE=$(everything)
}

@test "30: two dots are no id, nor part of one" {
  refused_everywhere ..
  refused_everywhere a..b
  refused_everywhere ../CC
}

@test "30: a slash is no part of an id" {
  refused_everywhere a/b/c
  refused_everywhere /etc/passwd
  refused 64 complete_task CC TASK/168B
  refused 64 complete_task CC/
  refused 64 complete_task /TASK-168B
}

@test "30: an empty id is refused" {
  refused_everywhere ""
}

@test "30: an id with a newline, a tab, a space or a control character is refused" {
  refused_everywhere $'CC\n'
  refused_everywhere $'TASK\n168B'
  refused_everywhere $'TASK\t168B'
  refused_everywhere "TASK 168B"
  refused_everywhere $'TASK\x01'
  refused_everywhere $'TASK\x7f'
}

@test "30: what is wrong with an id is shown without writing it to the terminal" {
  refused 64 complete_task CC $'\e]0;owned\a'
  [[ $stderr != *$'\e'* ]]
  assert_stderr_has "is not an id" "letters, digits"
}

@test "30: an id that begins with a dash, a dot or an underscore is refused" {
  refused_everywhere -x
  refused_everywhere .hidden
  refused_everywhere _x
}

@test "30: an id of 10,000 characters is refused and not repeated in full" {
  refused_everywhere "$(repeat 10000 x)"
  refused 64 complete_task CC "$(repeat 10000 x)"
  ((${#stderr} < 500))
}

@test "30: an id of 128 characters is one, of 129 none" {
  local long
  long=$(repeat 128 x)
  runs assign_task CC "$long" title LOW
  runs complete_task CC "$long"
  assert_completed CC "$long"
  refused 64 assign_task CC "${long}x" title LOW
}

@test "30: an id that is not UTF-8, or not ASCII, is refused" {
  refused_everywhere $'TASK\xff'
  refused_everywhere "AUFGABE-Ü"
  refused_everywhere "TASK-１"
}

@test "31: an id that would run something runs nothing" {
  refused_everywhere "\$(touch pwned)"
  refused_everywhere "\`touch pwned\`"
  refused_everywhere "x;touch pwned"
  refused_everywhere "'; touch pwned; '"
  refused_everywhere '*'
  assert_absent pwned
}

@test "30: RECOVERY_AGENT is an id like any other" {
  export RECOVERY_AGENT=../CC
  refused 64 complete_task TASK-168B
}

@test "30: status refuses what is no id" {
  refused 64 task_status -a ../CC
  refused 64 task_status -t $'a\nb'
}
