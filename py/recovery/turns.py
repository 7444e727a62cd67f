"""Turns: kernel locks that last as long as somebody's code runs, and are free the moment its process is dead.

Unlike the data locks they are held while foreign code runs, so nothing of a commit ever waits for one.
"""

from __future__ import annotations

import os

from recovery import contention, flock
from recovery import forks as forks
from recovery.errors import LockTimeout
from recovery.flock import HeldLock, Limits
from recovery.store import FileStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def take(store: FileStore, name: str, wait: float = 0.0, family: str = "", tells: str = "") -> Optional[HeldLock]:
    """Hold `FOLDER/.NAME.turn` until the lock's `release()`; None if somebody else does, after `wait` seconds.

    `family` says for whose turn is not waited: AncestorHolds (75); `tells` what stderr is told of a longer wait: see
    `flock.Limits` for both.  Two threads of a process
    exclude each other.  A forked child holds nothing.  Unavailable (69) if it is no regular file, Denied (77),
    StorageError (74).
    """
    folder, base, shown = _where(store, name)
    mode, gid = store.shared()
    lock = _try(folder, base, shown, mode, gid)
    if lock is None and wait > 0:
        limits = Limits(wait, wait, store.limits.command)
        limits.family, limits.tells = family, tells
        try:
            lock = flock.take(folder, base, shown, limits, mode, gid, learn=False)
        except LockTimeout:
            pass
    if lock is None:
        return None
    lock.write_note(flock.note_text(store.limits.command, state="taken"), to_tidy=False)
    return lock


def _try(folder: int, base: str, shown: str, mode: int, gid: int) -> Optional[HeldLock]:
    while True:
        lock = flock.open_lock(folder, base, shown, mode, gid)
        try:
            if not flock.try_lock(lock):
                lock.close()
                return None
            if flock.settle(lock, learn=False):
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()  # somebody removed the file meanwhile


def holder(store: FileStore, name: str) -> Optional[str]:
    """Words for whose turn it is now, None if nobody does.  Changes nothing."""
    try:
        folder, base, _ = _where(store, name)
        fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        return contention.holder(fd) if contention.is_held(fd) else None
    finally:
        os.close(fd)


def _where(store: FileStore, name: str) -> tuple[int, str, str]:
    folder, _, base = name.rpartition("/")
    return store.root.folder(folder, create=True), f".{base}.turn", f"{folder}/.{base}.turn"
