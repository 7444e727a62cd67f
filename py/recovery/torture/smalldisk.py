"""A small file system to fill: a tmpfs in a mount namespace of one forked child, gone with the last process in it.

Nothing outside ever sees the mount: the child gets a namespace of its own, made private to the root, before it mounts
anything (unshare(2), mount_namespaces(7)).  Who isn't root gets a user namespace too, where the kernel lets him.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recovery.torture.scratch import Unable

#: Room for a workspace with all that an operation leaves there; each file takes whole blocks of 4096 bytes.
BLOCKS, FILES = 1024, 600

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 0x4000, 1 << 18


@contextmanager
def folder(beside: Path) -> Iterator[Path]:
    """An empty folder to mount on, removed behind."""
    path = Path(tempfile.mkdtemp(prefix="small-disk-", dir=beside))
    try:
        yield path
    finally:
        path.rmdir()


def mount(path: Path) -> None:
    """Mount an empty tmpfs of BLOCKS and FILES on `path`, for this process and its children; Unable with the reason.

    Only for a forked child: there is no way back.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _unshare(libc)
    _mount(libc, "none", "/", None, _MS_REC | _MS_PRIVATE, "")
    _mount(libc, "tmpfs", str(path), "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={BLOCKS * 4096},nr_inodes={FILES}")


def _unshare(libc: ctypes.CDLL) -> None:
    uid, gid = os.getuid(), os.getgid()
    if uid == 0 and libc.unshare(_CLONE_NEWNS) == 0:
        return
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        raise Unable(f"no private mounts here: unshare: {os.strerror(ctypes.get_errno())}; run it as root")
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise Unable(f"no private mounts here: {error.filename}: {error.strerror}; run it as root") from None


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int, data: str) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data)):
        raise Unable(f"no private mounts here: mount {source}: {os.strerror(ctypes.get_errno())}; run it as root")


@contextmanager
def filled(path: Path, kind: str, left: int) -> Iterator[None]:
    """Fill the disk mounted on `path` but for `left` more "blocks" or "files"; make room again behind."""
    ballast = path / "ballast"
    ballast.mkdir()
    files = []
    try:
        room = os.statvfs(path)
        if kind == "files":
            for number in range(room.f_favail - left):
                files.append(ballast / str(number))
                files[-1].touch()
        else:
            files.append(ballast / "blocks")
            fd = os.open(files[-1], os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                if room.f_bavail > left:
                    os.posix_fallocate(fd, 0, (room.f_bavail - left) * room.f_frsize)
            finally:
                os.close(fd)
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        ballast.rmdir()
