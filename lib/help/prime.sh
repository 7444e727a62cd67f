#!/bin/bash
# Usage: recovery prime [options] [AGENT]
#
# What an agent has to know when it begins, in a few hundred tokens: its open tasks (claimed by this session, ready in the
# order to be taken, blocked and by what, taken by others), what failed before and why, and five rules: how to take work,
# finish it, give it up, and what the exit codes mean. Without AGENT and RECOVERY_AGENT: a line for each agent.
#
# Words of other people stand in quotes, shortened, and no escape code reaches a terminal; six lines of each kind, the
# rest is counted. A workspace that is not above the current folder (the suite's own, where there is no other) is named.
# Takes no lock and changes nothing. `recovery setup` has it run when a session begins.
#
# Options:
#   -a, --agent AGENT   the same as AGENT
#   --json              one object on stdout, for errors too
#   -C DIR              the workspace
#   -h, --help          this text
#
# Exit codes: 0; 64 usage; 65 an outbox is damaged; 66 no such workspace or agent; 74, 77 it can't be read.
# Environment: ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_SESSION RECOVERY_DEBUG
