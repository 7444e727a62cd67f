# bash completion for recovery and the scripts beside it: verbs, options, agents, tasks, breakers.
# Load it with: source <(recovery completion bash)

_recovery_status() { # <jq-free: one word a line from the plain status>
  recovery status 2>/dev/null
}

_recovery_tasks() { # [<option>...]; of everybody, or of -a AGENT
  local line
  while IFS= read -r line; do
    if [[ $line == '  '* ]]; then
      read -r line _ <<<"$line"
      printf ' %s' "$line"
    fi
  done < <(recovery status "$@" 2>/dev/null)
}

_recovery_breakers() {
  local name
  while read -r name _; do
    printf ' %s' "$name"
  done < <(recovery breaker list 2>/dev/null)
}

_recovery() {
  local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]-} action=${COMP_WORDS[2]-} at=$((COMP_CWORD - 1))
  local words='' line
  case ${COMP_WORDS[0]##*/} in
  complete_task_with_recovery.sh) verb=complete at=$COMP_CWORD ;;
  assign_task.sh) verb=assign at=$COMP_CWORD ;;
  task_status.sh) verb=status at=$COMP_CWORD ;;
  clean_checkpoints.sh) verb=clean at=$COMP_CWORD ;;
  health_check.sh) verb=health at=$COMP_CWORD ;;
  esac
  if [[ $at -eq 0 ]]; then
    words='assign complete status locks changes stats recover rollback escalations checkpoint breaker once init'
    words+=' torture completion --help --all --version'
  elif [[ $word == -* ]]; then
    words='-C --json --help'
    case $verb in
    complete) words+=' -m --again --keep-backup --dry-run --quiet --verbose' ;;
    assign) words+=' --again --dry-run --quiet --verbose' ;;
    rollback) words+=' --dry-run --quiet --verbose' ;;
    status) words+=' -a -s -t -p' ;;
    init) words+=' --here --verbose' ;;
    clean) words+=' --older-than --dry-run --quiet --verbose' ;;
    health) words+=' --quiet --verbose' ;;
    torture) words+=' --minutes --quick --dir --seed --trial --dry-run --quiet' ;;
    changes) words+=' --most' ;;
    stats) words+=' --since --alert-below --at-least --quiet' ;;
    once) words+=' --done --undone --dry-run --quiet' ;;
    checkpoint | breaker | escalations)
      case $verb-$action in
      checkpoint-clean) words+=' --older-than --dry-run --quiet' ;;
      checkpoint-add | breaker-reset | escalations-resolve | escalations-clear | escalations-notify)
        words+=' --dry-run --quiet'
        ;;
      breaker-trip) words+=' --for --until --reason --dry-run --quiet' ;;
      breaker-allow) words+=' --quiet' ;;
      escalations-list | escalations-) words+=' --all' ;;
      esac
      ;;
    esac
  elif [[ $verb == health ]]; then
    words='certificate journal conflicts'
  elif [[ $verb == assign && $at -eq 4 ]]; then
    words='LOW MEDIUM HIGH CRITICAL'
  elif [[ $at -eq 1 && $verb =~ ^(assign|complete|rollback|changes)$ ]] || [[ ${COMP_WORDS[COMP_CWORD - 1]} == -a ]]; then
    while IFS= read -r line; do
      [[ $line == ' '* ]] || words+=" ${line%%:*}"
    done < <(_recovery_status)
  elif [[ $at -eq 2 && $verb =~ ^(complete|rollback|changes)$ ]]; then
    words=$(_recovery_tasks -a "${COMP_WORDS[COMP_CWORD - 1]}")
  elif [[ $at -eq 1 ]]; then
    case $verb in
    stats) words=$(_recovery_tasks) ;;
    checkpoint) words='list show history add clean' ;;
    breaker) words='list show allow trip reset' ;;
    escalations) words='list show resolve clear notify' ;;
    esac
  elif [[ $at -eq 2 ]]; then
    case $verb-$action in
    checkpoint-show | checkpoint-history | checkpoint-add | checkpoint-clean) words=$(_recovery_tasks) ;;
    escalations-show | escalations-resolve | escalations-clear) words=$(_recovery_tasks) ;;
    breaker-show | breaker-allow | breaker-trip | breaker-reset) words=$(_recovery_breakers) ;;
    esac
  elif [[ $verb-$action-$at == checkpoint-add-3 ]]; then
    words='pending running completed failed retrying rolled_back skipped'
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -o default -F _recovery recovery complete_task_with_recovery.sh assign_task.sh task_status.sh \
  clean_checkpoints.sh health_check.sh
