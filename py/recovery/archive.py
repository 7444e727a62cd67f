"""archive: completed tasks leave their outbox for `postbox/AGENT/archive/`, and may come back.

One commit takes up to TOGETHER tasks out of an outbox, with their briefs, completion records and lines in
progress.json, whose counters stay: they count the archived ones too.  The archive's lines are written by that commit,
synced, before it is done; whoever finishes it after a crash writes those that are missing.
"""

from __future__ import annotations

from recovery import archived, jsontext, layout, moves, request, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.errors import Busy, DataError, NotFound, RecoveryError, UsageError, from_os_error
from recovery.request import Request, Verb
from recovery.store import transact
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Sequence

    from recovery.durable import Version
    from recovery.store import FileStore

#: Tasks of one commit, and bytes of their entries after which there are enough.
TOGETHER, ENOUGH = 500, 1 << 22


def archive(store: FileStore, agent: str = "", older_than_days: float = 30, dry_run: bool = False) -> Result:
    """Archive the tasks, of `agent` or of everybody, that were completed so long ago.

    Left where they are: tasks with an open escalation, parked ones, and those that don't say when they were completed.
    A damaged outbox, and a task whose brief or record can't be read, are named and stop nobody; the code is the first
    refusal's then.  NotFound (66): no such agent.
    A crash leaves each commit's tasks in one place; the same again does the rest.
    """
    if not older_than_days >= 0:
        raise UsageError("an age is 0 or more")
    everybody = verbs.agents(store)
    if agent and agent not in everybody:
        raise NotFound(f"there is no agent {agent}", hint="agents here: " + (", ".join(everybody) or "none"))
    before = store.time(max(store.clock() - min(older_than_days, 36500) * 86400, 0))
    waiting = _waiting(store)
    done: dict[str, list[str]] = {}
    left: dict[str, RecoveryError] = {}
    code, undated = 0, 0
    for one in verbs.one_by_one(store, [agent] if agent else everybody):
        gone: list[str] = []
        try:
            undated += _of_agent(store, one, before, waiting, dry_run, gone, left)
        except (RecoveryError, OSError) as error:
            refusal = error if isinstance(error, RecoveryError) else from_os_error(error, one)
            if agent and not gone:
                raise refusal from None
            code = code or refusal.code
            store.told.append(f"{one}: {refusal}")
        for task, why in left.items():
            code = code or why.code
            store.told.append(f"{one}/{task} stays where it is: {why}")
        left.clear()
        if gone:
            done[one] = gone
    count = sum(map(len, done.values()))
    if count:
        few = ", ".join(f"{one} {len(some)}" for one, some in list(done.items())[:5])
        few += f" and {len(done) - 5} agents more" if len(done) > 5 else ""
        line = f"{'would archive' if dry_run else 'archived'} {count} task{'s' * (count != 1)} ({few})"
        line += "; nothing changed" if dry_run else ""
    else:
        line = "nothing to archive"
    if undated:
        line += f"; {undated} completed without saying when, left alone"
    data: dict[str, Any] = {"ok": not code, "code": code, "changed": bool(count) and not dry_run, "archived": done}
    data["undated"] = undated
    if dry_run:
        data["dry_run"] = True
    return Result(line, data["changed"], data, [f"{one}/{task}" for one, some in done.items() for task in some])


def _waiting(store: FileStore) -> set[str]:
    """Tasks that wait for a person."""
    found = {name[: -len(".json")] for name in store.list(layout.MANUAL) if name.endswith(".json")}
    for name in store.list(layout.LOGS):
        task, escalation, _ = name.rpartition("_escalation")
        if escalation and name.endswith(".json"):
            found.add(task)
    return found


def _of_agent(
    store: FileStore,
    agent: str,
    before: str,
    waiting: set[str],
    dry_run: bool,
    gone: list[str],
    left: dict[str, RecoveryError],
) -> int:
    """Archive what may be archived of one agent; `gone` gets the tasks of each commit, `left` those that can't go.

    Returns how many don't say when they were completed.
    """
    outbox = layout.outbox(agent)
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        version = store.read(outbox)
        if version is None:
            return None
        dates: list[Any] = []
        box = tasks.Outbox(outbox, version, lambda _, value: dates.append(value.get("completed_at")))
        chosen, undated = _chosen(store, agent, box, dates, before, waiting)
        found.update(undated=undated, tasks=[])
        while True:
            chosen = [one for one in chosen if one[0] not in left]
            some = _together(box, chosen)
            if not some:
                return None
            files = _files(store, agent, some, left)
            if dry_run:
                found["tasks"] += files
                chosen = chosen[len(some) :]
            elif files:
                found["tasks"] = list(files)
                some = [one for one in some if one[0] in files]
                return _change(store, agent, version, box, some, files, names)

    names = [outbox, layout.briefs(agent), f"postbox/{agent}/completed/*", *verbs.names(store)]
    if dry_run:
        plan()
        gone += found.get("tasks", ())
        return int(found.get("undated", 0))
    while transact(store, names, plan) is not None:
        gone += found["tasks"]
    if archived.is_there(store, agent):  # where there is none, or a damaged one, too
        archived.keep_index(store, agent)
    return int(found.get("undated", 0))


def _chosen(
    store: FileStore, agent: str, box: tasks.Outbox, dates: Sequence[Any], before: str, waiting: set[str]
) -> tuple[list[tuple[str, str]], int]:
    """The tasks that go, each with the time of its completion; and how many have none."""
    found, undated = [], 0
    for (task, status, *_), when in zip(box.tasks, dates):
        if status.lower() != "completed" or not layout.is_id(task) or task in waiting:
            continue
        if not _is_time(when):
            when = str((verbs.read_record(store, layout.record(agent, task)) or {}).get("completed_at"))
        if not _is_time(when):
            undated += 1
        elif when <= before:
            found.append((task, when))
    return found, undated


def _is_time(text: Any) -> bool:
    """Whether a text begins with a date whose month an archive can be called after."""
    if type(text) is not str or len(text) < 10 or not text[4] == "-" == text[7]:
        return False
    digits = text[:4] + text[5:7] + text[8:10]
    return digits.isascii() and digits.isdigit() and "01" <= text[5:7] <= "12"


def _together(box: tasks.Outbox, chosen: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first of them, as many as one commit takes."""
    sizes = {task: end - start for task, _, _, start, end in box.tasks}
    size = 0
    for n, (task, _) in enumerate(chosen):
        size += sizes[task]
        if n == TOGETHER or (n and size > ENOUGH):
            return chosen[:n]
    return chosen


def _files(
    store: FileStore, agent: str, some: Sequence[tuple[str, str]], left: dict[str, RecoveryError]
) -> dict[str, dict[str, Version]]:
    """Of each task its record and brief, by name, as far as there are any; `left` gets those that must not go."""
    found: dict[str, dict[str, Version]] = {}
    for task, _ in some:
        try:
            verbs.require_settled(store, agent, task)
            files = {name: store.read(name) for name in (layout.record(agent, task), layout.inbox(agent, task))}
            found[task] = {name: version for name, version in files.items() if version is not None}
        except Busy:
            raise
        except RecoveryError as error:
            left[task] = error
    return found


def _change(
    store: FileStore,
    agent: str,
    version: Version,
    box: tasks.Outbox,
    some: Sequence[tuple[str, str]],
    files: dict[str, dict[str, Version]],
    names: Sequence[str],
) -> Change:
    now = store.now()
    txid = txid_of(now, store.nonce)
    walked = box.walked(*(task for task, _ in some))
    # the last first: an inverse puts them back in their order
    ops: list[jsontext.Op] = [
        {"op": "set", "path": ["tasks", ["task_id", task]], "after": None} for task, _ in reversed(some)
    ]
    ops = jsontext.fill_in(walked, ops)
    edits = [Edit(box.name, version, ops, jsontext.splices(walked, ops))]
    listed = store.read(layout.PROGRESS) if layout.PROGRESS in names else None
    progress = tasks.Progress(layout.PROGRESS, listed) if listed is not None else None
    unlisted: list[jsontext.Op] = []
    lines = []
    spans = {task: (start, end) for task, _, _, start, end in box.tasks}
    for n, (task, when) in enumerate(some):
        start, end = spans[task]
        line: dict[str, Any] = {"txid": f"{txid}-{n}", "task_id": task, "agent_id": agent}
        line.update(archived_at=now, completed_at=when)
        text = jsontext.from_latin(box.text[start:end])
        _put(line, "entry", text, text)
        for name, before in files[task].items():
            content = jsontext.from_latin(before.text)
            if name == layout.inbox(agent, task):
                line["brief"] = content
            else:
                _put(line, "record", content, content)
            edits.append(Edit(name, before))
        path, node, _ = progress.entry(agent, task) if progress is not None else (None, None, False)
        if progress is not None and path is not None and node is not None:
            line["listed"] = jsontext.from_latin(progress.text[node.start : node.end])
            unlisted.insert(0, {"op": "set", "path": path, "after": None})
        lines.append((layout.archive(agent, when), line))
    if progress is not None and listed is not None and unlisted:
        done = progress.finish(unlisted, now)
        edits.append(Edit(layout.PROGRESS, listed, done, jsontext.splices(progress.walked, done)))
    change = Change("archive", agent, f"archive-{txid}"[:128], now, txid, edits)
    change.extra = {"tasks": {agent: [task for task, _ in some]}}
    change.derived = [{"name": name, "append": line} for name, line in lines]
    change.durable_log, change.make_backup = True, False
    return change


def _put(line: dict[str, Any], key: str, text: str, whole: str) -> None:
    """A JSON text as a value; as text besides where it would not come back the same."""
    try:
        value = jsontext.loads(text)
        kept = jsontext.dumps(value)
    except ValueError:
        line[f"{key}_text"] = whole
        return
    line[key] = value
    if not jsontext.same(text, kept):
        line[f"{key}_text"] = whole


# --- and back


def restore(store: FileStore, agent: str, task: str, dry_run: bool = False) -> Result:
    """Put an archived task back into its agent's outbox, completed as it was, with record, brief and line in progress.

    One that is in the outbox is left as it is.  NotFound (66) if it is in no archive; DataError (65) if the archive's
    line can't be used.  A crash leaves it in one of the two places.
    """
    found: dict[str, Any] = {}
    outbox = layout.outbox(agent)

    def plan() -> Optional[Change]:
        found.clear()
        verbs.require_settled(store, agent, task)
        version, box = moves.read(store, agent, task)
        entry = box.find(task)
        if entry is not None:
            found["status"] = entry[1] or "pending"
            return None
        index = archived.index_of(store, agent)
        month, line = index.line_of(task) if index is not None else ("", None)
        if line is None:
            raise verbs.unknown(store, agent, task, box)
        found["line"] = line
        return _back(store, agent, task, month, line, version, box, names)

    names = [outbox, layout.record(agent, task), layout.inbox(agent, task), *verbs.names(store)]
    verbs.carry_out(store, names, plan, dry_run)
    if "line" not in found:
        if not dry_run:
            archived.keep_index(store, agent)  # whoever restored it may have died before that
        line = f"{agent}/{task} is in the outbox already ({tasks.shown(found['status'])}); nothing changed"
        return Result(line, False, verbs.data_of(agent, task, found["status"], False))
    if dry_run:
        data = verbs.data_of(agent, task, "completed", False, dry_run=True)
        return Result(f"would restore {agent}/{task} from the archive; nothing changed", False, data)
    archived.keep_index(store, agent)
    data = verbs.data_of(agent, task, "completed", True, archived_at=found["line"]["archived_at"])
    return Result(f"restored {agent}/{task}, archived at {found['line']['archived_at']}, to the outbox", True, data)


def _back(
    store: FileStore,
    agent: str,
    task: str,
    month: str,
    line: dict[str, Any],
    version: Version,
    box: tasks.Outbox,
    names: Sequence[str],
) -> Change:
    now = store.now()
    txid = txid_of(now, store.nonce)
    try:
        text, record = archived.entry_text(line), archived.record_text(line)
        entry = jsontext.loads(text)
        if not isinstance(entry, dict) or entry.get("task_id") != task:
            raise ValueError("its entry is another task's")
        listed_as = jsontext.loads(line["listed"]) if "listed" in line else None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the archive's line of {agent}/{task} can't be used: {error}. Nothing changed.",
            hint=f"look into {layout.archives(agent)}/",
        ) from None
    if "entry_text" not in line:
        unit = jsontext.layout(box.text, box.top)
        text = jsontext.pretty(entry, unit, unit * 2) if unit else jsontext.dumps(entry)
    walked = box.walked()
    ops = jsontext.fill_in(walked, [{"op": "set", "path": ["tasks", ["task_id", task]], "after": text}])
    edits = [Edit(box.name, version, ops, jsontext.splices(walked, ops))]
    for name, content in ((layout.record(agent, task), record), (layout.inbox(agent, task), line.get("brief"))):
        if isinstance(content, str) and store.read(name, strict=False) is None:
            edits.append(Edit(name, None, after=content, like=version))

    def listing(progress: tasks.Progress) -> list[jsontext.Op]:
        _, node, may_add = progress.entry(agent, task)
        if node is not None or not may_add or not isinstance(listed_as, dict):
            return []
        bare = {key: value for key, value in listed_as.items() if key != "id"}
        return progress.finish([progress.new_entry(task, bare)], now)

    edits += verbs.progress_edit(store, names, listing)
    change = Change("restore", agent, task, now, txid, edits)
    gone = {"txid": f"{txid}-0", "task_id": task, "agent_id": agent, "archived_at": now, "restored_at": now}
    change.derived = [{"name": month, "append": gone}]  # behind the line that it is about: the last one holds
    change.durable_log, change.make_backup = True, False
    return change


def take_back(store: FileStore, change: Change, line: dict[str, Any]) -> None:
    """Add to the inverse of a change that wrote into an archive what the archive has to say of it.

    Tasks that leave the outbox by it are archived, as they were before; those that come back are not.  DataError (65):
    the archive has nothing of one that would leave.
    """
    agent = line["agent"]
    leaving = {
        op["path"][1][1]
        for edit in change.edits
        for op in edit.ops or ()
        if edit.name == layout.outbox(agent) and len(op["path"]) == 2 and op.get("after") is None
    }
    written = [one for one in line["derived"] if layout.is_archive(one["name"]) and "append" in one]
    for n, one in enumerate(written):
        month, task = one["name"], str(one["append"].get("task_id"))
        entry = {"txid": f"{change.txid}-{n}", "task_id": task, "agent_id": agent, "archived_at": change.time}
        if task in leaving:
            whole = [kept for kept in archived.lines_of(store, month, task) if "restored_at" not in kept]
            if not whole:
                raise DataError(
                    f"{month} has no line of {agent}/{task} any more. Nothing changed.", hint="run `recovery doctor`"
                )
            change.derived.append({"name": month, "append": {**whole[-1], **entry}})
        else:
            change.derived.append({"name": month, "append": {**entry, "restored_at": change.time}})


# --- the verb


def _parse(request_: Request) -> list[Any]:
    if request_.asked("restore"):
        if "older_than" in request_.options:
            raise UsageError("--restore takes AGENT TASK, and no age", hint="see --help")
        agent, task, _ = request_.agent_and_task(0)
        return [agent, task, 0.0]
    if len(request_.words) > 1:
        raise UsageError(f"too many words: {request_.words[1][:40]!a}", hint="archive [AGENT], or archive --restore")
    agent = layout.require_id("agent", request_.words[0]) if request_.words else ""
    age = request_.options.get("older_than", "30d")
    return [agent, "", request.duration(age, "--older-than", bare=86400.0) / 86400.0]


def _call(store: FileStore, request_: Request, call: list[Any]) -> Result:
    agent, task, days = call
    if task:
        return restore(store, agent, task, request_.asked("dry_run"))
    return archive(store, agent, days, request_.asked("dry_run"))


VERB = Verb({"--older-than": "older_than=", "--dry-run": "dry_run", "--restore": "restore"}, _parse, _call)
