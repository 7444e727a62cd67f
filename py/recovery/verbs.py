"""The verbs that change a workspace: assign, complete, rollback, recover.

Each plans with `recovery.tasks`, commits through the store, and returns what it did in words and as data.
"""

from __future__ import annotations

from recovery import derived, finish, jsonl, jsontext, layout, tasks
from recovery.commit import Change, Edit, txid_of
from recovery.errors import DataError, NotFound, RecoveryError, RollbackFailed
from recovery.store import transact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Sequence

    from recovery.durable import Version
    from recovery.store import FileStore


class Result:
    """What a verb did: `line` for people, `data` for programs, `details` for `-v`."""

    __slots__ = ("changed", "data", "details", "line")

    def __init__(self, line: str, changed: bool, data: dict[str, Any], details: Sequence[str] = ()) -> None:
        self.line, self.changed, self.data, self.details = line, changed, data, list(details)


def _names(store: FileStore, *first: str) -> list[str]:
    """The files a change is over; progress only where there is one."""
    names = list(first)
    if "progress.json" in store.list(".sprint"):
        names.append(layout.PROGRESS)
    return names


def _edit(name: str, before: Version, ops: list[jsontext.Op], splices: Optional[list[jsontext.Splice]] = None) -> Edit:
    return Edit(name, before, ops=ops, splices=splices)


def _require_settled(store: FileStore, agent: str, task: str) -> None:
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


def _rolled_back(store: FileStore, agent: str, task: str) -> Optional[dict[str, Any]]:
    """The checkpoint that says the task's last change was rolled back, if it was."""
    history = store.read(layout.history(task), strict=False)
    if history is None:
        return None
    last = None
    for entry in jsonl.records(history.text.encode("latin-1"))[0]:
        data = entry.get("data")
        if isinstance(data, dict) and data.get("agent") == agent:
            last = entry
    return last if last is not None and last.get("state") == "rolled_back" else None


def _require_not_rolled_back(store: FileStore, agent: str, task: str, verb: str) -> None:
    undone = _rolled_back(store, agent, task)
    if undone is not None:
        raise DataError(
            f"{agent}/{task}: its last change was rolled back at {undone.get('timestamp')}. Nothing changed.",
            hint=f"to {verb} it all the same, add --again",
        )


def _checkpoint(change: Change, state: str, **data: Any) -> None:
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


def _data(agent: str, task: str, status: str, changed: bool, **more: Any) -> dict[str, Any]:
    return {"ok": True, "code": 0, "changed": changed, "agent": agent, "task": task, "status": status, **more}


# --- complete


def complete(
    store: FileStore,
    agent: str,
    task: str,
    message: str,
    again: bool = False,
    keep_backup: bool = False,
    dry_run: bool = False,
    attempt: int = 1,
) -> Result:
    """Mark a task completed in outbox and progress, and write its completion record, in one commit.

    A task that is completed already is left as it is.  Raises NotFound (66), DataError (65), RollbackFailed (70) and
    what `recovery.commit` raises.  A crash leaves all files old, or a record that the next command finishes.
    """
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        found["looked"] = True
        _require_settled(store, agent, task)
        name = layout.outbox(agent)
        before = store.read(name)
        if before is None:
            raise _unknown(store, agent, task)
        outbox = tasks.Outbox(name, before)
        entry = outbox.find(task)
        record_name = layout.record(agent, task)
        if entry is None:
            done = outbox.archived(task) or _read_record(store, record_name)
            if done is None:
                raise _unknown(store, agent, task, outbox)
            found.update(when=done.get("timestamp") or done.get("completed_at"), status="completed", old="completed")
            return None
        status = tasks.status_of(outbox, task)
        found.update(old=status)
        node = jsontext.node_at(outbox.text, entry[3])
        if status.lower() == "completed":
            found.update(
                when=tasks.field(outbox.text, node, "completed_at"),
                said=tasks.field(outbox.text, node, "completion_message"),
            )
            _drop_own_backup(store, agent, task)
            return None
        if not tasks.may_become(status, "completed"):
            raise DataError(f"{agent}/{task} is {status}: it can't become completed. Nothing changed.")
        if not again:
            _require_not_rolled_back(store, agent, task, "complete")
        now = store.now()
        txid = txid_of(now, store.nonce)
        title = tasks.field(outbox.text, node, "title") or ""
        ops = tasks.complete_ops(outbox, task, now, message)
        edits = [
            _edit(name, before, ops, jsontext.splices(outbox.text, ops, outbox.top, outbox.known(task))),
        ]
        listed = store.read(layout.PROGRESS) if layout.PROGRESS in names else None
        if listed is not None:
            progress = tasks.Progress(layout.PROGRESS, listed)
            counted = tasks.progress_complete_ops(progress, agent, task, title, now)
            if counted:
                edits.append(
                    _edit(layout.PROGRESS, listed, counted, jsontext.splices(progress.text, counted, progress.top))
                )
        old_record = store.read(record_name, strict=False)
        record = tasks.completion_record(agent, task, title, status, now, message, txid)
        edits.append(Edit(record_name, old_record, after=jsontext.dumps(record, "  ") + "\n", like=before))
        change = Change("complete", agent, task, now, txid, edits)
        change.keep_backup = keep_backup
        _checkpoint(change, "completed", previous_status=status)
        if attempt > 1:
            change.derived.append({"name": layout.recovery_log(task), "append": _recovered(task, agent, now, attempt)})
        found.update(files=[edit.name for edit in edits], txid=txid, time=now)
        return change

    names = _names(store, layout.outbox(agent), layout.record(agent, task))
    try:
        txid = None
        if dry_run:
            plan()
        else:
            txid = transact(store, names, plan)
    except NotFound as error:
        if found.get("looked"):
            raise
        raise _unknown(store, agent, task) from error
    if "files" not in found:
        when = f" at {found['when']}" if found.get("when") else ""
        said = found.get("said")
        other = f"; it says {tasks.quoted(said)}" if said is not None and said != message else ""
        return Result(
            f"already completed {agent}/{task}{when}{other}; nothing changed",
            False,
            _data(agent, task, "completed", False, completed_at=found.get("when")),
        )
    files = found["files"]
    plural = "file" if len(files) == 1 else "files"
    arrow = f"({found['old']} -> completed)"
    if dry_run:
        return Result(
            f"would complete {agent}/{task} {arrow}; {len(files)} {plural}; nothing changed",
            False,
            _data(agent, task, found["old"], False, dry_run=True, files=files),
            files,
        )
    return Result(
        f"completed {agent}/{task} {arrow}; {len(files)} {plural}, read back",
        True,
        _data(agent, task, "completed", True, previous_status=found["old"], files=files, txid=txid),
        [*(f"wrote    {name}" for name in files), f"recorded {layout.changes(found['time'])} as {txid}"],
    )


def _recovered(task: str, agent: str, now: str, attempt: int) -> dict[str, Any]:
    return {
        "task_id": task,
        "timestamp": now,
        "error_type": None,
        "error_message": None,
        "strategy": "RETRY",
        "success": True,
        "details": {"agent": agent, "attempts": attempt},
    }


def _read_record(store: FileStore, name: str) -> Optional[dict[str, Any]]:
    """A completion record that can be believed: JSON that says completed."""
    try:
        version = store.read(name)
        value = jsontext.loads(jsontext.from_latin(version.text)) if version else None
    except (RecoveryError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("status") == "completed" else None


def _drop_own_backup(store: FileStore, agent: str, task: str) -> None:
    """A crash right after the end of a commit leaves its backup: the repeated command takes it away."""
    journal = store.journal()
    last = journal.read() if journal is not None else None
    if last is not None and last.finished and not last.body["keep_backup"]:
        line = last.body["line"]
        if (line["agent"], line["task"]) == (agent, task):
            finish.remove_backup(store, last)


def _unknown(store: FileStore, agent: str, task: str, outbox: Optional[tasks.Outbox] = None) -> NotFound:
    """Says what isn't there, where it is instead, and what is."""
    agents = [name for name in store.list("postbox") if layout.is_id(name)][:1000]
    elsewhere = []
    for other in agents:
        if other == agent:
            continue
        try:
            version = store.read(layout.outbox(other))
            entry = tasks.Outbox(layout.outbox(other), version).find(task) if version else None
        except RecoveryError:
            continue
        if entry:
            elsewhere.append(f"{other} has it ({entry[1] or 'pending'})")
    if outbox is None:
        parts = [f"there is no outbox of {agent}"]
    else:
        parts = [f"{agent} has no {task}"]
    text = "; ".join(parts + elsewhere[:3]) + "."
    if outbox is not None:
        waiting = outbox.open_tasks()
        text += f" Open for {agent}: " + (", ".join(waiting[:10]) if waiting else "nothing")
        text += f" and {len(waiting) - 10} more." if len(waiting) > 10 else "."
    elif agents:
        text += " Agents here: " + ", ".join(agents[:10]) + (" and more." if len(agents) > 10 else ".")
    return NotFound(text + " Nothing changed.", hint="`bin/task_status.sh` shows what there is")


# --- assign


def assign(
    store: FileStore,
    agent: str,
    task: str,
    title: str,
    priority: str,
    hours: Optional[float] = None,
    again: bool = False,
    dry_run: bool = False,
) -> Result:
    """Append a task to an agent's outbox (made if there is none), list it in progress, write its inbox note.

    `priority` is one of `tasks.PRIORITIES`, `hours` a positive estimate.  The same task with the same title is a
    no-op; with another title DataError (65).
    """
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        _require_settled(store, agent, task)
        name = layout.outbox(agent)
        before = store.read(name)
        now = store.now()
        new = tasks.task_entry(task, title, priority, hours, now)
        edits = []
        if before is None:
            if _read_record(store, layout.record(agent, task)):
                raise DataError(f"{agent}/{task} was completed before (its record is there). Nothing changed.")
            edits.append(Edit(name, None, after=tasks.new_outbox(agent, new)))
        else:
            outbox = tasks.Outbox(name, before)
            entry = outbox.find(task)
            if entry is not None:
                node = jsontext.node_at(outbox.text, entry[3])
                has = tasks.field(outbox.text, node, "title") or ""
                if has != title:
                    raise DataError(
                        f"{agent}/{task} is there already, with the title {tasks.quoted(has)}. Nothing changed.",
                        hint="choose another id",
                    )
                found.update(status=tasks.status_of(outbox, task))
                _drop_own_backup(store, agent, task)
                return None
            if outbox.archived(task) or _read_record(store, layout.record(agent, task)):
                raise DataError(
                    f"{agent}/{task} was completed before and is in the archive. Nothing changed.",
                    hint="choose another id",
                )
            ops = tasks.assign_ops(outbox, new)
            edits.append(_edit(name, before, ops, jsontext.splices(outbox.text, ops, outbox.top)))
        if not again:
            _require_not_rolled_back(store, agent, task, "assign")
        listed = store.read(layout.PROGRESS) if layout.PROGRESS in names else None
        if listed is not None:
            progress = tasks.Progress(layout.PROGRESS, listed)
            ops = tasks.progress_assign_ops(progress, agent, task, title, now)
            if ops:
                edits.append(_edit(layout.PROGRESS, listed, ops, jsontext.splices(progress.text, ops, progress.top)))
        note = store.read(layout.inbox(agent, task), strict=False)
        if note is None:
            edits.append(Edit(layout.inbox(agent, task), None, after=tasks.inbox_note(agent, new), like=before))
        txid = txid_of(now, store.nonce)
        found.update(files=[edit.name for edit in edits], txid=txid, time=now)
        return Change("assign", agent, task, now, txid, edits)

    names = _names(store, layout.outbox(agent), layout.inbox(agent, task))
    txid = None
    if dry_run:
        plan()
    else:
        txid = transact(store, names, plan, create=True)
    if "files" not in found:
        return Result(
            f"already assigned {agent}/{task} ({found['status']}); nothing changed",
            False,
            _data(agent, task, found["status"], False),
        )
    files = found["files"]
    if dry_run:
        return Result(
            f"would assign {agent}/{task} ({priority}); {len(files)} files; nothing changed",
            False,
            _data(agent, task, "", False, dry_run=True, files=files),
            files,
        )
    return Result(
        f"assigned {agent}/{task} ({priority}); {len(files)} files, read back",
        True,
        _data(agent, task, "pending", True, priority=priority, files=files, txid=txid),
        [*(f"wrote    {name}" for name in files), f"recorded {layout.changes(found['time'])} as {txid}"],
    )


# --- rollback


def last_change(store: FileStore, agent: str, task: str) -> Optional[dict[str, Any]]:
    """The newest line of the change log about a task, None if there is none."""
    for name in reversed(store.list(layout.CHANGES)):
        if not name.endswith(".jsonl"):
            continue
        for line in reversed(derived.change_lines(store, f"{layout.CHANGES}/{name}")):
            if (line.get("agent"), line.get("task")) == (agent, task):
                return dict(line)
    return None


def rollback(store: FileStore, agent: str, task: str, dry_run: bool = False) -> Result:
    """Take back the task's last recorded change over all its files, field by field, in one commit.

    Others' changes to the same files stay.  DataError (65) with both values where somebody has changed the same
    fields since; NotFound (66) if no change of the task is recorded.  Twice is a no-op.
    """
    line = last_change(store, agent, task)
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        _require_settled(store, agent, task)
        now_last = last_change(store, agent, task)
        if line is None or now_last is None:
            raise NotFound(
                f"no change of {agent}/{task} is recorded in {layout.CHANGES}/. Nothing changed.",
                hint="`bin/task_status.sh` shows what there is",
            )
        if now_last["txid"] != line["txid"]:
            raise DataError(f"{agent}/{task} was changed this very moment. Nothing changed.", hint="look again")
        if line["op"] == "rollback":
            _drop_own_backup(store, agent, task)
            found.update(op=line["undoes_op"], when=line["time"])
            return None
        edits = [edit for file in line["files"] for edit in _inverse_edit(store, file)]
        now = store.now()
        change = Change("rollback", agent, task, now, txid_of(now, store.nonce), edits)
        change.extra = {"undoes": line["txid"], "undoes_op": line["op"]}
        change.durable_log = True
        _checkpoint(change, "rolled_back", undoes=line["txid"])
        found.update(op=line["op"], files=[edit.name for edit in edits], time=now)
        return change

    names = [file["name"] for file in line["files"]] if line else []
    txid = None
    if line is None or dry_run:
        plan()
    else:
        txid = transact(store, names, plan, create=True)
    if "files" not in found:
        return Result(
            f"already rolled back {agent}/{task} ({found['op']}) at {found['when']}; nothing changed",
            False,
            _data(agent, task, "rolled_back", False),
        )
    files = found["files"]
    word = "would roll back" if dry_run else "rolled back"
    return Result(
        f"{word} {agent}/{task} ({found['op']} of {line['time'] if line else ''}); {len(files)} files"
        + ("; nothing changed" if dry_run else ", read back"),
        not dry_run,
        _data(agent, task, "rolled_back", not dry_run, files=files, undoes=line["txid"] if line else "", txid=txid),
        files,
    )


def _inverse_edit(store: FileStore, file: dict[str, Any]) -> list[Edit]:
    name = file["name"]
    now = store.read(name, strict="ops" in file)
    if "write" in file:
        old = file["write"][0]
        if (now.hash if now else None) == file["before"]:
            return []
        if (now.hash if now else None) != file["after"]:
            raise DataError(
                f"{name} was changed by somebody since. Nothing changed.", hint="put it right by hand, then repeat"
            )
        return [Edit(name, now, after=old)]
    if now is None:
        raise DataError(f"{name} is gone. Nothing changed.")
    try:
        top = jsontext.document(now.text)
        stand = jsontext.standing(now.text, file["ops"], top)
        if stand == "before":
            return []
        if stand == "other":
            raise DataError(
                f"{name} was changed by somebody since: {_differences(now.text, top, file['ops'])}. Nothing changed.",
                hint="put the fields right by hand, then repeat",
            )
        ops = jsontext.inverse(file["ops"])
        return [_edit(name, now, ops, jsontext.splices(now.text, ops, top))]
    except jsontext.BadJSON as error:
        raise DataError(f"{name} is damaged and was not touched: {error}") from None


def _differences(text: str, top: jsontext.Node, ops: list[jsontext.Op]) -> str:
    words = []
    for op in ops:
        if op["op"] != "set" or op.get("shared"):
            continue
        span = jsontext.find(text, op["path"], top)
        now = None if span is None else jsontext.from_latin(text[span[0] : span[1]])
        if not jsontext.same(now, op["after"]):
            where = ".".join(step if isinstance(step, str) else step[1] for step in op["path"])
            theirs, ours = tasks.quoted(now or "absent"), tasks.quoted(op["after"] or "absent")
            words.append(f"{where} is {theirs}, the change had left {ours}")
    return "; ".join(words)


# --- recover


def recover(store: FileStore) -> Result:
    """Finish or undo whatever dead owners left in this workspace: an unfinished commit, parked records, lost log
    lines, staged files.  Safe at any time and twice."""
    from recovery import resolve

    done: list[str] = []
    while True:
        record = store.unfinished()
        if record is None:
            break
        resolve.resolve(store, record)
    done += store.told
    store.told = []
    done += resolve.finish_parked(store)
    if store.journal() is not None:
        lock = store.commit_lock()
        try:
            lines = derived.rederive(store)
        finally:
            lock.release()
        if lines:
            done.append(f"wrote {lines} log line(s) again from the change log")
    done += _sweep(store)
    count = len(done)
    line = "nothing to recover" if not count else f"recovered: {count} thing(s) put right"
    return Result(line, bool(count), {"ok": True, "code": 0, "changed": bool(count), "done": done}, done)


def _sweep(store: FileStore) -> list[str]:
    """Remove staged files that no lock's note names any more (their lock file was removed)."""
    done = []
    places = [(layout.outbox(agent), f"postbox/{agent}") for agent in store.list("postbox") if layout.is_id(agent)]
    if "progress.json" in store.list(".sprint"):
        places.append((layout.PROGRESS, ".sprint"))
    for name, folder in places:
        folders = [folder] if folder == ".sprint" else [folder, f"{folder}/completed", f"{folder}/inbox"]
        if not any(base.endswith(".stage") for one in folders for base in store.list(one)):
            continue
        try:
            with store.lock([name]):
                done += _remove_stages(store, folders)
        except NotFound:
            done += _remove_stages(store, folders)
    ours = [layout.CHECKPOINTS, layout.LOGS, layout.CONFLICTS]
    if any(base.endswith(".stage") for one in ours for base in store.list(one)):
        lock = store.commit_lock()
        try:
            done += _remove_stages(store, ours)
        finally:
            lock.release()
    return done


def _remove_stages(store: FileStore, folders: Sequence[str]) -> list[str]:
    done = []
    for folder in folders:
        for base in store.list(folder):
            if base.startswith(".") and base.endswith(".stage") and store.discard(f"{folder}/{base}"):
                done.append(f"removed {folder}/{base}, which a dead process had left")
    return done
