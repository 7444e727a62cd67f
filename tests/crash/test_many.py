"""Killed at any step, a change of many tasks is there as a whole or not at all, and the same command completes it.

Row 8 of the fault table, for `distribute`, `import` and `progress rebuild`: dozens of files in one commit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.promise import (
    Bench,
    Failures,
    Scenario,
    require,
    require_no_op,
    require_old_or_new,
    require_state,
    require_whole,
)
from support.workspace import FULL, Workspace, finish

Benches = Callable[[Scenario], Bench]

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
TASKS = ("S-1", "S-2", "S-3", "S-4")
DISTRIBUTE = ("distribute", str(FIXTURES / "sprint.json"))
IMPORT = ("import", str(FIXTURES / "TODO.md"), "--agent", "CX", "--create")

DISTRIBUTED = Scenario("distribute", "object", DISTRIBUTE)
#: Each with how many of its steps are tried in the quick form: each n-th.
EVERY = [
    (DISTRIBUTED, 1),
    (Scenario("distribute", "list", DISTRIBUTE), 4),
    (Scenario("import", "object", IMPORT), 4),
    (Scenario("rebuild", "absent", ("progress", "rebuild")), 2),
]

KILLED = -9
#: Where it is logged that a change was recovered, under what changes of many tasks are called.
LOGS = r"logs/recovery/(sprint-[0-9a-f]{8}|TODO-[0-9a-f]{8}|rebuild)_recovery\.jsonl"


@pytest.mark.parametrize(("scenario", "every"), EVERY, ids=str)
def test_killed_at_any_step_the_same_command_gives_every_task_out_once(
    scenario: Scenario, every: int, bench: Benches, failures: Failures
) -> None:
    """Each file is old or new at once; the command again exits 0, each task is there once, nothing is stray."""
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    for step in run.steps()[:: 1 if FULL else every]:
        with run.fresh() as space, failures.at(f"kill-group at {step}"):
            require(space.run(scenario.command, fault=f"{step}=kill-group", RECOVERY_MAX_ATTEMPTS="1"), KILLED)
            require_whole(space, old, new)
            require(space.run(scenario.command), 0)
            require_state(space, new, ours=LOGS)
            require_no_op(space, scenario.command)


@pytest.mark.parametrize(
    "step", ["recheck:1", "journal-synced:1", "replaced:2", "replaced:6", "verified:1", "appended:1"]
)
def test_recover_leaves_all_of_it_or_nothing(step: str, bench: Benches) -> None:
    """`recovery recover` finishes a dead distribution or takes its stages away, and finds nothing the second time."""
    run = bench(DISTRIBUTED)
    old, new = run.after(), run.after(DISTRIBUTE)
    with run.fresh() as space:
        require(space.run(DISTRIBUTE, fault=f"{step}=kill-group"), KILLED)
        require(space.run(("recover",)), 0)
        require_old_or_new(space, old, new)
        assert "nothing to recover" in require(space.run(("recover",)), 0).out
        require(space.run(DISTRIBUTE), 0)
        require_state(space, new, ours=LOGS)


@pytest.mark.parametrize("step", ["stage-synced:3", "journal-synced:1", "replaced:1", "replaced:5", "done-mark:1"])
def test_other_work_between_crash_and_retry_is_kept_and_no_task_is_there_twice(step: str, bench: Benches) -> None:
    """The receivers' own work goes on after the crash; then the same command: every task with one agent, once."""
    with bench(DISTRIBUTED).fresh() as space:
        require(space.run(DISTRIBUTE, fault=f"{step}=kill-group"), KILLED)
        for agent in ("CA", "CB", "CC"):
            require(space.run(("complete", agent, f"{agent}-1", "meanwhile")), 0)
        require(space.run(DISTRIBUTE), 0)
        assert sorted(owners(space)) == list(TASKS)
        assert set(owners(space).values()) <= {("CA",), ("CB",), ("CC",)}
        require_no_op(space, DISTRIBUTE)
        listed = space.progress()["tasks"]
        assert {task: (listed[task]["agent"],) for task in TASKS} == owners(space)


def test_a_crash_while_finishing_a_dead_distribution_is_one_more_crash(bench: Benches, failures: Failures) -> None:
    """Row 6: the command that resolves is killed at steps of its own; the third one makes it whole."""
    run = bench(DISTRIBUTED)
    new = run.after(DISTRIBUTE)
    with run.fresh() as space:
        require(space.run(DISTRIBUTE, fault="replaced:3=kill-group"), KILLED)
        later = space.steps(DISTRIBUTE)
    for step in later[:: 1 if FULL else 6]:
        with run.fresh() as space, failures.at(f"kill-group at {step} of the second"):
            require(space.run(DISTRIBUTE, fault="replaced:3=kill-group"), KILLED)
            require(space.run(DISTRIBUTE, fault=f"{step}=kill-group"), KILLED)
            require(space.run(DISTRIBUTE), 0)
            require_state(space, new, ours=LOGS)


def test_many_distributions_at_once_give_each_task_out_once(bench: Benches) -> None:
    """Eight processes with one backlog, and completions by the receivers: one gives out, the others find it done."""
    with bench(DISTRIBUTED).fresh() as space:
        several = [space.start(DISTRIBUTE) for _ in range(8)]
        work = [space.start(("complete", agent, f"{agent}-2", "meanwhile")) for agent in ("CA", "CB", "CC")]
        said = sorted(require(finish(one), 0).out.split()[0] for one in several)
        assert said == ["already"] * 7 + ["distributed"]
        for one in work:
            require(finish(one), 0)
        assert sorted(owners(space)) == list(TASKS)
        assert all(len(agents) == 1 for agents in owners(space).values())
        assert space.progress()["total_tasks"] == 16
        assert space.progress()["completed"] == 3
        space.require_locks_free()


def owners(space: Workspace) -> dict[str, tuple[str, ...]]:
    """Each of the backlog's tasks, with the agents whose outboxes have it."""
    found: dict[str, tuple[str, ...]] = {}
    for agent in ("CA", "CB", "CC"):
        for task in space.json(f"postbox/{agent}/outbox.json")["tasks"]:
            if task["task_id"] in TASKS:
                found[task["task_id"]] = (*found.get(task["task_id"], ()), agent)
    return found
