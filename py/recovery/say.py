"""What the suite says to people, on stdout and stderr: text in which no escape code reaches a terminal.

Files hold what was given, to the byte; it is here, where a person reads it, that it is made harmless.
"""

from __future__ import annotations

import os

from recovery.errors import IO

#: Spaces and joiners that languages are written with, which `isprintable` takes for something else.
_WRITING = frozenset("\u00a0\u202f\u3000\u200c\u200d")
#: Beside letters and digits, what a shell takes as it is.
_BARE = frozenset("%+,-./:=@_")


def tell(text: str) -> None:
    """A line on stderr, if there is one."""
    try:
        write(2, "recovery: " + harmless(text) + "\n")
    except OSError:
        pass


def harmless(text: str, *keep: str) -> str:
    """Text for one line of a terminal: what could be an escape code, or turn text about, is shown, not sent.

    `keep` are characters that are sent all the same.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _WRITING or c in keep else ascii(c)[1:-1] for c in text)


def harmless_json(text: str) -> str:
    """JSON on one line with the same value, for a terminal too: DEL, C1 and the like are written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _WRITING or c > "\uffff" else f"\\u{ord(c):04x}" for c in text)


def quoted(path: str) -> str:
    """A path as one word of a shell's command line: harmless here, and the very path where it is pasted (bash, zsh)."""
    if path and all(c in _BARE or (c.isalnum() and c.isascii()) for c in path):
        return path
    if harmless(path) == path:
        return "'" + path.replace("'", "'\\''") + "'"
    text = path.replace("\\", "\\\\").replace("'", "\\'")
    octets = (c if c.isprintable() else "".join(f"\\{byte:03o}" for byte in os.fsencode(c)) for c in text)
    return "$'" + "".join(octets) + "'"


def shown(value: object, width: int = 60) -> str:
    """Somebody's words in one of our lines: harmless, and short."""
    text = str(value)
    return harmless(text if len(text) <= width else text[: width - 1] + "…")


def answer(text: str, code: int, done: str = "") -> int:
    """The answer on stdout; returns the exit code, which is `code` where that can be told.

    Where it can't: what was `done` is done, and is said on stderr; an answer that nobody got is 74.  Who closes the
    pipe has read enough, as `… | head -1` and `… | grep -q` have: nothing is said, and with pipefail nothing fails.
    """
    try:
        write(1, text + "\n")
    except OSError as error:
        if done:
            tell(f"stdout can't be written ({error.strerror}); what was done is done: {done}")
        elif not isinstance(error, BrokenPipeError):
            tell(f"stdout can't be written: {error.strerror}")
            return code or IO
    return code


def write(fd: int, text: str) -> None:
    """All of it, or OSError."""
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(fd, data) :]
