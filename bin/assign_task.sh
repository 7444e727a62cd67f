#!/bin/bash
# Usage: assign_task.sh [options] AGENT TASK "title" PRIORITY [HOURS]
#        assign_task.sh [options] AGENT/TASK "title" PRIORITY [HOURS]
#
# Give an agent a task: append it to the agent's outbox (made if there is none), list it in the progress file where
# there is one, and write the brief inbox/TASK.md, all or none. The same command again is a no-op; the same id with
# another title is refused.
#
# PRIORITY is LOW, MEDIUM, HIGH or CRITICAL in any case; HOURS an estimate such as 2 or 0.5.
#
# Options:
#   --check NAME    a check that it must pass before it counts as done (recovery trust --help); may be given again
#   --again         assign a task again whose assignment was rolled back
#   --dry-run       say what would be done, change nothing
#   --json          one object on stdout, for errors too
#   -v, --verbose   each file written
#   -q, --quiet     nothing on success
#   -C DIR          the workspace
#   -h, --help      this text
#
# Exit codes: 0 done or already done; 64 usage or bad id; 65 damaged data, or the id is taken; 66 no workspace;
# 69 the disk or a tool can't; 70 a person is needed; 71 repeat the command; 74 disk error, previous state stands;
# 75 busy; 77 permission.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_PYTHON RECOVERY_DEBUG

script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=${script%/*}/$target
done
[[ $script == */* ]] || script=./$script

# shellcheck source=lib/setup.sh
source "${script%/*}/../lib/setup.sh"
help_if_asked "$script" "$@"
become_helper assign "$@"
