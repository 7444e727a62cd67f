#!/bin/bash
# Usage: recovery changes [--most N] [--json] [-C DIR] [AGENT [TASK]]
#
# What was changed, when and by whom, each field before and after: the newest 20 (or N) lines of data/changes/, the
# newest last. Needs the packages typer and orjson.
#
# Exit codes: 0; 64 usage; 66 no workspace; 69 the packages are missing.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON
