#!/usr/bin/env bats

load test_helper

# recovery stats: the numbers of the recovery logs.

given_recoveries() { # <task> <how many> <outcome> [<days ago>]
  local n when
  when=$(date -u -d "${4:-0} days ago" +%Y-%m-%dT%H:%M:%SZ)
  mkdir -p "$ROOT/logs/recovery"
  for ((n = 0; n < $2; n++)); do
    printf '{"txid": "%s-%d-end", "task_id": "%s", "timestamp": "%s", "error_type": "ConnectionError", "error_message": "x", "strategy": "RETRY", "success": true, "details": {"incident": "%s-%d", "outcome": "%s", "attempts": 3, "seconds": 1.5, "lock_wait": 0.25}}\n' \
      "$3" "$n" "$1" "$when" "$3${4-}" "$n" "$3"
  done >>"$ROOT/logs/recovery/$1_recovery.jsonl"
}

@test "each number stands under its name in --json, on one screen" {
  local name
  given_recoveries TASK-1 19 recovered
  given_recoveries TASK-2 1 failed
  runs recovery stats
  assert_equal "" "$stderr"
  ((${#lines[@]} <= 24))
  [[ $output =~ success_rate\ +0\.9500 ]]
  [[ $output =~ total_recoveries\ +20 ]]
  [[ $output =~ by_strategy\ +"RETRY 19/20" ]]
  [[ $output =~ by_error_type\ +"ConnectionError 19/20" ]]
  [[ $output =~ by_outcome\ +"recovered 19, failed 1" ]]
  [[ $output =~ avg_retry_time\ +"1.500 s" ]]
  [[ $output =~ lock_wait_time\ +"5.000 s" ]]
  local table=$output
  runs recovery stats --json
  assert_output_json 'd["ok"], d["code"], d["changed"], d["stats"]["success_rate"], d["stats"]["failed_tries"]' \
    "(True, 0, False, 0.95, 41)"
  while read -r name; do
    [[ $table == *"$name "* ]] || fail "no $name"
  done < <(printf '%s' "$output" | json - '"\n".join(d["stats"])')
}

@test "many kinds of errors still fit on the screen" {
  local n
  given_recoveries TASK-1 30 recovered
  for n in {1..30}; do
    sed -i "${n}s/ConnectionError/Error$n/" "$ROOT/logs/recovery/TASK-1_recovery.jsonl"
  done
  runs recovery stats
  assert_output_has "24 more"
  ((${#lines[@]} <= 24))
}

@test "nothing recorded is a success rate of 1, and makes nothing" {
  runs recovery stats
  [[ $output =~ success_rate\ +1\.0000 ]]
  runs recovery stats --json
  assert_output_json 'd["stats"]["success_rate"], d["stats"]["total_recoveries"]' "(1.0, 0)"
  assert_absent "$ROOT/data" "$ROOT/logs"
}

@test "of one task" {
  given_recoveries TASK-1 3 recovered
  given_recoveries TASK-2 2 failed
  runs recovery stats TASK-2 --json
  assert_output_json 'd["task"], d["stats"]["total_recoveries"], d["stats"]["success_rate"]' "('TASK-2', 2, 0.0)"
  runs recovery stats CC/TASK-1 --json
  assert_output_json 'd["stats"]["total_recoveries"]' 3
  refused 64 recovery stats ../TASK-1
}

@test "--since takes a duration or a time" {
  local since
  given_recoveries TASK-1 1 recovered
  given_recoveries TASK-1 2 failed 3
  for since in 24h 2d 86400 "$(date -u -d '1 day ago' +%Y-%m-%dT%H:%M:%SZ)" "$(date -u -d '1 day ago' +%Y-%m-%d)" \
    "$(date -u -d '1 day ago' +%Y%m%d)"; do
    runs recovery stats --since "$since" --json
    assert_output_json 'd["stats"]["total_recoveries"]' 1
  done
  runs recovery stats --since 4d --json
  assert_output_json 'd["stats"]["total_recoveries"]' 3
  refused 64 recovery stats --since yesterday
  refused 64 recovery stats --since '' --json
  assert_output_json 'd["ok"], d["code"], bool(d["next"])' "(False, 64, True)"
}

@test "--alert-below: 1 where the rate is below and there are enough, else 0" {
  given_recoveries TASK-1 18 recovered
  given_recoveries TASK-2 1 failed
  runs recovery stats --alert-below 0.95 # 19 are too few
  given_recoveries TASK-3 1 failed
  run --separate-stderr -1 recovery stats --alert-below 0.95
  assert_stderr_has "success_rate 0.9000 of 20 recoveries is below 0.95" "recovery escalations"
  assert_output_has success_rate
  run --separate-stderr -1 recovery stats --alert-below 0.95 --json
  assert_output_json 'd["ok"], d["code"], d["alert"], bool(d["error"])' \
    "(False, 1, {'below': 0.95, 'at_least': 20, 'raised': True}, True)"
  runs recovery stats --alert-below 0.9
  runs recovery stats --alert-below 0.95 --at-least 21
  run -1 recovery stats TASK-3 --alert-below 0.95 --at-least 1
}

@test "-q: cron hears of the alert alone" {
  given_recoveries TASK-1 20 recovered
  runs recovery stats -q --alert-below 0.95
  assert_equal "" "$output$stderr"
  given_recoveries TASK-2 20 failed
  run --separate-stderr -1 recovery stats -q --alert-below 0.95
  assert_output ""
  assert_stderr_has "success_rate 0.5000"
}

@test "thresholds that make no sense are refused" {
  refused 64 recovery stats --alert-below 95
  refused 64 recovery stats --alert-below much
  refused 64 recovery stats --alert-below 0.95 --at-least 0
  refused 64 recovery stats TASK-1 TASK-2
}

@test "torn lines are counted, not read" {
  given_recoveries TASK-1 2 recovered
  printf 'torn\n{"task_id": "TAS' >>"$ROOT/logs/recovery/TASK-1_recovery.jsonl"
  runs recovery stats --json
  assert_output_json 'd["stats"]["total_recoveries"], d["stats"]["skipped_lines"]' "(2, 1)"
}
