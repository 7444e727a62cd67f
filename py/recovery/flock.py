"""One kernel lock on one lock file: flock(2), so that flock(1) sees us and we see it.

A lock file is never truncated and never unlinked by us.  After the lock is won the descriptor is compared with
the path: somebody may have removed the file meanwhile, and a lock on a nameless file protects nothing.
The holder writes a note into the file (who, since when, which staged files it will make); a note that still
says "held" when the next one wins the lock tells what a dead holder left behind.
"""

from __future__ import annotations

import errno
import os
import time
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from stat import S_IMODE, S_ISREG

from recovery import jsontext, steps
from recovery.errors import Denied, StorageError, Unavailable, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Sequence

    Note = dict[str, Any]

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Limits:
    """How long to wait: one `deadline` (time.monotonic) for the whole command, and `patience` seconds a wait.

    `family` says whose locks are refused at once, not waited for: "ancestors", "all" (this process's own inherited
    descriptors too) or "" (nobody's).  `tells` is what stderr is told of a longer wait, where it isn't one for somebody
    who is in the way.
    """

    __slots__ = ("command", "deadline", "family", "patience", "tells")

    def __init__(self, patience: float = 30.0, deadline: float = 60.0, command: str = "") -> None:
        self.patience, self.deadline = patience, time.monotonic() + deadline
        self.command, self.family, self.tells = command, "ancestors", ""

    def wait(self) -> float:
        """Seconds that a wait beginning now may take."""
        return max(0.0, min(self.patience, self.deadline - time.monotonic()))


#: Every lock of this process, where somebody keeps count: a forked child closes its copies (see `recovery.forks`).
live: Optional[Any] = None


class HeldLock:
    """A lock that is held: its descriptor, where it stands, and the note its last holder left, if unclean.

    `folder` is a descriptor that `base` is relative to, or None for a `base` that is a path of its own.
    """

    __slots__ = ("__weakref__", "base", "dirty", "fd", "folder", "name", "noted", "pid", "size", "writable")

    def __init__(self, fd: int, folder: Optional[int], base: str, name: str, writable: bool) -> None:
        self.fd, self.folder, self.base, self.name, self.writable = fd, folder, base, name, writable
        self.pid, self.size, self.noted = os.getpid(), 0, False
        self.dirty: Optional[Note] = None
        if live is not None:
            live.add(self)

    def is_current(self) -> bool:
        """Whether the path still names the file whose lock is held.  Unavailable (69) if that is no regular file."""
        try:
            now = os.stat(self.base, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        mine = os.fstat(self.fd)
        if now.st_ino != mine.st_ino or now.st_dev != mine.st_dev:
            return False
        if not S_ISREG(mine.st_mode):
            raise Unavailable(f"{self.name} is not a regular file: not used as a lock")
        self.size = mine.st_size
        if mine.st_nlink > 1:
            self.writable = False  # it has another name: a note would be written into somebody's file
        return True

    def write_note(self, note: bytes, to_tidy: bool = True) -> None:
        """Say who holds it (see `note_text`); padded over the old note, never truncating.

        With `to_tidy` the note is marked free at the release: one that isn't tells the next holder to look for
        what a dead one had staged.  A full disk only costs the note.
        """
        if self.writable:
            try:
                os.pwrite(self.fd, note.ljust(min(self.size, NOTE)), 0)
                self.noted = to_tidy
            except OSError:
                pass

    def release(self) -> None:
        """Let go.  In a forked child only the descriptor is closed: the lock is the parent's."""
        fd = self.fd
        if fd < 0:
            return
        try:
            if self.pid == os.getpid():
                if self.noted:
                    os.pwrite(fd, _FREE, 0)
                flock(fd, LOCK_UN)
        except OSError:
            pass
        finally:
            self.fd = -1
            os.close(fd)

    def close(self) -> None:
        """Close without a word: the lock goes with the last descriptor on it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def note_text(command: str, nonce: str = "", files: Sequence[str] = (), state: str = "held") -> bytes:
    """The note of a holder: who, what it runs, and which files it may stage under `nonce`.

    State "held" promises that it becomes "free" with the release; "taken" that there will be nothing to tidy.
    """
    note = {"state": state, **identity(), "command": command[:300], "nonce": nonce, "files": list(files)}
    return (jsontext.dumps(note) + "\n").encode("utf-8", "backslashreplace")


#: Bytes that a note is padded to at most; what stands behind them in a lock file is somebody's mischief.
NOTE = 4096
HELD, _FREE = b'{"state": "held"', b'{"state": "free"'
_me: Note = {}


def identity() -> Note:
    """Who this process is, beyond its pid: start time (clock ticks since boot), boot id, pid namespace, host."""
    pid = os.getpid()
    if _me.get("pid") != pid:
        _me.update(
            pid=pid,
            start=start_time(pid),
            boot=text_of("/proc/sys/kernel/random/boot_id").strip(),
            namespace=_link_of("/proc/self/ns/pid"),
            host=os.uname().nodename,
        )
    return _me


def start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)), "" if there is no such process or no /proc."""
    fields = text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def text_of(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _link_of(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def read_note(fd: int) -> Optional[Note]:
    """The note in a lock file, None if there is none or it is not ours."""
    try:
        data = os.pread(fd, 65536, 0)
        value = jsontext.loads(data.decode("utf-8")) if data.startswith(b"{") else None
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _open(folder: Optional[int], base: str, name: str, mode: int, gid: int) -> tuple[int, bool]:
    """Open a lock file without creating, truncating or following; create it exclusively where it is missing."""
    try:
        return os.open(base, os.O_RDWR | _OPEN, dir_fd=folder), True
    except OSError:
        pass  # the ordinary case is over; which of the others is it?
    while True:
        for flags, writable in ((os.O_RDWR, True), (os.O_RDONLY, False)):
            try:
                return os.open(base, flags | _OPEN, dir_fd=folder), writable
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EROFS) and writable:
                    continue  # flock(2) needs no right to write
                if error.errno in (errno.EACCES, errno.EPERM):
                    raise Denied(f"{name}: no permission to open the lock file") from None
                if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR):
                    raise Unavailable(f"{name} is not a regular file: not used as a lock") from None
                raise from_os_error(error, name) from None
        try:
            fd = os.open(base, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise from_os_error(error, name) from None
        try:
            if gid not in (-1, os.fstat(fd).st_gid):
                os.fchown(fd, -1, gid)
        except OSError:
            mode &= ~0o060
        os.fchmod(fd, (mode & 0o666) | 0o600)
        return fd, True


def take(
    folder: Optional[int],
    base: str,
    name: str,
    limits: Limits,
    mode: int = 0o600,
    gid: int = -1,
    learn: bool = True,
) -> HeldLock:
    """Win the lock or raise: LockTimeout (75), Denied (77), Unavailable (69: a folder, fifo, link), StorageError (74).

    `name` is how messages call it, `learn` is for `settle`.  The wait ends at kernel hand-off speed;
    `recovery.contention` does the waiting and is imported only then.
    """
    began, patience = 0.0, 0.0
    while True:
        held = open_lock(folder, base, name, mode, gid)
        try:
            if not try_lock(held):
                if not began:
                    began, patience = time.monotonic(), limits.wait()
                from recovery import contention

                contention.wait(held, began, patience, limits)
            if settle(held, learn):
                return held
        except BaseException:
            held.close()
            raise
        held.close()  # the file was removed or replaced while we waited: the lock is elsewhere now


def open_lock(folder: Optional[int], base: str, name: str, mode: int, gid: int) -> HeldLock:
    """Open a lock file, not yet locked; made with `mode` and `gid` where it is missing."""
    fd, writable = _open(folder, base, name, mode, gid)
    return HeldLock(fd, folder, base, name, writable)


def try_lock(held: HeldLock) -> bool:
    """flock(2) without waiting."""
    steps.at("lock", held.name)
    try:
        flock(held.fd, LOCK_EX | LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(f"{held.name}: cannot be locked: {error.strerror}") from None


def settle(held: HeldLock, learn: bool = True) -> bool:
    """Once locked: False if the path names another file by now; else, with `learn`, what the last holder left."""
    if not held.is_current():
        return False
    if learn and held.size and os.pread(held.fd, len(HELD), 0) == HELD:
        held.dirty = read_note(held.fd)
    steps.at("locked", held.name)
    return True


def mode_of(st: os.stat_result) -> int:
    """The mode a lock file takes from what it protects: a folder's right to enter becomes a right to open."""
    return S_IMODE(st.st_mode) & 0o666
