"""start: say that a task is being worked on."""

from __future__ import annotations

from recovery import claims, moves
from recovery.request import Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from recovery.store import FileStore


def start(store: FileStore, agent: str, task: str, dry_run: bool = False, generation: int = 0) -> Result:
    """Mark a task in progress.  It needs no claim, and makes none; a lease of the caller's begins anew.

    `generation` as for `recovery.complete.complete`.  NotYours (76); what `recovery.moves.move` raises.
    """

    def decide(one: moves.Task) -> moves.Step:
        fields, words = claims.touched(claims.require(store, agent, task, one.claim, generation), one.claim)
        if one.status.lower() != "in_progress":
            one.require_may_become("in_progress", f"recovery reopen {agent} {task}")
            return moves.Step("in_progress", {"started_at": store.now(), **fields}, words)
        if not fields:
            raise moves.Stay(f"already started {agent}/{task}", one.status)
        return moves.Step("", fields, words)

    return moves.move(store, agent, task, "start", "started", decide, dry_run)


VERB = Verb(
    {"--dry-run": "dry_run"},
    lambda request: list(request.agent_and_task(0)[:2]),
    lambda store, request, call: start(store, call[0], call[1], request.asked("dry_run")),
    of_task=True,
)
