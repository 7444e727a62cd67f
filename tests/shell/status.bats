#!/usr/bin/env bats

load test_helper

@test "shows every agent and task, and takes no lock and changes nothing" {
  find "$ROOT" -printf '%p %m %i %T@ %C@\n' >before
  runs task_status
  assert_output_has CC: CA: TASK-168B TASK-165C TASK-169A TASK-168C pending in_progress completed "End to end tests" CRITICAL
  find "$ROOT" -printf '%p %m %i %T@ %C@\n' >after
  run -0 diff before after
  assert_absent "$ORCHESTRATION_LOCK_DIR"
}

@test "-a shows one agent" {
  runs task_status -a CA
  assert_output_has TASK-168C
  [[ $output != *TASK-168B* ]]
}

@test "-a for an agent that isn't there is refused, with those that are" {
  refused 66 task_status -a XX
  assert_stderr_has "no agent XX" CA CC
}

@test "-s shows one status, in any case" {
  runs task_status -s PENDING
  assert_output_has TASK-168B
  [[ $output != *TASK-169A* && $output != *TASK-168C* ]]
}

@test "-s with a status that nobody has says none" {
  runs task_status -s failed
  assert_output "no task like that"
}

@test "-t shows one task" {
  runs task_status -t TASK-168C
  assert_output_has CA: TASK-168C
  [[ $output != *TASK-168B* ]]
}

@test "-t for a task that isn't there is refused" {
  refused 66 task_status -t TASK-999
  assert_stderr_has "no agent has a TASK-999 in its outbox" "next: task_status.sh"
}

@test "-p shows the counters of the progress file too" {
  runs task_status -p
  assert_output_has progress: "total_tasks 4" "completed 1"
}

@test "options go together" {
  runs task_status -a CC -s in_progress
  assert_output_has TASK-169A
  [[ $output != *TASK-168B* && $output != *TASK-168C* ]]
}

@test "--json is one object, with the same in it" {
  runs task_status --json -p
  assert_output_json 'd["ok"], d["code"], [a["agent"] for a in d["agents"]]' "(True, 0, ['CA', 'CC'])"
  assert_output_json '[t["task_id"] for t in d["agents"][1]["tasks"]]' "['TASK-168B', 'TASK-165C', 'TASK-169A']"
  assert_output_json 'd["progress"]["total_tasks"]' 4
  refused 66 task_status --json -a XX
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
}

@test "--json keeps what a task says, byte for byte" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T1", "title": "\u001b[31m \ud83c\udf89 \"x\"\n"}], "history": []}'
  runs task_status --json
  assert_output_json "[a for a in d['agents'] if a['agent'] == 'CC'][0]['tasks'][0]['title'] == '\x1b[31m \U0001f389 \"x\"\n'" True
}

@test "a damaged outbox is named, the others are shown, and the exit code says so" {
  given postbox/CC/outbox.json $'{"tasks": [\n  {"task_id": }'
  remember_tree
  run --separate-stderr -65 task_status
  assert_output_has "CC: postbox/CC/outbox.json is damaged" "line 2" TASK-168C
  assert_unchanged
  run --separate-stderr -65 task_status --json
  assert_output_json 'd["ok"], d["code"], [("error" in a) for a in d["agents"]]' "(False, 65, [False, True])"
}

@test "the place of the damage is not cut off" {
  given postbox/CC/outbox.json "{\"tasks\": [{\"$(repeat 60 x)\": 1, \"$(repeat 60 x)\": 2}], \"a\": 1, \"a\": 2}"
  run --separate-stderr -65 task_status
  assert_output_has "line 1, column"
}

@test "a task of which a key stands twice is named as damaged, as complete does; the others of its outbox are shown" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T1", "status": "pending"},
  {"task_id": "T2", "status": "pending", "status": "completed"}]}'
  refused 65 complete_task CC T2
  assert_stderr_has "line 2, column 42"
  remember_tree
  run --separate-stderr -65 task_status
  assert_output_has "CC: postbox/CC/outbox.json is damaged" "line 2, column 42" "  T1 " TASK-168C
  [[ $output != *"  T2 "* ]]
  run --separate-stderr -65 task_status --json
  assert_output_json '[(len(a["tasks"]), "error" in a) for a in d["agents"]]' "[(1, False), (1, True)]"
  assert_unchanged
}

@test "who closes the pipe early has read enough: nothing is said, and with pipefail nothing fails" {
  set -o pipefail
  task_status 2>err | true
  recovery receipts 2>>err | true
  recovery changes 2>>err | true
  run -0 cat err
  assert_output ""
  rm err
}

@test "no escape code of somebody's words reaches the terminal, nor a brief; files hold them as they were given" {
  local nasty=$'a\e]0;owned\a\u009b31m\u202eb' shown='a\x1b]0;owned\x07\x9b31m\u202eb'
  runs assign_task CC T-1 "$nasty" CRITICAL
  assert_equal "$nasty" "$(task CC T-1 title)"
  run -0 cat "$ROOT/postbox/CC/inbox/T-1.md"
  assert_output_has "# T-1: $shown"
  runs recovery note CC T-1 "$nasty"
  runs with RECOVERY_SESSION="$nasty" -- recovery claim CC T-1
  runs task_status -t T-1
  assert_output_has "$shown" "claimed by"
  local seen=$output
  runs recovery changes CC T-1
  seen+=$output
  runs task_status --json -t T-1
  assert_output_json 'd["agents"][1]["tasks"][0]["title"] == "a\x1b]0;owned\x07\x9b31m\u202eb"' True
  seen+=$output
  run --separate-stderr recovery claim CC T-1
  seen+=$output$stderr
  run -1 grep -P '[\x00-\x09\x0b-\x1f\x7f-\x{9f}\x{202e}]' <<<"$seen"
}

@test "a task without id, title, status or priority doesn't trouble it" {
  given postbox/CC/outbox.json '{"tasks": [{}, {"task_id": 7, "status": 3, "title": null, "priority": []}], "history": []}'
  runs task_status
  assert_output_has CC: CA:
  runs task_status --json
  assert_output_json 'd["ok"]' True
}

@test "status and complete agree that a task whose id is a number is not open" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": 168, "status": "pending"}], "history": []}'
  runs task_status -a CC
  assert_output_has "CC: 0 open, 0 completed, 0 in history, 1 without an id that is a text: recovery doctor"
  refused 66 complete_task CC 168 done
  assert_stderr_has "Open for CC: nothing. Not counted: 168"
}

@test "an unfinished commit is said, and still unfinished afterwards" {
  crash_at journal-synced complete_task CC TASK-168B
  find "$ROOT" -type f -printf '%p %i %s %T@\n' | sort >before
  runs task_status
  assert_output_has "unfinished commit: complete CC/TASK-168B" "recovery recover"
  runs task_status --json
  assert_output_json 'd["unfinished"]["op"], d["unfinished"]["agent"], d["unfinished"]["task"]' "('complete', 'CC', 'TASK-168B')"
  find "$ROOT" -type f -printf '%p %i %s %T@\n' | sort >after
  run -0 diff before after
}

@test "no agents at all" {
  rm -r "$ROOT/postbox"/*
  runs task_status
  assert_output "no agents here"
}

@test "unknown options, words and options without value are refused" {
  refused 64 task_status --frobnicate
  refused 64 task_status word
  refused 64 task_status -a
  refused 64 task_status -a ""
  refused 64 task_status -C ""
  assert_stderr_has "-C needs a value, and this one is empty"
  refused 64 recovery init ""
  refused 64 recovery changes -C ""
  refused 64 recovery breaker trip api --for=
  assert_stderr_has "--for needs a value, and this one is empty"
}

@test "works on a workspace that can only be read" {
  let_others_in
  chmod -R a+rX,a-w "$ROOT"
  if ((EUID == 0)); then
    runs as_user 65534 65534 "$SUITE/bin/task_status.sh"
  else
    runs task_status
  fi
  assert_output_has TASK-168B
  chmod -R u+w "$ROOT"
}

@test "a file in postbox is no agent" {
  echo hello >"$ROOT/postbox/README.md"
  mkdir "$ROOT/postbox/empty"
  runs task_status
  [[ $output != *README* && $output != *empty* ]] || fail "$output"
}

@test "an agent whose folder can't be read is named, and hides nobody" {
  local as=env
  ((EUID)) || as=as_plain_root
  chmod 000 "$ROOT/postbox/CC"
  run --separate-stderr -77 "$as" "$SUITE/bin/task_status.sh"
  assert_output_has "CC: could not read postbox/CC/outbox.json" ermission TASK-168C
  run --separate-stderr -77 "$as" "$SUITE/bin/task_status.sh" -a CC
  run -0 "$as" "$SUITE/bin/task_status.sh" -a CA
  chmod 755 "$ROOT/postbox/CC"
}
