"""Many at once: our commands, some of them killed, among foreign writers and a reader who ignores every lock.

In the end each task was done exactly once, everywhere, and no edit of the foreign writers is lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from recovery.torture.invariants import require, require_no_op, require_tidy
from recovery.torture.operations import KILLED, RECOVER, Bench, Benches
from recovery.torture.scratch import Command, Done, Forked, Violation, Workspace, demand, finish

PROGRESS = ".sprint/progress.json"
AGENTS = ("CC", "CA", "CB")
#: What is left of a command that was killed: by a signal, or by one that a script passes on as a code.
_HURT = (KILLED, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
#: How often each command is started in one go, on average.
_TIMES = 3


@dataclass
class Counts:
    """What a round did: commands started, those of them that were killed, edits of foreign writers, reads."""

    commands: int = 0
    kills: int = 0
    edits: int = 0
    reads: int = 0


def round(benches: Benches, random: Random, seconds: float) -> Counts:
    """Go on for about so many seconds, in one fresh workspace after the other; what was done.

    Violation if a task is not done exactly once, an edit is lost, a reader sees a file that is not whole, or anything
    is left lying about.  Each workspace takes up to a second beyond `seconds`, for repeats and checks.
    """
    end = time.monotonic() + seconds
    counts = Counts()
    while True:
        _crowd(benches, random, end, counts)
        if time.monotonic() >= end:
            return counts


def _crowd(benches: Benches, random: Random, end: float, counts: Counts) -> None:
    """One workspace: start, hurt, join, recover, repeat, check."""
    completions = [op for op in benches.operations if op.command[0] == "complete" and not op.prepare]
    bench = benches.of(random.choice(completions))
    agents = random.choice((AGENTS[:1], AGENTS))
    work = _work(agents)
    lanes = random.randrange(3, 7)
    benches.doing = f"{lanes} writers at a time of {', '.join(agents)} ({bench.operation.form}), some of them killed"
    with bench.fresh() as space, ExitStack() as stack:
        original = space.data()
        files = [f"postbox/{agent}/outbox.json" for agent in agents]
        files += [PROGRESS] if PROGRESS in original else []
        foreign = []
        for _ in range(random.randrange(1, 3)):
            writer = _Beside(lambda stop: _edit(space, files, random, stop), "foreign writer")
            foreign.append(stack.enter_context(writer))
        reader = stack.enter_context(_Beside(lambda stop: _read(space, files, stop), "reader"))
        said, killed = _run(space, bench, random, work, lanes, end, counts)
        edits = dict.fromkeys(files, 0)
        for writer in foreign:
            for name, number in json.loads(writer.stop()).items():
                edits[name] += number
        counts.edits += sum(edits.values())
        recovers = random.random() < 0.5  # else the repeated commands meet what the killed ones left
        benches.doing += "; joined, then " + ("recover" if recovers else "all of them again")
        if recovers:
            require(space.fork(RECOVER), 0)
            changes = space.changes()
            for command in said:
                demand(_key(command) in changes, f"{command[:3]} said that it was done, and is not")
        for command in work:
            require(space.fork(command), 0)
        for command in work:
            require_no_op(space, command, fork=True)
        counts.reads += int(reader.stop())
        _require_once(space, original, work, edits, killed)
        require_tidy(space)


def _work(agents: tuple[str, ...]) -> list[Command]:
    """Completions, new tasks and their completion; an agent's task is completed only behind its assignment."""
    found: list[Command] = [("complete", agent, f"{agent}-{n}", "done") for agent in agents for n in (1, 2, 3)]
    for agent in agents:
        found.append(("assign", agent, f"{agent}-9", "New work", "LOW"))
        found.append(("complete", agent, f"{agent}-9", "done"))
    if len(agents) == 1:
        found.append(("assign", agents[0], f"{agents[0]}-10", "More work", "HIGH", "2"))
    return found


def _key(command: Command) -> tuple[str, str, str]:
    return command[0], command[1], command[2]


# --- our commands


@dataclass
class _Running:
    """A command under way, and when it is to be killed by what, if at all."""

    command: Command
    process: Forked | subprocess.Popen[str]
    hurt: bool
    due: float = float("inf")
    number: int = signal.SIGKILL
    pidfd: int = field(init=False)

    def __post_init__(self) -> None:
        self.pidfd = os.pidfd_open(self.process.pid)

    def kill(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def finish(self) -> Done:
        os.close(self.pidfd)
        return self.process.finish() if isinstance(self.process, Forked) else finish(self.process)


def _run(
    space: Workspace, bench: Bench, random: Random, work: list[Command], lanes: int, end: float, counts: Counts
) -> tuple[list[Command], set[str]]:
    """Keep `lanes` commands running until all were started a few times, or time is up.

    Returns those that said "done", and the tasks of those that were killed.
    """
    plan = [command for command in work for _ in range(random.randrange(1, 2 * _TIMES))]
    random.shuffle(plan)
    scripts = os.access(space.words(work[0])[0], os.X_OK)
    running: list[_Running] = []
    said: list[Command] = []
    killed: set[str] = set()
    try:
        while plan or running:
            if time.monotonic() >= end:
                plan.clear()
            while plan and len(running) < lanes:
                running.append(_start(space, bench, random, plan.pop(), scripts))
                counts.commands += 1
            now = time.monotonic()
            for one in running:
                if one.due <= now:
                    one.due = float("inf")
                    one.kill(one.number)
            wait = min((one.due for one in running), default=now) - now
            over = select.select([one.pidfd for one in running], [], [], max(0.0, min(wait, 1.0)))[0]
            for one in [one for one in running if one.pidfd in over]:
                running.remove(one)
                done = one.finish()
                _require_fair(one, done)
                if done.code in _HURT:
                    counts.kills += 1
                    killed.add(one.command[2])
                if done.code == 0:
                    said.append(one.command)
    finally:
        for one in running:
            one.kill(signal.SIGKILL)
        for one in running:
            with suppress(Violation):
                one.finish()
    return said, killed


def _start(space: Workspace, bench: Bench, random: Random, command: Command, scripts: bool) -> _Running:
    """Start one, in six of ten cases to be killed: at a step, or after a while."""
    if command[0] == "complete":
        command = (*command[:3], f"done, says {random.randrange(1000)}")
    chance = random.random()
    fault, due = "", float("inf")
    if chance < 0.3:
        fault = f"{random.choice(bench.steps())}={random.choice(('kill-group', 'kill-group', 'term'))}"
    elif chance < 0.4:
        fault = f"*:{random.randrange(1, 90)}=kill-group"
    elif chance < 0.6:
        due = random.random() * random.choice((0.01, 0.08))
    number = random.choice((signal.SIGKILL, signal.SIGTERM))
    start: Callable[..., Forked | subprocess.Popen[str]] = space.begin
    if scripts and random.random() < 0.1:
        start = space.start
    return _Running(command, start(command, fault), chance < 0.6, time.monotonic() + due, number)


def _require_fair(one: _Running, done: Done) -> None:
    """Who was not to be killed is done, or busy, or was too early: its task is new and not assigned yet."""
    codes = [0, 75]
    if one.hurt:
        codes += _HURT
    if one.command[0] == "complete" and one.command[2].endswith("-9"):
        codes.append(66)
    if done.code not in codes:
        raise Violation(f"{one.command[:3]} among other writers: {done}")


# --- the others


class _Beside:
    """A child that works on beside the commands until `stop`; what it prints is what it has to say."""

    def __init__(self, work: Callable[[int], None], what: str) -> None:
        self.what = what
        self._told, self._tell = os.pipe()
        self._child: Forked | None = Forked(lambda: work(self._told), what)

    def __enter__(self) -> _Beside:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            with suppress(Violation):
                self._end()

    def stop(self) -> str:
        """Its output, once it has ended what it was at; Violation if it had seen something that may not be."""
        os.write(self._tell, b"x")
        done = self._end()
        demand(done.code == 0, f"the {self.what}: {done.err.strip()}")
        return done.out

    def _end(self) -> Done:
        child, self._child = self._child, None
        assert child is not None
        try:
            return child.finish()
        finally:
            os.close(self._told)
            os.close(self._tell)


def _is_over(stop: int, seconds: float) -> bool:
    return bool(select.select([stop], [], [], seconds)[0])


def _edit(space: Workspace, files: list[str], random: Random, stop: int) -> None:
    """Count up the field `foreign` of each file, the way `flock LOCK jq … && mv` does; prints how often in each."""
    counts = dict.fromkeys(files, 0)
    while True:
        name = random.choice(files)
        count_up(space.path(name), random.choice((None, 1, 2, 4)))
        counts[name] += 1
        if _is_over(stop, random.random() * 0.004):
            os.write(1, json.dumps(counts).encode())
            return


def count_up(path: Path, indent: int | None) -> None:
    """One correct foreign edit: under the data lock, a private file, one rename; laid out anew."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        body = json.loads(path.read_bytes())
        body["foreign"] = body.get("foreign", 0) + 1
        temporary = path.with_name(f"{path.name}.{os.getpid()}.foreign")
        temporary.write_text(json.dumps(body, indent=indent), encoding="utf-8")
        temporary.replace(path)
    finally:
        os.close(lock)


def _read(space: Workspace, files: list[str], stop: int) -> None:
    """Read the files over and over, without a lock; each time each is whole, and no older than the last time."""
    seen: dict[str, tuple[int, set[str], set[str]]] = {name: (0, set(), set()) for name in files}
    reads = 0
    while not _is_over(stop, 0.0005):
        for name in files:
            seen[name] = _require_newer(name, space.path(name), seen[name])
        for path in space.root.glob("postbox/*/completed/*.json"):
            said = json.loads(path.read_bytes())
            demand(said["status"] == "completed" and path.name.startswith(said["task_id"]), f"{path.name}: {said}")
        reads += len(files)
    os.write(1, str(reads).encode())


def _require_newer(name: str, path: Path, last: tuple[int, set[str], set[str]]) -> tuple[int, set[str], set[str]]:
    """What a file says: its foreign counter, its tasks, the completed ones; none of these ever goes back."""
    data = path.read_bytes()
    try:
        body = json.loads(data)
        tasks = _entries(body)
    except (ValueError, KeyError, TypeError) as error:
        raise Violation(f"{name} was read torn ({error}): {data[:2000]!r}") from None
    done = {task for task, entry in tasks.items() if entry["status"] == "completed"}
    if name == PROGRESS:
        counted = (body["total_tasks"], body["completed"], body["pending"])
        demand(
            counted == (len(tasks), len(done), len(tasks) - len(done)),
            f"{name} is mixed: it counts {counted} of {len(tasks)} tasks, {len(done)} of them completed",
        )
    for task in done:
        demand("completed_at" in tasks[task], f"{name} is mixed: {tasks[task]}")
    now = (body.get("foreign", 0), set(tasks), done)
    demand(now[0] >= last[0] and now[1] >= last[1] and now[2] >= last[2], f"{name} went back: {last}, then {now}")
    return now


def _entries(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tasks of an outbox, or of either form of progress.json; Violation if one stands there twice."""
    tasks = body["tasks"]
    if isinstance(tasks, dict):
        return tasks
    found = {task.get("task_id") or task["id"]: task for task in tasks}
    demand(len(found) == len(tasks), f"a task stands twice in {[task.get('task_id') or task['id'] for task in tasks]}")
    return found


# --- what has to be so in the end


def _require_once(
    space: Workspace, original: dict[str, bytes], work: list[Command], edits: dict[str, int], killed: set[str]
) -> None:
    """Each task done once in each file, the counters exact, and what belongs to nobody as it was.

    `killed` are the tasks of commands that were: between such a one and the next a foreign edit may have come, and
    then its backup is the only copy of what it had met.  It is kept for people, as `.backup_TASK.N`.
    """
    completed = {command[2]: command for command in work if command[0] == "complete"}
    assigned = {command[2]: command for command in work if command[0] == "assign"}
    records = {f"postbox/{c[1]}/completed/{task}_completion.json" for task, c in completed.items()}
    briefs = {f"postbox/{c[1]}/inbox/{task}.md" for task, c in assigned.items()}
    found = space.data()
    for name in [name for name in found if ".backup_" in name]:
        backup = re.fullmatch(r"postbox/([A-Z]+)/outbox\.json\.backup_([A-Z]+-\d+)\.\d+", name)
        demand(backup is not None and backup[2] in killed, f"stray file {name}")
        assert backup is not None
        entry = _entries(json.loads(found.pop(name))).get(backup[2])
        demand(entry is None or entry["status"] == "pending", f"{name} is no copy from before: {entry}")
    strays = found.keys() ^ (original.keys() | records | briefs)
    demand(not strays, f"files that should be there and are not, or the other way round: {sorted(strays)}")
    demand(
        space.changes() == sorted(map(_key, work)),
        f"the change log says {space.changes()} instead of each of {sorted(map(_key, work))} once",
    )
    messages = {}
    for name in original:
        if name == PROGRESS or name.endswith("/outbox.json"):
            agent = None if name == PROGRESS else name.split("/")[1]
            new = {task for task, c in assigned.items() if agent in (None, c[1])}
            entries = _require_file(name, original[name], found[name], set(completed), new, edits.get(name, 0))
            messages.update({task: entry.get("completion_message") for task, entry in entries.items() if agent})
        else:
            demand(found[name] == original[name], f"{name}, which nobody wrote, differs")
    for name in records:
        record = json.loads(found[name])
        task = record["task_id"]
        said = (record["status"], record["agent_id"], record["completion_message"])
        demand(said == ("completed", completed[task][1], messages[task]), f"{name} says {said}, the outbox otherwise")


def _require_file(
    name: str, original: bytes, found: bytes, completed: set[str], new: set[str], edits: int
) -> dict[str, dict[str, Any]]:
    """An outbox or progress.json; its tasks."""
    was, body = json.loads(original), json.loads(found)
    before, tasks = _entries(was), _entries(body)
    demand(
        body.get("foreign", 0) == edits,
        f"{name}: of {edits} foreign edits {body.get('foreign', 0)} are there",
    )
    demand(tasks.keys() == before.keys() | new, f"{name}: tasks that came or went: {tasks.keys() ^ before.keys()}")
    for task, entry in tasks.items():
        wanted = "completed" if task in completed else "pending"
        demand(entry["status"] == wanted, f"{name}: {task} is {entry['status']}, not {wanted}")
        if task in before:
            own = {"status", "completed_at", "completion_message"} if task in completed else set()
            old = {key: value for key, value in before[task].items() if key not in own}
            now = {key: value for key, value in entry.items() if key not in own}
            demand(old == now, f"{name}: {task} says {now}, and said {old}")
    counters = {"foreign", "tasks"}
    if name == PROGRESS:
        counters |= {"total_tasks", "completed", "pending", "last_updated"}
        done = len(completed)
        said = (body["total_tasks"], body["completed"], body["pending"])
        demand(said == (len(tasks), done, len(tasks) - done), f"{name} counts {said}, {done} of {len(tasks)} are done")
    old = {key: value for key, value in was.items() if key not in counters}
    now = {key: value for key, value in body.items() if key not in counters}
    demand(old == now, f"{name} says {now}, and said {old}")
    return tasks
