"""The scratch workspace of `recovery torture`, over the suite under test.

`RECOVERY_SUITE_UNDER_TEST` names another copy of the suite (a mutant); `RECOVERY_TEST_FULL=1` asks for every case
instead of a fixed sample.
"""

from __future__ import annotations

import os
from pathlib import Path

from recovery.torture import scratch
from recovery.torture.scratch import FORMS, PYTHON, Command, Done, Violation, finish, outbox, progress

__all__ = ["FORMS", "FULL", "PYTHON", "SUITE", "Command", "Done", "Violation", "Workspace"]
__all__ += ["finish", "outbox", "progress"]

SUITE = Path(os.environ.get("RECOVERY_SUITE_UNDER_TEST") or scratch.SUITE)
FULL = os.environ.get("RECOVERY_TEST_FULL") == "1"


class Workspace(scratch.Workspace):
    """A root with three agents and the documented locks beside it; commands run from SUITE."""

    suite = SUITE
