"""Logs of one object a line: a torn tail harms neither what was before it nor what comes after."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery import durable, jsonl, jsontext


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    """An empty log, open for appending."""
    root = durable.Root(str(tmp_path))
    fd = jsonl.open_append(root, root.place("log.jsonl"), 0o640, -1)
    yield fd
    os.close(fd)
    root.close()
    assert os.listdir(tmp_path) == ["log.jsonl"], "stray files"


def line(txid: str, **more: object) -> str:
    return jsontext.dumps({"txid": txid, **more})


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def txids(fd: int) -> list[object]:
    return [record.get("txid") for record in jsonl.records(content(fd))[0]]


def test_a_new_log_has_the_mode_asked_for(log: int) -> None:
    """Whatever the umask is."""
    assert os.fstat(log).st_mode & 0o777 == 0o640


def test_lines_are_appended_in_order(log: int) -> None:
    """Each with its newline; text of any kind is read back."""
    jsonl.append(log, line("a", said="ü\n\u2028 \U0001f600"))
    jsonl.append(log, line("b"))
    found, torn = jsonl.records(content(log))
    assert [record["txid"] for record in found] == ["a", "b"]
    assert torn == 0
    assert found[0]["said"] == "ü\n\u2028 \U0001f600"
    assert content(log).count(b"\n") == 2


def test_a_tail_torn_at_any_byte_costs_one_line_and_is_counted(log: int) -> None:
    """Row 61: the lines before and after are readable; the torn one is passed over and counted."""
    jsonl.append(log, line("a"))
    whole = content(log)
    last = line("torn", said="größer").encode() + b"\n"
    for n in range(len(last) + 1):
        os.ftruncate(log, 0)
        os.write(log, whole + last[:n])
        jsonl.append(log, line("c"))
        found, torn = jsonl.records(content(log))
        complete = n >= len(last) - 1  # only the newline is missing: no prefix of an object is one
        assert [r["txid"] for r in found] == (["a", "torn", "c"] if complete else ["a", "c"]), f"torn after {n} bytes"
        assert torn == (0 if complete or n == 0 else 1), f"torn after {n} bytes"


@pytest.mark.parametrize("nuls", [1, 511, 4096])
def test_a_tail_of_nuls_costs_nothing_else(log: int, nuls: int) -> None:
    """Row 61: what some file systems leave after a power cut."""
    jsonl.append(log, line("a"))
    os.write(log, b"\0" * nuls)
    jsonl.append(log, line("b"))
    found, torn = jsonl.records(content(log))
    assert [record["txid"] for record in found] == ["a", "b"]
    assert torn == 1


@pytest.mark.parametrize("foreign", [b"[1]", b"null", b'"x"', b"{} {}", b'{"a": NaN}', b"\xff\xfe", b"{'a': 1}"])
def test_a_foreign_line_is_passed_over_and_counted(log: int, foreign: bytes) -> None:
    """Only whole JSON objects are records."""
    os.write(log, foreign + b"\n")
    jsonl.append(log, line("a"))
    assert jsonl.records(content(log)) == ([{"txid": "a"}], 1)


def test_the_tail_is_searched_for_a_transaction(log: int) -> None:
    """A repeated append asks first; a torn line with that id doesn't count."""
    assert not jsonl.tail_has(log, "a", 1000)
    jsonl.append(log, line("a"))
    jsonl.append(log, line("b"))
    assert jsonl.tail_has(log, "a", 1000)
    assert jsonl.tail_has(log, "b", 1000)
    assert not jsonl.tail_has(log, "c", 1000)
    os.write(log, line("c").encode()[:-1])
    assert not jsonl.tail_has(log, "c", 1000)
    jsonl.append(log, line("c"))
    assert jsonl.tail_has(log, "c", 1000)


def test_an_id_that_is_only_mentioned_is_not_found(log: int) -> None:
    """The id counts as the line's own `txid`, not as text inside another one."""
    jsonl.append(log, line("a", undoes="b", note='"txid": "c"'))
    assert not jsonl.tail_has(log, "b", 1000)
    assert not jsonl.tail_has(log, "c", 1000)


def test_a_window_that_begins_inside_a_line_still_finds_the_last(log: int) -> None:
    """Any window that holds the whole last line is enough."""
    for n in range(50):
        jsonl.append(log, line(f"t{n}", pad="ü" * n))
    needed = len(line("t49", pad="ü" * 49).encode()) + 1
    for window in range(needed, needed + 300):
        assert jsonl.tail_has(log, "t49", window)
