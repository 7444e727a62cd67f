#!/usr/bin/env bats

load test_helper

# recovery breaker: the circuit breakers of the workspace, for people and for scripts.

in_python() { # <code>; `breaker` is api's, opened by two failures
  "$SUITE/.venv/bin/python" -I -c '
import sys
sys.path.insert(0, sys.argv[1])
from recovery.breaker import CircuitBreaker
breaker = CircuitBreaker("api", failure_threshold=2, reset_timeout=1000, base_path=sys.argv[2])
def fail():
    raise ConnectionError("no route")
'"$1" "$SUITE/py" "$ROOT"
}

generation() {
  json "$ROOT/data/breakers/api.json" 'd["generation"]'
}

@test "no breakers: said, and nothing made" {
  runs recovery breaker
  assert_output "no breakers here"
  runs recovery breaker list --json
  assert_output_json 'd["ok"], d["code"], d["breakers"]' "(True, 0, [])"
  assert_absent "$ROOT/data"
}

@test "one that a program has opened is shown, with its reason, and reset closes it" {
  in_python '
for _ in range(2):
    try:
        breaker.call(fail)
    except ConnectionError:
        pass' 2>/dev/null
  runs recovery breaker
  [[ $output == api*open*until*Z*"2 in a row failed"*"ConnectionError: no route" ]] || fail "$output"
  runs recovery breaker show api
  assert_output_has "open" "ConnectionError: no route" retry_after
  runs recovery breaker show api --json
  assert_output_json 'd["breaker"]["state"], d["breaker"]["failures"], 0 < d["breaker"]["retry_after"] <= 1000' "('open', 2, True)"
  runs recovery breaker reset api --dry-run
  assert_output_has "would close api"
  assert_json data/breakers/api.json 'd["state"]' open
  runs recovery breaker reset api
  assert_output "closed api (it was open)"
  assert_equal "" "$stderr"
  assert_json data/breakers/api.json 'd["state"], d["failures"]' "('closed', 0)"
  in_python 'print(breaker.call(lambda: "called"))'
  runs recovery breaker reset api --json
  assert_output_json 'd["changed"], d["breaker"]["state"]' "(False, 'closed')"
}

@test "trip refuses every program's calls, for as long as it was told" {
  runs recovery breaker trip api --for 10m --reason "quota is used up"
  assert_output_has "api is open until "
  assert_equal "" "$stderr"
  assert_json data/breakers/api.json 'd["state"], d["seconds"], d["reason"]' "('open', 600.0, 'quota is used up')"
  run -1 in_python 'breaker.call(fail)'
  assert_output_has CircuitOpen "quota is used up"
  assert_no_stray_files 'data/breakers/*'
  assert_locks_free
}

@test "trip --until opens it until a time, in UTC where it has no zone" {
  runs recovery breaker trip api --until 2096-02-29T08:00:00+02:00
  assert_output_has "api is open until 2096-02-29T0"
  assert_json data/breakers/api.json 'd["open_until"]' 2096-02-29T06:00:00Z
  runs recovery breaker reset api
  runs recovery breaker trip api --until 2096-02-29 --json
  assert_output_json 'd["changed"], d["breaker"]["state"]' "(True, 'open')"
  assert_json data/breakers/api.json 'd["open_until"], d["seconds"]' "('2096-02-29T00:00:00Z', None)"
}

@test "trip: one that is open for longer stays so" {
  local before
  runs recovery breaker trip api --for 2h
  before=$(generation)
  runs recovery breaker trip api --for 1h
  assert_output_has "which is longer; nothing changed"
  runs recovery breaker trip api --until "$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%SZ)" --json
  assert_output_json 'd["changed"]' False
  assert_equal "$before" "$(generation)"
  runs recovery breaker trip api --for 3h -q
  assert_equal "" "$output$stderr"
  assert_equal $((before + 1)) "$(generation)"
}

@test "allow: 0 where there is none or it is closed, 69 while it is open, and until when" {
  runs recovery breaker allow api
  assert_output "api is closed: go on"
  assert_absent "$ROOT/data"
  runs recovery breaker trip api
  run --separate-stderr -69 recovery breaker allow api -q
  assert_output ""
  assert_stderr_has "circuit api is open until 2" "recovery breaker"
  run --separate-stderr -69 recovery breaker allow api --json
  assert_output_json 'd["ok"], d["code"], bool(d["error"]), bool(d["next"])' "(False, 69, True, True)"
  runs recovery breaker reset api
  runs recovery breaker allow api -q
  assert_equal "" "$output$stderr"
}

@test "allow: a half-open one lets a script on, and takes nobody's ticket" {
  runs recovery breaker trip api --for 0.1
  until recovery breaker allow api -q 2>/dev/null; do :; done
  runs recovery breaker allow api
  assert_output "api is half_open: go on"
  in_python 'print(breaker.call(lambda: "called"))'
  runs recovery breaker show api --json
  assert_output_json 'd["breaker"]["state"]' closed
}

@test "a damaged state file is named; reset keeps its bytes and begins anew" {
  given data/breakers/api.json '{"format": 1, '
  runs recovery breaker
  assert_output_has "data/breakers/api.json is damaged"
  runs recovery breaker allow api
  assert_stderr_has "is damaged"
  runs recovery breaker reset api
  assert_stderr_has "api.json.damaged"
  assert_equal '{"format": 1, ' "$(cat "$ROOT/data/breakers/api.json.damaged")"
}

@test "one of a newer version is left alone" {
  given data/breakers/api.json '{"format": 99}'
  refused 69 recovery breaker trip api
  refused 69 recovery breaker reset api
  assert_equal '{"format": 99}' "$(cat "$ROOT/data/breakers/api.json")"
}

@test "what makes no sense is refused, and nothing is made" {
  refused 64 recovery breaker trip ../api
  refused 64 recovery breaker trip api --for soon
  refused 64 recovery breaker trip api --for 0
  refused 64 recovery breaker trip api --until 2020-01-01
  refused 64 recovery breaker trip api --until tomorrow
  refused 64 recovery breaker trip api --for 1h --until 2096-01-01
  refused 64 recovery breaker trip
  refused 64 recovery breaker frobnicate api
  refused 66 recovery breaker show api
  refused 66 recovery breaker reset api --json
  assert_output_json 'd["ok"], d["code"], bool(d["hint"])' "(False, 66, True)"
  assert_absent "$ROOT/data"
}

@test "--dry-run of trip changes nothing" {
  runs recovery breaker trip api --dry-run --json
  assert_output_json 'd["changed"], d["dry_run"]' "(False, True)"
  assert_absent "$ROOT/data"
}
