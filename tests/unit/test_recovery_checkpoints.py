"""Checkpoints: durable, readable after a crash, bounded, and never taken from an open task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from recovery import checkpoints, jsonl
from recovery.checkpoints import carried, cleanup, create, history, load, require_json, steps_done
from recovery.errors import DataError, UsageError
from recovery.rules import TaskState
from recovery.session import Session
from recovery.store import FileStore
from support import programs
from support.workspace import Workspace


def log_of(space: Workspace, task: str) -> Path:
    return space.path(f"data/checkpoints/{task}_history.jsonl")


def snapshot_of(space: Workspace, task: str) -> Path:
    return space.path(f"data/checkpoints/{task}_checkpoint.json")


def age(space: Workspace, task: str, stamp: str = "2026-01-01T00:00:00Z") -> None:
    """Make all checkpoints of a task old."""
    for path in (log_of(space, task), snapshot_of(space, task)):
        lines = path.read_text()
        for entry in map(json.loads, lines.splitlines() if path.suffix == ".jsonl" else [lines]):
            lines = lines.replace(entry["timestamp"], stamp)
        path.write_text(lines)


def test_what_was_created_is_loaded(space: Workspace, store: FileStore) -> None:
    assert load(store, "T-1") is None
    made = create(store, "T-1", TaskState.RUNNING, {"done": [1, 2], "größe": 0.5, "no": None})
    found = load(store, "T-1")
    assert found == made
    assert found is not None
    assert (found.state, found.data) == (TaskState.RUNNING, {"done": [1, 2], "größe": 0.5, "no": None})
    assert json.loads(snapshot_of(space, "T-1").read_text()) == made.as_dict()
    assert programs.strays(space.root) == []


def test_history_is_in_order_and_states_may_be_words(store: FileStore) -> None:
    for state in ("pending", "running", "completed"):
        create(store, "T-1", state)
    assert [one.state for one in history(store, "T-1")] == list(TaskState)[:3]


def test_a_torn_last_line_is_passed_over(space: Workspace, store: FileStore) -> None:
    create(store, "T-1", "running", {"n": 1})
    snapshot_of(space, "T-1").unlink()
    with log_of(space, "T-1").open("a") as log:
        log.write('{"txid": "x", "task_id": "T-1", "checkpoint_id": "x", "timesta')
    found = load(store, "T-1")
    assert found is not None
    assert found.data == {"n": 1}
    create(store, "T-1", "running", {"n": 2})
    assert [one.data["n"] for one in history(store, "T-1")] == [1, 2]


def test_a_lost_snapshot_is_no_loss_and_a_lost_history_costs_only_the_past(space: Workspace, store: FileStore) -> None:
    create(store, "T-1", "running", {"n": 1})
    create(store, "T-1", "running", {"n": 2})
    snapshot_of(space, "T-1").unlink()
    found = load(store, "T-1")
    assert found is not None
    assert found.data == {"n": 2}
    create(store, "T-1", "running", {"n": 3})
    log_of(space, "T-1").unlink()
    found = load(store, "T-1")
    assert found is not None
    assert found.data == {"n": 3}


def test_a_damaged_snapshot_is_not_believed(space: Workspace, store: FileStore) -> None:
    create(store, "T-1", "running", {"n": 1})
    for text in ("", "{", "[]", '{"task_id": 3}', "\0" * 100):
        snapshot_of(space, "T-1").write_text(text)
        found = load(store, "T-1")
        assert found is not None, text
        assert found.data == {"n": 1}, text


def test_another_versions_lines_are_passed_over(space: Workspace, store: FileStore) -> None:
    create(store, "T-1", "running", {"n": 1})
    with log_of(space, "T-1").open("a") as log:
        log.write('{"format": 9, "what": "?"}\n[]\n')
    assert [one.data for one in history(store, "T-1")] == [{"n": 1}]


def test_an_older_snapshot_is_not_believed(space: Workspace, store: FileStore) -> None:
    """One that was restored by hand, or left by a failed write: the suite's own next checkpoint takes the newest."""
    create(store, "T-1", "running", {"n": 1})
    older = snapshot_of(space, "T-1").read_text()
    create(store, "T-1", "running", {"n": 2}, {"step": "s"})
    snapshot_of(space, "T-1").write_text(older)
    found = load(store, "T-1")
    assert found is not None
    assert found.data == {"n": 2}
    assert carried(store, "T-1") == {"n": 2}
    create(store, "T-1", "completed", {"n": 3})
    snapshot_of(space, "T-1").write_text(older)
    assert carried(store, "T-1") == {}


@pytest.mark.parametrize("size", [10, 70_000, 500_000])
def test_the_last_checkpoint_is_found_before_any_amount_of_foreign_lines(
    space: Workspace, store: FileStore, size: int
) -> None:
    create(store, "T-1", "running", {"n": 1})
    create(store, "T-1", "running", {"n": 2, "fill": "ü" * size})
    snapshot_of(space, "T-1").unlink()
    for more in ("", '{"format": 9}\n', "x" * 70_000 + "\n", "\0" * 5_000_000, '\n{"txid": "x", "task_id'):
        with log_of(space, "T-1").open("a") as log:
            log.write(more)
        found = load(store, "T-1")
        assert found is not None
        assert found.data == {"n": 2, "fill": "ü" * size}, more[:20]
    create(store, "T-1", "running", {"n": 3})
    assert carried(store, "T-1") == {"n": 3}


def test_the_last_checkpoint_is_read_from_the_end_of_the_history(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line before the last whole one of ours is parsed, however many there are."""
    for n in range(50):
        create(store, "T-1", "running", {"n": n})
    parsed = 0
    whole = jsonl.records

    def counting(data: bytes) -> tuple[list[dict[str, Any]], int]:
        nonlocal parsed
        parsed += data.count(b"\n") + 1
        return whole(data)

    monkeypatch.setattr(jsonl, "records", counting)
    assert carried(store, "T-1") == {"n": 49}
    found = load(store, "T-1")
    assert found is not None
    assert found.data == {"n": 49}
    assert parsed <= 4


class Odd:
    pass


class Float(float):
    """As numpy.float64 is: a float whose repr is no JSON."""

    def __repr__(self) -> str:
        return f"Float({float(self)})"


class Int(int):
    """As the members of an IntEnum are."""

    def __repr__(self) -> str:
        return f"Int({int(self)})"


CYCLE: dict[str, Any] = {}
CYCLE["me"] = CYCLE


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"a": [1, {"when": Odd()}]}, "data.a[1].when is a Odd"),
        ({"a": math.nan}, "data.a is nan"),
        ({"a": Float("inf")}, "data.a is inf"),
        ({"a": [10**5000]}, "data.a[0] is an integer of more than 4,300 digits"),
        ({"a": -Int(10**4300)}, "data.a is an integer of more than 4,300 digits"),
        ({"a": {(10**5000,): 1}}, "data.a has the key of type tuple"),
        ({"a": {1: 2}}, "data.a has the key 1"),
        ({"a": b"bytes"}, "data.a is a bytes"),
        ({"a": {3}}, "data.a is a set"),
        ({"a": "\ud800"}, "data.a holds half a character"),
        (CYCLE, "nested deeper"),
        ({"a": "x" * checkpoints.MOST}, "more than 1,048,576 bytes"),
    ],
)
def test_what_is_not_json_is_refused_with_its_path(
    space: Workspace, store: FileStore, data: dict[str, Any], where: str
) -> None:
    with pytest.raises(DataError) as refusal:
        create(store, "T-1", "running", data)
    assert where in str(refusal.value)
    assert not log_of(space, "T-1").exists()


def test_numbers_of_other_classes_become_plain_ones(store: FileStore) -> None:
    plain = require_json({"f": Float(0.5), "i": Int(7), "big": 10**4299, "t": True}, "data")
    assert plain == {"f": 0.5, "i": 7, "big": 10**4299, "t": True}
    assert [type(one) for one in plain.values()] == [float, int, int, bool]
    create(store, "T-1", "running", {"f": Float(0.5), "i": Int(7), "big": 10**4299})
    found = load(store, "T-1")
    assert found is not None
    assert found.data == {"f": 0.5, "i": 7, "big": 10**4299}


def test_bad_ids_and_states_are_refused(space: Workspace, store: FileStore) -> None:
    for task, state in (("../x", "running"), ("", "running"), ("T-1", "sleeping")):
        with pytest.raises(UsageError):
            create(store, task, state)
    assert not space.path("data/checkpoints").exists()


def test_a_long_history_is_folded_and_keeps_its_newest_lines_and_every_step(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LIMIT", 40_000)
    monkeypatch.setattr(checkpoints, "KEEP", 10_000)
    for n in range(400):
        create(store, "T-1", "running", {"n": n}, {"step": f"s{n}", "result": n})
    assert log_of(space, "T-1").stat().st_size < 80_000
    kept = [one.data["n"] for one in history(store, "T-1")]
    assert kept == list(range(kept[0], 400))
    assert len(kept) > 30
    assert steps_done(store, "T-1") == {f"s{n}": n for n in range(400)}


def test_big_checkpoints_are_not_folded_each_time(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LIMIT", 1_000)
    monkeypatch.setattr(checkpoints, "KEEP", 500)
    folds = 0
    inode = 0
    for n in range(40):
        create(store, "T-1", "running", {"n": n, "fill": "x" * 900})
        now = log_of(space, "T-1").stat().st_ino
        folds, inode = folds + (now != inode), now
    assert 2 < folds < 25
    found = load(store, "T-1")
    assert found is not None
    assert found.data["n"] == 39


def test_big_results_of_steps_are_not_written_again_each_time(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They all stay, so the next fold waits until the file has grown to four times of what the last one kept."""
    monkeypatch.setattr(checkpoints, "LIMIT", 20_000)
    monkeypatch.setattr(checkpoints, "KEEP", 5_000)
    folds, inode, reads = 0, 0, 0
    read = store.read

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*args, **options)

    monkeypatch.setattr(store, "read", counting)
    for n in range(120):
        create(store, "T-1", "running", None, {"step": f"s{n}", "result": "ü" * 1_000})
        now = log_of(space, "T-1").stat().st_ino
        folds, inode = folds + (now != inode), now
    assert 2 <= folds <= 4  # the file's making is one of them
    assert reads < 30  # nor is it read for each
    assert steps_done(store, "T-1") == {f"s{n}": "ü" * 1_000 for n in range(120)}


def test_folding_keeps_what_the_scripts_ask_for(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback is still known after its line has long been folded away, and is not written twice after a reboot."""
    assert space.run(("complete", "CC", "CC-1")).code == 0
    assert space.run(("rollback", "CC", "CC-1")).code == 0
    monkeypatch.setattr(checkpoints, "LIMIT", 20_000)
    monkeypatch.setattr(checkpoints, "KEEP", 5_000)
    with Session(space.root).store() as store:
        for n in range(200):
            create(store, "CC-1", "running", {"agent": "CC", "n": n})
    again = space.run(("complete", "CC", "CC-1"))
    assert again.code == 65
    assert "rolled back" in again.err
    before = log_of(space, "CC-1").read_bytes()
    assert space.run(("recover",)).code == 0  # writes again what is missing: nothing is
    assert log_of(space, "CC-1").read_bytes() == before


def test_steps_count_until_the_task_ends(store: FileStore) -> None:
    create(store, "T-1", "running", None, {"step": "download", "result": {"bytes": 5}})
    create(store, "T-1", "failed")
    assert steps_done(store, "T-1") == {"download": {"bytes": 5}}
    create(store, "T-1", "completed")
    assert steps_done(store, "T-1") == {}


def test_cleanup_removes_ended_old_tasks_and_nothing_else(space: Workspace, store: FileStore) -> None:
    states = {"T-done": "completed", "T-failed": "failed", "T-run": "running", "T-wait": "pending", "T-try": "retrying"}
    for task, state in states.items():
        create(store, task, state)
        age(space, task)
    create(store, "T-new", "completed")
    create(store, "CC-1", "completed")  # open in CC's outbox, whatever the checkpoint says
    age(space, "CC-1")
    for task, folder in (("T-parked", "data/manual/T-parked.json"), ("T-esc", "logs/recovery/T-esc_escalation.json")):
        create(store, task, "failed")
        age(space, task)
        space.path(folder).parent.mkdir(parents=True, exist_ok=True)
        space.path(folder).write_text("{}")
    assert cleanup(store) == ["T-done", "T-failed"]
    left = {path.name for path in space.path("data/checkpoints").iterdir() if not path.name.startswith(".")}
    assert {name for name in left if name.startswith(("T-done", "T-failed"))} == set()
    assert "T-run_history.jsonl" in left
    assert "CC-1_checkpoint.json" in left
    assert cleanup(store) == []
    assert programs.strays(space.root) == []


def test_cleanup_keeps_what_a_next_run_of_a_failed_task_resumes(space: Workspace, store: FileStore) -> None:
    """Its steps are not to be done twice; who names the task gives them up."""
    create(store, "T-1", "running", None, {"step": "download", "result": 5})
    create(store, "T-1", "failed")
    create(store, "T-2", "failed")
    for task in ("T-1", "T-2"):
        age(space, task)
    assert cleanup(store) == ["T-2"]
    assert steps_done(store, "T-1") == {"download": 5}
    assert cleanup(store, "T-1") == ["T-1"]
    assert load(store, "T-1") is None


def test_cleanup_looks_for_escalations_where_the_log_is(space: Workspace, store: FileStore) -> None:
    create(store, "T-1", "failed")
    age(space, "T-1")
    space.path("logs/mine").mkdir(parents=True)
    space.path("logs/mine/T-1_escalation.1.json").write_text("{}")
    assert cleanup(store, log_folder="logs/mine") == []
    assert load(store, "T-1") is not None
    assert cleanup(store) == ["T-1"]


def test_cleanup_of_one_task_and_by_age(space: Workspace, store: FileStore) -> None:
    for task in ("T-1", "T-2"):
        create(store, task, "completed")
        age(space, task, "2026-11-20T00:00:00Z")
    assert cleanup(store, "T-1", older_than_days=36500) == []
    assert cleanup(store, "T-1", older_than_days=0) == ["T-1"]
    assert load(store, "T-2") is not None
    with pytest.raises(UsageError):
        cleanup(store, "../x")
    with pytest.raises(UsageError):
        cleanup(store, older_than_days=-1)


def test_cleanup_removes_nothing_where_an_outbox_cannot_be_read(space: Workspace, store: FileStore) -> None:
    create(store, "T-1", "completed")
    age(space, "T-1")
    space.path("postbox/CA/outbox.json").write_text("{")
    with pytest.raises(DataError):
        cleanup(store)
    assert load(store, "T-1") is not None


CREATE = """
from recovery import checkpoints
from recovery.session import Session
checkpoints.LIMIT, checkpoints.KEEP = 2000, 1000
with Session(os.getcwd()).store() as store:
    for n in range(int(sys.argv[1])):
        checkpoints.create(store, "T-1", "running", {"n": n, "fill": "x" * 100}, {"step": f"s{n}", "result": n})
        print(n, flush=True)
"""


def test_killed_at_any_step_of_a_checkpoint_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    """Also in the middle of a fold: no line that `create` has returned for is lost, none stands twice."""
    empty = Workspace.make(tmp_path / "ws")
    steps = programs.steps_of(empty.copy(tmp_path / "listing").root, CREATE, 8)
    assert "put:1" in steps, "no fold among the steps: the test would show nothing"
    for number, step in enumerate(steps):
        space = empty.copy(tmp_path / f"run-{number}")
        done = programs.run(space.root, CREATE, 8, fault=f"{step}=kill")
        assert programs.killed(done), (step, done)
        acknowledged = [int(word) for word in done.out.split()]
        with Session(space.root).store() as store:
            found = load(store, "T-1")
            reached = -1 if found is None else found.data["n"]
            assert reached in (len(acknowledged) - 1, len(acknowledged)), step
            assert steps_done(store, "T-1") == {f"s{n}": n for n in range(reached + 1)}, step
            create(store, "T-1", "running", {"n": 100})
            found = load(store, "T-1")
            assert found is not None
            assert found.data == {"n": 100}, step
        assert space.run(("recover",)).code == 0
        assert programs.strays(space.root) == [], step
        space.require_locks_free()
        space.remove()


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    space = Workspace.make(tmp_path / "ws")
    assert programs.run(space.root, CREATE, 1).code == 0
    for step, error in (("append", "StorageError"), ("appended", "StorageError"), ("append-synced", "Unconfirmed")):
        done = programs.run(space.root, CREATE, 1, fault=f"{step}=ENOSPC")
        assert done.code == 1, step
        assert error in done.err, step
    with Session(space.root).store() as store:
        assert load(store, "T-1") is not None
