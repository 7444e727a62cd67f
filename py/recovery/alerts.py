"""Alerts: people are told once when a rule of alerts.rules becomes true, and once when it is over.

What was told stands in data/alerts.json, one object: by rule, since when it is true (`since`, and `began` in seconds),
when people were told (`told_at`), whether it is `over` and they are still to be told that, and how often telling them
was begun and not noted as done (`telling`).  The beginning is noted, durably, before they are told, and the outcome
behind it: who dies in between leaves the note of the beginning, and the next look tells once more, and no third time.
Where it can't be noted (a full disk) they are told all the same, and again at the next look.
"""

from __future__ import annotations

import time

from recovery import alert_rules, jsontext, layout, notify, steps, turns
from recovery.commit import Put
from recovery.errors import DataError, RecoveryError
from recovery.store import transact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Optional, Sequence

    from recovery.alert_rules import Judged, Rule
    from recovery.notify import AnyNotifier, Event
    from recovery.store import FileStore

    Entry = dict[str, Any]
    State = dict[str, Entry]

#: People are told of one thing so often where each time somebody died before it was noted.
MOST = 2


class Told:
    """What came of a look: the rules of which people were told that they are `on`, or `over`, and what went wrong."""

    def __init__(self) -> None:
        self.on: list[str] = []
        self.over: list[str] = []
        self.problems: list[str] = []


def plan(
    rules: Sequence[Rule], judged: Judged, before: State, now: float, time: str, keep: bool
) -> tuple[State, State]:
    """Pure: the state after a look at `now` (`time`), and those of its entries of which people are to be told.

    A rule that is not there any more is over, unless the file could not be read as a whole (`keep`).
    """
    after: State = {}
    seconds = {rule.key: rule.seconds for rule in rules}
    for key in [*seconds, *(key for key in before if key not in seconds)]:
        was = before.get(key, {})
        holds = judged[key][0] if key in seconds else None if keep else False
        if holds is None:
            if was:
                after[key] = dict(was)
        elif holds:
            again = was.get("over") and was.get("telling")  # they may know that it was over
            after[key] = {"since": time, "began": now} if again else {"since": time, "began": now, **was}
            after[key]["began"] = min(after[key]["began"], now)  # the clock may have been set back
            if after[key].pop("over", False):
                after[key].pop("telling", None)
        elif was.get("over"):
            after[key] = dict(was)
        elif "told_at" in was or was.get("telling"):
            after[key] = {**{word: was[word] for word in was if word != "telling"}, "over": True}
    tell = {
        key: entry
        for key, entry in after.items()
        if entry.get("over") or ("told_at" not in entry and _is_due(entry, judged.get(key), seconds.get(key), now))
    }
    return after, tell


def _is_due(
    entry: Entry, judged: Optional[tuple[Optional[bool], Optional[float]]], seconds: Optional[float], now: float
) -> bool:
    """Whether a rule is true, and has been for long enough."""
    return judged is not None and bool(judged[0]) and seconds is not None and now - entry["began"] >= seconds


def look(
    store: FileStore,
    values: Mapping[str, float],
    notifiers: Sequence[AnyNotifier],
    now: float,
    within: float,
    monotonic: Callable[[], float] = time.monotonic,
) -> Told:
    """Tell `notifiers` of the rules that have become true, or over, since the last look.  RecoveryError, OSError.

    `values` are what the checks found: a number that isn't there leaves its rules as they were.  `within` is in
    seconds, for all telling together; who isn't told by then is told next time.  The caller holds no lock.
    """
    told = Told()
    turn = turns.take(store, layout.ALERTS)
    if turn is None:
        told.problems.append("nobody was told: another health check is telling at this moment")
        return told
    try:
        rules, bad = alert_rules.read(store) or ([], [])
        before = _read(store, told)
        judged = alert_rules.judge(rules, values)
        state, tell = plan(rules, judged, before, now, store.time(now), bool(bad))
        for key in [key for key, entry in tell.items() if entry.get("telling", 0) >= MOST]:
            del tell[key]
            _settle(state, key, store.time(now))
        if tell and notifiers:
            for entry in tell.values():  # which are the state's own
                entry["telling"] = entry.get("telling", 0) + 1
            before = _note(store, before, state, told)
            until = monotonic() + within
            by_key = {rule.key: rule for rule in rules}
            for key in list(tell):
                event = event_of(key, by_key.get(key), tell[key], judged.get(key), values, store.time(now))
                _tell(store, state, key, event, notifiers, until - monotonic(), told)
        else:
            told.problems += [
                f"nobody was told of `{key}`: name somebody in RECOVERY_NOTIFY_CMD or RECOVERY_NOTIFY_URL"
                for key in tell
            ]
        _note(store, before, state, told)
    finally:
        turn.release()
    return told


def _tell(
    store: FileStore,
    state: State,
    key: str,
    event: Event,
    notifiers: Sequence[AnyNotifier],
    within: float,
    told: Told,
) -> None:
    steps.at("alert", key)
    problems = notify.notify(notifiers, {**event, "root": store.root.path}, within, told.problems.append)
    steps.at("alerted", key)
    if len(problems) < len(notifiers):
        (told.over if state[key].get("over") else told.on).append(key)
        _settle(state, key, str(event["timestamp"]))
    else:  # nobody knows: the next look tries again, as often as it takes
        del state[key]["telling"]


def _settle(state: State, key: str, time: str) -> None:
    """People know: it is on, or it is over and forgotten."""
    if state[key].get("over"):
        del state[key]
    else:
        state[key].pop("telling", None)
        state[key]["told_at"] = time


def event_of(
    key: str,
    rule: Optional[Rule],
    entry: Entry,
    judged: Optional[tuple[Optional[bool], Optional[float]]],
    values: Mapping[str, float],
    time: str,
) -> Event:
    """What a notifier gets: the members of an escalation's event (see `recovery.notify`); `success`: it is over."""
    over, value = bool(entry.get("over")), judged[1] if judged is not None else None
    number = f"{key.split(' ')[0]} is {value:.6g}" if value is not None else "there is nothing of it any more"
    text = f"{number} ({key}, since {entry['since']})"
    if over:
        text = f"over: {text if rule is not None else f'the rule is gone ({key})'}"
    if rule is not None and rule.words:
        text += f": {rule.words}"
    details = {"rule": key, "state": "over" if over else "on", "value": value, "since": entry["since"]}
    if "incidents" in values:
        details["incidents"] = values["incidents"]
    return {
        "task_id": "",
        "agent_id": "",
        "timestamp": time,
        "error_type": "Alert",
        "error_message": text,
        "strategy": "ESCALATE",
        "success": over,
        "details": details,
        "file": layout.ALERT_RULES,
    }


def _read(store: FileStore, told: Told) -> State:
    """What was told; nothing where that can't be read, which is said: what is on is told again then."""
    try:
        version = store.read(layout.ALERTS)
        if version is None:
            return {}
        found = jsontext.loads(jsontext.from_latin(version.text))
        return {key: dict(entry) for key, entry in found["rules"].items() if _is_entry(entry)}
    except (DataError, ValueError, TypeError, LookupError, AttributeError):
        told.problems.append(f"{layout.ALERTS} is damaged: what is on is told anew")
        return {}


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry.get("since")) is str
        and type(entry.get("began")) in (int, float)
        and type(entry.get("telling", 0)) is int
    )


def _note(store: FileStore, before: State, state: State, told: Told) -> State:
    """Write the state, durably, where it is another than `before`; returns what is noted now."""
    if state == before:
        return before
    text = jsontext.pretty({"format": 1, "rules": state}) + "\n"
    name = layout.ALERTS
    try:
        transact(store, [name], lambda: Put(name, store.read(name, strict=False), text), create=True)
    except (RecoveryError, OSError) as error:
        told.problems.append(f"what was told could not be noted, and may be told again: {error}")
        return before
    return {key: dict(entry) for key, entry in state.items()}
