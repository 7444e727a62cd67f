"""Promises that no other test would have missed: each was found by a mutant that survived (see mutants.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import programs, tracing
from support.meeting import Gate, edit, locked
from support.promise import State, require, require_no_op, require_state, require_tidy
from support.workspace import SUITE, Workspace, finish

DONE = ("complete", "CC", "CC-1", "done")
OTHER = ("complete", "CC", "CC-2", "other")
CB = ("complete", "CB", "CB-1", "of CB")

OUTBOX = "postbox/CC/outbox.json"
PROGRESS = ".sprint/progress.json"
KILLED, TERMINATED = -9, -15

OPEN = """
import os
from recovery import checkpoints
from recovery.commit import Put
from recovery.session import Session
from recovery.store import transact
"""

#: A program that adds a line to a file of one, as breakers, budgets and idempotency keys are kept.
PUT = (
    OPEN
    + """
def plan():
    before = store.read("data/kept/x.json", strict=False)
    return Put("data/kept/x.json", before, (before.text if before else "") + "ours\\n")
with Session(os.getcwd()).store() as store:
    transact(store, ["data/kept/x.json"], plan, create=True)
"""
)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "root")


def crash(space: Workspace, step: str) -> None:
    require(space.run(DONE, fault=f"{step}=kill-group"), KILLED)


def calls(root: Path, code: str) -> list[tuple[str, str]]:
    """Run a Python program unhurt; its writes, syncs and renames in their order, as (call, path below the root)."""
    tracing.require_strace()
    log = root.with_name(root.name + ".calls")
    traced = "trace=write,fsync,fdatasync,renameat,renameat2,mkdir,mkdirat"
    program = "import sys; sys.path.insert(0, sys.argv.pop(1))\n" + code
    done = subprocess.run(
        ["strace", "-qq", "-y", "-o", str(log), "-e", traced, sys.executable, "-c", program, str(SUITE / "py")],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = []
    for line in log.read_text(errors="replace").splitlines():
        met = re.match(r"(\w+)\((?:(?:\d+|AT_FDCWD)<([^>]*)>)?(.*)\) += \d", line)
        if met and (met[2] is None or f"{met[2]}/".startswith(f"{root}/")):
            below = (met[2] or "")[len(str(root)) :].lstrip("/")
            target = re.findall(r'"([^"]*)"', met[3])[-1:] if met[1].startswith(("rename", "mkdir")) else []
            found.append((met[1], "/".join([part for part in (below, *target) if part])))
    return found


# --- power cuts


def test_a_single_files_new_bytes_are_durable_before_its_name_is(space: Workspace) -> None:
    """Written, synced, renamed, the folder synced: a breaker's or a key's file is old or new after a power cut."""
    require(programs.run(space.root, PUT), 0)
    met = calls(space.root, PUT)
    (renamed,) = [n for n, call in enumerate(met) if call == ("renameat", "data/kept/x.json")]
    (stage,) = {path for call, path in met if call == "write" and path.endswith(".stage")}
    written = max(n for n, call in enumerate(met) if call == ("write", stage))
    assert ("fsync", stage) in met[written:renamed], f"renamed before it is durable: {met}"
    assert ("fsync", "data/kept") in met[renamed:], f"the new name is not durable: {met}"


def test_a_folder_made_for_a_change_is_durable(space: Workspace) -> None:
    """data/ and data/changes/ before the commit point, and completed/ before the end: no power cut takes them away."""
    tracing.require_strace()
    met = tracing.order(space, DONE)
    commit = met.index(("fdatasync", "data/journal"))
    done = len(met) - met[::-1].index(("pwrite64", "data/journal@0"))
    above = [(n, path) for n, (call, path) in enumerate(met[:commit]) if call == "mkdirat" and path != ".locks"]
    assert {path for _, path in above} >= {"", "data", "postbox/CC"}, f"no folder was made: {met[:commit]}"
    for n, path in above:
        behind = met[n : done if path.startswith("postbox") else commit]
        assert ("fsync", path) in behind, f"the folder that was made in {path or 'the root'} is not durable"


def test_a_checkpoint_is_durable_before_it_is_acknowledged(space: Workspace) -> None:
    """`create` returns when the line is on the disk, and not before."""
    code = """
with Session(os.getcwd()).store() as store:
    checkpoints.create(store, "CC-1", "running", {"n": 1})
os.mkdir("acknowledged")
"""
    met = calls(space.root, OPEN + code)
    history = "data/checkpoints/CC-1_history.jsonl"
    (acknowledged,) = [n for n, (call, path) in enumerate(met) if path == "acknowledged"]
    written = met.index(("write", history))
    assert ("fdatasync", history) in met[written:acknowledged], f"not durable when it is acknowledged: {met}"
    assert ("fsync", "data/checkpoints") in met[:acknowledged], f"its file may be gone after a power cut: {met}"


# --- signals


@pytest.mark.parametrize("step", ["journal-synced", "replaced:2", "folder-sync", "verified", "appended", "done-mark"])
def test_a_signal_in_the_middle_of_a_commit_waits_for_its_end(step: str, space: Workspace, tmp_path: Path) -> None:
    """Section 4: TERM from journal to forget finds the change done, with nothing left for the next command."""
    unhurt = space.copy(tmp_path / "unhurt")
    require(unhurt.run(DONE), 0)
    require(space.run(DONE, fault=f"{step}=term"), TERMINATED, 0)
    require_state(space, State.of(unhurt))
    assert "nothing to recover" in require(space.run(("recover",)), 0).out
    require_no_op(space, DONE)


# --- locks, and who comes late


def test_the_data_locks_are_held_until_the_last_file_is_in_place(space: Workspace) -> None:
    """A program that keeps to the locks can't get in between two of a commit's renames, nor before the read-back."""
    for number, step in enumerate(("stage:1", "journal-synced:1", "replaced:1", "verified:1", "done-mark:1")):
        command = ("assign", "CC", f"CC-{number + 5}", "New", "LOW")
        gate = Gate(space, f"commit-{number}")
        process = space.start(command, fault=gate.fault(step))
        gate.reached(process)
        for name in ("postbox/CC/.outbox.json.lock", ".sprint/.progress.json.lock"):
            taken = subprocess.run(["flock", "-n", str(space.path(name)), "true"])
            assert taken.returncode == 1, f"{name} could be taken at {step}"
        gate.open()
        require(finish(process), 0)
    require_tidy(space)


def test_who_waits_for_a_lock_file_that_is_removed_waits_for_the_new_ones_holder(space: Workspace) -> None:
    """Row 22, without a commit that looks once more: a lock on a file without a name is nobody's lock."""
    lock = space.path("notes/.x.json.lock")
    code = (
        "from file_lock import FileLock\n"
        "with FileLock('notes/x.json', timeout=10):\n    os.close(os.open('inside', os.O_RDONLY | os.O_CREAT))\n"
    )
    first, second = Gate(space, "first"), Gate(space, "second")
    with locked(lock):
        waiting = programs.start(space.root, code, fault=f"{first.fault('wait:1')},{second.fault('wait:2')}")
        first.reached(waiting)
        lock.unlink()
        with locked(lock):
            first.open()
            second.reached(waiting)
            assert not space.path("inside").exists(), "two hold the lock"
    second.open()
    require(finish(waiting), 0)
    assert space.path("inside").exists()


def test_who_comes_late_to_a_dead_commit_leaves_what_others_did_since(space: Workspace) -> None:
    """Two meet the same dead commit: one finishes it and commits its own; the other, later, has nothing to finish."""
    crash(space, "replaced:1")
    gate = Gate(space, "late")
    late = space.start(OTHER, fault=gate.fault("resolve:1"))
    gate.reached(late)
    first = require(space.run(CB), 0)
    assert "finished `complete CC/CC-1`" in first.err, f"it found nothing to finish: {first}"
    gate.open()
    done = require(finish(late), 0)
    assert "finished `" not in done.err, f"what was done already is done once more: {done}"
    assert "nothing to recover" in require(space.run(("recover",)), 0).out
    assert space.progress()["completed"] == 3
    assert space.changes() == [("complete", "CB", "CB-1"), ("complete", "CC", "CC-1"), ("complete", "CC", "CC-2")]
    require_tidy(space)


def test_what_is_undone_is_undone_field_by_field_under_others_newer_work(space: Workspace) -> None:
    """A conflict in one file undoes all of them; what somebody wrote into another of them since stays."""
    crash(space, "replaced:3")

    def work(outbox: Any) -> None:
        outbox["tasks"][1]["title"] = "newer work"

    def conflict(progress: Any) -> None:
        progress["tasks"]["CC-1"]["status"] = "failed"

    edit(space.path(OUTBOX), work)
    edit(space.path(PROGRESS), conflict)
    require(space.run(("recover",)), 0)
    assert space.task("CC", "CC-1")["status"] == "pending", "the change was not undone"
    assert space.task("CC", "CC-2")["title"] == "newer work", "a backup was put over somebody's newer work"
    assert space.listed("CC-1")["status"] == "failed"
    assert programs.strays(space.root) == []


# --- writers who ignore the locks, and repeats


def test_a_file_that_was_changed_before_its_put_is_planned_anew(space: Workspace) -> None:
    """What is written between plan and rename, by who ignores the lock, is met: both lines are there."""
    require(programs.run(space.root, PUT), 0)
    path = space.path("data/kept/x.json")
    for step in ("stage:1", "stage-synced:1"):
        path.write_text("before\n")
        gate = Gate(space, step.partition(":")[0])
        process = programs.start(space.root, PUT, fault=gate.fault(step))
        gate.reached(process)
        path.write_text("theirs\n")
        gate.open()
        require(finish(process), 0)
        assert path.read_text() == "theirs\nours\n", f"overwritten at {step}"
    assert programs.strays(space.root) == []
    assert sorted(os.listdir(path.parent)) == [".x.json.lock", "x.json"]


def test_a_task_that_progress_has_as_completed_is_left_there_as_it_is(space: Workspace) -> None:
    """Its time of completion is the first one's, and it is not counted again."""

    def done_by_hand(progress: Any) -> None:
        progress["tasks"]["CC-1"].update(status="completed", completed_at="2025-06-01T00:00:00Z")
        progress["completed"], progress["pending"] = 1, progress["pending"] - 1

    edit(space.path(PROGRESS), done_by_hand)
    before = space.path(PROGRESS).read_bytes()
    require(space.run(DONE), 0)
    assert space.task("CC", "CC-1")["status"] == "completed"
    assert space.path(PROGRESS).read_bytes() == before
    require_no_op(space, DONE)


def test_the_list_of_mutants_fits_the_code() -> None:
    """What each changes stands there exactly once, and it is a program: `make test-mutations` is long, seldom run."""
    done = subprocess.run(
        [sys.executable, "-c", "import run; run.require_fit(run.MUTANTS)"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
