"""escalations: what waits for a person, each with the command to run next, and saying that it was dealt with."""

from __future__ import annotations

import os
import sys

from recovery import escalations, jsontext, layout, parking, request
from recovery.errors import FAILED, NotFound, RecoveryError, UsageError
from recovery.request import Request, Verb
from recovery.status import plain
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore

#: The actions, and the words that each takes at least and at most.
_ACTIONS = {"list": (0, 0), "show": (1, 2), "resolve": (1, 2), "clear": (1, 1), "notify": (0, 0)}


# --- looking


def listed(store: FileStore, everything: bool = False) -> Result:
    """Open escalations, parked tasks, calls whose outcome is unknown; with `everything` the resolved ones too."""
    waiting = [_escalation(store, one) for one in escalations.open_escalations(store)]
    unknown = unknown_calls(store)
    settle_first = {one["task"]: one["next"] for one in unknown if "task" in one}
    parked = [
        {
            "task": task,
            "reason": parking.reason(store, task),
            "next": settle_first.get(task) or _command(store, "clear", task),
        }
        for task in parking.parked(store)
    ]
    counts = [
        f"{len(waiting)} open {'escalation' if len(waiting) == 1 else 'escalations'}",
        f"{len(parked)} parked {'task' if len(parked) == 1 else 'tasks'}",
        f"{len(unknown)} {'call' if len(unknown) == 1 else 'calls'} of unknown outcome",
    ]
    lines = [", ".join(counts) if waiting or parked or unknown else "nothing waits for a person"]
    for one in waiting:
        lines += [_shown(one) + ("" if "notified_at" in one else "  (nobody was told)"), f"    next: {one['next']}"]
    for one in parked:
        lines += [f"{one['task']:<16} parked   {plain(one['reason'])}", f"    next: {one['next']}"]
    for one in unknown:
        words = one.get("error") or f"was started at {one['started_at']} by a process that died"
        lines += [f"{plain(one['key']):<16} call     {plain(words)}", f"    next: {one['next']}"]
    data: dict[str, Any] = {"escalations": waiting, "parked": parked, "unknown": unknown}
    if everything:
        done = escalations.open_escalations(store, layout.LOGS + "/resolved")
        data["resolved"] = [_escalation(store, one, open_=False) for one in done]
        lines += ["", "resolved:", *map(_shown, data["resolved"])] if done else []
    return _answer(lines, data)


def _escalation(store: FileStore, one: dict[str, Any], open_: bool = True) -> dict[str, Any]:
    """What there is to say about an escalation, on one level."""
    entry = one.get("entry", {})
    told: dict[str, Any] = {key: one[key] for key in ("task", "n", "name", "time", "error") if key in one}
    kept = ("agent_id", "error_type", "error_message", "notified_at")
    told.update({key: entry[key] for key in kept if key in entry})
    if open_:
        told["next"] = _command(store, "resolve", one["task"], str(one["n"]))
    return told


def _shown(one: dict[str, Any]) -> str:
    words = one.get("error") or f"{one.get('error_type')}: {one.get('error_message')}"
    return f"{one['task']:<16} no. {one['n']:<4} {plain(one['time'])}  {plain(words)}"


def unknown_calls(store: FileStore) -> list[dict[str, Any]]:
    """The idempotency keys that a dead process left started, and records that can't be read, each with its `next`."""
    found: list[dict[str, Any]] = []
    names = [base for base in store.list(layout.ONCE) if base.endswith(".json") and not base.startswith(".")]
    if not names:
        return found
    if sys.hexversion < 0x030B0000:
        store.told.append(f"{layout.ONCE}/ is not looked at: that needs Python 3.11")
        return found
    from recovery import once, turns

    for base in names:
        name = f"{layout.ONCE}/{base}"
        try:
            version = store.read(name)
            if version is None:
                continue
            record = once.parse(name, version.text)
        except RecoveryError as error:
            hint = error.hint or f"look at {name}"
            found.append({"key": base[: -len(".json")], "name": name, "error": str(error), "next": hint})
            continue
        if record["state"] != "started" or turns.holder(store, name) is not None:
            continue
        if store.read(name, known=version) is not version:
            continue  # it ended between the two looks
        key = str(record.get("key"))
        found.append(
            {
                "key": key,
                "name": name,
                "task": str(record.get("task_id") or ""),
                "started_at": str(record.get("started_at")),
                "by": record.get("by"),
                "next": request.settling(store.root.path, key),
            }
        )
    return found


def show(store: FileStore, task: str, n: Optional[int] = None) -> Result:
    """All that is known about a task's open escalations, or the n-th, and why it is parked.  NotFound (66)."""
    found = [one for one in escalations.open_escalations(store, only=task) if n in (None, one["n"])]
    why = parking.reason(store, task) if n is None else None
    if not found and why is None:
        which = "" if n is None else f" number {n}"
        raise NotFound(f"{task} has no open escalation{which}", hint=_command(store))
    lines = []
    for one in found:
        lines += [one["name"], jsontext.pretty(one["entry"]) if "entry" in one else one["error"]]
    if why is not None:
        lines += [f"{task} is parked: {why}", f"    next: {_command(store, 'clear', task)}"]
    if found:
        lines.append(f"    next: {_command(store, 'resolve', task)}")
    return _answer(lines, {"escalations": found, "parked": why})


# --- dealing with it


def resolve(store: FileStore, task: str, n: Optional[int] = None, dry_run: bool = False) -> Result:
    """It has been dealt with: see `escalations.resolve`."""
    if dry_run:
        every = escalations.open_escalations(store, only=task)
        names = [one["name"] for one in every if n in (None, one["n"])]
        line = f"would resolve {len(names)} of {task}; nothing changed"
        return _answer([line], {"dry_run": True, "escalations": names})
    names = escalations.resolve(store, task, n)
    lines = [f"resolved {len(names)} of {task}: {', '.join(names)}"]
    data: dict[str, Any] = {"escalations": names}
    if parking.reason(store, task) is not None:
        data["next"] = _command(store, "clear", task)
        lines.append(f"  it is still parked; next: {data['next']}")
    return _answer(lines, data, changed=True)


def clear(store: FileStore, task: str, dry_run: bool = False) -> Result:
    """A parked task may be run again: removes its flag in data/manual/."""
    why = parking.reason(store, task)
    if why is None:
        return _answer([f"{task} is not parked; nothing changed"], {"task": task})
    if dry_run:
        line = f"would let {task} run again, which waits for a person: {why}; nothing changed"
        return _answer([line], {"dry_run": True, "task": task, "reason": why})
    changed = parking.clear(store, task)
    line = f"{task} may be run again; it was parked: {why}"
    return _answer([line], {"task": task, "reason": why}, changed=changed)


def notify(store: FileStore, dry_run: bool = False) -> Result:
    """Tell RECOVERY_NOTIFY_CMD and RECOVERY_NOTIFY_URL of the escalations that nobody was told of; 1 if some are left.

    UsageError (64) if there are some, and nobody to be told.
    """
    waiting = _untold(store)
    if dry_run:
        line = f"would tell of {len(waiting)}; nothing changed"
        return _answer([line], {"dry_run": True, "escalations": waiting})
    if not waiting:
        return _answer(["there is nothing to tell"], {"told": [], "left": []})
    from recovery.notify import from_environment

    notifiers = from_environment(os.environ)
    if not notifiers:
        raise UsageError(
            f"nobody is there to be told of {len(waiting)}", hint="set RECOVERY_NOTIFY_CMD or RECOVERY_NOTIFY_URL"
        )
    problems = escalations.deliver(store, notifiers, most=len(waiting))
    left = _untold(store)
    told = [name for name in waiting if name not in left]
    data: dict[str, Any] = {"told": told, "left": left, "problems": problems}
    line = f"told of {len(told)}" + (f"; {len(left)} are left" if left else "")
    if not left:
        return _answer([line], data, changed=bool(told))
    why = f"nobody could be told of {len(left)} of {len(waiting)} escalations"
    hint = "mend what is said above, then run the same command again"
    store.told += [why, f"  next: {hint}"]
    more = {"ok": False, "code": FAILED, "error": why, "hint": hint, "next": hint}
    return _answer([line], {**data, **more}, changed=bool(told))


def _untold(store: FileStore) -> list[str]:
    found = escalations.open_escalations(store)
    return [one["name"] for one in found if "entry" in one and "notified_at" not in one["entry"]]


def _command(store: FileStore, *words: str) -> str:
    return request.command(store.root.path, "escalations", *words)


def _answer(lines: list[str], data: dict[str, Any], changed: bool = False) -> Result:
    return Result(lines[0], changed, {"ok": True, "code": 0, "changed": changed, **data}, lines[1:])


# --- the command line


def _parse(asked: Request) -> list[Any]:
    action, *words = asked.words or ["list"]
    if action not in _ACTIONS:
        raise UsageError(f"escalations has no {action[:40]!a}: {' '.join(_ACTIONS)}", hint="see --help")
    least, most = _ACTIONS[action]
    if not least <= len(words) <= most:
        raise UsageError(f"{action} wants {'TASK' if least else 'no more words'}", hint="see --help")
    if words:
        words[0] = request.task_of(words[0])
    n: Optional[int] = None
    if len(words) > 1:
        if not (words[1].isascii() and words[1].isdigit()):
            raise UsageError(f"{words[1][:40]!a} is no number of an escalation", hint=f"recovery escalations {action}")
        n = int(words[1][:9])
    return [action, *words[:1], n]


def _call(store: FileStore, asked: Request, call: list[Any]) -> Result:
    action, dry_run = call[0], asked.asked("dry_run")
    if action == "list":
        return listed(store, asked.asked("all"))
    if action == "show":
        return show(store, call[1], call[2])
    if action == "resolve":
        return resolve(store, call[1], call[2], dry_run)
    if action == "clear":
        return clear(store, call[1], dry_run)
    return notify(store, dry_run)


VERB = Verb({"--all": "all", "--dry-run": "dry_run"}, _parse, _call, tries=False, indent="")
