"""The kernel's locks on claims: `data/claims/AGENT/TASK.gN.lock`, one file a generation.

Made and locked by `recovery run` before the claim is committed, inherited by everything that its command starts, free
when the last of them has ended: the kernel is the proof, whatever killed the wrapper.  Nothing of a commit waits for
one.  The holder's note says who it is and, in `group` and `group_start`, which process group its command leads.

A file is unlinked only by who holds its lock, and only once its claim is over.
"""

from __future__ import annotations

import errno
import os

from recovery import flock, jsontext, layout, owners, processes, steps
from recovery.errors import DataError, RecoveryError, Unavailable, from_os_error
from recovery.flock import HeldLock, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore

#: Bytes of a note: written at once, overwritten in place, so that no disk can be too full for the second.
_NOTE = 1024


def folder_of(agent: str) -> str:
    return f"{layout.CLAIMS}/{agent}"


def base_of(task: str, generation: int) -> str:
    return f"{task}.g{generation}.lock"


def parse(base: str) -> Optional[tuple[str, int]]:
    """Task and generation of a lock file's name; None for any other file."""
    task, dot, number = base[: -len(".lock")].rpartition(".g")
    if not base.endswith(".lock") or not dot or not layout.is_id(task):
        return None
    return (task, int(number)) if number.isascii() and number.isdigit() and len(number) < 16 else None


def generations(store: FileStore, agent: str, task: str) -> list[int]:
    """The generations of a task's claims of which there is a lock file."""
    found = (parse(base) for base in store.list(folder_of(agent)))
    return sorted(one[1] for one in found if one is not None and one[0] == task)


def create(store: FileStore, agent: str, task: str, generation: int) -> HeldLock:
    """Make the lock file of a new generation and lock it.  What `recovery.flock.take` raises."""
    mode, gid = store.shared()
    folder = store.root.folder(folder_of(agent), create=True)
    base = base_of(task, generation)
    limits = Limits(1.0, 1.0, store.limits.command)  # nobody but a sweep has a look at it
    limits.family = ""
    lock = flock.take(folder, base, f"{folder_of(agent)}/{base}", limits, mode, gid, learn=False)
    try:
        write_note(lock, {})
    except BaseException:
        remove(lock)
        raise
    steps.at("claim-locked", lock.name)
    return lock


def write_note(lock: HeldLock, more: dict[str, Any]) -> None:
    """Say in a lock file who holds it; StorageError (74)."""
    note = {"state": "taken", **flock.identity(), **more}
    try:
        os.pwrite(lock.fd, jsontext.dumps(note).encode("utf-8", "backslashreplace").ljust(_NOTE - 1) + b"\n", 0)
    except OSError as error:
        raise from_os_error(error, lock.name) from None


def remove(lock: HeldLock) -> None:
    """Unlink a lock file whose lock is held here, and let go."""
    try:
        if lock.fd >= 0 and lock.is_current():
            steps.at("claim-unlink", lock.name)
            os.unlink(lock.base, dir_fd=lock.folder)
    except (OSError, RecoveryError):
        pass  # a sweep will
    finally:
        lock.close()


class Look:
    """A generation's lock file: `state` is "held", "free" or "missing"; `lock` is held here when it was free."""

    __slots__ = ("lock", "note", "state")

    def __init__(self, state: str, note: dict[str, Any], lock: Optional[HeldLock] = None) -> None:
        self.state, self.note, self.lock = state, note, lock

    def close(self) -> None:
        if self.lock is not None:
            self.lock.close()


def look(store: FileStore, agent: str, task: str, generation: int) -> Look:
    """Whether a generation's lock is held.  A free one is locked while its holder looks; nothing is made.

    What is no regular file is none of ours: "missing".
    """
    base = base_of(task, generation)
    name = f"{folder_of(agent)}/{base}"
    try:
        folder = store.root.folder(folder_of(agent))
        fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError, DataError):
        return Look("missing", {})
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return Look("missing", {})
        raise from_os_error(error, name) from None
    lock = HeldLock(fd, folder, base, name, False)
    try:
        note = flock.read_note(fd) or {}
        if not flock.try_lock(lock):
            lock.close()
            return Look("held", note)
        if not lock.is_current():
            lock.close()
            return Look("missing", note)
    except Unavailable:
        lock.close()
        return Look("missing", {})
    except BaseException:
        lock.close()
        raise
    return Look("free", note, lock)


def judge(store: FileStore, agent: str, task: str, claim: dict[str, Any], trust_locks: bool = False) -> tuple[str, str]:
    """`recovery.owners.judge` for a command under `recovery run`: dead is a free lock *and* a group that is gone."""
    found = look(store, agent, task, claim["generation"])
    found.close()
    return verdict(found.state, found.note, claim["owner"], trust_locks)


def verdict(state: str, note: dict[str, Any], owner: dict[str, Any], trust_locks: bool = False) -> tuple[str, str]:
    """What a lock's state, its holder's note and the claim's owner say together."""
    if state == "held":
        return owners.ALIVE, ""
    wrapper = note if "pid" in note else owner
    gone = f"its `recovery run`, pid {wrapper.get('pid')}, is gone"
    place = owners.where(wrapper)
    if place == "rebooted":
        return owners.DEAD, "the machine was started anew since"
    if place != "here":
        if state == "free" and trust_locks:
            return owners.DEAD, "its lock is free, which is taken as proof"
        return owners.UNKNOWN, place
    if state == "missing":  # somebody removed the file: the process itself is all that is left to ask
        return owners.judge_process(wrapper) if "pid" in wrapper else (owners.UNKNOWN, "its lock file is gone")
    group = note.get("group")
    if isinstance(group, int) and not processes.group_is_gone(group, str(note.get("group_start", ""))):
        return owners.ALIVE, f"{gone}, but its command's process group {group} lives"
    return owners.DEAD, gone


def holders(store: FileStore, agent: str, task: str, generation: int) -> list[str]:
    """Words for the processes that have a generation's lock file open, as far as they can be seen."""
    try:
        place = store.root.place(f"{folder_of(agent)}/{base_of(task, generation)}")
        want = os.stat(place.base, dir_fd=place.folder, follow_symlinks=False)
    except (OSError, DataError):
        return []
    return [words for pid, words in processes.with_open(want) if pid != os.getpid()]


def tidy(store: FileStore, agent: str, task: str, generation: int) -> list[str]:
    """Remove the lock file of a claim that is over, unless somebody holds it still: words for who that is.

    [] if the file is gone.
    """
    found = look(store, agent, task, generation)
    if found.state == "held":
        return holders(store, agent, task, generation) or ["a process that can't be seen from here"]
    if found.lock is not None:
        remove(found.lock)
    return []
