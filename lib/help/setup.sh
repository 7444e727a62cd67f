#!/bin/bash
# Usage: recovery setup claude|cursor|codex|agents-md [options]
#
# Tell an agent's program of this workspace, in the project's own files. What is to change is shown first; the same again
# changes nothing.
#
# AGENTS.md gets nine lines between two markers, behind what stands there: prime first, how to take work, finish it, give
# it up, what the exit codes mean. For Claude Code, which does not read it, CLAUDE.md gets `@AGENTS.md`. And the program's
# settings get hooks (see `recovery hook --help`); everything else in them keeps its place and its bytes:
#
#   claude      AGENTS.md, CLAUDE.md, .claude/settings.json
#   cursor      AGENTS.md, .cursor/hooks.json
#   codex       AGENTS.md, .codex/hooks.json; a person has to trust them once in Codex
#   agents-md   AGENTS.md alone, for any other program
#
# It is the project of the workspace, or the git worktree you are in; where there is none, `recovery init` makes one: that
# of the suite's own folder is not taken in its place. A file that is damaged (JSON with comments too), read-only, or a
# link that leads out is refused, and nothing changed; so is a block that somebody has edited, or that stands there twice.
# A hook that somebody has written or edited stays as it is, with --remove too, and is named. Start agents with
# RECOVERY_AGENT=NAME.
#
# Options:
#   --remove       take it out again; what nobody has touched since is as it was before, to the byte
#   --dry-run      show what would be changed (`patch -p0` would do the same), change nothing
#   --force        overwrite, or take out, what somebody has edited in our block or hooks
#   --json         one object on stdout, for errors too
#   -v, --verbose  each file written
#   -q, --quiet    nothing on success
#   -C DIR         the workspace
#   -h, --help     this text
#
# Exit codes: 0; 64 usage; 65 a file can't be changed safely, or was changed meanwhile; 66 no workspace; 71, 74 disk error;
# 75 another setup is at work there; 77 read-only, or no permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_LOCK_TIMEOUT RECOVERY_DEADLINE RECOVERY_DEBUG
