"""The trials of meetings, kills and terminations: each holds for the suite as it is, and fails for a broken one."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from recovery import commit, finish, jsontext, resolve, rollback, store, undo
from recovery.journal import Record
from recovery.torture import kills, meetings
from recovery.torture.operations import Benches
from recovery.torture.runner import warm_up
from recovery.torture.scratch import Violation

TRIALS: dict[str, Callable[[Benches, Random], None]] = {
    **meetings.TRIALS,
    "terminate": kills.terminate,
    "kill twice": kills.kill_twice,
    "kill a script": kills.kill_script,
}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    """With the states made beforehand, by the suite as it is."""
    warm_up()
    made = Benches(tmp_path_factory.mktemp("meetings"))
    made.prepare()
    return made


@pytest.fixture(autouse=True)
def nothing_left(benches: Benches) -> Any:
    yield
    assert [name for name in os.listdir(benches.folder) if "-template" not in name] == []


@pytest.mark.parametrize("name", TRIALS)
def test_the_suite_as_it_is_holds(benches: Benches, name: str) -> None:
    for number in range(6):
        TRIALS[name](benches, Random(f"{name} {number}"))


def fails(benches: Benches, name: str, tries: int = 40) -> str:
    for number in range(tries):
        try:
            TRIALS[name](benches, Random(f"{name} {number}"))
        except Violation as error:
            return str(error)
    raise AssertionError(f"{name} holds for a suite that is broken")


def test_a_record_that_is_not_read_again_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """The late resolver goes by what it had seen before it waited."""
    real = store.FileStore.unfinished
    seen: list[Record] = []

    def unfinished(self: store.FileStore) -> Record | None:
        if len(seen) == 1:
            seen.append(seen[0])
            return seen[0]
        record = real(self)
        seen.extend([record] if record is not None and not seen else [])
        return record

    monkeypatch.setattr(store.FileStore, "unfinished", unfinished)
    assert fails(benches, "late resolver", 4)


def test_an_undo_that_puts_a_backup_over_newer_work_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    real = finish.restage

    def restage(space: Any, place: Any, file: Any, data: Any) -> str:
        for name in os.listdir(place.folder):
            if name.startswith(place.base + ".backup_"):
                fd = os.open(name, os.O_RDONLY, dir_fd=place.folder)
                with open(fd, "rb") as kept:
                    data = (kept.read(),)
        return real(space, place, file, data)

    monkeypatch.setattr(undo, "restage", restage)
    assert "is lost" in fails(benches, "newer work")


def test_a_rollback_to_what_was_read_before_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "jsontext", Blind())
    assert fails(benches, "rollback over another's value")


class Blind:
    """A `jsontext` that never sees somebody else's value."""

    def __getattr__(self, name: str) -> Any:
        if name == "standing":
            return lambda *_: "after"
        return getattr(jsontext, name)


def test_a_rollback_of_whole_files_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    real = commit._Work._bytes

    def whole(self: Any, edit: Any) -> Any:
        if self.change.op == "rollback" and edit.name.endswith("outbox.json"):
            return (benches.named("complete-object").old.data[edit.name],)
        return real(self, edit)

    monkeypatch.setattr(commit._Work, "_bytes", whole)
    assert fails(benches, "rollback under newer work")


def test_a_backup_that_is_overwritten_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "put_away", lambda place: None)
    assert "gone" in fails(benches, "older backup")


def test_signals_that_are_not_deferred_are_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (finish, commit, resolve):
        monkeypatch.setattr(module, "defer_signals", lambda: None)
        monkeypatch.setattr(module, "undefer_signals", lambda mask: None)
    assert fails(benches, "terminate", 12)


def test_dead_owners_that_nobody_looks_for_are_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.FileStore, "unfinished", lambda self: None)
    assert fails(benches, "kill twice")
