#!/bin/bash
# Usage: recovery edit [options] AGENT
#
# Edit an agent's outbox by hand and safely, as visudo does. The editor (VISUAL, EDITOR, or the first there is) gets a
# private copy below TMPDIR, and no lock is held while it runs. What comes back is looked through (JSON, one list of
# tasks, no task twice, no claim changed) and what is wrong is said with line and column: e edits again, x leaves and
# keeps the text in its file, Q leaves and throws it away. Then it is committed. Was the outbox changed meanwhile, nothing
# is: both changes are shown, and your text stays in the file named. A damaged outbox may be opened too. The progress file
# is not changed.
#
# Where a signal or Ctrl-C ends the editor, what it had written is kept, and the file named. After a kill -9 the next
# edit of the same outbox names it.
#
# Options:
#   --dry-run        show what would be changed (with -v), change nothing
#   --json           one object on stdout, for errors too
#   -v, --verbose    more
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0 done, or nothing was changed; 1 the editor failed; 128 + N stopped by signal N; 64 usage; 65 the text
# won't do and there is no terminal to ask, or somebody changed the outbox meanwhile; 66 no such workspace or agent; 69 no
# editor; 71, 74, 75, 77 as for complete_task_with_recovery.sh.
# Environment: ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_DEBUG
