#!/bin/bash
# Usage: recovery rollback [options] AGENT TASK
#
# Take back the task's last recorded change over all its files, field by field, in one commit. What others changed in
# the same files stays. Refused (65, with both values) where somebody changed the same fields since, and where the line
# of a later change of the task may be lost from the log. Twice is a no-op. A rolled-back completion is not done again
# unless --again is given to it; its receipt, if it has one, is revoked in the same commit. The rollback of a reopening
# restores it: the receipt says what was passed then, nothing is run again, and what is required only since then is
# shown as never passed. A claim's number stays, so that the next one gets a higher.
#
# `recovery undo` is the same for the very last change, whatever it was, a rollback and an undo too: twice does it again.
#
# Options:
#   --dry-run    say what would be done, change nothing
#   --json       one object on stdout, for errors too
#   -v           each file
#   -C DIR       the workspace
#   -h, --help   this text
#
# Exit codes: 0 done or already done; 64 usage; 65 conflict or damaged data; 66 nothing is recorded for the task;
# 76 somebody else has claimed it; 70, 71, 74, 75, 77 as for complete_task_with_recovery.sh.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
