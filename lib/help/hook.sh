#!/bin/bash
# Usage: recovery hook claude SessionStart|PreToolUse|Stop|SessionEnd
#        recovery hook codex SessionStart|PreToolUse|Stop
#        recovery hook cursor sessionStart|preToolUse|stop|sessionEnd
#
# What an agent's program runs at these moments; `recovery setup` writes it into the program's settings. It reads the
# program's JSON on stdin, and answers as that program wants it once it is whole; what isn't after 5 s passes.
#
# When a session begins, what `recovery prime` says goes into the context. Before a tool edits an outbox (by whatever name:
# a link, `..`, ~), its backups, archives and completion records, progress.json or the suite's own files in data/, it is
# refused, with the command to use; briefs may be edited. (Of a shell's command it is not known what it writes: that
# passes.) When the agent stops and its session still holds a claim, it is reminded, once for each claim. When the session
# ends, its claims are given back; not a lease, not a claim of `recovery run`, nor after /clear, when the program goes on.
# Codex knows no end: there `recovery sweep` sees to it once the program is gone.
#
# Whose claims are the session's: those of the program itself, of a shell that it keeps open, of RECOVERY_SESSION.
#
# Options:
#   -C DIR       the workspace; else that of the folder the program works in
#   -h, --help   this text
#
# Exit codes: 0 nothing is against it; 2 refused, or reminded, with the reason on stderr (Cursor: 0, and JSON on stdout);
# 64 usage. Whatever else goes wrong, no usable Python and a lock that somebody holds for 2 s too, is 0 and silent
# (RECOVERY_DEBUG=1 tells it): a broken hook stops nobody's work.
# Environment: ORCHESTRATION_ROOT RECOVERY_AGENT RECOVERY_SESSION RECOVERY_PYTHON RECOVERY_DEBUG
