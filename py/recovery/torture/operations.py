"""What is hurt: each command of the suite that changes something, with the states that unhurt runs lead to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from recovery.torture.calls import CALLS
from recovery.torture.invariants import (
    NO_OP,
    State,
    is_in,
    plain,
    require,
    require_no_op,
    require_old_or_new,
    require_state,
    require_tidy,
    require_whole,
)
from recovery.torture.scratch import FORMS, Command, Violation, Workspace, demand

Facts = Callable[[Workspace], tuple[str, ...]]

RECOVER: Command = ("recover",)
_DONE: Command = ("complete", "CC", "CC-1", "done and “said” $(touch PWNED) `touch PWNED`")
_ASSIGN: Command = ("assign", "CC", "CC-9", "New “work” $(touch PWNED)", "HIGH", "2")
_MANY_LOGS = tuple(("log", f"CB-{n}", str(n)) for n in range(24))  # so many that the roll-up is worth writing
#: Work of another agent, which has no file in common with that of CC where there is no progress.json.
ELSEWHERE: Command = ("complete", "CB", "CB-1", "work of CB")
_BACKLOG = '[{"id": "B-1", "title": "one", "agent": "CC"}, {"id": "B-2", "title": "two", "agent": "CA"}]'
_ARCHIVE: Command = ("archive", "CC", "--older-than", "0")
_NOTE: Command = ("note", "CC", "CC-2", "words")
_OTHER: Command = ("complete", "CC", "CC-2", "other work")
KILLED = -9
_BACKUP = (".backup_",)


def no_facts(space: Workspace) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Operation:
    """A command under test, what was done before it, and other work of the same agent that gets in between.

    `crashes`: the last preparing step, a command with a fault that leaves something for this one to put right.
    Where nothing is `decided` the record of what crashed was not synced, and a power cut may take it back, or its mark.
    `then`: a command that is refused once this one was done, and its exit code.
    `facts`: what it does beside people's files, a line each.  `repeats`: done twice, it has done it twice.
    `goes_on`: it looks at several things, and what it can't do for one of them, which gives the code, stops no other.
    """

    name: str
    command: Command
    prepare: tuple[Command, ...] = ()
    other: Command | None = None
    form: str = "object"
    crashes: tuple[Command, str] | None = None
    facts: Facts = no_facts
    repeats: bool = False
    goes_on: bool = False
    no_op: str = NO_OP
    then: tuple[Command, int] | None = None
    decided: bool = True
    with_checkpoints: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{self.form}"

    @property
    def is_command(self) -> bool:
        """Whether it is a command of the suite, begun in a workspace that nothing has crashed in."""
        return self.crashes is None and self.command[0] not in CALLS


def _history(space: Workspace) -> tuple[str, ...]:
    return tuple(str(line["data"]["n"]) for line in space.lines_of(space.path("data/checkpoints/CB-1_history.jsonl")))


def _logged(space: Workspace) -> tuple[str, ...]:
    return tuple(line["error_message"] for line in space.lines_of(space.path("logs/recovery/CB-1_recovery.jsonl")))


def _archived(space: Workspace) -> tuple[str, ...]:
    """What the archives hold: each task, and whether it went back."""
    paths = sorted(space.root.glob("postbox/*/archive/*.jsonl"))
    lines = [line for path in paths for line in space.lines_of(path)]
    return tuple(f"{line['task_id']} {'restored' if 'restored_at' in line else 'archived'}" for line in lines)


def _counted(space: Workspace) -> tuple[str, ...]:
    """What the statistics say, with whatever roll-up there is, and what they say without one: the same."""
    done = require(space.fork(("rollup",)), 0)
    rollup = space.path("data/statistics.json")
    kept = rollup.read_bytes() if rollup.exists() else None
    rollup.unlink(missing_ok=True)
    afresh = require(space.fork(("rollup",)), 0)
    if kept is not None:
        rollup.write_bytes(kept)
    demand(done.out == afresh.out, f"the roll-up says {done.out}, the logs {afresh.out}")
    return (done.out,)


def _breaker(space: Workspace) -> tuple[str, ...]:
    path = space.path("data/breakers/api.json")
    if not path.exists():
        return ("closed",)
    try:
        return (str(json.loads(path.read_bytes())["state"]),)
    except (ValueError, KeyError):
        raise Violation(f"{path.name} is torn: {path.read_bytes()[:200]!r}") from None


def documented(form: str = "object") -> list[Operation]:
    """complete, assign (to an agent, and to a new one) and rollback, over one form of progress.json."""
    return [
        Operation("complete", _DONE, other=_OTHER, form=form),
        Operation("assign", _ASSIGN, other=_OTHER, form=form),
        Operation("rollback", ("rollback", "CC", "CC-1"), (_DONE,), other=_OTHER, form=form, then=(_DONE, 65)),
    ]


_CLAIM: Command = ("claim", "CC", "CC-1")
_OVER: Command = (*_CLAIM, "--lease", "0.001")  # is over before anybody looks


def claiming() -> list[Operation]:
    """Claims, and what ends them; what changes several outboxes at once."""
    return [
        Operation("claim", _CLAIM, other=_OTHER),
        Operation("claim-over", _CLAIM, (_OVER,), other=_OTHER),
        Operation("complete-claimed", _DONE, (_CLAIM,), other=_OTHER),
        Operation("fail", ("fail", "CC", "CC-1", "why"), other=_OTHER),
        Operation("reassign", ("reassign", "CC", "CC-1", "CA"), other=_OTHER),
        Operation("sweep", ("sweep",), (_OVER,), other=_OTHER, no_op="nothing to sweep", goes_on=True),
        Operation("distribute", ("distribute", "backlog.json"), other=_OTHER),
        Operation(
            "archive", _ARCHIVE, (_DONE,), other=_NOTE, facts=_archived, no_op="nothing to archive", goes_on=True
        ),
        Operation("restore", ("archive", "--restore", "CC", "CC-1"), (_DONE, _ARCHIVE), other=_OTHER, facts=_archived),
    ]


def daily() -> list[Operation]:
    """The other verbs of a working day."""
    return [
        Operation("release", ("release", "CC", "CC-1"), (_CLAIM,), other=_OTHER),
        Operation("start", ("start", "CC", "CC-1"), other=_OTHER),
        Operation("review", ("review", "CC", "CC-1"), (_CLAIM,), other=_OTHER),
        Operation("reopen", ("reopen", "CC", "CC-1"), (_DONE,), other=_OTHER),
        Operation("note", ("note", "CC", "CC-1", "words"), other=_OTHER),
        Operation("reassign-new", ("reassign", "CC", "CC-1", "CX"), other=_OTHER),
    ]


def resolving() -> list[Operation]:
    """`recover`, after owners that died at the places that leave the most to do: forwards, and back."""
    found = []
    for crash in ("journal-sync:1", "journal-synced:1", "replaced:1", "verified:1", "appended:1"):
        name = f"resolve-{crash.partition(':')[0]}"
        found.append(_resolve(name, crash, crash))
    for crash in ("abort-sync:1", "abort-synced:1"):
        name = f"resolve-{crash.partition(':')[0]}"
        found.append(_resolve(name, crash, f"replace:2=EIO,{crash}"))
    return found


def _resolve(name: str, crash: str, fault: str) -> Operation:
    decided = "-sync:" not in crash
    done = (_DONE, f"{fault}=kill-group")
    return Operation(name, RECOVER, crashes=done, no_op="nothing to recover", decided=decided)


def calls() -> list[Operation]:
    """What programs call; see `recovery.torture.calls`."""
    trips = Operation("breaker", ("trip", "api"), facts=_breaker, repeats=True)
    return [
        Operation("file_transaction", ("transact", "new"), no_op="done"),
        Operation("create_checkpoint", ("checkpoint", "CB-1", "2"), (("checkpoint", "CB-1", "1"),), facts=_history,
                  repeats=True, with_checkpoints=("CB-1",)),
        Operation("log_append", ("log", "CB-1", "2"), (("log", "CB-1", "1"),), facts=_logged, repeats=True),
        Operation("roll-up", ("rollup",), _MANY_LOGS, facts=_counted, no_op=""),
        trips,
    ]  # fmt: skip


NEW_AGENT = Operation("assign-new-agent", ("assign", "CX", "CX-1", "First work", "LOW"), other=_OTHER)


def everything() -> list[Operation]:
    """All operations; the forms of progress.json beside the object only for the completion."""
    others = [replace(documented(form)[0], name=f"complete-{form}") for form in FORMS[1:]]
    return [*documented(), *claiming(), NEW_AGENT, *others, *resolving(), *calls()]


@dataclass
class Bench:
    """Fresh copies of an operation's prepared workspace, and the states that unhurt runs lead to."""

    folder: Path
    operation: Operation
    keep: bool = False  # a workspace in which a promise was not kept
    count: int = 0
    _template: Workspace | None = None
    _old: State | None = None
    _states: dict[tuple[object, ...], State] = field(default_factory=dict)
    _steps: list[str] = field(default_factory=list)

    @property
    def template(self) -> Workspace:
        """The workspace before the operation; made when it is first asked for."""
        if self._template is None:
            op = self.operation
            space = Workspace.make(self.folder / f"{op}-template", op.form)
            space.path("shared.json").write_text('{\n  "value": "old"\n}\n', encoding="utf-8")
            space.path("backlog.json").write_text(_BACKLOG, encoding="utf-8")
            for command in op.prepare:
                require(space.fork(command), 0)
            self._template = space
        return self._template

    @contextmanager
    def fresh(self, crashed: bool = True) -> Iterator[Workspace]:
        """A workspace in the state before the command, removed behind it; without `crashed`, before the crash."""
        self.count += 1
        space = self.template.copy(self.folder / f"{self.operation}-{self.count}")
        keep = False
        try:
            if crashed and self.operation.crashes is not None:  # in each copy: a record knows its files' inodes
                command, fault = self.operation.crashes
                require(space.fork(command, fault, RECOVERY_MAX_ATTEMPTS="1"), KILLED)
            yield space
        except Violation:
            keep = self.keep
            raise
        finally:
            if not keep:
                space.remove()

    def _state(self, space: Workspace) -> State:
        return State(space.data(), space.changes(), self.operation.facts(space))

    @property
    def old(self) -> State:
        """The state that the command, or the one it puts right, begins with."""
        if self._old is None:
            self._old = self._state(self.template)
        return self._old

    @property
    def new(self) -> State:
        return self.after(self.operation.command)

    def after(self, *commands: Command, crashed: bool = True) -> State:
        """The state that these commands lead to when nothing goes wrong; without `crashed`, from before the crash."""
        if (crashed, *commands) not in self._states:
            with self.fresh(crashed) as space:
                for command in commands:
                    require(space.fork(command), 0)
                self._states[crashed, *commands] = self._state(space)
        return self._states[crashed, *commands]

    def steps(self) -> list[str]:
        """The steps of an unhurt run of the operation's command."""
        if not self._steps:
            with self.fresh() as space:
                self._steps = space.forked_steps(self.operation.command)
        return self._steps

    def prepare(self) -> None:
        """Learn steps and states."""
        op = self.operation
        self.steps()
        _ = self.old, self.new, self.wanted
        if op.other is not None:
            for more in (op.other, ELSEWHERE):
                self.after(op.command, more)
                self.after(more)

    # --- checks

    def require_whole(self, space: Workspace, *more: State) -> None:
        """Each file is as in some whole state: before, after, as the one that crashed had wanted it, or `more`."""
        require_whole(space, self.old, self.new, self.wanted, *more)

    @property
    def wanted(self) -> State:
        """What the one that crashed would have come to, had it not."""
        crashes = self.operation.crashes
        return self.new if crashes is None else self.after(crashes[0], crashed=False)

    def require_old_or_new(self, space: Workspace) -> bool:
        """All of it old or all of it new, nothing torn, nothing stray but a backup; whether it is new."""
        is_new = require_old_or_new(space, self.old, self.new, _BACKUP)
        self.require_backups(space)
        require_tidy(space, self.allowed, self.operation.with_checkpoints)
        facts = self.operation.facts(space)
        demand(facts in (self.old.facts, self.new.facts), f"{self.operation.name}: neither old nor new: {facts}")
        return is_new and facts == self.new.facts

    def require_undecided(self, space: Workspace) -> bool:
        """Old, new, or as the one that crashed had wanted it, as a whole; whether it is new."""
        require_tidy(space, self.allowed)
        if is_in(space, self.new, _BACKUP):
            return True
        if not is_in(space, self.wanted, _BACKUP):
            require_old_or_new(space, self.old, self.old, _BACKUP)
        return False

    def require_backups(self, space: Workspace) -> None:
        """A backup that is there is whole: an outbox as it was before or behind some command."""
        for name, data in space.data().items():
            if ".backup_" in name:
                outbox = name.partition(".backup_")[0]
                known = [state.data[outbox] for state in (self.old, self.new) if outbox in state.data]
                demand(plain(data) in map(plain, known), f"{name} is no whole backup: {data[:200]!r} …")

    def require_data(self, space: Workspace) -> None:
        """People's files are NEW; beside them only what a crash may leave until the next commit."""
        self.require_backups(space)
        demand(require_old_or_new(space, self.old, self.new, (*_BACKUP, ".stage")), f"{self.operation.name}: not done")

    def require_again(self, space: Workspace, before: tuple[str, ...], allow: tuple[str, ...] = ()) -> None:
        """The state after the command was run once more: NEW, or one more of what is added each time."""
        expected = self.new
        if self.operation.repeats:
            added = self.new.facts[len(self.old.facts) :]
            expected = State(self.new.data, self.new.changes, (*before, *added) if added else self.new.facts)
        require_state(space, expected, allow, self.allowed, self.operation.with_checkpoints)
        facts = self.operation.facts(space)
        demand(facts == expected.facts, f"{self.operation.name}: {facts} instead of {expected.facts}")

    def require_no_op(self, space: Workspace, fork: bool = True) -> None:
        """The same command again changes nothing, and says so."""
        op = self.operation
        if not op.repeats:
            require_no_op(space, op.command, op.no_op, fork)

    @property
    def allowed(self) -> str:
        """A pattern of what this operation keeps in data/ and logs/ beside what every workspace has."""
        return r"data/(statistics\.json|\.statistics\.json\.lock|breakers/api\.json|breakers/\.api\.json\.lock)"


class Benches:
    """The benches of all operations in one scratch folder, made when they are first used.

    `doing` is what the trial under way does, `counted` what it has counted, for the report.
    """

    def __init__(self, folder: Path, seed: str = "0") -> None:
        self.folder, self.seed = folder, seed
        self.operations = everything()
        self._made: dict[str, Bench] = {}
        self.doing = ""
        self.counted: dict[str, int] = {}

    def of(self, operation: Operation) -> Bench:
        if str(operation) not in self._made:
            self._made[str(operation)] = Bench(self.folder, operation)
        return self._made[str(operation)]

    def named(self, name: str) -> Bench:
        return next(self.of(op) for op in self.operations if str(op) == name)

    def all(self) -> list[Bench]:
        return [self.of(operation) for operation in self.operations]

    def prepare(self) -> None:
        """Run everything unhurt once, so that what `share` gives away is complete."""
        for bench in self.all():
            bench.prepare()

    def share(self, folder: Path) -> Benches:
        """The same templates and states, for trials in another folder."""
        shared = Benches(folder, self.seed)
        shared._made = {name: replace(bench, folder=folder, count=0) for name, bench in self._made.items()}
        return shared
