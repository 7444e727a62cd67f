"""doctor: find what is broken in a workspace, name it, and repair it without losing anything."""

from __future__ import annotations

from recovery import examine, layout
from recovery.errors import FAILED, NotFound
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.examine import Examined
    from recovery.store import FileStore


def doctor(store: FileStore, agent: str = "") -> Result:
    """Look through the workspace, or through one agent's part of it, and name what is broken; reads only.

    The code is 1 where something is.  NotFound (66): there is no such agent.
    """
    if agent and agent not in store.list("postbox"):
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
        return Result(f"nothing is broken; {looked}", False, data)
    line = f"{_count(len(found.findings), 'finding')}; {looked}; nothing changed"
    lines = [one.text() for one in found.findings]
    data["next"] = _next(found, agent)
    return Result(line, False, data, [*lines, f"next: {data['next']}"])


def _next(found: Examined, agent: str) -> str:
    if any(one.repair for one in found.findings):
        return "recovery doctor --repair" + (f" --agent {agent}" if agent else "")
    return next(one.person or "look at it" for one in found.findings)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _parse(request: Request) -> list[Any]:
    request.no_words()
    agent = request.options.get("agent", "")
    return [layout.require_id("agent", agent) if agent else ""]


VERB = Verb({"--agent": "agent="}, _parse, lambda store, request, call: doctor(store, *call), tries=False, indent="")
