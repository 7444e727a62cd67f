#!/bin/bash
# Usage: recovery import [options] FILE --agent AGENT
#        recovery import [options] FILE --distribute
#
# Take tasks over from another program's file, all of them in one commit or none: to one agent, or shared out as
# `recovery distribute` does. FILE may be - for stdin. Its format is found out, or named:
#   task-master    Task Master's tasks.json, in both its forms; --tag chooses one of several (master if there is one)
#   claude-tasks   Claude Code's task files: the folder ~/.claude/tasks/LIST, or one file
#   todos          its todo lists: [{"content": "...", "status": "..."}]
#   markdown       check lists: `- [ ] text`, `1. [x] text`; (P0)-(P3) or !critical-!low, #expertise
#
# Ids become PREFIX-ID, with a PREFIX from FILE's name; the original stays in `imported_from`. A task with subtasks
# waits for them. Done tasks come as completed entries: counted, with no completion record and no brief. Statuses the
# suite has no word for (deferred, cancelled, blocked) stay as they are. What can't be read is refused as a whole, with
# line and column. Each task is taken over once: the same command again is a no-op, and adds what is new; what becomes
# of a task over there later is not followed. `recovery rollback backlog/NAME`, as -v says it, takes it all back.
#
# Options:
#   --agent AGENT      who gets the tasks
#   --create           AGENT may be a new one
#   --distribute       share them out; with --agents A,B and --strict as there
#   --format FORMAT    task-master, claude-tasks, todos or markdown
#   --prefix PREFIX    what the ids begin with
#   --tag TAG          which of Task Master's tags
#   --drop-missing     leave out dependencies on tasks that aren't there
#   --skip-existing    pass over tasks that are there already, whatever they hold
#   --again            do again what was rolled back
#   --dry-run          show who would get what; change nothing
#   --json             one object on stdout, for errors too
#   -v, --verbose      who got what
#   -q, --quiet        nothing on success
#   -C DIR             the workspace
#   -h, --help         this text
#
# Exit codes: 0 done or already done; 64 usage; 65 what is in FILE, an outbox or progress can't be read, or can't be as
# it is; 66 no such file, workspace or agent; 69 too many open files; 70, 71, 74, 75, 77 as for assign_task.sh.
# Environment: ORCHESTRATION_ROOT RECOVERY_MAX_ATTEMPTS RECOVERY_RETRY_DELAY RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_PYTHON RECOVERY_DEBUG
