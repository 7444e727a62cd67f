"""The journal: a torn record never happened, a torn mark leaves the record as it was, a number is never used twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery import journal as module
from recovery import jsontext
from recovery.journal import BLOCK, SIZE, Journal, allocate

DONE, ABORT, RECORD = 0, BLOCK, 2 * BLOCK
SECTOR = 512


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An allocated, empty journal."""
    fd = os.open(tmp_path / "journal", os.O_RDWR | os.O_CREAT)
    allocate(fd)
    opened = Journal(fd)
    yield opened
    opened.close()
    assert os.listdir(tmp_path) == ["journal"], "stray files"


def body(txid: str, size: int = 0) -> str:
    """A record's content; each transaction fills it with a character of its own."""
    return jsontext.dumps({"txid": txid, "pad": chr(0xE0 + sum(txid.encode()) % 30) * size})


def content(journal: Journal) -> bytes:
    return os.pread(journal.fd, os.fstat(journal.fd).st_size, 0)


def put(journal: Journal, data: bytes, at: int = 0) -> None:
    assert os.pwrite(journal.fd, data, at) == len(data)


def state(journal: Journal) -> tuple[str, str, bool] | None:
    record = journal.read()
    return None if record is None else (record.txid, record.direction, record.finished)


def test_an_empty_journal_holds_no_record(journal: Journal) -> None:
    """Zeros are no record, and the first number is 1."""
    assert content(journal) == b"\0" * SIZE
    assert state(journal) is None
    assert journal.next_seq == 1


def test_a_record_is_unfinished_until_the_done_mark_carries_its_number(journal: Journal) -> None:
    """Write: REDO; abort mark: ABORT; done mark of another number: nothing; its own: finished."""
    journal.write(7, body("t7"))
    assert state(journal) == ("t7", "REDO", False)
    journal.mark_done(6, "t6")
    assert state(journal) == ("t7", "REDO", False)
    record = journal.read()
    assert record is not None
    journal.mark_abort(record, "conflict", "another edit")
    assert record.direction == "ABORT"
    assert state(journal) == ("t7", "ABORT", False)
    journal.mark_done(7, "t7")
    assert state(journal) == ("t7", "ABORT", True)
    journal.write(8, body("t8"))
    assert state(journal) == ("t8", "REDO", False), "the marks of the record before mean nothing to this one"


def test_the_next_number_is_above_every_number_seen(journal: Journal) -> None:
    """Also when the newest record is torn and only a mark remembers it."""
    journal.write(41, body("t41"))
    journal.read()
    assert journal.next_seq == 42
    put(journal, b"X", RECORD + 60)
    assert state(journal) is None
    assert journal.next_seq == 1
    journal.mark_done(41, "t41")
    journal.read()
    assert journal.next_seq == 42


@pytest.mark.parametrize("size", [0, 300, 20_000], ids=["small", "some sectors", "more than is read at once"])
def test_a_record_torn_at_any_byte_never_happened(journal: Journal, size: int) -> None:
    """The first n bytes of a new record over an old one: no record, until all are there; never a mixture."""
    journal.write(1, body("old", size + 40))
    journal.mark_done(1, "old")
    before = content(journal)
    journal.write(2, body("new", size))
    after = content(journal)
    length = max(n for n in range(RECORD, len(after)) if before[n] != after[n]) + 1 - RECORD
    for n in {*range(0, min(length, 200)), *range(0, length, 97), length - 1}:
        put(journal, after[RECORD : RECORD + n] + before[RECORD + n :], RECORD)
        assert state(journal) in (None, ("old", "REDO", True)), f"torn after {n} bytes"
    put(journal, after)
    assert state(journal) == ("new", "REDO", False)


def test_a_record_with_any_sector_missing_never_happened(journal: Journal) -> None:
    """A power cut writes any subset of the sectors, in any order."""
    journal.write(1, body("old", 1500))
    journal.mark_done(1, "old")
    before = content(journal)
    journal.write(2, body("new", 1500))
    after = content(journal)
    sectors = [n for n in range(0, SIZE, SECTOR) if before[n : n + SECTOR] != after[n : n + SECTOR]]
    assert len(sectors) > 5
    for missing in sectors:
        put(journal, after)
        put(journal, before[missing : missing + SECTOR], missing)
        assert state(journal) is None, f"sector {missing // SECTOR} is missing"


def test_a_record_with_any_byte_flipped_never_happened(journal: Journal) -> None:
    """The checksum covers number and content; the header is checked word by word."""
    journal.write(3, body("t3", 30))
    whole = content(journal)
    end = max(n for n in range(SIZE) if whole[n]) + 1
    for at in range(RECORD, end):
        put(journal, bytes([whole[at] ^ 1]), at)
        found = journal.read()
        assert found is None or whole[at : at + 1] in b" \n\t", f"byte {at - RECORD} ({whole[at : at + 1]!r}) flipped"
        put(journal, whole[at : at + 1], at)


@pytest.mark.parametrize("at", [DONE, ABORT], ids=["done", "abort"])
def test_a_mark_torn_at_any_byte_leaves_the_record_as_it_was(journal: Journal, at: int) -> None:
    """The first n bytes of a mark over the mark of the record before: the new record is untouched by it."""
    journal.write(11, body("t11"))
    first = journal.read()
    assert first is not None
    journal.mark_abort(first, "failed", "the disk")
    journal.mark_done(11, "t11")
    journal.write(12, body("t12"))
    before = content(journal)
    second = journal.read()
    assert second is not None
    if at == DONE:
        journal.mark_done(12, "t12")
    else:
        journal.mark_abort(second, "conflict", "another edit")
    after = content(journal)
    marked = ("t12", "REDO", True) if at == DONE else ("t12", "ABORT", False)
    changed = [n for n in range(SIZE) if before[n] != after[n]]
    assert {n // SECTOR for n in changed} == {at // SECTOR}, "a mark lies in one sector of its own block"
    for n in range(257):
        put(journal, after[at : at + n] + before[at + n : at + 256], at)
        assert state(journal) == (marked if n > changed[-1] - at else ("t12", "REDO", False)), f"torn after {n} bytes"


def test_marks_and_record_share_no_block() -> None:
    """A disk that tears a block while writing a mark can't harm the record or the other mark."""
    assert len({DONE // BLOCK, ABORT // BLOCK, RECORD // BLOCK}) == 3
    assert len(module._mark_text("ABORT", 10**12, "t" * 40)) <= SECTOR


def test_a_record_larger_than_the_journal_is_read_back_whole(journal: Journal) -> None:
    """The file grows with it; nothing is cut."""
    text = body("big", 200_000)
    journal.write(5, text)
    record = journal.read()
    assert record is not None
    assert len(record.body["pad"]) == 200_000
    journal.mark_done(5, "big")
    journal.write(6, body("small"))
    assert state(journal) == ("small", "REDO", False)


def test_allocating_again_keeps_what_is_there(journal: Journal) -> None:
    """A journal of full size is not touched; a shorter one is filled up behind its end."""
    journal.write(2, body("t2"))
    before = content(journal)
    allocate(journal.fd)
    assert content(journal) == before
    os.ftruncate(journal.fd, RECORD + 200)
    allocate(journal.fd)
    assert content(journal)[: RECORD + 100] == before[: RECORD + 100]
    assert len(content(journal)) == SIZE


@pytest.mark.parametrize("junk", [b"RECORD 1 5 x\nhello", b"RECORD -1 9 x\n", b"RECORD 1\n", b"{}", b"\xff" * 90])
def test_junk_is_no_record(journal: Journal, junk: bytes) -> None:
    """Nothing is raised for what isn't ours."""
    put(journal, junk, RECORD)
    put(journal, junk, DONE)
    assert state(journal) is None


def test_an_abort_remembers_what_made_it_one(journal: Journal) -> None:
    """Whoever finishes a dead resolver's abort must be able to set the edit aside for the same reason."""
    journal.write(5, body("t5"))
    record = journal.read()
    assert record is not None
    journal.mark_abort(record, "conflict", 'postbox/CC/outbox.json was changed by "somebody"\nelse é')
    again = journal.read()
    assert again is not None
    assert (again.direction, again.kind) == ("ABORT", "conflict")
    assert again.reason == 'postbox/CC/outbox.json was changed by "somebody" else \\xe9'


def test_a_long_reason_is_cut_and_the_mark_stays_whole(journal: Journal) -> None:
    journal.write(6, body("t6"))
    record = journal.read()
    assert record is not None
    journal.mark_abort(record, "conflict", "x" * 5000)
    again = journal.read()
    assert again is not None
    assert again.direction == "ABORT"
    assert 100 < len(again.reason) < 512
