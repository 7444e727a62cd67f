"""Any call may fail, once or for ever: the code says so, each file is whole, and a healthy retry does it once.

Rows 1, 10-16, 55 of the fault table, after "How SQLite Is Tested", sections 3.1-3.4: the fault comes at call 1, 2,
3 … until the command ends unhurt.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recovery.torture.errors import (
    ERRORS,
    FAILED,
    UNCONFIRMED,
    fallible,
    require_honest,
    require_refusal_to_last,
    require_retry,
)
from support import tracing
from support.promise import Bench, Failures, Scenario, require, require_whole, scenarios
from support.workspace import FORMS, FULL

Benches = Callable[[Scenario], Bench]

OBJECT = scenarios(["object"])
MORE = scenarios(FORMS) if FULL else OBJECT


def thinned(items: list[str], scenario: Scenario, offset: int = 0) -> list[str]:
    if FULL:
        return items
    every = 2 if scenario.name == "complete" else 4
    return items[offset % every :: every]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("scenario", MORE, ids=str)
def test_a_step_that_fails_once_is_refused_or_finished(
    scenario: Scenario, error: str, bench: Benches, failures: Failures
) -> None:
    """Rows 10, 12-14, 16: an OSError at any step; then a healthy retry."""
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    for step in thinned(fallible(run.steps()), scenario, ERRORS.index(error)):
        with run.fresh() as space, failures.at(f"{error} at {step}"):
            done = space.run(scenario.command, fault=f"{step}={error}", RECOVERY_MAX_ATTEMPTS="1")
            require_honest(space, done, old, new)
            require_refusal_to_last(space, done, old)
            require_retry(space, done, scenario.command, new)


@pytest.mark.parametrize("scenario", MORE, ids=str)
def test_a_step_that_fails_while_recovering_from_a_crash_loses_nothing(
    scenario: Scenario, bench: Benches, failures: Failures
) -> None:
    """Rows 6, 14: crash, then the next command meets an error at any step of the resolving, then a healthy retry."""
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    for crash in ("stage-synced:1", "journal-synced:1", "replaced:1", "verified:1", "appended:1", "done-mark:1"):
        with run.fresh() as space:
            space.run(scenario.command, fault=f"{crash}=kill-group")
            later = fallible(space.steps(scenario.command))
        for step in later if FULL else later[hash_of(crash) % 6 :: 6]:
            with run.fresh() as space, failures.at(f"killed at {crash}, then EIO at {step}"):
                space.run(scenario.command, fault=f"{crash}=kill-group")
                done = space.run(scenario.command, fault=f"{step}=EIO", RECOVERY_MAX_ATTEMPTS="1")
                require_whole(space, old, new)
                require(done, 0, UNCONFIRMED, *FAILED)
                require_retry(space, done, scenario.command, new)


def hash_of(word: str) -> int:
    return sum(word.encode())


@pytest.mark.parametrize("fault", ["EIO once", "ENOSPC for ever", "SIGKILL"])
@pytest.mark.parametrize("scenario", MORE, ids=str)
def test_any_system_call_may_fail_or_be_the_last(
    scenario: Scenario, fault: str, bench: Benches, failures: Failures
) -> None:
    """Rows 1, 10-16: a real call of the helper fails once, fails from then on, or is where the helper is killed."""
    tracing.require_strace()
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    with run.fresh() as space:
        calls = tracing.calls(space, scenario.command)
    if not FULL:
        offset = {"EIO once": 0, "ENOSPC for ever": 1, "SIGKILL": 2}[fault]
        calls = calls[offset :: 4 if scenario.name == "complete" else 9]
    what = {"EIO once": "error=EIO", "ENOSPC for ever": "error=ENOSPC", "SIGKILL": "signal=SIGKILL"}[fault]
    for call in calls:
        mute = "ever" in fault and call.name == "write"
        with run.fresh() as space, failures.at(f"{fault} at {call}"):
            faulty = tracing.inject(space, call, what, forever="ever" in fault)
            done = space.run(scenario.command, RECOVERY_MAX_ATTEMPTS="1", **faulty)
            if fault == "SIGKILL":
                require(done, -9)
                require_whole(space, old, new)
            else:
                require_honest(space, done, old, new, mute=mute)
            require_retry(space, done, scenario.command, new, mute=mute)


@pytest.mark.parametrize("call", ["fsync", "fdatasync"])
@pytest.mark.parametrize("scenario", MORE, ids=str)
def test_a_failing_fsync_is_never_reported_as_success(
    scenario: Scenario, call: str, bench: Benches, failures: Failures
) -> None:
    """Row 12: whichever fsync fails, and with whichever error, the command doesn't say 0."""
    tracing.require_strace()
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    with run.fresh() as space:
        syncs = [met for met in tracing.calls(space, scenario.command) if met.name == call]
    assert syncs, f"the command never calls {call}"
    for number, met in enumerate(syncs):
        error = ("EIO", "ENOSPC")[number % 2]
        with run.fresh() as space, failures.at(f"{error} at {met}"):
            done = space.run(
                scenario.command, RECOVERY_MAX_ATTEMPTS="1", **tracing.inject(space, met, f"error={error}")
            )
            require(done, UNCONFIRMED, 74)
            require_honest(space, done, old, new)
            require_refusal_to_last(space, done, old)
            require_retry(space, done, scenario.command, new)


@pytest.mark.parametrize("scenario", MORE, ids=str)
def test_a_lock_that_the_kernel_refuses_is_never_done_without(
    scenario: Scenario, bench: Benches, failures: Failures
) -> None:
    """Row 15: ENOLCK on a data lock refuses the command, nothing changed; on a documented lock it is a warning."""
    tracing.require_strace()
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    with run.fresh() as space:
        takes = [met for met in tracing.calls(space, scenario.command) if met.name == "flock" and "LOCK_EX" in met.text]
    for met in takes:
        with run.fresh() as space, failures.at(f"ENOLCK at {met}"):
            done = space.run(scenario.command, RECOVERY_MAX_ATTEMPTS="1", **tracing.inject(space, met, "error=ENOLCK"))
            require_honest(space, done, old, new)
            assert (done.code == 0) == (".locks/" in met.text), f"{done}"
            require_retry(space, done, scenario.command, new)


@pytest.mark.parametrize("scenario", MORE, ids=str)
def test_a_write_cut_short_by_a_size_limit_is_refused(scenario: Scenario, bench: Benches, failures: Failures) -> None:
    """Rows 10, 55: RLIMIT_FSIZE cuts a write short at any place; old, or new, and a retry without the limit works."""
    run = bench(scenario)
    old, new = run.after(), run.after(scenario.command)
    sizes = sorted({len(data) for data in {**old.data, **new.data}.values()})
    limits = {0, 1, 40, 400, 1000, 4096, 8191, 8192, 8300, 12288, 65535, 65536}
    for size in sorted(limits | {size + extra for size in sizes for extra in (-1, 0)}):
        with run.fresh() as space, failures.at(f"no file longer than {size} bytes"):
            with tracing.limited(space, size) as environment:
                done = space.run(scenario.command, RECOVERY_MAX_ATTEMPTS="1", **environment)
            require_honest(space, done, old, new)
            require_retry(space, done, scenario.command, new)


@pytest.mark.parametrize("scenario", MORE, ids=str)
def test_what_a_power_cut_may_not_reorder_is_synced_in_order(scenario: Scenario, bench: Benches) -> None:
    """Row 9: stages, then the journal, then the renames, then their folders, then the log, then the done mark.

    After ALICE (OSDI 2014): a rename is durable with its folder, and what it names must have been durable before.
    """
    tracing.require_strace()
    with bench(scenario).fresh() as space:
        calls = tracing.order(space, scenario.command)
    commit = calls.index(("fdatasync", "data/journal"))
    done = len(calls) - 1 - calls[::-1].index(("fdatasync", "data/journal"))
    assert commit < done, "the journal is synced at the commit point and at the end"
    assert calls.index(("pwrite64", "data/journal@8192")) < commit, "the record is written before it is synced"
    replaced = [n for n in range(commit, done) if calls[n][0] == "renameat" and "checkpoints" not in calls[n][1]]
    assert replaced, "nothing was replaced behind the commit point"
    early = [path for call, path in calls[:commit] if call == "renameat" and ".backup_" not in path]
    assert early == [], "replaced before the commit point"
    last_write = {path: n for n, (call, path) in enumerate(calls) if call == "write"}
    for path, n in last_write.items():
        if path.endswith(".stage") and "checkpoints" not in path:
            assert ("fsync", path) in calls[n:commit], f"{path} is not synced before the commit point"
    for n in replaced:
        folder = calls[n][1].rpartition("/")[0]
        assert ("fsync", folder) in calls[n:done], f"the folder of {calls[n][1]} is not synced after the rename"
    (log,) = [n for n in range(commit, done) if calls[n][0] == "write" and calls[n][1].startswith("data/changes/")]
    assert log > max(replaced), "the change is in the log before all of it was done"
    synced = calls.index(("fdatasync", calls[log][1]), log)
    mark = max(n for n in range(done) if calls[n] == ("pwrite64", "data/journal@0"))
    assert synced < mark < done, "the log is synced before the journal forgets, and the mark at the end"
