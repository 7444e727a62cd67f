#!/bin/bash
# Usage: recovery breaker [list]
#        recovery breaker show NAME
#        recovery breaker allow NAME
#        recovery breaker trip NAME [--for 10m | --until TIME] [--reason TEXT]
#        recovery breaker reset NAME
#
# The circuit breakers of the workspace. An open one refuses calls at once until its time has passed; then it is half
# open, and lets one caller try. `trip` opens one, also one that no program has used yet; one that is open for longer
# stays so. `reset` closes one and forgets the failures it has counted.
#
# `allow` is for scripts, `recovery breaker allow NAME -q || exit`: 0, go on; 69, it is open, and until when is said. It
# looks, and counts nothing: a half-open breaker lets every script on that asks, and a script that has met a failure
# says so with `trip`. Needs the packages typer and orjson.
#
# Options:
#   --for DURATION   how long: 90, 10m, 2h (60)
#   --until TIME     such as 2026-11-24T08:00:00Z; without a zone it is UTC
#   --reason TEXT    is told to who is refused
#   --dry-run        for trip and reset: say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -q, --quiet      nothing on success, for allow, trip and reset
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0; 64 usage or bad name; 66 no workspace or no such breaker; 69 it is open (allow), or the packages are
# missing; 74 disk error; 75 busy; 77 permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
