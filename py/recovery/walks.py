"""What find(1) sees of a workspace: it looks at tens of thousands of files while Python still reads its modules.

Two finds run side by side, one over the lock files, as people look for old ones (`find … -mmin +60`), one over all that
is ours, which adds up what `du -s` would say and picks the few files that are worth a look.  Files that vanish
meanwhile are gone; folders that can't be read are known by what find says of them.
"""

from __future__ import annotations

import os
import time

from recovery.errors import StorageError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Sequence

#: More locks than this aren't looked for by their inodes: a command line has an end.
_MOST_LOCKS = 2000
#: Minutes after which a documented lock is old.
OLD_MINUTES = 60
#: Milliseconds in which a find that was killed is gone, unless its disk hangs.
_GOING = 500


class OutOfTime(BaseException):
    """The time for all checks is over.  No Exception: nobody is to take it for a failure of what he asked for."""


class Walk:
    """A find that was started; its answer is there when it has ended."""

    def __init__(self, words: list[str]) -> None:
        self.pid = 0
        # Files in memory: nobody waits for us to read.
        self.out, self.errors = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("found", "errors"))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        actions = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((null, self.out, self.errors))]
        environment = {"PATH": os.environ.get("PATH") or os.defpath, "LC_ALL": "C"}
        try:
            self.pid = os.posix_spawnp("find", ["find", *words], environment, file_actions=actions)
        except OSError:
            pass
        finally:
            os.close(null)

    def answer(self) -> tuple[list[bytes], list[str]]:
        """Wait: the records that it wrote, each ended by NUL, and the folders that it may not look into.

        Unavailable (69) if there is no find on the PATH, or another than GNU's.
        """
        if not self.pid:
            raise Unavailable("there is no find on the PATH")
        status = os.waitpid(self.pid, 0)[1]
        self.pid = 0
        if os.WIFSIGNALED(status):
            raise StorageError(f"find was ended by signal {os.WTERMSIG(status)}")
        records = _read(self.out).split(b"\0")[:-1]
        said = os.fsdecode(_read(self.errors)).split("\n")
        denied = [line[len("find: '") : -len(_DENIED)].rstrip("/") for line in said if line.endswith(_DENIED)]
        other = [line for line in said if line and not line.endswith((_DENIED, _GONE))]
        if other and not records:
            raise Unavailable(f"find can't do this (GNU findutils are needed): {other[0][:200]}")
        return records, denied

    def stop(self) -> None:
        """End it, if it still runs; one that its disk does not let go is not waited for."""
        if self.pid:
            import select

            try:
                os.kill(self.pid, 9)
                fd = os.pidfd_open(self.pid)
                try:
                    gone = select.poll()
                    gone.register(fd, select.POLLIN)
                    if gone.poll(_GOING):
                        os.waitpid(self.pid, 0)
                finally:
                    os.close(fd)
            except OSError:
                pass
            self.pid = 0
        os.close(self.out)
        os.close(self.errors)


_DENIED, _GONE = "': Permission denied", "': No such file or directory"


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


class Files:
    """What find saw below data/ and logs/."""

    def __init__(self, records: Iterable[bytes], denied: list[str]) -> None:
        #: bytes on the disk: in logs/, in data/ without its checkpoints, in data/checkpoints/
        self.logs = self.elsewhere = self.checkpoints = 0
        #: files and folders
        self.count = 0
        #: what may be an escalation, open or resolved
        self.escalations = 0
        #: seconds since 1970 of the newest change, and its path, where that is in the future; 0.0 elsewhere
        self.newest, self.newest_path = 0.0, ""
        #: recovery logs that were written to lately, by their names in the folder, with their sizes
        self.recent: dict[str, int] = {}
        self.denied = denied  # folders that can't be looked into
        places: list[dict[bytes, int]] = [{}, {}, {}]  # sizes in blocks, and how many files have each
        place = places[0]
        for record in records:
            kind = record[:1]
            if kind == b"b":
                place[record] = place.get(record, 0) + 1
            elif kind == b"e":
                self.escalations += 1
            elif kind == b"r":
                size, _, name = os.fsdecode(record[1:]).partition(" ")
                self.recent[name] = int(size)
            elif kind == b"f":
                when, _, path = os.fsdecode(record[1:]).partition(" ")
                if float(when) > self.newest:
                    self.newest, self.newest_path = float(when), path
            elif kind == b"s":
                place = places[int(record[1:])]
        self.logs, self.elsewhere, self.checkpoints = (
            512 * sum(int(blocks[1:]) * times for blocks, times in place.items()) for place in places
        )
        self.count = sum(sum(place.values()) for place in places)


class Locks:
    """What find saw of lock files: the documented ones, and those beside the data."""

    def __init__(self, records: list[bytes], denied: list[str], inodes: Iterable[int] = ()) -> None:
        """Of `inodes` those are kept that are lock files'."""
        kinds = [record[:1] for record in records]
        self.old = kinds.count(b"o")
        self.denied = denied  # folders that can't be looked into
        named = {b"%c%d" % (kind, one): one for one in inodes for kind in b"oi"}
        self.inodes = sorted({named[record] for record in named.keys() & set(records)}) if named else []
        #: lock folders, as DirectoryLock and mkdir make them, with the time of their last change
        self.folders: list[tuple[str, float]] = []
        if b"d" in kinds:
            for record in records:
                if record[:1] == b"d":
                    when, _, path = os.fsdecode(record[1:]).partition(" ")
                    self.folders.append((path, float(when)))


def find_records(root: str) -> Walk:
    """Look at what stands beside the outboxes, at receipts, checkpoints and the change log; see `records_of`."""
    plain = _plain(root)
    words = [f"{root}/{name}" for name in ("postbox", ".sprint", "data/receipts", "data/changes", "data/checkpoints")]
    words += ["-maxdepth", "3", "("]
    for pattern in (
        "postbox/*/completed/[!.]*_completion.json",
        "postbox/*/outbox.json.backup_*",
        "postbox/*/archive/*.jsonl",
        "postbox/*/.outbox.json.*.stage",
        "postbox/*/completed/.*.stage",
        "postbox/*/inbox/.*.stage",
        ".sprint/.progress.json.*.stage",
        "data/receipts/[!.]*.json",
        "data/checkpoints/[!.]*_checkpoint.json",
        "data/*s/*.jsonl",
    ):
        words += ["-path", f"{plain}/{pattern}", "-o"]
    words[-1] = ")"
    return Walk([*words, "!", "-path", f"{plain}/data/checkpoints/*_history.jsonl", "-printf", "%y%T@ %s %p\\0"])


def records_of(root: str, records: Iterable[bytes]) -> list[tuple[float, int, str]]:
    """What `find_records` saw: seconds since 1970, bytes (-1 for what is no file), root-relative name."""
    found = []
    for record in records:
        when, size, path = os.fsdecode(record[1:]).split(" ", 2)
        found.append((float(when), int(size) if record[:1] == b"f" else -1, path[len(root) + 1 :]))
    return found


def find_locks(root: str, documented: str) -> Walk:
    """Look at the documented locks and the data locks."""
    words = ["-name", "[!.]*", "-mmin", f"+{OLD_MINUTES}", "-printf", "o%i\\0", "-o", "-printf", "i%i\\0"]
    words = ["(", "-type", "f", "(", *words, ")", "-o", "-name", "[!.]*", "-type", "d", "-printf", "d%T@ %p\\0", ")"]
    return _find_locks(root, documented, words)


def find_held(root: str, documented: str, inodes: Sequence[int]) -> Walk:
    """The paths of lock files, each a record, by their inodes."""
    either: list[str] = []
    for inode in inodes[:_MOST_LOCKS]:
        either += ["-o" if either else "(", "-inum", str(inode)]
    return _find_locks(root, documented, [*either, ")", "-type", "f", "-printf", "%p\\0"])


def _find_locks(root: str, documented: str, words: list[str]) -> Walk:
    places = [documented, f"{root}/postbox", f"{root}/.sprint", f"{root}/data"]
    return Walk([*places, "-maxdepth", "2", "-name", "*.lock", *words])


def find_files(root: str, minutes: int, now: float) -> Walk:
    """Look at everything that is ours: how much there is, and which recovery logs changed in the last `minutes`."""
    future = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now + 1))
    plain = _plain(root)
    # One place behind the other, told by what find says at the start of each: a look at every path would cost more.
    words = [f"{root}/logs", f"{root}/data", f"{root}/data/checkpoints/"]
    words += ["-type", "d", "-path", f"{plain}/data/checkpoints", "-prune", "-o", "("]
    words += ["-type", "d", "-path", f"{plain}/data", "-printf", "s1\\0", ",", "-type", "d"]
    words += ["-path", f"{plain}/data/checkpoints/", "-printf", "s2\\0", ",", "-printf", "b%b\\0"]
    words += [",", "-name", "*_escalation*.json", "-printf", "e\\0"]
    words += [",", "-mmin", f"-{minutes}", "-type", "f", "("]
    words += ["-path", f"{plain}/logs/recovery/*_recovery*.jsonl", "-printf", "r%s %f\\0"]
    words += [",", "-newermt", future, "-printf", "f%T@ %p\\0", ")", ")"]
    return Walk(words)


def _plain(path: str) -> str:
    """A path as a pattern that means itself."""
    return "".join("\\" + c if c in "\\*?[" else c for c in path)
