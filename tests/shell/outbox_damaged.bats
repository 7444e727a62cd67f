#!/usr/bin/env bats

load test_helper

# What is not one object with a list of tasks is refused by every command that writes, and keeps its bytes.

refused_by_all() { # [<text>...]; that stderr must hold
  local json
  refused 65 complete_task CC TASK-168B
  assert_stderr_has postbox/CC/outbox.json "$@"
  refused 65 assign_task CC TASK-1 title LOW
  assert_stderr_has postbox/CC/outbox.json "$@"
  json=$(complete_task --json CC TASK-168B 2>/dev/null) || :
  assert_equal 65 "$(json - 'd["code"]' <<<"$json")"
  assert_locks_free
}

good='{"task_id": "TASK-168B", "status": "pending"}'

@test "34: no JSON at all" {
  given postbox/CC/outbox.json 'hello'
  refused_by_all "line 1, column 1"
  assert_no_stray_files
}

@test "34: cut off in the middle" {
  given postbox/CC/outbox.json $'{"tasks": [\n  {"task_id": "TASK-168B", "sta'
  refused_by_all "line 2"
}

@test "34: cut off at every byte" {
  local whole="{\"tasks\": [$good]}" n
  for ((n = 1; n < ${#whole}; n++)); do
    given postbox/CC/outbox.json "${whole:0:n}"
    run complete_task CC TASK-168B
    assert_equal "$n: 65" "$n: $status"
    assert_equal "${whole:0:n}" "$(<"$ROOT/postbox/CC/outbox.json")"
  done
}

@test "34: empty" {
  given postbox/CC/outbox.json ''
  refused_by_all empty
}

@test "34: only white space" {
  given postbox/CC/outbox.json $' \n\t\n'
  refused_by_all "white space"
}

@test "34: NULs, alone, behind and inside" {
  given_octets postbox/CC/outbox.json '\x00\x00\x00\x00'
  refused_by_all
  given_octets postbox/CC/outbox.json "{\"tasks\": [$good]}\\x00\\x00"
  refused_by_all
  given_octets postbox/CC/outbox.json "{\"tasks\": [$good]\\x00}"
  refused_by_all
}

@test "34: two documents, glued or a line apart" {
  given postbox/CC/outbox.json "{\"tasks\": [$good]}{\"tasks\": [$good]}"
  refused_by_all "another document"
  given postbox/CC/outbox.json "{\"tasks\": [$good]}"$'\n'"{\"tasks\": [$good]}"
  refused_by_all "another document" "line 2, column 1"
}

@test "34: text behind the document" {
  given postbox/CC/outbox.json "{\"tasks\": [$good]} oops"
  refused_by_all "line 1"
}

@test "34: NaN and the infinities" {
  local word
  for word in NaN Infinity -Infinity; do
    given postbox/CC/outbox.json "{\"x\": $word, \"tasks\": [$good]}"
    refused_by_all
    given postbox/CC/outbox.json "{\"tasks\": [$good, {\"task_id\": \"T2\", \"x\": $word}]}"
    refused_by_all
  done
}

@test "34: UTF-16, a byte order mark, and bytes that are not UTF-8" {
  printf '{"tasks": [%s]}' "$good" | iconv -t UTF-16 >"$ROOT/postbox/CC/outbox.json"
  refused_by_all
  printf '{"tasks": [%s]}' "$good" | iconv -t UTF-16BE >"$ROOT/postbox/CC/outbox.json"
  refused_by_all
  given_octets postbox/CC/outbox.json "\\xef\\xbb\\xbf{\"tasks\": [$good]}"
  refused_by_all "byte order mark"
  given_octets postbox/CC/outbox.json "{\"x\": \"caf\\xe9\", \"tasks\": [$good]}"
  refused_by_all "not UTF-8" "line 1"
}

@test "34: a comma too many, a comma too few, comments, single quotes" {
  local text
  for text in "{\"tasks\": [$good,]}" "{\"tasks\": [$good],}" "{\"tasks\": [$good $good]}" \
    "{\"tasks\": [$good] // no
    }" "{'tasks': []}" "{tasks: []}" "{\"tasks\" [$good]}"; do
    given postbox/CC/outbox.json "$text"
    refused_by_all "line "
  done
}

@test "34: a raw newline or tab inside a string" {
  given postbox/CC/outbox.json $'{"x": "a\nb", "tasks": ['"$good"']}'
  refused_by_all
  given postbox/CC/outbox.json $'{"x": "a\tb", "tasks": ['"$good"']}'
  refused_by_all
}

@test "34: numbers that are none" {
  local number
  for number in 01 1. .5 +1 0x10 1e -; do
    given postbox/CC/outbox.json "{\"x\": $number, \"tasks\": [$good]}"
    refused_by_all
  done
}

@test "35: a list, null, a string, a number instead of the object" {
  local text
  for text in "[$good]" null '"text"' 42 true; do
    given postbox/CC/outbox.json "$text"
    refused_by_all "not a JSON object"
  done
}

@test "35: tasks null, a string, a number, an object" {
  local text
  for text in null '"text"' 42 true "{\"TASK-168B\": $good}"; do
    given postbox/CC/outbox.json "{\"tasks\": $text}"
    refused_by_all "not a list"
  done
}

@test "35: no tasks" {
  given postbox/CC/outbox.json '{"agent_id": "CC", "history": []}'
  refused_by_all tasks
}

@test "35: a task that is no object" {
  local text
  for text in null '"TASK-168B"' 42 "[$good]"; do
    given postbox/CC/outbox.json "{\"tasks\": [$good, $text]}"
    refused_by_all "not an object"
  done
}

@test "36: the same key twice at the top" {
  given postbox/CC/outbox.json "{\"agent_id\": \"CC\", \"agent_id\": \"CA\", \"tasks\": [$good]}"
  refused_by_all agent_id "second time"
  given postbox/CC/outbox.json "{\"tasks\": [], \"tasks\": [$good]}"
  refused_by_all tasks "second time"
  given postbox/CC/outbox.json "{\"tasks\": [], \"\\u0074asks\": [$good]}"
  refused_by_all tasks "second time"
}

@test "36: the same key twice in the task itself" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "TASK-168B", "status": "pending", "status": "in_progress"}]}'
  refused 65 complete_task CC TASK-168B
  assert_stderr_has status
}

@test "36: the same key twice in another task is refused or kept" {
  local other='{"task_id": "T2", "x": 1, "x": 2}'
  given postbox/CC/outbox.json "{\"tasks\": [$good, $other]}"
  run --separate-stderr complete_task CC TASK-168B
  if ((status == 0)); then
    assert_completed CC TASK-168B
  else
    assert_equal 65 "$status"
    assert_open CC TASK-168B
  fi
  run -0 grep -F "$other" "$ROOT/postbox/CC/outbox.json"
}

@test "37: the same task id twice" {
  given postbox/CC/outbox.json "{\"tasks\": [$good, {\"task_id\": \"TASK-168B\", \"status\": \"completed\"}]}"
  refused_by_all TASK-168B "second time"
  given postbox/CC/outbox.json "{\"tasks\": [$good, {\"task_id\": \"T2\"}, {\"task_id\": \"T2\"}]}"
  refused_by_all T2 "second time"
}

@test "38: a folder in the place of the outbox" {
  rm "$ROOT/postbox/CC/outbox.json"
  mkdir "$ROOT/postbox/CC/outbox.json"
  refused_by_all "a folder"
}

@test "38: a fifo in the place of the outbox doesn't hang anybody" {
  rm "$ROOT/postbox/CC/outbox.json"
  mkfifo "$ROOT/postbox/CC/outbox.json"
  refused 65 timeout 10 "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has "not a regular file"
  refused 65 timeout 10 "$SUITE/bin/assign_task.sh" CC TASK-1 title LOW
}

@test "38: no outbox is no such agent" {
  rm "$ROOT/postbox/CC/outbox.json"
  refused 66 complete_task CC TASK-168B
}

@test "38: a dangling link, a loop, a link out of the workspace are refused and stay links" {
  local outbox="$ROOT/postbox/CC/outbox.json" outside="$BATS_TEST_TMPDIR/outside.json" target
  mv "$outbox" "$outside"
  for target in nowhere outbox.json "$outside" ../../../outside.json /dev/null; do
    ln -sfn "$target" "$outbox"
    refused 65 complete_task CC TASK-168B
    assert_stderr_has postbox/CC/outbox.json
    refused 65 assign_task CC TASK-1 title LOW
    [[ $target != */* ]] || assert_stderr_has "leads out of the workspace"
    assert_equal "$target" "$(readlink "$outbox")"
  done
  run -0 grep -c '"pending"' "$outside"
  assert_absent "$ROOT/postbox/CC/nowhere"
}

@test "38: a link inside the workspace is followed and stays a link" {
  mkdir "$ROOT/postbox/shared"
  mv "$ROOT/postbox/CC/outbox.json" "$ROOT/postbox/shared/of_cc.json"
  ln -s ../shared/of_cc.json "$ROOT/postbox/CC/outbox.json"
  runs complete_task CC TASK-168B
  assert_equal ../shared/of_cc.json "$(readlink "$ROOT/postbox/CC/outbox.json")"
  assert_completed CC TASK-168B
  assert_no_stray_files "postbox/shared/of_cc.json" "postbox/shared/.of_cc.json.lock"
}

@test "38: an agent's folder that is a link out of the workspace is refused" {
  mv "$ROOT/postbox/CC" "$BATS_TEST_TMPDIR/outside"
  ln -s "$BATS_TEST_TMPDIR/outside" "$ROOT/postbox/CC"
  refused 65 complete_task CC TASK-168B
  run -0 grep -c '"pending"' "$BATS_TEST_TMPDIR/outside/outbox.json"
  assert_equal $'completed\ninbox\noutbox.json' "$(ls -A "$BATS_TEST_TMPDIR/outside")"
}

@test "39: 100,000 levels are refused in words" {
  local open close
  open=$(repeat 100000 '[') close=$(repeat 100000 ']')
  given postbox/CC/outbox.json "{\"x\": $open$close, \"tasks\": [$good]}"
  refused_by_all "nested too deeply"
  given postbox/CC/outbox.json "{\"tasks\": [$good, {\"task_id\": \"T2\", \"x\": $open$close}]}"
  refused_by_all "nested too deeply"
  given postbox/CC/outbox.json "$(repeat 100000 x | sed 's/x/{"a":/g')"
  refused_by_all
}

@test "39: a few hundred levels are nothing special" {
  given postbox/CC/outbox.json "{\"x\": $(repeat 300 '[')$(repeat 300 ']'), \"tasks\": [$good]}"
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
}

@test "41: 1e400, a lone surrogate, an int of 5000 digits are refused or kept" {
  local text
  for text in 1e400 -1e400 '"\ud800"' "$(repeat 5000 7)"; do
    given postbox/CC/outbox.json "{\"x\": $text, \"tasks\": [$good, {\"task_id\": \"T2\", \"y\": $text}]}"
    rm -rf "$ROOT/postbox/CC/completed" "$ROOT/data"
    run --separate-stderr complete_task CC TASK-168B
    ((status == 0 || status == 65)) || fail "exit $status for ${text:0:20}: $stderr"
    assert_equal 1 "$(grep -cF -- "{\"x\": $text, \"tasks\"" "$ROOT/postbox/CC/outbox.json")"
    assert_equal 1 "$(grep -cF -- "{\"task_id\": \"T2\", \"y\": $text}" "$ROOT/postbox/CC/outbox.json")"
  done
}

@test "a damaged outbox of one agent doesn't keep another from working" {
  given postbox/CA/outbox.json '{"tasks": ['
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
  refused 66 complete_task CC TASK-999
}

@test "a refusal says what to do next" {
  given postbox/CC/outbox.json '{"tasks": [}'
  refused 65 complete_task CC TASK-168B
  assert_stderr_has "damaged and was not touched" "next:"
}
