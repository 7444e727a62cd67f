"""review: hand a task over to be reviewed."""

from __future__ import annotations

from recovery import claims, moves
from recovery.request import Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.store import FileStore


def review(store: FileStore, agent: str, task: str, dry_run: bool = False, generation: int = 0) -> Result:
    """Mark a task that is in progress ready for review.  A claim of it ends: whoever reviews it completes or starts it.

    `generation` as for `recovery.complete.complete`.  NotYours (76); what `recovery.moves.move` raises.
    """

    def decide(one: moves.Task) -> moves.Step:
        if one.status.lower() == "ready_for_review" and not claims.is_held(one.claim):
            raise moves.Stay(f"already ready for review: {agent}/{task}", one.status)
        fields: dict[str, Any] = {}
        if claims.require(store, agent, task, one.claim, generation) and one.claim is not None:
            fields["claim"] = claims.ended(store, one.claim, "released", "handed over for review")
        if one.status.lower() != "ready_for_review":
            one.require_may_become("ready_for_review", f"recovery start {agent} {task}")
        return moves.Step("ready_for_review", fields)

    return moves.move(store, agent, task, "review", "handed over", decide, dry_run)


VERB = Verb(
    {"--dry-run": "dry_run"},
    lambda request: list(request.agent_and_task(0)[:2]),
    lambda store, request, call: review(store, call[0], call[1], request.asked("dry_run")),
    of_task=True,
)
