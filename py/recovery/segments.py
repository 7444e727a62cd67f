"""Old parts of a log: put aside by one rename, then compressed; and the one reader that knows all parts.

    NAME.jsonl            the part that is appended to
    NAME.jsonl.0001       a part that was put aside, never written to again; the highest number is the newest
    NAME.jsonl.0001.gz    the same, compressed

Where a crash has left a part both ways it counts once: the plain one does, as it certainly is whole.  Who has the
file open goes on reading it, whatever name it has by now.  Names and times of the lines keep their order, so an older
version of the suite, which knows nothing of parts, reads the newest lines and misses the others.
"""

from __future__ import annotations

import os

from recovery import durable, jsonl, steps
from recovery.errors import DataError, RecoveryError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.durable import Place
    from recovery.store import FileStore

#: Bytes that one part may unpack to: more is no log of ours.
MOST = 1 << 30
_END = ".gz"


def parse(base: str) -> Optional[tuple[str, int]]:
    """The log and the number of a part's file name; None for any other file."""
    stem = base[: -len(_END)] if base.endswith(_END) else base
    log, dot, number = stem.rpartition(".")
    if not dot or not log.endswith(".jsonl") or log.startswith(".") or len(number) < 4 or len(number) > 9:
        return None
    return (log, int(number)) if number.isascii() and number.isdigit() else None


def log_of(name: str) -> str:
    """The log that a part, or the log's own file, belongs to."""
    folder, _, base = name.rpartition("/")
    part = parse(base)
    return f"{folder}/{part[0]}" if part is not None else name


def of(store: FileStore, name: str) -> list[str]:
    """The parts that were put aside of a log, the oldest first, without those that are there twice."""
    return in_folder(store, name.rpartition("/")[0]).get(name, [])


def in_folder(store: FileStore, folder: str) -> dict[str, list[str]]:
    """The same of each log in a folder that has any, by the log's name."""
    found: dict[str, dict[int, str]] = {}
    for base in store.list(folder):  # sorted: the plain one comes before its compressed copy
        part = parse(base)
        if part is not None:
            found.setdefault(f"{folder}/{part[0]}", {}).setdefault(part[1], f"{folder}/{base}")
    return {name: [parts[number] for number in sorted(parts)] for name, parts in found.items()}


def missing(store: FileStore, name: str) -> list[tuple[str, str, str]]:
    """Parts of a log that are gone, each with its neighbours: `cleanup` makes no gap, for the oldest go first."""
    there = of(store, name)
    numbers = [parsed[1] for parsed in (parse(part.rpartition("/")[2]) for part in there) if parsed is not None]
    found = []
    for before, after, first, last in zip(numbers, numbers[1:], there, there[1:]):
        found += [(f"{name}.{number:04d}", first, last) for number in range(before + 1, after)]
    return found


def stand_in(store: FileStore, name: str) -> bool:
    """Put an empty part where one is gone, so that it isn't looked for any more; False if there is one by now."""
    place = store.root.place(name)
    mode, gid = store.like(place)
    base = f".{place.base}.stage"
    lock = store.commit_lock()
    try:
        if any(store.read_state(one) is not None for one in (name, name + _END)):
            return False
        durable.remove(place.folder, base)
        durable.stage(place, base, (), mode, -1, gid).sync()
        durable.into_place(place, base, place.base)
        os.fsync(place.folder)
        return True
    finally:
        lock.release()


def logs(store: FileStore, folder: str) -> list[str]:
    """Every log of a folder of which there is any part, sorted by name."""
    found = set()
    for base in store.list(folder):
        part = parse(base)
        if part is not None:
            found.add(part[0])
        elif base.endswith(".jsonl") and not base.startswith("."):
            found.add(base)
    return [f"{folder}/{base}" for base in sorted(found)]


def read(store: FileStore, name: str, last: int = 0, skipped: Optional[Skipped] = None) -> Optional[bytes]:
    """The bytes of one part, unpacked, or of a log's own file, or the `last` of them; None if there is none.

    A part that is compressed between listing and reading is found.  Of a damaged archive comes what can be unpacked,
    and `skipped` is told of the rest.
    DataError (65) if it is no regular file; what it costs to open it.
    """
    data = None if name.endswith(_END) else _bytes(store, name, last)
    if data is None and parse(name.rpartition("/")[2]) is not None:
        data = _bytes(store, name if name.endswith(_END) else name + _END)
        if data is not None:
            data, whole = _unpacked(data)
            if skipped is not None and not whole:
                skipped.problems.append(f"{name} can't be unpacked to its end")
            data = data[-last:]
    return data


class Skipped:
    """What a reader passed over: `torn` lines, and what could not be read: in words (`problems`), and as `refusals`."""

    def __init__(self) -> None:
        self.torn = 0
        self.problems: list[str] = []
        self.refusals: list[RecoveryError] = []

    def refuse(self, refusal: RecoveryError) -> None:
        """Pass over what this says that it can't be read."""
        self.problems.append(str(refusal))
        self.refusals.append(refusal)

    def require(self) -> None:
        """Raise the first refusal, if there is one: what was looked for may be there."""
        if self.refusals:
            raise self.refusals[0]


def backwards(store: FileStore, name: str, word: bytes = b"", skipped: Optional[Skipped] = None) -> Iterator[bytes]:
    """The lines of one part, or of a log's own file, from the last to the first; with a `word` those that hold it.

    A plain one is read a piece at a time.  One that can't be read is refused (65, 74, 77), or, with `skipped`, said
    there and passed over.
    """
    fd = -1
    try:
        if not name.endswith(_END):
            try:
                fd, _ = durable.open_regular(store.root.place(name))
            except FileNotFoundError:
                pass
        if fd >= 0:
            yield from jsonl.backwards(fd, word)
        else:
            data = read(store, name) or b""
            yield from jsonl.lines_between(data, word, 0, len(data))
    except (OSError, RecoveryError) as error:
        if isinstance(error, NotADirectoryError):
            return
        refusal = error if isinstance(error, RecoveryError) else from_os_error(error, f"could not read {name}")
        if skipped is None:
            raise refusal from None
        skipped.refuse(refusal)
    finally:
        if fd >= 0:
            os.close(fd)


def newest_first(
    store: FileStore, name: str, word: bytes = b"", skipped: Optional[Skipped] = None, parts: int = 1 << 30
) -> Iterator[dict[str, Any]]:
    """The whole records of a log and of its older parts, at most so many of these, the newest first.

    Torn and foreign lines are passed over, and counted in `skipped`.  A log that is rotated meanwhile is neither
    missed nor met twice: what is appended to is read before its older parts are listed.
    """
    newest: set[str] = set()
    for n, part in enumerate(_from_newest(store, name, skipped)):
        if n > parts:
            return
        own: set[str] = set()  # a damaged archive may say things twice
        for line in backwards(store, part, word, skipped):
            record = jsonl.record_of(line)
            if record is None:
                if skipped is not None:
                    skipped.torn += 1
                continue
            txid = str(record.get("txid", ""))
            if n and txid and (txid in newest or txid in own):
                continue
            (own if n else newest).add(txid)
            yield record


def _from_newest(store: FileStore, name: str, skipped: Optional[Skipped]) -> Iterator[str]:
    yield name
    try:
        older = of(store, name)
    except (OSError, RecoveryError) as error:
        if skipped is None:
            raise
        skipped.refuse(error if isinstance(error, RecoveryError) else from_os_error(error, f"could not list {name}"))
        return
    yield from reversed(older)


def _bytes(store: FileStore, name: str, last: int = 0) -> Optional[bytes]:
    try:
        fd, st = durable.open_regular(store.root.place(name))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise DataError(f"{name}: its folder is not a folder") from None
    except OSError as error:
        raise from_os_error(error, f"could not read {name}") from None
    try:
        if last and st.st_size > last:
            os.lseek(fd, -last, os.SEEK_END)
        return durable.read_all(fd, st.st_size)
    except OSError as error:
        raise from_os_error(error, f"could not read {name}") from None
    finally:
        os.close(fd)


def _unpacked(data: bytes) -> tuple[bytes, bool]:
    """What can be unpacked, and whether that is all."""
    import zlib

    unpacker = zlib.decompressobj(31)
    parts: list[bytes] = []
    try:
        parts.append(unpacker.decompress(data, MOST))
    except zlib.error:  # once more in small pieces: what stands before the damage is somebody's history
        unpacker = zlib.decompressobj(31)
        at = 0
        for size in (512, 1):  # the last of them byte by byte
            try:
                while at < len(data):
                    before = unpacker.copy()
                    parts.append(unpacker.decompress(data[at : at + size], MOST))
                    at += size
            except zlib.error:
                unpacker = before
    return b"".join(parts), unpacker.eof


def is_whole(data: bytes) -> bool:
    """Whether the bytes of a compressed part unpack to its end, and are what was packed."""
    import zlib

    unpacker = zlib.decompressobj(31)
    try:
        unpacker.decompress(data, MOST)
    except zlib.error:
        return False
    return unpacker.eof and not unpacker.unused_data


def unpack(store: FileStore, name: str, data: bytes) -> str:
    """Put a plain part in the place of the compressed one `name`, with the whole lines in `data`; its name.

    The caller holds the commit lock, and has kept a copy.  A crash leaves either, or both: the plain one counts then.
    """
    place = store.root.place(name)
    plain = durable.beside(place, place.base[: -len(_END)])
    base = f".{plain.base}.stage"
    durable.remove(place.folder, base)
    mode, gid = store.shared()
    durable.stage(plain, base, (data[: data.rfind(b"\n") + 1],), mode, -1, gid).sync()
    durable.into_place(plain, base, plain.base)
    os.fsync(place.folder)
    durable.remove(place.folder, place.base)
    os.fsync(place.folder)
    return plain.name


def sync(store: FileStore, name: str) -> None:
    """Make a part durable that somebody else may have put aside.  OSError."""
    fd, _ = durable.open_regular(store.root.place(name))
    try:
        os.fsync(fd)
        os.fsync(store.root.place(name).folder)
    finally:
        os.close(fd)


# --- putting aside


def rotate(store: FileStore, name: str, least: int = 1) -> Optional[str]:
    """Put aside what a log holds, if that is `least` bytes or more; the part's name, or None if it was less.

    One rename under the commit lock, the lock of every append: a crash leaves the lines under the old name or the new
    one.  Nothing is put aside while a commit is unfinished, whose line may be the log's last.  Busy (75).
    """
    folder, _, log = name.rpartition("/")
    lock = store.commit_lock()
    try:
        if store.unfinished() is not None:
            return None
        place = store.root.place(name)
        try:
            if os.stat(place.base, dir_fd=place.folder, follow_symlinks=False).st_size < least:
                return None
        except FileNotFoundError:
            return None
        numbers = [part[1] for part in map(parse, store.list(folder)) if part is not None and part[0] == log]
        base = f"{place.base}.{max(numbers, default=0) + 1:04d}"
        steps.at("rotate", name)
        os.rename(place.base, base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        steps.at("rotated", name)
        os.fsync(place.folder)
        return f"{folder}/{base}"
    except FileNotFoundError:
        return None
    finally:
        lock.release()


def compress(store: FileStore, name: str) -> bool:
    """Compress a part that was put aside: written beside it, synced, read back, renamed; then the plain one goes.

    Takes no lock: nobody writes to a part.  A crash leaves one, or both, which count once.  False if the part is gone.
    """
    import gzip

    data = _bytes(store, name)
    if data is None:
        return False
    place = store.root.place(name)
    packed = durable.beside(place, place.base + _END)
    stage = f".{packed.base}.stage"
    durable.remove(place.folder, stage)
    mode, gid = store.like(packed)
    owner = os.fstat(packed.folder).st_uid
    made = durable.stage(packed, stage, (gzip.compress(data, 6, mtime=0),), mode, owner, gid)
    try:
        made.sync()
        if not _holds(durable.beside(place, stage), data):
            raise DataError(f"{name} could not be compressed: what was written reads back otherwise; it stays as it is")
        steps.at("compress", name)
        durable.into_place(place, stage, packed.base)
        os.fsync(place.folder)
        steps.at("compressed", name)
        os.unlink(place.base, dir_fd=place.folder)
        steps.at("compress-removed", name)
        return True
    except FileNotFoundError:  # somebody tidied it away, or was faster
        return False
    finally:
        made.discard()


def _holds(place: Place, data: bytes) -> bool:
    fd, st = durable.open_regular(place)
    try:
        return _unpacked(durable.read_all(fd, st.st_size)) == (data, True)
    finally:
        os.close(fd)


def plain_parts(store: FileStore, folder: str) -> Iterator[str]:
    """The parts in a folder that are not compressed yet."""
    for base in store.list(folder):
        if parse(base) is not None and not base.endswith(_END):
            yield f"{folder}/{base}"
