#!/bin/bash
# Usage: recovery once [options] KEY -- COMMAND [ARGUMENT...]
#        recovery once KEY --done | --undone
#
# Run a command at most once for KEY, any text, whatever dies: a repeat writes what it wrote and ends as it ended, and
# doesn't run it. Two at a time: the second waits, then repeats.
#
# The command's exit code 0 is done. Any other that it ends with by itself says that it did not happen: the next one may
# run it. A death by a signal, a time limit, a kill of this process, a power cut, a disk too full to record the end leave
# unknown whether it took effect. That is never guessed: the next one is refused (70), unless --verify finds out, or a
# person says so: with --done it is not run again, and repeats nothing; with --undone the next one runs it. `recovery
# escalations` lists such keys, also those of programs. A key whose process died is not unknown before all that the
# command started has ended.
#
# Of stdout and stderr the last 256 KiB each are kept for a repeat, in data/once/. A reader who goes away doesn't end the
# command: what it writes is kept, and the same command again repeats it. Where the disk has no room for what it wrote,
# only that it was done is kept: that is said, and a repeat is refused (65) until --done. Records are kept for 30 days
# (clean_checkpoints.sh); after that KEY is new.
#
# Options:
#   --verify CMD         run by `sh -c`, says whether it took effect: 0 yes, 1 no, any other: that isn't known either
#   --keep-failures      any exit code is done, not only 0
#   --timeout DURATION   SIGTERM to the command's group after that, and SIGKILL 5 s later; 0 is none
#   --done, --undone     settle KEY, whose outcome is unknown or whose output is lost
#   --dry-run            for --done and --undone: say what would be done, change nothing
#   --json               one object on stdout; the command's stdout goes to stderr
#   -q, --quiet          nothing on success, don't say why it counts as not done
#   -C DIR               the workspace
#   -h, --help           this text
#
# Exit codes: the command's own, 128 + N, 124, 126, 127 as for `recovery try`; 125 the disk failed us before the command
# was run, or after it: how it ended could not be recorded, or stdout can't be written (each is said). Where it was not
# run: 64 usage; 65 its record is damaged, or it was done and what it wrote could not be kept; 66 no workspace, no such
# key, or its outcome is known; 69 Python is older than 3.11; 70 its outcome is unknown; 75 it is being run just now.
# Environment: ORCHESTRATION_ROOT RECOVERY_TASK RECOVERY_LOCK_TIMEOUT RECOVERY_PYTHON RECOVERY_DEBUG
