# bash completion for recovery and the scripts beside it: verbs, options, agents, tasks.
# Load it with: source <(recovery completion bash)

_recovery_status() { # <jq-free: one word a line from the plain status>
  recovery status 2>/dev/null
}

_recovery() {
  local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]-} at=$((COMP_CWORD - 1))
  local words='' line agent
  case ${COMP_WORDS[0]##*/} in
  complete_task_with_recovery.sh) verb=complete at=$COMP_CWORD ;;
  assign_task.sh) verb=assign at=$COMP_CWORD ;;
  task_status.sh) verb=status at=$COMP_CWORD ;;
  esac
  if [[ $at -eq 0 ]]; then
    words='assign complete status locks changes recover rollback init completion --help --all --version'
  elif [[ $word == -* ]]; then
    words='-C --json --help'
    case $verb in
    complete) words+=' -m --again --keep-backup --dry-run --quiet --verbose' ;;
    assign) words+=' --again --dry-run --quiet --verbose' ;;
    rollback) words+=' --dry-run --quiet --verbose' ;;
    status) words+=' -a -s -t -p' ;;
    init) words+=' --here --verbose' ;;
    esac
  elif [[ $verb == assign && $at -eq 4 ]]; then
    words='LOW MEDIUM HIGH CRITICAL'
  elif [[ $at -eq 1 && $verb =~ ^(assign|complete|rollback|changes)$ ]] || [[ ${COMP_WORDS[COMP_CWORD - 1]} == -a ]]; then
    while IFS= read -r line; do
      [[ $line == ' '* ]] || words+=" ${line%%:*}"
    done < <(_recovery_status)
  elif [[ $at -eq 2 && $verb =~ ^(complete|rollback|changes)$ ]]; then
    agent=${COMP_WORDS[COMP_CWORD - 1]}
    while IFS= read -r line; do
      if [[ $line == '  '* ]]; then
        read -r line _ <<<"$line"
        words+=" $line"
      fi
    done < <(recovery status -a "$agent" 2>/dev/null)
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -o default -F _recovery recovery complete_task_with_recovery.sh assign_task.sh task_status.sh
