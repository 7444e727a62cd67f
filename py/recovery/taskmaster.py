"""Task Master's `tasks.json` (github.com/eyaltoledano/claude-task-master, docs/task-structure.md and
packages/tm-core/src/common/types/index.ts of 2025), in both of its forms.

The old one is `{"tasks": [...]}`; the tagged one `{"master": {"tasks": [...], "metadata": {...}}, "other-tag": ...}`.
A task has `id` (a number, or a string of one), `title`, `status`, `priority` (medium where there is none),
`dependencies` (ids), `subtasks` (the same again, called `1.2`: parent and own number), and texts, of which
`description`, `details` and `testStrategy` are taken over.

In a subtask's dependencies a bare number is a sibling's where there is such a sibling, else a task's (as
scripts/modules/dependency-manager.js of that project has it); `1.2` is always the full number.  A subtask waits for
what its task waits for, and the task for its subtasks.  Where it has no priority it has its task's, as in
scripts/modules/task-manager/find-next-task.js.
"""

from __future__ import annotations

from recovery import tasks
from recovery.backlog import Item, priority_of, spot, title_of, words
from recovery.sources import Array, Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.sources import Source

#: Their statuses and ours; those that the suite has no word for stay as they are.
STATUSES = {
    "pending": "pending",
    "in-progress": "in_progress",
    "review": "ready_for_review",
    "done": "completed",
    "completed": "completed",
    "deferred": "deferred",
    "cancelled": "cancelled",
    "blocked": "blocked",
}
_TEXTS = ("description", "details", "testStrategy")


def is_tagged(value: Any) -> bool:
    """Whether a document is the tagged form: each member an object with a list of tasks."""
    return (
        isinstance(value, Object)
        and bool(value)
        and all(isinstance(one, Object) and "tasks" in one for one in value.values())
    )


def read(source: Source, top: Any, tag: str = "") -> tuple[list[tuple[str, Item]], list[str]]:
    """Each task and subtask with its number, dependencies as numbers; and notes.  `tag` chooses among several."""
    notes = []
    if is_tagged(top):
        if not tag and len(top) > 1 and "master" not in top:
            raise source.refusal("there are several tags", top.at, f"choose one with --tag: {_listed(list(top))}")
        named, tag = tag, tag or ("master" if "master" in top else next(iter(top)))
        if tag not in top:
            raise source.refusal(f"there is no tag {tasks.quoted(tag)}", top.at, f"there are: {_listed(list(top))}")
        others = [name for name in top if name != tag]
        if others and not named:
            notes.append(f"the tag {tasks.shown(tag)} is taken; --tag takes another: {_listed(others)}")
        top = top[tag]
    elif tag:
        raise source.refusal("the file has no tags", getattr(top, "at", 0), "leave --tag out")
    if not isinstance(top, Object) or not isinstance(top.get("tasks"), Array):
        raise source.refusal("there is no list of `tasks`", getattr(top, "at", 0))
    found: list[tuple[str, Item]] = []
    _read_list(source, top["tasks"], "", None, found)
    return found, notes


def _listed(names: list[str]) -> str:
    return ", ".join(tasks.shown(name) for name in names[:20]) + (" …" if len(names) > 20 else "")


def _read_list(
    source: Source, listed: Array, parent: str, above: Optional[Item], found: list[tuple[str, Item]]
) -> list[str]:
    """Read tasks, or a task's subtasks, into `found`; returns their numbers."""
    values = []
    for value, at in zip(listed, listed.spots):
        if not isinstance(value, Object):
            raise source.refusal("a task is not an object", at)
        values.append((value, _number(source, value, parent)))
    siblings = {number for _, number in values}
    for value, number in values:
        item = Item("", title_of(source, value, "title"), value.at)
        status = words(source, value, "status") or "pending"
        if status not in STATUSES:
            hint = "known are " + " ".join(STATUSES)
            raise source.refusal(f"the status {tasks.quoted(status)} is unknown", spot(value, "status"), hint)
        item.status = STATUSES[status]
        item.priority = priority_of(source, value) if value.get("priority") or above is None else above.priority
        item.more = {key: words(source, value, key) for key in _TEXTS if value.get(key)}
        if parent:
            item.more["parent"] = parent
        own = _dependencies(source, value, parent, siblings)
        inherited = () if above is None else above.dependencies
        item.dependencies = own + [one for one in inherited if one not in own and not one.startswith(f"{parent}.")]
        found.append((number, item))
        below = value.get("subtasks") or Array()
        if not isinstance(below, Array):
            raise source.refusal("`subtasks` is not a list", value.spots["subtasks"])
        if below:
            item.dependencies += _read_list(source, below, number, item, found)
    return [number for _, number in values]


def _number(source: Source, value: Object, parent: str) -> str:
    number = _word(value.get("id"))
    if not number:
        raise source.refusal("a task's `id` is neither a whole number nor a string", spot(value, "id"))
    return f"{parent}.{number}" if parent and not number.startswith(parent + ".") else number


def _word(value: Any) -> str:
    """An id or a dependency as a string, "" if it is none; 1.10 as a number could be 1.1, so it isn't one."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return value.strip() if isinstance(value, str) else str(value)


def _dependencies(source: Source, value: Object, parent: str, siblings: set[str]) -> list[str]:
    listed = value.get("dependencies") or Array()
    if not isinstance(listed, Array):
        raise source.refusal("`dependencies` is not a list", value.spots["dependencies"])
    found: list[str] = []
    for one, at in zip(listed, listed.spots):
        number = _word(one)
        if not number:
            raise source.refusal("a dependency is neither a whole number nor a string", at)
        if parent and f"{parent}.{number}" in siblings:
            number = f"{parent}.{number}"
        if number not in found:
            found.append(number)
    return found
