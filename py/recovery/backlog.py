"""A backlog: tasks that are to be given out, as a list or as an object with `tasks`; read and checked, all or none.

    {"tasks": [{"id": "T-1", "title": "…", "priority": "high", "hours": 2, "dependencies": ["T-0"],
                "expertise": ["testing"], "agent": "CC", …}]}

`id` and `title` are needed.  `task_id`, `estimated_hours`, `tags` or `skills` are other words for `id`, `hours` and
`expertise`; the priority is MEDIUM where none is given.  All other members go into the outbox as they are.

Nothing here opens a file.  What can't be read is a DataError (65) with line and column.
"""

from __future__ import annotations

from recovery import dependencies, durable, jsontext, layout, tasks
from recovery.errors import DataError
from recovery.sources import Array, Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Optional, Sequence

    from recovery.sources import Source

#: Tasks that go into one commit at most: each may be four files to sync, and the change log gets one line of it all.
MOST = 2000


class Item:
    """A task that is to be given to somebody.

    at       where it stands in its source, for what is wrong with it
    wants    the expertise it asks for
    agent    who is to have it, "" for anybody
    more     members that the outbox's entry gets beside those that every task has
    """

    __slots__ = ("agent", "at", "dependencies", "hours", "more", "priority", "status", "task", "title", "wants")

    def __init__(self, task: str, title: str, at: int = 0) -> None:
        self.task, self.title, self.at = task, title, at
        self.priority, self.status, self.agent = "MEDIUM", "pending", ""
        self.hours: Optional[float] = None
        self.dependencies: list[str] = []
        self.wants: list[str] = []
        self.more: dict[str, Any] = {}

    def entry(self, now: str) -> dict[str, Any]:
        """What stands in the outbox for it."""
        more = {"dependencies": self.dependencies} if self.dependencies else {}
        return tasks.task_entry(
            self.task, self.title, self.priority, self.hours, now, self.status, {**more, **self.more}
        )


class Backlog:
    """Items and where they come from.  `name` is that of the whole, an id: `rollback backlog/NAME` takes it back."""

    __slots__ = ("items", "name", "notes", "source")

    def __init__(self, source: Source, items: Sequence[Item], prefix: str, notes: Sequence[str] = ()) -> None:
        self.source, self.items, self.notes = source, items, list(notes)
        data = jsontext.dumps([[item.entry(""), item.agent] for item in items])
        self.name = f"{prefix[:100]}-{durable.digest_of(data.encode('utf-8'))[:8]}"


def prefix_of(path: str) -> str:
    """An id that says which file things come from: its name without what isn't allowed in ids; "" if nothing is."""
    base = path.rstrip("/").rpartition("/")[2]
    stem = base[: base.rindex(".")] if "." in base[1:] else base
    return as_id(stem)[:60].rstrip("-._")


def as_id(text: str) -> str:
    """Somebody's name for a thing with each character that an id may not have replaced by a dash."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
    while ".." in kept:
        kept = kept.replace("..", ".")
    return kept.lstrip("._-")


# --- reading


def read(source: Source) -> list[Item]:
    """The items of a backlog in JSON, in its order."""
    top = source.json()
    listed = top
    if isinstance(top, Object):
        if "tasks" not in top:
            raise source.refusal("a backlog is a list of tasks, or an object with `tasks`", top.at)
        listed = top["tasks"]
    if not isinstance(listed, Array):
        at = top.spots["tasks"] if isinstance(top, Object) else 0
        raise source.refusal("`tasks` is not a list", at)
    return [_item(source, value, at) for value, at in zip(listed, listed.spots)]


_ID, _HOURS, _WANTS, _AGENT = (
    ("id", "task_id"),
    ("hours", "estimated_hours"),
    ("expertise", "tags", "skills"),
    ("agent", "agent_id", "assigned_to"),
)
_DEPENDENCIES = ("dependencies", "depends_on")


def _item(source: Source, value: Any, at: int) -> Item:
    if not isinstance(value, Object):
        raise source.refusal("a task is not an object", at)
    task = words(source, value, *_ID)
    if not layout.is_id(task):
        what = f"{tasks.quoted(task)} is not an id" if task else "a task has no `id`"
        hint = "letters, digits, . _ -, at most 128, beginning with a letter or digit"
        raise source.refusal(what, spot(value, *_ID), hint)
    item = Item(task, title_of(source, value, "title"), at)
    item.priority = priority_of(source, value)
    item.hours = _hours(source, value)
    item.dependencies = texts(source, value, *_DEPENDENCIES)
    for key in _WANTS:
        item.wants += [text for text in texts(source, value, key) if text not in item.wants]
    item.agent = words(source, value, *_AGENT)
    if item.agent and not layout.is_id(item.agent):
        raise source.refusal(f"{tasks.quoted(item.agent)} is not an id", spot(value, *_AGENT))
    status = words(source, value, "status")
    if status.lower() not in ("", "pending"):
        hint = "only tasks that nobody has begun are given out; leave the others out"
        raise source.refusal(f"the status of {task} is {tasks.quoted(status)}", spot(value, "status"), hint)
    for name, where in _checks(source, value):
        if not layout.is_check(name):
            hint = "the name of a check in checks.json: letters, digits, . _ -, at most 64"
            raise source.refusal(f"{tasks.quoted(name)} is no name for a check", where, hint)
    known = (*_ID, *_HOURS, *_DEPENDENCIES, *_AGENT, "title", "priority", "status", "created_at")
    item.more = {key: plain(held) for key, held in value.items() if key not in known}
    return item


def _checks(source: Source, value: Object) -> list[tuple[str, int]]:
    """What the task names as its checks, each with its place."""
    if not texts(source, value, "checks"):
        return []
    listed: Any = value["checks"]
    if len(listed) > layout.MOST_CHECKS:
        raise source.refusal(f"a task names at most {layout.MOST_CHECKS} checks", value.spots["checks"])
    return list(zip(listed, listed.spots))


def spot(value: Object, *keys: str) -> int:
    """Where the first of these members stands, or the object where there is none."""
    return next((value.spots[key] for key in keys if key in value.spots), value.at)


def words(source: Source, value: Object, *keys: str) -> str:
    """The text under one of several names, "" if there is none or it is null."""
    found = [value[key] for key in keys if value.get(key) is not None]
    for one in found:
        if type(one) is not str:
            raise source.refusal(
                f"`{next(key for key in keys if value.get(key) is one)}` is not a string", spot(value, *keys)
            )
    if len(set(found)) > 1:
        raise source.refusal(f"{' and '.join(f'`{key}`' for key in keys if key in value)} differ", value.at)
    return found[0] if found else ""


def title_of(source: Source, value: Object, key: str) -> str:
    """A title: text that is more than white space."""
    title = words(source, value, key)
    if not title.strip():
        raise source.refusal(f"a task has no `{key}`", spot(value, key))
    return title


def priority_of(source: Source, value: Object) -> str:
    """The priority, in capitals; MEDIUM where none is given."""
    priority = words(source, value, "priority").upper() or "MEDIUM"
    if priority not in tasks.PRIORITIES:
        hint = f"there are {' '.join(tasks.PRIORITIES)}"
        raise source.refusal(f"{tasks.quoted(priority)} is no priority", spot(value, "priority"), hint)
    return priority


def texts(source: Source, value: Object, *keys: str) -> list[str]:
    """The list of texts under one of several names, each once, [] if there is none or it is null."""
    found: list[str] = []
    for key in keys:
        listed = value.get(key)
        if listed is None:
            continue
        if not isinstance(listed, Array):
            raise source.refusal(f"`{key}` is not a list", value.spots[key])
        for text, at in zip(listed, listed.spots):
            if type(text) is not str or not text:
                raise source.refusal(f"`{key}` holds something that is no text", at)
            if text not in found:
                found.append(text)
    return found


def _hours(source: Source, value: Object) -> Optional[float]:
    key = next((key for key in _HOURS if value.get(key) is not None), "")
    if not key:
        return None
    hours = value[key]
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours < 1e9:
        raise source.refusal(f"`{key}` is not a number of hours", value.spots[key])
    return float(hours)


def plain(value: Any) -> Any:
    """A value as it goes into an entry."""
    if isinstance(value, dict):
        return {key: plain(held) for key, held in value.items()}
    return [plain(held) for held in value] if isinstance(value, list) else value


# --- checking


def check(source: Source, items: Sequence[Item]) -> None:
    """DataError (65) for too many tasks, none, or an id that stands there twice."""
    if not items:
        raise DataError(f"{tasks.shown(source.name)} holds no tasks. Nothing changed.", hint="see --help")
    if len(items) > MOST:
        raise DataError(
            f"{tasks.shown(source.name)} holds {len(items)} tasks; at most {MOST} go into one commit. Nothing changed.",
            hint="divide it; what depends on another part comes behind it",
        )
    seen: set[str] = set()
    for item in items:
        if item.task in seen:
            raise source.refusal(f"the task {item.task} stands here a second time", item.at)
        seen.add(item.task)


def check_dependencies(source: Source, items: Sequence[Item], known: Mapping[str, Sequence[str]]) -> None:
    """DataError (65) for a dependency that neither the items nor the postbox has, and for a cycle.

    `known` has the tasks that are in the postbox, each with what it depends on.
    """
    named = {item.task: dependencies.dependencies(item.dependencies) for item in items}
    graph: dict[str, Sequence[str]] = {**known, **{task: [one.task for one in ones] for task, ones in named.items()}}
    for item in items:
        for one in named[item.task]:
            if one.task not in graph:
                hint = "add it, or take the dependency out"
                what = tasks.quoted(one.text)
                raise source.refusal(f"{item.task} depends on {what}, which nobody has", item.at, hint)
    ours = {item.task for item in items}
    circle = dependencies.cycle(graph)
    while circle and ours.isdisjoint(circle):  # it was there before, and must not hide one of ours
        graph[circle[0]] = [one for one in graph[circle[0]] if one != circle[1 % len(circle)]]
        circle = dependencies.cycle(graph)
    if circle:
        first = next(item for item in items if item.task in circle)
        shown = " -> ".join(tasks.shown(task) for task in [*circle, circle[0]][:12])
        raise source.refusal(f"tasks depend on each other in a circle: {shown}", first.at)
