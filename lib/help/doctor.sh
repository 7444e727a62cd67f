#!/bin/bash
# Usage: recovery doctor [--repair] [options]
#        recovery doctor --removed AGENT
#
# What is broken in this workspace? Each finding is a line: file, line, column, what it means, what a repair would do.
# Reads only, unless it is told to repair.
#
# Found are outboxes, progress, records, checkpoints and logs that are empty, missing, cut off, full of NULs, glued
# together from several documents, UTF-16, with a byte order mark, with conflict markers, a trailing comma, NaN, a key or
# an id twice, or in a wrong shape; torn lines of logs; stale backups; changes that a dead process left half done, and
# those that could not be undone (their task answers 70); what progress.json says otherwise than the outboxes; receipts
# that don't fit together; links, modes and owners that keep commands out; lines that an archive has lost, or that are
# another agent's; parts of logs that can't be unpacked or are gone, and which changes are lost with a torn line; a damaged
# data/config.json, checks.json or alerts.rules; a journal that holds no record; a status, an id or `checks` that the commands
# refuse; an agent whose outbox, or folder, is gone, a progress.json that is; a file where a folder belongs.
#
# --repair brings back every whole task and history object and every whole field of those that were cut. What is missing
# is filled in from backups, the change log, completion records, progress.json and briefs, and each value is told with
# where it came from. A glued report becomes an entry of `history`. The repaired file is written in an ordinary commit;
# the original, byte for byte, is in data/quarantine before, with a report beside it. Nothing is guessed: the beginning
# of a text that was cut stands in `cut_off` of its object, a value without a place in `salvaged`. Where a piece is gone
# from the middle of a file that is laid out over lines, both sides stay where they were. What can't be decided is an
# escalation, of one file twenty at most and one that counts the others. Archived tasks come back from the change log.
# A progress.json that is gone, or empty, comes back from there to the byte, or lists what outboxes, histories and records
# know. Briefs that went with their folder are written again for the tasks that are to do.
# data/config.json is written anew with what could be read of it. A second repair finds nothing to do. Killed half-way,
# it may be run again.
#
# An agent is missed, with its folder or without, while the change log, progress.json or an archive's index knows it. A
# repair makes it again from those and asks a person; who removed it on purpose says so with --removed, once: then nobody
# misses it until a later change makes it anew.
#
# Options:
#   --repair         bring back what can be
#   --dry-run        with --repair or --removed: say what would be written, change nothing
#   --agent AGENT    only what is this agent's
#   --removed AGENT  this agent, whose folder is gone, was removed on purpose (kept in data/removed/)
#   --json           one object on stdout, for errors too
#   -q, --quiet      the exit code only
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0 nothing is broken (any more); 1 something is; 64 usage; 65 for --removed: its folder is there; 66 no
# workspace, or no such agent; for --removed also 74, 75, 77.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_PYTHON RECOVERY_DEBUG
