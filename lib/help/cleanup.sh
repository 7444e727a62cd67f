#!/bin/bash
# Usage: recovery cleanup [options]
#
# Keep what the suite writes within its bounds: 256 MB and 20,000 files a workspace. For cron:
#
#   41 4 * * *  /path/to/bin/recovery -C /path/to/workspace cleanup -q
#
# It also runs by itself, for about a second, behind a command that finds a log grown by another 8 MB or begins a month.
# Logs that have become long are put aside and compressed (gzip; `recovery changes` and all others read them as ever).
# Each kind of files has its share of the budget and an age. What is older goes, and beyond the share the oldest:
#
#   the change log       40 %           never each month's own file, nor the newest part that was put aside
#   checkpoints          10 %, 7 days   never of tasks that are open, parked, escalated, resumable, or were undone
#   recovery logs        10 %, 30 days  never of tasks that are open, parked or escalated; the statistics stay exact
#   escalations           2 %, 90 days  those that were resolved
#   backups               8 %, 30 days  of tasks that are completed, or archived
#   damaged originals    10 %, 90 days  never what an open escalation names; with the report beside it
#   edits set aside       4 %, 90 days  never parked ones, nor what an open escalation names
#   receipts              6 %           never: a chain has no end that could go
#   breakers              1 %, 90 days  never one that is open or counts failures
#   idempotency keys      3 %, 30 days  never of a call whose outcome is unknown, and none that is younger
#   durations             1 %, 90 days
#   checks                3 %, 30 days
#   lock files            1 %           free ones, whose file is gone
#
# Receipts are evidence, each the proof of the one before it: they count, and nothing removes them. Where they have more
# than their share the others have as much less; a larger budget is the cure.
#
# Where what may not go is too much, that is said, and health_check.sh warns. Another budget, in data/config.json:
# "bounds": {"megabytes": 512, "files": 50000}. Tasks are yours: outboxes, briefs, completion records and archives are
# in no budget; `recovery archive` keeps outboxes short. Checkpoints, logs, keys and breakers need Python 3.11.
#
# Options:
#   --dry-run        say what would be done, the same list, and change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    each file, and why
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0; 64 usage; 65 an outbox is damaged, so nobody knows what is open, or an open escalation, or the
# statistics (data/folded.json): the rest was cleaned up, as it was with 74, disk error, and 77, permission; 66 no
# workspace; 75 another cleanup is at work.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
