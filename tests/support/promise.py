"""What crash tests run, whole scripts, and the checks of `recovery torture` that each of them ends with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recovery.torture import operations
from recovery.torture.invariants import (
    State,
    differences,
    plain,
    require,
    require_no_op,
    require_old_or_new,
    require_state,
    require_tidy,
    require_whole,
)
from support.workspace import Command, Workspace

__all__ = ["Bench", "Command", "Failures", "Scenario", "State", "differences", "plain", "require", "require_no_op"]
__all__ += ["require_old_or_new", "require_state", "require_tidy", "require_whole", "scenarios"]


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
    """complete, assign and rollback for each form of progress.json, as `recovery torture` hurts them."""
    return [Scenario(op.name, form, op.command, op.prepare) for form in forms for op in operations.documented(form)]


@dataclass
class Bench:
    """As `recovery.torture.operations.Bench`, with every command run as the user runs it: a script of the suite."""

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
