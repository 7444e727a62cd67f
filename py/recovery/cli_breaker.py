"""`recovery breaker`: the circuit breakers of the workspace.

A script asks with `allow`.  There is no way to count a script's failures from here: how many open a breaker stands in
the program that calls it, and a half-open one lets in whoever holds its ticket, a lock that ends with its process, so
two commands in a row can't hold it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from recovery import layout, request
from recovery.cli import DryRun, Json, Quiet, Root, actions, answer, opened, session, tell
from recovery.errors import NotFound, UsageError
from recovery.status import plain

app = actions()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The breaker.")]


def _all(root: str | None) -> list[dict[str, Any]]:
    from recovery.breaker import all_breakers

    with opened(root, "breaker") as store:
        return all_breakers(store)


def _find(root: str | None, name: str) -> dict[str, Any] | None:
    layout.require_id("breaker", name)
    return next((one for one in _all(root) if one["name"] == name), None)


def _require(root: str | None, name: str) -> dict[str, Any]:
    found = _find(root, name)
    if found is None:
        there = ", ".join(one["name"] for one in _all(root)[:20]) or "none"
        raise NotFound(f"there is no breaker {name}. Nothing changed.", hint=f"breakers here: {there}")
    return found


def _line(one: dict[str, Any]) -> str:
    words = [f"{one['name']:<24} {one['state']:<10}"]
    if one["until"]:
        words.append(f"until {one['until']}")
    if one["failures"]:
        words.append(f"{one['failures']} in a row failed")
    if one["state"] != "closed" and one["reason"]:
        words.append(plain(one["reason"]))
    words += [f"tried by {plain(who)}" for who in one["probes"]]
    if "problem" in one:
        words.append(plain(one["problem"]))
    return "  ".join(words).rstrip()


@app.command("list")
def list_all(root: Root = None, as_json: Json = False) -> int:
    """All breakers, and what state each is in."""
    found = _all(root)
    return answer({"breakers": found}, [_line(one) for one in found] or ["no breakers here"], as_json)


@app.command()
def show(name: Name, root: Root = None, as_json: Json = False) -> int:
    """One breaker."""
    found = _require(root, name)
    lines = [f"{key:<14} {plain(value)}" for key, value in found.items() if value not in (None, "", [])]
    return answer({"breaker": found}, lines, as_json)


@app.command()
def allow(name: Name, root: Root = None, as_json: Json = False, quiet: Quiet = False) -> int:
    """Whether to go on: exit 0, or 69 while it is open.  Counts nothing, and holds no ticket of a half-open one."""
    from recovery.breaker import CircuitOpen

    found = _find(root, name) or {"name": name, "state": "closed"}
    if "problem" in found:
        tell(f"{found['problem']}: it counts as {found['state']}")
    if found["state"] == "open":
        left = found["retry_after"]
        raise CircuitOpen(name, time.time() + left, left, found["reason"])
    return answer({"breaker": found}, [f"{name} is {found['state']}: go on"], as_json, quiet)


@app.command()
def trip(
    name: Name,
    length: Annotated[str | None, typer.Option("--for", metavar="10m", help="How long; by default 60 s.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="ISO 8601; UTC if it has no zone.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Said to who is refused.")] = "",
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """Open it, for a while or until a time; one that is open for longer stays so."""
    from recovery.breaker import CircuitBreaker

    layout.require_id("breaker", name)
    if length is not None and until is not None:
        raise UsageError("--for and --until: one of them is enough", hint="see --help")
    seconds = request.duration(length or "60", "--for")
    moment = None if until is None else _moment(until)
    if moment is not None:
        seconds = moment.timestamp() - time.time()
    if not 0 < seconds < 1e11:
        raise UsageError(f"{until or length!a} is not some time from now on. Nothing changed.", hint="see --help")
    why = reason.encode("utf-8", "surrogateescape").decode("utf-8", "replace")[:300] or "opened by hand"
    before = _find(root, name) or {"generation": None, "retry_after": 0.0}
    if before["retry_after"] > seconds:
        line = f"{name} is open until {before['until']}, which is longer; nothing changed"
        return answer({"breaker": before}, [line], as_json, quiet)
    if dry_run:
        return answer({"dry_run": True, "breaker": before}, [f"would open {name}; nothing changed"], as_json, quiet)
    breaker = CircuitBreaker(name, session=session(root))
    if moment is not None:
        breaker.open_until(moment, why)
    else:
        breaker.trip(seconds, why)
    after = _require(root, name)
    changed = after["generation"] != before["generation"]
    return answer({"breaker": after}, [f"{name} is open until {after['until']}"], as_json, quiet, changed=changed)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"--until={text[:40]!a} is no time like 2026-11-24T08:00:00Z", hint="see --help") from None


@app.command()
def reset(name: Name, root: Root = None, as_json: Json = False, quiet: Quiet = False, dry_run: DryRun = False) -> int:
    """Close it, and forget the failures it has counted."""
    from recovery.breaker import CircuitBreaker

    before = _require(root, name)
    if before["state"] == "closed" and not before["failures"] and "problem" not in before:
        return answer({"breaker": before}, [f"{name} is closed already; nothing changed"], as_json, quiet)
    if dry_run:
        return answer({"dry_run": True, "breaker": before}, [f"would close {name}; nothing changed"], as_json, quiet)
    CircuitBreaker(name, session=session(root)).reset()
    after = _require(root, name)
    return answer({"breaker": after}, [f"closed {name} (it was {before['state']})"], as_json, quiet, changed=True)
