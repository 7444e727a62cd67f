#!/usr/bin/env bats

load test_helper

without_typer() { # an interpreter without packages, and a suite without .venv
  copy_suite "$BATS_TEST_TMPDIR/suite"
  "$PYTHON" -m venv --without-pip "$BATS_TEST_TMPDIR/bare"
  export RECOVERY_PYTHON=$BATS_TEST_TMPDIR/bare/bin/python
}

@test "complete, assign, status, recover and rollback are verbs of the front door" {
  runs recovery assign CC TASK-1 "A title" low
  assert_output_has "assigned CC/TASK-1 (LOW)"
  runs recovery complete CC TASK-1 "done"
  assert_output_has "completed CC/TASK-1 (pending -> completed)"
  runs recovery status -t TASK-1
  assert_output_has TASK-1 completed
  runs recovery rollback CC TASK-1
  assert_output_has "rolled back CC/TASK-1"
  runs recovery recover
  assert_output "nothing to recover"
  assert_no_stray_files
}

@test "-C before the verb names the workspace" {
  fill_workspace "$BATS_TEST_TMPDIR/other"
  runs recovery -C "$BATS_TEST_TMPDIR/other" complete CC TASK-168B
  assert_open CC TASK-168B
}

@test "-C without a folder is refused" {
  refused 64 recovery -C
}

@test "an unknown verb is refused, and where to look is said" {
  refused 64 recovery frobnicate
  assert_output ""
  assert_stderr_has "unknown verb 'frobnicate'" "recovery --help"
}

@test "an unknown verb can't write to the terminal" {
  refused 64 recovery $'\e[31mred'
  [[ $stderr != *$'\e'* ]]
}

@test "no verb shows the help" {
  run --separate-stderr recovery
  [[ $output$stderr == *"Usage: recovery"* ]]
}

@test "--version says the version, as the package has it" {
  runs recovery --version
  [[ $output =~ ^postbox-recovery\ [0-9]+\.[0-9]+ ]]
  run -0 grep -F "\"${output#postbox-recovery }\"" "$SUITE/py/recovery/__init__.py"
}

@test "completion prints something that bash can read, and completes the verbs" {
  runs recovery completion bash
  bash -n <<<"$output"
  assert_output_has complete assign status rollback
}

@test "completion for another shell is refused" {
  refused 64 recovery completion fish
  refused 64 recovery completion
}

completed_to() { # <word>...; what TAB makes of the last of them, in $output
  runs bash -c '
    source "$0/lib/completion.bash"
    PATH=$0/bin:$PATH COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _recovery
    printf "%s " "${COMPREPLY[@]}"' "$SUITE" "$@"
}

@test "TAB knows every verb, the actions of each, their options, tasks and breakers" {
  local verb
  completed_to recovery ''
  local verbs=$output
  for verb in $(source "$SUITE/lib/verbs.sh" && printf '%s ' "$WORK_VERBS" "$LOOK_VERBS"); do
    [[ " $verbs" == *" $verb "* ]] || fail "no $verb"
  done
  completed_to recovery checkpoint ''
  assert_output_has list show history add clean
  completed_to recovery escalations re
  assert_output "resolve "
  completed_to recovery checkpoint show TASK-168
  assert_output_has TASK-168B TASK-168C
  completed_to recovery checkpoint add TASK-1 ro
  assert_output "rolled_back "
  runs recovery breaker trip api
  completed_to recovery breaker reset ''
  assert_output "api "
  completed_to recovery stats --al
  assert_output "--alert-below "
  completed_to clean_checkpoints.sh --old
  assert_output "--older-than "
}

@test "31: TAB never runs nor offers what stands in an outbox for a task's id" {
  # shellcheck disable=SC2016 # nobody is to expand it
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "$(touch${IFS}run)"}, {"task_id": "`touch${IFS}run`"},
    {"task_id": "a;touch run"}, {"task_id": "*"}, {"task_id": "T-1"}]}'
  completed_to recovery complete CC ''
  assert_output "T-1 "
  assert_absent run
}

@test "the verbs that need typer say without it what installs it" {
  local verb
  without_typer
  for verb in $(source "$SUITE/lib/verbs.sh" && printf '%s' "$LOOK_VERBS"); do
    refused 69 "$BATS_TEST_TMPDIR/suite/bin/recovery" "$verb"
    assert_stderr_has typer orjson RECOVERY_PYTHON "recovery $verb"
  done
  refused 69 "$BATS_TEST_TMPDIR/suite/bin/recovery" stats --json
  jq -e '.ok == false and .code == 69 and (.error | contains("typer")) and .next == "make setup"' <<<"$output"
}

@test "without typer everything else works" {
  without_typer
  runs "$BATS_TEST_TMPDIR/suite/bin/recovery" complete CC TASK-168B
  assert_completed CC TASK-168B
  runs "$BATS_TEST_TMPDIR/suite/bin/clean_checkpoints.sh"
  given logs/recovery/TASK-169A_escalation.json '{"error_type": "Denied", "error_message": "no entry"}'
  runs "$BATS_TEST_TMPDIR/suite/bin/recovery" explain TASK-169A
  runs env PATH="$BATS_TEST_TMPDIR/suite/bin:$PATH" bash -c "${output##*next: }"
  assert_output_has "no entry" "escalations resolve TASK-169A"
  runs "$BATS_TEST_TMPDIR/suite/bin/recovery" locks
  assert_output_has "0 held, "
}
