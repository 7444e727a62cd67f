"""The round of writers: it holds for the suite as it is, and fails for a suite, or a writer, that is broken."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from recovery import commit, durable, finish, recover, resolve, store
from recovery.torture import scratch, writers
from recovery.torture.operations import Benches
from recovery.torture.runner import warm_up
from support.meeting import children

warm_up()


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Benches:
    made = Benches(tmp_path_factory.mktemp("writers"))
    for operation in made.operations:
        if operation.command[0] == "complete":
            assert made.of(operation).steps()
    return made


@pytest.fixture(autouse=True)
def nothing_left(benches: Benches) -> Iterator[None]:
    """Whatever became of a round: of its workspaces and of its processes nothing is left."""
    before = children()
    yield
    assert [name for name in os.listdir(benches.folder) if "-template" not in name] == []
    assert children() <= before


def require_violation(benches: Benches, match: str, rounds: int = 30) -> None:
    """One of some rounds fails, for that reason."""
    with pytest.raises(scratch.Violation, match=match):
        for seed in range(rounds):
            writers.round(benches, Random(seed), 0.3)


def test_a_round_holds_and_says_what_it_did(benches: Benches) -> None:
    """Commands run and are killed, others write and read meanwhile; all of it is counted, and time is kept."""
    kills = 0
    for seed in range(30):
        began = time.monotonic()
        counts = writers.round(benches, Random(seed), 0.3)
        assert min(counts.commands, counts.edits, counts.reads) > 0, counts
        assert time.monotonic() - began < 15
        kills += counts.kills
        if seed > 1 and kills:
            return
    pytest.fail("in 30 rounds nothing was killed")


def test_no_time_at_all_is_enough_for_the_checks(benches: Benches) -> None:
    """Nothing is started, then everything is done once."""
    assert writers.round(benches, Random(1), 0).commands == 0


def test_a_suite_without_data_locks_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of the foreign writer, or a change of ours, is lost."""

    def none(self: store.FileStore, *_: object, **__: object) -> None:
        pass

    monkeypatch.setattr(store.FileStore, "take_locks", none)
    require_violation(benches, "foreign edits|went back|among other writers|stray file|should be there|said that it")


def test_a_suite_that_does_not_tidy_up_after_the_dead_is_found(
    benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged files and backups of killed commands lie about for ever."""
    monkeypatch.setattr(resolve, "tidy_after", lambda target, note: None)
    monkeypatch.setattr(recover, "_sweep", lambda target: ([], []))
    require_violation(benches, "should be there|stray file")


class _Slow:
    """The module os, but a rename is a copy into the open file, with a pause in the middle."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        fd = os.open(old, os.O_RDONLY, dir_fd=src_dir_fd)
        data = durable.read_all(fd, os.fstat(fd).st_size)
        os.close(fd)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=dst_dir_fd)
        os.write(fd, data[: len(data) // 2])
        time.sleep(0.005)
        os.write(fd, data[len(data) // 2 :])
        os.close(fd)
        os.unlink(old, dir_fd=src_dir_fd)


def test_a_suite_that_writes_in_place_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader sees half a file."""
    monkeypatch.setattr(finish, "os", _Slow())
    require_violation(benches, "was read torn|neither|among other writers|Expecting|expected exit")


def test_a_suite_that_says_it_is_done_and_is_not_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only learns that its change is decided, and doesn't write it down."""

    def forgets(target: store.FileStore, record: Any, files: Any, own: bool) -> None:
        target.journal().mark_done(record.seq, record.txid)  # type: ignore[union-attr]

    monkeypatch.setattr(finish, "_record_and_forget", forgets)
    require_violation(benches, "said that it was done|the change log says|changed something|did not say")


def test_a_suite_that_counts_twice_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that goes up once too often is seen by the reader at once, or in the end."""
    honest = commit._Work._bytes

    def twice(work: commit._Work, edit: commit.Edit) -> list[bytes]:
        data = b"".join(honest(work, edit))
        return [data.replace(b'"completed": 3', b'"completed": 4')]

    monkeypatch.setattr(commit._Work, "_bytes", twice)
    require_violation(benches, "is mixed|counts")


def test_a_writer_that_takes_no_lock_is_found(benches: Benches, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter of the foreign writers itself can fail: two of them without a lock lose edits."""

    def without(path: Path, indent: int | None) -> None:
        body = json.loads(path.read_bytes())
        body["foreign"] = body.get("foreign", 0) + 1
        temporary = path.with_name(f"{path.name}.{os.getpid()}.foreign")
        temporary.write_text(json.dumps(body, indent=indent), encoding="utf-8")
        temporary.replace(path)

    monkeypatch.setattr(writers, "count_up", without)
    require_violation(
        benches, "foreign edits|went back|among other|said that it|expected exit|should be there|is .*, not"
    )


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda space: space.path("postbox/CC/outbox.json.stage").touch(), "should be there"),
        (lambda space: space.path("postbox/CC/outbox.json.backup_CC-4.1").touch(), "stray file"),
        (lambda space: space.path("data/x").touch(), "stray file data/x"),
        (lambda space: _rewrite(space, "postbox/CC/outbox.json", '"Work 4 of CC"', '"Work"'), "CC-4 says"),
        (lambda space: _rewrite(space, "postbox/CC/outbox.json", '"1.0.0"', '"1.0.1"'), "and said"),
        (lambda space: _rewrite(space, "postbox/CB/outbox.json", '"Work 4 of CB"', '"Work"'), "CB"),
        (lambda space: space.path("postbox/CC/completed/CC-1_completion.json").unlink(), "should be there|No such"),
    ],
    ids=["stage", "backup", "ours", "another-task", "a-field", "another-agent", "record"],
)
def test_whatever_is_not_as_it_should_be_in_the_end_is_found(
    spoil: Callable[[scratch.Workspace], None], match: str, benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last check looks at every file: somebody changes one right before it."""
    honest = writers._require_once

    def spoiled(space: scratch.Workspace, *rest: Any) -> None:
        spoil(space)
        honest(space, *rest)

    monkeypatch.setattr(writers, "_require_once", spoiled)
    with pytest.raises(scratch.Violation, match=match):
        writers.round(benches, Random(2), 0)


def _rewrite(space: scratch.Workspace, name: str, old: str, new: str) -> None:
    text = space.path(name).read_text(encoding="utf-8")
    assert old in text
    space.path(name).write_text(text.replace(old, new), encoding="utf-8")
