"""release: give a claimed task back; it becomes pending."""

from __future__ import annotations

import os

from recovery import claim_locks, claims, moves, owners, say
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.store import FileStore


def release(
    store: FileStore,
    agent: str,
    task: str,
    force: bool = False,
    why: str = "",
    dry_run: bool = False,
    generation: int = 0,
    tidies: bool = True,
) -> Result:
    """End the claim of a task, which becomes pending where it was in progress.

    `force` ends anybody's, and records who did.  `generation` as for `recovery.complete.complete`.  Without a claim it
    is a no-op.  Unless it `tidies`, the caller removes the lock file, which it holds.  NotYours (76); what
    `recovery.moves.move` raises.
    """

    def decide(one: moves.Task) -> moves.Step:
        claim = one.claim
        again = claims.has_ended(agent, task, claim, "released", generation)
        if not force and not again and not claims.require(store, agent, task, claim, generation):
            claim = None
        if claim is None or not claims.is_held(claim):
            last = f"; its last claim was {claims.words(one.claim)}" if one.claim is not None else ""
            raise moves.Stay(f"nobody has claimed {agent}/{task}{last}", one.status)
        ended = claims.ended(store, claim, "released", why)
        if force:
            ended["forced_by"] = owners.caller(os.environ)[1] or f"uid {os.getuid()}"
        by = say.shown(claim.get("by"), 120)
        return moves.given_back(one, ended, f", which {by} had claimed" if force else "")

    result = moves.move(store, agent, task, "release", "released", decide, dry_run)
    if result.changed and tidies:
        tidy(store, agent, task, result)
    return result


def tidy(store: FileStore, agent: str, task: str, result: Result) -> None:
    """Remove lock files of the task that nobody holds; who holds one still is said."""
    for number in claim_locks.generations(store, agent, task):
        left = claim_locks.tidy(store, agent, task, number)
        if left:
            store.told.append(f"the lock of generation {number} of {agent}/{task} is held by " + "; ".join(left))
            result.data.setdefault("stragglers", []).extend(left)


def _parse(request: Request) -> list[Any]:
    return list(request.agent_and_task(0)[:2])


VERB = Verb(
    {"--dry-run": "dry_run", "--force": "force"},
    _parse,
    lambda store, request, call: release(
        store, call[0], call[1], force=request.asked("force"), dry_run=request.asked("dry_run")
    ),
    of_task=True,
)
