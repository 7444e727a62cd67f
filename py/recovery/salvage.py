"""Reading JSON that is damaged: every whole value in it, every whole member of what was cut, and what is wrong where.

Pure.  `read` takes the bytes of a file and never refuses: it gives the documents that stand in it as trees (`Item`)
whose text is JSON again, and the flaws it met on the way.  What is whole keeps its very bytes, order and spacing.
What can't be read whole is never completed by a guess: a string that was cut stays beside (`partial`), out of the
member's place; numbers and words that touch the end of a cut file are not believed.

Text is latin-1 text, as everywhere (`recovery.jsontext`): one character a byte of UTF-8.
"""

from __future__ import annotations

import bisect
import re

from recovery import gap, jsontext
from recovery.jsontext import BadJSON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional, Sequence

#: Containers nested deeper than this are not read into, once they are damaged: they are left out as a whole.
DEEPEST = 150
#: The depth of a task's members: document, list, task, member.
_OF_TASK = 3

_KEY = re.compile(r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"[ \t\r\n]*:')
_NEAR_KEY = re.compile(r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"[ \t]*[^\s"{}\[\],:][ \t]*(?=["{\[0-9tfn-])')
_ELEMENT = re.compile(r'"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"[ \t\r\n]*[,\]]')
_KEY_OR_CLOSER = re.compile(_KEY.pattern + r"|[}\]]")
_STRING_OVER_LINES = re.compile(r'"(?:[^"\\\x00]|\\[^\x00-\x1f])*"')
_WORD = re.compile(r"[A-Za-z0-9_.+\-]+")
_BLANK = re.compile(r"[ \t\r\n]*")
_JUNK_AT_TOP = re.compile(r"[^{\[]*")
_NAMED = re.compile(r'\{[ \t\r\n]*"task_id"[ \t\r\n]*:')
#: Flaws that may have led a reader astray.
_MISLEADING = frozenset(["unreadable", "bracket", "junk", "comma"])
_OPENING = re.compile(r"[{\[]")
_FALLEN = re.compile(r"[^\x80-\xff\n]|[\x80-\xff]+")
_UNQUOTED = re.compile(r'[^,}\]\n"]*')
_LITERALS = ("true", "false", "null")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_MARKER = re.compile(r"^(<{7}|={7}|>{7}|\|{7})(?: [^\n]*)?\r?$", re.MULTILINE)
#: What a text with comments and single quotes is made of, as far as it matters.
_TOKENS = re.compile(
    r""""(?:[^"\\]|\\.)*(?:"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*|\b(?:True|False|None)\b""",
    re.DOTALL,
)
_QUOTES = re.compile(r"\\'|(?<!\\)\"")
_LAST_COMMA = re.compile(r",(?=[ \t\r\n]*[}\]])")
_CONTROL = re.compile(r"[\x00-\x1f]")
#: What other programs write for values, where it can mean one thing only.
_FOREIGN = {"True": "true", "False": "false", "None": "null", "undefined": "null"}


class Flaw:
    """One thing that is wrong: its `kind` (see `recovery.damage`), where (an offset in the text), and words for it."""

    __slots__ = ("at", "kind", "words")

    def __init__(self, kind: str, at: int, words: str) -> None:
        self.kind, self.at, self.words = kind, at, words


class Part:
    """One item of a container: the white space before it, its key with quotes and colon ("" in a list), and itself."""

    __slots__ = ("head", "item", "key", "lead")

    def __init__(self, lead: str, key: str, head: str, item: Item) -> None:
        self.lead, self.key, self.head, self.item = lead, key, head, item


class Item:
    """A value that was read: `kind` is "{", "[" or "" (anything else), `at` where it began.

    whole    nothing of it is missing (it may have been written wrongly)
    lossy    something of its own is missing; `is_lossy` asks for what is below it too
    partial  beginnings of strings that were cut, by their keys
    doubles  earlier values of keys that stand more than once
    stray    it stood inside of another document, and has lost its name
    """

    __slots__ = ("at", "close", "doubles", "kind", "lossy", "partial", "parts", "raw", "stray")

    def __init__(self, kind: str, at: int, raw: str = "") -> None:
        self.kind, self.at, self.raw = kind, at, raw
        self.parts: Optional[list[Part]] = None
        self.close = ""
        self.lossy = self.stray = False
        self.partial: dict[str, str] = {}
        self.doubles: list[tuple[str, Item]] = []

    @classmethod
    def of(cls, text: str, at: int = 0) -> Item:
        """A whole value from its JSON text."""
        return cls(text[0] if text[0] in "{[" else "", at, text)

    def text(self) -> str:
        """Its JSON."""
        if self.parts is None:
            return self.raw
        inner = ",".join(part.lead + part.head + part.item.text() for part in self.parts)
        return self.kind + inner + self.close + ("}" if self.kind == "{" else "]")

    def value(self) -> Any:
        """As plain values; numbers as they stand."""
        return jsontext.value_at(jsontext.from_latin(self.text()), 0)[0]

    def expand(self) -> list[Part]:
        """Its items, of a container."""
        if self.parts is None:
            raw, node = self.raw, jsontext.node_at(self.raw, 0)
            self.parts, behind = [], 1
            for key, start, value_start, end in node.items:
                lead = raw[behind:start].replace(",", "", 1) if self.parts else raw[behind:start]
                self.parts.append(
                    Part(lead, key, raw[start:value_start], Item.of(raw[value_start:end], self.at + start))
                )
                behind = end
            self.close = raw[behind:-1]
        return self.parts

    def get(self, key: str) -> Optional[Item]:
        """A member, None if there is none."""
        if self.kind == "{":
            for part in self.expand():
                if part.key == key:
                    return part.item
        return None

    def word(self, key: str) -> str:
        """A member that is a string, "" if it is none."""
        item = self.get(key)
        value = item.value() if item is not None and not item.kind else None
        return value if type(value) is str else ""

    def put(self, key: str, item: Item) -> None:
        """Set a member, behind the others if it is new, written as they are."""
        parts = self.expand()
        for part in parts:
            if part.key == key:
                part.item = item
                return
        colon = ": "
        if parts:
            head = parts[-1].head
            colon = head[head.rindex('"') + 1 :] if head.endswith((":", " ")) else colon
        parts.append(Part(self._lead(), key, jsontext.to_latin(jsontext.quote(key)) + colon, item))

    def add(self, item: Item) -> None:
        """One element more, at the end of a list."""
        self.expand().append(Part(self._lead(), "", "", item))

    def drop(self, key: str) -> Optional[Item]:
        """Take a member out; what it was."""
        parts = self.expand()
        for n, part in enumerate(parts):
            if part.key == key:
                del parts[n]
                if not n and parts:
                    parts[0].lead = part.lead
                return part.item
        return None

    def _lead(self) -> str:
        parts = self.expand()
        return (parts[-1].lead or " ") if parts else ""

    def is_lossy(self) -> bool:
        """Whether anything of it, or of what it holds, is missing."""
        return self.lossy or (bool(self.parts) and any(part.item.is_lossy() for part in self.parts or ()))


class Reading:
    """What `read` found: the text that offsets count in, the documents, the other sides of a merge, and the flaws.

    `sides` are the documents as the other side of a conflict has them, [] without conflict markers.  `junk` is text
    outside of all documents that could not be read.  `between` names what stands before and behind a missing piece.
    """

    __slots__ = ("_lines", "between", "documents", "flaws", "junk", "sides", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.documents: list[Item] = []
        self.sides: list[Item] = []
        self.flaws: list[Flaw] = []
        self.junk: list[str] = []
        self.between: Optional[tuple[str, str]] = None
        self._lines: list[int] = []  # where each begins

    def place(self, at: int) -> tuple[int, int]:
        """Line and column, from 1, of an offset."""
        if not self._lines:
            self._lines = [0, *(match.end() for match in re.finditer("\n", self.text))]
        at = min(at, len(self.text))
        line = bisect.bisect_right(self._lines, at)
        before = self.text[self._lines[line - 1] : at]
        if not before.isascii():
            before = before.encode("latin-1").decode("utf-8", "replace")
        return line, len(before) + 1


def read(data: bytes) -> Reading:
    """Read the bytes of a file, whatever they are."""
    text, flaws = _decoded(data)
    text = _as_json(text, flaws)
    reading = Reading(text)
    reading.flaws = flaws
    if not text.strip(" \t\r\n\0"):
        if "\0" in text:
            reading.flaws.append(
                Flaw("nul", text.index("\0"), f"holds {text.count(chr(0))} NUL bytes and nothing else")
            )
        else:
            reading.flaws.append(Flaw("empty", 0, "is empty" if not text else "holds only white space"))
        return reading
    ours, theirs = _sides(text, reading.flaws)
    missing = gap.find(ours) if theirs is None else None
    if missing is not None and _read_across(reading, missing):
        return reading
    _Reader(ours, reading.flaws, reading.junk).documents(reading.documents)
    if theirs is not None:
        _Reader(theirs, [], []).documents(reading.sides)
    reading.flaws.sort(key=lambda flaw: flaw.at)
    return reading


# --- a piece that is missing from the middle

#: The name that a container gets which lost its own, while the text behind a gap is read.
_NAMELESS = "\0"


def _read_across(reading: Reading, missing: gap.Gap) -> bool:
    """Read what stands before a gap as a text that was cut, and what follows by the brackets that it closes.

    Objects of a list, and members of the document, go on where they were; pieces of what stood around the gap are
    strays.  False: what follows it is not whole.
    """
    text = reading.text
    before: list[Item] = []
    _Reader(text[: missing.end], [], reading.junk).documents(before)
    names = ["", *(jsontext.quote(_NAMELESS) + ": " if kind == "{" else "" for kind in missing.kinds[:-1])]
    opening = "".join(map(str.__add__, names, missing.kinds))
    tail = opening + text[missing.start :].rstrip(" \t\r\n\0")
    if (
        len(before) != 1
        or before[0].kind != "{"
        or (missing.even and missing.rest[:1] not in ("}", "]") and len(missing.kinds) < 3)
        or jsontext.end_of(tail, 0) != len(tail)
    ):
        return False
    top, behind = before[0], Item.of(tail, missing.start - len(opening))
    places = top.expand()
    last = places[-1] if places else None
    strays: list[Item] = []
    ours = last.item.expand()[::-1] if last is not None and last.item.kind and last.item.lossy else []
    around = _named_first(ours) or _named_first(places[::-1])
    there = {part.key for part in [*places, *behind.expand()]}
    lost = behind.get(_NAMELESS)
    follows = _named_first(lost.expand() if lost is not None else []) or _named_first(behind.expand())
    if lost is not None:
        goes_on = last is not None and last.item.kind == lost.kind and last.item.lossy
        if goes_on and last is not None and last.key == "tasks" and "history" not in there:
            goes_on = lost.kind == "{"  # the list behind the gap may be the one or the other
        elif goes_on and last is not None:
            goes_on = last.key == "tasks" or (last.key == "history" and "tasks" in there)
        for part in list(lost.expand()):
            piece = part.item
            if part is lost.expand()[0] and len(missing.kinds) > 2:
                strays += _pieces(piece, missing.kinds[3:])
                if missing.even and goes_on and missing.rest[:1] not in ("}", "]") and not _is_twice(last, piece):
                    return False
            elif goes_on and last is not None and piece.kind == "{":
                last.item.expand().append(part)
            else:
                piece.stray = True
                strays.append(piece if piece.kind or not part.key else _alone(part))
        if goes_on and last is not None:
            last.item.close = lost.close or last.item.close
    for part in behind.expand():
        if part.key != _NAMELESS:
            if top.get(part.key) is None:
                places.append(part)
            else:
                strays.append(_alone(part))
    top.close = behind.close
    reading.documents = [top, *strays]
    reading.junk += [missing.rest] if missing.rest else []
    reading.flaws.append(Flaw("gap", missing.at, "a piece is missing here"))
    reading.between = (around, follows)
    return True


def _is_twice(last: Optional[Part], piece: Item) -> bool:
    """Whether a piece can't belong to the last object of a list: they have members of the same name."""
    held = last.item.expand()[-1].item if last is not None and last.item.expand() else None
    ours = {part.key for part in held.expand()} if held is not None and held.kind == "{" else set()
    return piece.kind == "{" and any(part.key in ours for part in piece.expand() if part.key != _NAMELESS)


def _alone(part: Part) -> Item:
    """A member whose object is gone, in an object of its own."""
    item = Item("{", part.item.at)
    item.parts = [Part("", part.key, part.head, part.item)]
    item.stray = True
    return item


def _pieces(rest: Item, deeper: str) -> Iterator[Item]:
    """What is left of a container whose beginning is lost, and of those in it that lost theirs, innermost first."""
    parts = rest.expand()
    if deeper:
        yield from _pieces(parts[0].item, deeper[1:])
        parts = parts[1:]
    if parts:
        item = Item(rest.kind, parts[0].item.at)
        parts[0].lead = parts[-1].lead if len(parts) > 1 else "\n" + parts[0].lead
        item.parts, item.close = list(parts), rest.close
        item.stray = item.lossy = True
        yield item


def _named_first(parts: Sequence[Part]) -> str:
    """The id of the first of these that has one, else the name of the first that has one."""
    ids = [part.item.word("task_id") for part in parts if part.item.kind == "{"]
    names = [part.key for part in parts if part.key not in ("", _NAMELESS)]
    return next(iter([*filter(None, ids), *names]), "")


# --- bytes


def _decoded(data: bytes) -> tuple[str, list[Flaw]]:
    flaws = []
    if data[:3] == b"\xef\xbb\xbf":
        flaws.append(Flaw("bom", 0, "begins with a byte order mark"))
        data = data[3:]
    if _is_utf16(data):
        little = data[:2] == b"\xff\xfe" or (data[:2] != b"\xfe\xff" and data[1:2] == b"\0")
        words = data.decode("utf-16-le" if little else "utf-16-be", "replace").lstrip("\ufeff")
        flaws.append(Flaw("utf-16", 0, "is UTF-16, not UTF-8"))
        return words.encode("utf-8", "replace").decode("latin-1"), flaws
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.end == len(data) and error.reason == "unexpected end of data"
        data = (data[: error.start] if cut else data).decode("utf-8", "replace").encode("utf-8")
        if not cut:  # a character that the end of the file has cut is told with what it belonged to
            flaws.append(Flaw("not-utf-8", error.start, "holds bytes that are not UTF-8"))
    return data.decode("latin-1"), flaws


def _as_json(text: str, flaws: list[Flaw]) -> str:
    """A text with comments or single quotes as JSON, where nothing but them keeps it from being JSON; else as it is."""
    first = -1

    def meant(match: re.Match[str]) -> str:
        nonlocal first
        token = match.group()
        if token[0] == '"':
            return token
        first = match.start() if first < 0 else first
        if token[0] == "/":
            return _blank(token)
        if token[0] != "'":
            return _FOREIGN[token]
        return (
            '"'
            + _QUOTES.sub(lambda one: one.group().lstrip("\\") if one.group()[-1] == "'" else '\\"', token[1:-1])
            + '"'
        )

    new = _TOKENS.sub(meant, text)
    start = _end(_BLANK, new, 0)
    if first < 0 or new[start : start + 1] not in ("{", "["):
        return text
    plain = _LAST_COMMA.sub("", new)
    end = jsontext.end_of(plain, start)
    if end <= 0 or plain[end:].strip(" \t\r\n"):
        return text
    flaws.append(
        Flaw("not-json", first, "comments, single quotes or Python's words are not JSON; it is clear what is meant")
    )
    return new


def _is_utf16(data: bytes) -> bool:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    head = data[:64]
    return (
        len(head) >= 4
        and (head[0::2].count(0) == 0) != (head[1::2].count(0) == 0)
        and head.count(0) * 2 >= len(head) - 1
    )


def _sides(text: str, flaws: list[Flaw]) -> tuple[str, Optional[str]]:
    """A text with conflict markers as one side has it and as the other, with the same offsets; None: it has none.

    What belongs to the other side, and the markers, are blanks.
    """
    marks = [(m.start(), m.end(), m.group(1)[0]) for m in _MARKER.finditer(text)] if _MARKER.search(text) else []
    ours: list[str] = []
    theirs: list[str] = []
    at, state, begun = 0, "both", 0
    for start, end, mark in marks:
        expected = {"both": "<", "ours": "|=", "base": "=", "theirs": ">"}[state]
        if mark not in expected:
            continue
        piece = text[at:start]
        ours.append(piece if state in ("both", "ours") else _blank(piece))
        theirs.append(piece if state in ("both", "theirs") else _blank(piece))
        if mark == "<":
            begun = start
        blank = _blank(text[start:end])
        ours.append(blank)
        theirs.append(blank)
        if mark == ">":
            flaws.append(Flaw("conflict", begun, "a merge left its markers here: both sides stand in the file"))
        state, at = {"<": "ours", "|": "base", "=": "theirs", ">": "both"}[mark], end
    if not any(flaw.kind == "conflict" for flaw in flaws) or state != "both":
        return text, None
    return "".join([*ours, text[at:]]), "".join([*theirs, text[at:]])


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


# --- documents


class _Reader:
    """Reads one text; `flaws` and `junk` get what it meets."""

    def __init__(self, text: str, flaws: list[Flaw], junk: list[str]) -> None:
        self.text, self.flaws, self.junk = text, flaws, junk
        self.end, self.begun = len(text), 0
        self.barren = 0  # before this, no stray was found where one was looked for
        self.strays: list[Item] = []  # whole objects that lost the name they stood under

    def documents(self, found: list[Item]) -> None:
        """All documents of the text, in their order; objects in what is left of one are documents too."""
        i, whole_before = 0, False
        while True:
            i = self._blank_or_nul(i)
            self.end = len(self.text)
            if i >= self.end:
                if any(item.is_lossy() for item in found) or any(flaw.kind in _MISLEADING for flaw in self.flaws):
                    self._rescue(found)
                found += self.strays
                return
            if (self.text[i] not in '{["' and not found) or self.text[i] not in "{[":
                i = self._top_junk(i, found)
                continue
            if found:
                words = "another document begins here" if whole_before else "what follows can't be read as one document"
                self._flaw("glued", i, words)
            self.end, self.begun = self._limit(i), i
            item, i = self._value(i, 0)
            if item is not None:
                found.append(item)
                whole_before = not item.lossy

    def _rescue(self, found: list[Item]) -> None:
        """Whole tasks and reports that the damage made parts of another one, or hid: each is a stray of its own."""
        for item in found:
            for part in item.parts or ():
                if part.item.kind == "[" and part.item.parts is not None:
                    for element in part.item.parts:
                        self._pull_out(element.item)
                else:
                    self._pull_out(part.item)
        covered = sorted(span for item in [*found, *self.strays] for span in _spans(item))
        n = 0
        for match in _NAMED.finditer(self.text):
            start = match.start()
            while n < len(covered) and covered[n][1] <= start:
                n += 1
            if n < len(covered) and covered[n][0] <= start:
                continue
            end = jsontext.end_of(self.text, start)
            if end <= 0:
                continue
            self._keep_apart(Item("{", start, self.text[start:end]))
            covered.insert(n, (start, end))

    def _pull_out(self, item: Item) -> None:
        for part in list(item.parts or ()):
            if part.item.parts is not None:
                self._pull_out(part.item)
            elif _NAMED.match(part.item.raw) or (part.key in ("tasks", "history") and part.item.kind == "["):
                assert item.parts is not None
                item.parts.remove(part)
                self._keep_apart(part.item)

    def _keep_apart(self, item: Item) -> None:
        item.stray = True
        self.strays.append(item)

    def _top_junk(self, i: int, found: list[Item]) -> int:
        """Pass over text outside of a document; a value that is no container is a document where it stands alone."""
        text = self.text
        if not found:
            try:
                end = jsontext.value_at(text, i)[1]
                if not text[end:].strip(" \t\r\n\0"):
                    found.append(Item.of(text[i:end], i))
                    return end
            except BadJSON:
                pass
        end = _end(_JUNK_AT_TOP, text, i)
        if text[i:end].strip(" \t\r\n\0,]}"):
            self._flaw("junk", i, "text stands here that belongs to no document")
            self.junk.append(text[i:end].strip(" \t\r\n\0"))
        elif text[i:end].strip(" \t\r\n\0"):
            self._flaw("junk", i, "a bracket or comma too many stands here")
        return end

    def _limit(self, start: int) -> int:
        """Where a damaged document must end, because another begins at a line's beginning; else the text's end."""
        text = self.text
        if jsontext.end_of(text, start) > 0:
            return len(text)
        line = text.find("\n", start)
        if text[start] != "{" or (start and text[start - 1] != "\n") or line < 0:
            return len(text)
        if text[line + 1 : line + 2] == "{":  # it was one line
            return line + 1
        other = text.find("\n{", line) if text[line + 1 : line + 2] in (" ", "\t") else -1
        return other + 1 if other >= 0 else len(text)

    # --- values

    def _value(self, i: int, depth: int) -> tuple[Optional[Item], int]:
        """The value at `i` and the offset behind it; None for one that can't be read (it is told)."""
        text = self.text
        c = text[i : i + 1]
        if c in ("{", "[") or c == '"':
            end = jsontext.end_of(text, i)
            if 0 < end <= self.end:
                return Item(c if c != '"' else "", i, text[i:end]), end
            if end < 0 and depth >= _OF_TASK:
                return self._too_deep(i)
            if c == '"':
                return self._string(i)
            if depth > DEEPEST:
                return self._too_deep(i)
            return self._object(i, depth) if c == "{" else self._list(i, depth)
        return self._atom(i)

    def _atom(self, i: int) -> tuple[Optional[Item], int]:
        text = self.text
        match = _WORD.match(text, i, self.end)
        if match is None:
            return None, i
        word, end = match.group(), match.end()
        if word in _FOREIGN:
            self._flaw("not-json", i, f"{word} is not JSON; {_FOREIGN[word]} is meant")
            return Item("", i, _FOREIGN[word]), end
        if word.lstrip("+-") in ("NaN", "Infinity", "inf", "nan"):
            self._flaw("nan", i, f"{word} is not JSON; it is kept as the text {jsontext.quote(word)}")
            return Item("", i, jsontext.quote(word)), end
        try:
            whole = jsontext.value_at(text, i)[1] == end
        except BadJSON:
            whole = False
        if whole and (end < self.end or (end == len(text) and word in ("true", "false", "null"))):
            return Item("", i, word), end
        if end < self.end or not whole:
            self._flaw("unreadable" if end < self.end else "cut", i, "a value can't be read here")
        return None, end

    def _string(self, i: int) -> tuple[Optional[Item], int]:
        """A string that isn't whole: one over several lines is written as JSON; else None, and the line's end."""
        text = self.text
        match = _STRING_OVER_LINES.match(text, i, self.end)
        if match is not None:
            behind = self._skip(match.end())
            if (behind >= self.end and self.end == len(text)) or text[behind : behind + 1] in (",", "}", "]"):
                escaped = _CONTROL.sub(lambda c: jsontext.quote(c.group())[1:-1], match.group())
                try:
                    jsontext.value_at(escaped, 0)
                except BadJSON:
                    return None, match.end()
                else:
                    self._flaw("control", i, "a string holds line ends or other control characters as they are")
                    return Item("", i, escaped), match.end()
        return None, self._string_end(i)

    def _string_end(self, i: int) -> int:
        """Where a broken string's text ends: at the first control character, or at the end of the text."""
        match = _CONTROL.search(self.text, i + 1, self.end)
        return match.start() if match is not None else self.end

    def _too_deep(self, i: int) -> tuple[Optional[Item], int]:
        self._flaw("too-deep", i, "is nested too deeply to be read; it is left out")
        depth = 0
        for match in _BRACKETS.finditer(self.text, i, self.end):
            c = match.group()
            depth += 1 if c in "[{" else -1 if c in "]}" else 0
            if not depth:
                return None, match.end()
        return None, self.end

    # --- containers

    def _object(self, i: int, depth: int, implied: bool = False) -> tuple[Item, int]:
        """An object that isn't whole; `implied`: its opening bracket is missing, its first key stands at `i`."""
        text = self.text
        item = Item("{", i)
        parts: list[Part] = []
        item.parts = parts
        i += not implied
        gap, comma, column = i, -1, -1
        while True:
            i, comma = self._to_next(parts, i, comma)
            if i >= self.end:
                return self._cut(item, i, "an object")
            c = text[i]
            if c == "}":
                return self._closed(item, gap, comma, i)
            match = _KEY.match(text, i, self.end) or _NEAR_KEY.match(text, i, self.end)
            is_element = c in "{[" or (c == '"' and _ELEMENT.match(text, i, self.end))
            if is_element and match is None and not parts and not implied and not text[item.at + 1 : i].strip():
                self._flaw("bracket", item.at, "the bracket [ fell over")
                return self._list(item.at, depth)
            here = self._column(i)
            if match is not None and not (0 <= here < column):
                if column < 0:
                    column = here
                if parts and comma < 0:
                    self._flaw("comma", i, "a comma is missing before this")
                if not match.group().endswith(":"):
                    self._flaw("unreadable", i, "the colon behind this name can't be read")
                i = self._member(item, i, match.end(), _space(text[gap:i]), depth)
                gap, comma = i, -1
                continue
            if match is not None or c == "{" or (c == "]" and not 0 <= column <= here):
                self._flaw("bracket", i, "a closing bracket } is missing before this")
                self._shut(item)
                return item, i
            i = self._junk(item, i)
            gap = max(gap, min(i, self.end))

    def _member(self, item: Item, start: int, i: int, lead: str, depth: int) -> int:
        text = self.text
        key, quoted_end = jsontext.string_at(text, start)
        head = text[start:quoted_end] + ":" + (" " if text[i : i + 1] in (" ", "\n") else "")
        if text[i - 1] == ":":
            space = self._skip(i)
            head = text[start:i] + (text[i:space] if space < self.end else "")
            i = space
        else:
            i = self._skip(i)
        if i >= self.end:
            self._flaw("cut", start, f"the value of {_named(key)} is cut off")
            item.lossy = True
            return i
        value, end = self._value(i, depth + 1)
        if value is None and end == i:
            behind = self._skip(_end(_FALLEN, text, i, self.end))
            if behind < self.end and (text[behind] in '"{[-0123456789' or text.startswith(_LITERALS, behind)):
                self._flaw("unreadable", i, "a character before a value can't be read")
                i = behind
                value, end = self._value(i, depth + 1)
        if value is not None and text[i] == '"' and not self._ends_well(end):
            value = None
        if value is None:
            item.lossy = True
            if text[i] == '"':
                end = max(end, i + 1)
                item.partial[key] = _readable(text[i + 1 : end])
                if not text[end : self.end].strip(" \t\r\n\0"):
                    end = self._blank_or_nul(end)
                what = "cut off" if end >= self.end else "broken"
                self._flaw("cut" if end >= self.end else "unreadable", i, f"the text of {_named(key)} is {what}")
                return end
            if end < self.end or end == i:
                self._flaw("unreadable", i, f"the value of {_named(key)} can't be read")
                return end if end > i else max(i + 1, _end(_UNQUOTED, text, i, self.end))
            self._flaw("cut", i, f"the value of {_named(key)} is cut off")
            return end
        for n, part in enumerate(item.parts or ()):
            if part.key == key:
                same = _same(part.item, value)
                words = "the same value" if same else "another value"
                self._flaw("duplicate-key", start, f"{_named(key)} stands here a second time, with {words}")
                if not same:
                    item.doubles.append((key, part.item))
                assert item.parts is not None
                del item.parts[n]
                break
        assert item.parts is not None
        item.parts.append(Part(lead, key, head, value))
        if value.partial and value.kind == "[":
            item.partial.setdefault(key, next(iter(value.partial.values())))
        return end

    def _ends_well(self, end: int) -> bool:
        """Whether what follows a string is what may follow one: else its end, and so its text, is not believed."""
        text = self.text
        i = self._skip(end)
        if i >= self.end or text[i] in ",}]\0" or "\n" in text[end:i] or _KEY.match(text, i, self.end):
            return True
        after = self._skip(i + 1)  # one character that fell over, where a comma belongs
        return after >= self.end or "\n" in text[i + 1 : after] or text[after] in "}]" or bool(_KEY.match(text, after))

    def _list(self, i: int, depth: int) -> tuple[Item, int]:
        text = self.text
        item = Item("[", i)
        parts: list[Part] = []
        item.parts = parts
        i += 1
        gap, comma = i, -1
        while True:
            i, comma = self._to_next(parts, i, comma)
            if i >= self.end:
                return self._cut(item, i, "a list")
            c = text[i]
            if c == "]":
                return self._closed(item, gap, comma, i)
            if c == "}":
                self._flaw("bracket", i, "a closing bracket ] is missing before this")
                self._shut(item)
                return item, i
            match = _KEY.match(text, i, self.end)
            value: Optional[Item]
            if match is not None:
                key = jsontext.string_at(text, i)[0]
                if not parts and not text[item.at + 1 : i].strip() and self._is_alone(item.at):
                    self._flaw("bracket", item.at, "the bracket { fell over")
                    return self._object(i, depth, implied=True)
                if key not in ("task_id", *_first_keys(parts)):
                    self._flaw("bracket", i, "a closing bracket ] is missing before this")
                    self._shut(item)
                    return item, i
                self._flaw("bracket", i, "an opening bracket { is missing before this")
                lead = _space(text[gap:i])
                value, i = self._object(i, depth + 1, implied=True)
            else:
                if parts and comma < 0 and c in '{["':
                    self._flaw("comma", i, "a comma is missing before this")
                lead, start = _space(text[gap:i]), i
                value, i = self._value(i, depth + 1)
                if value is not None and c == '"' and not self._ends_well(i):
                    value = None
                if value is None:
                    item.lossy = True
                    if c == '"':
                        item.partial["0"] = _readable(text[start + 1 : i])
                        self._flaw("cut" if i >= self.end else "unreadable", start, "a text in a list is cut off")
                    if i == start:
                        i = self._junk(item, i)
                    gap, comma = i, (comma if parts else -1)
                    continue
            parts.append(Part(lead, "", "", value))
            gap, comma = i, -1

    def _to_next(self, parts: Sequence[Part], i: int, comma: int) -> tuple[int, int]:
        """Where what comes next in a container stands, and the comma before it; `comma` is one that was met, or -1."""
        while True:
            i = self._blank_or_nul(i)
            if i >= self.end or self.text[i] != ",":
                return i, comma
            if comma >= 0 or not parts:
                self._flaw("comma", i, "a comma too many stands here")
            else:
                comma = i
            i += 1

    def _closed(self, item: Item, gap: int, comma: int, i: int) -> tuple[Item, int]:
        """A container whose closing bracket stands at `i`, and its last item ends at `gap`."""
        if comma >= 0:
            self._flaw("trailing-comma", comma, "a comma stands before the closing bracket")
        item.close = _space(self.text[gap:i])
        return item, i + 1

    def _is_alone(self, i: int) -> bool:
        """Whether a bracket stands where an element of a list does, and not behind a name."""
        return self._column(i) >= 0 or self.text[:i].rstrip(" \t\r\n")[-1:] in ("", ",", "[")

    def _cut(self, item: Item, i: int, what: str) -> tuple[Item, int]:
        if self.end < len(self.text):
            self._flaw("cut", max(self.end - 1, 0), f"{what} is cut off here: another document begins")
        else:
            self._flaw("cut", i, f"{what} is cut off: the file ends before its closing bracket")
        item.lossy = True
        self._shut(item)
        return item, i

    def _shut(self, item: Item) -> None:
        """Give a container without a closing bracket one, where it would stand."""
        lead = item.parts[0].lead if item.parts else ""
        if "\n" in lead:
            line = self.text.rfind("\n", 0, item.at) + 1
            item.close = "\n" + self.text[line : _end(_BLANK, self.text, line)]

    # --- what stands between

    def _junk(self, item: Item, i: int) -> int:
        """Pass over what can't be read inside a container, to where reading can go on."""
        item.lossy = True
        text = self.text
        if text[i] == '"' and self._string_end(i) >= self.end and text.find('"', i + 1, self.end) < 0:
            return self.end  # a name that was cut
        self._flaw("unreadable", i, "this can't be read")
        stop = text.find("\n", i, self.end)
        line_end = stop if stop >= 0 else self.end
        match = _KEY.search(text, i + 1, line_end)
        end = self._stray(i, match.start() if match is not None else line_end)
        if end:
            return end
        if match is not None:
            return match.start()
        if stop >= 0:
            rest = text[i:stop].rstrip(" \t\r,")
            return i + len(rest) - 1 if len(rest) > 1 and rest[-1] in "}]" and '"' not in rest else max(i + 1, stop)
        match = _KEY_OR_CLOSER.search(text, i + 1, self.end)
        return match.start() if match is not None else self.end

    def _stray(self, i: int, stop: int) -> int:
        """Whole objects, or a list of some, that stand in what can't be read: kept apart.  The offset behind, or 0."""
        for match in _OPENING.finditer(self.text, max(i, self.barren), stop):
            end = jsontext.end_of(self.text, match.start())
            piece = self.text[match.start() : end] if 0 < end <= self.end else ""
            if "{" in piece and '"' in piece:
                item = Item(match.group(), match.start(), piece)
                self._keep_apart(item)
                return end
        self.barren = max(self.barren, stop)
        return 0

    def _blank_or_nul(self, i: int) -> int:
        """Over white space, and over NULs, which are told once a run."""
        text = self.text
        while True:
            i = self._skip(i)
            if text[i : i + 1] != "\0" or i >= self.end:
                return i
            end = i
            while end < self.end and text[end] == "\0":
                end += 1
            if not self.flaws or self.flaws[-1].kind != "nul" or self.flaws[-1].at < i:
                self._flaw("nul", i, f"{end - i} NUL bytes stand here")
            i = end

    def _skip(self, i: int) -> int:
        return _end(_BLANK, self.text, i, self.end)

    def _column(self, i: int) -> int:
        """The column of what is the first on its line; -1 for what isn't."""
        line = self.text.rfind("\n", 0, i) + 1
        return i - line if line and not self.text[line:i].strip(" \t") else -1

    def _flaw(self, kind: str, at: int, words: str) -> None:
        if kind == "cut" and any(flaw.kind == "cut" and flaw.at >= self.begun for flaw in self.flaws):
            return  # what holds it is cut there too
        self.flaws.append(Flaw(kind, at, words))


def _spans(item: Item) -> Iterator[tuple[int, int]]:
    """Where the whole containers of a tree stand."""
    if item.parts is None:
        if item.kind:
            yield item.at, item.at + len(item.raw)
        return
    for part in item.parts:
        yield from _spans(part.item)


def _end(pattern: re.Pattern[str], text: str, i: int, end: Optional[int] = None) -> int:
    match = pattern.match(text, i, len(text) if end is None else end)
    return match.end() if match is not None else i


def _space(text: str) -> str:
    """What stood between two items, without anything but white space."""
    return text if not text.strip(" \t\r\n") else "".join(_white(text.replace(",", "")))


def _white(text: str) -> Iterator[str]:
    if not text.strip(" \t\r\n"):
        yield text
        return
    newline = text.rfind("\n")
    if newline >= 0:
        yield "\n"
        tail = text[newline + 1 :]
        yield tail[: len(tail) - len(tail.lstrip(" \t"))]


def _named(key: str) -> str:
    return jsontext.quote(key if len(key) <= 60 else key[:59] + "…")


def _readable(text: str) -> str:
    """The text of a string that was cut, as far as it goes (not latin-1)."""
    text = text.replace("\0", "")
    for cut in range(0, 7):  # an escape, or a character, that was cut goes
        piece = text[: len(text) - cut] if cut else text
        try:
            return jsontext.string_at(f'"{piece}"', 0)[0]
        except (BadJSON, UnicodeDecodeError):
            continue
    return text.encode("latin-1").decode("utf-8", "replace")


def _first_keys(parts: list[Part]) -> set[str]:
    found: set[str] = set()
    for part in parts[:1]:
        if part.item.kind == "{":
            found.update(member.key for member in part.item.expand()[:1])
    return found


def _same(a: Item, b: Item) -> bool:
    return jsontext.same(jsontext.from_latin(a.text()), jsontext.from_latin(b.text()))
