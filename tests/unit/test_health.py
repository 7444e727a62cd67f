"""The health check sees what is wrong, says what to run next, changes nothing, and never hangs."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recovery import bounds, flock, layout, ping, prometheus, recover, stats_recent
from recovery.errors import DataError, UsageError
from recovery.health import VERB, health
from recovery.health_checks import CHECKS, MEASURES
from recovery.journal import Journal
from recovery.request import Request
from recovery.stats import recovery_stats
from recovery.stats_rollup import Rollup
from recovery.store import FileStore
from recovery.thresholds import CRITICAL, LEVELS, OK, UNKNOWN, WARNING, level, parse, worst
from support.looking import Space
from support.meeting import held, until
from support.workspace import SUITE

DAY = 86400


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(tmp_path / "a work space [x]")


def iso(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def log_lines(ends: list[str], when: float, waited: float = 0.0, task: str = "T-1", first: str = "i") -> str:
    """A recovery log with an incident for each outcome."""
    lines = ""
    for n, outcome in enumerate(ends):
        details = {"incident": f"{first}{n}", "outcome": outcome, "attempts": 2, "seconds": 3.0, "lock_wait": waited}
        line = {"txid": f"{n}", "task_id": task, "timestamp": iso(when), "error_type": "E", "error_message": "m",
                "strategy": "RETRY", "success": True, "details": details}  # fmt: skip
        lines += json.dumps(line) + "\n"
    return lines


# --- numbers and what they mean


@pytest.mark.parametrize(
    ("text", "unit", "good", "bad"),
    [
        ("10", "", [0, 10], [-1, 10.1]),
        ("10:", "", [10, 1e9], [9.9]),
        ("~:10", "", [-5, 10], [11]),
        ("10:20", "", [10, 20], [9, 21]),
        ("@10:20", "", [9, 21], [10, 20]),
        ("0.95:", "", [0.95, 1], [0.9499]),
        ("10m", "s", [600], [601]),
        ("1h:2h", "s", [3600, 7200], [3599, 7201]),
        ("64M", "B", [64 << 20], [(64 << 20) + 1]),
        ("80%", "%", [80], [81]),
        ("0", "", [0], [1]),
    ],
)
def test_a_range_is_what_is_all_right(text: str, unit: str, good: list[float], bad: list[float]) -> None:
    """As monitoring plugins write them, ends included, with the units of this suite."""
    found = parse(text, unit, "x")
    assert [found.alerts(value) for value in good] == [False] * len(good)
    assert [found.alerts(value) for value in bad] == [True] * len(bad)
    again = parse(str(found), unit, "x")
    assert [again.alerts(value) for value in [*good, *bad]] == [False] * len(good) + [True] * len(bad)


@pytest.mark.parametrize("text", ["", "x", "10m", "-1", "1e3", "nan", "20:10", "1:2:3", "@", ":", "10M", "9" * 40])
def test_what_is_no_range_is_refused(text: str) -> None:
    """A threshold that nobody can read must not become one that never alerts."""
    if text == ":":
        assert not parse(text, "", "x").alerts(5)  # from 0 to no end
        return
    with pytest.raises(UsageError, match="--warn x"):
        parse(text, "", "--warn x")


def test_the_worst_counts_and_what_is_not_known_is_worse_than_a_warning() -> None:
    assert [level(value, parse("5", "", "x"), parse("10", "", "x")) for value in (5, 6, 11)] == [OK, WARNING, CRITICAL]
    assert level(99, None, None) == OK
    assert worst([]) == OK
    assert worst([WARNING, OK, UNKNOWN]) == UNKNOWN
    assert worst([UNKNOWN, CRITICAL, WARNING]) == CRITICAL
    assert LEVELS[3] == "UNKNOWN"


def test_every_default_threshold_is_a_range_and_every_metric_follows_the_conventions() -> None:
    """Base units as suffix, no counter's `_total`, no name twice."""
    suffix = {"s": "_seconds", "B": "_bytes", "%": "_ratio", "": ""}
    for name, one in MEASURES.items():
        for text in filter(None, (one.warning, one.critical)):
            parse(text, one.unit, name)
        assert one.metric.endswith(suffix[one.unit]), name
        assert not one.metric.endswith("_total")
    assert len({one.metric for one in MEASURES.values()}) == len(MEASURES)


# --- what it sees


def test_a_healthy_workspace_is_ok_and_nothing_is_written(space: Space) -> None:
    before = space.tree()
    found = space.look("--skip", "certificate", "--warn", "pending_age=")
    assert found.data["level"] == "OK", found.details
    assert space.tree() == before
    assert set(found.data["checks"]) == set(CHECKS) - {"certificate"}


@pytest.mark.parametrize("bytes_", [b"", b"{", b'{"tasks": []}{"tasks": []}', b"\0\0\0\0", b"[]", b'{"tasks": [],}'])
def test_a_damaged_outbox_is_critical_and_hides_nobody(space: Space, bytes_: bytes) -> None:
    (space.root / "postbox/CA/outbox.json").write_bytes(bytes_)
    said, text, values = space.found("outboxes")
    assert (said, values) == ("CRITICAL", {"damaged": 1, "agents": 3})
    assert "postbox/CA/outbox.json" in text
    assert "recovery doctor" in text


def test_a_damaged_progress_file_is_seen(space: Space) -> None:
    space.write(".sprint/progress.json", '{"tasks": {')
    assert space.found("outboxes")[::2] == ("CRITICAL", {"damaged": 1, "agents": 3})


def test_other_files_in_the_postbox_are_nobodys_outbox(space: Space) -> None:
    space.write("postbox/README.md", "words")
    space.write("postbox/notes/draft.txt", "words")
    assert space.found("outboxes")[::2] == ("OK", {"damaged": 0, "agents": 3})


def test_an_outbox_that_is_gone_is_missed(space: Space) -> None:
    """Where its agent has had tasks, or a backup of it is there; a folder that somebody made is none."""
    (space.root / "postbox/new/inbox").mkdir(parents=True)
    assert space.found("outboxes")[0] == "OK"
    (space.root / "postbox/CA/outbox.json").rename(space.root / "postbox/CA/outbox.json.backup_T-1")
    space.write("postbox/new/inbox/T-1.md", "words")
    said, text, values = space.found("outboxes")
    assert (said, values) == ("CRITICAL", {"damaged": 2, "agents": 2})
    assert "postbox/CA/outbox.json is missing" in text


def test_a_damaged_configuration_is_critical(space: Space) -> None:
    """It is what every command refuses then."""
    space.write("data/config.json", "{")
    found = space.look()
    assert (found.data["code"], "data/config.json is damaged" in found.line) == (2, True)
    assert "recovery doctor --repair" in found.line


RECORD = "postbox/CC/completed/T-1_completion.json"
CHAIN = '{"hash": "aa", "receipt": {"number": 1}}\n'


@pytest.mark.parametrize(
    ("name", "content", "says", "words"),
    [
        (RECORD, "{", "CRITICAL", RECORD),
        (RECORD, "", "CRITICAL", "is empty"),
        (RECORD, '{"a": 1, "a": 2}', "CRITICAL", "second time|twice"),
        ("data/receipts/CC.json", "[]", "CRITICAL", "CC.json is not an object|is not an object"),
        ("data/receipts/CC.json", '{"format": 1, "number": 2, "head": "bb"}', "CRITICAL", "its receipts differ"),
        ("data/receipts/CC.json", '{"format": 1, "number": 1, "head": "aa"}', "OK", "none damaged"),
        ("data/receipts/CC.jsonl", CHAIN + "torn\n", "WARNING", "1 in data/receipts/CC.jsonl"),
        ("data/changes/2026-01.jsonl", '{"seq": 1}\n{"se', "WARNING", "1 in data/changes/2026-01.jsonl"),
        ("data/changes/2026-01.jsonl", '{"seq": 1}\n\n{"seq": 2}', "OK", "none damaged"),
        ("checks.json", '{"checks": []}', "CRITICAL", "checks.json"),
        ("checks.json", '{"checks": {}}', "OK", "none damaged"),
        ("postbox/CC/archive/2026-01.jsonl", "torn", "WARNING", "1 in postbox/CC/archive/2026-01.jsonl"),
        ("data/checkpoints/T-1_checkpoint.json", "{", "WARNING", "of no use: data/checkpoints/T-1_checkpoint.json"),
        ("data/checkpoints/T-1_history.jsonl", "{", "OK", "none damaged"),
        ("postbox/CC/outbox.json.backup_T-1", "", "WARNING", "of no use: postbox/CC/outbox.json.backup_T-1 is empty"),
        ("postbox/CC/outbox.json.backup_T-1", "{}", "OK", "none damaged"),
        ("postbox/CC/.outbox.json.0123.stage", "", "WARNING", "stage was left over"),
        ("postbox/CC/inbox/.T-1.md.0123.stage", "", "WARNING", "stage was left over"),
        (".sprint/.progress.json.0123.stage", "", "WARNING", "stage was left over"),
    ],
)
def test_damaged_records_receipts_changes_and_checks_are_seen(
    space: Space, name: str, content: str, says: str, words: str
) -> None:
    space.write("data/receipts/CC.jsonl", CHAIN)
    space.write("data/receipts/CC.json", {"format": 1, "number": 1, "head": "aa"})
    assert space.found("records")[0] == "OK"
    space.write(name, content)
    before = space.tree()
    level, text, values = space.found("records")
    assert (level, bool(re.search(words, text))) == (says, True), text
    assert (values["damaged_records"] > 0, values["torn_lines"] > 0) == (says == "CRITICAL", " in " in words)
    assert ("recovery doctor" in text) == (says != "OK")
    assert space.tree() == before


def test_what_is_no_file_in_the_place_of_a_record_hangs_nobody(space: Space) -> None:
    for name in (RECORD, "data/receipts/CC.json", "data/receipts/CC.jsonl", "data/changes/2026-01.jsonl"):
        (space.root / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(space.root / name)
    level, text, values = space.found("records", "--timeout", "5")
    assert (level, values["damaged_records"], "not a regular file" in text) == ("CRITICAL", 4, True)


def test_the_newest_records_are_read_and_what_was_not_is_said(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one is known without being read, however old."""
    monkeypatch.setattr("recovery.health_records.MOST", 3)
    for n in range(6):
        path = space.write(f"postbox/A-{n}/completed/T-{n}_completion.json", "{" if n == 0 else "{}")
        os.utime(path, (1e9 + n,) * 2)
    level, text, _ = space.found("records")
    assert (level, "the newest 3 of 6 were read" in text) == ("OK", True), text
    os.truncate(space.root / "postbox/A-1/completed/T-1_completion.json", 0)
    os.utime(space.root / "postbox/A-1/completed/T-1_completion.json", (1e8,) * 2)
    assert space.found("records")[2]["damaged_records"] == 1
    monkeypatch.setattr("recovery.health_records.MOST", 1000)
    assert space.found("records")[2]["damaged_records"] == 2


def test_a_staged_file_whose_writer_is_at_work_was_not_left_over(space: Space) -> None:
    space.write("postbox/CC/.outbox.json.0123.stage", "{")
    with held(space.root / "postbox/CC/.outbox.json.lock"):
        assert space.found("records")[0] == "OK"
    assert space.found("records")[0] == "WARNING"


def test_a_line_that_is_being_written_is_not_torn(space: Space) -> None:
    """Whoever writes it holds the commit lock."""
    space.write("data/changes/2026-01.jsonl", '{"seq": 1}\n{"se')
    space.write("data/.commit.lock", "")
    with held(space.root / "data/.commit.lock"):
        assert space.found("records")[0] == "OK"
    assert space.found("records")[0] == "WARNING"


def test_a_journal_of_garbage_is_seen_and_an_empty_or_finished_one_is_well(space: Space) -> None:
    for content, says in ((b"", "OK"), (b"\0" * 65536, "OK"), (b"\0" * 9000 + b"garbage", "WARNING")):
        space.write(layout.JOURNAL, "").write_bytes(content)
        assert space.found("journal")[0] == says
    assert "recovery doctor" in space.found("journal")[1]
    space.write("data/.commit.lock", "")
    with held(space.root / "data/.commit.lock"):
        assert space.found("journal")[0] == "OK"


def test_a_progress_file_that_is_gone_is_missed_where_there_was_one(space: Space) -> None:
    (space.root / ".sprint/progress.json").unlink()
    (space.root / ".sprint/.progress.json.lock").unlink(missing_ok=True)
    assert space.found("outboxes")[0] == "OK"
    space.write(".sprint/.progress.json.lock", "")
    level, text, _ = space.found("outboxes")
    assert (level, ".sprint/progress.json is gone" in text) == ("CRITICAL", True)


def test_an_agent_whom_progress_lists_is_missed_when_its_folder_is_gone(space: Space) -> None:
    entries = {"T-1": {"status": "completed", "agent": "OLD"}, "T-2": {"status": "pending", "agent": "NEW"}}
    for tasks in (entries, [{"id": task, **entry} for task, entry in entries.items()]):
        space.write(".sprint/progress.json", {"tasks": tasks})
        level, text, values = space.found("outboxes")
        assert (level, values["damaged"]) == ("CRITICAL", 2)
        assert "postbox/NEW/outbox.json is gone: 1 open task in .sprint/progress.json" in text
        assert "postbox/OLD/outbox.json is gone: 1 task in .sprint/progress.json" in text
    space.write("data/removed/OLD.json", {"agent_id": "OLD", "seq": 0})
    assert space.found("outboxes")[2]["damaged"] == 1


def test_a_file_in_the_place_of_a_folder_is_seen(space: Space) -> None:
    space.write("logs", "")
    level, text, _ = space.found("outboxes")
    assert (level, "logs is no folder" in text) == ("CRITICAL", True)


def test_it_says_how_long_the_oldest_pending_task_has_waited(space: Space) -> None:
    now = time.time()
    tasks = [
        {"task_id": "T-1", "status": "pending", "created_at": iso(now - 8 * DAY)},
        {"task_id": "T-2", "created_at": iso(now - 2 * DAY)},
        {"task_id": "T-3", "status": "completed", "created_at": iso(now - 90 * DAY)},
        {"task_id": "T-4", "status": "pending", "created_at": "no time"},
    ]
    for agent in ("CC", "CA", "CB"):
        space.write(f"postbox/{agent}/outbox.json", {"tasks": tasks if agent == "CC" else []})
    said, text, values = space.found("pending")
    assert (said, values["pending"]) == ("WARNING", 3)
    assert abs(values["pending_age"] - 8 * DAY) < 5
    assert "CC/T-1 for 8 d" in text
    assert space.level("pending", "--warn", "pending_age=9d") == "OK"
    assert space.level("pending", "--crit", "pending_age=1d") == "CRITICAL"


def test_a_claim_whose_owner_is_gone_is_seen_and_a_living_one_is_none(space: Space) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    me = dict(flock.identity())
    claim = {"generation": 1, "state": "held", "kind": "session", "by": "x", "since": iso(time.time())}
    tasks = [
        {"task_id": "T-1", "status": "in_progress", "claim": {**claim, "owner": {**me, "pid": gone.pid, "start": "1"}}},
        {"task_id": "T-2", "status": "in_progress", "claim": {**claim, "owner": me}},
        {"task_id": "T-3", "status": "completed", "claim": {**claim, "state": "done", "owner": me}},
    ]
    space.write("postbox/CC/outbox.json", {"tasks": tasks})
    said, text, values = space.found("owners")
    assert (said, values) == ("WARNING", {"claimed": 2, "dead_owners": 1})
    assert "CC/T-1" in text
    assert "T-2" not in text
    assert "recovery sweep" in text


def test_open_breakers_and_damaged_ones_are_seen(space: Space) -> None:
    state = {"format": 1, "state": "open", "failures": 5, "id": "a", "generation": 2, "opened_at": iso(time.time()),
             "open_until": iso(time.time() + 600)}  # fmt: skip
    space.write("data/breakers/api.json", state)
    space.write("data/breakers/mail.json", {**state, "state": "closed", "open_until": None})
    said, text, values = space.found("breakers")
    assert (said, values) == ("WARNING", {"open_breakers": 1})
    assert "api until" in text
    space.write("data/breakers/api.json", "{")
    assert space.found("breakers")[0] == "WARNING"
    assert "damaged" in space.found("breakers")[1]


def test_a_date_that_is_none_hides_no_older_task(space: Space) -> None:
    tasks = [
        {"task_id": f"T-{n}", "created_at": text} for n, text in enumerate(("", "01.02.2020", "2020-01-01T00:00:00Z"))
    ]
    space.write("postbox/CC/outbox.json", {"tasks": tasks})
    said, text, values = space.found("pending")
    assert (said, values["pending_age"] > 86400 * 365) == ("WARNING", True)
    assert "CC/T-2" in text


def test_escalations_count_while_they_are_open(space: Space) -> None:
    for n in range(2):
        space.write(f"logs/recovery/T-{n}_escalation.json", {"timestamp": iso(time.time()), "task_id": f"T-{n}"})
    space.write("logs/recovery/resolved/T-9_escalation.json", {"timestamp": iso(0)})
    said, text, values = space.found("escalations")
    assert (said, values) == ("WARNING", {"escalations": 2, "parked_tasks": 0, "unknown_calls": 0})
    assert "T-0, T-1" in text
    for n in range(2, 11):
        space.write(f"logs/recovery/T-{n}_escalation.json", "damaged")
    assert space.found("escalations")[0] == "CRITICAL"
    assert space.found("escalations")[2]["escalations"] == 11


def test_parked_tasks_and_calls_of_unknown_outcome_wait_for_a_person_too(space: Space) -> None:
    space.write("data/manual/T-1.json", {})
    space.write("data/once/paid.json", {"state": "started", "key": "paid 7"})
    space.write("data/once/done.json", {"state": "done", "key": "done"})
    space.write("data/once/torn.json", "{")
    said, text, values = space.found("escalations")
    assert (said, values) == ("WARNING", {"escalations": 0, "parked_tasks": 1, "unknown_calls": 2})
    assert "1 parked: T-1; 2 calls of unknown outcome: paid 7, torn: run `recovery escalations`" in text


def test_a_disk_without_room_is_critical_before_commands_are_refused(space: Space) -> None:
    assert space.level("space") == "OK"
    assert space.level("space", "--warn", "free=1000T:", "--crit", "free=") == "WARNING"
    assert space.level("space", "--crit", "free_files=1000000000000:") == "CRITICAL"


def test_a_commit_that_can_not_be_finished_is_critical(space: Space) -> None:
    space.write("data/conflicts/CC@T-1@x.parked.json", {})
    assert space.found("conflicts")[::2] == ("CRITICAL", {"parked": 1})


def test_a_held_lock_is_named_and_is_not_older_than_its_holder(space: Space) -> None:
    """flock(1) leaves no note: the file may be years old, and the lock a moment."""
    for path in (space.locks / "tasks/T-1.lock", space.root / "postbox/CC/.outbox.json.lock"):
        path.touch()
        os.utime(path, (1e9, 1e9))
        with held(path):
            said, text, values = space.found("locks")
            assert (said, values["held_locks"], values["lock_held"] < 60) == ("OK", 1, True), text
            assert path.name in text
            said, text, _ = space.found("locks", "--warn", "lock_held=0")
            assert (said, "run `recovery locks`" in text) == ("WARNING", True)
            assert space.level("locks", "--crit", "held_locks=0") == "CRITICAL"
        assert space.found("locks")[2]["held_locks"] == 0


def test_a_lock_held_for_long_is_a_warning_and_then_critical(space: Space) -> None:
    path = space.locks / "agents/CC.lock"
    path.parent.mkdir()
    with held(path):
        assert space.found("locks")[0] == "OK"
        for later, says in ((601, "WARNING"), (3601, "CRITICAL")):
            found = space.look("locks", clock=lambda seconds=later: time.time() + seconds)  # type: ignore[misc]
            assert found.data["level"] == says, found.line


def test_what_holds_its_lock_for_as_long_as_it_works_is_no_held_lock(space: Space) -> None:
    """Claims, turns and `try` hold theirs while a command runs."""
    path = space.root / "data/claims/CC/T-1.g1.lock"
    path.parent.mkdir(parents=True)
    with held(path):
        assert space.found("locks")[2]["held_locks"] == 0


def test_old_lock_files_are_counted_as_find_counts_them(space: Space) -> None:
    for n in range(5):
        path = space.locks / f"tasks/T-{n}.lock"
        path.touch()
        if n:
            os.utime(path, (time.time() - 61 * 60 - 60,) * 2)
    counted = subprocess.run(
        ["find", str(space.locks), "-name", "*.lock", "-mmin", "+60"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert space.found("locks")[2]["old_locks"] == 4 == counted.stdout.count("\n")
    assert space.level("locks", "--warn", "old_locks=3") == "WARNING"


def test_lock_folders_of_dead_owners_are_stale_and_those_of_the_living_are_not(space: Space) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    me = dict(flock.identity())
    for name, owner in (("dead", {**me, "pid": gone.pid, "start": "1"}), ("alive", me)):
        (space.locks / f"{name}.lock").mkdir()
        (space.locks / f"{name}.lock/owner.json").write_text(json.dumps(owner))
    (space.locks / "young.lock").mkdir()
    (space.locks / "old.lock").mkdir()
    os.utime(space.locks / "old.lock", (time.time() - 2 * 3600,) * 2)
    said, text, values = space.found("locks")
    assert (said, values["stale_locks"]) == ("WARNING", 2)
    assert "dead.lock (pid" in text
    assert "old.lock (a folder" in text
    assert "alive" not in text


@pytest.mark.parametrize(
    ("good", "bad", "says"), [(19, 1, "OK"), (18, 2, "WARNING"), (15, 5, "CRITICAL"), (18, 1, "OK")]
)
def test_a_success_rate_under_095_alerts_from_20_incidents_on(space: Space, good: int, bad: int, says: str) -> None:
    """Cancelled ones count as neither; too few say nothing."""
    space.write(
        "logs/recovery/T-1_recovery.jsonl",
        log_lines(["recovered"] * good + ["failed"] * bad + ["cancelled"], time.time() - 60),
    )
    said, text, values = space.found("success")
    assert said == says, text
    assert values["incidents"] == good + bad
    assert values["success_rate"] == pytest.approx(good / (good + bad), abs=1e-4)


def test_the_rate_is_that_of_recovery_stats_over_the_window(space: Space) -> None:
    """The same numbers, from the logs that were written to lately, whatever else there is; nothing is written."""
    now = time.time()
    for n in range(12):
        ends = ["recovered", "failed", "rolled_back"][: n % 4]
        text = log_lines(ends, now - 30 * DAY, 1.5, f"T-{n}")
        text += log_lines(ends * 2, now - 3600 * n, 2.25, f"T-{n}", "later")
        path = space.write(f"logs/recovery/T-{n}_recovery.jsonl", text)
        os.utime(path, (now - 3600 * n,) * 2)
    before = space.tree()
    found = space.look("success", "waits", "--window", "6h", clock=lambda: now).data["checks"]
    rate, waits = found["success"]["values"], found["waits"]["values"]
    assert space.tree() == before
    store = FileStore(str(space.root), flock.Limits(5, 5))
    exact = recovery_stats(store, since=now - 6 * 3600)
    store.close()
    assert exact["total_recoveries"] > 5
    assert rate["incidents"] == exact["total_recoveries"]
    assert rate["success_rate"] == pytest.approx(exact["success_rate"], abs=1e-4)
    assert waits == {"lock_wait": exact["lock_wait_time"], "retry_time": exact["avg_retry_time"]}


def test_large_logs_are_counted_on_from_the_roll_up(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers again, with what `recovery stats` remembers and without it."""
    asked: list[str] = []

    class Asked(Rollup):
        def __init__(self, store: FileStore, folder: str) -> None:
            super().__init__(store, folder)
            asked.append(folder)

    monkeypatch.setattr(stats_recent, "Rollup", Asked)
    monkeypatch.setattr("recovery.health_checks._READ_AT_ONCE", 0)
    space.write("logs/recovery/T-1_recovery.jsonl", log_lines(["recovered", "failed"] * 40, time.time() - 60, 1.0))
    expected = {"incidents": 80, "success_rate": 0.5}
    assert space.found("success")[2] == expected
    store = FileStore(str(space.root), flock.Limits(5, 5))
    recovery_stats(store)
    store.close()
    assert (space.root / "data/statistics.json").exists()
    assert space.found("success")[2] == expected
    assert asked == ["logs/recovery"] * 2


def test_logs_that_vanish_while_they_are_looked_at_are_gone(space: Space) -> None:
    """find saw them; what is still there counts."""
    now = time.time()
    space.write("logs/recovery/T-1_recovery.jsonl", log_lines(["recovered"], now))
    store = FileStore(str(space.root), flock.Limits(5, 5))
    names = ["T-1_recovery.jsonl", "gone_recovery.jsonl", "no log"]
    assert stats_recent.recent_stats(store, names, now - 60, much=False)["total_recoveries"] == 1
    store.close()


def test_sizes_and_the_budget_are_what_du_says(space: Space) -> None:
    space.write("logs/recovery/T-1_recovery.jsonl", "x" * 70_000)
    space.write("logs/app.log", "x" * 10_000)
    space.write("data/checkpoints/T-1_history.jsonl", "x" * 40_000)
    space.write("data/changes/2026-01.jsonl", "x" * 20_000)

    def du(name: str) -> int:
        asked = ["du", "-s", "-B1", str(space.root / name)]
        return int(subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0])

    assert space.found("logs")[2] == {"log_size": du("logs")}
    assert space.found("checkpoints")[2] == {"checkpoint_size": du("data/checkpoints")}
    assert space.found("budget")[2]["size"] == du("data") + du("logs")
    assert space.level("logs", "--warn", "log_size=64K") == "WARNING"
    assert space.level("budget") == "OK"


def test_a_budget_that_is_nearly_used_is_measured_as_cleanup_measures_it(space: Space) -> None:
    """Ten small files take ten blocks of the disk, and next to nothing of the budget."""
    for n in range(10):
        space.write(f"data/checkpoints/T-{n}_history.jsonl", "{}\n")
    space.write("data/config.json", {"format": 1, "bounds": {"megabytes": 1, "files": 13}})
    said, text, values = space.found("budget")
    store = FileStore(str(space.root), flock.Limits(5, 5))
    exact = bounds.use(store)
    store.close()
    assert (values["files"], values["size"], exact.files) == (exact.files, exact.size, 11)
    assert (said, values["used"]) == ("WARNING", 84.6)
    assert "recovery cleanup" in text
    space.write("logs/recovery/T-1_recovery.jsonl", "x" * 1_100_000)
    assert space.found("budget")[0] == "CRITICAL"


def test_a_file_of_the_future_says_that_the_clock_jumped(space: Space) -> None:
    path = space.write("data/changes/2026-01.jsonl", "")
    assert space.found("clock")[::2] == ("OK", {"clock_ahead": 0})
    os.utime(path, (time.time() + 1800,) * 2)
    said, text, values = space.found("clock")
    assert (said, 1700 < values["clock_ahead"] <= 1800) == ("WARNING", True)
    assert text.startswith("data/changes/2026-01.jsonl lies 30 min in the future")


def test_a_workspace_of_nothing_but_outboxes_is_looked_at(tmp_path: Path) -> None:
    """As it was before the suite: no data, no logs, no locks, no progress."""
    (tmp_path / "old/postbox/CC").mkdir(parents=True)
    (tmp_path / "old/postbox/CC/outbox.json").write_text('{"tasks": []}')
    asked = Request("health", VERB, ["-C", str(tmp_path / "old"), "--skip", "certificate"])
    found = health(asked, {"ORCHESTRATION_LOCK_DIR": str(tmp_path / "none")})
    assert found.data["level"] == "OK", found.details
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["CC", "old", "outbox.json", "postbox"]


def test_more_agents_than_files_may_be_open_are_looked_through(space: Space) -> None:
    for n in range(150):
        space.write(f"postbox/A-{n}/outbox.json", {"tasks": []})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    already = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (already + 40, before[1]))
    try:
        assert space.found("outboxes")[::2] == ("OK", {"damaged": 0, "agents": 153})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- what it says


def test_the_first_line_says_it_all_and_the_others_follow(space: Space) -> None:
    (space.root / "postbox/CC/outbox.json").write_text("{")
    space.write("data/conflicts/x.parked.json", {})
    space.write("logs/recovery/T-1_escalation.json", {"timestamp": iso(0)})
    lines = space.look("outboxes", "conflicts", "escalations", "journal").line.split("\n")
    assert lines[0].startswith("RECOVERY CRITICAL - conflicts: ")
    assert " | unfinished=0;0;;0 parked=1;;0;0 damaged=1;;0;0 agents=3;;;0 escalations=1;0;10;0" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == [
        "CRITICAL  conflicts",
        "CRITICAL  outboxes",
        "WARNING   escalations",
    ]


def test_whatever_is_not_all_right_names_the_command_to_run_next(space: Space) -> None:
    """For every number that there is: whoever is woken by it is not left to look for what to do."""
    log = log_lines(["recovered"] * 20, time.time() - 60)
    space.write("logs/recovery/T-1_recovery.jsonl", log)
    space.write("alerts.rules", "agents > 0")
    words = [word for name in MEASURES for word in ("--warn", f"{name}=@0:", "--crit", f"{name}=")]
    found = space.look(*words).data["checks"]
    assert {one["level"] for one in found.values()} == {"WARNING"}
    assert [name for name, one in found.items() if f"run `{one.get('next')}`" not in one["text"]] == []


def test_somebody_elses_words_reach_no_terminal_as_escape_codes(space: Space) -> None:
    bad = "\x1b]0;x\x07 | x=1\n"
    space.write("logs/recovery/certificate.json", {"file_system": {"type": bad, "id": bad}, "version": bad})
    line = space.look("certificate", "journal").line
    assert line.isprintable()
    assert line.count("|") == 1


def test_thresholds_come_from_options_before_the_environment(space: Space) -> None:
    space.write("logs/app.log", "x" * 100_000)
    asked = {"RECOVERY_HEALTH_WARN": "log_size=50K files=1", "RECOVERY_HEALTH_CRIT": "log_size=70K"}
    assert space.level("logs", **asked) == "CRITICAL"
    assert space.level("logs", "--crit", "log_size=1M", **asked) == "WARNING"
    assert space.level("logs", "--crit", "log_size=", "--warn", "log_size=", **asked) == "OK"
    for wrong in ("log_size", "nothing=5", "log_size=5 parsecs", "lock_held=10Q"):
        with pytest.raises(UsageError):
            space.look("--warn", wrong)
        with pytest.raises(UsageError):
            space.look(RECOVERY_HEALTH_WARN=wrong)


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["--skip", "x"], ["--window", "5s"], ["--window", "x"], ["--timeout", "0"], ["--ping", "ftp:x"]],
)
def test_what_can_not_be_meant_is_refused(space: Space, words: list[str]) -> None:
    with pytest.raises(UsageError):
        space.look(*words)


def test_no_workspace_is_unknown(tmp_path: Path) -> None:
    found = health(Request("health", VERB, ["-C", str(tmp_path / "none")]), {})
    assert (found.data["code"], found.line.startswith("RECOVERY UNKNOWN - workspace: ")) == (3, True)


def test_a_bug_of_ours_is_unknown_too_and_told_on_stdout(space: Space) -> None:
    """Any other code would be taken for a level, or for none."""
    spoiled = (
        "from recovery import health, helper\nhealth.VERB.call = None\nhelper.main(['health', '-C', '.', '--json'])"
    )
    environ = {"PYTHONPATH": str(SUITE / "py"), "PATH": os.environ["PATH"]}
    words = [sys.executable, "-c", spoiled]
    done = subprocess.run(words, env=environ, cwd=space.root, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["level"]) == (3, "UNKNOWN")
    assert "this is a bug" in done.stderr


# --- it never hangs


def test_a_find_that_hangs_costs_its_checks_alone_and_is_ended(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "never")
    fake = tmp_path / "bin/find"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho $$ >>'{tmp_path}/pids'\nread _ <'{tmp_path}/never'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    found = space.look("--timeout", "0.5", "journal", "locks", "clock")
    says = {name: one["level"] for name, one in found.data["checks"].items()}
    assert says == {"journal": "OK", "locks": "UNKNOWN", "clock": "UNKNOWN"}
    assert "not known within 0.5 s" in found.line
    pids = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids if os.path.exists(f"/proc/{pid}")),
          "both are gone")  # fmt: skip
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_find_that_is_none_is_unknown(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space.write("data/x", "")
    fake = tmp_path / "bin/find"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'find: unrecognized: -printf' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    assert space.found("clock")[0] == "UNKNOWN"
    assert "unrecognized: -printf" in space.found("clock")[1]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no find on the PATH" in space.found("clock")[1]


# --- Prometheus


def test_the_file_for_prometheus_is_what_prometheus_reads(space: Space, tmp_path: Path) -> None:
    space.write("data/conflicts/x.parked.json", {})
    path = tmp_path / "textfile collector/postbox.prom"
    path.parent.mkdir()
    before = os.umask(0o077)
    try:
        found = space.look("--prometheus", str(path), "--skip", "certificate")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == [path.name]
    text = path.read_text()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert all(one.documentation and one.type == "gauge" for one in families.values())
    assert all(name.startswith("postbox_recovery_") for name in families)
    assert {sample.labels["workspace"] for one in families.values() for sample in one.samples} == {str(space.root)}
    assert families["postbox_recovery_parked_commits"].samples[0].value == 1
    assert families["postbox_recovery_budget_used_ratio"].samples[0].value < 1
    assert abs(families["postbox_recovery_check_timestamp_seconds"].samples[0].value - time.time()) < 60
    says = {one.labels["check"]: one.value for one in families["postbox_recovery_check_level"].samples}
    assert says["conflicts"] == 2
    assert set(says) == set(found.data["checks"])


def test_any_path_of_a_workspace_comes_through_prometheus_format() -> None:
    path = '/a b/"quoted"\\back\nline'
    text = prometheus.text_of([prometheus.Gauge("x_bytes", "Help.", [({}, 12345678901.0)])], path)
    (family,) = text_string_to_metric_families(text)
    assert (family.samples[0].labels, family.samples[0].value) == ({"workspace": path}, 12345678901.0)


def test_a_crash_while_the_file_is_written_leaves_the_old_one(space: Space, tmp_path: Path) -> None:
    path = tmp_path / "postbox.prom"
    path.write_text("old\n")
    asked = [str(SUITE / "bin/health_check.sh"), "-C", str(space.root), "journal", "--prometheus", str(path)]
    environ = {**space.environ, "PATH": os.environ["PATH"]}
    assert subprocess.run(asked, env={**environ, "RECOVERY_FAULT": "prometheus=kill"}, check=False).returncode == -9
    assert path.read_text() == "old\n"
    assert subprocess.run(asked, env=environ, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert "postbox_recovery_unfinished_commits" in path.read_text()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


def test_what_is_no_ordinary_file_is_not_replaced(space: Space, tmp_path: Path) -> None:
    """A link, a fifo, /dev/null: said, UNKNOWN, and left as it is."""
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link.prom").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "fifo.prom")
    for name in ("link.prom", "fifo.prom"):
        before = os.lstat(tmp_path / name)
        found = space.look("journal", "--prometheus", str(tmp_path / name))
        assert (found.data["code"], "no ordinary file" in found.line) == (3, True)
        assert os.path.samestat(os.lstat(tmp_path / name), before)
    assert (tmp_path / "target").read_text() == "mine"


def test_a_file_of_the_workspace_is_not_written_over_with_numbers(space: Space, tmp_path: Path) -> None:
    """By whatever way it is named; what is called *.prom may lie there."""
    before = space.tree()
    (tmp_path / "way").symlink_to(space.root)
    (tmp_path / "in").symlink_to(space.root / "postbox" / "CC")
    for path in (
        space.root / "postbox/CC/outbox.json",
        space.root / "data/new",
        tmp_path / "way/.sprint/progress.json",
        tmp_path / "in" / "outbox.json",
        f"{tmp_path}/in/../../data/config.json",
        f"{space.root}/postbox/../data//journal",
    ):
        found = space.look("journal", "--prometheus", str(path))
        assert (found.data["code"], "the workspace's own" in found.line) == (3, True)
    assert space.tree() == before
    assert space.level("journal", "--prometheus", str(space.root / "health.prom")) == "OK"
    assert "postbox_recovery_" in (space.root / "health.prom").read_text()


def test_two_that_write_the_numbers_at_once_do_not_meet(space: Space, tmp_path: Path) -> None:
    path = str(tmp_path / "x.prom")
    words = [str(SUITE / "bin/health_check.sh"), "-C", str(space.root), "journal", "--prometheus", path]
    environ = {**space.environ, "PATH": os.environ["PATH"]}
    crowd = [subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL) for _ in range(12)]
    assert [one.wait() for one in crowd] == [0] * len(crowd)
    assert sorted(name for name in os.listdir(tmp_path) if "prom" in name) == ["x.prom"]


def test_a_folder_for_prometheus_that_is_not_there_is_unknown_and_named(space: Space, tmp_path: Path) -> None:
    found = space.look("journal", "--prometheus", str(tmp_path / "none/x.prom"))
    assert (found.data["code"], "none/x.prom" in found.line) == (3, True)


# --- pings


class Pinged(BaseHTTPRequestHandler):
    got: list[tuple[str, str]]
    refused = ""
    authorized: str | None = None

    def do_POST(self) -> None:
        Pinged.authorized = self.headers["Authorization"]
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.got.append((self.path, body))
        self.send_response(404 if self.path == self.refused else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    got: list[tuple[str, str]] = []
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Pinged,), {"got": got}))
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_address[1]}/uuid", got
    listening.shutdown()
    listening.server_close()


def test_the_beginning_and_the_end_are_pinged(space: Space, server: tuple[str, list[tuple[str, str]]]) -> None:
    url, got = server
    assert space.level("journal", "--ping", url) == "OK"
    assert [path for path, _ in got] == ["/uuid/start", "/uuid"]
    assert got[1][1].startswith("RECOVERY OK - 1 checks")
    got.clear()
    space.write("data/conflicts/x.parked.json", {})
    assert space.level("conflicts", RECOVERY_HEALTH_PING=url + "/?create=1") == "CRITICAL"
    assert [path for path, _ in got] == ["/uuid/start?create=1", "/uuid/2?create=1"]


def test_the_end_is_pinged_also_where_the_beginning_was_refused(
    space: Space, server: tuple[str, list[tuple[str, str]]], capfd: pytest.CaptureFixture[str]
) -> None:
    url, got = server
    Pinged.refused = "/uuid/start"
    try:
        assert space.level("journal", "--ping", url) == "OK"
    finally:
        Pinged.refused = ""
    assert [path for path, _ in got] == ["/uuid/start", "/uuid"]
    assert "of the beginning" in capfd.readouterr().err


def test_a_ping_that_nobody_answers_changes_nothing(
    space: Space, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Refused at once, or accepted and never answered: it is said, without the secret in the URL, and that is all."""
    monkeypatch.setattr(ping, "WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert space.level("journal", "--ping", f"http://127.0.0.1:{port}/secret") == "OK"
    assert space.level("journal", "--ping", f"http://127.0.0.1:{port}/secret") == "OK"
    assert space.level("journal", RECOVERY_HEALTH_PING="no url") == "OK"
    said = capfd.readouterr().err
    assert said.count("127.0.0.1 could not be pinged") == 2
    assert "secret" not in said


def test_a_name_and_a_password_in_a_url_are_sent_as_authorization_and_never_told(
    space: Space, server: tuple[str, list[tuple[str, str]]], capfd: pytest.CaptureFixture[str]
) -> None:
    url, got = server
    named = url.replace("://", "://robot:p%40ss:word@")
    assert space.level("journal", "--ping", named + "?who=a@b") == "OK"
    assert [path for path, _ in got] == ["/uuid/start?who=a@b", "/uuid?who=a@b"]
    assert Pinged.authorized == "Basic " + base64.b64encode(b"robot:p@ss:word").decode()
    assert space.level("journal", "--ping", url) == "OK"
    assert Pinged.authorized is None
    assert space.level("journal", "--ping", "http://robot:secret@127.0.0.1:1/x") == "OK"
    with pytest.raises(UsageError) as refused:
        space.look("journal", "--ping", "http://robot:secret@:1")
    said = capfd.readouterr().err + str(refused.value)
    assert "127.0.0.1 could not be pinged" in said
    assert "secret" not in said
    assert "robot" not in said


# --- as a whole process


def test_it_changes_nothing_as_a_whole_process_in_crons_environment(space: Space) -> None:
    """No HOME, no terminal, PATH of cron, 40 columns; the tree is the same to the byte and to the time of change."""
    asked = [str(SUITE / "bin/health_check.sh"), "-C", str(space.root), "--skip", "certificate", "-w", "pending_age="]
    environ = {**space.environ, "PATH": "/usr/bin:/bin", "COLUMNS": "40", "RECOVERY_PYTHON": sys.executable}
    before = space.tree()
    done = subprocess.run(
        asked, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("RECOVERY OK - 17 checks | ")
    assert done.stdout.count("\n") == 1
    assert space.tree() == before


FILE = {"name": "postbox/CC/outbox.json", "before": "a", "after": "b", "ops": []}
LINE = {"seq": 7, "txid": "20260101T000000Z-ab", "time": "2026-01-01T00:00:00Z", "op": "note", "agent": "CC",
        "task": "T-1", "by": {"pid": 1}, "files": [FILE], "derived": []}  # fmt: skip
EXTRA = {"lock": "postbox/CC/.outbox.json.lock", "stage": ".x", "mode": 420, "before": None}
BODY = {"txid": LINE["txid"], "extra": [EXTRA], "line": LINE}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (BODY, "WARNING"),
        ({**BODY, "txid": "another"}, "CRITICAL"),
        ({**BODY, "extra": [{**EXTRA, "lock": "../x/.y.lock"}]}, "CRITICAL"),
        ({**BODY, "line": {**LINE, "by": None}}, "CRITICAL"),
        *(
            ({**BODY, "line": {**LINE, "files": [{**FILE, **more}]}}, "CRITICAL")
            for more in ({"ops": [7]}, {"ops": [{"op": "set", "path": ["a"]}]}, {"write": ["a"]}, {"after": 7})
        ),
        ("no JSON", "CRITICAL"),
    ],
)
def test_a_journal_that_stops_every_command_is_critical(space: Space, body: object, says: str) -> None:
    """And what the next command finishes is a warning: `recover` is asked which of the two it is."""
    journal = Journal(os.open(space.write(layout.JOURNAL, ""), os.O_RDWR))
    assert space.level("journal") == "OK"
    journal.write(7, json.dumps(body) if isinstance(body, dict) else str(body))
    journal.close()
    level, text, values = space.found("journal")
    assert (level, values["unfinished"]) == (says, 1)
    assert ("doctor --repair" in text) == (says == "CRITICAL")
    store = FileStore(str(space.root), flock.Limits(1.0, 1.0, "recover"))
    if says == "CRITICAL":
        with pytest.raises(DataError):
            recover.recover(store)
    else:
        recover.recover(store)
