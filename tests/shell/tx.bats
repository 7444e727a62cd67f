#!/usr/bin/env bats

load test_helper

# recovery tx: a command changes files in one step, or nothing has happened.

shared() { # a file outside of every workspace
  printf '{"n": 1}\n' >tasks.json
}

@test "a command's work on the copy becomes the file, in one step" {
  shared
  runs recovery tx tasks.json -- sed -i s/1/2/ {}
  assert_output ""
  assert_equal '{"n": 2}' "$(cat tasks.json)"
  assert_equal tasks.json "$(find . -type f ! -name '.*.lock' -printf '%f\n')"
  rm tasks.json .tasks.json.lock
}

@test "--stdout: what the command writes is the new content" {
  shared
  runs recovery tx tasks.json --stdout --check-json -- jq -c '.n += 1' {}
  assert_equal '{"n":2}' "$(cat tasks.json)"
  rm tasks.json .tasks.json.lock
}

@test "a command that fails, dies or is stopped changes nothing, and its code comes back" {
  shared
  # shellcheck disable=SC2016 # for sh
  run --separate-stderr -4 recovery tx tasks.json -- sh -c 'echo broken >"$TX_1"; exit 4'
  assert_stderr_has "sh exited with 4; nothing was changed"
  # shellcheck disable=SC2016
  run --separate-stderr -137 recovery tx tasks.json -- sh -c 'echo broken >"$TX_1"; kill -9 $$'
  # shellcheck disable=SC2016
  run --separate-stderr -124 recovery tx tasks.json --timeout 0.2 -- sh -c 'echo broken >"$TX_1"; sleep 60'
  # shellcheck disable=SC2016
  "$SUITE/bin/recovery" tx tasks.json -- sh -c 'echo broken >"$TX_1"; echo 1 >ready; sleep 60' 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -TERM "${STARTED[-1]}"
  ended_with 143
  assert_equal '{"n": 1}' "$(cat tasks.json)"
  rm tasks.json .tasks.json.lock ready
  assert_no_stray_files
}

@test "a signal before the command has begun is a stop as well" {
  shared
  run --separate-stderr -143 with RECOVERY_FAULT=lock:2=term -- "$SUITE/bin/recovery" tx tasks.json -- touch ran
  assert_stderr_has "stopped by SIGTERM; nothing was changed"
  assert_absent ran
  rm tasks.json .tasks.json.lock
}

@test "killed with -9, it leaves the file as it was, and the next one tidies up" {
  shared
  mkfifo go
  # shellcheck disable=SC2016
  "$SUITE/bin/recovery" tx tasks.json -- sh -c 'echo broken >"$TX_1"; echo 1 >ready; read -r _ <go' 3>&- &
  STARTED+=("$!")
  until_there ready
  kill -KILL "${STARTED[-1]}"
  ended_with 137
  : >go
  assert_equal '{"n": 1}' "$(cat tasks.json)"
  runs recovery tx tasks.json -- sed -i s/1/2/ {}
  rm tasks.json .tasks.json.lock ready go
  [[ -z $(find . -mindepth 1 ! -name '.*.turn') ]] || fail "left: $(find . -mindepth 1)"
  rm -f .tasks.json.turn
}

@test "a file that isn't there yet is there afterwards, if the command made it" {
  runs recovery tx new.txt -- true
  assert_absent new.txt
  # shellcheck disable=SC2016
  runs recovery tx new.txt -- sh -c 'test ! -e "$TX_1" && echo hello >"$TX_1"'
  assert_equal hello "$(cat new.txt)"
  rm new.txt .new.txt.lock
}

@test "mode, owner, links and odd names are kept; any format will do" {
  local name=$'a "b" $(c)\n{d}'
  printf 'x\0\377' >"$name"
  chmod 640 "$name"
  ln -s "$name" link
  # shellcheck disable=SC2016
  runs recovery tx link -- sh -c 'printf "\376" >>"$1"' sh {}
  assert_equal 7800fffe "$(od -An -tx1 <"$name" | tr -d ' \n')"
  assert_equal 640 "$(stat -c %a "$name")"
  [[ -L link ]]
  rm -- "$name" link ".$name.lock"
}

@test "several files of a workspace change in one commit, or none of them" {
  given postbox/a.txt one
  given postbox/b.txt two
  # shellcheck disable=SC2016
  runs recovery tx "$ROOT/postbox/a.txt" "$ROOT/postbox/b.txt" -- sh -c 'echo A >"$1"; echo B >"$TX_2"' sh {1}
  assert_equal "A B" "$(cat "$ROOT/postbox/a.txt" "$ROOT/postbox/b.txt" | xargs)"
  runs recovery changes --json
  assert_output_json 'len(d["changes"]), [f["name"] for f in d["changes"][0]["files"]]' "(1, ['postbox/a.txt', 'postbox/b.txt'])"
  # shellcheck disable=SC2016
  run --separate-stderr -3 recovery tx "$ROOT/postbox/a.txt" "$ROOT/postbox/b.txt" -- sh -c 'echo X >"$1"; exit 3' sh {}
  assert_equal "A B" "$(cat "$ROOT/postbox/a.txt" "$ROOT/postbox/b.txt" | xargs)"
  assert_no_stray_files "postbox/[ab].txt" "postbox/.[ab].txt.lock"
}

@test "killed at any step of the commit, all files are old or all are new after the next command" {
  local step a b
  for step in tx-folder command-started stage stage-synced journal-write journal-synced replace replaced record done-mark; do
    given postbox/a.txt 1
    given postbox/b.txt 1
    # shellcheck disable=SC2016
    run --separate-stderr with RECOVERY_FAULT="$step=kill" -- \
      recovery tx "$ROOT/postbox/a.txt" "$ROOT/postbox/b.txt" -- sh -c 'printf 2 >"$TX_1"; printf 2 >"$TX_2"'
    runs recovery recover
    a=$(cat "$ROOT/postbox/a.txt") b=$(cat "$ROOT/postbox/b.txt")
    assert_equal "$a" "$b"
    runs recovery tx "$ROOT/postbox/a.txt" "$ROOT/postbox/b.txt" -- \
      sh -c 'printf 3 >"$TX_1"; printf 3 >"$TX_2"'
    assert_equal 33 "$(cat "$ROOT/postbox/a.txt" "$ROOT/postbox/b.txt")"
  done
  assert_no_stray_files "postbox/[ab].txt" "postbox/.[ab].txt.lock"
}

@test "200 files are one commit" {
  local n files=()
  for n in {1..200}; do
    given "postbox/$n.txt" 1
    files+=("$ROOT/postbox/$n.txt")
  done
  runs recovery tx "${files[@]}" -- sed -i s/1/2/ {}
  assert_equal 200 "$(cat "${files[@]}" | tr -cd 2 | wc -c)"
  assert_equal 1 "$(wc -l <"$ROOT/data/changes/$(date -u +%Y-%m).jsonl")"
}

@test "an outbox stays one, whatever the command makes of it" {
  # shellcheck disable=SC2016
  refused 65 recovery tx "$ROOT/postbox/CC/outbox.json" -- sh -c 'echo "[]" >"$TX_1"'
  # shellcheck disable=SC2016
  refused 65 recovery tx "$ROOT/postbox/CC/outbox.json" -- sh -c 'echo "{\"tasks\": 3}" >"$TX_1"'
  runs recovery tx "$ROOT/postbox/CC/outbox.json" --stdout -- jq '.note = "x"' {}
  assert_json postbox/CC/outbox.json 'd["note"], len(d["tasks"])' "('x', 3)"
  runs recovery complete CC TASK-168B
  assert_completed CC TASK-168B
}

@test "--check-json and --check refuse what isn't good, and nothing has happened" {
  shared
  # shellcheck disable=SC2016
  run --separate-stderr -65 recovery tx tasks.json --check-json -- sh -c 'echo "{\"n\": NaN}" >"$TX_1"'
  # shellcheck disable=SC2016
  run --separate-stderr -65 recovery tx tasks.json --check-json -- sh -c ': >"$TX_1"'
  # shellcheck disable=SC2016
  run --separate-stderr -65 recovery tx tasks.json --check 'grep -q good "$1"' -- sh -c 'echo bad >"$TX_1"'
  assert_stderr_has "--check refused" "nothing was changed"
  assert_equal '{"n": 1}' "$(cat tasks.json)"
  # shellcheck disable=SC2016
  runs recovery tx tasks.json --check 'grep -q good "$1"' -- sh -c 'echo good >"$TX_1"'
  rm tasks.json .tasks.json.lock
}

@test "--backup keeps the bytes before, and never overwrites older ones" {
  shared
  runs recovery tx tasks.json --backup safe -- sed -i s/1/2/ {}
  runs recovery tx tasks.json --backup safe -- sed -i s/2/3/ {}
  assert_equal '{"n": 2} {"n": 1}' "$(cat tasks.json.backup_safe tasks.json.backup_safe.1 | xargs -d '\n')"
  rm tasks.json* .tasks.json.lock
  given postbox/a.txt one
  # shellcheck disable=SC2016
  runs recovery tx "$ROOT/postbox/a.txt" --backup safe -- sh -c 'echo two >"$TX_1"'
  assert_equal one "$(cat "$ROOT/postbox/a.txt.backup_safe")"
}

@test "--dry-run runs the command and the checks, and changes nothing" {
  shared
  runs recovery tx tasks.json --dry-run -- sed -i s/1/2/ {}
  assert_output "would change tasks.json; nothing changed"
  assert_equal '{"n": 1}' "$(cat tasks.json)"
  rm tasks.json .tasks.json.lock
}

@test "bad words are refused before anything is run" {
  shared
  mkdir folder
  : >other
  refused 64 recovery tx -- touch ran
  refused 64 recovery tx tasks.json
  refused 64 recovery tx tasks.json ./tasks.json -- touch ran
  refused 64 recovery tx tasks.json other -- touch ran
  assert_stderr_has "only within one workspace"
  refused 65 recovery tx folder -- touch ran
  refused 65 recovery tx "$ROOT/postbox/CC" -- touch ran
  refused 66 recovery tx nowhere/x.json -- touch ran
  refused 64 recovery tx "$ROOT/data/journal" -- touch ran
  refused 64 recovery tx tasks.json -- touch {2}
  refused 64 recovery tx tasks.json --backup ../x -- touch ran
  refused 64 recovery tx tasks.json '' -- touch ran
  run --separate-stderr -127 recovery tx tasks.json -- no-such-command
  run --separate-stderr -126 recovery tx tasks.json -- ./folder
  assert_absent ran
  rm -r tasks.json folder other .tasks.json.lock
  assert_no_stray_files
}

@test "only {} as a word of its own is the copy" {
  shared
  runs recovery tx tasks.json --stdout -- jq -c '. + {} + {"a": {}}' {}
  assert_equal '{"n":1,"a":{}}' "$(cat tasks.json)"
  rm tasks.json .tasks.json.lock
}

@test "somebody who changes the file meanwhile has won: the command is run again on what it holds now" {
  shared
  # shellcheck disable=SC2016
  runs recovery tx tasks.json --stdout -- sh -c 'test -e met || { echo 1 >met; flock .tasks.json.lock sed -i s/1/7/ tasks.json; }; jq -c ".m = .n" "$TX_1"'
  assert_equal '{"n":7,"m":7}' "$(cat tasks.json)"
  assert_stderr_has "changed by somebody meanwhile"
  rm tasks.json .tasks.json.lock met
}

@test "… in a workspace too, and complete is such a somebody" {
  # shellcheck disable=SC2016
  runs recovery tx "$ROOT/postbox/CC/outbox.json" --stdout -- \
    sh -c 'test -e met || { echo 1 >met; "$1" complete CC TASK-168B >&2; }; jq ".note = 1" "$TX_1"' sh "$SUITE/bin/recovery"
  assert_completed CC TASK-168B
  assert_json postbox/CC/outbox.json 'd["note"]' 1
  rm met
}

@test "a stdin that can't be read again isn't read again: 75, and nothing has happened" {
  shared
  # shellcheck disable=SC2016
  run --separate-stderr -75 bash -c 'echo text | "$1" tx tasks.json -- sh -c "cat >\"\$TX_1\"; sed -i s/1/7/ tasks.json"' bash "$SUITE/bin/recovery"
  assert_equal '{"n": 7}' "$(cat tasks.json)"
  rm tasks.json .tasks.json.lock
}

@test "a writer who never stops is not fought for ever" {
  shared
  # shellcheck disable=SC2016
  run --separate-stderr -75 recovery tx -q tasks.json -- sh -c 'echo x >>runs; echo >>tasks.json; echo y >>"$TX_1"'
  assert_equal 8 "$(wc -l <runs)"
  rm tasks.json .tasks.json.lock runs
}

@test "no lock is held while the command runs" {
  shared
  runs recovery tx tasks.json -- flock -n .tasks.json.lock true
  runs recovery tx "$ROOT/postbox/CC/outbox.json" -- flock -n "$ROOT/postbox/CC/.outbox.json.lock" true
  rm tasks.json .tasks.json.lock
}

@test "a transaction inside of one on the same file is told at once" {
  shared
  run --separate-stderr -75 recovery tx tasks.json -- "$SUITE/bin/recovery" tx tasks.json -- true
  assert_stderr_has "which waits for this very command"
  rm tasks.json .tasks.json.lock
}

@test "eight writers at once, each with its own command and each run once: nothing is lost" {
  local n
  shared
  for n in 1 2 3 4 5 6 7 8; do
    "$SUITE/bin/recovery" tx tasks.json --stdout -- sh -c 'echo x >>runs; jq -c ".n += 1" "$TX_1"' 3>&- &
    STARTED+=("$!")
  done
  for n in 1 2 3 4 5 6 7 8; do
    ended_with 0
  done
  assert_equal '{"n":9}' "$(cat tasks.json)"
  assert_equal 8 "$(wc -l <runs)"
  rm tasks.json .tasks.json.lock runs
}

@test "--json says what changed, and whose exit code it is" {
  shared
  runs recovery tx tasks.json --json -- sed -i s/1/2/ {}
  assert_output_json 'd["code"], d["whose"], d["changed"], d["files"], d["runs"]' "(0, 'command', True, ['tasks.json'], 1)"
  run --separate-stderr -4 recovery tx tasks.json --json -- sh -c 'echo out; exit 4'
  assert_output_json 'd["code"], d["whose"], d["changed"]' "(4, 'command', False)"
  assert_stderr_has out
  # shellcheck disable=SC2016
  run --separate-stderr -65 recovery tx tasks.json --json --check-json -- sh -c 'echo x >"$TX_1"'
  assert_output_json 'd["code"], d["whose"]' "(65, 'recovery')"
  rm tasks.json .tasks.json.lock
}

@test "a folder that can't be written to is 125, and nothing has happened" {
  require_root
  mkdir closed
  shared
  mv tasks.json closed
  chmod 555 closed
  run --separate-stderr -125 as_plain_root "$SUITE/bin/recovery" tx closed/tasks.json -- sed -i s/1/2/ {}
  assert_equal '{"n": 1}' "$(cat closed/tasks.json)"
  rm -r closed
}
