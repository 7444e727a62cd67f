"""JSON as text: find what an edit means, change only those bytes, leave every other byte alone.

A document is held as *latin-1 text*: each character is one byte of the file, so offsets are byte offsets and a
30 MB file costs 30 MB.  JSON's own characters are ASCII, so the interpreter's C scanner reads such text
unharmed; only strings that hold UTF-8 need a second look (`string_at`).  Numbers are never converted.

Edits are lists of small dicts, the same that the journal and the change log hold:

    {"op": "set", "path": [...], "before": TEXT|None, "after": TEXT|None}   TEXT is JSON; None means absent
    {"op": "add", "path": [...], "by": 1}                                   an integer member, relative

A path goes from the top: a string names an object's member, `["task_id", "TASK-1"]` the list element whose
`task_id` is TASK-1; further pairs narrow it down.  `"shared": true` marks a field that others may set too (a time
stamp): it is written, but it never makes a conflict.  `"blank"` keeps the white space of a container that was empty,
so that the inverse of an edit gives back the very bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Optional, Sequence

    Op = dict[str, Any]
    Splice = tuple[int, int, str]
    _Pairs = Callable[[list[tuple[str, Any]]], Any]


class Number(str):
    """A number as it stands in the text: no size, no precision, nothing to overflow."""

    __slots__ = ()


class BadJSON(ValueError):
    """Not the JSON that was expected: `reason`, and where (`line` and `column` from 1; 0 when unknown)."""

    def __init__(self, reason: str, text: str = "", index: int = 0) -> None:
        self.reason = reason
        self.line = text.count("\n", 0, index) + 1 if text else 0
        start = text.rfind("\n", 0, index) + 1
        self.column = len(text[start:index].encode("latin-1").decode("utf-8", "replace")) + 1 if text else 0
        super().__init__(f"{reason} (line {self.line}, column {self.column})" if text else reason)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {_quote(twice)} stands there twice")
    return found


_encoder: Any
_scan_once: Callable[[str, int], tuple[Any, int]]
_scan_members: Callable[[str, int], tuple[Any, int]]
_scan_plain: Callable[[str, int], tuple[Any, int]]
_scan_unique: Callable[[str, int], tuple[Any, int]]
_scan_unique_plain: Callable[[str, int], tuple[Any, int]]
_scanstring: Callable[[str, int], tuple[str, int]]
_quote: Callable[[str], str]
_quote_ascii: Callable[[str], str]
try:  # the C scanner by itself: `import json` would cost more than the rest of the command
    import _json

    class _Context:
        """The attributes that the C scanner looks for in a JSONDecoder."""

        strict = True
        object_hook = None
        parse_constant = staticmethod(_refuse_constant)

        def __init__(
            self, parse_int: Callable[[str], Any], parse_float: Callable[[str], Any], pairs: Optional[_Pairs] = None
        ) -> None:
            self.parse_int, self.parse_float, self.object_pairs_hook = parse_int, parse_float, pairs
            self.memo: dict[str, str] = {}

    _encoder = _json.make_encoder
    _scanner: Any = _json.make_scanner
    _scan_once = _scanner(_Context(Number, Number))
    _scan_plain = _scanner(_Context(int, float))
    _scan_members = _scanner(_Context(len, len, iter))
    _scan_unique = _scanner(_Context(Number, Number, _refuse_twice))
    _scan_unique_plain = _scanner(_Context(int, float, _refuse_twice))
    _scanstring = _json.scanstring
    _quote = _json.encode_basestring
    _quote_ascii = _json.encode_basestring_ascii
except (ImportError, AttributeError):  # another interpreter: the same through the documented module
    import json
    import json.encoder

    _encoder = None
    _decoder: Any = json.JSONDecoder
    _numbers: Any = {"parse_float": Number, "parse_int": Number}
    _rest: Any = {"parse_constant": _refuse_constant}
    _scan_once = _decoder(**_numbers, **_rest).scan_once
    _scan_plain = _decoder(**_rest).scan_once
    _scan_members = _decoder(**_rest, parse_int=len, parse_float=len, object_pairs_hook=iter).scan_once
    _scan_unique = _decoder(**_numbers, **_rest, object_pairs_hook=_refuse_twice).scan_once
    _scan_unique_plain = _decoder(**_rest, object_pairs_hook=_refuse_twice).scan_once
    _words: Any = json.decoder
    _scanstring = _words.scanstring
    _words = json.encoder
    _quote = _words.encode_basestring
    _quote_ascii = _words.encode_basestring_ascii


# --- reading


def decode(data: bytes) -> str:
    """The bytes of a file as latin-1 text; BadJSON if they aren't UTF-8."""
    if not data.isascii():
        if data[:3] == b"\xef\xbb\xbf":
            raise BadJSON("begins with a byte order mark")
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise BadJSON("is UTF-16, not UTF-8")
        from codecs import utf_8_decode

        done, view = 0, memoryview(data)
        while done < len(data):  # in pieces, so that a large file is never held decoded a second time
            piece = view[done : done + 262144]
            try:
                used = utf_8_decode(piece, "strict", done + len(piece) == len(data))[1]
            except UnicodeDecodeError as error:
                raise BadJSON("is not UTF-8", data.decode("latin-1"), done + error.start) from None
            if not used:
                raise BadJSON("is not UTF-8", data.decode("latin-1"), done)
            done += used
    return data.decode("latin-1")


def _told(scan: Callable[[str, int], tuple[Any, int]], text: str, start: int) -> tuple[Any, int]:
    try:
        return scan(text, start)
    except SystemError:  # CPython's scanner can only say what is wrong once json.decoder has been imported
        import json.decoder  # noqa: F401

        return scan(text, start)


def value_at(text: str, start: int, plain: bool = False, unique: bool = False) -> tuple[Any, int]:
    """The value that begins at `start` and the offset behind it; BadJSON.

    Numbers come as Number, or, with `plain`, as int and float.  With `unique` a key that stands twice in an object, at
    any depth, is refused; else the last counts.
    """
    if unique:
        scan = _scan_unique_plain if plain else _scan_unique
    else:
        scan = _scan_plain if plain else _scan_once
    try:
        return _told(scan, text, start)
    except StopIteration as error:
        raise BadJSON("a value is missing or cut off", text, min(int(error.value), len(text))) from None
    except RecursionError:
        raise BadJSON("is nested too deeply", text, start) from None
    except ValueError as error:
        reason = getattr(error, "msg", None) or str(error)
        if plain and reason.startswith("Exceeds the limit"):
            return _with_long_numbers(text, start, unique)
        raise BadJSON(reason, text, getattr(error, "pos", start)) from None


def _with_long_numbers(text: str, start: int, unique: bool) -> tuple[Any, int]:
    """As `value_at` with `plain`, for a text with an integer of so many digits that no int is made of it: a Number."""

    def plainly(value: Any) -> Any:
        if type(value) is Number:
            if not value.lstrip("-").isdigit():
                return float(value)
            return int(value) if len(value) <= 4300 else value
        if isinstance(value, dict):
            return {key: plainly(one) for key, one in value.items()}
        return [plainly(one) for one in value] if isinstance(value, list) else value

    value, end = value_at(text, start, unique=unique)
    try:
        return plainly(value), end
    except RecursionError:
        raise BadJSON("is nested too deeply", text, start) from None


#: So much of a text is tried first where many values in it may not be whole: an error is told by going through it all.
_NEAR = 1 << 16


def end_of(text: str, start: int) -> int:
    """Where the value that begins at `start` ends; 0 if it is not whole, or holds a key twice, -1 if it is too deep."""
    near = text[start : start + _NEAR]
    for piece in (near, text[start:] if len(text) - start > _NEAR else ""):
        if piece:
            try:
                return start + _told(_scan_unique, piece, 0)[1]
            except RecursionError:
                return -1
            except StopIteration as error:
                at = int(error.value)
            except ValueError as error:
                words = getattr(error, "msg", "")
                at = len(piece) if words.startswith("Unterminated") else getattr(error, "pos", 0)
            if at < len(piece) - 16:  # else it may be the piece that ends too early
                return 0
    return 0


def string_at(text: str, start: int) -> tuple[str, int]:
    """The string whose opening quote stands at `start`, decoded, and the offset behind it."""
    try:
        value, end = _told(_scanstring, text, start + 1)
        if not value.isascii():
            value = _scanstring(text[start:end].encode("latin-1").decode("utf-8"), 1)[0]
    except ValueError as error:
        raise BadJSON(getattr(error, "msg", "bad string"), text, getattr(error, "pos", start)) from None
    return value, end


def _skip(text: str, i: int) -> int:
    """Where the white space that begins at `i` ends."""
    try:
        while text[i] in " \n\t\r":
            i += 1
    except IndexError:
        pass
    return i


class Node:
    """An object or list in the text: where it begins and ends, and each item's span.

    `items` are `(key, start, value_start, end)`; in a list key is "" and start equals value_start.
    """

    __slots__ = ("end", "items", "kind", "start")

    def __init__(self, kind: str, start: int, end: int, items: list[tuple[str, int, int, int]]) -> None:
        self.kind, self.start, self.end, self.items = kind, start, end, items

    def span(self, key: str) -> Optional[tuple[int, int]]:
        """Where the value of member `key` stands, or None."""
        for name, _, start, end in self.items:
            if name == key and self.kind == "{":
                return start, end
        return None


def node_at(
    text: str,
    start: int,
    visit: Optional[Callable[[str, int, int, Any], None]] = None,
    members: Optional[dict[str, set[str]]] = None,
    unique: bool = False,
) -> Node:
    """The object or list at `start`, its items' spans; duplicate keys are refused, with `unique` at any depth.

    With `visit`, lists directly below are walked one element at a time, calling `visit(key, start, end, value)`:
    a list of any length is read without ever being held.  With `members`, objects directly below tell there what
    their members are called, by their own name; duplicate keys among those are refused.
    """
    kind = text[start : start + 1]
    if kind not in ("{", "["):
        raise BadJSON("an object was expected here", text, start)
    close = "}" if kind == "{" else "]"
    items: list[tuple[str, int, int, int]] = []
    names: set[str] = set()
    i = _skip(text, start + 1)
    if text[i : i + 1] == close:
        return Node(kind, start, i + 1, items)
    while True:
        key, begin = "", i
        if kind == "{":
            if text[i : i + 1] != '"':
                raise BadJSON("a member's name is missing or cut off", text, i)
            key, i = string_at(text, i)
            if key in names:
                raise BadJSON(f"the key {_quote(key)} stands here a second time", text, begin)
            names.add(key)
            i = _skip(text, i)
            if text[i : i + 1] != ":":
                raise BadJSON("a colon is missing", text, i)
            i = _skip(text, i + 1)
        value_start = i
        if visit is not None and text[i : i + 1] == "[":
            i = _walk(text, i, key, visit, unique)
        elif members is not None and text[i : i + 1] == "{":
            members[key], i = members_at(text, i)
        else:
            i = value_at(text, i, unique=unique)[1]
        items.append((key, begin, value_start, i))
        i = _skip(text, i)
        if text[i : i + 1] == close:
            return Node(kind, start, i + 1, items)
        if text[i : i + 1] != ",":
            raise BadJSON("a comma or the closing bracket is missing", text, i)
        i = _skip(text, i + 1)
        if text[i : i + 1] == close:
            raise BadJSON("a comma stands before the closing bracket", text, i)


def _walk(text: str, start: int, key: str, visit: Callable[[str, int, int, Any], None], unique: bool = False) -> int:
    i = _skip(text, start + 1)
    if text[i : i + 1] == "]":
        return i + 1
    while True:
        value, end = value_at(text, i, unique=unique)
        visit(key, i, end, value)
        i = _skip(text, end)
        if text[i : i + 1] == "]":
            return i + 1
        if text[i : i + 1] != ",":
            raise BadJSON("a comma or the closing bracket is missing", text, i)
        i = _skip(text, i + 1)
        if text[i : i + 1] == "]":
            raise BadJSON("a comma stands before the closing bracket", text, i)


def members_at(text: str, start: int) -> tuple[set[str], int]:
    """What the members of the object at `start` are called (in latin-1 text, maybe), and where it ends; as `node_at`.

    Of an object of thousands that is all that can be known at the speed of the interpreter's own scanner.
    """
    try:
        pairs, end = _told(_scan_members, text, start)
        names = [name for name, _ in pairs]
        found = set(names)
        # a name in UTF-8 may stand there by its numbers a second time
        if len(found) == len(names) and ("".join(names).isascii() or "\\u" not in text):
            return found, end
    except (StopIteration, RecursionError, ValueError):
        pass
    node = node_at(text, start)  # says where, or knows better
    return {item[0] for item in node.items}, node.end


def member_at(text: str, start: int, end: int, name: str) -> int:
    """Where the value of a member stands in the object between `start` and `end`, which has it; 0: walk there to know.

    A name of ASCII can be spelled in one way, unless some of it stands there by its number: if what looks like it is
    met once it is this object's.
    """
    said = quote(name)
    if said[1:-1] != name or not name.isascii() or "/" in name:
        return 0
    if text.find("\\u00", start, end) >= 0 and any(text.find("\\u00" + n, start, end) >= 0 for n in "234567"):
        return 0
    found = 0
    at = text.find(said, start, end)
    while at >= 0:
        colon = _skip(text, at + len(said))
        if text[colon] == ":":
            if found:
                return 0
            found = _skip(text, colon + 1)
        at = text.find(said, at + 1, end)
    return found


def document(
    text: str,
    visit: Optional[Callable[[str, int, int, Any], None]] = None,
    members: Optional[dict[str, set[str]]] = None,
    unique: bool = False,
) -> Node:
    """The whole text as one object; BadJSON for anything else, a second document behind it included.

    `visit`, `members`, `unique`: see `node_at`.
    """
    start = _skip(text, 0)
    if start == len(text):
        raise BadJSON("is empty" if not text else "holds only white space")
    if text[start] != "{":
        raise BadJSON("is not a JSON object", text, start)
    top = node_at(text, start, visit, members, unique)
    rest = _skip(text, top.end)
    if rest != len(text):
        more = text[rest] in '{["'
        raise BadJSON("another document follows the first" if more else "text follows the document", text, rest)
    return top


def find(text: str, path: Sequence[Any]) -> Optional[tuple[int, int]]:
    """Where the value at `path` stands, or None if it isn't there."""
    return Walked(text).find(path)


class Walked:
    """A document, and what of it has been walked: an edit of a file of a thousand tasks doesn't look for one twice.

    `top` is the whole of it, if that was read before.
    """

    __slots__ = ("_holders", "_nodes", "_spans", "text", "top")

    def __init__(self, text: str, top: Optional[Node] = None) -> None:
        self.text, self.top = text, top
        self._spans: dict[str, tuple[int, int]] = {}
        self._nodes: dict[int, Node] = {} if top is None else {top.start: top}
        self._holders: dict[str, Optional[_Holder]] = {}

    def met(self, path: Sequence[Any], span: tuple[int, int]) -> None:
        """Note where the value at `path` stands."""
        self._spans[_key_of(path)] = span

    def met_node(self, node: Node) -> None:
        """Note an object or list of the document."""
        self._nodes[node.start] = node

    def node(self, start: int) -> Node:
        """The object or list that begins there; BadJSON."""
        node = self._nodes.get(start)
        if node is None:
            node = self._nodes[start] = node_at(self.text, start)
        return node

    def whole(self) -> Node:
        """The document as one object; BadJSON."""
        if self.top is None:
            self.top = document(self.text)
            self._nodes[self.top.start] = self.top
        return self.top

    def find(self, path: Sequence[Any]) -> Optional[tuple[int, int]]:
        """Where the value at `path` stands, or None if it isn't there; BadJSON."""
        start = _skip(self.text, 0)
        span, done = (start, len(self.text)), 0
        for n in range(len(path), 0, -1) if self._spans else ():
            met = self._spans.get(_key_of(path[:n]))
            if met is not None:
                span, done = met, n
                break
        for step in path[done:]:
            if self.text[span[0] : span[0] + 1] not in ("{", "["):
                return None
            found = self.node(span[0]).span(step) if isinstance(step, str) else _element(self.text, span[0], step)
            if found is None:
                return None
            span = found
        return span

    def holder(self, path: Sequence[Any]) -> Optional[_Holder]:
        """What holds the item that `path` ends with; None if it isn't there, or can't hold anything."""
        key = _key_of(path[:-1])
        if key not in self._holders:
            span = self.find(path[:-1])
            holds = span is not None and self.text[span[0] : span[0] + 1] in ("{", "[")
            self._holders[key] = _Holder(self, span[0], path[-1]) if span is not None and holds else None
        return self._holders[key]


def _key_of(path: Sequence[Any]) -> str:
    return dumps(list(path))


def _selected(value: Any, step: Sequence[str]) -> bool:
    """Whether a list element is the one that a step like ["id", "T-1", "agent", "CC"] names."""
    if not isinstance(value, dict):
        return False
    for key, wanted in zip(step[0::2], step[1::2]):
        held = value.get(key)
        if type(held) is not str or held != wanted:  # a Number is a str too, and 123 is not "123"
            return False
    return True


def _element(text: str, start: int, step: Sequence[str]) -> Optional[tuple[int, int]]:
    found: list[tuple[int, int]] = []

    def look(_: str, begin: int, end: int, value: Any) -> None:
        if not found and _selected(value, step):
            found.append((begin, end))

    if text[start : start + 1] != "[":
        return None
    _walk(text, start, "", look)
    return found[0] if found else None


def loads(text: str, plain: bool = True, unique: bool = False) -> Any:
    """A whole small document from ordinary (not latin-1) text; numbers as int and float unless told otherwise.

    BadJSON.  Of a key that stands there twice the last counts; with `unique` that is BadJSON too.
    """
    value, end = value_at(text, _skip(text, 0), plain, unique)
    if _skip(text, end) != len(text):
        raise BadJSON("text follows the document", text, end)
    return value


# --- writing


def quote(value: str) -> str:
    """A JSON string: non-ASCII as is, lone surrogates (which UTF-8 cannot hold) escaped."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return _quote_ascii(value)
    return _quote(value)


def dumps(value: Any) -> str:
    """JSON text of plain values on one line."""
    if _encoder is None:
        return pretty(value, "")
    text = "".join(_encoder(None, None, _quote, None, ": ", ", ", False, False, False)(value, 0))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return pretty(value, "")
    return text


def pretty(value: Any, indent: str = "  ", lead: str = "") -> str:
    """JSON text over several lines, each further one beginning with `lead`; on one line without `indent`."""
    if isinstance(value, str):
        return str(value) if type(value) is Number else quote(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        parts = [quote(k) + ": " + pretty(v, indent, lead + indent) for k, v in value.items()]
        brackets = "{}"
    else:
        parts = [pretty(v, indent, lead + indent) for v in value]
        brackets = "[]"
    if not parts:
        return brackets
    if not indent:
        return brackets[0] + ", ".join(parts) + brackets[1]
    inner = "\n" + lead + indent
    return brackets[0] + inner + ("," + inner).join(parts) + "\n" + lead + brackets[1]


def to_latin(text: str) -> str:
    """Ordinary text as latin-1 text: one character a byte of its UTF-8."""
    return text if text.isascii() else text.encode("utf-8").decode("latin-1")


def from_latin(text: str) -> str:
    """The reverse of `to_latin`; bytes that aren't UTF-8 come as the lone surrogates of `surrogateescape`."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogateescape")


def layout(text: str, top: Node) -> str:
    """The unit of indentation of a document, "" if it is written on one line."""
    if not top.items:
        return "  "
    lead = text[top.start + 1 : top.items[0][1]]
    return lead[lead.rfind("\n") + 1 :] if "\n" in lead else ""


# --- edits


class _Holder:
    """An object or list that an edit's paths lead into: its items are found by step, however many are asked for."""

    __slots__ = ("_by", "node", "text")

    def __init__(self, walked: Walked, start: int, step: Any) -> None:
        text = self.text = walked.text
        #: of an object: None to name to number; of a list: a key to its elements' value to their numbers
        self._by: dict[Optional[str], dict[str, list[int]]] = {}
        if text[start] == "[" and not isinstance(step, str):  # one walk for the items and for the first key asked for
            items: list[tuple[str, int, int, int]] = []
            by = self._by[step[0]] = {}

            def look(_: str, begin: int, end: int, value: Any) -> None:
                _note(by, value, step[0], len(items))
                items.append(("", begin, begin, end))

            end = _walk(text, start, "", look)
            self.node = Node("[", start, end, items)
        else:
            self.node = walked.node(start)

    def index(self, step: Any) -> Optional[int]:
        """The number of the item that a step names, None if there is none."""
        items = self.node.items
        if isinstance(step, str):
            if self.node.kind != "{":
                return None
            if None not in self._by:
                self._by[None] = {item[0]: [n] for n, item in enumerate(items)}
            return self._by[None].get(step, (None,))[0]
        if self.node.kind != "[":
            return None
        by = self._by.get(step[0])
        if by is None:
            by = self._by[step[0]] = {}
            for n, (_, _, start, _) in enumerate(items):
                _note(by, value_at(self.text, start)[0], step[0], n)
        for n in by.get(step[1], ()):
            if len(step) == 2 or _selected(value_at(self.text, items[n][2])[0], step):
                return n
        return None

    def span(self, step: Any) -> Optional[tuple[int, int]]:
        n = self.index(step)
        return None if n is None else self.node.items[n][2:]


def _note(by: dict[str, list[int]], value: Any, key: str, n: int) -> None:
    held = value.get(key) if isinstance(value, dict) else None
    if type(held) is str:
        by.setdefault(held, []).append(n)


def fill_in(walked: Walked, ops: Sequence[Op]) -> list[Op]:
    """The edit with what each field holds now (`before`) and, for a container that is empty, its white space.

    What is to go is noted with its place (`at`: see `_place`), so that an inverse gives the very bytes back.
    """
    full = []
    text = walked.text
    for op in ops:
        op = dict(op)
        if op["op"] == "set":
            holder = walked.holder(op["path"])
            span = None if holder is None else holder.span(op["path"][-1])
            op["before"] = None if span is None else from_latin(text[span[0] : span[1]])
            if span is None and holder is not None and not holder.node.items:
                op["blank"] = text[holder.node.start + 1 : holder.node.end - 1]
            if span is not None and holder is not None and op["after"] is None:
                op["at"] = _place(text, holder.node, span[0])
        full.append(op)
    return full


def _place(text: str, holder: Node, value: int) -> list[Any]:
    """Where the item whose value begins there stands: its index, what parts it from its neighbours, and its colon."""
    items = holder.items
    n = next(n for n, item in enumerate(items) if item[2] == value)
    before = items[n - 1][3] if n else holder.start + 1
    behind = items[n + 1][1] if n + 1 < len(items) else holder.end - 1
    colon = text[string_at(text, items[n][1])[1] : value] if holder.kind == "{" else ""
    return [n, text[before : items[n][1]], text[items[n][3] : behind], colon]


def inverse(ops: Sequence[Op]) -> list[Op]:
    """The edit that takes `ops` back."""
    back = []
    for op in reversed(ops):
        op = dict(op)
        if op["op"] == "add":
            op["by"] = -op["by"]
        else:
            op["before"], op["after"] = op.get("after"), op.get("before")
            op["undo"] = not op.get("undo")
        back.append(op)
    return back


def same(a: Optional[str], b: Optional[str]) -> bool:
    """Whether two JSON texts (None: absent) hold the same value, however they are spaced."""
    if a is None or b is None or a == b:
        return a == b
    return _equal(loads(a, plain=False), loads(b, plain=False))


def _equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


def standing(walked: Walked, ops: Sequence[Op]) -> str:
    """How a document stands to an edit, by the fields that are the edit's own: "before", "after" or "other"."""
    before = after = True
    text = walked.text
    for op in ops:
        if op["op"] != "set" or op.get("shared"):
            continue
        holder = walked.holder(op["path"])
        span = None if holder is None else holder.span(op["path"][-1])
        now = None if span is None else from_latin(text[span[0] : span[1]])
        before = before and same(now, op["before"])
        after = after and same(now, op["after"])
    return "after" if after else "before" if before else "other"


def splices(walked: Walked, ops: Sequence[Op]) -> list[Splice]:
    """What to replace where, sorted, so that the document shows the edit; BadJSON if a container isn't there.

    A shared field that an inverse would set back, but that holds somebody else's newer value, stays.
    """
    walked.whole()
    by_holder: dict[str, list[Op]] = {}
    for op in ops:
        by_holder.setdefault(_key_of(op["path"][:-1]), []).append(op)
    out: list[Splice] = []
    for group in by_holder.values():
        holder = walked.holder(group[0]["path"])
        if holder is None:
            raise BadJSON(f"{dumps(group[0]['path'][:-1])} isn't there any more")
        _holder_splices(walked, holder, group, out)
    out.sort(key=lambda s: (s[0], s[1]))
    return out


def _holder_splices(walked: Walked, held: _Holder, group: Sequence[Op], out: list[Splice]) -> None:
    text = walked.text
    added: list[str] = []
    back: list[tuple[list[Any], str]] = []
    gone: list[int] = []
    blank = ""
    holder = held.node
    for op in group:
        n = held.index(op["path"][-1])
        if op["op"] == "add":
            if n is not None:
                _, _, start, end = holder.items[n]
                if is_integer(text[start:end]):
                    out.append((start, end, str(int(text[start:end]) + op["by"])))
            continue
        new = op["after"]
        if n is None:
            if new is not None:
                key = "" if holder.kind == "[" else quote(op["path"][-1])
                if op.get("undo") and "at" in op:
                    back.append((op["at"], to_latin(key) + op["at"][3] + to_latin(new)))
                else:
                    added.append(_member(text, holder, to_latin(key), to_latin(new)))
        elif new is None:
            gone.append(n)
            blank = op.get("blank", "")
        else:
            _, _, start, end = holder.items[n]
            if op.get("shared") and op.get("undo") and not same(from_latin(text[start:end]), op["before"]):
                continue
            out.append((start, end, to_latin(new)))
    take_out(holder, gone, blank, out)
    added = _put_back(holder, back, out) + added
    _insert(text, walked.whole(), holder, added, len(gone) == len(holder.items), out)


def is_integer(text: str) -> bool:
    """Whether a JSON text is an integer we may count with: no monster, and no -0, which could not come back."""
    digits = text[1:] if text[:1] == "-" else text
    return digits.isdigit() and len(digits) < 16 and text != "-0"


def _member(text: str, holder: Node, key: str, value: str) -> str:
    if not key:
        return value
    colon = ": "
    if holder.items:  # as the others write it: `"a":1` or `"a": 1`
        _, start, value_start, _ = holder.items[-1]
        colon = text[string_at(text, start)[1] : value_start]
    return key + colon + value


def take_out(holder: Node, gone: Sequence[int], blank: str, out: list[Splice]) -> None:
    """Add what removes the items of these numbers, with what parts them from the others; `blank` stays if all go."""
    if not gone:
        return
    if len(gone) == len(holder.items):
        out.append((holder.start + 1, holder.end - 1, blank))
        return
    leaving = set(gone)
    first = next(n for n in range(len(holder.items)) if n not in leaving)
    for n in gone:
        if n > first:
            out.append((holder.items[n - 1][3], holder.items[n][3], ""))
        else:
            out.append((holder.items[n][1], holder.items[n + 1][1], ""))


def _put_back(holder: Node, back: list[tuple[list[Any], str]], out: list[Splice]) -> list[str]:
    """Put removed items where they stood, with what parted them from their neighbours; returns those without a place.

    Others may have come and gone meanwhile: then it is where they would stand by their number.
    """
    items = holder.items
    if not items:
        if len(back) != 1:
            return [member for _, member in sorted(back, key=lambda one: one[0][0])]
        ((_, before, behind, _), member) = back[0]
        out.append((holder.start + 1, holder.end - 1, before + member + behind))
        return []
    left = []
    for k, ((n, before, behind, _), member) in enumerate(sorted(back, key=lambda one: one[0][0])):
        if n <= k and "," in behind:
            out.append((items[0][1], items[0][1], member + behind))
        elif n > k and "," in before:
            end = items[min(n - k, len(items)) - 1][3]
            out.append((end, end, before + member))
        else:
            left.append(member)
    return left


def _insert(text: str, top: Node, holder: Node, added: Sequence[str], empty: bool, out: list[Splice]) -> None:
    if not added:
        return
    if not empty:
        first, last = holder.items[0], holder.items[-1]
        if len(holder.items) > 1:
            before = holder.items[-2][3]
            gap = text[text.index(",", before) + 1 : last[1]]
        else:
            gap = text[holder.start + 1 : first[1]] or (" " if ": " in text[first[1] : first[2]] else "")
        out.append((last[3], last[3], "".join("," + gap + item for item in added)))
        return
    unit = layout(text, top)
    if unit or not top.items:
        line = text.rfind("\n", 0, holder.start) + 1
        base = text[line : _skip(text, line)] if holder is not top else ""
        inner = "\n" + base + (unit or "  ")
        body = inner + ("," + inner).join(added) + "\n" + base
    else:
        body = ", ".join(added)
    out.append((holder.start + 1, holder.end - 1, body))


def pieces(text: str, changes: Sequence[Splice], size: int = 1 << 20) -> Iterator[bytes]:
    """The new document as bytes, in pieces of at most `size` plus the replaced parts."""
    at = 0
    for start, end, new in changes:
        while at < start:
            stop = min(start, at + size)
            yield text[at:stop].encode("latin-1")
            at = stop
        if new:
            yield new.encode("latin-1")
        at = max(at, end)
    while at < len(text):
        yield text[at : at + size].encode("latin-1")
        at += size


def applied(text: str, ops: Sequence[Op]) -> str:
    """The document with the edit made, as latin-1 text."""
    return b"".join(pieces(text, splices(Walked(text), ops))).decode("latin-1")
