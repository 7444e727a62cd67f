#!/bin/bash
# Usage: recovery archive [AGENT] [--older-than 30d] [--dry-run]
#        recovery archive --restore AGENT TASK
#
# Completed tasks leave their outbox, so that a completion costs the same however much was done before. Each goes into
# postbox/AGENT/archive/YYYY-MM.jsonl, by the month of its completion: a line with its whole entry, its completion record
# and its brief, which go from their folders in the same commit. In progress.json its entry goes, too; the counters stay.
# For cron:
#
#   23 4 * * *  /path/to/bin/recovery -C /path/to/workspace archive -q
#
# An archived task is still known: completing it again says so, assigning its id anew is refused, what depends on it is
# free, `task_status.sh -s archived` lists it. --restore puts it back into the outbox, completed as it was; from there
# `recovery reopen` makes it pending. Left where they are: tasks that are parked or have an open escalation, and those
# that don't say when they were completed. `recovery rollback AGENT/archive-TXID` (see `recovery changes AGENT`) takes
# all that one commit archived back at once.
#
# Options:
#   --older-than AGE   completed so long ago: 30d (default), 12h, 0; a number alone is days
#   --restore          put this one back
#   --dry-run          say what would be done, change nothing
#   --json             one object on stdout, for errors too
#   -v, --verbose      each task
#   -q, --quiet        nothing on success
#   -C DIR             the workspace
#   -h, --help         this text
#
# A line that a disk has lost is known from the change log; while that doesn't reach back to it, no id that is found
# nowhere else is assigned to this agent, for it may have been that one's: `recovery doctor --repair` brings back what is
# known, asks about the rest, and the ids are free.
#
# Exit codes: 0; 64 usage; 65 an outbox is damaged, or a brief is no text (the others were archived), or a line of the
# archive can't be used, or nobody knows what it was; 66 no such workspace, agent or task; 71, 74, 75, 77 as for
# complete_task_with_recovery.sh.
# Environment: ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_DEBUG
