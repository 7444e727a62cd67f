"""A chain of receipts: whatever part of it is changed, left out or moved, `receipts verify` finds it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery import chain
from recovery.checkfile import canonical, sha256_of
from recovery.jsontext import BadJSON

AGENT = "CC"
TASKS = ("T-1", "T-2", "T-3", "T-4")

Line = dict[str, Any]


class Kept:
    """An agent's chain, records and entries, as they stand after some completions and undos."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.records: dict[str, Any] = {}
        self.entries: dict[str, dict[str, Any]] = {}

    def _append(self, kind: str, task: str, **content: Any) -> Line:
        number = len(self.lines) + 1
        receipt = {
            "format": 1,
            "kind": kind,
            "number": number,
            "agent": AGENT,
            "task": task,
            "txid": f"20260101T000000Z-{number:012x}",
            "time": f"2026-01-01T00:00:{number:02}Z",
            **content,
            "previous": self.lines[-1]["hash"] if self.lines else None,
        }
        self.lines.append({"txid": receipt["txid"], "hash": sha256_of(receipt), "receipt": receipt})
        return self.lines[-1]

    def complete(self, task: str) -> None:
        record = {"task_id": task, "agent_id": AGENT, "status": "completed", "completion_message": f"dóne {task}"}
        result = {
            "check": "tests",
            "sha256": "c" * 64,
            "code": 0,
            "began": "2026-01-01T00:00:00Z",
            "seconds": 1.25,
            "output_bytes": 3,
            "output_sha256": "d" * 64,
            "tree": "git:" + "a" * 64,
            "tree_after": "git:" + "b" * 64,
            "revision": "e" * 40,
            "dirty": True,
        }
        line = self._append("completed", task, **chain.content(record, [result], "f" * 64))
        self.records[task] = {**record, "receipt": copy.deepcopy(line["receipt"])}
        self.entries[task] = {"status": "completed", "completion_message": f"dóne {task}"}

    def undo(self, task: str) -> None:
        self._append("revoked", task, revokes=chain.standing(self.lines)[task]["hash"])
        del self.records[task]
        self.entries[task] = {"status": "pending"}

    def redo(self, task: str, record: dict[str, Any]) -> None:
        """Undo the last undo: the record is there again, as it was."""
        self._append("restored", task, restores=self.lines[-1]["receipt"]["revokes"])
        self.records[task], self.entries[task] = record, {"status": "completed"}

    def findings(self, head: Line | None = None, number: int | None = None) -> list[str]:
        last = head or (self.lines[-1] if self.lines else {"hash": None})
        count = len(self.lines) if number is None else number
        return chain.findings(AGENT, last["hash"], count, self.lines, 0, self.records, self.entries)


@pytest.fixture
def kept() -> Kept:
    """Three tasks completed, the second undone and completed again, the third undone."""
    one = Kept()
    for task in TASKS[:3]:
        one.complete(task)
    one.undo("T-2")
    one.complete("T-2")
    one.undo("T-3")
    assert one.findings() == []
    return one


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document that is neither object nor list."""
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from leaves(part, (*path, index))
    else:
        yield path


def other(value: Any) -> Any:
    """Something else of the same kind."""
    if isinstance(value, bool):
        return not value
    if value is None:
        return "0" * 64
    return value + 1 if isinstance(value, (int, float)) else value + "x"


def change_at(document: Any, path: tuple[Any, ...]) -> None:
    for step in path[:-1]:
        document = document[step]
    document[path[-1]] = other(document[path[-1]])


def test_every_value_of_every_receipt_that_is_changed_is_found(kept: Kept) -> None:
    """One value of one line at a time."""
    paths = list(leaves(kept.lines))
    assert len(paths) > 60
    head = copy.deepcopy(kept.lines[-1])
    for path in paths:
        hurt = copy.deepcopy(kept)
        change_at(hurt.lines, path)
        assert hurt.findings(head), f"{path} was changed and not found"


def test_every_value_of_every_completion_record_that_is_changed_is_found(kept: Kept) -> None:
    for path in leaves(kept.records):
        hurt = copy.deepcopy(kept)
        change_at(hurt.records, path)
        assert hurt.findings(), f"{path} was changed and not found"


def test_a_receipt_changed_together_with_its_hash_is_found_by_the_next_or_by_the_head(kept: Kept) -> None:
    head = copy.deepcopy(kept.lines[-1])
    for index in range(len(kept.lines)):
        hurt = copy.deepcopy(kept)
        hurt.lines[index]["receipt"]["time"] = "2025-01-01T00:00:00Z"
        hurt.lines[index]["hash"] = sha256_of(hurt.lines[index]["receipt"])
        assert hurt.findings(head), index


@pytest.mark.parametrize("index", range(6))
def test_a_receipt_that_is_missing_is_found(kept: Kept, index: int) -> None:
    head = copy.deepcopy(kept.lines[-1])
    del kept.lines[index]
    assert kept.findings(head, 6)


def test_a_head_that_is_gone_or_says_something_else_is_found(kept: Kept) -> None:
    assert chain.findings(AGENT, None, 0, kept.lines, 0, kept.records, kept.entries)
    assert kept.findings(kept.lines[-2], 5)
    assert kept.findings(number=7)


@given(st.permutations(range(6)))
def test_receipts_in_another_order_are_found(order: list[int]) -> None:
    one = Kept()
    for task in ("T-1", "T-2", "T-3"):
        one.complete(task)
    one.undo("T-1")
    one.complete("T-1")
    one.complete("T-4")
    head = one.lines[-1]
    one.lines = [one.lines[index] for index in order]
    assert bool(one.findings(head)) == (order != sorted(order))


@given(st.lists(st.tuples(st.sampled_from(TASKS), st.booleans()), max_size=30))
def test_any_run_of_completions_and_undos_fits(steps: list[tuple[str, bool]]) -> None:
    """And of each task exactly the last completion that was not undone holds."""
    one = Kept()
    for task, undo in steps:
        if undo and task in one.records:
            one.undo(task)
        elif not undo and task not in one.records:
            one.complete(task)
    assert one.findings() == []
    assert set(chain.standing(one.lines)) == set(one.records)
    assert all(chain.passed(line) == {"tests"} for line in chain.standing(one.lines).values())


def test_a_record_without_its_receipt_and_a_receipt_without_its_record_are_found(kept: Kept) -> None:
    without = copy.deepcopy(kept)
    del without.records["T-1"]["receipt"]
    assert any("not the one in the chain" in what for what in without.findings())
    gone = copy.deepcopy(kept)
    del gone.records["T-1"]
    assert any("no completion record" in what for what in gone.findings())
    unreadable = copy.deepcopy(kept)
    unreadable.records["T-1"] = BadJSON('the key "status" stands there twice')
    assert any("can't be read: the key" in what for what in unreadable.findings())


def test_a_revoked_completion_that_is_shown_completed_is_found(kept: Kept) -> None:
    kept.records["T-3"] = {"status": "completed", "receipt": kept.lines[2]["receipt"]}
    assert any("revoked" in what for what in kept.findings())


def test_an_undo_that_was_undone_lets_the_old_receipt_hold_again(kept: Kept) -> None:
    record = copy.deepcopy(kept.records["T-1"])
    kept.undo("T-1")
    kept.redo("T-1", record)
    assert kept.findings() == []
    assert chain.standing(kept.lines)["T-1"] == kept.lines[0]
    kept.undo("T-1")
    kept.complete("T-1")
    assert kept.findings() == []


def test_an_outbox_that_says_something_else_or_has_lost_the_task_is_found(kept: Kept) -> None:
    kept.entries["T-1"] = {"status": "in_progress"}
    assert any("never undone" in what for what in kept.findings())
    kept.entries["T-1"] = {"status": "Completed", "completion_message": "better"}
    assert any("differ: completion_message" in what for what in kept.findings())
    kept.entries["T-1"] = {"status": "completed"}
    assert kept.findings() == []
    del kept.entries["T-1"]
    assert any("neither the outbox nor its history has the task" in what for what in kept.findings())


def test_an_outbox_that_cannot_be_read_says_nothing_of_any_task(kept: Kept) -> None:
    assert chain.findings(AGENT, kept.lines[-1]["hash"], 6, kept.lines, 0, kept.records, None) == []


def test_a_receipt_of_another_agent_is_found() -> None:
    one = Kept()
    one.complete("T-1")
    assert chain.findings("CA", one.lines[0]["hash"], 1, one.lines, 0, one.records, one.entries)


def test_lines_that_are_torn_or_hold_no_receipt_are_told(kept: Kept) -> None:
    assert any("torn" in what for what in chain.findings(AGENT, None, 0, [], 1, {}, {}))
    kept.lines.insert(0, {"hash": 1, "receipt": []})
    assert kept.findings()


def test_the_canonical_form_is_the_same_whatever_the_order_and_the_layout() -> None:
    assert canonical({"b": [1.5, "é"], "a": None}) == '{"a":null,"b":[1.5,"é"]}'.encode()
