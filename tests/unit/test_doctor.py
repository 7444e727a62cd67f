"""`recovery doctor` in a workspace: each kind of damage is found, nothing is changed unless told, all comes back."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recovery import archived, damage, doctor, examine, health, layout
from recovery.errors import DataError, NotFound
from recovery.flock import Limits
from recovery.journal import Journal
from recovery.request import Request
from recovery.store import FileStore
from support.meeting import held
from support.promise import Failures
from support.workspace import FORMS, FULL, Workspace

OUTBOX = "postbox/CC/outbox.json"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "root")


def examined(space: Workspace, agent: str = "") -> dict[str, Any]:
    return looked(space, agent, False)


def repaired(space: Workspace, agent: str = "") -> dict[str, Any]:
    return looked(space, agent, True)


def looked(space: Workspace, agent: str, repair: bool) -> dict[str, Any]:
    store = FileStore(str(space.root), Limits(5, 10, "doctor"), doctor.VERB.mends)
    try:
        return dict(doctor.doctor(store, agent, repair).data)
    finally:
        store.close()


def kinds(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["file"], one["kind"]) for one in found["findings"]]


def everything(root: Path) -> dict[str, tuple[Any, ...]]:
    """Names, kinds, modes, times and bytes of all there is."""
    found = {}
    for path in sorted(root.rglob("*")):
        st = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (st.st_mode, st.st_uid, st.st_ino, st.st_mtime_ns, data)
    return found


def run(space: Workspace, *commands: tuple[str, ...]) -> None:
    for command in commands:
        done = space.fork(command)
        assert done.code == 0, str(done)


#: Ten ways to break a workspace by hand, and what each is called.
def empty(space: Workspace) -> None:
    space.path(OUTBOX).write_bytes(b"")


def cut(space: Workspace) -> None:
    path = space.path("postbox/CA/outbox.json")
    path.write_bytes(path.read_bytes()[:700])


def glued(space: Workspace) -> None:
    path = space.path("postbox/CB/outbox.json")
    path.write_bytes(path.read_bytes() + b'\n{"task_id": "R-1", "timestamp": "2024", "report": {}}\n')


def nuls(space: Workspace) -> None:
    path = space.path(".sprint/progress.json")
    data = path.read_bytes()
    path.write_bytes(data[:-40] + b"\0" * 40)


def record(space: Workspace) -> None:
    path = space.path("postbox/CC/completed/CC-1_completion.json")
    path.write_bytes(path.read_bytes()[:80])


def torn_log(space: Workspace) -> None:
    with next(space.root.glob("data/changes/*.jsonl")).open("ab") as log:
        log.write(b'{"txid": "torn')


def checkpoint(space: Workspace) -> None:
    space.path("data/checkpoints/CC-1_checkpoint.json").write_text("{")


def backup(space: Workspace) -> None:
    space.path(OUTBOX + ".backup_CC-9").write_text("{")


def leftover(space: Workspace) -> None:
    space.path("postbox/CC/.outbox.json.0123456789ab.stage").write_text("{}")


def out_of_the_root(space: Workspace) -> None:
    elsewhere = space.root.with_name("elsewhere.json")
    elsewhere.write_text('{"tasks": []}')
    folder = space.path("postbox/XX")
    folder.mkdir()
    (folder / "outbox.json").symlink_to(elsewhere)


WAYS: dict[Callable[[Workspace], None], tuple[str, str]] = {
    empty: (OUTBOX, "empty"),
    cut: ("postbox/CA/outbox.json", "cut"),
    glued: ("postbox/CB/outbox.json", "glued"),
    nuls: (".sprint/progress.json", "nul"),
    record: ("postbox/CC/completed/CC-1_completion.json", "cut"),
    torn_log: ("data/changes/", "torn-line"),
    checkpoint: ("data/checkpoints/CC-1_checkpoint.json", "cut"),
    backup: (OUTBOX + ".backup_CC-9", "stale-backup"),
    leftover: ("postbox/CC/.outbox.json.0123456789ab.stage", "leftover"),
    out_of_the_root: ("postbox/XX/outbox.json", "link"),
}


def test_a_whole_workspace_is_found_to_be_whole(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"), ("assign", "CA", "CA-9", "more", "HIGH"))
    assert examined(space)["findings"] == []


def health_of(space: Workspace) -> dict[str, Any]:
    """What the health check says of all that can be damaged, by its checks."""
    asked = Request("health", health.VERB, ["-C", str(space.root), "journal", "conflicts", "outboxes", "records"])
    return dict(health.health(asked, {}).data["checks"])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_health_check_sees_each_kind_of_damage_and_sends_people_to_the_doctor(
    space: Workspace, way: Callable[[Workspace], None]
) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    assert {one["level"] for one in health_of(space).values()} == {"OK"}
    way(space)
    (bad,) = [one for one in health_of(space).values() if one["level"] != "OK"]
    assert WAYS[way][0] in bad["text"]
    assert bad["next"] == "recovery doctor"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_each_kind_of_damage_is_found_alone_and_nothing_is_changed(
    space: Workspace, way: Callable[[Workspace], None]
) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    way(space)
    before = everything(space.root)
    found = examined(space)
    name, kind = WAYS[way]
    assert found["code"] == 1
    assert {one["kind"] for one in found["findings"]} == {kind} | ({"cut"} if kind == "nul" else set())
    assert all(one["file"].startswith(name) for one in found["findings"])
    assert everything(space.root) == before


def test_all_ten_at_once_are_repaired_and_the_commands_work_again(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    old = {name: space.path(name).read_bytes() for name in space.snapshot() if not name.startswith("data/")}
    tasks = {agent: space.json(f"postbox/{agent}/outbox.json") for agent in ("CA", "CB")}
    for way in WAYS:
        way(space)
    hurt = {name: space.path(name).read_bytes() for name in old if space.path(name).exists()}
    done = repaired(space)
    assert [one["kind"] for one in done["still"]] == ["link"]
    space.path("postbox/XX/outbox.json").unlink()
    before = everything(space.root)
    again = repaired(space)
    assert (again["changed"], again["code"], again["findings"]) == (False, 0, [])
    assert everything(space.root) == before  # the second repair does nothing
    assert space.json("postbox/CB/outbox.json")["tasks"] == tasks["CB"]["tasks"]
    assert space.json("postbox/CA/outbox.json")["tasks"][0] == tasks["CA"]["tasks"][0]
    assert space.task("CC", "CC-1")["status"] == "completed"
    assert space.json("postbox/CC/completed/CC-1_completion.json") == json.loads(
        old["postbox/CC/completed/CC-1_completion.json"]
    )
    for one in done["repaired"]:
        if one.get("file") in hurt and hurt[one["file"]] != old[one["file"]]:
            assert one.get("quarantine"), one["file"]
            assert space.path(one["quarantine"]).read_bytes() == hurt[one["file"]]
            assert space.json(one["quarantine"] + ".report.json")["file"] == one["file"]
    run(space, ("complete", "CA", "CA-1"), ("complete", "CB", "CB-2"), ("status",), ("recover",))


def test_a_dry_run_says_what_would_be_written_and_changes_nothing(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    for way in WAYS:
        way(space)
    before = everything(space.root)
    done = space.fork(("doctor", "--repair", "--dry-run", "--json"))
    assert done.code == 1
    assert everything(space.root) == before
    body = json.loads(done.out)
    texts = {one["file"]: one["text"] for one in body["repaired"] if "text" in one}
    assert damage.whole_outbox(texts["postbox/CB/outbox.json"].encode()) is not None
    assert space.fork(("doctor", "--dry-run")).code == 64


# --- what is known elsewhere


def test_an_outbox_that_is_gone_comes_back_from_backup_log_record_progress_and_brief(space: Workspace) -> None:
    """The later word counts, and each value comes with its source."""
    run(
        space,
        ("complete", "CC", "CC-1", "done", "--keep-backup"),
        ("assign", "CC", "CC-9", "A brief title", "LOW", "3"),
    )
    whole = space.json(OUTBOX)
    space.path(OUTBOX).unlink()
    done = repaired(space)
    assert (OUTBOX, "missing") in kinds(done)
    body = space.json(OUTBOX)
    assert body["tasks"] == whole["tasks"]
    assert {key: body[key] for key in ("agent_id", "agent_name", "expertise", "history")} == {
        key: whole[key] for key in ("agent_id", "agent_name", "expertise", "history")
    }
    (one,) = [one for one in done["repaired"] if one["file"] == OUTBOX]
    sources = {source.partition(" ")[0] for source in one["from"]["CC-1"]}
    assert OUTBOX + ".backup_CC-1" in sources
    assert any(source.startswith("data/changes/") for source in sources)


def test_without_a_log_the_record_progress_and_the_brief_say_what_they_know(space: Workspace) -> None:
    run(space, ("assign", "CC", "CC-9", "A brief title", "LOW", "3"), ("complete", "CC", "CC-1", "done"))
    for log in space.root.glob("data/changes/*"):
        log.unlink()
    space.path("data/journal").unlink()
    text = space.path(OUTBOX).read_bytes()
    space.path(OUTBOX).write_bytes(text[: text.index(b'"title": "Work 1')])
    done = repaired(space)
    first, *others = space.json(OUTBOX)["tasks"]
    assert first["status"] == "completed"
    assert first["completion_message"] == "done"
    (brief,) = [entry for entry in others if entry["task_id"] == "CC-9"]
    assert (brief["title"], brief["priority"], brief["status"]) == ("A brief title", "LOW", "pending")
    assert brief["estimated_hours"] == 3
    assert {entry["task_id"] for entry in others} == {"CC-2", "CC-3", "CC-4", "CC-9"}
    (one,) = [one for one in done["repaired"] if one["file"] == OUTBOX]
    assert "postbox/CC/completed/CC-1_completion.json" in one["from"]["CC-1"]
    assert set(one["from"]["CC-2"]) == {layout.PROGRESS}
    assert "postbox/CC/inbox/CC-9.md" in one["from"]["CC-9"]


def test_what_was_given_to_another_agent_does_not_come_back(space: Workspace) -> None:
    run(space, ("note", "CC", "CC-2", "mine"), ("reassign", "CC", "CC-2", "CA"))
    space.path(OUTBOX).write_bytes(b"\0" * 2000)
    repaired(space)
    assert "CC-2" not in [entry["task_id"] for entry in space.json(OUTBOX)["tasks"]]
    assert space.task("CA", "CC-2")


def test_what_could_not_be_decided_is_an_escalation_and_is_asked_once(space: Workspace) -> None:
    text = space.path(OUTBOX).read_text()
    two = text.replace('"priority": "HIGH"', '"priority": "LOW",\n      "priority": "HIGH"', 1)
    space.path(OUTBOX).write_text(two)
    done = repaired(space)
    assert done["undecided"]
    assert space.task("CC", "CC-1")["priority"] == "HIGH"
    (asked,) = space.root.glob("logs/recovery/*_escalation*.json")
    body = json.loads(asked.read_text())
    assert body["task_id"] == "CC-1"
    assert body["details"]["undecided"]["other"] == '"LOW"'
    space.path(OUTBOX).write_text(two)
    repaired(space)
    assert len(list(space.root.glob("logs/recovery/*_escalation*.json"))) == 1


# --- changes that were not finished


def test_a_change_that_was_left_half_done_is_named_and_finished(space: Workspace) -> None:
    assert space.fork(("complete", "CC", "CC-1", "done"), fault="journal-synced:1=kill").code == -9
    before = everything(space.root)
    assert (layout.JOURNAL, "journal") in kinds(examined(space))
    assert everything(space.root) == before
    assert repaired(space)["code"] == 0
    assert space.task("CC", "CC-1")["status"] == "completed"


def park(space: Workspace) -> Path:
    done = space.fork(
        ("complete", "CC", "CC-1", "done"), fault="replace:2=EIO,restore:1=EIO", RECOVERY_MAX_ATTEMPTS="1"
    )
    assert done.code == 70, str(done)
    (parked,) = space.root.glob("data/conflicts/*.parked.json")
    return parked


def test_a_task_that_answers_70_works_again_after_a_repair(space: Workspace) -> None:
    park(space)
    assert space.fork(("complete", "CC", "CC-1", "done"), RECOVERY_MAX_ATTEMPTS="1").code == 70
    assert "parked" in [kind for _, kind in kinds(examined(space))]
    assert repaired(space)["code"] == 0
    run(space, ("complete", "CC", "CC-1", "done"))


def test_a_parked_record_that_is_damaged_itself_goes_to_quarantine_and_is_asked(space: Workspace) -> None:
    parked = park(space)
    data = parked.read_bytes()[:300]
    parked.write_bytes(data)
    done = repaired(space)
    assert done["code"] == 0
    assert not parked.exists()
    assert data in [path.read_bytes() for path in space.root.glob("data/quarantine/*")]
    assert done["undecided"]
    run(space, ("complete", "CC", "CC-2", "done"))


# --- logs


def test_a_journal_of_garbage_goes_to_quarantine_and_a_person_is_asked(space: Workspace) -> None:
    """The change log's numbers go on; a journal of NULs, which nobody has written to yet, is well."""
    run(space, ("complete", "CC", "CC-1", "done"))
    garbage = b"garbage" * 10_000
    space.path(layout.JOURNAL).write_bytes(garbage)
    assert kinds(examined(space)) == [(layout.JOURNAL, "garbled")]
    done = repaired(space)
    assert (done["code"], len(done["undecided"])) == (0, 1)
    assert garbage in [path.read_bytes() for path in space.root.glob("data/quarantine/*")]
    run(space, ("complete", "CC", "CC-2", "done"))
    (log,) = space.root.glob("data/changes/*.jsonl")
    numbers = [json.loads(line)["seq"] for line in log.read_text().splitlines()]
    assert numbers == sorted(set(numbers))
    space.path(layout.JOURNAL).write_bytes(b"\0" * 65536)
    assert examined(space)["findings"] == []


def test_a_progress_file_that_is_gone_is_listed_anew(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    space.path(layout.PROGRESS).unlink()
    assert kinds(examined(space)) == [(layout.PROGRESS, "missing")]
    assert repaired(space)["code"] == 0
    listed = json.loads(space.path(layout.PROGRESS).read_bytes())["tasks"]
    assert (listed["CC-1"]["status"], listed["CC-2"]["status"]) == ("completed", "pending")
    assert examined(space)["findings"] == []


def test_an_agent_that_only_progress_knows_comes_back_with_its_open_tasks(space: Workspace) -> None:
    path = space.path(layout.PROGRESS)
    value = json.loads(path.read_bytes())
    value["tasks"]["N-1"] = {"status": "in_progress", "agent": "NEW", "title": "all that is known"}
    path.write_text(json.dumps(value))
    assert kinds(examined(space)) == [("postbox/NEW/outbox.json", "missing")]
    repaired(space)
    (task,) = json.loads(space.path("postbox/NEW/outbox.json").read_bytes())["tasks"]
    assert (task["task_id"], task["status"], task["title"]) == ("N-1", "in_progress", "all that is known")


def gone(space: Workspace) -> bool:
    """Whether doctor and health check, which must agree, miss NEW."""
    found = ("postbox/NEW/outbox.json", "missing") in kinds(examined(space))
    assert ("postbox/NEW/outbox.json is gone" in str(health_of(space))) is found
    return found


def removed(space: Workspace, agent: str, dry_run: bool = False) -> bool:
    """Say that an agent was removed on purpose, and whether that is news."""
    store = FileStore(str(space.root), Limits(5, 10, "doctor"))
    try:
        return doctor.removed(store, agent, dry_run).changed
    finally:
        store.close()


def test_an_agent_whose_folder_is_gone_is_missed_though_all_its_tasks_were_done(space: Workspace) -> None:
    run(space, ("assign", "NEW", "N-1", "One", "HIGH"), ("complete", "NEW", "N-1", "done"))
    assert not gone(space)
    shutil.rmtree(space.path("postbox/NEW"))
    assert gone(space)
    refused = space.fork(("complete", "NEW", "N-2", "done"))
    assert (refused.code, "recovery doctor --agent NEW" in str(refused)) == (66, True)
    done = repaired(space, "NEW")
    assert "removed on purpose" in str(done)
    assert (space.task("NEW", "N-1")["status"], space.task("NEW", "N-1")["completion_message"]) == ("completed", "done")
    assert not gone(space)


def test_closed_tasks_that_only_progress_knows_come_back_with_the_folder_of_their_agent(space: Workspace) -> None:
    path = space.path(layout.PROGRESS)
    value = json.loads(path.read_bytes())
    value["tasks"]["N-1"] = {"status": "completed", "agent": "NEW", "title": "all that is known"}
    path.write_text(json.dumps(value))
    assert gone(space)
    repaired(space)
    assert space.task("NEW", "N-1")["status"] == "completed"


def test_an_agent_that_was_removed_on_purpose_is_missed_no_more_until_it_is_there_again(space: Workspace) -> None:
    run(space, ("assign", "NEW", "N-1", "One", "HIGH"))
    with pytest.raises(DataError, match="is there"):
        removed(space, "NEW")
    shutil.rmtree(space.path("postbox/NEW"))
    with pytest.raises(NotFound):
        removed(space, "NOBODY")
    assert gone(space)
    assert removed(space, "NEW", dry_run=True) is False
    assert gone(space)
    assert removed(space, "NEW") is True
    assert not gone(space)
    assert removed(space, "NEW") is False
    run(space, ("assign", "NEW", "N-2", "Two", "HIGH"))
    shutil.rmtree(space.path("postbox/NEW"))
    assert gone(space)


def test_an_outbox_whose_first_task_was_taken_back_is_not_missed(space: Workspace) -> None:
    run(space, ("assign", "NEW", "N-1", "One", "HIGH"), ("undo", "NEW", "N-1"))
    assert not space.path("postbox/NEW/outbox.json").exists()
    assert not gone(space)
    shutil.rmtree(space.path("postbox/NEW"))
    assert not gone(space)


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_stands_in_the_place_of_an_outbox_is_moved_away_by_the_command_that_is_named(
    space: Workspace, kind: str
) -> None:
    path = space.path("postbox/CC/outbox.json")
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    path.with_name("outbox.json.away").touch()
    found = examined(space)
    assert kinds(found) == [(OUTBOX, "not-a-file")]
    subprocess.run(["bash", "-c", found["next"]], check=True)
    assert kinds(examined(space)) == [(OUTBOX, "missing")]


def test_a_key_with_two_values_in_a_task_is_seen_by_the_health_check_too(space: Workspace) -> None:
    path = space.path(OUTBOX)
    text = path.read_text()
    path.write_text(text.replace('"status": "pending"', '"status": "failed", "status": "pending"', 1))
    assert path.read_text() != text
    assert kinds(examined(space)) == [(OUTBOX, "duplicate-key")]
    assert "stands there twice" in str(health_of(space))


@pytest.mark.parametrize("name", [".sprint", "data", "logs", "data/changes", "data/receipts"])
def test_a_file_in_the_place_of_a_folder_is_named_with_what_to_do(space: Workspace, name: str) -> None:
    """Nothing else that belongs there is missed, and nothing is repaired around it."""
    run(space, ("complete", "CC", "CC-1", "done"))
    path = space.path(name)
    if path.exists():
        path.rename(path.with_name("before"))
    path.write_text("mine")
    found = examined(space)
    assert kinds(found) == [(name, "not-a-folder")]
    assert found["next"] == f"mv {space.path(name)} {space.path(name)}.away"
    assert repaired(space)["code"] == 1
    assert path.read_text() == "mine"


def test_a_damaged_checks_json_is_named_and_left_to_its_person(space: Workspace) -> None:
    path = space.path(layout.CHECKS)
    path.write_text('{"checks": {"x": {"run": 7}}}')
    (found,) = examined(space)["findings"]
    assert (found["file"], found["repair"]) == (layout.CHECKS, "")
    assert "recovery trust" in found["next"]
    assert repaired(space)["code"] == 1
    path.write_text('{"checks": {"x": {"run": "true"}}}')
    assert examined(space)["findings"] == []


def test_lines_of_alerts_rules_that_are_none_are_named_with_their_place(space: Workspace) -> None:
    space.path(layout.ALERT_RULES).write_text("agents > 1\nagents >> 1\n")
    (found,) = examined(space)["findings"]
    assert (found["file"], found["line"], found["column"], found["repair"]) == (layout.ALERT_RULES, 2, 8, "")
    space.path(layout.ALERT_RULES).write_text("agents > 1\n")
    assert examined(space)["findings"] == []


def test_torn_lines_go_to_quarantine_and_no_other_byte_of_a_log_moves(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    (log,) = space.root.glob("data/changes/*.jsonl")
    whole = log.read_bytes()
    torn = [b'{"txid": "a', b"\0" * 50, b"[1, 2]"]
    log.write_bytes(torn[0] + b"\n" + whole + torn[1] + b"\n" + whole + torn[2])
    inode = log.stat().st_ino
    assert repaired(space)["code"] == 0
    blank = [b" " * len(one) for one in torn]
    assert log.read_bytes() == blank[0] + b"\n" + whole + blank[1] + b"\n" + whole + blank[2][:-1] + b"\n"
    assert log.stat().st_ino == inode
    kept = [path.read_bytes() for path in space.root.glob("data/quarantine/data@changes*")]
    assert b"\n".join(torn) + b"\n" in kept
    run(space, ("complete", "CC", "CC-2", "done"))
    assert examined(space)["findings"] == []


# --- while others work


def test_a_line_that_is_whole_by_the_time_it_is_judged_is_not_torn(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    (log,) = space.root.glob("data/changes/*.jsonl")
    whole = log.read_bytes()
    for rest, left in ((whole[20:], 1), (b"", 2), (b"\n" + whole, 2)):  # its writer's; nobody's; the next writer's
        log.write_bytes(b"torn\n" + whole[:20])
        store = FileStore(str(space.root), Limits(5, 10, "doctor"))
        told = examine.torn_lines(store, str(log.relative_to(space.root)))
        first = next(told)  # what stands behind it has been read by now
        with log.open("ab") as writer:
            writer.write(rest)
        assert len([first, *told]) == left
        store.close()


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "outbox.json"
    path.write_bytes(b'{"tasks": [')
    folder = os.open(tmp_path, os.O_RDONLY)

    def is_well(data: bytes) -> Any:
        value = damage.whole_outbox(data)
        path.write_bytes(b'{"tasks": []}')  # its writer comes to an end
        return value

    try:
        assert examine.settled(folder, "outbox.json", is_well) == (b'{"tasks": []}', {"tasks": []})
        path.write_bytes(b'{"tasks": [')
        assert examine.settled(folder, "outbox.json", damage.whole_outbox) == (b'{"tasks": [', None)
        path.unlink()
        assert examine.settled(folder, "outbox.json", damage.whole_outbox) == (None, None)
    finally:
        os.close(folder)


def test_while_others_commit_nothing_is_reported_wrongly(space: Workspace) -> None:
    for number in range(10, 22):
        run(space, ("assign", "CC", f"CC-{number}", "work", "LOW"))
    working = [space.begin(("complete", "CC", f"CC-{number}", "done")) for number in range(10, 22)]
    store = FileStore(str(space.root), Limits(5, 10, "doctor"))
    for _ in range(5000):
        assert doctor.doctor(store).data["findings"] == []
        if len(list(space.root.glob("postbox/CC/completed/*.json"))) == len(working):
            break
    store.close()
    assert [one.finish().code for one in working] == [0] * 12


def test_an_outbox_whose_lock_is_held_is_left_alone_and_others_are_repaired(space: Workspace) -> None:
    empty(space)
    cut(space)
    with held(space.path("postbox/CC/.outbox.json.lock")):
        done = space.fork(("doctor", "--repair", "--json"), RECOVERY_LOCK_TIMEOUT="0.1")
    body = json.loads(done.out)
    assert done.code == 1
    assert len(body["left"]) == 1
    assert "held by" in body["left"][0]
    assert space.path(OUTBOX).read_bytes() == b""
    assert damage.whole_outbox(space.path("postbox/CA/outbox.json").read_bytes()) is not None


def test_one_agent_alone_is_looked_at_and_repaired(space: Workspace) -> None:
    empty(space)
    cut(space)
    assert [name for name, _ in kinds(examined(space, "CA"))] == ["postbox/CA/outbox.json"]
    repaired(space, "CA")
    assert space.path(OUTBOX).read_bytes() == b""
    assert space.fork(("doctor", "--agent", "NOBODY")).code == 66


def test_killed_at_any_step_of_a_repair_the_file_is_as_it_was_or_repaired(tmp_path: Path, failures: Failures) -> None:
    """And the original is in quarantine before anything takes its place; the next repair goes on."""
    space = Workspace.make(tmp_path / "root")
    glued(space)
    hurt = space.path("postbox/CB/outbox.json").read_bytes()
    (tmp_path / "tried").mkdir()
    trial = space.copy(tmp_path / "tried/root")
    steps = trial.forked_steps(("doctor", "--repair"))
    whole = trial.path("postbox/CB/outbox.json").read_bytes()
    trial.remove()
    first = next(n for n, step in enumerate(steps) if step.startswith("quarantine"))
    assert steps.index("quarantined:1") < steps.index("journal-write:1") < steps.index("replace:1")
    for step in steps[first :: 1 if FULL else 3]:
        with failures.at(f"killed at {step}"):
            trial = space.copy(tmp_path / "tried/root")
            trial.fork(("doctor", "--repair"), fault=f"{step}=kill")
            now = trial.path("postbox/CB/outbox.json").read_bytes()
            assert now in (hurt, whole)
            kept = [
                path.read_bytes() for path in trial.root.glob("data/quarantine/*@CB@*") if ".report" not in path.name
            ]
            assert now == hurt or hurt in kept
            done = trial.fork(("doctor", "--repair"))
            assert done.code == 0, str(done)
            assert trial.path("postbox/CB/outbox.json").read_bytes() == whole
            assert [name for name in trial.snapshot() if name.endswith(".stage")] == []
            trial.remove()


# --- what people see


def test_escape_codes_in_what_is_damaged_do_not_reach_the_terminal(space: Workspace) -> None:
    space.path(OUTBOX).write_text('{"tasks": [{"task_id": "A\x9b2J", \x1b[2J\n"\x9b1mkey": "\x9b0mcut')
    for words in (("doctor",), ("doctor", "--repair", "--dry-run"), ("doctor", "--repair"), ("doctor",)):
        done = space.fork(words)
        assert "\x1b" not in done.out + done.err
        assert "\x9b" not in done.out + done.err
        assert "\x07" not in done.out + done.err


@pytest.mark.parametrize("form", FORMS)
def test_statuses_that_progress_has_otherwise_are_found_and_put_right(tmp_path: Path, form: str) -> None:
    space = Workspace.make(tmp_path / "root", form)
    text = space.path(OUTBOX).read_text()
    space.path(OUTBOX).write_text(text.replace('"status": "pending"', '"status": "in_progress"', 1))
    found = examined(space)
    assert [kind for _, kind in kinds(found)] == ([] if form == "absent" else ["disagrees"])
    assert repaired(space)["code"] == 0
    if form != "absent":
        assert space.listed("CC-1")["status"] == "in_progress"
        assert space.progress()["total_tasks"] == 12


def test_a_counter_that_counts_more_than_is_listed_is_never_lowered(space: Workspace) -> None:
    text = space.path(layout.PROGRESS).read_text()
    space.path(layout.PROGRESS).write_text(text.replace('"total_tasks": 12', '"total_tasks": 400'))
    assert examined(space)["findings"] == []


def test_an_outbox_that_its_folder_does_not_share_is_named(space: Workspace) -> None:
    space.path("postbox/CC").chmod(0o2775)
    space.path(OUTBOX).chmod(0o600)
    (one,) = examined(space)["findings"]
    assert (one["kind"], one["repair"]) == ("permission", "")
    assert "chmod g+rw" in one["next"]


def test_a_stale_backup_is_moved_away_and_one_that_was_asked_for_stays(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done", "--keep-backup"), ("complete", "CC", "CC-2", "done"))
    stale = space.path(OUTBOX + ".backup_CC-2")
    (line,) = [one for one in space.lines("data/changes") if one["task"] == "CC-2"]
    assert line["backup"] == OUTBOX + ".backup_CC-2"
    undone = space.path(OUTBOX).read_text().replace(space.task("CC", "CC-2")["completed_at"], "x", 2)
    assert undone
    stale.write_bytes(before_of(space, "CC-2"))
    assert kinds(examined(space)) == [(OUTBOX + ".backup_CC-2", "stale-backup")]
    assert repaired(space)["code"] == 0
    assert not stale.exists()
    assert space.path(OUTBOX + ".backup_CC-1").exists()


def before_of(space: Workspace, task: str) -> bytes:
    """The outbox as a change of the task had found it: taken back in a copy, by the recorded inverse."""
    copy = space.copy(space.root.with_name("copy"))
    run(copy, ("rollback", "CC", task))
    data = copy.path(OUTBOX).read_bytes()
    copy.remove()
    return data


# --- the suite's own state


def test_a_journal_that_stops_everybody_is_moved_away_and_asked_about(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    journal = Journal(os.open(space.path(layout.JOURNAL), os.O_RDWR))
    journal.write(99, '{"no": "record"}')
    journal.close()
    assert space.fork(("complete", "CC", "CC-2", "done"), RECOVERY_MAX_ATTEMPTS="1").code != 0
    assert kinds(examined(space)) == [(layout.JOURNAL, "journal-damaged")]
    done = repaired(space)
    assert done["code"] == 0
    assert done["undecided"]
    run(space, ("complete", "CC", "CC-2", "done"))
    assert [line["seq"] for line in space.lines("data/changes")] == [1, 2]


def test_a_snapshot_that_is_not_the_last_of_its_history_is_made_again(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    path = space.path("data/checkpoints/CC-1_checkpoint.json")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"completed"', b'"running"', 1))
    assert kinds(examined(space)) == [("data/checkpoints/CC-1_checkpoint.json", "cache")]
    assert repaired(space)["code"] == 0
    assert path.read_bytes() == whole


def test_the_head_of_a_chain_comes_back_from_the_change_log_and_from_nowhere_else(space: Workspace) -> None:
    """A head made of the chain's own end would hide that its end was cut off."""
    folder = space.path("data/receipts")
    folder.mkdir(parents=True)
    text = '{\n  "format": 1,\n  "agent": "CC",\n  "number": 1,\n  "head": "abc"\n}\n'
    (folder / "CC.json").write_text(text[:30])
    done = repaired(space)
    assert done["code"] == 1
    assert len(done["left"]) == 1
    line = {"seq": 1, "txid": "20260101T000000Z-ab", "time": "2026-01-01T00:00:00Z", "op": "complete", "agent": "CC"}
    files = [{"name": "data/receipts/CC.json", "before": None, "after": "x", "write": [None, text]}]
    space.path("data/changes").mkdir(exist_ok=True)
    with space.path("data/changes/2026-01.jsonl").open("w") as log:
        log.write(json.dumps({**line, "task": "CC-1", "files": files, "derived": []}) + "\n")
    repaired(space)
    assert (folder / "CC.json").read_text() == text


def test_state_that_begins_anew_is_moved_away_and_what_only_a_person_knows_stays(space: Workspace) -> None:
    for name in ("breakers/api.json", "once/key.json", "manual/CC-1.json"):
        path = space.path("data/" + name)
        path.parent.mkdir(parents=True)
        path.write_text("{")
    done = repaired(space)
    assert not space.path("data/breakers/api.json").exists()
    assert {one["file"] for one in done["still"]} == {"data/once/key.json", "data/manual/CC-1.json"}
    assert space.path("data/once/key.json").read_text() == "{"


def test_a_record_that_the_outbox_gainsays_is_named_and_nobody_decides(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    text = space.path(OUTBOX).read_text().replace('"status": "completed"', '"status": "in_progress"', 1)
    space.path(OUTBOX).write_text(text)
    space.path(layout.PROGRESS).unlink()
    space.path(".sprint/.progress.json.lock").unlink()
    assert kinds(examined(space)) == [("postbox/CC/completed/CC-1_completion.json", "record")]
    assert repaired(space)["code"] == 1
    assert space.path(OUTBOX).read_text() == text


# --- any damage at all


def hurt_somehow(data: bytes, chance: random.Random) -> bytes:
    way = chance.randrange(6)
    at = chance.randrange(len(data))
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + b"\0" * (len(data) - at)
    if way == 2:
        return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if way == 3:
        return data + data[at:]
    if way == 4:
        return b"<<<<<<< HEAD\n" + data + b"=======\n" + data + b">>>>>>> other\n"
    return data[:at] + data[at + chance.randrange(1, 60) :]


@pytest.mark.parametrize("seed", range(60 if FULL else 12))
def test_whatever_is_damaged_a_repair_ends_in_a_workspace_that_works(space: Workspace, seed: int) -> None:
    chance = random.Random(seed)
    run(space, ("complete", "CC", "CC-1", "done"), ("assign", "CA", "CA-9", "more", "HIGH"))
    for path in sorted(path for path in space.root.rglob("*") if path.is_file()):
        name = str(path.relative_to(space.root))
        if path.suffix in (".json", ".jsonl") and name != layout.CONFIG and chance.random() < 0.5:
            path.write_bytes(hurt_somehow(path.read_bytes(), chance))
    repaired(space)
    again = repaired(space)
    assert (again["changed"], again.get("left", [])) == (False, [])
    for agent in ("CC", "CA", "CB"):
        assert damage.whole_outbox(space.path(f"postbox/{agent}/outbox.json").read_bytes()) is not None
    run(space, ("status",), ("recover",))


# --- archives and the change log


def archive_two(space: Workspace) -> Path:
    """Archive CC-1 and CC-2; the month they stand in."""
    run(space, *(("complete", "CC", f"CC-{n}", "done") for n in (1, 2)), ("archive", "CC", "--older-than", "0"))
    (month,) = space.root.glob("postbox/CC/archive/*.jsonl")
    return month


def archived_tasks(space: Workspace) -> set[str]:
    store = FileStore(str(space.root), Limits(5, 10, "doctor"))
    try:
        return {line["task_id"] for line in archived.every(store, "CC") if archived.find(store, "CC", line["task_id"])}
    finally:
        store.close()


@pytest.mark.parametrize("way", ["torn", "nul", "garbled", "removed", "emptied", "packed"])
def test_what_an_archive_lost_is_named_and_comes_back_from_the_change_log(space: Workspace, way: str) -> None:
    month = archive_two(space)
    assert examined(space)["findings"] == []
    data = month.read_bytes()
    first = data.index(b"\n") + 1
    if way == "packed":
        month.unlink()
        packed = gzip.compress(data)
        month.with_name(month.name + ".0001.gz").write_bytes(packed[: len(packed) // 2])
    elif way == "removed":
        month.unlink()
    else:
        spoiled = {
            "torn": data[: first + 90],
            "nul": data[:first] + b"\0" * (len(data) - first),
            "garbled": data[:first] + data[first:].replace(b"{", b"#"),
            "emptied": b"",
        }
        month.write_bytes(spoiled[way])
    before = everything(space.root)
    found = kinds(examined(space))
    assert (f"postbox/CC/archive/{month.name}", "lost-line") in found
    assert everything(space.root) == before
    assert repaired(space)["code"] == 0
    assert archived_tasks(space) == {"CC-1", "CC-2"}
    assert examined(space)["findings"] == []
    run(space, ("archive", "--restore", "CC", "CC-2"))
    assert examined(space)["findings"] == []


def test_nobody_is_asked_about_a_lost_line_of_an_archive_that_came_back_before(space: Workspace) -> None:
    """`recover`, or the first commit after a power cut, has written it again behind the zeros."""
    month = archive_two(space)
    data = month.read_bytes()
    month.write_bytes(data[: data.index(b"\n") + 1] + b"\0" * 99)
    run(space, ("recover",))
    assert archived_tasks(space) == {"CC-1", "CC-2"}
    assert repaired(space)["undecided"] == []
    assert examined(space)["findings"] == []


def test_a_line_of_an_archive_that_nothing_else_knows_is_asked(space: Workspace) -> None:
    month = archive_two(space)
    data = month.read_bytes()
    month.write_bytes(data[: data.index(b"\n") + 100])
    for log in space.root.glob("data/changes/*"):
        log.unlink()
    done = repaired(space)
    assert ["CC-2" in one for one in done["undecided"]] == [True]
    assert archived_tasks(space) == {"CC-1"}


def test_a_line_of_another_agent_in_an_archive_is_named_and_left(space: Workspace) -> None:
    month = archive_two(space)
    with month.open("a") as out:
        out.write('{"txid": "x", "task_id": "CA-1", "agent_id": "CA", "archived_at": "2025"}\n')
    data = month.read_bytes()
    assert kinds(repaired(space)) == [(f"postbox/CC/archive/{month.name}", "foreign")]
    assert month.read_bytes() == data


def test_which_change_is_lost_with_a_torn_line_is_named_and_asked_once(space: Workspace) -> None:
    run(space, *(("complete", "CC", f"CC-{n}", "done") for n in (1, 2, 3)))
    (log,) = space.root.glob("data/changes/*.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    number = json.loads(lines[-2])["seq"]
    lines[-2] = lines[-2][:60].replace(b'"', b"'") + b"\n"
    log.write_bytes(b"".join(lines))
    (one,) = examined(space)["findings"]
    assert f"change {number}" in one["what"]
    assert any(f"change {number}" in words for words in repaired(space)["undecided"])
    assert examined(space)["findings"] == []


def test_a_part_of_the_change_log_that_cannot_be_unpacked_is_named_and_what_is_left_is_kept(space: Workspace) -> None:
    run(space, *(("complete", "CC", f"CC-{n}", "done") for n in (1, 2)))
    (log,) = space.root.glob("data/changes/*.jsonl")
    data = log.read_bytes()
    packed = bytearray(gzip.compress(data))
    packed[-6] ^= 1  # its checksum
    part = log.with_name(log.name + ".0001.gz")
    part.write_bytes(packed)
    log.unlink()
    run(space, ("complete", "CC", "CC-3", "done"))
    assert kinds(examined(space)) == [(f"data/changes/{part.name}", "packed")]
    done = repaired(space)
    assert done["code"] == 0
    assert done["undecided"]
    assert part.with_suffix("").read_bytes() == data
    assert bytes(packed) in [path.read_bytes() for path in space.root.glob("data/quarantine/*")]
    assert examined(space)["findings"] == []


def test_a_part_of_a_log_that_somebody_removed_is_named_with_the_changes_that_are_gone(space: Workspace) -> None:
    """One in the middle: the oldest go by cleanup.  A copy that is put back is all there again."""
    run(space, *(("note", "CC", f"CC-{n}", "words") for n in (1, 2, 3, 4)))
    (log,) = space.root.glob("data/changes/*.jsonl")
    *lines, newest = log.read_bytes().splitlines(keepends=True)
    parts = [log.with_name(f"{log.name}.000{n}") for n in (1, 2, 3)]
    for part, line in zip(parts, lines, strict=True):
        part.write_bytes(line)
    log.write_bytes(newest)
    parts[0].unlink()
    assert examined(space)["findings"] == []
    parts[0].write_bytes(lines[0])
    part, kept = parts[1], lines[1]
    part.unlink()
    (finding,) = examined(space)["findings"]
    assert (finding["file"], finding["kind"]) == (f"data/changes/{part.name}", "part-gone")
    assert finding["what"].endswith("gone with it: change 2")
    done = repaired(space)
    assert done["code"] == 0
    assert len(done["undecided"]) == 1
    assert examined(space)["findings"] == []
    assert repaired(space)["findings"] == []
    part.write_bytes(kept)
    assert "CC/CC-2" in space.run(("history", "CC", "CC-2")).out


@pytest.mark.parametrize("way", ["file", "link", "folder"])
def test_an_archive_that_is_no_folder_of_files_is_named_and_stops_nothing(space: Workspace, way: str) -> None:
    folder = space.path("postbox/CC/archive")
    if way == "file":
        folder.write_text("x")
    elif way == "link":
        elsewhere = space.root.with_name("elsewhere")
        elsewhere.mkdir()
        folder.symlink_to(elsewhere)
    else:
        (folder / "2025-06.jsonl").mkdir(parents=True)
    space.path("postbox/XX").mkdir()
    space.path("postbox/XX/outbox.json").write_text("{")
    found = kinds(examined(space))
    assert ("postbox/XX/outbox.json", "cut") in found
    assert [kind for name, kind in found if name.startswith("postbox/CC/archive")] == [
        {"file": "link", "link": "link", "folder": "not-a-file"}[way]
    ]
    assert kinds(repaired(space))


# --- what the commands refuse


VALUES = ["5", "null", "true", "[]", "{}", '"x"', '""', '["a"]', '{"a": 1}', '"completed"', "-0", "1e400", "9" * 5000]
VALUES += ['"\\ud800"', '"\\u9375 \\u00f6"', '"ö"', '"a\\u0000b"']


@pytest.mark.parametrize("field", ["status", "title", "priority", "task_id", "completed_at", "claim", "checks"])
def test_the_doctor_finds_what_a_command_refuses_and_nothing_else(space: Workspace, field: str) -> None:
    """Each value at the place of a task's field: a finding in the outbox, or the commands can name and use it."""
    path = space.path(OUTBOX)
    space.path(".sprint/progress.json").unlink()  # which has its own say
    body = json.loads(path.read_text())
    body["tasks"][0][field] = "@@"
    text = json.dumps(body)
    refused = []
    for value in VALUES:
        if (field, value) in (("checks", '["a"]'), ("status", '"completed"')):
            continue  # a check that nobody has defined; what is done can't be claimed
        path.write_text(text.replace('"@@"', value))
        commands = (("complete", "CC", "CC-1", "done", "--dry-run"), ("claim", "CC", "CC-1", "--dry-run"))
        codes = {space.fork(command).code for command in commands}
        refused += [value] if 65 in codes else []
        assert space.fork(("status",)).code == 0, value
        assert not codes & {70, 71}, value
        is_text = value == "null" or value[0] == '"'
        is_nameless = field == "task_id" and not is_text
        assert bool(examined(space)["findings"]) == (65 in codes or is_nameless), (value, codes)
        if field == "task_id":
            assert ("is no text" in str(health_of(space))) == is_nameless
        if is_nameless:
            assert (repaired(space)["code"], examined(space)["findings"]) == (0, [])
            assert json.loads(path.read_text())["tasks"][0]["task_id"] == value
        if field == "status" and 65 in codes:
            done = repaired(space)
            assert done["code"] == 0
            assert done["undecided"]
            assert "status" not in space.task("CC", "CC-1")
    assert bool(refused) == (field in ("status", "checks"))


def test_a_number_of_five_thousand_digits_stays_through_archive_and_back(space: Workspace) -> None:
    path = space.path(OUTBOX)
    body = json.loads(path.read_text())
    body["tasks"][0]["n"] = "@@"
    path.write_text(json.dumps(body, indent=2).replace('"@@"', "9" * 5000))
    run(space, ("complete", "CC", "CC-1", "done"), ("archive", "CC", "--older-than", "0"), ("status", "-s", "archived"))
    assert examined(space)["findings"] == []
    run(space, ("archive", "--restore", "CC", "CC-1"), ("status",))
    assert f'"n": {"9" * 5000}' in path.read_text()


@pytest.mark.parametrize(
    "text", ['{"format": 1, "mine": "kept", ', "", "\0" * 40, "[1]", '{"format": "1"}', "null", "\xff\xfe"]
)
def test_a_damaged_config_says_what_helps_and_that_does(space: Workspace, text: str) -> None:
    data = text.encode("latin-1")
    path = space.path("data/config.json")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    refused = space.fork(("complete", "CC", "CC-1", "done"))
    assert refused.code == 65
    assert "recovery doctor --repair" in refused.err
    before = everything(space.root)
    found = space.fork(("doctor",))
    assert found.code == 1
    assert "data/config.json" in found.out
    assert everything(space.root) == before
    assert space.fork(("doctor", "--repair", "--dry-run")).code == 1
    assert path.read_bytes() == data
    assert space.fork(("doctor", "--repair")).code == 0
    run(space, ("complete", "CC", "CC-1", "done"), ("doctor",))
    assert json.loads(path.read_text())["format"] == 1
    assert ("mine" in json.loads(path.read_text())) == ("mine" in text)
    assert data in [kept.read_bytes() for kept in space.root.glob("data/quarantine/*")]


@pytest.mark.parametrize("left", ["archive", "inbox", "nothing", "no folder"])
def test_an_agent_without_its_outbox_is_missed_and_comes_back(space: Workspace, left: str) -> None:
    run(space, ("assign", "XX", "XX-1", "One", "HIGH"), ("assign", "XX", "XX-2", "Two", "LOW"))
    run(space, ("complete", "XX", "XX-1", "done"), ("archive", "XX", "--older-than", "0"))
    folder = space.path("postbox/XX")
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_relative_to(folder / left) or path == folder:
            path.rmdir() if path.is_dir() else path.unlink()
    if left == "no folder":
        folder.rmdir()
    assert ("postbox/XX/outbox.json", "missing") in kinds(examined(space))
    repaired(space)
    assert space.task("XX", "XX-2")["title"] == "Two"
    assert space.task("XX", "XX-2")["status"] == "pending"
    assert examined(space)["findings"] == []
    assert {line["task_id"] for line in json.loads(space.path("postbox/XX/outbox.json").read_text())["tasks"]} == {
        "XX-2"
    }


def test_a_person_is_asked_twenty_questions_of_a_file_and_told_how_many_there_are(space: Workspace) -> None:
    body = json.loads(space.path(OUTBOX).read_text())
    body["tasks"] = [{"task_id": f"T-{n % 30}", "title": str(n)} for n in range(60)]
    space.path(OUTBOX).write_text(json.dumps(body))
    done = repaired(space)
    assert len(done["undecided"]) == 21
    assert "10 questions more" in done["undecided"][-1]
    assert len(list(space.root.glob("logs/recovery/*_escalation*.json"))) == 21
    (report,) = space.root.glob("data/quarantine/*outbox*.report.json")
    assert len(json.loads(report.read_text())["undecided"]) == 30


# --- what is said


@pytest.mark.parametrize("step", ["quarantine:1", "journal-write:1"])
def test_a_disk_that_is_full_in_a_repair_is_what_comes_next(space: Workspace, step: str) -> None:
    cut(space)
    done = space.fork(("doctor", "--repair"), fault=f"{step}=ENOSPC")
    assert done.code == 1
    assert "No space left" in done.out
    assert "next: make room on the disk, then run the same command again" in done.out
    assert space.fork(("doctor", "--repair")).code == 0


def test_a_file_too_large_for_a_repair_is_promised_none(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "LARGEST", 500)
    cut(space)
    found = examined(space)["findings"]
    assert found
    assert not any(one["repair"] for one in found)
    assert all("too large" in one["next"] for one in found)
    assert not repaired(space)["changed"]


def test_progress_that_is_gone_lists_what_the_histories_completed_and_a_person_is_asked(space: Workspace) -> None:
    path = space.path(OUTBOX)
    body = json.loads(path.read_bytes())
    past = {"task_id": "CC-0", "timestamp": "2025-05-29T23:00:00Z", "status": "completed", "summary": "done long ago"}
    path.write_text(json.dumps({**body, "history": [past, *body.get("history", [])]}, indent=2))
    space.path(layout.PROGRESS).unlink()
    space.path(".sprint/.progress.json.lock").touch()
    found = repaired(space)
    (words,) = found["undecided"]
    assert "it is gone" in words
    now = json.loads(space.path(layout.PROGRESS).read_bytes())
    assert now["tasks"]["CC-0"] == {"status": "completed", "agent": "CC", "completed_at": "2025-05-29T23:00:00Z"}
    assert now["total_tasks"] == len(now["tasks"])
    assert now["completed"] == sum(entry["status"] == "completed" for entry in now["tasks"].values())
    assert len(list(space.root.glob("logs/recovery/*_escalation*.json"))) == 1
    assert examined(space)["findings"] == []


def test_progress_that_the_change_log_has_as_a_whole_comes_back_to_the_byte(space: Workspace) -> None:
    path = space.path(layout.PROGRESS)
    path.unlink()
    run(space, ("progress", "rebuild"), ("complete", "CC", "CC-1", "done"))
    data = path.read_bytes()
    path.unlink()
    assert repaired(space)["undecided"] == []
    assert path.read_bytes() == data
    assert examined(space)["findings"] == []


@pytest.mark.parametrize("data", [b"", b"\0" * 3000])
def test_of_a_file_of_which_nothing_is_left_that_is_said_and_asked(space: Workspace, data: bytes) -> None:
    for name in (OUTBOX, layout.PROGRESS):
        space.path(name).write_bytes(data)
    found = repaired(space)
    assert all("nothing was left of it" in one["done"] for one in found["repaired"] if "quarantine" in one), found
    assert {one.split()[0] for one in found["undecided"]} == {"CC", layout.PROGRESS + ":"}
    listed = json.loads(space.path(layout.PROGRESS).read_bytes())["tasks"]
    assert {"CA-0", "CA-1"} <= set(listed)


def test_an_outbox_that_became_a_bare_list_gets_its_members_back_and_a_person_is_asked(space: Workspace) -> None:
    run(space, ("complete", "CC", "CC-1", "done"))
    path = space.path(OUTBOX)
    body = json.loads(path.read_bytes())
    path.write_text(json.dumps(body["tasks"]))
    assert [one for one in repaired(space)["undecided"] if "bare list" in one]
    assert json.loads(path.read_bytes())["tasks"] == body["tasks"]


def test_the_briefs_of_open_and_failed_tasks_come_back_with_the_folder(space: Workspace) -> None:
    run(space, ("assign", "CC", "N-1", "new", "HIGH", "2"), ("assign", "CC", "N-2", "newer", "LOW"))
    run(space, ("assign", "CC", "N-3", "newest", "LOW"), ("fail", "CC", "N-2", "no"), ("complete", "CC", "N-3", "yes"))
    briefs = {task: space.path(f"postbox/CC/inbox/{task}.md").read_bytes() for task in ("N-1", "N-2")}
    shutil.rmtree(space.path("postbox/CC"))
    repaired(space)
    now = {path.stem: path.read_bytes() for path in space.path("postbox/CC/inbox").iterdir()}
    assert {task: now.get(task) for task in briefs} == briefs
    assert "N-3" not in now


def test_the_same_thing_at_many_places_of_a_file_is_one_finding_that_counts_them(space: Workspace) -> None:
    space.path(OUTBOX).write_bytes(b"\n".join([space.path(OUTBOX).read_bytes()] * 4))
    (found,) = examined(space)["findings"]
    assert found["what"].startswith("another document begins here, and so it is at 2 places more, down to line ")


def test_of_two_values_of_one_name_the_one_that_the_change_log_knows_stays_as_announced(space: Workspace) -> None:
    run(space, ("assign", "CC", "N-1", "new", "HIGH"))
    path = space.path(OUTBOX)
    text = path.read_text().replace('"title": "new"', '"title": "new", "title": "other"')
    path.write_text(text)
    (found,) = examined(space)["findings"]
    assert found["repair"].startswith("keeps the one that is known elsewhere, else the last")
    assert repaired(space)["undecided"] == []
    assert {"new"} == {one["title"] for one in json.loads(path.read_bytes())["tasks"] if one["task_id"] == "N-1"}
