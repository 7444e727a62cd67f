#!/usr/bin/env bats

load test_helper

# The files that an agent's program reads, and the hooks in them as the program runs them.

@test "setup shows the difference, then writes it, and --remove gives back what was there" {
  printf 'Our rules' >"$ROOT/AGENTS.md"
  runs recovery setup claude
  assert_output_has "+++ AGENTS.md" "+@AGENTS.md" "+++ .claude/settings.json" \
    "set up claude in $ROOT: AGENTS.md, CLAUDE.md, .claude/settings.json"
  assert_exists "$ROOT/CLAUDE.md" "$ROOT/.claude/settings.json"
  runs recovery setup claude
  assert_output "claude is already set up in $ROOT; nothing changed"
  runs recovery setup -q --remove claude
  assert_output ""
  assert_equal "" "$stderr"
  assert_equal "Our rules" "$(cat "$ROOT/AGENTS.md")"
  assert_absent "$ROOT/CLAUDE.md" "$ROOT/.claude" "$ROOT/data/setup.json"
}

@test "a dry run and a refusal change nothing, and JSON says what would be" {
  runs recovery setup cursor --dry-run --json
  assert_output_json "[one['name'] for one in d['files']]" "['AGENTS.md', '.cursor/hooks.json']"
  assert_output_json "d['changed']" False
  assert_absent "$ROOT/AGENTS.md" "$ROOT/.cursor"
  given .cursor/hooks.json '{"version": 1, // mine'
  refused 65 recovery setup cursor
  assert_stderr_has ".cursor/hooks.json can't be changed safely" "line 1, column 16" "Nothing was changed"
  assert_absent "$ROOT/AGENTS.md"
  refused 64 recovery setup vim
  refused 64 recovery setup
  cd "$BATS_TEST_TMPDIR/elsewhere"
  refused 66 with ORCHESTRATION_ROOT="$BATS_TEST_TMPDIR/elsewhere" -- recovery setup claude
}

@test "the hooks do what they are there for, run as the program runs them" {
  local command
  export RECOVERY_SESSION=mine RECOVERY_AGENT=CC PATH="$SUITE/bin:$PATH"
  runs recovery setup claude
  runs recovery claim CC TASK-168B
  hook_of() { # <event>; the command in the settings
    json "$ROOT/.claude/settings.json" "[h['command'] for g in d['hooks']['$1'] for h in g['hooks']][0]"
  }
  hooked() { # <event> <members of the input>
    run --separate-stderr sh -c "$(hook_of "$1")" <<<"{\"session_id\": \"s\", \"cwd\": \"$ROOT\", $2}"
  }
  cd /
  unset ORCHESTRATION_ROOT
  hooked SessionStart '"source": "startup"'
  assert_equal 0 "$status"
  assert_output_has "agent CC, 2 open tasks" '- TASK-168B CRITICAL yours "End to end tests"' "5. Not 0 = not done"
  hooked PreToolUse "\"tool_name\": \"Edit\", \"tool_input\": {\"file_path\": \"$ROOT/postbox/CC/outbox.json\"}"
  assert_equal 2 "$status"
  assert_stderr_has "postbox/CC/outbox.json is changed by commands only" "recovery edit CC"
  hooked PreToolUse "\"tool_name\": \"Edit\", \"tool_input\": {\"file_path\": \"$ROOT/notes.md\"}"
  assert_equal 0 "$status"
  hooked Stop '"stop_hook_active": false'
  assert_equal 2 "$status"
  assert_stderr_has "You still hold CC/TASK-168B."
  hooked Stop '"stop_hook_active": false'
  assert_equal 0 "$status"
  hooked SessionEnd '"reason": "logout"'
  assert_equal 0 "$status"
  assert_equal pending "$(task CC TASK-168B)"
}

@test "prime says the same with nothing installed, in no locale, to whoever closes the pipe" {
  runs recovery prime CA
  local said=$output
  runs with LC_ALL=C PATH=/usr/bin:/bin NO_COLOR=1 -- "$SUITE/bin/recovery" prime CA
  assert_output "$said"
  runs bash -o pipefail -c '"$1" prime CA | head -1' bash "$SUITE/bin/recovery"
  assert_output "${said%%$'\n'*}"
  refused 66 recovery prime XX
  refused 64 recovery prime ../CC
}
