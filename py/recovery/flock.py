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
    from typing import Any, Optional

    Note = dict[str, Any]

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Limits:
    """How long to wait: one `deadline` (time.monotonic) for the whole command, and `patience` seconds a wait."""

    __slots__ = ("command", "deadline", "patience")

    def __init__(self, patience: float = 30.0, deadline: float = 60.0, command: str = "") -> None:
        self.patience, self.deadline = patience, time.monotonic() + deadline
        self.command = command

    def wait(self) -> float:
        """Seconds that a wait beginning now may take."""
        return max(0.0, min(self.patience, self.deadline - time.monotonic()))


class HeldLock:
    """A lock that is held: its descriptor, where it stands, and the note its last holder left, if unclean."""

    __slots__ = ("base", "dirty", "fd", "folder", "name", "pid", "writable")

    def __init__(self, fd: int, folder: int, base: str, name: str, writable: bool) -> None:
        self.fd, self.folder, self.base, self.name, self.writable = fd, folder, base, name, writable
        self.pid = os.getpid()
        self.dirty: Optional[Note] = None

    def is_current(self) -> bool:
        """Whether the path still names the file whose lock is held."""
        try:
            return _same_file(os.fstat(self.fd), os.stat(self.base, dir_fd=self.folder, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def write_note(self, command: str, nonce: str = "", files: tuple[str, ...] = ()) -> None:
        """Say who holds it; padded over the old note, never truncating.  A full disk only costs the note."""
        if not self.writable:
            return
        note = {"state": "held", **identity(), "command": command[:300], "nonce": nonce, "files": list(files)}
        text = jsontext.dumps(note) + "\n"
        try:
            size = os.fstat(self.fd).st_size
            os.pwrite(self.fd, text.encode("ascii", "backslashreplace").ljust(size), 0)
        except OSError:
            pass

    def release(self) -> None:
        """Let go.  In a forked child only the descriptor is closed: the lock is the parent's."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        if self.pid == os.getpid():
            try:
                if self.writable and os.pread(fd, len(_HELD), 0) == _HELD:
                    os.pwrite(fd, _FREE, 0)
                flock(fd, LOCK_UN)
            except OSError:
                pass
        os.close(fd)


_HELD, _FREE = b'{"state": "held"', b'{"state": "free"'
_me: Note = {}


def identity() -> Note:
    """Who this process is, beyond its pid: start time (clock ticks since boot), boot id, pid namespace, host."""
    pid = os.getpid()
    if _me.get("pid") != pid:
        _me.update(
            pid=pid,
            start=start_time(pid),
            boot=_text_of("/proc/sys/kernel/random/boot_id").strip(),
            namespace=_link_of("/proc/self/ns/pid"),
            host=os.uname().nodename,
        )
    return _me


def start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)), "" if there is no such process or no /proc."""
    fields = _text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _text_of(path: str) -> str:
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


def _same_file(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_ino, a.st_dev) == (b.st_ino, b.st_dev)


def _open(folder: int, base: str, name: str, mode: int, gid: int) -> tuple[int, bool]:
    """Open a lock file without creating, truncating or following; create it exclusively where it is missing."""
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


def take(folder: int, base: str, name: str, limits: Limits, mode: int = 0o600, gid: int = -1) -> HeldLock:
    """Win the lock or raise: LockTimeout (75), Denied (77), Unavailable (69: a folder, fifo, link), StorageError (74).

    `name` is how messages call it.  The wait ends at kernel hand-off speed; `recovery.contention` does the waiting
    and is imported only then.
    """
    began, patience = 0.0, 0.0
    while True:
        fd, writable = _open(folder, base, name, mode, gid)
        try:
            held = HeldLock(fd, folder, base, name, writable)
            if not S_ISREG(os.fstat(fd).st_mode):
                raise Unavailable(f"{name} is not a regular file: not used as a lock")
            if not _try(fd, name):
                if not began:
                    began, patience = time.monotonic(), limits.wait()
                from recovery import contention

                contention.wait(held, began, patience, limits)
            if held.is_current():
                note = read_note(fd)
                held.dirty = note if note and note.get("state") == "held" else None
                steps.at("locked", name)
                return held
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # the file was removed or replaced while we waited: the lock is elsewhere now


def _try(fd: int, name: str) -> bool:
    steps.at("lock", name)
    try:
        flock(fd, LOCK_EX | LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(f"{name}: cannot be locked: {error.strerror}") from None


def mode_of(st: os.stat_result) -> int:
    """The mode a lock file takes from what it protects: a folder's right to enter becomes a right to open."""
    return S_IMODE(st.st_mode) & 0o666
