#!/bin/bash
# Usage: complete_task_with_recovery.sh [options] AGENT TASK ["message"]
#        complete_task_with_recovery.sh [options] AGENT/TASK ["message"]
#
# Mark a task completed: the agent's outbox, the progress file, the completion record, a checkpoint and the change
# log, all or none, through kill -9, power cuts and full disks. Tried again where that helps. Repeating it is safe:
# a task that is completed already is left as it is (exit 0). A claim of it ends; somebody else's claim refuses it (76).
#
# A message is stored exactly as given; one that begins with a dash may follow "--".
#
# Options:
#   -m MESSAGE      the message, instead of the third word
#   --again         complete a task again whose completion was rolled back
#   --keep-backup   keep outbox.json.backup_TASK after success
#   --dry-run       say what would be done, change nothing
#   --json          one object on stdout, for errors too
#   -v, --verbose   each file written
#   -q, --quiet     nothing on success
#   -C DIR          the workspace
#   -h, --help      this text
#
# Exit codes: 0 done or already done; 64 usage or bad id; 65 damaged data or conflict; 66 no such workspace, agent
# or task; 69 the disk or a tool can't; 70 a person is needed; 71 repeat the command; 74 disk error, previous state
# stands; 75 busy; 76 claimed by somebody else, or your claim is over; 77 permission.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_PYTHON RECOVERY_DEBUG

script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=${script%/*}/$target
done
[[ $script == */* ]] || script=./$script

# shellcheck source=lib/setup.sh
source "${script%/*}/../lib/setup.sh"
help_if_asked "$script" "$@"
become_helper complete "$@"
