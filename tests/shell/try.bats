#!/usr/bin/env bats

load test_helper

# recovery try: any command, as often as it takes.

LOG=logs/recovery/fetch_recovery.jsonl

failing() { # <times> <code>; a script that fails so often, then says "good"
  : >left
  printf '%s\n' "$1" >left
  cat >flaky <<SH
#!/bin/sh
n=\$(cat left)
if [ "\$n" -gt 0 ]; then
  echo \$((n - 1)) >left
  echo "bad \$n" >&2
  echo "half \$n"
  exit $2
fi
echo good
SH
  chmod +x flaky
}

lines() { # <python expression of d, a line>; of the recovery log, one a line
  "$PYTHON" -I -S -c '
import json, sys
for line in open(sys.argv[1]):
    d = json.loads(line)
    print(eval(sys.argv[2]))' "$ROOT/$LOG" "$1"
}

@test "a command that succeeds at once leaves nothing behind, and its output is its own" {
  runs recovery try fetch -- sh -c 'echo "a  b"; echo c >&2'
  assert_output "a  b"
  assert_equal c "$stderr"
  assert_absent "$ROOT/data" "$ROOT/logs"
  assert_no_stray_files
}

@test "a command that fails is tried again, and each failed try is in the log with code, duration and last words" {
  failing 2 7
  runs recovery try fetch -- ./flaky
  assert_output $'half 2\nhalf 1\ngood'
  assert_stderr_has "bad 2" "bad 1" "try 1 of 3 of fetch: flaky exited with 7: bad 2" "try 2 of 3"
  assert_equal $'1 7 bad 2\n2 7 bad 1\nNone recovered 3' "$(lines \
    '" ".join(str(w) for w in ([d["details"]["attempt"], d["details"]["code"], d["details"]["stderr"]] if "attempt" in d["details"] else [None, d["details"]["outcome"], d["details"]["attempts"]]))')"
  assert_equal "True True None" "$(lines 'd["details"].get("took", 0) > 0 or None' | xargs)"
  runs recovery stats fetch --json
  assert_output_json 'd["stats"]["successful_recoveries"], d["stats"]["failed_tries"]' "(1, 2)"
  assert_json data/checkpoints/fetch_checkpoint.json 'd["state"]' completed
  rm flaky left
}

@test "after the last try the command's own code comes back" {
  run --separate-stderr -9 recovery try --attempts 2 fetch -- sh -c 'exit 9'
  assert_stderr_has "Task fetch failed after 2 retries: sh exited with 9"
  run --separate-stderr -143 recovery try --attempts 1 fetch -- sh -c 'kill -TERM $$'
}

@test "--quiet says nothing of the tries" {
  run --separate-stderr -9 recovery try -q --attempts 2 fetch -- sh -c 'exit 9'
  assert_equal "" "$stderr"
}

@test "no command is 64, one that isn't there 127, one that can't be executed 126" {
  refused 64 recovery try fetch
  assert_stderr_has "it stands behind --"
  refused 64 recovery try fetch --
  refused 64 recovery try -- true
  refused 64 recovery try a b -- true
  run --separate-stderr -127 recovery try fetch -- no-such-command
  run --separate-stderr -127 recovery try fetch -- ''
  run --separate-stderr -126 recovery try other -- "$ROOT"
  : >plain
  run --separate-stderr -126 recovery try third -- ./plain
  assert_stderr_has "Permission denied" "escalated"
  rm plain
}

@test "bad options are refused before anything is run" {
  local words
  for words in "--attempts 0" "--attempts x" "--timeout 5y" "--strategy magic" "--try-again-on 1,x" "--try-again-on 300" \
    "--try-again-on 0" "--breaker ../x" "--lock /" "--until-reset (" "--protect /etc/passwd" "--wait soon" "--frob"; do
    # shellcheck disable=SC2086 # they are words
    refused 64 recovery try $words fetch -- touch ran
    assert_absent ran
  done
}

@test "--try-again-on: only these codes are tried again" {
  failing 9 100
  run --separate-stderr -100 recovery try --try-again-on 1,90-99 fetch -- ./flaky
  assert_equal 8 "$(cat left)"
  run --separate-stderr -100 recovery try --try-again-on 1,90-110 fetch -- ./flaky
  assert_equal 5 "$(cat left)"
  rm flaky left
}

@test "exit codes mean what they mean for the suite: 65 is not tried again, 77 is a person's matter" {
  failing 9 65
  run --separate-stderr -65 recovery try fetch -- ./flaky
  assert_equal 8 "$(cat left)"
  run --separate-stderr -77 recovery try fetch -- sh -c 'exit 77'
  assert_exists "$ROOT/logs/recovery/fetch_escalation.json"
  rm flaky left
}

@test "--strategy skip makes a success of it, manual parks the task" {
  runs recovery try --strategy skip fetch -- sh -c 'exit 5'
  run --separate-stderr -5 recovery try --strategy manual fetch -- sh -c 'exit 5'
  run --separate-stderr -70 recovery try fetch -- touch ran
  assert_stderr_has "waits for a person" "escalations clear fetch"
  assert_absent ran
}

@test "--timeout ends the whole group, and is 124; 0 is none" {
  run --separate-stderr -124 recovery try --timeout 0.2 --attempts 1 fetch -- sh -c 'sleep 60 & echo $! >pid; wait'
  assert_stderr_has "timed out after 0.2 s"
  assert_gone "$(cat pid)"
  runs recovery try --timeout 0 fetch -- true
  rm pid
}

@test "what doesn't hear SIGTERM gets SIGKILL after the grace" {
  run --separate-stderr -124 recovery try --timeout 0.1 --grace 0.1 --attempts 1 fetch -- \
    sh -c 'trap "" TERM; echo $$ >pid; while :; do sleep 1; done'
  assert_gone "$(cat pid)"
  rm pid
}

@test "--timeout auto learns from the successes" {
  runs recovery try --timeout auto fetch -- true
  assert_equal 1 "$(wc -l <"$ROOT/data/timings/fetch.jsonl")"
}

@test "a stdin that is a file is read anew at each try, from where it stood" {
  printf 'one\ntwo\nthree\n' >input
  failing 1 3
  # shellcheck disable=SC2016 # for bash
  runs bash -c '{ read -r _; "$@"; } <input' bash "$SUITE/bin/recovery" try fetch -- sh -c 'cat; ./flaky >/dev/null'
  assert_output $'two\nthree\ntwo\nthree'
  rm input flaky left
}

@test "a stdout that can't be written is said, 125, where what the command wrote is passed on by us" {
  # shellcheck disable=SC2016 # for bash
  for where in '"$@" >/dev/full' '"$@" >&-' 'set -o pipefail; "$@" | true'; do
    run --separate-stderr -125 bash -c "$where" bash "$SUITE/bin/recovery" try --clean-output fetch -- sh -c 'seq 20000'
    assert_stderr_has "stdout can't be written" "sh succeeded, but its output is lost"
  done
}

@test "--clean-output: only what the successful try wrote" {
  failing 2 7
  runs recovery try --clean-output fetch -- ./flaky
  assert_output good
  [[ $stderr != *$'\n'"bad 2"* && $stderr != "bad 2"* ]]
  run --separate-stderr -9 recovery try --clean-output --attempts 2 fetch -- sh -c 'echo half; exit 9'
  assert_output ""
  rm flaky left
}

@test "binary output passes unchanged, through a pipe too" {
  recovery try fetch -- sh -c 'head -c 100000 /dev/urandom | tee want >&2' 2>got
  cmp want got
  recovery try --clean-output fetch -- cat want >got
  cmp want got
  recovery try --json fetch -- cat want 2>got | json - 'd["code"]'
  cmp want got
  rm want got
}

@test "stdout and stderr that go to one file keep their order" {
  recovery try fetch -- sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo $i >&2; done' >both 2>&1
  assert_equal "112233445566778899" "$(tr -d '\n' <both)"
  rm both
}

@test "a gigabyte of output is not kept anywhere" {
  runs bash -c '"$1" try fetch -- head -c 1000000000 /dev/zero 2>&1 | wc -c' bash "$SUITE/bin/recovery"
  assert_output 1000000000
  # shellcheck disable=SC2016 # for sh, which may have 200 MB
  runs bash -c '(ulimit -v 200000; "$1" try fetch -- sh -c "head -c 1000000000 /dev/zero >&2") 2>&1 | wc -c' bash "$SUITE/bin/recovery"
  assert_output 1000000000
}

@test "a reader that goes away ends the command, not us" {
  run bash -c '"$1" try --attempts 1 fetch -- sh -c "yes >&2" 2>&1 | head -n 1; echo "${PIPESTATUS[0]}"' bash "$SUITE/bin/recovery"
  assert_equal y "${lines[0]}"
  [[ ${lines[-1]} == 141 || ${lines[-1]} == 1 ]]
}

@test "a daemon that the command leaves behind isn't waited for, isn't ended, and writes on" {
  mkfifo go
  # shellcheck disable=SC2016 # for sh
  recovery try fetch -- sh -c '(read -r _ <go; echo late >&2; echo >done) 3>&- & echo early >&2' 2>said
  assert_equal early "$(cat said)"
  : >go
  until_there done
  until [[ $(cat said) == $'early\nlate' ]]; do read -rt 0.01 _ <> <(:) || :; done
  rm go done said
}

@test "--protect: files are put back before each further try and after the last" {
  given postbox/shared.json '{"n": 1}'
  # shellcheck disable=SC2016 # for sh
  run --separate-stderr -4 recovery try --protect "$ROOT/postbox/shared.json" --protect "$ROOT/postbox/new" --attempts 2 fetch -- \
    sh -c 'cat "$1" >>seen; echo broken >"$1"; echo x >"$2"; exit 4' sh "$ROOT/postbox/shared.json" "$ROOT/postbox/new"
  assert_equal '{"n": 1}{"n": 1}' "$(cat seen)"
  assert_equal '{"n": 1}' "$(cat "$ROOT/postbox/shared.json")"
  assert_absent "$ROOT/postbox/new"
  assert_stderr_has "rolled back: postbox/new, postbox/shared.json"
  rm seen
}

@test "a breaker that others opened refuses at once, and nothing is run" {
  runs recovery breaker trip api --for 10m --reason "quota"
  run --separate-stderr -69 recovery try --breaker api fetch -- touch ran
  assert_stderr_has "circuit api is open until" quota
  assert_absent ran
  run --separate-stderr -69 recovery try --breaker api --json fetch -- touch ran
  assert_output_json 'd["code"], d["whose"]' "(69, 'recovery')"
}

@test "five failures in a row open the breaker for everybody" {
  run --separate-stderr -3 recovery try --breaker api --attempts 9 fetch -- sh -c 'echo x >>tries; exit 3'
  assert_equal 5 "$(wc -l <tries)"
  run --separate-stderr -69 recovery try --breaker api other -- true
  runs recovery breaker
  assert_output_has api open
  rm tries
}

@test "--wait: a breaker that is open for less is waited for, which uses up no try" {
  runs recovery breaker trip api --for 1
  runs recovery try --breaker api --wait 20 --attempts 1 fetch -- echo ran
  assert_output ran
}

@test "an expression that searches for ever is passed over, and the command's own code comes back" {
  run --separate-stderr -3 recovery try --attempts 1 --until-reset '(x+x+)+y' fetch -- \
    sh -c 'printf "%04000d" 0 | tr 0 x >&2; exit 3'
  assert_stderr_has "no answer from the expression within 2 s"
}

@test "--until-reset opens the breaker until the time that the output names" {
  run --separate-stderr -1 recovery try --until-reset 'resets in (.*)' --attempts 3 fetch -- \
    sh -c 'echo x >>tries; echo "limit reached, resets in 90 minutes"; exit 1'
  assert_equal 1 "$(wc -l <tries)"
  run --separate-stderr -69 recovery try --breaker fetch fetch -- true
  assert_stderr_has "another 5"
  rm tries
}

@test "--lock: one at a time, and the lock outlives a kill of the wrapper" {
  mkfifo go
  # shellcheck disable=SC2016 # for sh
  "$SUITE/bin/recovery" try --lock single first -- sh -c 'echo $$ >pid; read -r _ <go' 3>&- &
  STARTED+=("$!")
  until_there pid
  run --separate-stderr -75 with RECOVERY_LOCK_TIMEOUT=0.1 -- recovery try --lock single second -- touch ran
  assert_stderr_has "the lock single is held by pid"
  kill -KILL "${STARTED[-1]}"
  run --separate-stderr -75 with RECOVERY_LOCK_TIMEOUT=0.1 -- recovery try --lock single second -- touch ran
  assert_absent ran
  : >go
  runs recovery try --lock single second -- touch ran
  rm -f go pid ran
}

@test "TERM to the wrapper reaches the whole group, ends the tries, and is in the log" {
  local signal number
  for signal in TERM:143 HUP:129; do
    number=${signal#*:} signal=${signal%:*}
    # shellcheck disable=SC2016 # for sh
    "$SUITE/bin/recovery" try "job-$signal" -- sh -c 'sleep 60 & echo $! >pid.new; echo x >>tries; mv pid.new pid; wait' 3>&- &
    STARTED+=("$!")
    until_there pid
    kill "-$signal" "${STARTED[-1]}"
    ended_with "$number"
    assert_equal 1 "$(wc -l <tries)"
    assert_gone "$(cat pid)"
    assert_equal "stopped by SIG$signal cancelled" "$(json "$ROOT/logs/recovery/job-${signal}_recovery.jsonl" \
      'd["error_message"] + " " + d["details"]["outcome"]')"
    rm pid tries
  done
}

@test "a command that ends well although it was told to stop has ended well" {
  # shellcheck disable=SC2016 # for sh
  "$SUITE/bin/recovery" try fetch -- sh -c 'trap "echo saved; exit 0" TERM; echo >ready; while :; do sleep 0.02; done' >said 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -TERM "${STARTED[-1]}"
  ended_with 0
  assert_equal saved "$(cat said)"
  rm ready said
}

@test "a second signal kills what doesn't want to end" {
  "$SUITE/bin/recovery" try fetch -- sh -c 'trap "echo >heard" TERM; echo >ready; while :; do sleep 0.02; done' 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -TERM "${STARTED[-1]}"
  until_there heard
  kill -TERM "${STARTED[-1]}"
  ended_with 143
  rm ready heard
}

@test "a signal during the pause ends the waiting" {
  "$SUITE/bin/recovery" try --delay 1h fetch -- sh -c 'echo >ready; exit 1' 2>said 3>&- &
  STARTED+=("$!")
  until grep -q "again in" said 2>/dev/null; do read -rt 0.01 _ <> <(:) || :; done
  kill -TERM "${STARTED[-1]}"
  ended_with 143
  assert_equal $'None\ncancelled' "$(lines 'd["details"].get("outcome")')"
  rm ready said
}

@test "--json says whose exit code it is" {
  run --separate-stderr -3 recovery try --json --attempts 1 fetch -- sh -c 'echo out; echo err >&2; exit 3'
  assert_output_json 'd["code"], d["whose"], d["outcome"], d["attempts"], d["stdout_tail"], d["stderr_tail"], d["ok"]' \
    "(3, 'command', 'failed', 1, 'out', 'err', False)"
  assert_stderr_has out err
  run --separate-stderr -124 recovery try --json --timeout 0.1 --attempts 1 fetch -- sleep 60
  assert_output_json 'd["code"], d["whose"]' "(124, 'recovery')"
  run --separate-stderr -124 recovery try --json --attempts 1 fetch -- sh -c 'exit 124'
  assert_output_json 'd["code"], d["whose"]' "(124, 'command')"
  run --separate-stderr -127 recovery try --json fetch -- no-such-command
  assert_output_json 'd["code"], d["whose"]' "(127, 'recovery')"
  run --separate-stderr -127 recovery try --json third -- sh -c 'exit 127'
  assert_output_json 'd["code"], d["whose"]' "(127, 'command')"
  run --separate-stderr -64 recovery try --json fetch
  assert_output_json 'd["code"]' 64
  runs recovery try --json fetch -- echo --json
  assert_output_json 'd["code"], d["outcome"]' "(0, 'succeeded')"
}

@test "the wrapper's own failure is 125, and the command's result is not lost" {
  require_root
  mkdir "$ROOT/logs"
  : >"$ROOT/logs/recovery" # a file where the log's folder should be
  run --separate-stderr -9 recovery try --attempts 1 fetch -- sh -c 'exit 9'
  assert_stderr_has "is lost"
  mkdir -p "$ROOT/data"
  : >"$ROOT/data/locks"
  run --separate-stderr recovery try --lock one fetch -- touch ran
  ((status == 125 || status == 65))
  assert_absent ran
}

@test "without a workspace it is 66, with -C it works anywhere, from cron too" {
  unset ORCHESTRATION_ROOT
  copy_suite "$BATS_TEST_TMPDIR/suite"
  run --separate-stderr -66 "$BATS_TEST_TMPDIR/suite/bin/recovery" try fetch -- touch ran
  assert_stderr_has "recovery init"
  assert_absent ran
  failing 1 7
  runs env -i PATH=/usr/bin:/bin setsid "$SUITE/bin/recovery" try -C "$ROOT" --delay 0.01 fetch -- ./flaky
  assert_output_has good
  rm flaky left
}

@test "the environment and the arguments reach the command as they are" {
  # shellcheck disable=SC2016 # nobody's to expand
  runs with 'ODD=a b' -- recovery try fetch -- sh -c 'printf "%s|" "$ODD" "$@"' sh '$(id)' '*' --json '' $'new\nline'
  assert_output $'a b|$(id)|*|--json||new\nline|'
}

@test "in pid and mount namespaces of its own a command runs as ever" {
  require_root
  unshare --pid --fork --mount true 2>/dev/null || skip "no namespaces here"
  failing 1 7
  runs unshare --pid --fork --mount --mount-proc "$SUITE/bin/recovery" try fetch -- ./flaky
  assert_output_has good
  run --separate-stderr -124 unshare --pid --fork --mount "$SUITE/bin/recovery" try --timeout 0.2 --attempts 1 fetch -- sleep 60
  rm flaky left
}
