#!/usr/bin/env bats

load test_helper

setup() {
  make_workspace
  export RECOVERY_SESSION=blue
}

@test "takes a task: in progress, whose it is and since when in its entry, progress counted, in one commit" {
  runs recovery claim CC TASK-168B
  assert_output "claimed CC/TASK-168B (pending -> in_progress), generation 1; 2 files, read back"
  assert_equal in_progress "$(task CC TASK-168B)"
  assert_equal "1 held session {'session': 'blue'}" "$(task CC TASK-168B claim | json_of_claim)"
  assert_json .sprint/progress.json 'd["tasks"]["TASK-168B"]["status"], d["in_progress"], d["pending"]' \
    "('in_progress', 3, 0)"
  assert_equal 1 "$(wc -l <"$(echo "$ROOT"/data/changes/*)")"
  assert_no_stray_files
  assert_locks_free
}

json_of_claim() { # stdin: Python's own words for a claim
  "$PYTHON" -I -S -c 'import ast, sys
d = ast.literal_eval(sys.stdin.read())
print(d["generation"], d["state"], d["kind"], d["owner"])'
}

@test "the same session again is a no-op that says so" {
  runs recovery claim CC TASK-168B
  remember_tree
  runs recovery claim CC TASK-168B
  assert_output_has "already claimed by session blue" "nothing changed"
  assert_unchanged
}

@test "somebody else gets 75 at once, the owner's name, and what to run instead" {
  runs recovery claim CC TASK-168B
  refused 75 with RECOVERY_SESSION=red RECOVERY_RETRY_DELAY=20 -- recovery claim CC TASK-168B
  assert_stderr_has "claimed by session blue since 20" "Nothing changed." "recovery claim CC --next"
  assert_absent "$ROOT/logs"
}

@test "one that is completed can't be taken, and what makes it open again is said" {
  refused 65 recovery claim CC TASK-165C
  assert_stderr_has "is completed" "recovery reopen CC TASK-165C"
}

@test "an unknown task, agent or word is refused" {
  refused 66 recovery claim CC NOPE
  assert_stderr_has "Open for CC: TASK-168B"
  refused 66 recovery claim NOBODY TASK-1
  refused 66 recovery claim NOBODY --next
  refused 64 recovery claim CC
  refused 64 recovery claim CC ../x
  refused 64 recovery claim CC TASK-168B --lease soon
  refused 64 recovery claim CC TASK-168B --lease 0
  refused 64 recovery claim CC TASK-168B --next
  assert_absent "$ROOT/data/claims" "$ROOT/postbox/NOBODY"
}

@test "the owner completes its task, and the claim is over in the same commit" {
  runs recovery claim CC TASK-168B
  runs complete_task CC TASK-168B "mine"
  assert_completed CC TASK-168B mine
  assert_equal "1 done session {'session': 'blue'}" "$(task CC TASK-168B claim | json_of_claim)"
  assert_equal 2 "$(wc -l <"$(echo "$ROOT"/data/changes/*)")"
  assert_no_stray_files
}

@test "nobody else may complete, fail, start, review, release, reassign or roll back a claimed task: 76, once" {
  runs recovery claim CC TASK-168B
  export RECOVERY_SESSION=red RECOVERY_RETRY_DELAY=20
  refused 76 complete_task CC TASK-168B "not mine"
  assert_stderr_has "claimed by session blue since 20" "(generation 1)" "recovery release --force CC TASK-168B"
  refused 76 recovery fail CC TASK-168B "not mine"
  refused 76 recovery start CC TASK-168B
  refused 76 recovery review CC TASK-168B
  refused 76 recovery release CC TASK-168B
  refused 76 recovery reassign CC TASK-168B CA
  refused 76 recovery rollback CC TASK-168B
  assert_absent "$ROOT/logs"
}

@test "anybody may note something on a claimed task" {
  runs recovery claim CC TASK-168B
  runs with RECOVERY_SESSION=red -- recovery note CC TASK-168B "mind the gap"
  assert_output_has "noted on CC/TASK-168B"
}

@test "a task without a claim is completed by anybody, as ever" {
  runs with RECOVERY_SESSION=red -- complete_task CC TASK-168B
  assert_completed CC TASK-168B
  assert_equal None "$(task CC TASK-168B claim)"
}

@test "RECOVERY_CLAIM with the right generation acts for the owner, with another it is fenced off" {
  runs recovery claim --json CC TASK-168B
  assert_output_json 'd["claim"], d["generation"], d["title"]' "('CC/TASK-168B:1', 1, 'End to end tests')"
  refused 76 with RECOVERY_SESSION=red RECOVERY_CLAIM=CC/TASK-168B:2 -- complete_task CC TASK-168B
  refused 76 with RECOVERY_CLAIM=CC/TASK-168B:0002 -- complete_task CC TASK-168B
  assert_stderr_has "your claim, generation 2, is over" "recovery claim CC TASK-168B"
  refused 64 with RECOVERY_CLAIM=nonsense -- complete_task CC TASK-168B
  runs with RECOVERY_SESSION=red RECOVERY_CLAIM=CC/TASK-168B:1 -- complete_task CC TASK-168B
}

@test "who has ended its claim may run the same command again: nothing changes" {
  runs with RECOVERY_SESSION=red -- recovery claim CC TASK-168B
  runs with RECOVERY_CLAIM=CC/TASK-168B:1 -- recovery release CC TASK-168B
  runs with RECOVERY_CLAIM=CC/TASK-168B:1 -- recovery release CC TASK-168B
  assert_output_has "nothing changed"
  refused 76 with RECOVERY_CLAIM=CC/TASK-168B:1 -- complete_task CC TASK-168B
  runs with RECOVERY_SESSION=red -- recovery claim CC TASK-168B
  runs with RECOVERY_CLAIM=CC/TASK-168B:2 -- complete_task CC TASK-168B
  runs with RECOVERY_CLAIM=CC/TASK-168B:2 -- complete_task CC TASK-168B
  assert_output_has "already completed" "nothing changed"
  refused 76 with RECOVERY_CLAIM=CC/TASK-168B:1 -- complete_task CC TASK-168B
}

@test "RECOVERY_CLAIM of another task says nothing about this one" {
  runs with RECOVERY_CLAIM=CC/TASK-1:7 -- complete_task CC TASK-168B
}

@test "a released task is free, and its next claim has a higher generation" {
  runs recovery claim CC TASK-168B
  runs recovery release CC TASK-168B
  assert_output_has "released CC/TASK-168B (in_progress -> pending)"
  assert_json .sprint/progress.json 'd["tasks"]["TASK-168B"]["status"], d["in_progress"], d["pending"]' "('pending', 2, 1)"
  remember_tree
  runs recovery release CC TASK-168B
  assert_output_has "nobody has claimed CC/TASK-168B" "nothing changed"
  assert_unchanged
  runs with RECOVERY_SESSION=red -- recovery claim CC TASK-168B
  assert_output_has "generation 2"
  refused 76 with RECOVERY_CLAIM=CC/TASK-168B:1 -- complete_task CC TASK-168B
}

@test "release --force ends anybody's claim, and records who did it" {
  runs recovery claim CC TASK-168B
  runs with RECOVERY_SESSION=red -- recovery release --force CC TASK-168B
  assert_output_has "released CC/TASK-168B" "which session blue had claimed"
  grep -q '\\"forced_by\\": \\"session red\\"' "$ROOT"/data/changes/*
  runs with RECOVERY_SESSION=red -- recovery claim CC TASK-168B
  refused 76 complete_task CC TASK-168B
}

@test "rolling a claim back frees the task and keeps its generation" {
  runs recovery claim CC TASK-168B
  runs recovery rollback CC TASK-168B
  assert_equal pending "$(task CC TASK-168B)"
  assert_equal "1 rolled_back session {'session': 'blue'}" "$(task CC TASK-168B claim | json_of_claim)"
  runs recovery claim CC TASK-168B
  assert_output_has "generation 2"
  assert_no_stray_files
}

@test "rolling back its completion gives the owner the task again" {
  runs recovery claim CC TASK-168B
  runs complete_task CC TASK-168B
  runs recovery rollback CC TASK-168B
  assert_equal in_progress "$(task CC TASK-168B)"
  refused 76 with RECOVERY_SESSION=red -- complete_task --again CC TASK-168B
  runs complete_task --again CC TASK-168B
}

# --- --next

three_tasks() { # <task>...; each a JSON object
  local IFS=,
  given postbox/CC/outbox.json "{\"tasks\": [$*]}"
}

@test "--next takes by priority, then age, then order, and again takes another" {
  three_tasks '{"task_id": "LATER", "status": "pending", "priority": "high", "created_at": "2025-02-01"}' \
    '{"task_id": "LOW", "status": "assigned", "priority": "LOW"}' \
    '{"task_id": "NONE", "status": "pending"}' \
    '{"task_id": "SOON", "status": "pending", "priority": "HIGH", "created_at": "2025-01-01"}' \
    '{"task_id": "DONE", "status": "completed", "priority": "CRITICAL"}' \
    '{"task_id": "MEDIUM", "priority": "MEDIUM"}'
  local expected
  for expected in SOON LATER NONE MEDIUM LOW; do
    runs recovery claim CC --next
    assert_output_has "claimed CC/$expected ("
  done
  refused 75 recovery claim CC --next
  assert_stderr_has "CC has nothing that is free" "SOON is claimed by session blue"
}

@test "--next passes over what waits for another task, in its own outbox or anybody's, with words behind it" {
  three_tasks '{"task_id": "B", "priority": "HIGH", "dependencies": ["A (must be done first)"]}' \
    '{"task_id": "C", "priority": "HIGH", "dependencies": "CA/TASK-168C"}' \
    '{"task_id": "D", "priority": "HIGH", "dependencies": ["TASK-168C: the front end"]}' \
    '{"task_id": "A", "priority": "LOW", "dependencies": []}'
  runs recovery claim CC --next
  assert_output_has "claimed CC/A "
  refused 75 recovery claim CC --next
  assert_stderr_has "B waits for A (in_progress)" "C waits for CA/TASK-168C (in_progress)" "D waits for TASK-168C (in_progress)"
  runs complete_task CA TASK-168C
  runs recovery claim CC --next
  assert_output_has "claimed CC/C "
  runs recovery claim CC --next
  assert_output_has "claimed CC/D "
  runs complete_task CC A
  runs recovery claim CC --next
  assert_output_has "claimed CC/B "
}

@test "a dependency counts as completed by history, completion record or progress, too" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "B", "dependencies": ["OLD", "REC", "CA/HIS", "PRO"]}],
    "history": [{"task_id": "OLD", "status": "completed"}]}'
  given postbox/CC/completed/REC_completion.json '{"task_id": "REC", "status": "completed"}'
  given postbox/CA/outbox.json '{"tasks": [], "history": [{"task_id": "HIS", "status": "completed"}]}'
  given .sprint/progress.json '{"tasks": [{"id": "PRO", "status": "in_progress"}]}'
  refused 75 recovery claim CC --next
  assert_stderr_has "B waits for PRO (in_progress)"
  given .sprint/progress.json '{"tasks": [{"id": "PRO", "status": "completed"}]}'
  runs recovery claim CC --next
  assert_output_has "claimed CC/B "
}

@test "a dependency nobody has and a circle are never ready, and are said" {
  three_tasks '{"task_id": "A", "dependencies": ["B"]}' '{"task_id": "B", "dependencies": ["A"]}' \
    '{"task_id": "C", "dependencies": ["NOBODYS"]}' '{"task_id": "D", "dependencies": ["(after lunch)"]}' \
    '{"task_id": "E", "dependencies": [7]}' '{"task_id": "F", "dependencies": ["F"]}'
  refused 75 recovery claim CC --next
  assert_stderr_has "A waits for itself (A -> B -> A)" "B waits for itself (B -> A -> B)" "C waits for NOBODYS, which nobody has" \
    "D waits for (after lunch), which nobody has" "and 1 more"
  runs recovery claim CC C
  assert_output_has "claimed CC/C "
  three_tasks '{"task_id": "A", "dependencies": ["B"]}' '{"task_id": "B", "dependencies": ["A"]}'
  refused 75 recovery claim CC --next
  assert_stderr_has "never ends by itself: recovery edit CC"
}

@test "--next says 66 where nothing is open, and what is aside" {
  three_tasks '{"task_id": "A", "status": "completed"}' '{"task_id": "B", "status": "failed"}' \
    '{"task_id": "C", "status": "ready_for_review"}'
  refused 66 recovery claim CC --next
  assert_stderr_has "CC has no open task" "B is failed" "C is ready_for_review"
}

@test "--next doesn't read a damaged outbox that nobody depends on, and survives one that somebody does" {
  given postbox/CA/outbox.json '{"tasks": ['
  runs recovery claim CC --next
  assert_output_has "claimed CC/TASK-168B"
  three_tasks '{"task_id": "A", "dependencies": ["CA/TASK-168C"]}'
  refused 75 recovery claim CC --next
  given postbox/CC/outbox.json '{"tasks": ['
  refused 65 recovery claim CC --next
}

@test "--next passes over a task whose earlier change could be neither finished nor undone" {
  three_tasks '{"task_id": "A", "priority": "HIGH"}' '{"task_id": "B", "priority": "LOW"}'
  given "data/conflicts/CC@A@20250101T000000Z-0123456789ab.parked.json" '{}'
  runs recovery claim CC --next
  assert_output_has "claimed CC/B "
}

@test "RECOVERY_AGENT stands for the agent" {
  runs with RECOVERY_AGENT=CC -- recovery claim --next
  assert_output_has "claimed CC/TASK-168B "
}

# --- whose it is

@test "a session that is a process has the task as long as it lives" {
  sleep 600 3>&- &
  STARTED+=("$!")
  runs with RECOVERY_SESSION="$!" -- recovery claim CC TASK-168B
  refused 75 recovery claim CC TASK-168B
  kill -STOP "$!"
  runs recovery sweep
  assert_output "nothing to sweep"
  refused 75 recovery claim CC TASK-168B
  kill -KILL "$!"
  wait "$!" || :
  unset 'STARTED[-1]'
  refused 76 complete_task CC TASK-168B
  assert_stderr_has "is gone" "recovery sweep"
  runs recovery claim CC TASK-168B
  assert_output_has "generation 2, from pid" "is gone"
  grep -q '"error_type": "OwnerDied".*"outcome": "returned"' "$ROOT/logs/recovery/TASK-168B_recovery.jsonl"
  assert_no_stray_files
}

@test "a number that is no living process is refused as a session" {
  refused 64 with RECOVERY_SESSION=4194999 -- recovery claim CC TASK-168B
  assert_stderr_has "no such process"
}

@test "without RECOVERY_SESSION it is the nearest program above that stays: not the shell that runs a script" {
  unset RECOVERY_SESSION
  # a program of ours that runs two commands through shells, as an agent does
  cat >agent.py <<'PY'
import subprocess, sys
claim = subprocess.run(["bash", "-c", "timeout 60 env A=1 \"$0\" claim CC TASK-168B; :", sys.argv[1]], capture_output=True, text=True)
done = subprocess.run(["sh", "-c", "\"$0\" complete CC TASK-168B mine; exit $?", sys.argv[1]], capture_output=True, text=True)
print(claim.stdout + claim.stderr + done.stdout + done.stderr)
PY
  runs "$PYTHON" agent.py "$SUITE/bin/recovery"
  assert_output_has "claimed CC/TASK-168B" "completed CC/TASK-168B"
  rm agent.py
  grep -q '\\"by\\": \\"pid [0-9]*, python' "$ROOT"/data/changes/*
}

@test "two agents below one interactive shell are two" {
  unset RECOVERY_SESSION
  cat >agent.py <<'PY'
import subprocess, sys
done = subprocess.run([sys.argv[1], "claim", "CC", "TASK-168B"])
sys.exit(done.returncode)
PY
  runs "$PYTHON" agent.py "$SUITE/bin/recovery"
  runs "$PYTHON" agent.py "$SUITE/bin/recovery" # the first has ended
  assert_output_has "generation 2"
  rm agent.py
}

@test "where nothing above stays, as under cron, 64 and what to do" {
  unset RECOVERY_SESSION
  cat >cron.py <<'PY'
# a process that calls itself cron, below the pid 1 of nobody
import os, sys
if os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
open("/proc/self/comm", "w").write("cron")
pid = os.fork()
if not pid:
    os.execv("/bin/sh", ["sh", "-c", "\"$0\" \"$@\"; exit $?", *sys.argv[1:]])
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY
  refused 64 "$PYTHON" cron.py "$SUITE/bin/recovery" claim CC TASK-168B
  assert_stderr_has RECOVERY_SESSION "--lease"
  runs "$PYTHON" cron.py "$SUITE/bin/recovery" claim CC TASK-168B --lease 2h --json
  assert_output_json 'd["claim"]' CC/TASK-168B:1
  refused 76 complete_task CC TASK-168B
  runs with RECOVERY_CLAIM=CC/TASK-168B:1 -- complete_task CC TASK-168B
  rm cron.py
}

# --- leases

expire() { # <agent> <task>; as if its time had come
  sed -i 's/"until": [0-9.]*/"until": 1.0/' "$ROOT/postbox/$1/outbox.json"
}

@test "a lease is over at its time: others may take the task, and the old owner's completion is refused" {
  runs recovery claim CC TASK-168B --lease 2h
  assert_output_has "generation 1, until 20"
  refused 75 with RECOVERY_SESSION=red -- recovery claim CC TASK-168B
  expire CC TASK-168B
  refused 76 complete_task CC TASK-168B
  assert_stderr_has "its lease ended at" "recovery claim CC TASK-168B"
  runs with RECOVERY_SESSION=red -- recovery claim CC TASK-168B
  assert_output_has "generation 2" "its lease ended at"
  refused 76 complete_task CC TASK-168B
  grep -q '"error_type": "LeaseExpired"' "$ROOT/logs/recovery/TASK-168B_recovery.jsonl"
}

@test "after the sweep of a lease its old owner is refused, and told to claim it again" {
  runs recovery claim CC TASK-168B --lease 2h
  expire CC TASK-168B
  runs recovery sweep
  assert_output_has "swept 1 task: CC/TASK-168B (its lease ended at"
  refused 76 complete_task CC TASK-168B
  assert_stderr_has "your claim is over" "expired at" "recovery claim CC TASK-168B"
  runs with RECOVERY_SESSION=red -- complete_task CC TASK-168B # free as any other
}

@test "claim, start and note of its session renew a lease; the others' do not" {
  local command
  runs recovery claim CC TASK-168B --lease 2h
  for command in "claim CC TASK-168B" "start CC TASK-168B" "note CC TASK-168B still-at-it"; do
    sed -i 's/"until": [0-9.]*/"until": 99999999999.0/' "$ROOT/postbox/CC/outbox.json"
    # shellcheck disable=SC2086 # words
    runs recovery $command
    assert_output_has "until 20"
    ! grep -q 99999999999 "$ROOT/postbox/CC/outbox.json"
  done
  sed -i 's/"until": [0-9.]*/"until": 99999999999.0/' "$ROOT/postbox/CC/outbox.json"
  runs with RECOVERY_SESSION=red -- recovery note CC TASK-168B "from elsewhere"
  grep -q 99999999999 "$ROOT/postbox/CC/outbox.json"
}

# --- and the rest

@test "--dry-run says what would be claimed, changes nothing, makes nothing" {
  remember_tree
  runs recovery claim --dry-run CC --next
  assert_output_has "would claim CC/TASK-168B (pending -> in_progress)" "nothing changed"
  assert_unchanged
  assert_absent "$ROOT/data/claims"
}

@test "status shows who has a task, since when, and until when" {
  runs recovery claim CC TASK-168B --lease 2h
  runs task_status -t TASK-168B
  assert_output_has "[claimed by session blue since 20" "until 20"
  runs task_status -t TASK-168B --json
  assert_output_json 'd["agents"][1]["tasks"][0]["claim"]["state"]' alive
}

@test "status shows since when a living owner is silent" {
  runs recovery claim CC TASK-168B
  sed -i 's/"since": "20[0-9]*/"since": "2024/' "$ROOT/postbox/CC/outbox.json"
  rm -r "$ROOT/data/checkpoints"
  runs task_status -t TASK-168B
  assert_output_has "silent since 2024"
  runs recovery sweep
  assert_output_has "alive, but silent: CC/TASK-168B (silent since 2024"
  assert_equal in_progress "$(task CC TASK-168B)"
}

@test "the bytes of an outbox in any layout are kept" {
  given postbox/CC/outbox.json $'{"tasks":[{"task_id":"A","n":1.50},\n\t{"task_id" : "B"}]}'
  runs recovery claim CC A
  runs recovery release CC A
  grep -qF '"n":1.50' "$ROOT/postbox/CC/outbox.json"
  grep -qF $'\n\t{"task_id" : "B"}]}' "$ROOT/postbox/CC/outbox.json"
}

@test "a claim that nobody of us wrote is no claim" {
  local text
  for text in '"mine"' '{"state": "held"}' '{"generation": "7", "state": "held", "owner": {}}' 7 null; do
    given postbox/CC/outbox.json "{\"tasks\": [{\"task_id\": \"A\", \"claim\": $text}]}"
    runs task_status
    runs recovery sweep
    runs recovery claim CC A
    assert_output_has "generation 1"
  done
}
