#!/bin/bash
# Usage: task_status.sh [-a AGENT] [-s STATUS | --archived] [-t TASK] [-p] [--json]
#
# What every agent has to do and has done. Takes no lock and changes nothing. A damaged outbox, or task, is named and
# doesn't hide the others; a commit that somebody left unfinished is said. A completed task whose checks, where they are
# known, never passed is shown as `claimed done` (with --json: claimed_done, not_passed).
#
# Options:
#   -a AGENT     only this agent
#   -s STATUS    only tasks with this status (pending, in_progress, completed, …, "claimed done")
#   -t TASK      only this task, be it archived
#   --archived   those that `recovery archive` took out of the outboxes; the same as -s archived
#   -p           the counters of .sprint/progress.json too
#   --json       one object on stdout
#   -C DIR       the workspace
#   -h, --help   this text
#
# Exit codes: 0; 64 usage; 65 an outbox is damaged, 74, 77 one can't be read (the others are shown); 66 no such workspace,
# agent or task.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON RECOVERY_DEBUG

script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=${script%/*}/$target
done
[[ $script == */* ]] || script=./$script

# shellcheck source=lib/setup.sh
source "${script%/*}/../lib/setup.sh"
help_if_asked "$script" "$@"
become_helper status "$@"
