"""What health_check.sh sees of all that stands beside the outboxes, and that commands rely on: as much as is cheap.

The newest are read, up to a bound, and of logs the end, where a crash leaves its mark; empty files are known by find.
`recovery doctor` reads all there is.
"""

from __future__ import annotations

import os

from recovery import contention, jsonl, jsontext, layout
from recovery.errors import Denied, RecoveryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Optional

    from recovery.store import FileStore

#: So many records and heads of receipts are read, and so many bytes of them.
MOST = 1000
BYTES = 8 << 20
#: Of each log the last bytes, and of all logs together.
TAIL = 1 << 18
TAILS = 1 << 20


class Looked:
    """What was found, in words, and how many of the files were read.

    `damaged` are files that nobody can make again, `spoiled` those that are made again or were left over; `torn` logs
    with so many `lines`.
    """

    def __init__(self) -> None:
        self.damaged: list[str] = []
        self.spoiled: list[str] = []
        self.torn: list[str] = []
        self.unreadable: list[str] = []
        self.lines = self.files = self.read = 0


def look(store: FileStore, seen: Iterable[tuple[float, int, str]]) -> Looked:
    """Look at the files that find saw, as `walks.records_of` has them."""
    found = Looked()
    left = [BYTES, TAILS]
    objects: list[str] = []
    for _, size, name in sorted(seen, reverse=True):  # the newest first
        if name.endswith(".stage"):
            if _is_left(store, name):
                found.spoiled.append(f"{name} was left over")
            continue
        found.files += 1
        is_log = name.endswith(".jsonl")
        if is_log:
            size = min(size, TAIL)
        elif not size:
            _kind(found, name).append(f"{name} is empty")
            found.read += 1
            continue
        if (not is_log and len(objects) >= MOST) or size > left[is_log]:
            continue
        left[is_log] -= size
        found.read += 1
        if is_log:
            _log(store, found, name)
        else:
            objects.append(name)
    agent = ""
    for name in sorted(objects):  # an agent's together: of thousands one folder at a time is open
        folder = "/".join(name.split("/")[:2]) if name.startswith("postbox/") else ""
        if agent not in ("", folder):
            store.root.forget(agent)
        agent = folder
        _object(store, found, name)
    _checks(store, found)
    return found


def _kind(found: Looked, name: str) -> list[str]:
    """Where damage to a file belongs: a checkpoint is made again from its history, and a backup may be gone."""
    return found.spoiled if name.startswith(layout.CHECKPOINTS) or "/outbox.json.backup_" in name else found.damaged


def _is_left(store: FileStore, name: str) -> bool:
    """Whether nobody is at work where a staged file lies; it is still there then."""
    parts = name.split("/")
    folder, lock = ("/".join(parts[:2]), ".outbox.json.lock") if len(parts) > 2 else (parts[0], ".progress.json.lock")
    try:
        at = store.root.folder(folder)
        return not contention.is_busy(at, lock) and store.read_state(name) is not None
    except (OSError, RecoveryError):
        return False
    finally:
        store.root.forget(folder)


def _object(store: FileStore, found: Looked, name: str) -> None:
    try:
        version = store.read(name)
        if version is None:  # undone, or archived, meanwhile
            return
        value = jsontext.loads(version.text, plain=False, unique=True)
        if not isinstance(value, dict):
            raise jsontext.BadJSON("is not an object")
        if name.startswith(layout.RECEIPTS):
            _head(store, found, name, value)
    except Denied:
        found.unreadable.append(name)
    except RecoveryError as error:
        _kind(found, name).append(str(error))
    except jsontext.BadJSON as error:
        _kind(found, name).append(f"{name}: {error}")


def _head(store: FileStore, found: Looked, name: str, head: dict[str, object]) -> None:
    """Whether a chain of receipts ends where its head says; both change in one commit, which may be under way."""
    for _ in range(2):
        last = _last(store, name[: -len(".json")] + ".jsonl")
        if last == head.get("head") or store.unfinished() is not None or contention.is_committing(store):
            return
    if store.read(name, strict=False) is not None:
        found.damaged.append(f"{name} and the end of its receipts differ")


def _last(store: FileStore, name: str) -> Optional[str]:
    data, _ = _tail(store, name)
    lines = jsonl.records(data)[0] if data else []
    return str(lines[-1].get("hash")) if lines else None


def _log(store: FileStore, found: Looked, name: str) -> None:
    """The torn lines at the end of a log; one that is being written at this moment is none."""
    try:
        data, whole = _tail(store, name)
        torn = jsonl.records(data)[1] if data else 0
        if torn and contention.is_committing(store):
            torn = 0
        elif torn:  # who wrote it may have come to its end since
            data, whole = _tail(store, name)
            torn = jsonl.records(data)[1]
    except Denied:
        found.unreadable.append(name)
    except RecoveryError as error:
        found.damaged.append(str(error))
    else:
        if torn:
            found.lines += torn
            found.torn.append(f"{torn} in {name}" + ("" if whole else " (its end)"))


def _tail(store: FileStore, name: str) -> tuple[bytes, bool]:
    """The last lines of a log, and whether that is all of it; b"" if it is gone."""
    from recovery import durable
    from recovery.errors import from_os_error

    try:
        fd, st = durable.open_regular(store.root.place(name))
        try:
            start = max(0, st.st_size - TAIL)
            data = os.pread(fd, TAIL, start)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return b"", True
    except OSError as error:
        raise from_os_error(error, name) from None
    return (data.partition(b"\n")[2] if start else data), not start


def _checks(store: FileStore, found: Looked) -> None:
    if store.read_state(layout.CHECKS) is None:
        return
    damaged = ""
    found.files += 1
    found.read += 1
    try:
        damaged = checks_damage(store)
    except Denied:
        found.unreadable.append(layout.CHECKS)
    if damaged:
        found.damaged.append(damaged)


def checks_damage(store: FileStore) -> str:
    """Why checks.json is refused, in words; "" if it isn't, or isn't there.  Denied (77)."""
    if store.read_state(layout.CHECKS) is None:
        return ""
    from recovery.checkfile import Checks

    try:
        version = store.read(layout.CHECKS, strict=False)
        if version is not None:
            Checks(version.text.encode("latin-1"))
    except Denied:
        raise
    except RecoveryError as error:
        return str(error).replace(". Nothing changed.", "")
    return ""
