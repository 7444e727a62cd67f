#!/bin/bash
# Usage: recovery recover [--dry-run] [--json] [-C DIR]
#
# Finish or undo, now, what processes that died left in this workspace: an unfinished commit, records that could be
# neither finished nor undone, log lines that a power cut took, staged files. Every command does the first of these
# by itself when it meets one. Safe at any time and twice: the second finds nothing to recover.
#
# Exit codes: 0; 66 no workspace; 71 or 74 the disk doesn't let it; 75 a live process holds a lock that is needed.
# Environment: ORCHESTRATION_ROOT RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
