#!/bin/bash
# Usage: recovery undo [options] AGENT TASK
#
# Take back the very last recorded change of the task, whatever it was, over all its files, field by field, in one
# commit. That commit is a change too: undo again does again what was undone. What others changed in the same files
# stays. Refused (65, with both values) where somebody changed the same fields since, and where the line of a later change
# is lost from the log that may have been the task's: the outbox is not what the changes around it left.
#
# `recovery rollback` is the same mechanism and the safer habit: it takes back the last change unless that was a rollback,
# so twice is a no-op. After either, the command that was taken back is refused without --again; undoing the undo
# lifts that.
#
# Options:
#   --change N   only if the last change is this one, by number or txid (`recovery history` shows them); undone already
#                it is a no-op, so that this may be repeated
#   --dry-run    say what would be done, change nothing
#   --json       one object on stdout, for errors too
#   -v           each file
#   -C DIR       the workspace
#   -h, --help   this text
#
# Exit codes: 0 done or already done; 64 usage; 65 conflict, damaged data, or another change came after --change; 66
# nothing is recorded for the task; 76 somebody else has claimed it; 70, 71, 74, 75, 77 as for
# complete_task_with_recovery.sh.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
