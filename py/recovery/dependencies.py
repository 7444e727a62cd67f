"""Which tasks wait for which, and which is the next to be taken.  Decides from values; nothing here opens a file.

A dependency is `TASK` or `AGENT/TASK`, and may be followed by words: "TASK-168A (security must be done)".  TASK alone
is the agent's own, or, where the agent has none of that name, that of whoever has one.
"""

from __future__ import annotations

from recovery import layout
from recovery.tasks import PRIORITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

#: A task without a priority, or with one nobody knows, is taken as this.
_MIDDLE = PRIORITIES.index("MEDIUM")
#: The statuses in which a task waits to be taken.
WAITING = ("pending", "assigned")


class Dependency:
    """What one entry of `dependencies` names: `agent` is "" where it names none; `task` "" where it can't be read."""

    __slots__ = ("agent", "task", "text")

    def __init__(self, agent: str, task: str, text: str) -> None:
        self.agent, self.task, self.text = agent, task, text

    def names(self, agent: str, task: str, whose: str, has_own: bool) -> bool:
        """Whether it means that task, said by `whose`, who `has_own` task of that name or not."""
        if self.task != task:
            return False
        return self.agent == agent or (not self.agent and (whose == agent or not has_own))

    def __str__(self) -> str:
        return f"{self.agent}/{self.task}" if self.agent else self.task or self.text


def dependencies(value: Any) -> list[Dependency]:
    """The dependencies of a task, from its member of that name: a list of texts, or a single one."""
    if value is None or value == "":
        return []
    return [_dependency(one) for one in (value if isinstance(value, list) else [value])]


def _dependency(value: Any) -> Dependency:
    text = value if type(value) is str else str(value)
    first = text.split(None, 1)[0] if text.strip() else ""
    agent, slash, task = first.partition("/")
    if not slash:
        agent, task = "", first
    task = task.rstrip(".:,;")
    if type(value) is not str or not layout.is_id(task) or (slash and not layout.is_id(agent)):
        return Dependency("", "", text)
    return Dependency(agent, task, text)


class Candidate:
    """What is looked at of a task: its place in the outbox, whether it is open, how soon it is to be taken.

    Texts are as they stand in the outbox, latin-1.
    """

    __slots__ = ("after", "blocked_by", "is_held", "number", "order", "status", "task")

    def __init__(self, number: int, value: dict[str, Any]) -> None:
        priority = value.get("priority")
        created = value.get("created_at")
        status = value.get("status")
        rank = _MIDDLE
        if type(priority) is str and priority.upper() in PRIORITIES:
            rank = PRIORITIES.index(priority.upper())
        self.order = (-rank, created if type(created) is str else "", number)
        self.task = value["task_id"]
        self.status = status.lower() if type(status) is str and status else "pending"
        self.after = value.get("dependencies")
        self.blocked_by = value.get("blocked_by")
        claim = value.get("claim")
        self.is_held = isinstance(claim, dict) and claim.get("state") == "held"
        self.number = number


class Waiting:
    """Collects an outbox's tasks, for `tasks.Outbox(…, look)`."""

    def __init__(self) -> None:
        self.status: dict[str, str] = {}
        self.candidates: list[Candidate] = []

    def __call__(self, number: int, value: dict[str, Any]) -> None:
        task = value.get("task_id")
        status = value.get("status")
        if type(task) is not str:
            return
        now = self.status[task] = status.lower() if type(status) is str and status else "pending"
        if now != "completed" and layout.is_id(task):
            self.candidates.append(Candidate(number, value))

    def in_order(self) -> list[Candidate]:
        """By priority, then age, then as they stand; a task without a date is taken as the oldest."""
        return sorted(self.candidates, key=lambda one: one.order)


#: What `blockers` says of a task that `fail` has named in `blocked_by`, and of one that nobody has.
FAILED, NOBODY = "failed", ""


def blockers(candidate: Candidate, status_of: Callable[[Dependency], Optional[str]]) -> list[tuple[str, str]]:
    """What a task still waits for, each with its status, FAILED or NOBODY; [] if it is ready.

    `status_of` says None for one that nobody has.
    """
    if isinstance(candidate.blocked_by, list) and candidate.blocked_by:
        return [(str(one), FAILED) for one in candidate.blocked_by]
    found = []
    for one in dependencies(candidate.after):
        status = (status_of(one) if one.task else None) or NOBODY
        if status != "completed":
            found.append((str(one), status))
    return found


def waits_for(candidate: Candidate, status_of: Callable[[Dependency], Optional[str]]) -> list[str]:
    """`blockers`, in words."""
    found = []
    for name, status in blockers(candidate, status_of):
        if status == NOBODY:
            found.append(f"{name[:60]}, which nobody has")
        elif isinstance(candidate.blocked_by, list) and candidate.blocked_by:
            found.append(f"{name}, which failed")
        else:
            found.append(f"{name} ({status})")
    return found


def cycle(graph: Mapping[str, Sequence[str]], starts: Iterable[str] = ()) -> list[str]:
    """Tasks that wait for each other in a circle, the first that is met from `starts` (from anywhere); [] for none."""
    done: set[str] = set()
    for start in starts or graph:
        way: list[str] = []
        on_way: set[str] = set()
        left = [(start, iter((start,)))]
        while left:
            task = next(left[-1][1], None)
            if task is None:
                left.pop()
                if way and left:
                    on_way.discard(way[-1])
                    done.add(way.pop())
            elif task in on_way:
                return way[way.index(task) :]
            elif task not in done and task in graph:
                way.append(task)
                on_way.add(task)
                left.append((task, iter(graph[task])))
    return []
