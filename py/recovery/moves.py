"""Moving one task: its entry in the outbox, its line in progress and its checkpoint, in one commit.

The daily verbs are thin over this.  Which status leads where is `tasks.TRANSITIONS`; who may move a claimed task is
`claims.require`.
"""

from __future__ import annotations

from recovery import blocking, claims, layout, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.errors import DataError, NotFound
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    from recovery.durable import Version
    from recovery.store import FileStore

#: What a program's checkpoint calls a status.
STATES = {"pending": "pending", "assigned": "pending", "completed": "completed", "failed": "failed"}


class Task:
    """A task as a plan finds it: `status` ("pending" if it says none), its entry's members, its claim."""

    __slots__ = ("agent", "before", "claim", "outbox", "status", "task", "title")

    def __init__(self, agent: str, task: str, before: Version, outbox: tasks.Outbox) -> None:
        self.agent, self.task, self.before, self.outbox = agent, task, before, outbox
        self.status = tasks.status_of(outbox, task)
        self.title = self.text("title")
        self.claim = claims.of(self.value("claim"))

    def value(self, key: str) -> Any:
        return tasks.value(self.outbox, self.task, key)

    def text(self, key: str) -> str:
        """A member that is a text; "" for any other."""
        found = self.value(key)
        return found if isinstance(found, str) else ""

    def require_may_become(self, status: str, hint: str = "") -> None:
        if self.status.lower() != status and not tasks.may_become(self.status, status):
            raise DataError(
                f"{self.agent}/{self.task} is {tasks.shown(self.status)}: it can't become {status}. Nothing changed.",
                hint=hint,
            )


class Step:
    """What becomes of a task: its new `status` ("": it stays), members to set (None: to remove), words for people.

    `more` are edits of further files, `log` a line for its recovery log, `data` is for result and checkpoint.
    """

    __slots__ = ("data", "fields", "log", "more", "status", "words")

    def __init__(
        self, status: str, fields: dict[str, Any], words: str = "", data: Optional[dict[str, Any]] = None
    ) -> None:
        self.status, self.fields, self.words, self.data = status, fields, words, data or {}
        self.more: list[Edit] = []
        self.log: Optional[dict[str, Any]] = None


def given_back(one: Task, ended: dict[str, Any], words: str = "") -> Step:
    """The end of a claim whose task somebody else is to do: pending again, unless it was in nobody's work any more."""
    if one.status.lower() in ("in_progress", "assigned", "pending"):
        return Step("pending", {"started_at": None, "claim": ended}, words)
    return Step("", {"claim": ended}, words)


class Stay(Exception):
    """There is nothing to be done: `line` says why ("; nothing changed" is added), `status` is the task's."""

    def __init__(self, line: str, status: str, **data: Any) -> None:
        super().__init__(line)
        self.line, self.status, self.data = line, status, data


def find(store: FileStore, agent: str, task: str) -> Task:
    """The task; NotFound (66), which says where it is instead, DataError (65), RollbackFailed (70)."""
    verbs.require_settled(store, agent, task)
    before, outbox = read(store, agent, task)
    if outbox.find(task) is None:
        done = verbs.done_before(store, agent, task, outbox)
        if done is not None:
            back = f"recovery archive --restore {agent} {task}" if "archived_at" in done else "assign a new task"
            raise DataError(f"{agent}/{task} was completed and is in the archive. Nothing changed.", hint=back)
        raise verbs.unknown(store, agent, task, outbox)
    return Task(agent, task, before, outbox)


def read(
    store: FileStore, agent: str, task: str, look: Optional[Callable[[int, Any], None]] = None
) -> tuple[Version, tasks.Outbox]:
    """An agent's outbox; `task` is for the refusal (66)."""
    before = store.read(layout.outbox(agent))
    if before is None:
        raise verbs.unknown(store, agent, task)
    return before, tasks.Outbox(layout.outbox(agent), before, look)


def change_of(store: FileStore, op: str, found: Task, step: Step, names: list[str]) -> Change:
    """The commit that carries a step out.  `names` are the files that are locked; see `store.transact`."""
    now = store.now()
    fields = dict(step.fields)
    if step.status:
        fields = {"status": step.status, **fields}
    old, new = found.status.lower(), step.status or found.status.lower()
    agent, task, outbox = found.agent, found.task, found.outbox
    if (old == "failed") != (new == "failed"):
        if old == "failed":
            fields = {**fields, **blocking.WITHOUT}
        edits = blocking.edits(store, agent, task, outbox, found.before, names, fields, new == "failed")
    else:
        edits = blocking.own_edit(outbox, found.before, task, fields)
    if old != new:
        edits += verbs.progress_edit(
            store, names, lambda progress: tasks.progress_move_ops(progress, agent, task, found.title, new, now)
        )
    edits += step.more
    change = Change(op, agent, task, now, txid_of(now, store.nonce), edits)
    if old == "completed" != new and store.read_state(layout.receipts_head(agent)) is not None:
        from recovery import chain

        chain.revoke(store, change)
    verbs.checkpoint(change, STATES.get(new, "running"), previous_status=found.status, **step.data)
    if step.log is not None:
        change.derived.append({"name": layout.recovery_log(task), "append": step.log})
    return change


def move(
    store: FileStore,
    agent: str,
    task: str,
    op: str,
    done: str,
    decide: Callable[[Task], Step],
    dry_run: bool = False,
    names: tuple[str, ...] = (),
) -> Result:
    """Find the task, let `decide` say what becomes of it (or raise Stay), carry that out.

    `done` is the word for what was done, `names` further files that `decide` may edit.  Raises what `find` and
    `recovery.commit` raise.  A crash leaves all files old, or a record that the next command finishes.
    """
    locked = verbs.names(store, layout.outbox(agent), *names)
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        found["task"] = one = find(store, agent, task)
        try:
            step = decide(one)
        except Stay as stay:
            found["stay"] = stay
            return None
        change = change_of(store, op, one, step, locked)
        found.update(step=step, files=[edit.name for edit in change.edits], txid=change.txid, time=change.time)
        return change

    try:
        verbs.carry_out(store, locked, plan, dry_run)
    except NotFound:
        if "task" in found or store.read_state(layout.outbox(agent)) is not None:
            raise
        raise verbs.unknown(store, agent, task) from None
    return result(agent, task, f"would {op}" if dry_run else done, found, dry_run)


def result(agent: str, task: str, done: str, found: dict[str, Any], dry_run: bool) -> Result:
    """What is said of a move."""
    if "stay" in found:
        stay = found["stay"]
        return Result(
            f"{stay.line}; nothing changed", False, verbs.data_of(agent, task, stay.status, False, **stay.data)
        )
    step, files, old = found["step"], found["files"], found["task"].status
    new = step.status or old
    arrow = f" ({tasks.shown(old)} -> {new})" if new != old else ""
    plural = "file" if len(files) == 1 else "files"
    line = f"{done} {agent}/{task}{arrow}{step.words}; {len(files)} {plural}"
    if dry_run:
        data = verbs.data_of(agent, task, old, False, dry_run=True, files=files)
        return Result(f"{line}; nothing changed", False, data, files)
    data = verbs.data_of(agent, task, new, True, previous_status=old, files=files, txid=found["txid"], **step.data)
    return Result(f"{line}, read back", True, data, verbs.wrote(found))
