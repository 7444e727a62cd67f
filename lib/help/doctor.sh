#!/bin/bash
# Usage: recovery doctor [--repair] [options]
#
# Look through the workspace for what is broken, and name it: file, line, column, what it means, what a repair would do.
# Reads only, unless it is told to repair.
#
# Found are outboxes, progress, records, checkpoints and logs that are empty, missing, cut off, full of NULs, glued
# together from several documents, UTF-16, with a byte order mark, conflict markers, a trailing comma, NaN, a key or an
# id twice, or in a wrong shape; torn lines of logs; stale backups; changes that a dead process left half done; what
# progress.json says otherwise than the outboxes; links, modes and owners that keep commands out.
#
# Options:
#   --agent AGENT    only what is this agent's
#   --json           one object on stdout, for errors too
#   -q, --quiet      the exit code only
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0 nothing is broken; 1 something is; 64 usage; 66 no workspace, or no such agent.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON RECOVERY_DEBUG
