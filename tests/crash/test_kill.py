"""Killed at any step, a command leaves each file old or new, and the next command makes it whole.

Rows 1-8 of the fault table.  The steps are learned from an unhurt run, so a new step is tried without being named.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.meeting import Gate
from support.promise import (
    Bench,
    Failures,
    Scenario,
    require,
    require_no_op,
    require_old_or_new,
    require_state,
    require_whole,
    scenarios,
)
from support.workspace import FORMS, FULL, Done, finish

Benches = Callable[[Scenario], Bench]

ALL = scenarios(FORMS)
NEW_AGENT = Scenario("assign-new-agent", "object", ("assign", "CX", "CX-1", "First work", "LOW"))
EVERY = [*ALL, NEW_AGENT]
OBJECT = [scenario for scenario in EVERY if scenario.form == "object"]

KILLED, TERMINATED = -9, -15
ACTIONS = ("kill-group", "kill", "term")


def some(items: list[str], every: int, offset: int = 0) -> list[str]:
    """All of them in the full form, each `every`-th in the quick one."""
    return items if FULL else items[offset % every :: every]


def hurt(action: str, done: Done) -> None:
    """What a command hurt in this way may say."""
    expected = {"kill-group": (KILLED,), "kill": (KILLED,), "term": (TERMINATED, 0)}
    require(done, *expected[action])


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("scenario", EVERY, ids=str)
def test_killed_at_any_step_the_same_command_finishes_with_one_effect(
    scenario: Scenario, action: str, bench: Benches, failures: Failures
) -> None:
    """Rows 1, 2, 5, 8: each file is old or new at once; the command again exits 0, done once, nothing stray."""
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    quick = 1 if (action == "kill-group" and scenario.form == "object") else 4
    for step in some(run.steps(), quick, offset=ACTIONS.index(action)):
        with run.fresh() as space, failures.at(f"{action} at {step}"):
            done = space.run(scenario.command, fault=f"{step}={action}", RECOVERY_MAX_ATTEMPTS="1")
            hurt(action, done)
            require_whole(space, old, new)
            if done.code == 0:
                require_state(space, new)
            require(space.run(scenario.command), 0)
            require_state(space, new)
            require_no_op(space, scenario.command)


def test_the_script_is_the_helper_so_neither_outlives_the_other(bench: Benches) -> None:
    """Rows 2, 3: the script turns into the helper by exec; no shell is left that could report for a dead one."""
    with bench(ALL[0]).fresh() as space:
        gate = Gate(space, "exec")
        process = space.start(ALL[0].command, fault=gate.fault("begin:1"))
        gate.reached(process)
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        gate.open()
        require(finish(process), 0)
    assert any(word.endswith(b"/recovery/__main__.py") for word in words), f"the script's pid runs {words}"


@pytest.mark.parametrize("scenario", ALL, ids=str)
def test_other_work_between_crash_and_retry_is_kept(scenario: Scenario, bench: Benches, failures: Failures) -> None:
    """Rows 7, 56: after the crash the same agent's other task is completed, then the command is repeated: both."""
    run = bench(scenario)
    both = run.after(scenario.command, scenario.other)
    for step in some(run.steps(), 1 if scenario.form == "object" else 4):
        with run.fresh() as space, failures.at(f"kill-group at {step}"):
            require(space.run(scenario.command, fault=f"{step}=kill-group"), KILLED)
            require(space.run(scenario.other), 0)
            require(space.run(scenario.command), 0)
            require_state(space, both)
            require_no_op(space, scenario.command)
            require_no_op(space, scenario.other)


@pytest.mark.parametrize("scenario", ALL, ids=str)
def test_recover_makes_it_whole_and_a_second_recover_finds_nothing(
    scenario: Scenario, bench: Benches, failures: Failures
) -> None:
    """`recovery recover` leaves all files old or all new, may be repeated, and the command then still works."""
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    for step in some(run.steps(), 2 if scenario.form == "object" else 5):
        with run.fresh() as space, failures.at(f"kill-group at {step}"):
            require(space.run(scenario.command, fault=f"{step}=kill-group"), KILLED)
            require(space.run(("recover",)), 0)
            require_old_or_new(space, old, new, allow=(".backup_",))
            second = require(space.run(("recover",)), 0)
            assert "nothing to recover" in second.out, f"the second recover did something: {second}"
            require(space.run(scenario.command), 0)
            require_state(space, new)


@pytest.mark.parametrize("resolver", ["same", "other", "recover"])
@pytest.mark.parametrize("scenario", OBJECT if FULL else OBJECT[:3], ids=str)
def test_a_crash_while_recovering_from_a_crash_is_one_more_crash(
    scenario: Scenario, resolver: str, bench: Benches, failures: Failures
) -> None:
    """Row 6: killed at one step, the next command killed at any step of its own; the third one makes it whole."""
    run = bench(scenario)
    second = {"same": scenario.command, "other": scenario.other, "recover": ("recover",)}[resolver]
    commands = (scenario.command, scenario.other) if resolver == "other" else (scenario.command,)
    new = run.after(*commands)
    pairs: list[tuple[str, str]] = []
    for step in some(run.steps(), 4):
        with run.fresh() as space:
            space.run(scenario.command, fault=f"{step}=kill-group")
            pairs += [(step, later) for later in space.steps(second)]
    if not FULL:
        pairs = random.Random(f"{scenario} {resolver}").sample(pairs, 30)
    for step, later in pairs:
        with run.fresh() as space, failures.at(f"kill-group at {step}, then at {later} of {second[0]}"):
            require(space.run(scenario.command, fault=f"{step}=kill-group"), KILLED)
            require(space.run(second, fault=f"{later}=kill-group"), KILLED)
            for command in commands:
                require(space.run(command), 0)
            require_state(space, new)
            for command in commands:
                require_no_op(space, command)
