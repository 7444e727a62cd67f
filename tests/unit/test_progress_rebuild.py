"""A rebuilt progress file agrees with a full count, keeps what isn't its own, and needs no second rebuild."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from recovery import jsontext, rebuild, tasks
from recovery.durable import Version
from recovery.rebuild import Task

NOW = "2026-01-01T00:00:00Z"


def progress(text: str) -> tasks.Progress:
    latin = jsontext.to_latin(text)
    return tasks.Progress("p", Version(latin, "", os.stat_result((0o644, 0, 0, 1, 0, 0, 0, 0, 0, 0))))


def rebuilt(text: str, those: list[Task], done: dict[str, list[str]]) -> tuple[str, rebuild.Rebuilt]:
    made = rebuild.rebuild(progress(text), those, done, "", NOW)
    return jsontext.from_latin(jsontext.applied(jsontext.to_latin(text), made.ops)), made


ids = st.sampled_from(["A", "B", "C", "D", "E"])
statuses = st.sampled_from(["pending", "in_progress", "completed", "failed", "odd", "Completed"])
agents = st.sampled_from(["X", "Y"])
outboxes = st.dictionaries(ids, st.tuples(agents, statuses, st.sampled_from(["", "2025-01-01T00:00:00Z"])))
fields = st.fixed_dictionaries(
    {}, optional={"status": statuses, "agent": agents, "completed_at": st.just("then"), "mine": st.integers()}
)
counters = st.dictionaries(
    st.sampled_from(["total_tasks", "completed", "pending", "in_progress", "velocity"]), st.integers(0, 9)
)


@given(
    outboxes,
    st.dictionaries(ids, fields),
    counters,
    st.dictionaries(ids, agents),
    st.booleans(),
    st.sampled_from([None, 2, 4]),
)
def test_it_agrees_with_a_full_count_and_a_second_one_changes_nothing(
    have: dict[str, tuple[str, str, str]],
    listed: dict[str, dict[str, Any]],
    counts: dict[str, int],
    archived: dict[str, str],
    as_list: bool,
    indent: int | None,
) -> None:
    """In both forms: statuses are the outboxes', the counters are counted, other members and entries stay."""
    entries: Any = [{"id": k, **v} for k, v in listed.items()] if as_list else listed
    text = json.dumps({"sprint": "größer", **counts, "tasks": entries}, indent=indent, ensure_ascii=False)
    those = [Task(agent, task, status, f"title {task}", when) for task, (agent, status, when) in have.items()]
    done = {task: [agent] for task, agent in archived.items() if task not in have}
    after, made = rebuilt(text, those, done)
    body = json.loads(after)
    now = {one["id"]: one for one in body["tasks"]} if as_list else body["tasks"]
    assert isinstance(body["tasks"], list) == as_list
    assert now.keys() == listed.keys() | have.keys()
    for task, entry in now.items():
        old = listed.get(task, {})
        status = str(entry.get("status", "pending")).lower()
        if task in have:
            assert status == have[task][1].lower()
            assert entry.get("agent", have[task][0]) == have[task][0]
        elif task in done and old.get("agent", done[task][0]) == done[task][0]:
            assert status == "completed"
        else:
            assert entry == ({"id": task, **old} if as_list else old)
            assert any(task in note for note in made.notes)
        assert entry.get("mine") == old.get("mine")
    all_statuses = [str(one.get("status", "pending")).lower() for one in now.values()]
    for name in counts:
        if name == "velocity":
            assert body[name] == counts[name]
        else:
            assert body[name] == (len(now) if name == "total_tasks" else all_statuses.count(name))
    assert body["sprint"] == "größer"
    again, second = rebuilt(after, those, done)
    assert (again, second.changes) == (after, [])


@given(outboxes, st.dictionaries(ids, fields), st.booleans())
def test_its_inverse_gives_the_very_bytes_back(
    have: dict[str, tuple[str, str, str]], listed: dict[str, dict[str, Any]], as_list: bool
) -> None:
    """What `rollback progress/rebuild` does, where no member was removed (one that was comes back last)."""
    entries: Any = [{"id": k, **v} for k, v in listed.items()] if as_list else listed
    text = json.dumps({"total_tasks": 1, "tasks": entries}, indent=2)
    after, made = rebuilt(text, [Task(a, t, s, t, w) for t, (a, s, w) in have.items()], {})
    assume(all(op.get("after", 0) is not None for op in made.ops))
    back = jsontext.applied(jsontext.to_latin(after), jsontext.inverse(made.ops))
    assert jsontext.from_latin(back) == text


def test_entries_without_a_name_count_too() -> None:
    after, _ = rebuilt('{"total_tasks": 0, "completed": 0, "tasks": [{"status": "completed"}, {"id": "A"}]}', [], {})
    assert json.loads(after)["total_tasks"] == 2
    assert json.loads(after)["completed"] == 1


def test_counters_that_are_no_integers_stay_and_are_told() -> None:
    text = '{"total_tasks": "one", "completed": 1.5, "pending": 99999999999999999999, "tasks": {}}'
    after, made = rebuilt(text, [], {})
    assert after == text
    assert len(made.notes) == 3
