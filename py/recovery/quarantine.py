"""data/quarantine: damaged originals, byte for byte, before anything is put in their place.

A file there is called after the one it was, with `@` for `/`, and the beginning of its hash: the same bytes are kept
once, however often a repair is begun, and count as new each time.  `NAME.report.json` beside it says what was wrong and
what became of it, and lives as long.
"""

from __future__ import annotations

import os

from recovery import durable, jsontext, layout, steps
from recovery.errors import RecoveryError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.durable import Place
    from recovery.store import FileStore

#: How the name of a report ends.
REPORT = ".report.json"
#: Names longer than this are told by their hash.
_LONGEST = 180


def name_of(name: str, digest: str) -> str:
    """What a file is called there."""
    flat = name.replace("/", "@")
    if len(flat) > _LONGEST:
        flat = durable.digest_of(flat.encode("utf-8", "surrogateescape"))
    return f"{layout.QUARANTINE}/{flat}@{digest[:16]}"


def keep(store: FileStore, name: str, data: bytes, report: dict[str, Any], mode: int = 0o600, gid: int = -1) -> str:
    """Copy the bytes of a file there, durably, and the report beside them; returns the copy's name.

    The caller does not hold the commit lock.  A crash leaves the copy whole or absent.  StorageError (74), Denied (77).
    """
    kept = name_of(name, durable.digest_of(data))
    try:
        lock = store.commit_lock()
        try:
            _write(store, kept, data, mode, gid, once=True)
            text = jsontext.pretty({"file": name, "quarantined_as": kept, "time": store.now(), **report}) + "\n"
            _write(store, kept + REPORT, text.encode("utf-8", "backslashreplace"), mode, gid, once=False)
            store.root.sync_made()
        finally:
            lock.release()
    except OSError as error:
        if isinstance(error, RecoveryError):
            raise
        raise from_os_error(
            error, f"{name} could not be copied to {layout.QUARANTINE}/, so it was left alone"
        ) from None
    return kept


def _write(store: FileStore, name: str, data: bytes, mode: int, gid: int, once: bool) -> None:
    place = store.root.place(name, create=True)
    if once and durable.hash_or_none(place) == durable.digest_of(data):
        _touch(place)
        return
    base = f".{place.base}.stage"  # one name, for the commit lock is held
    durable.remove(place.folder, base)
    durable.stage(place, base, (data,), mode | 0o600, -1, gid).sync()
    steps.at("quarantine", name)
    durable.into_place(place, base, place.base)
    steps.at("quarantined", name)
    store.root.made.add(layout.QUARANTINE)


def _touch(place: Place) -> None:
    """Its age is the time since it was put there."""
    try:
        os.utime(place.base, dir_fd=place.folder, follow_symlinks=False)
    except PermissionError:  # somebody else's
        pass


def remove(store: FileStore, kept: str, newest: float) -> bool:
    """Remove an original, then its report; whether either went.  Not if one was written after `newest` (an mtime).

    A crash leaves both, or the report.  Busy (75), StorageError (74), Denied (77).
    """
    lock = store.commit_lock()
    try:
        states = [(name, store.read_state(name)) for name in (kept, kept + REPORT)]
        if any(st is not None and st.st_mtime > newest for _, st in states):
            return False
        steps.at("cleanup-remove", kept)
        gone = [store.remove(name) for name, st in states if st is not None]
        return any(gone)
    finally:
        lock.release()


def move(store: FileStore, name: str) -> Optional[str]:
    """Move a file there, as it is but for its time; None if it is gone.  As `keep`.

    The caller holds the data lock that covers it.
    """
    try:
        lock = store.commit_lock()
        try:
            place = store.root.place(name)
            digest = durable.hash_or_none(place)
            if digest is None:
                return None
            kept = store.root.place(name_of(name, digest), create=True)
            store.root.sync_made()
            _touch(place)
            steps.at("quarantine", name)
            os.rename(place.base, kept.base, src_dir_fd=place.folder, dst_dir_fd=kept.folder)
            os.fsync(kept.folder)
            os.fsync(place.folder)
            return kept.name
        finally:
            lock.release()
    except FileNotFoundError:
        return None
    except OSError as error:
        if isinstance(error, RecoveryError):
            raise
        raise from_os_error(error, f"{name} could not be moved to {layout.QUARANTINE}/") from None
