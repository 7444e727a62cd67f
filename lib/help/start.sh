#!/bin/bash
# Usage: recovery start [options] AGENT TASK
#
# Say that a task is being worked on (in_progress). It keeps nobody else away: that is `recovery claim`.
#
# Options:
#   --dry-run        say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    each file written
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0; 64 usage; 65 damaged data, or it is completed; 66 no such workspace, agent or task; 70, 71, 74, 75, 77 as for
# complete_task_with_recovery.sh;
# 76 somebody else has claimed it.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
