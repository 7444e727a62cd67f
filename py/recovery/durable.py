"""Files beneath a root, through folder descriptors: find, read, stage, replace, sync.

Nothing here decides anything.  Every path is relative to the root and walked one component at a time without
following links; a link that stays inside the root is resolved first, one that leads out is refused (65).
"""

from __future__ import annotations

import errno
import os
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

from recovery import steps
from recovery.errors import DataError, NotFound, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import blake2b
    from typing import Any, Iterable, Optional

    State = dict[str, Any]
else:
    try:  # `hashlib` loads OpenSSL, which costs more than it hashes here
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20


class Place:
    """Where a file stands: its folder's descriptor, its name in there, and its resolved root-relative name."""

    __slots__ = ("base", "folder", "name")

    def __init__(self, folder: int, base: str, name: str) -> None:
        self.folder, self.base, self.name = folder, base, name


class Version:
    """The bytes of a file at one moment (as latin-1 text) and what identifies that moment."""

    __slots__ = ("ctime", "gid", "hash", "ino", "mode", "mtime", "size", "text", "uid")

    def __init__(self, text: str, digest: str, st: os.stat_result) -> None:
        self.text, self.hash, self.size = text, digest, st.st_size
        self.mode, self.uid, self.gid = S_IMODE(st.st_mode), st.st_uid, st.st_gid
        self.ino, self.mtime, self.ctime = st.st_ino, st.st_mtime_ns, st.st_ctime_ns

    def is_untouched(self, place: Place) -> bool:
        """Whether the file there is this one and nobody has written to it since, as far as its times tell."""
        st = os.stat(place.base, dir_fd=place.folder, follow_symlinks=False)
        return (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns) == (self.ino, self.size, self.mtime, self.ctime)

    def state(self) -> State:
        """What the journal records of it."""
        return {
            "hash": self.hash,
            "size": self.size,
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "ino": self.ino,
            "mtime": self.mtime,
        }


class Root:
    """A workspace's folder, open.  `close()` gives its descriptors back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._folders: dict[str, int] = {}
        try:
            self._folders = {"": os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(f"{path} is not a folder", hint="run `recovery init`") from None
            raise from_os_error(error, path) from None
        st = os.fstat(self._folders[""])
        self._which = (st.st_dev, st.st_ino)
        self._mounts: dict[int, str] = {}
        self.made: set[str] = set()  # folders that got a new entry: to be synced before anything relies on it

    def close(self) -> None:
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def refresh(self) -> bool:
        """For who keeps it open for long: forget folders that were moved or removed meanwhile.

        False if the root itself is another folder by now, or its descriptors aren't ours any more (a program that
        becomes a daemon closes all it can): then they are not closed either.
        """
        try:
            st = os.fstat(self._folders[""])
            if (st.st_dev, st.st_ino) != self._which:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        except (OSError, KeyError):
            self._folders.clear()
            return False
        for name, fd in list(self._folders.items()):
            try:
                there, ours = os.stat(os.path.join(self.path, name), follow_symlinks=not name), os.fstat(fd)
                same = (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
            except OSError:
                same = False
            if not same:
                if not name:
                    return False
                os.close(self._folders.pop(name))
                self._mounts.pop(fd, None)
        return True

    def path_is_open(self) -> bool:
        """Whether the descriptors are still ours."""
        return bool(self._folders)

    def __del__(self) -> None:
        self.close()  # a thread's store goes with its thread

    def folder(self, name: str, create: bool = False) -> int:
        """The descriptor of a folder; with `create`, made like its parent where it is missing."""
        fd = self._folders.get(name)
        if fd is not None:
            return fd
        above, _, base = name.rpartition("/")
        _require_inside(name, base)
        parent = self.folder(above, create)
        try:
            try:
                fd = os.open(base, _FOLDER, dir_fd=parent)
            except FileNotFoundError:
                if not create:
                    raise
                self._make(parent, base)
                self.made.add(above)
                fd = os.open(base, _FOLDER, dir_fd=parent)
        except OSError as error:
            error.filename = name  # not only its last part
            raise
        self._folders[name] = fd
        return fd

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; only what was open already stays open.  OSError, DataError."""
        count = len(self._folders)
        try:
            return sorted(os.listdir(self.place(f"{folder}/any" if folder else "any").folder))
        finally:
            while len(self._folders) > count:
                _, fd = self._folders.popitem()
                self._mounts.pop(fd, None)
                os.close(fd)

    def forget(self, name: str) -> None:
        """Close a folder and those below it: who goes through thousands of them holds only the one he is at."""
        for one in [folder for folder in self._folders if folder == name or folder.startswith(name + "/")]:
            fd = self._folders.pop(one)
            self._mounts.pop(fd, None)
            os.close(fd)

    def _make(self, parent: int, base: str) -> None:
        like = os.fstat(parent)
        try:  # the top folders of a workspace are shared as its postbox is
            like = os.stat("postbox", dir_fd=parent)
        except OSError:
            pass
        steps.at("mkdir", base)
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            return
        fd = os.open(base, _FOLDER, dir_fd=parent)
        try:
            own(fd, like.st_mode & 0o7777, like.st_uid, like.st_gid)
        finally:
            os.close(fd)

    def mount_of(self, folder: int) -> str:
        """`mount_id` of an open folder."""
        if folder not in self._mounts:
            self._mounts[folder] = mount_id(folder)
        return self._mounts[folder]

    def sync_made(self, below: str = "") -> set[int]:
        """Make folders that were created (and files in them) findable after a power cut; returns those synced.

        With `below` only the ways to it and into it; the others later.
        """
        done = set()
        for name in sorted(self.made):
            if not below or name in ("", below) or name.startswith(below + "/"):
                folder = self.folder(name)
                os.fsync(folder)
                self.made.discard(name)
                done.add(folder)
        return done

    def place(self, name: str, create: bool = False) -> Place:
        """Where `name` really stands; FileNotFoundError if its folder doesn't exist, 65 if a link leads out."""
        above, _, base = name.rpartition("/")
        _require_inside(name, base)
        try:
            folder = self.folder(above, create)
            if not S_ISLNK(os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode):
                return Place(folder, base, name)
        except FileNotFoundError:
            if above not in self._folders:
                raise
            return Place(folder, base, name)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
        return self._through_links(name)

    def _through_links(self, name: str) -> Place:
        home = os.path.realpath(self.path)
        real = os.path.realpath(os.path.join(home, name))
        if not real.startswith(home.rstrip("/") + "/"):
            raise DataError(f"{name} is a link that leads out of the workspace", hint="replace the link by a file")
        inside = real[len(home.rstrip("/")) + 1 :]
        above, _, base = inside.rpartition("/")
        try:
            folder = self.folder(above)
            mode = os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode
        except NotADirectoryError:
            raise DataError(f"{name}: its folder is not a folder") from None
        except OSError as error:
            raise DataError(f"{name} is a link to nowhere: {error.strerror}") from None
        if S_ISLNK(mode):
            raise DataError(f"{name} is a link that leads to itself")
        return Place(folder, base, inside)


def _require_inside(name: str, base: str) -> None:
    """Names come out of files that others may write: none may lead out of the root."""
    if base in ("", ".", "..") or "/" in base or "\0" in name or name.startswith("/"):
        raise DataError(f"{name[:200]!a} is no name below the workspace")


# --- reading


def open_regular(place: Place) -> tuple[int, os.stat_result]:
    """Open a file for reading: never through a link, never blocking; 65 unless it is a regular file."""
    try:
        fd = os.open(place.base, _READ, dir_fd=place.folder)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):
            raise DataError(f"{place.name} is not a regular file") from None
        raise
    st = os.fstat(fd)
    if not S_ISREG(st.st_mode):
        os.close(fd)
        kind = "a folder" if S_ISDIR(st.st_mode) else "not a regular file"
        raise DataError(f"{place.name} is {kind}")
    return fd, st


def read_all(fd: int, size: int) -> bytes:
    """All bytes of a file of about `size` bytes."""
    data = os.read(fd, size + 1)
    if len(data) == size and size:
        return data
    parts = [data]
    while data:
        data = os.read(fd, _PIECE)
        parts.append(data)
    return b"".join(parts)


def digest_of(data: bytes) -> str:
    """The hash that stands for a file's content everywhere: BLAKE2b, 160 bit, hex (RFC 7693)."""
    return str(blake2b(data, digest_size=20).hexdigest())


def copy_hashed(source: int, target: int = -1) -> str:
    """Read an open file to its end, into `target` if that is given; the hash of what was read."""
    digest = blake2b(digest_size=20)
    while True:
        data = os.read(source, _PIECE)
        if not data:
            return str(digest.hexdigest())
        digest.update(data)
        if target >= 0:
            write_all(target, data)


def current_hash(place: Place) -> tuple[Optional[str], Optional[os.stat_result]]:
    """Hash and stat of what stands there now, read in pieces; (None, None) if nothing does."""
    try:
        fd, st = open_regular(place)
    except FileNotFoundError:
        return None, None
    try:
        return copy_hashed(fd), st
    finally:
        os.close(fd)


def mount_id(fd: int) -> str:
    """The kernel's number of the mount an open file belongs to, "" where /proc doesn't say."""
    try:
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        for line in os.read(info, 1024).decode("ascii", "replace").splitlines():
            if line.startswith("mnt_id:"):
                return line[7:].strip()
    finally:
        os.close(info)
    return ""


# --- writing


def own(fd: int, mode: int, uid: int, gid: int) -> str:
    """Give a file of ours mode, owner and group; what couldn't be given comes back as words, "" if all was."""
    lost = ""
    st = os.fstat(fd)
    if gid not in (-1, st.st_gid):
        try:
            os.fchown(fd, -1, gid)
        except OSError:
            lost = f"group {gid}"
            mode &= ~0o060  # never open it to a group it wasn't meant for
    if uid not in (-1, st.st_uid):
        try:
            os.fchown(fd, uid, -1)
        except OSError:
            lost = f"owner {uid}" + (" and " + lost if lost else "")
    if S_IMODE(st.st_mode) != mode:
        os.fchmod(fd, mode)
    return lost


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, however the kernel cuts it."""
    done = os.write(fd, data)
    while done < len(data):
        more = os.write(fd, data[done:])
        if not more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += more


class Stage:
    """New bytes beside their target, not yet visible; `sync` makes them durable, `discard` takes them away."""

    __slots__ = ("_fd", "base", "hash", "lost", "place")

    def __init__(self, place: Place, base: str, fd: int) -> None:
        self.place, self.base, self._fd = place, base, fd
        self.hash = self.lost = ""

    def sync(self) -> Stage:
        """fsync and close.  Several stages are best all written first: their syncs then share the disk's work."""
        if self._fd >= 0:
            os.fsync(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
            steps.at("stage-synced", self.place.name)
        return self

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        remove(self.place.folder, self.base)


def stage_name(base: str, nonce: str) -> str:
    """The name of a staged file: hidden, and its writer's own."""
    short = base.encode("utf-8", "surrogateescape")[:180].decode("utf-8", "ignore")
    return f".{short}.{nonce}.stage"


def stage(place: Place, base: str, data: Iterable[bytes], mode: int, uid: int, gid: int, like: int = -1) -> Stage:
    """Write a staged file `base` in the folder of `place`; the caller syncs or discards it.

    Mode, owner, group and extended attributes (access lists among them) follow the file it will replace, whose
    descriptor is `like`.  On any error nothing is left.
    """
    made = _begin_stage(place, base)
    try:
        digest = blake2b(digest_size=20)
        for piece in data:
            write_all(made._fd, piece)
            digest.update(piece)
        made.hash = str(digest.hexdigest())
        steps.at("stage-written", place.name)
        made.lost = own(made._fd, mode, uid, gid)
        if like >= 0:
            copy_attributes(like, made._fd)
        return made
    except BaseException:
        made.discard()
        raise


def stage_copy(place: Place, base: str, source: int, mode: int, gid: int) -> Stage:
    """Stage a copy of an open file, inside the kernel where that can do it; as `stage`."""
    made = _begin_stage(place, base)
    try:
        at = 0
        try:
            while True:
                done = os.copy_file_range(source, made._fd, 1 << 30, at, at)
                if not done:
                    break
                at += done
        except (OSError, AttributeError):  # another file system, an older kernel
            if at:
                raise
            os.lseek(source, 0, os.SEEK_SET)
            copy_hashed(source, made._fd)
        steps.at("stage-written", place.name)
        own(made._fd, mode, -1, gid)
        return made
    except BaseException:
        made.discard()
        raise


def _begin_stage(place: Place, base: str) -> Stage:
    steps.at("stage", place.name)
    return Stage(place, base, os.open(base, _CREATE, 0o600, dir_fd=place.folder))


def copy_attributes(source: int, target: int) -> None:
    try:
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except (OSError, AttributeError):
        pass  # a file system without them, or ones that only root may set


def remove(folder: int, base: str) -> bool:
    """Unlink a file of ours; False if it wasn't there or couldn't be."""
    try:
        os.unlink(base, dir_fd=folder)
        return True
    except OSError:
        return False


def beside(place: Place, base: str) -> Place:
    """Another name in the same folder."""
    return Place(place.folder, base, place.name[: -len(place.base)] + base)


def into_place(place: Place, stage: str, base: str) -> None:
    """Rename a staged file; on failure it is removed.  OSError."""
    try:
        os.rename(stage, base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except OSError:
        remove(place.folder, stage)
        raise


def hash_or_none(place: Place) -> Optional[str]:
    """The hash of what stands there, None if nothing does, a word if it is no regular file."""
    try:
        return current_hash(place)[0]
    except DataError:
        return "not a regular file"
