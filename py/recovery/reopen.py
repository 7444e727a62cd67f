"""reopen: a task that ended is to be done after all."""

from __future__ import annotations

from recovery import claims, layout, moves
from recovery.commit import Edit
from recovery.request import Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.store import FileStore

#: Statuses that are open already.
_OPEN = ("pending", "assigned", "in_progress")


def reopen(store: FileStore, agent: str, task: str, dry_run: bool = False) -> Result:
    """Make a task pending that had failed, was ready for review, or was completed, and count it back.

    The completion record goes in the same commit; the change log keeps what it said.  What a failed task blocked is no
    longer blocked.  One that is open is left as it is.  NotYours (76) while somebody else holds a claim of it;
    DataError (65): it is in the archive; what `recovery.moves.move` raises.
    """
    record = layout.record(agent, task)

    def decide(one: moves.Task) -> moves.Step:
        if one.status.lower() in _OPEN:
            raise moves.Stay(f"{agent}/{task} is open already ({one.status})", one.status)
        one.require_may_become("pending")
        fields: dict[str, Any] = {"started_at": None}
        if claims.is_held(one.claim) and claims.require(store, agent, task, one.claim) and one.claim is not None:
            fields["claim"] = claims.ended(store, one.claim, "released", "reopened")
        step = moves.Step("pending", fields)
        if one.status.lower() == "completed":
            fields.update(completed_at=None, completion_message=None)
            before = store.read(record, strict=False)
            if before is not None:
                step.more.append(Edit(record, before))
        return step

    return moves.move(store, agent, task, "reopen", "reopened", decide, dry_run, (record,))


VERB = Verb(
    {"--dry-run": "dry_run"},
    lambda request: list(request.agent_and_task(0)[:2]),
    lambda store, request, call: reopen(store, call[0], call[1], request.asked("dry_run")),
    of_task=True,
)
