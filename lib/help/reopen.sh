#!/bin/bash
# Usage: recovery reopen [options] AGENT TASK
#
# A task that failed, waits for review or was completed is pending again. The completion record goes, progress is counted
# back, what it blocked is free, in one commit; `recovery changes` still shows what it said. A task that is in the
# outbox's history stays there.
#
# Options:
#   --dry-run        say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    each file written
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0 done, or it is open already; 64 usage; 65 damaged data, or it is in the archive;
# 66 no such workspace, agent or task; 70, 71, 74, 75, 77 as for
# complete_task_with_recovery.sh; 76 somebody else has claimed it.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
