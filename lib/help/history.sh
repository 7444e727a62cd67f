#!/bin/bash
# Usage: recovery history [options] AGENT [TASK]
#        recovery history AGENT [TASK] --at MOMENT
#
# The changes of an agent, or of one of its tasks: number, time, verb, who, and each field before and after; the newest
# last. Needs nothing installed and changes nothing.
#
# With --at, the outbox as it was then (or the task's entry), its very bytes on stdout: the recorded changes are taken back
# from what stands there now. Where somebody wrote past the suite since, stderr says so; what they changed is shown as it
# is, unless it is a field that would have to be taken back (65).
# So it does where the line of a change is lost that may have touched the file: what can't be proven then is refused (65).
# As far back as data/changes/ reaches; by the numbers of the changes, also where the clock was set back.
#
# Options:
#   --limit N     the newest N changes (20)
#   --at MOMENT   2h, 30m, 7d ago; 2026-11-25T08:00:00Z (UTC without an offset); the number of a change, or its txid:
#                 right after it
#   --json        one object on stdout, for errors too; the earlier bytes are its `text`
#   -C DIR        the workspace
#   -h, --help    this text
#
# Exit codes: 0; 64 usage; 65 an earlier state can't be told; 66 no such agent, task or change, or not in
# reach; 74, 77 some of data/changes/ can't be read: the list has the rest.
# Environment: ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_DEBUG
