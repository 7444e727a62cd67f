#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031 # each test is a process of its own
# shellcheck disable=SC2016 # for bash -c

load test_helper

# ORCHESTRATION_LOCK_DIR/{tasks,agents}/ID.lock: courtesy. Where they can't be used, one warning, and the work goes on.

setup() {
  make_workspace
  LOCKS=$ORCHESTRATION_LOCK_DIR
}

one_warning_and_done() { # [<command>...]
  runs "${@:-complete_task}" CC TASK-168B
  assert_equal 1 "${#stderr_lines[@]}"
  assert_stderr_has "recovery: " "the locks beside the data carry on"
  assert_completed CC TASK-168B
}

@test "29: a lock folder that is missing is made, for everybody" {
  assert_absent "$LOCKS"
  runs complete_task CC TASK-168B
  assert_equal "" "$stderr"
  assert_exists "$LOCKS/tasks/TASK-168B.lock" "$LOCKS/agents/CC.lock"
  assert_equal "1777 1777" "$(stat -c %a "$LOCKS/tasks" "$LOCKS/agents" | xargs)"
}

@test "29: with parents missing too" {
  export ORCHESTRATION_LOCK_DIR="$BATS_TEST_TMPDIR/a/b/c/locks"
  runs complete_task CC TASK-168B
  assert_exists "$BATS_TEST_TMPDIR/a/b/c/locks/tasks/TASK-168B.lock"
}

@test "29: making the lock folder leaves the mode of a folder that was there alone" {
  mkdir -m 755 "$BATS_TEST_TMPDIR/mine" "$BATS_TEST_TMPDIR/mine/locks"
  export ORCHESTRATION_LOCK_DIR="$BATS_TEST_TMPDIR/mine/locks"
  runs complete_task CC TASK-168B
  assert_equal "755 755" "$(stat -c %a "$BATS_TEST_TMPDIR/mine" "$BATS_TEST_TMPDIR/mine/locks" | xargs)"
}

@test "29: a file in the place of the lock folder" {
  echo mine >"$LOCKS"
  one_warning_and_done
  assert_equal mine "$(<"$LOCKS")"
}

@test "29: a file in the place of tasks" {
  mkdir "$LOCKS"
  echo mine >"$LOCKS/tasks"
  one_warning_and_done
  assert_equal mine "$(<"$LOCKS/tasks")"
}

@test "29: a lock folder that is a link" {
  mkdir "$BATS_TEST_TMPDIR/victim"
  ln -s "$BATS_TEST_TMPDIR/victim" "$LOCKS"
  one_warning_and_done
  rm "$LOCKS"
  mkdir "$LOCKS"
  fill_workspace "$ROOT"
  rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/*
  ln -s "$BATS_TEST_TMPDIR/victim" "$LOCKS/tasks"
  one_warning_and_done
  assert_equal "" "$(ls -A "$BATS_TEST_TMPDIR/victim")"
}

@test "29: a lock folder that is a link to nowhere" {
  ln -s "$BATS_TEST_TMPDIR/nowhere" "$LOCKS"
  one_warning_and_done
  assert_absent "$BATS_TEST_TMPDIR/nowhere"
}

@test "29: a lock folder that can only be read" {
  mkdir -p "$LOCKS/tasks" "$LOCKS/agents"
  chmod 555 "$LOCKS/tasks" "$LOCKS/agents" "$LOCKS"
  if ((EUID == 0)); then
    one_warning_and_done as_plain_root "$SUITE/bin/complete_task_with_recovery.sh"
  else
    one_warning_and_done
  fi
  chmod 755 "$LOCKS" "$LOCKS"/*
}

@test "29: a lock folder of another user" {
  require_root
  let_others_in
  mkdir -p "$LOCKS/tasks" "$LOCKS/agents"
  chmod 700 "$LOCKS"
  chown -R 1234 "$LOCKS"
  chown -R 2345:2345 "$ROOT"
  one_warning_and_done as_user 2345 2345 "$SUITE/bin/complete_task_with_recovery.sh"
}

@test "29: lock files of another user in a folder for everybody" {
  require_root
  let_others_in
  mkdir -m 1777 "$LOCKS" "$LOCKS/tasks" "$LOCKS/agents"
  touch "$LOCKS/tasks/TASK-168B.lock"
  chmod 600 "$LOCKS/tasks/TASK-168B.lock"
  chown 1234 "$LOCKS/tasks/TASK-168B.lock"
  chown -R 2345:2345 "$ROOT"
  one_warning_and_done as_user 2345 2345 "$SUITE/bin/complete_task_with_recovery.sh"
}

@test "27: a documented lock file that is a link: the victim is untouched" {
  mkdir -p "$LOCKS/tasks"
  echo precious >"$BATS_TEST_TMPDIR/victim"
  ln -s "$BATS_TEST_TMPDIR/victim" "$LOCKS/tasks/TASK-168B.lock"
  one_warning_and_done
  assert_equal precious "$(<"$BATS_TEST_TMPDIR/victim")"
}

@test "27: a documented lock file that is a link to nowhere makes nothing" {
  mkdir -p "$LOCKS/agents"
  ln -s "$BATS_TEST_TMPDIR/nothing" "$LOCKS/agents/CC.lock"
  one_warning_and_done
  assert_absent "$BATS_TEST_TMPDIR/nothing"
}

@test "28: a documented lock file that is a folder or a fifo" {
  mkdir -p "$LOCKS/tasks/TASK-168B.lock"
  one_warning_and_done timeout 10 "$SUITE/bin/complete_task_with_recovery.sh"
  fill_workspace "$ROOT"
  rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/*
  rmdir "$LOCKS/tasks/TASK-168B.lock"
  mkfifo "$LOCKS/tasks/TASK-168B.lock"
  one_warning_and_done timeout 10 "$SUITE/bin/complete_task_with_recovery.sh"
}

@test "a relative lock folder, and an empty one, are usable or warned of" {
  runs with ORCHESTRATION_LOCK_DIR=locks -- complete_task CC TASK-168B
  assert_completed CC TASK-168B
}

@test "24: a documented lock that is held is waited for, and in the end reported" {
  hold "$LOCKS/tasks/TASK-168B.lock"
  export RECOVERY_LOCK_TIMEOUT=0.2 RECOVERY_MAX_ATTEMPTS=1
  refused 75 complete_task CC TASK-168B
  assert_stderr_has "Failed to acquire lock on $LOCKS/tasks/TASK-168B.lock after 0.2 seconds (held by pid "
  let_go
  runs complete_task CC TASK-168B
}

@test "25: a documented lock that is let go is taken" {
  hold "$LOCKS/agents/CC.lock"
  mkfifo said
  complete_task CC TASK-168B 2>said >out 3>&- &
  local pid=$! line
  read -r line <said
  [[ $line == *"waiting for $LOCKS/agents/CC.lock"* ]]
  let_go
  wait "$pid"
  assert_completed CC TASK-168B
  rm said out
}

@test "60: a child completes the task whose lock its parent holds with flock" {
  mkdir -p "$LOCKS/tasks"
  runs timeout 10 flock "$LOCKS/tasks/TASK-168B.lock" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_completed CC TASK-168B
}

@test "60: a child completes the task whose locks its parent holds on its own descriptors" {
  mkdir -p "$LOCKS/tasks" "$LOCKS/agents"
  runs timeout 10 bash -c 'exec 8>"$1/tasks/TASK-168B.lock" 9>"$1/agents/CC.lock"; flock 8; flock 9; "$2" CC TASK-168B 8>&- 9>&-' \
    bash "$LOCKS" "$SUITE/bin/complete_task_with_recovery.sh"
  assert_completed CC TASK-168B
}

@test "60: with the descriptors handed down, through exec too" {
  mkdir -p "$LOCKS/tasks" "$LOCKS/agents"
  runs timeout 5 bash -c 'exec 8>"$1/tasks/TASK-168B.lock" 9>"$1/agents/CC.lock"; flock 8; flock 9; "$2" CC TASK-168B' \
    bash "$LOCKS" "$SUITE/bin/complete_task_with_recovery.sh"
  assert_completed CC TASK-168B
}

@test "60: inside the subshell that flock(1) gives as its example" {
  mkdir -p "$LOCKS/tasks"
  runs timeout 5 bash -c '( flock -n 9 || exit 1; "$2" CC TASK-168B ) 9>"$1/tasks/TASK-168B.lock"' \
    bash "$LOCKS" "$SUITE/bin/complete_task_with_recovery.sh"
  assert_completed CC TASK-168B
}

@test "--dry-run and status take no documented lock" {
  hold "$LOCKS/tasks/TASK-168B.lock"
  runs timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" --dry-run CC TASK-168B
  runs timeout 10 "$SUITE/bin/task_status.sh"
}
