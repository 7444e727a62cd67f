# shellcheck shell=bash
# Help comes from the comment at the head of each script, and from the one table of environment variables below.

# shellcheck source=lib/setup.sh
source "${BASH_SOURCE[0]%/*}/setup.sh"

print_help() { # <script>
  local line wanted=''
  {
    read -r line # the #! line
    while IFS= read -r line && [[ $line == '#'* ]]; do
      line=${line#'#'}
      line=${line# }
      if [[ $line == 'Environment: '* ]]; then
        wanted=${line#Environment: }
      else
        printf '%s\n' "$line"
      fi
    done
  } <"$1"
  [[ -z $wanted ]] || print_environment "$wanted"
}

print_environment() { # <name>...; all with "all"
  local name default meaning
  printf '\nEnvironment:\n'
  while IFS='|' read -r name default meaning; do
    [[ $1 == all || " $1 " == *" $name "* ]] || continue
    printf '  %-24s %s%s\n' "$name" "$meaning" "${default:+ (default $default)}"
  done <<'TABLE'
ORCHESTRATION_ROOT||the workspace, where -C doesn't name it
ORCHESTRATION_LOCK_DIR|/tmp/orchestration/locks|folder of the documented locks
RECOVERY_AGENT||the agent where only TASK is given
RECOVERY_TASK||the task that a change or a call belongs to; `recovery run` gives it to its command
RECOVERY_SESSION||whose claims are yours: a living pid, or a name
RECOVERY_CLAIM||the claim a command acts for, AGENT/TASK:GENERATION; set by recovery run
RECOVERY_MAX_ATTEMPTS|3|how often a command tries in all
RECOVERY_RETRY_DELAY|2|seconds before the second try; doubles, with jitter, at most 60
RECOVERY_LOCK_TIMEOUT|30|seconds that a single wait for a lock may take
RECOVERY_DEADLINE|60|seconds for the whole command: locks, waits and tries
RECOVERY_NOTIFY_CMD||a command that gets each escalation, one JSON object, on its stdin
RECOVERY_NOTIFY_URL||a URL to which each escalation is posted as JSON
RECOVERY_HEALTH_WARN||thresholds of health_check.sh, NAME=RANGE and spaces between them; --warn wins
RECOVERY_HEALTH_CRIT||the same for what is critical
RECOVERY_HEALTH_WINDOW|24h|how far back health_check.sh counts incidents
RECOVERY_HEALTH_PROMETHEUS||the file that health_check.sh writes its numbers to
RECOVERY_HEALTH_PING||the URL that health_check.sh pings
RECOVERY_PYTHON||the python3 to use (3.9 or newer)
RECOVERY_DEBUG||1 traces every step to stderr
NO_COLOR||no colour, whatever the terminal
TABLE
}
