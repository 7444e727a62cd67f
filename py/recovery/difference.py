"""What changes from one text to another, line by line, as it is shown to people: harmless on a terminal."""

from __future__ import annotations

from difflib import unified_diff

from recovery import say

#: As the name of a text: there is no such file.
NOWHERE = "/dev/null"


def lines(old: bytes, new: bytes, before: str, after: str) -> list[str]:
    """The unified difference of two texts that are called `before` and `after`, as patch(1) takes it; [] if there is
    none.  A carriage return at the end of a line stays one."""
    a, b = (_split(data.decode("utf-8", "backslashreplace")) for data in (old, new))
    found = []
    for line in unified_diff(a, b, before, after):
        body, end = (line[:-1], "") if line.endswith("\n") else (line, "\\ No newline at end of file")
        bare, back = (body[:-1], "\r") if body.endswith("\r") else (body, "")
        found += [say.harmless(bare, "\t") + back, *([end] if end else [])]
    return found


def _split(text: str) -> list[str]:
    """The lines of a text with their ends: the last may have none."""
    parts = [line + "\n" for line in text.split("\n")]
    last = parts.pop()[:-1]
    return [*parts, last] if last else parts
