"""Backlogs are read whole or refused with their place; circles of dependencies are found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery import backlog, errors, jsontext, layout
from recovery.backlog import as_id, prefix_of
from recovery.sources import Source


def source(text: str | bytes) -> Source:
    return Source("b.json", text.encode() if isinstance(text, str) else text)


def test_all_words_for_the_same_thing_are_understood() -> None:
    """`task_id`, `estimated_hours`, `skills`, `depends_on` and `assigned_to` say what `id`, `hours` … do."""
    plain = (
        '[{"id": "A", "title": "t", "priority": "low", "hours": 2, "expertise": ["x"],'
        ' "dependencies": ["B"], "agent": "CC"}]'
    )
    other = (
        '{"tasks": [{"task_id": "A", "title": "t", "priority": "LOW", "estimated_hours": 2, "expertise": ["x"],'
        ' "depends_on": ["B"], "assigned_to": "CC"}]}'
    )
    (one,), (two,) = backlog.read(source(plain)), backlog.read(source(other))
    assert one.entry("now") == two.entry("now")
    assert (one.agent, two.agent) == ("CC", "CC")
    assert one.entry("now") == {
        "task_id": "A",
        "title": "t",
        "priority": "LOW",
        "status": "pending",
        "created_at": "now",
        "estimated_hours": 2,
        "dependencies": ["B"],
        "expertise": ["x"],
    }


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=5), st.floats(-1e9, 1e9)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
        max_leaves=8,
    )
)
def test_other_members_go_along_as_they_are(value: object) -> None:
    """Whatever JSON stands under a name of its own comes out of the entry as the same JSON."""
    text = json.dumps([{"id": "A", "title": "t", "mine": value}], ensure_ascii=False)
    (item,) = backlog.read(source(text))
    assert json.loads(jsontext.pretty(item.entry("now")["mine"])) == value


@pytest.mark.parametrize("named", ['"../../x"', '""', "7", '"' + "x" * 65 + '"', '"a b"'])
def test_what_is_no_name_of_a_check_is_refused_with_its_place(named: str) -> None:
    with pytest.raises(errors.DataError, match=r"b\.json.*line 1, column 45"):
        backlog.read(source('[{"id": "A", "title": "t", "checks": ["ok", ' + named + "]}]"))


def test_checks_are_a_list_and_go_along() -> None:
    with pytest.raises(errors.DataError, match="`checks` is not a list"):
        backlog.read(source('[{"id": "A", "title": "t", "checks": "tests"}]'))
    with pytest.raises(errors.DataError, match="at most 100 checks"):
        backlog.read(source(json.dumps([{"id": "A", "title": "t", "checks": [f"c{n}" for n in range(101)]}])))
    (item,) = backlog.read(source('[{"id": "A", "title": "t", "checks": ["tests"]}]'))
    assert item.entry("now")["checks"] == ["tests"]


@given(st.text())
def test_a_strict_reading_agrees_with_the_json_module_or_refuses(text: str) -> None:
    """What is read is what `json` reads; what `json` refuses is refused, and its NaN and Infinity are."""

    def none(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        expected = json.loads(text, parse_constant=none)
    except ValueError:
        with pytest.raises(errors.DataError):
            source(text.encode("utf-8", "replace")).json()
        return
    assert source(text).json() == expected


def test_a_refusal_names_file_line_and_column() -> None:
    with pytest.raises(
        errors.DataError, match=r"b\.json: a task has no `title` \(line 2, column 4\)\. Nothing changed\."
    ):
        backlog.read(source('[\n   {"id": "A"}]'))


@given(st.text(max_size=20))
def test_a_prefix_is_an_id_or_nothing(name: str) -> None:
    for made in (prefix_of(name), prefix_of("/a/b/" + name), as_id(name)):
        assert made == "" or layout.is_id(made)


def test_a_note_of_many_files_stays_short() -> None:
    """A lock's note may not outgrow what a later one covers; few names are kept as they are."""
    few = ["postbox/A/outbox.json", ".sprint/progress.json"]
    many = [layout.inbox("A", f"T-{n}") for n in range(500)]
    assert layout.for_note([*few, *many]) == [*few, "postbox/A/inbox/*"]
    assert layout.for_note(many[:3]) == many[:3]
