"""doctor: find what is broken in a workspace, name it, and repair it without losing anything."""

from __future__ import annotations

from recovery import examine, gone, layout, tasks
from recovery.errors import FAILED, NotFound, UsageError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.damage import Finding
    from recovery.examine import Examined
    from recovery.store import FileStore


#: So many findings are told as lines.
_MOST = 100
#: Repairs go on until nothing more is found, so often at most.
_ROUNDS = 3


def doctor(store: FileStore, agent: str = "", repair: bool = False, dry_run: bool = False) -> Result:
    """Look through the workspace, or through one agent's part of it, and name what is broken; reads only.

    With `repair` what can be is brought back (see `recovery.treat`); with `dry_run` too, it is only said what would be
    written.  The code is 1 where something is, or stays, broken.  NotFound (66): there is no such agent.
    """
    if agent and agent not in store.list("postbox") and not gone.Known(store).misses(agent):
        raise NotFound(f"there is no agent {agent}", hint="agents here: " + (" ".join(store.list("postbox")) or "none"))
    found = examine.examine(store, agent)
    data: dict[str, Any] = {
        "ok": not found.findings,
        "code": FAILED if found.findings else 0,
        "changed": False,
        "agents": found.agents,
        "files": found.files,
        "findings": [one.data() for one in found.findings],
    }
    looked = f"{_count(found.agents, 'agent')}, {_count(found.files, 'file')} looked through"
    if not found.findings:
        return Result(f"nothing is broken; {looked}" + ("; nothing changed" if repair else ""), False, data)
    lines = _told(found.findings)
    if repair:
        return _repaired(store, agent, found, data, lines, dry_run)
    line = f"{_count(len(found.findings), 'finding')}; {looked}; nothing changed"
    data["next"] = _next(found, agent)
    return Result(line, False, data, [*lines, f"next: {data['next']}"])


def _repaired(
    store: FileStore, agent: str, found: Examined, data: dict[str, Any], lines: list[str], dry_run: bool
) -> Result:
    from recovery import treat

    made = treat.Treated()
    still = found
    for _ in range(_ROUNDS):
        before = len(made.lines)
        treat.treat(store, still.findings, made, dry_run)
        if dry_run or len(made.lines) == before:
            break
        still = examine.examine(store, agent)  # what was damaged may have hidden something else
        if not any(one.repair for one in still.findings):
            break
    data.update(repaired=made.files, undecided=made.asked, left=made.left)
    told = [tasks.shown(one, 2000) for one in made.lines]
    told += [tasks.shown(f"undecided: {one}", 600) for one in made.asked]
    told += [tasks.shown(f"left alone: {one}", 600) for one in made.left]
    if dry_run:
        data["dry_run"] = True
        said = f"{_count(len(found.findings), 'finding')}; would repair {_count(len(made.lines), 'thing')}"
        return Result(f"{said}; nothing changed", False, data, [*lines, *told])
    changed = bool(made.lines)
    data.update(changed=changed, ok=not still.findings, code=FAILED if still.findings else 0)
    data["still"] = [one.data() for one in still.findings]
    said = f"repaired {_count(len(made.lines), 'thing')}" if changed else "nothing that could be repaired"
    if still.findings:
        told += [f"still: {line}" for line in _told(still.findings)]
        said += f"; {_count(len(still.findings), 'finding')} left for a person"
        left = next((one.person for one in still.findings if one.person), "look at what is still broken")
        data["next"] = made.next or left
    elif made.asked:
        said += f"; {_count(len(made.asked), 'question')} for a person"
        data["next"] = "recovery escalations"
    else:
        said += "; nothing is broken now"
    return Result(said, changed, data, [*told, *([f"next: {data['next']}"] if "next" in data else [])])


def removed(store: FileStore, agent: str, dry_run: bool = False) -> Result:
    """Say that an agent whose folder is gone was removed on purpose.  See `recovery.gone.note_removed`."""
    is_news = gone.note_removed(store, agent, dry_run)
    data: dict[str, Any] = {"ok": True, "code": 0, "changed": is_news and not dry_run, "agent": agent}
    if not is_news:
        return Result(f"nobody misses {agent}; nothing changed", False, data)
    if dry_run:
        line = f"would note that {agent} was removed on purpose; nothing changed"
        return Result(line, False, {**data, "dry_run": True})
    return Result(f"noted that {agent} was removed on purpose: it is missed no more", True, data)


def _told(findings: list[Finding]) -> list[str]:
    lines = [one.text() for one in findings[:_MOST]]
    return lines + ([f"… and {len(findings) - _MOST} more (--json has them)"] if len(findings) > _MOST else [])


def _next(found: Examined, agent: str) -> str:
    if any(one.repair for one in found.findings):
        return "recovery doctor --repair" + (f" --agent {agent}" if agent else "")
    return next(one.person or "look at it" for one in found.findings)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _parse(request: Request) -> list[Any]:
    request.no_words()
    agent = request.options.get("agent", "")
    if "removed" in request.options:
        if agent or request.asked("repair"):
            raise UsageError("--removed goes alone: it only says that an agent was removed", hint="see --help")
        return [layout.require_id("agent", request.options["removed"]), request.asked("dry_run")]
    if request.asked("dry_run") and not request.asked("repair"):
        raise UsageError("--dry-run belongs to --repair: without it nothing is ever changed", hint="see --help")
    return [layout.require_id("agent", agent) if agent else "", request.asked("repair"), request.asked("dry_run")]


VERB = Verb(
    {"--agent": "agent=", "--removed": "removed=", "--repair": "repair", "--dry-run": "dry_run"},
    _parse,
    lambda store, request, call: removed(store, *call) if len(call) == 2 else doctor(store, *call),
    tries=False,
    indent="",
    mends=True,
)
