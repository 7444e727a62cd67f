#!/usr/bin/env bats

load test_helper

# A check waits at a fifo where a test needs it to run still: `gated` is such a command, `let_go_on` opens the gate.

setup() {
  make_workspace
  export XDG_DATA_HOME="$BATS_TEST_TMPDIR/data home"
  mkfifo "$BATS_TEST_TMPDIR/runs" "$BATS_TEST_TMPDIR/ends"
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T-1", "status": "pending", "checks": ["tests"]},
    {"task_id": "T-2", "status": "pending"}]}'
}

approve_checks() { # <json of checks.json>
  given checks.json "$1"
  local sum
  sum=$(sha256sum <"$ROOT/checks.json")
  runs recovery trust --yes "${sum%% *}"
}

approve_run() { # <command line>...; the check `tests`, and what else is said of it
  approve_checks "$("$PYTHON" -I -S -c 'import json, sys
print(json.dumps({"checks": {"tests": {"run": sys.argv[1], "timeout": "25", **json.loads(sys.argv[2])}}}))' "$1" "${2:-{\}}")"
}

gated() {
  printf 'echo began >>"%s/count"; echo $$ >"%s/runs"; read -r code <"%s/ends"; echo ended; exit "$code"' \
    "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR" "$BATS_TEST_TMPDIR"
}

runs_now() { # sets CHECK, the pid of the check that has begun
  read -r CHECK <"$BATS_TEST_TMPDIR/runs"
}

let_end() { # <exit code>
  echo "$1" >"$BATS_TEST_TMPDIR/ends"
}

started() { # <file for its output> <command>...; in the background, in a group of its own
  local out=$1
  shift
  setsid "$@" >"$out" 2>"$out.err" 3>&- &
  STARTED+=("$!")
}

ends_with() { # <code>; what was started last
  local code=0
  wait "${STARTED[-1]}" || code=$?
  assert_equal "$1" "$code"
}

keep_in_git() {
  git -C "$ROOT" init -q
  git -C "$ROOT" -c user.name=t -c user.email=t@t commit -q --allow-empty -m one
}

runs_so_far() {
  wc -l <"$BATS_TEST_TMPDIR/count"
}

@test "a check that passes: the task is completed and the record holds a receipt" {
  approve_run 'echo fine'
  runs complete_task CC T-1 "all well"
  assert_output_has "completed CC/T-1 (pending -> completed); 4 files, read back; passed tests"
  assert_completed CC T-1 "all well"
  assert_json postbox/CC/completed/T-1_completion.json \
    '[(c["check"], c["code"], c["output_bytes"]) for c in d["receipt"]["checks"]]' "[('tests', 0, 5)]"
  assert_json data/receipts/CC.json 'd["number"]' 1
  runs recovery receipts verify
  assert_no_stray_files checks.json data/receipts/CC.json data/receipts/CC.jsonl data/checks/.results.lock 'logs/checks/*.log'
  assert_locks_free
}

@test "a check that fails: refused with 1, its last lines and its log, and nothing is completed" {
  approve_run 'echo one; echo two >&2; exit 3'
  refused 1 complete_task CC T-1
  assert_output ""
  assert_stderr_has "  one" "  two" "CC/T-1 is not completed: its check tests did not pass" "exited with 3" "Nothing changed." \
    logs/checks/CC@T-1@tests.log
  assert_open CC T-1
  run -0 cat "$ROOT/logs/checks/CC@T-1@tests.log"
  assert_output $'one\ntwo'
  run -0 cat "$ROOT/logs/recovery/T-1_recovery.jsonl"
  assert_equal "CheckFailed refused one
two" "$(json - 'd["error_type"] + " " + d["details"]["outcome"] + " " + d["details"]["stderr"]' <<<"$output")"
  refused 1 complete_task --json CC T-1
  assert_output_json 'd["ok"], d["code"], d["check"], d["check_code"]' "(False, 1, 'tests', 3)"
}

@test "a failure that was put right passes the next time" {
  approve_run "test -e '$BATS_TEST_TMPDIR/right'"
  refused 1 complete_task CC T-1
  : >"$BATS_TEST_TMPDIR/right"
  runs complete_task CC T-1
}

@test "a task without checks is completed as ever, whatever stands in checks.json" {
  approve_run 'exit 1'
  runs complete_task CC T-2
  assert_absent "$ROOT/data/receipts" "$ROOT/data/checks"
}

@test "what is required of an agent stays required of a task that is reassigned" {
  approve_checks '{"checks": {"tests": {"run": ["true"]}, "lint": {"run": ["false"]}, "all": {"run": ["true"]}},
    "required": {"*": ["all"], "CC": ["lint"]}}'
  runs recovery reassign CC T-1 CA
  assert_output_has "to CA, who needs tests, lint for it"
  assert_equal "['tests', 'lint']" "$(task CA T-1 checks)"
  refused 1 complete_task CA T-1
  assert_stderr_has "its check lint did not pass"
  runs recovery reassign CC T-2 CA
  assert_equal "['lint']" "$(task CA T-2 checks)"
  runs recovery rollback CC T-2
  assert_equal None "$(task CC T-2 checks)"
}

@test "a task isn't reassigned where nobody knows what is required of it" {
  approve_checks '{"checks": {"tests": {"run": ["true"]}}, "required": {"CC": ["tests"]}}'
  echo '{"checks": ' >"$ROOT/checks.json"
  refused 65 recovery reassign CC T-2 CA
  rm "$ROOT/checks.json"
  runs recovery reassign CC T-2 CA
  assert_equal "['tests']" "$(task CA T-2 checks)"
}

@test "what is required of an agent can't be dropped from its outbox" {
  approve_checks '{"checks": {"tests": {"run": ["true"]}, "all": {"run": ["false"]}}, "required": {"*": ["all"]}}'
  refused 1 complete_task CC T-2
  assert_stderr_has "its check all did not pass"
  refused 1 complete_task CC T-1
  refused 1 complete_task CA TASK-168C
  approve_checks '{"checks": {"tests": {"run": ["true"]}, "all": {"run": ["true"]}}, "required": {"*": ["all"], "CA": ["tests"]}}'
  runs complete_task CC T-1
  assert_output_has "passed tests, all"
  runs complete_task CA TASK-168C
  assert_output_has "passed all, tests"
}

@test "assign_task.sh --check names them" {
  approve_checks '{"checks": {"tests": {"run": ["true"]}, "lint": {"run": ["false"]}}}'
  runs assign_task --check tests --check lint CC T-9 "A title" LOW
  assert_equal "['tests', 'lint']" "$(task CC T-9 checks)"
  refused 1 complete_task CC T-9
  assert_stderr_has "its check lint did not pass"
  refused 64 assign_task --check ../x CC T-8 "A title" LOW
}

@test "a check that nobody defined, and a list that is none, are refused" {
  approve_run true
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T-1", "status": "pending", "checks": ["nonesuch"]},
    {"task_id": "T-2", "status": "pending", "checks": "tests"}, {"task_id": "T-3", "status": "pending", "checks": [1]}]}'
  refused 65 complete_task CC T-1
  assert_stderr_has '"nonesuch"' "the checks there: tests"
  refused 65 complete_task CC T-2
  refused 65 complete_task CC T-3
}

@test "words are words: nothing of them is evaluated" {
  approve_checks '{"checks": {"tests": {"run": ["printf", "%s|", "$(touch x)", "a b", ";"]}}}'
  runs complete_task CC T-1
  run -0 cat "$ROOT/logs/checks/CC@T-1@tests.log"
  assert_output '$(touch x)|a b|;|'
}

@test "a check runs in the workspace's folder, with few variables, its own, and no stdin" {
  export SECRET=1
  approve_run 'pwd; echo "$RECOVERY_AGENT/$RECOVERY_TASK/$RECOVERY_CHECK/$CI/${SECRET-none}"; cat; cd sub 2>/dev/null; pwd' \
    '{"env": {"CI": "yes"}}'
  mkdir "$ROOT/sub"
  runs complete_task CC T-1 <<<"not for it"
  run -0 cat "$ROOT/logs/checks/CC@T-1@tests.log"
  assert_output "$ROOT
CC/T-1/tests/yes/none
$ROOT/sub"
}

@test "a nested workspace's checks run in the folder above it, below \"cwd\"" {
  mkdir -p project/web
  cp -r "$ROOT" project/.orchestration
  export ORCHESTRATION_ROOT=$PWD/project/.orchestration ROOT=$PWD/project/.orchestration
  approve_run pwd '{"cwd": "web"}'
  runs complete_task CC T-1
  run -0 cat "$ROOT/logs/checks/CC@T-1@tests.log"
  assert_output "$PWD/project/web"
  rm -r project
}

@test "a \"cwd\" that is no folder, or a link that leads out, is refused" {
  approve_run true '{"cwd": "nowhere"}'
  refused 1 complete_task CC T-1
  assert_stderr_has nowhere
  ln -s / "$ROOT/nowhere"
  refused 1 complete_task CC T-1
  assert_stderr_has "leads out of the project"
}

@test "a command that isn't there, and one that can't be executed, are said" {
  approve_checks '{"checks": {"tests": {"run": ["no-such-command"]}}}'
  refused 1 complete_task CC T-1
  assert_stderr_has "no-such-command: No such file"
  approve_checks '{"checks": {"tests": {"run": ["/etc/passwd"]}}}'
  refused 1 complete_task CC T-1
  assert_stderr_has "Permission denied"
}

@test "a check that takes too long is ended with its whole group" {
  approve_run "sleep 600 & echo \$! >'$BATS_TEST_TMPDIR/child'; wait" '{"timeout": "0.3"}'
  refused 1 complete_task CC T-1
  assert_stderr_has "did not end within 0.3 s"
  run kill -0 "$(<"$BATS_TEST_TMPDIR/child")"
  ((status != 0)) || grep -q ') Z' "/proc/$(<"$BATS_TEST_TMPDIR/child")/stat"
}

@test "a check that leaves a daemon behind is over when it ends itself" {
  approve_run "echo before; setsid sleep 20 & echo \$! >'$BATS_TEST_TMPDIR/daemon'"
  runs complete_task CC T-1
  kill "$(<"$BATS_TEST_TMPDIR/daemon")"
}

@test "of a flood of output both ends are kept, and its hash is of all of it" {
  approve_run 'echo first; head -c 50000000 /dev/zero; echo last'
  runs complete_task CC T-1
  assert_json postbox/CC/completed/T-1_completion.json 'd["receipt"]["checks"][0]["output_bytes"]' 50000011
  assert_json postbox/CC/completed/T-1_completion.json 'd["receipt"]["checks"][0]["output_sha256"]' \
    "$({ echo first && head -c 50000000 /dev/zero && echo last; } | sha256sum | cut -c1-64)"
  (($(stat -c %s "$ROOT/logs/checks/CC@T-1@tests.log") < 300000))
  assert_equal first "$(head -n 1 "$ROOT/logs/checks/CC@T-1@tests.log" | tr -d '\0')"
  assert_equal last "$(tail -n 1 "$ROOT/logs/checks/CC@T-1@tests.log" | tr -d '\0')"
}

@test "binary output reaches no terminal" {
  approve_run "printf 'a\\\\033[31m\\\\377\\\\000b'; exit 1"
  refused 1 complete_task CC T-1
  [[ $stderr != *$'\e'* ]]
  refused 1 complete_task --json CC T-1
  assert_output_json 'd["check_code"]' 1
}

@test "no lock is held while a check runs: others complete, and so may the check" {
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  runs with RECOVERY_LOCK_TIMEOUT=1 -- complete_task CC T-2
  flock -n "$ORCHESTRATION_LOCK_DIR/tasks/T-1.lock" true
  flock -n "$ORCHESTRATION_LOCK_DIR/agents/CC.lock" true
  let_end 0
  ends_with 0
  assert_completed CC T-1
  rm out out.err
}

@test "a check that edits the outbox meanwhile loses nothing" {
  approve_run "'$SUITE/bin/complete_task_with_recovery.sh' CC T-2 meanwhile"
  runs complete_task CC T-1
  assert_completed CC T-1
  assert_completed CC T-2 meanwhile
}

@test "a check that completes its own task is refused at once, not waited for" {
  keep_in_git
  approve_run "'$SUITE/bin/complete_task_with_recovery.sh' CC T-1 2>&1"
  refused 1 complete_task CC T-1
  assert_stderr_has "asks for itself"
}

@test "a check that was changed while it ran proves nothing: refused until it is approved" {
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  given checks.json '{"checks": {"tests": {"run": ["true"]}}}'
  let_end 0
  ends_with 77
  assert_open CC T-1
  rm out out.err
}

# --- the caller dies

@test "a caller that is killed leaves the check running, and the repeat joins it" {
  keep_in_git
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  kill -9 -- "-${STARTED[-1]}"
  kill -0 "$CHECK"
  started out2 "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  until grep -q "has been running" out2.err; do :; done
  let_end 0
  ends_with 0
  assert_completed CC T-1
  assert_equal 1 "$(runs_so_far)"
  rm out*
}

@test "a check that ended after its caller was killed is not run again while the files are the same" {
  keep_in_git
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  kill -9 -- "-${STARTED[-1]}"
  let_end 0
  flock "$ROOT/data/checks/.CC@T-1@tests.json.turn" true # until the run is over
  runs complete_task CC T-1
  assert_equal 1 "$(runs_so_far)"
  rm out*
}

@test "so is a failure: told to who comes next, once; then the check runs again" {
  keep_in_git
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  kill -9 -- "-${STARTED[-1]}"
  let_end 4
  flock "$ROOT/data/checks/.CC@T-1@tests.json.turn" true
  refused 1 complete_task CC T-1
  assert_stderr_has "exited with 4"
  assert_equal 1 "$(runs_so_far)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  let_end 0
  ends_with 0
  assert_equal 2 "$(runs_so_far)"
  rm out*
}

@test "a result holds for the files that the check itself left behind" {
  keep_in_git
  approve_run "echo >>'$BATS_TEST_TMPDIR/count'; echo >>made"
  crash_at recheck complete_task CC T-1
  runs complete_task CC T-1
  assert_equal 1 "$(runs_so_far)"
  assert_json postbox/CC/completed/T-1_completion.json \
    'd["receipt"]["checks"][0]["tree"] != d["receipt"]["checks"][0]["tree_after"]' True
}

@test "without git or inputs no result is used by another command" {
  approve_run "echo >>'$BATS_TEST_TMPDIR/count'"
  crash_at recheck complete_task CC T-1
  runs complete_task CC T-1
  assert_equal 2 "$(runs_so_far)"
}

@test "without git or inputs whoever repeats a command is told why the check runs again" {
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  kill -9 -- "-${STARTED[-1]}"
  started out2 "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  until grep -q "neither git nor \`inputs\` tells" out2.err; do :; done
  let_end 0
  runs_now
  let_end 0
  ends_with 0
  assert_equal 2 "$(runs_so_far)"
  rm out*
}

@test "with inputs a result holds as long as they are the same, git or not" {
  mkdir "$ROOT/src"
  echo 1 >"$ROOT/src/a.c"
  approve_run "echo >>'$BATS_TEST_TMPDIR/count'" '{"inputs": ["src", "*.mk", "absent"]}'
  crash_at recheck complete_task CC T-1
  echo 1 >"$ROOT/elsewhere"
  crash_at recheck complete_task CC T-1
  assert_equal 1 "$(runs_so_far)"
  echo 2 >"$ROOT/src/a.c"
  crash_at recheck complete_task CC T-1
  assert_equal 2 "$(runs_so_far)"
  : >"$ROOT/x.mk"
  crash_at recheck complete_task CC T-1
  assert_equal 3 "$(runs_so_far)"
  : >"$ROOT/absent"
  crash_at recheck complete_task CC T-1
  assert_equal 4 "$(runs_so_far)"
  runs complete_task CC T-1
  assert_equal 4 "$(runs_so_far)"
}

@test "a commit of the same files keeps the result, an edit of any kind doesn't" {
  local change count=1
  keep_in_git
  echo 1 >"$ROOT/a.c"
  approve_run "echo >>'$BATS_TEST_TMPDIR/count'"
  crash_at recheck complete_task CC T-1
  for change in 'git add a.c' 'git -c user.name=t -c user.email=t@t commit -qm two'; do
    (cd "$ROOT" && eval "$change")
    crash_at recheck complete_task CC T-1
    assert_equal 1 "$(runs_so_far)"
  done
  for change in 'echo 2 >a.c' 'chmod +x a.c' 'mv a.c b.c' 'ln -s x l' 'ln -sfn y l' \
    'git add .; git -c user.name=t -c user.email=t@t commit -qm three; echo 3 >b.c' 'git update-index --assume-unchanged b.c; echo 4 >b.c' 'echo 5 >b.c' 'rm b.c' 'git rm -q --cached b.c; echo b.c >.gitignore'; do
    (cd "$ROOT" && eval "$change")
    crash_at recheck complete_task CC T-1
    count=$((count + 1))
    assert_equal "$change $count" "$change $(runs_so_far)"
    crash_at recheck complete_task CC T-1
    assert_equal "$change $count" "$change $(runs_so_far)"
  done
  runs complete_task CC T-1
  assert_json postbox/CC/completed/T-1_completion.json 'd["receipt"]["git"]' \
    "{'revision': '$(git -C "$ROOT" rev-parse HEAD)', 'dirty': True}"
}

@test "a result that somebody wrote into data/checks by hand proves nothing" {
  keep_in_git
  approve_run 'echo >>count; exit 1'
  refused 1 complete_task CC T-1
  sed -i 's/"code": 1/"code": 0/; s/"told": true/"told": false/' "$ROOT/data/checks/CC@T-1@tests.json"
  refused 1 complete_task CC T-1
  assert_open CC T-1
}

@test "a check that kills its parent is a failure, and the next run begins afresh" {
  approve_run 'kill -9 $PPID; sleep 30'
  refused 1 complete_task CC T-1
  assert_stderr_has "ended without a result"
  approve_run true
  runs complete_task CC T-1
}

@test "what is left of a run whose recorder was killed is ended before the next begins" {
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  kill -9 "$(awk '{print $4}' "/proc/$CHECK/stat")" # its parent, the recorder
  ends_with 1
  approve_run true
  runs complete_task CC T-1
  run kill -0 "$CHECK"
  ((status != 0)) || grep -q ') Z' "/proc/$CHECK/stat"
  rm out*
}

@test "Ctrl-C by whoever began a check ends it" {
  approve_run "$(gated)"
  # a command in the background of a script ignores INT: env puts the default back
  started out env --default-signal=INT "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  kill -INT "${STARTED[-1]}"
  ends_with 130
  grep -qF "interrupted: CC/T-1 is not completed; its check tests was ended. Nothing changed." out.err
  flock "$ROOT/data/checks/.CC@T-1@tests.json.turn" true
  run kill -0 "$CHECK"
  ((status != 0)) || grep -q ') Z' "/proc/$CHECK/stat"
  assert_open CC T-1
  rm out*
}

@test "a long check is waited for by its name, not like somebody who is in the way" {
  keep_in_git
  approve_run "$(gated)"
  started out "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  until grep -q "still running" out.err; do read -rt 0.01 _ <> <(:) || :; done
  grep -qF "the check tests of CC/T-1 is still running; its output: logs/checks/CC@T-1@tests.log" out.err
  [[ $(<out.err) != *"held by"* ]]
  started two env --default-signal=INT "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  until_there two.err
  kill -INT "${STARTED[-1]}"
  ends_with 130
  grep -qF "its check tests, which another command began, runs on. Nothing changed." two.err
  unset 'STARTED[-1]'
  let_end 0
  ends_with 0
  rm out* two*
}

@test "a signal while recovery run waits for the check makes the task pending again" {
  approve_run "$(gated)"
  started out env --default-signal=INT,TERM "$SUITE/bin/recovery" run CC T-1 -- true
  runs_now
  kill -TERM "${STARTED[-1]}"
  ends_with 143
  assert_equal pending "$(task CC T-1)"
  run kill -0 "$CHECK"
  ((status != 0)) || grep -q ') Z' "/proc/$CHECK/stat" || flock "$ROOT/data/checks/.CC@T-1@tests.json.turn" true
  rm out*
}

@test "a check keeps no lock that its caller was handed" {
  approve_run "$(gated)"
  started out flock "$BATS_TEST_TMPDIR/outer" "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  kill -9 -- "-${STARTED[-1]}"
  flock -w 5 "$BATS_TEST_TMPDIR/outer" true
  let_end 0
  flock "$ROOT/data/checks/.CC@T-1@tests.json.turn" true
  rm out*
}

@test "no process stays when it is done" {
  keep_in_git
  approve_run true
  runs complete_task CC T-1
  # by what only the processes of this workspace carry; whoever doesn't go runs into the test's time limit
  while env -u ORCHESTRATION_ROOT grep -qzsxF "ORCHESTRATION_ROOT=$ROOT" /proc/[0-9]*/environ; do :; done
}

# --- other verbs

@test "recovery run completes a task once its checks have passed, and fails it if they don't" {
  approve_checks '{"checks": {"tests": {"run": ["test", "-e", "made"]}}, "required": {"CC": ["tests"]}}'
  run --separate-stderr -1 recovery run --json CC T-1 -- true
  assert_output_json 'd["code"], d["whose"], d["outcome"], d["status"]' "(1, 'recovery', 'refused', 'failed')"
  assert_equal failed "$(task CC T-1)"
  [[ $(task CC T-1 failure_reason) == *"its check tests did not pass"* ]]
  assert_stderr_has "its check tests did not pass" "failed CC/T-1 (in_progress -> failed)"
  [[ $stderr$output != *"Nothing changed"* ]]
  # shellcheck disable=SC2016 # for sh
  runs recovery run CC T-2 -- sh -c 'touch "$ORCHESTRATION_ROOT/made"; echo "made it"'
  assert_completed CC T-2 "made it"
  assert_json postbox/CC/completed/T-2_completion.json 'd["receipt"]["number"]' 1
}

@test "while the check of a claimed task runs, another's completion is refused as ever" {
  approve_run "$(gated)"
  runs env RECOVERY_SESSION=me "$SUITE/bin/recovery" claim CC T-1
  started out env RECOVERY_SESSION=me "$SUITE/bin/complete_task_with_recovery.sh" CC T-1
  runs_now
  run --separate-stderr -76 with RECOVERY_SESSION=other -- complete_task CC T-1
  let_end 0
  ends_with 0
  assert_completed CC T-1
  rm out*
}

# --- what is shown

@test "completed by another tool, a task with checks is claimed done" {
  approve_checks '{"checks": {"tests": {"run": ["true"]}}, "required": {"CA": ["tests"]}}'
  sed -i 's/pending/completed/' "$ROOT/postbox/CC/outbox.json"
  sed -i 's/in_progress/completed/' "$ROOT/postbox/CA/outbox.json"
  runs task_status
  assert_output_has "CC: 0 open, 2 completed (1 claimed done)" "CA: 0 open, 1 completed (1 claimed done)" "claimed done"
  runs task_status --json -a CC
  assert_output_json '[(t["task_id"], t["status"], t.get("claimed_done")) for t in d["agents"][0]["tasks"]]' \
    "[('T-1', 'completed', True), ('T-2', 'completed', None)]"
  runs task_status -s "claimed done"
  assert_output_has T-1 TASK-168C
  [[ $output != *T-2* ]]
  runs complete_task CC T-1
  assert_output_has "nothing changed" "claimed done: tests was never passed"
  runs complete_task --again CC T-1
  assert_output_has "completed CC/T-1 (completed -> completed)" "passed tests"
  runs task_status -a CC
  [[ $output != *claimed* ]]
  runs complete_task --again CC T-1
  assert_output_has "nothing changed"
}

@test "--dry-run runs no check and says which there are" {
  approve_run 'touch ran'
  runs complete_task --dry-run CC T-1
  assert_output_has "once tests is passed" "nothing changed"
  assert_absent "$ROOT/ran" "$ROOT/data"
}

@test "clean_checkpoints.sh removes old results and logs, not those of a run that goes on" {
  approve_run 'exit 1'
  refused 1 complete_task CC T-1
  runs "$SUITE/bin/clean_checkpoints.sh"
  assert_exists "$ROOT/data/checks/CC@T-1@tests.json"
  touch -d '31 days ago' "$ROOT/data/checks/CC@T-1@tests.json" "$ROOT/logs/checks/CC@T-1@tests.log"
  runs "$SUITE/bin/clean_checkpoints.sh" --dry-run
  assert_exists "$ROOT/data/checks/CC@T-1@tests.json"
  runs "$SUITE/bin/clean_checkpoints.sh"
  assert_absent "$ROOT/data/checks/CC@T-1@tests.json" "$ROOT/logs/checks/CC@T-1@tests.log" \
    "$ROOT/data/checks/.CC@T-1@tests.json.turn"
}

@test "from cron: no terminal, no HOME, a small PATH" {
  approve_run 'echo "$PATH"' '{"env": {"PATH": "/usr/bin:/bin"}}'
  runs env -i PATH=/usr/bin:/bin ORCHESTRATION_ROOT="$ROOT" ORCHESTRATION_LOCK_DIR="$ORCHESTRATION_LOCK_DIR" \
    XDG_DATA_HOME="$XDG_DATA_HOME" "$SUITE/bin/complete_task_with_recovery.sh" CC T-1 </dev/null
  assert_completed CC T-1
}

@test "in a linked worktree, where it is asked for, that worktree is checked" {
  mkdir repository
  git -C repository init -q
  git -C repository -c user.name=t -c user.email=t@t commit -q --allow-empty -m one
  cp -r "$ROOT" repository/.orchestration
  git -C repository worktree add -q ../linked
  unset ORCHESTRATION_ROOT
  ROOT=$PWD/repository/.orchestration
  cd linked
  approve_run 'pwd' '{"worktree": true}'
  runs complete_task CC T-1
  run -0 cat "$ROOT/logs/checks/CC@T-1@tests.log"
  assert_output "$PWD"
  cd ..
  rm -r repository linked
}
