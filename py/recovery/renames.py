"""renameat2(2), which Python doesn't have: rename without replacing, and exchange two files.  For long-lived programs:
loading ctypes would cost a script a third of its time."""

from __future__ import annotations

import ctypes
import errno
import os

from recovery import durable
from recovery.durable import Place

_NOREPLACE, _EXCHANGE = 1, 2
_HERE = -100  # AT_FDCWD
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def rename_new(source: str, target: str) -> None:
    """rename(2) that doesn't replace anything, an empty folder neither.  FileExistsError, OSError."""
    if _renameat2 is not None:
        if _renameat2(_HERE, os.fsencode(source), _HERE, os.fsencode(target), _NOREPLACE) == 0:
            return
        error = ctypes.get_errno()
        if error not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(error, os.strerror(error), source, None, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target)


def into_place(place: Place, stage: str, base: str) -> None:
    """`durable.into_place` for a file that need not survive a power cut: the new one and the old one change places.

    A rename over an existing file makes ext4 write the new one out at once (its mount option auto_da_alloc), which
    takes longer than the rest of a checkpoint; an exchange doesn't.  After a power cut the file may be empty.
    """
    if _renameat2 is not None:
        if _renameat2(place.folder, os.fsencode(stage), place.folder, os.fsencode(base), _EXCHANGE) == 0:
            durable.remove(place.folder, stage)
            return
    durable.into_place(place, stage, base)
