#!/bin/bash
# Usage: recovery escalations [list] [--all]
#        recovery escalations show TASK [N]
#        recovery escalations resolve TASK [N]
#        recovery escalations clear TASK
#        recovery escalations notify
#
# What waits for a person, each with the command to run next: open escalations, parked tasks, and calls with an
# idempotency key whose process died before their outcome was known (see recovery once --help).
#
# `resolve` says that a task's open escalations, or the N-th, have been dealt with: they move to logs/recovery/resolved/,
# and the same reason is news again. `clear` lets a parked task run again. `notify` tells RECOVERY_NOTIFY_CMD and
# RECOVERY_NOTIFY_URL of those that nobody was told of.
#
# Options:
#   --all         for list: resolved ones too
#   --dry-run     for resolve, clear and notify: say what would be done, change nothing
#   --json        one object on stdout, for errors too
#   -q, --quiet   nothing on success, for resolve, clear and notify
#   -C DIR        the workspace
#   -h, --help    this text
#
# Exit codes: 0, also if something waits; 1 somebody could not be told; 64 usage or bad id; 66 no workspace or no such
# escalation; 74 disk error; 75 busy; 77 permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_DEBUG
