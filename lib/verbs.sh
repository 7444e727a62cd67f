# shellcheck shell=bash
# The front door: which verb is done where.

# shellcheck source=lib/setup.sh
source "${BASH_SOURCE[0]%/*}/setup.sh"

dispatch() { # <script> [-C <dir>] <verb> [<arg>...]
  local script=$1 where=()
  shift
  if [[ ${1-} == -C && $# -ge 2 ]]; then
    where=(-C "$2")
    shift 2
  fi
  local verb=${1-}
  [[ $# -eq 0 ]] || shift
  case $verb in
  assign) help_if_asked "${script%/*}/assign_task.sh" "$@" ;;
  complete) help_if_asked "${script%/*}/complete_task_with_recovery.sh" "$@" ;;
  status) help_if_asked "${script%/*}/task_status.sh" "$@" ;;
  init | recover | rollback) help_if_asked "$RECOVERY_LIB/help/$verb.sh" "$@" ;;
  locks | changes | stats | checkpoint | breaker | escalations | once | torture) help_if_named "$RECOVERY_LIB/help/$verb.sh" "$@" ;;
  esac
  case $verb in
  assign | complete | rollback | recover | status | init) become_helper "$verb" "${where[@]}" "$@" ;;
  completion) print_completion "$@" ;;
  locks | changes | stats | checkpoint | breaker | escalations | once | torture)
    become_command_line "$verb" "${where[@]}" "$@"
    ;;
  help)
    [[ $# -eq 0 ]] || exec "$script" "$1" --help
    help_if_asked "$script" --help
    ;;
  --version) print_version ;;
  --all)
    print_all "$script"
    ;;
  '') help_if_asked "$script" --help ;;
  *)
    help_if_asked "$script" "$verb"
    warn "unknown verb '${verb//[^[:print:]]/?}'"
    die "$EXIT_USAGE" "  next: recovery --help"
    ;;
  esac
}

help_if_named() { # <script> [<arg>...]; wherever it stands: none of these verbs takes anybody's message
  local word
  for word in "${@:2}"; do
    [[ $word != -- ]] || return 0
    [[ $word != -h && $word != --help ]] || help_if_asked "$1" --help
  done
}

print_all() { # <script>
  # shellcheck source=lib/help.sh
  source "$RECOVERY_LIB/help.sh"
  print_help "$1"
  cat <<'REST'

The rest:
  checkpoint [list | show TASK | history TASK | add TASK STATE [JSON] | clean]   where tasks have got to
  breaker [list | show NAME | allow NAME | trip NAME | reset NAME]               the circuit breakers
  once KEY --done | --undone                                                     settle a call of unknown outcome
  torture [--quick] [--dir PATH]                                                 prove on your own disk that nothing is lost
  completion bash                                                                for: source <(recovery completion bash)
  --version                                                                      which version this is

Beside it, for cron: clean_checkpoints.sh [DAYS] removes the checkpoints of ended tasks; health_check.sh [CHECK...] says
whether the workspace is all right.
REST
  print_environment all
}

print_version() {
  local line
  while IFS= read -r line; do
    if [[ $line =~ ^__version__\ =\ \"(.*)\"$ ]]; then
      printf 'postbox-recovery %s\n' "${BASH_REMATCH[1]}"
    fi
  done <"$RECOVERY_SUITE/py/recovery/__init__.py"
}

print_completion() { # <shell>
  [[ ${1-} == bash ]] || die "$EXIT_USAGE" "completion is for bash (zsh: autoload bashcompinit && bashcompinit first)"
  printf '%s\n' "$(<"$RECOVERY_LIB/completion.bash")"
}
