"""Whole completions, ours against the peers': alone, in large files, in a crowd, and their syncs."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from contenders import MESSAGE, OURS, Contender
from scratch import Workspace, tasks_for
from table import Report, Target
from timing import CommandFailed, can_trace, peak_bytes, run, sync_calls

SMALL, MEDIUM, LARGE = 9_000, 1_000_000, 30_000_000
MANY, ARCHIVED = 10_000, 100_000
SYNCS_AT_MOST = 10
_fork = multiprocessing.get_context("fork")


class Completions:
    """The sections that start whole processes. Everything is made below `scratch`."""

    def __init__(self, report: Report, scratch: Path, everybody: Sequence[Contender], quick: bool) -> None:
        self.report = report
        self.scratch = scratch
        self.everybody = list(everybody)
        self.quick = quick
        self.errors = scratch / "stderr"

    def one(self) -> None:
        """Section 1: one completion in an outbox of the usual size."""
        rounds = 7 if self.quick else 40
        self.report.section(f"One completion, 9 KB outbox, whole process ({rounds} rounds)", "ms")
        times = self._times(self.everybody, tasks_for(SMALL), rounds)
        targets = {one.name: Target(0.20 if one.old else 0.55) for one in self.everybody if one.jq}
        targets |= {one.name: Target(0.95) for one in self.everybody if one.database}
        self.report.rows(times, targets)

    def large(self) -> None:
        """Section 2: the same where the outbox is far larger than anybody's should be."""
        some = [one for one in self.everybody if not (self.quick and one.old)]
        modern = [one.name for one in some if one.jq and not one.old]
        for size, rounds, limit in ((MEDIUM, 15, 0.40), (LARGE, 7, 0.30)):
            rounds = max(1, rounds // 5) if self.quick else rounds
            self.report.section(f"One completion, {size // 1_000_000} MB outbox ({rounds} rounds)", "ms")
            times = self._times(some, tasks_for(size), rounds)
            self.report.rows(times, dict.fromkeys(modern, Target(limit)))
        self.report.section("Peak memory, 30 MB outbox, the largest process", "x the file")
        peaks = {one.name: self._peak(one, tasks_for(LARGE)) for one in some}
        self.report.rows(peaks, dict.fromkeys(peaks, Target(3, absolute=True)))

    def writers(self) -> None:
        """Section 3: many at once. Rates, and that nothing is lost."""
        crowd, each = (4, 8) if self.quick else (8, 50)
        rounds = 1 if self.quick else 3
        self.report.section(f"{crowd} writers x {each} completions ({rounds} rounds)", "completions/s")
        best_jq = [one for one in self.everybody if one.jq][:1]
        some = [one for one in self.everybody if one.ours] + best_jq
        targets = {one.name: Target(2.5, at_least=True) for one in best_jq}
        for name, agents in (("one agent", ["A1"]), ("several agents", [f"A{n}" for n in range(crowd)])):
            rates: dict[str, list[float]] = {one.name: [] for one in some}
            for number in range(rounds):
                for one in some:
                    with self._workspace(one, agents) as workspace:
                        rates[one.name] += self._crowd(one, workspace, crowd, each, f"{name}, round {number}")
            self.report.rows(rates, targets, prefix=f"{name}: ")

    def archived(self) -> None:
        """A completion where 100,000 tasks were archived, beside one where none was: the same outbox, in turns."""
        rounds = 7 if self.quick else 40
        many = ARCHIVED // 10 if self.quick else ARCHIVED
        self.report.section(f"One completion, 9 KB outbox, {many:,} tasks archived, or none ({rounds} rounds)", "ms")
        ours = next(one for one in self.everybody if one.ours)
        spaces = [Workspace(self.scratch / name / "root") for name in ("archived", "bare")]
        recovery = str(OURS.with_name("recovery"))
        times: list[list[float]] = [[], []]
        try:
            for _ in range(many // MANY):
                spaces[0].fill(MANY)
                spaces[0].complete_all("A1")
                run([recovery, "archive", "A1", "-q"], ours.env(spaces[0].root), self.errors)
            for number in range(rounds + 1):
                for workspace, took in zip(spaces, times):
                    agent, task = workspace.fill(tasks_for(SMALL))[0]
                    one = run(ours.argv(workspace.root, agent, task), ours.env(workspace.root), self.errors)
                    took += [one] if number else []
            out = subprocess.run([recovery, "status"], env=ours.env(spaces[0].root), capture_output=True, text=True)
            if f"{many} archived" not in out.stdout:
                self.report.failed(f"not {many} tasks are archived: {out.stdout[:200]} {out.stderr}")
        except CommandFailed as error:
            self.report.failed(f"{ours.name}: {error}")
        finally:
            for workspace in spaces:
                shutil.rmtree(workspace.root.parent, ignore_errors=True)
        self.report.row("with an archive / without", times[0], times[1], Target(1.1))

    def claims(self) -> None:
        """`claim --next` beside a completion of that same outbox of 10,000 tasks, one after the other."""
        rounds = 5 if self.quick else 25
        self.report.section(f"The next task among {MANY:,}, whole process ({rounds} rounds)", "ms")
        ours = next(one for one in self.everybody if one.ours)
        claimed: list[float] = []
        completed: list[float] = []
        with self._workspace(ours, ["A1"]) as workspace:
            pairs = workspace.fill(MANY, listed=rounds + 1)
            env = {**ours.env(workspace.root), "RECOVERY_SESSION": "bench"}
            # The first round makes folders and lock files; it does not count.
            for number, (agent, task) in enumerate(pairs):
                try:
                    took = run([str(OURS.with_name("recovery")), "claim", agent, "--next"], env, self.errors)
                    claimed += [took] if number else []
                    took = run(ours.argv(workspace.root, agent, task), env, self.errors)
                    completed += [took] if number else []
                except CommandFailed as error:
                    self.report.failed(f"{ours.name}: {error}")
                    break
            held = [task for task in json.loads(workspace.outbox("A1").read_bytes())["tasks"] if "claim" in task]
            if len(held) != len(claimed) + 1:
                self.report.failed(f"{len(claimed) + 1} claims were made, {len(held)} tasks are claimed")
        self.report.row("claim --next / a completion", claimed, completed, Target(3))

    def syncs(self) -> None:
        """Section 4: how often one completion waits for the disk, in a workspace that exists."""
        self.report.section("Sync calls of one completion (strace)", "calls")
        if not can_trace():
            self.report.skipped("sync calls", "strace is missing or may not trace here")
            return
        calls = {one.name: self._syncs(one) for one in self.everybody}
        self.report.rows(calls, dict.fromkeys(calls, Target(SYNCS_AT_MOST, absolute=True)))

    def _syncs(self, one: Contender) -> list[float]:
        with self._workspace(one, ["A1"]) as workspace:
            first, second = workspace.fill(tasks_for(SMALL))[:2]
            one.prepare(workspace.root, workspace.agents)
            env, log = one.env(workspace.root), self.scratch / "strace"
            try:
                run(one.argv(workspace.root, *first), env, self.errors)
                return [sync_calls(one.argv(workspace.root, *second), env, self.errors, log)]
            except CommandFailed as error:
                self.report.failed(f"{one.name}: {error}")
                return []

    def _peak(self, one: Contender, tasks: int) -> list[float]:
        """The largest process of one completion, as a multiple of the outbox."""
        with self._workspace(one, ["A1"]) as workspace:
            agent, task = workspace.fill(tasks)[0]
            one.prepare(workspace.root, workspace.agents)
            length = workspace.outbox(agent).stat().st_size
            argv, env = one.argv(workspace.root, agent, task), one.env(workspace.root)
            try:
                return [peak_bytes(argv, env, self.errors) / length]
            except CommandFailed as error:
                self.report.failed(f"{one.name}: {error}")
                return []

    def _times(self, some: Sequence[Contender], tasks: int, rounds: int) -> dict[str, list[float]]:
        """Milliseconds of each round: A B C, A B C …, each on fresh tasks, each checked after."""
        times: dict[str, list[float]] = {one.name: [] for one in some}
        out: set[str] = set()
        spaces = {one.name: Workspace(self.scratch / one.name.replace(" ", "-") / "root") for one in some}
        # The first round makes folders and lock files; it does not count.
        for number in range(rounds + 1):
            for one in some:
                if one.name in out:
                    continue
                workspace = spaces[one.name]
                pairs = workspace.fill(tasks)
                agent, task = pairs[len(pairs) // 2]
                one.prepare(workspace.root, workspace.agents)
                try:
                    took = run(one.argv(workspace.root, agent, task), one.env(workspace.root), self.errors)
                except CommandFailed as error:
                    self.report.failed(f"{one.name}: {error}")
                    out.add(one.name)
                    continue
                self._check(one, workspace, [(agent, task)], tasks, "one completion")
                times[one.name] += [took] if number else []
        for workspace in spaces.values():
            shutil.rmtree(workspace.root.parent, ignore_errors=True)
        return times

    def _crowd(self, one: Contender, workspace: Workspace, crowd: int, each: int, where: str) -> list[float]:
        """Completions a second of `crowd` processes that start together; nothing if one failed."""
        tasks = crowd * each // len(workspace.agents)
        pairs = workspace.fill(tasks, listed=tasks)
        one.prepare(workspace.root, workspace.agents)
        start = _fork.Barrier(crowd + 1)
        failures: SimpleQueue[str] = _fork.SimpleQueue()
        writers = []
        for number in range(crowd):
            mine = pairs[number * each : (number + 1) * each]
            errors = self.scratch / f"stderr-{number}"
            writers.append(_fork.Process(target=_write, args=(one, workspace.root, mine, errors, start, failures)))
        for writer in writers:
            writer.start()
        start.wait()
        started = time.perf_counter()
        for writer in writers:
            writer.join()
        took = time.perf_counter() - started
        if failures.empty():
            self._check(one, workspace, pairs, tasks, where)
            return [len(pairs) / took]
        while not failures.empty():
            self.report.failed(f"{one.name}, {where}: {failures.get()}")
        return []

    def _check(
        self, one: Contender, workspace: Workspace, done: Sequence[tuple[str, str]], tasks: int, where: str
    ) -> None:
        lost = workspace.lost(done, tasks, MESSAGE, files=not one.database)
        if lost:
            self.report.failed(f"{one.name} lost data, {where}: {'; '.join(lost[:5])} ({len(lost)} in all)")

    @contextmanager
    def _workspace(self, one: Contender, agents: Sequence[str]) -> Iterator[Workspace]:
        folder = self.scratch / one.name.replace(" ", "-")
        try:
            yield Workspace(folder / "root", agents)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write(
    one: Contender,
    root: Path,
    pairs: Sequence[tuple[str, str]],
    errors: Path,
    start: Barrier,
    failures: SimpleQueue[str],
) -> None:
    start.wait()
    try:
        for agent, task in pairs:
            run(one.argv(root, agent, task), one.env(root), errors)
    except CommandFailed as error:
        failures.put(str(error))
