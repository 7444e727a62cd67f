"""Chores: cleanup, the light one behind a command, and the doctor's repair, each hurt at any of its steps.

They work in many small steps that stand alone; so what is asked is not old or new.  It is that nothing that counts is
ever gone: people's files, the lines of the change log, what the statistics say, what is open, the original of what was
repaired.  And that the same again, unhurt, does the rest: what an unhurt run leaves is there then, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NoReturn
from weakref import WeakKeyDictionary

from recovery import archived, derived, quarantine
from recovery.session import Session
from recovery.stats import recovery_stats
from recovery.torture import syscalls
from recovery.torture.errors import ERRORS, FAILED, ONCE, UNCONFIRMED, fallible
from recovery.torture.invariants import plain, require
from recovery.torture.operations import KILLED, RECOVER, Benches
from recovery.torture.scratch import Command, Done, Forked, Workspace, demand

_STAMP = re.compile(r"\d{8}T\d{6}Z(-[0-9a-f]{12})?|\d{4}-\d\d-\d\dT[0-9:]+Z")
DAMAGED = 65
_STATISTICS = ("total_recoveries", "successful_recoveries", "failed_tries", "unfinished_recoveries", "tasks_affected")
#: What may be there or not: it can be made again; that somebody finished a dead repair is logged.
_BESIDE = ("data/statistics.json", "logs/recovery/doctor_recovery.jsonl")
#: What is open, and never goes.
_OPEN = (
    "data/checkpoints/CB-1_history.jsonl",
    "logs/recovery/CB-2_escalation.json",
    "logs/recovery/CB-1_recovery.jsonl",
    "data/once/unknown.json",
    "postbox/CC/outbox.json.backup_CC-3",
)


def _little(space: Workspace) -> None:
    """Something of each kind, most of it ended: what is old is so by the clock of who cleans up."""
    commands: list[Command] = [
        ("complete", "CC", "CC-1", "done", "--keep-backup"),
        ("complete", "CC", "CC-2", "done"),
        ("archive", "CC", "--older-than", "0"),
        ("complete", "CC", "CC-4", "done"),
        ("claim", "CA", "CA-1", "--lease", "0.001"),
        ("sweep",),  # writes a log's line that follows from a change
        ("claim", "CA", "CA-1"),
        ("complete", "CA", "CA-1", "done"),
        *(("log", task, str(n)) for task in ("CC-1", "CC-4", "CB-1") for n in range(2)),
        ("checkpoint", "CB-1", "1"),
        ("trip", "api"),
    ]
    for command in commands:
        require(space.fork(command), 0)
    old = "2025-05-30T00:00:00Z"
    texts = {
        "logs/recovery/CB-2_escalation.json": '{"error_message": "look"}',
        "logs/recovery/resolved/CB-2_escalation.json": '{"error_message": "looked"}',
        "data/quarantine/outbox.json@00": "{",
        "data/conflicts/settled.conflict.json": "{}",
        "data/checkpoints/.GONE_history.jsonl.lock": "",
        "postbox/CC/outbox.json.backup_CC-3": "{}",
    }
    for key, state in (("done", "done"), ("unknown", "started")):
        call = f'"key": "{key}", "task_id": "T", "state": "{state}", "started_at": "{old}"'
        texts[f"data/once/{key}.json"] = f'{{"format": 1, {call}}}'
    _write(space, texts)


def _broken(space: Workspace) -> None:
    """Damage of several kinds, in files of several kinds."""
    for command in (("complete", "CC", "CC-1", "done"), ("log", "CB-1", "1"), ("checkpoint", "CB-1", "1")):
        require(space.fork(command), 0)
    texts = {name: space.path(name).read_text(encoding="utf-8") for name in (_CC, _CA, _LOG, _PROGRESS)}
    texts[_CC] = texts[_CC].replace('"history": [', '"history": [],\n  "more": [1,],\n  "last": [', 1)
    texts[_CA] += '{"report": "glued on", "task_id": "CA-7", "status": "completed"}\n'
    texts[_LOG] += '{"torn": '
    texts[_PROGRESS] = texts[_PROGRESS][:-20]
    _write(space, texts)


_CC, _CA, _PROGRESS = "postbox/CC/outbox.json", "postbox/CA/outbox.json", ".sprint/progress.json"
_LOG = "logs/recovery/CB-1_recovery.jsonl"


def _write(space: Workspace, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = space.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Chore:
    """`command` in a workspace that was made as `prepare` says; said twice it says `no_op`.

    `mute`: it never says that something went wrong.  `commits`: who finishes a dead one's commit logs a recovery.
    `kept`: files that are there at any moment.
    """

    name: str
    command: Command
    prepare: Callable[[Workspace], None]
    no_op: str
    mute: bool = False
    commits: bool = False
    kept: tuple[str, ...] = ()


CHORES = [
    Chore("cleanup", ("tidy", "100"), _little, "nothing to clean up", kept=_OPEN),
    Chore("light cleanup", ("tidy-lightly", "100"), _little, "done", mute=True, kept=_OPEN),
    Chore(
        "repair", ("doctor", "--repair"), _broken, "nothing is broken", commits=True, kept=(_CC, _CA, _PROGRESS, _LOG)
    ),
]


@dataclass
class _Known:
    """What counts in a workspace: what is `gone` from it later was lost."""

    people: dict[str, bytes]
    changes: list[str]
    archived: list[str]
    numbers: dict[str, int]


def _known(space: Workspace) -> _Known:
    """Read as the suite reads it, in whatever part of a log it stands."""
    ours = (".backup_", ".stage", "/archive/")
    people = {name: data for name, data in space.data().items() if not any(part in name for part in ours)}
    with Session(space.root).store() as store:
        changes = sorted(str(line["txid"]) for line in derived.newest_first(store))
        numbers = recovery_stats(store)
        away = [str(line["task_id"]) for agent in ("CC", "CA", "CB") for line in archived.every(store, agent)]
    return _Known(people, changes, away, {name: numbers[name] for name in _STATISTICS})


@dataclass
class Bench:
    """Copies of a chore's workspace, and what an unhurt run leaves of it."""

    chore: Chore
    benches: Benches
    count: int = 0
    steps: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        space = Workspace.make(self.benches.folder / f"{self.chore.name.replace(' ', '-')}-template")
        self.chore.prepare(space)
        self.template = space
        self.before = _known(space)
        with self.fresh() as space:
            self.steps = space.forked_steps(self.chore.command)
            self.after = _known(space)
            self.left = _names(space)
        with self.fresh() as space:
            self.calls = syscalls.count_calls(space, self.chore.command)

    @contextmanager
    def fresh(self) -> Iterator[Workspace]:
        self.count += 1
        space = self.template.copy(self.benches.folder / f"{self.chore.name.replace(' ', '-')}-{self.count}")
        try:
            yield space
        finally:
            space.remove()

    def require_kept(self, space: Workspace) -> None:
        """At any moment: nothing that counts is gone, and no file is anything but old or new."""
        known = _known(space)
        for name in self.before.people.keys() | known.people.keys():
            states = [one.people.get(name) for one in (self.before, self.after)]
            found = known.people.get(name)
            fits = found in states or plain(found or b"") in [plain(data or b"") for data in states]
            demand(fits, f"{name} is neither as it was nor as it will be:\n{(found or b'').decode(errors='replace')}")
            if found is not None and found != states[0] and states[0] is not None:
                demand(_is_in_quarantine(space, states[0]), f"{name} was changed, and its original is nowhere")
        lost = set(self.before.changes) - set(known.changes)
        demand(not lost, f"changes are gone from the log: {sorted(lost)}")
        demand(len(set(known.changes)) == len(known.changes), "a change stands in the log twice")
        demand(known.archived == self.before.archived, f"archived are {known.archived}, not {self.before.archived}")
        for name, number in self.before.numbers.items():
            same = known.numbers[name] == number or (self.chore.commits and known.numbers[name] > number)
            demand(same, f"{name} is {known.numbers[name]} now, and was {number}")
        for name in self.chore.kept:
            demand(space.path(name).exists(), f"{name} is gone")

    def require_rest(self, space: Workspace) -> None:
        """Unhurt, the same again does the rest; once more it has nothing to do, whatever `recover` did in between."""
        for command in (self.chore.command, RECOVER, self.chore.command):
            require(space.fork(command), 0)
            self.require_kept(space)
        names = _names(space)
        more, less = sorted(names - self.left), sorted(self.left - names)
        demand(not more and not less, f"left over {more}, missing {less}")
        space.require_locks_free()
        again = require(space.fork(self.chore.command), 0)
        demand(self.chore.no_op in again.out, f"{self.chore.name} found something once more: {again}")
        demand(_names(space) == names, f"{self.chore.name} changed something once more")

    def require_honest(self, space: Workspace, done: Done, mute: bool = False) -> None:
        """Who says 0 has done all of it; who says anything else says why, unless nothing can be said (`mute`)."""
        require(done, 0, DAMAGED, UNCONFIRMED, *FAILED)
        if self.chore.mute or mute:
            return
        demand(done.code == 0 or (done.out + done.err).strip(), f"refused without a message: {done}")
        if done.code == 0:
            less = sorted(self.left - _names(space))
            more = [name for name in sorted(_names(space) - self.left) if not name.endswith(".stage")]
            demand(not more and not less, f"left over {more}, missing {less}, and it says {done}")


def _is_in_quarantine(space: Workspace, data: bytes) -> bool:
    folder = space.path("data/quarantine")
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(quarantine.REPORT)]
    return any(path.read_bytes() == data for path in paths)


def _names(space: Workspace) -> set[str]:
    """The names of all files, times and transactions taken out; what may be made again at any time doesn't count."""
    names = {_STAMP.sub("TIME", name) for name in space.snapshot()}
    return {name for name in names if not name.endswith((".lock", ".turn")) and name not in _BESIDE}


_BENCHES: WeakKeyDictionary[Benches, dict[str, Bench]] = WeakKeyDictionary()


def bench_of(benches: Benches, chore: Chore) -> Bench:
    """The bench of a chore in this run's folder, made when it is first asked for."""
    made = _BENCHES.setdefault(benches, {})
    if chore.name not in made:
        benches.doing = f"{chore.name}, which nobody hurt"
        made[chore.name] = Bench(chore, benches)
    return made[chore.name]


# --- trials


def kill_at(bench: Bench, step: str) -> None:
    """Killed at a step: nothing is gone; the same again does the rest."""
    bench.benches.doing = f"{bench.chore.name} killed at {step}"
    with bench.fresh() as space:
        require(space.fork(bench.chore.command, fault=f"{step}=kill-group"), KILLED)
        bench.require_kept(space)
        bench.require_rest(space)


def error_at(bench: Bench, step: str, error: str) -> None:
    """An OSError at a step: what is said of it is true, nothing is gone, the same again does the rest."""
    bench.benches.doing = f"{error} at {step} of {bench.chore.name}"
    with bench.fresh() as space:
        done = space.fork(bench.chore.command, fault=f"{step}={error}", **ONCE)
        bench.require_honest(space, done)
        bench.require_kept(space)
        bench.require_rest(space)


def call_error_at(bench: Bench, call: str, number: int, error: str, forever: bool = False) -> None:
    """The n-th of a kind of calls fails, or all from then on, as `error_at`."""
    where = f"{'from' if forever else 'at'} {call} {number}"
    bench.benches.doing = f"{error} {where} of {bench.chore.name}"
    with bench.fresh() as space:

        def work() -> NoReturn:
            syscalls.break_call(call, number, error, forever)
            space.become(bench.chore.command, **ONCE)

        done = Forked(work, bench.benches.doing).finish()
        bench.require_honest(space, done, mute=forever and call == "write")
        bench.require_kept(space)
        bench.require_rest(space)


def kill(benches: Benches, random: Random) -> None:
    """Killed at any step of its own."""
    bench = bench_of(benches, random.choice(CHORES))
    kill_at(bench, random.choice(bench.steps))


def kill_twice(benches: Benches, random: Random) -> None:
    """Killed at a step, and the next one at any of its own; the third does the rest."""
    bench = bench_of(benches, random.choice(CHORES))
    first, number = random.choice(bench.steps), random.randrange(1, len(bench.steps) + 1)
    benches.doing = f"{bench.chore.name} killed at {first}, and the next at step {number}"
    with bench.fresh() as space:
        require(space.fork(bench.chore.command, fault=f"{first}=kill-group"), KILLED)
        require(space.fork(bench.chore.command, fault=f"*:{number}=kill-group"), KILLED, 0)
        bench.require_kept(space)
        bench.require_rest(space)


def error(benches: Benches, random: Random) -> None:
    """An OSError at any step of its own."""
    bench = bench_of(benches, random.choice(CHORES))
    error_at(bench, random.choice(fallible(bench.steps)), random.choice(ERRORS))


def call_error(benches: Benches, random: Random) -> None:
    """A call of the operating system fails, once or from then on."""
    bench = bench_of(benches, random.choice(CHORES))
    name = random.choice(sorted(bench.calls))
    call_error_at(bench, name, random.randint(1, bench.calls[name]), random.choice(ERRORS[:2]), random.random() < 0.3)


TRIALS: dict[str, Callable[[Benches, Random], None]] = {
    "chore killed": kill,
    "chore killed twice": kill_twice,
    "chore with an error": error,
    "chore with a failing call": call_error,
}
