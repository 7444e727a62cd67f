"""What the suite writes stays within its bounds; nothing open goes, no number changes, and a dry run tells it all."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recovery import (
    archive,
    bounds,
    checkpoints,
    cleanup,
    derived,
    incidents,
    jsonl,
    layout,
    once,
    quarantine,
    segments,
    stats_folded,
    turns,
)
from recovery.breaker import CircuitBreaker
from recovery.errors import Busy, DataError
from recovery.session import Session
from recovery.stats import recovery_stats
from recovery.store import FileStore
from support import programs
from support.promise import Failures
from support.workspace import Workspace

DAY = 86400.0


class Clock:
    """A clock that is turned by hand, for one store."""

    def __init__(self, store: FileStore) -> None:
        self.now = time.time()
        store.clock = lambda: self.now

    def days(self, days: float) -> None:
        self.now += days * DAY


def log(store: FileStore, task: str, *outcomes: str) -> None:
    """Recoveries of a task, each ended as said ("": not yet)."""
    for outcome in outcomes:
        incident = incidents.Incident(task, store.now())
        entry = incident.failed(ValueError("no"), "RETRY", 1, store.now())
        incidents.write(store, entry)
        if outcome:
            incidents.write(store, incident.ended(outcome, store.now(), 2))


def there(space: Workspace, folder: str) -> list[str]:
    path = space.path(folder)
    return sorted(one.name for one in path.iterdir() if not one.name.startswith(".")) if path.exists() else []


def budget(space: Workspace, **bounds_: object) -> None:
    space.path("data").mkdir(exist_ok=True)
    space.path("data/config.json").write_text(json.dumps({"format": 1, "bounds": bounds_}))


def done(store: FileStore, **more: Any) -> list[tuple[str, str]]:
    result = cleanup.cleanup(store, **more)
    return [(item["done"], item["what"]) for item in result.data["items"]]


def numbers(store: FileStore, task: str | None = None) -> dict[str, Any]:
    found = recovery_stats(store, task)
    return {name: value for name, value in found.items() if not name.endswith("_size")}


def everything(space: Workspace) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in space.root.rglob("*") if path.is_file()}


def full(space: Workspace, store: FileStore, clock: Clock) -> None:
    """Something of every kind, most of it old, some of it open."""
    clock.days(-100)
    for task in ("OLD", "CC-1", "PARKED"):
        checkpoints.create(store, task, "completed")
        log(store, task, "recovered", "failed", "")
    checkpoints.create(store, "OPEN", "running")
    space.path("data/manual").mkdir()
    space.path("data/manual/PARKED.json").write_text("{}")
    space.path("logs/recovery/resolved").mkdir()
    space.path("logs/recovery/resolved/OLD_escalation.json").write_text("{}")
    names = {"details": {"record": "data/conflicts/named.conflict.json"}}
    space.path("logs/recovery/NEW_escalation.json").write_text(json.dumps(names))
    for folder, base in (
        ("data/conflicts", "named.conflict.json"),
        ("data/conflicts", "settled.conflict.json"),
        ("data/conflicts", "waits.parked.json"),
        ("data/quarantine", "outbox.json@00"),
        ("postbox/CC", "outbox.json.backup_CC-1"),
        ("postbox/CC", "outbox.json.backup_DONE"),
        ("postbox/CC", "outbox.json.backup_NOBODY"),
        ("data/checkpoints", ".GONE_history.jsonl.lock"),
        ("data/checkpoints", ".OPEN_history.jsonl.lock"),
        ("data/once", ".gone.json.turn"),
    ):
        space.path(folder).mkdir(parents=True, exist_ok=True)
        path = space.path(f"{folder}/{base}")
        path.write_text("{}")
    space.path("postbox/CC/completed").mkdir(exist_ok=True)
    space.path("postbox/CC/completed/DONE_completion.json").write_text('{"status": "completed"}')
    for key, state in (("done", "done"), ("unknown", "started")):
        body = {"format": 1, "key": key, "task_id": "T", "state": state, "started_at": store.now()}
        space.path(f"data/once/{key}.json").write_text(json.dumps(body))
    then = clock.now
    for path in space.root.rglob("*"):
        os.utime(path, (then, then))
    clock.days(100)


def test_what_is_old_goes_and_what_is_open_stays(space: Workspace, store: FileStore) -> None:
    full(space, store, Clock(store))
    found = done(store)
    assert set(found) == {
        ("removed", "OLD"),  # its checkpoints
        ("removed", "logs/recovery/resolved/OLD_escalation.json"),
        ("removed", "data/conflicts/settled.conflict.json"),
        ("removed", "data/quarantine/outbox.json@00"),
        ("removed", "postbox/CC/outbox.json.backup_DONE"),
        ("removed", "data/checkpoints/.GONE_history.jsonl.lock"),
        ("removed", "data/once/.gone.json.turn"),
        ("removed", "data/once/done.json"),
    }
    assert found.count(("removed", "OLD")) == 2, "its checkpoints, and its log"
    assert there(space, "data/checkpoints") == [
        f"{task}_{end}" for task in ("CC-1", "OPEN", "PARKED") for end in ("checkpoint.json", "history.jsonl")
    ]
    assert there(space, "logs/recovery") == [
        "CC-1_recovery.jsonl",
        "NEW_escalation.json",
        "PARKED_recovery.jsonl",
        "resolved",
    ]
    assert there(space, "data/conflicts") == ["named.conflict.json", "waits.parked.json"]
    assert there(space, "data/once") == ["unknown.json"]
    assert [name for name in there(space, "postbox/CC") if "backup" in name] == [
        "outbox.json.backup_CC-1",
        "outbox.json.backup_NOBODY",
    ]
    assert done(store) == []
    assert programs.strays(space.root) == []


def test_a_dry_run_tells_exactly_what_would_be_done_and_changes_nothing(space: Workspace, store: FileStore) -> None:
    full(space, store, Clock(store))
    before = everything(space)
    told = done(store, dry_run=True)
    assert everything(space) == before
    assert done(store) == told


def test_no_number_changes_when_logs_go(space: Workspace, store: FileStore) -> None:
    clock = Clock(store)
    clock.days(-40)
    log(store, "A", "recovered", "failed", "")
    log(store, "B", "escalated")
    store.append("logs/recovery/B_recovery.jsonl", {"txid": "x", "foreign": True})
    clock.days(40)
    log(store, "C", "recovered")
    before = [numbers(store, task) for task in (None, "A", "B", "C")]
    assert ("removed", "A") in done(store)
    assert there(space, "logs/recovery") == ["C_recovery.jsonl"]
    assert [numbers(store, task) for task in (None, "A", "B", "C")] == before
    log(store, "A", "recovered")
    after = numbers(store)
    assert after["tasks_affected"] == 3
    assert after["total_recoveries"] == before[0]["total_recoveries"] + 1
    since = recovery_stats(store, since=clock.now - DAY)
    assert since["total_recoveries"] == 2, "what was folded is older than that"


def test_old_tasks_are_folded_into_their_month_and_still_counted(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats_folded, "MOST", 3)
    clock = Clock(store)
    clock.days(-60)
    for n in range(8):
        log(store, f"T{n}", "recovered", "failed")
    clock.days(60)
    before = numbers(store)
    done(store)
    folded = stats_folded.Folded(store)
    assert (len(folded.tasks), sum(one[5] for one in folded.months.values())) == (3, 5)
    assert numbers(store) == before


FOLD = """
import time
from recovery import cleanup
from recovery.session import Session
with Session(".").store() as store:
    store.clock = lambda: time.time() + 40 * 86400
    cleanup.cleanup(store)
"""


def test_killed_at_any_step_of_folding_no_number_changes(tmp_path: Path, failures: Failures) -> None:
    template = Workspace.make(tmp_path / "template")
    with Session(template.root).store() as store:
        log(store, "A", "recovered", "failed", "")
        before = numbers(store)
    wanted = [
        step
        for step in programs.steps_of(template.copy(tmp_path / "steps").root, FOLD)
        if step.split(":")[0] not in ("lock", "locked", "mkdir", "begin")
    ]
    assert any(step.startswith("fold-remove") for step in wanted)
    for step in wanted:
        space = template.copy(tmp_path / f"ws-{step.replace(':', '-')}")
        with failures.at(step):
            assert programs.killed(programs.run(space.root, FOLD, fault=f"{step}=kill"))
            with Session(space.root).store() as store:
                assert numbers(store) == before
                log(store, "A", "recovered")
                after = numbers(store)
                assert after["total_recoveries"] == before["total_recoveries"] + 1
                assert programs.run(space.root, FOLD).code == 0
                assert programs.run(space.root, FOLD).code == 0
                assert numbers(store) == after
            assert there(space, "logs/recovery") == []
            assert programs.strays(space.root) == []


def test_a_damaged_fold_is_refused_and_nothing_is_lost_by_it(space: Workspace, store: FileStore) -> None:
    log(store, "A", "recovered")
    space.path("data/folded.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="damaged"):
        recovery_stats(store)
    Clock(store).days(40)
    result = cleanup.cleanup(store)
    assert there(space, "logs/recovery") == ["A_recovery.jsonl"]
    assert result.data["changed"] is False


def test_beyond_its_share_the_oldest_of_a_kind_goes_first(space: Workspace, store: FileStore) -> None:
    clock = Clock(store)
    budget(space, files=100)  # of which checkpoints may take 40
    clock.days(-1)
    for n in range(60):
        clock.now += 60
        checkpoints.create(store, f"T{n:02d}", "completed")
        checkpoints.create(store, f"R{n:02d}", "running")
    with Session(space.root).store() as fresh:
        fresh.clock = store.clock
        clock.now += 60
        done(fresh)
        assert len([name for name in there(space, "data/checkpoints") if name.startswith("R")]) == 120
        assert not any(name.startswith("T") for name in there(space, "data/checkpoints"))
        assert any("over the budget" in line for line in fresh.told), "what is open alone is too much: that is said"
        budget(space, files=400)
        for n in range(60):
            clock.now += 60
            checkpoints.create(fresh, f"T{n:02d}", "completed")
        clock.now += 60
    with Session(space.root).store() as fresh:
        fresh.clock = store.clock
        done(fresh)
        assert fresh.told == []
        left = sorted({name[:3] for name in there(space, "data/checkpoints") if name.startswith("T")})
        assert left == [f"T{n:02d}" for n in range(40, 60)]


def test_the_change_log_is_compressed_and_its_oldest_parts_go(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "LONG", 2000)
    name = layout.changes(store.now())
    old = f"{layout.CHANGES}/2025-01.jsonl"
    line = {"op": "note", "agent": "CC", "task": "T", "files": [], "derived": [], "time": "2026-01-01T00:00:00Z"}
    for n in range(1, 40):
        store.append(old if n < 20 else name, {"txid": f"x{n}", "seq": n, **line})
    assert done(store) == [("compressed", old), ("compressed", name)]
    assert [one["seq"] for one in derived.newest_first(store)] == list(range(39, 0, -1))
    assert done(store) == []
    budget(space, megabytes=1, files=20)  # one file for the change log
    with Session(space.root).store() as fresh:
        assert done(fresh) == [("removed", f"{old}.0001.gz")]
        assert [one["seq"] for one in derived.newest_first(fresh)] == list(range(39, 19, -1))


def test_an_open_breaker_stays_and_a_closed_one_goes_after_ninety_days(space: Workspace, store: FileStore) -> None:
    for name in ("open", "closed"):
        breaker = CircuitBreaker(name, base_path=space.root)
        breaker.trip(seconds=60.0)
        if name == "closed":
            breaker.reset()
    clock = Clock(store)
    clock.days(89)
    assert done(store) == []
    clock.days(2)
    assert ("removed", "data/breakers/closed.json") in done(store)
    assert there(space, "data/breakers") == ["open.json"]


def test_a_damaged_outbox_keeps_checkpoints_logs_and_backups_and_says_so(space: Workspace, store: FileStore) -> None:
    full(space, store, Clock(store))
    space.path("postbox/CC/outbox.json").write_text("{")
    result = cleanup.cleanup(store)
    assert result.data["code"] == 65
    assert [note.split(":")[0] for note in result.data["notes"]] == [
        "checkpoints were left alone",
        "logs were left alone",
    ]
    kinds = {item["kind"] for item in result.data["items"]}
    assert not kinds & {"checkpoints", "logs", "backups"}
    assert "keys" in kinds


def test_two_cleanups_at_once_are_one(space: Workspace, store: FileStore) -> None:
    with Session(space.root).store() as other:
        turn = turns.take(other, cleanup.TURN)
        assert turn is not None
        with pytest.raises(Busy, match="another cleanup"):
            cleanup.cleanup(store)
        turn.release()
    cleanup.cleanup(store)


def test_a_command_that_makes_the_log_long_cleans_up_behind_its_answer(space: Workspace) -> None:
    assert space.run(("complete", "CC", "CC-1")).code == 0
    (path,) = space.path(layout.CHANGES).glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b" " * (jsonl.LONG - path.stat().st_size - 500) + b"\n")
    assert space.run(("complete", "CC", "CC-2")).out.startswith("completed CC/CC-2")
    assert there(space, layout.CHANGES) == [path.name + ".0001.gz"]
    with Session(space.root).store() as store:
        assert [line["task"] for line in derived.newest_first(store)] == ["CC-2", "CC-1"]
    assert space.run(("complete", "CC", "CC-3")).code == 0
    assert "rolled back CC/CC-2" in space.run(("rollback", "CC", "CC-2")).out


def test_a_light_cleanup_stops_when_its_time_is_over(
    space: Workspace, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each thing that is done takes a second."""
    full(space, store, Clock(store))
    seconds = [0.0]
    doing = cleanup._doing

    def slowly(act: Any, *args: Any) -> Any:
        done_ = doing(act, *args)

        def once_() -> bool:
            seconds[0] += 1
            return done_()

        return once_

    monkeypatch.setattr(cleanup, "_doing", slowly)
    result = cleanup.cleanup(store, within=3, monotonic=lambda: seconds[0])
    assert 0 < len(result.data["items"]) < 4
    assert result.data["left"] > 0
    assert "left for the next time" in result.line


def test_a_plan_that_is_cut_short_takes_nothing_for_the_oldest(space: Workspace, store: FileStore) -> None:
    """After any number of looks: what it has is in the whole plan, too; of a kind's share it knows all or nothing."""
    clock = Clock(store)
    full(space, store, clock)
    for n in range(6):
        checkpoints.create(store, f"T{n}", "completed")
    clock.days(1)
    budget(space, files=20)
    with Session(space.root).store() as fresh:
        fresh.clock = store.clock
        items = cleanup.Plan(fresh).items
        whole = {item.what for item in items}
        by_share = [[item.what for item in items if item.kind == kind and "share" in item.why] for kind in bounds.KINDS]
        assert ["T0", "T1", "T2", "T3", "T4"] in by_share
        cuts = 0
        for most in range(200):
            looks = iter(range(10**6))
            plan = cleanup.Plan(fresh, lambda looks=looks, most=most: next(looks) < most)  # type: ignore[misc]
            cuts += plan.cut
            if plan.cut:
                assert {item.what for item in plan.items} <= whole
                for kind, all_ in zip(bounds.KINDS, by_share, strict=True):
                    chosen = [item.what for item in plan.items if item.kind == kind and "share" in item.why]
                    assert chosen in ([], all_)
    assert 40 < cuts < 200


@pytest.mark.parametrize("looks", [0, 1, 30])
def test_a_light_cleanup_that_can_look_at_little_still_puts_the_long_log_aside(
    looks: int, space: Workspace, store: FileStore
) -> None:
    """In a workspace of any size: half of its time is for what it has found, and nothing is taken for the oldest."""
    full(space, store, Clock(store))
    budget(space, files=20)  # all kinds have more than their share
    assert space.run(("complete", "CC", "CC-2")).code == 0
    (path,) = space.path(layout.CHANGES).glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b" " * jsonl.LONG + b"\n")
    ticks = iter(range(10**6))
    with Session(space.root).store() as fresh:
        result = cleanup.cleanup(fresh, within=4 * looks, monotonic=lambda: float(next(ticks)))
    done_ = [(item["done"], item["what"]) for item in result.data["items"]]
    assert done_[0] == ("compressed", f"{layout.CHANGES}/{path.name}")
    assert not any("more than their share" in item["why"] for item in result.data["items"])
    assert there(space, layout.CHANGES) == [path.name + ".0001.gz"]


def test_nonsense_in_the_config_is_told_and_passed_over(space: Workspace) -> None:
    budget(space, megabytes=0, files="many", colour=3)
    with Session(space.root).store() as store:
        limits = bounds.limits_of(store)
        assert (limits.size, limits.files) == (256 * bounds.MEGABYTE, 20000)
        assert len(store.told) == 3


def test_the_shares_are_a_whole() -> None:
    assert sum(kind.size for kind in bounds.KINDS.values()) == 100
    assert sum(kind.files for kind in bounds.KINDS.values()) == 100


def test_everything_that_is_written_has_a_kind(space: Workspace, store: FileStore) -> None:
    full(space, store, Clock(store))
    log(store, "A", "recovered")
    segments.rotate(store, "logs/recovery/A_recovery.jsonl")
    assert once.old(store) == ["data/once/done.json"]
    found = {file.name for file in bounds.files(store)}
    written = {
        str(path.relative_to(space.root))
        for folder in ("data", "logs")
        for path in space.path(folder).rglob("*")
        if path.is_file()
    }
    assert written <= found
    assert not any(name.rpartition("/")[2] == "outbox.json" for name in found)


def age(space: Workspace, folder: str, days: float) -> None:
    then = time.time() - days * DAY
    for path in space.path(folder).rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


def test_backups_of_archived_tasks_go_as_those_of_completed_ones(space: Workspace, store: FileStore) -> None:
    path = space.path("postbox/CC/outbox.json")
    body = json.loads(path.read_text())
    for task in body["tasks"][:2]:
        task.update(status="completed", completed_at="2025-06-01T00:00:00Z")
    path.write_text(json.dumps(body))
    assert archive.archive(store, "CC").data["archived"] == {"CC": ["CC-1", "CC-2"]}
    archive.restore(store, "CC", "CC-2")
    space.run(("reopen", "CC", "CC-2"))
    month = space.path("postbox/CC/archive/2025-06.jsonl")
    line = month.read_text().splitlines()[0]
    month.write_text(f"{month.read_text()}{line.replace('CC-1', 'CC-3')}\n")  # in the outbox it is open
    for name in ("CC-1", "CC-1.1", "CC-2", "CC-3", "NOBODY"):
        space.path(f"postbox/CC/outbox.json.backup_{name}").write_text("{}")
    age(space, "postbox/CC", 40)
    assert [what for _, what in done(store) if "backup" in what] == [
        "postbox/CC/outbox.json.backup_CC-1",
        "postbox/CC/outbox.json.backup_CC-1.1",
    ]


@pytest.mark.parametrize("damage", ["torn", "folder", "link"])
def test_a_damaged_open_escalation_keeps_what_it_may_have_named(
    damage: str, space: Workspace, store: FileStore
) -> None:
    for folder, base in (("data/quarantine", "postbox@CC@outbox.json@00"), ("data/conflicts", "x.conflict.json")):
        space.path(folder).mkdir(parents=True)
        space.path(f"{folder}/{base}").write_text("{}")
        age(space, folder, 200)
    path = space.path("logs/recovery/CC-1_escalation.json")
    path.parent.mkdir(parents=True)
    if damage == "torn":
        path.write_text('{"task_id": "CC-1", "details": {"rec')
    elif damage == "folder":
        path.mkdir()
    else:
        path.symlink_to("/nowhere")
    for dry_run in (True, False):
        result = cleanup.cleanup(store, dry_run)
        assert result.data["code"] == 65
        assert [note.split(":")[0] for note in result.data["notes"]] == [
            "quarantine were left alone",
            "conflicts were left alone",
        ]
    assert there(space, "data/quarantine") == ["postbox@CC@outbox.json@00"]
    assert there(space, "data/conflicts") == ["x.conflict.json"]
    path.rmdir() if damage == "folder" else path.unlink()
    assert len(done(store)) == 2


def test_a_damaged_original_and_its_report_live_as_long_as_each_other(space: Workspace, store: FileStore) -> None:
    """And the same damage once more is as new as the first time."""
    first = quarantine.keep(store, "postbox/CC/outbox.json", b"{", {"found": "torn"})
    other = quarantine.keep(store, "postbox/CA/outbox.json", b"[", {"found": "torn"})
    named = quarantine.keep(store, "postbox/CB/outbox.json", b"]", {"found": "torn"})
    space.path("logs/recovery").mkdir(parents=True, exist_ok=True)
    space.path("logs/recovery/CB-1_escalation.json").write_text(json.dumps({"details": {"kept": named}}))
    age(space, "data/quarantine", 200)
    os.utime(space.path(other + quarantine.REPORT))
    plan = cleanup.Plan(store)
    assert [item.what for item in plan.items] == [first]
    assert plan.items[0].files == 2
    quarantine.keep(store, "postbox/CC/outbox.json", b"{", {"found": "torn"})
    assert not plan.items[0].act(), "it came once more since it was planned"
    age(space, "data/quarantine", 200)
    quarantine.keep(store, "postbox/CC/outbox.json", b"{", {"found": "torn"})
    assert space.path(first).stat().st_mtime > time.time() - DAY
    os.utime(space.path(other), (1, 1))
    os.utime(space.path(other + quarantine.REPORT), (1, 1))
    assert done(store) == [("removed", other)]
    left = there(space, "data/quarantine")
    assert left == sorted(name.rpartition("/")[2] + end for name in (first, named) for end in ("", quarantine.REPORT))


def test_what_was_moved_to_the_damaged_ones_is_new_there(space: Workspace, store: FileStore) -> None:
    path = space.path("data/checks.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    os.utime(path, (1, 1))
    kept = quarantine.move(store, "data/checks.json")
    assert kept is not None
    assert done(store) == []
    assert space.path(kept).read_text() == "{"


@pytest.mark.skipif(sys.hexversion < 0x030B0000, reason="logs need 3.11")
def test_damaged_statistics_of_logs_that_are_gone_are_said(space: Workspace, store: FileStore) -> None:
    clock = Clock(store)
    clock.days(-100)
    log(store, "OLD", "recovered")
    clock.days(100)
    age(space, "logs/recovery", 100)
    space.path("data").mkdir(exist_ok=True)
    space.path(layout.FOLDED).write_text('{"format": 1, "tas')
    before = everything(space)
    for dry_run in (True, False):
        result = cleanup.cleanup(store, dry_run)
        assert (result.data["code"], result.data["items"]) == (65, [])
        assert any("data/folded.json is damaged" in note for note in result.data["notes"])
    after = everything(space)
    assert {name for name in before if before[name] != after.get(name)} == set()
    space.path(layout.FOLDED).unlink()
    assert done(store) == [("removed", "OLD")]
