#!/usr/bin/env bats

load test_helper

# The torture's command line, and the health check that asks for its certificate.  (What it finds: tests/unit.)

health() { "$SUITE/bin/health_check.sh" "$@"; }

@test "--dry-run says where it would be tried and changes nothing" {
  remember_tree
  runs recovery torture --dry-run
  assert_output_has "would try $ROOT" "120 s" "nothing changed"
  runs recovery torture --dry-run --quick --dir "$BATS_TEST_TMPDIR" --json
  jq -e --arg dir "$BATS_TEST_TMPDIR" '.dry_run and .dir == $dir and .file_system.type != ""' <<<"$output"
  assert_unchanged
}

@test "without a workspace it tries the folder it is given, and keeps no certificate" {
  mkdir "$BATS_TEST_TMPDIR/a folder"
  cd /
  runs env -u ORCHESTRATION_ROOT "$SUITE/bin/recovery" torture --minutes 0.02 --dir "$BATS_TEST_TMPDIR/a folder"
  assert_output_has "0 violations"
  assert_equal "" "$(ls -A "$BATS_TEST_TMPDIR/a folder")"
}

@test "bad words are refused before anything is made" {
  refused 64 recovery torture --minutes 0
  refused 64 recovery torture --minutes nonsense
  refused 64 recovery torture --seed x
  refused 64 recovery torture extra
  refused 66 recovery torture --dir "$BATS_TEST_TMPDIR/nowhere"
  refused 66 recovery torture -C "$BATS_TEST_TMPDIR/nowhere"
}

@test "a folder that can't be written to is refused" {
  local folder=$BATS_TEST_TMPDIR/closed
  mkdir -m 755 "$folder"
  chmod 755 "$BATS_TEST_TMPDIR"
  if ((UID == 0)); then
    mount -t tmpfs -o ro none "$folder" 2>/dev/null || skip "NOT TESTED: root may write anywhere, and may not mount"
    run --separate-stderr recovery torture --dir "$folder"
    umount "$folder"
    assert_equal 74 "$status"
  else
    chmod 555 "$folder"
    run --separate-stderr recovery torture --dir "$folder"
    assert_equal 77 "$status"
  fi
  assert_stderr_has "$folder"
}

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
  refused 64 health nonsense
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
