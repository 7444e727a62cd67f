"""What it means to assign, complete or roll back a task: pure functions from documents to edits.

Nothing here opens a file.  An outbox is an object with `tasks` (objects with `task_id`, `title`, `status` …) and
`history`; progress is an object with counters and `tasks`, either an object by id or a list with `id`.
"""

from __future__ import annotations

from recovery import jsontext
from recovery.errors import DataError
from recovery.jsontext import BadJSON, dumps, pretty, quote
from recovery.say import harmless
from recovery.say import shown as shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

    from recovery.durable import Version
    from recovery.jsontext import Node, Op

PRIORITIES = ("LOW", "MEDIUM", "HIGH", "CRITICAL")

#: From which status a task may go where.  Statuses not named here are other programs': they are kept, and may become
#: anything.  Out of `completed` leads `reopen`, and a rollback.
TRANSITIONS = {
    "pending": ("assigned", "in_progress", "completed", "failed"),
    "assigned": ("pending", "in_progress", "completed", "failed"),
    "in_progress": ("pending", "ready_for_review", "completed", "failed"),
    "ready_for_review": ("pending", "in_progress", "completed", "failed"),
    "failed": ("pending", "in_progress", "completed"),
    "completed": ("pending",),
}

#: A task with such a status is nobody's work now: it gets no brief, and weighs nothing.
CLOSED = frozenset(["completed", "done", "failed", "cancelled", "deferred"])

#: What a completion says when nobody says anything.
DEFAULT_MESSAGE = "Task completed successfully"


class Outbox:
    """An outbox, read and validated: its tasks in order, and where each stands.  DataError (65) if it is damaged.

    `look` is called with the number of each task and its value (latin-1 text, numbers as they stand).  With `unique` a
    key that stands twice in any object is damage too, not only where an edit would meet it.
    """

    def __init__(
        self,
        name: str,
        version: Version,
        look: Optional[Callable[[int, Any], None]] = None,
        unique: bool = False,
    ) -> None:
        self.name, self.text = name, version.text
        #: task id, status, title as they stand (latin-1 text), start, end
        self.tasks: list[tuple[str, str, str, int, int]] = []
        self.history: list[dict[str, Any]] = []
        #: the ids that are no texts, as they stand: no command can name such a task
        self.misnamed: list[str] = []
        seen: set[str] = set()

        def visit(key: str, start: int, end: int, value: Any) -> None:
            if key == "tasks":
                if not isinstance(value, dict):
                    raise BadJSON("a task is not an object", self.text, start)
                task = value.get("task_id")
                if type(task) is str:
                    if task in seen:
                        raise BadJSON(f"the task {task!r} stands here a second time", self.text, start)
                    seen.add(task)
                elif task is not None:
                    self.misnamed.append(task if isinstance(task, str) else dumps(task))
                if look is not None:
                    look(len(self.tasks), value)
                self.tasks.append((_word(task), _word(value.get("status")), _word(value.get("title")), start, end))
            elif key == "history" and isinstance(value, dict) and type(value.get("task_id")) is str:
                short = {k: _word(value.get(k)) for k in ("task_id", "status", "timestamp")}
                self.history.append(short)

        try:
            self.top = jsontext.document(self.text, visit, unique=unique)
            span = self.top.span("tasks")
            if span is None:
                raise BadJSON("has no `tasks`")
            if self.text[span[0]] != "[":
                raise BadJSON("`tasks` is not a list", self.text, span[0])
        except BadJSON as error:
            raise DataError(
                f"{name} is damaged and was not touched: {error}",
                hint="`recovery doctor` says all that is wrong; with --repair it brings back what is there",
            ) from None

    def find(self, task: str) -> Optional[tuple[str, str, str, int, int]]:
        for entry in self.tasks:
            if entry[0] == task:
                return entry
        return None

    def entry(self, start: int, end: int) -> dict[str, Any]:
        """A task by its place, as plain values.  DataError (65) if one of its keys stands there twice."""
        text = jsontext.from_latin(self.text[start:end])
        try:
            return dict(jsontext.loads(text, unique=True))
        except BadJSON:
            try:
                jsontext.node_at(self.text, start)  # says where
            except BadJSON as error:
                raise DataError(f"{self.name} is damaged and was not touched: {error}") from None
        return dict(jsontext.loads(text))  # it is deeper in it, in what nobody edits

    def walked(self, *names: str) -> jsontext.Walked:
        """The document for an edit, which need not look for some tasks again."""
        walked = jsontext.Walked(self.text, self.top)
        wanted = frozenset(names)
        for task, _, _, start, end in self.tasks:
            if task in wanted:
                walked.met(["tasks", ["task_id", task]], (start, end))
        return walked

    def archived(self, task: str) -> Optional[dict[str, Any]]:
        """The history entry that says this task was completed, if there is one."""
        for entry in self.history:
            if entry["task_id"] == task and entry["status"].lower() == "completed":
                return entry
        return None

    def open_tasks(self) -> list[str]:
        return [task for task, status, *_ in self.tasks if task and status.lower() != "completed"]


def _word(value: Any) -> str:
    return value if type(value) is str else ""


def field(text: str, node: Node, key: str) -> Optional[str]:
    """A member's decoded string, None if it isn't there; a value that is no string comes as its JSON text."""
    span = node.span(key)
    if span is None:
        return None
    if text[span[0]] == '"':
        return jsontext.string_at(text, span[0])[0]
    return text[span[0] : span[1]]


def status_of(outbox: Outbox, task: str) -> str:
    """The status of a task that is in the outbox; a missing or null one is pending.  DataError if it's no string."""
    entry = outbox.find(task)
    assert entry is not None
    try:
        node = jsontext.node_at(outbox.text, entry[3])
    except BadJSON as error:
        raise DataError(f"{outbox.name} is damaged and was not touched: {error}") from None
    span = node.span("status")
    status = field(outbox.text, node, "status")
    if span is None or status is None or status == "null":
        return "pending"
    if outbox.text[span[0]] != '"':
        raise DataError(f"{outbox.name}: the status of {task} is not a string; nothing was changed")
    return status


def value(outbox: Outbox, task: str, key: str) -> Any:
    """A member of a task, as plain values; None if there is none."""
    entry = outbox.find(task)
    span = None if entry is None else jsontext.node_at(outbox.text, entry[3]).span(key)
    return None if span is None else jsontext.loads(jsontext.from_latin(outbox.text[span[0] : span[1]]))


def may_become(status: str, new: str) -> bool:
    """Whether the table allows it; a status it doesn't know may become anything."""
    allowed = TRANSITIONS.get(status.lower())
    return allowed is None or new in allowed


def set_op(path: list[Any], value: Any, shared: bool = False) -> Op:
    op: Op = {"op": "set", "path": path, "after": dumps(value)}
    if shared:
        op["shared"] = True
    return op


# --- the outbox


def completed_fields(now: str, message: str) -> dict[str, Any]:
    return {"status": "completed", "completed_at": now, "completion_message": message}


def task_ops(outbox: Outbox, task: str, fields: Mapping[str, Any], walked: jsontext.Walked) -> list[Op]:
    """Some fields of one task, None for one that is to go; nothing else.  `walked` is the outbox's."""
    path = ["tasks", ["task_id", task]]
    ops = [set_op([*path, key], value) for key, value in fields.items() if value is not None]
    gone = [key for key, value in fields.items() if value is None]
    entry = outbox.find(task) if gone else None
    if entry is not None:  # the last first: an inverse puts them back in their order
        node = jsontext.node_at(outbox.text, entry[3])
        ops += [{"op": "set", "path": [*path, key], "after": None} for key, *_ in reversed(node.items) if key in gone]
    return _filled(outbox.name, walked, ops)


def task_entry(
    task: str,
    title: str,
    priority: str,
    hours: Optional[float],
    now: str,
    status: str = "pending",
    more: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """What stands in `tasks` for a new task; `more` are fields that come behind those that every task has."""
    entry: dict[str, Any] = {
        "task_id": task,
        "title": title,
        "priority": priority,
        "status": status,
        "created_at": now,
    }
    if hours is not None:
        entry["estimated_hours"] = int(hours) if hours == int(hours) else hours
    return {**entry, **(more or {})}


def assign_ops(outbox: Outbox, entries: Iterable[dict[str, Any]], walked: jsontext.Walked) -> list[Op]:
    """Tasks more at the end of `tasks`, written as the others are.  `walked` is the outbox's."""
    unit = jsontext.layout(outbox.text, outbox.top)
    ops: list[Op] = []
    for entry in entries:
        text = pretty(entry, unit, unit * 2) if unit else dumps(entry)
        ops.append({"op": "set", "path": ["tasks", ["task_id", entry["task_id"]]], "after": text})
    return _filled(outbox.name, walked, ops)


def new_outbox(agent: str, entries: Sequence[dict[str, Any]]) -> str:
    """The first outbox of an agent, with its first tasks."""
    body = {"agent_id": agent, "agent_name": agent, "version": "1.0.0", "tasks": list(entries), "history": []}
    return pretty(body) + "\n"


def empty_outbox(agent: str) -> str:
    """The same, without a task."""
    return pretty({"agent_id": agent, "agent_name": agent, "version": "1.0.0", "tasks": [], "history": []}) + "\n"


# --- progress


#: Under which names an entry of progress.json may say whose it is.
_OWNER = ("agent", "agent_id", "assigned_to")


class Progress:
    """progress.json, read and validated: an object whose `tasks`, if any, is an object or a list.  DataError (65)."""

    def __init__(self, name: str, version: Version) -> None:
        self.name, self.text = name, version.text
        self._members: Optional[set[str]] = None  # what the members of `tasks` are called, if it is an object
        self._listed: Optional[dict[str, list[tuple[str, int]]]] = None
        self._looked: set[str] = set()
        try:
            members: dict[str, set[str]] = {}
            self.top = jsontext.document(self.text, members=members)
            self.walked = jsontext.Walked(self.text, self.top)
            self._span = self.top.span("tasks")
            if self._span is not None:
                self._members = members.get("tasks")
                if self._members is None:
                    self._listed = self._of_list(self.walked.node(self._span[0]))
        except BadJSON as error:
            raise DataError(
                f"{name} is damaged, so nothing was changed: {error}",
                hint="`recovery doctor --repair` brings back what is there; or move it away (it is optional)",
            ) from None

    def _of_list(self, node: Node) -> dict[str, list[tuple[str, int]]]:
        found: dict[str, list[tuple[str, int]]] = {}
        for _, _, start, _ in node.items:
            if self.text[start] != "{":
                raise BadJSON("an entry of `tasks` is not an object", self.text, start)
            entry = jsontext.node_at(self.text, start)
            called = {self._string(entry, key): key for key in ("task_id", "id")}
            for id_, key in called.items():
                if id_ is not None:
                    found.setdefault(id_, []).append((key, start))
        return found

    @property
    def tasks(self) -> Optional[Node]:
        """`tasks`, with all its items' spans: who asks for a single entry does without."""
        return self.walked.node(self._span[0]) if self._span is not None else None

    @property
    def listed(self) -> dict[str, list[tuple[str, int]]]:
        """Each id with its entries, as the member that names it ("" in an object) and where they begin."""
        if self._listed is None:
            node = self.tasks
            self._listed = {name: [("", start)] for name, _, start, _ in node.items} if node is not None else {}
        return self._listed

    def _entries(self, task: str) -> list[tuple[str, int]]:
        """As `listed` has them of one task."""
        if self._listed is None and self._span is not None and self._members is not None:
            if task not in self._members:
                return []
            self._looked.add(task)
            start = jsontext.member_at(self.text, *self._span, task) if len(self._looked) == 1 else 0
            if start:
                return [("", start)]
        return self.listed.get(task, [])

    def entry(self, agent: str, task: str) -> tuple[Optional[list[Any]], Optional[Node], bool]:
        """Path and node of the task's entry (None, None if there is none), and whether a new one may be added.

        An entry that names another agent is another task: the same id under two agents is two tasks.
        """
        if self._span is None:
            return None, None, False
        found = self._entries(task)
        if self._members is not None:
            if not found:
                return None, None, True
            node = self.node_of(task, found[0][1])
            if not self._is_of(node, agent):
                return None, None, False
            self.walked.met(["tasks", task], (node.start, node.end))
            return ["tasks", task], node, False
        ours = []
        for key, start in found:
            node = self.walked.node(start)
            if self._is_of(node, agent):
                owner = next((name for name in _OWNER if self._string(node, name) == agent), None)
                ours.append(([key, task, *([owner, agent] if owner else [])], node))
        if len(ours) > 1 or (len(found) > 1 and ours and len(ours[0][0]) == 2):
            raise DataError(f"{self.name} lists {task} more than once; nothing was changed")
        if not ours:
            return None, None, not found
        path, node = ["tasks", ours[0][0]], ours[0][1]
        self.walked.met(path, (node.start, node.end))
        return path, node, False

    def node_of(self, task: str, start: int) -> Node:
        """The entry of a task that begins there; DataError if it is no object."""
        if self.text[start] != "{":
            raise DataError(f"{self.name}: the entry of {task} is not an object; nothing was changed")
        return self.walked.node(start)

    def owner(self, node: Node) -> tuple[str, str]:
        """The member that says whose an entry is, and whose; ("", "") if none does."""
        for key in _OWNER:
            owner = self._string(node, key)
            if owner is not None:
                return key, owner
        return "", ""

    def owners(self) -> dict[str, tuple[int, int]]:
        """Whose the entries are, how many, and how many that nobody has closed; those that name nobody are left out."""
        found: dict[str, tuple[int, int]] = {}
        for _, _, start, _ in self.tasks.items if self.tasks is not None else ():
            if self.text[start] == "{":
                node = jsontext.node_at(self.text, start)
                _, owner = self.owner(node)
                if owner:
                    count, waiting = found.get(owner, (0, 0))
                    is_open = (field(self.text, node, "status") or "pending").lower() not in CLOSED
                    found[owner] = count + 1, waiting + is_open
        return found

    def any_entry(self, task: str) -> Optional[Node]:
        """The node of a task's first entry, whoever's it is."""
        for key, _, start, _ in self.tasks.items if self.tasks is not None else ():
            if self.text[start] != "{":
                continue
            node = self.walked.node(start)
            if key == task or (not key and task in (self._string(node, "id"), self._string(node, "task_id"))):
                return node
        return None

    def _string(self, node: Node, key: str) -> Optional[str]:
        span = node.span(key)
        return field(self.text, node, key) if span and self.text[span[0]] == '"' else None

    def _is_of(self, node: Node, agent: str) -> bool:
        key, owner = self.owner(node)
        return not key or owner == agent

    def counter(self, name: str, by: int, ops: list[Op]) -> None:
        """Count a top-level integer up or down, never below zero; one that isn't there isn't made."""
        span = self.top.span(name)
        if span is None or not jsontext.is_integer(self.text[span[0] : span[1]]):
            return
        if int(self.text[span[0] : span[1]]) + by >= 0:
            ops.append({"op": "add", "path": [name], "by": by})

    def new_entry(self, task: str, entry: dict[str, Any]) -> Op:
        unit = jsontext.layout(self.text, self.top)
        by_id = self._members is not None
        path: list[Any] = ["tasks", task] if by_id else ["tasks", ["id", task]]
        body = entry if by_id else {"id": task, **entry}
        return {"op": "set", "path": path, "after": pretty(body, unit, unit * 2) if unit else dumps(body)}

    def finish(self, ops: list[Op], now: str) -> list[Op]:
        if ops and self.top.span("last_updated") is not None:
            ops.append(set_op(["last_updated"], now, shared=True))
        return _filled(self.name, self.walked, ops)


def progress_move_ops(progress: Progress, agent: str, task: str, title: str, new: str, now: str) -> list[Op]:
    """Give the task its new status there and count it once; one that isn't listed yet is added when it is completed."""
    path, node, may_add = progress.entry(agent, task)
    ops: list[Op] = []
    if node is not None and path is not None:
        status = (field(progress.text, node, "status") or "pending").lower()
        if status == new:
            return []
        ops.append(set_op([*path, "status"], new))
        if new == "completed":
            ops.append(set_op([*path, "completed_at"], now))
        elif status == "completed" and node.span("completed_at") is not None:
            ops.append({**set_op([*path, "completed_at"], None), "after": None})
        progress.counter(new, 1, ops)
        if status in TRANSITIONS:
            progress.counter(status, -1, ops)
    elif may_add and new == "completed":
        entry = {"status": "completed", "agent": agent, "title": title, "completed_at": now}
        ops.append(progress.new_entry(task, entry))
        progress.counter("total_tasks", 1, ops)
        progress.counter("completed", 1, ops)
    return progress.finish(ops, now)


def progress_assign_ops(progress: Progress, new: Iterable[tuple[str, dict[str, Any]]], now: str) -> list[Op]:
    """List new tasks there, each with its agent, those that aren't yet, with their status."""
    ops: list[Op] = []
    counts: dict[str, int] = {}
    for agent, entry in new:
        _, node, may_add = progress.entry(agent, entry["task_id"])
        if node is None and may_add:
            status = entry["status"]
            shown = {"status": status, "agent": agent, "title": entry["title"]}
            ops.append(progress.new_entry(entry["task_id"], shown))
            for name in ("total_tasks", status):
                counts[name] = counts.get(name, 0) + 1
    for name, by in counts.items():
        progress.counter(name, by, ops)
    return progress.finish(ops, now)


def progress_reassign_ops(progress: Progress, agent: str, task: str, other: str, new: str, now: str) -> list[Op]:
    """Give a task that is listed another owner, and its `new` status ("": it stays)."""
    path, node, _ = progress.entry(agent, task)
    if path is None or node is None:
        return []
    if progress.entry(other, task)[1] is not None and progress.owner(node)[0]:
        raise DataError(f"{progress.name} lists {task} of {other} already; nothing was changed")
    ops = progress_move_ops(progress, agent, task, "", new, now) if new else []
    own = [op for op in ops if op["path"][:2] == path]
    key = progress.owner(node)[0]
    if key:
        own.append(set_op([*path, key], other))
    if not key or isinstance(path[1], str) or len(path[1]) == 2:
        return progress.finish([*own, *(op for op in ops if op["path"][:2] != path and not op.get("shared"))], now)
    # the owner is part of the path, which leads nowhere once it is another: out with the entry, and in again
    text = progress.text[node.start : node.end]
    moved = jsontext.applied(text, [{**op, "path": op["path"][2:]} for op in own])
    out: Op = {"op": "set", "path": path, "after": None}
    into: Op = {
        "op": "set",
        "path": ["tasks", [*path[1][:3], other]],
        "after": jsontext.from_latin(moved),
    }
    counts = [op for op in ops if op["path"][:2] != path and not op.get("shared")]
    return progress.finish([out, into, *counts], now)


def _filled(name: str, walked: jsontext.Walked, ops: list[Op]) -> list[Op]:
    try:
        return jsontext.fill_in(walked, ops)
    except BadJSON as error:
        raise DataError(f"{name} is damaged and was not touched: {error}") from None


# --- what is written beside


def completion_record(
    agent: str, task: str, title: str, before: str, now: str, message: str, txid: str
) -> dict[str, Any]:
    return {
        "task_id": task,
        "agent_id": agent,
        "status": "completed",
        "completed_at": now,
        "completion_message": message,
        "title": title,
        "previous_status": before,
        "txid": txid,
    }


def inbox_note(agent: str, entry: dict[str, Any]) -> str:
    """The brief that the agent finds: `inbox/TASK.md`."""
    hours = entry.get("estimated_hours")
    lines = [
        # on one line, or it could forge the others; and somebody will `cat` it
        f"# {entry['task_id']}: {harmless(' '.join(entry['title'].split()))}",
        "",
        f"- Agent: {agent}",
        f"- Priority: {entry['priority']}",
        *([f"- Estimated hours: {hours}"] if hours is not None else []),
        f"- Assigned: {entry['created_at']}",
        "",
        "When it is done:",
        "",
        f'    complete_task_with_recovery.sh {agent} {entry["task_id"]} "what you did"',
        "",
    ]
    return "\n".join(lines)


def inbox_note_for(note: str, agent: str, task: str, other: str) -> str:
    """A brief that names another agent, where it names this one in the words of `inbox_note`."""
    lines = note.split("\n")
    command = f"    complete_task_with_recovery.sh {agent} {task} "
    for number, line in enumerate(lines):
        if line == f"- Agent: {agent}":
            lines[number] = f"- Agent: {other}"
        elif line.startswith(command):
            lines[number] = f"    complete_task_with_recovery.sh {other} {task} {line[len(command) :]}"
    return "\n".join(lines)


def quoted(text: str, width: int = 60) -> str:
    """Somebody's words in one of our lines, in quotes."""
    return quote(shown(text, width))
