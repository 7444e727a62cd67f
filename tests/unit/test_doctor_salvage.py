"""Whatever was done to an outbox: every whole object comes back, every readable field of a cut one, nothing is guessed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import damage, jsontext, mend, salvage
from recovery.evidence import Evidence

BOX: dict[str, Any] = {
    "agent_id": "CC",
    "expertise": ["testing", "größe"],
    "tasks": [
        {
            "task_id": "T-1",
            "title": 'Write the notes: {a}, [b] \\ "c"',
            "priority": "HIGH",
            "status": "in_progress",
            "estimated_hours": 2.5,
            "context": {"goal": "ship", "parts": [1, 22, {"deep": None}]},
            "deliverables": ["one", "zwei, drei", "鍵"],
        },
        {"task_id": "T-2", "title": "Load tests", "priority": "LOW", "status": "pending", "blocked": False},
        {
            "task_id": "T-3",
            "title": "Ende",
            "status": "completed",
            "completion_message": "all\ngreen",
            "n": 12345678901234567890,
        },
    ],
    "history": [
        {"task_id": "T-0", "timestamp": "2025-05-30T18:45:00Z", "status": "completed", "summary": "done"},
        {"task_id": "T-00", "timestamp": "2025-05-30T18:46:00Z", "report": {"files": ["a.py", "b.py"]}},
    ],
    "metadata": {"total": 2},
}


def text_of(box: Any, indent: int | None) -> bytes:
    return (json.dumps(box, indent=indent, ensure_ascii=False) + "\n").encode()


def mended(data: bytes, known: Evidence | None = None) -> dict[str, Any]:
    """The outbox that is made of some bytes: always one that the commands accept."""
    made = mend.outbox("CC", salvage.read(data), known or Evidence())
    new = made.text.encode("latin-1")
    assert damage.whole_outbox(new) is not None
    body: dict[str, Any] = json.loads(new)
    return body


class Spans:
    """Where each task, each entry of the history, and each of a task's members ends in a healthy file."""

    def __init__(self, data: bytes) -> None:
        text = data.decode("latin-1")
        top = jsontext.document(text)
        self.tasks = list(self._items(text, top, "tasks"))
        self.history = list(self._items(text, top, "history"))

    def _items(
        self, text: str, top: jsontext.Node, key: str
    ) -> Iterator[tuple[Any, int, int, list[tuple[str, int, int]]]]:
        span = top.span(key)
        assert span is not None
        for _, _, start, end in jsontext.node_at(text, span[0]).items:
            members = [(name, a, z) for name, a, _, z in jsontext.node_at(text, start).items]
            yield json.loads(text[start:end].encode("latin-1")), start, end, members


def require_there(body: dict[str, Any], data: bytes, hurt: range) -> None:
    """Every object outside of `hurt` is there as it was; of one inside, the members before it."""
    spans = Spans(data)
    aside = body.get(mend.ASIDE, [])
    entries = [entry for value in body.values() if isinstance(value, list) for entry in value]
    for place, those in (([*body["tasks"], *aside], spans.tasks), (entries, spans.history)):
        for value, start, end, members in those:
            if end <= hurt.start or start >= hurt.stop:
                assert value in place, value
                continue
            readable = {name: value[name] for name, _, stop in members if stop < hurt.start}
            assert any(holds(entry, readable) for entry in entries) or not readable, readable


def holds(entry: Any, members: dict[str, Any]) -> bool:
    return isinstance(entry, dict) and all(key in entry and entry[key] == value for key, value in members.items())


@pytest.mark.parametrize("indent", [2, 4, None])
def test_a_file_cut_at_any_byte_gives_back_all_that_stood_before(indent: int | None) -> None:
    data = text_of(BOX, indent)
    for size in range(len(data) - 1):
        body = mended(data[:size])
        require_there(body, data, range(size, len(data)))


@pytest.mark.parametrize("indent", [2, None])
def test_a_tail_of_nuls_is_as_good_as_a_cut(indent: int | None) -> None:
    data = text_of(BOX, indent)
    for size in range(0, len(data) - 1, 7):
        body = mended(data[:size] + b"\0" * (len(data) - size))
        require_there(body, data, range(size, len(data)))


@pytest.mark.parametrize("indent", [2, 4])
def test_one_byte_that_fell_over_costs_no_other_object(indent: int | None) -> None:
    data = text_of(BOX, indent)
    chance = random.Random(6)
    for at in range(len(data) - 1):
        for bit in chance.sample(range(8), 2):
            hurt = bytearray(data)
            hurt[at] ^= 1 << bit
            if damage.whole_outbox(bytes(hurt)) is not None:
                continue  # it still is an outbox, one that says something else: nobody can see that
            body = mended(bytes(hurt))
            require_there(body, data, range(at, at + 1))
