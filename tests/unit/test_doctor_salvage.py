"""Whatever was done to an outbox: every whole object comes back, every readable field of a cut one; none is a guess."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import damage, jsontext, mend, salvage
from recovery.evidence import Evidence

REAL = Path(__file__).parents[3] / "shared" / "real-postbox"

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


def require_there(body: dict[str, Any], data: bytes, hurt: range, members_too: bool = True) -> None:
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
            if readable and members_too:
                assert any(holds(entry, readable) for entry in entries), readable


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


@pytest.mark.parametrize("indent", [2, 4, None])
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
            # on one line, the damage to a task's last text may reach into the next: that one is whole then, not this
            require_there(body, data, range(at, at + 1), members_too=indent is not None)


# --- documents glued together, and other whole damage

REPORT = {"task_id": "R-1", "timestamp": "2024-03-19T00:00:00Z", "report": {"summary": "sauber", "files": [1, 2]}}


@pytest.mark.parametrize("glue", ["", "\n", "\n\n", ",\n", "\0\0"])
@pytest.mark.parametrize("indent", [2, None])
def test_glued_documents_become_one_and_reports_its_history(glue: str, indent: int | None) -> None:
    other = {**REPORT, "task_id": "R-2"}
    documents = [json.dumps(one, indent=indent, ensure_ascii=False) for one in (REPORT, BOX, other, REPORT)]
    body = mended(glue.join(documents).encode())
    assert body["tasks"] == BOX["tasks"]
    assert body["history"] == [*BOX["history"], REPORT, other]  # the same report twice is one entry
    assert {key: body[key] for key in BOX if key != "history"} == {key: BOX[key] for key in BOX if key != "history"}


@pytest.mark.parametrize("indent", [2, None])
def test_a_torn_outbox_before_a_whole_one_costs_nothing(indent: int | None) -> None:
    """Somebody died while writing, somebody else appended: both are there, and the whole one is what counts."""
    older = {**BOX, "tasks": [*BOX["tasks"], {"task_id": "T-9", "title": "nine", "status": "pending"}]}
    data = text_of(older, indent)
    for size in range(60, len(data), 23):
        body = mended(data[:size].rstrip() + b"\n" + text_of(BOX, indent))
        for entry in BOX["tasks"]:
            assert entry in body["tasks"]
        for entry in BOX["history"]:
            assert entry in body["history"]


@pytest.mark.parametrize("indent", [2, None])
def test_the_rest_of_a_longer_file_behind_a_shorter_one_gives_its_whole_objects(indent: int | None) -> None:
    """Written over without being cut to length."""
    long = text_of({**BOX, "tasks": [*BOX["tasks"], {"task_id": "T-9", "title": "nine", "status": "pending"}]}, indent)
    short = text_of({**BOX, "tasks": BOX["tasks"][:1]}, indent)
    body = mended(short + long[len(short) :])
    ids = [entry.get("task_id") for entry in body["tasks"]]
    assert body["tasks"][0] == BOX["tasks"][0]
    assert len(set(ids)) == len(ids)
    require_there(body, short, range(len(short), len(short)))


def test_both_sides_of_a_merge_are_there_and_what_differs_is_asked() -> None:
    lines = text_of(BOX, 2).decode().split("\n")
    at = next(n for n, line in enumerate(lines) if '"status": "pending"' in line)
    ours, theirs = lines[at], lines[at].replace("pending", "completed")
    lines[at : at + 1] = ["<<<<<<< HEAD", ours, "=======", theirs, ">>>>>>> theirs"]
    made = mend.outbox("CC", salvage.read("\n".join(lines).encode()), Evidence())
    body = json.loads(made.text.encode("latin-1"))
    assert [entry["status"] for entry in body["tasks"]] == ["in_progress", "completed", "completed"]
    (doubt,) = made.doubts
    assert (doubt.task, doubt.key, doubt.kept, doubt.other) == ("T-2", "status", '"completed"', '"pending"')


@pytest.mark.parametrize(
    ("damage_", "flaws"),
    [
        (lambda data: b"\xef\xbb\xbf" + data, ["bom"]),
        (lambda data: data.decode().encode("utf-16"), ["utf-16"]),
        (lambda data: data.decode().encode("utf-16-be"), ["utf-16"]),
        (lambda data: data.replace(b'"parts"', b',"parts"'), ["comma"]),
        (lambda data: data.replace(b'"\xe9\x8d\xb5"', b'"\xe9\x8d\xb5",'), ["trailing-comma"]),
        (lambda data: data.replace(b'"HIGH",', b'"HIGH"'), ["comma"]),
        (lambda data: data.replace(b'"blocked": false', b'"blocked": False'), ["not-json"]),
        (lambda data: data.replace(b'"LOW",', b'"LOW", "priority": "LOW",'), ["duplicate-key"]),
        (lambda data: data.replace(b"all\\ngreen", b"all\ngreen"), ["control"]),
        (lambda data: b"]" + data, ["junk"]),
        (lambda data: data + b"}", ["junk"]),
    ],
)
def test_what_can_mean_one_thing_only_is_put_right_and_nothing_else_changes(damage_: Any, flaws: list[str]) -> None:
    """The bytes around it stay, too."""
    data = text_of(BOX, 2)
    hurt = damage_(data)
    assert hurt != data
    reading = salvage.read(hurt)
    assert [flaw.kind for flaw in reading.flaws] == flaws
    made = mend.outbox("CC", reading, Evidence())
    assert json.loads(made.text.encode("latin-1")) == BOX
    assert not made.doubts
    if flaws not in (["comma"], ["duplicate-key"]):
        assert made.text.encode("latin-1").strip() == data.strip()


def test_numbers_of_any_size_stay_as_they_stand() -> None:
    text = '{"tasks": [{"task_id": "A", "title": "a", "n": [1e400, -0.0, 0.10, %s]},]}' % ("9" * 5000)
    made = mend.outbox("CC", salvage.read(text.encode()), Evidence())
    assert made.text == text.replace(",]}", "]}")
    moved = mend.outbox("CC", salvage.read(b'{"task_id": "R", "n": 1.50}{"task_id": "S", "n": 1E2}'), Evidence())
    assert '"n": 1.50' in moved.text
    assert '"n": 1E2' in moved.text


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ('[{"task_id": "A", "title": "a", "status": "pending"}]', ["A"]),
        ('{"agent_id": "CC", "tasks": {"A": {"title": "a"}, "B": {"title": "b"}}}', ["A", "B"]),
        ('{"agent_id": "CC", "tasks": null}', []),
        ('{"agent_id": "CC", "tasks": "A"}', []),
        ('{"agent_id": "CC", "tbsks": [{"task_id": "A", "title": "a"}]}', ["A"]),
        (
            '{"agent_id": "CC", "tasks": [{"task_id": "A", "title": "a"}], "tasks": [{"task_id": "B", "title": "b"}]}',
            ["B", "A"],
        ),
        ('{"agent_id": "CC", "tasks": ["A", null, {"task_id": "B"}]}', ["B"]),
        ("null", []),
        ("42", []),
        ("", []),
        ('{"tasks": [{"task_id": "A"}, {"task_id": "A", "title": "a"}]}', ["A"]),
    ],
)
def test_a_wrong_shape_gets_the_right_one(text: str, tasks: list[str]) -> None:
    body = mended(text.encode())
    assert [entry["task_id"] for entry in body["tasks"]] == tasks
    if '"A"' in text and "A" not in tasks:
        assert "A" in body[mend.ASIDE]


def test_two_values_of_one_name_are_asked_and_the_last_counts_as_readers_take_it() -> None:
    task = '{"task_id": "A", "priority": "LOW", "status": "completed", "priority": "HIGH", "status": "pending"}'
    made = mend.outbox("CC", salvage.read(f'{{"tasks": [{task}]}}'.encode()), Evidence())
    (entry,) = json.loads(made.text)["tasks"]
    assert entry == {"task_id": "A", "priority": "HIGH", "status": "completed"}  # a completion is never lowered
    assert sorted(doubt.key for doubt in made.doubts) == ["priority", "status"]


def test_a_hundred_thousand_levels_are_left_out_and_the_rest_is_kept() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    one = f'{{"task_id": "A", "title": "a", "deep": {deep}, "status": "pending"}}'
    text = f'{{"tasks": [{one}, {{"task_id": "B"}}]}}'
    made = mend.outbox("CC", salvage.read(text.encode()), Evidence())
    assert json.loads(made.text)["tasks"] == [{"task_id": "A", "title": "a", "status": "pending"}, {"task_id": "B"}]
    assert any("nested" in doubt.words for doubt in made.doubts)


def test_a_text_that_was_cut_is_no_value_but_stands_beside() -> None:
    body = mended(b'{"tasks": [{"task_id": "A", "title": "Write the no')
    assert body["tasks"] == [{"task_id": "A", mend.CUT: {"title": "Write the no"}}]


def test_a_number_that_touches_the_end_of_a_cut_file_is_not_believed() -> None:
    assert mended(b'{"tasks": [{"task_id": "A", "hours": 1')["tasks"] == [{"task_id": "A"}]


@pytest.mark.parametrize("path", sorted(REAL.glob("postbox/*/outbox.json")), ids=lambda path: path.parent.name)
def test_real_outboxes_that_are_cut_give_back_all_that_stood_before(path: Path) -> None:
    data = path.read_bytes()
    chance = random.Random(path.parent.name)
    for size in [chance.randrange(len(data)) for _ in range(25)]:
        require_there(mended(data[:size]), data, range(size, len(data)))


def test_an_outbox_in_a_list_or_in_a_text_is_an_outbox() -> None:
    text = json.dumps(BOX)
    for around in (f"[{text}]", f"[[{text}]]", json.dumps(text), json.dumps(json.dumps(text)), json.dumps(f"[{text}]")):
        assert mended(around.encode()) == BOX, around


def test_of_two_outboxes_in_a_list_no_task_is_dropped() -> None:
    other = {"agent_id": "CC", "tasks": [{"task_id": "N-1", "title": "new", "status": "pending"}]}
    body = mended(json.dumps([BOX, other]).encode())
    assert {entry["task_id"] for entry in body["tasks"]} == {"N-1", "T-1", "T-2", "T-3"}


@pytest.mark.parametrize("tasks", ["null", '"lost"', "42", "true", '"[]x"', ""])
def test_a_task_that_is_known_elsewhere_comes_back_where_the_list_is_none(tasks: str) -> None:
    known = Evidence()
    known.set("T-1", "title", '"Write"', "the log")
    known.set("T-1", "status", '"pending"', "the log")
    text = '{"agent_id": "CC"' + (f', "tasks": {tasks}' if tasks else "") + "}"
    made = mend.outbox("CC", salvage.read(text.encode()), known)
    assert json.loads(made.text)["tasks"] == [{"task_id": "T-1", "title": "Write", "status": "pending"}]
    assert made.doubts
    for text in (tasks or "[]", '{"task_id": "R-1", "report": "over it"}'):
        made = mend.outbox("CC", salvage.read(text.encode()), known)
        assert "T-1" in [entry["task_id"] for entry in json.loads(made.text)["tasks"]]


@pytest.mark.parametrize("piece", ["{'a':'b'},", '{"a":1}', "[{]}", '{"a":', '"a"', "{\0", '{"task_id": "T", "a": 1 '])
def test_twice_the_junk_is_twice_the_work(piece: str) -> None:
    """Counted in calls of functions, Python's and C's, which no load on the machine makes more."""

    def calls(times: int) -> int:
        count = 0

        def note(*_: Any) -> None:
            nonlocal count
            count += 1

        data = (piece * times).encode()
        sys.setprofile(note)
        try:
            reading = damage.outbox("postbox/CC/outbox.json", "CC", data)[1]
            mend.outbox("CC", reading, Evidence())
        finally:
            sys.setprofile(None)
        return count

    few = calls(300)
    assert calls(1200) < 5 * few


def test_thousands_of_ids_twice_are_told_as_a_hundred_and_a_number() -> None:
    entries = [{"task_id": f"T-{n % 300}", "title": str(n)} for n in range(600)]
    found = damage.outbox("postbox/CC/outbox.json", "CC", json.dumps({"tasks": entries}).encode())[0]
    assert len(found) == 101
    assert "200 things more" in found[-1].words


@pytest.mark.parametrize(
    "text",
    [
        '{/* a {note} */ "tasks": [{"task_id": "A", "title": "/* no */ it\'s"} // one, two\n], "metadata": {"n": 1}}',
        "{'tasks': [{'task_id': 'A', 'title': '/* no */ it\\'s'}], 'metadata': {'n': 1},}",
        "{'tasks': [{'task_id': 'A', \"title\": \"/* no */ it's\"}], 'metadata': {'n': 1}}",
    ],
)
def test_comments_and_single_quotes_cost_nothing(text: str) -> None:
    task = {"task_id": "A", "title": "/* no */ it's"}
    made = mend.outbox("CC", salvage.read(text.encode()), Evidence())
    assert json.loads(made.text) == {"tasks": [task], "metadata": {"n": 1}}
    assert not made.doubts


# --- a piece that is missing from the middle


def require_at_its_place(data: bytes, start: int, end: int) -> None:
    """Without the bytes from `start` to `end`: no whole task, entry of the history or member has moved."""
    hurt = data[:start] + data[end:]
    if damage.whole_object(hurt) is not None:
        return  # it still is whole, and says less: nobody can see that
    if {flaw.kind for flaw in salvage.read(hurt).flaws} <= {"duplicate-key", "trailing-comma", "comma", "bracket"}:
        return  # both sides fit together: where one ends and the other begins, nobody can see
    made = mend.outbox("CC", salvage.read(hurt), Evidence())
    body, healthy, spans = json.loads(made.text.encode("latin-1")), json.loads(data), Spans(data)
    for place, those in (("tasks", spans.tasks), ("history", spans.history)):
        for value, a, z, _ in those:
            if z <= start or a >= end:
                assert value in body.get(place, []), (place, value)
    joined = re.findall(
        r'"(\w+)":', hurt[max(start - 60, 0) : start + 40].decode("utf-8", "replace")
    )  # two halves of names may be one now
    assert set(body) <= {*healthy, mend.ASIDE, mend.CUT, *joined}
    for key, value in body.items():
        if key in healthy and key not in joined and type(value) is not type(healthy[key]):
            raise AssertionError(key)
    for place in ("tasks", "history"):
        for entry in body.get(place, []):
            assert any(set(entry) <= {*whole, mend.CUT, *joined} for whole in healthy[place]), entry
    assert made.doubts


PIECES = {path.parent.name: path.read_bytes() for path in REAL.glob("postbox/*/outbox.json")}


@pytest.mark.parametrize("name", ["box", *sorted(PIECES)])
def test_a_piece_that_is_missing_from_the_middle_moves_nothing_to_another_level(name: str) -> None:
    data = PIECES[name] if name in PIECES else text_of(BOX, 2)
    chance = random.Random(name)
    for _ in range(60):
        start = chance.randrange(2, len(data) - 20)
        require_at_its_place(data, start, min(start + chance.choice([90, 300, 700, 2000]), len(data) - 12))


def test_what_lost_its_object_is_salvaged_and_the_question_names_what_stands_around_the_gap() -> None:
    data = PIECES.get("CB") or pytest.skip("the real outboxes are not here")
    made = mend.outbox("CB", salvage.read(data[:3000] + data[3700:]), Evidence())
    body, healthy = json.loads(made.text), json.loads(data)
    ids = [entry["task_id"] for entry in healthy["history"]]
    assert [entry["task_id"] for entry in body["history"]] == [one for one in ids if one != "TASK-165B"]
    assert body["metadata"] == healthy["metadata"]
    assert {"metrics": {"actual_hours": 0.5, "files_updated": 6, "validation_pass_rate": "100%"}} in body[mend.ASIDE]
    assert list(body) == [*healthy, mend.ASIDE]
    assert "something between TASK-167H and TASK-165E is lost (line 56)" in " ".join(one.words for one in made.doubts)


def test_two_values_of_one_name_are_asked_wherever_they_stand() -> None:
    twice = '"n": 1, "n": 2'
    text = '{"tasks": [{"task_id": "A", "context": {N}}], "history": [{"task_id": "B", N}]}'.replace("N", twice)
    made = mend.outbox("CC", salvage.read(text.encode()), Evidence())
    assert [(one.task, one.key, one.kept, one.other) for one in made.doubts] == [
        ("A", "context.n", "2", "1"),
        ("B", "n", "2", "1"),
    ]
    made = mend.Mended()
    mend.object_text(salvage.read(b'{"tasks": {"A": {%s}}}' % twice.encode()), made, None)
    assert [(one.key, one.kept) for one in made.doubts] == [("tasks.A.n", "2")]


def test_what_lost_its_object_in_a_progress_file_becomes_no_member_of_the_whole() -> None:
    tasks = {f"T-{n}": {"status": "completed", "agent": "CC", "parts": {"a": n, "b": n}} for n in range(5)}
    data = text_of({"sprint_id": "S", "total_tasks": 5, "tasks": tasks, "last_updated": "now"}, 2)
    start, end = data.index(b'"T-1"') + 30, data.index(b'"a": 3') - 9
    made = mend.Mended()
    body = json.loads(mend.object_text(salvage.read(data[:start] + data[end:]), made, None))
    assert list(body) == ["sprint_id", "total_tasks", "tasks", "last_updated", mend.ASIDE]
    assert {task: body["tasks"].get(task) for task in ("T-0", "T-4")} == {task: tasks[task] for task in ("T-0", "T-4")}
    assert any("between T-1 and T-4 is lost" in doubt.words for doubt in made.doubts)
