"""Check lists: what is an item, what it belongs to, and an id that outlives edits of the list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery import checklist, errors, taskmaster
from recovery.sources import Source


def read(text: str) -> list[tuple[str, str, str, str, str]]:
    """Title, status, priority, own id and parent's of each."""
    found = checklist.read(Source("T.md", text.encode()))
    return [(i.title, i.status, i.priority, ident, i.more.get("parent", "")) for ident, i in found]


def test_the_parent_is_the_nearest_item_that_is_indented_less() -> None:
    a, b, c, d, e = read("- [ ] a\n    - [ ] b\n        - [ ] c\n\t- [ ] d\n- [ ] e\n")
    assert (a[4], b[4], c[4], d[4], e[4]) == ("", a[3], b[3], a[3], "")


@pytest.mark.parametrize("marker", ["-", "*", "+", "1.", "2)", "999999999."])
@pytest.mark.parametrize(("box", "status"), [(" ", "pending"), ("x", "completed"), ("X", "completed")])
def test_every_marker_and_box_of_the_format_is_read(marker: str, box: str, status: str) -> None:
    assert read(f"{marker} [{box}] text\r\n")[0][:3] == ("text", status, "MEDIUM")


@pytest.mark.parametrize(
    ("text", "title", "priority"),
    [
        ("a (P0)", "a", "CRITICAL"),
        ("(p1) a", "a", "HIGH"),
        ("a !Medium b", "a b", "MEDIUM"),
        ("a (P3).", "a (P3).", "MEDIUM"),
        ("a !lower", "a !lower", "MEDIUM"),
        ("a (P1) !high", "a", "HIGH"),
    ],
)
def test_a_priority_is_a_word_of_its_own(text: str, title: str, priority: str) -> None:
    assert read(f"- [ ] {text}")[0][:3:2] == (title, priority)


@pytest.mark.parametrize(
    "text",
    [
        "text",
        "- text",
        "- [x](y)",
        "- [link](y)",
        "- [ab] c",
        "x - [ ] a",
        "```\n- [ ] a\n```",
        "~~~~\n- [ ] a\n~~~\n- [ ] b",
    ],
)
def test_everything_else_is_passed_over(text: str) -> None:
    assert read(text) == []


lines = st.lists(st.sampled_from(["one", "two", "three", "größe"]), min_size=1, max_size=8)


@given(lines, st.data())
def test_ids_are_unique_and_stay_when_the_list_is_ticked_off_moved_and_made_longer(
    texts: list[str], data: st.DataObject
) -> None:
    """The multiset of words decides the ids: any order, any boxes, more items before and behind."""
    before = {one[3] for one in read("".join(f"- [ ] {text}\n" for text in texts))}
    assert len(before) == len(texts)
    moved = data.draw(st.permutations([*texts, "new", "newer"]))
    boxes = data.draw(st.lists(st.sampled_from(" xX"), min_size=len(moved), max_size=len(moved)))
    after = {
        one[3] for one in read("# Plan\n\n" + "".join(f"* [{b}] {t} !low\n" for b, t in zip(boxes, moved, strict=True)))
    }
    assert before < after


@given(st.text("-*[] x1.(P)!low#\n`~", max_size=40))
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    try:
        found = read(text)
    except errors.DataError as refusal:
        found, said = [], str(refusal)
        assert "line " in said
    for title, *_ in found:
        assert title == title.strip() != ""


def test_a_number_in_a_subtask_means_a_sibling_where_there_is_one() -> None:
    """Task Master's rule; a string with a dot is the full number."""
    text = b"""{"tasks": [{"id": 1, "title": "a"}, {"id": 7, "title": "b", "dependencies": ["1"], "subtasks": [
      {"id": 1, "title": "c", "dependencies": ["7.2"]}, {"id": 2, "title": "d", "dependencies": [3, 1]},
      {"id": 3, "title": "e"}]}]}"""
    source = Source("t.json", text)
    found, _ = taskmaster.read(source, source.json())
    assert {number: one.dependencies for number, one in found} == {
        "1": [],
        "7": ["1", "7.1", "7.2", "7.3"],
        "7.1": ["7.2", "1"],
        "7.2": ["7.3", "7.1", "1"],
        "7.3": ["1"],
    }


def test_a_number_with_a_dot_is_refused() -> None:
    """1.10 and 1.1 are one number and two subtasks."""
    source = Source("t.json", b'{"tasks": [{"id": 1, "title": "a", "dependencies": [1.10]}]}')
    with pytest.raises(errors.DataError, match="whole number"):
        taskmaster.read(source, source.json())
