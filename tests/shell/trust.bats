#!/usr/bin/env bats

load test_helper

setup() {
  make_workspace
  export XDG_DATA_HOME="$BATS_TEST_TMPDIR/data home"
  given checks.json '{"checks": {"tests": {"run": ["touch", "ran"]}}}'
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T-1", "status": "pending", "checks": ["tests"]}]}'
}

hash_of() { # <file under the root>
  local sum
  sum=$(sha256sum <"$ROOT/$1")
  printf '%s' "${sum%% *}"
}

approve() {
  runs recovery trust --yes "$(hash_of checks.json)"
}

on_a_terminal() { # <answer> <command>...; util-linux script(1) makes one
  local answer=$1
  shift
  run -0 --separate-stderr script -qec "${*@Q}" /dev/null <<<"$answer"
}

@test "nothing is run before a person has approved it, and the refusal says what to do" {
  refused 77 complete_task CC T-1
  assert_stderr_has "never approved" "Nothing changed." "recovery trust"
  assert_absent "$ROOT/ran"
  assert_json logs/recovery/T-1_escalation.json 'd["error_type"]' Denied
}

@test "approved by its hash, the check runs and the task is completed" {
  approve
  assert_output_has "approved checks.json $(hash_of checks.json)"
  runs complete_task CC T-1
  assert_output_has "passed tests"
  assert_exists "$ROOT/ran"
  assert_completed CC T-1
}

@test "without a terminal nobody is asked, and a hash that isn't the file's approves nothing" {
  refused 64 recovery trust
  assert_stderr_has "no terminal" "--yes HASH"
  refused 64 recovery trust --yes 0123456789abcdef
  refused 64 recovery trust --yes "$(head -c 11 <<<"$(hash_of checks.json)")"
  refused 64 recovery trust --yes ""
  refused 77 complete_task CC T-1
}

@test "on a terminal the file is shown and only yes approves it" {
  on_a_terminal no "$SUITE/bin/recovery" trust || :
  refused 77 complete_task CC T-1
  on_a_terminal yes "$SUITE/bin/recovery" trust
  assert_output_has '"run": ["touch", "ran"]' "Type yes"
  runs complete_task CC T-1
}

@test "a change takes the approval away, and what changed is shown" {
  approve
  given checks.json '{"checks": {"tests": {"run": ["true"]}}}'
  refused 77 complete_task CC T-1
  assert_stderr_has "has changed since it was approved"
  assert_absent "$ROOT/ran"
  run --separate-stderr -1 recovery trust --show
  assert_output_has "changed:" '-{"checks": {"tests": {"run": ["touch", "ran"]}}}' '+{"checks": {"tests": {"run": ["true"]}}}'
  given checks.json '{"checks": {"tests": {"run": ["touch", "ran"]}}}'
  runs recovery trust --show
  runs complete_task CC T-1
}

@test "--revoke takes it back; twice is a no-op" {
  approve
  runs recovery trust --revoke
  refused 77 complete_task CC T-1
  runs recovery trust --revoke
  assert_output_has "nothing changed"
}

@test "approving what is approved is a no-op that says so" {
  approve
  approve
  assert_output_has "already approved"
}

@test "an approval is of one workspace: a copy is approved anew" {
  approve
  cp -r "$ROOT" "$BATS_TEST_TMPDIR/copy"
  run --separate-stderr -77 with ORCHESTRATION_ROOT="$BATS_TEST_TMPDIR/copy" -- complete_task CC T-1
  assert_stderr_has "never approved"
}

@test "the same workspace by another path is the same" {
  approve
  ln -s "$ROOT" "$BATS_TEST_TMPDIR/link"
  runs with ORCHESTRATION_ROOT="$BATS_TEST_TMPDIR/link" -- complete_task CC T-1
}

@test "without checks.json there is nothing to approve, and who names a check is refused" {
  rm "$ROOT/checks.json"
  refused 66 recovery trust
  refused 65 complete_task CC T-1
  assert_stderr_has "there is no checks.json"
}

@test "the file that was approved can't be removed to be rid of what it requires" {
  given checks.json '{"checks": {"tests": {"run": ["true"]}}, "required": {"CC": ["tests"]}}'
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T-2", "status": "pending"}]}'
  approve
  rm "$ROOT/checks.json"
  refused 77 complete_task CC T-2
  assert_stderr_has "is gone" --revoke
  given checks.json '{"checks": {}}'
  refused 77 complete_task CC T-2
}

@test "a checks.json that demands nothing of an agent doesn't stop it, approved or not" {
  given postbox/CC/outbox.json '{"tasks": [{"task_id": "T-2", "status": "pending"}]}'
  given checks.json '{"checks": {"tests": {"run": ["false"]}}, "required": {"CA": ["tests"]}}'
  runs complete_task CC T-2
}

@test "a damaged checks.json is refused, whatever is wrong with it" {
  local text
  for text in '' '[]' '{' '{"checks": []}' '{"check": {}}' '{"checks": {"tests": {}}}' '{"checks": {"tests": {"run": []}}}' \
    '{"checks": {"tests": {"run": [1]}}}' '{"checks": {"tests": {"run": ["true"], "run": ["false"]}}}' \
    '{"checks": {"tests": {"run": ["true"], "timeout": "soon"}}}' '{"checks": {"tests": {"run": ["true"], "timeout": 5}}}' \
    '{"checks": {"tests": {"run": ["true"], "cwd": "/"}}}' '{"checks": {"tests": {"run": ["true"], "cwd": "a/../.."}}}' \
    '{"checks": {"tests": {"run": ["true"], "env": {"A": 1}}}}' '{"checks": {"tests": {"run": ["true"], "runs": 1}}}' \
    '{"checks": {"tests": {"run": ["true"], "inputs": "a"}}}' '{"checks": {"../x": {"run": ["true"]}}}' \
    '{"checks": {"tests": {"run": ["true\u0000"]}}}' '{"checks": {}, "required": {"CC": ["tests"]}}' \
    '{"checks": {"tests": {"run": ["true"], "timeout": NaN}}}' '{"checks": {}, "required": {"C C": []}}'; do
    given checks.json "$text"
    refused 65 recovery trust --yes "$(hash_of checks.json)"
    refused 65 complete_task CC T-1
    [[ $stderr == *checks.json* ]] || fail "not named: $text"
  done
}

@test "a checks.json that is a folder, a fifo or a link that leads out is refused" {
  rm "$ROOT/checks.json"
  mkdir "$ROOT/checks.json"
  refused 65 recovery trust --show
  rmdir "$ROOT/checks.json"
  mkfifo "$ROOT/checks.json"
  refused 65 recovery trust --show
  rm "$ROOT/checks.json"
  echo '{"checks": {"tests": {"run": ["true"]}}}' >elsewhere.json
  ln -s "$PWD/elsewhere.json" "$ROOT/checks.json"
  refused 65 recovery trust --show
  refused 65 complete_task CC T-1
  rm elsewhere.json
}

@test "an approval that others may have written is not believed" {
  local file
  approve
  file=$(echo "$XDG_DATA_HOME"/postbox-recovery/trusted/*.json)
  chmod g+w "$file"
  refused 77 complete_task CC T-1
  assert_stderr_has "may be written by others"
  chmod g-w "$file"
  chmod o+w "${file%/*}"
  refused 77 complete_task CC T-1
  chmod o-w "${file%/*}"
  runs complete_task CC T-1
}

@test "another user's approval is not believed" {
  require_root
  approve
  chown 12345 "$XDG_DATA_HOME"/postbox-recovery/trusted/*.json
  refused 77 complete_task CC T-1
  assert_stderr_has "belongs to uid 12345"
}

@test "an approval in the workspace itself is none: agents write there" {
  refused 77 with XDG_DATA_HOME="$ROOT/data" -- recovery trust --yes "$(hash_of checks.json)"
  assert_stderr_has "in the workspace itself"
}

@test "a damaged approval is refused, and approving again mends it" {
  approve
  for file in "$XDG_DATA_HOME"/postbox-recovery/trusted/*.json; do
    echo '{"format": 1' >"$file"
  done
  refused 65 complete_task CC T-1
  assert_stderr_has "is damaged" "recovery trust"
  approve
  runs complete_task CC T-1
}

@test "without XDG_DATA_HOME the home folder has it, and without HOME the user database says where that is" {
  unset XDG_DATA_HOME
  runs with HOME="$BATS_TEST_TMPDIR/my home" -- recovery trust --yes "$(hash_of checks.json)"
  assert_exists "$BATS_TEST_TMPDIR/my home/.local/share/postbox-recovery/trusted"
  runs with HOME="$BATS_TEST_TMPDIR/my home" -- complete_task CC T-1
  runs env -u HOME "$SUITE/bin/recovery" trust --revoke
}

@test "a user without a home is told so" {
  require_root
  let_others_in
  chmod -R a+rwX "$ROOT"
  run --separate-stderr -69 as_user 54321 54321 env -u HOME -u XDG_DATA_HOME "$SUITE/bin/recovery" trust --revoke
  assert_stderr_has "XDG_DATA_HOME"
}

@test "--json says the state in one object" {
  run --separate-stderr -1 recovery trust --show --json
  assert_output_json 'd["ok"], d["state"], d["sha256"], d["checks"]["tests"]["run"]' \
    "(False, 'not approved', '$(hash_of checks.json)', ['touch', 'ran'])"
  approve
  runs recovery trust --show --json
  assert_output_json 'd["state"], d["changed"]' "('approved', False)"
}

@test "no escape code of the file reaches the terminal" {
  given_octets checks.json '{"checks": {"tests": {"run": ["echo", "\\\\u001b[31m \x1b"]}}}'
  run --separate-stderr recovery trust --show
  [[ $output$stderr != *$'\e'* ]]
}

@test "killed at any step, the approval is there or not, and the same command makes it so" {
  crash_at approve recovery trust --yes "$(hash_of checks.json)"
  run --separate-stderr -1 recovery trust --show
  approve
  runs recovery trust --revoke
  crash_at approved recovery trust --yes "$(hash_of checks.json)"
  approve
  assert_output_has "already approved"
  assert_equal 1 "$(find "$XDG_DATA_HOME" -type f | wc -l)"
}

@test "unknown options, words and two questions at once are refused" {
  refused 64 recovery trust checks.json
  refused 64 recovery trust --always
  refused 64 recovery trust --show --revoke
  refused 64 recovery trust --yes
}
