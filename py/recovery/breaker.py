"""A circuit breaker that all processes of a workspace share and that survives restarts (M. Nygard, "Release It!").

What it protects is called as long as it is *closed*.  `failure_threshold` failures in a row *open* it: callers are
refused at once with CircuitOpen.  When its time has passed it is *half-open*: `half_open_max` callers may try, each
with a ticket; a success closes it, a failure opens it again.


A ticket is the kernel's lock on `data/breakers/.NAME.probeN.turn` for as long as the try takes: a process that dies in
it frees it.  The outcome is on disk before the ticket is free, so whoever wins it next reads what came of the last try.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, replace
from datetime import datetime
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from recovery import jsontext, layout, retry, steps, turns
from recovery.breaker_state import (
    FORMAT,
    Reading,
    State,
    boot_id,
    described,
    epoch,
    iso,
    iso_up,
    never,
    probe_name,
    put_away,
    read,
    uptime,
    watch,
    word,
)
from recovery.breaker_state import all_breakers as all_breakers
from recovery.commit import Put, StartAgain, lost_race
from recovery.errors import RecoveryError, Unavailable, UsageError
from recovery.flock import HeldLock, Limits
from recovery.incidents import message_of
from recovery.session import Session, best_effort, log
from recovery.store import FileStore

P = ParamSpec("P")
R = TypeVar("R")
Kinds = tuple[type[BaseException], ...]
Time = datetime | float

#: Seconds that bookkeeping waits for another process's at most.
PATIENCE = 5.0
#: Seconds after which somebody who met a try under way may ask again: nobody knows how long it takes.
PROBE_PAUSE = 1.0
#: Waiting tasks start again spread over this part of `reset_timeout`, and over so many seconds at most.
SPREAD, MOST_SPREAD = 0.1, 30.0
#: Seconds after which a state file that couldn't be made is tried again.
_CREATE_AGAIN = 10.0


class CircuitOpen(Unavailable):
    """69: the breaker `name` refuses; `until` (epoch seconds), `retry_after` (seconds): when it may let one try."""

    def __init__(self, name: str, until: float, retry_after: float, reason: str = "") -> None:
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"circuit {name} is open until {iso_up(until)}, another {retry_after:.1f} seconds{why}",
            hint="wait for it; `recovery breaker` shows them, `recovery breaker reset NAME` closes one",
        )
        self.name, self.until, self.retry_after, self.reason = name, until, retry_after, reason


# --- tickets


class Ticket:
    """The right to make one call; whoever has it says how it ended, once, with `leave`."""

    __slots__ = ("_done", "_pid", "block", "breaker", "key", "probe", "reset")

    def __init__(
        self, breaker: CircuitBreaker, key: tuple[str, int], reset: bool = False, probe: HeldLock | None = None
    ) -> None:
        self.breaker, self.key, self.reset, self.probe = breaker, key, reset, probe
        self.block, self._done, self._pid = False, False, os.getpid()

    @property
    def is_probe(self) -> bool:
        """Whether it is one of the few of a half-open breaker, and still holds its lock."""
        return self.probe is not None and self.probe.fd >= 0

    def leave(self, error: BaseException | None = None) -> None:
        """The call returned, or raised `error`; counted on disk as far as the disk lets it, then the ticket is free.

        Never raises for a disk or a lock.  Only the first word counts, and only in the process that got the ticket.
        """
        _went_out(self)
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if self._done or self._pid != os.getpid():
            return
        self._done = True
        try:
            self.breaker._count(self, self.breaker._verdict(error), error)
        finally:
            if self.probe is not None:
                steps.at("probe-free", self.breaker.name)
                self.probe.release()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """A block whose calls belong to this try of a half-open breaker; nothing changes if the ticket is no try.

        For a task whose ticket another thread drew (asyncio.to_thread): `enter` tells its own thread alone.
        """
        if self.probe is None or self in _inside.get():
            yield
            return
        _inside.set((*_inside.get(), self))
        try:
            yield
        finally:
            _went_out(self)

    def succeeded(self) -> None:
        """The call returned."""
        self.leave(None)

    def failed(self, error: BaseException) -> None:
        """The call raised `error`."""
        self.leave(error)

    def cancelled(self) -> None:
        """The call was given up: neither a success nor a failure."""
        self.leave(GeneratorExit())


_NOT_CALM: tuple[Callable[[], bool], tuple[str, int]] = (never, ("", 0))
#: The tickets of the blocks and probes that this thread or task is in.
_inside: ContextVar[tuple[Ticket, ...]] = ContextVar("recovery_breaker_tickets", default=())


def _went_out(ticket: Ticket) -> None:
    inside = _inside.get()
    if ticket in inside:
        _inside.set(tuple(one for one in inside if one is not ticket))


# --- the breaker


class CircuitBreaker:
    """Refuses calls of something that fails, for a while; one breaker a NAME for all processes of the workspace.

    `name` is an id.  `failure_threshold` failures in a row open it for `reset_timeout` seconds; then `half_open_max`
    calls may try it at a time, of which the first that ends decides.  A failure is an exception among `on` and not
    among `ignore`; any other Exception is an answer, and so a success.  KeyboardInterrupt, SystemExit, a cancelled task
    and the like are neither, nor is CircuitOpen, a refusal further in.  `quota_reset` is asked with each failure: the
    time (datetime, without a zone UTC, or epoch seconds) until which there is no point in trying, or None; with a time
    it opens at once, until then.

    `base_path` is the workspace's root as in Session, or `session` gives it.  `clock`, `uptime` (seconds) and `draw`
    (0 to 1) are the clocks and the dice.  UsageError (64) for a bad name or number, NotFound (66) without a workspace.

        breaker = CircuitBreaker("weather", reset_timeout=30)
        breaker.call(fetch, "Berlin")          # CircuitOpen, or what fetch returns or raises
        @breaker                               # plain and coroutine functions
        with breaker: ...                      # and `async with`; any number of threads and tasks, nested too

    What is called within a try of a half-open breaker, nested blocks and tasks it starts among them, belongs to it.

    A disk that can't be written costs the count, not the call: its own result or error comes back, and what was lost
    is logged.  A damaged state file counts as closed (said once) and is renamed to `NAME.json.damaged` when the next
    outcome is written; one of a newer version counts as closed too, and is left alone.  A crash leaves the state file
    whole, old or new, and frees the ticket.
    """

    def __init__(
        self,
        name: str,
        failure_threshold: int = 5,
        reset_timeout: float = 60.0,
        half_open_max: int = 1,
        *,
        base_path: str | os.PathLike[str] | None = None,
        session: Session | None = None,
        on: type[BaseException] | Iterable[type[BaseException]] = (Exception,),
        ignore: type[BaseException] | Iterable[type[BaseException]] = (),
        quota_reset: Callable[[BaseException], Time | None] | None = None,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], float] = uptime,
        draw: Callable[[], float] = retry.draw_evenly,
    ) -> None:
        self.name = layout.require_id("breaker", name)
        if failure_threshold < 1 or half_open_max < 1 or not (0 <= reset_timeout < math.inf):
            raise UsageError(
                f"breaker {name}: failure_threshold and half_open_max are at least 1, reset_timeout is in seconds"
            )
        self.failure_threshold, self.half_open_max = failure_threshold, half_open_max
        self.reset_timeout = float(reset_timeout)
        self.session = session if session is not None else Session(base_path, PATIENCE)
        self.on = (on,) if isinstance(on, type) else tuple(on)
        self.ignore = (ignore,) if isinstance(ignore, type) else tuple(ignore)
        self.quota_reset = quota_reset
        self.file = f"{layout.BREAKERS}/{name}.json"
        self._clock, self._uptime, self._draw = clock, uptime, draw
        self._calm = _NOT_CALM  # whether the file is still the one that says: closed, no failures; and its key
        self._last: tuple[Callable[[], bool], State] = (never, State())  # likewise, whatever it says
        self._told: tuple[object, ...] | None = None
        self._create_at = -math.inf

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.name!r})"

    # --- calling

    def call(self, func: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`func(*args, **kwargs)`, its result or its own exception; CircuitOpen (69) instead of calling it.

        For a coroutine function see `call_async`, or decorate it.
        """
        calm = self._calm
        if calm[0]():
            try:
                return func(*args, **kwargs)
            except BaseException as error:
                self._failed(calm[1], error)
                raise
        return self._call(func, args, kwargs)

    def __call__(self, func: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, plain or async, or an object with such a `__call__`.

        UsageError (64) for a generator function, plain or async: calling it does no work that could fail.
        """
        if _is(func, inspect.isgeneratorfunction) or _is(func, inspect.isasyncgenfunction):
            raise UsageError(
                f"breaker {self.name}: {func!r:.80} makes a generator, whose work a decorator can't see",
                hint="put the work into a `with breaker:` block, or decorate the function that is called for each item",
            )
        if _is(func, inspect.iscoroutinefunction):
            awaited = cast("Callable[P, Awaitable[Any]]", func)

            @functools.wraps(func)
            async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                calm = self._calm
                if calm[0]():
                    try:
                        return await awaited(*args, **kwargs)
                    except BaseException as error:
                        if self._verdict(error) == FAILURE:
                            await _in_thread(self._failed, calm[1], error)
                        raise
                async with self:
                    return await awaited(*args, **kwargs)

            return cast("Callable[P, R]", guarded_async)

        @functools.wraps(func)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            calm = self._calm
            if calm[0]():
                try:
                    return func(*args, **kwargs)
                except BaseException as error:
                    self._failed(calm[1], error)
                    raise
            return self._call(func, args, kwargs)

        return guarded

    async def call_async(self, func: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """`call` for a coroutine function; files are read and written in a thread, so that the loop goes on."""
        async with self:
            return await func(*args, **kwargs)

    def _call(self, func: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        ticket = self.enter()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            ticket.leave(error)
            raise
        ticket.leave()
        return result

    def __enter__(self) -> CircuitBreaker:
        self._step_in(self._admit())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._step_out()._end(error)

    async def __aenter__(self) -> CircuitBreaker:
        calm = self._calm
        self._step_in(Ticket(self, calm[1]) if calm[0]() else await _in_thread(self._admit))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket = self._step_out()
        verdict = self._verdict(error)
        if verdict == FAILURE or (verdict == SUCCESS and (ticket.reset or ticket.is_probe)):
            await _in_thread(ticket._end, error)
        else:
            ticket._end(error)

    def _step_in(self, ticket: Ticket) -> None:
        ticket.block = True
        _inside.set((*_inside.get(), ticket))

    def _step_out(self) -> Ticket:
        inside = _inside.get()
        for ticket in reversed(inside):
            if ticket.block and ticket.breaker is self:
                _inside.set(inside[:-1] if ticket is inside[-1] else tuple(one for one in inside if one is not ticket))
                return ticket
        raise RuntimeError(f"{self!r} is left by a thread or task that did not enter it")

    def enter(self) -> Ticket:
        """A ticket for one call, to be given back with `Ticket.leave`; CircuitOpen (69) if it is refused."""
        ticket = self._admit()
        if ticket.probe is not None:
            _inside.set((*_inside.get(), ticket))
        return ticket

    def _admit(self) -> Ticket:
        calm = self._calm
        if calm[0]():
            return Ticket(self, calm[1])
        state = self._load()
        if state.state == "closed":
            return Ticket(self, state.key, state.failures > 0)
        for outer in _inside.get():
            if outer.is_probe and outer.breaker.file == self.file and outer.breaker.session.root == self.session.root:
                return Ticket(self, state.key)  # without a lock: of an open breaker's tickets only those with one count
        self._require_due(state)
        for number in range(self.half_open_max):
            try:
                probe = self._take_probe(number)
            except (RecoveryError, OSError) as error:
                if isinstance(error, Unavailable):
                    raise
                self._warn(f"circuit {self.name}: tried without a ticket: {error}", "probe", type(error))
                return Ticket(self, state.key)
            if probe is not None:
                return self._admit_with(probe)
        raise CircuitOpen(self.name, self._clock() + PROBE_PAUSE, PROBE_PAUSE, "it is being tried just now")

    def _admit_with(self, probe: HeldLock) -> Ticket:
        """With the lock of a ticket: somebody may have closed or opened it since it was read."""
        try:
            state = self._load()
            if state.state == "open":
                self._require_due(state)
                steps.at("probe", self.name)
                return Ticket(self, state.key, probe=probe)
        except BaseException:
            probe.release()
            raise
        probe.release()
        return Ticket(self, state.key, state.failures > 0)

    def _require_due(self, state: State) -> None:
        left = self._left(state)
        if left > 0:
            raise CircuitOpen(self.name, self._clock() + left, left, state.reason)

    def _take_probe(self, number: int) -> HeldLock | None:
        with self._store() as store:
            return turns.take(store, probe_name(self.name, number))

    # --- outcomes

    def _verdict(self, error: BaseException | None) -> str:
        if error is None:
            return SUCCESS
        if isinstance(error, (CircuitOpen, *_given_up())):
            return NEITHER
        if isinstance(error, self.on) and not isinstance(error, self.ignore):
            return FAILURE
        return SUCCESS if isinstance(error, Exception) else NEITHER

    def _failed(self, key: tuple[str, int], error: BaseException) -> None:
        """A call that began while all was well raised `error`."""
        if self._verdict(error) == FAILURE:
            self._count(Ticket(self, key), FAILURE, error)

    def _count(self, ticket: Ticket, verdict: str, error: BaseException | None) -> None:
        is_probe = ticket.is_probe
        if verdict == NEITHER or (verdict == SUCCESS and not ticket.reset and not is_probe):
            return
        until = self._quota(error) if error is not None and verdict == FAILURE else None

        def decide(state: State) -> State | None:
            if ticket.key[0] and state.key != ticket.key:
                return None  # it began under an older generation
            if state.state == "open" and not is_probe:
                return None
            if verdict == SUCCESS:
                return state.closed() if is_probe else replace(state, failures=0) if state.failures else None
            assert error is not None
            reason = f"{type(error).__name__}: {message_of(error)[:300]}"
            failed = replace(state, failures=state.failures + 1, reason=reason)
            if until is not None:
                return failed.opened(until, self._clock(), reason, None, 0.0, "")
            if is_probe or failed.failures >= self.failure_threshold:
                return self._opened(failed, self.reset_timeout, reason)
            return failed

        what = "closing" if verdict == SUCCESS else "a failure"
        best_effort(f"circuit {self.name}: {what} could not be noted", lambda: self._change(decide))

    def _quota(self, error: BaseException) -> float | None:
        if self.quota_reset is None:
            return None
        try:
            answer = self.quota_reset(error)
            until = None if answer is None else epoch(answer)
        except Exception as problem:
            log.warning("circuit %s: quota_reset raised %r; it is passed over", self.name, problem)
            return None
        return until if until is not None and until > self._clock() else None

    def _opened(self, state: State, seconds: float, reason: str) -> State:
        now = self._clock()
        return state.opened(now + seconds, now, reason, seconds, self._uptime(), boot_id())

    # --- for people and programs that know better

    def reset(self) -> None:
        """Close it, whatever it was.  Unlike a call's outcome this raises what the disk or the lock doesn't let it."""
        self._change(lambda state: state.closed() if state.id else state, by_hand=True)

    def trip(self, seconds: float | None = None, reason: str = "") -> None:
        """Open it for `seconds` from now (default: `reset_timeout`); one that is open for longer stays so."""
        length = self.reset_timeout if seconds is None else float(seconds)
        if not 0 <= length < 1e11:
            raise UsageError(f"breaker {self.name}: {seconds!r} is no number of seconds")

        def decide(state: State) -> State | None:
            return None if self._left(state) > length else self._opened(state, length, reason)

        self._change(decide, by_hand=True)

    def open_until(self, moment: Time, reason: str = "", *, force: bool = False) -> None:
        """Open it until a wall-clock time: a quota's reset; a datetime (without a zone UTC) or epoch seconds.

        A time that has passed, or that is earlier than the one it is open until, changes nothing unless `force`.
        Raises as `reset`; UsageError (64) for what is no time.
        """
        try:
            until = epoch(moment)
        except ValueError as error:
            raise UsageError(f"breaker {self.name}: {error}") from None

        def decide(state: State) -> State | None:
            left = until - self._clock()
            if not force and (left <= 0 or left < self._left(state)):
                return None
            return state.opened(until, self._clock(), reason, None, 0.0, "")

        self._change(decide, by_hand=True)

    @property
    def state(self) -> str:
        """`closed`, `open` or `half_open`."""
        return word(self._load(), self._left)

    @property
    def failures(self) -> int:
        """Failures in a row, as far as they were counted."""
        return self._load().failures

    def retry_after(self) -> float:
        """Seconds until a call may be let through again; 0 if one may try now."""
        return self._left(self._load())

    def wait_time(self, draw: Callable[[], float] | None = None) -> float:
        """Seconds that a waiting task should sleep: until then, and a bit by chance so that not all wake at once.

        That is up to a tenth of `reset_timeout`, at most 30 s; nothing if it is closed.
        """
        state = self._load()
        if state.state == "closed":
            return 0.0
        chance = min(max((draw or self._draw)(), 0.0), 1.0)
        return self._left(state) + chance * min(SPREAD * self.reset_timeout, MOST_SPREAD)

    def describe(self) -> dict[str, Any]:
        """What `all_breakers` says of it, and its limits."""
        with self._store() as store:
            found = described(store, self.name, self._clock(), self._uptime())
        limits = {
            "failure_threshold": self.failure_threshold,
            "reset_timeout": self.reset_timeout,
            "half_open_max": self.half_open_max,
        }
        return {**found, **limits}

    # --- the file

    @contextmanager
    def _store(self) -> Iterator[FileStore]:
        """This thread's store, with little patience: what waits here is a call of the user's."""
        with self.session.store() as store:
            theirs, store.limits = store.limits, self._limits()
            try:
                yield store
            finally:
                store.limits = theirs

    def _limits(self) -> Limits:
        patience = min(PATIENCE, self.session.lock_timeout)
        limits = Limits(patience, patience * 2, os.path.basename(sys.argv[0] if sys.argv else "") or "python")
        limits.family = ""
        return limits

    def _left(self, state: State) -> float:
        return state.left(self._clock(), self._uptime(), boot_id())

    def _load(self) -> State:
        """The state now; closed, and said, if it can't be known."""
        is_same, state = self._last
        if is_same():
            return state
        try:
            with self._store() as store:
                reading = read(store, self.file)
                if reading.problem:
                    version = reading.version
                    mark = (version.ino, version.ctime) if version is not None else ()
                    self._warn(f"{reading.problem}: circuit {self.name} counts as closed", *mark)
                elif reading.version is None:
                    if self._uptime() >= self._create_at:
                        self._create_at = self._uptime() + _CREATE_AGAIN
                        best_effort(f"circuit {self.name} can't be kept", lambda: self._change(_made))
                        reading = read(store, self.file)
                else:
                    reading = self._anchored(reading)
                if reading.version is not None:
                    state = reading.state
                    self._last = (watch(store, self.file, reading.version), state)
                    if not reading.problem and state.state == "closed" and not state.failures:
                        self._calm = (self._last[0], state.key)
                return reading.state
        except (RecoveryError, OSError) as error:
            self._warn(f"circuit {self.name} counts as closed, its state can't be read: {error}", type(error))
            return State()

    def _anchored(self, reading: Reading) -> Reading:
        """After a reboot: what is left by the wall clock, at most the whole, is measured by the new uptime."""
        state, boot = reading.state, boot_id()
        left = self._left(state)
        if not boot or state.seconds is None or state.boot == boot or left <= 0:
            return reading
        anchored = replace(state, boot=boot, uptime_until=round(self._uptime() + left, 6))
        best_effort(
            f"circuit {self.name}: the time after a reboot could not be noted",
            lambda: self._change(lambda now: anchored if now == state else None),
        )
        return reading._replace(state=anchored)

    def _change(self, decide: Callable[[State], State | None], by_hand: bool = False) -> None:
        """Read, decide and write under the file's lock; `decide` gives None to leave it as it is.

        A crash leaves the file old or new, or moved away if it was damaged.  Raises what Store.lock and Store.commit
        do; Unavailable (69), only `by_hand`, for a file of a newer version.
        """
        with self._store() as store:
            for _ in range(8):
                with store.lock([self.file], create=True) as held:
                    reading = read(store, self.file)
                    before = reading.state
                    if reading.newer:
                        if by_hand:
                            raise Unavailable(reading.problem, hint="use the version of the suite that made it")
                        return
                    after = decide(before)
                    if after is None:
                        return
                    if reading.problem:
                        kept = put_away(store, self.file)
                        log.warning("%s: kept as %s", reading.problem, kept)
                    after = replace(
                        after, id=before.id or os.urandom(4).hex(), changed_at=iso(self._clock(), whole=True)
                    )
                    body = {"format": FORMAT, "name": self.name, **asdict(after)}
                    try:
                        version = None if reading.problem else reading.version
                        store.commit(held, Put(self.file, version, jsontext.pretty(body) + "\n"))
                    except StartAgain:
                        continue
                if after.state != before.state:
                    self._say(after)
                return
            raise lost_race([self.file])

    def _say(self, state: State) -> None:
        if state.state == "open":
            log.warning("circuit %s is open until %s: %s", self.name, state.open_until, state.reason)
        else:
            log.info("circuit %s is closed again", self.name)

    def _warn(self, text: str, *mark: object) -> None:
        """Say it once; another `mark`, and it is said again."""
        if self._told != mark:
            self._told = mark
            log.warning("%s", text)


SUCCESS, FAILURE, NEITHER = "success", "failure", "neither"


def _is(func: Callable[..., Any], kind: Callable[[object], bool]) -> bool:
    """Whether a function, or an object's `__call__`, is of a `kind` that inspect knows."""
    while isinstance(func, functools.partial):
        func = func.func
    return kind(func) or kind(type(func).__call__)


def _made(state: State) -> State | None:
    return None if state.id else state


def _given_up() -> Kinds:
    """The exceptions that say nothing about what was called."""
    asyncio = sys.modules.get("asyncio.exceptions")
    given_up: Kinds = (KeyboardInterrupt, SystemExit, GeneratorExit)
    return (*given_up, asyncio.CancelledError) if asyncio is not None else given_up


async def _in_thread(work: Callable[..., R], *args: Any) -> R:
    import asyncio

    return await asyncio.to_thread(work, *args)
