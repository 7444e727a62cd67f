"""When a number is worth a warning: ranges as monitoring plugins write them, and what a number in them means.

A range is what is *not* alerted on, ends included: `10` (0 to 10), `10:` (10 and more), `~:10` (10 and less), `10:20`;
`@10:20` alerts inside instead.  Pure functions of their arguments.
"""

from __future__ import annotations

from recovery.errors import UsageError

OK, WARNING, CRITICAL, UNKNOWN = range(4)
LEVELS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

#: What a number may be written with, by its unit (those of performance data): seconds, bytes, per cent, or a count.
_FACTORS = {
    "s": {"s": 1, "m": 60, "h": 3600, "d": 86400},
    "B": {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4},
    "%": {"%": 1},
    "": {},
}


class Range:
    """What is all right: from `low` to `high` (None: no end), or with `inside` everything but that."""

    __slots__ = ("high", "inside", "low")

    def __init__(self, low: float | None, high: float | None, inside: bool = False) -> None:
        self.low, self.high, self.inside = low, high, inside

    def alerts(self, value: float) -> bool:
        within = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        return within == self.inside

    def __str__(self) -> str:
        """As performance data has it, in seconds, bytes and per cent."""
        high = "" if self.high is None else number(self.high)
        low = "~:" if self.low is None else "" if not self.low and high else number(self.low) + ":"
        return ("@" if self.inside else "") + low + high


def parse(text: str, unit: str, name: str) -> Range:
    """A range in `unit` ("s", "B", "%" or ""), such as `10m`, `64M`, `0.95:`; UsageError (64), which names `name`."""
    body = text[1:] if text.startswith("@") else text
    low, colon, high = body.partition(":")
    if not colon:
        low, high = "0", low
    try:
        found = Range(
            None if low == "~" else amount(low, unit) if low else 0.0,
            amount(high, unit) if high else None,
            body != text,
        )
        if not body or (found.low is not None and found.high is not None and found.low > found.high):
            raise ValueError
    except ValueError:
        raise UsageError(f"{name}={text[:40]!a} is not a range like {_EXAMPLES[unit]}", hint="see --help") from None
    return found


_EXAMPLES = {"s": "10m or 1h:2h", "B": "64M", "%": "80", "": "10 or 0.95:"}


def amount(text: str, unit: str) -> float:
    """A number with its unit ("s", "B", "%" or ""), without a sign; ValueError."""
    factor = _FACTORS[unit].get(text[-1:])
    digits = text if factor is None else text[:-1]
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > 18:
        raise ValueError
    return float(digits) * (factor or 1)


def number(value: float) -> str:
    """A number for programs: no exponent, no trailing zeros, thousandths at most."""
    return f"{value:.3f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))


def level(value: float, warning: Range | None, critical: Range | None) -> int:
    """What a number means."""
    if critical is not None and critical.alerts(value):
        return CRITICAL
    return WARNING if warning is not None and warning.alerts(value) else OK


def worst(levels: list[int]) -> int:
    """The one that counts of several: what isn't known is worse than a warning."""
    return max(levels, key=(OK, WARNING, UNKNOWN, CRITICAL).index, default=OK)
