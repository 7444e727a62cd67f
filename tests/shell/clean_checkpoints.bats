#!/usr/bin/env bats

load test_helper

# What nobody needs any more goes, and nothing else.

clean() { "$SUITE/bin/clean_checkpoints.sh" "$@"; }

given_checkpoint() { # <task> <state> <days ago> [<metadata>]
  local when line
  when=$(date -u -d "$3 days ago" +%Y-%m-%dT%H:%M:%SZ)
  line="{\"task_id\": \"$1\", \"checkpoint_id\": \"c-$3\", \"timestamp\": \"$when\", \"state\": \"$2\", \"data\": {}, \"metadata\": ${4:-{\}}}"
  mkdir -p "$ROOT/data/checkpoints"
  printf '%s\n' "${line/\{/\{\"txid\": \"x-$3\", }" >>"$ROOT/data/checkpoints/$1_history.jsonl"
  printf '%s\n' "$line" >"$ROOT/data/checkpoints/$1_checkpoint.json"
}

given_record() { # <key> <state> <days ago>
  local when
  when=$(date -u -d "$3 days ago" +%Y-%m-%dT%H:%M:%SZ)
  given "data/once/$1.json" "{\"format\": 1, \"key\": \"$1\", \"task_id\": \"T\", \"state\": \"$2\", \"started_at\": \"$when\"}"
}

kept() { # the tasks that have checkpoints
  find "$ROOT/data/checkpoints" -name '[!.]*_history.jsonl' -printf '%f\n' | sed 's/_history.jsonl//' | sort | xargs
}

everything() { # a checksum of all there is in the workspace, locks apart
  (cd "$ROOT" && find . -type f ! -name '.*.lock' -exec sha256sum {} + | sort | sha256sum)
}

@test "the checkpoints of tasks that ended eight days ago are removed, those of six days ago are kept" {
  given_checkpoint OLD completed 8
  given_checkpoint FAILED failed 8
  given_checkpoint YOUNG completed 6
  runs clean
  assert_output "removed the checkpoints of 2 tasks"
  assert_equal "" "$stderr"
  assert_equal YOUNG "$(kept)"
  assert_absent "$ROOT/data/checkpoints/OLD_checkpoint.json" "$ROOT/data/checkpoints/OLD_history.jsonl"
  runs clean
  assert_output "nothing to remove"
  assert_locks_free
  assert_no_stray_files 'data/checkpoints/.*.lock'
}

@test "an open task keeps them however old they are" {
  local state
  for state in pending running retrying; do
    given_checkpoint "IS-$state" "$state" 400
  done
  given_checkpoint TASK-168B completed 400 # pending in CC's outbox
  given_checkpoint PARKED failed 400
  given data/manual/PARKED.json '{}'
  given_checkpoint ESCALATED failed 400
  given logs/recovery/ESCALATED_escalation.2.json '{}'
  given_checkpoint UNDONE rolled_back 400 '{"op": "rollback"}'
  given_checkpoint RESUMABLE running 401 '{"step": "download", "result": 5}'
  given_checkpoint RESUMABLE failed 400
  given_checkpoint OLD completed 400
  runs clean
  assert_output "removed the checkpoints of 1 task"
  assert_equal "ESCALATED IS-pending IS-retrying IS-running PARKED RESUMABLE TASK-168B UNDONE" "$(kept)"
}

@test "the age is a number of days, or a number with its unit" {
  local days
  given_checkpoint THREE completed 3
  for days in 4 4d 96h 5760m 345600s; do
    runs clean "$days"
    assert_output "nothing to remove"
    runs clean --older-than "$days"
    assert_output "nothing to remove"
  done
  runs clean --older-than=2
  assert_equal "" "$(kept)"
  given_checkpoint THREE completed 3
  runs clean 71h
  assert_equal "" "$(kept)"
}

@test "an age that is none is refused, and nothing is removed" {
  local age
  given_checkpoint OLD completed 400
  for age in -1 week 1w 7,5 '' '٧' 1e3; do
    refused 64 clean --older-than "$age"
  done
  refused 64 clean 7 7
  refused 64 clean 7 --older-than 7
  refused 64 clean --frobnicate
  assert_equal OLD "$(kept)"
}

@test "--dry-run names what would be removed, and changes nothing" {
  local before
  given_checkpoint OLD completed 8
  given_checkpoint YOUNG completed 6
  given_checkpoint RUNNING running 400
  given_record old done 31
  given_record unknown started 400
  before=$(everything)
  runs clean --dry-run -v
  assert_output_has "would remove the checkpoints of 1 task and 1 idempotency record" OLD data/once/old.json
  [[ $output != *YOUNG* && $output != *RUNNING* ]]
  assert_equal "$before" "$(everything)"
  runs clean --dry-run --json
  assert_output_json 'd["ok"], d["code"], d["changed"], d["dry_run"], d["tasks"], d["records"]' \
    "(True, 0, False, True, ['OLD'], ['data/once/old.json'])"
  assert_equal "$before" "$(everything)"
  [[ -z $(find "$ROOT" -name '.*.lock' -o -name '.*.turn') ]]
}

@test "-q says nothing" {
  given_checkpoint OLD completed 8
  runs clean -q
  assert_output ""
  assert_equal "" "$stderr"
  assert_equal "" "$(kept)"
  runs clean --quiet
  assert_equal "" "$output$stderr"
}

@test "--json is one object, for refusals too" {
  given_checkpoint OLD completed 8
  runs clean --json
  assert_output_json 'd["ok"], d["code"], d["changed"], d["tasks"], d["records"]' "(True, 0, True, ['OLD'], [])"
  refused 64 clean --json --older-than soon
  assert_output_json 'd["ok"], d["code"], bool(d["error"]), bool(d["hint"]), bool(d["next"])' "(False, 64, True, True, True)"
  refused 66 clean --json -C "$BATS_TEST_TMPDIR/elsewhere"
  assert_output_json 'd["ok"], d["code"]' "(False, 66)"
}

@test "in cron's environment: no HOME, no TERM, a short PATH, the current folder /" {
  given_checkpoint OLD completed 8
  cd /
  runs env -i PATH=/usr/bin:/bin LOGNAME=root SHELL=/bin/sh "$SUITE/bin/clean_checkpoints.sh" -q -C "$ROOT" </dev/null
  assert_equal "" "$output$stderr"
  assert_equal "" "$(kept)"
}

@test "from cron, a clone that holds the postbox needs no -C" {
  copy_suite "$BATS_TEST_TMPDIR/suite"
  fill_workspace "$BATS_TEST_TMPDIR/suite"
  ROOT=$BATS_TEST_TMPDIR/suite given_checkpoint OLD completed 8
  cd /
  runs env -i PATH=/usr/bin:/bin "$BATS_TEST_TMPDIR/suite/bin/clean_checkpoints.sh" 3
  assert_output "removed the checkpoints of 1 task"
}

@test "a Python older than 3.11 is refused, and says so" {
  local before
  given_checkpoint OLD completed 8
  cat >"$BATS_TEST_TMPDIR/old python" <<SH
#!/bin/sh
shift 3
exec "$PYTHON" -I -S -c '
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.hexversion, sys.version_info = 0x030902F0, (3, 9, 2, "final", 0)
from recovery.helper import main
main(sys.argv[1:])' "$SUITE/py" "\$@"
SH
  chmod +x "$BATS_TEST_TMPDIR/old python"
  before=$(everything)
  refused 69 with RECOVERY_PYTHON="$BATS_TEST_TMPDIR/old python" -- clean
  assert_stderr_has "needs Python 3.11, this is 3.9.2" RECOVERY_PYTHON "Nothing changed"
  assert_equal "$before" "$(everything)"
}

@test "a damaged outbox: nobody knows what is open, so nothing is removed" {
  given_checkpoint OLD completed 8
  given_record old done 31
  given postbox/CA/outbox.json '{"tasks": ['
  refused 65 clean
  assert_stderr_has postbox/CA/outbox.json
  assert_equal OLD "$(kept)"
  assert_exists "$ROOT/data/once/old.json"
}

@test "records of calls are removed thirty days after they were settled, unless their outcome is unknown" {
  given_record done-31 done 31
  given_record failed-31 failed 31
  given_record done-29 done 29
  given_record unknown-400 started 400
  runs clean
  assert_output "removed 2 idempotency records"
  assert_equal "done-29.json unknown-400.json" "$(find "$ROOT/data/once" -name '[!.]*' -type f -printf '%f\n' | sort | xargs)"
}

@test "killed half-way it leaves whole files, and the next run removes the rest" {
  given_checkpoint OLD completed 8
  crash_at checkpoints-removed clean
  assert_equal OLD "$(kept)"
  assert_absent "$ROOT/data/checkpoints/OLD_checkpoint.json"
  runs clean
  assert_output "removed the checkpoints of 1 task"
  assert_equal "" "$(kept)"
  assert_locks_free
  assert_no_stray_files 'data/checkpoints/.*.lock'
}

@test "a workspace without checkpoints is left as it is" {
  runs clean
  assert_output "nothing to remove"
  assert_absent "$ROOT/data" "$ROOT/logs"
}
