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


def _records(data: bytes) -> Iterator[tuple[Optional[dict[str, Any]], bytes]]:
    for line in data.split(b"\n"):  # a last line that only lacks its newline is whole: no prefix of an object is one
        if not line.strip():
            continue
        record = None
        try:
            value = jsontext.loads(line.decode("utf-8"))
            record = value if isinstance(value, dict) else None
        except ValueError:
            pass
        yield record, line


def records(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """All whole records of a file's bytes, and how many torn or foreign lines were passed over."""
    found, torn = [], 0
    for record, _ in _records(data):
        if record is None:
            torn += 1
        else:
            found.append(record)
    return found, torn
