"""data/quarantine: damaged originals, byte for byte, before anything is put in their place.

A file there is called after the one it was, with `@` for `/`, and the beginning of its hash: the same bytes are kept
once, however often a repair is begun.  `NAME.report.json` beside it says what was wrong and what became of it.
"""

from __future__ import annotations

import os

from recovery import durable, jsontext, layout, steps
from recovery.errors import RecoveryError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore

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
            _write(store, f"{kept}.report.json", text.encode("utf-8", "backslashreplace"), mode, gid, once=False)
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
        return
    base = f".{place.base}.stage"  # one name, for the commit lock is held
    durable.remove(place.folder, base)
    durable.stage(place, base, (data,), mode | 0o600, -1, gid).sync()
    steps.at("quarantine", name)
    durable.into_place(place, base, place.base)
    steps.at("quarantined", name)
    store.root.made.add(layout.QUARANTINE)


def move(store: FileStore, name: str) -> Optional[str]:
    """Move a file there, as it is; None if it is gone.  The caller holds the data lock that covers it.  As `keep`."""
    try:
        lock = store.commit_lock()
        try:
            place = store.root.place(name)
            digest = durable.hash_or_none(place)
            if digest is None:
                return None
            kept = store.root.place(name_of(name, digest), create=True)
            store.root.sync_made()
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
