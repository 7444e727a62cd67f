"""The power-cut trials: record an operation, lose what may be lost, run the next command on it, and check.

The states are made in memory (/dev/shm) where that can be written: what a power cut leaves is computed, not waited for,
so that this part says nothing of the disk and all of the code.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from recovery import flock
from recovery.torture import folders, powercut
from recovery.torture.invariants import require
from recovery.torture.operations import RECOVER, Bench
from recovery.torture.recording import Trace, Tree, record
from recovery.torture.scratch import Violation, Workspace, demand

_MEMORY = "/dev/shm"
_PREFIX = "recovery-torture-"


@dataclass(frozen=True)
class Cut:
    """One state: the tree, the files in it that nobody touched, whether success had been said, which event was next."""

    tree: Tree
    kept: dict[str, int]
    said: bool
    event: int


class Cuts:
    """All distinct states of one operation, and their checks.  `close` removes the files."""

    def __init__(self, bench: Bench, seed: str) -> None:
        self.bench = bench
        self.random = Random(seed)
        op = bench.operation
        before = [op.crashes] if op.crashes is not None else []
        with bench.fresh(crashed=False) as space:
            self.trace: Trace = record(space, *before, (op.command, ""))
            powercut.require_complete(self.trace, space)
        self.count = 0

    def close(self) -> None:
        shutil.rmtree(self.trace.pool, ignore_errors=True)

    def states(self, trace: Trace | None = None) -> list[Cut]:
        """Every distinct state that a power cut may leave of `trace`, by default the one recorded.

        In an order of the seed's, but those first in which success had been said: they are few, and promise the most.
        """
        trace = trace or self.trace
        found: dict[bytes, Cut] = {}
        for number, disk in powercut.moments(trace):
            for tree, kept in disk.states(self.random):
                said = bool(disk.said)
                found.setdefault(powercut.digest_of(tree, said), Cut(tree, kept, said, number))
        cuts = list(found.values())
        self.random.shuffle(cuts)
        cuts.sort(key=lambda cut: not cut.said)
        return cuts

    def described(self, cut: Cut) -> str:
        """When the power was cut, in words."""
        return "at the end" if cut.event == len(self.trace.events) else f"before {self.trace.described(cut.event)}"

    def is_missed(self, number: int, most: int) -> bool:
        """Whether leaving out the sync at event `number` breaks a promise in one of `most` states."""
        for n, cut in enumerate(self.states(self.trace.without(number))[:most]):
            try:
                self.check(cut, recover_first=bool(n % 2))
            except Violation:
                return True
        return False

    def check(self, cut: Cut, recover_first: bool) -> None:
        """Violation unless the next command finds OLD or NEW (NEW, if success was said) and the same command works."""
        bench, op = self.bench, self.bench.operation
        self.count += 1
        root = bench.folder / f"{op}-cut-{self.count}"
        powercut.make(cut.tree, cut.kept, self.trace.pool, root)
        space = Workspace(root)
        space.power_was_cut = True
        try:
            if not op.decided:
                require(space.fork(RECOVER), 0)
                demand(bench.require_undecided(space) or not cut.said, f"{op.name} had said that it was done")
                bench.require_no_op(space)
                return
            before: tuple[str, ...] = ()
            if recover_first or op.repeats:
                require(space.fork(RECOVER), 0)
                is_new = bench.require_old_or_new(space)
                demand(is_new or not cut.said, f"{op.name} had said that it was done, and it isn't")
                before = op.facts(space)
            require(space.fork(op.command), 0)
            bench.require_data(space)  # lines that follow from changes come back with the next commit, or `recover`
            bench.require_no_op(space)
            if op.then is not None:
                require(space.fork(op.then[0]), op.then[1])
            require(space.fork(RECOVER), 0)
            bench.require_again(space, before, allow=(".backup_",))
        finally:
            space.remove()


@contextlib.contextmanager
def after_reboot() -> Iterator[None]:
    """Children that are forked in here live in another boot: pids and boot ids of before mean nothing to them."""
    real = flock.text_of

    def text_of(path: str) -> str:
        return "00000000-0000-4000-8000-000000000000\n" if path.endswith("/boot_id") else real(path)

    flock.text_of = text_of
    try:
        yield
    finally:
        flock.text_of = real


@contextlib.contextmanager
def in_memory(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, or below `otherwise` where there is none; removed behind it, after a kill by the next one."""
    where = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else str(otherwise)
    folders.remove_abandoned(where, _PREFIX)
    folder, owner = folders.make(where, _PREFIX)
    try:
        yield Path(folder)
    finally:
        folders.remove(folder)
        os.close(owner)
