"""Spans of time: moments as seconds, and seconds in words.  Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

#: Days before each month of a year that begins in March, as leap days come last then.
_DAYS = (306, 337, 0, 31, 61, 92, 122, 153, 184, 214, 245, 275)


def epoch(text: str) -> Optional[float]:
    """Seconds since 1970 of an ISO 8601 time (without a zone: UTC); None for anything else."""
    found = _ours(text)
    if found is not None or not text:
        return found
    from datetime import datetime, timezone  # which costs more than all the rest of a line for tmux

    try:
        when = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text)
        return (when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)).timestamp()  # noqa: UP017
    except (ValueError, OverflowError):
        return None


def _ours(text: str) -> Optional[float]:
    """The same of a time as the suite writes it, `2026-11-25T08:00:00Z`; None for any other, or none that exists."""
    if len(text) != 20 or text[4::3] != "--T::Z" or not text.isascii():
        return None
    words = (text[:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:19])
    if not all(word.isdigit() for word in words):
        return None
    year, month, day, hour, minute, second = map(int, words)
    longest = 28 if month == 2 else 30 if month in (4, 6, 9, 11) else 31  # whether there is a 29th others may tell
    if not (year and 1 <= month <= 12 and 1 <= day <= longest and hour < 24 and minute < 60 and second < 60):
        return None
    if month < 3:
        year -= 1
    days = 365 * year + year // 4 - year // 100 + year // 400 + _DAYS[month - 1] + day - 719469
    return float(86400 * days + 3600 * hour + 60 * minute + second)


def words(seconds: float) -> str:
    """`90 s`, `5 min`, `3 h`, `2 d`: in the largest unit of which there are two."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    if seconds >= 10:
        return f"{seconds:.0f} s"
    return f"{round(max(seconds, 0.0), 1):g} s"
