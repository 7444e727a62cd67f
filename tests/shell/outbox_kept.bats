#!/usr/bin/env bats

load test_helper

# An edit replaces the bytes of what it changes and nothing else.

only_edit() { # <text with {} in the place of the status>; completes TASK-168B, the rest byte for byte as it was
  printf '%s' "${1/\{\}/pending}" >"$ROOT/postbox/CC/outbox.json"
  printf '%s' "$1" >"$BATS_TEST_TMPDIR/wanted"
  runs complete_task CC TASK-168B m
  "$PYTHON" -I -S - "$ROOT/postbox/CC/outbox.json" "$BATS_TEST_TMPDIR/wanted" <<'PY'
import re, sys
now = open(sys.argv[1], "rb").read()
want = open(sys.argv[2], "rb").read()
head, tail = want.split(b"{}")
assert now.startswith(head + b"completed"), now[:200]
rest = now[len(head) + len(b"completed"):]
rest = re.sub(rb',?\s*"completed_at"\s*:\s*"[0-9TZ:-]+"', b"", rest, count=1)
rest = re.sub(rb',?\s*"completion_message"\s*:\s*"m"', b"", rest, count=1)
assert rest == tail, (rest[:300], tail[:300])
PY
}

@test "40: big integers, floats, -0.0 and exponents stay as they are written" {
  only_edit '{"n": [123456789012345678901234567890, 1.0, -0.0, 1E+2, 1e-7, 0.1000, 1.7976931348623157e308, -0],
 "tasks": [{"task_id": "TASK-168B", "status": "{}", "cost": 12345678901234567890.000}]}'
}

@test "40: the order of keys and the spacing stay" {
  only_edit '{ "z":1,"a" :2 ,
	"tasks":[ { "status":"{}" , "task_id":"TASK-168B","b":  [ ],"a":{ } } ]  , "m":null}   '
}

@test "40: escapes, unicode and \\u0000 stay as they are written" {
  only_edit '{"x": "\u0000 \u00e4 ä \/ \ud83c\udf89 🎉 \u2028", "tasks": [{"task_id": "TASK-168B", "status": "{}"}]}'
}

@test "40: CRLF line ends and a missing final newline stay" {
  only_edit $'{\r\n  "tasks": [\r\n    {"task_id": "TASK-168B", "status": "{}"}\r\n  ]\r\n}'
}

@test "40: a final newline, and three, stay" {
  only_edit $'{"tasks": [{"task_id": "TASK-168B", "status": "{}"}]}\n\n\n'
}

@test "40: 5000 other tasks stay" {
  local tasks="" n
  for ((n = 0; n < 5000; n++)); do
    tasks+="{\"task_id\": \"T-$n\", \"status\": \"pending\", \"x\": $n.50},"
  done
  only_edit "{\"tasks\": [$tasks {\"task_id\": \"TASK-168B\", \"status\": \"{}\"}]}"
}

@test "40: history, and fields that nobody here knows, stay" {
  only_edit '{"tasks": [{"task_id": "TASK-168B", "status": "{}", "context": {"status": "pending", "tasks": []}}],
 "history": [{"task_id": "TASK-1", "status": "completed", "timestamp": "x", "message": "y"}], "metadata": {"a": [1]}}'
}

@test "40: a task id written with escapes is found and stays so" {
  only_edit '{"tasks": [{"task_id": "TASK\u002d168B", "status": "{}"}]}'
}

@test "40: an assignment too leaves what is there as it is" {
  local whole='{"tasks":[{"task_id":"T-1","n":1.50,"big":123456789012345678901}],"z": -0.0 ,"a":[ ]}'
  given postbox/CC/outbox.json "$whole"
  runs assign_task CC T-2 "title" LOW
  whole=${whole%%\}\]*}"}"$'\n'${whole#*\}\]}
  assert_equal "$whole" "$(sed -E 's/,[[:space:]]*\{"task_id": ?"T-2"[^}]*\}\]/\n/' "$ROOT/postbox/CC/outbox.json")"
}

@test "42: every mode of the outbox stays" {
  local mode
  for mode in 600 640 644 660 664 666; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT/postbox/CC/completed"
    chmod "$mode" "$ROOT/postbox/CC/outbox.json" "$ROOT/.sprint/progress.json"
    runs complete_task CC TASK-168B
    assert_equal "$mode" "$(stat -c %a "$ROOT/postbox/CC/outbox.json")"
    assert_equal "$mode" "$(stat -c %a "$ROOT/.sprint/progress.json")"
    assert_equal "$mode" "$(stat -c %a "$ROOT/postbox/CC/completed/TASK-168B_completion.json")"
  done
}

@test "42: a strict umask doesn't take the outbox from the others" {
  chmod 664 "$ROOT/postbox/CC/outbox.json"
  umask 077
  runs complete_task CC TASK-168B
  assert_equal 664 "$(stat -c %a "$ROOT/postbox/CC/outbox.json")"
}

@test "42: a loose umask opens nothing to others" {
  chmod 600 "$ROOT/postbox/CC/outbox.json"
  umask 000
  runs complete_task --keep-backup CC TASK-168B
  assert_equal 600 "$(stat -c %a "$ROOT/postbox/CC/outbox.json")"
  assert_equal 600 "$(stat -c %a "$ROOT/postbox/CC/outbox.json.backup_TASK-168B")"
  assert_equal 600 "$(stat -c %a "$ROOT/postbox/CC/.outbox.json.lock")"
  run find "$ROOT/data" "$ROOT/postbox/CC" -type f -perm /o+w
  assert_output ""
}

@test "42: owner and group of the outbox stay, also when root completes it" {
  require_root
  chown 1234:5678 "$ROOT/postbox/CC/outbox.json"
  runs complete_task CC TASK-168B
  assert_equal 1234:5678 "$(stat -c %u:%g "$ROOT/postbox/CC/outbox.json")"
}

@test "42: extended attributes stay" {
  setfattr -n user.note -v kept "$ROOT/postbox/CC/outbox.json" 2>/dev/null ||
    "$PYTHON" -c 'import os, sys; os.setxattr(sys.argv[1], "user.note", b"kept")' "$ROOT/postbox/CC/outbox.json" ||
    skip "no extended attributes here"
  runs complete_task CC TASK-168B
  run -0 "$PYTHON" -c 'import os, sys; print(os.getxattr(sys.argv[1], "user.note").decode())' "$ROOT/postbox/CC/outbox.json"
  assert_output kept
}
