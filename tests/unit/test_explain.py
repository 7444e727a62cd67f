"""What `recovery explain` says: the cause from the facts, and a page of it that fits the screen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recovery import cause, complete, explain, layout, page, request, rollback
from recovery.errors import NotFound
from recovery.flock import Limits
from recovery.incidents import Incident
from recovery.journal import Journal
from recovery.store import FileStore

CHANGE = {"seq": 7, "time": "2026-11-25T08:00:00Z", "op": "complete"}
INCIDENT: dict[str, Any] = {
    "id": "i",
    "time": "2026-11-25T08:00:05Z",
    "kind": "LockTimeout",
    "message": "Failed to acquire lock on x after 30 seconds (held by pid 9, make)",
    "code": 75,
    "op": "complete",
    "outcome": "failed",
    "failures": 3,
}
CLAIM = {"by": "pid 9, codex", "since": "2026-11-25T07:00:00Z", "state": "alive"}
COMMIT = {"op": "complete", "agent": "CC", "task": "T-1", "time": "t", "pid": 9, "under_way": False, "ours": True}
ESCALATION = {"time": "t", "kind": "Denied", "message": "no permission"}
LOST = {"lost": {"seq": 8, "torn": True, "by": "note"}}
DONE = {"status": "completed", "done_at": "t2"}
GONE = {"outcome": "", "by": "dead", "by_why": "pid 9 is gone"}
THERE = {"outcome": "", "by": "alive", "by_why": "", "by_words": "Pid 9"}


def facts(**more: Any) -> dict[str, Any]:
    return {"agent": "CC", "task": "T-1", "root": "/a 'b", "status": "pending", **more}


@pytest.mark.parametrize(
    ("more", "why", "following", "wrong"),
    [
        ({"damaged": "is empty"}, "can't be read", "recovery doctor --agent CC", True),
        ({"stopped": "forged", "parked": "x"}, "No command can go on", "recovery doctor --repair", True),
        ({"status": None, "unread": ["XX"]}, "postbox/XX can't be", "recovery doctor --agent XX", False),
        ({"missing": "2 briefs", "status": None}, "is gone. Left of it: 2 briefs", "recovery doctor --agent CC", True),
        ({"parked": "data/conflicts/x"}, "neither finished nor undone", "recovery recover", True),
        ({"unfinished": COMMIT}, "Pid 9 stopped in the middle of complete CC/T-1", "recovery recover", True),
        ({"unfinished": {**COMMIT, "under_way": True}}, "at this moment", "recovery locks", True),
        ({"unfinished": {**COMMIT, "ours": False}}, "nobody has claimed it", "recovery claim CC T-1", False),
        ({"escalations": [ESCALATION]}, "A person is needed: Denied", "recovery escalations show T-1", True),
        ({"flag": "the outcome is unknown"}, "parked until", "recovery escalations clear T-1", True),
        (
            {"gone": True, "status": None, "last_change": CHANGE, "since": "t"},
            "removed it",
            "recovery history CC T-1 --at 7",
            True,
        ),
        ({"drift": "status is 1", "last_change": CHANGE}, "status is 1", "recovery history CC T-1 --at 7", True),
        ({"done_at": "t"}, "no change says why", "recovery doctor --agent CC", True),
        ({"status": "FAILED", "failure_reason": "no disk"}, "It failed: no disk", "recovery reopen CC T-1", True),
        ({"claim": {**CLAIM, "state": "dead", "why": "pid 9 is gone"}}, "pid 9 is gone", "recovery sweep", True),
        ({"claim": {**CLAIM, "state": "unknown", "why": "host x"}}, "host x", "recovery release --force CC T-1", True),
        ({"claim": {**CLAIM, "silent_since": "t"}}, "no sign since t", "recovery status -t T-1", True),
        ({"incident": INCIDENT}, "gave up after 3 tries", "recovery complete CC T-1", True),
        ({"incident": INCIDENT, "outbox_lock": "pid 9, make"}, "held now too, by pid 9.", "recovery locks", True),
        ({"incident": {**INCIDENT, "code": 74}}, "LockTimeout", "df -h '/a '\\''b'", True),
        ({"incident": {**INCIDENT, "code": 71}}, "gave up", "recovery recover", True),
        ({"incident": {**INCIDENT, "outcome": ""}}, "no end of it is recorded", "recovery complete CC T-1", True),
        ({"incident": {**INCIDENT, **GONE}}, "pid 9 is gone, so it was killed", "recovery complete CC T-1", True),
        (
            {"incident": {**INCIDENT, **THERE}},
            "Pid 9 is at it still: complete failed 3 times",
            "recovery explain",
            False,
        ),
        (
            {"incident": {**INCIDENT, "outcome": ""}, "claim": {**CLAIM, "kind": "run"}},
            "at it still",
            "recovery",
            False,
        ),
        ({"incident": INCIDENT, "changed_at": "2026-11-25T08:00:06Z"}, "it waits", "recovery claim CC T-1", False),
        (
            {"progress": "status is 1", "progress_seq": 7},
            "not what change 7 left: status",
            "recovery progress re",
            True,
        ),
        ({"unrecorded": 7}, "T-1_completion.json, which change 7 had written", "recovery history CC T-1", True),
        (
            {"drift": "x is 1", **LOST, "last_change": CHANGE},
            "Change 8 (note, says the journal) is",
            "recovery doc",
            True,
        ),
        ({"gone": True, **LOST, "last_change": CHANGE}, "it is not in the outbox", "recovery doctor", True),
        ({"blocked_by": ["T-0"]}, "waits for what failed before it: T-0", "recovery explain T-0", True),
        ({"status": "completed", "done_at": "t"}, "it was completed at t", "recovery history CC T-1", False),
        ({"status": None, "archived": True}, "it was completed", "recovery history CC T-1", False),
        (
            {"last_change": {**CHANGE, "op": "undo", "undoes_op": "complete"}},
            "complete was taken",
            "recovery history",
            False,
        ),
        ({"claim": CLAIM, "status": "in_progress"}, "pid 9, codex has it", "recovery status -t T-1", False),
        ({"status": None}, "No outbox has it", "recovery explain CC/T-1 --full", False),
    ],
)
def test_the_cause_is_told_in_a_sentence_with_one_command(
    more: dict[str, Any], why: str, following: str, wrong: bool
) -> None:
    found = cause.cause_of(facts(**more))
    assert why in found.why
    assert found.next.startswith(following)
    assert found.wrong is wrong


def test_the_worst_of_several_causes_comes_first() -> None:
    everything = facts(escalations=[ESCALATION], status="failed", incident=INCIDENT, claim={**CLAIM, "state": "dead"})
    order = []
    for key, gone in (("escalations", []), ("status", "pending"), ("claim", None), ("incident", None)):
        order.append(cause.cause_of(everything).next)
        everything[key] = gone
    assert order == [
        "recovery escalations show T-1",
        "recovery reopen CC T-1",
        "recovery sweep",
        "recovery complete CC T-1",
    ]
    assert not cause.cause_of(everything).wrong


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [8, 24])
def test_a_page_fits_the_screen_begins_with_the_cause_and_ends_with_the_command(width: int, height: int) -> None:
    one = facts(title="t" * 300, status="failed", failure_reason="word " * 200 + "\x1b[31m\n")
    events = [page.Event(f"2026-11-25T08:00:{n:02}Z", "try", "x\x1b[2J" * 50) for n in range(60)]
    lines = page.of_tasks([(one, events, cause.cause_of(one))], "recovery reopen", ["a note"], width, height)
    assert max(map(len, lines[:-1])) <= width  # the command is there to be copied: never cut
    if height == 24:
        assert len(lines) < height
    assert lines[1].startswith("cause: It failed")
    assert [line.startswith("next: ") for line in lines].index(True) == len(lines) - 1
    assert all(line.isprintable() for line in lines)


def test_full_has_every_event_and_every_word() -> None:
    one = facts(status="failed", failure_reason="word " * 200)
    events = [page.Event("2026-11-25T08:00:00Z", "try", f"event-{n} " + "y" * 100) for n in range(60)]
    text = "\n".join(page.of_tasks([(one, events, cause.cause_of(one))], "n", [], 80, 0))
    assert text.count("word") == 200
    assert text.count("event-") == 60


def test_two_tasks_share_the_page_and_the_last_line() -> None:
    told = []
    for agent in ("CA", "CC"):
        one = {**facts(), "agent": agent}
        events = [page.Event("2026-11-25T08:00:00Z", "try", "x") for _ in range(60)]
        told.append((one, events, cause.cause_of(one)))
    lines = page.of_tasks(told, "recovery claim CA T-1", [], 80, 24)
    assert len(lines) < 24
    assert sum("earlier: --full" in line for line in lines) == 2
    assert sum(line.startswith("next: ") for line in lines) == 1


# --- from files


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    folder = tmp_path / "postbox" / "CC"
    folder.mkdir(parents=True)
    entries = [{"task_id": f"T-{n}", "status": "pending"} for n in range(4)]
    (folder / "outbox.json").write_text(json.dumps({"agent_id": "CC", "tasks": entries, "history": []}))
    return FileStore(str(tmp_path), Limits(1.0, 1.0, "explain"))


def log(store: FileStore, task: str, *lines: dict[str, Any] | str, agent: str = "CC") -> None:
    path = Path(store.root.path) / layout.recovery_log(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for n, line in enumerate(lines):
            if isinstance(line, str):
                file.write(line)
                continue
            details = {"incident": "i", "agent": agent, "op": "complete", "attempt": n + 1, **line}
            entry = {"task_id": task, "timestamp": "2026-11-25T08:00:00Z", "error_type": "Busy", "error_message": "m"}
            file.write(json.dumps({**entry, "details": details}) + "\n")


def test_torn_lines_are_counted_and_the_others_told(store: FileStore) -> None:
    log(store, "T-1", {}, "{torn\n", {"attempt": 2}, '{"half": ')
    result = explain.explain(store, "", "T-1")
    assert result.data["torn"] == 2
    assert result.data["tasks"][0]["incident"]["failures"] == 2
    assert "2 torn or foreign lines of the logs passed over" in result.details


def test_tries_that_a_program_logged_are_told_and_those_of_another_agent_are_not(store: FileStore) -> None:
    other = Path(store.root.path) / "postbox" / "CA" / "outbox.json"
    other.parent.mkdir()
    other.write_text('{"tasks": [], "history": []}')
    log(store, "T-1", {"attempt": 1}, {"outcome": "failed", "attempts": 1}, agent="recovery")
    log(store, "T-1", {}, {}, agent="CA")
    (told,) = explain.explain(store, "CC", "T-1").data["tasks"]
    assert [one["kind"] for one in told["events"]] == ["try", "ended"]


def event(kind: str, text: str, op: str = "", seq: int | None = None, **more: Any) -> page.Event:
    one = page.Event("t", kind, text, seq, op)
    for name, value in more.items():
        setattr(one, name, value)
    return one


def test_within_a_second_changes_stand_by_number_and_tries_before_what_they_led_to() -> None:
    """A run that fails, is opened again, and a completion that makes it at the second try: all in one second."""
    expected = [
        event("change", "assigned", "assign", 8),
        event("change", "claimed", "claim", 9),
        event("claim", "claimed by"),
        event("checkpoint", "running"),
        event("try", "1st", attempt=1, incident="a"),
        event("checkpoint", "retrying", attempt=1),
        event("try", "2nd", attempt=2, incident="a"),
        event("ended", "failed", incident="a"),
        event("checkpoint", "failed", attempt=0),
        event("change", "failed", "fail", 10),
        event("change", "opened", "reopen", 11),
        event("ended", "complete escalated", "complete", incident="c"),
        event("escalated", "why"),
        event("try", "busy", "complete", attempt=1, incident="b"),
        event("change", "completed", "complete", 12),
        event("ended", "complete recovered", "complete", incident="b"),
        event("record", "says completed"),
        event("change", "archived", "archive", 13),
        event("archived", "in the archive"),
        event("escalated", "x"),
        event("foreign", "written past the suite"),
    ]
    logs = [("checkpoint",), ("foreign", "escalated", "archived", "record", "claim"), ("change",), ("try", "ended")]
    given = [one for kinds in logs for one in expected if one.kind in kinds]
    assert [one.text for one in page.in_order(given)] == [one.text for one in expected]


def test_who_held_a_lock_is_told_before_the_line_is_full() -> None:
    text = explain.of_line({"attempt": 1, "op": "complete", "code": 75}, "LockTimeout", INCIDENT["message"])
    assert text == "number 1 of complete (75): held by pid 9, make; waited 30 s for x"


def test_a_long_log_is_read_from_its_end_alone(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    log(store, "T-1", *({} for _ in range(20_000)))
    size = (Path(store.root.path) / layout.recovery_log("T-1")).stat().st_size
    read = 0
    real = os.preadv

    def preadv(fd: int, buffers: Any, offset: int) -> int:
        nonlocal read
        read += (done := real(fd, buffers, offset))
        return done

    monkeypatch.setattr(os, "preadv", preadv)
    explain.explain(store, "CC", "T-1")
    assert 0 < read < size / 4


def test_what_cannot_be_read_is_said_and_stops_nothing(store: FileStore) -> None:
    root = Path(store.root.path)
    (root / layout.checkpoint("T-1")).parent.mkdir(parents=True)
    (root / layout.history("T-1")).mkdir()
    (root / "postbox" / "XX").mkdir()
    (root / "postbox" / "XX" / "outbox.json").write_bytes(b'{"tasks": [{"task_id": "T-1", \0')
    log(store, "T-1", {"outcome": "failed", "attempts": 1})
    result = explain.explain(store, "", "T-1")
    assert [(one["agent"], one["wrong"]) for one in result.data["tasks"]] == [("CC", True), ("XX", True)]
    assert result.data["next"] == "recovery doctor --agent XX"
    assert any("is a folder" in problem for problem in result.data["problems"])


def test_the_overview_has_the_worst_first_and_leaves_out_what_is_well_or_old(store: FileStore) -> None:
    root = Path(store.root.path)
    (root / "postbox" / "XX").mkdir()
    (root / "postbox" / "XX" / "outbox.json").write_text("[]")
    now = 1795593600.0  # 2026-11-25T08:00:00Z
    log(store, "T-1", {"outcome": "recovered", "attempts": 2})
    log(store, "T-2", {}, {"outcome": "failed", "attempts": 2})
    log(store, "T-3", {}, {}, {"outcome": "recovered", "attempts": 3})
    log(store, "T-0", {"outcome": "failed", "attempts": 2})
    for task, when in (("T-0", now - 2 * 86400), ("T-1", now), ("T-2", now), ("T-3", now)):
        os.utime(root / layout.recovery_log(task), (when, when))
    rows = explain.overview(store, now=now).data["findings"]
    assert [(row["agent"], row["task"]) for row in rows] == [("XX", ""), ("CC", "T-2"), ("CC", "T-3")]
    assert rows[-1]["next"] == "recovery explain CC/T-3"


def test_a_task_that_stands_failed_is_told_of_however_long_ago_it_failed(store: FileStore) -> None:
    path = Path(store.root.path, "postbox/CC/outbox.json")
    path.write_text('{"tasks": [{"task_id": "T-1", "status": "failed", "failed_at": "2020-01-01T00:00:00Z"}]}')
    assert [row["next"] for row in explain.overview(store).data["findings"]] == ["recovery reopen CC T-1"]


def test_an_outbox_that_is_gone_is_named_and_a_folder_that_never_had_one_is_not(store: FileStore) -> None:
    root = Path(store.root.path)
    (root / "postbox" / "NEW").mkdir()
    (root / "postbox" / "CC" / "inbox").mkdir()
    (root / "postbox" / "CC" / "inbox" / "T-1.md").write_text("brief")
    (root / "postbox" / "CC" / "outbox.json").unlink()
    result = explain.overview(store)
    assert [(row["agent"], row["next"]) for row in result.data["findings"]] == [("CC", "recovery doctor --agent CC")]
    (told,) = explain.explain(store, "CC", "T-1").data["tasks"]
    assert told["cause"].startswith("postbox/CC/outbox.json is gone. Left of it: 1 brief")
    with pytest.raises(NotFound, match=r"nothing is known of T-1, but postbox/CC/outbox\.json is gone") as refused:
        explain.explain(store, "", "T-1")
    assert refused.value.hint == "recovery doctor --agent CC"


def test_what_the_health_check_sees_damaged_stands_in_the_overview_too(store: FileStore) -> None:
    """An agent's folder, progress, a key that stands twice, a record: none hides another."""
    root = Path(store.root.path)
    (root / ".sprint").mkdir(exist_ok=True)
    (root / layout.PROGRESS).write_text('{"tasks": {"O-1": {"status": "completed", "agent": "OLD"}}}')
    (root / "postbox/XX/completed").mkdir(parents=True)
    (root / "postbox/XX/outbox.json").write_text('{"tasks": [{"task_id": "X-1", "status": "a", "status": "b"}]}')
    (root / layout.record("XX", "X-2")).write_text("{")
    rows = explain.overview(store).data["findings"]
    assert [(row["agent"], row["next"]) for row in rows] == [
        ("XX", "recovery doctor --agent XX"),
        ("", "recovery doctor"),
        ("OLD", "recovery doctor --agent OLD"),
    ]
    assert "postbox/OLD/outbox.json is gone" in rows[2]["why"]
    (root / layout.PROGRESS).unlink()
    (root / ".sprint/.progress.json.lock").touch()
    whys = [row["why"] for row in explain.overview(store).data["findings"]]
    assert f"{layout.PROGRESS} is gone, and was there" in whys


def test_a_completion_message_is_escaped_once(store: FileStore) -> None:
    root = Path(store.root.path)
    done = {"completed_at": "2026-11-25T08:00:02Z", "completion_message": "done\n\x1b[1m"}
    (root / "postbox/CC/completed").mkdir(exist_ok=True)
    (root / layout.record("CC", "T-1")).write_text(json.dumps(done))
    told = explain.explain(store, "CC", "T-1", explain.Screen(full=True)).details
    assert any(line.endswith('says completed: "done\\n\\x1b[1m"') for line in told)


def test_who_is_trying_still_is_not_told_as_a_failure(store: FileStore) -> None:
    """The line of a try that was not the last says who goes on: alive here, and then dead."""
    failed = Incident("T-1", store.now(), op="complete").failed(NotFound("x"), "RETRY", 1, store.now())
    log(store, "T-1", failed["details"])
    assert "is at it still" in explain.explain(store, "CC", "T-1").data["tasks"][0]["cause"]
    assert explain.overview(store).data["findings"] == []
    log(store, "T-1", {**failed["details"], "attempt": 2, "by": {**failed["details"]["by"], "start": "1"}})
    assert "so it was killed" in explain.explain(store, "CC", "T-1").data["tasks"][0]["cause"]
    assert len(explain.overview(store).data["findings"]) == 1


def test_an_escalation_of_before_the_completion_does_not_ask_for_a_person(store: FileStore) -> None:
    root = Path(store.root.path)
    done = {"task_id": "T-1", "status": "completed", "completed_at": "2026-11-25T08:00:02Z"}
    (root / "postbox" / "CC" / "outbox.json").write_text(json.dumps({"tasks": [done], "history": []}))
    (root / layout.LOGS).mkdir(parents=True)
    entry = {"agent_id": "CC", "timestamp": "2026-11-25T08:00:01Z", "error_type": "Denied", "error_message": "m"}
    for task in ("T-1", "T-2"):
        (root / layout.escalation(task)).write_text(json.dumps({**entry, "task_id": task}))
    rows = explain.overview(store).data["findings"]
    assert [row["next"] for row in rows] == ["recovery escalations show T-2", "recovery escalations resolve T-1"]


def test_odd_values_in_claims_logs_and_changes_stop_nothing(store: FileStore) -> None:
    root = Path(store.root.path)
    claim = {"generation": 1, "state": "held", "owner": {"session": "s"}, "since": 7, "by": ["x"]}
    entry = {"task_id": "T-1", "status": 3, "title": [], "blocked_by": [1], "claim": claim}
    (root / "postbox" / "CC" / "outbox.json").write_text(json.dumps({"tasks": [entry], "history": []}))
    log(
        store,
        "T-1",
        {"attempt": "x", "code": [], "outcome": 5, "incident": {}, "op": [], "stderr": 4, "lock_wait": "y"},
    )
    change = {"seq": 1, "txid": "a", "time": "2026-11", "op": "x", "agent": "CC", "task": "T-1", "derived": []}
    files = [{"name": "postbox/CC/outbox.json", "ops": [7]}, {"name": "x", "write": 1}]
    (root / layout.CHANGES).mkdir(parents=True)
    (root / layout.CHANGES / "2026-11.jsonl").write_text(
        json.dumps({**change, "files": files, "by": 3, "tasks": 4}) + "\n"
    )
    assert explain.explain(store, "", "T-1", explain.Screen(full=True)).data["tasks"][0]["agent"] == "CC"
    explain.overview(store)


def test_a_task_that_nobody_knows_may_be_in_an_outbox_that_cannot_be_read(store: FileStore) -> None:
    path = Path(store.root.path, "postbox", "CC", "outbox.json")
    path.write_text('{"tasks": []}{"tasks": []}')
    with pytest.raises(NotFound, match="outbox of CC can't be read, which may have it") as refused:
        explain.explain(store, "", "T-9")
    assert refused.value.hint == "recovery doctor --agent CC"


def test_many_agents_take_few_descriptors(store: FileStore) -> None:
    for n in range(40):
        folder = Path(store.root.path) / "postbox" / f"A-{n}"
        folder.mkdir()
        (folder / "outbox.json").write_text('{"tasks": [{"task_id": "T-1"}], "history": []}')
    before = len(os.listdir("/proc/self/fd"))
    explain.overview(store)
    assert len(explain.explain(store, "", "T-1").data["tasks"]) == 41
    assert len(os.listdir("/proc/self/fd")) < before + 10


def test_an_unknown_task_is_not_found(store: FileStore) -> None:
    for agent in ("", "CC"):
        with pytest.raises(NotFound, match="T-9"):
            explain.explain(store, agent, "T-9")


def test_a_change_says_for_whom_it_has_waited() -> None:
    """And nothing where it did not, or where the line was written by something else."""
    line: dict[str, Any] = {"op": "note", "files": []}
    assert page.of_change(line, "CC", "T-1") == "note"
    line["waited"] = [{"lock": "postbox/CC/.outbox.json.lock", "seconds": 1.5, "held_by": "pid 7, jq"}, 3]
    assert page.of_change(line, "CC", "T-1") == "note; waited 1.5 s for postbox/CC/.outbox.json.lock, held by pid 7, jq"
    line["waited"] = 3
    assert page.of_change(line, "CC", "T-1") == "note"


def test_a_journal_that_stops_everybody_is_the_cause_of_all_and_recover_is_not_its_cure(store: FileStore) -> None:
    Path(store.root.path, "data").mkdir()
    with Path(store.root.path, layout.JOURNAL).open("w+b") as file:
        journal = Journal(os.dup(file.fileno()))
        journal.write(7, '{"txid": "x", "line": {"op": "complete", "agent": "CC", "task": "T-1", "time": "t"}}')
    result = explain.explain(store, "CC", "T-1")
    assert result.data["tasks"][0]["cause"].startswith("No command can go on")
    assert result.data["next"] == "recovery doctor --repair"
    assert "Nothing is lost" not in "\n".join([result.line, *result.details])
    log(store, "T-2", {"outcome": "failed", "attempts": 2})
    rows = explain.overview(store, now=Path(store.root.path, layout.recovery_log("T-2")).stat().st_mtime)
    assert [row["next"] for row in rows.data["findings"]] == ["recovery doctor --repair", "recovery complete CC T-2"]


def test_since_bounds_the_overview_and_the_time_line_and_not_the_cause(store: FileStore) -> None:
    now = 1795593600.0  # 2026-11-25T08:00:00Z
    log(store, "T-1", {}, {"outcome": "failed", "attempts": 2})
    path = Path(store.root.path) / layout.recovery_log("T-1")
    path.write_text(path.read_text().replace("2026-11-25T08:00:00Z", "2026-11-22T08:00:00Z", 1))
    os.utime(path, (now - 2 * 86400, now - 2 * 86400))
    for since, found in (("", 0), ("2026-11-23T08:00:01Z", 0), ("2026-11-23T08:00:00Z", 1)):
        assert len(explain.overview(store, explain.Screen(since=since), now).data["findings"]) == found
    result = explain.explain(store, "CC", "T-1", explain.Screen(since="2026-11-25T08:00:00Z"))
    assert [one["kind"] for one in result.data["tasks"][0]["events"]] == ["ended"]
    assert "gave up after 2 tries" in result.data["tasks"][0]["cause"]
    assert "what happened before 2026-11-25T08:00:00Z is left out" in result.details


@pytest.mark.parametrize(
    ("text", "time"),
    [("2h", "2001-09-08T23:46:40Z"), ("20261125", "2026-11-25T00:00:00Z"), ("2026-11-25T10:00+02:00", CHANGE["time"])],
)
def test_since_takes_a_duration_a_day_or_a_time(text: str, time: str) -> None:
    assert request.time_of(text, "--since", 1e9) == time


@pytest.mark.parametrize("between", ["_changes", "_compare_progress"])
def test_who_commits_while_a_task_is_looked_at_is_not_taken_for_somebody_past_the_suite(
    store: FileStore, between: str
) -> None:
    """The outbox, the log and the progress file are read one after the other: here a commit comes in between."""
    progress = Path(store.root.path, layout.PROGRESS)
    progress.parent.mkdir()
    progress.write_text('{"tasks": {}}')
    complete.complete(FileStore(store.root.path, Limits(5.0, 5.0, "complete")), "CC", "T-1", "m")

    class Busy(explain.Look):
        looks = 0

    def first_an_undo(self: Busy, *given: Any) -> None:
        self.looks += 1
        if self.looks == 1:
            rollback.undo(FileStore(store.root.path, Limits(5.0, 5.0, "undo")), "CC", "T-1")
        getattr(explain.Look, between)(self, *given)

    setattr(Busy, between, first_an_undo)
    look = Busy(store, explain.MOST)
    facts, events = look.settled("CC", "T-1")
    assert facts["status"] == "pending"
    assert cause.cause_of(facts).kind == "taken_back"
    assert [one.kind for one in events].count("foreign") == 0
    assert look.looks > 1
