#!/usr/bin/env bats

load test_helper

# The health check as cron and monitoring systems run it.  (What it sees: tests/unit.)

health() { "$SUITE/bin/health_check.sh" "$@"; }

@test "health_check.sh answers as monitoring systems expect" {
  run --separate-stderr -1 health
  assert_output_has "RECOVERY WARNING - certificate: " "recovery torture"
  runs health journal conflicts
  assert_equal "RECOVERY OK - 2 checks | unfinished=0;0;;0 parked=0;;0;0" "$output"
  runs health -q journal
  assert_equal "" "$output"
  run --separate-stderr -1 health -q
  assert_output_has "RECOVERY WARNING"
  run --separate-stderr -1 health --json certificate
  jq -e '.code == 1 and .level == "WARNING" and .checks.certificate.level == "WARNING"' <<<"$output"
  run --separate-stderr -3 health -C /nonexistent
  assert_output_has "RECOVERY UNKNOWN"
}

@test "health_check.sh says what it can't understand on stdout and is UNKNOWN, as a plugin is" {
  local words
  for words in nonsense --nonsense '--warn x' '--warn' '--window 5s'; do
    # shellcheck disable=SC2086 # words
    run --separate-stderr -3 health $words
    assert_output_has "RECOVERY UNKNOWN - "
    assert_stderr_has "next:"
  done
  run --separate-stderr -3 health --json nonsense
  jq -e --arg root "$ROOT" '.code == 3 and .level == "UNKNOWN" and .root == $root and .next != ""' <<<"$output"
}

@test "health_check.sh sees a commit that was left half done, and changes nothing" {
  crash_at replaced:1 complete_task CC TASK-168B
  remember_tree
  run --separate-stderr -1 health journal
  assert_output_has "complete CC/TASK-168B" "recovery recover"
  assert_unchanged
  runs recovery recover
  runs health journal
}

@test "health_check.sh names what it may not read, and looks at the rest" {
  require_root
  let_others_in
  runs complete_task CC TASK-168B
  mkdir -p "$ORCHESTRATION_LOCK_DIR/tasks" "$ROOT/logs"
  chmod -R a+rX "$ROOT" "$ORCHESTRATION_LOCK_DIR"
  chmod 700 "$ROOT/logs" "$ROOT/data/checkpoints" "$ORCHESTRATION_LOCK_DIR/tasks" "$ROOT/postbox/CA"
  run --separate-stderr -3 as_user 65534 65534 "$SUITE/bin/health_check.sh" -v --skip certificate
  assert_output_has "UNKNOWN   logs: logs: no permission" "UNKNOWN   checkpoints: data/checkpoints: no permission" \
    "UNKNOWN   success: logs: no permission" "UNKNOWN   budget: data/checkpoints: no permission" \
    "lock dir/tasks" "UNKNOWN   outboxes: no permission to read postbox/CA/outbox.json; 1 agent, none damaged" \
    "OK        journal: nothing half done" "UNKNOWN   clock: "
  assert_equal "" "$stderr"
}

@test "health_check.sh without a python is UNKNOWN, and says so on stdout" {
  run --separate-stderr -3 with RECOVERY_PYTHON=/nonexistent -- health
  assert_equal "RECOVERY UNKNOWN - no usable python3" "$output"
  assert_stderr_has "RECOVERY_PYTHON"
}

@test "health_check.sh finishes nothing, resolves nothing and writes nothing into data" {
  local before
  crash_at replaced:1 complete_task CC TASK-168B
  before=$(find "$ROOT" -printf '%p %i %s %T@ %C@\n' | LC_ALL=C sort)
  run --separate-stderr -1 health
  assert_equal "$before" "$(find "$ROOT" -printf '%p %i %s %T@ %C@\n' | LC_ALL=C sort)"
}

@test "the line for cron that README and --help give says nothing where all is well, and what is wrong else" {
  local line words
  runs complete_task CC TASK-168B
  for line in "$(grep -o 'health_check.sh -q[^`]*WORKSPACE' "$SUITE/README.md")" \
    "$(health --help | grep -o 'health_check.sh -q.*/path/to/workspace')"; do
    read -ra words <<<"${line% *}"
    run -0 --separate-stderr health "${words[@]:1}" "$ROOT"
    assert_equal "" "$output$stderr"
    run -1 --separate-stderr health "${words[@]:1}" "$ROOT" --warn agents=0
    assert_output_has "RECOVERY WARNING"
  done
}
