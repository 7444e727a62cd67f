"""A year of work, simulated: the bounds hold, the statistics are exact, and the last month is as fast as the first.

    python tests/long/year.py [--tasks 5000] [--agents 60] [--days 365] [--seed N] [--dir DIR] [--ratio 1.2]

The suite's own modules work on a real disk; only the clock is ours.  Each day a backlog is given out in one commit, and
each of its tasks is completed; some fail first, once or more, some for good, which a person settles later; some of the
completing processes are shot at a step by chance, and the next command finishes what they left.  There are breakers
that open, idempotency keys, checkpoints of programs, a reboot a month.  At night cron runs `archive` (tasks completed
more than a day ago) and `cleanup`; a light cleanup runs where a log has grown long, as it does behind a command.

The budget, and the length at which a log is put aside, are the workspace's usual ones for 400,000 tasks, and less for
fewer: what is bounded in a short run is bounded in a long one. `--tasks 400000` is the whole year; Ctrl-C ends it
with the day, and what was done until then is judged.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "py"))

from recovery import (
    archive,
    archived,
    bounds,
    checkpoints,
    cleanup,
    complete,
    distribute,
    escalations,
    flock,
    incidents,
    jsonl,
    layout,
    once,
    place,
    stats,
    steps,
    tasks,
)
from recovery.breaker import CircuitBreaker
from recovery.session import Session
from recovery.store import FileStore

WHOLE = 400_000
DAY = 86400.0
BEGAN = 1735689600.0  # 2025-01-01
#: How often, of a thousand tasks: fail first, are shot, get a program's checkpoints, a key.
FAIL, SHOT, NOTED, KEYED = 60, 4, 30, 20
#: Days that a person takes to settle an escalation, and tasks stay in their outbox.
SETTLED, KEPT = 3, 1
OUTCOMES = ("recovered",) * 16 + ("failed", "rolled_back", "skipped", "escalated")


@dataclass
class Truth:
    """What the year has really seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    tries: int = 0
    affected: set[str] = field(default_factory=set)
    unfinished: int = 0
    completed: dict[str, set[str]] = field(default_factory=dict)
    shots: int = 0
    died: int = 0  # of those shot: what they left is to be finished by somebody, who logs that as a recovery
    seconds: list[list[float]] = field(default_factory=list)  # of each completion, by month
    fullest: float = 0.0  # part of the budget that was in use, at most, after a night
    most_files: int = 0


class Year:
    """The workspace, the clock, and what happens."""

    def __init__(self, root: Path, agents: int, count: int, days: int, seed: int) -> None:
        self.root, self.days = root, days
        self.random = random.Random(seed)
        self.agents = [f"A{n:02d}" for n in range(agents)]
        self.truth = Truth(completed={agent: set() for agent in self.agents})
        self.truth.seconds = [[] for _ in range(days // 30 + 1)]
        self.now = BEGAN
        self.given = 0
        self.is_stopped = False
        self.count = count
        self.waiting: list[tuple[float, str]] = []  # escalations, and when they are settled
        scale = min(count / WHOLE, 1.0)
        config = {
            "megabytes": max(round(bounds.DEFAULTS["megabytes"] * scale), 2),
            "files": max(round(bounds.DEFAULTS["files"] * scale), 20 * agents + 400),
        }
        jsonl.LONG = max(round(jsonl.LONG * scale), 1 << 16)
        for folder in ("data", ".sprint", *(f"postbox/{agent}" for agent in self.agents)):
            (root / folder).mkdir(parents=True)
        (root / "data/config.json").write_text(json.dumps({"format": 1, "bounds": config}))
        (root / ".sprint/progress.json").write_text('{"total_tasks": 0, "completed": 0, "pending": 0, "tasks": {}}\n')
        for agent in self.agents:
            (root / layout.outbox(agent)).write_text(tasks.empty_outbox(agent))
        FileStore.clock = staticmethod(lambda: self.now)
        self.session = Session(root)
        self.store = self.open()

    def open(self) -> FileStore:
        return FileStore(str(self.root), flock.Limits(30.0, 1e9, "year"))

    def run(self) -> None:
        """A day after the other, until it is told to stop."""
        gc.disable()  # as a command does
        for day in range(self.days):
            if self.is_stopped:
                self.days = day
                break
            self.now = BEGAN + day * DAY
            if day % 30 == 29:
                flock.identity()["boot"] = f"boot-{day}"  # whoever commits next looks what the power has taken
            self.day(day)
            self.night()
            gc.collect()
        self.store.close()

    def stop(self, *_: object) -> None:
        """End with this day."""
        self.is_stopped = True

    # --- a day

    def day(self, day: int) -> None:
        number = self.count * (day + 1) // self.days - self.given
        todo = self.give_out(day, number)
        self.breakers(day)
        for task, agent in todo:
            self.now += DAY / 2 / max(number, 1)
            if self.random.randrange(1000) < FAIL:
                self.fail(agent, task)
            if self.random.randrange(1000) < NOTED:
                checkpoints.create(self.store, task, "running", {"at": "half"}, {"step": "one", "result": 1})
            if self.random.randrange(1000) < KEYED:
                self.keyed(task)
            if self.random.randrange(1000) < SHOT:
                self.shoot(agent, task)
            began = time.perf_counter()
            complete.complete(self.store, agent, task, f"done on day {day}")
            self.truth.seconds[day // 30].append(time.perf_counter() - began)
            self.truth.completed[agent].add(task)
            self.tidy()

    def tidy(self) -> None:
        """As the helper does behind a command."""
        self.store.told.clear()
        if self.store.grown:
            self.store.grown = False
            cleanup.light(str(self.root))

    def give_out(self, day: int, number: int) -> list[tuple[str, str]]:
        """A backlog, in as few commits as it takes."""
        todo = []
        while number > 0:
            some = []
            for _ in range(min(number, 1000)):
                task, agent = f"T-{self.given:06d}", self.agents[self.given % len(self.agents)]
                self.given += 1
                todo.append((task, agent))
                some.append({"task_id": task, "title": f"Work {self.given} of day {day}", "agent": agent})
            number -= len(some)
            path = self.root / "backlog.json"
            path.write_text(json.dumps(some))
            result = place.place(self.store, distribute.read(str(path)), place.Terms("distribute"))
            assert len(result.data["placed"]) == len(some), result.line
            self.tidy()
        return todo

    def fail(self, agent: str, task: str) -> None:
        truth = self.truth
        ticks = iter(range(100))
        incident = incidents.Incident(task, self.store.now(), monotonic=lambda: float(next(ticks)), agent=agent)
        tries = self.random.randint(1, 3)
        for attempt in range(1, tries + 1):
            error = ConnectionError(f"try {attempt} of {task} did not get through")
            incidents.write(self.store, incident.failed(error, "RETRY", attempt, self.store.now()))
        truth.affected.add(task)
        if self.random.randrange(50) == 0:  # its process died
            truth.unfinished += 1
            return
        outcome = self.random.choice(OUTCOMES)
        attempts = tries + 1 if outcome == "recovered" else tries
        incidents.write(self.store, incident.ended(outcome, self.store.now(), attempts))
        truth.outcomes[outcome] += 1
        truth.tries += tries
        if outcome == "escalated":
            escalations.report(self.store, task, "ConnectionError", f"{task} needs a person", agent)
            self.waiting.append((self.now + SETTLED * DAY, task))

    def keyed(self, task: str) -> None:
        call = once.Call(self.session, f"key-{task}", task)
        if call.begin():
            call.start()
            call.done("sent")
            call.release()

    def breakers(self, day: int) -> None:
        for n in range(3):
            breaker = CircuitBreaker(f"service-{day // 40}-{n}", session=self.session, clock=lambda: self.now)
            if day % 40 == n * 7:
                breaker.trip(seconds=3600.0)
            elif day % 40 == n * 7 + 1:
                breaker.reset()

    def shoot(self, agent: str, task: str) -> None:
        """A process begins to complete it and is killed at a step by chance, or gets through."""
        left, boot = self.random.randint(5, 60), flock.identity()["boot"]
        pid = os.fork()
        if pid == 0:
            try:
                count = 0

                def hook(step: str, detail: object = "") -> None:
                    nonlocal count
                    count += 1
                    if count == left:
                        os.kill(os.getpid(), signal.SIGKILL)

                flock.identity()["boot"] = boot
                store = self.open()
                steps.at = hook
                complete.complete(store, agent, task, "shot")
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            self.truth.shots += 1
            if self.store.unfinished() is not None:
                self.truth.died += 1
                self.truth.affected.add(task)

    # --- a night

    def night(self) -> None:
        self.now = BEGAN + DAY * (int((self.now - BEGAN) // DAY) + 0.9)
        for when, task in list(self.waiting):
            if when < self.now:
                escalations.resolve(self.store, task)
                self.waiting.remove((when, task))
        archive.archive(self.store, "", KEPT)
        result = cleanup.cleanup(self.store)
        self.store.told.clear()
        use = result.data["use"]
        part = max(use["bytes"] / use["limits"]["bytes"], use["files"] / use["limits"]["files"])
        self.truth.fullest = max(self.truth.fullest, part)
        self.truth.most_files = max(self.truth.most_files, use["files"])
        assert result.data["code"] == 0, result.data["notes"]

    # --- what it must have come to

    def wrong(self) -> list[str]:
        """What isn't as it should be, in words."""
        found = []
        if self.truth.fullest > 1:
            found.append(f"the budget was exceeded: {self.truth.fullest:.2f} of it")
        store = self.open()
        try:
            numbers = stats.recovery_stats(store)
            found += [f"{name} is {numbers[name]}, not {value}" for name, value in self.expected(numbers)]
            for agent in self.agents:
                version = store.read(layout.outbox(agent))
                assert version is not None
                box = tasks.Outbox(layout.outbox(agent), version)
                there = [task for task, *_ in box.tasks]
                away = [line["task_id"] for line in archived.every(store, agent)]
                if sorted(there + away) != sorted(self.truth.completed[agent]):
                    found.append(f"{agent}: {len(there)} + {len(away)} tasks, not {len(self.truth.completed[agent])}")
                if archived.count(store, agent, there) != len(away):
                    found.append(f"{agent}: {archived.count(store, agent, there)} are counted, {len(away)} archived")
                if box.open_tasks():
                    found.append(f"{agent}: open: {box.open_tasks()[:5]}")
            progress = json.loads((self.root / layout.PROGRESS).read_text())
            if (progress["total_tasks"], progress["completed"], progress["pending"]) != (self.given, self.given, 0):
                found.append(f"progress counts {progress['completed']} of {progress['total_tasks']}, not {self.given}")
        finally:
            store.close()
        return found

    def expected(self, numbers: dict[str, Any]) -> list[tuple[str, Any]]:
        truth = self.truth
        ended = {True: 0, False: 0, None: 0}
        for outcome, n in truth.outcomes.items():
            ended[incidents.OUTCOMES[outcome]] += n
        right: dict[str, Any] = {
            "successful_recoveries": ended[True] + truth.died,
            "failed_recoveries": ended[False],
            "unfinished_recoveries": truth.unfinished,
            "failed_tries": truth.tries,
            "tasks_affected": len(truth.affected),
            "skipped_lines": 0,
        }
        by_type = numbers["by_error_type"].get("ConnectionError", {"total": 0})["total"]
        if by_type != ended[True] + ended[False]:
            right["by_error_type"] = f"{ended[True] + ended[False]} ConnectionErrors"
        return [(name, value) for name, value in right.items() if numbers.get(name) != value]

    def ratio(self) -> float:
        """Time per completion in the last whole month over the first."""
        whole = [month for month in self.truth.seconds if len(month) > 20][: max(self.days // 30, 1)]
        return statistics.median(whole[-1]) / statistics.median(whole[0]) if whole else 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description="A year of work, simulated.")
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--agents", type=int, default=60)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", help="where to make the workspace (default: the temp folder)")
    parser.add_argument("--ratio", type=float, default=1.2, help="last month over first, at most; 0: only printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="year-", dir=options.dir) as folder:
        year = Year(Path(folder) / "ws", options.agents, options.tasks, options.days, options.seed)
        began = time.monotonic()
        signal.signal(signal.SIGINT, year.stop)
        year.run()
        took = time.monotonic() - began
        wrong = year.wrong()
        truth, ratio = year.truth, year.ratio()
        medians = " ".join(f"{statistics.median(month) * 1000:.2f}" for month in truth.seconds if len(month) > 20)
        store = year.open()
        use, archives = bounds.use(store), sum(path.stat().st_size for path in year.root.glob("postbox/*/archive/*"))
        store.close()
    print(
        f"{year.given} tasks of {options.agents} agents in {year.days} days: {took:.0f} s, "
        f"{took / year.given * 1000:.1f} s a thousand; seed {options.seed}"
    )
    print(f"{truth.shots} processes shot; {sum(truth.outcomes.values())} recoveries, {truth.unfinished} unfinished")
    print(f"budget: {use.words()}; at most {truth.fullest:.0%} of it; archives {archives / bounds.MEGABYTE:.1f} MB")
    print(f"ms a completion, by month: {medians}; last over first {ratio:.2f}")
    if options.ratio and ratio > options.ratio:
        wrong.append(
            f"a completion takes {ratio:.2f} times as long as in the first month, not at most {options.ratio:g}"
        )
    for one in wrong:
        print(f"WRONG: {one}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
