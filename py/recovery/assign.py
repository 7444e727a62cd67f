"""assign: give an agent a task, in all its files or none."""

from __future__ import annotations

from recovery import jsontext, layout, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.errors import DataError, UsageError
from recovery.request import Request, Verb, text
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional, Sequence

    from recovery.durable import Version
    from recovery.store import FileStore

    Given = Iterable[tuple[str, Optional[Version], Optional[tasks.Outbox], Sequence[dict[str, Any]]]]


def assign(
    store: FileStore,
    agent: str,
    task: str,
    title: str,
    priority: str,
    hours: Optional[float] = None,
    again: bool = False,
    dry_run: bool = False,
    checks: Sequence[str] = (),
) -> Result:
    """Append a task to an agent's outbox (made if there is none), list it in progress, write its inbox note.

    `priority` is one of `tasks.PRIORITIES`, `hours` a positive estimate, `checks` the names of what it must
    pass (see `recovery.trust`).  The same task with the same title is a no-op; with another title DataError (65).
    """
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        verbs.require_settled(store, agent, task)
        name = layout.outbox(agent)
        before = store.read(name)
        now = store.now()
        new = tasks.task_entry(task, title, priority, hours, now)
        if checks:
            new["checks"] = list(checks)
        outbox = None
        if before is None:
            if verbs.done_before(store, agent, task):
                raise DataError(f"{agent}/{task} was completed before (its record is there). Nothing changed.")
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
                found.update(status=tasks.status_of(outbox, task), priority=tasks.field(outbox.text, node, "priority"))
                return None
            if verbs.done_before(store, agent, task, outbox):
                raise DataError(
                    f"{agent}/{task} was completed before and is in the archive. Nothing changed.",
                    hint="choose another id",
                )
        if not again:
            verbs.require_not_rolled_back(store, agent, task, "assign")
        edits = edits_of(store, [(agent, before, outbox, [new])], layout.PROGRESS in names, now)
        txid = txid_of(now, store.nonce)
        found.update(files=[edit.name for edit in edits], txid=txid, time=now)
        return Change("assign", agent, task, now, txid, edits)

    names = verbs.names(store, layout.outbox(agent), layout.inbox(agent, task))
    verbs.carry_out(store, names, plan, dry_run, create=True)
    if "files" not in found:
        has = found["priority"] or ""
        other = f"; its priority is {tasks.shown(has)}" if has.upper() != priority else ""
        return Result(
            f"already assigned {agent}/{task} ({found['status']}){other}; nothing changed",
            False,
            verbs.data_of(agent, task, found["status"], False),
        )
    files = found["files"]
    if dry_run:
        return Result(
            f"would assign {agent}/{task} ({priority}); {len(files)} files; nothing changed",
            False,
            verbs.data_of(agent, task, "", False, dry_run=True, files=files),
            files,
        )
    return Result(
        f"assigned {agent}/{task} ({priority}); {len(files)} files, read back",
        True,
        verbs.data_of(agent, task, "pending", True, priority=priority, files=files, txid=found["txid"]),
        verbs.wrote(found),
    )


def edits_of(store: FileStore, given: Given, listed: bool, now: str) -> list[Edit]:
    """The edits by which agents get new tasks: in their outboxes, in progress, a brief for each that is still to do.

    `given` has for each agent its outbox as it was read (None, None: it is made) and the new entries; `listed` says
    whether there is a progress file to list them in.  A brief that stands there already stays.
    """
    edits, briefs = [], []
    new = []
    for agent, before, outbox, entries in given:
        name = layout.outbox(agent)
        if outbox is None:
            edits.append(Edit(name, None, after=tasks.new_outbox(agent, entries)))
        else:
            walked = outbox.walked()
            ops = tasks.assign_ops(outbox, entries, walked)
            edits.append(Edit(name, before, ops, jsontext.splices(walked, ops)))
        for entry in entries:
            new.append((agent, entry))
            note = layout.inbox(agent, entry["task_id"])
            if entry["status"] not in tasks.CLOSED and store.read(note, strict=False) is None:
                briefs.append(Edit(note, None, after=tasks.inbox_note(agent, entry), like=before))
    version = store.read(layout.PROGRESS) if listed else None
    if version is not None:
        progress = tasks.Progress(layout.PROGRESS, version)
        ops = tasks.progress_assign_ops(progress, new, now)
        if ops:
            edits.append(Edit(layout.PROGRESS, version, ops, jsontext.splices(progress.walked, ops)))
    return edits + briefs


def _parse(request: Request) -> list[Any]:
    agent, task, rest = request.agent_and_task(3)
    if len(rest) < 2:
        raise UsageError("AGENT TASK TITLE PRIORITY are needed", hint="see --help")
    priority = rest[1].upper()
    if priority not in tasks.PRIORITIES:
        raise UsageError(f"priority {rest[1][:40]!a} is none of {' '.join(tasks.PRIORITIES)}")
    if not rest[0]:
        raise UsageError("the title is empty")
    for name in request.options.get("check", []):
        layout.require_id("check", name)
        if not layout.is_check(name):
            raise UsageError(f"--check {name[:40]!a} … is longer than the 64 that a check's name may have")
    return [agent, task, text(rest[0]), priority, _hours(rest[2]) if len(rest) > 2 else None]


def _hours(word: str) -> float:
    whole, dot, part = word.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or not whole or len(word) > 9 or (dot and not part):
        raise UsageError(f"hours {word[:40]!a} is not a positive number")
    if not float(word):
        raise UsageError("hours must be more than 0")
    return float(word)


def _call(store: FileStore, request: Request, call: list[Any]) -> Result:
    agent, task, title, priority, hours = call
    again, dry_run = request.asked("again"), request.asked("dry_run")
    checks = request.options.get("check", [])
    return assign(store, agent, task, title, priority, hours, again=again, dry_run=dry_run, checks=checks)


VERB = Verb({"--dry-run": "dry_run", "--again": "again", "--check": "check=*"}, _parse, _call, of_task=True, text=True)
