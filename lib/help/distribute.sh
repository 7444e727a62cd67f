#!/bin/bash
# Usage: recovery distribute [options] BACKLOG.json
#
# Share a backlog out over the agents: all of it, in one commit over all their outboxes, progress and inboxes, or
# nothing. The most urgent task goes first, each to the agent it names; else to the one with most of the expertise it
# asks for (the `expertise` of the outboxes); among equals to the one with the fewest open hours (a task without an
# estimate counts as one), then by name. An agent whose outbox has a `status` such as DECOMMISSIONED gets nothing
# unless it is named. What nobody has the expertise for goes to the one with the least to do, and is told.
#
# The backlog is a list of tasks, or an object with `tasks`; - is stdin:
#   {"id": "T-1", "title": "...", "priority": "high", "hours": 2, "dependencies": ["T-0"], "expertise": ["testing"]}
# `id` and `title` are needed; `agent` names who gets it, `checks` what it must pass; other members go along. A dependency is another task of the
# backlog or one that somebody has or had. Tasks that are there already are left as they are; one that is there and
# differs is refused, so are missing dependencies and circles. At most 2000 tasks go at once. The same command again
# is a no-op. No backup files are made; `recovery rollback backlog/NAME`, as -v says it, takes the whole back.
#
# Options:
#   --agents A,B       only these may get some
#   --strict           refuse a task whose expertise nobody has
#   --skip-existing    pass over tasks that are there already, whatever they hold
#   --again            do again what was rolled back
#   --dry-run          show who would get what, and why; change nothing
#   --json             one object on stdout, for errors too
#   -v, --verbose      who got what, and why
#   -q, --quiet        nothing on success
#   -C DIR             the workspace
#   -h, --help         this text
#
# Exit codes: 0 done or already done; 64 usage; 65 the backlog, an outbox or progress is damaged, or it can't be as it
# is; 66 no such file, workspace or agent; 69 too many open files; 70, 71, 74, 75, 77 as for assign_task.sh.
# Environment: ORCHESTRATION_ROOT RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
