"""How long a try may take: cutting it off, and learning the limit from how long successes took.

A plain function is interrupted by a timer's signal, which only the main thread receives; a coroutine is cancelled; a
command is ended with its whole process group (`recovery.commands`).
"""

from __future__ import annotations

import math
import os
import time

from recovery import jsonl, jsontext, layout
from recovery.durable import digest_of
from recovery.errors import RecoveryError, UsageError
from recovery.signals import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import FrameType
    from typing import Any, Optional, TypeVar

    from recovery.durable import Version
    from recovery.session import Session
    from recovery.store import FileStore

    T = TypeVar("T")


class TaskTimeout(RecoveryError, TimeoutError):
    """124, as timeout(1) has it: a try took too long and was cut off; what it had done by then stays done.

    `stderr_tail` is what a command said last, "" for functions; `took` the seconds that it ran, 0 for functions.
    """

    took = 0.0
    code = 124
    stderr_tail = stdout_tail = ""


def timed_out(task: str, seconds: float) -> TaskTimeout:
    return TaskTimeout(f"{task} timed out after {round(seconds, 3):g} s")


def require_seconds(seconds: Any, what: str = "a timeout", zero: bool = False) -> float:
    """The number itself, or UsageError (64) unless it is finite and more than 0 (with `zero`, not less)."""
    good = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    try:
        value = float(seconds) if good else math.nan
    except OverflowError:
        value = math.inf
    if not math.isfinite(value) or value < 0 or (not value and not zero):
        raise UsageError(f"{what} is a number of seconds{'' if zero else ' above 0'}, not {seconds!r:.60}")
    return value


# --- plain functions


class TimeIsUp(BaseException):
    """What rings inside of a function whose time is up; its caller sees a TaskTimeout.

    No Exception: neither `except Exception` in a task nor `except OSError` in a commit may take it for its own.
    """


#: A timer is never set further than this: setitimer(2) has its limits, and the handler sets it again.
_FURTHEST = 86400.0
#: It rings again until its handler has run: a signal that comes right before a system call doesn't interrupt it.
_REPEAT = 0.02


def run_with_timeout(
    func: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any], seconds: float, task: str = ""
) -> T:
    """`func(*args, **kwargs)`, interrupted once `seconds` have passed: TaskTimeout (124).

    `task` is what the message calls it.  Only in the main thread, where Python runs signal handlers: elsewhere
    UsageError (64) before the call.  SIGALRM and ITIMER_REAL are used; the caller's handler and timer are put back,
    and an alarm of his that is due in between rings on time.  May be nested.

    Inside of the function `TimeIsUp` is raised, once, between two of its bytecodes: a long call into C is interrupted
    when it returns, `finally` blocks run to their end without another alarm.  A function that swallows it (a bare
    `except:`; a destructor that was running) goes on without a limit, and its result counts.
    """
    import threading

    require_seconds(seconds)
    name = task or getattr(func, "__name__", "the function")
    if threading.current_thread() is not threading.main_thread():
        raise UsageError(
            f"{name}: a plain function can only be timed out in the main thread; use a coroutine or run_command"
        )
    alarm = _Alarm(seconds)
    try:
        alarm.begin()
        return func(*args, **kwargs)
    except TimeIsUp as up:
        if up is not alarm.mine:
            raise
        raise timed_out(f"Task {name}", seconds) from None
    finally:
        alarm.closing = True  # the first thing: whatever rings from here on rings for the caller, in `end`
        alarm.end()


class _Alarm:
    """Our alarm, and the caller's earlier or later one, on the one timer that a process has."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic, self.seconds = monotonic, seconds
        self.mine = TimeIsUp()
        self.rang = self.closing = self.missed = self.begun = False
        self.theirs_due = self.interval = self.due = 0.0
        self.before: Any = None
        self.mask: Any = None

    def begin(self) -> None:
        left, self.interval = plain.getitimer(plain.ITIMER_REAL)
        now = self.monotonic()
        self.theirs_due = now + left if left else 0.0
        self.due = now + self.seconds
        self.before = plain.getsignal(plain.SIGALRM)
        self.begun = True
        plain.signal(plain.SIGALRM, self.ring)
        self.mask = plain.pthread_sigmask(
            plain.SIG_UNBLOCK, (plain.SIGALRM,)
        )  # a parent may have handed it down blocked
        self.arm()

    def arm(self) -> None:
        dues = [due for due in (0.0 if self.rang else self.due, self.theirs_due) if due]
        first = min(max(min(dues) - self.monotonic(), 1e-4), _FURTHEST) if dues else 0.0
        plain.setitimer(plain.ITIMER_REAL, first, _REPEAT if dues else 0.0)

    def ring(self, signum: int, frame: Optional[FrameType]) -> None:
        now = self.monotonic()
        theirs = bool(self.theirs_due and now >= self.theirs_due)
        if self.closing:
            self.missed = self.missed or theirs
            return
        if theirs:  # first: it reaches further out, and ours rings right after it
            self.ring_theirs(signum, frame)
            return
        mine = not self.rang and now >= self.due
        self.rang = self.rang or mine
        self.arm()
        if mine:
            raise self.mine

    def ring_theirs(self, signum: int, frame: Optional[FrameType]) -> None:
        plain.setitimer(plain.ITIMER_REAL, self.interval, self.interval)  # what their handler expects to find
        try:
            if callable(self.before):
                self.before(signum, frame)
            elif self.before != plain.SIG_IGN:
                plain.signal(plain.SIGALRM, plain.SIG_DFL)
                plain.raise_signal(plain.SIGALRM)  # as it would have been without us: the end
        finally:
            left, self.interval = plain.getitimer(plain.ITIMER_REAL)  # it may have set another
            self.theirs_due = self.monotonic() + left if left else 0.0
            self.arm()

    def end(self) -> None:
        if not self.begun:
            return
        plain.setitimer(plain.ITIMER_REAL, 0)
        if self.mask is not None:
            plain.pthread_sigmask(plain.SIG_SETMASK, self.mask)
        plain.signal(plain.SIGALRM, self.before if self.before is not None else plain.SIG_DFL)
        if self.theirs_due:
            left = 0.0 if self.missed else self.theirs_due - self.monotonic()
            plain.setitimer(plain.ITIMER_REAL, max(left, 1e-6), self.interval)


# --- coroutines


async def run_async_with_timeout(work: Awaitable[T], seconds: float, task: str = "") -> T:
    """Await `work`, cancelled once `seconds` have passed: TaskTimeout (124).

    Somebody else's cancellation passes as CancelledError, and a TimeoutError that `work` itself raises as that.  A
    coroutine that swallows its cancellation goes on, and its result counts.  UsageError (64) for no good `seconds`.
    """
    import asyncio

    try:
        require_seconds(seconds)
    except UsageError:
        close = getattr(work, "close", None)  # a coroutine that is never awaited would be warned about
        if close is not None:
            close()
        raise
    name = task or getattr(work, "__name__", "the coroutine")
    own: Optional[TimeoutError] = None
    try:
        async with asyncio.timeout(seconds):
            try:
                return await work
            except TimeoutError as error:
                own = error
                raise
    except TimeoutError as error:
        if error is own:
            raise
        raise timed_out(f"Task {name}", seconds) from error


# --- a limit that follows experience

#: So many of the newest successes are looked at; the file is cut back to them when it holds more than twice as many.
NEWEST = 200
#: With fewer samples than this the fixed timeout stands.
FEWEST = 20
#: Every so many records of one object the length of the file is looked at, and at the first.
_LOOK_EVERY = 50


class AdaptiveTimeout:
    """A timeout for one kind of work, from how long its successes took: `factor` times their 99th percentile.

    With fewer than 20 samples it is `fixed`; from then on min(ceiling, max(floor, factor * p99)), p99 over the newest
    200 by the nearest-rank method.  On a public trace of 26,823 requests this rule (1.5 * p99) gave 0.28 % false
    timeouts at a mean timeout of 96 s; a fixed 120 s gave 0.49 %.

    `key` names the kind of work: an id stands for itself in data/timings/KEY.jsonl, any other text by its hash.
    `fixed`, `floor` and `ceiling` are in seconds; UsageError (64) unless all are above 0 and floor <= ceiling.
    `session` is the workspace, None for the one that is found.  Safe to use from any thread.
    """

    def __init__(
        self,
        key: str,
        fixed: float = 120.0,
        floor: float = 1.0,
        ceiling: float = 3600.0,
        factor: float = 1.5,
        session: Optional[Session] = None,
    ) -> None:
        if not isinstance(key, str) or not key:
            raise UsageError(f"a timeout's key is a word, not {key!r:.60}")
        self.key = key
        self.fixed = require_seconds(fixed, "a fixed timeout")
        self.floor, self.ceiling = require_seconds(floor, "a floor"), require_seconds(ceiling, "a ceiling")
        self.factor = require_seconds(factor, "a factor")
        if self.floor > self.ceiling:
            raise UsageError(f"the floor, {floor:g} s, is above the ceiling, {ceiling:g} s")
        if session is None:
            from recovery.session import Session

            session = Session()
        self.session = session
        self.name = f"{layout.TIMINGS}/{file_of(key)}.jsonl"
        self._known: tuple[Optional[Version], list[float]] = (None, [])
        self._recorded = 0

    def seconds(self) -> float:
        """The timeout now, in seconds.  Where the file can't be read that is said, and `fixed` stands."""
        return limit_of(self._samples(), self.fixed, self.floor, self.ceiling, self.factor)

    def record(self, seconds: float) -> None:
        """Keep how long a success took; UsageError (64) for NaN, infinite or negative.

        Not synced: a power cut may take the newest ones.  A disk that doesn't let it costs the sample, which is said.
        """
        from recovery.session import best_effort

        value = require_seconds(seconds, "a duration", zero=True)
        look = self._recorded % _LOOK_EVERY == 0
        self._recorded += 1
        best_effort(f"the duration of {self.key} was not kept", lambda: self._keep(value, look))

    def explain(self) -> dict[str, Any]:
        """How the timeout comes about: key, timeout, rule (in words), samples, p99 (None without samples), and the
        numbers given: factor, floor, ceiling, fixed."""
        samples = self._samples()
        p99 = percentile_99(samples) if samples else None
        if len(samples) < FEWEST:
            rule = f"fixed {self.fixed:g} s: {len(samples)} of the {FEWEST} samples needed"
        else:
            rule = (
                f"{self.factor:g} x p99 of the newest {len(samples)} successes, "
                f"at least {self.floor:g} s, at most {self.ceiling:g} s"
            )
        return {
            "key": self.key,
            "timeout": limit_of(samples, self.fixed, self.floor, self.ceiling, self.factor),
            "rule": rule,
            "samples": len(samples),
            "p99": p99,
            "factor": self.factor,
            "floor": self.floor,
            "ceiling": self.ceiling,
            "fixed": self.fixed,
        }

    def _samples(self) -> list[float]:
        from recovery.session import best_effort

        found = best_effort(f"the durations of {self.key} can't be read; its timeout is the fixed one", self._read)
        return found if found is not None else []

    def _read(self) -> list[float]:
        known, samples = self._known
        with self.session.store() as store:
            version = store.read(self.name, strict=False, known=known)
        if version is None:
            return []
        if version is not known:
            samples = [seconds for seconds, _ in timings(version)][-NEWEST:]
            self._known = (version, samples)
        return samples

    def _keep(self, seconds: float, look: bool) -> None:
        from recovery.commit import txid_of

        with self.session.store() as store:
            now = store.now()
            entry = {"txid": txid_of(now, os.urandom(6).hex()), "seconds": seconds, "timestamp": now}
            store.append(self.name, entry, sync=False)
            if look:
                compact(store, self.name)


def compact(store: FileStore, name: str) -> bool:
    """Cut a file of durations back to its newest NEWEST lines if it holds more than twice as many; whether it was.

    A line that another process appends meanwhile is never lost: appends and the replacement are made under the commit
    lock, under which the file is compared with what was read; if it is another by then, the next one who looks
    does it.  A crash leaves it old or new.
    """
    from recovery.commit import Put, StartAgain

    version = store.read(name, strict=False)
    if version is None or version.text.count("\n") <= 2 * NEWEST:
        return False
    with store.lock([name], create=True) as held:
        version = store.read(name, strict=False)
        if version is None or version.text.count("\n") <= 2 * NEWEST:
            return False
        newest = [jsontext.dumps(entry) for _, entry in timings(version)[-NEWEST:]]
        try:
            store.commit(held, Put(name, version, "".join(line + "\n" for line in newest)))
        except StartAgain:
            return False
    return True


def timings(version: Version) -> list[tuple[float, dict[str, Any]]]:
    """The durations in a file, oldest first, with their lines; torn and foreign lines are passed over."""
    found = []
    for entry in jsonl.records(version.text.encode("latin-1"))[0]:
        try:
            found.append((require_seconds(entry.get("seconds"), zero=True), entry))
        except UsageError:
            continue
    return found


def limit_of(samples: Sequence[float], fixed: float, floor: float, ceiling: float, factor: float) -> float:
    """The rule of `AdaptiveTimeout`, in seconds."""
    if len(samples) < FEWEST:
        return fixed
    return min(ceiling, max(floor, factor * percentile_99(samples)))


def percentile_99(samples: Sequence[float]) -> float:
    """Nearest rank: the smallest sample that at least 99 % of the samples don't exceed."""
    return sorted(samples)[(99 * len(samples) + 99) // 100 - 1]


def file_of(key: str) -> str:
    """What stands for a key in a file name; `@` can't begin an id, so that no key meets another's hash."""
    return key if layout.is_id(key) else "@" + digest_of(key.encode("utf-8", "surrogatepass"))
