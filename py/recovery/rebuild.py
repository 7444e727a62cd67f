"""progress rebuild: make progress.json agree with the outboxes, which are the truth."""

from __future__ import annotations

from recovery import jsontext, layout, openfiles, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.errors import UsageError
from recovery.place import Board
from recovery.request import Request, Verb
from recovery.store import transact
from recovery.tasks import Progress, set_op
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Optional, Sequence

    from recovery.jsontext import Op
    from recovery.store import FileStore

#: What a rebuild stands under in the change log, where others have their agent and task.
SUBJECT, NAME = "progress", "rebuild"
FORMS = ("object", "list")


class Task:
    """A task as an outbox has it."""

    __slots__ = ("agent", "completed_at", "status", "task", "title")

    def __init__(self, agent: str, task: str, status: str, title: str = "", completed_at: str = "") -> None:
        self.agent, self.task, self.status, self.title, self.completed_at = agent, task, status, title, completed_at


class Rebuilt:
    """What a rebuild comes to: the edit, or the whole text of a new file; what changed and what is to be told."""

    __slots__ = ("changes", "notes", "ops", "text")

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.text = ""
        self.changes: list[str] = []
        self.notes: list[str] = []


def truth(board: Board) -> tuple[list[Task], dict[str, list[str]]]:
    """Every task that is in an outbox, agents by name; and those completed and gone from there, with their agents."""
    found = []
    for agent in sorted(board.outboxes):
        outbox = board.outboxes[agent]
        for task, _, _, start, _ in outbox.tasks:
            if not layout.is_id(task):
                continue
            node = jsontext.node_at(outbox.text, start)
            words = (tasks.field(outbox.text, node, key) or "" for key in ("title", "completed_at"))
            found.append(Task(agent, task, tasks.status_of(outbox, task), *words))
    return found, dict(board.done)


def completed(board: Board, known: Callable[[str, str], str]) -> list[Task]:
    """The tasks that were completed and are in no outbox any more, but not only in the archives, agents by name.

    `known(task, key)` says what else is known of their entries, "" if nothing.  A record says when and what, where
    there is one; else the history says when.
    """
    found = []
    for task in sorted(board.done):
        for agent in board.done[task][:1] if task not in board.found and layout.is_id(task) else ():
            record = verbs.read_record(board.store, layout.record(agent, task)) or {}
            past = board.outboxes[agent].archived(task) or {}
            title, when = known(task, "title") or record.get("title"), record.get("completed_at")
            when = when or known(task, "completed_at") or past.get("timestamp")
            words = (word if type(word) is str else "" for word in (title, when))
            found.append(Task(agent, task, "completed", *words))
    return found


def rebuild(
    progress: Optional[Progress],
    those: list[Task],
    done: Mapping[str, Sequence[str]],
    form: str,
    now: str,
    add: bool = True,
    archived: int = 0,
) -> Rebuilt:
    """Pure: how progress.json (None: there is none) is to change to agree with the tasks there are.

    An entry gets its task's status, and `completed_at` with it; a task that isn't listed gets an entry; the counters
    that are there (`total_tasks`, and those named as a status) count the entries, and the tasks that are `archived`
    and have none.  Everything else stays.  An entry
    that names another agent than the only one who has the task gets the right one.  One that nobody has in an outbox
    stays as it is, unless the task was completed and archived; it is told.  Without `add` nothing is listed that isn't,
    and a counter only follows the entries that changed, or goes up: it may count what isn't listed any more.
    """
    made = Rebuilt()
    if progress is None or progress.tasks is None:
        return _new(made, progress, those, form, now, archived)
    places: dict[str, list[Task]] = {}
    for one in those:
        places.setdefault(one.task, []).append(one)
    statuses: list[str] = []
    before: list[str] = []
    named: set[int] = set()
    for task, entries in progress.listed.items():
        for key, start in entries:
            if start not in named:  # an entry may have an `id` and a `task_id`
                named.add(start)
                before.append(
                    (tasks.field(progress.text, progress.node_of(task, start), "status") or "pending").lower()
                )
                statuses.append(_entry(made, progress, task, key, start, places.get(task, []), done))
    for _, _, start, _ in progress.tasks.items:
        if start not in named:
            nameless = jsontext.node_at(progress.text, start)
            statuses.append((tasks.field(progress.text, nameless, "status") or "pending").lower())
            before.append(statuses[-1])
    for one in those if add else ():
        _, node, may_add = progress.entry(one.agent, one.task)
        if node is None and may_add and places[one.task][0] is one:
            made.ops.append(progress.new_entry(one.task, _fields(one)))
            made.changes.append(f"added {one.agent}/{one.task} ({tasks.shown(one.status)})")
            statuses.append(one.status.lower())
    for task, same in places.items():
        if len(same) > 1:
            made.notes.append(_twice(progress, task, same))
    gone = ["completed"] * archived
    _count(made, progress, statuses + gone, None if add else before + gone)
    made.ops = progress.finish(made.ops, now)
    return made


def _entry(
    made: Rebuilt,
    progress: Progress,
    task: str,
    named: str,
    start: int,
    same: list[Task],
    done: Mapping[str, Sequence[str]],
) -> str:
    """Bring one entry to the status of its task; returns the status it then has, in small letters."""
    node = progress.node_of(task, start)
    old = tasks.field(progress.text, node, "status") or "pending"
    key, owner = progress.owner(node)
    mine = [one for one in same if not key or one.agent == owner]
    gone = owner in done.get(task, ()) if key else task in done
    path = _path(progress, task, named, owner)
    if not mine and not gone and len(same) == len(progress.listed[task]) == 1:
        made.ops.append(set_op([*path, key], same[0].agent))
        made.changes.append(f"{tasks.shown(task)}: {tasks.shown(owner)} -> {same[0].agent}, who has it")
        mine = same
    if len(mine) > 1:
        return old.lower()  # told as being there twice
    if mine:
        new, when = mine[0].status, mine[0].completed_at
    elif gone:
        new, when = "completed", ""
    else:
        made.notes.append(f"{tasks.shown(task)} is in nobody's outbox; its entry ({tasks.shown(old)}) stays")
        return old.lower()
    if old.lower() == new.lower():
        return new.lower()
    made.ops.append(set_op([*path, "status"], new))
    if new.lower() == "completed" and when:
        made.ops.append(set_op([*path, "completed_at"], when))
    elif new.lower() != "completed" and node.span("completed_at") is not None:
        made.ops.append({"op": "set", "path": [*path, "completed_at"], "after": None})
    made.changes.append(f"{tasks.shown(task)}: {tasks.shown(old)} -> {tasks.shown(new)}")
    return new.lower()


def _path(progress: Progress, task: str, named: str, owner: str) -> list[Any]:
    """The path of an entry; DataError if it is listed more than once for one agent."""
    if not named:
        return ["tasks", task]
    if len(progress.listed[task]) == 1:  # without its owner, who may be another afterwards
        return ["tasks", [named, task]]
    path, _, _ = progress.entry(owner, task)
    assert path is not None
    return path


def _fields(one: Task) -> dict[str, Any]:
    done = {"completed_at": one.completed_at} if one.status.lower() == "completed" and one.completed_at else {}
    title = {"title": one.title} if one.title or one.status.lower() != "completed" else {}
    return {"status": one.status, "agent": one.agent, **title, **done}


def _twice(progress: Progress, task: str, same: list[Task]) -> str:
    names = [one.agent for one in same]
    listed = [name for name in names if progress.entry(name, task)[1] is not None]
    shown = f"{', '.join(names[:-1])} and {names[-1]} each have a {task}"
    if len(listed) == len(names) and progress.tasks is not None and progress.tasks.kind == "[":
        return f"{shown}: two tasks, both listed"
    return f"{shown}: two tasks, of which progress lists " + (
        listed[0] + "'s" if len(listed) == 1 else "one, for nobody"
    )


def _count(made: Rebuilt, progress: Progress, statuses: list[str], before: Optional[list[str]] = None) -> None:
    """The counters that are there, as integers; with the statuses `before` they only follow what changed, or go up."""
    for name, _, start, end in progress.top.items:
        if name == "total_tasks":
            number = len(statuses)
        elif name in tasks.TRANSITIONS or (name in statuses and name != "tasks"):
            number = statuses.count(name)
        else:
            continue
        held = progress.text[start:end]
        if not jsontext.is_integer(held):
            made.notes.append(f"`{tasks.shown(name)}` is no number that counts; it stays {tasks.shown(held)}")
            continue
        if before is not None:
            moved = 0 if name == "total_tasks" else number - before.count(name)
            number = max(number, int(held) + moved)
        if int(held) != number:
            made.ops.append(set_op([name], number))
            made.changes.append(f"{name}: {held} -> {number}")


def _new(made: Rebuilt, progress: Optional[Progress], those: list[Task], form: str, now: str, archived: int) -> Rebuilt:
    """A new file, or `tasks` in one that has none."""
    entries: dict[str, dict[str, Any]] = {}
    for one in those:
        if one.task in entries:
            made.notes.append(
                f"{entries[one.task]['agent']} and {one.agent} each have a {one.task}: the first is listed"
            )
        else:
            entries[one.task] = _fields(one)
    body: Any = entries
    if form == "list":
        body = [{"id": task, **entry} for task, entry in entries.items()]
    made.changes.append(f"listed {len(entries)} tasks")
    statuses = [entry["status"].lower() for entry in entries.values()] + ["completed"] * archived
    if progress is not None:
        unit = jsontext.layout(progress.text, progress.top)
        text = jsontext.pretty(body, unit, unit) if unit else jsontext.dumps(body)
        made.ops.append({"op": "set", "path": ["tasks"], "after": text})
        _count(made, progress, statuses)
        made.ops = progress.finish(made.ops, now)
        return made
    counters = {name: statuses.count(name) for name in ("completed", "in_progress", "pending")}
    whole = {"total_tasks": len(statuses), **counters, "last_updated": now, "tasks": body}
    made.text = jsontext.pretty(whole) + "\n"
    return made


def run(
    store: FileStore,
    form: str = "",
    dry_run: bool = False,
    add: bool = True,
    known: Optional[Callable[[str, str], str]] = None,
) -> Result:
    """Rebuild progress.json under the locks of all outboxes; a second time it is a no-op.  `add` as for `rebuild`.

    With `known` (see `completed`) a file that is made lists the tasks, too, that were completed and left the outboxes.
    `form` is how `tasks` is made where there is none: "object" (by id; the default) or "list".  DataError (65): an
    outbox or progress.json is damaged; nothing is touched.  UsageError (64): it is there, and in the other form.
    """
    found: dict[str, Any] = {}
    everybody = verbs.agents(store)
    openfiles.require(len(everybody))

    def plan() -> Optional[Change]:
        version = store.read(layout.PROGRESS)
        progress = None if version is None else Progress(layout.PROGRESS, version)
        if progress is not None and progress.tasks is not None:
            has = FORMS["{[".index(progress.tasks.kind)]
            if form not in ("", has):
                raise UsageError(
                    f"{layout.PROGRESS} has its tasks as {has}, and keeps them so. Nothing changed.",
                    hint="--form is for a file that is to be made",
                )
        verbs.require_settled(store, SUBJECT, NAME)
        now = store.now()
        board = Board(store, everybody)
        listed = [task for task in (progress.listed if progress is not None else ()) if board.is_archived(task)]
        those, done = truth(board)
        those += completed(board, known) if known is not None and progress is None else []
        made = rebuild(progress, those, done, form, now, add, board.archived() - len(listed))
        found.update(made=made, new=version is None)
        if not made.changes:
            return None
        if progress is None:
            edit = Edit(layout.PROGRESS, None, after=made.text)
        else:
            edit = Edit(layout.PROGRESS, version, made.ops, jsontext.splices(progress.walked, made.ops))
        return Change(NAME, SUBJECT, NAME, now, txid_of(now, store.nonce), [edit])

    txid = None
    if dry_run or "progress.json" not in store.list(".sprint"):  # a refusal is not to leave the folder behind
        plan()
    if not dry_run:
        names = [layout.PROGRESS, *(layout.outbox(agent) for agent in everybody)]
        txid = transact(store, names, plan, create=True)
    made: Rebuilt = found["made"]
    store.told += made.notes[:10]
    if len(made.notes) > 10:
        store.told.append(f"… and {len(made.notes) - 10} more notes (--json has them)")
    changed = bool(made.changes)
    data: dict[str, Any] = {
        "ok": True,
        "code": 0,
        "changed": changed and not dry_run,
        "changes": made.changes,
        "notes": made.notes,
        **({"dry_run": True} if dry_run else {"txid": txid}),
    }
    if not changed:
        return Result(f"{layout.PROGRESS} agrees with the outboxes; nothing changed", False, data)
    many = f"{len(made.changes)} change" + ("s" if len(made.changes) > 1 else "")
    if dry_run:
        line = f"would {'make' if found['new'] else 'rebuild'} {layout.PROGRESS}: {many}; nothing changed"
        return Result("\n".join([line, *(f"  {one}" for one in made.changes)]), False, data)
    return Result(
        f"{'made' if found['new'] else 'rebuilt'} {layout.PROGRESS}: {many}, read back", True, data, made.changes
    )


def _parse(request: Request) -> list[Any]:
    if request.words != ["rebuild"]:
        raise UsageError("`recovery progress rebuild` is what there is", hint="see --help")
    form = request.options.get("form", "")
    if form not in ("", *FORMS):
        raise UsageError(f"--form {form[:40]!a} is none of {' '.join(FORMS)}", hint="see --help")
    return [form, request.asked("dry_run")]


VERB = Verb({"--dry-run": "dry_run", "--form": "form="}, _parse, lambda store, request, call: run(store, *call))
