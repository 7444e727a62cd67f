#!/bin/bash
# Usage: recovery release [options] AGENT TASK
#
# Give a claimed task back: it is pending again, and free. With --force anybody's claim; who did it is recorded, and
# what its owner still runs is refused (76). Without a claim it is a no-op.
#
# Options:
#   --force          end somebody else's claim
#   --dry-run        say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    each file written
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0; 64 usage; 65 damaged data; 66 no such workspace, agent or task; 70, 71, 74, 75, 77 as for
# complete_task_with_recovery.sh; 76 somebody else has claimed it.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
