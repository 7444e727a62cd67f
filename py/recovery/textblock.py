"""Our block in somebody's text: between two markers, the first with a hash by which an edit of it is noticed.

    <!-- postbox-recovery:begin 1f0c65a3b29e -->
    …
    <!-- postbox-recovery:end -->

Pure functions over latin-1 text (one character a byte).  The block has the line ends that the text has; its hash is
that of its lines, whatever ends them, so that a checkout with other line ends is no edit.
"""

from __future__ import annotations

import re

from recovery.durable import digest_of
from recovery.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

_BEGIN = re.compile(r"^<!-- postbox-recovery:begin ([0-9a-f]*).*-->[ \t]*\r?$", re.M)
_END = re.compile(r"^<!-- postbox-recovery:end -->[ \t]*\r?(\n|\Z)", re.M)
_MARK = "postbox-recovery:"


class Block:
    """A block in a text: where it begins and ends (with its line end), its line, and whether somebody has edited it."""

    __slots__ = ("edited", "end", "line", "start")

    def __init__(self, text: str, begin: re.Match[str], end: re.Match[str]) -> None:
        self.start, self.end = begin.start(), end.end()
        self.line = text.count("\n", 0, self.start) + 1
        self.edited = begin[1] != _hash(text[begin.end() + 1 : end.start()])


def _hash(body: str) -> str:
    return digest_of(body.replace("\r\n", "\n").encode("latin-1"))[:12]


def find(text: str, name: str) -> list[Block]:
    """The blocks of a text.  DataError (65) where a marker has lost its other one, or lines of one are not ours."""
    found: list[Block] = []
    at = 0
    while True:
        begin = _BEGIN.search(text, at)
        end = _END.search(text, begin.end() if begin is not None else at)
        stray = _END.search(text, at)
        if begin is None and end is None:
            return found
        nested = begin is not None and end is not None and _BEGIN.search(text, begin.end(), end.start()) is not None
        if begin is None or end is None or nested or (stray is not None and stray.start() < begin.start()):
            where = begin if begin is not None and (end is None or nested) else stray
            line = text.count("\n", 0, where.start() if where is not None else 0) + 1
            raise DataError(
                f"{name}:{line}: a marker of recovery's block stands alone. Nothing was changed.",
                hint="take the marker out, and what is left of the block",
            )
        found.append(Block(text, begin, end))
        at = end.end()


def require_one(blocks: list[Block], name: str, force: bool) -> None:
    """DataError (65) unless there is at most one block, as we wrote it; with `force` that doesn't matter."""
    if force:
        return
    if len(blocks) > 1:
        lines = " and ".join(str(block.line) for block in blocks)
        raise DataError(
            f"{name} has {len(blocks)} blocks of recovery's, at lines {lines}. Nothing was changed.",
            hint="take one out, or let --force keep only the first",
        )
    if blocks and blocks[0].edited:
        raise DataError(
            f"{name}:{blocks[0].line}: somebody has edited recovery's block. Nothing was changed.",
            hint="put your words outside of it; --force overwrites it",
        )


def put(text: str, lines: list[str], name: str, force: bool = False) -> tuple[str, Optional[str]]:
    """The text with our block of these lines, at its end or where the block stands already; and what parts a new block
    from the text before it (None: there was one).  What `find` and `require_one` raise."""
    blocks = find(text, name)
    newline = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    body = "".join(f"{line}\n" for line in lines).encode("utf-8").decode("latin-1")
    head = f"<!-- {_MARK}begin {_hash(body)} -->\n"
    block = f"{head}{body}<!-- {_MARK}end -->\n".replace("\n", newline)
    if blocks:
        first = blocks[0]
        if text[first.start : first.end].rstrip("\r\n") == block.rstrip("\r\n") and len(blocks) == 1:
            return text, None
        require_one(blocks, name, force)
        for extra in reversed(blocks[1:]):
            text = text[: extra.start] + text[extra.end :]
        return text[: first.start] + block + text[first.end :], None
    gap = "" if not text or text.endswith(newline * 2) else newline if text.endswith("\n") else newline * 2
    return text + gap + block, gap


def take(text: str, name: str, gap: Optional[str], force: bool = False) -> str:
    """The text without our block, and without the `gap` that was put before it (None: nobody knows, so an empty line
    before it goes); a line end of it stays where text follows.  What `find` and `require_one` raise."""
    blocks = find(text, name)
    require_one(blocks, name, force)
    for block in reversed(blocks):
        before = text[: block.start]
        if gap is None:
            gap = next((end for end in ("\r\n", "\n") if before.endswith(end * 2)), "")
        newline = "\r\n" if gap.startswith("\r\n") else "\n"
        if gap and before.endswith(gap) and (gap != newline or before[: -len(gap)].endswith("\n")):
            before = before[: -len(gap)]
        behind = text[block.end :]
        if before and behind and not before.endswith("\n"):
            before += newline
        text = before + behind
    return text
