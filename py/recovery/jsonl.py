"""Files of one JSON object a line that are only ever appended to.

A crash may leave a torn last line (or a tail of NULs): the next append gives it a line of its own, readers
skip it and count it.  Each record carries a `txid`; a repeated append with the same one is a no-op.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISREG

from recovery import durable, jsontext
from recovery.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional, Union

    from recovery.durable import Place, Root

#: Bytes of a log after which what it holds is put aside, see `recovery.segments`.
LONG = 1 << 23

_APPEND = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_append(root: Root, place: Place, mode: int, gid: int) -> int:
    """Open for appending, created with `mode` and group where it is missing, its owner the folder's if we may.

    DataError (65) for what is no regular file; OSError.
    """
    try:
        fd = _open(place)
    except FileNotFoundError:
        try:
            fd = os.open(place.base, _APPEND | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place.folder)
        except FileExistsError:
            fd = _open(place)
        else:
            durable.own(fd, mode, os.fstat(place.folder).st_uid, gid)
            root.made.add(place.name.rpartition("/")[0])
    return fd


def _open(place: Place) -> int:
    try:
        fd = os.open(place.base, _APPEND, dir_fd=place.folder)
        if S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.ELOOP, errno.ENXIO):
            raise
    raise DataError(f"{place.name} is not a regular file")


def append(fd: int, line: str) -> None:
    """Add one line with one write, behind a torn tail if there is one; not synced.  OSError."""
    size = os.fstat(fd).st_size
    data = line.encode("utf-8") + b"\n"
    if size and os.pread(fd, 1, size - 1) != b"\n":
        data = b"\n" + data
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def tail_has(fd: int, txid: str, window: int) -> bool:
    """Whether one of the last whole lines, within `window` bytes, is the record of `txid`."""
    size = os.fstat(fd).st_size
    start = max(0, size - window)
    data = os.pread(fd, size - start, start)
    if txid.encode("utf-8") not in data:
        return False
    return any(record.get("txid") == txid for record, _ in _records(data) if record is not None)


def _records(data: bytes, unique: bool = False) -> Iterator[tuple[Optional[dict[str, Any]], bytes]]:
    for line in data.split(b"\n"):  # a last line that only lacks its newline is whole: no prefix of an object is one
        if not line.strip():
            continue
        yield record_of(line, unique), line


def records(data: bytes, unique: bool = False) -> tuple[list[dict[str, Any]], int]:
    """All whole records of a file's bytes, and how many torn or foreign lines were passed over.

    With `unique` a line in which a key stands twice is a foreign one: readers would differ about what it says.
    """
    found, torn = [], 0
    for record, _ in _records(data, unique):
        if record is None:
            torn += 1
        else:
            found.append(record)
    return found, torn


#: Bytes that `backwards` reads at a time.
_PIECE = 1 << 18
#: Bytes of a line after which it is none of ours: it comes as "?".
_MOST = 1 << 28


def backwards(fd: int, needle: bytes = b"", piece: int = _PIECE) -> Iterator[bytes]:
    """The lines of a file from its end to its beginning, empty ones left out; with a `needle` those that hold it.

    Holds a piece of the file and the longest line, whatever the file's size.  What is appended meanwhile isn't seen;
    a file that is cut meanwhile gives what is left.  OSError.
    """
    end = os.fstat(fd).st_size
    buffer = bytearray(min(piece, end))  # one for all: fresh memory would cost more than the search
    held = 0
    rest: list[bytes] = []  # of a line whose beginning has not been read yet, the last part first
    while end > 0:
        start = max(0, end - piece)
        size = os.preadv(fd, [memoryview(buffer)[: end - start]], start)
        end = start
        last = buffer.rfind(b"\n", 0, size)
        part = bytes(buffer[last + 1 : size])
        if part and not part.strip(b"\0"):
            part = b"\0"  # a tail of NULs may be as long as the disk
        held += len(part)
        if held > _MOST:
            rest = [b"?"]
        else:
            rest.append(part)
        if last < 0:
            continue
        yield from _if_it_holds(rest, needle)
        first = buffer.find(b"\n", 0, last)
        if first >= 0:
            yield from lines_between(buffer, needle, first + 1, last)
        rest = [bytes(buffer[: last if first < 0 else first])]
        held = len(rest[0])
    yield from _if_it_holds(rest, needle)


def _if_it_holds(parts: list[bytes], needle: bytes) -> Iterator[bytes]:
    line = b"".join(reversed(parts))
    if line.strip() and needle in line:
        yield line


def lines_between(data: Union[bytes, bytearray], needle: bytes, start: int, end: int) -> Iterator[bytes]:
    """The lines between two places, from the last on; the first begins at `start`."""
    while end > start:
        at = data.rfind(needle, start, end) if needle else end
        if at < 0:
            return
        begin = max(data.rfind(b"\n", start, at) + 1, start)
        stop = data.find(b"\n", at, end)
        line = bytes(data[begin : end if stop < 0 else stop])
        if line.strip():
            yield line
        end = begin - 1


def record_of(line: bytes, unique: bool = False) -> Optional[dict[str, Any]]:
    """The record that a line is; None for a torn or foreign one."""
    try:
        value = jsontext.loads(line.decode("utf-8"), unique=unique)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def scan(fd: int, most: int = 1 << 26) -> Iterator[tuple[int, int, int, Optional[bytes]]]:
    """The lines of an open log with their number, offset and length without the line end, in bounded memory.

    The bytes are None for a line of more than `most`, unless it is blank: then they are empty.
    """
    size = os.fstat(fd).st_size
    number = 1
    at = begin = held = 0
    parts: list[bytes] = []
    blank = True
    while at < size:
        piece = os.pread(fd, min(1 << 20, size - at), at)
        if not piece:
            break
        start = 0
        while True:
            end = piece.find(b"\n", start)
            part = piece[start:] if end < 0 else piece[start:end]
            held += len(part)
            if held <= most:
                parts.append(part)
            else:
                blank = blank and not part.strip() and not b"".join(parts).strip()
                parts.clear()
            if end < 0:
                break
            yield number, begin, held, b"".join(parts) if held <= most else b"" if blank else None
            number, begin, held, start, blank = number + 1, at + end + 1, 0, end + 1, True
            parts = []
        at += len(piece)
    if held:
        yield number, begin, held, b"".join(parts) if held <= most else b"" if blank else None


def is_record(line: bytes) -> bool:
    """Whether a line is a whole record; a blank one is none, and nothing is wrong with it."""
    return record_of(line) is not None
