"""rollback and undo: the inverse commit of a task's last change, over all its files.

    rollback   of the last change, unless that was a rollback: twice is a no-op
    undo       of the very last change, whatever it was: an undo of an undo does it again

One mechanism: what is read, compared, refused and written is the same.
"""

from __future__ import annotations

from recovery import changelog, derived, jsontext, layout, lost, tasks, verbs
from recovery.commit import Change, Edit, lost_race, txid_of
from recovery.errors import DataError, NotFound, Unconfirmed
from recovery.request import Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional

    from recovery.request import Request
    from recovery.store import FileStore

#: What each is called in what is said: would …, it …, to be ….
_WORDS = {
    "rollback": ("roll back", "rolled back", "rolled back"),
    "undo": ("undo", "undid", "undone"),
}


def last_change(store: FileStore, agent: str, task: str) -> Optional[dict[str, Any]]:
    """The newest line of the change log about a task, one of many that it was among too; None if there is none."""
    return next((line for line in changelog.by_number(store, task) if derived.is_about(line, agent, task)), None)


def rollback(store: FileStore, agent: str, task: str, dry_run: bool = False) -> Result:
    """Take back the task's last recorded change over all its files, field by field, in one commit.

    Others' changes to the same files stay, and so does the generation of a claim, which never goes down.  DataError
    (65) with both values where somebody has changed the same fields since, or where the line of a later change may have
    been lost (see `recovery.lost`); NotFound (66) if no change of the task is recorded; NotYours (76) while somebody
    else has claimed it.  Twice is a no-op, also after somebody's own hand.
    """
    return _take_back(store, "rollback", agent, task, dry_run, [])


def undo(store: FileStore, agent: str, task: str, dry_run: bool = False, only: Optional[list[str]] = None) -> Result:
    """The same for the very last change, an undo or a rollback too: what that took back is done again.

    `only` names the change that is meant, by number or txid: if another came after it that is DataError (65), if it
    has been undone already a no-op.  An empty list gets the one that was found: a second try must not undo the undo.
    """
    target = only if only is not None else []
    try:
        return _take_back(store, "undo", agent, task, dry_run, target)
    except Unconfirmed as error:
        error.hint = f"recovery undo {agent} {task} --change {target[0]}"  # without it, that would be the undo's undo
        raise


def _take_back(store: FileStore, op: str, agent: str, task: str, dry_run: bool, only: list[str]) -> Result:
    for _ in range(8):
        line = last_change(store, agent, task)
        if line is None:
            verbs.require_settled(store, agent, task)
            missing = lost.newest(store)
            raise NotFound(
                f"no change of {agent}/{task} is recorded in {layout.CHANGES}/"
                + (f" (change {missing} is lost from it). Nothing changed." if missing else ". Nothing changed."),
                hint="recovery doctor" if missing else "task_status.sh shows what there is",
            )
        if (line["agent"], line["task"]) != (agent, task):
            many = f"{line['agent']}/{line['task']}"
            raise DataError(
                f"the last change of {agent}/{task} was one of several, {line['op']} {many}. Nothing changed.",
                hint=f"recovery {op} {many} takes it back as a whole",
            )
        found_here = op == "undo" and not only
        is_done = op == line["op"] == "rollback"
        if op == "undo":
            if found_here:
                only.append(line["txid"])
            elif line.get("undoes") is not None and only[0] in (line["undoes"], str(line.get("undoes_seq"))):
                is_done = True
            elif only[0] not in (line["txid"], str(line["seq"])):
                raise DataError(
                    f"the last change of {agent}/{task} is number {line['seq']}, {line['op']} of {line['time']}, "
                    f"not {only[0]}. Nothing changed.",
                    hint=f"recovery history {agent} {task}",
                )
        try:
            return _roll_back(store, op, line, dry_run, is_done)
        except _Moved:  # another change of the task was recorded before its files were locked
            if found_here:
                only.clear()
    raise lost_race([f"{agent}/{task}"])


class _Moved(Exception):
    pass


def _roll_back(store: FileStore, op: str, line: dict[str, Any], dry_run: bool, is_done: bool) -> Result:
    """Take a change back under its files' locks; where that `is_done`, say so: who did it may have died behind it."""
    to_do, done, _ = _WORDS[op]
    agent, task = line["agent"], line["task"]
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        verbs.require_settled(store, agent, task)
        newest = last_change(store, agent, task)
        if newest is None or newest["txid"] != line["txid"]:
            raise _Moved
        lost.require_last(store, line, agent, task)
        if is_done:
            found.update(said=f"already {_WORDS[op][2]} {agent}/{task} ({line['undoes_op']}) at {line['time']}")
            return None
        _require_own(store, agent, task)
        head = layout.receipts_head(agent)  # a chain only grows: the undo of a completion is one receipt more
        edits = [edit for file in line["files"] if file["name"] != head for edit in _inverse_edit(store, file)]
        if not edits:  # somebody did it by hand
            found.update(
                said=f"nothing is left of {agent}/{task} ({line['op']} of {line['time']}) to be {_WORDS[op][2]}"
            )
            return None
        now = store.now()
        change = Change(op, agent, task, now, txid_of(now, store.nonce), edits)
        again = "undoes" in line and not line.get("again")  # what was taken back is done again
        first_op = line.get("first_op", line.get("undoes_op", line["op"]))
        change.extra = {"undoes": line["txid"], "undoes_seq": line["seq"], "undoes_op": line["op"]}
        if "undoes" in line:
            change.extra.update(first_op=first_op, **({"again": True} if again else {}))
        if "tasks" in line:
            change.extra["tasks"] = line["tasks"]
        change.durable_log = True
        if any(file["name"] == head for file in line["files"]):
            from recovery import chain

            chain.take_back(store, change, line)
        if any(layout.is_archive(item["name"]) for item in line["derived"]):
            from recovery import archive

            archive.take_back(store, change, line)
        found["state"] = _status_before(line, agent, task) if again else "rolled_back"  # which repeats are told of
        verbs.checkpoint(change, found["state"], undoes=line["txid"], undoes_op=first_op)
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
    word = f"would {to_do}" if dry_run else done
    return Result(
        f"{word} {agent}/{task} ({found['op']} of {line['time']}); {len(files)} files"
        + ("; nothing changed" if dry_run else ", read back"),
        not dry_run,
        verbs.data_of(agent, task, found["state"], not dry_run, files=files, undoes=line["txid"], txid=found["txid"]),
        files,
    )


def _status_before(line: dict[str, Any], agent: str, task: str) -> str:
    """The status that a task gets back when a change is undone, as a checkpoint calls it."""
    from recovery.moves import STATES

    entry = ["tasks", ["task_id", task]]
    for file in line["files"]:
        for op in file.get("ops", ()) if file["name"] == layout.outbox(agent) else ():
            if op["path"] in (entry, [*entry, "status"]) and op.get("before"):
                value = jsontext.loads(op["before"])
                value = value.get("status") or "pending" if isinstance(value, dict) else value
                return STATES.get(str(value).lower(), "running")
    return "running"


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
        walked = jsontext.Walked(now.text)
        walked.whole()
        stand = jsontext.standing(walked, file["ops"])
        if stand == "before":
            return []
        if stand == "other":
            raise DataError(
                f"{name} was changed by somebody since: {differences(walked, file['ops'])}. Nothing changed.",
                hint="put the fields right by hand, then repeat",
            )
        ops = jsontext.inverse(file["ops"])
        if any(op["path"][-1:] == ["claim"] for op in ops):
            from recovery import claims

            ops = claims.kept_generations(store, ops)
        return [Edit(name, now, ops, jsontext.splices(walked, ops))]
    except jsontext.BadJSON as error:
        raise DataError(f"{name} is damaged and was not touched: {error}") from None


def differences(walked: jsontext.Walked, ops: Iterable[jsontext.Op]) -> str:
    """The fields that are not as an edit left them, both values of each, in words."""
    words = []
    for op in ops:
        if op["op"] != "set" or op.get("shared"):
            continue
        span = walked.find(op["path"])
        now = None if span is None else jsontext.from_latin(walked.text[span[0] : span[1]])
        if not jsontext.same(now, op["after"]):
            where = ".".join(step if isinstance(step, str) else step[1] for step in op["path"])
            words += _members(where, now, op["after"])
    return "; ".join(words)


def _members(where: str, now: Optional[str], after: Optional[str]) -> list[str]:
    """Two values that are not the same, in words; of two objects the members that differ."""
    theirs, ours = (None if text is None else jsontext.loads(text) for text in (now, after))
    if isinstance(theirs, dict) and isinstance(ours, dict):
        pairs = [
            (f"{where}.{key}", *(jsontext.dumps(one[key]) if key in one else None for one in (theirs, ours)))
            for key in {**ours, **theirs}
            if (key in theirs, theirs.get(key)) != (key in ours, ours.get(key))
        ]
    else:
        pairs = [(where, now, after)]
    return [
        f"{name} is {tasks.shown(one or 'absent')}, the change had left {tasks.shown(other or 'absent')}"
        for name, one, other in pairs
    ]


def _parse(request: Request) -> list[Any]:
    only = request.options.get("change")
    return [*request.agent_and_task(0)[:2], [] if only is None else [only]]


VERB = Verb(
    {"--dry-run": "dry_run"},
    _parse,
    lambda store, request, call: rollback(store, call[0], call[1], request.asked("dry_run")),
    of_task=True,
)
UNDO = Verb(
    {"--dry-run": "dry_run", "--change": "change="},
    _parse,
    lambda store, request, call: undo(store, call[0], call[1], request.asked("dry_run"), call[2]),
    of_task=True,
)
