"""Laws, searched by hypothesis: of an edit on any JSON text, of the journal, and of two commands with a crash.

`RECOVERY_TEST_FULL=1` searches longer.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, example, given, note, settings
from hypothesis import strategies as st

from recovery import jsonl, jsontext
from recovery.journal import Journal, allocate
from support.promise import differences, require, require_no_op, require_tidy
from support.workspace import FULL, Workspace, finish

if TYPE_CHECKING:
    from recovery.jsontext import Op

PURE = settings(max_examples=2000 if FULL else 150, deadline=None, suppress_health_check=list(HealthCheck))
REAL = settings(max_examples=400 if FULL else 15, deadline=None, suppress_health_check=list(HealthCheck))

# --- any JSON text


class Raw(str):
    """JSON text of a value, as somebody else may have written it."""


spaces = st.text(" \n\t\r", max_size=3)
characters = st.characters(exclude_categories=["Cs"], exclude_characters='"\\', min_codepoint=32)
escapes = st.sampled_from(
    ['\\"', "\\\\", "\\/", "\\b", "\\n", "\\t", "\\u0000", "\\u00e9", "\\ud83d\\ude00", "\\ud800", "\\uDFFF", "\\u0041"]
)
strings = st.lists(st.one_of(characters, escapes), max_size=6).map(lambda parts: '"' + "".join(parts) + '"')
numbers = st.one_of(
    st.integers().map(str),
    st.sampled_from(["-0", "-0.0", "1e400", "1E-999", "0.10", "123456789012345678901234567890", "9" * 5000, "1e5"]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
scalars = st.one_of(strings, numbers, st.sampled_from(["true", "false", "null"]))


@st.composite
def lists(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    parts = [draw(spaces) + item + draw(spaces) for item in draw(st.lists(items, max_size=3))]
    return "[" + (",".join(parts) or draw(spaces)) + "]"


@st.composite
def objects(draw: st.DrawFn, items: st.SearchStrategy[str]) -> str:
    keys = draw(st.lists(strings, max_size=3, unique_by=lambda text: json.loads(text)))
    parts = [draw(spaces) + key + draw(spaces) + ":" + draw(spaces) + draw(items) + draw(spaces) for key in keys]
    return "{" + (",".join(parts) or draw(spaces)) + "}"


values = st.recursive(scalars, lambda inner: st.one_of(lists(inner), objects(inner)), max_leaves=8)


@st.composite
def members(draw: st.DrawFn, own: dict[str, str]) -> str:
    """An object with these members (key to JSON text) among others, in any order and spacing."""
    others = draw(st.lists(strings, max_size=3, unique_by=lambda text: json.loads(text)))
    pairs = [(json.dumps(key), value) for key, value in own.items()]
    pairs += [(key, draw(values)) for key in others if json.loads(key) not in own]
    pairs = draw(st.permutations(pairs))
    parts = [draw(spaces) + key + draw(spaces) + ":" + draw(spaces) + value + draw(spaces) for key, value in pairs]
    return "{" + ",".join(parts) + "}"


@st.composite
def outboxes(draw: st.DrawFn) -> tuple[str, list[str]]:
    """An outbox as any program may have written it, and the ids of its tasks."""
    ids = draw(st.lists(st.text("AB0-.", min_size=1, max_size=4), max_size=4, unique=True))
    tasks = []
    for task in ids:
        own = {"task_id": draw(st.sampled_from([json.dumps(task), json.dumps(task, ensure_ascii=False)]))}
        if draw(st.booleans()):
            own["status"] = draw(scalars)
        tasks.append(draw(spaces) + draw(members(own)) + draw(spaces))
    text = draw(members({"tasks": "[" + (",".join(tasks) or draw(spaces)) + "]"}))
    return draw(spaces) + text + draw(spaces), ids


news = st.one_of(st.text(max_size=5), st.none(), st.booleans(), st.integers(), st.just([]), st.just({"a": ["b"]}))


@st.composite
def edits(draw: st.DrawFn, ids: list[str]) -> list[Op]:
    """What complete, assign and rollback do: fields of one task set or removed, or one task more."""
    if not ids or draw(st.integers(0, 2)) == 0:
        new = {"task_id": "new", "title": draw(st.text(max_size=5))}
        entry = jsontext.pretty(new, draw(st.sampled_from(["", "  "])))
        return [{"op": "set", "path": ["tasks", ["task_id", "new"]], "after": entry}]
    task = draw(st.sampled_from(ids))
    fields = draw(
        st.lists(st.sampled_from(["status", "completed_at", "é", "x y"]), min_size=1, max_size=3, unique=True)
    )
    ops: list[Op] = []
    for name in fields:
        after = None if draw(st.integers(0, 5)) == 0 else jsontext.dumps(draw(news))
        ops.append({"op": "set", "path": ["tasks", ["task_id", task], name], "after": after})
    return ops


def parsed(text: str) -> Any:
    """The value with every number as its text and members in order, by another parser than ours."""
    return json.loads(text, parse_float=Raw, parse_int=Raw, object_pairs_hook=list)


@PURE
@given(st.data(), outboxes())
def test_an_edit_changes_what_it_names_and_no_other_byte(data: st.DataObject, made: tuple[str, list[str]]) -> None:
    """Outside of the replaced spans every byte is the same; the result parses and holds the new values."""
    text, ids = made
    latin = jsontext.to_latin(text)
    ops = jsontext.fill_in(jsontext.Walked(latin), data.draw(edits(ids)))
    cuts = jsontext.splices(jsontext.Walked(latin), ops)
    after = jsontext.applied(latin, ops)
    rest, at = [], 0
    for start, end, _ in cuts:
        assert at <= start <= end, "cuts overlap"
        rest.append(latin[at:start])
        at = end
    rest.append(latin[at:])
    found = 0
    for part in rest:  # what was kept stands there still, in its order
        found = after.index(part, found) + len(part)
    note(jsontext.from_latin(after))
    body = json.loads(jsontext.from_latin(after), parse_int=Raw, parse_float=Raw)
    for op in ops:
        key = op["path"][1][1]
        task = next(t for t in body["tasks"] if t.get("task_id") == key)
        if len(op["path"]) == 2:
            assert task == json.loads(op["after"])
        elif op["after"] is None:
            assert op["path"][2] not in task
        else:
            assert task[op["path"][2]] == json.loads(op["after"], parse_int=Raw, parse_float=Raw)
    untouched = [t for t in parsed(text) if t[0] != "tasks"]
    assert [t for t in parsed(jsontext.from_latin(after)) if t[0] != "tasks"] == untouched
    mine = {op["path"][1][1] for op in ops}

    def others(text: str) -> list[Any]:
        tasks = next(value for key, value in parsed(text) if key == "tasks")
        return [task for task in tasks if ("task_id", *mine) not in task and dict_id(task) not in mine]

    assert others(jsontext.from_latin(after)) == others(text), "another task changed"


def dict_id(task: list[tuple[str, Any]]) -> Any:
    return next(value for key, value in task if key == "task_id")


spelled = st.sampled_from(
    ['"A"', '"A-1"', '"\\u0041"', '"A/"', '"A\\/"', '"\\"A\\":"', '"A\\":1"', '"é"', '"\\u00e9"', '"Ã©"', '""']
)


@st.composite
def alike(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """An object in which the same few names, however spelled, meet as names, values, and parts of strings."""
    pairs = draw(st.lists(st.tuples(spelled, st.one_of(spelled, inner)), max_size=5))
    parts = [draw(spaces) + key + draw(spaces) + ":" + draw(spaces) + value + draw(spaces) for key, value in pairs]
    return "{" + (",".join(parts) or draw(spaces)) + draw(st.sampled_from(["}", "}", "}", "}", ",}", ""]))


@PURE
@example('{"A\\/": {"A/": 1}}')
@example('{"\\u0041": {"A": 1}}')
@example('{"A": 1, "b": {"A": 2}}')
@example('{"x\\"A": 1, "A": 2}')
@example('{"\\u00e9": 1, "é": 2}')
@given(alike(st.recursive(scalars, lambda inner: st.one_of(lists(inner), alike(inner)), max_leaves=6)))
def test_what_is_found_without_a_walk_is_what_a_walk_finds(text: str) -> None:
    """The names of an object's members and where each stands; and what a walk refuses is refused, with its place."""
    latin = " " + jsontext.to_latin(text) + " "
    try:
        node = jsontext.node_at(latin, 1)
    except jsontext.BadJSON as error:
        with pytest.raises(jsontext.BadJSON, match=re.escape(str(error))):
            jsontext.members_at(latin, 1)
        return
    names, end = jsontext.members_at(latin, 1)
    assert end == node.end
    if all(map(str.isascii, names)):
        assert names == {item[0] for item in node.items}
    for name, _, start, _ in node.items:
        assert jsontext.member_at(latin, 1, end, name) in (0, start)


@PURE
@given(st.data(), outboxes())
def test_the_inverse_of_an_edit_gives_the_very_bytes_back(data: st.DataObject, made: tuple[str, list[str]]) -> None:
    """Law: apply then inverse is the identity where a field was there, or one was added behind the others.

    A member that the edit removed comes back last in its object: the value is the same, its place isn't promised.
    """
    text, ids = made
    latin = jsontext.to_latin(text)
    ops = jsontext.fill_in(jsontext.Walked(latin), data.draw(edits(ids)))
    after = jsontext.applied(latin, ops)
    back = jsontext.applied(after, jsontext.inverse(ops))
    if all(op["after"] is not None or op["before"] is None for op in ops):
        assert back == latin
    else:
        assert jsontext.loads(jsontext.from_latin(back), plain=False) == jsontext.loads(text, plain=False)


@PURE
@given(st.data(), outboxes())
def test_a_document_stands_before_its_edit_and_after_it(data: st.DataObject, made: tuple[str, list[str]]) -> None:
    """Law: before on the old text, after on the new one, and so for the inverse; applying twice is applying once."""
    text, ids = made
    latin = jsontext.to_latin(text)
    ops = jsontext.fill_in(jsontext.Walked(latin), data.draw(edits(ids)))
    after = jsontext.applied(latin, ops)
    assume(any(not jsontext.same(op["before"], op["after"]) for op in ops))
    assert jsontext.standing(jsontext.Walked(latin), ops) == "before"
    assert jsontext.standing(jsontext.Walked(after), ops) == "after"
    back = jsontext.inverse(ops)
    assert jsontext.standing(jsontext.Walked(after), back) == "before"
    assert jsontext.standing(jsontext.Walked(latin), back) == "after"
    again = jsontext.loads(jsontext.from_latin(jsontext.applied(after, ops)), plain=False)
    assert again == jsontext.loads(jsontext.from_latin(after), plain=False)


@PURE
@given(st.text(), st.integers(1, 9))
def test_text_and_latin_text_are_the_same_bytes(text: str, size: int) -> None:
    """Law: to_latin and from_latin are inverse; the pieces of any size are the file."""
    assume(text.isprintable() or not any(0xD800 <= ord(c) < 0xE000 for c in text))
    latin = jsontext.to_latin(text)
    assert latin.encode("latin-1") == text.encode()
    assert jsontext.from_latin(latin) == text
    assert b"".join(jsontext.pieces(latin, (), size)) == text.encode()


@PURE
@given(st.recursive(strings, lambda inner: st.one_of(lists(inner), objects(inner)), max_leaves=8))
def test_text_is_read_as_python_reads_it_and_written_so_that_it_reads_back(text: str) -> None:
    """Our reader agrees with the json module, lone surrogates included; what we write is UTF-8 and the same value."""
    ours = jsontext.loads(text)
    assert ours == json.loads(text)
    for written in (jsontext.dumps(ours), jsontext.pretty(ours)):
        assert json.loads(written.encode("utf-8")) == ours


# --- journal and logs


@PURE
@given(st.data())
def test_a_journal_after_a_power_cut_is_old_or_new_or_empty(data: st.DataObject) -> None:
    """Any subset of the sectors of a write reaches the disk: the old record, finished, or the new one, or none."""
    with tempfile.TemporaryDirectory() as folder:
        fd = os.open(Path(folder) / "journal", os.O_RDWR | os.O_CREAT)
        journal = Journal(fd)
        allocate(fd)
        for seq in (1, 2):
            before = os.pread(fd, 70_000, 0)
            pad = data.draw(st.text(max_size=1500))
            journal.write(seq, jsontext.dumps({"txid": f"t{seq}", "pad": pad}))
            if seq == 1:
                journal.mark_done(1, "t1")
        after = os.pread(fd, 70_000, 0)
        sectors = [n for n in range(0, len(after), 512) if before[n : n + 512] != after[n : n + 512]]
        lost = data.draw(st.sets(st.sampled_from(sectors)))
        for at in lost:
            os.pwrite(fd, before[at : at + 512], at)
        record = journal.read()
        if record is None:
            assert lost
        elif record.txid == "t2":
            assert not record.finished
            assert not lost
        else:
            assert record.finished
            assert lost == set(sectors)
        journal.close()


@PURE
@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 40)), max_size=6))
def test_whole_lines_survive_any_torn_ones_between_them(steps: list[tuple[str, int]]) -> None:
    """Append a line, tear the next one after n bytes, append on: every whole line is read, in order."""
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        expected: list[object] = []
        for number, (text, torn) in enumerate(steps):
            line = jsontext.dumps({"txid": str(number), "text": text})
            jsonl.append(fd, line)
            expected.append(text)
            os.write(fd, jsontext.dumps({"lost": "x" * 40}).encode()[:torn])
        found, _ = jsonl.records(os.pread(fd, 100_000, 0))
        assert [record["text"] for record in found] == expected


# --- two commands and a crash

COMMANDS: list[tuple[str, ...]] = [
    ("complete", "CC", "CC-1", "one"),
    ("complete", "CC", "CC-2", "two"),
    ("complete", "CB", "CB-1", "of CB"),
    ("assign", "CC", "CC-9", "New", "LOW"),
    ("rollback", "CC", "CC-3"),
]
STEPS = [
    "begin:1",
    "stage:1",
    "stage-synced:2",
    "backup:1",
    "backed-up:1",
    "recheck:1",
    "journal-write:1",
    "journal-sync:1",
    "journal-synced:1",
    "replace:1",
    "replaced:1",
    "replaced:2",
    "replaced:3",
    "folder-sync:1",
    "verify:1",
    "verified:1",
    "append:1",
    "appended:1",
    "append-synced:1",
    "done-mark:1",
    "done-synced:1",
    "exit:1",
]


def _prepared(folder: Path, name: str) -> Workspace:
    space = Workspace.make(folder / name)
    require(space.run(("complete", "CC", "CC-3", "before")), 0)
    return space


@REAL
@given(
    pair=st.permutations(COMMANDS).map(lambda all_: all_[:2]),
    wait=st.sampled_from(STEPS),
    crash=st.sampled_from(STEPS),
    action=st.sampled_from(["kill-group", "kill", "term"]),
)
def test_two_commands_and_one_crash_end_as_if_one_came_after_the_other(
    pair: list[tuple[str, ...]], wait: str, crash: str, action: str
) -> None:
    """One waits at any step, the other runs meanwhile and dies at any step; both repeated: one serial outcome."""
    first, second = pair
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        outcomes = []
        for n, order in enumerate(([first, second], [second, first])):
            serial = _prepared(folder, f"serial-{n}")
            for command in order:
                require(serial.run(command), 0)
            outcomes.append(serial.data())
        space = _prepared(folder, "root")
        gate = folder / "gate"
        one = space.start(first, fault=f"{wait}=wait={gate}")
        two = space.start(second, fault=f"{crash}={action}", RECOVERY_MAX_ATTEMPTS="1", RECOVERY_LOCK_TIMEOUT="0.2")
        finish(two)
        gate.touch()
        finish(one)
        for command in (first, second):
            require(space.run(command), 0)
        for command in (first, second):
            require_no_op(space, command)
        words = [differences(space.data(), outcome) for outcome in outcomes]
        assert [] in words, f"neither order explains it: {words}"
        require_tidy(space)
