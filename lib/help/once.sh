#!/bin/bash
# Usage: recovery once KEY --done | --undone
#
# Say whether a call took effect whose process died in it, so that nobody else can know: `recovery escalations` lists
# such keys. With --done it is not made again, and a repeat gets null as its result; with --undone the next run makes
# it. Needs the packages typer and orjson.
#
# Options:
#   --dry-run     say what would be done, change nothing
#   --json        one object on stdout, for errors too
#   -q, --quiet   nothing on success
#   -C DIR        the workspace
#   -h, --help    this text
#
# Exit codes: 0; 64 usage; 65 its record is damaged; 66 no workspace, no such key, or its outcome is known; 69 the
# packages are missing; 74 disk error; 75 the call is being made just now; 77 permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
