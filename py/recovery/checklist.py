"""Markdown check lists, as GitHub shows them (GitHub Flavored Markdown, section 5.3, task list items).

    - [ ] write the notes (P1) #docs
      - [x] collect what changed
    1. [ ] publish !high

An item is a list marker (`-`, `*`, `+`, `1.`, `1)`), a box `[ ]`, `[x]` or `[X]`, and text.  One that is indented
further than the item above it belongs to that one, which waits for it.  `(P0)` to `(P3)` or `!critical` to `!low` is
the priority, `#word` an expertise; the first is taken out of the title.  Everything else (headings, prose, list items
without a box, code between fences) is passed over.  A box that holds something else, that has no text behind it or
that lacks a space is refused: who reads the list may see a task there.

A task's id comes from its text and the texts it stands under, so it stays the same when lines move or are ticked off.
"""

from __future__ import annotations

import re

from recovery import durable, jsontext
from recovery.backlog import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from recovery.sources import Source

_MARKED = re.compile(r"([ \t]*)(?:[-*+]|\d{1,9}[.)])[ \t]+\[([^\]\n]?)\](.*)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_PRIORITY = re.compile(r"(?<!\S)(?:\(P([0-3])\)|!(critical|high|medium|low))(?!\S)", re.IGNORECASE)
_TAG = re.compile(r"(?<!\S)#([A-Za-z][\w-]*)")
_LEVELS = ("CRITICAL", "HIGH", "MEDIUM", "LOW")


def read(source: Source) -> list[tuple[str, Item]]:
    """Each task with its id in the list (the hash of its text) and, as `more["parent"]`, that of the one above it."""
    found: list[tuple[str, Item]] = []
    above: list[tuple[int, str]] = []  # indentation and id of the items that the next may belong to
    seen: dict[str, int] = {}
    at, fence = 0, ""
    for raw in source.text.split("\n"):
        begin, at = at, at + len(raw) + 1
        line = raw.rstrip("\r")
        fenced = _FENCE.match(line)
        if fence:
            if fenced and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if fenced:
            fence = fenced[1]
            continue
        marked = _MARKED.match(line)
        if marked is None or (len(marked[2]) == 1 and marked[3].startswith(("(", "[", ":"))):  # a link such as [x](…)
            continue
        box = begin + marked.start(2) - 1
        if marked[2] not in (" ", "x", "X"):
            raise source.refusal("a box holds neither a space nor an x", box)
        if not marked[3][:1].isspace():
            raise source.refusal("a space and text are missing behind the box", box + 3)
        text = jsontext.from_latin(marked[3]).strip()
        indent = len(marked[1].expandtabs(4))
        while above and above[-1][0] >= indent:
            above.pop()
        item = _item(source, text, box)
        item.status = "pending" if marked[2] == " " else "completed"
        under = above[-1][1] if above else ""
        name = f"{under}\n{item.title}"
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:  # the same words under the same item: told apart by their order
            name += f"\n{seen[name]}"
        ident = durable.digest_of(name.encode("utf-8"))[:8]
        if under:
            item.more["parent"] = under
        above.append((indent, ident))
        found.append((ident, item))
    return found


def _item(source: Source, text: str, at: int) -> Item:
    levels = {_LEVELS[int(n)] if n else word.upper() for n, word in _PRIORITY.findall(text)}
    if len(levels) > 1:
        raise source.refusal(f"an item has two priorities, {' and '.join(sorted(levels))}", at)
    title = " ".join(_PRIORITY.sub(" ", text).split())
    if not title:
        raise source.refusal("a box has no text", at)
    item = Item("", title, at)
    item.priority = levels.pop() if levels else item.priority
    item.wants = list(dict.fromkeys(_TAG.findall(title)))
    if item.wants:
        item.more["expertise"] = item.wants
    return item


def has_any(text: str) -> bool:
    """Whether there is a check list in a text at all."""
    return any(_MARKED.match(line) for line in text.split("\n"))
