#!/usr/bin/env bats

load test_helper

setup() {
  make_workspace
  export XDG_DATA_HOME="$BATS_TEST_TMPDIR/data home"
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T-1", "status": "pending"},
    {"task_id": "T-2", "status": "pending"}, {"task_id": "T-3", "status": "pending"}]}'
  given checks.json '{"checks": {"tests": {"run": ["true"]}}, "required": {"CC": ["tests"]}}'
  local sum
  sum=$(sha256sum <"$ROOT/checks.json")
  runs recovery trust --yes "${sum%% *}"
}

completed() { # <task>...
  local one
  for one; do
    runs complete_task --again CC "$one"
  done
}

unfit() { # <words that are said>...
  run --separate-stderr -1 recovery receipts verify
  assert_output_has "don't fit" "$@"
}

head_of() { # <agent>
  json "$ROOT/data/receipts/$1.json" 'd["head"]'
}

@test "each completion's receipt is bound to the one before, and all fit together" {
  completed T-1 T-2
  assert_json postbox/CC/completed/T-1_completion.json 'd["receipt"]["number"], d["receipt"]["previous"]' "(1, None)"
  local first
  first=$(json "$ROOT/postbox/CC/completed/T-2_completion.json" 'd["receipt"]["previous"]')
  assert_equal "$first" "$(jq -cjS .receipt "$ROOT/postbox/CC/completed/T-1_completion.json" | sha256sum | cut -c1-64)"
  runs recovery receipts verify
  assert_output_has "2 receipt(s) of" "fit together" "head $(head_of CC)"
  assert_locks_free
}

@test "a workspace without receipts fits" {
  runs recovery receipts verify
  assert_output_has "0 receipt(s)"
  runs recovery receipts
  assert_output_has "0 receipts"
}

@test "an undo adds a revocation in its own commit; the completion again, a receipt more" {
  completed T-1 T-2
  runs recovery rollback CC T-1
  assert_open CC T-1
  assert_json data/receipts/CC.json 'd["number"]' 3
  runs recovery receipts verify
  runs recovery receipts list CC
  assert_output_has "3 receipts" "revoked " "revokes " "holds "
  refused 66 recovery receipts show CC T-1
  runs recovery rollback CC T-1
  assert_json data/receipts/CC.json 'd["number"]' 3
  completed T-1
  runs recovery receipts verify
  assert_json data/receipts/CC.json 'd["number"]' 4
}

@test "reopening a task revokes its receipt; the rollback of that restores it" {
  completed T-1 T-2
  runs recovery reopen CC T-1
  assert_open CC T-1
  runs recovery receipts verify
  refused 66 recovery receipts show CC T-1
  runs recovery rollback CC T-1
  assert_completed CC T-1
  runs recovery receipts verify
  runs recovery receipts show CC T-1
  assert_output_has "receipt 1"
  runs task_status -a CC
  [[ $output != *claimed* ]]
  runs recovery reopen CC T-1
  runs recovery receipts verify
  completed T-1
  runs recovery receipts verify
  assert_json data/receipts/CC.json 'd["number"]' 6
}

@test "the rollback of a reopening brings back what was checked then: what is asked for since was never passed" {
  completed T-1
  runs recovery reopen CC T-1
  given checks.json '{"checks": {"tests": {"run": ["true"]}, "lint": {"run": ["true"]}}, "required": {"CC": ["tests", "lint"]}}'
  local sum
  sum=$(sha256sum <"$ROOT/checks.json")
  runs recovery trust --yes "${sum%% *}"
  runs recovery rollback CC T-1
  runs task_status --json -t T-1
  assert_output_json '[t["not_passed"] for a in d["agents"] for t in a["tasks"]]' "[['lint']]"
  runs recovery receipts verify
  runs complete_task --again CC T-1
  runs task_status -t T-1
  [[ $output != *claimed* ]]
}

@test "a completed task that never had a receipt is reopened as ever" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T-1", "status": "completed"}]}'
  runs recovery reopen CC T-1
  assert_absent "$ROOT/data/receipts"
}

@test "show gives a task's receipt, list everybody's, as text and as JSON" {
  completed T-1
  runs recovery receipts show CC T-1
  assert_output_has "CC/T-1: receipt 1, $(head_of CC)" '"check": "tests"'
  runs recovery receipts show CC/T-1 --json
  assert_output_json 'd["hash"], d["receipt"]["task"]' "('$(head_of CC)', 'T-1')"
  runs recovery receipts list --json
  assert_output_json '[(r["agent"], r["state"]) for r in d["receipts"]]' "[('CC', 'holds')]"
  refused 66 recovery receipts list CA
  refused 66 recovery receipts verify --agent XX
}

@test "a message that was changed in the completion record is found" {
  completed T-1
  sed -i 's/Task completed successfully/Better/' "$ROOT/postbox/CC/completed/T-1_completion.json"
  unfit "T-1: its completion record was changed"
}

@test "a receipt that was changed, in the record or in the chain, is found" {
  completed T-1 T-2
  sed -i 's/"code": 0/"code": 1/' "$ROOT/postbox/CC/completed/T-1_completion.json"
  unfit "T-1: the receipt in its completion record is not the one in the chain"
  sed -i 's/"code": 1/"code": 0/' "$ROOT/postbox/CC/completed/T-1_completion.json"
  sed -i '1s/"code": 0/"code": 1/' "$ROOT/data/receipts/CC.jsonl"
  unfit "receipt 1 (completed T-1) was changed"
}

@test "lines that were removed or put in another order are found" {
  completed T-1 T-2 T-3
  cp "$ROOT/data/receipts/CC.jsonl" chain
  sed -i 2d "$ROOT/data/receipts/CC.jsonl"
  unfit "the chain is broken before receipt 3" "T-2: its completion record holds a receipt that the chain doesn't"
  { sed -n 1p chain && sed -n 3p chain && sed -n 2p chain; } >"$ROOT/data/receipts/CC.jsonl"
  unfit "the chain is broken before receipt 3"
  sed 3d chain >"$ROOT/data/receipts/CC.jsonl"
  unfit "its end is missing"
  rm "$ROOT/data/receipts/CC.jsonl"
  unfit "its end is missing"
  cp chain "$ROOT/data/receipts/CC.jsonl"
  rm "$ROOT/data/receipts/CC.json"
  unfit "the chain's head, is gone"
  rm chain
}

@test "a record that is gone, and one with a receipt from nowhere, are found" {
  completed T-1 T-2
  mv "$ROOT/postbox/CC/completed/T-1_completion.json" kept
  unfit "T-1: there is a receipt, but no completion record"
  mv kept "$ROOT/postbox/CC/completed/T-9_completion.json"
  unfit "T-9: its completion record holds a receipt that the chain doesn't"
}

@test "a task that was undone and is shown completed all the same is found" {
  completed T-1
  cp "$ROOT/postbox/CC/completed/T-1_completion.json" kept
  runs recovery rollback CC T-1
  mv kept "$ROOT/postbox/CC/completed/T-1_completion.json"
  unfit "T-1: its completion record holds a receipt that the chain doesn't, or that was revoked"
}

@test "a completed task that was opened again by hand is found" {
  completed T-1
  sed -i '0,/"completed"/s//"in_progress"/' "$ROOT/postbox/CC/outbox.json"
  unfit "T-1: it is completed by its receipt, in_progress in the outbox"
}

@test "a completed task whose message or time was changed in the outbox alone is found" {
  completed T-1 T-2
  sed -i '0,/Task completed successfully/s//Better/' "$ROOT/postbox/CC/outbox.json"
  unfit "T-1: the outbox and the completion record differ: completion_message"
  sed -i 's/Better/Task completed successfully/; 0,/"completed_at": "[^"]*"/s//"completed_at": "2020-01-01T00:00:00Z"/' "$ROOT/postbox/CC/outbox.json"
  unfit "T-1: the outbox and the completion record differ: completed_at"
}

@test "an anchor says whether what was there is still there" {
  completed T-1 T-2
  local anchor
  anchor=$(head_of CC)
  completed T-3
  runs recovery receipts verify --anchor "$anchor"
  assert_output_has "the anchor ${anchor:0:12} is there"
  # cut back to the first, head and records with it: all fits, only the anchor knows
  local first
  first=$(json "$ROOT/postbox/CC/completed/T-2_completion.json" 'd["receipt"]["previous"]')
  sed -i 2,3d "$ROOT/data/receipts/CC.jsonl"
  printf '{"format": 1, "agent": "CC", "number": 1, "head": "%s"}\n' "$first" >"$ROOT/data/receipts/CC.json"
  rm "$ROOT"/postbox/CC/completed/T-[23]_completion.json
  runs recovery receipts verify
  run --separate-stderr -1 recovery receipts verify --anchor "$anchor"
  assert_output_has "in no chain"
  run --separate-stderr -1 recovery receipts verify --json --anchor "$anchor"
  assert_output_json 'd["ok"], d["code"], d["anchor"]' "(False, 1, False)"
  refused 64 recovery receipts verify --anchor abc
}

@test "a damaged head stops the next completion and says where to look" {
  completed T-1
  echo '{"format": 1' >"$ROOT/data/receipts/CC.json"
  refused 65 complete_task CC T-2
  assert_stderr_has data/receipts/CC.json "receipts verify --agent CC"
  unfit "data/receipts/CC.json is damaged"
}

@test "torn lines are counted and foreign numbers are no crash" {
  completed T-1
  printf '{"hash": 1, "receipt": {"number": 1e999, "agent": "CC"}}\n{"has' >>"$ROOT/data/receipts/CC.jsonl"
  unfit "1 torn or foreign line(s)"
  [[ $stderr != *bug* ]]
}

@test "the chains of two agents are two" {
  given postbox/CA/outbox.json '{"tasks": [{"task_id": "T-1", "status": "pending", "checks": ["tests"]}]}'
  completed T-1
  runs complete_task CA T-1
  assert_json postbox/CA/completed/T-1_completion.json 'd["receipt"]["previous"]' None
  runs recovery receipts verify
  assert_output_has "2 receipt(s) of 2 agent(s)"
  runs recovery receipts verify --agent CA
  assert_output_has "1 receipt(s) of 1 agent(s)"
}

@test "a torn chain doesn't hide a claim: who has no receipt that can be read is claimed done" {
  completed T-1
  : >"$ROOT/data/receipts/CC.jsonl"
  runs task_status -a CC -t T-1
  assert_output_has "claimed done"
}

@test "a key that stands twice, in a record or in the chain, is found: readers differ about what it says" {
  completed T-1 T-2
  local record="$ROOT/postbox/CC/completed/T-1_completion.json"
  cp "$record" kept
  sed -i 's/^  "completion_message"/  "completion_message": "Better",\n&/' "$record"
  unfit "T-1: its completion record can't be read: the key \"completion_message\" stands there twice"
  mv kept "$record"
  runs recovery receipts verify
  sed -i '2s/"code": 0/"code": 1, "code": 0/' "$ROOT/data/receipts/CC.jsonl"
  unfit "1 torn or foreign line(s)" "its end is missing"
  runs task_status -a CC -t T-2
  assert_output_has "claimed done"
}

@test "an outbox that is gone, or has lost a task that a receipt speaks of, is found; an archived task is not" {
  completed T-1
  cp "$ROOT/postbox/CC/outbox.json" kept
  given postbox/CC/outbox.json '{"tasks": []}'
  unfit "T-1: there is a receipt, but neither the outbox nor its history has the task"
  given postbox/CC/outbox.json '{"tasks": [], "history": [{"task_id": "T-1", "status": "completed"}]}'
  runs recovery receipts verify
  cp kept "$ROOT/postbox/CC/outbox.json"
  runs recovery archive CC --older-than 0
  assert_output_has "archived 1 task"
  runs recovery receipts verify
  rm "$ROOT/postbox/CC/outbox.json"
  unfit "postbox/CC/outbox.json, which its receipts speak of, is gone"
  rm kept
}

@test "what isn't known is refused" {
  refused 64 recovery receipts burn
  refused 64 recovery receipts list CC T-1
  refused 64 recovery receipts list --anchor "$(repeat 64 a)"
  refused 64 recovery receipts show CC
  refused 64 recovery receipts verify CC
  refused 64 recovery receipts verify --agent ../x
  refused 64 recovery receipts verify --agent ""
  refused 64 recovery receipts verify --anchor=
}

@test "a folder or a fifo in the place of a chain, a head or a record is named, and hides no other" {
  completed T-1
  mkdir -p "$ROOT/data/receipts/ZZ.json" "$ROOT/postbox/YY/completed"
  mkfifo "$ROOT/data/receipts/CA.jsonl" "$ROOT/postbox/YY/completed/T-9_completion.json"
  unfit "CA: data/receipts/CA.jsonl is not a regular file" "ZZ: data/receipts/ZZ.json is a folder" \
    "YY: T-9: its completion record can't be read"
  assert_output_has "CC: 1 receipt(s)"
}
