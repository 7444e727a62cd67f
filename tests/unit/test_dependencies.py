"""Which tasks wait for which: decided from values alone."""

from __future__ import annotations

from typing import Any

import pytest

from recovery.dependencies import Candidate, Dependency, Waiting, cycle, dependencies, waits_for


def texts(value: Any) -> list[tuple[str, str]]:
    return [(one.agent, one.task) for one in dependencies(value)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("", []),
        ([], []),
        ("TASK-1", [("", "TASK-1")]),
        (["TASK-168A (security remediation must be complete)"], [("", "TASK-168A")]),
        (["CA/TASK-1", "TASK-2: first"], [("CA", "TASK-1"), ("", "TASK-2")]),
        (["TASK-1, please"], [("", "TASK-1")]),
        (["TASK-1."], [("", "TASK-1")]),
        (["(after lunch)", "../x", "A/B/C", "/T", "-x", " ", 7, None, {"task_id": "T"}], [("", "")] * 9),
    ],
)
def test_a_dependency_is_an_id_perhaps_with_an_agent_before_and_words_behind(
    value: Any, expected: list[tuple[str, str]]
) -> None:
    """Whatever can't be read names no task, and so nobody has it."""
    assert texts(value) == expected


@pytest.mark.parametrize(
    ("text", "whose", "has_own", "expected"),
    [
        ("T", "CC", True, True),
        ("CC/T", "CB", True, True),
        ("T", "CB", False, True),
        ("T", "CB", True, False),  # CB's own is meant
        ("CA/T", "CC", True, False),
        ("T2", "CC", True, False),
    ],
)
def test_a_bare_id_means_the_own_task_first(text: str, whose: str, has_own: bool, expected: bool) -> None:
    """What CC/T is meant by: AGENT/TASK, CC itself, or whoever has no task of that name."""
    assert dependencies(text)[0].names("CC", "T", whose, has_own) is expected


def candidate(**entry: Any) -> Candidate:
    return Candidate(0, {"task_id": "X", **entry})


def test_ready_is_what_waits_for_nothing_but_completed_tasks() -> None:
    """Each thing that is waited for is said with its status; an unknown one as nobody's."""
    known = {"A": "completed", "B": "in_progress", "C": None}

    def status_of(one: Dependency) -> str | None:
        return known[one.task]

    assert waits_for(candidate(), status_of) == []
    assert waits_for(candidate(dependencies=["A"]), status_of) == []
    assert waits_for(candidate(dependencies=["A", "B (soon)", "C", "?!"]), status_of) == [
        "B (in_progress)",
        "C, which nobody has",
        "?!, which nobody has",
    ]
    assert waits_for(candidate(dependencies=["A"], blocked_by=["Z"]), status_of) == ["Z, which failed"]
    assert waits_for(candidate(blocked_by=[]), status_of) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({}, []),
        ({"A": ["A"]}, ["A", "A"]),
        ({"A": ["B"], "B": ["C"], "C": ["A"]}, ["A", "B", "C", "A"]),
        ({"A": ["B"], "B": ["C"], "C": ["B"]}, []),  # it waits for a circle, but is not in it
        ({"A": ["B", "C"], "B": ["D"], "C": ["A"], "D": []}, ["A", "C", "A"]),
        ({"A": ["B", "C"], "B": ["D"], "C": ["D"], "D": []}, []),
    ],
)
def test_a_circle_is_the_way_from_a_task_back_to_itself(after: dict[str, list[str]], expected: list[str]) -> None:
    """None is found where there is none, and a long one costs no recursion."""
    assert cycle("A", after) == expected
    long = {str(n): [str(n + 1)] for n in range(5000)} | {"5000": ["0"]}
    assert len(cycle("0", long)) == 5002


def test_the_order_is_priority_then_age_then_place() -> None:
    """Any case; no priority counts as MEDIUM, no date as the oldest."""
    waiting = Waiting()
    entries = [
        ("low", {"priority": "low", "created_at": "2020"}),
        ("new", {"priority": "High", "created_at": "2025-02-01T00:00:00Z"}),
        ("odd", {"priority": "urgent!", "created_at": "2025"}),
        ("old", {"priority": "HIGH", "created_at": "2025-01-01T00:00:00Z"}),
        ("none", {}),
        ("critical", {"priority": "critical", "created_at": "2026"}),
        ("dateless", {"priority": "HIGH"}),
        ("done", {"priority": "CRITICAL", "status": "Completed"}),
        ("../x", {}),
    ]
    for number, (task, more) in enumerate(entries):
        waiting(number, {"task_id": task, **more})
    waiting(99, {"title": "no id"})
    assert [one.task for one in waiting.in_order()] == ["critical", "dateless", "old", "new", "none", "odd", "low"]
    assert waiting.status["done"] == "completed"
