#!/bin/bash
# Usage: recovery receipts [list [AGENT]]
#        recovery receipts show AGENT TASK
#        recovery receipts verify [--agent AGENT] [--anchor HASH]
#
# What says that completions were checked. Each completion of a task with checks leaves a receipt: every check with its
# exit code, seconds, hash of its output and state of the files, git's revision, the hash of the completion record, and
# the hash of the agent's receipt before. Undoing the completion adds a revocation. All are in data/receipts/AGENT.jsonl,
# the hash of the last in AGENT.json beside it, which changes in the same commit; the record holds its own.
#
# verify looks whether they fit together: a receipt or completion record that was changed, one that is missing, put in
# another order or into another record, a receipt whose record, outbox or task is gone, a record whose receipt was
# revoked, a task of which the outbox says something else, a key that stands twice in one of them. Write the printed
# head down elsewhere: --anchor HASH says later whether that receipt is still in its chain. `jq -cjS .receipt FILE |
# sha256sum` makes a hash again.
#
# It can't find: a chain that was written anew as a whole, with all its records, by someone who may write all of these
# files; that its end was cut off, head and records with it, unless an anchor was in there; a completion that never had
# a receipt (task_status.sh shows it as `claimed done`); a check that lies.
#
# Options:
#   --agent AGENT    verify only this agent's
#   --anchor HASH    the hash of a receipt that must still be there
#   --json           one object on stdout, for errors too
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0; 1 something doesn't fit, or the anchor is gone; 64 usage; 66 no such agent or receipt.
# Environment: ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_PYTHON RECOVERY_DEBUG
