"""The trials of the chores: each holds for cleanup and repair as they are, and fails for broken ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from recovery import cleanup, derived, escalations, quarantine, segments, stats_folded
from recovery.errors import RecoveryError
from recovery.store import FileStore
from recovery.torture import keeping
from recovery.torture.errors import fallible
from recovery.torture.operations import Benches
from recovery.torture.runner import warm_up
from recovery.torture.scratch import Violation

CHORES = {chore.name: chore for chore in keeping.CHORES}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    """With the states made beforehand, by the suite as it is."""
    warm_up()
    made = Benches(tmp_path_factory.mktemp("keeping"))
    for chore in keeping.CHORES:
        keeping.bench_of(made, chore)
    return made


@pytest.fixture(autouse=True)
def nothing_left(benches: Benches) -> Iterator[None]:
    yield
    assert [name for name in os.listdir(benches.folder) if "-template" not in name] == []


def bench_of(benches: Benches, name: str) -> keeping.Bench:
    return keeping.bench_of(benches, CHORES[name])


@pytest.mark.parametrize("name", CHORES)
def test_a_chore_that_is_hurt_at_a_step_loses_nothing_and_is_done_by_the_next(benches: Benches, name: str) -> None:
    """Every ninth of its steps here; the torture goes through all of them."""
    bench = bench_of(benches, name)
    assert len(bench.steps) > 50
    for step in bench.steps[4::9]:
        keeping.kill_at(bench, step)
    for step in fallible(bench.steps)[::12]:
        keeping.error_at(bench, step, "EIO")


@pytest.mark.parametrize("name", keeping.TRIALS)
def test_the_chores_as_they_are_hold(benches: Benches, name: str) -> None:
    for number in range(3):
        keeping.TRIALS[name](benches, Random(f"{name} {number}"))
        assert benches.doing not in ("", name), "what was tried is not said"


def test_what_cannot_be_removed_is_said_and_not_counted_twice(benches: Benches) -> None:
    """Each file that a cleanup removes, in turn: it is there still, and the exit code says so."""
    bench = bench_of(benches, "cleanup")
    for number in range(1, bench.calls["unlink"] + 1):
        keeping.call_error_at(bench, "unlink", number, "EIO")


def found(trial: Any, *args: Any) -> str:
    with pytest.raises(Violation) as caught:
        trial(*args)
    return str(caught.value)


def test_a_cleanup_that_hides_an_error_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(benches, "cleanup")
    honest = cleanup._result

    def hiding(plan: cleanup.Plan, *args: Any) -> Any:
        plan.code = 0
        return honest(plan, *args)

    monkeypatch.setattr(cleanup, "_result", hiding)
    assert "and it says exit 0" in found(keeping.error_at, bench, "rotate:1", "EIO")


def test_statistics_that_forget_a_file_which_is_still_there_are_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetting(store: FileStore, folded: stats_folded.Folded) -> None:
        folded.gone = []
        derived.create(store, "data/folded.json", folded.text())

    monkeypatch.setattr(stats_folded, "_remove", forgetting)
    assert "total_recoveries is" in found(keeping.kill_at, bench_of(benches, "cleanup"), "exit:1")


def test_a_line_that_is_counted_already_and_written_again_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first commit after a reboot, or by `recover`."""
    monkeypatch.setattr(derived, "_is_counted", lambda item, until: False)
    assert "total_recoveries is" in found(keeping.kill_at, bench_of(benches, "cleanup"), "begin:1")


def test_a_log_that_is_lost_while_it_is_compressed_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = segments.compress

    def careless(store: FileStore, name: str) -> bool:
        done = honest(store, name)
        store.discard(name + ".gz")
        return done

    monkeypatch.setattr(segments, "compress", careless)
    assert "are gone from the log" in found(keeping.kill_at, bench_of(benches, "light cleanup"), "exit:1")


def test_a_repair_whose_question_nobody_is_asked_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = escalations.require

    def careless(*args: Any, **more: Any) -> str:
        try:
            return honest(*args, **more)
        except RecoveryError:
            return ""

    monkeypatch.setattr(escalations, "require", careless)
    bench = bench_of(benches, "repair")
    asked = bench.steps[: bench.steps.index("escalated:1")]
    step = [step for step in asked if step.startswith("stage:")][-1]
    assert "doctor_escalation.json" in found(keeping.error_at, bench, step, "EIO")


def test_a_repair_without_its_original_in_quarantine_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "keep", lambda store, name, *rest: f"data/quarantine/{name}")
    assert "its original is nowhere" in found(keeping.kill_at, bench_of(benches, "repair"), "exit:1")
