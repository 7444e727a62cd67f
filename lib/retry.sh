# shellcheck shell=bash
# Run a verb of the helper, up to RECOVERY_MAX_ATTEMPTS times, within one deadline.  The first try forks nothing but
# the helper itself: results come back in variables that the caller names.

# shellcheck source=lib/setup.sh
source "${BASH_SOURCE[0]%/*}/setup.sh"

run_verb() { # <verb> [<arg>...]
  local attempts deadline delay started
  whole_number attempts RECOVERY_MAX_ATTEMPTS 3
  milliseconds delay RECOVERY_RETRY_DELAY 2
  milliseconds deadline RECOVERY_DEADLINE 60
  clock started
  find_python

  local try code now wait text json='' output=''
  wants_json "$@" && json=1
  for ((try = 1; ; try++)); do
    clock now
    as_seconds text $((started + deadline - now))
    export RECOVERY_ATTEMPT=$try RECOVERY_DEADLINE=$text
    code=0
    if [[ $json ]]; then
      output=$(helper "$@") || code=$?
    else
      helper "$@" || code=$?
    fi
    settle_code
    may_try_again "$code" || break
    wait=$((delay / 2 + RANDOM * (delay / 2 + 1) / 32768))
    clock now
    if ((try >= attempts || now + wait >= started + deadline)); then
      break
    fi
    as_seconds text "$wait"
    warn "try $try of $attempts ended with $code; again in $text s"
    sleep "$text"
    delay=$((delay * 2 > 60000 ? 60000 : delay * 2))
  done
  [[ -z $output ]] || printf '%s\n' "$output" || :
  return "$code"
}

settle_code() { # a helper that a signal ended has told nobody what became of its work
  if ((code > 128 && code != 129 && code != 130 && code != 143)); then
    warn "the helper was ended by signal $((code - 128)): what became of the change is not confirmed"
    code=$EXIT_UNCONFIRMED
  fi
}

may_try_again() { # <code>
  [[ $EXIT_TRY_AGAIN == *" $1 "* ]]
}

wants_json() { # <verb> [<arg>...]
  local word
  for word; do
    case $word in
    --json) return 0 ;;
    --) return 1 ;;
    esac
  done
  return 1
}

clock() { # <variable>; milliseconds
  if [[ -n ${EPOCHREALTIME-} ]]; then
    local micro=${EPOCHREALTIME//[!0-9]/}
    printf -v "$1" %d "${micro%???}"
  else
    printf -v "$1" %d "${SECONDS}000"
  fi
}

as_seconds() { # <variable> <milliseconds>
  printf -v "$1" '%d.%03d' $(($2 / 1000)) $(($2 % 1000))
}

whole_number() { # <variable> <environment variable> <default>
  local value=${!2:-$3}
  [[ $value =~ ^[1-9][0-9]{0,3}$ ]] || die "$EXIT_USAGE" "$2=$value is not a number from 1 to 9999"
  printf -v "$1" %d "$value"
}

milliseconds() { # <variable> <environment variable> <default>; seconds, or with s, m, h
  local value=${!2:-$3} factor=1
  case $value in
  *s) value=${value%s} ;;
  *m) value=${value%m} factor=60 ;;
  *h) value=${value%h} factor=3600 ;;
  esac
  [[ $value =~ ^([0-9]{1,7})(\.([0-9]{1,9}))?$ ]] || die "$EXIT_USAGE" "$2=${!2-} is not a duration like 90, 10m or 2h"
  local part=${BASH_REMATCH[3]-}000
  printf -v "$1" %d $(((10#${BASH_REMATCH[1]} * 1000 + 10#${part:0:3}) * factor))
}
