"""Who learns of a failed task: what depends on it gets `blocked_by` in the same commit, and loses it again with it."""

from __future__ import annotations

from recovery import dependencies, jsontext, layout, tasks, verbs
from recovery.commit import Edit
from recovery.errors import DataError
from recovery.store import NeedsMore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping

    from recovery.durable import Version
    from recovery.jsontext import Op
    from recovery.store import FileStore

#: What a task that is no longer failed loses.
WITHOUT: dict[str, Any] = {"failed_at": None, "failure_reason": None}


def own_edit(outbox: tasks.Outbox, before: Version, task: str, fields: Mapping[str, Any]) -> list[Edit]:
    """The edit that gives one task these members (None: takes them)."""
    return _edit(outbox, before, {task: fields})


def edits(
    store: FileStore,
    agent: str,
    task: str,
    outbox: tasks.Outbox,
    before: Version,
    names: list[str],
    fields: Mapping[str, Any],
    blocked: bool,
) -> list[Edit]:
    """`own_edit`, and what follows for the tasks of everybody that depend on this one: `blocked` by it, or no longer.

    Outboxes that have to be changed and aren't among the locked `names` yet are added there: NeedsMore.  A damaged
    outbox of somebody else's is passed over, and said.
    """
    found: list[Edit] = []
    for whose in verbs.agents(store):
        own = whose == agent
        name = layout.outbox(whose)
        try:
            version = before if own else store.read(name)
            if version is None:
                continue
            box = outbox if own else tasks.Outbox(name, version)
        except DataError as error:
            store.told.append(f"tasks of {whose} that depend on {agent}/{task} can't learn of it: {error}")
            continue
        moved: dict[str, Mapping[str, Any]] = {task: fields} if own else {}
        for one, _, _, start, end in box.tasks:
            if one and (one != task or not own):
                changed = _blocked_by(box, one, box.text[start:end], whose, agent, task, blocked)
                if changed is not None:
                    moved[one] = {"blocked_by": changed or None}
        if moved:
            found += _edit(box, version, moved)
    more = [edit.name for edit in found if edit.name not in names]
    if more:
        names += more
        raise NeedsMore
    return found


def _blocked_by(box: tasks.Outbox, one: str, text: str, whose: str, agent: str, task: str, blocked: bool) -> Any:
    """A task's new list, None if it stays as it is."""
    if task not in text:
        return None
    value = jsontext.loads(jsontext.from_latin(text))
    listed = value.get("blocked_by")
    listed = listed if isinstance(listed, list) else []
    name = task if whose == agent else f"{agent}/{task}"
    if not blocked:
        return [other for other in listed if other != name] if name in listed else None
    if name in listed or str(value.get("status")).lower() == "completed":
        return None
    has_own = box.find(task) is not None
    depends = dependencies.dependencies(value.get("dependencies"))
    return [*listed, name] if any(one.names(agent, task, whose, has_own) for one in depends) else None


def _edit(outbox: tasks.Outbox, before: Version, moved: Mapping[str, Mapping[str, Any]]) -> list[Edit]:
    walked = outbox.walked(*moved)
    ops: list[Op] = []
    for task, fields in moved.items():
        ops += tasks.task_ops(outbox, task, fields, walked)
    return [Edit(outbox.name, before, ops, jsontext.splices(walked, ops))] if ops else []
