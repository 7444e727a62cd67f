"""The checks that every crash test ends with: OLD or NEW, exactly one effect, no stray file, locks free.

NEW is what an unhurt run of the same commands leaves, byte for byte, times and transaction ids apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.workspace import Done, Workspace

Command = tuple[str, ...]

_TXID = re.compile(rb"\d{8}T\d{6}Z-[0-9a-f]{12}")
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_OURS = re.compile(
    r"data/(journal|\.commit\.lock|changes/\d{4}-\d\d\.jsonl|checkpoints/[A-Z]+-\d+_(checkpoint\.json|history\.jsonl))"
    r"|data/budget\.json|data/\.budget\.json\.lock"
    r"|logs/recovery/[A-Z]+-\d+_(recovery\.jsonl|escalation(\.\d)?\.json)"
)


def plain(data: bytes) -> bytes:
    """A file's bytes with times and transaction ids taken out."""
    return _TIME.sub(b"TIME", _TXID.sub(b"TXID", data))


@dataclass(frozen=True)
class Scenario:
    """A command under test: what was done before it, and other work of the same agent that gets in between."""

    name: str
    form: str
    command: Command
    prepare: tuple[Command, ...] = ()
    other: Command = ("complete", "CC", "CC-2", "other work")

    def __str__(self) -> str:
        return f"{self.name}-{self.form}"


def scenarios(forms: Iterable[str]) -> list[Scenario]:
    """assign (to an agent, and to a new one), complete and rollback for each form of progress.json."""
    done: Command = ("complete", "CC", "CC-1", "done and “said”")
    found = []
    for form in forms:
        found += [
            Scenario("complete", form, done),
            Scenario("assign", form, ("assign", "CC", "CC-9", "New work", "HIGH", "2")),
            Scenario("rollback", form, ("rollback", "CC", "CC-1"), (done,)),
        ]
    return found


@dataclass(frozen=True)
class State:
    """What a workspace holds: people's files byte for byte, and what was done according to the change log."""

    data: dict[str, bytes]
    changes: list[tuple[str, str, str]]

    @classmethod
    def of(cls, space: Workspace) -> State:
        return cls(space.data(), space.changes())


@dataclass
class Bench:
    """Fresh copies of a scenario's prepared workspace, and the states that unhurt runs lead to."""

    folder: Path
    scenario: Scenario
    count: int = 0
    _template: Workspace | None = None
    _states: dict[tuple[Command, ...], State] = field(default_factory=dict)

    @contextmanager
    def fresh(self) -> Iterator[Workspace]:
        """A workspace in the state before the command, removed behind it."""
        if self._template is None:
            self._template = Workspace.make(self.folder / f"{self.scenario}-template", self.scenario.form)
            for command in self.scenario.prepare:
                require(self._template.run(command), 0)
        self.count += 1
        space = self._template.copy(self.folder / f"{self.scenario}-{self.count}")
        try:
            yield space
        finally:
            space.remove()

    def after(self, *commands: Command) -> State:
        """The state that these commands lead to when nothing goes wrong."""
        if commands not in self._states:
            with self.fresh() as space:
                for command in commands:
                    require(space.run(command), 0)
                self._states[commands] = State.of(space)
        return self._states[commands]

    def steps(self) -> list[str]:
        """The steps of an unhurt run of the scenario's command."""
        with self.fresh() as space:
            return space.steps(self.scenario.command)


def require(done: Done, *codes: int) -> Done:
    assert done.code in codes, f"expected exit {' or '.join(map(str, codes))}, got {done}"
    return done


def differences(data: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """What differs, in words; times and transaction ids don't count."""
    words = [f"stray file {name}" for name in sorted(data.keys() - expected.keys())]
    words += [f"missing file {name}" for name in sorted(expected.keys() - data.keys())]
    for name in sorted(data.keys() & expected.keys()):
        if plain(data[name]) != plain(expected[name]):
            words.append(f"{name} differs:\n{data[name].decode(errors='replace')[:3000]}")
    return words


def require_state(space: Workspace, expected: State, allow: Sequence[str] = ()) -> None:
    """The workspace is in this very state, each change recorded once, nothing stray, no lock held."""
    data = {name: text for name, text in space.data().items() if not any(part in name for part in allow)}
    words = differences(data, expected.data)
    assert not words, "; ".join(words)
    assert space.changes() == expected.changes, f"the change log says {space.changes()}"
    require_tidy(space)


def require_tidy(space: Workspace, allow: str = r"(?!)") -> None:
    """What is ours is what the contract lists, every line of it whole and said once; no lock is held."""
    for name in space.snapshot():
        if name.startswith(("data/", "logs/")):
            assert _OURS.fullmatch(name) or re.fullmatch(allow, name), f"stray file {name}"
    lines = space.lines("data/changes")
    numbers = [line["seq"] for line in lines]
    assert numbers == sorted(set(numbers)), f"sequence numbers of the change log: {numbers}"
    assert len({line["txid"] for line in lines}) == len(lines), "a change is recorded twice"
    for path in sorted(space.path("data/checkpoints").glob("*_history.jsonl")):
        ids = [json.loads(line)["txid"] for line in path.read_text().splitlines()]
        task = path.name.removesuffix("_history.jsonl")
        expected = [line["txid"] for line in lines if line["task"] == task and line["op"] != "assign"]
        assert ids == expected, f"{path.name}: {ids}, the change log: {expected}"
    space.require_locks_free()


def require_whole(space: Workspace, old: State, new: State) -> None:
    """Each file is OLD to the byte or NEW, whatever happened; beside them only our stages and the backup."""
    for name, data in space.data().items():
        if name.endswith(".stage") or ".backup_" in name:
            continue
        assert name in old.data or name in new.data, f"stray file {name}"
        fits = data == old.data.get(name) or (name in new.data and plain(data) == plain(new.data[name]))
        assert fits, f"{name} is neither old nor new:\n{data.decode(errors='replace')[:3000]}"
    for name in old.data.keys() - space.data().keys():
        assert name not in new.data, f"{name} is gone"


def require_old_or_new(space: Workspace, old: State, new: State, allow: Sequence[str] = ()) -> bool:
    """All files OLD, or all NEW; returns whether it is NEW."""
    data = {name: text for name, text in space.data().items() if not any(part in name for part in allow)}
    if data == old.data:
        return False
    words = differences(data, new.data)
    assert not words, "neither old as a whole nor new as a whole: " + "; ".join(words)
    return True


def require_no_op(space: Workspace, command: Command) -> None:
    """The same command again: exit 0, says that nothing changed, and nothing did."""
    before = State.of(space)
    done = require(space.run(command), 0)
    assert "nothing changed" in done.out, f"the repeated command did not say that it was a no-op: {done}"
    after = State.of(space)
    assert before == after, "the repeated command changed something: " + "; ".join(differences(after.data, before.data))


class Failures:
    """Goes on after a failure, so that one run tells every point at which the promise doesn't hold."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.count = 0

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        self.count += 1
        try:
            yield
        except AssertionError as error:
            self.found.append(f"{where}: {error}")

    def report(self) -> None:
        assert self.count, "nothing was tried"
        if self.found:
            shown = "\n\n".join(self.found[:12])
            raise AssertionError(f"{len(self.found)} of {self.count} points fail\n\n{shown}")
