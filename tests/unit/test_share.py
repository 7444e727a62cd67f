"""Who gets what: by name, by expertise, by what everybody has to do already; nothing lost, nothing twice."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery import errors, share, tasks
from recovery.backlog import Item
from recovery.durable import Version
from recovery.share import Agent


def item(
    task: str, priority: str = "MEDIUM", wants: tuple[str, ...] = (), agent: str = "", hours: float | None = None
) -> Item:
    made = Item(task, f"title of {task}")
    made.priority, made.wants, made.agent, made.hours = priority, list(wants), agent, hours
    return made


def given_out(placed: list[share.Placed]) -> list[tuple[str, str]]:
    return [(one.item.task, one.agent) for one in placed]


def outbox(text: str) -> tasks.Outbox:
    return tasks.Outbox("o", Version(text, "", os.stat_result((0o644, 0, 0, 1, 0, 0, 0, 0, 0, 0))))


def test_the_most_urgent_goes_first_then_in_order() -> None:
    items = [item("a", "LOW"), item("b", "HIGH"), item("c", "CRITICAL"), item("d", "HIGH")]
    assert [one.task for one in share.order(items)] == ["c", "b", "d", "a"]


def test_more_of_the_expertise_counts_more_than_less_to_do() -> None:
    agents = [Agent("IDLE"), Agent("ONE", ["css"]), Agent("TWO", ["css", "Web Design"], 100.0)]
    assert given_out(share.share([item("a", wants=("css", "web-design"))], agents)) == [("a", "TWO")]


def test_what_was_given_out_before_counts_as_work() -> None:
    """Equal agents take turns; a task without an estimate weighs an hour, one that is done nothing."""
    agents = [Agent("A"), Agent("B")]
    items = [item("1", hours=2), item("2"), item("3"), item("4")]
    assert given_out(share.share(items, agents)) == [("1", "A"), ("2", "B"), ("3", "B"), ("4", "A")]
    for one in items:
        one.status = "completed"
    assert given_out(share.share(items, agents)) == [("1", "A"), ("2", "A"), ("3", "A"), ("4", "A")]


def test_who_is_named_gets_it_also_when_resting() -> None:
    agents = [Agent("A"), Agent("R", resting="retired")]
    assert given_out(share.share([item("1", agent="R"), item("2")], agents)) == [("1", "R"), ("2", "A")]
    with pytest.raises(errors.NotFound, match="X, and there is no such agent"):
        share.share([item("1", agent="X")], agents)
    with pytest.raises(errors.NotFound):
        share.share([item("1")], [Agent("R", resting="retired")])


def test_what_nobody_can_goes_to_the_idlest_with_a_note_or_is_refused() -> None:
    agents = [Agent("A", ["x"], 3.0), Agent("B", load=2.0)]
    (placed,) = share.share([item("1", wants=("y",))], agents)
    assert (placed.agent, placed.note) == ("B", "nobody has its expertise (y)")
    with pytest.raises(errors.DataError):
        share.share([item("1", wants=("y",))], agents, strict=True)


def test_load_and_expertise_are_read_from_the_outbox() -> None:
    """Open hours, an hour for what has no sensible estimate; completed, cancelled and deferred work weighs nothing."""
    text = """{"expertise": ["Testing", 3, "gr\\u00f6\\u00dfe"], "status": "Retired since May", "tasks": [
      {"task_id": "1", "status": "pending", "estimated_hours": 2.5}, {"task_id": "2"},
      {"task_id": "3", "status": "in_progress", "estimated_hours": "long"},
      {"task_id": "4", "status": "in_progress", "estimated_hours": -4},
      {"task_id": "5", "status": "Completed", "estimated_hours": 90},
      {"task_id": "6", "status": "cancelled"}, {"task_id": "7", "status": "deferred"}]}"""
    agent = share.agent_of("A", outbox(text))
    assert (agent.load, agent.expertise, agent.resting) == (5.5, {"testing", "größe".casefold()}, "Retired since May")
    plain = share.agent_of("B", outbox('{"expertise": "all", "status": "active", "tasks": []}'))
    assert (plain.load, plain.expertise, plain.resting) == (0.0, set(), "")


words = st.sampled_from(["css", "api", "testing", "ops"])
items = st.lists(
    st.tuples(st.sampled_from(tasks.PRIORITIES), st.lists(words, max_size=3), st.none() | st.floats(0.5, 9)),
    max_size=12,
)
crowd = st.lists(st.tuples(st.lists(words, max_size=3), st.floats(0, 20), st.booleans()), min_size=1, max_size=5)


@given(items, crowd)
def test_a_distribution_conserves_tasks_and_is_the_same_again(
    wanted: list[tuple[str, list[str], float | None]], people: list[tuple[list[str], float, bool]]
) -> None:
    """Every task once, to somebody who is at work and whom nobody matches better; by priority; twice alike."""
    todo = [item(f"T-{n}", priority, tuple(wants), hours=hours) for n, (priority, wants, hours) in enumerate(wanted)]
    agents = [
        Agent(f"A{n}", words, load, "retired" if rests and n else "") for n, (words, load, rests) in enumerate(people)
    ]
    placed = share.share(todo, agents)
    assert sorted(one.item.task for one in placed) == sorted(one.task for one in todo)
    ranks = [tasks.PRIORITIES.index(one.item.priority) for one in placed]
    assert ranks == sorted(ranks, reverse=True)
    by_name = {agent.name: agent for agent in agents}
    for one in placed:
        match = {
            name: len(set(one.item.wants) & agent.expertise) for name, agent in by_name.items() if not agent.resting
        }
        assert len([word for word in one.item.wants if word in by_name[one.agent].expertise]) >= match[one.agent]
        assert not by_name[one.agent].resting
    assert given_out(share.share(todo, agents)) == given_out(placed)
    assert [agent.load for agent in agents] == [load for _, load, _ in people]
    if not any(wants for _, wants, _ in wanted):
        loads = {agent.name: agent.load for agent in agents if not agent.resting}
        for one in placed:
            assert loads[one.agent] == min(loads.values())
            loads[one.agent] += share.hours_of(one.item.hours)
