"""A completion with checks, hurt at any step of its own or of the process that runs the check: one effect, one receipt.

Rows 1-8 and 10 of the fault table, for tasks with checks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recovery.torture.scratch import demand
from support.promise import Failures, require
from support.workspace import FULL, Command, Workspace, finish

COMPLETE: Command = ("complete", "CC", "CC-1", "checked")
OTHER: Command = ("complete", "CC", "CC-2", "other work")
ROLLBACK: Command = ("rollback", "CC", "CC-1")

Fresh = Callable[[], Workspace]


class Checked(Workspace):
    """A workspace whose agent CC needs the check `tests`, which counts its runs beside the root; approved."""

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(**{"XDG_DATA_HOME": str(self.root.with_name(self.root.name + ".home")), **more})

    def approve(self) -> None:
        count = self.root.with_name(self.root.name + ".runs")
        # an input that is there, so that a result holds for the next command
        check = {"run": ["sh", "-c", 'echo "$RECOVERY_TASK" >>"$0"', str(count)], "inputs": ["checks.json"]}
        text = json.dumps({"checks": {"tests": check}, "required": {"CC": ["tests"]}})
        self.path("checks.json").write_text(text)
        require(self.run(("trust", "--yes", hashlib.sha256(text.encode()).hexdigest())), 0)

    def runs(self) -> int:
        return len(self.root.with_name(self.root.name + ".runs").read_text().splitlines())

    def until_no_check_runs(self) -> None:
        """Wait at the kernel's lock for recorders that outlived their caller."""
        for path in self.path("data/checks").glob("*.turn"):
            with path.open("r+") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Checked]]:
    """A new workspace each time it is called."""
    count = 0

    def make() -> Checked:
        nonlocal count
        count += 1
        space = Checked.make(tmp_path / f"w{count}")
        space.approve()
        return space

    yield make
    shutil.rmtree(tmp_path, ignore_errors=True)


def some(items: list[str], every: int) -> list[str]:
    return items if FULL else items[::every]


def require_chain(space: Checked, receipts: int, *completed: str) -> None:
    """So many receipts, which fit; these tasks completed once each, with one; nothing stray, nothing held."""
    done = require(space.run(("receipts", "verify", "--json")), 0)
    found = json.loads(done.out)["agents"].get("CC", {"receipts": 0})
    demand(found["receipts"] == receipts, f"{found['receipts']} receipts instead of {receipts}")
    for task in ("CC-1", "CC-2", "CC-3", "CC-4"):
        is_done = space.task("CC", task)["status"] == "completed"
        demand(is_done == (task in completed), f"{task} is {space.task('CC', task)['status']}")
        record = space.path(f"postbox/CC/completed/{task}_completion.json")
        demand(record.exists() == is_done, f"{task}: its record is {'there' if record.exists() else 'missing'}")
        if is_done:
            demand("receipt" in json.loads(record.read_bytes()), f"{task} has no receipt")
    demand(space.progress()["completed"] == len(completed), f"progress counts {space.progress()['completed']}")
    ours = [(op, task) for op, agent, task in space.changes() if (op, agent) == ("complete", "CC")]
    undone = sum(op == "rollback" for op, *_ in space.changes())
    demand(len(ours) == len(completed) + undone, f"the change log says {ours}")
    stray = [name for name in space.snapshot() if name.endswith((".stage", ".prepared")) or ".backup_" in name]
    demand(not stray, f"stray files {stray}")
    space.require_locks_free()


def steps_of(space: Checked, command: Command) -> list[str]:
    """The steps of the command and of its check's recorder, each once."""
    return sorted(set(space.steps(command)))


@pytest.mark.parametrize("action", ["kill-group", "kill", "ENOSPC"])
def test_a_checked_completion_hurt_at_any_step_is_done_once_by_the_next(
    action: str, fresh: Callable[[], Checked], failures: Failures
) -> None:
    """The caller, or the process that runs its check, or both: the same command again leaves one receipt."""
    steps = steps_of(fresh(), COMPLETE)
    assert {"check-fork:1", "check-run:1", "check-ended:1", "check-recorded:1", "check-start:1"} <= set(steps)
    named = [step for step in steps if step.startswith("check-")]
    for step in [*named, *some([step for step in steps if step not in named], 4 if action == "kill-group" else 8)]:
        space = fresh()
        with failures.at(f"{action} at {step}"):
            space.run(COMPLETE, fault=f"{step}={action}", RECOVERY_MAX_ATTEMPTS="1")
            space.until_no_check_runs()
            require(space.run(COMPLETE), 0)
            require_chain(space, 1, "CC-1")
            again = require(space.run(COMPLETE), 0)
            assert "nothing changed" in again.out
            require_chain(space, 1, "CC-1")
        space.remove()


def test_other_work_between_the_crash_and_the_repeat_keeps_the_chain(
    fresh: Callable[[], Checked], failures: Failures
) -> None:
    """Another completion of the same agent finishes what the dead one left, and follows it, or comes before it."""
    for step in some(steps_of(fresh(), COMPLETE), 6):
        space = fresh()
        with failures.at(f"kill-group at {step}"):
            space.run(COMPLETE, fault=f"{step}=kill-group", RECOVERY_MAX_ATTEMPTS="1")
            require(space.run(OTHER), 0)
            require(space.run(COMPLETE), 0)
            require_chain(space, 2, "CC-1", "CC-2")
        space.remove()


def test_an_undo_hurt_at_any_step_adds_one_revocation(fresh: Callable[[], Checked], failures: Failures) -> None:
    first = fresh()
    require(first.run(COMPLETE), 0)
    for step in some(steps_of(first, ROLLBACK), 4):
        space = fresh()
        require(space.run(COMPLETE), 0)
        with failures.at(f"kill-group at {step}"):
            space.run(ROLLBACK, fault=f"{step}=kill-group", RECOVERY_MAX_ATTEMPTS="1")
            require(space.run(ROLLBACK), 0)
            require_chain(space, 2)
            require(space.run((*COMPLETE, "--again")), 0)
            require_chain(space, 3, "CC-1")
        space.remove()


def test_a_check_whose_caller_was_killed_is_run_once(fresh: Callable[[], Checked], failures: Failures) -> None:
    """Killed anywhere behind the check's begin, the caller leaves it alone; the repeat doesn't run it again."""
    steps = [step for step in fresh().steps(COMPLETE) if step.startswith(("recheck", "replace", "verif", "journal"))]
    for step in [*sorted(set(steps)), "check-run:1"]:
        space = fresh()
        with failures.at(f"kill at {step}"):
            if step == "check-run:1":
                # the caller goes as soon as the run is noted; its recorder runs on
                process = space.start(COMPLETE, fault=f"check-run:1=wait={space.root}.gate")
                while not os.path.exists(f"{space.root}.gate.reached"):
                    pass
                os.killpg(process.pid, 9)
                finish(process)
                Path(f"{space.root}.gate").touch()
            else:
                space.run(COMPLETE, fault=f"{step}=kill-group")
            require(space.run(COMPLETE), 0)
            require_chain(space, 1, "CC-1")
            assert space.runs() == 1
        space.remove()


def test_many_complete_the_same_task_at_once_the_check_runs_once(fresh: Callable[[], Checked]) -> None:
    """Row 18: all end with 0, with one run of the check, one completion, one receipt."""
    space = fresh()
    for process in [space.start(COMPLETE) for _ in range(6)]:
        require(finish(process), 0)
    require_chain(space, 1, "CC-1")
    assert space.runs() == 1


def test_one_agents_tasks_completed_at_once_make_one_chain(fresh: Callable[[], Checked]) -> None:
    """Row 17: no receipt is lost, none stands twice, whoever wins."""
    space = fresh()
    for process in [space.start(("complete", "CC", f"CC-{n}")) for n in (1, 2, 3, 4)]:
        require(finish(process), 0)
    require_chain(space, 4, "CC-1", "CC-2", "CC-3", "CC-4")
