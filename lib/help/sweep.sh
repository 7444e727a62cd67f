#!/bin/bash
# Usage: recovery sweep [options]
#
# Give back the tasks whose owner is gone: a session whose process has ended, a lease that is over, a `recovery run` of
# which neither the lock is held nor a process of the command's group lives. They are pending again, and their recovery
# log says why. Who is stopped or silent is alive; silent for more than an hour is said, no more. Made for cron: one line.
#
# What another container or host has claimed can't be judged from here and is left alone; -v says what a person may run.
# Lock files of claims that are over are removed; who holds one still (a daemon left behind) is said.
#
# Options:
#   --trust-locks    take a free lock as proof also for commands of other containers: for a container's start script,
#                    where no other one uses this workspace
#   --dry-run        say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    one task a line, and what may be run
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0; 64 usage; 65 an outbox is damaged (the others were swept); 66 no workspace; 71, 74, 75, 77 as for
# complete_task_with_recovery.sh.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_DEBUG
