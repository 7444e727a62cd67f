# shellcheck shell=bash
# The front door: which verb is done where.

# shellcheck source=lib/setup.sh
source "${BASH_SOURCE[0]%/*}/setup.sh"

# done by the helper, which needs nothing installed; an agent's or a person's message may look like an option
readonly WORK_VERBS='archive assign claim cleanup complete distribute doctor edit escalations explain fail history hook import init locks note once prime progress reassign receipts recover release reopen report review rollback run serve setup start status sweep top trust try tx undo'
# done by the command line, which needs typer and orjson
readonly LOOK_VERBS='changes stats checkpoint breaker torture'

dispatch() { # <script> [-C <dir>] <verb> [<arg>...]
  local script=$1 where=()
  shift
  if [[ ${1-} == -C && $# -ge 2 ]]; then
    where=(-C "$2")
    shift 2
  fi
  local verb=${1-}
  [[ $# -eq 0 ]] || shift
  if is_one_of "$verb" "$WORK_VERBS"; then
    find_help "$verb" "${script%/*}"
    help_if_asked "$RECOVERY_HELP" "$@"
    [[ $verb != top ]] || ! is_live "$@" || become_live "$verb" "${where[@]}" "$@"
    become_helper "$verb" "${where[@]}" "$@"
  elif is_one_of "$verb" "$LOOK_VERBS"; then
    help_if_named "$RECOVERY_LIB/help/$verb.sh" "$@"
    become_command_line "$verb" "${where[@]}" "$@"
  fi
  case $verb in
  completion) print_completion "$@" ;;
  help)
    [[ $# -eq 0 ]] || exec "$script" "$1" --help
    help_if_asked "$script" --help
    ;;
  --version) print_version ;;
  --all)
    # shellcheck source=lib/help.sh
    source "$RECOVERY_LIB/help.sh"
    fit print_all "$script"
    ;;
  '') help_if_asked "$script" --help ;;
  *)
    help_if_asked "$script" "$verb"
    warn "unknown verb '${verb//[^[:print:]]/?}'"
    die "$EXIT_USAGE" "  next: recovery --help"
    ;;
  esac
}

is_one_of() { # <word> <list>
  [[ $1 =~ ^[a-z]+$ && " $2 " == *" $1 "* ]]
}

is_live() { # [<arg>...]; whether top is to draw on the terminal until somebody leaves it
  local word
  [[ -t 1 && ${TERM:-dumb} != dumb ]] || return 1
  for word in "$@"; do
    [[ $word != --once && $word != --line && $word != --full && $word != --json && $word != -q ]] || return 1
  done
}

find_help() { # <verb> <bin>; sets RECOVERY_HELP, the file whose head it is
  case $1 in
  assign) RECOVERY_HELP=$2/assign_task.sh ;;
  complete) RECOVERY_HELP=$2/complete_task_with_recovery.sh ;;
  status) RECOVERY_HELP=$2/task_status.sh ;;
  *) RECOVERY_HELP=$RECOVERY_LIB/help/$1.sh ;;
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
  print_help "$1"
  cat <<'REST'

The rest:
  claim AGENT TASK | AGENT --next                                                take a task; one winner
  release AGENT TASK [--force]                                                   give it back
  start AGENT TASK                                                               it is being worked on
  review AGENT TASK                                                              it is ready for review
  fail AGENT TASK "why"                                                          it failed; what depends on it learns
  reopen AGENT TASK                                                              it is to be done after all
  note AGENT TASK "words"                                                        add words to it
  reassign AGENT TASK OTHER                                                      give it to another agent
  edit AGENT                                                                     edit an outbox by hand, safely
  undo AGENT TASK                                                                take back its very last change, an undo too
  history AGENT [TASK] [--at TIME]                                               its changes; its outbox as it was
  top [--once | --line]                                                          who needs you, who has what, on one screen
  report [--html FILE] [--since 24h]                                             the same over a period, as text or one page
  serve [--port N]                                                               that page, live, for this machine's browser
  stats [TASK]                                                                   how often recovery was needed, how it ended
  prime [AGENT]                                                                  what an agent has to know when it begins
  setup claude|cursor|codex|agents-md [--remove] [--dry-run]                     tell an agent's program of the workspace
  hook claude|codex|cursor EVENT                                                 answer an agent's program at that moment
  archive [AGENT] [--older-than 30d] | --restore AGENT TASK                      completed tasks leave their outbox, and come back
  cleanup [--dry-run]                                                            keep what the suite writes within its bounds
  sweep                                                                          give back the tasks of dead owners
  distribute BACKLOG.json [--dry-run]                                            share a backlog out over the agents
  import FILE --agent AGENT | --distribute                                       take tasks over from other programs
  progress rebuild [--dry-run]                                                   make progress.json agree with the outboxes
  locks                                                                          who holds which lock
  checkpoint [list | show TASK | history TASK | add TASK STATE [JSON] | clean]   where tasks have got to
  breaker [list | show NAME | allow NAME | trip NAME | reset NAME]               the circuit breakers
  run AGENT TASK -- COMMAND...                                                   claim a task, run a command for it, complete or fail it
  try NAME -- COMMAND...                                                         run a command, and again where it fails
  tx FILE... -- COMMAND...                                                       change files in one step, or not at all
  once KEY -- COMMAND...                                                         run a command at most once
  once KEY --done | --undone                                                     settle a call of unknown outcome
  trust [--show | --yes HASH | --revoke]                                         approve what checks.json runs
  receipts [list [AGENT] | show AGENT TASK | verify]                             what says that completions were checked
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
