"""Files from elsewhere, such as a backlog: read once, whole, and refused with line and column.

They may stand anywhere, a pipe or stdin (`-`) among them, and are never locked and never written.  JSON is read
strictly: what another program might read in two ways (a key twice, NaN, a number too large) is refused.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR

from recovery import jsontext, tasks
from recovery.errors import DataError, NotFound, UsageError, from_os_error
from recovery.jsontext import BadJSON, Number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes of a file that are read at most.
MOST = 32 << 20
#: How deep a document may be nested: what people write by hand or tools keep for tasks is far from it.
_DEEP = 40

_MEND = "put it right there, then run the same command again"


class Object(dict):  # type: ignore[type-arg]
    """A JSON object, and where it and its members' values stand in the text."""

    def __init__(self, at: int = 0) -> None:
        super().__init__()
        self.at, self.spots = at, dict[str, int]()


class Array(list):  # type: ignore[type-arg]
    """A JSON list, and where it and its elements stand."""

    def __init__(self, at: int = 0) -> None:
        super().__init__()
        self.at, self.spots = at, list[int]()


class Source:
    """A file that was read: its `name` for people, and its `text`, one latin-1 character a byte of UTF-8."""

    __slots__ = ("name", "text")

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        try:
            self.text = jsontext.decode(data)
        except BadJSON as error:
            raise DataError(f"{tasks.shown(name)} {error}. Nothing changed.", hint=_MEND) from None

    def refusal(self, reason: str, at: int, hint: str = _MEND) -> DataError:
        """The error (65) that says what is wrong, and where."""
        return DataError(f"{tasks.shown(self.name)}: {BadJSON(reason, self.text, at)}. Nothing changed.", hint=hint)

    def json(self) -> Any:
        """The document in it, as Object, Array, str, int, float, bool and None; DataError (65)."""
        start = _next(self.text, 0)
        if start == len(self.text):
            raise DataError(f"{tasks.shown(self.name)} is empty. Nothing changed.", hint=_MEND)
        try:
            value, end = _value(self.text, start, 0)
            rest = _next(self.text, end)
            if rest != len(self.text):
                raise BadJSON("text follows the document", self.text, rest)
        except BadJSON as error:
            raise DataError(f"{tasks.shown(self.name)} is damaged: {error}. Nothing changed.", hint=_MEND) from None
        return value


def _next(text: str, at: int) -> int:
    """Where something other than white space follows."""
    return len(text) - len(text[at:].lstrip(" \n\t\r"))


def _value(text: str, start: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEP:
        raise BadJSON("is nested too deeply", text, start)
    if text[start : start + 1] not in ("{", "["):
        value, end = jsontext.value_at(text, start)
        if isinstance(value, Number):
            return _number(value, text, start), end
        return (_text(text, start) if isinstance(value, str) else value), end
    node = jsontext.node_at(text, start)
    if node.kind == "{":
        found = Object(start)
        for name, begin, at, _ in node.items:
            _text(text, begin)
            found[name], found.spots[name] = _value(text, at, depth + 1)[0], at
        return found, node.end
    listed = Array(start)
    for _, _, at, _ in node.items:
        listed.append(_value(text, at, depth + 1)[0])
        listed.spots.append(at)
    return listed, node.end


def _text(text: str, start: int) -> str:
    """The string there, if it is one that can be written into a file."""
    value = jsontext.string_at(text, start)[0]
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadJSON("a string holds half a character (a lone surrogate)", text, start) from None
    return value


def _number(word: Number, text: str, start: int) -> float:
    """The number, if it is one that comes back as it was."""
    if len(word) > 300:
        raise BadJSON("a number is too long", text, start)
    if word.lstrip("-").isdigit():
        return int(word)
    number = float(word)
    if number - number != 0:
        raise BadJSON(f"the number {word[:40]} is too large", text, start)
    return number


def is_folder(path: str) -> bool:
    """Whether a folder was named.  NotFound (66) if nothing is there, Denied (77)."""
    if path == "-":
        return False
    try:
        return S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        raise NotFound(f"there is no {tasks.shown(path)}. Nothing changed.") from None
    except (OSError, ValueError) as error:
        raise _refused(error, path) from None


def read(path: str) -> Source:
    """A file's content; `-` is stdin.

    UsageError (64): a folder; NotFound (66); DataError (65): it isn't UTF-8, or larger than 32 MiB; Denied (77);
    StorageError (74).
    """
    if is_folder(path):
        raise UsageError(f"{tasks.shown(path)} is a folder, a file is needed. Nothing changed.", hint="see --help")
    try:
        fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts, size = [], 0
            while size <= MOST:
                part = os.read(fd, 1 << 20)
                if not part:
                    break
                parts.append(part)
                size += len(part)
        finally:
            if fd:
                os.close(fd)
    except OSError as error:
        raise _refused(error, path) from None
    name = "stdin" if path == "-" else path
    if size > MOST:
        raise DataError(f"{tasks.shown(name)} is larger than {MOST >> 20} MiB. Nothing changed.")
    return Source(name, b"".join(parts))


def folder(path: str) -> list[str]:
    """The names of the files in a folder, sorted, hidden ones left out."""
    try:
        return sorted(name for name in os.listdir(path) if not name.startswith("."))
    except OSError as error:
        raise _refused(error, path) from None


def _refused(error: Exception, path: str) -> Exception:
    if isinstance(error, OSError) and error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG):
        return from_os_error(error, f"could not read {tasks.shown(path)}")
    return NotFound(f"there is no {tasks.shown(path)}. Nothing changed.")
