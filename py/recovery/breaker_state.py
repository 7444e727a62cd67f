"""The state of a circuit breaker: its file, what it says, and whether it still says so.

`data/breakers/NAME.json`, one durable replacement a change:

    state          closed or open; half-open is an open one whose time has passed
    failures       in a row; a success sets them to 0
    id, generation a new number with each opening, closing and prolonging: the outcome of a call that began under an
                   older one changes nothing any more; `id` is drawn when the file is made
    open_until     UTC; what counts after a reboot, or where `seconds` is null: a quota's reset
    seconds        how long it was opened for, uptime_until when that is over by CLOCK_BOOTTIME of `boot`: a wall clock
                   that is set back or forward doesn't matter
    opened_at, changed_at, reason    for people
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from recovery import flock, jsontext, layout, steps, turns
from recovery.durable import Version
from recovery.errors import DataError, RecoveryError
from recovery.store import FileStore

FORMAT = 1
#: State files that a process keeps open to see that they stand unchanged; of more it asks by name, a bit slower.
MOST_OPEN = 64
#: 9999-12-31T23:59:59Z, the last that a datetime knows.
_LAST_SECOND = 253402300799


def uptime() -> float:
    """Seconds since boot, sleep included (CLOCK_BOOTTIME): no clock that anybody sets."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return time.monotonic()


def boot_id() -> str:
    return str(flock.identity()["boot"])


@dataclass(frozen=True)
class State:
    """What a state file holds; `id` is "" as long as there is none."""

    state: str = "closed"
    failures: int = 0
    id: str = ""
    generation: int = 1
    opened_at: str | None = None
    open_until: str | None = None
    seconds: float | None = None
    uptime_until: float | None = None
    boot: str | None = None
    reason: str = ""
    changed_at: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.generation

    def left(self, wall: float, up: float, boot: str) -> float:
        """Seconds that it stays open from now on."""
        if self.state != "open" or self.open_until is None:
            return 0.0
        left = datetime.fromisoformat(self.open_until).timestamp() - wall
        if self.seconds is not None:
            if boot and boot == self.boot and self.uptime_until is not None:
                left = self.uptime_until - up
            left = min(left, self.seconds)
        return max(round(left, 6), 0.0)

    def closed(self) -> State:
        return State(id=self.id, generation=self.generation + 1)

    def opened(self, until: float, wall: float, reason: str, seconds: float | None, up: float, boot: str) -> State:
        """Open until a time; with `seconds` that is measured by the uptime."""
        return replace(
            self,
            state="open",
            generation=self.generation + 1,
            opened_at=iso(wall, whole=True),
            open_until=iso(until),
            seconds=seconds,
            uptime_until=None if seconds is None else round(up + seconds, 6),
            boot=None if seconds is None else boot,
            reason=reason,
        )


class _Newer(ValueError):
    """A later version of the suite wrote it."""


def parse(text: str) -> State:
    """The state in a file's (latin-1) text; ValueError."""
    body = jsontext.loads(jsontext.from_latin(text))
    if not isinstance(body, dict):
        raise ValueError("is not a JSON object")
    form = body.get("format")
    if type(form) is int and form > FORMAT:
        raise _Newer(f"has format {form}, this version knows {FORMAT}")
    state = State(**{name: body[name] for name in State.__dataclass_fields__ if name in body})
    numbers = [state.failures, state.generation]
    texts = [state.id, state.reason]
    optional = [state.opened_at, state.open_until, state.boot, state.changed_at]
    seconds = [state.seconds, state.uptime_until]
    if (
        form != FORMAT
        or state.state not in ("closed", "open")
        or not all(type(one) is int and one >= 0 for one in numbers)
        or not all(type(one) is str for one in texts)
        or not all(one is None or type(one) is str for one in optional)
        or not all(one is None or (type(one) in (int, float) and math.isfinite(one)) for one in seconds)
        or not state.id
        or (state.state == "open" and state.open_until is None)
    ):
        raise ValueError("is not a breaker's state")
    if state.open_until is not None and datetime.fromisoformat(state.open_until).tzinfo is None:
        raise ValueError("its open_until has no time zone")
    return state


def iso(epoch: float, whole: bool = False) -> str:
    moment = datetime.fromtimestamp(int(epoch) if whole else epoch, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def iso_up(epoch: float) -> str:
    """The whole second by which a time has come; sums of floats are off by less than a millisecond."""
    return iso(min(math.ceil(round(epoch, 3)), _LAST_SECOND), whole=True)


def epoch(moment: object) -> float:
    """A time as epoch seconds: a datetime (without a zone: UTC) or seconds; ValueError."""
    try:
        if isinstance(moment, datetime):
            moment = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
        if isinstance(moment, (int, float)) and not isinstance(moment, bool):
            datetime.fromtimestamp(moment, UTC)
            return float(moment)
    except (OverflowError, OSError, ValueError):
        pass
    raise ValueError(f"{moment!r} is no time: a datetime or epoch seconds")


class Reading(NamedTuple):
    """One look at a state file; `problem` says why it doesn't count, "" if it does or there is none."""

    version: Version | None
    state: State
    problem: str = ""
    newer: bool = False


def read(store: FileStore, name: str) -> Reading:
    """The state file `name`: closed if there is none or it is damaged.  What Store.read raises but DataError."""
    try:
        version = store.read(name, strict=False)
    except DataError as error:
        return Reading(None, State(), str(error))
    if version is None:
        return Reading(None, State())
    try:
        return Reading(version, parse(version.text))
    except _Newer as problem:
        return Reading(version, State(), f"{name} {problem}", newer=True)
    except (ValueError, RecursionError) as problem:
        return Reading(version, State(), f"{name} is damaged: {problem}")


def put_away(store: FileStore, name: str) -> str:
    """Rename a damaged state file to the first free `.damaged`, under its lock."""
    folder_name, _, base = name.rpartition("/")
    folder = store.root.folder(folder_name)
    there = set(store.list(folder_name))
    target, n = base + ".damaged", 0
    while target in there:
        n += 1
        target = f"{base}.damaged.{n}"
    steps.at("put-away", name)
    os.rename(base, target, src_dir_fd=folder, dst_dir_fd=folder)
    return target


# --- seeing, at the price of one stat, that nothing has changed


class _OpenFile:
    """A descriptor that goes with its last user; one that somebody closed and reused is left alone."""

    __slots__ = ("fd", "which")
    all: ClassVar[set[int]] = set()

    def __init__(self, fd: int, st: os.stat_result) -> None:
        self.fd, self.which = fd, (st.st_ino, st.st_dev)
        _OpenFile.all.add(fd)

    def __del__(self) -> None:
        _OpenFile.all.discard(self.fd)
        try:
            st = os.fstat(self.fd)
            if (st.st_ino, st.st_dev) == self.which:
                os.close(self.fd)
        except OSError:
            pass


def watch(store: FileStore, name: str, version: Version) -> Callable[[], bool]:
    """A function that tells whether `name` is still `version`, for a fraction of what `store.read` costs.

    A file that is replaced has no link any more, and the change time of one that is edited differs: fstat(2) of an open
    one is enough, and keeps its inode number from being used again.  (Opened for writing, for a file of an overlay's
    lower layer would never hear of its replacement.)  Another store has its own way.
    """
    ctime, ino, size, mtime = version.ctime, version.ino, version.size, version.mtime
    place = store.root.place(name)
    path = os.path.join(os.path.abspath(store.root.path), place.name)

    def is_same(lstat: Callable[..., os.stat_result] = os.lstat) -> bool:
        try:
            st = lstat(path)
        except OSError:
            return False
        return st.st_ctime_ns == ctime and st.st_ino == ino and st.st_size == size and st.st_mtime_ns == mtime

    if len(_OpenFile.all) >= MOST_OPEN:
        return is_same
    try:
        fd = os.open(place.base, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.folder)
    except OSError:
        return is_same
    first = os.fstat(fd)
    file = _OpenFile(fd, first)
    if (first.st_ino, first.st_ctime_ns) != (ino, ctime):
        return never
    links = first.st_nlink

    def is_untouched(fstat: Callable[[int], os.stat_result] = os.fstat, fd: int = fd, file: _OpenFile = file) -> bool:
        try:
            st = fstat(fd)
        except OSError:
            return False
        return st.st_ctime_ns == ctime and st.st_nlink == links

    return is_untouched


def never() -> bool:
    """What `watch` gives where there is nothing to watch."""
    return False


def word(state: State, left: Callable[[State], float]) -> str:
    if state.state == "closed":
        return "closed"
    return "open" if left(state) > 0 else "half_open"


# --- all of them


def all_breakers(
    store: FileStore, clock: Callable[[], float] = time.time, uptime: Callable[[], float] = uptime
) -> list[dict[str, Any]]:
    """One dict a breaker of the workspace, by name; `problem` in one whose file is damaged, unreadable or newer.

    `name`, `state` (closed, open, half_open), `failures`, `generation`, `opened_at`, `until` (ISO 8601 or None),
    `retry_after` (seconds), `reason`, `changed_at`, `probes` (words for who is trying it now).
    """
    names = [base[:-5] for base in store.list(layout.BREAKERS) if base.endswith(".json")]
    return [described(store, name, clock(), uptime()) for name in names if layout.is_id(name)]


def described(store: FileStore, name: str, wall: float, up: float) -> dict[str, Any]:
    try:
        reading = read(store, f"{layout.BREAKERS}/{name}.json")
    except (RecoveryError, OSError) as error:
        reading = Reading(None, State(), str(error))
    state = reading.state
    left = state.left(wall, up, boot_id())
    found = {
        "name": name,
        "state": word(state, lambda _: left),
        "failures": state.failures,
        "generation": state.generation,
        "opened_at": state.opened_at,
        "until": iso_up(wall + left) if left > 0 else None,
        "retry_after": round(left, 3),
        "reason": state.reason,
        "changed_at": state.changed_at,
        "probes": _who_tries(store, name),
    }
    return {**found, "problem": reading.problem} if reading.problem else found


def probe_name(name: str, number: int) -> str:
    """What the turn of a half-open breaker's ticket is called."""
    return f"{layout.BREAKERS}/{name}.probe{number}"


def _who_tries(store: FileStore, name: str) -> list[str]:
    found = []
    start, end = f".{name}.probe", ".turn"
    for base in store.list(layout.BREAKERS):
        if base.startswith(start) and base.endswith(end):
            found.append(turns.holder(store, f"{layout.BREAKERS}/{base[1 : -len(end)]}"))
    return [words for words in found if words is not None]
