#!/usr/bin/env bats

export BATS_TEST_TIMEOUT=120 # whole trials, of every kind
load test_helper

# The torture's command line.  (What it finds: tests/unit.)

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
