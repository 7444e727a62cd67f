"""Parked tasks: `data/manual/TASK.json` says that a person has to look; while it is there the task isn't run.

The person removes the file, by hand or with `recovery escalations clear TASK`.
"""

from __future__ import annotations

from typing import Any

from recovery import jsontext, layout
from recovery.commit import Put
from recovery.errors import BUG, RecoveryError
from recovery.store import FileStore, transact


class TaskParkedError(RecoveryError):
    """70: the task waits for a person, who removes its flag, `file` (a root-relative name)."""

    code = BUG
    final = True

    def __init__(self, task_id: str, reason: str) -> None:
        self.task_id, self.file = task_id, layout.flag(task_id)
        super().__init__(
            f"Task {task_id} waits for a person: {reason}",
            hint=f"look at it, then remove {self.file} (or run `recovery escalations clear {task_id}`)",
        )


def park(store: FileStore, task: str, error: BaseException, why: str, **details: Any) -> dict[str, Any] | None:
    """Write the flag, durably; what it says, or None if the task was parked already.  What `Store.commit` raises."""
    name = layout.flag(task)
    entry = {
        "task_id": task,
        "timestamp": store.now(),
        "error_type": type(error).__name__,
        "error_message": why,
        "strategy": "MANUAL",
        "success": False,
        "details": details,
    }

    def plan() -> Put | None:
        there = store.read(name, strict=False)
        return Put(name, None, jsontext.pretty(entry) + "\n") if there is None else None

    return entry if transact(store, [name], plan, create=True) is not None else None


def reason(store: FileStore, task: str) -> str | None:
    """Why the task is parked, None if it isn't.  A flag that can't be read parks it too: somebody put it there."""
    version = store.read(layout.flag(task), strict=False)
    if version is None:
        return None
    try:
        entry = jsontext.loads(jsontext.from_latin(version.text))
        return f"{entry['error_message']} (since {entry['timestamp']})"
    except (ValueError, KeyError, TypeError):
        return "its flag is there"


def clear(store: FileStore, task: str) -> bool:
    """Remove the flag; whether there was one.  What `Store.commit` raises."""
    name = layout.flag(layout.require_id("task", task))
    found = False

    def plan() -> Put | None:
        nonlocal found
        version = store.read(name, strict=False)
        found = version is not None
        return Put(name, version, None) if found else None

    transact(store, [name], plan, create=True)
    return found


def parked(store: FileStore) -> list[str]:
    """The tasks that are parked, sorted."""
    found = [name[: -len(".json")] for name in store.list(layout.MANUAL) if name.endswith(".json")]
    return [task for task in found if layout.is_id(task)]
