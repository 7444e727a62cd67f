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
  assert_stderr_has "may have taken effect" "recovery once pay-7 --done"
  run --separate-stderr -70 recovery once pay-7 -- "${EFFECT[@]}"
  assert_stderr_has "may have taken effect" "recovery once pay-7 --done"
  assert_absent effect
  runs recovery escalations
  assert_output_has "1 call of unknown outcome"
  runs recovery once pay-7 --undone
  runs recovery once pay-7 -- "${EFFECT[@]}"
  assert_equal 1 "$(effects)"
  rm effect
}

@test "an end that can't be recorded is told: it was run, how it ended, and what to say of it" {
  local sabotage='echo said; mv "$1" gone; touch "$1"'
  # shellcheck disable=SC2016 # for sh
  run --separate-stderr -125 recovery once pay-7 -- sh -c "$sabotage" sh "$ROOT/data/once"
  assert_output said
  assert_stderr_has "sh was run, and exited with 0; that could not be recorded" "next: recovery once pay-7 --done"
  rm "$ROOT/data/once"
  mv gone "$ROOT/data/once"
  effect
  run --separate-stderr -70 recovery once pay-7 -- "${EFFECT[@]}"
  assert_stderr_has "how it ended was never recorded"
  assert_absent effect
  runs recovery once pay-7 --done
  runs recovery once pay-7 -- "${EFFECT[@]}"
  assert_absent effect

  run --separate-stderr -125 recovery once --json pay-8 -- sh -c "$sabotage; exit 4" sh "$ROOT/data/once"
  assert_output_json 'd["outcome"]' unknown
  assert_output_json 'd["command_code"]' 4
  assert_output_json 'd["next"]' "recovery once pay-8 --undone"
  rm -r "$ROOT/data/once" gone
}

@test "where there is room for its end and not for its output, a repeat says that" {
  ulimit -f 100 # KiB: a disk with little room
  runs recovery once pay-7 -- sh -c 'echo x >>effect; head -c 150000 /dev/zero | tr "\0" x'
  run --separate-stderr -65 recovery once pay-7 -- touch again
  assert_stderr_has "its result could not be kept" "it exited with 0"
  assert_absent again
  rm effect
}

@test "output that can't be passed on is no success, and comes with a repeat" {
  effect
  run --separate-stderr -125 sh -c 'exec "$@" >/dev/full' sh "$SUITE/bin/recovery" once pay-7 -- "${EFFECT[@]}"
  assert_stderr_has "what the command wrote could not be passed on: No space left on device"
  runs recovery once pay-7 -- "${EFFECT[@]}"
  assert_output "said 0"
  assert_equal 1 "$(effects)"
  recovery once pay-7 -- "${EFFECT[@]}" | true # who reads no further wanted no more
  assert_equal "0 0" "${PIPESTATUS[*]}"
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
  kill -KILL "${STARTED[-1]}"
  ended_with 137
  run --separate-stderr -75 with RECOVERY_LOCK_TIMEOUT=0.1 -- recovery once pay-7 -- true
  assert_stderr_has "is being made by"
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
