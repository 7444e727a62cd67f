"""What waits for a person: `recovery escalations`."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from recovery import escalations, jsontext, layout, once, parking, say, turns
from recovery.cli import DryRun, Json, Quiet, Root, Task, actions, answer, opened, task_id, tell
from recovery.errors import FAILED, NotFound, RecoveryError, UsageError
from recovery.status import plain
from recovery.store import FileStore

actions_of = actions()

Number = Annotated[int | None, typer.Argument(metavar="[N]", min=0, help="Only the n-th, as `list` numbers them.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(actions_of, name="escalations")


# --- looking


@actions_of.command("list")
def list_all(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> int:
    """What waits for a person: open escalations, parked tasks, calls whose outcome is unknown."""
    with opened(root, "escalations list") as store:
        waiting = [_escalation(one, root) for one in escalations.open_escalations(store)]
        unknown = unknown_calls(store, root)
        settle_first = {one["task"]: one["next"] for one in unknown if "task" in one}
        parked = [
            {
                "task": task,
                "reason": parking.reason(store, task),
                "next": settle_first.get(task) or say.command(root, "escalations", "clear", task),
            }
            for task in parking.parked(store)
        ]
        done = escalations.open_escalations(store, layout.LOGS + "/resolved") if everything else []
    resolved = [_escalation(one, None, open_=False) for one in done]
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
    lines += ["", "resolved:", *map(_shown, resolved)] if resolved else []
    data: dict[str, Any] = {"escalations": waiting, "parked": parked, "unknown": unknown}
    if everything:
        data["resolved"] = resolved
    return answer(data, lines, as_json)


def _escalation(one: dict[str, Any], root: str | None, open_: bool = True) -> dict[str, Any]:
    """What there is to say about an escalation, on one level."""
    entry = one.get("entry", {})
    told: dict[str, Any] = {key: one[key] for key in ("task", "n", "name", "time", "error") if key in one}
    told |= {key: entry[key] for key in ("agent_id", "error_type", "error_message", "notified_at") if key in entry}
    if open_:
        told["next"] = say.command(root, "escalations", "resolve", one["task"], str(one["n"]))
    return told


def _shown(one: dict[str, Any]) -> str:
    words = one.get("error") or f"{one.get('error_type')}: {one.get('error_message')}"
    return f"{one['task']:<16} no. {one['n']:<4} {plain(one['time'])}  {plain(words)}"


def unknown_calls(store: FileStore, root: str | None = None) -> list[dict[str, Any]]:
    """The idempotency keys that a dead process left started, and the records that can't be read, with what to run."""
    found: list[dict[str, Any]] = []
    for base in store.list(layout.ONCE):
        name = f"{layout.ONCE}/{base}"
        if base.startswith(".") or not base.endswith(".json"):
            continue
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
                "task": record.get("task_id"),
                "started_at": record.get("started_at"),
                "by": record.get("by"),
                "next": once.settling(root, key),
            }
        )
    return found


@actions_of.command()
def show(task: Task, n: Number = None, root: Root = None, as_json: Json = False) -> int:
    """All that is known about a task's open escalations, and why it is parked."""
    task = task_id(task)
    with opened(root, "escalations show") as store:
        found = [one for one in escalations.open_escalations(store) if one["task"] == task and n in (None, one["n"])]
        why = parking.reason(store, task) if n is None else None
    if not found and why is None:
        which = "" if n is None else f" number {n}"
        raise NotFound(f"{task} has no open escalation{which}", hint=say.command(root, "escalations"))
    lines = []
    for one in found:
        lines += [one["name"], jsontext.pretty(one["entry"]) if "entry" in one else one["error"]]
    if why is not None:
        lines += [f"{task} is parked: {why}", f"    next: {say.command(root, 'escalations', 'clear', task)}"]
    if found:
        lines.append(f"    next: {say.command(root, 'escalations', 'resolve', task)}")
    return answer({"escalations": found, "parked": why}, lines, as_json)


# --- dealing with it


@actions_of.command()
def resolve(
    task: Task,
    n: Number = None,
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """It has been dealt with: the task's open escalations, or the n-th, move to logs/recovery/resolved/."""
    task = task_id(task)
    with opened(root, f"escalations resolve {task}") as store:
        if dry_run:
            every = escalations.open_escalations(store)
            names = [one["name"] for one in every if one["task"] == task and n in (None, one["n"])]
            line = f"would resolve {len(names)} of {task}; nothing changed"
            return answer({"dry_run": True, "escalations": names}, [line], as_json, quiet)
        names = escalations.resolve(store, task, n)
        why = parking.reason(store, task)
    lines = [f"resolved {len(names)} of {task}: {', '.join(names)}"]
    data: dict[str, Any] = {"escalations": names}
    if why is not None:
        data["next"] = say.command(root, "escalations", "clear", task)
        lines.append(f"  it is still parked; next: {data['next']}")
    return answer(data, lines, as_json, quiet, changed=True)


@actions_of.command()
def clear(task: Task, root: Root = None, as_json: Json = False, quiet: Quiet = False, dry_run: DryRun = False) -> int:
    """A parked task may be run again: removes its flag in data/manual/."""
    task = task_id(task)
    with opened(root, f"escalations clear {task}") as store:
        why = parking.reason(store, task)
        if why is None:
            return answer({"task": task}, [f"{task} is not parked; nothing changed"], as_json, quiet)
        if dry_run:
            line = f"would let {task} run again, which waits for a person: {why}; nothing changed"
            return answer({"dry_run": True, "task": task, "reason": why}, [line], as_json, quiet)
        changed = parking.clear(store, task)
    line = f"{task} may be run again; it was parked: {why}"
    return answer({"task": task, "reason": why}, [line], as_json, quiet, changed=changed)


@actions_of.command()
def notify(root: Root = None, as_json: Json = False, quiet: Quiet = False, dry_run: DryRun = False) -> int:
    """Tell RECOVERY_NOTIFY_CMD and RECOVERY_NOTIFY_URL of the escalations that nobody was told of."""
    from recovery.notify import from_environment

    notifiers = from_environment(os.environ)
    with opened(root, "escalations notify") as store:
        waiting = _untold(store)
        if dry_run:
            line = f"would tell of {len(waiting)}; nothing changed"
            return answer({"dry_run": True, "escalations": waiting}, [line], as_json, quiet)
        if not waiting:
            return answer({"told": [], "left": []}, ["there is nothing to tell"], as_json, quiet)
        if not notifiers:
            raise UsageError(
                f"nobody is there to be told of {len(waiting)}",
                hint="set RECOVERY_NOTIFY_CMD or RECOVERY_NOTIFY_URL",
            )
        problems = escalations.deliver(store, notifiers, most=len(waiting))
        left = _untold(store)
    told = [name for name in waiting if name not in left]
    data: dict[str, Any] = {"told": told, "left": left, "problems": problems}
    line = f"told of {len(told)}" + (f"; {len(left)} are left" if left else "")
    if not left:
        return answer(data, [line], as_json, quiet, changed=bool(told))
    why = f"nobody could be told of {len(left)} of {len(waiting)} escalations"
    hint = "mend what is said above, then run the same command again"
    tell(why)
    tell(f"  next: {hint}")
    data |= {"error": why, "hint": hint, "next": hint}
    return answer(data, [line], as_json, quiet, code=FAILED, changed=bool(told))


def _untold(store: FileStore) -> list[str]:
    found = escalations.open_escalations(store)
    return [one["name"] for one in found if "entry" in one and "notified_at" not in one["entry"]]
