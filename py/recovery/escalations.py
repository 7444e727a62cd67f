"""Escalations: files that say that a person is needed, `logs/recovery/TASK_escalation.json` and `.1.json`, `.2.json` …

A later one never overwrites an earlier; one for the same reason that is still open is enough.
"""

from __future__ import annotations

from recovery import jsontext, layout
from recovery.errors import RecoveryError, StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore

#: How many may be open for one task; with so many nobody is reading them.
MOST = 100


def write(
    store: FileStore, task: str, kind: str, reason: str, agent: str = "", folder: str = layout.LOGS, **details: Any
) -> Optional[str]:
    """Write an escalation, durably; its name, or None if one for the same reason is open or it can't be written.

    Under the commit lock.  A failure to write costs only the note, and is told.  A crash leaves it whole or absent.
    """
    from recovery import derived

    entry = {
        "task_id": task,
        "agent_id": agent,
        "timestamp": store.now(),
        "error_type": kind,
        "error_message": reason,
        "strategy": "ESCALATE",
        "success": False,
        "details": details,
    }
    try:
        for n in range(MOST):
            name = layout.escalation(task, n, folder)
            old = store.read(name)
            if old is None:
                derived.create(store, name, jsontext.pretty(entry) + "\n")
                return name
            if _reason_of(old.text) == (kind, reason):
                return None
        raise StorageError(f"{MOST} escalations are open")
    except (OSError, RecoveryError) as error:
        store.told.append(f"no escalation could be written for {task}: {error}")
        return None


def report(
    store: FileStore, task: str, kind: str, reason: str, agent: str = "", folder: str = layout.LOGS, **details: Any
) -> Optional[str]:
    """`write`, for who doesn't hold the commit lock.  What `Store.lock` raises."""
    lock = store.commit_lock()
    try:
        return write(store, task, kind, reason, agent, folder, **details)
    finally:
        lock.release()


def _reason_of(text: str) -> Any:
    try:
        known = jsontext.loads(jsontext.from_latin(text))
    except ValueError:
        return None
    return (known.get("error_type"), known.get("error_message")) if isinstance(known, dict) else None
