"""Claims and the verbs of a working day: killed anywhere they are old or new, and never two owners at a time."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recovery import claim, claim_locks, complete, fail, processes, release, steps, sweep
from recovery.errors import NotYours, Taken
from recovery.flock import Limits
from recovery.store import FileStore
from recovery.torture import kills, operations
from recovery.torture.operations import Benches
from recovery.torture.scratch import Done, Forked
from support.meeting import Gate, until
from support.promise import Failures, require, require_tidy
from support.workspace import FULL, Workspace, finish

DAILY = [*operations.claiming(), *operations.daily()]
#: Of how many steps one is tried when there is little time.
EVERY = {"claim": 1, "sweep": 1, "fail": 2, "reassign": 2}


@pytest.mark.parametrize("operation", DAILY, ids=lambda op: op.name)
def test_killed_at_any_step_each_file_is_old_or_new_and_the_same_command_finishes(
    operation: operations.Operation, tmp_path: Path, failures: Failures
) -> None:
    """Killed before and after every step; then the same command, another one or `recover`, then the command: once."""
    benches = Benches(tmp_path)
    benches.operations = [operation]
    steps = benches.of(operation).steps()
    every = 1 if FULL else EVERY.get(operation.name, 6)
    for number, step in list(enumerate(steps))[::every]:
        for followup in kills.FOLLOWUPS if FULL else (kills.FOLLOWUPS[number % 3],):
            with failures.at(f"{operation.name} killed at {step}, then {followup}"):
                kills.kill_at(benches, str(operation), step, followup)


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace.make(tmp_path / "root")
    yield made
    made.remove()


@pytest.fixture
def store(space: Workspace) -> Iterator[Callable[[], FileStore]]:
    """A store for each call, as each command has."""
    opened: list[FileStore] = []

    def make() -> FileStore:
        limits = Limits(10, 20, "test")
        limits.family = "all"
        if len(opened) > 3:
            opened.pop(0).close()
        opened.append(FileStore(str(space.root), limits))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def claimed(space: Workspace, task: str = "CC-1") -> dict[str, object]:
    return dict(space.task("CC", task)["claim"])


# --- one winner


@pytest.mark.parametrize("words", [("CC", "CC-1"), ("CC", "--next")], ids=["one task", "the next"])
def test_sixteen_at_once_get_one_task_each_at_most(space: Workspace, words: tuple[str, ...]) -> None:
    """Of 16 processes that claim one task exactly one wins; of 16 that want the next of four, four, each another."""
    racers = [space.start(("claim", *words), RECOVERY_SESSION=f"racer {number}") for number in range(16)]
    ended = [finish(racer) for racer in racers]
    won = [number for number, done in enumerate(ended) if done.code == 0]
    assert len(won) == (1 if words[1] == "CC-1" else 4), ended
    assert {done.code for done in ended} == {0, 75}, ended
    owners_now = [
        task["claim"]["owner"]["session"]
        for task in space.json("postbox/CC/outbox.json")["tasks"]
        if task.get("claim", {}).get("state") == "held"
    ]
    assert sorted(owners_now) == sorted(f"racer {number}" for number in won)
    require_tidy(space)


def test_a_claim_lost_between_look_and_commit_is_lost(space: Workspace) -> None:
    """Two planned on the same outbox: the second looks again and is told who was faster."""
    gate = Gate(space, "lock")
    first = space.start(("claim", "CC", "CC-1"), fault=gate.fault("lock:1"), RECOVERY_SESSION="slow")
    gate.reached(first)
    require(space.run(("claim", "CC", "CC-1"), RECOVERY_SESSION="fast"), 0)
    gate.open()
    done = require(finish(first), 75)
    assert "claimed by session fast" in done.err


# --- commands under `recovery run`: the kernel's lock


RUN = """
import os, sys, subprocess
sys.path.insert(0, sys.argv[1])
from recovery import claim
from recovery.flock import Limits
from recovery.store import FileStore
limits = Limits(10, 20, "run")
limits.family = ""
mine = claim.acquire(FileStore(sys.argv[2], limits), "CC", "CC-1", kind="run")
child = subprocess.Popen(["sh", "-c", sys.argv[3]], pass_fds=(mine.lock_fd,), process_group=0, stdout=1)
mine.note_child(child.pid)
print(child.pid, flush=True)
sys.stdin.readline()
"""


class Run:
    """A process that holds CC-1 as `recovery run` does, and a command of its: `pid` and `child`."""

    def __init__(self, space: Workspace, command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(space.suite / "py"), str(space.root), command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**space.environment()},
        )
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())
        self.pid = self.process.pid

    def kill_wrapper(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_child(self) -> None:
        try:
            os.killpg(self.child, signal.SIGKILL)
        except ProcessLookupError:
            return
        until(lambda: processes.group_is_gone(self.child, ""), "the child's group is gone")

    def end(self) -> None:
        self.kill_child()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(space: Workspace) -> Iterator[Callable[[str], Run]]:
    started: list[Run] = []

    def start(command: str = "exec sleep 600") -> Run:
        started.append(Run(space, command))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_a_run_killed_while_it_claims_leaves_nothing_that_the_next_one_minds(
    space: Workspace, store: Callable[[], FileStore], failures: Failures
) -> None:
    """Killed at any step of taking the next task with its lock: somebody else has it at once, no lock file is left."""

    def take(fault: str) -> Done:
        def work() -> None:
            steps.install({"RECOVERY_FAULT": fault})
            claim.acquire(store(), "CC", kind="run")
            steps.at("taken")

        return Forked(work, fault).finish()

    listing = space.root.with_name("listing")
    for met in _unhurt(space, lambda: take(f"*=list={listing}"), listing):
        with failures.at(f"killed at {met}"):
            assert take(f"{met}=kill").code == -signal.SIGKILL
            mine = claim.acquire(store(), "CC", kind="run")
            assert mine.task == "CC-1"
            release.release(store(), "CC", "CC-1", generation=mine.generation)
            assert mine.close(store()) == []
            require(space.fork(("sweep",)), 0)
            assert not list(space.path("data/claims/CC").iterdir()), "lock files are left"
            assert space.task("CC", "CC-1")["status"] == "pending"
    require_tidy(space)


def _unhurt(space: Workspace, take: Callable[[], Done], listing: Path) -> list[str]:
    """The steps of a claim that nobody hurts, in a workspace that has seen one; each is given back."""
    for _ in range(2):
        listing.unlink(missing_ok=True)
        require(take(), 0)
        require(space.fork(("sweep",)), 0)
    return listing.read_text().split()


def test_a_living_and_a_frozen_run_are_never_swept_nor_robbed(space: Workspace, run: Callable[[str], Run]) -> None:
    """Neither while both live, nor while both are stopped, nor while only the command lives: its lock is inherited."""
    mine = run("trap '' HUP; exec sleep 600")  # which the kernel sends to a stopped group that nobody is left to wake
    frozen = [mine.pid, mine.child]
    for number in (signal.SIGCONT, signal.SIGSTOP):
        for pid in frozen:
            os.kill(pid, number)
        assert "nothing to sweep" in require(space.run(("sweep",)), 0).out
        require(space.run(("claim", "CC", "CC-1")), 75)
        require(space.run(("complete", "CC", "CC-1", "stolen")), 76)
    mine.kill_wrapper()
    assert "nothing to sweep" in require(space.run(("sweep",)), 0).out
    assert claimed(space)["state"] == "held"


def test_a_dead_run_is_swept_at_once_logged_once_and_its_lock_file_removed(
    space: Workspace, run: Callable[[], Run]
) -> None:
    """Wrapper and command killed with -9: pending again, with why; the log has one line; the second finds nothing."""
    mine = run()
    mine.kill_wrapper()
    mine.kill_child()
    done = require(space.run(("sweep",)), 0)
    assert f"swept 1 task: CC/CC-1 (its `recovery run`, pid {mine.pid}, is gone)" in done.out
    assert space.task("CC", "CC-1")["status"] == "pending"
    assert claimed(space)["state"] == "swept"
    assert space.listed("CC-1")["status"] == "pending"
    assert len(space.lines("logs/recovery")) == 1
    assert not list(space.path("data/claims/CC").iterdir())
    assert "nothing to sweep" in require(space.run(("sweep",)), 0).out
    require_tidy(space)


def test_the_task_of_a_dead_run_may_be_claimed_without_a_sweep(space: Workspace, run: Callable[[], Run]) -> None:
    """Whoever claims it next takes it over, with the next generation."""
    mine = run()
    mine.kill_wrapper()
    mine.kill_child()
    done = require(space.run(("claim", "CC", "--next")), 0)
    assert f"claimed CC/CC-1, generation 2, from recovery run, pid {mine.pid}: " in done.out
    assert [line["error_type"] for line in space.lines("logs/recovery")] == ["OwnerDied"]


def test_a_command_that_let_go_of_the_lock_is_alive_as_long_as_its_group(
    space: Workspace, run: Callable[[str], Run]
) -> None:
    """Dead is a free lock *and* a group that is gone: a child that closes the descriptor is not robbed."""
    closes = """import os; os.closerange(3, 99); os.execvp("sleep", ["sleep", "600"])"""
    mine = run(f"exec {shlex.quote(sys.executable)} -c '{closes}'")
    until(
        lambda: Path(f"/proc/{mine.child}/cmdline").read_bytes().startswith(b"sleep"),
        "the command has closed everything",
    )
    mine.kill_wrapper()
    look = claim_locks.look(FileStore(str(space.root), Limits()), "CC", "CC-1", 1)
    look.close()
    assert look.state == "free"
    assert "nothing to sweep" in require(space.run(("sweep",)), 0).out
    mine.kill_child()
    assert "swept 1 task" in require(space.run(("sweep",)), 0).out


def test_who_holds_the_lock_of_a_claim_that_is_over_is_named(space: Workspace, run: Callable[[str], Run]) -> None:
    """A daemon that a command left behind keeps only its old generation's lock: the task can be taken; it is said."""
    mine = run("sleep 600 & exec sleep 601")
    done = require(space.run(("release", "--force", "CC", "CC-1")), 0)
    assert "the lock of generation 1 of CC/CC-1 is held by" in done.err
    mine.kill_wrapper()
    done = require(space.run(("sweep",)), 0)
    assert "the lock of CC/CC-1, claim 1, which is over, is held by pid" in done.out
    assert "sleep 600" in done.out
    assert "sleep 601" in done.out
    require(space.run(("claim", "CC", "CC-1")), 0)
    assert claimed(space)["generation"] == 2
    require(space.run(("complete", "CC", "CC-1", "late"), RECOVERY_CLAIM="CC/CC-1:1"), 76)
    mine.kill_child()
    assert "nothing to sweep" in require(space.run(("sweep",)), 0).out
    assert not list(space.path("data/claims/CC").iterdir())


def test_a_run_whose_lock_file_was_removed_is_judged_by_its_process(space: Workspace, run: Callable[[], Run]) -> None:
    """Somebody tidied data/claims: alive while its process is there, dead once it is gone."""
    mine = run()
    (lock,) = space.path("data/claims/CC").iterdir()
    lock.unlink()
    assert "nothing to sweep" in require(space.run(("sweep",)), 0).out
    mine.kill_wrapper()
    assert "swept 1 task" in require(space.run(("sweep",)), 0).out


def _leader() -> tuple[subprocess.Popen[bytes], str]:
    """A process that leads a group, and when it began."""
    other = subprocess.Popen(["sleep", "600"], process_group=0)
    look = processes.look(other.pid)
    assert look is not None
    return other, look.start


@pytest.mark.parametrize("change", ["pid", "start"])
def test_a_group_whose_number_was_given_away_again_is_gone(
    space: Workspace, run: Callable[[], Run], change: str
) -> None:
    """The recorded group's number leads another process now, which began later: no pid counts without its start."""
    mine = run()
    mine.kill_wrapper()
    mine.kill_child()
    (lock,) = space.path("data/claims/CC").iterdir()
    note = json.loads(lock.read_bytes())
    other, start = _leader()
    while start == note["group_start"]:  # the kernel counts in hundredths of a second
        other.kill()
        other.wait()
        other, start = _leader()
    try:
        note["group"] = other.pid
        if change == "start":
            note["group_start"] = start
        lock.write_text(json.dumps(note))
        done = require(space.run(("sweep",)), 0)
        assert ("swept 1 task" in done.out) == (change == "pid"), done
    finally:
        other.kill()
        other.wait()


def unshared(space: Workspace, *words: str, **more: str) -> subprocess.Popen[str]:
    """A command in a pid namespace of its own, which stays until its stdin is closed; skipped where that can't be."""
    probe = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True)
    if probe.returncode:
        why = probe.stderr.strip()
        if os.environ.get("CI") == "true":
            pytest.fail(f"in CI a pid namespace must be possible: {why}")
        pytest.skip(f"ANOTHER PID NAMESPACE NOT TESTED: unshare is refused ({why})")
    script = '"$@"; echo done; read -r _'
    inner = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script, "bash", *words]
    process = subprocess.Popen(
        inner, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=space.environment(**more)
    )
    assert process.stdout is not None
    while process.stdout.readline() != "done\n":
        assert process.poll() is None
    return process


def test_a_session_in_another_pid_namespace_is_never_taken_for_dead(space: Workspace) -> None:
    """Row 62: alive or gone, nobody here can know; nothing is taken, and a person is told what may be run."""
    there = unshared(space, *space.words(("claim", "CC", "CC-1")), RECOVERY_SESSION="1")
    try:
        for gone in (False, True):
            if gone:
                there.communicate("go\n")
            done = require(space.run(("sweep", "-v")), 0)
            assert "can't be judged from here" in done.out
            assert "recovery release --force CC CC-1" in done.out
            done = require(space.run(("claim", "CC", "CC-1")), 75)
            assert "another container can't be looked into from here" in done.err
            require(space.run(("complete", "CC", "CC-1")), 76)
        require(space.run(("release", "--force", "CC", "CC-1")), 0)
    finally:
        there.kill()
        there.wait()


def test_trust_locks_takes_a_free_lock_as_proof_for_another_namespace(space: Workspace, run: Callable[[], Run]) -> None:
    """A container's start script may say that no other one runs; a lock that is held is believed all the same."""
    mine = run()
    (lock,) = space.path("data/claims/CC").iterdir()

    def move_away() -> None:
        note = json.loads(lock.read_bytes())
        lock.write_text(json.dumps({**note, "namespace": "pid:[1]"}))

    move_away()
    assert "nothing to sweep" in require(space.run(("sweep", "--trust-locks")), 0).out
    mine.kill_wrapper()
    mine.kill_child()
    assert "can't be judged from here" in require(space.run(("sweep",)), 0).out
    assert "swept 1 task: CC/CC-1 (its lock is free" in require(space.run(("sweep", "--trust-locks")), 0).out


def test_the_fence_holds_for_what_a_run_calls_with_its_generation(
    space: Workspace, store: Callable[[], FileStore]
) -> None:
    """complete and fail of a generation that was swept are refused; so is a second owner's, while the first lives."""
    mine = claim.acquire(store(), "CC", "CC-1", kind="run")
    with pytest.raises(Taken):
        claim.acquire(store(), "CC", "CC-1")
    assert mine.standing(store()) == ("in_progress", True)
    require(space.run(("release", "--force", "CC", "CC-1")), 0)
    assert mine.standing(store()) == ("pending", False)
    again = claim.acquire(store(), "CC", "CC-1", kind="run")
    for call in (complete.complete, fail.fail):
        with pytest.raises(NotYours):
            call(store(), "CC", "CC-1", "late", generation=mine.generation)
    assert complete.complete(store(), "CC", "CC-1", "in time", generation=again.generation).changed
    assert mine.close(store()) == again.close(store()) == []
    assert not list(space.path("data/claims/CC").iterdir())


def test_a_run_that_got_71_takes_the_same_claim_again(space: Workspace, store: Callable[[], FileStore]) -> None:
    """Its first try may have been committed: the second finds that, and holds the lock of that very generation."""
    first = claim.acquire(store(), "CC", "CC-1", kind="run")
    assert first.lock is not None
    first.lock.close()  # what a try does that ends with 71
    again = claim.acquire(store(), "CC", "CC-1", kind="run")
    assert (again.generation, again.result.changed, again.lock_fd >= 0) == (first.generation, False, True)
    assert sweep.sweep(store()).data["swept"] == []
    assert complete.complete(store(), "CC", "CC-1", "done", generation=again.generation).changed
    assert again.close(store()) == []


def test_many_sweeps_at_once_give_each_task_back_once(space: Workspace) -> None:
    """Eight sweeps of four expired leases: four lines in the logs, four changes, nothing stray."""
    for number in range(1, 5):
        require(space.run(("claim", "CC", f"CC-{number}", "--lease", "0.001")), 0)
    for done in [finish(one) for one in [space.start(("sweep",)) for _ in range(8)]]:
        require(done, 0)
    assert [change[0] for change in space.changes()].count("sweep") == 4
    assert len(space.lines("logs/recovery")) == 4
    assert all(task["status"] == "pending" for task in space.json("postbox/CC/outbox.json")["tasks"])
    require_tidy(space)


def test_a_reassignment_that_is_undone_gives_the_very_bytes_back(space: Workspace) -> None:
    """The task stands where it stood: first, not last."""
    before = space.data()
    require(space.run(("reassign", "CC", "CC-1", "CA"), fault="verify:2=ENOSPC", RECOVERY_MAX_ATTEMPTS="1"), 74)
    after = {name: data for name, data in space.data().items() if ".backup_" not in name}
    assert after == before
    require(space.run(("reassign", "CC", "CC-1", "CA")), 0)
    require(space.run(("rollback", "CA", "CC-1")), 66)
    require(space.run(("rollback", "CC", "CC-1")), 0)
    assert space.data() == before
