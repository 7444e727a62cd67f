#!/usr/bin/env bats

load test_helper

# Every option that the help of a script names is accepted, every variable is in its table.

@test "--help and -h print the help of each script, exit 0, on stdout, and touch nothing" {
  local script option
  remember_tree
  for script in assign_task.sh complete_task_with_recovery.sh task_status.sh clean_checkpoints.sh health_check.sh recovery; do
    for option in --help -h; do
      runs "$SUITE/bin/$script" "$option"
      assert_output_has "Usage: $script" "Environment:"
      assert_equal "" "$stderr"
    done
  done
  assert_unchanged
  assert_absent "$ROOT/data"
}

@test "the help of complete has every option and every variable" {
  runs complete_task --help
  assert_output_has " -m " " --again " " --keep-backup " " --dry-run " " --json " --verbose --quiet " -C DIR" --help \
    ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY \
    RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_PYTHON RECOVERY_DEBUG \
    "Exit codes"
}

@test "the help of assign has every option and every variable" {
  runs assign_task --help
  assert_output_has " --again " " --dry-run " " --json " --verbose --quiet " -C DIR" --help LOW MEDIUM HIGH CRITICAL \
    ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY \
    RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_PYTHON RECOVERY_DEBUG \
    "Exit codes"
}

@test "the help of status has every option and every variable" {
  runs task_status --help
  assert_output_has " -a " " -s " " -t " " -p " " --json " " -C DIR" --help ORCHESTRATION_ROOT RECOVERY_DEBUG "Exit codes"
}

@test "the help of clean_checkpoints.sh has every option and every variable" {
  runs "$SUITE/bin/clean_checkpoints.sh" --help
  assert_output_has DAYS " --older-than DAYS" " --dry-run " " --json " --verbose --quiet " -C DIR" --help \
    ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_PYTHON "Exit codes"
}

@test "the help of the verbs behind the front door is theirs" {
  local verb
  for verb in $(source "$SUITE/lib/verbs.sh" && printf '%s ' "$WORK_VERBS" "$LOOK_VERBS"); do
    [[ ! $verb =~ ^(assign|complete|status)$ ]] || continue
    runs recovery "$verb" --help
    assert_output_has "Usage: recovery $verb" "Exit codes" "Environment:"
  done
  runs recovery complete --help
  assert_output_has "Usage: complete_task_with_recovery.sh"
  runs recovery assign -h
  assert_output_has "Usage: assign_task.sh"
  runs recovery status --help
  assert_output_has "Usage: task_status.sh"
}

@test "--help behind other words is still a question for help" {
  runs complete_task CC --help
  assert_output_has "Usage: complete_task_with_recovery.sh"
  runs assign_task -C "$ROOT" --help
  assert_output_has "Usage: assign_task.sh"
  runs recovery -C "$ROOT" recover --help
  assert_output_has "Usage: recovery recover"
}

@test "the help of each verb behind the front door names every option it takes" {
  local verb action option
  for verb in stats "checkpoint add" "checkpoint clean" "breaker trip" "breaker allow" torture; do
    # Typer's own list of them
    run "$SUITE/.venv/bin/python" -I "$SUITE/py/recovery/__main__.py" --typer $verb --help
    local known=$output
    runs recovery "${verb%% *}" --help
    while read -r option; do
      assert_output_has "$option"
    done < <(grep -oE -- '--[a-z][a-z-]+' <<<"$known")
  done
}

@test "the help of each verb of the helper names every option it takes" {
  local verb option known
  for verb in $(source "$SUITE/lib/verbs.sh" && printf '%s ' "$WORK_VERBS"); do
    known=$("$PYTHON" -I -S -c '
import sys
sys.path.insert(0, sys.argv[1])
from recovery import helper
print(*helper.verb_of(sys.argv[2]).options)' "$SUITE/py" "$verb")
    runs recovery "$verb" --help
    for option in $known; do
      assert_output_has "$option"
    done
  done
}

@test "--help may stand anywhere, for verbs that take nobody's message" {
  runs recovery breaker trip api --for 10m --help
  assert_output_has "Usage: recovery breaker"
  runs recovery checkpoint add TASK-1 running '{}' -h
  assert_output_has "Usage: recovery checkpoint"
  runs recovery -C "$ROOT" once key --done --help
  assert_output_has "Usage: recovery once"
  assert_absent "$ROOT/data"
}

@test "help needs no workspace, no HOME and no python" {
  mkdir bin
  ln -s "$(type -P bash)" "$(type -P env)" bin/
  runs env -i PATH="$PWD/bin" "$(type -P bash)" "$SUITE/bin/complete_task_with_recovery.sh" --help
  assert_output_has "Usage: complete_task_with_recovery.sh"
  rm -r bin
}

@test "the front door lists ten verbs at most, and the rest with --all" {
  runs recovery --help
  assert_output_has Work: Look: Repair: "assign AGENT TASK" "complete AGENT TASK" "status " "doctor " "changes " "explain " \
    "recover " "rollback AGENT TASK" "escalations " --all
  [[ $output != *"completion bash"* ]]
  (($(grep -c '^  [a-z]' <<<"${output%%Environment:*}") <= 10))
  runs recovery --all
  assert_output_has "init [DIR]" "stats " "checkpoint " "breaker " "try NAME" "tx FILE" "once KEY" "completion bash" "--version" clean_checkpoints.sh \
    RECOVERY_LOCK_TIMEOUT RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL NO_COLOR
}

@test "a script that is reached through a link finds its help and its library" {
  mkdir links
  ln -s "$SUITE/bin/complete_task_with_recovery.sh" links/direct
  ln -s direct links/indirect
  runs links/indirect --help
  assert_output_has "Usage: complete_task_with_recovery.sh"
  runs links/indirect CC TASK-168B
  assert_completed CC TASK-168B
  rm -r links
}

@test "on a narrow terminal help is laid out anew, with every word of it" {
  local columns
  for columns in 40 80; do
    runs script -qec "stty cols $columns; '$SUITE/bin/recovery' explain --help" /dev/null
    output=${output//$'\r'/}
    ((columns >= $(wc -L <<<"$output"))) || fail "wider than $columns: $output"
    assert_equal "$("$SUITE/bin/recovery" explain --help | tr -s ' \n' '\n')" "$(tr -s ' \n' '\n' <<<"$output")"
  done
  assert_output_has $'\n  --full       all of it, however long\n'
}
