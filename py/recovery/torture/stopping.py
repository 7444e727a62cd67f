"""Ctrl-C and its like: a run that is stopped cleans up behind itself, and its processes end with it.

What a signal's handler raises may be lost: Python drops exceptions out of finalizers and of the hooks of a fork.  So
it is remembered as well, for `check` to raise between two pieces of work, and `held_back` where nothing may be cut.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, `kill`, and the terminal that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Check = Callable[[], None]
Mask = set[int | signal.Signals]

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@contextmanager
def stopped_by_signals() -> Iterator[Check]:
    """The first of SIGNALS raises KeyboardInterrupt, later ones nothing: cleaning up is not cut short.

    INT also where it was ignored, as a script's background jobs have it; HUP not where it was: `nohup`.
    Yields `check`, which raises it too if one has come.
    """
    numbers = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield raise_at(numbers, KeyboardInterrupt)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_at(numbers: list[signal.Signals], error: type[BaseException]) -> Check:
    """The first of these signals raises `error`; returns `check`, which raises it too if one has come."""
    seen: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise error

    def check() -> None:
        if seen:
            raise error

    for number in numbers:
        signal.signal(number, stop)
    return check


@contextmanager
def held_back() -> Iterator[Mask]:
    """SIGNALS that come in this block arrive behind it.  Yields the mask that was set before, for a forked child."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def die_with_parent(number: signal.Signals) -> None:
    """This process gets a signal when its parent ends (PR_SET_PDEATHSIG of prctl(2)); its children don't."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)
