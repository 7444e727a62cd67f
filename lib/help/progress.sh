#!/bin/bash
# Usage: recovery progress rebuild [options]
#
# Make .sprint/progress.json agree with the outboxes: the status of each entry, entries for tasks that aren't listed,
# and the counters that are there (total_tasks, completed, in_progress ...). Its form (`tasks` as an object by id or as
# a list with `id`), unknown fields and every other byte stay. It is made where there is none. Entries of tasks that
# nobody has stay and are told; so are ids that two agents have. A task that was completed and archived is completed.
# The second time it is a no-op; `recovery rollback progress/rebuild` takes it back.
#
# Options:
#   --form FORM    object (the default) or list, for a file that is to be made
#   --dry-run      say what would change, change nothing
#   --json         one object on stdout, for errors too
#   -v, --verbose  each change
#   -q, --quiet    nothing on success
#   -C DIR         the workspace
#   -h, --help     this text
#
# Exit codes: 0 done, or it agrees; 64 usage; 65 it or an outbox is damaged, nothing is touched; 66 no workspace;
# 70, 71, 74, 75, 77 as for assign_task.sh.
# Environment: ORCHESTRATION_ROOT RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
