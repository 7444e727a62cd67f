"""Trying again: how often, how long between, and until when.

Exponential backoff with full jitter: the pause before try n+1 is drawn evenly from 0 to `delay * 2**(n-1)`, at most
`CAP` seconds (M. Brooker, "Exponential Backoff And Jitter", AWS 2015, where of the jitters compared this one makes the
fewest calls).
"""

from __future__ import annotations

import os
import time

from recovery.errors import TRY_AGAIN, AncestorHolds, RecoveryError, Taken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

#: Seconds that a pause never exceeds.
CAP = 60.0


def draw_evenly() -> float:
    """A number from 0 to 1 (the module `random` would cost every command its import)."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


def pause_before(attempt: int, delay: float, draw: Callable[[], float] = draw_evenly, cap: float = CAP) -> float:
    """Seconds to wait before try number `attempt` (2 and up); `draw` gives numbers from 0 to 1."""
    return float(draw() * min(cap, delay * 2.0 ** min(attempt - 2, 1000)))


def next_pause(
    error: RecoveryError,
    attempt: int,
    attempts: int,
    delay: float,
    deadline: float,
    now: Optional[float] = None,
    draw: Callable[[], float] = draw_evenly,
) -> Optional[float]:
    """Seconds to wait after try `attempt` failed with `error`, or None if that was the last.

    The last: the error isn't one that trying again helps against, `attempts` are used up, or the pause would reach
    past `deadline` (time.monotonic).
    """
    if error.code not in TRY_AGAIN or attempt >= attempts or isinstance(error, (AncestorHolds, Taken)):
        return None
    pause = pause_before(attempt + 1, delay, draw)
    return None if (time.monotonic() if now is None else now) + pause >= deadline else pause
