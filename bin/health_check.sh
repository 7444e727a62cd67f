#!/bin/bash
# Usage: health_check.sh [options] [CHECK...]
#
# Is this workspace all right? For cron and monitoring systems: one line with a monitoring plugin's exit code and
# performance data, below it what is wrong and what to run next. Reads only. For cron, which mails what is said:
#
#   */10 * * * *  /path/to/bin/health_check.sh -q --skip certificate -C /path/to/workspace
#
# (A disk that nobody has tried is a warning until `recovery torture` has, and no news every ten minutes.)
#
# Checks (all of them, where none is named):
#   certificate   `recovery torture` was run on this disk, with this version, and found nothing
#   journal       no commit is half done (the next command finishes it)
#   conflicts     no commit waits that could be neither finished nor undone
#   outboxes      every outbox, and progress.json, is whole
#   pending       how long the oldest pending task has waited
#   owners        claims whose owner is gone, or whose lease is over
#   breakers      circuit breakers that are open
#   escalations   what waits for a person; parked tasks; calls of unknown outcome
#   locks         who holds a lock, and for how long; what dead holders left
#   success       how many of the last day's incidents ended well (20 are needed to judge)
#   waits         what locks and tries cost in them
#   logs, checkpoints   how much they take
#   budget        how much of what data/ and logs/ may take is used (256 MB, 20,000 files)
#   space         room on the disk: bytes, and files
#   clock         nothing was written in the future
#
# Options:
#   -w, --warn NAME=RANGE   when a number is a warning, and with
#   -c, --crit NAME=RANGE   when it is critical; both may be given again. NAME is as in the performance data; RANGE is
#                           what is all right: 10m, 64M, 0.95: (and more), 2:8; empty: never
#   --skip CHECK            all but this one; may be given again
#   --window TIME           of incidents, for success and waits (24h)
#   -t, --timeout TIME      for all checks together; what isn't known by then is UNKNOWN
#   --prometheus FILE       write the numbers there too, by rename, for node_exporter's textfile collector (*.prom)
#   --ping URL              POST to URL/start, then to URL or, if not all is well, URL/CODE, as healthchecks.io has it
#   --json                  one object on stdout, for errors too
#   -v, --verbose           a line for each check
#   -q, --quiet             nothing when all is well
#   -C DIR                  the workspace
#   -h, --help              this text
#
# A warning, if not told otherwise: a lock held for 10m (critical: 1h), anything unfinished, stale, open or without an
# owner, a task pending for 7d, a success rate under 0.95 (0.8), 5m of waiting for locks, 1m (10m) from failure to
# outcome, logs or checkpoints of 96M (192M), 80% (100%) of the budget, less than 64M (8M) or 1,000 (100) files free, a
# change 1m (1h) in the future. Critical:
# anything damaged, or that could be neither finished nor undone; more than 10 escalations.
#
# Exit codes: 0 OK; 1 WARNING; 2 CRITICAL; 3 UNKNOWN, such as no workspace there, no permission, or a word that means nothing.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_HEALTH_WARN RECOVERY_HEALTH_CRIT RECOVERY_HEALTH_WINDOW RECOVERY_HEALTH_PROMETHEUS RECOVERY_HEALTH_PING RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG

script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=${script%/*}/$target
done
[[ $script == */* ]] || script=./$script

# shellcheck source=lib/setup.sh
source "${script%/*}/../lib/setup.sh"
help_if_asked "$script" "$@"

# without Python there is no helper that could say so in a plugin's way; the trap ends where the helper begins
trap 'status=$?; ((status != EXIT_UNAVAILABLE)) || { printf "RECOVERY UNKNOWN - no usable python3\n"; exit 3; }' EXIT
become_helper health "$@"
