"""Archived tasks are out of the way and still known."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recovery import (
    archive,
    archived,
    cleanup,
    complete,
    distribute,
    layout,
    place,
    rollback,
    segments,
    status,
    verbs,
)
from recovery.assign import assign
from recovery.dependencies import Dependency
from recovery.errors import DataError, NotFound, RecoveryError, UsageError
from recovery.session import Session
from recovery.store import FileStore
from support.workspace import Workspace


def outbox(space: Workspace, agent: str, change: Any) -> None:
    path = space.path(f"postbox/{agent}/outbox.json")
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def done(space: Workspace, *tasks: str, agent: str = "CC", when: str | None = "2025-06-01T00:00:00Z") -> None:
    def change(body: Any) -> None:
        for task in body["tasks"]:
            if task["task_id"] in tasks:
                task["status"] = "Completed"
                if when is not None:
                    task["completed_at"] = when

    outbox(space, agent, change)


def gone(store: FileStore, agent: str = "CC") -> dict[str, Any]:
    return dict(archive.archive(store, agent, 30).data)


def test_the_age_decides_and_open_parked_escalated_and_undated_tasks_stay(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1", "CC-2", "CC-3")
    done(space, "CA-1", agent="CA", when=None)
    done(space, "CA-2", agent="CA", when=store.now())
    space.path("data/manual").mkdir(parents=True)
    space.path("data/manual/CC-2.json").write_text("{}")
    space.path("logs/recovery").mkdir(parents=True)
    space.path("logs/recovery/CC-3_escalation.1.json").write_text("{}")
    told = archive.archive(store, "", 30, dry_run=True)
    assert told.data["archived"] == {"CC": ["CC-1"]}
    assert not space.path("postbox/CC/archive").exists()
    result = archive.archive(store, "", 30)
    assert result.line == "archived 1 task (CC 1); 1 completed without saying when, left alone"
    assert result.data["archived"] == told.data["archived"]
    assert archive.archive(store, "", 30).line.startswith("nothing to archive")


def test_an_entry_comes_back_as_it_was_number_for_number(space: Workspace, store: FileStore) -> None:
    """`2.50` and a limit of twenty digits: what JSON readers would change is kept as text."""
    done(space, "CC-1")
    path = space.path("postbox/CC/outbox.json")
    path.write_text(path.read_text().replace('"estimated_hours": 2.5,', '"estimated_hours": 2.50,'))
    before = path.read_text()
    entry = before[before.index('{\n      "task_id": "CC-1"') : before.index("    },\n    {") + 5]
    gone(store)
    assert entry not in path.read_text()
    result = archive.restore(store, "CC", "CC-1")
    assert result.changed
    assert entry in path.read_text()
    assert "already" in archive.restore(store, "CC", "CC-1").line


def test_an_archived_task_is_still_known(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    result = complete.complete(store, "CC", "CC-1", "again")
    assert result.line == "already completed CC/CC-1 at 2025-06-01T00:00:00Z (archived); nothing changed"
    with pytest.raises(DataError, match="in the archive"):
        assign(store, "CC", "CC-1", "Anew", "HIGH")
    reopened = space.run(("reopen", "CC", "CC-1"))
    assert reopened.code == 65
    assert "next: recovery archive --restore CC CC-1" in reopened.err
    with pytest.raises(NotFound):
        archive.restore(store, "CC", "CC-77")


def test_what_depends_on_an_archived_task_is_free(space: Workspace, store: FileStore) -> None:
    from recovery import ready

    done(space, "CC-1")
    outbox(space, "CA", lambda body: body["tasks"][0].update(dependencies=["CC/CC-1"]))
    gone(store)
    known = ready.Boxes(store).seen_by("CA")
    assert known(Dependency("CC", "CC-1", "CC/CC-1")) == "completed"
    assert known(Dependency("", "CC-1", "CC-1")) == "completed"
    assert known(Dependency("CC", "CC-99", "CC/CC-99")) is None


def test_status_lists_and_counts_what_is_archived(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1", "CC-2")
    gone(store)
    everybody = status.status(store)
    assert "CC: 2 open, 0 completed, 1 in history, 2 archived" in [everybody.line, *everybody.details]
    listed = status.status(store, wanted="archived").data["agents"]
    assert [one["task_id"] for entry in listed for one in entry["tasks"]] == ["CC-1", "CC-2"]
    one = status.status(store, task="CC-2").data["agents"]
    assert [task["status"] for entry in one for task in entry["tasks"]] == ["archived"]
    assert space.run(("status", "--archived")).out.count("archived") == 2


def test_the_counters_of_progress_stay_and_a_rebuild_agrees(space: Workspace, store: FileStore) -> None:
    for n in (1, 2):
        complete.complete(store, "CC", f"CC-{n}", "done")
    done(space, "CC-1", "CC-2")
    gone(store)
    body = json.loads(space.path(".sprint/progress.json").read_text())
    assert (body["total_tasks"], body["completed"], len(body["tasks"])) == (12, 2, 10)
    assert "agrees" in space.run(("progress", "rebuild")).out
    archive.restore(store, "CC", "CC-1")
    body = json.loads(space.path(".sprint/progress.json").read_text())
    assert (body["total_tasks"], body["completed"], len(body["tasks"])) == (12, 2, 11)
    assert "agrees" in space.run(("progress", "rebuild")).out


def test_a_backlog_that_names_archived_tasks_gives_none_of_them_out_again(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    backlog = [
        {"task_id": "CC-1", "title": "Work 1 of CC", "priority": "HIGH"},
        {"task_id": "NEW", "title": "New", "priority": "LOW", "dependencies": ["CC-1"]},
    ]
    path = space.path("backlog.json")
    path.write_text(json.dumps(backlog))
    done_ = space.run(("distribute", str(path)))
    assert done_.code == 0, done_
    assert "distributed 1 task (CC 1), 1 task there already" in done_.out


def test_a_backlog_reads_each_archive_once_however_many_tasks_it_brings(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(space, "CC-1")
    gone(store)
    read: list[str] = []
    look = archived.Index._read

    def counted(self: archived.Index) -> None:
        read.append(self.agent)
        look(self)

    monkeypatch.setattr(archived.Index, "_read", counted)
    path = space.path("backlog.json")
    path.write_text(json.dumps([{"task_id": f"N-{n}", "title": "New", "agent": "CC"} for n in range(20)]))
    result = place.place(store, distribute.read(str(path)), place.Terms("distribute"))
    assert len(result.data["placed"]) == 20
    assert read == ["CC"]


def test_the_index_is_a_cache_and_may_be_lost_damaged_or_late(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    index = space.path(layout.index("CC"))
    early = index.read_bytes()
    done(space, "CC-2", when="2025-07-01T00:00:00Z")
    gone(store)

    def known() -> list[bool]:
        return [archived.find(store, "CC", f"CC-{n}") is not None for n in (1, 2, 3)]

    late = index.read_bytes()
    for data in (late, early, b"", b"{}\n", late[:-3], late[:-1] + b"x", b'{"format": 9}\n'):
        index.write_bytes(data)
        assert known() == [True, True, False]
        assert archived.count(store, "CC") == 2
    shutil.rmtree(space.path("data"))  # by mistake
    with Session(space.root).store() as fresh:
        assert archived.count(fresh, "CC") == 2
        assert archived.find(fresh, "CC", "CC-2") is not None


def test_an_archive_that_is_put_aside_and_compressed_is_read_on(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    (month,) = segments.logs(store, layout.archives("CC"))
    part = segments.rotate(store, month)
    assert part is not None
    done(space, "CC-2")
    gone(store)
    assert [archived.find(store, "CC", f"CC-{n}") is not None for n in (1, 2, 3)] == [True, True, False]
    assert archived.count(store, "CC") == 2
    result = cleanup.cleanup(store)
    assert {item["kind"] for item in result.data["items"]} == {"archives"}, "a month that is long over"
    assert sorted(path.name[7:] for path in space.path(layout.archives("CC")).iterdir()) == [
        ".jsonl.0001.gz",
        ".jsonl.0002.gz",
    ]
    assert [archived.find(store, "CC", f"CC-{n}") is not None for n in (1, 2, 3)] == [True, True, False]
    assert [line["task_id"] for line in archived.every(store, "CC")] == ["CC-1", "CC-2"]
    assert verbs.done_before(store, "CC", "CC-1") is not None


def test_a_task_of_two_agents_is_archived_for_the_one_who_completed_it(space: Workspace, store: FileStore) -> None:
    outbox(space, "CA", lambda body: body["tasks"][0].update(task_id="CC-1"))
    done(space, "CC-1")
    gone(store, "")
    assert archived.find(store, "CC", "CC-1") is not None
    assert archived.find(store, "CA", "CC-1") is None
    assert complete.complete(store, "CA", "CC-1", "mine").changed


def test_lines_that_are_no_archives_hide_no_others(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    path.write_text('{"task_id": "CC-2"}\n\0\0\n[]\n' + path.read_text() + '{"task_id": "CC-3", "archived_at": "x"')
    space.path(layout.index("CC")).unlink()
    assert archived.find(store, "CC", "CC-1") is not None
    assert archived.count(store, "CC") == 1
    for task in ("CC-2", "CC-3"):
        with pytest.raises(DataError, match=rf"2025-06\.jsonl:1 can't be read, and .* doesn't know of {task}"):
            archived.find(store, "CC", task)
    assert archived.find(store, "CC", "CC-4") is None
    path.write_text(path.read_text().replace('"entry": {"task_id": "CC-1"', '"entry": {"task_id": "CC-9"'))
    with pytest.raises(DataError, match="can't be used"):
        archive.restore(store, "CC", "CC-1")


def test_a_damaged_outbox_is_named_and_stops_nobody(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    space.path("postbox/CA/outbox.json").write_text("{")
    result = archive.archive(store)
    assert result.data["code"] == 65
    assert result.data["archived"] == {"CC": ["CC-1"]}
    assert any("CA" in line for line in store.told)
    with pytest.raises(NotFound, match="no agent"):
        archive.archive(store, "XX")
    with pytest.raises(UsageError):
        archive.archive(store, "CC", -1)


def test_more_than_one_commit_takes_all(space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TOGETHER", 2)
    done(space, "CC-1", "CC-2", "CC-3")
    assert gone(store)["archived"] == {"CC": ["CC-1", "CC-2", "CC-3"]}
    assert archived.count(store, "CC") == 3


_NO_MONTHS = ("2025-0²-01", "\uff12\uff10\uff12\uff15-06-01", "٢٠٢٥-06-01", "2025-13-01", "2025-00-01", "0x25-06-01")


@pytest.mark.parametrize("when", _NO_MONTHS)
def test_a_time_that_names_no_month_keeps_its_task_where_it_is(when: str, space: Workspace, store: FileStore) -> None:
    """What the journal can't hold would stop every command that writes."""
    done(space, "CC-1", when=when)
    done(space, "CC-2")
    path = space.path("postbox/CC/outbox.json")
    path.write_text(json.dumps(json.loads(path.read_text())))  # in escapes, as many writers do
    assert gone(store)["archived"] == {"CC": ["CC-2"]}
    assert space.run(("assign", "CA", "NEW", "New", "LOW")).code == 0


def test_a_record_that_nobody_could_finish_is_refused_before_it_is_journalled(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(space, "CC-1")
    before = space.path("postbox/CC/outbox.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(layout, "archive", lambda agent, time: f"postbox/{agent}/archive/{time[:7]}.json")
        with pytest.raises(DataError, match="no record of this suite"):
            archive.archive(store, "CC")
    assert space.path("postbox/CC/outbox.json").read_bytes() == before
    assert store.unfinished() is None
    assert gone(store)["archived"] == {"CC": ["CC-1"]}


def test_an_archive_that_cannot_be_written_is_refused_before_anything_changes(
    space: Workspace, store: FileStore
) -> None:
    """Neither archive, restore nor their rollback is decided and then stuck, in everybody's way."""
    done(space, "CC-1", "CC-2")
    month = space.path("postbox/CC/archive/2025-06.jsonl")

    def refused(*command: str) -> None:
        before = {one: one.read_bytes() for one in space.path("postbox").rglob("*.json")}
        result = space.run(command)
        assert result.code == 65, result
        assert {one: one.read_bytes() for one in space.path("postbox").rglob("*.json")} == before
        assert space.run(("note", "CA", "CA-1", "a word")).code == 0, "the others go on"

    month.mkdir(parents=True)
    refused("archive", "CC")
    month.rmdir()
    gone(store)
    kept = month.read_bytes()
    name = json.loads(kept.splitlines()[0])["txid"].rpartition("-")[0]
    aside = segments.rotate(store, "postbox/CC/archive/2025-06.jsonl")
    assert aside is not None
    month.mkdir()
    refused("archive", "--restore", "CC", "CC-1")
    refused("rollback", "CC", f"archive-{name}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as others")
def test_what_root_has_archived_its_agent_can_go_on_with() -> None:
    """And what root alone may write answers 77 to the others, and stops nothing else."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        space = Workspace.make(Path(folder) / "ws")
        done(space, "CC-1", "CC-2", "CC-3")
        for one in (space.root, *space.root.rglob("*")):
            os.chown(one, 65534, 65534)
        with Session(space.root).store() as store:
            gone(store)
        month = space.path("postbox/CC/archive/2025-06.jsonl")
        assert [(one.stat().st_uid, one.stat().st_gid) for one in (month.parent, month)] == [(65534, 65534)] * 2
        for one in (space.root, *space.root.rglob("*")):
            os.chown(one, 65534, 65534)
        os.chown(month, 0, 0)
        before = space.path("postbox/CC/outbox.json").read_bytes()
        name = json.loads(month.read_bytes().splitlines()[0])["txid"].rpartition("-")[0]
        assert _as_nobody(space, lambda store: archive.restore(store, "CC", "CC-1")) == 77
        assert _as_nobody(space, lambda store: rollback.rollback(store, "CC", f"archive-{name}")) == 77
        assert space.path("postbox/CC/outbox.json").read_bytes() == before
        assert _as_nobody(space, lambda store: assign(store, "CA", "NEW", "New", "LOW")) == 0
        month.chmod(0o600)
        assert _as_nobody(space, lambda store: assign(store, "CC", "NEW", "New", "LOW")) == 0, "the index knows it all"
        space.path(layout.index("CC")).unlink()
        assert _as_nobody(space, lambda store: assign(store, "CC", "NEWER", "Newer", "LOW")) == 77


def _as_nobody(space: Workspace, act: Callable[[FileStore], object]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with Session(space.root).store() as store:
                act(store)
                code = 0
        except RecoveryError as error:
            code = error.code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _garbled(data: bytes) -> bytes:
    return data.replace(b'"task_id"', b'"ta\xffk_id"')


def _nul(data: bytes) -> bytes:
    return b"\0" * len(data)


def _torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("damage", [_garbled, _nul, _torn])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_task_that_may_stand_in_what_cannot_be_read_is_given_out_to_nobody(
    damage: Callable[[bytes], bytes], indexed: bool, space: Workspace, store: FileStore
) -> None:
    done(space, "CC-1")
    done(space, "CC-2", when="2025-07-01T00:00:00Z")
    gone(store)
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    path.write_bytes(damage(path.read_bytes()))
    if not indexed:
        space.path(layout.index("CC")).unlink()
    for log in space.path(layout.CHANGES).iterdir():
        log.unlink()
    for command in (
        ("assign", "CC", "CC-1", "Anew", "LOW"),
        ("complete", "CC", "CC-1", "again"),
        ("archive", "--restore", "CC", "CC-1"),
    ):
        result = space.run(command)
        assert result.code == 65, result
        assert "postbox/CC/archive/2025-06.jsonl:1 can't be read, and data/changes/ doesn't reach back" in result.err
        assert "recovery doctor --repair" in result.err
    assert "(archived)" in complete.complete(store, "CC", "CC-2", "again").line
    assert complete.complete(store, "CC", "CC-3", "in the outbox").changed
    assert assign(store, "CA", "CC-1", "Another's", "LOW").changed
    archived.keep_index(store, "CC")  # which may not say that all is known
    with pytest.raises(DataError):
        assign(store, "CC", "CC-1", "Anew", "LOW")


@pytest.mark.parametrize("damage", [_garbled, _nul, _torn])
@pytest.mark.parametrize("indexed", [True, False])
def test_what_cannot_be_read_in_an_archive_is_known_from_the_change_log(
    damage: Callable[[bytes], bytes], indexed: bool, space: Workspace, store: FileStore
) -> None:
    """A line that a disk has lost keeps nobody from his work: its own task is known, and any other is not in it."""
    done(space, "CC-1")
    gone(store)
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    first = path.read_bytes()
    done(space, "CC-2")
    gone(store)
    path.write_bytes(first + damage(path.read_bytes()[len(first) :]))
    if not indexed:
        space.path(layout.index("CC")).unlink()
    assert space.run(("assign", "CC", "CC-9", "New", "LOW")).code == 0
    refused = space.run(("assign", "CC", "CC-2", "Anew", "LOW"))
    assert refused.code == 65
    assert "CC/CC-2 was completed before and is in the archive" in refused.err
    assert "(archived)" in space.run(("complete", "CC", "CC-2", "again")).out
    assert space.run(("archive", "--restore", "CC", "CC-2")).code == 0
    assert '"task_id": "CC-2"' in space.path("postbox/CC/outbox.json").read_text()
    assert '"CC-9"' in space.path("postbox/CC/outbox.json").read_text()


@pytest.mark.parametrize("known", [(), ("CC-1",)])
def test_a_change_log_of_another_life_says_nothing_of_an_archive(
    known: tuple[str, ...], space: Workspace, store: FileStore
) -> None:
    """data/ was made anew, or put back from an older copy: it knows nothing of the archive, or its beginning."""
    assert space.run(("note", "CC", "CC-3", "words")).code == 0
    done(space, *known)
    gone(store)
    shutil.copytree(space.path("data"), space.path("older"))
    done(space, "CC-1", "CC-2")
    gone(store)
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    shutil.rmtree(space.path("data"))
    space.path("older").rename(space.path("data"))
    for damaged in (b"\0\n" + lines[-1], b"".join(lines) + b"\0"):
        path.write_bytes(damaged)
        with Session(space.root).store() as fresh, pytest.raises(DataError, match="doesn't reach back to it"):
            archived.find(fresh, "CC", "CC-9")
    if not known:
        path.write_bytes(b"\0" * 99)
        with Session(space.root).store() as fresh, pytest.raises(DataError, match="doesn't reach back to it"):
            archived.find(fresh, "CC", "CC-9")


def test_a_change_log_that_has_lost_a_line_itself_says_nothing_of_an_archive(
    space: Workspace, store: FileStore
) -> None:
    """Each line in turn, from the one before the damage on; what lies before that is nobody's business."""
    assert space.run(("note", "CC", "CC-3", "words")).code == 0
    done(space, "CC-1")
    gone(store)
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    first = path.stat().st_size
    done(space, "CC-2")
    gone(store)
    assert space.run(("note", "CC", "CC-3", "more")).code == 0
    path.write_bytes(path.read_bytes()[:first] + b"\0" * 99)
    (log,) = space.path(layout.CHANGES).glob("*.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    for n, refuses in enumerate((False, True, True, True)):
        log.write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        if refuses:
            with pytest.raises(DataError, match=r"2025-06\.jsonl:2 can't be read, and data/changes/ (has|doesn't)"):
                archived.find(store, "CC", "CC-9")
        else:
            assert archived.find(store, "CC", "CC-9") is None
    whole = path.read_bytes()
    path.write_bytes(b"\0\n" + whole[:first])
    log.write_bytes(b"".join(lines))
    assert archived.find(store, "CC", "CC-9") is None
    log.write_bytes(b"".join(lines[1:]))  # as after years, when the oldest part has gone
    with pytest.raises(DataError, match="doesn't reach back to it"):
        archived.find(store, "CC", "CC-9")
    path.write_bytes(whole)
    log.write_bytes(b"".join(lines))
    space.path("data/journal").unlink()  # whose number says that no line is missing at the end
    with Session(space.root).store() as fresh, pytest.raises(DataError, match="has lost lines since"):
        archived.find(fresh, "CC", "CC-9")


def test_a_whole_file_that_cannot_be_read_is_named(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    cleanup.cleanup(store)
    for log in space.path(layout.CHANGES).iterdir():
        log.unlink()
    path = space.path("postbox/CC/archive/2025-06.jsonl.0001.gz")
    path.write_bytes(path.read_bytes()[:60])
    space.path(layout.index("CC")).unlink()
    with pytest.raises(DataError, match=r"2025-06\.jsonl\.0001\.gz can't be unpacked"):
        assign(store, "CC", "CC-1", "Anew", "LOW")
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"2025-06\.jsonl\.0001\.gz is a folder"):
        assign(store, "CC", "CC-1", "Anew", "LOW")
    path.rmdir()
    path.parent.rmdir()
    path.parent.symlink_to("/nowhere")
    with Session(space.root).store() as fresh, pytest.raises(DataError, match="postbox/CC/archive"):
        assign(fresh, "CC", "CC-1", "Anew", "LOW")


def test_what_a_crash_tore_and_its_finisher_wrote_again_is_no_damage(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    line = path.read_bytes()
    path.write_bytes(line[:40] + b"\n" + line)
    space.path(layout.index("CC")).unlink()
    assert archived.find(store, "CC", "CC-9") is None
    assert archived.count(store, "CC") == 1


def test_the_last_line_holds_whatever_the_clock_said(space: Workspace, store: FileStore) -> None:
    """A clock set back changes nothing of what was archived, what went back, and how often."""
    done(space, "CC-1")
    gone(store)
    late = store.clock()
    store.clock = lambda: late - 3 * 86400
    archive.restore(store, "CC", "CC-1")
    assert archived.find(store, "CC", "CC-1") is None
    assert list(archived.every(store, "CC")) == []
    assert archived.count(store, "CC") == 0
    outbox(space, "CC", lambda body: body["tasks"][-1].update(title="Anew"))
    store.clock = lambda: late - 6 * 86400
    assert gone(store)["archived"] == {"CC": ["CC-1"]}
    found = archived.find(store, "CC", "CC-1")
    assert found is not None
    assert found["entry"]["title"] == "Anew"
    assert [line["entry"]["title"] for line in archived.every(store, "CC")] == ["Anew"]
    assert archived.count(store, "CC") == 1
    archive.restore(store, "CC", "CC-1")
    rollback.rollback(store, "CC", "CC-1")
    assert [line["entry"]["title"] for line in archived.every(store, "CC")] == ["Anew"]
    assert archived.find(store, "CC", "CC-1") is not None


def test_a_task_that_was_archived_in_two_months_is_one(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    path = space.path("postbox/CC/archive/2025-06.jsonl")
    path.with_name("2025-05.jsonl").write_text(path.read_text().replace("Work 1", "Older"))
    assert archived.count(store, "CC") == 1
    assert "Older" not in str(archived.find(store, "CC", "CC-1"))
    assert [str(line).count("Older") for line in archived.every(store, "CC")] == [0]
    assert archived.count(store, "CC", ["CC-1"]) == 0


def test_after_an_archiving_is_rolled_back_none_is_archived(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1", "CC-2", "CC-3")
    gone(store)
    (name,) = {
        json.loads(line)["txid"].rpartition("-")[0]
        for line in space.path("postbox/CC/archive/2025-06.jsonl").read_text().splitlines()
    }
    assert space.run(("rollback", "CC", f"archive-{name}")).code == 0
    everybody = status.status(store)
    assert "archived" not in " ".join([everybody.line, *everybody.details])


def test_an_index_that_cannot_be_read_stops_nothing(space: Workspace, store: FileStore) -> None:
    done(space, "CC-1")
    gone(store)
    index = space.path(layout.index("CC"))
    index.unlink()
    index.mkdir()
    assert space.run(("assign", "CC", "NEW", "New", "LOW")).code == 0
    assert space.run(("assign", "CC", "CC-1", "Anew", "LOW")).code == 65
    assert "(archived)" in complete.complete(store, "CC", "CC-1", "again").line
    assert archived.count(store, "CC") == 1
    index.rmdir()
    index.write_bytes(b'{"format": 2, "hash": 1, "months": 1, "covered": 1}\n')
    gone(store)
    assert b"2025-06" in index.read_bytes(), "a damaged one is made anew"


def test_a_task_whose_brief_cannot_be_read_is_named_and_stops_no_other(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A brief that is no text, a link that leads out, a folder: the task stays, with all that belongs to it."""
    monkeypatch.setattr(archive, "TOGETHER", 1)
    done(space, "CC-1", "CC-2", "CC-3", "CC-4")
    space.path("postbox/CC/inbox").mkdir()
    space.path("postbox/CC/inbox/CC-1.md").write_bytes(b"\xff\xfe")
    space.path("postbox/CC/inbox/CC-2.md").symlink_to("/etc/hostname")
    space.path("postbox/CC/inbox/CC-3.md").mkdir()
    space.path("postbox/CC/inbox/CC-4.md").write_text("# Work\n")
    for dry_run in (True, False):
        store.told.clear()
        result = archive.archive(store, "CC", 30, dry_run)
        assert result.data["archived"] == {"CC": ["CC-4"]}
        assert result.data["code"] == 65
        assert [line.split(" stays")[0] for line in store.told] == ["CC/CC-1", "CC/CC-2", "CC/CC-3"]
    ids = [task["task_id"] for task in json.loads(space.path("postbox/CC/outbox.json").read_text())["tasks"]]
    assert ids == ["CC-1", "CC-2", "CC-3"]
    assert sorted(path.name for path in space.path("postbox/CC/inbox").iterdir()) == ["CC-1.md", "CC-2.md", "CC-3.md"]
