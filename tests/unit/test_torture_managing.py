"""The trials of the recovery manager: each holds for it as it is, and fails for a broken one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from recovery import breaker, budget, layout, protect
from recovery.once import Call
from recovery.store import FileStore, Held
from recovery.torture import managing
from recovery.torture.operations import Benches
from recovery.torture.runner import warm_up
from recovery.torture.scratch import Violation


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    """With the states made beforehand, by the suite as it is."""
    warm_up()
    made = Benches(tmp_path_factory.mktemp("managing"))
    made.named("complete-object").prepare()
    return made


@pytest.fixture(autouse=True)
def nothing_left(benches: Benches) -> Iterator[None]:
    yield
    assert [name for name in os.listdir(benches.folder) if "-template" not in name] == []


@pytest.mark.parametrize("name", managing.TRIALS)
def test_the_manager_as_it_is_holds(benches: Benches, name: str) -> None:
    for number in range(5):
        managing.TRIALS[name](benches, Random(f"{name} {number}"))
        assert benches.doing not in ("", name), "what was tried is not said"


def fails(benches: Benches, name: str, tries: int = 20) -> str:
    for number in range(tries):
        try:
            managing.TRIALS[name](benches, Random(f"{name} {number}"))
        except Violation as error:
            return str(error)
    raise AssertionError(f"{name} holds for a manager that is broken")


def test_a_call_that_is_not_noted_before_it_is_made_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "start", lambda self: None)
    assert "called 2 times" in fails(benches, "call at most once")


def test_a_second_guess_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Call.took_effect
    monkeypatch.setattr(
        Call, "took_effect", lambda self, verify, since: verify is not None and honest(self, verify, since)
    )
    assert "called 2 times" in fails(benches, "call at most once")


def test_a_half_open_breaker_that_lets_all_in_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker.CircuitBreaker, "_take_probe", lambda self, number: None)
    honest = breaker.CircuitBreaker.enter

    def enter(self: breaker.CircuitBreaker) -> breaker.Ticket:
        try:
            return honest(self)
        except breaker.CircuitOpen:
            return breaker.Ticket(self, ("", 0))

    monkeypatch.setattr(breaker.CircuitBreaker, "enter", enter)
    assert "at a half-open breaker" in fails(benches, "half-open breaker")


def test_a_breaker_without_its_lock_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileStore, "lock", lambda self, names, create=False: Held(self, ()))
    assert "wait:1, ended before" in fails(benches, "counted failures")


class Unlocked:
    """A store whose locks keep nobody out."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name == "lock":
            return lambda names, create=False: Held(self._store, ())
        return getattr(self._store, name)


def test_a_budget_without_its_lock_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = budget.spend
    monkeypatch.setattr(budget, "spend", lambda store, *rest, **more: honest(Unlocked(store), *rest, **more))  # type: ignore[arg-type]
    assert fails(benches, "retry budget")


def test_an_escalation_that_is_overwritten_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = layout.escalation
    monkeypatch.setattr(layout, "escalation", lambda task, number, folder: honest(task, 0, folder))
    assert "are there" in fails(benches, "escalations")


def test_files_that_are_put_back_whole_are_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protect, "_with_commits", lambda name, text, meanwhile: text)
    assert fails(benches, "protected files")
