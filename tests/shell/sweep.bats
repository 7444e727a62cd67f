#!/usr/bin/env bats

load test_helper

# Liveness itself, with locks, groups, namespaces: tests/crash/test_claims.py and tests/unit/test_owners.py.

claimed_by_a_dead_process() { # <agent> <task>
  sleep 600 3>&- &
  runs with RECOVERY_SESSION="$!" -- recovery claim "$1" "$2"
  kill "$!"
  wait "$!" || :
}

@test "nothing to sweep is said, and nothing made" {
  runs recovery sweep
  assert_output "nothing to sweep"
  assert_absent "$ROOT/data" "$ROOT/logs"
}

@test "one line, for cron: no terminal, no HOME, a minimal PATH" {
  claimed_by_a_dead_process CC TASK-168B
  claimed_by_a_dead_process CA TASK-168C
  runs env -i PATH=/usr/bin:/bin "$SUITE/bin/recovery" -C "$ROOT" sweep </dev/null
  [[ $output =~ ^"swept 2 tasks: CA/TASK-168C (pid "[0-9]+" is gone), CC/TASK-168B (pid "[0-9]+" is gone)"$ ]] || fail "$output"
  assert_equal "" "$stderr"
  assert_equal "pending pending" "$(task CC TASK-168B) $(task CA TASK-168C)"
  assert_json .sprint/progress.json 'd["pending"], d["in_progress"]' "(2, 1)"
  runs recovery sweep
  assert_output "nothing to sweep"
  assert_no_stray_files
  assert_locks_free
}

@test "the recovery log and a checkpoint say why, and the statistics count a recovery" {
  claimed_by_a_dead_process CC TASK-168B
  runs recovery sweep
  jq -e '.error_type == "OwnerDied" and .success and .details.outcome == "returned" and (.error_message | endswith("is gone"))' \
    "$ROOT/logs/recovery/TASK-168B_recovery.jsonl"
  tail -n1 "$ROOT/data/checkpoints/TASK-168B_history.jsonl" |
    jq -e '.state == "pending" and .metadata.op == "sweep" and (.data.why | endswith("is gone"))'
  runs recovery stats TASK-168B --json
  assert_output_json 'd["stats"]["total_recoveries"], d["stats"]["successful_recoveries"]' "(1, 1)"
}

@test "--dry-run says what would be swept and changes nothing" {
  claimed_by_a_dead_process CC TASK-168B
  remember_tree
  runs recovery sweep --dry-run
  assert_output_has "would sweep 1 task: CC/TASK-168B"
  assert_unchanged
}

@test "-q says nothing, --json each task" {
  claimed_by_a_dead_process CC TASK-168B
  runs recovery sweep -q --dry-run
  assert_output ""
  runs recovery sweep --json
  assert_output_json '[(t["agent"], t["task"]) for t in d["swept"]], d["unknown"], d["changed"]' \
    "([('CC', 'TASK-168B')], [], True)"
}

@test "a damaged outbox is named, hides nobody, and is the exit code" {
  claimed_by_a_dead_process CC TASK-168B
  given postbox/CA/outbox.json '{"tasks": ['
  run --separate-stderr -65 recovery sweep
  assert_output_has "swept 1 task: CC/TASK-168B"
  assert_stderr_has "postbox/CA/outbox.json is damaged"
}

@test "a task that was put forward by hand meanwhile keeps its status: only the claim ends" {
  claimed_by_a_dead_process CC TASK-168B
  sed -i '0,/"status": "in_progress"/s//"status": "ready_for_review"/' "$ROOT/postbox/CC/outbox.json"
  runs recovery sweep
  assert_equal ready_for_review "$(task CC TASK-168B)"
  runs complete_task CC TASK-168B
}

@test "a sweep is taken back by rollback, and done again by the next one" {
  claimed_by_a_dead_process CC TASK-168B
  runs recovery sweep
  refused 76 with RECOVERY_CLAIM=CC/TASK-168B:1 -- complete_task CC TASK-168B
  runs recovery rollback CC TASK-168B
  assert_equal in_progress "$(task CC TASK-168B)"
  runs recovery sweep
  assert_output_has "swept 1 task"
}

@test "a word, or an unknown option, is refused" {
  refused 64 recovery sweep CC
  refused 64 recovery sweep --now
}

@test "lock files of claims that are over go, those that are held stay and are said" {
  mkdir -p "$ROOT/data/claims/CC"
  touch "$ROOT/data/claims/CC/TASK-168B.g1.lock" "$ROOT/data/claims/CC/mine.txt"
  hold "$ROOT/data/claims/CC/TASK-168B.g2.lock"
  runs with RECOVERY_SESSION=blue -- recovery claim CC TASK-168B
  assert_output_has "generation 3"
  runs recovery sweep
  assert_output_has "the lock of CC/TASK-168B, claim 2, which is over, is held by pid"
  assert_absent "$ROOT/data/claims/CC/TASK-168B.g1.lock"
  assert_exists "$ROOT/data/claims/CC/TASK-168B.g2.lock" "$ROOT/data/claims/CC/mine.txt"
  let_go
  runs recovery sweep
  assert_absent "$ROOT/data/claims/CC/TASK-168B.g2.lock"
}

@test "a link or a folder where a lock file should be is not followed and stops nobody" {
  echo mine >victim
  mkdir -p "$ROOT/data/claims/CC/TASK-168B.g1.lock"
  ln -s "$PWD/victim" "$ROOT/data/claims/CC/TASK-168B.g2.lock"
  runs recovery sweep
  assert_output "nothing to sweep"
  runs with RECOVERY_SESSION=blue -- recovery claim CC TASK-168B
  assert_equal mine "$(cat victim)"
  rm victim
}
