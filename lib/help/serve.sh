#!/bin/bash
# Usage: recovery serve [--port N] [--since 24h] [-C DIR]
#
# The page of `recovery report`, live: it prints an address to open in a browser on this machine, and each change of the
# workspace is on the page within a second. Ctrl-C, or TERM, ends it.
#
# It listens on this machine's own addresses only, 127.0.0.1 and ::1, and only reads. The address holds a random token,
# new each time: other users of the machine can't guess it; who has it sees what the workspace holds. Requests that
# come under any other name than this machine's own are refused, so that no web page gets in by way of your browser. Who
# connects and does not ask within 5 seconds is closed, and never keeps out who has the address.
# From elsewhere: ssh -L 8123:127.0.0.1:8123 HOST, with --port 8123.
#
# Costs nothing while nobody looks, and next to nothing while nothing changes. Needs Python 3.11, nothing installed.
#
# Options:
#   --port N      this port, 1 to 65535; 0, or without it: one that is free
#   --since AGE   how far back the page looks: 90m, 24h (the default), 7d
#   -C DIR        the workspace
#   -h, --help    this text
#
# Exit codes: 0 it was ended; 64 usage; 66 no workspace; 69 the port is taken, or Python is too old; 77 no permission.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON RECOVERY_DEBUG
