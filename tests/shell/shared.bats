#!/usr/bin/env bats

load test_helper

@test "59: two roots with the same ids don't know of each other" {
  local other="$BATS_TEST_TMPDIR/other root"
  fill_workspace "$other"
  hold "$ROOT/postbox/CC/.outbox.json.lock"
  runs timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" -C "$other" CC TASK-168B
  let_go
  assert_open CC TASK-168B
  runs complete_task CC TASK-168B
  assert_output_has "completed CC/TASK-168B (pending -> completed)"
}

@test "59: a commit that is under way in one root doesn't keep the other root's for longer than that" {
  local other="$BATS_TEST_TMPDIR/other root" pid
  fill_workspace "$other"
  mkfifo "$BATS_TEST_TMPDIR/go.reached"
  RECOVERY_FAULT="journal-synced=wait=$BATS_TEST_TMPDIR/go" complete_task CC TASK-168B >/dev/null 2>&1 3>&- &
  pid=$!
  : <"$BATS_TEST_TMPDIR/go.reached"
  ORCHESTRATION_LOCK_DIR="$BATS_TEST_TMPDIR/private tmp" \
    runs timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" -C "$other" CC TASK-168B
  touch "$BATS_TEST_TMPDIR/go"
  wait "$pid"
  assert_completed CC TASK-168B
}

share() { # gives the root to group 5678, as a team would
  require_root
  let_others_in
  chown -R 1001:5678 "$ROOT"
  find "$ROOT" -type d -exec chmod 2770 {} +
  find "$ROOT" -type f -exec chmod 660 {} +
}

anna() { as_user 1001 5678 "$@"; }
bert() { as_user 1002 5678 "$@"; }

@test "59: two users of one root can both write, one after the other" {
  share
  umask 022
  runs anna "$SUITE/bin/assign_task.sh" CC TASK-1 one LOW
  runs bert "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-1
  runs anna "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  runs bert "$SUITE/bin/assign_task.sh" NEW TASK-2 two LOW
  runs anna "$SUITE/bin/complete_task_with_recovery.sh" NEW TASK-2
  runs bert "$SUITE/bin/recovery" rollback CC TASK-168B
  runs anna "$SUITE/bin/recovery" recover
  assert_output "nothing to recover"
  assert_equal "" "$(find "$ROOT" ! -gid 5678)"
}

@test "59: with a strict umask too" {
  share
  umask 077
  runs anna "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  runs bert "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-169A
  runs anna "$SUITE/bin/complete_task_with_recovery.sh" CA TASK-168C
  assert_completed CC TASK-168B
  assert_completed CC TASK-169A
  assert_completed CA TASK-168C
}

@test "59: nothing of a shared root is opened to strangers" {
  share
  runs anna "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_equal "" "$(find "$ROOT" ! -type l -perm /o+rwx)"
  refused 77 as_user 1003 1003 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-169A
}

@test "59: one user finishes what the other's dead process left" {
  share
  crash_at journal-synced anna "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  runs bert "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-169A
  assert_stderr_has "finished \`complete CC/TASK-168B\`"
  assert_completed CC TASK-168B
  assert_completed CC TASK-169A
}

@test "59: warns once where the lock folder is the other user's alone, and works" {
  share
  mkdir -m 700 "$ORCHESTRATION_LOCK_DIR"
  chown 1001 "$ORCHESTRATION_LOCK_DIR"
  runs anna "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  runs bert "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-169A
  assert_equal 1 "$(grep -c "the locks beside the data carry on" <<<"$stderr")"
  assert_completed CC TASK-169A
}
