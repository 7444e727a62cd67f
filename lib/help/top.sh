#!/bin/bash
# Usage: recovery top [--once | --line] [options]
#
# Who needs you now, the worst first, with the command to run; who has which task, since when, and who has given no sign
# for an hour; what is ready, and what waits for whom; what failed in the last 24 hours, by cause; breakers and when they
# are back; damage, an open commit, disk against budget, the last crash and who repaired it. One screen of 80 x 24, or
# what the terminal has, down to 40 columns; a command that is longer stands on a line of its own, unbroken.
#
# You are needed for what is damaged, parked, escalated or left half done; for each task that stands failed, however long
# (the oldest come last); that waits for ever, in a circle or for one that nobody has; that is ready for review, or was
# set to blocked by hand. What could not be read is said, and is unknown, not well.
#
# On a terminal it is drawn again with every change until q or Ctrl-C; that needs the package rich. Elsewhere (a pipe,
# `watch recovery top`, a dumb terminal), with --once, or without rich it is shown once. It only reads, waits for no lock.
#
# --line is for a status bar, and quick; it holds ids and numbers, nobody's free text. For tmux:
#   set -g status-right '#(recovery -C /path/to/workspace top --line)'
#
# Options:
#   --once       one screen, then leave
#   --line       one line: who needs you, working and silent, ready and blocked; `? 2 unread`: as far as can be read
#   --full       all of it, however long
#   --json       all of it, as one object on stdout, for errors too
#   -C DIR       the workspace
#   -h, --help   this text
#
# Exit codes: 0, also if somebody is needed (health_check.sh tells by its code); 64 usage; 65 damaged settings;
# 66 no workspace; 130 left by Ctrl-C.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON NO_COLOR
