"""A budget of tries, so that trying again doesn't become the load that keeps a service down.

Per task and for all tasks together, in a sliding window (Google, "Site Reliability Engineering", chapter 21, Handling
Overload: a budget of retries per request and per client).  `data/budget.json` counts the tries in slots of a 60th of
the window; what has left the window is dropped with each write, and tasks without a live slot too, so that there are
never more tasks in it than tries.  The limits may be set for the workspace, in data/config.json:

    "retry_budget": {"per_task": 60, "overall": 600, "window": 3600}

A budget must not be what fails the work: where its file is damaged it begins anew, where the disk or the lock doesn't
let it count a try is allowed uncounted; both are said.  A clock that was set back makes no free tries and locks
nobody out for longer than a window: slots of the future count as now.

Runs on Python 3.9 with the standard library, for the scripts' helper.
"""

from __future__ import annotations

import math
import time

from recovery import durable, flock, jsontext, layout
from recovery.commit import Put, StartAgain, lost_race
from recovery.errors import RecoveryError, Unavailable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Optional, TypeVar

    from recovery.durable import Version
    from recovery.session import Session
    from recovery.store import FileStore

    Slots = dict[int, int]
    T = TypeVar("T")

FORMAT = 1
#: Tries of one task and of all tasks, and the seconds they are for, where nobody says otherwise.
DEFAULTS = {"per_task": 60, "overall": 600, "window": 3600.0}
#: Into so many slots a window is cut.
SLOTS = 60
#: Seconds that counting waits for another process's at most.
PATIENCE = 5.0


class Limits:
    """Tries of one task and of all tasks together, in `window` seconds."""

    __slots__ = ("overall", "per_task", "window")

    def __init__(self, per_task: int, overall: int, window: float) -> None:
        self.per_task, self.overall, self.window = per_task, overall, window

    @property
    def slot(self) -> float:
        """Seconds of one slot."""
        return self.window / SLOTS


def limits_of(store: FileStore, given: Optional[Mapping[str, Any]] = None) -> Limits:
    """What is `given` wins over the workspace's config, and that over the defaults; nonsense in the config is told.

    UsageError (64) for nonsense that is given.
    """
    values: dict[str, Any] = dict(DEFAULTS)
    config = store.config.get("retry_budget", {})
    if not isinstance(config, dict):
        config = {"retry_budget": config}
    for key, value in config.items():
        if _is_limit(key, value):
            values[key] = value
        else:
            store.told.append(f"{layout.CONFIG}: retry_budget: {key} {value!r} is no limit; passed over")
    for key, value in (given or {}).items():
        if value is None:
            continue
        if not _is_limit(key, value):
            raise UsageError(f"retry budget: {key} {value!r} is no limit")
        values[key] = value
    return Limits(values["per_task"], values["overall"], float(values["window"]))


def _is_limit(key: str, value: object) -> bool:
    if key == "window":
        return type(value) in (int, float) and 1 <= value <= 1e9  # type: ignore[operator]
    return key in DEFAULTS and type(value) is int and value >= 0


class Counts:
    """The tries of the last window, by slot: of all tasks, and of each; `moved` if some came from the future."""

    __slots__ = ("moved", "overall", "tasks")

    def __init__(self) -> None:
        self.overall: Slots = {}
        self.tasks: dict[str, Slots] = {}
        self.moved = False

    def used(self, key: str) -> tuple[int, int]:
        """How many tries of this task and of all are in the window."""
        return sum(self.tasks.get(key, {}).values()), sum(self.overall.values())

    def add(self, key: str, slot: int) -> None:
        for slots in (self.overall, self.tasks.setdefault(key, {})):
            slots[slot] = slots.get(slot, 0) + 1


def parse(text: str, limits: Limits, now: float) -> Counts:
    """The live counts in a budget file's (latin-1) text; ValueError if it is none, Unavailable if a newer one."""
    body = jsontext.loads(jsontext.from_latin(text))
    if not isinstance(body, dict):
        raise ValueError("is not a JSON object")
    form: Any = body.get("format")
    slot: Any = body.get("slot")
    if type(form) is int and form > FORMAT:
        raise Unavailable(f"{layout.BUDGET} has format {form}, this version knows {FORMAT}")
    tasks = body.get("tasks")
    if form != FORMAT or type(slot) not in (int, float) or not 0 < slot < math.inf or not isinstance(tasks, dict):
        raise ValueError("is not a budget")
    counts = Counts()
    counts.overall = _live(body.get("overall"), slot, limits, now, counts)
    for key, slots in tasks.items():
        live = _live(slots, slot, limits, now, counts)
        if live:
            counts.tasks[key] = live
    return counts


def _live(slots: object, width: float, limits: Limits, now: float, counts: Counts) -> Slots:
    """The slots that are in the window, as slots of its width: a slot of another width counts at its end."""
    if not isinstance(slots, dict):
        raise ValueError("its slots are no object")
    current = int(now // limits.slot)
    live: Slots = {}
    for name, count in slots.items():
        if type(count) is not int or count < 0:
            raise ValueError("counts something else than tries")
        number = int(name)
        if width != limits.slot:
            number = math.ceil((number + 1) * width / limits.slot) - 1
        if number > current:
            number, counts.moved = current, True
        if count and number > current - SLOTS:
            live[number] = live.get(number, 0) + count
    return live


def text_of(counts: Counts, limits: Limits, time_now: str) -> str:
    body = {
        "format": FORMAT,
        "window": limits.window,
        "slot": limits.slot,
        "changed_at": time_now,
        "overall": _by_name(counts.overall),
        "tasks": {key: _by_name(slots) for key, slots in sorted(counts.tasks.items())},
    }
    return jsontext.pretty(body) + "\n"


def _by_name(slots: Slots) -> dict[str, int]:
    return {str(number): slots[number] for number in sorted(slots)}


def key_of(task: str) -> str:
    """A task as a key of the file: its id, or the hash of what is longer than any."""
    return task if len(task) <= 300 else durable.digest_of(task.encode("utf-8", "surrogatepass"))


def spend(
    store: FileStore,
    task: str,
    limits: Optional[Mapping[str, Any]] = None,
    now: Optional[float] = None,
    clock: Callable[[], float] = time.time,
) -> Optional[str]:
    """Count one more try of `task`, durably: None if it was counted, else words why there is none left.

    `limits` as in `limits_of`; `now` is epoch seconds, by default the `clock`'s once the lock is held.  None, with a
    line in `store.told`, also if it couldn't be counted.  A crash leaves the file old or new: a try that was counted
    and not made is lost, none is made that was not counted.
    """
    most = limits_of(store, limits)
    theirs = store.limits
    patience = min(PATIENCE, theirs.wait())
    store.limits = flock.Limits(patience, patience * 2, theirs.command)
    store.limits.family = theirs.family
    try:
        return _spend(store, key_of(task), most, now, clock)
    except (RecoveryError, OSError) as error:
        store.told.append(f"a try of {task} could not be counted and is allowed: {error}")
        return None
    finally:
        store.limits = theirs


def _spend(store: FileStore, key: str, most: Limits, now: Optional[float], clock: Callable[[], float]) -> Optional[str]:
    for _ in range(8):
        with store.lock([layout.BUDGET], create=True) as held:
            moment = clock() if now is None else now
            version, counts = _read(store, most, moment)
            refused = _refusal(key, counts, most, moment)
            if refused is None:
                counts.add(key, int(moment // most.slot))
            elif not counts.moved:
                return refused
            try:
                store.commit(held, Put(layout.BUDGET, version, text_of(counts, most, store.now())))
                return refused
            except StartAgain:
                continue
    raise lost_race([layout.BUDGET])


def _read(store: FileStore, most: Limits, now: float) -> tuple[Optional[Version], Counts]:
    version = store.read(layout.BUDGET, strict=False)
    if version is None:
        return None, Counts()
    try:
        return version, parse(version.text, most, now)
    except (ValueError, RecursionError) as problem:
        store.told.append(f"{layout.BUDGET} is damaged and begins anew: {problem}")
        return version, Counts()


def _refusal(key: str, counts: Counts, most: Limits, now: float) -> Optional[str]:
    task, overall = counts.used(key)
    if task >= most.per_task:
        who, used, limit, slots = f"task {key} has", task, most.per_task, counts.tasks.get(key, {})
    elif overall >= most.overall:
        who, used, limit, slots = "all tasks together have", overall, most.overall, counts.overall
    else:
        return None
    words = f"{who} used {used} of {limit} tries in the last {_seconds(most.window)}"
    wait = _until_free(slots, used - limit + 1, most, now)
    return words if wait is None else f"{words}; the next is free in {_seconds(wait)}"


def _until_free(slots: Slots, wanted: int, most: Limits, now: float) -> Optional[float]:
    """Seconds until so many tries have left the window; None if there never are so many."""
    for number in sorted(slots):
        wanted -= slots[number]
        if wanted <= 0:
            return max((number + SLOTS) * most.slot - now, 0.0)
    return None


def _seconds(seconds: float) -> str:
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{math.ceil(seconds)} seconds"


class RetryBudget:
    """How many tries are left, per task and overall, for all processes of a workspace.

    `per_task` and `overall` tries in `window` seconds; what is None comes from the workspace's config, else from
    DEFAULTS (60, 600, 3600).  The window is best the same for everybody: another one recounts the file in its own
    slots.  `base_path` is the workspace, found as by Session; or give a `session`, or the `store` to use (which is one
    thread's).  UsageError (64) for a bad number.
    """

    def __init__(
        self,
        per_task: Optional[int] = None,
        overall: Optional[int] = None,
        window: Optional[float] = None,
        *,
        session: Optional[Session] = None,
        store: Optional[FileStore] = None,
        base_path: Optional[str] = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if session is None and store is None:
            from recovery.session import Session

            session = Session(base_path)
        self._given = {"per_task": per_task, "overall": overall, "window": window}
        for key, value in self._given.items():
            if value is not None and not _is_limit(key, value):
                raise UsageError(f"retry budget: {key} {value!r} is no limit")
        self._session, self._store, self._clock = session, store, clock

    def spend(self, task: str) -> bool:
        """Whether one more try is allowed; it has been counted, durably."""
        return self.refuse(task) is None

    def refuse(self, task: str) -> Optional[str]:
        """`spend` in words: None if the try is allowed and counted, else why it is not."""
        return self._with(lambda store: spend(store, task, self._given, clock=self._clock))

    def left(self, task: str) -> dict[str, Any]:
        """What is left now: `per_task`, `overall` (tries), `window` (seconds), `next` (seconds until there is one).

        `next` is 0 if one may be made now, None if the limits allow none at all.
        """
        return self._with(lambda store: self._left(store, task))

    def _left(self, store: FileStore, task: str) -> dict[str, Any]:
        most, counts, now = self._look(store)
        key = key_of(task)
        used, overall = counts.used(key)
        waits = [
            _until_free(counts.tasks.get(key, {}), used - most.per_task + 1, most, now)
            if used >= most.per_task
            else 0.0,
            _until_free(counts.overall, overall - most.overall + 1, most, now) if overall >= most.overall else 0.0,
        ]
        return {
            "per_task": max(most.per_task - used, 0),
            "overall": max(most.overall - overall, 0),
            "window": most.window,
            "next": None if None in waits else max(wait for wait in waits if wait is not None),
        }

    def explain(self, task: str) -> str:
        """In words: why there is no try left, or how many are."""
        return self._with(lambda store: self._explain(store, task))

    def _explain(self, store: FileStore, task: str) -> str:
        most, counts, now = self._look(store)
        key = key_of(task)
        refused = _refusal(key, counts, most, now)
        if refused is not None:
            return refused
        used, overall = counts.used(key)
        return (
            f"task {key} has used {used} of {most.per_task} tries in the last {_seconds(most.window)}, "
            f"all tasks together {overall} of {most.overall}"
        )

    def _look(self, store: FileStore) -> tuple[Limits, Counts, float]:
        most, now = limits_of(store, self._given), self._clock()
        return most, _read(store, most, now)[1], now

    def _with(self, work: Callable[[FileStore], T]) -> T:
        if self._store is not None:
            return work(self._store)
        assert self._session is not None
        with self._session.store() as store:
            return work(store)
