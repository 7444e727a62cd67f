#!/bin/bash
# Usage: recovery explain [options] [TASK | AGENT/TASK]
#
# What happened, on one page: the cause first, in a sentence; then what is recorded, in the order it happened (UTC):
# failed tries and how they ended, changes, checkpoints, an unfinished commit, the completion record, escalations, whose
# the task is and whether they live, receipts; the one command to run next last. Two agents with a task of that id: both.
#
# Without TASK: what went wrong in the last 24 hours, or still waits (a task that stands failed, however long), over all
# agents, the worst first, each with the command to run next; what `health_check.sh` sees damaged or gone is among it.
#
# The command can be pasted: it names the workspace with -C unless the current folder alone leads to it.
#
# Changes nothing, takes no lock, needs nothing installed. What can't be read is said, and stops nothing. The page fits
# the terminal (80 x 24 where there is none).
#
# Options:
#   --since T    2h, 30m, 7d ago, 2026-11-25 or 2026-11-25T08:00:00Z: without TASK what went wrong from then on, not in
#                the last 24 hours; with TASK what happened to it from then on (the cause is told all the same)
#   --full       all of it, however long
#   --json       the same facts, as one object on stdout, for errors too
#   -C DIR       the workspace
#   -h, --help   this text
#
# Exit codes: 0, also if something is wrong; 64 usage; 66 no workspace, or nothing is known of the task; 74, 77
# nothing is, and not all could be read.
# Environment: ORCHESTRATION_ROOT RECOVERY_DEBUG
