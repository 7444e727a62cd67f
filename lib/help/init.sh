#!/bin/bash
# Usage: recovery init [DIR] [--here]
#
# Make a workspace: in a git repository its .orchestration/, elsewhere (or with --here) DIR itself, by default the
# current folder. Adds lines to .gitignore, tries on this very disk whether two processes exclude each other and see
# each other's renames, and names the file system. What exists is kept; init again is a no-op.
#
# Options:
#   --here        DIR itself, even inside a git repository
#   --dry-run     say where, make nothing
#   --json        one object on stdout
#   -v            what was tried and found
#   -h, --help    this text
#
# Exit codes: 0; 64 usage; 69 this disk can't be used; 74 disk error; 77 permission.
# Environment: RECOVERY_PYTHON RECOVERY_DEBUG
