"""When a quota comes back, from what a command says of it: `resets 3pm`, `retry after 90 seconds`, an epoch, ISO 8601.

Pure: text and the time now, to epoch seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

#: Seconds ahead that are believed; what lies further is no reset but some other number.
FURTHEST = 366 * 86400.0

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)?", re.IGNORECASE | re.ASCII
)
#: What looks like a date and isn't one holds no other time either.
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EPOCH = re.compile(r"(?<![\d.])(\d{10})(\d{3})?(?![\d])", re.ASCII)
_CLOCK = re.compile(
    r"(?<![\d:.])(\d{1,2})(?::(\d\d))?(?::\d\d)?\s*([ap])\.?m\b\.?|(?<![\d:.])(\d{1,2}):(\d\d)(?::\d\d)?(?![\d:])",
    re.IGNORECASE | re.ASCII,
)
_ZONE = re.compile(r"\b(UTC|GMT|Z)\b|([A-Z][A-Za-z_]+/[A-Z][A-Za-z_/+-]+)")
_SPAN = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])",
    re.IGNORECASE | re.ASCII,
)
_BARE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(?![\d.])", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def reset_in(output: str, pattern: re.Pattern[str], now: float, here: tzinfo | None = None) -> float | None:
    """The time (epoch seconds) that the last match of `pattern` in a command's output names; None if there is none.

    Read is the pattern's first group, or all of the match.  See `moment_of`.
    """
    matches = list(pattern.finditer(output))
    if not matches:
        return None
    found = matches[-1]
    said = found[1] if pattern.groups and found[1] is not None else found[0]
    return moment_of(said, now, here)


def moment_of(text: str, now: float, here: tzinfo | None = None) -> float | None:
    """The time that a text names, in epoch seconds; None if it names none that lies ahead, within a year.

    In this order: ISO 8601 (UTC where it has no zone); epoch seconds or milliseconds; a time of day such as `3pm` or
    `15:30`, the next one, by the zone that it names (`UTC`, `Europe/Berlin`), else by `here` (default: this machine's);
    a span, `1h 30m` or `90 seconds`; a number alone, which is seconds.
    """
    moment = _iso(text) or _epoch(text)
    if moment is None and not _DATE.search(text):
        clock = _CLOCK.search(text)
        moment = _next(clock, text, now, here) if clock is not None else _span(text, now)
    return moment if moment is not None and now < moment <= now + FURTHEST else None


def _iso(text: str) -> float | None:
    found = _ISO.search(text)
    if found is None:
        return None
    zone = (found[3] or "Z").upper()
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}{zone if zone[0] in '+-' else '+00:00'}").timestamp()
    except ValueError:
        return None


def _epoch(text: str) -> float | None:
    found = _EPOCH.search(text)
    return float(found[1]) if found is not None else None


def _next(found: re.Match[str], text: str, now: float, here: tzinfo | None) -> float | None:
    hour, minute = int(found[1] or found[4]), int(found[2] or found[5] or 0)
    if found[3] is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[3].lower() == "p" else 0)
    if hour > 23 or minute > 59:
        return None
    zone = _zone(text) or here
    today = datetime.fromtimestamp(now, zone) if zone is not None else datetime.fromtimestamp(now).astimezone()
    for days in (0, 1):
        day = today.replace(tzinfo=zone) + timedelta(days=days)
        moment = day.replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()
        if moment > now:
            return moment
    return None


def _zone(text: str) -> tzinfo | None:
    found = _ZONE.search(text)
    if found is None:
        return None
    if found[1]:
        return UTC
    try:
        return ZoneInfo(found[2])
    except (OSError, ValueError, KeyError):  # no such zone, or no table of them
        return None


def _span(text: str, now: float) -> float | None:
    spans = _SPAN.findall(text)
    if spans:
        return now + sum(float(number) * _unit(unit.lower()) for number, unit in spans)
    found = _BARE.search(text)
    return now + float(found[1]) if found is not None else None


def _unit(word: str) -> float:
    if word.startswith(("ms", "milli")):
        return _UNITS["ms"]
    return _UNITS[word[0]]
