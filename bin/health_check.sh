#!/bin/bash
# Usage: health_check.sh [options] [CHECK...]
#
# Is this workspace all right? For cron and monitoring systems: one line with a monitoring plugin's exit code and
# performance data, below it what is wrong and what to run next. It only reads, but for --alert. For cron, which mails
# what is said:
#
#   */10 * * * *  /path/to/bin/health_check.sh -q --skip certificate -C /path/to/workspace
#
# (A disk that nobody has tried is a warning until `recovery torture` has, and no news every ten minutes.)
#
# Checks (all of them, where none is named):
#   certificate   `recovery torture` was run on this disk, with this version, and found nothing
#   journal       no commit is half done (the next command finishes it)
#   conflicts     no commit waits that could be neither finished nor undone
#   outboxes      every outbox, and progress.json, is whole and there; so is whom progress or the change log's end knows
#                 (`recovery doctor --removed AGENT` says that one was removed on purpose)
#   records       so are records, receipts, checkpoints, backups, change log, archives (the newest 1,000; of logs the
#                 end) and checks.json; nothing was left over
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
#   alerts        the rules of alerts.rules can be read; which of them are true. A number that none of the checks asked
#                 for looks at is UNKNOWN
#
# Options:
#   -w, --warn NAME=RANGE   when a number is a warning, and with
#   -c, --crit NAME=RANGE   when it is critical; both may be given again. NAME is as in the performance data; RANGE is
#                           what is all right: 10m, 64M, 0.95: (and more), 2:8; empty: never
#   --skip CHECK            all but this one; may be given again
#   --window TIME           of incidents, for success and waits (24h)
#   -t, --timeout TIME      for all checks together; what isn't known by then is UNKNOWN. With --alert a quarter of it is
#                           kept for telling people: who can't be told within it is told next time
#   --alert                 tell RECOVERY_NOTIFY_CMD and RECOVERY_NOTIFY_URL what alerts.rules says they are to hear
#   --prometheus FILE       write the numbers there too, by rename, for node_exporter's textfile collector (*.prom)
#   --ping URL              POST to URL/start, then to URL or, if not all is well, URL/CODE, as healthchecks.io has it
#   --json                  one object on stdout, for errors too
#   -v, --verbose           a line for each check
#   -q, --quiet             nothing when all is well
#   -C DIR                  the workspace
#   -h, --help              this text
#
# alerts.rules, in the workspace's folder, says of which numbers people are to be told, a rule a line:
#
#   success_rate < 0.95 for 20 incidents      # fewer say nothing
#   open_escalations > 0: somebody has to decide
#   stale_locks > 3 for 30m                   # so long, at every look
#   pending_age > 2d
#
# NAME < <= > >= == != VALUE; a NAME is one of the performance data, or of Prometheus without its prefix, a VALUE is
# written as in a RANGE, a share also in per cent; words behind a colon are told too. A rule that becomes true is told
# once, and once that it is over; what can't be looked at is neither. The notifier gets what it gets of an escalation,
# with the rule in `details`, and `success` true when it is over. What was told is kept in data/alerts.json, the only
# thing this script ever writes there; who dies while telling has it told once more.
#
# A warning, if not told otherwise: a lock held for 10m (critical: 1h), anything unfinished, stale, torn, open or without
# an owner, a task pending for 7d, a success rate under 0.95 (0.8), 5m of waiting for locks, 1m (10m) from failure to
# outcome, logs or checkpoints of 96M (192M), 80% (100%) of the budget, less than 64M (8M) or 1,000 (100) files free, a
# change 1m (1h) in the future, a rule that is none. Critical: anything damaged or gone, or that could be neither finished
# nor undone; more than 10 escalations.
#
# Exit codes: 0 OK; 1 WARNING; 2 CRITICAL; 3 UNKNOWN: no workspace there, no permission, a word that means nothing.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_HEALTH_WARN RECOVERY_HEALTH_CRIT RECOVERY_HEALTH_WINDOW RECOVERY_HEALTH_PROMETHEUS RECOVERY_HEALTH_PING RECOVERY_NOTIFY_CMD RECOVERY_NOTIFY_URL RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG

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
