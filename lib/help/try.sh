#!/bin/bash
# Usage: recovery try [options] NAME -- COMMAND [ARGUMENT...]
#
# Run a command, and again where it fails. NAME is the task it counts as in the recovery log, the statistics and the
# retry budget. A run that goes well at once leaves nothing behind; each try that fails is a line in
# logs/recovery/NAME_recovery.jsonl, with its exit code, how long it took and the last lines of its stderr (so don't let
# it print secrets). After the last try its own exit code comes back.
#
# What is done about an exit code, if you don't say: 64, 66, 69, 70, 77, 126 and 127 are a person's matter and are
# escalated at once, 65 is not tried again either, 76 is left at that; whatever else is tried again, a death by a signal
# and a time limit too.
#
# The command is words, never evaluated: for a pipeline, `sh -c '...'`. It leads a process group of its own and has the
# terminal, if there is one: an editor, Ctrl-C and Ctrl-Z work. A stdin that is a file is read anew at each try; from a
# pipe a further try reads what is left. Where stderr is a terminal the command has that itself, and its last lines are
# not in the log. INT, TERM, HUP and QUIT that this process is sent reach the whole group, a second one kills it; then
# nothing is tried again. What is typed at the terminal the command alone gets, as often as you like; Ctrl-C three times
# within a second kills it all the same. A command that ignores HUP outlives its terminal, as under nohup(1). What it
# leaves in the background is not ended.
#
# Options:
#   --attempts N           how often in all (3, or RECOVERY_MAX_ATTEMPTS)
#   --delay DURATION       before the second try (2, or RECOVERY_RETRY_DELAY); doubles, with jitter, at most 60 s
#   --timeout DURATION     for each try, as 90, 10m, 2h: SIGTERM to the whole group, and SIGKILL 5 s later; 0 is none.
#                          `auto` learns it from the last 200 successes of NAME
#   --grace DURATION       between SIGTERM and SIGKILL (5)
#   --try-again-on CODES   only on these exit codes, such as 1,75,100-110; a time limit is 124
#   --strategy WORD        for every failure: retry, rollback, skip (exit 0), manual (NAME is parked), escalate
#   --protect FILE         in the workspace: put back as it was before each further try, and when the last has failed;
#                          may be given again
#   --breaker NAME         a circuit breaker that all processes share: five failures in a row open it for a minute
#   --until-reset REGEX    a time that a failed try wrote opens the breaker (that of --breaker, else NAME's own) until
#                          then: an epoch, ISO 8601, `90 seconds`, `1h 30m`, `3pm`; REGEX's first group is the time
#   --wait DURATION        how long to wait for an open breaker (0: refused at once, 69)
#   --lock NAME            one at a time: waits for RECOVERY_LOCK_TIMEOUT. As with flock(1), all that the command
#                          started holds the lock on, so that it outlives a kill of this process
#   --clean-output         only the output of the try that succeeded, when it has
#   --json                 one object on stdout, which says whose exit code it is; the command's stdout goes to stderr
#   -q, --quiet            don't say what is tried again
#   -C DIR                 the workspace
#   -h, --help             this text
#
# Exit codes: the command's own; 128 + N stopped by signal N; 124 timed out; 125 the wrapper itself failed, or stdout
# can't be written (it is said); 126 the command can't be executed, 127 is not there. Where it was not run: 64 usage; 66 no workspace; 69 the breaker is open,
# or Python is older than 3.11; 70 NAME is parked, or (after a run) files could not be put back; 75 --lock is held.
# Environment: ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_PYTHON RECOVERY_DEBUG
