#!/usr/bin/env bats

load test_helper

# Files of one object a line: a torn or NUL tail costs that line alone.

torn() { # <file under the root> <tail with \x escapes>
  printf '%b' "$2" >>"$ROOT/$1"
}

whole_lines() { # <file under the root>
  "$PYTHON" -I -S -c '
import json, sys
n = 0
for line in open(sys.argv[1], "rb").read().split(b"\n"):
    try:
        n += isinstance(json.loads(line), dict)
    except ValueError:
        pass
print(n)' "$ROOT/$1"
}

setup() {
  make_workspace
  runs complete_task CC TASK-168B first
  CHANGES=data/changes/$(cd "$ROOT/data/changes" && echo *.jsonl)
}

@test "61: a torn last line in the change log: earlier and new records stay readable" {
  torn "$CHANGES" '{"seq": 99, "txid": "x", "op": "comp'
  assert_equal 1 "$(whole_lines "$CHANGES")"
  runs complete_task CC TASK-169A
  assert_equal 2 "$(whole_lines "$CHANGES")"
  runs recovery rollback CC TASK-168B
  runs recovery rollback CC TASK-169A
  assert_equal 4 "$(whole_lines "$CHANGES")"
  assert_open CC TASK-168B
  assert_open CC TASK-169A
}

@test "61: a tail of NULs in the change log" {
  torn "$CHANGES" '\x00\x00\x00\x00\x00\x00'
  runs complete_task CC TASK-169A
  assert_equal 2 "$(whole_lines "$CHANGES")"
  runs recovery rollback CC TASK-168B
  assert_open CC TASK-168B
}

@test "61: a tail that ends in half a character" {
  torn "$CHANGES" '{"x": "\xc3'
  runs complete_task CC TASK-169A
  runs recovery rollback CC TASK-169A
  assert_open CC TASK-169A
}

@test "61: a torn last line in the history of checkpoints" {
  torn data/checkpoints/TASK-168B_history.jsonl '{"txid": "x", "sta'
  runs recovery rollback CC TASK-168B
  assert_equal 2 "$(whole_lines data/checkpoints/TASK-168B_history.jsonl)"
  refused 65 complete_task CC TASK-168B
  assert_stderr_has "rolled back"
  runs complete_task --again CC TASK-168B
  assert_equal 3 "$(whole_lines data/checkpoints/TASK-168B_history.jsonl)"
}

@test "61: a torn last line in the recovery log" {
  given logs/recovery/TASK-169A_recovery.jsonl $'{"task_id": "TASK-169A", "txid": "a"}\n{"task_id": "TASK'
  crash_at journal-synced complete_task CC TASK-169A
  runs recovery recover
  assert_equal 2 "$(whole_lines logs/recovery/TASK-169A_recovery.jsonl)"
}

@test "61: a last line that only lacks its newline is whole" {
  truncate -s -1 "$ROOT/$CHANGES"
  runs complete_task CC TASK-169A
  assert_equal 2 "$(whole_lines "$CHANGES")"
}

@test "61: foreign lines, that are JSON but no records, do no harm" {
  torn "$CHANGES" '[]\n42\n"x"\n{}\n{"agent": "CC", "task": "TASK-168B"}\n'
  run --separate-stderr recovery rollback CC TASK-168B
  [[ $stderr != *"this is a bug"* ]] || fail "$stderr"
  runs complete_task CC TASK-169A
}

@test "61: the torn lines are counted" {
  torn "$CHANGES" '{"seq": 99, "txid": "x", "op": "comp'
  run recovery recover
  [[ $output == *torn* || $output == *"could not be read"* ]]
}

@test "a lost change log is a log that begins anew" {
  rm "$ROOT/$CHANGES"
  runs complete_task CC TASK-169A
  refused 66 recovery rollback CC TASK-168B
  runs recovery rollback CC TASK-169A
}

@test "a lost journal goes on counting where the change log stopped" {
  rm "$ROOT/data/journal"
  runs complete_task CC TASK-169A
  assert_equal "1 2" "$("$PYTHON" -c 'import json,sys; print(*[json.loads(l)["seq"] for l in open(sys.argv[1])])' "$ROOT/$CHANGES")"
}
