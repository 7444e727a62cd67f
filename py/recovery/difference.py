"""What changes from one text to another, line by line, as it is shown to people: harmless on a terminal."""

from __future__ import annotations

from difflib import unified_diff

from recovery import say


def lines(old: bytes, new: bytes, before: str, after: str) -> list[str]:
    """The unified difference of two texts that are called `before` and `after`; [] if there is none."""
    a, b = (data.decode("utf-8", "backslashreplace").split("\n") for data in (old, new))
    return [say.harmless(line, "\t") for line in unified_diff(a, b, before, after, lineterm="")]
