"""An earlier outbox, rebuilt from what stands there now and the changes since."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from recovery import changelog, durable, history, jsonl, jsontext, lost
from recovery.errors import DataError, NotFound, RecoveryError, UsageError
from recovery.flock import Limits
from recovery.store import FileStore

NAME = "postbox/CC/outbox.json"
START = '{"tasks": [\n  {"task_id": "T-1", "n": "ü"}\n]}'


def set_field(text: str, task: str, key: str, value: str | None) -> list[dict[str, Any]]:
    after = None if value is None else jsontext.dumps(value)
    return jsontext.fill_in(
        jsontext.Walked(text), [{"op": "set", "path": ["tasks", ["task_id", task], key], "after": after}]
    )


def line_of(seq: int, before: str, after: str, ops: list[dict[str, Any]]) -> dict[str, Any]:
    hashes = [durable.digest_of(text.encode("latin-1")) for text in (before, after)]
    file = {"name": NAME, "before": hashes[0], "after": hashes[1], "ops": ops}
    return {
        "seq": seq,
        "txid": f"20260101T0000{seq:02}Z-ab",
        "time": f"2026-01-01T00:00:{seq:02}Z",
        "op": "edit",
        "agent": "CC",
        "task": "T-1",
        "files": [file],
    }


def changed(*fields: tuple[str, str | None]) -> tuple[list[str], list[dict[str, Any]]]:
    """The states of an outbox through some changes, and their lines, oldest first."""
    states, lines = [jsontext.to_latin(START)], []
    for seq, (key, value) in enumerate(fields, 1):
        ops = set_field(states[-1], "T-1", key, value)
        states.append(jsontext.applied(states[-1], ops))
        lines.append(line_of(seq, states[-2], states[-1], ops))
    return states, lines


def rebuilt(text: str | None, lines: list[dict[str, Any]], moment: history.Moment) -> tuple[str | None, list[str]]:
    told: list[str] = []
    return history.rebuilt(text, reversed(lines), NAME, moment, told.append), told


def test_each_earlier_state_comes_back_byte_for_byte_by_number_txid_and_time() -> None:
    draw = random.Random(7)
    states, lines = changed(*((draw.choice("abn"), draw.choice(["x", "ÿ", "", None])) for _ in range(30)))
    for seq, state in enumerate(states):
        assert rebuilt(states[-1], lines, history.Moment(seq=seq)) == (state, [])
        if seq:
            assert rebuilt(states[-1], lines, history.Moment(txid=lines[seq - 1]["txid"])) == (state, [])
            assert rebuilt(states[-1], lines, history.Moment(time=lines[seq - 1]["time"])) == (state, [])


def test_what_somebody_wrote_past_the_suite_is_said_and_shown_as_it_is() -> None:
    states, lines = changed(("a", "1"), ("a", "2"))
    theirs = jsontext.applied(states[-1], set_field(states[-1], "T-1", "theirs", "3"))
    text, told = rebuilt(theirs, lines, history.Moment(seq=0))
    assert text is not None
    assert '"theirs": "3"' in text
    assert '"a"' not in text
    assert "somebody wrote past the suite" in told[0]


def test_an_older_copy_that_was_put_back_is_said_and_counted_from() -> None:
    states, lines = changed(("a", "1"), ("a", "2"))
    text, told = rebuilt(states[1], lines, history.Moment(seq=0))
    assert text == states[0]
    assert "put an older copy back" in told[0]


def test_a_field_that_would_have_to_be_taken_back_and_is_another_now_is_refused_with_both_values() -> None:
    states, lines = changed(("a", "ours"))
    theirs = states[-1].replace("ours", "theirs")
    with pytest.raises(DataError, match=r'"theirs", the change had left "ours"'):
        rebuilt(theirs, lines, history.Moment(seq=0))
    with pytest.raises(DataError, match="removed it"):
        rebuilt(None, lines, history.Moment(seq=0))


def test_a_state_that_is_not_what_its_own_change_left_is_said_also_where_nothing_is_taken_back() -> None:
    states, lines = changed(("a", "ours"))
    forged = states[-1].replace("ours", "forged")
    for moment in (history.Moment(seq=1), history.Moment(txid=lines[0]["txid"])):
        text, told = rebuilt(forged, lines, moment)
        assert text == forged
        assert "not what change 1" in told[0]
    other = {**line_of(2, "", "", []), "files": []}
    assert "not what change 1" in rebuilt(forged, [*lines, other], history.Moment(seq=2))[1][0]


def test_a_lost_change_is_never_passed_over_in_silence() -> None:
    states, lines = changed(("a", "1"), ("b", "2"), ("a", "3"), ("b", "4"))
    for gone in range(4):
        left = [*lines[:gone], *lines[gone + 1 :]]
        for seq in range(5):
            told: list[str] = []

            def earlier(seq: int = seq, left: list[dict[str, Any]] = left, told: list[str] = told) -> str | None:
                moment = history.Moment(seq=seq)
                return history.rebuilt(states[-1], reversed(left), NAME, moment, told.append, lost.Numbers(4))

            if seq > gone:
                assert earlier() == states[seq]
                is_next = seq == gone + 1 and gone  # where the log begins with the next one, it says nothing of it
                assert [f"change {gone + 1} is lost" in words for words in told] == [True] * bool(is_next)
            else:
                with pytest.raises((DataError, NotFound), match=f"change {gone + 1} is lost|reaches back"):
                    earlier()


def test_a_lost_change_of_another_file_stops_nothing() -> None:
    states, lines = changed(("a", "1"), ("a", "2"), ("a", "3"))
    for n, line in enumerate(lines):
        line["seq"] = 2 * n + 1
    for n in range(3):
        moment = history.Moment(seq=2 * n + 1)
        numbers = lost.Numbers(6)
        assert history.rebuilt(states[-1], reversed(lines), NAME, moment, pytest.fail, numbers) == states[n + 1]
    with pytest.raises(DataError, match="change 6 is lost"):
        history.rebuilt(states[1], reversed(lines), NAME, history.Moment(seq=1), pytest.fail, lost.Numbers(6))


def test_where_the_clock_went_back_over_a_months_end_the_numbers_count_and_it_is_said(
    tmp_path: Path,
) -> None:
    states, lines = changed(("a", "1"), ("a", "2"), ("a", "3"))
    for line, month in zip(lines, ("2026-01", "2026-02", "2026-01"), strict=True):
        line.update(time=f"{month}-03T00:00:00Z", derived=[])
        path = tmp_path / "data" / "changes" / f"{month}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(jsontext.dumps(line) + "\n")
    (tmp_path / NAME).parent.mkdir(parents=True)
    (tmp_path / NAME).write_bytes(states[-1].encode("latin-1"))
    store = FileStore(str(tmp_path), Limits(1.0, 1.0, "history"))
    assert [line["seq"] for line in changelog.by_number(store)] == [3, 2, 1]
    for seq, moment in ((3, "2026-01-09"), (2, "2"), (1, "1"), (3, "2026-02-09")):
        result = history.at(store, "CC", history.moment_of(moment, 0.0))
        assert result.data["text"] == jsontext.from_latin(states[seq])
        assert ("the clock was set back" in str(result.data["notes"])) == (moment == "2026-01-09")


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (history.Moment(seq=9), "no change 9"),
        (history.Moment(time="2025-01-01T00:00:00Z"), "reaches back to change 1"),
        (history.Moment(txid="20260101T000000Z-0"), "reaches back to change 1"),
    ],
)
def test_what_the_log_does_not_reach_is_not_found(moment: history.Moment, why: str) -> None:
    states, lines = changed(("a", "1"))
    with pytest.raises(NotFound, match=why):
        rebuilt(states[-1], lines, moment)


@pytest.mark.parametrize("bad", [{"ops": [7]}, {"ops": [{"op": "set", "path": 3}]}, {"write": 4}, {"write": []}])
def test_a_line_in_an_unknown_form_is_refused_and_shown_harmlessly(bad: dict[str, Any]) -> None:
    states, lines = changed(("a", "1"))
    file = lines[0]["files"][0]
    del file["ops"]
    file.update(bad)
    with pytest.raises(RecoveryError):
        rebuilt(states[-1], lines, history.Moment(seq=0))
    assert "doesn't know" in changelog.fields(file)[0]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("12", ("", "", 12)),
        ("2h", ("2001-09-08T23:46:40Z", "", -1)),
        ("2026-11-25T08:00:00Z", ("2026-11-25T08:00:00Z", "", -1)),
        ("2026-11-25T10:00+02:00", ("2026-11-25T08:00:00Z", "", -1)),
        ("2026-11-25", ("2026-11-25T00:00:00Z", "", -1)),
        ("20261125T080000Z-a1b2", ("", "20261125T080000Z-a1b2", -1)),
    ],
)
def test_a_moment_is_a_number_a_txid_a_time_or_so_long_ago(text: str, moment: tuple[str, str, int]) -> None:
    found = history.moment_of(text, 1e9)
    assert (found.time, found.txid, found.seq) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "-1", "2026-11-25T08:00:00Zx", "1e9h"])
def test_anything_else_is_no_moment(text: str) -> None:
    with pytest.raises(UsageError, match="no moment"):
        history.moment_of(text, 1e9)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1 << 18])
def test_lines_are_read_backwards_whatever_the_size_of_a_piece(tmp_path: Path, piece: int) -> None:
    path = tmp_path / "log"
    for data in (b"", b"\n", b"a\nbb\n\nccc", b"\na\n" + b"x" * 100 + b"\nT-1 y\nz T-1\n", b"T-1", b"T-1\n\nT-1 T-1\n"):
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        lines = [line for line in data.split(b"\n") if line][::-1]
        assert list(jsonl.backwards(fd, b"", piece)) == lines
        assert list(jsonl.backwards(fd, b"T-1", piece)) == [line for line in lines if b"T-1" in line]
        os.close(fd)


def test_a_long_tail_of_nuls_is_one_torn_line_and_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"a": 1}\n')
    os.truncate(path, 300 << 20)
    fd = os.open(path, os.O_RDONLY)
    tracemalloc.start()
    found = [jsonl.record_of(line) for line in jsonl.backwards(fd)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    os.close(fd)
    assert found == [None, {"a": 1}]
    assert peak < 1 << 22
