#!/bin/bash
# Usage: recovery tx [options] FILE... -- COMMAND [ARGUMENT...]
#
# Change files in one step. The command works on private copies: `{}` as a word of its own stands for all of them, `{2}`
# for the second, and so does the variable TX_2 in its environment. If it exits with 0 they take the files' places, all
# of them or none; if it doesn't, or dies, or is killed, nothing has happened. A FILE that isn't there yet has no copy,
# and is there afterwards if the command made one.
#
#   recovery tx tasks.json --stdout --check-json -- jq '.done += 1' {}
#
# In a workspace all FILEs change in one commit, which kill -9 and a power cut leave whole, and which
# `recovery changes` shows; the others' work in the same files stays. Elsewhere: one FILE, by one rename. Any format, any
# name; mode, owner and links are kept.
#
# No lock is held while the command runs. If somebody (complete_task_with_recovery.sh, `flock .FILE.lock ...`) changed a
# FILE meanwhile, the command is run again on what it holds now, eight times at most; so it should do nothing but change
# its copies. (If its stdin was a pipe, which is read by then: 75.) Two `recovery tx` of one FILE wait for each other.
# Who writes FILE without taking its lock, `.FILE.lock` beside it, is noticed right before the rename; what he overwrites
# later is his.
#
# Options:
#   --stdout             what the command writes to stdout is FILE's new content (one FILE)
#   --check-json         refuse (65) what is no JSON document; an outbox is always checked
#   --check CMD          refuse what CMD refuses: run by `sh -c` for each changed copy, whose path is its $1
#   --backup NAME        keep the bytes before in FILE.backup_NAME; a differing older one becomes FILE.backup_NAME.N
#   --timeout DURATION   SIGTERM to the command's group after that, and SIGKILL 5 s later; 0 is none
#   --dry-run            run the command and the checks, say what would change, change nothing
#   --json               one object on stdout; the command's stdout goes to stderr
#   -q, --quiet          don't say why nothing was changed
#   -h, --help           this text
#
# Exit codes: the command's own; 128 + N stopped by signal N; 124 timed out; 125 the wrapper itself failed (disk,
# permission), the previous state stands; 126 the command can't be executed, 127 is not there; 64 usage, or a FILE named
# twice; 65 a folder, a refused result, damaged data; 66 no such folder; 69 this disk can't be trusted; 71 not confirmed:
# run it again; 75 busy, or other writers kept coming first.
# Environment: RECOVERY_AGENT RECOVERY_TASK RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
