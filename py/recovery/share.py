"""Who gets which task: a pure function of a backlog and of what everybody has to do.

Tasks are given out by priority, then in the backlog's order.  Each goes to the agent it names; else to the one who
has most of the expertise it asks for; among equals to the one with the least open work, what was given out before it
counted; among those to the first by name.  So the same backlog over the same postbox is shared out in the same way.
"""

from __future__ import annotations

from recovery import jsontext, tasks
from recovery.errors import DataError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Sequence

    from recovery.backlog import Item
    from recovery.tasks import Outbox

#: What an outbox's own `status` begins with where its agent is to get nothing more.
RESTING = ("decommissioned", "retired", "inactive", "disabled", "archived", "paused", "offline")


class Agent:
    """An agent who may get work: `load` in hours of open tasks (one without an estimate counts as an hour).

    `resting` is the outbox's own status where that says that nobody works there any more, else "".
    """

    __slots__ = ("expertise", "load", "name", "resting")

    def __init__(self, name: str, expertise: Iterable[str] = (), load: float = 0.0, resting: str = "") -> None:
        self.name, self.load, self.resting = name, load, resting
        self.expertise = {same_word(word) for word in expertise}


class Placed:
    """A task and who gets it, with the reason in words; `note` where something about it is to be told."""

    __slots__ = ("agent", "item", "note", "why")

    def __init__(self, item: Item, agent: str, why: str, note: str = "") -> None:
        self.item, self.agent, self.why, self.note = item, agent, why, note


def same_word(word: str) -> str:
    """`Code Review`, `code-review` and `code_review` are one expertise."""
    return "_".join(word.casefold().replace("-", " ").replace("_", " ").split())


def agent_of(name: str, outbox: Outbox) -> Agent:
    """An agent as its outbox shows it."""
    load = 0.0
    for _, status, _, start, _ in outbox.tasks:
        if status.lower() not in tasks.CLOSED:
            load += hours_of(jsontext.value_at(outbox.text, start, plain=True)[0].get("estimated_hours"))
    expertise: list[str] = []
    span = outbox.top.span("expertise")
    if span is not None:
        listed = jsontext.loads(jsontext.from_latin(outbox.text[span[0] : span[1]]))
        expertise = [word for word in listed if type(word) is str] if isinstance(listed, list) else []
    status = tasks.field(outbox.text, outbox.top, "status") or ""
    resting = status if status.lower().lstrip().startswith(RESTING) else ""
    return Agent(name, expertise, load, resting)


def hours_of(estimate: Any) -> float:
    """What a task weighs: its estimate, an hour where there is none that makes sense."""
    if isinstance(estimate, (int, float)) and not isinstance(estimate, bool) and 0 < estimate < 1e9:
        return float(estimate)
    return 1.0


def order(items: Iterable[Item]) -> list[Item]:
    """The most urgent first, then as they stand in the backlog."""
    return sorted(items, key=lambda item: -tasks.PRIORITIES.index(item.priority))


def share(items: Iterable[Item], agents: Sequence[Agent], strict: bool = False) -> list[Placed]:
    """Everybody's new tasks, in the order in which they were given out; `agents` keep their loads.

    A task whose expertise nobody has goes to the one with the least to do, with a note; DataError (65) with `strict`.
    NotFound (66): a task names an agent who isn't among them, or nobody is there to get any.
    """
    by_name = {agent.name: agent for agent in agents}
    free = [agent for agent in agents if not agent.resting]
    loads = {agent.name: agent.load for agent in agents}
    placed = []
    for item in order(items):
        if item.agent:
            if item.agent not in by_name:
                raise NotFound(
                    f"{item.task} is meant for {item.agent}, and there is no such agent. Nothing changed.",
                    hint="agents here: " + (", ".join(by_name) or "none"),
                )
            agent, why, note = by_name[item.agent], "named", ""
        else:
            agent, why, note = _choose(item, free, loads)
            if note and strict:
                raise DataError(
                    f"{item.task}: {note}. Nothing changed.", hint="without --strict, the idlest agent gets it"
                )
        shown = f"load {loads[agent.name]:g} h"
        placed.append(Placed(item, agent.name, f"{why}; {shown}" if why else shown, note))
        if item.status not in tasks.CLOSED:
            loads[agent.name] += hours_of(item.hours)
    return placed


def _choose(item: Item, free: Sequence[Agent], loads: dict[str, float]) -> tuple[Agent, str, str]:
    if not free:
        raise NotFound(
            "there is no agent to give work to. Nothing changed.",
            hint="`recovery assign AGENT …` makes one with its first task; --agents names some that rest",
        )
    wanted = [(same_word(word), word) for word in item.wants]
    met = {agent.name: [word for key, word in wanted if key in agent.expertise] for agent in free}
    best = min(free, key=lambda agent: (-len(met[agent.name]), loads[agent.name], agent.name))
    found = met[best.name]
    if found:
        return best, "expertise " + ", ".join(tasks.shown(word) for word in found), ""
    if not wanted:
        return best, "", ""
    asked = ", ".join(tasks.shown(word) for _, word in wanted)
    return best, f"nobody has {asked}", f"nobody has its expertise ({asked})"
