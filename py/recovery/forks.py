"""A forked child holds no lock: its copies of the descriptors are closed, the locks stay its parent's.

For programs that live long enough to fork; a script's process never does.
"""

from __future__ import annotations

import os
import weakref

from recovery import flock

_locks: weakref.WeakSet[flock.HeldLock] = weakref.WeakSet()
flock.live = _locks


def _forget_in_child() -> None:
    for lock in list(_locks):
        lock.close()


os.register_at_fork(after_in_child=_forget_in_child)
