#!/bin/bash
# Usage: clean_checkpoints.sh [options] [DAYS]
#
# Remove what nobody needs any more: the checkpoints of tasks that ended DAYS ago (7), and the records of idempotent
# calls that were settled 30 days ago. For cron:
#
#   17 4 * * *  /path/to/bin/clean_checkpoints.sh -q -C /path/to/workspace
#
# Kept whatever their age: the checkpoints of a task that is open in somebody's outbox, or whose last state is pending,
# running or retrying; that failed with steps done, which its next run resumes; that is parked or has an open
# escalation; whose last change was rolled back; and calls whose outcome is unknown. Needs Python 3.11.
#
# Options:
#   --older-than DAYS   the same as DAYS; 12h and 90m are understood too
#   --dry-run           say what would be removed, change nothing
#   --json              one object on stdout, for errors too
#   -v, --verbose       each task and record
#   -q, --quiet         nothing on success
#   -C DIR              the workspace
#   -h, --help          this text
#
# Exit codes: 0; 64 usage; 65 an outbox is damaged, so nobody knows what is open; 66 no workspace; 69 Python is too
# old, or the disk can't; 74 disk error; 75 busy; 77 permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG

script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=${script%/*}/$target
done
[[ $script == */* ]] || script=./$script

# shellcheck source=lib/setup.sh
source "${script%/*}/../lib/setup.sh"
help_if_asked "$script" "$@"
become_helper clean "$@"
