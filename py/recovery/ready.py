"""How open tasks stand: who has them, and whether what they depend on is done, by the outboxes and whatever says so."""

from __future__ import annotations

from recovery import claims, dependencies, jsontext, layout, owners, tasks, verbs
from recovery.errors import RecoveryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.dependencies import Candidate, Dependency, Waiting
    from recovery.store import FileStore

    Box = Optional[tuple[Waiting, tasks.Outbox]]


#: Somebody has it; it is in nobody's claim, and waits for none (in progress, failed, in review); it waits; it is free.
TAKEN, ASIDE, BLOCKED, READY = "taken", "aside", "blocked", "ready"


def standing(
    store: FileStore, agent: str, one: dependencies.Candidate, outbox: tasks.Outbox, known: Known
) -> tuple[str, Any]:
    """How an open task stands, and of a taken one the claim, of a blocked one what it waits for, in words.

    A claim whose owner is dead, or whose lease is over, keeps nobody from the task.
    """
    claim = claim_of(one, outbox)
    if claim is not None:
        if owners.judge(store, agent, one.task, claim)[0] not in (owners.DEAD, owners.EXPIRED):
            return TAKEN, claim
    elif one.status not in dependencies.WAITING:
        return ASIDE, None
    waits = dependencies.waits_for(one, known)
    return (BLOCKED, waits) if waits else (READY, None)


def claim_of(one: Candidate, outbox: tasks.Outbox) -> Optional[dict[str, Any]]:
    """The claim by which somebody holds a task, None if nobody does."""
    if not one.is_held:
        return None
    *_, start, end = outbox.tasks[one.number]
    claim = claims.of(outbox.entry(start, end).get("claim"))
    return claim if claims.is_held(claim) else None


class Boxes:
    """The outboxes by agent, None for one that can't be read.  Those that nobody has added are read when needed."""

    def __init__(self, store: FileStore) -> None:
        self.store = store
        self._boxes: dict[str, Box] = {}
        self._agents: Optional[list[str]] = None

    def add(self, agent: str, waiting: Waiting, outbox: tasks.Outbox) -> None:
        self._boxes[agent] = (waiting, outbox)

    def seen_by(self, agent: str) -> Known:
        return Known(self, agent)

    def agents(self) -> list[str]:
        if self._agents is None:
            self._agents = verbs.agents(self.store)
        return self._agents

    def status(self, agent: str, task: str) -> Optional[str]:
        """The status of a task of this agent's, whether in the outbox or put away; None if there is none."""
        if agent not in self._boxes:
            self._boxes[agent] = self._read(agent)
        box = self._boxes[agent]
        if box is not None and task in box[0].status:
            return box[0].status[task]
        try:
            done = verbs.done_before(self.store, agent, task, None if box is None else box[1])
        except RecoveryError:  # an archive that nobody can read
            return None
        return "completed" if done is not None else None

    def _read(self, agent: str) -> Box:
        waiting = dependencies.Waiting()
        try:
            version = self.store.read(layout.outbox(agent))
            return None if version is None else (waiting, tasks.Outbox(layout.outbox(agent), version, waiting))
        except RecoveryError:
            return None


class Known:
    """The status of whatever a dependency of one agent's tasks names, None if nobody has it."""

    def __init__(self, boxes: Boxes, agent: str) -> None:
        self.boxes, self.agent = boxes, agent
        self.met: dict[str, Optional[str]] = {}

    def __call__(self, one: Dependency) -> Optional[str]:
        key = str(one)
        if key not in self.met:
            self.met[key] = self._find(one)
        return self.met[key]

    def _find(self, one: Dependency) -> Optional[str]:
        first = one.agent or self.agent
        status = self.boxes.status(first, one.task)
        if status is not None:
            return status
        others = [self.boxes.status(other, one.task) for other in self.boxes.agents() if other != first]
        found = [status for status in others if status is not None]
        if found:  # which of several is meant nobody can know: all of them
            return next((status for status in found if status != "completed"), "completed")
        return self._in_progress_file(one)

    def _in_progress_file(self, one: Dependency) -> Optional[str]:
        try:
            listed = self.boxes.store.read(layout.PROGRESS)
            if listed is None:
                return None
            progress = tasks.Progress(layout.PROGRESS, listed)
            node = progress.entry(one.agent, one.task)[1] if one.agent else progress.any_entry(one.task)
            status = tasks.field(progress.text, node, "status") if node is not None else None
        except (RecoveryError, jsontext.BadJSON):
            return None
        return status.lower() if status else None
