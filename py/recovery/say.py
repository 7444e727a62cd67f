"""What the suite says to people: a line on stderr, in which no escape code reaches the terminal."""

from __future__ import annotations

import os


def tell(text: str) -> None:
    """A line on stderr, if there is one."""
    try:
        write(2, "recovery: " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + "\n")
    except OSError:
        pass


def write(fd: int, text: str) -> None:
    """All of it, or OSError."""
    write_all(fd, text.encode("utf-8", "backslashreplace"))


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all of it is written; OSError."""
    while data:
        data = data[os.write(fd, data) :]
