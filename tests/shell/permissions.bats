#!/usr/bin/env bats

load test_helper

# Read-only folders, as an ordinary user and as root without capabilities.

setup() {
  make_workspace
  let_others_in
}

teardown() {
  chmod -R u+rwX "$ROOT"
}

refused_without_permission() { # <folder>...; both kinds of caller, for complete and assign
  local folder
  for folder; do
    chmod a-w "$ROOT/$folder"
  done
  if ((EUID == 0)); then
    refused_by as_plain_root
    find "$ROOT" -exec chown -h 2345:2345 {} +
    mkdir -p "$ORCHESTRATION_LOCK_DIR"
    chmod 1777 "$ORCHESTRATION_LOCK_DIR"
    refused_by as_user 2345 2345
  else
    refused_by env
  fi
  for folder; do
    chmod u+w "$ROOT/$folder"
  done
}

refused_by() { # <command that becomes somebody>...
  refused 77 "$@" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has ermission "next:"
  assert_open CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 1
}

@test "48: an agent's folder that can only be read" {
  refused_without_permission postbox/CC
  assert_no_stray_files "logs/recovery/TASK-168B_escalation*.json"
}

@test "48: a completed/ that can only be read" {
  refused_without_permission postbox/CC/completed
  assert_no_stray_files "postbox/CC/outbox.json.backup_TASK-168B" "logs/recovery/TASK-168B_escalation*.json"
}

@test "48: a .sprint/ that can only be read" {
  refused_without_permission .sprint
  assert_no_stray_files "postbox/CC/outbox.json.backup_TASK-168B" "logs/recovery/TASK-168B_escalation*.json"
}

@test "48: a completed/ that is missing in a folder that can only be read" {
  rmdir "$ROOT/postbox/CC/completed"
  refused_without_permission postbox/CC
}

@test "48: a data/ that can only be read" {
  mkdir "$ROOT/data"
  refused_without_permission data
}

@test "48: a root that can only be read, and has no data/ yet" {
  refused_without_permission .
}

@test "48: an outbox that may not be read" {
  chmod 000 "$ROOT/postbox/CC/outbox.json"
  if ((EUID == 0)); then
    refused 77 as_plain_root "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  else
    refused 77 complete_task CC TASK-168B
  fi
  assert_stderr_has postbox/CC/outbox.json ermission
}

@test "48: an assignment, in an inbox/ that can only be read" {
  chmod a-w "$ROOT/postbox/CC/inbox"
  if ((EUID == 0)); then
    refused 77 as_plain_root "$SUITE/bin/assign_task.sh" CC TASK-1 title LOW
  else
    refused 77 assign_task CC TASK-1 title LOW
  fi
}

@test "48: afterwards, with the permission given, the same command works" {
  refused_without_permission postbox/CC/completed
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
  assert_json .sprint/progress.json 'd["completed"]' 2
}

@test "48: is not tried again, and a person is called" {
  chmod a-w "$ROOT/.sprint"
  if ((EUID == 0)); then
    refused 77 as_plain_root "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  else
    refused 77 complete_task CC TASK-168B
  fi
  [[ $stderr != *"try 1"* ]]
  assert_json logs/recovery/TASK-168B_escalation.json 'd["task_id"], d["agent_id"], d["success"]' "('TASK-168B', 'CC', False)"
}

@test "a task is completed by an ordinary user without any capability" {
  require_root
  find "$ROOT" -exec chown -h 2345:2345 {} +
  runs as_user 2345 2345 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_completed CC TASK-168B
  assert_equal "" "$(find "$ROOT" ! -uid 2345)"
}

@test "who may not write here is told where, and that nothing was run; what was edited is named" {
  require_root
  mkdir "$ROOT/data"
  chmod 555 "$ROOT/data"
  refused 125 as_plain_root "$SUITE/bin/recovery" run CC TASK-168B -- touch ran
  assert_stderr_has "run: data/claims: Permission denied. Nothing was run."
  refused 125 as_plain_root "$SUITE/bin/recovery" tx "$ROOT/postbox/CC/outbox.json" -- touch ran
  assert_stderr_has "tx: data/tx: Permission denied. Nothing was run."
  assert_absent ran
  chmod 555 "$ROOT/postbox/CC"
  refused 77 with EDITOR="sed s/End/Start/ <'$ROOT/postbox/CC/outbox.json' >" -- as_plain_root "$SUITE/bin/recovery" edit CC
  local kept
  kept=$(find "$TMPDIR" -type f)
  grep -q "Start to end" "$kept"
  assert_stderr_has "your text is in $kept" "recovery edit CC"
  chmod 755 "$ROOT/postbox/CC" "$ROOT/data"
}
