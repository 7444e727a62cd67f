#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031 # each test is a process of its own

load test_helper

# Which workspace a command means: -C, ORCHESTRATION_ROOT, upwards, the repository's main worktree, the suite's folder.

setup() {
  make_workspace
  unset ORCHESTRATION_ROOT
  A=$BATS_TEST_TMPDIR/a
  B=$BATS_TEST_TMPDIR/b
  C=$BATS_TEST_TMPDIR/c
  export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t \
    GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
}

meant() { # <root>; what the scripts of $BIN take for the workspace here, by an agent that only this one has
  runs "${BIN:-$SUITE/bin}/task_status.sh" "${@:2}" -a "IN-${1##*/}"
  assert_output_has "IN-${1##*/}"
}

workspace_at() { # <root>
  mkdir -p "$1"
  fill_workspace "$1"
  mkdir "$1/postbox/IN-${1##*/}"
  echo '{"tasks": []}' >"$1/postbox/IN-${1##*/}/outbox.json"
}

@test "-C comes first" {
  workspace_at "$A"
  workspace_at "$B"
  workspace_at "$C"
  cd "$C"
  export ORCHESTRATION_ROOT=$B
  meant "$A" -C "$A"
}

@test "then ORCHESTRATION_ROOT" {
  workspace_at "$B"
  workspace_at "$C"
  cd "$C"
  export ORCHESTRATION_ROOT=$B
  meant "$B"
}

@test "then upwards from the current folder" {
  workspace_at "$C"
  mkdir -p "$C/deep/er"
  cd "$C/deep/er"
  meant "$C"
}

@test "the nearest one upwards" {
  workspace_at "$C"
  workspace_at "$C/inner"
  mkdir "$C/inner/deep"
  cd "$C/inner/deep"
  meant "$C/inner"
}

@test "a folder's .orchestration/ stands for the folder" {
  workspace_at "$C"
  mkdir "$C/.orchestration"
  mv "$C/postbox" "$C/.sprint" "$C/.orchestration/"
  mkdir "$C/deep"
  cd "$C/deep"
  meant "$C"
  cd /
  meant "$C" -C "$C"
}

@test "a relative -C and a relative ORCHESTRATION_ROOT" {
  workspace_at "$C"
  cd "$BATS_TEST_TMPDIR"
  meant "$C" -C c
  meant "$C" -C ./c/
  export ORCHESTRATION_ROOT=c
  meant "$C"
}

@test "a linked git worktree shares the main one's workspace" {
  workspace_at "$A/.orchestration"
  mv "$A/.orchestration/postbox/IN-.orchestration" "$A/.orchestration/postbox/IN-a"
  git init -q "$A"
  git -C "$A" commit -q --allow-empty -m one
  git -C "$A" worktree add -q "$B"
  cd "$B"
  meant "$A"
  mkdir deep
  cd deep
  meant "$A"
}

@test "a submodule, or a repository without a workspace, doesn't mislead" {
  workspace_at "$C"
  git init -q "$C/repository"
  cd "$C/repository"
  meant "$C"
}

@test "then the folder above bin/" {
  workspace_at "$C"
  copy_suite "$C"
  cd /
  BIN=$C/bin meant "$C"
}

@test "the folder above bin/ through a link to the script" {
  workspace_at "$C"
  copy_suite "$C"
  ln -s "$C/bin/complete_task_with_recovery.sh" "$BATS_TEST_TMPDIR/link"
  cd /
  runs "$BATS_TEST_TMPDIR/link" CC TASK-168B
  ROOT=$C
  assert_completed CC TASK-168B
}

@test "none: 66, and what to run" {
  copy_suite "$C"
  cd /
  run --separate-stderr -66 "$C/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "no workspace" "recovery init"
  run --separate-stderr -66 "$C/bin/task_status.sh" --json
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
}

@test "a -C or ORCHESTRATION_ROOT that names none is 66, whatever else there is" {
  workspace_at "$C"
  cd "$C"
  mkdir "$BATS_TEST_TMPDIR/empty"
  run --separate-stderr -66 task_status -C "$BATS_TEST_TMPDIR/empty"
  assert_stderr_has "-C names $BATS_TEST_TMPDIR/empty" "recovery init"
  run --separate-stderr -66 task_status -C "$BATS_TEST_TMPDIR/nowhere"
  export ORCHESTRATION_ROOT=$BATS_TEST_TMPDIR/empty
  run --separate-stderr -66 task_status
  assert_stderr_has "ORCHESTRATION_ROOT names"
  assert_equal "" "$(ls -A "$BATS_TEST_TMPDIR/empty")"
}

@test "an empty ORCHESTRATION_ROOT is none" {
  workspace_at "$C"
  cd "$C"
  export ORCHESTRATION_ROOT=
  meant "$C"
}

@test "a workspace without access is said to be that, not to be missing" {
  local locked=$BATS_TEST_TMPDIR/locked
  workspace_at "$locked"
  chmod 000 "$locked"
  if ((EUID == 0)); then
    run --separate-stderr as_plain_root "$SUITE/bin/task_status.sh" -C "$locked"
  else
    run --separate-stderr task_status -C "$locked"
  fi
  chmod 755 "$locked"
  assert_equal 77 "$status"
  assert_stderr_has ermission
}

@test "a copy of a workspace is a workspace, with its history" {
  workspace_at "$A"
  runs complete_task -C "$A" CC TASK-168B
  cp -R "$A" "$B"
  rm -rf "$A"
  runs recovery -C "$B" rollback CC TASK-168B
  runs complete_task -C "$B" --again CC TASK-168B
  ROOT=$B
  assert_completed CC TASK-168B
}

@test "init makes a workspace, twice is a no-op" {
  mkdir "$C"
  # shellcheck disable=SC2034 # for the assertion
  ROOT=$C
  cd "$C"
  runs recovery init
  assert_output_has "made a workspace in $C"
  assert_exists "$C/postbox" "$C/data/config.json"
  runs recovery init
  assert_output_has "already a workspace: $C"
  runs assign_task CC TASK-1 title LOW
  runs complete_task CC TASK-1
  assert_no_stray_files
}

@test "init in a repository makes .orchestration/ at its top, and keeps run-time state out of git" {
  git init -q "$C"
  mkdir "$C/deep"
  cd "$C/deep"
  runs recovery init
  assert_exists "$C/.orchestration/postbox"
  runs assign_task CC TASK-1 title LOW
  run -0 git -C "$C" status --porcelain --untracked-files=all
  assert_output_has .orchestration/postbox/CC/outbox.json
  [[ $output != *journal* && $output != *.lock* ]] || fail "$output"
}

@test "init DIR and --here" {
  git init -q "$C"
  runs recovery init "$C" --here
  assert_exists "$C/postbox"
  assert_absent "$C/.orchestration"
  runs recovery init "$BATS_TEST_TMPDIR/new folder"
  assert_exists "$BATS_TEST_TMPDIR/new folder/postbox"
  run --separate-stderr -64 recovery init --frobnicate
  run --separate-stderr -64 recovery init one two
}

@test "init goes where -C says" {
  mkdir "$BATS_TEST_TMPDIR/there" "$BATS_TEST_TMPDIR/here"
  cd "$BATS_TEST_TMPDIR/here"
  runs recovery -C "$BATS_TEST_TMPDIR/there" init
  [[ -d $BATS_TEST_TMPDIR/there/postbox && ! -e $BATS_TEST_TMPDIR/here/postbox ]] || fail "made elsewhere"
}

@test "init in a linked worktree finds the main one's workspace" {
  git init -q "$BATS_TEST_TMPDIR/main"
  git -C "$BATS_TEST_TMPDIR/main" -c user.name=x -c user.email=x@y commit -q --allow-empty -m x
  git -C "$BATS_TEST_TMPDIR/main" worktree add -q "$BATS_TEST_TMPDIR/linked"
  runs recovery init "$BATS_TEST_TMPDIR/main"
  runs recovery init "$BATS_TEST_TMPDIR/linked"
  assert_output_has "already a workspace" "$BATS_TEST_TMPDIR/main/.orchestration"
}

@test "a config that only has a setting is of this version" {
  mkdir -p "$ROOT/data"
  echo '{"bounds": {"megabytes": 128}}' >"$ROOT/data/config.json"
  runs "$SUITE/bin/complete_task_with_recovery.sh" -C "$ROOT" CC TASK-168B
  assert_completed CC TASK-168B
}
