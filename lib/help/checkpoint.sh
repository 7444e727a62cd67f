#!/bin/bash
# Usage: recovery checkpoint [list]
#        recovery checkpoint show TASK
#        recovery checkpoint history TASK
#        recovery checkpoint add TASK STATE [JSON | -]
#        recovery checkpoint clean [TASK] [--older-than 7d]
#
# Where tasks have got to. `show` is the last checkpoint, `history` all that are kept, oldest first. `add` makes one
# that survives kill -9 and a power cut once it has returned; its data is a JSON object, the last word or, for -, on
# stdin. `clean` removes those of tasks that ended so long ago (a number alone is days), never those of an open task.
#
# STATE is pending, running, completed, failed, retrying, rolled_back or skipped. Needs the packages typer and orjson.
#
# Options:
#   --older-than AGE   for clean: 7d, 12h (7d)
#   --dry-run          for add and clean: say what would be done, change nothing
#   --json             one object on stdout, for errors too
#   -q, --quiet        nothing on success, for add and clean
#   -C DIR             the workspace
#   -h, --help         this text
#
# Exit codes: 0; 64 usage, bad id or state; 65 not a JSON object (with line and column), or an outbox is damaged; 66 no
# workspace or no checkpoint; 69 the packages are missing; 74 disk error; 75 busy; 77 permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
