#!/bin/bash
# Usage: recovery claim [options] AGENT TASK
#        recovery claim [options] AGENT --next
#
# Take a task: it is in_progress then, and yours. Of many who try one wins, the others get 75 and take another. Until you
# end it with complete, fail, review or release, nobody else can; their try is refused with 76. --next takes the first
# that is ready, by priority, then age: pending or assigned, claimed by nobody, all its `dependencies` completed. (A
# dependency is TASK or AGENT/TASK, words may follow. One that nobody has, or a circle, is never ready, and is said. A
# task without a priority counts as MEDIUM.) A task named by you need not be ready.
#
# Whose it is: that of RECOVERY_SESSION, a living process (export RECOVERY_SESSION=$$) or any other text, a name which
# never dies by itself. Else that of the nearest shell or program above which stays: an interactive shell, an agent;
# not a script, env, timeout, cron or sshd. Once that process is gone, `recovery sweep` gives the task back, and
# `claim` may take it at once. It is not given back because somebody is silent or stopped.
#
# The same again is a no-op; --next again takes another.
#
# Options:
#   --next           the next one that is ready
#   --lease TIME     yours for that long, such as 2h; start, note and claim begin the time anew. Whoever finds it
#                    over may take the task, and your completion is refused then
#   --dry-run        say what would be done, change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    each file written
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# --json has `claim`, AGENT/TASK:GENERATION: in RECOVERY_CLAIM it says whose claim a command acts for, from anywhere.
#
# Exit codes: 0 it is yours; 64 usage, or no session can be told; 65 it can't be taken (completed: recovery reopen);
# 66 no such task, or nothing is open; 75 somebody else has it, or all that is open is claimed or waits for another task;
# 70, 71, 74, 77 as for complete_task_with_recovery.sh.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_AGENT RECOVERY_SESSION RECOVERY_CLAIM RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEBUG
