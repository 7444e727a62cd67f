"""fail: say that a task failed, and why; what depends on it learns."""

from __future__ import annotations

from recovery import claims, moves, request, tasks
from recovery.errors import UsageError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.store import FileStore


def fail(store: FileStore, agent: str, task: str, why: str, dry_run: bool = False, generation: int = 0) -> Result:
    """Mark a task failed, with reason and time; tasks of anybody that depend on it get `blocked_by`, in one commit.

    A claim of it ends.  One that failed already is left as it is.  `generation` as for `recovery.complete.complete`.
    NotYours (76); what `recovery.moves.move` raises.
    """

    def decide(one: moves.Task) -> moves.Step:
        if one.status.lower() == "failed":
            said = one.text("failure_reason")
            other = f"; it says {tasks.quoted(said)}" if said != why else ""
            raise moves.Stay(f"already failed {agent}/{task} at {one.text('failed_at') or '?'}{other}", one.status)
        claim = claims.ended_by_owner(store, agent, task, one.claim, "failed", generation)
        one.require_may_become("failed", f"recovery reopen {agent} {task}")
        fields = {"failed_at": store.now(), "failure_reason": why, **({"claim": claim} if claim else {})}
        return moves.Step("failed", fields, data={"reason": why})

    return moves.move(store, agent, task, "fail", "failed", decide, dry_run)


def _parse(asked: Request) -> list[Any]:
    agent, task, rest = asked.agent_and_task(1)
    if not rest or not rest[0].strip():
        raise UsageError('AGENT TASK "why" are needed', hint="see --help")
    return [agent, task, request.text(rest[0])]


VERB = Verb(
    {"--dry-run": "dry_run"},
    _parse,
    lambda store, asked, call: fail(store, call[0], call[1], call[2], dry_run=asked.asked("dry_run")),
    of_task=True,
    text=True,
)
