"""Locks and other people: holders that are frozen or robbed, odd lock files, foreign writers, hostile input.

Each trial meets its other processes at barriers: a command waits at a named step (`Halted`) while the rest happens.
"""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from recovery import layout
from recovery.durable import stage_name
from recovery.flock import note_text
from recovery.torture.invariants import State, differences, plain, require, require_no_op, require_state, require_tidy
from recovery.torture.operations import KILLED, RECOVER, Bench, Benches
from recovery.torture.scratch import (
    FORMS,
    PYTHON,
    Command,
    Done,
    Forked,
    Unable,
    Violation,
    Workspace,
    demand,
    finish,
    in_child,
    outbox,
)

OUTBOX = "postbox/CC/outbox.json"
PROGRESS = ".sprint/progress.json"
RECORD = "postbox/CC/completed/CC-1_completion.json"
OUTBOX_LOCK = "postbox/CC/.outbox.json.lock"
PROGRESS_LOCK = ".sprint/.progress.json.lock"
COMMIT_LOCK = "data/.commit.lock"

CB: Command = ("complete", "CB", "CB-1", "of CB")

#: Seconds that a busy command may wait for a lock, and how much longer it may take on a loaded machine.
LIMIT, SLACK = 0.2, 8.0
#: Seconds after which a command that was to meet somebody hangs.
PATIENCE = 40.0
_BUSY = {"RECOVERY_LOCK_TIMEOUT": str(LIMIT), "RECOVERY_MAX_ATTEMPTS": "1"}

Trial = Callable[[Benches, Random], None]


# --- who is met where


class Halted:
    """A command that waits at one of its steps until `go`.  Made by `halted`, which also ends it."""

    def __init__(self, process: Forked | subprocess.Popen[str], gate: Path, what: str) -> None:
        self.process, self.gate, self.what = process, gate, what
        self._pidfd = os.pidfd_open(process.pid)
        self._over = False

    @property
    def pid(self) -> int:
        return self.process.pid

    def reached(self) -> None:
        """Wait until it is at its step; Violation if it ends before, or hangs."""
        arrived = Path(f"{self.gate}.reached")
        end = time.monotonic() + PATIENCE
        while not arrived.exists():
            if select.select([self._pidfd], [], [], 0.0005)[0] and not arrived.exists():
                raise Violation(f"{self.what} ended before it got there: {self.finish()}")
            demand(time.monotonic() < end, f"{self.what} does not get there")

    def freeze(self) -> None:
        """SIGSTOP to its group; returns once it is stopped."""
        os.killpg(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def go(self) -> None:
        self.gate.touch()

    def finish(self) -> Done:
        """Let it go and wait for its end."""
        self.go()
        self._over = True
        os.close(self._pidfd)
        return self.process.finish() if isinstance(self.process, Forked) else finish(self.process)

    def end(self) -> None:
        """Whatever it does: nothing of it is left."""
        if not self._over:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(Violation):
                self.finish()
        self.gate.unlink(missing_ok=True)
        Path(f"{self.gate}.reached").unlink(missing_ok=True)


@contextmanager
def halted(space: Workspace, command: Command, step: str, inside: bool = False, **more: str) -> Iterator[Halted]:
    """Start a command and wait until it is at `step`; with `inside` its script, in namespaces of its own."""
    gate = space.root.with_name(f"{space.root.name}.at-{step.replace(':', '-')}")
    fault = f"{step}=wait=../{gate.name}"  # relative to the root, which both stand in: it may be called anything
    process: Forked | subprocess.Popen[str]
    if inside:
        process = space.start(command, fault, _namespaces(space), **more)
    else:
        process = space.begin(command, fault, **more)
    one = Halted(process, gate, f"`{' '.join(command[:3])}`, to be met at {step},")
    try:
        one.reached()
        yield one
    finally:
        one.end()


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Another process, which is no ancestor of our commands, holds a lock file as flock(1) does; its pid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told, tell = os.pipe()
    leave, let_go = os.pipe()

    def hold() -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(tell, b"held")
        os.read(leave, 1)

    holder = Forked(hold, f"a holder of {path.name}")
    try:
        demand(select.select([told], [], [], PATIENCE)[0], f"{path.name} of a fresh workspace can't be locked")
        yield holder.pid
    finally:
        os.write(let_go, b"x")
        try:
            holder.finish()
        finally:
            for fd in (told, tell, leave, let_go):
                os.close(fd)


def write_whole(path: Path, data: bytes) -> None:
    """Another program's write: a private file, one rename; without a lock."""
    temporary = path.with_name(f"{path.name}.foreign")
    temporary.write_bytes(data)
    temporary.replace(path)


# --- what is common to the trials


def _completions(benches: Benches, *forms: str) -> list[Bench]:
    """The benches of the completion, over these forms of progress.json (default: all)."""
    found = [op for op in benches.operations if op.command[0] == "complete" and not op.prepare]
    return [benches.of(op) for op in found if op.form in (forms or FORMS)]


def _other(bench: Bench) -> Command:
    assert bench.operation.other is not None
    return bench.operation.other


def _holding(bench: Bench, last: str = "unlock:1") -> list[str]:
    """The steps at which a command holds all of its data locks, up to (and without) `last`."""
    steps = bench.steps()
    return steps[steps.index("stage:1") : steps.index(last)]


def _locks(space: Workspace) -> list[str]:
    """The locks beside the data that a completion takes."""
    return [OUTBOX_LOCK, *([PROGRESS_LOCK] if space.path(PROGRESS).exists() else []), COMMIT_LOCK]


def require_untouched(space: Workspace, before: State, why: str, allow: Iterable[str] = ()) -> None:
    """People's files are byte for byte what they were, and nothing more was recorded as done."""
    after = State.of(space)
    data = {name: text for name, text in after.data.items() if not any(part in name for part in allow)}
    expected = {name: text for name, text in before.data.items() if not any(part in name for part in allow)}
    words = differences(data, expected)
    demand(data == expected, f"{why} changed something: {'; '.join(words) or 'times'}")
    demand(after.changes == before.changes, f"{why} recorded a change: {after.changes}")


def require_busy(space: Workspace, command: Command, **more: str) -> Done:
    """The command ends with 75 when its time is up, says which lock it was, and leaves every file as it was."""
    before = State.of(space)
    began = time.monotonic()
    done = require(space.fork(command, **{**_BUSY, **more}), 75)
    took = time.monotonic() - began
    demand("Failed to acquire lock on" in done.err, f"which lock it was is not said: {done}")
    demand(LIMIT <= took < LIMIT + SLACK, f"a wait limited to {LIMIT} s took {took:.2f} s")
    require_untouched(space, before, "a command that said that it was busy")
    return done


def require_both(space: Workspace, bench: Bench, *commands: Command, allow: tuple[str, ...] = ()) -> None:
    """All of these are repeated: each was, or is now, done once; then they are no-ops."""
    for command in commands:
        require(space.fork(command), 0)
    require_state(space, bench.after(*commands), allow, bench.allowed)
    for command in commands:
        require_no_op(space, command, fork=True)


# --- holders


def frozen_holder(benches: Benches, random: Random) -> None:
    """A holder is stopped, its locks and notes dated years back: the other one is told who it is, and robs nobody.

    Takes up to half a second: twice the time that the other one is given.
    """
    bench = benches.of(random.choice([op for op in benches.operations if op.is_command]))
    op, other = bench.operation, _other(bench)
    step = random.choice(_holding(bench))
    folder = random.choice(("", "elsewhere"))
    benches.doing = f"{op.name} stopped at {step}, its locks dated back; then {other[0]} {folder}"
    with bench.fresh() as space:
        with halted(space, op.command, step) as holder:
            holder.freeze()
            for path in [*space.root.rglob(".*.lock"), *space.locks.rglob("*.lock")]:
                os.utime(path, (1e9, 1e9))
            done = require_busy(space, other, ORCHESTRATION_LOCK_DIR=str(space.locks / folder))
            demand(f"pid {holder.pid}" in done.err, f"the holder, pid {holder.pid}, is not named: {done}")
            holder.thaw()
            require(holder.finish(), 0)
        require_state(space, bench.new, (), bench.allowed)
        require(space.fork(other), 0)
        require_state(space, bench.after(op.command, other), (), bench.allowed)


def unlinked_lock(benches: Benches, random: Random) -> None:
    """A held lock file is removed, another one walks in and commits: the holder notices before it changes anything."""
    gone = random.choice(([OUTBOX_LOCK], [PROGRESS_LOCK], [COMMIT_LOCK], [OUTBOX_LOCK, PROGRESS_LOCK, COMMIT_LOCK]))
    # Where one lock alone is gone, the other command is one that only this lock would have kept out.
    forms = {OUTBOX_LOCK: ["absent"], PROGRESS_LOCK: ["object", "list"], COMMIT_LOCK: ["absent"]}
    bench = random.choice(_completions(benches, *(forms[gone[0]] if len(gone) == 1 else FORMS)))
    op = bench.operation
    other = CB if gone in ([PROGRESS_LOCK], [COMMIT_LOCK]) else _other(bench)
    steps = [*_holding(bench, "recheck:1"), "recheck:1"]  # the last two behind the commit lock
    step = "recheck:1" if gone == [COMMIT_LOCK] else random.choice(steps if COMMIT_LOCK in gone else steps[:-2])
    tries = random.choice(("1", "3"))
    benches.doing = f"{op.name} at {step}, {', '.join(gone)} removed; {other[1]}/{other[2]} walks in ({tries} tries)"
    kept = (".backup_CC-1",)  # of the try that failed: for people
    with bench.fresh() as space:
        with halted(space, op.command, step, RECOVERY_MAX_ATTEMPTS=tries) as holder:
            for name in gone:
                space.path(name).unlink(missing_ok=True)
            require(space.fork(other, ORCHESTRATION_LOCK_DIR=str(space.locks / "elsewhere")), 0)
            done = require(holder.finish(), *((75,) if tries == "1" else (0, 75)))
        if done.code == 75:
            demand("removed while it was held" in done.err, f"why it was busy is not said: {done}")
            require_state(space, bench.after(other), kept, bench.allowed)
        require_both(space, bench, other, op.command, allow=kept)


def unlinked_while_waiting(benches: Benches, random: Random) -> None:
    """The lock file that somebody waits for is removed: he waits for the holder of the new one, whoever lets go.

    Takes half a second: as long as he waits.
    """
    name = random.choice(("shared.json", OUTBOX))
    benches.doing = f"the lock of {name} removed while one waits for it"
    with benches.named("complete-absent-absent").fresh() as space:
        lock = space.path(name).with_name(f".{space.path(name).name}.lock")
        with ExitStack() as first, ExitStack() as second:
            first.enter_context(held(lock))
            waiter = second.enter_context(halted(space, ("hold", name, "0.5"), "wait:1"))
            lock.unlink()
            second.enter_context(held(lock))
            first.close()
            require(waiter.finish(), 75)
        require(space.fork(("hold", name, "0.5")), 0)
        require_tidy(space)


def programs_and_shell(benches: Benches, random: Random) -> None:
    """What flock(1) holds a Python program doesn't get, nor the other way round, even if a child of it lets go.

    Takes half a second: a file of the workspace, and one of no workspace, are waited for.
    """
    with benches.named("complete-absent-absent").fresh() as space, ExitStack() as stack:
        elsewhere = space.root.with_name(space.root.name + ".plain")
        elsewhere.mkdir()
        stack.callback(shutil.rmtree, elsewhere)
        for name in (OUTBOX, f"../{elsewhere.name}/x.json"):
            lock = space.path(name).with_name(f".{space.path(name).name}.lock")
            benches.doing = f"a program wants {name}, which flock(1) holds"
            with held(lock):
                require(space.fork(("hold", name, str(LIMIT))), 75)
            benches.doing = f"flock(1) wants {name}, which a program holds"
            with _program(space, name) as said:
                demand(said == "held", f"a program that wants {name} said {said!r}")
                demand(not _can_be_taken(lock), f"two hold the lock of {name}")
            demand(_can_be_taken(lock), f"nobody holds the lock of {name}, and it can't be taken")
        require_tidy(space)


#: Run with where our modules are, and the file: holds its lock until stdin ends; a child of it lets go, of nothing.
_PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
from file_lock import FileLock
with FileLock(sys.argv[2], timeout=10) as lock:
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _program(space: Workspace, name: str) -> Iterator[str]:
    """A whole Python program that holds the lock of a file while the block lasts; yields what it says."""
    ours = str(Path(layout.__file__).parents[1])
    with subprocess.Popen(
        [PYTHON, "-I", "-c", _PROGRAM, ours, name],
        cwd=space.root,
        env=space.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as program:
        try:
            assert program.stdout is not None
            yield program.stdout.readline().strip()
            done = finish(program)
        finally:
            program.kill()
    require(done, 0)


def _can_be_taken(lock: Path) -> bool:
    fd = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def linked_lock(benches: Benches, random: Random) -> None:
    """A lock file is a link, to somebody's file or to nothing: not used as a lock, and what it names is left alone."""
    bench = random.choice(_completions(benches))
    command = bench.operation.command
    with bench.fresh() as space, ExitStack() as stack:
        courtesy = space.locks / "agents/CC.lock"
        lock = random.choice([*map(space.path, _locks(space)), courtesy])
        outside = space.root.with_name(space.root.name + ".victim")
        stack.callback(outside.unlink, missing_ok=True)
        victim = random.choice((outside, space.path("postbox/CA/outbox.json"), space.path("shared.json")))
        dangling = victim == outside and random.random() < 0.4
        where = "to nothing" if dangling else "outside" if victim == outside else "inside"
        benches.doing = f"{bench.operation.name}, {lock.name} a link {where}"
        if victim == outside and not dangling:
            outside.write_text("not to be touched\n")
        before, stood = State.of(space), _look(victim)
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.unlink(missing_ok=True)
        lock.symlink_to(victim if random.random() < 0.5 else os.path.relpath(victim, lock.parent))
        done = require(space.fork(command, RECOVERY_MAX_ATTEMPTS="1"), 0 if lock == courtesy else 69)
        demand("not used as a lock" in done.err, f"why it was refused is not said: {done}")
        demand(lock.is_symlink(), f"{lock.name}, a link, was replaced")
        lock.unlink()
        demand(_look(victim) == stood, f"the file that the link {lock.name} names was touched")
        if lock != courtesy:
            require_untouched(space, before, "a command refused for its lock", (".backup_CC-1",))
            require(space.fork(command), 0)
        require_state(space, bench.new, (), bench.allowed)
        bench.require_no_op(space)


def _look(path: Path) -> tuple[object, ...] | None:
    """All that a write, or a lock file taken for one's own, would change of a file."""
    try:
        st = path.stat()
    except FileNotFoundError:
        return None
    return path.read_bytes(), st.st_mtime_ns, st.st_ino, st.st_mode, st.st_uid, st.st_gid


def endless_holder(benches: Benches, random: Random) -> None:
    """Somebody holds a lock and never lets go: 75 in time, the lock named, nothing changed; afterwards all is well."""
    bench = random.choice(_completions(benches))
    command = bench.operation.command
    with bench.fresh() as space:
        lock = random.choice([*map(space.path, _locks(space)), space.locks / "agents/CC.lock"])
        by = random.choice(("timeout", "deadline"))
        limits = {"RECOVERY_LOCK_TIMEOUT": "10", "RECOVERY_DEADLINE": str(LIMIT), "RECOVERY_MAX_ATTEMPTS": "3"}
        benches.doing = f"{bench.operation.name}, {lock.name} held for ever, limited by the {by}"
        with held(lock):
            before = State.of(space)
            began = time.monotonic()
            done = require(space.fork(command, **(_BUSY if by == "timeout" else limits)), 75)
            took = time.monotonic() - began
        shown = lock.relative_to(space.root) if lock.is_relative_to(space.root) else lock
        demand(f"Failed to acquire lock on {shown}" in done.err, f"the lock {shown} is not named: {done}")
        demand(took < LIMIT + SLACK, f"a wait limited to {LIMIT} s took {took:.2f} s")
        require_untouched(space, before, "a command that said that it was busy", (".backup_CC-1",))
        require(space.fork(command), 0)
        require_state(space, bench.new, (), bench.allowed)


def held_by_the_parent(benches: Benches, random: Random) -> None:
    """Who holds a data lock and runs a command in it is told so at once, instead of waiting for himself."""
    bench = random.choice(_completions(benches))
    benches.doing = f"{bench.operation.name}, run by who holds its lock"
    with bench.fresh() as space:

        def work() -> None:
            fd = os.open(space.path(OUTBOX_LOCK), os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX)
            before = State.of(space)
            done = require(space.fork(bench.operation.command, **_BUSY), 75)
            demand(f"is held by pid {os.getpid()}" in done.err, f"it waited for its own parent: {done}")
            require_untouched(space, before, "a command whose parent has its lock")

        in_child(work, benches.doing)
        require(space.fork(bench.operation.command), 0)
        require_state(space, bench.new, (), bench.allowed)


def lock_folders(benches: Benches, random: Random) -> None:
    """Two with different folders of documented locks, or one that can't be used: the locks beside the data exclude."""
    bench = random.choice(_completions(benches))
    op, other = bench.operation, _other(bench)
    step = random.choice(_holding(bench))
    unusable, waits = random.random() < 0.5, random.random() < 0.5
    benches.doing = f"{op.name} at {step}; {other[2]} with {'no usable' if unusable else 'another'} lock folder"
    with bench.fresh() as space:
        folder = space.locks / "elsewhere"
        if unusable:
            space.locks.mkdir()
            folder.write_text("a file where the folder should be\n")
        with halted(space, op.command, step) as holder:
            if waits:
                with halted(space, other, "wait:1", ORCHESTRATION_LOCK_DIR=str(folder)) as waiter:
                    waiter.go()
                    require(holder.finish(), 0)
                    done = require(waiter.finish(), 0)
            else:
                done = require_busy(space, other, ORCHESTRATION_LOCK_DIR=str(folder))
                demand(f"lock on {OUTBOX_LOCK}" in done.err, f"it did not wait for {OUTBOX_LOCK}: {done}")
                require(holder.finish(), 0)
        warned = "can't be used" in done.err
        demand(warned == unusable, f"the lock folder is {'not ' * unusable}usable, and this is said: {done}")
        require_both(space, bench, op.command, other)


# --- namespaces


def namespaces(benches: Benches, random: Random) -> None:
    """One in a container with a private /tmp, one outside: the data locks hold between them, no note is called dead.

    Takes about half a second: whole scripts.
    """
    bench = random.choice(_completions(benches))
    op, other = bench.operation, _other(bench)
    step = random.choice(_holding(bench))
    holder_inside = random.random() < 0.5
    benches.doing = f"{op.name} stopped at {step} {'inside' if holder_inside else 'outside'} a container"
    with bench.fresh() as space:
        _require_namespaces(space)
        with halted(space, op.command, step, inside=holder_inside) as holder:
            holder.freeze()
            before, note = State.of(space), space.path(OUTBOX_LOCK).read_bytes()
            if holder_inside:
                done = require(space.fork(other, **_BUSY), 75)
            else:
                done = require(space.run(other, "", _namespaces(space), **_BUSY), 75)
                demand("in another container" in done.err, f"of a holder in another container it said: {done}")
            demand(f"lock on {OUTBOX_LOCK}" in done.err, f"{OUTBOX_LOCK} is not named: {done}")
            require_untouched(space, before, "a command that said that it was busy")
            demand(space.path(OUTBOX_LOCK).read_bytes() == note, "the note of a living holder was changed")
            holder.thaw()
            require(holder.finish(), 0)
        require_both(space, bench, op.command, other)


#: Run with the lock folder, the root, and a command.
_INSIDE = 'mount -t tmpfs none "$1" && cd "$2" && shift 2 && exec "$@"'


def _namespaces(space: Workspace) -> list[str]:
    """What is put in front of a command so that it runs with mounts, processes and a lock folder of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = ["unshare", *user, "--mount", "--pid", "--fork", "--mount-proc", "--", "sh", "-c", _INSIDE, "-"]
    return [*words, str(space.locks), str(space.root)]


def _require_namespaces(space: Workspace) -> None:
    _require_scripts(space)
    space.locks.mkdir(exist_ok=True)
    try:
        tried = subprocess.run(
            [*_namespaces(space), "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
    except OSError as error:
        raise Unable(f"no other mount and pid namespaces: unshare(1): {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Unable("no other mount and pid namespaces: unshare(1) does not end") from None
    if tried.returncode:
        raise Unable(f"no other mount and pid namespaces: {tried.stderr.strip() or f'exit {tried.returncode}'}")


def _require_scripts(space: Workspace) -> None:
    if not os.access(space.words(("complete",))[0], os.X_OK):
        raise Unable("the scripts do not stand beside the package")


# --- foreign writers, and people


def unlocked_writer(benches: Benches, random: Random) -> None:
    """A writer who ignores every lock, before our replace: both changes stay; behind it: no success without ours."""
    bench = random.choice(_completions(benches))
    steps = bench.steps()
    if random.random() < 0.5:
        _changed_before_the_replace(benches, random, bench)
        return
    count = sum(step.startswith("replaced:") for step in steps)
    number = random.randrange(1, count + 1)
    step = random.choice(steps[steps.index(f"replaced:{number}") : steps.index(f"verify:{number}") + 1])
    name = (OUTBOX, PROGRESS, RECORD)[number - 1] if count == 3 else (OUTBOX, RECORD)[number - 1]
    benches.doing = f"{bench.operation.name} at {step}, the old {name} put back without a lock"
    with bench.fresh() as space:
        old = bench.old.data.get(name)
        with halted(space, bench.operation.command, step) as owner:
            if old is None:
                space.path(name).unlink()
            else:
                write_whole(space.path(name), old)
            done = require(owner.finish(), 0, 1, 65, 71, 74, 75)
        if done.code == 0:
            require_state(space, bench.new, (), bench.allowed)
        require(space.fork(bench.operation.command), 0)
        require_state(space, bench.new, (".backup_CC-1",) if done.code else (), bench.allowed)
        bench.require_no_op(space)


def _changed_before_the_replace(benches: Benches, random: Random, bench: Bench) -> None:
    command = bench.operation.command
    steps = bench.steps()
    step = random.choice(steps[steps.index("stage:1") : steps.index("replace:1")])
    benches.doing = f"{bench.operation.name} at {step}, its files changed without a lock"
    with bench.fresh() as space:
        names = [name for name in (OUTBOX, PROGRESS) if space.path(name).exists()]
        with halted(space, command, step) as owner:
            for name in names:
                body = {**space.json(name), "foreign": 1}
                write_whole(space.path(name), json.dumps(body, indent=random.choice((None, 1, 2))).encode())
            require(owner.finish(), 0)
        found = space.data()
        for name in names:
            body = json.loads(found[name])
            demand(body.pop("foreign", None) == 1, f"the other writer's change of {name} is lost")
            found[name] = json.dumps(body).encode()
        expected = {n: json.dumps(json.loads(d)).encode() if n in names else d for n, d in bench.new.data.items()}
        words = differences(found, expected)
        demand(not words, "; ".join(words))
        demand(space.changes() == bench.new.changes, f"the change log says {space.changes()}")
        require_tidy(space, bench.allowed)
        bench.require_no_op(space)


def unlocked_writer_of_one_file(benches: Benches, random: Random) -> None:
    """A writer who ignores the lock of a file that changes alone: his change is kept, and ours comes on top, or not."""
    commands: tuple[Command, ...] = (("transact", "ours"), ("count", "shared.json"))
    for command in commands:
        step = random.choice(("stage:1", "stage-synced:1"))
        benches.doing = f"{command[0]} at {step}, its file changed without a lock"
        with benches.named("file_transaction-object").fresh() as space:
            path = space.path("shared.json")
            with halted(space, command, step) as owner:
                write_whole(path, b'{"value": "theirs"}')
                done = require(owner.finish(), 65 if command[0] == "transact" else 0)
            theirs = {"value": "theirs", **({} if done.code else {"count": 1})}
            demand(json.loads(path.read_bytes()) == theirs, f"{path.read_bytes()!r} is not {theirs}: {done}")
            require(space.fork(command), 0)
            found = json.loads(path.read_bytes())
            demand(found == ({"value": "ours"} if done.code else {**theirs, "count": 2}), f"once more: {found}")
            require_tidy(space)


def restored_by_a_person(benches: Benches, random: Random) -> None:
    """After a crash a person copies the backup back: nobody silently does again what the person took back."""
    bench = random.choice(_completions(benches))
    command = bench.operation.command
    steps = bench.steps()
    step = random.choice(steps[steps.index("journal-synced:1") : steps.index("append:1")])
    following = random.choice((command, _other(bench), CB, RECOVER))
    benches.doing = f"{bench.operation.name} killed at {step}, the backup copied back; then {following[:3]}"
    backup = (".backup_CC-1",)
    ours = bench.allowed + r"|data/conflicts/CC@CC-1@[^/]*\.json"
    with bench.fresh() as space:
        require(space.fork(command, f"{step}=kill-group"), KILLED)
        if random.random() < 0.5:
            shutil.copyfile(space.path(OUTBOX + ".backup_CC-1"), space.path(OUTBOX))
        else:
            write_whole(space.path(OUTBOX), space.path(OUTBOX + ".backup_CC-1").read_bytes())
        done = require(space.fork(following), 65 if following == command else 0)
        if following == command:
            demand("put back by somebody" in done.err, f"it did not ask: {done}")
        others = [following] if following in (_other(bench), CB) else []
        expected = bench.after(*others) if others else bench.old
        require_state(space, expected, backup, ours)
        require(space.fork(command), 0)
        require_state(space, bench.after(*others, command), backup, ours)
        bench.require_no_op(space)


def forged_note(benches: Benches, random: Random) -> None:
    """A dead holder's note, of what is to be tidied after it, names a file outside of the workspace: it stays."""
    bench = random.choice(_completions(benches))
    benches.doing = f"{bench.operation.name} after a note that names a file outside"
    nonce = f"{random.getrandbits(48):012x}"
    with bench.fresh() as space:
        outside = space.root.with_name(stage_name(space.root.name, nonce))
        outside.write_text("somebody's\n")
        try:
            space.path(OUTBOX_LOCK).write_bytes(note_text("complete CC/CC-4", nonce, [f"../{space.root.name}"]))
            require(space.fork(bench.operation.command), 0)
            demand(outside.exists(), "a forged note had a file outside of the workspace removed")
        finally:
            outside.unlink(missing_ok=True)
        require_state(space, bench.new, (), bench.allowed)


# --- what is typed


#: What a shell, or a writer of JSON by hand, could take for something else.
HOSTILE = (
    "$(touch PWNED)",
    "`touch PWNED`",
    "'; touch PWNED; '",
    '"; touch PWNED; "',
    '", "status": "failed", "x": "',
    "EOF\ntouch PWNED\n",
    '"""\n__import__("os").mknod("PWNED")\n"""',
    "${x:-$(touch PWNED)} $((1+1)) %s %n \\n \\ \\u0000 \\",
    "line one\nline two\r\n\ttab",
    "größer, 更大, \u202e, \U0001f600, &<>|*?[a]{b}!",
)
#: The kernel takes 128 KiB an argument at most (execve(2)): this is kept, a megabyte is refused before we are asked.
LONG = "$(touch PWNED) " * 8000
TOO_LONG = "x" * (1 << 20)

BAD_IDS = ("../x", "a/b", "", ".hidden", "x" * 200, "..", "a..b", "-x", "a b", "CC-1\n", "$(touch PWNED)", "é")


def hostile_input(benches: Benches, random: Random) -> None:
    """The scripts are given what a shell could run: it is kept literally, never run; bad ids are 64 at once.

    Takes about half a second: whole scripts.
    """
    bench = random.choice(_completions(benches))
    message = random.choice((*HOSTILE, "".join(random.sample(HOSTILE, 3)), LONG, TOO_LONG))
    verb = random.choice(("complete", "assign"))
    task = "CC-1" if verb == "complete" else "CC-9"
    rest = (message,) if verb == "complete" else (message, "LOW")
    benches.doing = f"the script of {verb} with {message[:60]!r} ({len(message)})"
    with bench.fresh() as space:
        _require_scripts(space)
        before = State.of(space)
        for bad in _bad_commands(random):
            benches.doing = f"the script of {bad[0]} with {bad[1][:20]!r} {bad[2][:20]!r}"
            done = require(_typed(space, bad), 64)
            demand(done.err, f"why {bad} was refused is not said")
            require_untouched(space, before, f"{bad[0]} {bad[1][:20]!r} {bad[2][:20]!r}, refused,")
        benches.doing = f"the script of {verb} with {message[:60]!r} ({len(message)})"
        try:
            done = require(_typed(space, (verb, "CC", task, *rest)), 0)
        except OSError as error:  # E2BIG: the kernel's refusal
            demand(len(message.encode()) > 100_000, f"{verb} can't be started: {error}")
            require_untouched(space, before, "a command that could not be started")
        else:
            kept = space.task("CC", task)["completion_message" if verb == "complete" else "title"]
            demand(kept == message, f"{message[:200]!r} became {kept[:200]!r}")
            if verb == "complete":
                demand(space.json(RECORD)["completion_message"] == message, "the completion record says otherwise")
            demand(space.changes() == [(verb, "CC", task)], f"the change log says {space.changes()}")
            require_tidy(space, bench.allowed)
        _require_not_run(benches.folder)


_MINE = "a key twice in each task"  # which concerns only who changes that task
#: What happens to files that people and other programs write; only one of these is JSON to json(1) and its like.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeros": lambda data: b"\0" * len(data),
    "two documents": lambda data: data + data,
    "a key twice": lambda data: data.replace(b'"agent_id"', b'"agent_id": "CA", "agent_id"'),
    _MINE: lambda data: data.replace(b'"status": "pending"', b'"status": "pending", "status": "failed"'),
    "a task twice": lambda data: data.replace(b'"CC-2"', b'"CC-1"'),
    "NaN": lambda data: data.replace(b"2.50", b"NaN"),
    "a trailing comma": lambda data: data.rstrip()[:-1] + b",}",
    "no list": lambda data: data.replace(b'"tasks": [', b'"tasks_": ['),
    "UTF-16": lambda data: data.decode().encode("utf-16"),
}


def damaged_outbox(benches: Benches, random: Random) -> None:
    """An outbox that isn't what it should be is refused with 65, not guessed at, and every byte stays.

    Takes a fifth of a second: all of DAMAGES.
    """
    bench = random.choice(_completions(benches))
    commands: list[Command] = [bench.operation.command, ("assign", "CC", "CC-9", "New", "LOW")]
    with bench.fresh() as space:
        path = space.path(OUTBOX)
        whole = path.read_bytes()
        for how, damage in DAMAGES.items():
            benches.doing = f"{bench.operation.name} of an outbox with {how}"
            path.write_bytes(damage(whole))
            before = State.of(space)
            for command in commands[: 1 if how == _MINE else 2]:
                done = require(space.fork(command, RECOVERY_MAX_ATTEMPTS="1"), 65)
                demand(OUTBOX in done.err, f"which file is damaged is not said: {done}")
                require_untouched(space, before, f"{command[0]}, refused for {how},")
        require(space.fork(CB), 0)


def _bad_commands(random: Random) -> list[Command]:
    """Two commands with an agent or a task that is no id."""
    found: list[Command] = []
    for bad in random.sample(BAD_IDS, 2):
        verb = random.choice(("complete", "assign", "rollback"))
        words = {"complete": ("m",), "assign": ("New", "LOW"), "rollback": ()}[verb]
        first = ("--",) if bad.startswith("-") else ()
        if random.random() < 0.5 or "/" in bad:  # a first word with a slash may be AGENT/TASK
            found.append((verb, *first, "CC", bad, *words))
        else:
            found.append((verb, *first, bad, "CC-1", *words))
    return found


def _typed(space: Workspace, command: Command) -> Done:
    """Run a script with the scratch workspace as its current folder: what it runs by mistake, it runs there."""
    return space.run(command, "", ("sh", "-c", 'cd "$1" && shift && exec "$@"', "-", str(space.root)))


def _require_not_run(folder: Path) -> None:
    for above, _, names in os.walk(folder):
        demand("PWNED" not in names, f"what was given as text was run: there is {above}/PWNED")


# --- nothing else


def _odd(text: str) -> str:
    """The fixture, with what a program that reads and writes JSON would lay out anew."""
    odd = '  "odd"  :  [1e3, -0.0, 1E+2 ,12345678901234567890,   0.10000000000000000000001, "\\u00e9\\ud83d\\ude00"],'
    first, _, rest = text.partition("\n")
    return f"{first}\n{odd}\n\n{rest}".rstrip("\n")


def nothing_else(benches: Benches, random: Random) -> None:
    """NEW itself, against the text that the workspace was made with: nothing but the task's own fields differs."""
    bench = random.choice(_completions(benches))
    verb = random.choice(("complete", "assign", "rollback"))
    benches.doing = f"{verb} on odd but valid JSON ({bench.operation.form}): what differs from the text it was given"
    with bench.fresh() as space:
        old = {name: data.decode() for name, data in space.data().items()}
        old[OUTBOX] = _odd(outbox("CC", 1, 2, 3, 4))
        if PROGRESS in old:
            old[PROGRESS] = _odd(old[PROGRESS])
        for name in (OUTBOX, PROGRESS):
            if name in old:
                space.path(name).write_text(old[name], encoding="utf-8")
        if verb == "assign":
            require(space.fork(("assign", "CC", "CC-9", 'New "work"', "HIGH", "2")), 0)
            _require_assigned(space, old)
        else:
            require(space.fork(("complete", "CC", "CC-1", 'did "it"')), 0)
            _require_completed(space, old)
        if verb == "rollback":
            require(space.fork(("rollback", "CC", "CC-1")), 0)
            now = {name: data.decode() for name, data in space.data().items()}
            words = [name for name in sorted(now.keys() | old.keys()) if now.get(name) != old.get(name)]
            demand(not words, f"a rollback did not bring back every byte of {', '.join(words)}")
        require_tidy(space, bench.allowed)


def _require_completed(space: Workspace, old: Mapping[str, str]) -> None:
    now = _now(space, old, {RECORD})
    _require_lines(
        OUTBOX,
        old[OUTBOX],
        now[OUTBOX],
        ['"status": "pending"'],
        ['"status": "completed"', '"completed_at": "TIME"', '"completion_message": "did \\"it\\""'],
    )
    _require_entries(OUTBOX, old, now, "task_id", {"status", "completed_at", "completion_message"})
    record = json.loads(now[RECORD])
    expected = {"task_id": "CC-1", "agent_id": "CC", "status": "completed", "completion_message": 'did "it"'}
    demand(expected.items() <= record.items(), f"the completion record says {record}")
    if PROGRESS in old:
        _require_lines(
            PROGRESS,
            old[PROGRESS],
            now[PROGRESS],
            ['"completed": 0', '"pending": 12', '"status": "pending"'],
            ['"completed": 1', '"pending": 11', '"status": "completed"', '"completed_at": "TIME"'],
        )
        _require_entries(PROGRESS, old, now, "id", {"status", "completed_at"})


def _require_assigned(space: Workspace, old: Mapping[str, str]) -> None:
    now = _now(space, old, {"postbox/CC/inbox/CC-9.md"})
    removed, added = _differing(old[OUTBOX], now[OUTBOX])
    demand(not removed, f"assign took lines out of the outbox: {removed}")
    tasks = json.loads(now[OUTBOX])["tasks"]
    new = {"task_id": "CC-9", "title": 'New "work"', "priority": "HIGH", "status": "pending", "estimated_hours": 2}
    demand(new.items() <= tasks[-1].items(), f"the new task says {tasks[-1]}")
    demand(len(added) == len(tasks[-1]) + 2, f"assign added more than a task to the outbox: {added}")
    demand(_tasks(old[OUTBOX]) == _tasks(now[OUTBOX])[:-1], "assign changed other tasks")
    if PROGRESS in old:
        removed, added = _differing(old[PROGRESS], now[PROGRESS])
        gone = Counter(['"total_tasks": 12', '"pending": 12'])
        demand(removed == gone, f"assign took lines out of progress.json: {removed}")
        counted = Counter(['"total_tasks": 13', '"pending": 13', '"title": "New \\"work\\""'])
        demand(counted <= added, f"assign added to progress.json: {added}")
        demand(_tasks(old[PROGRESS]) == _tasks(now[PROGRESS])[:-1], "assign changed other tasks of progress.json")


def _now(space: Workspace, old: Mapping[str, str], new: set[str]) -> dict[str, str]:
    """The workspace's files; Violation if others than the outbox, progress.json and the `new` ones differ."""
    now = {name: data.decode() for name, data in space.data().items()}
    demand(now.keys() == old.keys() | new, f"files that came or went: {sorted(now.keys() ^ (old.keys() | new))}")
    for name, text in old.items():
        demand(name in (OUTBOX, PROGRESS) or now[name] == text, f"{name}, which is no file of the task, differs")
    return now


def _require_lines(name: str, old: str, now: str, removed: list[str], added: list[str]) -> None:
    found = _differing(old, now)
    demand(found == (Counter(removed), Counter(added)), f"{name}: lines taken out and put in: {found}")


def _differing(old: str, now: str) -> tuple[Counter[str], Counter[str]]:
    """The lines that were taken out and put in, without their indent, the comma behind them, and times."""
    removed: Counter[str] = Counter()
    added: Counter[str] = Counter()
    before, after = ([plain(line.rstrip(",").encode()).decode() for line in text.split("\n")] for text in (old, now))
    for line in difflib.unified_diff(before, after, n=0, lineterm=""):
        if line.startswith("-") and not line.startswith("---"):
            removed[line[1:].strip()] += 1
        elif line.startswith("+") and not line.startswith("+++"):
            added[line[1:].strip()] += 1
    return removed, added


def _require_entries(name: str, old: Mapping[str, str], now: Mapping[str, str], key: str, own: set[str]) -> None:
    """Of all the tasks in a file only CC-1 differs, and that in its own fields alone."""
    before, after = _tasks(old[name]), _tasks(now[name])
    demand([task for task, _ in before] == [task for task, _ in after], f"{name}: tasks came, went or moved")
    for (task, was), (_, is_) in zip(before, after, strict=True):
        if task != "CC-1":
            demand(was == is_, f"{name}: {task} differs, which nobody asked for")
        else:
            changed = {field for field in was.keys() | is_.keys() if was.get(field) != is_.get(field)}
            demand(changed == own, f"{name}: of {task} {sorted(changed)} changed, not {sorted(own)}")
            demand(is_["status"] == "completed", f"{name}: {task} is {is_['status']}")


def _tasks(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The tasks of an outbox, or of either form of progress.json, with numbers as they are written."""
    tasks = json.loads(text, parse_float=Decimal)["tasks"]
    if isinstance(tasks, dict):
        return list(tasks.items())
    return [(task.get("task_id") or task["id"], task) for task in tasks]


TRIALS: dict[str, Trial] = {
    "frozen holder": frozen_holder,
    "unlinked lock": unlinked_lock,
    "unlinked while waiting": unlinked_while_waiting,
    "programs and shell": programs_and_shell,
    "linked lock": linked_lock,
    "endless holder": endless_holder,
    "held by the parent": held_by_the_parent,
    "lock folders": lock_folders,
    "namespaces": namespaces,
    "unlocked writer": unlocked_writer,
    "unlocked writer of one file": unlocked_writer_of_one_file,
    "restored by a person": restored_by_a_person,
    "forged note": forged_note,
    "hostile input": hostile_input,
    "damaged outbox": damaged_outbox,
    "nothing else": nothing_else,
}
