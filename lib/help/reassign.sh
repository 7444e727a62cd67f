#!/bin/bash
# Usage: recovery reassign [options] AGENT TASK OTHER
#
# Give an open task to another agent: the entry as it stands, its brief, and its owner in progress move in one commit.
# One that was in progress is pending then. What checks.json requires of AGENT and not of OTHER goes along as the task's
# own checks (recovery trust --help). The agent is made if there is none. `recovery rollback AGENT TASK` takes it
# back.
#
# Options:
#   --dry-run        say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    each file written
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0 done, or OTHER was given it already; 64 usage; 65 damaged data, it has ended, or OTHER has a task of that
# name; 66 no such workspace, agent or task; 70, 71, 74, 75, 77 as for
# complete_task_with_recovery.sh; 76 somebody else has claimed it.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
