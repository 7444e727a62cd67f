#!/usr/bin/env bats
# shellcheck disable=SC2016 # text, not to be expanded

load test_helper

# A message is data: stored exactly as given, run by nobody.

stored() { # <message>; completes the task with it, and finds the same bytes in outbox and record
  local file
  runs complete_task -- CC TASK-168B "$1"
  printf '%s' "$1" >wanted
  for file in "$ROOT/postbox/CC/outbox.json" "$ROOT/postbox/CC/completed/TASK-168B_completion.json"; do
    json "$file" '[t for t in d.get("tasks", [d]) if t["task_id"] == "TASK-168B"][0]["completion_message"]' >found
    cmp wanted found
  done
  rm wanted found
  assert_no_stray_files
}

@test "31: a command substitution is text" {
  stored "\$(touch pwned) \`touch pwned\` \${HOME} \$\$"
  assert_absent pwned "$ROOT/pwned"
}

@test "31: quotes of every kind are text" {
  stored "it's \"quoted\" '''three''' \"\"\"three\"\"\" \\\" \\\\ \\n"
}

@test "31: the word that ends a heredoc is text" {
  stored $'before\nEOF\nPYTHON\nJSON\nafter'
}

@test "31: percent signs, ampersands and regular expressions are text" {
  stored '100%s %n & \1 .* [a-z] {{x}} $1 | jq . ; rm -rf x'
}

@test "32: newlines and tabs, at both ends too" {
  stored $'\n\ttwo\n\nlines\t\n\n'
}

@test "32: emoji, combining marks and text from right to left" {
  stored $'done \U1F389 e\u0301 \u202Eright to left\u202C \u05E9\u05DC\u05D5\u05DD \u4E2D\u6587'
}

@test "32: non-ASCII is stored as it is, not escaped" {
  stored "größe 中文"
  run -0 grep -c "größe 中文" "$ROOT/postbox/CC/outbox.json"
}

@test "32: -n, -e and the like behind AGENT TASK are text" {
  local word
  for word in -n -e -- --nope; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/postbox/CC/completed"
    stored "$word"
  done
}

@test "32: a message that begins with a dash needs no -- where it stands third" {
  runs complete_task CC TASK-168B "-n done"
  assert_completed CC TASK-168B "-n done"
}

@test "32: behind -m a message may be any word" {
  runs complete_task -m --json CC TASK-168B
  assert_completed CC TASK-168B --json
  assert_output_has "completed CC/TASK-168B"
}

@test "32: @file is text, not a file to read" {
  echo secret >file
  runs complete_task CC TASK-168B @file
  assert_completed CC TASK-168B @file
}

@test "32: 100 KB" {
  stored "$(repeat 102400 x)"
}

@test "32: 100 KB of two-byte characters" {
  stored "$(repeat 51200 x | sed 's/x/ä/g')"
}

@test "32: 131,000 bytes are stored or refused, whole in both cases" {
  local text
  text=$(repeat 131000 x)
  run --separate-stderr complete_task CC TASK-168B "$text"
  if ((status == 0)); then
    assert_completed CC TASK-168B "$text"
  else
    assert_open CC TASK-168B
  fi
  assert_no_stray_files
}

@test "33: what is not UTF-8 is said, and the outbox stays UTF-8 JSON" {
  runs complete_task CC TASK-168B $'caf\xe9 \xff\xfe \xc3'
  assert_stderr_has "not UTF-8"
  assert_completed CC TASK-168B $'caf\ufffd \ufffd\ufffd \ufffd'
}

@test "33: control characters are stored exactly" {
  stored $'\x01\x02\x1b[31m\x7f\r\b'
}

@test "33: a stored control character never reaches the terminal" {
  stored $'\x1b[31mred\x07'
  runs complete_task CC TASK-168B other
  [[ $output != *$'\x1b'* && $output != *$'\x07'* ]]
  runs task_status
  [[ $output != *$'\x1b'* && $output != *$'\x07'* ]]
}

@test "32: the locale doesn't matter" {
  local locale
  for locale in C POSIX nonsense; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/postbox/CC/completed"
    runs with LC_ALL="$locale" LANG="$locale" -- complete_task CC TASK-168B $'gr\u00FC\u00DFe \U1F389'
    assert_completed CC TASK-168B $'gr\u00FC\u00DFe \U1F389'
  done
}
