"""Giving out many tasks at once: into all outboxes they go to, progress and the inboxes, in one commit or not at all.

`distribute` and `import` differ in where tasks come from and in who gets which; the rest is here.
"""

from __future__ import annotations

from recovery import assign, backlog, jsontext, layout, openfiles, share, tasks, verbs
from recovery.commit import Change, txid_of
from recovery.dependencies import dependencies
from recovery.errors import NotFound, UsageError
from recovery.share import Placed, agent_of
from recovery.store import transact
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional, Sequence

    from recovery.archived import Index
    from recovery.backlog import Backlog, Item
    from recovery.durable import Version
    from recovery.request import Request
    from recovery.share import Agent
    from recovery.store import FileStore

#: What changes of many tasks stand under in the change log, where others have their agent.
SUBJECT = "backlog"


class Board:
    """All outboxes of a workspace as they are now, and where each task stands.  DataError (65) if one is damaged."""

    def __init__(self, store: FileStore, names: Iterable[str]) -> None:
        self.store = store
        self.versions: dict[str, Version] = {}
        self.outboxes: dict[str, tasks.Outbox] = {}
        #: each task with its agents, and its place in their outboxes (latin-1 offsets)
        self.found: dict[str, list[tuple[str, int, int]]] = {}
        #: tasks that were completed and are not in their agents' outboxes any more, with those agents
        self.done: dict[str, list[str]] = {}
        self._archives: Optional[dict[str, Index]] = None  # read once, however many tasks are looked for
        for agent in names:
            version = store.read(layout.outbox(agent))
            if version is None:
                continue
            outbox = tasks.Outbox(layout.outbox(agent), version)
            self.versions[agent], self.outboxes[agent] = version, outbox
            for task, _, _, start, end in outbox.tasks:
                if task:
                    self.found.setdefault(task, []).append((agent, start, end))
            for entry in outbox.history:
                if entry["status"].lower() == "completed":
                    self._add_done(entry["task_id"], agent)
        for agent in self.outboxes:
            for base in store.list(f"postbox/{agent}/completed"):
                task = base[: -len("_completion.json")]
                if not base.endswith("_completion.json") or not layout.is_id(task) or self._has(task, agent):
                    continue
                if verbs.read_record(store, layout.record(agent, task)):
                    self._add_done(task, agent)

    def done_by(self, task: str) -> list[str]:
        """The agents who completed a task that is not in their outboxes any more: in their archives, too."""
        if task not in self.done and task not in self.found and layout.is_id(task):
            if self._archives is None:
                from recovery import archived

                found = ((agent, archived.index_of(self.store, agent)) for agent in self.outboxes)
                self._archives = {agent: index for agent, index in found if index is not None}
            for agent, index in self._archives.items():
                if index.line_of(task)[1] is not None:
                    self._add_done(task, agent)
        return self.done.get(task, [])

    def is_archived(self, task: str) -> bool:
        """Whether a task is in no outbox, and was archived."""
        return task not in self.found and task not in self.done and bool(self.done_by(task))

    def archived(self) -> int:
        """How many tasks are in the archives, without those that are in their outboxes."""
        from recovery import archived

        there: dict[str, list[str]] = {agent: [] for agent in self.outboxes}
        for task, places in self.found.items():
            for agent, _, _ in places:
                there[agent].append(task)
        return sum(archived.count(self.store, agent, there[agent]) for agent in self.outboxes)

    def _has(self, task: str, agent: str) -> bool:
        return agent in self.done.get(task, ()) or any(place[0] == agent for place in self.found.get(task, ()))

    def _add_done(self, task: str, agent: str) -> None:
        if not self._has(task, agent):
            self.done.setdefault(task, []).append(agent)

    def entry(self, agent: str, start: int, end: int) -> dict[str, Any]:
        return dict(jsontext.loads(jsontext.from_latin(self.outboxes[agent].text[start:end])))

    def waits(self) -> dict[str, list[str]]:
        """Every task here, with what it depends on."""
        found: dict[str, list[str]] = {task: [] for task in self.done}
        for task, places in self.found.items():
            found[task] = [one.task for one in dependencies(self.entry(*places[0]).get("dependencies"))]
        return found


class Terms:
    """How tasks are given out: `op` is the verb; all to `agent`, or shared out (see `recovery.share`) if that is "".

    agents   who may get some where they are shared out, also those who rest; everybody who doesn't rest if it is empty
    create   `agent` may be one who isn't there yet
    strict   a task whose expertise nobody has is refused
    skip     a task that is there already is passed over, whatever it holds
    again    what was rolled back may be done again
    """

    __slots__ = ("again", "agent", "agents", "create", "dry_run", "op", "skip", "strict")

    def __init__(self, op: str, agent: str = "", agents: Sequence[str] = ()) -> None:
        self.op, self.agent, self.agents = op, agent, tuple(agents)
        self.again = self.create = self.dry_run = self.skip = self.strict = False

    @classmethod
    def asked(cls, request: Request, agent: str = "") -> Terms:
        """Those of a command line; UsageError (64)."""
        terms = cls(request.name, agent, agent_list(request.options.get("agents", "")))
        for name in ("again", "create", "dry_run", "skip", "strict"):
            setattr(terms, name, request.asked(name))
        return terms

    def share(self, items: Sequence[Item], agents: Sequence[Agent]) -> tuple[list[Placed], list[str]]:
        """Who gets what, and what is to be told of it."""
        if self.agent:
            return [Placed(item, self.agent, "") for item in items], []
        for agent in agents:
            agent.resting = "" if self.agents else agent.resting
        placed = share.share(items, agents, self.strict)
        named = {one.agent for one in placed}
        notes = [
            f"{one.name} gets nothing{' but what names it' if one.name in named else ''}: "
            f"its outbox says {tasks.quoted(one.resting)}"
            for one in agents
            if one.resting
        ]
        notes += [f"{one.item.task}: {one.note}; it goes to {one.agent}" for one in placed if one.note]
        return placed, notes


#: The options of a verb that gives tasks out, for its `VERB`.
OPTIONS = {
    "--dry-run": "dry_run",
    "--agents": "agents=",
    "--strict": "strict",
    "--skip-existing": "skip",
    "--again": "again",
}


def place(store: FileStore, work: Backlog, terms: Terms) -> Result:
    """Give the tasks of a backlog out, all in one commit; those that are there already are left alone.

    DataError (65): one is there and differs, a dependency is missing or goes in a circle, an outbox is damaged, the
    whole was rolled back before.  NotFound (66): no such agent.  And what `recovery.commit` raises.  A crash leaves
    everything old, or a record that the next command finishes; the same command again is a no-op.
    """
    openfiles.require(len(store.list("postbox")))
    everybody = verbs.agents(store)
    some = [terms.agent] if terms.agent else list(terms.agents) or everybody
    unknown = [agent for agent in some if agent not in everybody]
    if unknown and not terms.create:
        raise NotFound(
            f"there is no agent {', '.join(unknown)}. Nothing changed.",
            hint="agents here: " + (", ".join(everybody) or "none") + "; `import --agent A --create` makes one",
        )
    listed = layout.PROGRESS in verbs.names(store)
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        found.clear()
        board = Board(store, [*everybody, *unknown])
        new, there = _sorted_out(board, work, terms.skip)
        found.update(there=there, placed=[], notes=[])
        if not new:
            return None
        for name in (one.task for item in new for one in dependencies(item.dependencies)):
            board.done_by(name)
        backlog.check_dependencies(work.source, work.items, board.waits())
        placed, notes = terms.share(
            new, [agent_of(name, board.outboxes[name]) for name in some if name in board.outboxes]
        )
        verbs.require_settled(store, SUBJECT, work.name)
        for one in placed:
            verbs.require_settled(store, one.agent, one.item.task)
        if not terms.again:
            verbs.require_not_rolled_back(store, SUBJECT, work.name, terms.op)
        now = store.now()
        given: dict[str, list[dict[str, Any]]] = {}
        for one in placed:
            given.setdefault(one.agent, []).append(one.item.entry(now))
        everything = [(a, board.versions.get(a), board.outboxes.get(a), given[a]) for a in sorted(given)]
        edits = assign.edits_of(store, everything, listed, now)
        txid = txid_of(now, store.nonce)
        change = Change(terms.op, SUBJECT, work.name, now, txid, edits)
        change.extra = {"tasks": {agent: [entry["task_id"] for entry in given[agent]] for agent in sorted(given)}}
        found.update(placed=placed, notes=notes, files=[edit.name for edit in edits], time=now)
        return change

    names = [name for agent in some for name in (layout.outbox(agent), layout.briefs(agent))]
    txid = None
    if terms.dry_run or unknown or not names:  # a refusal is not to leave the folder of a new agent behind
        plan()
    if names and not terms.dry_run:
        txid = transact(store, [*names, *([layout.PROGRESS] if listed else [])], plan, create=terms.create)
    return _told(store, work, terms, found, txid)


def _sorted_out(board: Board, work: Backlog, skip: bool) -> tuple[list[Item], list[tuple[str, str, str]]]:
    """The items that nobody has yet; and those there are, each with its agent and in which state it was found."""
    new, there = [], []
    for item in work.items:
        places = board.found.get(item.task)
        if places is None:
            if board.done_by(item.task):
                there.append((item.task, board.done[item.task][0], "completed before"))
            else:
                new.append(item)
            continue
        differs = [_difference(board.entry(*one), item.entry("")) for one in places]
        if all(differs) and not skip:
            raise work.source.refusal(
                f"{places[0][0]}/{item.task} is there already, and differs: {differs[0]}",
                item.at,
                "choose another id, or pass over those that are there with --skip-existing",
            )
        which = 0 if all(differs) else differs.index("")
        there.append((item.task, places[which][0], "there already"))
    return new, there


def _difference(held: dict[str, Any], new: dict[str, Any]) -> str:
    """In words, what a task that is there has otherwise; how far it has got, and where it came from, doesn't count."""
    for key, value in new.items():
        if key in ("created_at", "status", "imported_from"):
            continue
        now = held.get(key)
        if now != value and not (key == "priority" and str(now).upper() == value):
            theirs = "absent" if key not in held else tasks.shown(jsontext.dumps(now))
            return f"its {tasks.shown(key)} is {theirs}, not {tasks.shown(jsontext.dumps(value))}"
    return ""


# --- what is said

_DID = {"distribute": "distributed", "import": "imported"}
#: Notes that are told on stderr one by one.
_TOLD = 10


def _told(store: FileStore, work: Backlog, terms: Terms, found: dict[str, Any], txid: Optional[str]) -> Result:
    placed: list[Placed] = found["placed"]
    there: list[tuple[str, str, str]] = found["there"]
    notes = [*work.notes, *found["notes"]]
    store.told += notes[:_TOLD]
    if len(notes) > _TOLD:
        store.told.append(f"… and {len(notes) - _TOLD} more notes (--json has them)")
    details = [
        f"{one.item.task} -> {one.agent} ({one.item.priority}"
        + ("" if one.item.status == "pending" else f", {one.item.status}")
        + f"): {one.why}{'; ' if one.why else ''}{tasks.quoted(one.item.title)}"
        for one in placed
    ]
    details += [f"{task} is with {agent}: {state}" for task, agent, state in there]
    data: dict[str, Any] = {
        "ok": True,
        "code": 0,
        "changed": bool(placed) and not terms.dry_run,
        "backlog": work.name,
        "placed": [_placed(one) for one in placed],
        "skipped": [{"task": task, "agent": agent, "why": state} for task, agent, state in there],
        "notes": notes,
    }
    if not placed:
        line = (
            f"already {_DID[terms.op]} {_count(len(there), 'task')} of {tasks.shown(work.source.name)}; nothing changed"
        )
        return Result(line, False, data, details)
    files = found["files"]
    data.update(files=files)
    shares: dict[str, int] = {}
    for one in placed:
        shares[one.agent] = shares.get(one.agent, 0) + 1
    over = ", ".join(f"{agent} {n}" for agent, n in sorted(shares.items()))
    words = f"{_count(len(placed), 'task')} ({over})"
    words += f", {_count(len(there), 'task')} there already" if there else ""
    if terms.dry_run:
        data["dry_run"] = True
        line = f"would {terms.op} {words}; {_count(len(files), 'file')}; nothing changed"
        return Result("\n".join([line, *(f"  {detail}" for detail in details)]), False, data, files)
    data["txid"] = txid
    line = f"{_DID[terms.op]} {words}; {_count(len(files), 'file')}, read back"
    recorded = f"recorded {layout.changes(found['time'])} as {txid}; rollback {SUBJECT}/{work.name} takes it back"
    return Result(line, True, data, [*details, recorded])


def _placed(one: Placed) -> dict[str, Any]:
    item = one.item
    return {
        "task": item.task,
        "agent": one.agent,
        "title": item.title,
        "priority": item.priority,
        "status": item.status,
        "hours": item.hours,
        "dependencies": item.dependencies,
        "why": one.why,
    }


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def agent_list(text: str) -> list[str]:
    """`CC,CA` as names; UsageError (64)."""
    found = [layout.require_id("agent", name) for name in text.split(",")] if text else []
    if len(set(found)) < len(found):
        raise UsageError(f"an agent is named twice in {text[:60]!a}", hint="see --help")
    return found
