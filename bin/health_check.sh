#!/bin/bash
# Usage: health_check.sh [options] [CHECK...]
#
# Is this workspace all right? For cron and monitoring systems: one line, and a monitoring plugin's exit code. Reads
# only. For cron:
#
#   */10 * * * *  /path/to/bin/health_check.sh -q -C /path/to/workspace || echo "see health_check.sh"
#
# Checks (all of them, where none is named):
#   certificate   `recovery torture` was run on this disk, with this version, and found nothing
#   journal       no commit is half done (the next command finishes it)
#   conflicts     no commit waits that could be neither finished nor undone
#
# Options:
#   --json          one object on stdout, for errors too
#   -v, --verbose   a line for each check
#   -q, --quiet     nothing when all is well
#   -C DIR          the workspace
#   -h, --help      this text
#
# Exit codes: 0 OK; 1 WARNING; 2 CRITICAL; 3 UNKNOWN, such as no workspace there; 64 usage.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON RECOVERY_DEBUG

script=${BASH_SOURCE[0]}
while [[ -L $script ]]; do
  target=$(readlink "$script")
  [[ $target == /* ]] && script=$target || script=${script%/*}/$target
done
[[ $script == */* ]] || script=./$script

# shellcheck source=lib/setup.sh
source "${script%/*}/../lib/setup.sh"
help_if_asked "$script" "$@"
become_helper health "$@"
