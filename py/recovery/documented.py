"""The documented locks: `ORCHESTRATION_LOCK_DIR/{tasks,agents}/ID.lock`, taken as courtesy.

Other people's scripts take them with flock(1), so we do too, briefly and before the data locks.  No promise rests
on them: where the folder can't be used, one warning is given and the data locks carry on.
"""

from __future__ import annotations

import os

from recovery import flock, steps
from recovery.errors import AncestorHolds, LockTimeout, RecoveryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping, Optional

    from recovery.flock import HeldLock, Limits

DEFAULT = "/tmp/orchestration/locks"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def folder_of(environ: Mapping[str, str]) -> str:
    return os.path.abspath(environ.get("ORCHESTRATION_LOCK_DIR") or DEFAULT)


def open_folder(base: str, kind: str) -> int:
    """The folder `base/kind` (kind: tasks, agents), made for everybody where it is missing; OSError."""
    above = os.path.dirname(base)
    if base == DEFAULT and os.path.islink(above):
        raise OSError(40, "is a symbolic link", above)
    for path in (above, base):
        try:
            os.mkdir(path, 0o1777)
        except FileExistsError:
            continue
        except FileNotFoundError:
            os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o1777)
    outer = os.open(base, _FOLDER)
    try:
        try:
            return os.open(kind, _FOLDER, dir_fd=outer)
        except FileNotFoundError:
            pass
        os.mkdir(kind, 0o1777, dir_fd=outer)
        inner = os.open(kind, _FOLDER, dir_fd=outer)
        os.fchmod(inner, 0o1777)
        return inner
    finally:
        os.close(outer)


class Courtesy:
    """The documented locks of a task and its agent, held until `release`."""

    def __init__(self, environ: Mapping[str, str], agent: str, task: str, limits: Limits) -> None:
        self.held: list[HeldLock] = []
        self.folders: list[int] = []
        self.warning: Optional[str] = None
        base = folder_of(environ)
        try:
            for kind, name in (("tasks", task), ("agents", agent)):
                if not name:
                    continue
                folder = open_folder(base, kind)
                self.folders.append(folder)
                shown = os.path.join(base, kind, name + ".lock")
                try:
                    lock = flock.take(folder, name + ".lock", shown, limits, 0o666)
                    lock.write_note(flock.note_text(limits.command))
                    self.held.append(lock)
                except AncestorHolds as error:  # it waits for us, so we go on
                    steps.at("courtesy", error)
        except LockTimeout:
            self.release()
            raise
        except OSError as error:
            self.warning = (
                f"the lock folder {base} can't be used ({error.strerror}); the locks beside the data carry on"
            )
        except RecoveryError as error:
            self.warning = f"{error}; the locks beside the data carry on"

    def release(self) -> None:
        for lock in reversed(self.held):
            lock.release()
        self.held.clear()
        for folder in self.folders:
            os.close(folder)
        self.folders.clear()
