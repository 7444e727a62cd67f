"""reassign: give a task, its brief and its line in progress to another agent."""

from __future__ import annotations

import os

from recovery import claims, jsontext, layout, moves, release, rollback, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.errors import DataError, UsageError
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.durable import Version
    from recovery.store import FileStore


def reassign(store: FileStore, agent: str, task: str, other: str, dry_run: bool = False) -> Result:
    """Move a task's entry, as it stands, to another agent's outbox (made if there is none), with brief and progress.

    One in progress becomes pending, a claim of the caller's ends; what is required of the first agent and not of the
    other goes along as the entry's `checks`, or giving a task away would be a way around them.  One that was given to
    that agent already is left as it is.  NotYours (76) while somebody else has claimed it; DataError (65): it has
    ended, the other agent has a task of that name, or what is required can't be known; NotFound (66).  The change is
    recorded as the first agent's: `rollback` finds it there.
    """
    if not store.read_state(layout.outbox(agent)):
        raise verbs.unknown(store, agent, task)
    names = verbs.names(store, layout.outbox(other), layout.outbox(agent), layout.inbox(agent, task))
    names.append(layout.inbox(other, task))
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        outbox = moves.read(store, agent, task)[1]
        if outbox.find(task) is None:
            last = rollback.last_change(store, agent, task)
            if last is not None and last["op"] == "reassign" and last.get("to") == other:
                found["stay"] = moves.Stay(f"already reassigned {agent}/{task} to {other} at {last['time']}", "")
                return None
        found["task"] = one = moves.find(store, agent, task)
        found["step"] = step = _step(store, one, other)
        now = store.now()
        edits = _outboxes(store, one, other, step)
        edits += verbs.progress_edit(
            store,
            names,
            lambda progress: tasks.progress_reassign_ops(progress, agent, task, other, step.status, now),
        )
        edits += _brief(store, agent, task, other)
        change = Change("reassign", agent, task, now, txid_of(now, store.nonce), edits)
        change.extra["to"] = other
        verbs.checkpoint(change, "pending", previous_status=one.status, to=other)
        found.update(files=[edit.name for edit in edits], txid=change.txid, time=now)
        return change

    verbs.carry_out(store, names, plan, dry_run, create=True)
    result = moves.result(agent, task, "would reassign" if dry_run else "reassigned", found, dry_run)
    if result.changed:
        release.tidy(store, agent, task, result)
    return result


def _step(store: FileStore, one: moves.Task, other: str) -> moves.Step:
    agent, task, status = one.agent, one.task, one.status.lower()
    fields: dict[str, Any] = {}
    if claims.require(store, agent, task, one.claim) and one.claim is not None:
        fields["claim"] = claims.ended(store, one.claim, "released", f"reassigned to {other}")
    if status in ("completed", "failed"):
        raise DataError(
            f"{agent}/{task} is {status}. Nothing changed.", hint=f"recovery reopen {agent} {task}, then reassign it"
        )
    if status == "in_progress":
        fields["started_at"] = None
    words = f" to {other}"
    data: dict[str, Any] = {"to": other}
    carried = _carried(store, one, other)
    if carried:
        fields["checks"] = carried
        words += f", who needs {', '.join(carried)} for it"
        data["checks"] = carried
    return moves.Step("pending" if status == "in_progress" else "", fields, words, data)


def _carried(store: FileStore, one: moves.Task, other: str) -> list[str]:
    """The `checks` of the entry, if it has to name more of them than it did; else []."""
    if not verbs.may_have_checks(store):
        return []
    from recovery import checkfile, trust

    required = trust.required(store, os.environ, one.agent, other)
    named = checkfile.named_in(one.value("checks"), f"{one.outbox.name}, {one.task}") if required else []
    return checkfile.together(named, required) if set(required) - set(named) else []


def _outboxes(store: FileStore, one: moves.Task, other: str, step: moves.Step) -> list[Edit]:
    """The entry out of the one outbox and into the other, with only `step` changed in it."""
    task, outbox = one.task, one.outbox
    entry = outbox.find(task)
    assert entry is not None
    text = outbox.text[entry[3] : entry[4]]
    ops = []
    for key, value in {**({"status": step.status} if step.status else {}), **step.fields}.items():
        ops.append(tasks.set_op([key], value))
        if value is None:
            ops[-1]["after"] = None
    moved = jsontext.from_latin(jsontext.applied(text, ops))
    name = layout.outbox(other)
    theirs = store.read(name)
    path = ["tasks", ["task_id", task]]
    if theirs is None:
        if verbs.done_before(store, other, task):
            raise _there(other, task)
        empty = tasks.empty_outbox(other)
        into = Edit(
            name, None, after=jsontext.from_latin(jsontext.applied(empty, [_set(path, moved)])), like=one.before
        )
    else:
        box = tasks.Outbox(name, theirs)
        if box.find(task) or verbs.done_before(store, other, task, box):
            raise _there(other, task)
        into = _edit(box, theirs, _set(path, moved))
    return [_edit(outbox, one.before, _set(path, None)), into]


def _set(path: list[Any], after: Optional[str]) -> jsontext.Op:
    return {"op": "set", "path": path, "after": after}


def _edit(outbox: tasks.Outbox, before: Version, op: jsontext.Op) -> Edit:
    walked = outbox.walked()
    ops = jsontext.fill_in(walked, [op])
    return Edit(outbox.name, before, ops, jsontext.splices(walked, ops))


def _there(other: str, task: str) -> DataError:
    return DataError(f"{other} has, or had, a task {task} of its own. Nothing changed.", hint="choose another agent")


def _brief(store: FileStore, agent: str, task: str, other: str) -> list[Edit]:
    """The brief goes along, and names the new agent where it named the old one in our words."""
    old, new = layout.inbox(agent, task), layout.inbox(other, task)
    brief = store.read(old, strict=False)
    if brief is None:
        return []
    if store.read_state(new) is not None:
        raise DataError(f"{new} is there already. Nothing changed.", hint="look at it, and move it away")
    text = tasks.inbox_note_for(jsontext.from_latin(brief.text), agent, task, other)
    return [Edit(new, None, after=text, like=brief), Edit(old, brief)]


def _parse(request: Request) -> list[Any]:
    agent, task, rest = request.agent_and_task(1)
    if not rest:
        raise UsageError("AGENT TASK OTHER are needed", hint="see --help")
    other = layout.require_id("agent", rest[0])
    if other == agent:
        raise UsageError(f"{task} is {agent}'s already")
    return [agent, task, other]


VERB = Verb(
    {"--dry-run": "dry_run"},
    _parse,
    lambda store, request, call: reassign(store, call[0], call[1], call[2], request.asked("dry_run")),
    of_task=True,
)
