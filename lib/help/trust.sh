#!/bin/bash
# Usage: recovery trust [--show | --yes HASH | --revoke] [--json] [-C DIR]
#
# Approve what checks.json runs. A task that names checks, or whose agent needs some, is completed once they have
# passed; complete_task_with_recovery.sh runs them itself, and only as checks.json was when a person approved it here:
# shows the file and what changed since, and asks. After any change it is asked again; until then such tasks are
# refused (77) and nothing runs. In the workspace:
#
#   checks.json
#   {
#     "checks": {
#       "tests": {"run": ["make", "test"], "timeout": "10m"},
#       "lint": {"run": "make lint && git diff --exit-code", "cwd": "web", "env": {"CI": "1"}}
#     },
#     "required": {"*": ["tests"], "CC": ["lint"]}
#   }
#   postbox/AGENT/outbox.json   {"task_id": "TASK-1", ..., "checks": ["lint"]}
#
#   run        words, or one line for /bin/sh
#   timeout    10m if nothing is said; then the whole process group is ended
#   cwd        below the workspace's folder (for a nested .orchestration: the folder above it); that if nothing is said
#   env        more variables. A check gets PATH, HOME, USER, LOGNAME, LANG, LC_*, TZ, TMPDIR, XDG_DATA_HOME of the caller, these, and
#              ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_TASK RECOVERY_CHECK; stdin is empty. Say PATH for cron's sake
#   inputs     files, folders, patterns: a result is used again while they are unchanged. Without them while nothing is
#              changed that git doesn't ignore; with neither a result is not used by another command
#   worktree   true: run it in the linked git worktree that the command is called from
#   required   what every task of an agent needs, of all agents with "*", whatever its outbox says
#
# The approval is kept with the hash of the file in $XDG_DATA_HOME/postbox-recovery/trusted, else in ~/.local/share (the
# home of the user database where HOME is unset), by the workspace's path: each user approves for himself (sudo -u),
# a copy or a move is approved again. So it protects against what was cloned, and against an agent that may only edit
# files of the workspace. It does not against whoever may write to that folder or run programs as you; and it is the
# commands that are approved, not what they read: `make test` does what the Makefile says that day.
#
# Options:
#   --show       only tell; 1 if it isn't approved
#   --yes HASH   approve without a terminal, by the SHA-256 of the file that was looked at (12 digits or more)
#   --revoke     take the approval back
#   --json       one object on stdout, for errors too
#   -C DIR       the workspace
#   -h, --help   this text
#
# Exit codes: 0; 1 not approved (--show); 64 nobody can be asked, another hash; 65 checks.json is damaged; 66 there is
# none, or no workspace; 69 this user has no folder of his own; 74 disk error; 77 others may write where it is kept.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON RECOVERY_DEBUG
