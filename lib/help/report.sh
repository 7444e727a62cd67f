#!/bin/bash
# Usage: recovery report [--html FILE [--force]] [--since 24h] [options]
#
# A workspace in one look: what needs a person now and the command for it; who has what, and since when; each agent over
# the period, with claims, other changes of its tasks, silence, waits for locks, tries, crashes and their repair; the
# success rate against the line of 95 %; failures by cause; the queue; breakers; the store.
#
# With --html one page that needs nothing else: no server, nothing loaded from elsewhere, in dark and light, from a
# phone to a wall, by keyboard and screen reader. A click on a task opens what `recovery explain` says of it. It is a
# picture of that moment: put it into a mail or a ticket. Whatever stands in messages is shown, never run, and its
# commands name the workspace, so that they lead there from anywhere. Without --html the same as text.
#
# An earlier report is replaced in one step. A file that is anything else is refused, unless --force says that it may go;
# below the workspace only a name like today.html is taken: an outbox or a journal never goes, with --force neither.
#
# Changes nothing in the workspace, waits for no lock, needs nothing installed (Python 3.11). Of long logs the newest part
# is shown, and what is left out is said at the end.
#
# Options:
#   --html FILE   write the page; - is stdout
#   --force       FILE may be replaced though it is no report
#   --since AGE   how far back: 90m, 24h (the default), 7d
#   --json        all of it as one object on stdout, for errors too
#   -C DIR        the workspace
#   -h, --help    this text
#
# Exit codes: 0, also if something is wrong in the workspace; 64 usage, or FILE is no report; 66 no workspace; 69 Python is too old; 74 the file
# can't be written; 77 no permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON RECOVERY_DEBUG
