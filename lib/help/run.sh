#!/bin/bash
# Usage: recovery run [options] AGENT TASK -- COMMAND [ARGUMENT...]
#        recovery run [options] AGENT --next -- COMMAND [ARGUMENT...]
#
# Claim a task, run the command for it, and complete the task if it exits with 0, after the tries that the options of
# `recovery try` allow; else it is failed, with what the command said last. --next takes the first that is ready, by
# priority, then age. Of several who want a task one gets it, the others 75. What your session has claimed becomes the
# run's.
#
# A task with checks (recovery trust --help) is completed once they have passed; if one doesn't the task is failed, and
# the exit code is 1.
#
# The command finds RECOVERY_AGENT, RECOVERY_TASK and RECOVERY_CLAIM in its environment: `recovery complete`, `fail`,
# `note` and `release` in it are known as the owner's. If it ends the claim itself, that stands.
#
# The owner is alive as long as anything that the command started holds the claim's lock, which all of it inherits, or
# anybody of its process group lives: no heartbeat, no guess, also if this process is killed with -9. Then, once all of
# it has ended, `recovery sweep` gives the task back. The outcome is recorded when the command itself ends; a daemon that
# it leaves behind is named, and has nothing to say about the task any more. INT, TERM, HUP and QUIT reach the command's
# whole group, as for `recovery try`, and the task is pending again if that ended it, or came while its checks ran.
#
# Options:
#   --next        the first task that is ready, instead of TASK
#   -m, --message MESSAGE
#                 the completion's message; by default the last line that the command wrote to stdout, if that isn't a
#                 terminal
#   --attempts --delay --timeout --grace --try-again-on --strategy --protect --breaker --until-reset --wait --lock
#   --clean-output
#                 as for `recovery try`
#   --json        one object on stdout, which says whose exit code it is; the command's stdout goes to stderr
#   -q, --quiet   nothing on stderr about the task
#   -C DIR        the workspace
#   -h, --help    this text
#
# Exit codes: the command's own, 128 + N, 124, 125, 126, 127 as for `recovery try`. Where it was not run, and the task is
# as it was: 64 usage; 65 damaged data, or a task that can't be begun; 66 no workspace or task, nothing open; 69 the
# breaker is open, or Python is older than 3.11; 70 the task is parked; 75 somebody else has it, or nothing is free. 76
# the claim was taken away meanwhile; 71 the outcome could not be confirmed.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_PYTHON RECOVERY_DEBUG
