"""The verbs that people look with: `recovery changes`, `recovery stats`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from recovery import changelog, derived, layout, request
from recovery.cli import Json, Quiet, Root, answer, opened, tell
from recovery.errors import FAILED, UsageError
from recovery.status import plain


def add_to(app: typer.Typer) -> None:
    for verb in (changes, stats):
        app.command()(verb)


# --- changes


def changes(
    agent: Annotated[str | None, typer.Argument(help="Only this agent; AGENT/TASK is accepted.")] = None,
    task: Annotated[str | None, typer.Argument(help="Only this task.")] = None,
    root: Root = None,
    most: Annotated[int, typer.Option("--most", min=1, help="How many, newest last.")] = 20,
    as_json: Json = False,
) -> int:
    """What was changed, when, by whom: the newest lines of data/changes/."""
    if agent and "/" in agent and task is None:
        agent, _, task = agent.partition("/")
    for kind, value in (("agent", agent), ("task", task)):
        if value is not None:
            layout.require_id(kind, value)
    found: list[dict[str, Any]] = []
    with opened(root, "changes") as store:
        for line in derived.newest_first(store, task or agent or ""):
            if changelog.is_of(line, agent or "", task or ""):
                found.append(line)
            if len(found) >= most:
                break
    found.reverse()
    lines = [words for line in found for words in changelog.shown(line)]
    return answer({"changes": found}, lines or ["no changes are recorded"], as_json)


# --- stats

#: How many of a table's rows are shown; --json has them all.
_ROWS = 6


def stats(
    task: Annotated[str | None, typer.Argument(help="Only this task.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="24h|TIME", help="From then on.")] = None,
    alert_below: Annotated[
        float | None, typer.Option("--alert-below", min=0, max=1, metavar="RATE", help="Exit 1 below it.")
    ] = None,
    at_least: Annotated[int, typer.Option("--at-least", min=1, metavar="N", help="… from so many recoveries on.")] = 20,
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """The numbers of the recovery logs; see `recovery.stats.recovery_stats`, which defines each."""
    from recovery.stats import recovery_stats

    task = None if task is None else request.task_of(task)
    start = None if since is None else _since(since)
    with opened(root, "stats") as store:
        numbers = recovery_stats(store, task, start)
    data: dict[str, Any] = {"task": task, "since": start, "stats": numbers}
    if alert_below is None:
        return answer(data, _screen(numbers), as_json, quiet)
    rate, total = numbers["success_rate"], numbers["total_recoveries"]
    data["alert"] = {"below": alert_below, "at_least": at_least, "raised": total >= at_least and rate < alert_below}
    if not data["alert"]["raised"]:
        return answer(data, _screen(numbers), as_json, quiet)
    why = f"success_rate {rate:.4f} of {total} recoveries is below {alert_below:g}"
    hint = "recovery escalations shows what waits for a person"
    code = answer({**data, "error": why, "hint": hint, "next": hint}, _screen(numbers), as_json, quiet, code=FAILED)
    tell(why)
    tell(f"  next: {hint}")
    return code


def _since(text: str) -> str:
    """A time, ISO 8601, or a duration before now; as ISO 8601.  UsageError (64)."""
    if len(text) == 8 and text.isascii() and text.isdigit():
        return text  # 20261124 is a day, not 234 days
    try:
        ago = request.duration(text, "--since")
    except UsageError:
        return text  # which recovery_stats refuses if it is no time
    when = max(time.time() - ago, 0.0)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _screen(numbers: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in numbers.items():
        if name == "success_rate":
            shown = f"{value:.4f}" if numbers["total_recoveries"] else "1.0000, for nothing went wrong"
        elif name == "by_outcome":
            shown = _row([f"{outcome} {n}" for outcome, n in value.items() if n])
        elif isinstance(value, dict):
            rows = sorted(value.items(), key=lambda item: -item[1]["total"])
            shown = _row([f"{plain(kind)} {one['successful']}/{one['total']}" for kind, one in rows])
        elif name in ("avg_retry_time", "lock_wait_time"):
            shown = f"{value:.3f} s"
        else:
            shown = f"{value} bytes" if name.endswith("_size") else f"{value}"
        lines.append(f"{name:<22} {shown}")
    return lines


def _row(words: list[str]) -> str:
    more = len(words) - _ROWS
    return ", ".join(words[:_ROWS] + ([f"{more} more (--json has them)"] if more > 0 else [])) or "-"
