#!/usr/bin/env bats

load test_helper

# recovery checkpoint: where tasks have got to.

history_of() { # <task>; how many lines its history has
  wc -l <"$ROOT/data/checkpoints/$1_history.jsonl"
}

@test "what was added is shown, byte for byte" {
  runs recovery checkpoint add TASK-1 running '{"page": 3, "größe": "ü\n", "big": 12345678901234567890123}'
  assert_output "added a checkpoint of TASK-1: running"
  runs recovery checkpoint show TASK-1 --json
  assert_output_json 'd["ok"], d["code"], d["changed"], d["checkpoint"]["task_id"], d["checkpoint"]["state"]' \
    "(True, 0, False, 'TASK-1', 'running')"
  assert_output_json 'd["checkpoint"]["data"]' "{'page': 3, 'größe': 'ü\\n', 'big': 12345678901234567890123}"
  assert_json data/checkpoints/TASK-1_checkpoint.json 'd["data"]["page"]' 3
  assert_no_stray_files
  assert_locks_free
}

@test "show is the last, history all, list one line a task" {
  runs recovery checkpoint add TASK-1 running '{"page": 1}'
  runs recovery checkpoint add TASK-1 completed
  runs recovery checkpoint add TASK-2 failed
  runs recovery checkpoint show TASK-1
  assert_output_has '"state": "completed"' '"data": {}'
  runs recovery checkpoint history TASK-1
  assert_equal 2 "${#lines[@]}"
  [[ ${lines[0]} == *running*'{"page": 1}'* && ${lines[1]} == *completed* ]]
  runs recovery checkpoint history TASK-1 --json
  assert_output_json '[c["state"] for c in d["checkpoints"]]' "['running', 'completed']"
  runs recovery checkpoint list --json
  assert_output_json '[(c["task_id"], c["state"]) for c in d["checkpoints"]]' "[('TASK-1', 'completed'), ('TASK-2', 'failed')]"
  runs recovery checkpoint
  [[ ${#lines[@]} == 2 && ${lines[0]} == TASK-1*completed*Z && ${lines[1]} == TASK-2*failed*Z ]]
}

@test "what the scripts did is a checkpoint too, and AGENT/TASK is accepted" {
  runs complete_task CC TASK-168B
  runs recovery checkpoint show CC/TASK-168B --json
  assert_output_json 'd["checkpoint"]["state"], d["checkpoint"]["data"]["agent"]' "('completed', 'CC')"
  runs recovery checkpoint add CC/TASK-168B pending
  runs recovery checkpoint show TASK-168B --json
  assert_output_json 'd["checkpoint"]["state"]' pending
}

@test "- reads the data from stdin" {
  printf '{"from": "stdin"}\n' >in
  runs recovery checkpoint add TASK-1 running - <in
  rm in
  assert_json data/checkpoints/TASK-1_checkpoint.json 'd["data"]' "{'from': 'stdin'}"
}

@test "data that isn't a JSON object is refused with line and column" {
  local data
  refused 65 recovery checkpoint add TASK-1 running $'{"ü€": 1,\n "b": x}'
  assert_stderr_has "line 2, column 7" "Nothing changed"
  for data in '[1]' '"text"' '{"a": 1} x' '{"a": NaN}' '{"a": 1,}' '{"a": 1, "a": 2}' $'{"a": "\xff"}'; do
    refused 65 recovery checkpoint add TASK-1 running "$data"
  done
  refused 65 recovery checkpoint add TASK-1 running - </dev/null
  refused 64 recovery checkpoint add TASK-1 running ''
  assert_absent "$ROOT/data/checkpoints"
}

@test "data that JSON can't hold is refused with its path" {
  refused 65 recovery checkpoint add TASK-1 running '{"a": {"b": [0, 1e999]}}' --json
  assert_output_json 'd["ok"], d["code"], "a.b[1]" in d["error"], bool(d["hint"]), bool(d["next"])' "(False, 65, True, True, True)"
  refused 65 recovery checkpoint add TASK-1 running "{\"€\": \"$(repeat 60000 x)\", \"b\": $(repeat 5000 9)}"
  assert_stderr_has "data.b is an integer of more than 4,300 digits"
  assert_absent "$ROOT/data/checkpoints"
}

@test "more data than a checkpoint may hold is refused" {
  { printf '{"a": "' && repeat 1100000 x && printf '"}'; } >in
  refused 65 recovery checkpoint add TASK-1 running - <in
  assert_stderr_has "1,048,576 bytes"
  { repeat 5000000 ' ' && printf '{}'; } >in
  refused 65 recovery checkpoint add TASK-1 running - <in
  rm in
  assert_absent "$ROOT/data/checkpoints"
}

@test "a state or id that is none is refused" {
  refused 64 recovery checkpoint add TASK-1 done
  assert_stderr_has "pending running completed"
  refused 64 recovery checkpoint add ../TASK running
  refused 64 recovery checkpoint add a/b/c running
  refused 64 recovery checkpoint show 'TASK 1'
  refused 64 recovery checkpoint frobnicate
  refused 64 recovery checkpoint add TASK-1
  refused 64 recovery checkpoint show --frobnicate TASK-1
  assert_absent "$ROOT/data"
}

@test "a task without checkpoints is not found" {
  refused 66 recovery checkpoint show TASK-1
  assert_stderr_has "TASK-1 has no checkpoint" "recovery checkpoint list"
  refused 66 recovery checkpoint history TASK-1 --json
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
  runs recovery checkpoint list
  assert_output "no checkpoints here"
}

@test "--dry-run and -q" {
  runs recovery checkpoint add TASK-1 running '{"a": 1}' --dry-run
  assert_output_has "would add a checkpoint of TASK-1" "nothing changed"
  assert_absent "$ROOT/data"
  refused 65 recovery checkpoint add TASK-1 running '{"a": 1e999}' --dry-run
  runs recovery checkpoint add TASK-1 running -q
  assert_equal "" "$output$stderr"
  assert_equal 1 "$(history_of TASK-1)"
}

@test "clean removes the checkpoints of ended tasks alone, of all or of one" {
  local task
  for task in OLD-1 OLD-2; do
    given "data/checkpoints/${task}_history.jsonl" \
      "{\"txid\": \"x\", \"task_id\": \"$task\", \"checkpoint_id\": \"c\", \"timestamp\": \"2020-01-01T00:00:00Z\", \"state\": \"completed\", \"data\": {}, \"metadata\": {}}"$'\n'
  done
  runs recovery checkpoint add OPEN running
  runs recovery checkpoint clean --dry-run --json
  assert_output_json 'd["tasks"], d["changed"]' "(['OLD-1', 'OLD-2'], False)"
  runs recovery checkpoint clean OLD-2
  assert_output_has "removed the checkpoints of 1 task"
  assert_exists "$ROOT/data/checkpoints/OLD-1_history.jsonl"
  assert_absent "$ROOT/data/checkpoints/OLD-2_history.jsonl"
  runs recovery checkpoint clean --older-than 1d --json
  assert_output_json 'd["tasks"], d["changed"]' "(['OLD-1'], True)"
  runs recovery checkpoint clean --older-than 0
  assert_output "nothing to remove"
  refused 64 recovery checkpoint clean --older-than soon
  runs recovery checkpoint list
  assert_output_has OPEN
}

@test "killed at any step, an addition is whole or not there" {
  local step
  runs recovery checkpoint add TASK-1 running '{"page": 1}'
  for step in append appended snapshot; do
    crash_at "$step" recovery checkpoint add TASK-1 running '{"page": 2}'
    runs recovery checkpoint show TASK-1 --json
    assert_output_json 'd["checkpoint"]["data"]["page"] in (1, 2)' True
    runs recovery checkpoint add TASK-1 running '{"page": 1}'
    runs recovery checkpoint show TASK-1 --json
    assert_output_json 'd["checkpoint"]["data"]["page"]' 1
  done
  runs recovery recover
  assert_no_stray_files
}

@test "-C is taken before the verb, before the action and behind it" {
  local other=$BATS_TEST_TMPDIR/other
  fill_workspace "$other"
  runs recovery -C "$other" checkpoint add TASK-1 running
  runs recovery checkpoint -C "$other" add TASK-2 running
  runs recovery checkpoint add TASK-3 running -C "$other"
  runs recovery -C "$other" checkpoint
  assert_output_has TASK-1 TASK-2 TASK-3
  runs recovery checkpoint --json -C "$other"
  assert_output_json 'len(d["checkpoints"])' 3
  assert_absent "$ROOT/data"
}

@test "stdout that can't be written is said, and what was done is done" {
  run --separate-stderr -0 bash -c '"$0" checkpoint add TASK-1 running >/dev/full' "$SUITE/bin/recovery"
  assert_stderr_has "stdout can't be written" "what was done is done"
  assert_equal 1 "$(history_of TASK-1)"
  run --separate-stderr -74 bash -c '"$0" checkpoint show TASK-1 >/dev/full' "$SUITE/bin/recovery"
}

@test "an escape code in somebody's data can't reach the terminal" {
  runs recovery checkpoint add TASK-1 running $'{"a": "\xc2\x9b31m"}'
  runs recovery checkpoint show TASK-1
  [[ $output != *$'\xc2\x9b'* ]]
  runs recovery checkpoint history TASK-1
  [[ $output != *$'\xc2\x9b'* ]]
}
