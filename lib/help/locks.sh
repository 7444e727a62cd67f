#!/bin/bash
# Usage: recovery locks [--json] [-C DIR]
#
# Who holds which data lock of the workspace, and which of the documented locks. Changes nothing. Needs the packages
# typer and orjson.
#
# Exit codes: 0; 64 usage; 66 no workspace; 69 the packages are missing.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR RECOVERY_PYTHON
