"""complete: mark a task completed, in all its files or none."""

from __future__ import annotations

from recovery import jsontext, layout, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.errors import DataError, NotFound, RecoveryError, UsageError
from recovery.request import Request, Verb, text
from recovery.store import transact
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore


def complete(
    store: FileStore,
    agent: str,
    task: str,
    message: str,
    again: bool = False,
    keep_backup: bool = False,
    dry_run: bool = False,
    brought: Optional[list[dict[str, Any]]] = None,
) -> Result:
    """Mark a task completed in outbox and progress, and write its completion record, in one commit.

    A task that is completed already is left as it is; with `again` not one whose checks were never passed.  A task
    with checks needs their results: FirstThis, whose work brings them.  Raises NotFound (66), DataError (65), Denied
    (77: its checks are not approved), RollbackFailed (70) and what `recovery.commit` raises.  A crash leaves all files
    old, or a record that the next command finishes.
    """
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        found["looked"] = True
        verbs.require_settled(store, agent, task)
        name = layout.outbox(agent)
        before = store.read(name)
        if before is None:
            raise _unknown(store, agent, task)
        outbox = tasks.Outbox(name, before)
        entry = outbox.find(task)
        record_name = layout.record(agent, task)
        if entry is None:
            done = outbox.archived(task) or verbs.read_record(store, record_name)
            if done is None:
                raise _unknown(store, agent, task, outbox)
            found.update(when=done.get("timestamp") or done.get("completed_at"), status="completed", old="completed")
            return None
        status = tasks.status_of(outbox, task)
        found.update(old=status)
        node = jsontext.node_at(outbox.text, entry[3])
        asked = node.span("checks")
        has_checks = asked is not None or verbs.may_have_checks(store)
        if status.lower() == "completed":
            if has_checks:
                from recovery import checked

                found.update(missing=checked.missing(store, agent, task, outbox.text, asked))
        if status.lower() == "completed" and not (again and found.get("missing")):
            found.update(
                when=tasks.field(outbox.text, node, "completed_at"),
                said=tasks.field(outbox.text, node, "completion_message"),
            )
            return None
        if not tasks.may_become(status, "completed") and not found.get("missing"):
            raise DataError(f"{agent}/{task} is {status}: it can't become completed. Nothing changed.")
        if not again:
            verbs.require_not_rolled_back(store, agent, task, "complete")
        now = store.now()
        txid = txid_of(now, store.nonce)
        title = tasks.field(outbox.text, node, "title") or ""
        ops = tasks.complete_ops(outbox, task, now, message)
        edits = [
            Edit(name, before, ops, jsontext.splices(outbox.text, ops, outbox.top, outbox.known(task))),
        ]
        listed = store.read(layout.PROGRESS) if layout.PROGRESS in names else None
        if listed is not None:
            progress = tasks.Progress(layout.PROGRESS, listed)
            counted = tasks.progress_complete_ops(progress, agent, task, title, now)
            if counted:
                edits.append(
                    Edit(layout.PROGRESS, listed, counted, jsontext.splices(progress.text, counted, progress.top))
                )
        old_record = store.read(record_name, strict=False)
        record = tasks.completion_record(agent, task, title, status, now, message, txid)
        change = Change("complete", agent, task, now, txid, edits)
        if has_checks:
            from recovery import checked

            needs = checked.demand(store, agent, task, outbox.text, asked)
            if needs is not None:
                found.update(checks=needs.names)
            if needs is not None and not dry_run:
                found.update(results=checked.results_of(agent, task, needs, brought, old_record))
                record["receipt"] = checked.receipt(store, change, record, needs, found["results"], before)
        change.edits = [*change.edits, Edit(record_name, old_record, after=jsontext.pretty(record) + "\n", like=before)]
        change.keep_backup = keep_backup
        verbs.checkpoint(change, "completed", previous_status=status)
        found.update(files=[edit.name for edit in change.edits], txid=txid, time=now)
        return change

    names = verbs.names(store, layout.outbox(agent), layout.record(agent, task))
    if brought is not None:
        names.append(layout.receipts_head(agent))
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
        more: dict[str, Any] = {}
        if found.get("missing"):
            more = {"claimed_done": True, "checks": found["missing"]}
            other += f"; claimed done: {', '.join(found['missing'])} was never passed (--again checks it)"
        return Result(
            f"already completed {agent}/{task}{when}{other}; nothing changed",
            False,
            verbs.data_of(agent, task, "completed", False, completed_at=found.get("when"), **more),
        )
    files = found["files"]
    plural = "file" if len(files) == 1 else "files"
    arrow = f"({found['old']} -> completed)"
    more = {"checks": found["checks"]} if "checks" in found else {}
    if dry_run:
        after = f" once {', '.join(found['checks'])} is passed" if more else ""
        return Result(
            f"would complete {agent}/{task} {arrow}{after}; {len(files)} {plural}; nothing changed",
            False,
            verbs.data_of(agent, task, found["old"], False, dry_run=True, files=files, **more),
            files,
        )
    if more:
        from recovery import checks

        checks.forget(store, agent, task, found["results"])
    passed = f"; passed {', '.join(found['checks'])}" if more else ""
    return Result(
        f"completed {agent}/{task} {arrow}; {len(files)} {plural}, read back{passed}",
        True,
        verbs.data_of(agent, task, "completed", True, previous_status=found["old"], files=files, txid=txid, **more),
        [*(f"wrote    {name}" for name in files), f"recorded {layout.changes(found['time'])} as {txid}"],
    )


def _unknown(store: FileStore, agent: str, task: str, outbox: Optional[tasks.Outbox] = None) -> NotFound:
    """Says what isn't there, where it is instead, and what is."""
    agents = verbs.agents(store)[:1000]
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
    return NotFound(text + " Nothing changed.", hint="task_status.sh shows what there is")


def _parse(request: Request) -> list[Any]:
    agent, task, rest = request.agent_and_task(1)
    if "message" in request.options:
        if rest:
            raise UsageError("the message is given twice")
        rest = [request.options["message"]]
    return [agent, task, text(rest[0]) if rest else tasks.DEFAULT_MESSAGE]


def _call(store: FileStore, request: Request, call: list[Any]) -> Result:
    agent, task, message = call
    asked = request.asked
    return complete(
        store, agent, task, message, asked("again"), asked("keep_backup"), asked("dry_run"), request.brought
    )


VERB = Verb(
    {"--dry-run": "dry_run", "--again": "again", "--keep-backup": "keep_backup", "-m": "message="},
    _parse,
    _call,
    of_task=True,
    text=True,
)
