"""`recovery.torture.syscalls`, for tests: skipped, loudly, where strace can't be used."""

from __future__ import annotations

import os

import pytest

from recovery.torture import syscalls
from recovery.torture.syscalls import CALLS, Call, calls, inject, limited, order

__all__ = ["CALLS", "Call", "calls", "inject", "limited", "order", "require_strace"]


def require_strace() -> None:
    """Skip where strace can't be used; in CI that is a failure."""
    why = syscalls.why_not()
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"{why}: in CI the system call faults must run")
    if why:
        pytest.skip(f"SYSTEM CALL FAULTS NOT TESTED: {why}")
