"""RECOVERY_DEBUG=1: each step on stderr with the milliseconds since the command began.

Only names of steps, files and locks are written, never a message or a file's content.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable


def tracer() -> Callable[..., None]:
    """A hook for `steps.at` that writes one line a step to stderr."""
    began = time.monotonic()
    pid = os.getpid()

    def trace(step: str, detail: object = "") -> None:
        line = f"recovery[{pid}] {(time.monotonic() - began) * 1e3:9.3f} ms  {step:<14} {detail}"
        try:
            os.write(2, (line.rstrip() + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass

    return trace
