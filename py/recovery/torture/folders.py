"""Folders that belong to one run: a lock says that it lives, so that the next run may remove what a killed one left."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable

_OWNER = "owner.lock"


def make(where: str, prefix: str, require: Callable[[str], object] = lambda folder: None) -> tuple[str, int]:
    """A new folder, for which `require` raises nothing, and the open lock that says whose it is."""
    folder = tempfile.mkdtemp(prefix=prefix, dir=where)
    try:
        require(folder)
        owner = os.open(os.path.join(folder, _OWNER), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(owner, fcntl.LOCK_EX)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, owner


def remove_abandoned(where: str, prefix: str) -> None:
    """Folders whose owner was killed, and that nobody wants to `keep`; OSError if `where` can't be read."""
    for name in os.listdir(where):
        folder = os.path.join(where, name)
        if not name.startswith(prefix) or os.path.exists(os.path.join(folder, "keep")):
            continue
        try:
            fd = os.open(os.path.join(folder, _OWNER), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def remove(folder: str) -> None:
    """A folder; its lock file goes last: whoever is killed in here leaves the rest to the next run."""
    for name in os.listdir(folder):
        if name != _OWNER:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
