#!/usr/bin/env bats

load test_helper

# recovery once: at most once, whatever dies; what nobody knows is told, never guessed.
# (Settling with --done and --undone is in escalations.bats.)

effect() { # [<code>]; a command with an effect that can be counted
  # shellcheck disable=SC2016 # for sh
  EFFECT=(sh -c 'echo x >>effect; echo "said $1"; echo warned >&2; exit "$1"' sh "${1-0}")
}

effects() {
  wc -l <effect
}

@test "a repeat writes what the command wrote, and doesn't run it" {
  effect
  local n
  for n in 1 2 3; do
    runs recovery once pay-7 -- "${EFFECT[@]}"
    assert_output "said 0"
    assert_equal warned "$stderr"
  done
  assert_equal 1 "$(effects)"
  rm effect
}

@test "an exit code other than 0 says that it did not happen, unless failures are kept" {
  effect 3
  run --separate-stderr -3 recovery once pay-7 -- "${EFFECT[@]}"
  assert_stderr_has "it counts as not done"
  run --separate-stderr -3 recovery once pay-7 -- "${EFFECT[@]}"
  assert_equal 2 "$(effects)"
  run --separate-stderr -3 recovery once --keep-failures pay-7 -- "${EFFECT[@]}"
  run --separate-stderr -3 recovery once pay-7 -- "${EFFECT[@]}"
  assert_output "said 3"
  assert_equal 3 "$(effects)"
  rm effect
}

@test "a command that could not be started has not happened" {
  run --separate-stderr -127 recovery once pay-7 -- no-such-command
  run --separate-stderr -126 recovery once pay-7 -- "$ROOT"
  effect
  runs recovery once pay-7 -- "${EFFECT[@]}"
  assert_equal 1 "$(effects)"
  rm effect
}

@test "a death by a signal leaves it unknown: 70, and what to run is said" {
  effect
  run --separate-stderr -137 recovery once pay-7 -- sh -c 'kill -9 $$'
  assert_stderr_has "may have taken effect" "once pay-7 --done"
  run --separate-stderr -70 recovery once pay-7 -- "${EFFECT[@]}"
  assert_stderr_has "may have taken effect" "once pay-7 --done"
  assert_absent effect
  runs recovery escalations
  assert_output_has "1 call of unknown outcome"
  runs recovery once pay-7 --undone
  runs recovery once pay-7 -- "${EFFECT[@]}"
  assert_equal 1 "$(effects)"
  rm effect
}

@test "a time limit and a stop leave it unknown as well" {
  run --separate-stderr -124 recovery once --timeout 0.2 slow -- sleep 60
  run --separate-stderr -70 recovery once slow -- true
  "$SUITE/bin/recovery" once stopped -- sh -c 'echo 1 >ready; sleep 60' 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -TERM "${STARTED[-1]}"
  ended_with 143
  run --separate-stderr -70 recovery once stopped -- true
  rm ready
}

@test "killed at any step, it is run at most once, or nobody knows" {
  local step
  effect
  for step in lock locked stage put put-renamed command-started; do
    : >effect
    run --separate-stderr with RECOVERY_FAULT="$step=kill" -- recovery once "key-$step" -- "${EFFECT[@]}"
    run --separate-stderr recovery once "key-$step" -- "${EFFECT[@]}"
    if ((status == 70)); then
      (($(effects) <= 1))
    else
      assert_equal 0 "$status"
      assert_equal 1 "$(effects)"
    fi
  done
  rm effect
}

@test "while anything that it started lives, a key whose wrapper was killed is being used" {
  mkfifo go
  "$SUITE/bin/recovery" once pay-7 -- sh -c 'echo 1 >ready; read -r _ <go' 3>&- &
  STARTED+=("$!")
  until_there ready
  local STARTED_AS=${STARTED[-1]}
  kill -KILL "$STARTED_AS"
  ended_with 137
  run --separate-stderr -75 with RECOVERY_LOCK_TIMEOUT=0.1 -- recovery once pay-7 -- true
  assert_stderr_has "is being made by what pid ${STARTED_AS:?}" "left behind when it ended: pid" "sh -c echo 1 >ready"
  : >go
  run --separate-stderr -70 recovery once pay-7 -- true
  rm ready go
}

@test "--verify finds out: 0 it took effect, 1 it didn't, anything else nobody knows" {
  effect
  run --separate-stderr -137 recovery once a -- sh -c 'kill -9 $$'
  run --separate-stderr -70 recovery once --verify 'exit 2' a -- "${EFFECT[@]}"
  runs recovery once --verify 'exit 0' a -- "${EFFECT[@]}"
  assert_absent effect
  run --separate-stderr -137 recovery once b -- sh -c 'kill -9 $$'
  runs recovery once --verify 'echo looking; exit 1' b -- "${EFFECT[@]}"
  assert_output "said 0"
  assert_equal 1 "$(effects)"
  runs recovery once --verify 'exit 0' --timeout 0.2 c -- sleep 60
  assert_stderr_has "it took effect"
  run --separate-stderr -124 recovery once --verify 'exit 1' --timeout 0.2 d -- sleep 60
  runs recovery once d -- true
  rm effect
}

@test "two at a time: one runs it, the other repeats" {
  effect
  mkfifo go
  # shellcheck disable=SC2016
  "$SUITE/bin/recovery" once k -- sh -c 'echo 1 >ready; read -r _ <go; "$@"' sh "${EFFECT[@]}" >first 2>/dev/null 3>&- &
  STARTED+=("$!")
  until_there ready
  "$SUITE/bin/recovery" once k -- "${EFFECT[@]}" >second 2>/dev/null 3>&- &
  local second=$!
  : >go
  ended_with 0
  STARTED+=("$second")
  ended_with 0
  assert_equal "said 0" "$(cat first)"
  assert_equal "said 0" "$(cat second)"
  assert_equal 1 "$(effects)"
  rm effect go ready first second
}

@test "binary output, and only the last of very much, is repeated; that it was cut is said" {
  runs bash -c '"$1" once bin -- head -c 1000 /dev/urandom >one; "$1" once bin -- false >two; cmp one two' bash "$SUITE/bin/recovery"
  assert_equal 3000000 "$(recovery once big -- sh -c 'head -c 2999999 /dev/zero; printf e' | wc -c)"
  run --separate-stderr -0 bash -c '"$1" once big -- false | wc -c' bash "$SUITE/bin/recovery"
  assert_output 262144
  assert_stderr_has "only the end was kept"
  rm one two
}

@test "a key is any text: of 10,000 characters, with slashes, not an empty one" {
  local key
  effect
  for key in "$(repeat 10000 k)" "a/../b c" $'é\n*' -; do
    : >effect
    runs recovery once "$key" -- "${EFFECT[@]}"
    runs recovery once "$key" -- "${EFFECT[@]}"
    assert_equal 1 "$(effects)"
  done
  refused 64 recovery once '' -- true
  refused 64 recovery once $'\377' -- true
  refused 64 recovery once -- true
  refused 64 recovery once a b -- true
  refused 64 recovery once a --done -- true
  rm effect
}

@test "--json says whether it was run or repeated" {
  runs recovery once --json k -- echo out
  assert_output_json 'd["code"], d["whose"], d["outcome"], d["changed"]' "(0, 'command', 'done', True)"
  runs recovery once --json k -- echo out
  assert_output_json 'd["code"], d["outcome"], d["changed"]' "(0, 'repeated', False)"
  assert_equal out "$stderr"
  run --separate-stderr -137 recovery once --json u -- sh -c 'kill -9 $$'
  assert_output_json 'd["code"], d["whose"], d["outcome"]' "(137, 'command', 'unknown')"
  run --separate-stderr -70 recovery once --json u -- true
  assert_output_json 'd["code"], d["whose"]' "(70, 'recovery')"
}

@test "where there is no room for what it wrote, it was done all the same: a repeat is refused, and --done settles it" {
  # shellcheck disable=SC2016 # for sh
  local big=(sh -c 'echo x >>effect; head -c 30000 /dev/zero | tr "\0" y')
  # shellcheck disable=SC2016 # for bash
  run --separate-stderr -0 bash -c 'ulimit -f 8; exec "$@"' bash "$SUITE/bin/recovery" once pay-7 -- "${big[@]}"
  assert_equal 30000 "${#output}"
  assert_stderr_has "is done" "lost to a repeat"
  run --separate-stderr -65 recovery once pay-7 -- "${big[@]}"
  assert_stderr_has "it exited with 0" "It is not done again" "once pay-7 --done"
  runs recovery once pay-7 --done
  runs recovery once pay-7 -- "${big[@]}"
  assert_output ""
  assert_equal 1 "$(effects)"
  rm effect
}

@test "where nothing can be recorded behind it, the refusal says that it was run, and how it ended" {
  effect
  run --separate-stderr -125 with RECOVERY_FAULT=put:2=ENOSPC,put:3=ENOSPC -- recovery once pay-7 -- "${EFFECT[@]}"
  assert_stderr_has "sh was run and exited with 0" "could not be recorded" "next: make room, then: recovery -C '$ROOT' once pay-7 --done"
  [[ $stderr != *"run the same command again"* && $stderr != *undone* ]]
  run --separate-stderr -70 recovery once pay-7 -- "${EFFECT[@]}"
  assert_stderr_has "how it ended was never recorded"
  runs recovery once pay-7 --done
  assert_equal 1 "$(effects)"
  rm effect
  run --separate-stderr -125 with RECOVERY_FAULT=put:2=ENOSPC -- recovery once pay-8 -- sh -c 'exit 3'
  assert_stderr_has "sh was run and exited with 3" "once pay-8 --undone"
  run --separate-stderr -125 with RECOVERY_FAULT=put=ENOSPC -- recovery once pay-9 -- "${EFFECT[@]}"
  assert_stderr_has "Nothing was run" "run the same command again"
  assert_absent effect
}

@test "a stdout that can't be written is said, 125; the command is not cut off, and what it wrote is kept for a repeat" {
  # shellcheck disable=SC2016 # for sh
  local big=(sh -c 'seq 9000; seq 9000; echo x >>effect')
  # shellcheck disable=SC2016 # for bash
  for ((n = 0; n < 2; n++)); do # run, then repeated
    run --separate-stderr -125 bash -c '"$@" >/dev/full' bash "$SUITE/bin/recovery" once full -- "${big[@]}"
    assert_stderr_has "stdout can't be written" "No space left"
  done
  run --separate-stderr -125 bash -c '"$@" >&-' bash "$SUITE/bin/recovery" once shut -- "${big[@]}"
  assert_stderr_has "stdout can't be written" "its output is kept" "next: run the same command again: it repeats that"
  run --separate-stderr -125 bash -c 'set -o pipefail; "$@" | true' bash "$SUITE/bin/recovery" once pipe -- "${big[@]}"
  local key
  for key in full shut pipe; do
    runs recovery once "$key" -- "${big[@]}"
    assert_equal "$(seq 9000 && seq 9000)" "$output"
  done
  assert_equal 3 "$(effects)"
  rm effect
}
