"""What the verbs that change a workspace have in common: their result, and the questions each asks first."""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK

from recovery import finish, jsonl, jsontext, layout, tasks, workspace
from recovery.commit import Edit
from recovery.errors import DataError, NotFound, RecoveryError, RollbackFailed
from recovery.result import Result as Result
from recovery.store import NeedsMore, transact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Optional, Sequence

    from recovery.commit import Change
    from recovery.jsontext import Op
    from recovery.store import FileStore


#: Agents of whom each may have a few folders open, with the 1,024 files of an ordinary process.
_MANY = 150


def agents(store: FileStore, closed: bool = False) -> list[str]:
    """The agents that have an outbox; files and other folders in postbox/ are none.

    A folder that can't be listed is refused (77), or, with `closed`, counts as an agent's: who reads it is told.
    """
    found = [name for name in store.list("postbox") if layout.is_id(name)]
    if len(found) > _MANY:
        from recovery import openfiles

        openfiles.allow(5 * len(found) + 64)

    def has_outbox(name: str) -> bool:
        try:
            return "outbox.json" in store.list(f"postbox/{name}")
        except RecoveryError:
            if not closed:
                raise
            return True

    return [name for name in found if has_outbox(name)]


def one_by_one(store: FileStore, some: Iterable[str]) -> Iterator[str]:
    """These agents; what is open of one is closed before the next: nothing of it may be held, or be needed, then."""
    for agent in some:
        try:
            yield agent
        finally:
            store.root.forget(f"postbox/{agent}")


def carry_out(
    store: FileStore, names: list[str], plan: Callable[[], Optional[Change]], dry_run: bool, create: bool = False
) -> None:
    """`transact`, or with `dry_run` only the plan, for what it finds."""
    if not dry_run:
        transact(store, names, plan, create)
        return
    while True:
        try:
            plan()
            return
        except NeedsMore:
            continue


def names(store: FileStore, *first: str) -> list[str]:
    """The files a change is over; progress only where there is one."""
    names = list(first)
    if "progress.json" in store.list(".sprint"):
        names.append(layout.PROGRESS)
    return names


def blocked_folders(store: FileStore) -> list[str]:
    """The folders of what is everybody's in whose place stands something else, and no link."""
    found = []
    for name in layout.FOLDERS:
        above, _, base = name.rpartition("/")
        try:
            mode = os.stat(base, dir_fd=store.root.folder(above), follow_symlinks=False).st_mode
        except OSError:
            continue
        if not S_ISDIR(mode) and not S_ISLNK(mode):
            found.append(name)
    return found


def misses_progress(store: FileStore) -> bool:
    """Whether progress.json is gone that was there once: its lock file, which nobody removes, says so."""
    there = store.list(".sprint")
    return "progress.json" not in there and layout.lock_of(layout.PROGRESS).rpartition("/")[2] in there


def may_have_checks(store: FileStore) -> bool:
    """Whether anything says here what a task must pass, beside the task itself: two questions to the file system."""
    if store.read_state(layout.CHECKS) is not None:
        return True
    return os.path.exists(workspace.approval(store.root.path, os.environ))  # what was approved may have been removed


def require_settled(store: FileStore, agent: str, task: str) -> None:
    """70 while a parked record waits for the task; 65 if a person's restore of it was met a moment ago."""
    parked = finish.is_parked(store, agent, task)
    if parked:
        raise RollbackFailed(
            f"an earlier change of {agent}/{task} could be neither finished nor undone; its record is {parked}",
            hint="run `recovery recover`",
        )
    for who, what, _, reason in store.resolved:
        if (who, what) == (agent, task) and isinstance(reason, finish.Conflict) and reason.restored:
            raise DataError(
                f"{agent}/{task}: {reason}; so the interrupted change was taken back and not done again",
                hint="if you do want it, run the same command again",
            )


def rolled_back(store: FileStore, agent: str, task: str) -> Optional[dict[str, Any]]:
    """The checkpoint that says the task's last change was rolled back, if it was."""
    history = store.read(layout.history(task), strict=False)
    if history is None:
        return None
    last = None
    for entry in jsonl.records(history.text.encode("latin-1"))[0]:
        data, metadata = entry.get("data"), entry.get("metadata")
        # not a program's own checkpoint, nor mere words
        ours = isinstance(metadata, dict) and metadata.get("op", "note") != "note"
        if ours and isinstance(data, dict) and data.get("agent") == agent:
            last = entry
    return last if last is not None and last.get("state") == "rolled_back" else None


def require_not_rolled_back(store: FileStore, agent: str, task: str, verb: str) -> None:
    undone = rolled_back(store, agent, task)
    if undone is not None and undone["data"].get("undoes_op", verb) == verb:
        raise DataError(
            f"{agent}/{task}: its last change was rolled back at {undone.get('timestamp')}. Nothing changed.",
            hint=f"to {verb} it all the same, add --again",
        )


def checkpoint(change: Change, state: str, **data: Any) -> None:
    entry = {
        "task_id": change.task,
        "checkpoint_id": change.txid,
        "timestamp": change.time,
        "state": state,
        "data": {"agent": change.agent, **data},
        "metadata": {"op": change.op, "files": [edit.name for edit in change.edits]},
    }
    change.derived += [
        {"name": layout.history(change.task), "append": entry},
        {"name": layout.checkpoint(change.task), "snapshot": entry},
    ]


def progress_edit(store: FileStore, names: Sequence[str], ops_of: Callable[[tasks.Progress], list[Op]]) -> list[Edit]:
    """What `ops_of` makes of progress.json, where it is among `names` and there is anything to change in it."""
    listed = store.read(layout.PROGRESS) if layout.PROGRESS in names else None
    if listed is None:
        return []
    progress = tasks.Progress(layout.PROGRESS, listed)
    ops = ops_of(progress)
    return [Edit(layout.PROGRESS, listed, ops, jsontext.splices(progress.walked, ops))] if ops else []


def unknown(store: FileStore, agent: str, task: str, outbox: Optional[tasks.Outbox] = None) -> NotFound:
    """Says what isn't there, where it is instead, and what is."""
    everybody = agents(store)[:1000]
    elsewhere = []
    for other in everybody:
        if other == agent:
            continue
        try:
            version = store.read(layout.outbox(other))
            entry = tasks.Outbox(layout.outbox(other), version).find(task) if version else None
        except RecoveryError:
            continue
        if entry:
            elsewhere.append(f"{other} has it ({entry[1] or 'pending'})")
    hint = "task_status.sh shows what there is"
    if outbox is None:
        from recovery import gone

        parts = [f"there is no outbox of {agent}"]
        if gone.Known(store, gone.LATE).misses(agent):
            parts, hint = [f"{layout.outbox(agent)} is gone, and was there"], f"recovery doctor --agent {agent}"
    else:
        parts = [f"{agent} has no {task}"]
    text = "; ".join(parts + elsewhere[:3]) + "."
    if outbox is not None:
        waiting = outbox.open_tasks()
        text += f" Open for {agent}: " + (", ".join(waiting[:10]) if waiting else "nothing")
        text += f" and {len(waiting) - 10} more." if len(waiting) > 10 else "."
        if outbox.misnamed:
            some = ", ".join(tasks.shown(one) for one in outbox.misnamed[:3])
            text += f" Not counted: {some}, for a task's id is a text (`recovery doctor --repair` makes it one)."
    elif everybody:
        text += " Agents here: " + ", ".join(everybody[:10]) + (" and more." if len(everybody) > 10 else ".")
    return NotFound(text + " Nothing changed.", hint=hint)


def wrote(found: dict[str, Any]) -> list[str]:
    """The details of a change: its files, and where it is recorded."""
    files = [f"wrote    {name}" for name in found["files"]]
    return [*files, f"recorded {layout.changes(found['time'])} as {found['txid']}"]


def data_of(agent: str, task: str, status: str, changed: bool, **more: Any) -> dict[str, Any]:
    return {"ok": True, "code": 0, "changed": changed, "agent": agent, "task": task, "status": status, **more}


def done_before(
    store: FileStore, agent: str, task: str, outbox: Optional[tasks.Outbox] = None
) -> Optional[dict[str, Any]]:
    """What says of a task that isn't in the outbox that it was completed: history, completion record, or archive.

    An archive's line has `archived_at`.  As `archived.find` where the archive can't be read.
    """
    found = (outbox.archived(task) if outbox is not None else None) or read_record(store, layout.record(agent, task))
    if found is None and store.read_state(layout.archives(agent)) is not None:
        from recovery import archived

        found = archived.find(store, agent, task)
    return found


def read_record(store: FileStore, name: str) -> Optional[dict[str, Any]]:
    """A completion record that can be believed: JSON that says completed."""
    try:
        version = store.read(name)
        value = jsontext.loads(jsontext.from_latin(version.text)) if version else None
    except (RecoveryError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("status") == "completed" else None
