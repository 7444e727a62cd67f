"""Files of one JSON object a line that are only ever appended to.

A crash may leave a torn last line (or a tail of NULs): the next append gives it a line of its own, readers
skip it and count it.  Each record carries a `txid`; a repeated append with the same one is a no-op.
"""

from __future__ import annotations

import errno
import os

from recovery import durable, jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.durable import Place, Root

#: Bytes of a log after which what it holds is put aside, see `recovery.segments`.
LONG = 1 << 23

_APPEND = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_append(root: Root, place: Place, mode: int, gid: int) -> int:
    """Open for appending, created with `mode` and group where it is missing; OSError."""
    try:
        fd = os.open(place.base, _APPEND, dir_fd=place.folder)
    except FileNotFoundError:
        try:
            fd = os.open(place.base, _APPEND | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place.folder)
        except FileExistsError:
            fd = os.open(place.base, _APPEND, dir_fd=place.folder)
        else:
            durable.own(fd, mode, -1, gid)
            root.made.add(place.name.rpartition("/")[0])
    return fd


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
        record = None
        try:
            value = jsontext.loads(line.decode("utf-8"), unique=unique)
            record = value if isinstance(value, dict) else None
        except ValueError:
            pass
        yield record, line


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


def scan(fd: int, most: int = 1 << 26) -> Iterator[tuple[int, int, int, Optional[bytes]]]:
    """The lines of an open log with their number, offset and length without the line end, in bounded memory.

    The bytes are None for a line of more than `most`.
    """
    size = os.fstat(fd).st_size
    number, begin, at, parts, held = 1, 0, 0, [], 0
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
                parts.clear()
            if end < 0:
                break
            yield number, begin, held, b"".join(parts) if held <= most else None
            number, begin, parts, held, start = number + 1, at + end + 1, [], 0, end + 1
        at += len(piece)
    if held:
        yield number, begin, held, b"".join(parts) if held <= most else None


def is_record(line: bytes) -> bool:
    """Whether a line is a whole record; a blank one is none, and nothing is wrong with it."""
    try:
        return isinstance(jsontext.loads(line.decode("utf-8")), dict)
    except ValueError:
        return False
