"""Escalations: files that say that a person is needed, `logs/recovery/TASK_escalation.json` and `.1.json`, `.2.json` …

A later one never overwrites an earlier; one for the same reason that is still open is enough.  Notifiers are told of
each file; then it gets `notified_at`.  Who died in between, or failed, leaves it without, and the next chance (the
same reason again, or `deliver`) tells: at least once, and twice only if a process died, or the disk failed, between
the telling and the note of it.  While one tells, a kernel lock on the file itself keeps others from telling too.
A person who has dealt with it moves it to `logs/recovery/resolved/` (`resolve`); from then on the same reason is news.
"""

from __future__ import annotations

import os
import time

from recovery import jsontext, layout, steps
from recovery.errors import NotFound, RecoveryError, StorageError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Optional, Sequence

    from recovery.flock import HeldLock
    from recovery.notify import AnyNotifier
    from recovery.store import FileStore

    Entry = dict[str, Any]

#: How many may be open for one task; with so many nobody is reading them.
MOST = 100
#: How many `deliver` tells of in one call.
PORTION = 20
#: Seconds that one call of `report` or `deliver` spends on telling.
WITHIN = 30.0
#: Seconds that the note of a telling waits for the commit lock, whatever the caller's own limits are.
_PATIENCE = 5.0
_INFIX, _END = "_escalation", ".json"


def write(
    store: FileStore, task: str, kind: str, reason: str, agent: str = "", folder: str = layout.LOGS, **details: Any
) -> Optional[str]:
    """Write an escalation, durably; its name, or None if one for the same reason is open or it can't be written.

    Under the commit lock, so nobody is told: `deliver` does that later.  A failure to write costs only the note, and
    is said.  A crash leaves it whole or absent.
    """
    entry = _entry(store, task, kind, reason, agent, details)
    name, new = _write(store, entry, folder)
    return name if new else None


def require(store: FileStore, task: str, kind: str, reason: str, agent: str = "", **details: Any) -> str:
    """`report` of what must not be forgotten: the name of the file that says it.

    StorageError (74): none could be written; what `FileStore.commit_lock` raises.
    """
    lock = store.commit_lock()
    try:
        name, _ = _write(store, _entry(store, task, kind, reason, agent, details), layout.LOGS)
    finally:
        lock.release()
    if name is None:
        raise StorageError(store.told.pop())
    steps.at("escalated", name)
    return name


def report(
    store: FileStore,
    task: str,
    kind: str,
    reason: str,
    agent: str = "",
    folder: str = layout.LOGS,
    notifiers: Sequence[AnyNotifier] = (),
    within: float = WITHIN,
    **details: Any,
) -> Optional[str]:
    """`write`, for who doesn't hold the commit lock; then the notifiers are told, for `within` seconds in all.

    They aren't if one for the same reason is open and they were told of that.  They are if the file can't be written,
    which `store.told` says.  What `FileStore.commit_lock` raises: Busy (75) …, after telling.
    """
    entry = _entry(store, task, kind, reason, agent, details)
    try:
        lock = store.commit_lock()
        try:
            name, new = _write(store, entry, folder)
        finally:
            lock.release()
    except (OSError, RecoveryError):
        if notifiers:
            _tell(store, notifiers, entry, "", within)
        raise
    steps.at("escalated", name)
    if notifiers and name is not None:
        _deliver(store, name, notifiers, within)
    elif notifiers:
        _tell(store, notifiers, entry, "", within)
    return name if new else None


def deliver(
    store: FileStore,
    notifiers: Sequence[AnyNotifier],
    folder: str = layout.LOGS,
    most: int = PORTION,
    within: float = WITHIN,
    monotonic: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Tell of the open escalations that nobody was told of: at most `most`, for `within` seconds, the rest next time.

    The newest first: what has just happened is told even where older ones can't be.  Without notifiers nothing is
    done.  Returns what went wrong, in words that `store.told` has too.  The caller holds no lock.
    """
    problems: list[str] = []
    until = monotonic() + within
    if notifiers:
        waiting = [one for one in open_escalations(store, folder) if "notified_at" not in one.get("entry", _TOLD)]
        for one in waiting[: -most - 1 : -1]:
            left = until - monotonic()
            if left <= 0:
                break
            problems += _deliver(store, one["name"], notifiers, left)
    return problems


def open_escalations(store: FileStore, folder: str = layout.LOGS, only: str = "") -> list[dict[str, Any]]:
    """All that wait for a person, or those of the task `only`, oldest first.

    Each has `task`, `n`, `name`, `time`, and `entry`, or `error` in words.
    `time` is the entry's timestamp; for a file that can't be read, and is listed all the same, when it was written.
    """
    found = []
    for task, n in _listed(store, folder):
        if only not in ("", task):
            continue
        name = layout.escalation(task, n, folder)
        one: dict[str, Any] = {"task": task, "n": n, "name": name}
        try:
            version = store.read(name)
            if version is None:  # resolved meanwhile
                continue
            one["entry"] = _loads(version.text, name)
            one["time"] = one["entry"].get("timestamp")
        except RecoveryError as error:
            one["error"] = str(error)
        if type(one.get("time")) is not str:
            one["time"] = _written(store, name)
        found.append(one)
    return sorted(found, key=lambda one: (one["time"], one["task"], one["n"]))


def resolve(store: FileStore, task: str, n: Optional[int] = None, folder: str = layout.LOGS) -> list[str]:
    """A person has dealt with a task's open escalations, or with the n-th: they move to FOLDER/resolved/.

    Returns their names there, numbered in the order of resolving; none is overwritten or changed.  Damaged ones move
    too.  A crash leaves each open or resolved.  NotFound (66) if there is none, UsageError (64) for a bad id,
    StorageError (74), Denied (77), Busy (75).
    """
    layout.require_id("task", task)
    done = []
    kept = folder + "/resolved"
    lock = store.commit_lock()
    try:
        numbers = sorted(m for one, m in _listed(store, folder) if one == task and n in (None, m))
        free = max((m for one, m in _listed(store, kept) if one == task), default=-1) + 1
        for m in numbers:
            source = store.root.place(layout.escalation(task, m, folder))
            target = store.root.place(layout.escalation(task, free, kept), create=True)
            store.root.sync_made()
            steps.at("resolve-escalation", source.name)
            os.rename(source.base, target.base, src_dir_fd=source.folder, dst_dir_fd=target.folder)
            steps.at("escalation-resolved", target.name)
            os.fsync(target.folder)  # first: a power cut may leave it in both places, never in none
            os.fsync(source.folder)
            done.append(target.name)
            free += 1
    except OSError as error:
        if isinstance(error, RecoveryError):
            raise
        raise from_os_error(error, f"an escalation of {task} could not be resolved") from None
    finally:
        lock.release()
    if not done:
        which = "" if n is None else f" number {n}"
        raise NotFound(f"{task} has no open escalation{which}. Nothing changed.", hint=f"look into {folder}/")
    return done


# --- the files

_TOLD: Entry = {"notified_at": ""}


def _entry(store: FileStore, task: str, kind: str, reason: str, agent: str, details: Entry) -> Entry:
    return {
        "task_id": task,
        "agent_id": agent,
        "timestamp": store.now(),
        "error_type": kind,
        "error_message": reason,
        "strategy": "ESCALATE",
        "success": False,
        "details": details,
    }


def _write(store: FileStore, entry: Entry, folder: str) -> tuple[Optional[str], bool]:
    """The file that says it (None: it could not be written), and whether it is new.  Under the commit lock."""
    from recovery import derived

    task = entry["task_id"]
    try:
        taken = {n for one, n in _listed(store, folder) if one == task}
        for n in sorted(taken):
            name = layout.escalation(task, n, folder)
            if _reason_of(store, name) == (entry["error_type"], entry["error_message"]):
                return name, False
        if len(taken) >= MOST:
            raise StorageError(f"{MOST} escalations are open")
        name = layout.escalation(task, min(set(range(MOST)) - taken), folder)
        derived.create(store, name, jsontext.pretty(entry) + "\n")
        store.escalated = True
        return name, True
    except (OSError, RecoveryError) as error:
        store.told.append(f"no escalation could be written for {task}: {error}")
        return None, False


def _listed(store: FileStore, folder: str) -> Iterator[tuple[str, int]]:
    """Task and number of each escalation's file in a folder."""
    for base in store.list(folder):
        task, infix, number = base[: -len(_END)].rpartition(_INFIX)
        if not infix or not base.endswith(_END) or not layout.is_id(task):
            continue
        if not number:
            yield task, 0
        elif number[0] == "." and number[1:].isascii() and number[1:].isdigit() and number[1] != "0":
            if len(number) < 10:
                yield task, int(number[1:])


def _loads(text: str, name: str) -> Entry:
    try:
        entry = jsontext.loads(jsontext.from_latin(text))
    except ValueError as error:
        raise StorageError(f"{name} is damaged: {error}") from None
    if not isinstance(entry, dict):
        raise StorageError(f"{name} is damaged: it is no object")
    return entry


def _reason_of(store: FileStore, name: str) -> Any:
    """Type and message; None for one that can't be read: a damaged file is nobody's reason."""
    try:
        version = store.read(name)
        entry = _loads(version.text, name) if version is not None else {}
    except RecoveryError:
        return None
    return entry.get("error_type"), entry.get("error_message")


def _written(store: FileStore, name: str) -> str:
    try:
        st = store.read_state(name)
    except (OSError, RecoveryError):
        st = None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(st.st_mtime)) if st is not None else ""


# --- telling


def _deliver(store: FileStore, name: str, notifiers: Sequence[AnyNotifier], within: float) -> list[str]:
    """Tell of one file unless that has been done, or somebody is at it; then note it there."""
    try:
        held = _claim(store, name)
        if held is None:
            return []
        try:
            version = store.read(name)
            entry = _loads(version.text, name) if version is not None else _TOLD
            if "notified_at" in entry:
                return []
            problems = _tell(store, notifiers, entry, name, within)
            if len(problems) < len(notifiers):
                _note(store, name, entry)
            return problems
        finally:
            held.release()
    except (OSError, RecoveryError) as error:
        problem = f"{name}: it could not be told, or not be noted that it was: {error}"
        store.told.append(problem)
        return [problem]


def _claim(store: FileStore, name: str) -> Optional[HeldLock]:
    """The kernel's lock on the file itself, which ends with its holder; None if another has it, or it is gone."""
    from recovery import durable, flock

    while True:
        try:
            place = store.root.place(name)
            fd, _ = durable.open_regular(place)
        except FileNotFoundError:
            return None
        held = flock.HeldLock(fd, place.folder, place.base, name, False)
        try:
            if not flock.try_lock(held):
                held.close()
                return None
            if held.is_current():
                return held
        except BaseException:
            held.close()
            raise
        held.release()  # it was replaced since: look at the new one


def _tell(store: FileStore, notifiers: Sequence[AnyNotifier], entry: Entry, name: str, within: float) -> list[str]:
    from recovery.notify import notify

    steps.at("notify", name)
    problems = notify(notifiers, {**entry, "file": name, "root": store.root.path}, within, store.told.append)
    steps.at("notified", name)
    return problems


def _note(store: FileStore, name: str, told: Entry) -> None:
    """Set `notified_at`, in one durable step, if this is still the file that was told of."""
    from recovery import derived
    from recovery.flock import Limits

    limits, store.limits = store.limits, Limits(_PATIENCE, _PATIENCE, store.limits.command)
    store.limits.family = limits.family
    try:
        lock = store.commit_lock()
        try:
            version = store.read(name)
            now = _loads(version.text, name) if version is not None else {}
            if all(now.get(key) == told.get(key) for key in ("timestamp", "error_type", "error_message")):
                derived.create(store, name, jsontext.pretty({**now, "notified_at": store.now()}) + "\n")
                steps.at("notified-noted", name)
        finally:
            lock.release()
    finally:
        store.limits = limits
