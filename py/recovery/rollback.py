"""rollback: the inverse commit of a task's last change, over all its files."""

from __future__ import annotations

from recovery import derived, jsontext, layout, tasks, verbs
from recovery.commit import Change, Edit, lost_race, txid_of
from recovery.errors import DataError, NotFound
from recovery.request import Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore


def last_change(store: FileStore, agent: str, task: str) -> Optional[dict[str, Any]]:
    """The newest line of the change log about a task, one of many that it was among too; None if there is none."""
    for line in derived.newest_first(store, task):
        if derived.is_about(line, agent, task):
            return line
    return None


def rollback(store: FileStore, agent: str, task: str, dry_run: bool = False) -> Result:
    """Take back the task's last recorded change over all its files, field by field, in one commit.

    Others' changes to the same files stay, and so does the generation of a claim, which never goes down.  DataError
    (65) with both values where somebody has changed the same fields since; NotFound (66) if no change of the task is
    recorded; NotYours (76) while somebody else has claimed it.  Twice is a no-op, also after somebody's own hand.
    """
    for _ in range(8):
        line = last_change(store, agent, task)
        if line is None:
            verbs.require_settled(store, agent, task)
            raise NotFound(
                f"no change of {agent}/{task} is recorded in {layout.CHANGES}/. Nothing changed.",
                hint="task_status.sh shows what there is",
            )
        if (line["agent"], line["task"]) != (agent, task):
            many = f"{line['agent']}/{line['task']}"
            raise DataError(
                f"the last change of {agent}/{task} was one of several, {line['op']} {many}. Nothing changed.",
                hint=f"recovery rollback {many} takes it back as a whole",
            )
        try:
            return _roll_back(store, line, dry_run)
        except _Moved:  # another change of the task was recorded before its files were locked
            continue
    raise lost_race([f"{agent}/{task}"])


class _Moved(Exception):
    pass


def _roll_back(store: FileStore, line: dict[str, Any], dry_run: bool) -> Result:
    agent, task = line["agent"], line["task"]
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        verbs.require_settled(store, agent, task)
        newest = last_change(store, agent, task)
        if newest is None or newest["txid"] != line["txid"]:
            raise _Moved
        if line["op"] == "rollback":
            found.update(said=f"already rolled back {agent}/{task} ({line['undoes_op']}) at {line['time']}")
            return None
        _require_own(store, agent, task)
        head = layout.receipts_head(agent)  # a chain only grows: the undo of a completion is one receipt more
        edits = [edit for file in line["files"] if file["name"] != head for edit in _inverse_edit(store, file)]
        if not edits:  # somebody did it by hand
            found.update(said=f"nothing is left of {agent}/{task} ({line['op']} of {line['time']}) to be rolled back")
            return None
        now = store.now()
        change = Change("rollback", agent, task, now, txid_of(now, store.nonce), edits)
        change.extra = {"undoes": line["txid"], "undoes_op": line["op"]}
        if "tasks" in line:
            change.extra["tasks"] = line["tasks"]
        change.durable_log = True
        if any(file["name"] == head for file in line["files"]):
            from recovery import chain

            chain.take_back(store, change, line)
        if line["op"] in ("archive", "restore"):
            from recovery import archive

            archive.take_back(store, change, line)
        verbs.checkpoint(change, "rolled_back", undoes=line["txid"], undoes_op=line["op"])
        files = [edit.name for edit in change.edits]
        found.update(op=line["op"], files=files, txid=None if dry_run else change.txid)
        return change

    verbs.carry_out(store, [file["name"] for file in line["files"]], plan, dry_run, create=True)
    if "files" not in found:
        return Result(
            f"{found['said']}; nothing changed",
            False,
            verbs.data_of(agent, task, "rolled_back", False),
        )
    files = found["files"]
    word = "would roll back" if dry_run else "rolled back"
    return Result(
        f"{word} {agent}/{task} ({found['op']} of {line['time']}); {len(files)} files"
        + ("; nothing changed" if dry_run else ", read back"),
        not dry_run,
        verbs.data_of(agent, task, "rolled_back", not dry_run, files=files, undoes=line["txid"], txid=found["txid"]),
        files,
    )


def _require_own(store: FileStore, agent: str, task: str) -> None:
    """NotYours (76) while somebody else has claimed the task."""
    version = store.read(layout.outbox(agent))
    claim = tasks.value(tasks.Outbox(layout.outbox(agent), version), task, "claim") if version is not None else None
    if claim is not None:
        from recovery import claims

        if claims.is_held(claims.of(claim)):
            claims.require(store, agent, task, claim)


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
        if any(op["path"][-1:] == ["claim"] for op in ops):
            from recovery import claims

            ops = claims.kept_generations(store, ops)
        return [Edit(name, now, ops, jsontext.splices(now.text, ops, top))]
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
            theirs, ours = tasks.shown(now or "absent"), tasks.shown(op["after"] or "absent")
            words.append(f"{where} is {theirs}, the change had left {ours}")
    return "; ".join(words)


VERB = Verb(
    {"--dry-run": "dry_run"},
    lambda request: list(request.agent_and_task(0)[:2]),
    lambda store, request, call: rollback(store, call[0], call[1], request.asked("dry_run")),
    of_task=True,
)
