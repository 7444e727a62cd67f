#!/bin/bash
# Usage: recovery stats [options] [TASK]
#
# The numbers of the recovery logs, of all tasks or one, each under its name in --json. A recovery is an incident, from
# a run's first failure to its outcome: a task that makes it at the third try is one recovery, and a successful one.
# success_rate is 1 where nothing went wrong. Needs the packages typer and orjson.
#
# Options:
#   --since WHEN         from then on: 24h, 7d, or a time such as 2026-11-24T08:00:00Z
#   --alert-below RATE   exit 1, and say so on stderr, if success_rate is below RATE (0.95) …
#   --at-least N         … and there were N recoveries or more (20)
#   --json               one object on stdout; the numbers are in `stats`
#   -q, --quiet          nothing on stdout: for cron, with --alert-below
#   -C DIR               the workspace
#   -h, --help           this text
#
# Exit codes: 0; 1 the alert; 64 usage; 65 a log is no regular file; 66 no workspace; 69 the packages are missing; 77
# permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
