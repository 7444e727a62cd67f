"""complete: mark a task completed, in all its files or none."""

from __future__ import annotations

import os

from recovery import jsontext, layout, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.errors import DataError, NotFound, UsageError
from recovery.request import Request, Verb, text
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
    generation: int = 0,
    brought: Optional[list[dict[str, Any]]] = None,
) -> Result:
    """Mark a task completed in outbox and progress, and write its completion record, in one commit.

    A task that is completed already is left as it is; with `again` not one whose checks were never passed.  A task
    with checks needs their results: FirstThis, whose work brings them.  A claim of it ends in the same commit;
    `generation` is that of the caller's claim, where the environment and the process tree don't tell.  Raises NotFound
    (66), DataError (65), NotYours (76: see `recovery.claims.require`), Denied (77: its checks are not approved),
    RollbackFailed (70) and what `recovery.commit` raises.  A crash leaves all files old, or a record that the next
    command finishes.
    """
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        found["looked"] = True
        verbs.require_settled(store, agent, task)
        name = layout.outbox(agent)
        before = store.read(name)
        if before is None:
            raise verbs.unknown(store, agent, task)
        outbox = tasks.Outbox(name, before)
        entry = outbox.find(task)
        record_name = layout.record(agent, task)
        if entry is None:
            done = verbs.done_before(store, agent, task, outbox)
            if done is None:
                raise verbs.unknown(store, agent, task, outbox)
            found.update(when=done.get("timestamp") or done.get("completed_at"), status="completed", old="completed")
            found.update(archived="archived_at" in done)
            return None
        status = tasks.status_of(outbox, task)
        found.update(old=status)
        node = jsontext.node_at(outbox.text, entry[3])
        claim = None
        if generation or "RECOVERY_CLAIM" in os.environ or node.span("claim") is not None:
            from recovery import claims

            value = tasks.value(outbox, task, "claim")
            if status.lower() != "completed" or not claims.has_ended(agent, task, value, "done", generation):
                claim = claims.ended_by_owner(store, agent, task, value, "done", generation)
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
        fields = tasks.completed_fields(now, message)
        if claim is not None:
            fields["claim"] = claim
        if status.lower() == "failed":
            from recovery import blocking

            edits = blocking.edits(store, agent, task, outbox, before, names, {**fields, **blocking.WITHOUT}, False)
        else:
            walked = outbox.walked(task)
            ops = tasks.task_ops(outbox, task, fields, walked)
            edits = [Edit(name, before, ops, jsontext.splices(walked, ops))]
        edits += verbs.progress_edit(
            store, names, lambda progress: tasks.progress_move_ops(progress, agent, task, title, "completed", now)
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
        verbs.carry_out(store, names, plan, dry_run)
    except NotFound as error:
        if found.get("looked"):
            raise
        raise verbs.unknown(store, agent, task) from error
    if "files" not in found:
        when = f" at {found['when']}" if found.get("when") else ""
        said = found.get("said")
        other = f"; it says {tasks.quoted(said)}" if said is not None and said != message else ""
        more: dict[str, Any] = {}
        if found.get("missing"):
            more = {"claimed_done": True, "checks": found["missing"]}
            other += f"; claimed done: {', '.join(found['missing'])} was never passed (--again checks it)"
        if found.get("archived"):
            more["archived"] = True
            other += " (archived)"
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
        verbs.data_of(
            agent, task, "completed", True, previous_status=found["old"], files=files, txid=found["txid"], **more
        ),
        verbs.wrote(found),
    )


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
        store,
        agent,
        task,
        message,
        again=asked("again"),
        keep_backup=asked("keep_backup"),
        dry_run=asked("dry_run"),
        brought=request.brought,
    )


VERB = Verb(
    {"--dry-run": "dry_run", "--again": "again", "--keep-backup": "keep_backup", "-m": "message=?"},
    _parse,
    _call,
    of_task=True,
    text=True,
)
