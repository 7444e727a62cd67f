"""Files that are protected for a run: put back in one commit, without harm to what others committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recovery import protect
from recovery.errors import RollbackFailed, UsageError
from recovery.session import Session
from recovery.store import FileStore
from support import programs
from support.workspace import Workspace

OUTBOX = "postbox/CC/outbox.json"


def backup(space: Workspace, name: str, end: str = "") -> Path:
    return space.path(f"{name}.backup_T-1{end}")


def test_rollback_restores_bytes_absence_and_mode(space: Workspace, store: FileStore) -> None:
    space.path("notes").mkdir()
    binary = bytes(range(256)) * 3
    space.path("notes/a.bin").write_bytes(binary)
    space.path("notes/gone.txt").write_text("still needed")
    os.chmod(space.path("notes/gone.txt"), 0o640)
    before = space.data()
    kept = protect.keep(store, "T-1", "CC", ["notes/a.bin", "notes/gone.txt", "notes/new.txt", OUTBOX])
    space.path("notes/a.bin").write_bytes(b"half")
    space.path("notes/gone.txt").unlink()
    space.path("notes/new.txt").write_text("made by the run")
    restored = protect.restore(store, kept)
    assert sorted(restored) == ["notes/a.bin", "notes/gone.txt", "notes/new.txt"]
    ours = (".backup_T-1", ".lock")
    after = {name: data for name, data in space.data().items() if not any(word in name for word in ours)}
    assert after == before
    assert space.path("notes/gone.txt").stat().st_mode & 0o777 == 0o640
    assert backup(space, "notes/a.bin").read_bytes() == binary
    assert [line[0] for line in space.changes()] == ["restore"]
    assert programs.strays(space.root) == []


def test_rollback_of_nothing_is_no_commit(space: Workspace, store: FileStore) -> None:
    kept = protect.keep(store, "T-1", "CC", [OUTBOX, "absent.txt"])
    assert protect.restore(store, kept) == []
    assert space.changes() == []


def test_after_a_success_the_backups_go(space: Workspace, store: FileStore) -> None:
    kept = protect.keep(store, "T-1", "CC", [OUTBOX])
    assert backup(space, OUTBOX).read_bytes() == space.path(OUTBOX).read_bytes()
    protect.discard(store, kept)
    assert not backup(space, OUTBOX).exists()


def test_an_older_differing_backup_is_never_overwritten(space: Workspace, store: FileStore) -> None:
    backup(space, OUTBOX).write_text("of a run that died")
    protect.keep(store, "T-1", "CC", [OUTBOX])
    assert backup(space, OUTBOX, ".1").read_text() == "of a run that died"
    assert backup(space, OUTBOX).read_bytes() == space.path(OUTBOX).read_bytes()


def test_rollback_keeps_what_others_committed_meanwhile(space: Workspace, store: FileStore) -> None:
    """A stale copy is never put over newer work: the others' fields are applied again on top of the old state."""
    kept = protect.keep(store, "T-1", "CC", [OUTBOX, ".sprint/progress.json"])
    text = space.path(OUTBOX).read_text()
    space.path(OUTBOX).write_text(text.replace("Work 3 of CC", "DAMAGE"))  # the run's own work
    assert space.run(("complete", "CC", "CC-1", "theirs")).code == 0
    assert space.run(("assign", "CC", "CC-9", "new one", "LOW")).code == 0
    assert protect.restore(store, kept) == [OUTBOX]
    assert space.task("CC", "CC-3")["title"] == "Work 3 of CC"
    assert space.task("CC", "CC-1")["completion_message"] == "theirs"
    assert space.task("CC", "CC-9")["title"] == "new one"
    assert space.progress()["completed"] == 1


def test_rollback_twice_in_one_run(space: Workspace, store: FileStore) -> None:
    kept = protect.keep(store, "T-1", "CC", [OUTBOX])
    before = space.path(OUTBOX).read_bytes()
    for word in ("first", "second"):
        space.path(OUTBOX).write_text(word)
        assert protect.restore(store, kept) == [OUTBOX]
        assert space.path(OUTBOX).read_bytes() == before


def test_rollback_that_cannot_be_done_says_why_and_keeps_the_backup(space: Workspace, store: FileStore) -> None:
    kept = protect.keep(store, "T-1", "CC", [OUTBOX])
    before = space.path(OUTBOX).read_bytes()
    space.path(OUTBOX).unlink()
    space.path(OUTBOX).mkdir()
    with pytest.raises(RollbackFailed, match=r"Rollback failed for task T-1: .*is a folder") as refusal:
        protect.restore(store, kept)
    assert refusal.value.code == 70
    assert "outbox.json.backup_T-1" in refusal.value.hint
    assert backup(space, OUTBOX).read_bytes() == before


def test_a_file_that_is_too_big_is_refused_before_the_run(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protect, "MOST", 10)
    with pytest.raises(UsageError, match="at most 10 can be protected"):
        protect.keep(store, "T-1", "CC", [OUTBOX])
    assert not backup(space, OUTBOX).exists()


ROLL_BACK = """
from recovery import protect
from recovery.session import Session
with Session(os.getcwd()).store() as store:
    kept = protect.keep(store, "T-1", "CC", ["postbox/CC/outbox.json", "notes.txt"])
    open("postbox/CC/outbox.json", "w").write("garbage")
    open("notes.txt", "w").write("garbage")
    steps.at("damaged")
    protect.restore(store, kept)
"""


def test_rollback_killed_at_any_step_is_whole_or_not_begun(tmp_path: Path) -> None:
    """Both files old or both as the run left them, and then finished by the next command."""
    empty = Workspace.make(tmp_path / "ws")
    empty.path("notes.txt").write_text("before")
    before = empty.path(OUTBOX).read_bytes()
    outcomes = set()
    for number, step in enumerate(programs.steps_of(empty.copy(tmp_path / "listing").root, ROLL_BACK)):
        space = empty.copy(tmp_path / f"run-{number}")
        done = programs.run(space.root, ROLL_BACK, fault=f"{step}=kill")
        assert programs.killed(done), (step, done)
        assert space.run(("recover",)).code == 0, step
        now = (space.path(OUTBOX).read_bytes(), space.path("notes.txt").read_text())
        assert now in ((before, "before"), (b"garbage", "garbage")), step
        outcomes.add(now[1])
        if now[1] == "garbage":
            assert backup(space, OUTBOX).read_bytes() == before, step
        with Session(space.root).store() as store:  # the next holder of the locks tidies
            protect.keep(store, "T-2", "CC", [OUTBOX, "notes.txt"])
        assert programs.strays(space.root) == [], step
        space.remove()
    assert outcomes == {"before", "garbage"}
