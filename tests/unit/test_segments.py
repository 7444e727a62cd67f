"""Logs are put aside and compressed: every line is there once, whoever appends or reads meanwhile, whatever dies."""

from __future__ import annotations

import gzip
import multiprocessing
import os
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from recovery import derived, jsonl, jsontext, layout, segments, steps
from recovery.errors import Busy
from recovery.flock import Limits
from recovery.session import Session
from recovery.store import FileStore
from support import programs
from support.promise import Failures
from support.workspace import Workspace

LOG = f"{layout.CHANGES}/2026-11.jsonl"
_fork = multiprocessing.get_context("fork")


def change(n: int, who: str = "CC") -> dict[str, object]:
    return {
        "txid": f"20261101T000000Z-{who}{n:06d}",
        "seq": n,
        "time": "2026-11-01T00:00:00Z",
        "op": "note",
        "agent": who,
        "task": f"T-{n}",
        "files": [],
        "derived": [],
    }


def fill(store: FileStore, first: int, last: int) -> None:
    for n in range(first, last + 1):
        store.append(LOG, change(n), sync=False)


def seqs(store: FileStore) -> list[int]:
    return [line["seq"] for line in derived.newest_first(store)]


def parts(space: Workspace) -> list[str]:
    return sorted(path.name for path in space.path(layout.CHANGES).iterdir() if not path.name.startswith("."))


def put_aside(store: FileStore, compressed: bool = True) -> str:
    part = segments.rotate(store, LOG)
    assert part is not None
    if compressed:
        assert segments.compress(store, part)
    return part


def test_a_log_is_read_over_all_its_parts_the_newest_first(space: Workspace, store: FileStore) -> None:
    for first in (1, 11, 21):
        fill(store, first, first + 9)
        put_aside(store, compressed=first != 11)
    fill(store, 31, 33)
    assert parts(space) == [
        "2026-11.jsonl",
        "2026-11.jsonl.0001.gz",
        "2026-11.jsonl.0002",
        "2026-11.jsonl.0003.gz",
    ]
    assert seqs(store) == list(range(33, 0, -1))
    assert [line["task"] for line in derived.newest_first(store, "T-25")] == ["T-25"]
    assert derived.last_seq(store) == 33


def test_a_part_that_is_there_plain_and_compressed_counts_once(space: Workspace, store: FileStore) -> None:
    """As a crash leaves it between the rename and the removal; the plain one is believed."""
    fill(store, 1, 5)
    part = put_aside(store, compressed=False)
    space.path(part + ".gz").write_bytes(gzip.compress(space.path(part).read_bytes()))
    assert seqs(store) == [5, 4, 3, 2, 1]
    assert segments.compress(store, part)
    assert parts(space) == ["2026-11.jsonl.0001.gz"]
    assert seqs(store) == [5, 4, 3, 2, 1]


def test_who_has_a_log_open_reads_on(space: Workspace, store: FileStore) -> None:
    fill(store, 1, 3)
    with space.path(LOG).open() as reader:
        assert reader.readline()
        put_aside(store)
        assert len(reader.readlines()) == 2


def test_of_a_cut_off_archive_comes_what_is_there_and_of_a_damaged_one_nothing_twice(
    space: Workspace, store: FileStore
) -> None:
    fill(store, 1, 2000)
    part = space.path(put_aside(store) + ".gz")
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    found = seqs(store)
    assert 500 < len(found) < 2000
    assert found == list(range(len(found), 0, -1))
    part.write_bytes(data[: len(data) // 2] + b"\0" * (len(data) // 2))
    txids = [line["txid"] for line in derived.newest_first(store)]
    assert len(txids) == len(set(txids)) >= len(found)
    part.write_bytes(b"")
    assert seqs(store) == []


def test_nothing_is_put_aside_while_a_commit_is_unfinished(space: Workspace) -> None:
    """Its line may be the last of the log, where whoever finishes it looks."""
    assert space.run(("complete", "CC", "CC-1"), fault="appended=kill-group").code == -9
    with Session(space.root).store() as store:
        log = segments.logs(store, layout.CHANGES)[0]
        assert segments.rotate(store, log) is None
        assert space.run(("recover",)).code == 0
        assert segments.rotate(store, log) is not None


def test_a_line_that_was_put_aside_by_somebody_is_not_written_again(space: Workspace) -> None:
    """An administrator's logrotate between a crash and the recovery from it."""
    assert space.run(("complete", "CC", "CC-1"), fault="done-mark=kill-group").code == -9
    (log,) = space.path(layout.CHANGES).glob("*.jsonl")
    log.rename(f"{log}.0001")
    assert space.run(("recover",)).code == 0
    with Session(space.root).store() as store:
        (name,) = segments.logs(store, layout.CHANGES)
        found = [derived.counted_lines(store, part)[0] for part in (*segments.of(store, name), name)]
        assert [line["task"] for lines in found for line in lines] == ["CC-1"]


def test_nobody_puts_a_log_aside_while_a_line_is_added(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line would go to a part that may have been compressed by then."""
    fill(store, 1, 2)
    met = []

    def hook(step: str, detail: object = "") -> None:
        if step == "append":
            monkeypatch.setattr(steps, "at", lambda step, detail="": None)
            other = FileStore(str(space.root), Limits(0.05, 0.05, "rotate"))
            with pytest.raises(Busy):
                segments.rotate(other, LOG)
            other.close()
            met.append(step)

    monkeypatch.setattr(steps, "at", hook)
    fill(store, 3, 3)
    assert met == ["append"]
    assert seqs(store) == [3, 2, 1]


def _append(root: Path, who: str, written: Synchronized[int], enough: Event, barrier: Barrier) -> None:
    barrier.wait()
    with Session(root).store() as store:
        while not enough.is_set():
            store.append(LOG, change(written.value, who), sync=False)
            written.value += 1
    os._exit(0)


def test_who_appends_while_it_is_put_aside_loses_no_line(space: Workspace, store: FileStore) -> None:
    """Three processes append, one puts aside and compresses, one reads: each line once, and none is met twice."""
    crowd = {who: _fork.Value("i", 0) for who in ("CA", "CB", "CC")}
    barrier, enough = _fork.Barrier(len(crowd) + 1), _fork.Event()
    workers = [_fork.Process(target=_append, args=(space.root, *one, enough, barrier)) for one in crowd.items()]
    for worker in workers:
        worker.start()
    barrier.wait()
    turned = 0
    while turned < 5 and all(worker.is_alive() for worker in workers):
        part = segments.rotate(store, LOG)
        met = [line["txid"] for line in derived.newest_first(store)]
        assert len(met) == len(set(met))
        if part is not None:
            turned += 1
            assert segments.compress(store, part)
    enough.set()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    found = [line["txid"] for line in derived.newest_first(store)]
    expected = [str(change(n, who)["txid"]) for who, written in crowd.items() for n in range(written.value)]
    assert sorted(found) == sorted(expected)


ROTATE = f"""
from recovery import segments
from recovery.session import Session
with Session(".").store() as store:
    part = segments.rotate(store, {LOG!r})
    for part in segments.of(store, {LOG!r}):
        if not part.endswith(".gz"):
            segments.compress(store, part)
"""


def test_killed_at_any_step_every_line_is_there_once(tmp_path: Path, failures: Failures) -> None:
    template = Workspace.make(tmp_path / "template")
    with Session(template.root).store() as store:
        fill(store, 1, 20)
    steps = programs.steps_of(template.copy(tmp_path / "steps").root, ROTATE)
    assert {"rotated:1", "compressed:1"} <= set(steps)
    wanted = [step for step in steps if step.split(":")[0] not in ("lock", "locked")]
    for step in wanted:
        space = template.copy(tmp_path / f"ws-{step.replace(':', '-')}")
        with failures.at(step):
            assert programs.killed(programs.run(space.root, ROTATE, fault=f"{step}=kill")), "it was not killed"
            with Session(space.root).store() as store:
                assert seqs(store) == list(range(20, 0, -1))
                fill(store, 21, 22)
                assert programs.run(space.root, ROTATE).code == 0
                assert seqs(store) == list(range(22, 0, -1))
            assert [name for name in parts(space) if not name.endswith(".gz")] == []
            assert programs.strays(space.root) == []


def test_an_append_that_makes_a_log_long_says_so_once(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    line = len(jsontext.dumps(change(1))) + 1
    monkeypatch.setattr(jsonl, "LONG", 4 * line)
    grown = []
    for n in range(1, 10):
        store.grown = False
        store.append("logs/recovery/T_recovery.jsonl", change(n), sync=False)
        grown.append(store.grown)
    assert grown == [False, False, False, True, False, False, False, True, False]


def test_lost_lines_of_many_logs_are_looked_for_with_one_look_at_their_folder(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit after a reboot looks for a day's lines: listing the folder for each took seconds."""
    for n in (1, 2, 3):
        assert space.run(("note", "CC", f"CC-{n}", "words")).code == 0
    histories = [space.path(layout.history(f"CC-{n}")) for n in (1, 2, 3)]
    for path in histories:
        path.write_bytes(b"")
    listed: list[str] = []
    names = store.root.names

    def counted(folder: str) -> list[str]:
        listed.append(folder)
        return names(folder)

    monkeypatch.setattr(store.root, "names", counted)
    assert derived.rederive(store) >= 3
    assert all(path.stat().st_size for path in histories)
    assert listed.count(layout.CHECKPOINTS) <= 2
