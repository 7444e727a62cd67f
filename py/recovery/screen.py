"""An overview as a screen of text: a line each, in pieces of one style.  Pure.

What needs a person comes first, the worst in the very first line, with its command.  Every text of somebody else's is
made harmless here; what is shown is cut to the width, but never a command, which is there to be copied: nor broken.
"""

from __future__ import annotations

import os

from recovery import durations, page
from recovery.say import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Sequence

    Line = list[tuple[str, str]]  # text and style

#: The styles, and what each is on a terminal (ECMA-48, Select Graphic Rendition).
STYLES = {"bad": "1;31", "worst": "1;97;41", "warn": "33", "good": "32", "head": "1", "dim": "2", "": ""}
#: The kinds of what needs a person that keep others from working, or may lose something: the rest can wait a while.
_BAD = frozenset(("damage", "parked", "escalation", "manual", "call", "check"))
#: Words in front of a cause that say what its kind has said.
_SAID = ("It failed: ", "A person is needed: ")
#: A claim's owner: how it is shown, and before whom; what is not all right comes first.
_OTHERS = {"unclaimed": ("in progress", "dim")}
_STATES = {"dead": ("gone", "bad"), "expired": ("lease over", "bad"), "unknown": ("can't be seen", "warn")}


def size(environ: Mapping[str, str]) -> tuple[int, int]:
    """Columns and lines: of the terminal on stdout, else what COLUMNS and LINES say, as watch(1) sets them; 80 and 24.

    Never less than 20 and 4.
    """
    try:
        found = os.get_terminal_size(1)
        width, height = found.columns, found.lines
    except OSError:
        width, height = (
            int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0
            for value in (environ.get("COLUMNS", ""), environ.get("LINES", ""))
        )
    return max(width or 80, 20), max(height or 24, 4)


def is_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the locale's characters are UTF-8."""
    name = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    return name.lower().replace("-", "").partition("@")[0].endswith("utf8")


def plain(line: Line) -> str:
    """A line without its styles."""
    return "".join(text for text, _ in line).rstrip()


def coloured(line: Line) -> str:
    """A line with the codes of its styles, for a terminal."""
    return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if STYLES[style] else text for text, style in line).rstrip()


def one_line(
    needs: Sequence[dict[str, str]], working: int, silent: int, ready: int, blocked: int, unread: int = 0
) -> str:
    """The line for a status bar: numbers and ids, and nobody's free text, which a status bar might take for its own."""
    words = f"? {unread} unread" if unread else "nobody needed"
    if needs:
        worst = needs[0]
        subject = "/".join(filter(None, (worst["agent"], worst["task"])))
        words = f"{_needing(len(needs))}: {worst['kind']} {subject}".rstrip() + (
            f" ? {unread} unread" if unread else ""
        )
    waits = f" {blocked} blocked" if blocked else ""
    return f"{words} | {working} working{f' {silent} silent' if silent else ''} | {ready} ready{waits}"


def frame(
    told: dict[str, Any], width: int, height: int, footer: str = "", ascii_only: bool = False, live: bool = False
) -> list[Line]:
    """The screen for an overview (see `recovery.overview.look`): at most `height` lines, or with 0 all there is.

    A command that is longer than a line stands on one of its own, as long as it is, or it couldn't be copied; on a
    `live` screen, which has no such lines, it is left out, and what names it there.
    With `ascii_only`, for a terminal that knows no other characters, those are shown as escapes.
    """
    return _Frame(told, width, ascii_only, live).lines(height, footer)


def refusal(error: str, hint: str, width: int, ascii_only: bool = False) -> list[Line]:
    """The screen for an overview that can't be had."""
    shown = _Frame({"time": ""}, width, ascii_only)
    lines: list[Line] = [[(part, "bad")] for part in page.wrapped(shown.text(error), width, 2)]
    return [*lines, *([(part, "head")] for part in page.wrapped(f"  -> {shown.text(hint)}", width, 5) if hint)]


class _Section:
    """A title, and rows of one or more lines behind it, of which as many are shown as there is room for.

    `kinds` are those of the rows, where a last line is to count what isn't shown.
    """

    __slots__ = ("kinds", "rows", "shown", "title", "weight")

    def __init__(self, title: Line, rows: list[list[Line]], weight: int, kinds: Sequence[str] = ()) -> None:
        self.title, self.rows, self.weight, self.kinds = title, rows, weight, kinds
        self.shown = 0

    def lines(self, fit: Callable[[str], str]) -> list[Line]:
        found = [self.title] if self.title else []
        for row in self.rows[: self.shown]:
            found += row
        if self.kinds and self.shown < len(self.rows):
            hidden = list(self.kinds[self.shown :])
            counts = ", ".join(f"{hidden.count(kind)} {kind}" for kind in dict.fromkeys(hidden))
            found.append([(fit(f"{len(hidden)} more: {counts}"), "warn")])
        return found


class _Frame:
    def __init__(self, told: dict[str, Any], width: int, ascii_only: bool, live: bool = False) -> None:
        self.told, self.width, self.ascii_only, self.live = told, width, ascii_only, live
        self.now = durations.epoch(told["time"]) or 0.0
        self.mark = "~" if ascii_only else "…"

    def lines(self, height: int, footer: str) -> list[Line]:
        first, needs = self._needs()
        sections = [needs, self._agents(), *self._queue(), self._failures(), self._breakers(), self._store()]
        end: list[Line] = [[(self.fit(self.text(footer), self.width), "dim")]] if footer else []
        for section in sections:
            section.shown = 0 if height else len(section.rows)
        if height:
            room = height - len(first) - len(end) - sum(bool(one.title) for one in sections)
            _share(sections, room)
            if needs.shown < len(needs.rows):  # a line is kept to count them on, however small the screen
                _share(sections, room - 1)
        body = [line for section in sections for line in section.lines(lambda text: self.fit(text, self.width))]
        found = [*first, *body]
        return [*(found[: max(height - len(end), 1)] if height else found), *end]

    # --- words

    def text(self, value: Any) -> str:
        """Somebody's words, on one line, with nothing in them that a terminal would obey."""
        return self.command(" ".join(str(value).split()))

    def command(self, text: str) -> str:
        """A command, in which every space may count, with nothing in it that a terminal would obey."""
        text = harmless(text)
        return text.encode("ascii", "backslashreplace").decode() if self.ascii_only else text

    def fit(self, text: str, width: int) -> str:
        """A text in at most so many columns."""
        if columns(text) <= width:
            return text
        kept, used = "", 0
        for c in text:
            used += _columns(c)
            if used >= width:
                break
            kept += c
        return kept + self.mark

    def cell(self, text: str, width: int) -> str:
        """The same, filled up."""
        text = self.fit(text, width)
        return text + " " * (width - columns(text))

    def ago(self, when: str) -> str:
        """How long ago something was; "" where that isn't known."""
        began = durations.epoch(when)
        return durations.words(self.now - began) if began is not None else ""

    # --- sections

    def _needs(self) -> tuple[list[Line], _Section]:
        """The first lines, and the others that need somebody."""
        found = self.told["needs_you"]
        if not found:
            notes = [[[(self.fit(self.text(note), self.width), "warn")]] for note in self.told["notes"]]
            return [self._nobody()], _Section([], notes, 2, ["note"] * len(notes))
        style = "worst" if found[0]["kind"] in _BAD else "warn"
        head = f" {_needing(len(found)).upper()} " if style == "worst" else _needing(len(found)).upper()
        first = self._need(found[0], [(head, style), (" ", "")])
        rows = [[[(self.fit(self.text(note), self.width), "warn")]] for note in self.told["notes"]]
        rows += [self._need(one, []) for one in found[1:]]
        kinds = [*("note" for _ in self.told["notes"]), *(self.text(one["kind"]) for one in found[1:])]
        return first, _Section([], rows, 3, kinds)

    def _nobody(self) -> Line:
        """That nobody is needed, as far as that can be known."""
        unread = len(self.told["unread"])
        if not unread:
            return [("nobody needs you", "good")]
        things = f"{unread} thing{'' if unread == 1 else 's'} could not be read"
        if self.width < 72:
            return self._cut([(f"nobody needs you? {things}", "warn")])
        return [(f"nobody needs you, as far as can be read: {things}", "warn")]

    def _need(self, one: dict[str, str], lead: Line) -> list[Line]:
        """What it is, whose, and the command: on one line where there is room for some of the words."""
        kind = self.text(one["kind"])
        subject = self.text("/".join(filter(None, (one["agent"], one["task"]))))
        what = [(kind, "bad" if kind in _BAD else "warn"), (f" {subject}" if subject else "", "head"), (": ", "")]
        command = self.command(one["next"])
        tail = f"  -> {command}"
        used = sum(columns(text) for text, _ in [*lead, *what])
        words = self.text(
            next((one["what"][len(lead_) :] for lead_ in _SAID if one["what"].startswith(lead_)), one["what"])
        )
        room = self.width - used - columns(tail)
        if room >= min(24, columns(words)):
            return [[*lead, *what, (self.fit(words, room), ""), ("  -> ", "dim"), (command, "head")]]
        line = self._cut([*lead, *what, (words, "")])
        if self.live and columns(tail) > self.width:
            tail = self.fit("  -> run `recovery explain`", self.width)
        return [line, [(tail, "head")]]

    def _cut(self, line: Line) -> Line:
        """A line in the width of the screen."""
        found: Line = []
        left = self.width
        for text, style in line:
            part = self.fit(text, left) if left > 0 else ""
            found.append((part, style))
            left -= columns(part)
        return found

    def _agents(self) -> _Section:
        rows = self.told["agents"]
        problems = [one for one in rows if one["problem"]]
        claims = [(one["agent"], claim) for one in rows for claim in one["claims"]]
        claims.sort(key=lambda one: (one[1]["state"] not in _STATES, one[1]["silent_since"] or "~", one[1]["since"]))
        silent = sum(bool(claim["silent_since"]) for _, claim in claims)
        lost = sum(claim["state"] in _STATES for _, claim in claims)
        words = f"{len(claims)} task{'' if len(claims) == 1 else 's'} held" + (f", {silent} silent" if silent else "")
        words += f", {lost} without owner" if lost else ""
        unclaimed = [(one["agent"], task) for one in rows for task in one["in_progress"]]
        words += f"; {len(unclaimed)} in progress, unclaimed" if unclaimed else ""
        idle = [self.text(one["agent"]) for one in rows if not one["open"] and not one["problem"]]
        title: Line = [("WORKING", "head"), (f"  {words}", "")]
        if idle:
            title.append((f"; idle: {' '.join(idle)}", "dim"))
        shown: list[list[Line]] = [
            [self._cut([(f" {self.text(one['agent'])}", "head"), (f": {self.text(one['problem'])}", "bad")])]
            for one in problems
        ]
        claims += [(agent, {**task, "by": "", "silent_since": "", "state": "unclaimed"}) for agent, task in unclaimed]
        subjects = [self.text(f"{agent}/{claim['task']}") for agent, claim in claims]
        wide = max(map(len, subjects), default=0)
        wide = min(wide, self.width // 3 if self.width >= 60 else self.width - 24)
        for subject, (_, claim) in zip(subjects, claims):
            shown.append([self._claim(subject, claim, wide)])
        return _Section(self._cut(title), shown, 4)

    def _claim(self, subject: str, claim: dict[str, Any], wide: int) -> Line:
        held = self.ago(claim["since"]) or "?"
        state, style = {**_STATES, **_OTHERS}.get(claim["state"], ("", ""))
        if claim["silent_since"]:
            state, style = f"silent {self.ago(claim['silent_since'])}", "warn"
        line: Line = [(f" {self.cell(subject, wide)} ", ""), (f"{held:>6}", ""), (f"  {state or 'ok':<13} ", style)]
        if self.width < 60:
            return self._cut(line)
        by = self.cell(self.text(claim["by"]), 18)
        return self._cut([*line, (f"{by} ", "dim"), (self.text(claim["title"]), "")])

    def _queue(self) -> list[_Section]:
        queue = self.told["queue"]
        title: Line = [("QUEUE", "head"), (f"    {queue['ready']} ready, {queue['blocked']} blocked", "")]
        following = []
        for one in queue["next"]:
            subject = self.text(f"{one['agent']}/{one['task']}")
            words: Line = [(f" next {subject}", ""), (f" {self.text(one['priority'])}", _urgency(one["priority"]))]
            following.append([self._cut([*words, (f" {self.text(one['title'])}", "")])])
        waiting = []
        for one in queue["waiting"]:
            by = " ".join(map(self.text, one["by"]))
            waiting.append([self._cut([(f" wait {self.text(one['agent'])}/{self.text(one['task'])} for {by}", "dim")])])
        return [_Section(self._cut(title), following, 2), _Section([], waiting, 2)]

    def _failures(self) -> _Section:
        rate, incidents = self.told["success"]["rate"], self.told["success"]["incidents"]
        within = durations.words(self.told["since"])
        title: Line = [("FAILED", "head")]
        if "success" in self.told["unknown"]:
            title.append(("   unknown: the logs can't be read", "warn"))
        elif rate is None:
            title.append((f"   no recoveries within {within}", ""))
        else:
            count = sum(one["count"] for one in self.told["failures"])
            words = f"   {count} of {incidents} recoveries within {within}; {rate:.1%} ended well"
            title.append((words, "" if rate >= 0.95 else "warn"))
        rows = []
        for one in self.told["failures"]:
            tasks = " ".join(map(self.text, one["tasks"]))
            words = f" {one['count']} x {self.text(one['cause'])}, last {self.ago(one['last']) or '?'} ago"
            rows.append([self._cut([(words, ""), (f"  {tasks}", "dim")])])
        return _Section(self._cut(title), rows, 2)

    def _breakers(self) -> _Section:
        found = self.told["breakers"]
        title: Line = [("BREAKERS", "head"), (f" {len(found)} not closed" if found else " none open", "")]
        if "breakers" in self.told["unknown"]:
            title[1] = (" unknown: they can't be read", "warn")
        rows = []
        for one in found:
            until = durations.epoch(one["until"]) if one["until"] else None
            when = f", back in {durations.words(until - self.now)} ({one['until'][11:16]} UTC)" if until else ""
            words = f" {self.text(one['name'])} {self.text(one['state'])}{self.text(when)}"
            rows.append([self._cut([(words, "warn"), (f": {self.text(one['why'])}", "")])])
        return _Section(self._cut(title), rows, 2)

    def _store(self) -> _Section:
        store = self.told["store"]
        use, limits = store["use"], store["use"]["limits"]
        share = max(use["bytes"] / limits["bytes"], use["files"] / limits["files"]) if limits["bytes"] else 0.0
        size = f"{use['bytes'] / 1048576:.1f} of {limits['bytes'] / 1048576:.0f} MB"
        words = f"{size}, {use['files']} of {limits['files']} files"
        if "use" in self.told["unknown"]:
            words = f"use unknown, of {limits['bytes'] / 1048576:.0f} MB"
        title: Line = [("STORE", "head"), (f"    {words}", "bad" if share > 1 else "warn" if share > 0.8 else "")]
        title.append(("; ", ""))
        damage = store["damage"]
        whole = (
            ("nothing damaged as far as can be read", "warn") if self.told["unread"] else ("nothing damaged", "good")
        )
        title.append((f"{len(damage)} damaged", "bad") if damage else whole)
        if "journal" in self.told["unknown"]:
            title.append(("; journal unknown", "warn"))
        elif not store["journal"]:
            title.append(("; journal closed", ""))
        rows: list[list[Line]] = []
        if store["journal"]:
            rows.append([self._cut([(" journal open: ", "warn"), (self.text(store["journal"]), "")])])
        crash = store["last_crash"]
        if crash:
            by = f" by {self.text(crash['by'])}" if crash["by"] else ""
            mended = f", repaired by {self.text(crash['repaired_by'])}" if crash["repaired_by"] else ", repaired"
            words = f" last crash, {self.ago(crash['time']) or '?'} ago: {self.text(crash['what'])}{by}{mended}"
            rows.append([self._cut([(words, "")])])
        else:
            rows.append([[(self.fit(f" no crash within {durations.words(self.told['since'])}", self.width), "dim")]])
        rows += [[self._cut([(" " + self.text(one), "bad")])] for one in damage]
        if store["certificate"]:
            rows.append([self._cut([(" " + self.text(store["certificate"]), "dim")])])
        return _Section(self._cut(title), rows, 3)


def _share(sections: Sequence[_Section], room: int) -> None:
    """Give each section rows in turn, as many at a time as its weight says, until there is no room."""
    for one in sections:
        one.shown = 0
    left = [one for one in sections if one.rows]
    while left and room > 0:
        for one in list(left):
            for _ in range(one.weight):
                need = len(one.rows[one.shown]) if one.shown < len(one.rows) else 0
                if not need or need > room:
                    left.remove(one)
                    break
                one.shown += 1
                room -= need


def _needing(count: int) -> str:
    return f"{count} need{'s' if count == 1 else ''} you"


def _urgency(priority: str) -> str:
    return {"CRITICAL": "bad", "HIGH": "warn"}.get(priority, "dim")


def columns(text: str) -> int:
    """How many columns a text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(c: str) -> int:
    if c < "\u0300":
        return 1
    from unicodedata import category, east_asian_width

    return 0 if category(c) in ("Mn", "Me", "Cf") else 2 if east_asian_width(c) in "WF" else 1
