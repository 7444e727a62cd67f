"""The hooks in an agent's settings: which we want there, and edits that keep every other byte.

Pure functions over latin-1 text, for the three files

    .claude/settings.json, .codex/hooks.json   {"hooks": {EVENT: [{"matcher": …, "hooks": [{"type", "command"}]}]}}
    .cursor/hooks.json                         {"version": 1, "hooks": {EVENT: [{"command": …, "timeout"}]}}

An entry calls us if its command has `recovery hook PROGRAM EVENT` in it.  One that reads as we write it is ours to
change and to take out; any other somebody has written or edited: it counts as there, and stays as it is.
"""

from __future__ import annotations

import re
import shlex

from recovery import jsontext
from recovery.hook import END, EVENTS, START, STOP, TOOL
from recovery.jsontext import BadJSON, Walked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.jsontext import Node, Op, Splice

#: The file that each program reads its hooks from, below the project.
FILES = {"claude": ".claude/settings.json", "codex": ".codex/hooks.json", "cursor": ".cursor/hooks.json"}

_STARTS = "startup|resume|clear|compact"
#: What is matched, by program and moment.  At the end of a Claude Code session those reasons after which it is over.
_MATCHERS = {
    "claude": {
        START: _STARTS,
        TOOL: "Edit|MultiEdit|NotebookEdit|Write",
        STOP: "*",
        END: "logout|prompt_input_exit|bypass_permissions_disabled|other",
    },
    "codex": {START: _STARTS, TOOL: "apply_patch|Edit|Write", STOP: "*"},
    "cursor": {TOOL: "Write|Delete"},
}
#: Seconds after which a program gives a hook up; it takes some hundredths of one.
_TIMEOUT = 10

_OURS = re.compile(r"recovery['\"]? hook (\w+) (\w+)")


def command(program: str, event: str, path: str) -> str:
    """The shell command of a hook: nothing, in silence, where the suite isn't there.  `path` is "" for on the PATH."""
    if not path:
        return f"! command -v recovery >/dev/null || recovery hook {program} {event}"
    quoted = shlex.quote(path)
    return f"[ ! -x {quoted} ] || {quoted} hook {program} {event}"


def _is_command_of_ours(text: str, program: str, event: str) -> bool:
    found = re.fullmatch(r"\[ ! -x (.+) \] \|\| \1 hook (\w+) (\w+)", text)
    return text == command(program, event, "") or (found is not None and found.groups()[1:] == (program, event))


class Found:
    """An entry that calls us: its event, its command, whether it stands as we write it (`ours`; with whatever path to
    the suite), and the objects and lists around it with its place in each."""

    __slots__ = ("command", "event", "ours", "way")

    def __init__(
        self, program: str, event: str, members: dict[str, Any], matcher: Any, way: list[tuple[Node, int]]
    ) -> None:
        """`matcher` is that of the group it stands in (None where there are no groups)."""
        self.event, self.way = event, way
        self.command = jsontext.from_latin(members["command"])
        self.ours = event in EVENTS[program] and _is_command_of_ours(self.command, program, event)
        if self.ours:
            group, known = _as_written(program, event, self.command)
            self.ours = matcher == group and {**members, "command": self.command}.items() <= known.items()


def find(walked: Walked, program: str) -> list[Found]:
    """The entries of a settings file that call us.

    BadJSON, with line and column, if it is no JSON, or its `hooks` is no such list.
    """
    found: list[Found] = []
    top = walked.whole()
    for number, (name, _, start, _) in enumerate(top.items):
        if name != "hooks":
            continue
        hooks = _node(walked, start, "{", "`hooks` is not an object")
        for place, (event, _, begin, _) in enumerate(hooks.items):
            groups = _node(walked, begin, "[", "this is not a list of hooks")
            way = [(top, number), (hooks, place)]
            for index, (_, _, at, _) in enumerate(groups.items):
                found += _entries(walked, program, event, at, [*way, (groups, index)])
    return found


def _node(walked: Walked, start: int, kind: str, what: str) -> Node:
    if walked.text[start] != kind:
        raise BadJSON(what, walked.text, start)
    return walked.node(start)


def _entries(walked: Walked, program: str, event: str, start: int, way: list[tuple[Node, int]]) -> list[Found]:
    value = jsontext.value_at(walked.text, start, True)[0]
    if not isinstance(value, dict):
        return []
    if program != "cursor":
        span = walked.node(start).span("hooks")
        if span is None or not isinstance(value.get("hooks"), list):
            return []
        inner = walked.node(span[0])
        entries = [(one, [*way, (inner, number)]) for number, one in enumerate(value["hooks"])]
        matcher = value.get("matcher")
    else:
        entries, matcher = [(value, way)], None
    found = []
    for one, place in entries:
        text = one.get("command") if isinstance(one, dict) else None
        called = _OURS.search(text) if isinstance(text, str) else None
        if called is not None and isinstance(text, str) and called[1] == program:
            found.append(Found(program, event, one, matcher, place))
    return found


def put(text: str, program: str, path: str, force: bool = False) -> tuple[str, Optional[list[Op]], list[str]]:
    """The text with all our entries, the edit that added some (None: all were there), and the events whose entry is
    somebody's (with `force` it is overwritten).  BadJSON as `find`."""
    text, edited, kept = _without_stale(text, program, path, force)
    missing = [event for event in EVENTS[program] if event not in kept]
    if not missing:
        return text, None, edited
    walked = Walked(text)
    unit = jsontext.layout(text, walked.whole())
    ops: list[Op] = []
    if program == "cursor" and walked.find(["version"]) is None:
        ops.append({"op": "set", "path": ["version"], "after": "1"})
    entries = {event: _entry(program, event, path) for event in missing}
    if walked.find(["hooks"]) is None:
        ops.append(_set(walked, ["hooks"], {event: [entry] for event, entry in entries.items()}, unit))
    else:
        for event, entry in entries.items():
            ops.append(_added(walked, event, entry, unit))
    ops = jsontext.fill_in(walked, ops)
    return jsontext.applied(text, ops), ops, edited


def _without_stale(text: str, program: str, path: str, force: bool) -> tuple[str, list[str], set[str]]:
    """The text without entries of ours that are to be written anew, the events of others', and those that are there."""
    while True:
        kept: set[str] = set()
        edited: list[str] = []
        stale = None
        for one in find(Walked(text), program):
            wanted = one.ours and one.event not in kept and one.command == command(program, one.event, path)
            if not one.ours and not force:
                edited.append(one.event)
            elif not wanted:
                stale = one
                break
            kept.add(one.event)
        if stale is None:
            return text, edited, kept
        text = _taken(text, stale)


def _as_written(program: str, event: str, text: str) -> tuple[Optional[str], dict[str, Any]]:
    """The matcher of the group (None: there are no groups) and the members of an entry whose command is `text`."""
    matcher = _MATCHERS[program].get(EVENTS[program][event])
    if program != "cursor":
        return matcher, {"type": "command", "command": text, "timeout": _TIMEOUT}
    return None, {"command": text, "timeout": _TIMEOUT, **({"matcher": matcher} if matcher else {})}


def _entry(program: str, event: str, path: str) -> dict[str, Any]:
    matcher, members = _as_written(program, event, command(program, event, path))
    return members if matcher is None else {"matcher": matcher, "hooks": [members]}


def _added(walked: Walked, event: str, entry: dict[str, Any], unit: str) -> Op:
    """The edit that adds an entry to `hooks`, as deep in it as there is something already."""
    if walked.find(["hooks", event]) is None:
        return _set(walked, ["hooks", event], [entry], unit)
    if "hooks" not in entry:
        return _set(walked, ["hooks", event, ["command", entry["command"]]], entry, unit)
    group = ["hooks", event, ["matcher", entry["matcher"]]]
    if walked.find([*group, "hooks"]) is not None:
        one = entry["hooks"][0]
        return _set(walked, [*group, "hooks", ["command", one["command"]]], one, unit)
    if walked.find(group) is not None:  # a group without hooks is no reason to replace it
        return _set(walked, [*group, "hooks"], entry["hooks"], unit)
    return _set(walked, group, entry, unit)


def _set(walked: Walked, path: list[Any], value: Any, unit: str) -> Op:
    """The edit that puts a value where nothing is yet, written as what is around it is."""
    span = walked.find(path[:-1])
    around = walked.text[span[0] : span[1]] if span is not None else ""
    on_one_line = not unit or ("\n" not in around and around.strip("{[ ]}") != "")
    text = jsontext.dumps(value) if on_one_line else jsontext.pretty(value, unit, unit * len(path))
    if "\r\n" in walked.text:
        text = text.replace("\n", "\r\n")
    return {"op": "set", "path": path, "after": text}


def take(text: str, program: str, edits: list[list[Op]], force: bool = False) -> tuple[str, list[str]]:
    """The text without our entries, and the events whose entry is somebody's: it stays unless it is to go by `force`.

    Ours go by the `edits` that added them, where they still stand as added, which gives back the very bytes; else each
    by itself, with the lists and objects that it leaves empty.  BadJSON as `find`.
    """
    find(Walked(text), program)
    for ops in reversed(edits):
        try:
            if jsontext.standing(Walked(text), ops) == "after":
                text = jsontext.applied(text, jsontext.inverse(ops))
        except (BadJSON, KeyError, TypeError, AttributeError):  # not what we wrote
            continue
    while True:
        found = find(Walked(text), program)
        going = [one for one in found if one.ours or force]
        if not going:
            return text, [one.event for one in found]
        text = _taken(text, going[0])


def _taken(text: str, one: Found) -> str:
    way = list(one.way)
    while len(way) > 1 and len(way[-1][0].items) == 1:
        way.pop()
    out: list[Splice] = []
    jsontext.take_out(way[-1][0], [way[-1][1]], "", out)
    return b"".join(jsontext.pieces(text, out)).decode("latin-1")


def new(program: str, path: str) -> str:
    """A settings file with our entries alone."""
    hooks = {event: [_entry(program, event, path)] for event in EVENTS[program]}
    body = {"version": 1, "hooks": hooks} if program == "cursor" else {"hooks": hooks}
    return jsontext.to_latin(jsontext.pretty(body) + "\n")


def is_empty(text: str) -> bool:
    """Whether nothing is left in a settings file that would be missed."""
    value = jsontext.loads(jsontext.from_latin(text))
    return isinstance(value, dict) and {key: one for key, one in value.items() if key != "hooks" or one} in (
        {},
        {"version": 1},
    )
