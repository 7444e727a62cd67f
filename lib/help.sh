# shellcheck shell=bash
# Help comes from the comment at the head of each script, and from the one table of environment variables below.

# shellcheck source=lib/setup.sh
source "${BASH_SOURCE[0]%/*}/setup.sh"

fit() { # <command>...; what it prints, paragraphs and lists laid out anew where the terminal is narrow
  local columns=0
  [[ ! -t 1 ]] || { read -r _ columns < <(stty size 2>/dev/null <&3); } 3>&1 || :
  if ((columns < 20 || columns >= 120)); then
    "$@"
    return
  fi
  local line text='' hang=-1
  while IFS= read -r line; do
    if ((hang >= 0)) && goes_on "$line" "$hang"; then
      text+=" ${line:hang}"
      continue
    fi
    [[ $hang == -1 && -z $text ]] || print_wrapped "$text" "$hang"
    text=$line
    if [[ $line =~ ^' '+[^\ ]+(' '[^\ ]+)*'  '+ ]]; then
      hang=${#BASH_REMATCH[0]} # a thing, and behind two spaces its meaning
    elif [[ -z $line || $line == ' '* || $line == Usage:* ]] || is_heading "$line"; then
      hang=-2
    else
      hang=0
    fi
  done < <("$@")
  print_wrapped "$text" "$hang"
}

goes_on() { # <line> <hang>; whether it belongs to the text before, whose lines begin in that column
  local spaces=${1%%[! ]*}
  [[ -n $1 && ${#spaces} -eq $2 ]] && ! is_heading "$1"
}

is_heading() { # <line>
  [[ $1 == [A-Z]*: && ${#1} -lt 20 ]]
}

print_wrapped() { # <text> <hang>; over lines of $columns, further ones beginning in that column
  local rest=$1 lead='' part indent
  if (($2 > columns / 2)); then # the thing has a line of its own
    part=${rest:0:$2}
    print_wrapped "${part%"${part##*[! ]}"}" -2
    print_wrapped "      ${rest:$2}" 6
    return
  fi
  printf -v indent '%*s' "$(($2 < 0 ? 4 : $2))" ''
  while ((${#lead} + ${#rest} > columns)); do
    part=${rest:0:columns-${#lead}+1}
    part=${part% *}
    if [[ -z ${part// /} || ${#part} -gt $((columns - ${#lead})) ]]; then # a word that is too long
      part=${rest%% *}
      [[ -n $part && $part != "$rest" ]] || break
    fi
    printf '%s%s\n' "$lead" "$part"
    rest=${rest:${#part}}
    rest=${rest#"${rest%%[! ]*}"}
    lead=$indent
  done
  printf '%s%s\n' "$lead" "$rest"
}

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
