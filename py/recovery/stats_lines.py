"""The lines of a recovery log, read fast: what statistics need of each (see `recovery.incidents`)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from recovery import jsontext
from recovery.errors import UsageError
from recovery.incidents import OUTCOMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Any

    Row = tuple[str, str, str, str, str, str, Any, Any, Any, str]


def moment_of(since: datetime | float | str | None) -> str:
    """A time as it is compared: UTC, ISO 8601, no offset, microseconds only where there are some; "" for None.

    Such texts sort as their times do.
    """
    if since is None:
        return ""
    try:
        if isinstance(since, str):
            return canonical(datetime.fromisoformat(since))
        if isinstance(since, datetime):
            return canonical(since)
        return canonical(datetime(1970, 1, 1) + timedelta(microseconds=round(since * 1_000_000)))
    except (ValueError, OverflowError, TypeError):
        raise UsageError(f"{str(since)[:60]!a} is no time: a datetime, seconds since 1970 or ISO 8601") from None


def canonical(when: datetime) -> str:
    if when.tzinfo is not None:
        when = when.astimezone(UTC).replace(tzinfo=None)
    return when.isoformat()


@cache
def _row_pattern(plain: str, escapes: str) -> re.Pattern[str]:
    """A line as `Incident` writes it, which this reads several times as fast as a JSON parser; or any other, in the
    last group.  What it matches is JSON without a second of the keys that count; whatever it doesn't match is parsed.
    """
    import re  # which takes as long to read, and to make this pattern, as a parser takes for SMALL

    name, string = rf'"({plain}*+)"', rf'"{plain}*+{escapes}"'
    integer = "(?:0|[1-9][0-9]{0,8}+)"
    number = rf"{integer}(?:\.[0-9]{{1,9}}+)?+(?:e-[0-9]{{2}}+)?+"
    simple = f"(?:{string}|-?{number}|true|false|null)"
    pairs = f"{string}: {simple}(?:, {string}: {simple})*+"
    value = rf"(?:{simple}|\[(?:{simple}(?:, {simple})*+)?+\]|\{{(?:{pairs})?+\}})"
    date = (
        r"[12][0-9]{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
        r"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    )
    outcome = (
        rf'"outcome": "({"|".join(OUTCOMES)})", "attempts": ({integer}), '
        rf'"seconds": ({number}), "lock_wait": ({number})'
    )
    return re.compile(
        rf'(?:\{{"txid": {string}, "task_id": "({plain}++)", "timestamp": "({date})Z", "error_type": {name}, '
        rf'"error_message": {string}, "strategy": {name}, "success": (?:true|false), '
        rf'"details": \{{"incident": "({plain}++)", (?:"attempt": {integer}|{outcome})'
        rf'(?:, "(?!(?:incident|outcome|attempts|seconds|lock_wait)"){plain}*+": {value})*+\}}\}}|(.*))\n'
    )


_ANY = (r'[^"\\\x00-\x1f]', r'(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+')
#: The same where nothing but newlines and quotes can end a string, in two thirds of the time.
_UNESCAPED = ('[^"]', "")
#: So many bytes of lines are left to the parser before the pattern is made.
SMALL = 64 * 1024
_left = SMALL
_TO_BE_PARSED = ("",) * 9
_ORDINARY = bytes(c for c in range(32, 256) if c != 92)


def rows_of(data: bytes) -> list[Row]:
    """A row for each line of `data`, which ends with a newline; a line to be parsed stands in the row's last place."""
    global _left
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        lines = []
        for line in data.split(b"\n"):
            try:
                lines.append(line.decode("utf-8"))
            except UnicodeDecodeError:
                lines.append("?")  # which is no JSON either
        text = "\n".join(lines)
    if len(data) <= _left:
        _left -= len(data)
        return [(*_TO_BE_PARSED, line) for line in text.split("\n")[:-1]]
    special = data.translate(None, _ORDINARY)
    if special.count(b"\n") == len(special):
        rows: list[Row] = _row_pattern(*_UNESCAPED).findall(text)
        if len(rows) == len(special):  # else a string ran on into the next line
            return rows
    return _row_pattern(*_ANY).findall(text)


def parsed(line: str, task: str) -> Row | None:
    """The row of a line that is not laid out as ours are; None if it is none."""
    try:
        record = jsontext.loads(line)
        details = record["details"]
        when = canonical(datetime.fromisoformat(record["timestamp"]))
        texts = (record["task_id"], record["error_type"], record["strategy"], details["incident"])
        if not all(isinstance(text, str) for text in texts) or texts[0] != task or not texts[3]:
            return None
        row = (task, when, *texts[1:])
        if "outcome" not in details:
            return (*row, "", 0, 0, 0, "")
        outcome, attempts = details["outcome"], details["attempts"]
        seconds, lock_wait = details["seconds"], details["lock_wait"]
    except (ValueError, TypeError, LookupError, OverflowError):
        return None
    if not isinstance(outcome, str) or outcome not in OUTCOMES or type(attempts) is not int:
        return None
    if not all(type(number) in (int, float) and 0 <= number < 1e9 for number in (attempts, seconds, lock_wait)):
        return None
    return (*row, outcome, attempts, seconds, lock_wait, "")
