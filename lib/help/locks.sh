#!/bin/bash
# Usage: recovery locks [--json] [-C DIR]
#
# Who holds which data lock of the workspace, and which of the documented locks. Changes nothing.
#
# Exit codes: 0; 64 usage; 66 no workspace.
# Environment: ORCHESTRATION_ROOT ORCHESTRATION_LOCK_DIR
