"""Where a piece is missing from the middle of a JSON text that is laid out over lines.

Pure.  The indentation says how deep each line stands, so the brackets are counted twice: from the beginning to where
they no longer agree with it, and from the end back to there.  What follows the gap is then known to stand in so many
containers, whatever names they had; nobody has to guess that it belongs to what was open before.
"""

from __future__ import annotations

import re

from recovery import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

_KEY = re.compile(r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"[ \t]*:[ \t]*')
_CLOSERS = re.compile(r"([}\]])[ \t]*,?$")
_WORD = re.compile(r"-?[0-9][0-9.eE+\-]*|true|false|null")
#: A line whose one bracket fell over: no piece is missing there.
_FELL = re.compile(r'(?:"(?:[^"\\]|\\.)*"[ \t]*:[ \t]*)?[^ \t",][ \t]*,?$')
_PAIRS = {"}": "{", "]": "["}


class Gap:
    """A missing piece: what stands before `end` is as it was, and so is what stands from `start` on.

    at     where it is seen
    kinds  the containers that are open at `start`, outermost first: "{" or "["
    even   the very same are open before it: it may be one line that can't be read
    rest   what else stands in the line where both sides meet
    """

    __slots__ = ("at", "end", "even", "kinds", "rest", "start")

    def __init__(self, at: int, end: int, start: int, kinds: str, even: bool, rest: str) -> None:
        self.at, self.end, self.start, self.kinds, self.even, self.rest = at, end, start, kinds, even, rest


class _Line:
    """One line: where it stands, its column, and what it does: "open", "close", "value"; "" if it can't be read."""

    __slots__ = ("at", "bracket", "column", "does", "keyed", "text")

    def __init__(self, at: int, text: str) -> None:
        self.at = at
        self.text = text.strip(" \t\r").lstrip(", \t")
        self.column = len(text) - len(text.lstrip(" \t"))
        self.does = self.bracket = ""
        match = _KEY.match(self.text)
        self.keyed = match is not None
        rest = self.text[match.end() :] if match is not None else self.text
        closer = _CLOSERS.match(rest)
        if rest in ("{", "["):
            self.does, self.bracket = "open", rest
        elif closer is not None and not self.keyed:
            self.does, self.bracket = "close", _PAIRS[closer.group(1)]
        elif rest:
            end = value_end(rest)
            if end and rest[end:].strip(" \t") in ("", ","):
                self.does = "value"


def value_end(text: str) -> int:
    """Where the value at the beginning of a text ends; 0 if it is not whole."""
    if text[0] in '"{[':
        return max(jsontext.end_of(text, 0), 0)
    match = _WORD.match(text)
    return match.end() if match is not None else 0


def find(text: str) -> Optional[Gap]:
    """The one gap of a text; None if it has none, has more, or isn't laid out in a way that tells."""
    lines = []
    at = 0
    for piece in text.split("\n"):
        if piece.strip(" \t\r"):
            lines.append(_Line(at, piece))
        at += len(piece) + 1
    if len(lines) < 3 or lines[0].text != "{" or lines[0].column or not lines[1].column:
        return None
    unit = lines[1].column
    n, open_ = _agreeing(lines, unit)
    if not 0 < n < len(lines) or not open_ or _is_one_bracket(lines, n, unit):
        return None
    for first in (n, n + 1) if lines[n].does else (n + 1,):
        kinds = _open_at(lines[first:])
        if not kinds or (first == n and kinds == open_):
            continue
        line = lines[first]
        if line.does != "close" and line.keyed != (kinds[-1] == "{"):
            continue
        if first == n or line.column == (len(kinds) - (line.does == "close")) * unit:
            is_joined = first > n
            if is_joined and lines[n].column == len(open_) * unit:
                end = _end(lines[n], True, open_[-1])
            else:
                end = lines[n].at if is_joined else _end(lines[n - 1], False, open_[-1])
            rest = text[end : lines[first].at].strip().lstrip('"') if is_joined else ""
            return Gap(lines[n].at, end, lines[first].at, kinds, kinds == open_ and not lines[n].does, rest)
    return None


def _agreeing(lines: list[_Line], unit: int) -> tuple[int, str]:
    """So many lines agree with the brackets before them; and the brackets that are open there."""
    open_ = ""
    for n, line in enumerate(lines):
        depth = len(open_) - (line.does == "close")
        fits = line.does and line.column == depth * unit
        if n and (not open_ or (line.does == "close" and open_[-1] != line.bracket)):
            fits = False
        if n and open_ and line.does != "close" and line.keyed != (open_[-1] == "{"):
            fits = False
        if not fits:
            return n, open_
        if line.does == "open":
            open_ += line.bracket
        elif line.does == "close":
            open_ = open_[:-1]
    return len(lines), open_


def _is_one_bracket(lines: list[_Line], n: int, unit: int) -> bool:
    """Whether one bracket that fell over explains all that is wrong from a line on."""
    for at in (n, n - 1):
        line = lines[at]
        held = line.does, line.bracket
        if at == n and not line.does and _FELL.match(line.text):
            others = [("open", "{"), ("open", "["), ("close", "{"), ("close", "[")]
        elif line.does in ("open", "close") and (at < n or line.does == "close"):
            others = [(line.does, "[" if line.bracket == "{" else "{")]
        else:
            continue
        for line.does, line.bracket in others:
            if _agreeing(lines, unit)[0] == len(lines):
                return True
        line.does, line.bracket = held
    return False


def _open_at(lines: list[_Line]) -> str:
    """The brackets that are open before the first of these lines, outermost first; "" if they don't fit together."""
    waiting = ""
    for line in reversed(lines):
        if not line.does:
            return ""
        if line.does == "close":
            waiting += line.bracket
        elif line.does == "open":
            if not waiting or waiting[-1] != line.bracket:
                return ""
            waiting = waiting[:-1]
    return waiting


def _end(line: _Line, joined: bool, holder: str) -> int:
    """Where what can be believed before a gap ends, whose last line this is; `joined`: the first one behind, too.

    Else the gap may be inside of a line, between the two halves of a text that look like one: a text with blanks in it
    counts as cut there.
    """
    if not joined and line.does != "value":
        return line.at + line.column + len(line.text)
    if joined and line.keyed != (holder == "{"):
        return line.at
    match = _KEY.match(line.text)
    start = match.end() if match is not None else 0
    rest = line.text[start:]
    end = value_end(rest) if rest else 0
    at = line.at + line.column + start
    if end and (rest[end : end + 1] == "," or (not joined and not rest[end:])):
        is_mixed = rest[0] == '"' and " " in rest[:end] and not joined
        return at + (end - 1 if is_mixed else end + (rest[end : end + 1] == ","))
    if rest[:1] == '"':
        if end:
            return at + end - 1
        return line.at + line.column + len(line.text)
    return at if match is not None else line.at
