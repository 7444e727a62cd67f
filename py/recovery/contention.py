"""What happens when a lock is not free: wait at kernel speed, say for whom, give up in time.

Imported only then.  The wait is a blocking flock(2) cut off by a timer, so the hand-over takes a context switch
and not a polling interval: setitimer(2) in the main thread (the caller's handler and timer are put back), a
helper thread elsewhere, which gives the lock back at once if it wins after its asker has gone.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from _thread import get_ident
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

from recovery import flock as locks
from recovery import layout, processes, say, steps
from recovery.errors import AncestorHolds, LockTimeout, StorageError
from recovery.signals import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.flock import HeldLock, Limits
    from recovery.store import FileStore

#: Between slices of a wait the path is looked at again: it may name another file by now.
SLICE = 0.25
#: Most waits are over before it is worth asking whether the holder is an ancestor: that reads all of its descriptors.
ASK_AFTER = 0.05
#: After so many seconds stderr says for whom we wait.
TELL_AFTER = 1.0
#: The pid namespace that all others are below (PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h).
_ALL_PIDS = "pid:[4026531836]"

#: Seconds that each thread (by its ident) has waited for locks in all: what the recovery log calls lock_wait.
waited: dict[int, float] = {}
#: Waits of each thread that were worth telling (TELL_AFTER) and came to an end: the change they were for takes them.
told: dict[int, list[dict[str, Any]]] = {}
#: So many of them are kept.
_MOST_TOLD = 4


class _TimeIsUp(BaseException):
    pass


def wait(held: HeldLock, began: float, patience: float, limits: Limits) -> None:
    """Block until `held.fd` is locked, or its path names another file (then return unlocked: the caller looks).

    Raises LockTimeout once `patience` seconds have passed since `began`, AncestorHolds at once if an ancestor of this
    process holds the lock and `limits.family` asks for it: a script's ancestor waits for the script to end.
    """
    steps.at("wait", held.name)
    waiter = None if _in_main_thread() else _Waiter(held.fd)
    asked = not limits.family
    by = ""
    try:
        while True:
            now = time.monotonic()
            left = began + patience - now
            if not asked and now - began >= ASK_AFTER:
                asked = True
                _refuse_relative(held, limits.family)
            if not by and now - began >= TELL_AFTER:
                by = holder(held.fd)
                _say(limits.tells or f"waiting for {held.name} (held by {by})")
            if left <= 0:
                seconds = f"{round(patience, 1):g} seconds"
                error = LockTimeout(
                    f"Failed to acquire lock on {held.name} after {seconds} (held by {holder(held.fd)})",
                    hint="run the same command again; `recovery locks` shows who holds what",
                )
                error.waited = now - began
                raise error
            slice_ = min(left, SLICE if asked else ASK_AFTER)
            won = waiter.wait(slice_) if waiter is not None else _block_with_timer(held.fd, slice_)
            if won or not held.is_current():
                return
    except OSError as error:
        if isinstance(error, LockTimeout):
            raise
        raise StorageError(f"{held.name}: cannot be locked: {error.strerror}") from None
    finally:
        if waiter is not None:
            waiter.leave()
        me = get_ident()
        took = time.monotonic() - began
        waited[me] = waited.get(me, 0.0) + took
        if by:
            entry = {"lock": held.name, "seconds": round(took, 1), "held_by": by[:200]}
            told[me] = [*told.get(me, ()), entry][-_MOST_TOLD:]


def take_told() -> list[dict[str, Any]]:
    """The long waits of this thread since it was last asked: `lock`, `seconds`, `held_by`."""
    return told.pop(get_ident(), [])


def _in_main_thread() -> bool:
    """Whether this is the main thread, where a timer may be used; `threading` isn't imported for the answer."""
    threading = sys.modules.get("threading")
    return threading is None or threading.current_thread() is threading.main_thread()


def _refuse_relative(held: HeldLock, family: str) -> None:
    ancestor = relative_holding(held.fd, family)
    if ancestor:
        raise AncestorHolds(
            f"{held.name} is held by {ancestor}, which waits for this very command",
            hint="run it after that command has let go of its lock",
        )


def _block_with_timer(fd: int, seconds: float) -> bool:
    armed = True

    def up(signum: int, frame: Any) -> None:
        nonlocal armed
        if armed:  # once: a second one could come where nobody catches it
            armed = False
            raise _TimeIsUp

    theirs = plain.getitimer(plain.ITIMER_REAL)
    if theirs[0] and theirs[0] <= seconds:  # their alarm comes first: let it ring on time, then go on
        seconds = theirs[0]
    before = plain.signal(plain.SIGALRM, up)
    mask = plain.pthread_sigmask(plain.SIG_UNBLOCK, (plain.SIGALRM,))  # a parent may have handed it down blocked
    began = time.monotonic()
    won = False
    try:
        try:
            # The repeat matters: a signal that comes between the arming and the system call is not lost.
            plain.setitimer(plain.ITIMER_REAL, max(seconds, 1e-4), 0.005)
            flock(fd, LOCK_EX)
            won = True
            armed = False
        except _TimeIsUp:
            won = _got(fd)
    except _TimeIsUp:  # rang between winning and disarming
        won = _got(fd)
    finally:
        armed = False
        plain.setitimer(plain.ITIMER_REAL, 0)
        plain.pthread_sigmask(plain.SIG_SETMASK, mask)
        plain.signal(plain.SIGALRM, before if before is not None else plain.SIG_DFL)
        if theirs[0]:
            left = theirs[0] - (time.monotonic() - began)
            plain.setitimer(plain.ITIMER_REAL, max(left, 1e-6), theirs[1])
    return won


def _got(fd: int) -> bool:
    """Whether the lock came together with the alarm: asking again for what one holds succeeds."""
    try:
        flock(fd, LOCK_EX | LOCK_NB)
        return True
    except BlockingIOError:
        return False


class _Waiter:
    """A thread that blocks in flock(2) for an asker who may leave; then it lets go at once if it wins.

    One for a whole wait: two threads on one open file would unlock each other.
    """

    def __init__(self, fd: int) -> None:
        import threading

        self.fd = os.dup(fd)
        self.answer = threading.Lock()
        self.gone = False
        self.won = False
        self.error: Optional[OSError] = None
        self.done = threading.Event()
        threading.Thread(target=self._run, name="recovery-lock-wait", daemon=True).start()

    def _run(self) -> None:
        try:
            flock(self.fd, LOCK_EX)
        except OSError as error:
            self.error = error
        with self.answer:
            self.won = self.error is None and not self.gone
            if self.error is None and self.gone:
                flock(self.fd, LOCK_UN)
        os.close(self.fd)
        self.done.set()

    def wait(self, seconds: float) -> bool:
        self.done.wait(seconds)
        if self.error is not None:
            raise self.error
        return self.won

    def leave(self) -> None:
        with self.answer:
            self.gone = not self.won


# --- who holds it


def holder(fd: int) -> str:
    """Words for who holds the lock on an open file: whom the kernel names, described by the note if it is his."""
    pid = _kernel_holder(fd)
    note = locks.read_note(fd) or {}
    me = locks.identity()
    if pid > 0 and pid != note.get("pid"):
        return f"pid {pid}, {_name_of(pid)}"
    if note.get("state") not in ("held", "taken"):
        return "a process that left no note"
    who = f"pid {note.get('pid')}" + (f", {note['command']}" if note.get("command") else "")
    if note.get("host") != me["host"]:
        return f"{who} on host {note.get('host')}, which can't be looked into from here"
    if note.get("namespace") != me["namespace"]:
        return f"{who} in another container, which can't be looked into from here"
    if processes.is_gone(int(note.get("pid", 0)), str(note.get("start", ""))):
        want = os.fstat(fd)
        heirs = [words for one, words in processes.with_open(want) if one != os.getpid()]
        return f"what {who}, left behind when it ended" + (f": {'; '.join(heirs)}" if heirs else "")
    return who + (" (stopped)" if pid > 0 and state_of(pid) == "T" else "")


def holder_began(fd: int) -> float:
    """When the process that the kernel names as holder began, in seconds since 1970; 0.0 if that can't be told.

    It can't have held the lock for longer, however old the file is.
    """
    process = processes.look(_kernel_holder(fd))
    if process is None:
        return 0.0
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - up + int(process.start) / os.sysconf("SC_CLK_TCK")


def _kernel_holder(fd: int) -> int:
    """The pid that /proc/locks gives for a flock on this file; 0 unknown, -1 nobody.

    In a pid namespace the table leaves out whoever stands outside (proc_locks(5)): then it can't say "nobody".
    """
    st = os.fstat(fd)
    want = f"{os.major(st.st_dev):02x}:{os.minor(st.st_dev):02x}:{st.st_ino}"
    try:
        for pid, where in kernel_locks():
            if where == want:
                return pid
    except (OSError, ValueError):
        return 0
    return -1 if sees_everybody() else 0


def kernel_locks() -> Iterator[tuple[int, str]]:
    """Each flock that is held, as /proc/locks has it: the pid, and `MAJOR:MINOR:INODE`.  OSError without /proc."""
    with open("/proc/locks", encoding="utf-8", errors="replace") as table:
        for line in table:
            words = line.split()
            if len(words) > 5 and words[1] == "FLOCK":
                yield int(words[4]), words[5]


def sees_everybody() -> bool:
    """Whether /proc/locks leaves nobody out: a pid namespace's own table has only those who stand inside."""
    return bool(locks.identity()["namespace"] == _ALL_PIDS)


def is_held(fd: int) -> bool:
    """Whether anybody holds a flock on this file; changes nothing."""
    pid = _kernel_holder(fd)
    if pid:
        return pid != -1
    try:  # no /proc/locks: ask the kernel with a shared lock, given back at once
        flock(fd, 1 | LOCK_NB)
        flock(fd, LOCK_UN)
        return False
    except BlockingIOError:
        return True


def is_busy(folder: int, lock: str) -> bool:
    """Whether somebody is at work under a lock file, in an open folder, at this moment."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        return is_held(fd)
    finally:
        os.close(fd)


def is_committing(store: FileStore) -> bool:
    """Whether somebody commits, or writes a log, in a workspace at this moment."""
    try:
        return is_busy(store.root.folder("data"), layout.COMMIT_LOCK)
    except OSError:
        return False


def state_of(pid: int) -> str:
    fields = locks.text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[0] if fields else ""


def _name_of(pid: int) -> str:
    words = locks.text_of(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    name = words[:80] or locks.text_of(f"/proc/{pid}/comm").strip()
    return name or "which has ended, but handed the lock down to another process"


def relative_holding(fd: int, family: str) -> str:
    """Words for the ancestor of this process that holds the lock on this file, "" if none does.

    With `family` "all" this process itself counts too: a shell may have locked a descriptor and handed it down.  The
    kernel tells: a descriptor on the same file whose /proc/PID/fdinfo shows the lock.  (The pid in /proc/locks may be
    that of a flock(1) that has ended since.)
    """
    want = os.fstat(fd)
    pid = os.getppid()
    while pid > 1:
        if processes.has_open(pid, want, locked=True):
            return f"pid {pid}, {_name_of(pid)}"
        fields = locks.text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) < 2:
            break
        pid = int(fields[1])
    if family == "all" and processes.has_open(os.getpid(), want, locked=True):
        return "a descriptor that was handed down to this very command"
    return ""


def _say(text: str) -> None:
    try:
        sys.stderr.write(f"recovery: {say.harmless(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EBADF):
            raise
