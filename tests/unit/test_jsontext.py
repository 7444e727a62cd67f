"""JSON as text: only what the edit means changes; what isn't one JSON object is refused with line and column."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recovery import jsontext
from recovery.jsontext import BadJSON

if TYPE_CHECKING:
    from recovery.jsontext import Op

REAL = Path(__file__).resolve().parents[2].parent / "shared/real-postbox"


def refused(data: bytes) -> BadJSON:
    with pytest.raises(BadJSON) as caught:
        jsontext.document(jsontext.decode(data))
    return caught.value


def edited(text: str, *ops: Op) -> str:
    """The document with the edit, in ordinary text; the inverse must give the very text back."""
    latin = jsontext.to_latin(text)
    full = jsontext.fill_in(jsontext.Walked(latin), ops)
    after = jsontext.applied(latin, full)
    assert jsontext.applied(after, jsontext.inverse(full)) == latin, "the inverse doesn't give the text back"
    return jsontext.from_latin(after)


def put(path: list[object], value: object) -> Op:
    return {"op": "set", "path": path, "after": jsontext.dumps(value)}


@pytest.mark.parametrize(
    ("text", "reason", "line", "column"),
    [
        ("", "is empty", 0, 0),
        (" \n\t", "holds only white space", 0, 0),
        ("[]", "is not a JSON object", 1, 1),
        ("\n  null", "is not a JSON object", 2, 3),
        ('{"a": 1', "a comma or the closing bracket is missing", 1, 8),
        ('{"a": 1,\n}', "a comma stands before the closing bracket", 2, 1),
        ('{"a": [1,]}', "value", 1, 10),
        ('{"a": 1}\n{"b": 2}', "another document follows the first", 2, 1),
        ('{"a": 1} x', "text follows the document", 1, 10),
        ('{"a": 1, "a": 2}', 'the key "a" stands here a second time', 1, 10),
        ('{"ü": 1, "ü": 2}', 'the key "ü" stands here a second time', 1, 10),
        ('{"a": 1, "\\u0061": 2}', 'the key "a" stands here a second time', 1, 10),
        ('{"a": NaN}', "NaN is not JSON", 1, 7),
        ('{"a": -Infinity}', "-Infinity is not JSON", 1, 7),
        ('{"a" 1}', "a colon is missing", 1, 6),
        ("{a: 1}", "a member's name is missing or cut off", 1, 2),
        ("{'a': 1}", "a member's name is missing or cut off", 1, 2),
        ('{"a": "b\n"}', "control character", 1, 9),
        ('{"a": "\\x"}', "escape", 1, 8),
        ('{"a": tru}', "a value is missing or cut off", 1, 7),
        ('{"a": 01}', "a comma or the closing bracket is missing", 1, 8),
        ('{"a": 1 // b\n}', "a comma or the closing bracket is missing", 1, 9),
        ('{"größer": 1,\n "x": }', "a value is missing or cut off", 2, 7),
        ('{"größer": x}', "a value is missing or cut off", 1, 12),
    ],
)
def test_what_is_not_one_json_object_is_refused_with_its_place(text: str, reason: str, line: int, column: int) -> None:
    """Row 34, 35: the reason in words, line and column counted in characters from 1."""
    error = refused(text.encode())
    assert reason.lower() in error.reason.lower()
    assert (error.line, error.column) == (line, column)
    if line:
        assert f"(line {line}, column {column})" in str(error)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\xff\xfe{\0}\0", "UTF-16"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b'{"a": "\xc3', "is not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "is not UTF-8"),
        (b"\0\0\0\0", "not a JSON object"),
        (b'{"a": 1}\0', "text follows"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "nested too deeply"),
    ],
)
def test_bytes_that_are_no_utf8_json_are_refused(data: bytes, reason: str) -> None:
    """Rows 34, 39: no crash, no guess."""
    assert reason in refused(data).reason


def test_bad_utf8_is_refused_with_its_place() -> None:
    """Also far behind the first piece that is decoded."""
    error = refused(b'{"a":\n"' + b"x" * 300_000 + b"\xff" + b'"}')
    assert (error.line, error.column) == (2, 300_002)


def test_a_character_across_two_pieces_of_decoding_is_whole() -> None:
    """262,144 bytes are decoded at a time; a character may stand on the border."""
    for lead in range(262_135, 262_146):
        data = b'{"a": "' + b"x" * (lead - 7) + "\U0001f600".encode() + b'"}'
        assert jsontext.document(jsontext.decode(data)).kind == "{"


@pytest.mark.parametrize("name", ["trailing-comma.json", "five-documents-glued.json"])
def test_the_damaged_outboxes_met_in_practice_are_refused(name: str) -> None:
    """What other programs have really left in a postbox."""
    if not REAL.is_dir():
        pytest.skip(f"REAL OUTBOXES NOT TESTED: {REAL} is not there")
    assert refused((REAL / "damaged" / name).read_bytes()).line > 0


def test_one_field_of_each_task_of_the_real_outboxes_changes_and_nothing_else() -> None:
    """Every task of every real outbox: set its status, compare all other bytes, take it back."""
    if not REAL.is_dir():
        pytest.skip(f"REAL OUTBOXES NOT TESTED: {REAL} is not there")
    count = 0
    for path in sorted(REAL.glob("postbox/*/outbox.json")):
        text = path.read_text()
        body = jsontext.loads(text, plain=False)
        for task in body["tasks"]:
            if "task_id" not in task:
                continue
            after = edited(text, put(["tasks", ["task_id", task["task_id"]], "status"], "completed"))
            task["status"], before = "completed", task.get("status")
            assert jsontext.loads(after, plain=False) == body
            if before is not None:
                task["status"] = before
            else:
                del task["status"]
            count += 1
    assert count


def test_an_edit_replaces_its_value_and_no_other_byte() -> None:
    """Row 40: numbers of any size, escapes, odd spacing, a missing final newline stay as they are."""
    text = '{ "n":1e400 ,"z":-0.0,\t"s":"\\u00e9\\u0000é",\r\n "a" :  "old"  , "big":123456789012345678901234567890}'
    assert edited(text, put(["a"], "new")) == text.replace('"old"', '"new"')


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("{}", ["a"], '{\n  "a": 1\n}'),
        ("{ }", ["a"], '{\n  "a": 1\n}'),
        ('{"b":2}', ["a"], '{"b":2,"a":1}'),
        ('{"b": 2, "c": 3}', ["a"], '{"b": 2, "c": 3, "a": 1}'),
        ('{\n    "b": 2\n}', ["a"], '{\n    "b": 2,\n    "a": 1\n}'),
        ('{\r\n\t"b": 2\r\n}', ["a"], '{\r\n\t"b": 2,\r\n\t"a": 1\r\n}'),
        ('{\n  "t": {}\n}', ["t", "a"], '{\n  "t": {\n    "a": 1\n  }\n}'),
        ('{"t": []}', ["t", ["id", "x"]], '{"t": [1]}'),
    ],
)
def test_a_new_member_is_written_as_its_neighbours_are(before: str, path: list[object], after: str) -> None:
    """Spacing, line ends and indentation are the document's own."""
    if before == '{"t": []}':
        op: Op = {"op": "set", "path": path, "after": '{"id": "x"}'}
        assert edited(before, op) == '{"t": [{"id": "x"}]}'
    else:
        assert edited(before, put(path, 1)) == after


def test_counting_is_relative_and_only_for_integers() -> None:
    """`add` counts what stands there now; floats, monsters and strings are left alone."""
    for now, after in (("5", "6"), ("-1", "0"), ("1.0", "1.0"), ('"5"', '"5"'), ("9" * 40, "9" * 40)):
        assert edited(f'{{"c": {now}}}', {"op": "add", "path": ["c"], "by": 1}) == f'{{"c": {after}}}'


def test_an_element_is_found_by_its_decoded_key() -> None:
    """`"\\u0041"` is "A", and an id in a nested list is not the task."""
    text = '{"tasks": [{"sub": [{"task_id": "A"}]}, {"task_id": "\\u0041", "s": 1}]}'
    assert edited(text, put(["tasks", ["task_id", "A"], "s"], 2)) == text.replace('"s": 1', '"s": 2')


def test_a_document_stands_before_after_or_other() -> None:
    """Judged by the edit's own fields; spacing, shared fields and counters don't matter."""
    text = '{"a": "x", "t": "1", "c": 1}'
    ops = jsontext.fill_in(
        jsontext.Walked(text),
        [put(["a"], "y"), {**put(["t"], "2"), "shared": True}, {"op": "add", "path": ["c"], "by": 1}],
    )
    assert jsontext.standing(jsontext.Walked(text), ops) == "before"
    assert jsontext.standing(jsontext.Walked(jsontext.applied(text, ops)), ops) == "after"
    assert jsontext.standing(jsontext.Walked('{"c": 99, "t": "9", "a":"y"}'), ops) == "after"
    assert jsontext.standing(jsontext.Walked('{"c": 99, "t": "9", "a": "x"}'), ops) == "before"
    assert jsontext.standing(jsontext.Walked('{"a": "z"}'), ops) == "other"
    assert jsontext.standing(jsontext.Walked("{}"), ops) == "other"


def test_an_inverse_leaves_a_shared_field_that_somebody_has_set_since() -> None:
    """The time stamp of a later change isn't set back."""
    text = '{"a": 1, "t": "1"}'
    ops = jsontext.fill_in(jsontext.Walked(text), [put(["a"], 2), {**put(["t"], "2"), "shared": True}])
    later = '{"a": 2, "t": "3"}'
    assert jsontext.applied(later, jsontext.inverse(ops)) == '{"a": 1, "t": "3"}'


def test_a_container_that_is_gone_is_an_error_and_no_guess() -> None:
    """An edit below what isn't there any more is refused."""
    with pytest.raises(BadJSON, match="isn't there"):
        jsontext.applied('{"tasks": []}', [put(["tasks", ["task_id", "A"], "s"], 1)])


def test_the_pieces_of_a_large_document_are_the_document() -> None:
    """Cut at any size, edits at the very borders included."""
    text = '{"a": "' + "x" * 50 + '", "b": 1}'
    splices = jsontext.splices(jsontext.Walked(text), [put(["a"], "y"), put(["b"], 22)])
    whole = b"".join(jsontext.pieces(text, splices))
    assert whole == b'{"a": "y", "b": 22}'
    for size in range(1, 70):
        assert b"".join(jsontext.pieces(text, splices, size)) == whole


def test_an_element_is_told_from_its_namesake_by_further_members() -> None:
    """The step ["id", "T", "agent", "B"] names the second of two, to be replaced, removed or missed."""
    text = '{"tasks": [{"id": "T", "agent": "A"}, {"id": "T", "agent": "B"}, {"id": "U"}]}'
    paths = {agent: ["tasks", ["id", "T", "agent", agent]] for agent in "ABC"}
    ops = jsontext.fill_in(
        jsontext.Walked(text), [{"op": "set", "path": paths[agent], "after": None} for agent in "ABC"]
    )
    assert [op["before"] for op in ops] == ['{"id": "T", "agent": "A"}', '{"id": "T", "agent": "B"}', None]
    assert jsontext.applied(text, [ops[1]]) == '{"tasks": [{"id": "T", "agent": "A"}, {"id": "U"}]}'
    assert jsontext.applied(text, ops) == '{"tasks": [{"id": "U"}]}'
    assert jsontext.standing(jsontext.Walked(text), ops) == "before"


def test_an_edit_of_thousands_of_items_walks_each_list_once() -> None:
    """Four thousand additions beside four thousand others: quadratic work would take minutes, not a moment."""
    old = [{"id": f"O-{n}"} for n in range(4000)]
    text = jsontext.pretty({"tasks": old, "by_id": {f"O-{n}": n for n in range(4000)}})
    ops: list[Op] = []
    for n in range(4000):
        ops.append({"op": "set", "path": ["tasks", ["id", f"N-{n}"]], "after": f'{{"id": "N-{n}"}}'})
        ops.append({"op": "set", "path": ["by_id", f"N-{n}"], "after": str(n)})
    began = time.process_time()
    ops = jsontext.fill_in(jsontext.Walked(text), ops)
    after = jsontext.applied(text, ops)
    assert jsontext.standing(jsontext.Walked(after), ops) == "after"
    assert jsontext.applied(after, jsontext.inverse(ops)) == text
    assert time.process_time() - began < 10


@pytest.mark.parametrize("gone", [[0], [1], [3], [0, 1], [1, 2], [2, 3], [0, 3], [0, 1, 2], [1, 2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize(
    "text", ['{"t": [%s,  %s,%s,\n %s ]}', '{\n  "t": [\n    %s,\n    %s,\n    %s,\n    %s\n  ]\n}\n']
)
def test_what_was_removed_comes_back_at_its_place_byte_for_byte(text: str, gone: list[int]) -> None:
    """Items of a list; all of them at once come back in their order."""
    text %= tuple(f'{{"id": "{n}", "x": 1}}' for n in range(4))
    removals: list[jsontext.Op] = [{"op": "set", "path": ["t", ["id", str(n)]], "after": None} for n in gone]
    ops = jsontext.fill_in(jsontext.Walked(text), removals)
    back = jsontext.applied(jsontext.applied(text, ops), jsontext.inverse(ops))
    if len(gone) < 4:
        assert back == text
    assert json.loads(back) == json.loads(text)


@pytest.mark.parametrize("gone", [["a"], ["b"], ["d"], ["a", "b"], ["b", "d"], ["c", "b"]])
def test_members_that_were_removed_come_back_at_their_place(gone: list[str]) -> None:
    text = '{ "a": 1,\n"b": [2 ] , "c":3, "d": "x" }'
    ops = jsontext.fill_in(jsontext.Walked(text), [{"op": "set", "path": [key], "after": None} for key in gone])
    assert jsontext.applied(jsontext.applied(text, ops), jsontext.inverse(ops)) == text


def test_what_comes_back_leaves_what_others_did_meanwhile() -> None:
    text = '{"t": [{"id": "0"}, {"id": "1"}, {"id": "2"}]}'
    ops = jsontext.fill_in(jsontext.Walked(text), [{"op": "set", "path": ["t", ["id", "1"]], "after": None}])
    theirs = jsontext.applied(text, ops).replace('{"id": "2"}', '{"id": "2"}, {"id": "3"}')
    expected = '{"t": [{"id": "0"}, {"id": "1"}, {"id": "2"}, {"id": "3"}]}'
    assert jsontext.applied(theirs, jsontext.inverse(ops)) == expected
    alone = '{"t": [{"id": "only"}]}'.replace("only", "9")
    assert json.loads(jsontext.applied(alone, jsontext.inverse(ops)))["t"] == [{"id": "9"}, {"id": "1"}]
