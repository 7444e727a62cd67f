#!/bin/bash
# make demo: assign and complete a task in a scratch workspace, see every file it touches, kill a completion half-way
# with -9, and see the next command finish it.
set -euo pipefail
shopt -s inherit_errexit

suite=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/postbox demo.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export ORCHESTRATION_ROOT=$scratch/workspace ORCHESTRATION_LOCK_DIR=$scratch/locks
export PATH=$suite/bin:$PATH

say() { # <text>
  printf '\n\033[1m# %s\033[0m\n' "$1" | if [[ -t 1 && -z ${NO_COLOR-} ]]; then cat; else sed $'s/\033\\[[0-9]*m//g'; fi
}

run() { # <command> [<arg>...]
  local code=0
  printf '$ %s\n' "${*@Q}" | sed "s/'\([A-Za-z0-9_./=-]*\)'/\1/g"
  "$@" || code=$?
  ((code == 0)) || printf '(exit code %d)\n' "$code"
}

files() {
  (cd "$ORCHESTRATION_ROOT" && find . -type f -newer "$scratch/mark" ! -name '.*.lock' | sort | sed 's|^\./|  |')
  touch "$scratch/mark"
}

say 'A small postbox: two agents, a progress file.'
cp -R "$suite/tests/demo/workspace" "$ORCHESTRATION_ROOT"
touch "$scratch/mark"
run task_status.sh -p

say 'Give CC a task.'
run assign_task.sh CC TASK-003 'Write the release notes' HIGH 2
say 'Files written:'
files

say 'Complete it.'
run complete_task_with_recovery.sh -v CC TASK-003 'Notes are in docs/release.md'
say 'Files written:'
files
say 'Once more: nothing happens.'
run complete_task_with_recovery.sh CC TASK-003 'Notes are in docs/release.md'

say 'Now kill -9 a completion half-way: the outbox is replaced, progress and record are not yet.'
# job control gives the command a process group of its own: the whole group is killed
set -m
RECOVERY_FAULT=replaced:1=kill-group complete_task_with_recovery.sh CA TASK-002 'All pages reviewed' 2>/dev/null &
wait $! 2>/dev/null || printf '(killed by signal %d)\n' $(($? - 128))
set +m
run task_status.sh -a CA

say 'Whoever comes next finishes it first, then does its own work.'
run complete_task_with_recovery.sh CC TASK-001 'Suite is green'
run task_status.sh -p
say 'And a change can be taken back, over all its files.'
run recovery rollback CC TASK-001
run recovery recover
