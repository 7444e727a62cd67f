# shellcheck shell=bash
# Sourced first by every script in bin/: strict mode, where the suite stands, and how to fail visibly.
[[ ${RECOVERY_SETUP_READ-} != "$$" ]] || return 0
RECOVERY_SETUP_READ=$$

if ((BASH_VERSINFO[0] < 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] < 4))); then
  printf 'recovery: bash 4.4 or newer is needed, this is %s\n' "$BASH_VERSION" >&2
  exit 69
fi
set -euo pipefail
shopt -s inherit_errexit

RECOVERY_LIB=${BASH_SOURCE[0]%/*}
[[ $RECOVERY_LIB == /* ]] || RECOVERY_LIB=$PWD/$RECOVERY_LIB
RECOVERY_SUITE=${RECOVERY_LIB%/*}

# shellcheck source=lib/exit_codes.sh
source "$RECOVERY_LIB/exit_codes.sh"
# shellcheck source=lib/python.sh
source "$RECOVERY_LIB/python.sh"

warn() { # <text>
  printf 'recovery: %s\n' "$1" >&2 || :
}

die() { # <status> <text>
  warn "$2"
  exit "$1"
}

help_if_asked() { # <script> [<arg>...]
  local script=$1 words=0
  shift
  while (($# && words < 2)); do # a third word may be somebody's message
    case $1 in
    -h | --help)
      # shellcheck source=lib/help.sh
      source "$RECOVERY_LIB/help.sh"
      fit print_help "$script"
      exit 0
      ;;
    --) return ;;
    -C) shift ;;
    -*) ;;
    *) words=$((words + 1)) ;;
    esac
    (($# == 0)) || shift
  done
}
