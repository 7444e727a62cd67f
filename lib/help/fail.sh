#!/bin/bash
# Usage: recovery fail [options] AGENT TASK "why"
#
# Say that a task failed. Reason and time go into its entry, a claim ends, and whatever depends on it, whoever's it is,
# gets `blocked_by`, all in one commit. Completing, reopening or starting it takes that out again.
#
# Options:
#   --dry-run        say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    each file written
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0 done, or it has failed already; 64 usage; 65 damaged data, or it is completed; 66 no such workspace, agent or task; 70, 71, 74, 75, 77 as for
# complete_task_with_recovery.sh;
# 76 somebody else has claimed it.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
