"""The rules of alerts.rules: of which number of the health check people are to be told, and when.

    # a comment
    success_rate < 0.95 for 20 incidents
    open_escalations > 0 : somebody has to decide
    stale_locks > 3 for 30m
    pending_age > 2d

A line is a rule: NAME OP VALUE, then `for N incidents` (fewer say nothing) or `for TIME` (so long it must have been
true, at every look), then `: words` for whoever is told.  NAME is one of the performance data, or of Prometheus without
its prefix; OP one of < <= > >= == !=; VALUE has the units of a threshold, and a ratio may be written in per cent.
Pure, but for `read`.
"""

from __future__ import annotations

import operator
import re

from recovery import jsontext, layout, request, thresholds
from recovery.errors import DataError, UsageError
from recovery.health_checks import FEW, MEASURES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Iterator, Mapping, Optional, Sequence

    from recovery.store import FileStore

    Judged = Mapping[str, tuple[Optional[bool], Optional[float]]]

#: Rules that a file may have, characters of a line, and bytes of all.
MOST = 200
LONGEST = 1000
LARGEST = 1 << 18
_OPS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_TOKEN = re.compile(r"[<>=!]+|:|[^\s<>=!:]+")
#: The numbers that are of incidents, and so may be too few to say anything.
_OF_INCIDENTS = ("success_rate", "lock_wait", "retry_time")
_BY_METRIC = {one.metric: name for name, one in MEASURES.items()}


class BadRule(Exception):
    """A line that is no rule: `line` and `column`, from 1, and `words` for what is wrong there."""

    def __init__(self, line: int, column: int, words: str) -> None:
        super().__init__(f"{layout.ALERT_RULES}:{line}:{column}: {words}")
        self.line, self.column, self.words = line, column, words


class Rule:
    """One rule: the number `measure` (see MEASURES), times `scale`, compared by `op` with `value`.

    key        the rule as one writes it, with single spaces: what it is known by from one look to the next
    incidents  so many there must be for it to say anything
    seconds    so long it must have been true
    words      what those who are told are to read, "" for none
    """

    __slots__ = ("column", "incidents", "key", "line", "measure", "op", "scale", "seconds", "value", "words")

    def __init__(self, line: int, column: int, measure: str, scale: float, op: str, value: float) -> None:
        self.line, self.column, self.measure, self.scale, self.op, self.value = line, column, measure, scale, op, value
        self.key = self.words = ""
        self.incidents = FEW if measure == "success_rate" else 0
        self.seconds = 0.0

    def judge(self, values: Mapping[str, float]) -> tuple[Optional[bool], Optional[float]]:
        """Whether it is true of what the checks found, None where they don't tell; and the number.

        Too few incidents make nothing true and nothing over; none at all say that what there was is over.
        """
        found = values.get(self.measure)
        incidents = values.get("incidents")
        if found is None:
            return (False if self.measure in _OF_INCIDENTS and incidents == 0 else None), None
        value = round(found * self.scale, 9)
        holds = _OPS[self.op](value, self.value)
        if holds and self.incidents and (incidents is None or incidents < self.incidents):
            return (False if incidents == 0 else None), value
        return holds, value


def read(store: FileStore) -> Optional[tuple[list[Rule], list[BadRule]]]:
    """The rules of a workspace and the lines that are none; None without such a file.  DataError (65), Denied (77)."""
    there = store.read_state(layout.ALERT_RULES)
    if there is not None and there.st_size > LARGEST:
        raise DataError(f"{layout.ALERT_RULES} is larger than {LARGEST} bytes")
    version = store.read(layout.ALERT_RULES)
    return parse(jsontext.from_latin(version.text)) if version is not None else None


def judge(rules: Sequence[Rule], values: Mapping[str, float]) -> Judged:
    """Of each rule, by its key, whether it is true (None: not known), and its number."""
    return {rule.key: rule.judge(values) for rule in rules}


def parse(text: str) -> tuple[list[Rule], list[BadRule]]:
    """The rules of a file, in order, and the lines that are none; one bad line spoils no other."""
    rules: list[Rule] = []
    bad: list[BadRule] = []
    keys: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        try:
            rule = _rule(number, line.rstrip("\r"))
            if rule is None:
                continue
            if rule.key in keys:
                raise BadRule(number, rule.column, f"this rule stands in line {keys[rule.key]} already")
            if len(rules) >= MOST:
                raise BadRule(number, rule.column, f"more than {MOST} rules")
            keys[rule.key] = number
            rules.append(rule)
        except BadRule as error:
            bad.append(error)
    return rules, bad


class _Words:
    """The words of a line, one after the other."""

    def __init__(self, number: int, line: str) -> None:
        self.number, self.line = number, line
        self._found: Iterator[re.Match[str]] = _TOKEN.finditer(line)
        self.next()

    def next(self) -> str:
        """Go on; returns the word that was at hand before."""
        before = getattr(self, "word", "")
        match = next(self._found, None)
        if match is not None and match[0].startswith("#"):  # a comment behind a rule
            match = None
        self.word = match[0] if match is not None else ""
        self.at = match.start() if match is not None else len(self.line.rstrip())
        return before

    def wrong(self, words: str) -> BadRule:
        return BadRule(self.number, self.at + 1, words)


def _rule(number: int, line: str) -> Optional[Rule]:
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    if len(line) > LONGEST:
        raise BadRule(number, LONGEST + 1, f"a rule is at most {LONGEST} characters long")
    words = _Words(number, line)
    column, name_at = words.at + 1, words.at
    name = words.word
    measure = _BY_METRIC.get(name, name)
    if measure not in MEASURES or measure == "alerts":
        raise words.wrong(f"there is no number {_short(name)}; {_like(name)}")
    one = MEASURES[measure]
    by_metric = name != measure and name in _BY_METRIC
    scale, unit = (one.scale, "" if one.unit == "%" else one.unit) if by_metric else (1.0, one.unit)
    words.next()
    op = words.word
    if op not in _OPS:
        raise words.wrong(f"one of {' '.join(_OPS)} belongs here" + (f", not {_short(op)}" if op else ""))
    words.next()
    value = _value(words, unit, one.metric.endswith("_ratio"))
    rule = Rule(number, column, measure, scale, op, value)
    words.next()
    if words.word == "for":
        words.next()
        _for(words, rule)
    end = words.at
    if words.word == ":":
        rule.words = line[words.at + 1 :].strip()
        if not rule.words:
            raise words.wrong("words for whoever is told belong behind the colon")
    elif words.word:
        raise words.wrong(f"`for N incidents`, `for TIME` or `: words` may stand here, not {_short(words.word)}")
    rule.key = " ".join(match[0] for match in _TOKEN.finditer(line, name_at, end))
    rule.key = rule.key.partition(" #")[0]
    return rule


def _value(words: _Words, unit: str, is_ratio: bool) -> float:
    text, factor = words.word, 1.0
    if is_ratio and not unit and text.endswith("%"):
        text, factor = text[:-1], 0.01
    try:
        return round(thresholds.amount(text, unit) * factor, 9)
    except ValueError:
        kinds = {"s": "a time like 90 or 10m", "B": "a size like 64M", "%": "a number of per cent like 80%"}
        what = f", not {_short(text)}" if text else ""
        raise words.wrong(f"{kinds.get(unit, 'a number')} belongs here{what}") from None


def _for(words: _Words, rule: Rule) -> None:
    """`N incidents`, or a time."""
    here = words.wrong("`20 incidents` or a time like 10m belongs behind `for`")
    text = words.next()
    if words.word in ("incident", "incidents"):
        if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1 and len(text) <= 9):
            raise here
        if rule.measure not in _OF_INCIDENTS:
            raise words.wrong("only numbers of incidents are judged so: " + " ".join(_OF_INCIDENTS))
        rule.incidents = int(text)
        words.next()
        return
    try:
        rule.seconds = request.duration(text, "for") if text else 0.0
    except UsageError:
        raise here from None
    if not 0 < rule.seconds <= 366 * 86400:
        raise here


def _like(name: str) -> str:
    """Names that may be meant."""
    from difflib import get_close_matches  # only for who has mistyped

    found = get_close_matches(name, [*MEASURES, *_BY_METRIC], 3, 0.5)
    return f"maybe {' or '.join(found)}" if found else "names are those of health_check.sh's performance data"


def _short(text: str) -> str:
    return ascii(text[:40])
