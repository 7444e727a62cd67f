"""What stands in data/, in lock files and in odd outboxes can't lead a command astray."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recovery import jsontext, layout
from recovery.durable import Root
from recovery.errors import DataError
from recovery.journal import Journal, Record

SUITE = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "postbox").mkdir(parents=True)
    return path


def run(root: Path, *words: str, fault: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [SUITE / "bin" / "recovery", *words],
        env={
            "PATH": os.environ["PATH"],
            "ORCHESTRATION_ROOT": str(root),
            "ORCHESTRATION_LOCK_DIR": str(root.parent / "locks"),
            "RECOVERY_RETRY_DELAY": "0",
            "RECOVERY_FAULT": fault,
        },
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == code, done.stderr
    return done


def outbox(root: Path, agent: str, *tasks: Any) -> Path:
    path = root / "postbox" / agent / "outbox.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tasks": list(tasks), "history": []}))
    return path


def task(name: Any, status: str = "pending") -> dict[str, Any]:
    return {"task_id": name, "status": status, "title": "t"}


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_same_id_under_two_agents_in_a_progress_list_is_two_tasks(root: Path) -> None:
    for agent in ("CC", "CA"):
        outbox(root, agent, task("T1"))
    progress = root / ".sprint" / "progress.json"
    progress.parent.mkdir()
    entries = [{"id": "T1", "agent": agent, "status": "pending"} for agent in ("CA", "CC")]
    progress.write_text(json.dumps({"completed": 0, "tasks": entries}))
    run(root, "complete", "CC", "T1")
    assert [one["status"] for one in load(progress)["tasks"]] == ["pending", "completed"]
    run(root, "rollback", "CC", "T1")
    assert load(progress) == {"completed": 0, "tasks": entries}


def test_a_number_is_not_the_string_of_its_digits(root: Path) -> None:
    path = outbox(root, "CC", task(123), task("123"))
    run(root, "complete", "CC", "123")
    assert [one["status"] for one in load(path)["tasks"]] == ["pending", "completed"]
    run(root, "rollback", "CC", "123")
    assert [one["status"] for one in load(path)["tasks"]] == ["pending", "pending"]
    assert not jsontext.same('{"a": [1]}', '{"a": ["1"]}')


def test_a_replaced_file_that_is_not_utf8_comes_back_to_the_byte(root: Path) -> None:
    outbox(root, "CC", task("T1"))
    record = root / "postbox/CC/completed/T1_completion.json"
    record.parent.mkdir()
    record.write_bytes(b"old \xff\xfe bytes\n")
    run(root, "complete", "CC", "T1")
    assert load(record)["status"] == "completed"
    run(root, "rollback", "CC", "T1")
    assert record.read_bytes() == b"old \xff\xfe bytes\n"


@pytest.mark.parametrize("number", ["-0", "9999999999999999"])
def test_a_counter_that_could_not_come_back_is_left_alone(root: Path, number: str) -> None:
    outbox(root, "CC", task("T1"))
    progress = root / ".sprint" / "progress.json"
    progress.parent.mkdir()
    progress.write_text(f'{{"completed": {number}, "tasks": {{}}}}')
    run(root, "complete", "CC", "T1")
    run(root, "rollback", "CC", "T1")
    assert progress.read_text() == f'{{"completed": {number}, "tasks": {{}}}}'


def conflict(root: Path, agent: str, name: str) -> None:
    """A dead commit of agent/name whose outbox somebody else has changed since."""
    path = outbox(root, agent, task(name))
    outbox(root, "CB", task("T2"))
    run(root, "complete", agent, name, fault="journal-synced=kill-group", code=-9)
    document = load(path)
    document["tasks"][0]["status"] = "blocked"
    path.write_text(json.dumps(document))


def test_the_longest_ids_and_a_conflict_stop_nobody(root: Path) -> None:
    conflict(root, "A" * 128, "T" * 128)
    run(root, "complete", "CB", "T2")
    assert len(list((root / "data/conflicts").iterdir())) == 1


def test_a_conflict_that_cannot_be_set_aside_stops_nobody(root: Path) -> None:
    conflict(root, "CC", "T1")
    (root / "data/conflicts").write_text("in the way")
    assert "could not be set aside" in run(root, "complete", "CB", "T2").stderr


@pytest.mark.parametrize("becomes", ["link", "file", "gone", "lock folder"])
def test_an_agent_folder_that_became_something_else_stops_nobody(root: Path, becomes: str) -> None:
    outbox(root, "CC", task("T1"))
    outbox(root, "CB", task("T2"))
    run(root, "complete", "CC", "T1", fault="journal-synced=kill-group", code=-9)
    folder = root / "postbox/CC"
    if becomes == "lock folder":
        (folder / ".outbox.json.lock").unlink()
        (folder / ".outbox.json.lock").mkdir()
    else:
        folder.rename(root / "postbox/real")
        if becomes == "link":
            folder.symlink_to("real")
        elif becomes == "file":
            folder.write_text("")
    run(root, "complete", "CB", "T2")
    for name in ("CB", "CC"):  # what a dead process staged, there and elsewhere
        if (root / "postbox" / name).is_dir():
            (root / f"postbox/{name}/.outbox.json.0a1b2c3d4e5f.stage").write_text("{}")
    told = json.loads(run(root, "recover", "--json").stdout)
    assert not list((root / "postbox/CB").glob("*.stage")), told
    assert any("postbox/CC: " in line for line in told["done"]) == (becomes == "lock folder"), told


def test_what_recover_cannot_put_right_is_said_on_stderr_and_not_counted(root: Path) -> None:
    """70 with the reason; `recover` once more, when there is room, undoes it."""
    outbox(root, "CC", task("T1"))
    run(root, "complete", "CC", "T1", fault="replace:2=EIO,abort-sync=kill-group", code=-9)
    failed = run(root, "recover", "-q", fault="stage:1=ENOSPC,stage:4=ENOSPC", code=70)
    assert "CC/T1 could still not be undone" in failed.stderr
    assert "1 thing(s) put right" in run(root, "recover").stdout
    assert "nothing to recover" in run(root, "recover").stdout


@pytest.mark.parametrize(
    "note",
    [
        b'{"state": "held", "nonce": "abc", "files": 5}',
        b'{"state": "held", "nonce": "abc", "files": [5]}',
        b'{"state": "held", "nonce": "abc", "files": ["a\\u0000b", "../../x", ""]}',
        b'{"state": "held", "nonce": "../../../x", "files": ["postbox/CC/outbox.json"]}',
    ],
)
def test_a_garbage_note_in_a_lock_file_is_no_note(root: Path, note: bytes) -> None:
    outbox(root, "CC", task("T1"))
    (root / "postbox/CC/.outbox.json.lock").write_bytes(note)
    run(root, "complete", "CC", "T1")


def test_a_huge_lock_file_is_not_filled(root: Path) -> None:
    outbox(root, "CC", task("T1"))
    lock = root / "postbox/CC/.outbox.json.lock"
    lock.touch()
    os.truncate(lock, 1 << 30)
    run(root, "complete", "CC", "T1")
    assert lock.stat().st_blocks < 1000


def test_one_bad_log_after_a_reboot_stops_nobody(root: Path) -> None:
    outbox(root, "CC", task("T1"), task("T2"))
    run(root, "complete", "CC", "T1")
    history = root / layout.history("T1")
    history.unlink()
    history.mkdir()
    fd = os.open(root / layout.JOURNAL, os.O_RDWR)
    journal = Journal(fd)
    last = journal.read()
    assert last is not None
    journal.write(last.seq, json.dumps({**last.body, "boot": "another"}))
    journal.close()
    assert "could not be written" in run(root, "complete", "CC", "T2").stderr


@pytest.mark.parametrize(
    "forge",
    [
        lambda body: body["line"]["files"][0].update(name="../out/new"),
        lambda body: body["line"]["files"][0].update(name="/tmp/new"),
        lambda body: body["extra"][0].update(stage="../../../out/victim"),
        lambda body: body["extra"][0].update(lock="../out/.evil.lock"),
        lambda body: body["line"].update(task="../../../out/tk"),
        lambda body: body["line"].update(time="../../x"),
        lambda body: body["line"]["derived"][0].update(name="../out/log"),
        lambda body: body.update(line=[]),
        lambda body: body.pop("extra"),
    ],
)
def test_a_forged_journal_reaches_nothing_outside(root: Path, forge: Any) -> None:
    out = root.parent / "out"
    out.mkdir()
    (out / "victim").write_text("precious")
    outbox(root, "CC", task("T1"))
    outbox(root, "CB", task("T2"))
    run(root, "complete", "CC", "T1", fault="journal-synced=kill-group", code=-9)
    journal = Journal(os.open(root / layout.JOURNAL, os.O_RDWR))
    record = journal.read()
    assert record is not None
    body = record.body
    forge(body)
    journal.write(record.seq, json.dumps(body))
    journal.close()
    done = subprocess.run(
        [SUITE / "bin" / "recovery", "-C", root, "complete", "CB", "T2"],
        env={**os.environ, "RECOVERY_RETRY_DELAY": "0", "ORCHESTRATION_LOCK_DIR": str(root.parent / "locks")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "bug" not in done.stderr
    assert sorted(os.listdir(out)) == ["victim"]
    assert (out / "victim").read_text() == "precious"


def test_a_forged_change_log_reaches_nothing_outside(root: Path) -> None:
    out = root.parent / "out"
    out.mkdir()
    outbox(root, "CC", task("T1"))
    run(root, "complete", "CC", "T1")
    log = next((root / layout.CHANGES).iterdir())
    line = json.loads(log.read_text())
    line["txid"] += "x"
    line["files"] = [{"name": "../out/profile", "before": None, "after": None, "write": ["evil", "x"]}]
    with log.open("a") as more:
        more.write(json.dumps(line) + "\n")
    run(root, "rollback", "CC", "T1", code=65)
    assert os.listdir(out) == []


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "", "a/./b", "a\0b", ".."])
def test_no_name_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    root = Root(str(tmp_path))
    with pytest.raises(DataError):
        root.place(name, create=True)
    root.close()


def test_a_record_that_is_no_object_is_told_as_such() -> None:
    with pytest.raises(DataError, match="no JSON object"):
        _ = Record(1, "[1]").body
