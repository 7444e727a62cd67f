# bash completion for recovery and the scripts beside it: verbs, options, agents, tasks, breakers.
# Load it with: source <(recovery completion bash)

_recovery_status() { # one word a line, from the plain status
  recovery status 2>/dev/null
}

_recovery_verbs() {
  local line
  while IFS= read -r line; do
    if [[ $line =~ ^'  '([a-z]+)' ' ]]; then
      printf ' %s' "${BASH_REMATCH[1]}"
    fi
  done < <(recovery --all 2>/dev/null)
}

_recovery_options() { # <command> [<word>...]; from its --help
  local line word
  while IFS= read -r line; do
    [[ $line == '  -'* ]] || continue
    for word in $line; do
      [[ $word == -* ]] || break
      printf ' %s' "${word%,}"
    done
  done < <("$@" --help 2>/dev/null)
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
  local words='' line of_task='complete rollback undo history changes claim release run start review fail reopen note reassign'
  case ${COMP_WORDS[0]##*/} in
  complete_task_with_recovery.sh) verb=complete at=$COMP_CWORD ;;
  assign_task.sh) verb=assign at=$COMP_CWORD ;;
  task_status.sh) verb=status at=$COMP_CWORD ;;
  clean_checkpoints.sh) verb=clean at=$COMP_CWORD ;;
  health_check.sh) verb=health at=$COMP_CWORD ;;
  esac
  if [[ $at -eq 0 ]]; then
    words="$(_recovery_verbs) --help --all --version"
  elif [[ $word == -* && $at -eq $COMP_CWORD ]]; then
    words=$(_recovery_options "${COMP_WORDS[0]}")
  elif [[ $word == -* ]]; then
    words=$(_recovery_options recovery "$verb")
  elif [[ $verb == health ]]; then
    words='certificate journal conflicts outboxes pending owners breakers escalations locks success waits logs checkpoints budget clock'
  elif [[ $verb == assign && $at -eq 4 ]]; then
    words='LOW MEDIUM HIGH CRITICAL'
  elif [[ $at -eq 1 && " assign edit archive prime $of_task " == *" $verb "* || $at -eq 3 && $verb == reassign ]] || [[ ${COMP_WORDS[COMP_CWORD - 1]} == -a ]]; then
    while IFS= read -r line; do
      [[ $line == ' '* ]] || words+=" ${line%%:*}"
    done < <(_recovery_status)
  elif [[ $at -eq 2 && " $of_task " == *" $verb "* ]]; then
    words=$(_recovery_tasks -a "${COMP_WORDS[COMP_CWORD - 1]}")
  elif [[ $at -eq 1 ]]; then
    case $verb in
    stats | explain) words=$(_recovery_tasks) ;;
    hook) words='claude codex cursor' ;;
    setup) words='claude cursor codex agents-md' ;;
    progress) words='rebuild' ;;
    checkpoint) words='list show history add clean' ;;
    breaker) words='list show allow trip reset' ;;
    escalations) words='list show resolve clear notify' ;;
    receipts) words='list show verify' ;;
    esac
  elif [[ $at -eq 2 ]]; then
    case $verb-$action in
    hook-claude) words='SessionStart PreToolUse Stop SessionEnd' ;;
    hook-codex) words='SessionStart PreToolUse Stop' ;;
    hook-cursor) words='sessionStart preToolUse stop sessionEnd' ;;
    checkpoint-show | checkpoint-history | checkpoint-add | checkpoint-clean) words=$(_recovery_tasks) ;;
    escalations-show | escalations-resolve | escalations-clear) words=$(_recovery_tasks) ;;
    breaker-show | breaker-allow | breaker-trip | breaker-reset) words=$(_recovery_breakers) ;;
    esac
  elif [[ $verb-$action-$at == checkpoint-add-3 ]]; then
    words='pending running completed failed retrying rolled_back skipped'
  fi
  # not compgen -W, which expands its words, nor unquoted by TAB: a task's id may be somebody's $(command)
  local all=() one
  IFS=$' \t\n' read -rd '' -a all <<<"$words" || :
  COMPREPLY=()
  for one in "${all[@]}"; do
    [[ $one != "$word"* || $one == *[^[:alnum:]._-]* ]] || COMPREPLY+=("$one")
  done
}

complete -o default -F _recovery recovery complete_task_with_recovery.sh assign_task.sh task_status.sh \
  clean_checkpoints.sh health_check.sh
