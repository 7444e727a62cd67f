"""What `recovery.overview` tells: everything at one look, what needs a person first; nothing is written."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import contention, escalations, fail, layout, overview, resolve, steps
from recovery.errors import NotFound
from recovery.flock import Limits
from recovery.journal import Journal
from recovery.store import FileStore
from recovery.torture.scratch import SUITE

NOW = float(int(time.time()))


def ago(minutes: float) -> str:
    return FileStore.time(NOW - 60 * minutes)


AT = ago(60)
DAYS = 1440
GONE = {"pid": 2**22 + 1, "start": "1"}


class Space:
    """A workspace whose outboxes are written by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "postbox").mkdir(parents=True)
        self.store = FileStore(str(root), Limits(1.0, 5.0, "overview"))

    def outbox(self, agent: str, *tasks: dict[str, Any]) -> None:
        path = self.root / layout.outbox(agent)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"agent_id": agent, "tasks": list(tasks), "history": []}, ensure_ascii=False))

    def log(self, task: str, *lines: dict[str, Any], kind: str = "ConnectionError", at: str = AT) -> Path:
        path = self.root / layout.recovery_log(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as out:
            for n, more in enumerate(lines):
                details = {"incident": f"{task}-{at}-{n}", "attempts": 1, "seconds": 1.0, "lock_wait": 0.0, **more}
                entry = {"txid": f"{task}{at}{n}", "task_id": task, "timestamp": at, "error_type": kind}
                words = {"error_message": more.get("says", "m"), "strategy": "RETRY", "success": False}
                out.write(json.dumps({**entry, **words, "details": details}) + "\n")
        os.utime(path, (NOW, NOW))
        return path

    def breaker(self, name: str, until: float | None, reason: str = "") -> None:
        path = self.root / layout.BREAKERS / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        times = {"opened_at": AT, "open_until": self.store.time(until)} if until else {}
        state = {"format": 1, "state": "open" if until else "closed", "failures": 5, "id": "a", "generation": 2}
        path.write_text(json.dumps({**state, **times, "reason": reason}))

    def look(self, only: str = "") -> dict[str, Any]:
        return overview.look(self.store, only=only)

    def needs(self) -> list[tuple[str, str, str]]:
        told = self.look()["needs_you"]
        return [(one["kind"], f"{one['agent']}/{one['task']}".strip("/"), one["next"]) for one in told]

    def tree(self) -> str:
        found = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            st = path.lstat()
            state = f"{path} {st.st_mode} {st.st_ino} {st.st_size} {st.st_mtime_ns} {st.st_ctime_ns}"
            found.update(state.encode() + (path.read_bytes() if path.is_file() else b""))
        return found.hexdigest()


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Space]:
    made = Space(tmp_path / "ws")
    monkeypatch.delenv("ORCHESTRATION_ROOT", raising=False)
    monkeypatch.chdir(made.root)  # elsewhere the commands say which workspace they are about
    yield made
    made.store.close()


def task(name: str, status: str = "pending", **more: Any) -> dict[str, Any]:
    return {"task_id": name, "title": f"Title of {name}", "status": status, "created_at": ago(5 * DAYS), **more}


def claim(**more: Any) -> dict[str, Any]:
    held = {"generation": 1, "state": "held", "kind": "session", "owner": {"session": "s"}, "by": "session s"}
    return {**held, "since": ago(5), **more}


def dead() -> dict[str, Any]:
    from recovery import flock

    me = flock.identity()
    return claim(owner={**GONE, **{key: me[key] for key in ("boot", "namespace", "host")}}, by="pid 9, codex")


def died_in_commit(space: Space) -> int:
    """The pid of a process that died right behind the commit point of `fail CC T-1`."""
    pid = os.fork()
    if not pid:
        try:
            steps.install({"RECOVERY_FAULT": "journal-synced=kill"})
            fail.fail(FileStore(str(space.root), Limits(1.0, 5.0, "fail CC/T-1")), "CC", "T-1", "why")
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9
    return pid


def test_a_workspace_where_all_is_well_asks_for_nobody(space: Space) -> None:
    """Nobody ran the torture here: that is told, and is no reason to call a person."""
    space.outbox("CC", task("T-1"))
    found = space.look()
    assert found["needs_you"] == []
    assert found["store"]["damage"] == []
    assert "no torture certificate" in found["store"]["certificate"]
    assert found["success"] == {"rate": None, "incidents": 0}
    assert ago(0) <= found["time"] <= FileStore.time(time.time())
    assert found["root"] == str(space.root)
    assert found["store"]["use"]["limits"] == {"bytes": 256 << 20, "files": 20000}
    json.dumps(found)


def test_looking_writes_nothing_and_waits_for_no_lock(space: Space) -> None:
    """Not even the statistics' roll-up: whoever holds every lock of the workspace doesn't hold this up."""
    space.outbox("CC", task("T-1", "in_progress", claim=dead()), task("T-2", "failed", failed_at=AT))
    space.log("T-1", {"outcome": "failed"})
    escalations.report(space.store, "T-2", "Denied", "no permission", "CC")
    holder = FileStore(str(space.root), Limits(1.0, 5.0, "holder"))
    with holder.lock([layout.outbox("CC")]):
        lock = holder.commit_lock()
        before = space.tree()
        found = space.look()
        assert space.tree() == before
        lock.release()
    holder.close()
    assert len(found["needs_you"]) == 3


def test_the_command_says_which_workspace_it_is_about_where_that_is_not_clear(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.outbox("CC", task("T-2", "failed", failed_at=ago(5)))
    monkeypatch.chdir("/")
    assert space.needs()[0][2] == f"recovery -C {space.root} reopen CC T-2"


def test_each_command_names_the_place_that_is_asked_for_whatever_calls_it(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a page that is read elsewhere, and with no `recovery` on the PATH: causes, reviews and calls alike."""
    space.outbox("CC", task("T-2", "failed", failed_at=ago(5)), task("T-3", "ready_for_review"))
    (space.root / "data/once").mkdir(parents=True)
    (space.root / "data/once/k.json").write_text('{"key": "k", "state": "started"}')
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    found = overview.look(space.store, place="-C /there")["needs_you"]
    assert {one["kind"] for one in found} >= {"failed", "review", "call"}
    assert [
        one["next"] for one in found if "/bin/recovery" not in one["next"] or " -C /there " not in one["next"]
    ] == []


def test_what_needs_a_person_is_named_with_its_command_the_worst_first(space: Space) -> None:
    """A stopped workspace before damage, damage before an escalation, that before what only waits to be swept."""
    space.outbox(
        "CC",
        task("T-1", "in_progress", claim=dead()),
        task("T-2", "failed", failed_at=AT, failure_reason="no disk"),
        task("T-3", "in_progress", claim=claim(owner={"pid": 1, "boot": "b", "host": "elsewhere"})),
        task("T-4", blocked_by=["T-2"]),
        task("T-5", "in_progress", claim=claim(since=ago(90))),
    )
    (space.root / "postbox" / "XX").mkdir()
    (space.root / "postbox" / "XX" / "outbox.json").write_text('{"tasks": [')
    escalations.report(space.store, "T-9", "Denied", "no permission", "CA")
    space.breaker("weather", NOW + 600)
    for folder in (layout.MANUAL, layout.CONFLICTS):
        (space.root / folder).mkdir(parents=True)
    (space.root / layout.flag("T-8")).write_text('{"error_message": "the outcome is unknown", "timestamp": "t"}')
    (space.root / layout.CONFLICTS / "CC@T-7@x.parked.json").write_text("{}")
    assert space.needs() == [
        ("parked", "CC/T-7", "recovery recover"),
        ("damage", "XX", "recovery doctor --agent XX"),
        ("escalation", "CA/T-9", "recovery escalations show T-9"),
        ("manual", "T-8", "recovery escalations clear T-8"),
        ("failed", "CC/T-2", "recovery reopen CC T-2"),
        ("dead", "CC/T-1", "recovery sweep"),
        ("breaker", "", "recovery breaker show weather"),
        ("owner", "CC/T-3", "recovery release --force CC T-3"),
    ]


def test_a_journal_that_stops_everybody_comes_first(space: Space) -> None:
    space.outbox("CC", task("T-2", "failed", failed_at=AT))
    (space.root / "data").mkdir()
    with (space.root / layout.JOURNAL).open("w+b") as file:
        Journal(os.dup(file.fileno())).write(7, '{"txid": "x", "line": {}}')
    assert [kind for kind, *_ in space.needs()] == ["damage", "failed"]
    assert space.needs()[0][2] == "recovery doctor --repair"


def test_what_stands_failed_needs_a_person_however_long_ago_that_was(space: Space) -> None:
    """The period is for what is counted.  The oldest come last, and from fifty on in one line."""
    old = [task(f"T-{n}", "failed", failed_at=ago((2 + n) * DAYS)) for n in range(overview.STANDING + 7)]
    space.outbox("CC", *old, task("U-1", "failed"), task("U-2", "in_progress", claim=dead()))
    found = space.look()["needs_you"]
    assert [(one["kind"], one["task"]) for one in found[:4]] == [
        ("failed", "U-1"),
        ("dead", "U-2"),
        ("failed", "T-0"),
        ("failed", "T-1"),
    ]
    assert found[-1]["what"].startswith("7 more tasks stand failed")
    assert (found[-1]["task"], found[-1]["next"]) == ("", "recovery status -s failed")
    assert len(found) == 2 + overview.STANDING + 1
    assert len(space.look("CC")["needs_you"]) == len(found)


def test_what_is_handed_to_a_person_or_set_aside_by_hand_waits_for_one(space: Space) -> None:
    space.outbox("CC", task("T-1", "ready_for_review"), task("T-2", "blocked"), task("T-3", "failed"))
    assert space.needs() == [
        ("failed", "CC/T-3", "recovery reopen CC T-3"),
        ("blocked", "CC/T-2", "recovery explain CC/T-2"),
        ("review", "CC/T-1", "recovery complete CC T-1  # or reopen"),
    ]
    (row,) = space.look()["agents"]
    assert (row["review"], row["blocked"], space.look()["queue"]["blocked"]) == (["T-1"], 1, 1)


def test_work_that_nobody_claimed_is_work(space: Space) -> None:
    space.outbox("CC", task("T-1", "in_progress", started_at=AT), task("T-2", "in_progress", claim=claim()))
    (row,) = space.look()["agents"]
    assert row["in_progress"] == [{"task": "T-1", "title": "Title of T-1", "since": AT}]
    assert [one["task"] for one in row["claims"]] == ["T-2"]


def test_what_may_not_be_read_is_unknown_and_not_nothing(space: Space) -> None:
    """Of another user's folders nobody knows whether somebody is needed."""
    space.outbox("CC", task("T-1"))
    for folder in (layout.LOGS, layout.BREAKERS):
        (space.root / folder).mkdir(parents=True)
        (space.root / folder).chmod(0o700)
    for path in (space.root, *space.root.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/tmp") and str(path).startswith("/tmp/"):
            path.chmod(0o755)
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if os.getuid():
                for folder in (layout.LOGS, layout.BREAKERS):
                    (space.root / folder).chmod(0)
            else:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            found = overview.look(FileStore(str(space.root), Limits(1.0, 5.0, "overview")))
            os.write(into, json.dumps([found["needs_you"], len(found["unread"]) > 1, found["unknown"]]).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(into)
    with os.fdopen(out) as said:
        assert json.load(said) == [[], True, ["breakers", "success", "use"]]
    for folder in (layout.LOGS, layout.BREAKERS):
        (space.root / folder).chmod(0o700)


def test_tasks_that_wait_for_ever_need_a_person(space: Space) -> None:
    """A circle, over several agents too, once; and a dependency that nobody has.  What waits for work needs nobody."""
    space.outbox("CA", task("U-1", dependencies=["T-1"]), task("U-2", dependencies=["CC/T-4"]))
    space.outbox(
        "CC",
        task("T-1", dependencies=["CA/U-1"]),
        task("T-2", dependencies=["T-1"]),
        task("T-3", dependencies=["GONE-1"]),
        task("T-4", "in_progress", dependencies=["U-2"]),
    )
    found = space.look()["needs_you"]
    assert sorted((one["kind"], one["agent"], one["task"], one["next"]) for one in found) == [
        ("stuck", "CA", "U-1", "recovery edit CA"),
        ("stuck", "CC", "T-3", "recovery edit CC"),
    ]
    assert {one["what"].partition(". ")[0] for one in found} == {
        "It waits for itself: CA/U-1 -> CC/T-1 -> CA/U-1",
        "It waits for GONE-1, which nobody has",
    }


def test_a_commit_left_half_done_is_told_and_one_under_way_needs_nobody(space: Space) -> None:
    space.outbox("CC", task("T-1"), task("T-2"))
    pid = died_in_commit(space)
    found = space.look()
    assert found["store"]["journal"].endswith(f"left half done by pid {pid}")
    assert [(one["kind"], one["next"]) for one in found["needs_you"]] == [("unfinished", "recovery recover")]
    lock = FileStore(str(space.root), Limits(1.0, 5.0, "other")).commit_lock()
    found = space.look()
    lock.release()
    assert found["store"]["journal"].endswith(f"under way by pid {pid}")
    assert found["needs_you"] == []
    fail.fail(space.store, "CC", "T-2", "why")
    crash = space.look()["store"]["last_crash"]
    assert (crash["what"], crash["by"]) == ("fail CC/T-1", f"pid {pid}")
    assert crash["repaired_by"] == f"pid {os.getpid()}, overview"


def test_a_commit_that_ends_between_two_looks_was_not_left_half_done(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is read unfinished, and when the commit lock is looked at its owner is through, and has let go."""
    space.outbox("CC", task("T-1"), task("T-2"))
    died_in_commit(space)

    def meanwhile(store: FileStore) -> bool:
        monkeypatch.undo()
        other = FileStore(str(space.root), Limits(1.0, 5.0, "recover"))
        resolve.resolve(other, other.unfinished())  # type: ignore[arg-type]
        other.close()
        return False

    monkeypatch.setattr(contention, "is_committing", meanwhile)
    found = space.look()
    assert found["store"]["journal"] == ""
    assert [one["kind"] for one in found["needs_you"]] == ["failed"]  # the task, for that was the commit


def test_who_has_what_since_when_and_who_is_silent(space: Space) -> None:
    space.outbox(
        "CC",
        task("T-1", "in_progress", title="größer", claim=claim()),
        task("T-2", "in_progress", claim=claim(since=ago(90))),
        task("T-3", "in_progress", claim=dead()),
        task("T-4", "in_progress", claim=claim(state="done")),
        task("T-5", "completed"),
    )
    (row,) = space.look()["agents"]
    assert (row["agent"], row["open"], row["problem"]) == ("CC", 4, "")
    assert [(one["task"], one["state"], one["silent_since"]) for one in row["claims"]] == [
        ("T-1", "alive", ""),
        ("T-2", "alive", ago(90)),
        ("T-3", "dead", ""),
    ]
    assert row["claims"][0]["title"] == "größer"
    assert row["claims"][0]["by"] == "session s"


def test_the_queue_is_in_the_order_of_claim_next_and_says_for_what_tasks_wait(space: Space) -> None:
    """What its dependencies say decides, over all agents; a parked task and one that somebody has are not ready."""
    from recovery import claim as claims

    space.outbox("CA", task("U-1", priority="LOW"), task("U-2", "completed"), task("U-3", "in_progress"))
    space.outbox(
        "CC",
        task("T-1", dependencies=["CA/U-2"], priority="HIGH", title="héé"),
        task("T-2", dependencies=["CA/U-1", "CA/U-2", "nobody's"]),
        task("T-3", blocked_by=["CA/U-9"]),
        task("T-4", priority="CRITICAL", created_at=ago(4 * DAYS)),
        task("T-5", priority="critical"),
        task("T-6", "in_progress", claim=dead()),
        task("T-7", "in_progress", claim=claim()),
        task("T-8"),
    )
    (space.root / layout.CONFLICTS).mkdir(parents=True)
    (space.root / layout.CONFLICTS / "CC@T-8@x.parked.json").write_text("{}")
    found = space.look()
    queue = found["queue"]
    assert (queue["ready"], queue["blocked"]) == (5, 2)
    assert [(one["agent"], one["task"], one["priority"]) for one in queue["next"]] == [
        ("CC", "T-5", "CRITICAL"),
        ("CC", "T-4", "CRITICAL"),
        ("CC", "T-1", "HIGH"),
        ("CC", "T-6", "MEDIUM"),
        ("CA", "U-1", "LOW"),
    ]
    assert queue["next"][2]["title"] == "héé"
    assert [(one["task"], one["by"]) for one in queue["waiting"]] == [
        ("T-2", ["CA/U-1", "nobody's"]),
        ("T-3", ["CA/U-9"]),
    ]
    os.environ["RECOVERY_SESSION"] = "tester"
    try:
        assert claims.acquire(space.store, "CC").task == "T-5"
    finally:
        del os.environ["RECOVERY_SESSION"]


def test_failures_are_counted_by_cause_with_the_last_time_and_the_last_tasks(space: Space) -> None:
    """As `recovery stats` counts them; what was made good, or lies before, is none."""
    space.log("T-1", {"outcome": "failed", "agent": "CC"}, {"outcome": "recovered", "attempts": 2})
    space.log("T-2", {"outcome": "failed", "agent": "CC"}, at=ago(30))
    space.log("T-2", {"outcome": "recovered", "attempts": 2}, at=ago(10))
    space.log("T-3", {"outcome": "escalated"}, kind="Denied", at=ago(120))
    space.log("T-4", {"outcome": "failed"}, at=ago(2 * DAYS))
    found = space.look()
    assert found["failures"] == [
        {"cause": "ConnectionError", "count": 2, "last": ago(30), "tasks": ["CC/T-2", "CC/T-1"]},
        {"cause": "Denied", "count": 1, "last": ago(120), "tasks": ["T-3"]},
    ]
    assert found["success"] == {"rate": 0.4, "incidents": 5}


def test_the_last_of_a_cause_is_found_behind_whatever_else_its_task_did(space: Space) -> None:
    """T-1 did something later than T-2, but failed so earlier: both logs are looked into, and no more than needed."""
    space.log("T-1", {"outcome": "failed"}, at=ago(300))
    space.log("T-1", {"outcome": "recovered", "attempts": 2}, at=ago(1))
    space.log("T-2", {"outcome": "failed"}, at=ago(240))
    (one,) = space.look()["failures"]
    assert (one["last"], one["tasks"]) == (ago(240), ["T-2", "T-1"])


def test_more_causes_than_are_shown_are_counted(space: Space) -> None:
    for n in range(overview.CAUSES + 3):
        space.log(f"T-{n}", {"outcome": "failed"}, kind=f"E{n:02d}")
    found = space.look()["failures"]
    assert len(found) == overview.CAUSES + 1
    assert (found[-1]["cause"], found[-1]["count"], found[-1]["last"]) == ("3 other causes", 3, AT)


def test_an_open_breaker_says_until_when_and_why(space: Space) -> None:
    space.breaker("quota", NOW + 600, reason="usage limit reached")
    space.breaker("over", NOW - 600)
    space.breaker("fine", None)
    found = {one["name"]: one for one in space.look()["breakers"]}
    assert found["quota"] == {
        "name": "quota", "state": "open", "until": ago(-10), "why": "usage limit reached",
    }  # fmt: skip
    assert (found["over"]["state"], found["over"]["until"]) == ("half_open", "")
    assert len(found) == 2


def test_an_unreadable_outbox_has_a_line_that_says_so_and_hides_nobody(space: Space) -> None:
    space.outbox("CC", task("T-1"))
    for agent, data in (("AA", b"\xff\xfe{"), ("BB", b"")):
        (space.root / "postbox" / agent).mkdir()
        (space.root / "postbox" / agent / "outbox.json").write_bytes(data)
    (space.root / "postbox" / "DD" / "inbox").mkdir(parents=True)
    (space.root / "postbox" / "DD" / "inbox" / "T-1.md").write_text("x")
    found = space.look()
    assert [(row["agent"], bool(row["problem"])) for row in found["agents"]] == [
        ("AA", True),
        ("BB", True),
        ("CC", False),
        ("DD", True),
    ]
    assert len(found["store"]["damage"]) == 3
    assert found["queue"]["ready"] == 1


@pytest.mark.parametrize("name", [layout.PROGRESS, layout.CHECKS])
def test_a_damaged_file_that_stops_every_completion_needs_a_person(space: Space, name: str) -> None:
    """The health check finds it, and so does this: nothing says that all is well."""
    space.outbox("CC", task("T-1"))
    path = space.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"tasks": [')
    found = space.look()
    assert len(found["store"]["damage"]) == 1
    assert name in found["store"]["damage"][0]
    assert space.needs() == [("damage", "", "recovery doctor")]


def test_one_agent_alone_is_told_of_with_its_needs(space: Space) -> None:
    space.outbox("CA", task("U-1", "failed"), task("U-2"))
    space.outbox("CC", task("T-1", "failed"), task("T-2", dependencies=["U-2"]))
    escalations.report(space.store, "U-1", "Denied", "no permission", "CA")
    found = space.look("CC")
    assert [row["agent"] for row in found["agents"]] == ["CC"]
    assert [one["task"] for one in found["needs_you"]] == ["T-1"]
    assert found["queue"]["waiting"] == [{"agent": "CC", "task": "T-2", "by": ["U-2"]}]
    with pytest.raises(NotFound, match="ZZ"):
        space.look("ZZ")


def test_odd_values_of_others_stop_nothing(space: Space) -> None:
    space.outbox(
        "CC",
        {"task_id": "T-1", "status": 3, "title": [], "claim": {"state": "held", "generation": 1, "owner": {}, "by": 7}},
        {"task_id": "T-2", "status": "failed", "failed_at": 7, "failure_reason": {}, "blocked_by": [1, None]},
        {"task_id": "T-3", "dependencies": [{}, 7, "../x"], "priority": 4, "created_at": []},
        {"task_id": ["x"], "claim": {"state": "held"}},
    )
    (space.root / layout.LOGS).mkdir(parents=True)
    (space.root / layout.escalation("T-5")).write_text("[")
    (space.root / layout.MANUAL).mkdir(parents=True)
    (space.root / layout.flag("T-6")).write_text("[]")
    (space.root / layout.BREAKERS).mkdir(parents=True)
    (space.root / layout.BREAKERS / "b.json").write_text("{")
    found = space.look()
    assert {one["kind"] for one in found["needs_you"]} >= {"escalation", "manual", "failed", "breaker"}
    json.dumps(found)


def test_a_full_disk_and_a_budget_that_is_exceeded_ask_for_a_person(space: Space) -> None:
    """By the thresholds of the health check, whose words they are."""
    space.outbox("CC")
    (space.root / "data").mkdir(exist_ok=True)
    (space.root / layout.CONFIG).write_text('{"format": 1, "bounds": {"files": 3, "megabytes": 1, "x": 1}}')
    space.store.close()
    space.store = FileStore(str(space.root), Limits(1.0, 5.0, "overview"))
    for n in range(9):
        (space.root / f"data/f{n}").write_text("x")
    found = space.look()
    assert ("check", "", "recovery cleanup") in space.needs()
    assert any("budget: " in one["what"] for one in found["needs_you"])
    assert [note for note in found["notes"] if "is no bound" in note]


def test_what_it_needs_runs_without_anything_installed() -> None:
    """The standard library alone, no site packages."""
    import subprocess

    code = f"import sys; sys.path.insert(0, {str(SUITE / 'py')!r}); import recovery.overview, recovery.health_checks"
    subprocess.run([os.path.realpath("/proc/self/exe"), "-I", "-S", "-c", code], check=True)


def test_titles_are_told_as_they_were_meant_also_where_json_escapes_them(tmp_path: Path) -> None:
    """Most programs write what is not ASCII as escapes; an outbox may hold both ways."""
    text = '{"tasks": [{"task_id": "T-1", "title": "caf\\u00e9 \\u2713 é", "created_at": "\\u2713 é"}]}'
    path = tmp_path / "postbox" / "CC" / "outbox.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    (one,) = overview.look(FileStore(str(tmp_path), Limits()))["queue"]["next"]
    assert (one["title"], one["since"]) == ("café ✓ é", "✓ é")
