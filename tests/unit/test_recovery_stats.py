"""Recovery statistics: the numbers are those of a plain look at every line, whatever happened to logs and roll-up."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recovery import incidents, jsontext, layout, stats_lines, stats_rollup
from recovery.errors import DataError, UsageError
from recovery.flock import Limits
from recovery.incidents import Incident
from recovery.stats import recovery_stats
from recovery.store import FileStore
from support.meeting import held

PY = str(Path(__file__).resolve().parents[2] / "py")
TRUE = {"recovered", "rolled_back", "skipped", "returned"}
FALSE = {"failed", "rollback_failed", "parked", "escalated"}
NEITHER = {"cancelled", "refused"}


@pytest.fixture(autouse=True)
def by_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is much to read: nothing is left to the parser that the quick pattern takes."""
    monkeypatch.setattr(stats_lines, "_left", 0)


# --- the plain look


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _when(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _record(line: bytes, task: str) -> dict[str, Any] | None:
    """A failure or outcome line; None for anything else."""
    try:
        record = json.loads(line.decode(), parse_constant=_refuse)
        details = record["details"]
        if record["task_id"] != task or not details["incident"]:
            return None
        _when(record["timestamp"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    if not all(type(x) is str for x in (record["error_type"], record["strategy"], details["incident"])):
        return None
    if "outcome" in details:
        numbers = [details.get(name) for name in ("attempts", "seconds", "lock_wait")]
        if type(details["outcome"]) is not str or details["outcome"] not in TRUE | FALSE | NEITHER:
            return None
        if type(numbers[0]) is not int or not all(type(n) in (int, float) and 0 <= n < 1e9 for n in numbers):
            return None
    return dict(record)


def scan(root: Path, task_id: str | None = None, since: str | None = None) -> dict[str, Any]:
    """The same numbers by parsing every line of every log, each time."""
    start = _when(since) if since else datetime.min.replace(tzinfo=UTC)
    logs: dict[str, list[tuple[float, str, Path]]] = {}
    for path in (root / "logs/recovery").glob("*.jsonl"):
        match = re.fullmatch(r"(.+)_recovery(\.\d+)?\.jsonl", path.name)
        if match and task_id in (None, match[1]):
            age = math.inf if match[2] is None else -int(match[2][1:])
            logs.setdefault(match[1], []).append((age, path.name, path))
    unfinished = tasks = skipped = tries = seconds = waited = 0
    ends = []
    for task, files in logs.items():
        failing: dict[str, datetime] = {}
        ended: dict[str, dict[str, Any]] = {}
        affected = False
        for *_, path in sorted(files):
            for line in path.read_bytes().split(b"\n")[:-1]:
                record = _record(line, task)
                if record is None:
                    skipped += bool(line.strip())
                    continue
                incident, when = record["details"]["incident"], _when(record["timestamp"])
                affected = affected or when >= start
                if "outcome" in record["details"]:
                    ended.setdefault(incident, record)
                else:
                    failing[incident] = max(when, failing.get(incident, when))
        tasks += affected
        unfinished += sum(when >= start for incident, when in failing.items() if incident not in ended)
        ends += [record for record in ended.values() if _when(record["timestamp"]) >= start]
    by_outcome = Counter(end["details"]["outcome"] for end in ends)
    for end in ends:
        details = end["details"]
        tries += max(details["attempts"] - (details["outcome"] == "recovered"), 0)
        seconds += round(details["seconds"] * 1e6)
        waited += round(details["lock_wait"] * 1e6)
    good = sum(by_outcome[outcome] for outcome in TRUE)
    bad = sum(by_outcome[outcome] for outcome in FALSE)

    def by(field: str) -> dict[str, dict[str, int]]:
        table = {}
        for name in {end[field] for end in ends}:
            outcomes = [end["details"]["outcome"] for end in ends if end[field] == name]
            successful, failed = sum(o in TRUE for o in outcomes), sum(o in FALSE for o in outcomes)
            if successful + failed:
                table[name] = {"total": successful + failed, "successful": successful, "failed": failed}
        return table

    return {
        "success_rate": good / (good + bad) if good + bad else 1.0,
        "total_recoveries": good + bad,
        "successful_recoveries": good,
        "failed_recoveries": bad,
        "cancelled_recoveries": sum(by_outcome[outcome] for outcome in NEITHER),
        "unfinished_recoveries": unfinished,
        "by_strategy": by("strategy"),
        "by_error_type": by("error_type"),
        "by_outcome": {outcome: by_outcome[outcome] for outcome in incidents.OUTCOMES},
        "tasks_affected": tasks,
        "failed_tries": tries,
        "avg_retry_time": seconds / len(ends) / 1e6 if ends else 0.0,
        "lock_wait_time": waited / 1e6,
        "skipped_lines": skipped,
        "checkpoint_size": 0,
        "log_size": sum(path.stat().st_size for files in logs.values() for *_, path in files),
    }


# --- what the tests stand on


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    make(tmp_path)
    yield tmp_path
    strays = list(tmp_path.rglob("*.stage"))
    assert not strays, "stray files"


def make(root: Path) -> None:
    for name in ("postbox", "data/checkpoints", "logs/recovery"):
        (root / name).mkdir(parents=True)


@contextmanager
def opened(root: Path) -> Iterator[FileStore]:
    store = FileStore(str(root), Limits(5.0, 10.0, "test"))
    try:
        yield store
    finally:
        store.close()


def ask(root: Path, *args: Any, **more: Any) -> dict[str, Any]:
    """As a new process would: nothing is known but what the disk holds."""
    with opened(root) as store:
        return recovery_stats(store, *args, **more)


@pytest.fixture
def always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is worth a new roll-up."""
    monkeypatch.setattr(stats_rollup, "WORTH_TASKS", 1)


def log_of(root: Path, task: str, n: str = "") -> Path:
    return root / f"logs/recovery/{task}_recovery{n}.jsonl"


def line(task: str, incident: str, when: str, outcome: str = "", **more: Any) -> bytes:
    """A line as `Incident` writes it."""
    details: dict[str, Any] = {"incident": incident}
    numbers = {name: more.pop(name, 0) for name in ("attempts", "seconds", "lock_wait")}
    details |= {"outcome": outcome, **numbers} if outcome else {"attempt": 1}
    record = {
        "txid": incident + ("-end" if outcome else "-1"),
        "task_id": task,
        "timestamp": when,
        "error_type": "ConnectionError",
        "error_message": "refused",
        "strategy": "RETRY",
        "success": outcome in TRUE,
        "details": details,
    }
    return jsontext.dumps(record | more).encode() + b"\n"


def big_log(root: Path, task: str = "T", count: int = 4000) -> Path:
    """About a megabyte: an incident of two lines each minute."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    parts = []
    for n in range(count // 2):
        when = (began + timedelta(minutes=n)).strftime("%Y-%m-%dT%H:%M:%SZ")
        incident = when.replace("-", "").replace(":", "") + f"-{n:012x}"
        parts.append(line(task, incident, when))
        parts.append(line(task, incident, when, "recovered", attempts=2, seconds=1.5, lock_wait=0.25))
    path = log_of(root, task)
    path.write_bytes(b"".join(parts))
    os.utime(path, (1, 1))
    return path


def bytes_read() -> int:
    """By this process, of files and all else, after the kernel."""
    found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
    assert found
    return int(found[1])


def age(root: Path) -> None:
    """Let the logs' last change be long ago, so that their times alone tell of the next one."""
    later = datetime.now().timestamp() + 60
    with opened(root) as store:
        recovery_stats(store, clock=lambda: later)


DAY = "2026-11-23T10:00:0"


# --- the numbers


def test_the_numbers_of_a_log_that_can_be_counted_by_hand(root: Path) -> None:
    """One of each kind, in two tasks."""
    log_of(root, "A").write_bytes(
        line("A", "i1", f"{DAY}0Z")
        + line("A", "i1", f"{DAY}1Z")
        + line("A", "i1", f"{DAY}2Z", "recovered", attempts=3, seconds=2.5, lock_wait=0.5)
        + line("A", "i2", f"{DAY}3Z", "failed", attempts=1, seconds=0.5, lock_wait=0.25, error_type="OSError")
        + line("A", "i3", f"{DAY}4Z", "cancelled", attempts=1, seconds=3, strategy="SKIP")
        + line("A", "i6", f"{DAY}4Z", "refused", attempts=1, seconds=0)
        + line("A", "i4", f"{DAY}5Z")
        + b'{"torn'
        + b"\n[1]\n\n"
    )
    log_of(root, "B").write_bytes(line("B", "i5", f"{DAY}6Z", "escalated", strategy="ESCALATE") + b'{"still grow')
    (root / "data/checkpoints/A_checkpoint.json").write_bytes(b"12345")
    (root / "data/checkpoints/A_history.jsonl").write_bytes(b"123")
    (root / "data/checkpoints/B_history.jsonl").write_bytes(b"1")
    (root / "data/checkpoints/more").mkdir()
    failed = {"total": 1, "successful": 0, "failed": 1}
    expected = {
        "success_rate": 1 / 3,
        "total_recoveries": 3,
        "successful_recoveries": 1,
        "failed_recoveries": 2,
        "cancelled_recoveries": 2,
        "unfinished_recoveries": 1,
        "by_strategy": {"RETRY": {"total": 2, "successful": 1, "failed": 1}, "ESCALATE": failed},
        "by_error_type": {"ConnectionError": {"total": 2, "successful": 1, "failed": 1}, "OSError": failed},
        "by_outcome": {
            **dict.fromkeys(incidents.OUTCOMES, 0),
            "recovered": 1,
            "failed": 1,
            "cancelled": 1,
            "refused": 1,
            "escalated": 1,
        },
        "tasks_affected": 2,
        "failed_tries": 2 + 1 + 1 + 1 + 0,
        "avg_retry_time": 6.0 / 5,
        "lock_wait_time": 0.75,
        "skipped_lines": 2,
        "checkpoint_size": 9,
        "log_size": log_of(root, "A").stat().st_size + log_of(root, "B").stat().st_size,
    }
    assert ask(root) == expected
    assert scan(root) == expected | {"checkpoint_size": 0}
    mine = ask(root, "A")
    assert mine["checkpoint_size"] == 8
    assert mine["tasks_affected"] == 1
    assert mine["by_strategy"] == {"RETRY": {"total": 2, "successful": 1, "failed": 1}}
    late = ask(root, since=f"{DAY}3Z")
    assert (late["successful_recoveries"], late["failed_recoveries"], late["unfinished_recoveries"]) == (0, 2, 1)
    assert late["success_rate"] == 0.0


def test_a_workspace_without_logs_has_no_failures_and_gets_no_roll_up(root: Path) -> None:
    """Alarms calculate with it."""
    (root / "logs/recovery").rmdir()
    found = ask(root)
    assert found == scan(root)
    assert found["success_rate"] == 1.0
    assert not (root / layout.STATISTICS).exists()


def test_a_time_may_be_said_in_four_ways(root: Path) -> None:
    """A datetime with or without zone, seconds, ISO 8601; the very moment counts."""
    log_of(root, "A").write_bytes(line("A", "i1", f"{DAY}5Z", "failed") + line("A", "i2", f"{DAY}5.250001Z", "failed"))
    moment = datetime(2026, 11, 23, 10, 0, 5, tzinfo=UTC)
    for since in (moment, moment.replace(tzinfo=None), moment.timestamp(), f"{DAY}5Z", "2026-11-23T11:00:05+01:00"):
        assert ask(root, since=since)["failed_recoveries"] == 2, since
    for microseconds, expected in ((1, 1), (250_001, 1), (250_002, 0)):
        later = moment + timedelta(microseconds=microseconds)
        for since in (later, later.timestamp(), later.isoformat()):
            assert ask(root, since=since)["failed_recoveries"] == expected, since
    assert ask(root, since=0)["failed_recoveries"] == 2


@pytest.mark.parametrize("since", ["", "soon", math.nan, math.inf, 1e300, "2026-13-01"])
def test_what_is_no_time_is_refused(root: Path, since: Any) -> None:
    with pytest.raises(UsageError):
        ask(root, since=since)


def test_an_id_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(UsageError):
        ask(root, "../A")


def test_a_log_that_is_no_file_is_said_and_not_left_out(root: Path) -> None:
    """Numbers that silently lack a log would be wrong."""
    log_of(root, "A").mkdir()
    with pytest.raises(DataError):
        ask(root)


def test_a_log_that_is_a_link_inside_the_workspace_is_followed(root: Path) -> None:
    (root / "logs/elsewhere").write_bytes(line("A", "i1", f"{DAY}0Z", "failed"))
    log_of(root, "A").symlink_to("../elsewhere")
    assert ask(root)["failed_recoveries"] == ask(root)["failed_recoveries"] == 1


def test_the_writer_and_the_quick_pattern_agree() -> None:
    """Every line that `Incident` writes with plain details is read without a JSON parser."""
    incident = Incident(
        "T-1", "2026-11-23T10:00:00Z", agent="CC", op="complete", pid=12, load=0.5, args=["a", 1], to={"k": None}
    )
    failure = incident.failed(ValueError("größer"), "RETRY", 1, "2026-11-23T10:00:00Z")
    quoted = incident.failed(ValueError('a "b" \\ \t'), "RETRY", 2, "2026-11-23T10:00:00Z", "failed")
    for entries in ([failure, incident.ended("recovered", "2024-02-28T23:59:59Z", 3)], [failure, quoted]):
        rows = stats_lines.rows_of("".join(jsontext.dumps(entry) + "\n" for entry in entries).encode())
        assert [row[0] for row in rows] == ["T-1", "T-1"]
        for entry, row in zip(entries, rows):
            parsed = stats_lines.parsed(jsontext.dumps(entry), "T-1")
            assert parsed is not None
            assert [*row[:6]] == [*parsed[:6]]
            assert [float(number or 0) for number in row[6:9]] == list(parsed[6:9])


@pytest.mark.parametrize("by_parser", [0, stats_lines.SMALL])
@pytest.mark.parametrize(
    ("there", "instead", "skipped"),
    [
        (b"refused", b"re\nfused", 2),  # a string that goes on in the next line
        (b"refused", b"re\tfused", 1),
        (b"refused", b"re\\qfused", 1),
        (b"refused", b"re\\nfused", 0),
        (b"refused", b"re\xfffused", 1),
        (b'"attempts": 2', b'"attempts": 02', 1),
        (b'"task_id": "A"', b'"task_id": "B"', 1),
        (b'"task_id": "A"', b'"task_id": ""', 1),
        (b'"task_id": "A"', b'"task_id":"A"', 0),
        (b"}}\n", b', "outcome": "new"}}\n', 1),
        (b"}}\n", b"}}}\n", 1),
        (b"11-23T", b"02-30T", 1),
        (b"11-23T", b"11-31T", 1),
    ],
)
def test_what_only_looks_like_a_line_is_skipped(
    root: Path, there: bytes, instead: bytes, skipped: int, by_parser: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick pattern takes no line that a JSON parser would refuse or read otherwise; few go to the parser."""
    monkeypatch.setattr(stats_lines, "_left", by_parser)
    whole = line("A", "i", f"{DAY}0Z", "recovered", attempts=2)
    assert there in whole
    log_of(root, "A").write_bytes(whole.replace(there, instead))
    found = ask(root)
    assert found == scan(root)
    assert (found["skipped_lines"], found["total_recoveries"]) == (skipped, 0 if skipped else 1)


# --- whatever happens to logs and roll-up

TASKS = ("A", "B-1", "A_recovery.1")
times = st.sampled_from(
    [f"2026-11-23T10:00:{n:02}Z" for n in range(6)]
    + ["2026-11-23T10:00:02.5Z", "2026-11-23T12:00:03+02:00", "2026-11-23T10:00:04", "2024-02-29T00:00:00Z"]
    + ["2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00", "x"]
)
ids = st.sampled_from([f"2026112{n % 4}T100000Z-{n:012x}" for n in range(8)] + ["", "é"])
outcomes = st.sampled_from(["", "", "", *incidents.OUTCOMES, "new"])


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line of task A, in some layout; now and then one that is none."""
    more: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        more["error_type"] = draw(st.sampled_from(["OSError", "Größe", 'a"b', "", "\ud800", None]))
        more["error_message"] = draw(st.sampled_from(['say "x"', "\\", "\x00", "naïve", "x" * 900]))
        more["strategy"] = draw(st.sampled_from(["ROLLBACK", "SKIP"]))
    numbers = {
        "attempts": draw(st.sampled_from([0, 1, 2, 3, 1.0, True, -1, 10**12])) if draw(st.booleans()) else 2,
        "seconds": draw(st.sampled_from([0, 1, 0.25, 1.5e-3, 1e9, "1", 123456.789012])) if draw(st.booleans()) else 0.5,
        "lock_wait": draw(st.sampled_from([0, 7, 0.000001])),
    }
    whole = line("A", draw(ids), draw(times), draw(outcomes), **numbers, **more)
    kind = draw(st.integers(0, 15))
    if kind == 0:
        record = json.loads(whole)
        whole = json.dumps(dict(reversed(record.items())), separators=(",", ":")).encode() + b"\n"
    elif kind == 1:
        whole = draw(
            st.sampled_from(
                [
                    *(
                        b"\n",
                        b" \t\r\n",
                        b"[1]\n",
                        b"null\n",
                        b"{}\n",
                        b"\xff\xfe\n",
                        b'{"details": NaN}\n',
                        b"\0" * 40,
                    ),
                    *(whole[:-1] + b" " + whole, whole[:-1] + b"\r\n", whole.replace(b"refused", b"\xe4", 1)),
                    *(whole.replace(b'"A"', b'"B"'), whole.replace(b'"A"', b'""'), whole.replace(b"refused", b"a\nb")),
                    *(whole[:-3] + b', "outcome": "failed"}}\n', whole[:-3] + b', "incident": "z", "a": [1, {}]}}\n'),
                    *(whole[:-3] + b', "\\u0069ncident": "y"}}\n', whole.replace(b'", "task_id', b'\n", "task_id')),
                ]
            )
        )
    elif kind == 2:
        whole = whole[: draw(st.integers(0, len(whole)))]
    return whole


actions = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 2), st.lists(lines(), max_size=6)),
    st.tuples(st.just("append"), st.integers(0, 2), st.lists(lines(), max_size=6)),
    st.tuples(st.just("repeat"), st.integers(0, 2), st.integers(0, 5)),
    st.tuples(st.just("old"), st.integers(0, 2), st.lists(lines(), max_size=2)),
    st.tuples(st.just("cut"), st.integers(0, 2), st.integers(0, 3000)),
    st.tuples(st.just("replace"), st.integers(0, 2), st.lists(lines(), max_size=6)),
    st.tuples(st.just("rewrite"), st.integers(0, 2), st.lists(lines(), max_size=12)),
    st.tuples(st.just("rotate"), st.integers(0, 2), st.none()),
    st.tuples(st.just("number"), st.integers(0, 2), st.none()),
    st.tuples(st.just("remove"), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("forget"), st.just(0), st.integers(0, 3)),
    st.tuples(st.just("ask"), st.integers(0, 2), times),
    st.tuples(st.just("ask"), st.integers(0, 2), times),
)


def act(root: Path, kind: str, number: int, what: Any) -> None:
    task = TASKS[number]
    path = log_of(root, task)
    rotated = sorted(root.glob(f"logs/recovery/{task}_recovery.*.jsonl"))
    content = path.read_bytes() if path.exists() else b""
    mine = (
        [one.replace(b'"task_id": "A"', f'"task_id": "{task}"'.encode()) for one in what if one]
        if isinstance(what, list)
        else []
    )
    if kind == "append":
        with path.open("ab") as out:
            for one in mine:
                out.write(one)
    elif kind == "repeat" and content:
        again = content.splitlines(keepends=True)
        with path.open("ab") as out:
            out.write(again[what % len(again)])
    elif kind == "old" and rotated:
        with rotated[0].open("ab") as out:
            out.write(b"".join(mine))
    elif kind == "cut" and content:
        os.truncate(path, what % len(content))
    elif kind == "replace":
        path.with_suffix(".new").write_bytes(content[: len(content) // 2] + b"".join(mine))
        path.with_suffix(".new").replace(path)
    elif kind == "rewrite":
        path.write_bytes(b"".join(mine) + content[: len(content) // 3])
    elif kind == "rotate" and content:
        for n in (3, 2, 1):
            if log_of(root, task, f".{n}").exists():
                log_of(root, task, f".{n}").rename(log_of(root, task, f".{n + 1}"))
        path.rename(log_of(root, task, ".1"))
    elif kind == "number" and content:
        path.rename(log_of(root, task, f".{len(rotated) + 5}"))
    elif kind == "remove":
        for gone in rotated if what else [path]:
            gone.unlink(missing_ok=True)
    elif kind == "forget":
        roll_up = root / layout.STATISTICS
        if what == 0:
            roll_up.unlink(missing_ok=True)
        elif roll_up.exists():
            text = roll_up.read_bytes()
            roll_up.write_bytes((text[: len(text) // 2], text.replace(b"1", b"2"), b"")[what - 1])


@pytest.mark.parametrize("block", [1, 700, stats_rollup.BLOCK])
def test_the_numbers_are_those_of_a_plain_look_whatever_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Lines of all kinds, torn, foreign, repeated; logs cut, replaced, rewritten, rotated, removed; calls between."""
    monkeypatch.setattr(stats_rollup, "BLOCK", block)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(actions, min_size=5, max_size=18), st.booleans(), st.sampled_from([0.1, -1e9]))
    def run(plan: list[tuple[str, int, Any]], kept: bool, tick: float) -> None:
        monkeypatch.setattr(stats_rollup, "WORTH_TASKS", 1 if kept else 16)
        root = Path(tempfile.mkdtemp(dir=tmp_path))
        make(root)
        with opened(root) as lasting:
            for kind, number, what in [*plan, ("ask", 0, "2026-11-23T10:00:03Z")]:
                if kind != "ask":
                    act(root, kind, number, what)
                    continue
                since = None if what in ("x", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00") else what
                assert recovery_stats(lasting) == scan(root)
                assert recovery_stats(lasting, since=since) == scan(root, since=since)
                assert ask(root, TASKS[number], since) == scan(root, TASKS[number], since)
        assert not [*root.rglob("*.stage")], "stray files"
        shutil.rmtree(root)

    run()


# --- what is read and written


def test_what_was_counted_is_not_read_again(root: Path) -> None:
    """Nor after a rotation; an appended line costs its block at most."""
    path = big_log(root)
    age(root)
    kept = (root / layout.STATISTICS).stat()
    before = bytes_read()
    assert ask(root)["successful_recoveries"] == 2000
    assert bytes_read() - before < 50_000
    with path.open("ab") as out:
        out.write(line("T", "20270101T000000Z-0", "2027-01-01T00:00:00Z", "failed"))
    before = bytes_read()
    assert ask(root)["failed_recoveries"] == 1
    path.rename(log_of(root, "T", ".1"))
    path.write_bytes(line("T", "20270101T000000Z-1", "2027-01-01T00:00:00Z", "failed"))
    assert ask(root) == scan(root)
    assert (root / layout.STATISTICS).stat().st_ino == kept.st_ino, "written for a line or two"
    read = bytes_read() - before
    assert path.stat().st_size + log_of(root, "T", ".1").stat().st_size < read < 2 * 1_300_000, (
        "only the plain look reads all"
    )


def test_the_last_hour_of_a_long_log_reads_its_last_block(root: Path) -> None:
    path = big_log(root, count=10_000)
    age(root)
    assert path.stat().st_size > 10 * stats_rollup.BLOCK
    since = "2026-01-04T10:00:00Z"
    before = bytes_read()
    found = ask(root, since=since)
    assert bytes_read() - before < 3 * stats_rollup.BLOCK
    assert found == scan(root, since=since)
    assert found["total_recoveries"] == 5000 - (3 * 24 + 10) * 60


def test_an_incident_that_ends_again_is_looked_for_where_it_can_be(root: Path) -> None:
    """One block is read, not the log; nothing of it counts twice."""
    path = big_log(root, count=10_000)
    age(root)
    again = path.read_bytes().splitlines(keepends=True)[4001]
    with path.open("ab") as out:
        out.write(again)
    before = bytes_read()
    found = ask(root)
    assert bytes_read() - before < 3 * stats_rollup.BLOCK
    assert found == scan(root)
    assert found["total_recoveries"] == 5000


def test_a_roll_up_is_written_again_only_when_something_changed(root: Path, always_kept: None) -> None:
    path = big_log(root)
    ask(root)
    age(root)
    before = (root / layout.STATISTICS).stat()
    ask(root)
    ask(root, "T", since=5)
    assert (root / layout.STATISTICS).stat() == before
    with path.open("ab") as out:
        out.write(b"torn\n")
    assert ask(root)["skipped_lines"] == 1
    assert (root / layout.STATISTICS).stat().st_ino != before.st_ino


def test_another_task_stays_in_the_roll_up(root: Path, always_kept: None) -> None:
    """A question about one task keeps what is known of the others, and of other folders."""
    for task in TASKS:
        log_of(root, task).write_bytes(line(task, "i", f"{DAY}0Z", "failed"))
    (root / "logs/more").mkdir()
    (root / "logs/more/A_recovery.jsonl").write_bytes(line("A", "j", f"{DAY}0Z", "recovered"))
    assert ask(root)["failed_recoveries"] == 3
    assert ask(root, log_folder="logs/more")["successful_recoveries"] == 1
    log_of(root, "A").unlink()
    assert ask(root, "A")["failed_recoveries"] == 0
    kept = json.loads((root / layout.STATISTICS).read_bytes())
    assert sorted(kept["folders"]["logs/recovery"]) == ["A_recovery.1", "B-1"]
    assert list(kept["folders"]["logs/more"]) == ["A"]
    assert kept["format"] == stats_rollup.FORMAT


def test_another_versions_roll_up_is_thrown_away(
    root: Path, always_kept: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its format number, or by outcomes that it didn't know."""
    log_of(root, "A").write_bytes(line("A", "i", f"{DAY}0Z", "failed") + line("A", "j", f"{DAY}0Z", "new"))
    assert ask(root)["skipped_lines"] == 1
    with monkeypatch.context() as other:
        other.setattr(stats_rollup, "FORMAT", 2)
        other.setattr(stats_rollup, "_dumps", lambda value: b'{"logs/recovery": {"A": "of another shape"}}')
        ask(root)
    assert json.loads((root / layout.STATISTICS).read_bytes())["format"] == 2
    assert ask(root) == scan(root)
    assert json.loads((root / layout.STATISTICS).read_bytes())["format"] == stats_rollup.FORMAT


def test_a_damaged_roll_up_is_thrown_away(root: Path, always_kept: None) -> None:
    """Also where it still is JSON of the right shape."""
    log_of(root, "A").write_bytes(line("A", "i", f"{DAY}0Z", "failed"))
    ask(root)
    age(root)
    whole = (root / layout.STATISTICS).read_bytes()
    assert b'"failed",1]' in whole
    for damaged in (whole.replace(b'"failed",1]', b'"failed",7]'), whole[:-9], whole + b"x", b"", b"[]", b"\xff"):
        (root / layout.STATISTICS).write_bytes(damaged)
        assert ask(root) == scan(root)
        age(root)
        assert (root / layout.STATISTICS).read_bytes() == whole, "not rebuilt"


def test_it_works_without_orjson(root: Path, always_kept: None, monkeypatch: pytest.MonkeyPatch) -> None:
    big_log(root)
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert ask(root) == ask(root) == scan(root)


def test_sums_beyond_64_bits_stay_exact(root: Path, always_kept: None) -> None:
    ends = (
        line("A", f"i{n}", f"{DAY}0Z", "failed", attempts=999_999_999, seconds=999_999_999.5) for n in range(20_000)
    )
    log_of(root, "A").write_bytes(b"".join(ends))
    assert ask(root) == ask(root) == scan(root)
    kept = json.loads((root / layout.STATISTICS).read_bytes())["folders"]["logs/recovery"]["A"]
    assert kept[1][2] == str(20_000 * 999_999_999_500_000)


def test_numbers_come_back_where_the_roll_up_can_not_be_written(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And it is said."""
    big_log(root)
    (root / layout.STATISTICS).mkdir()
    assert ask(root) == scan(root)
    assert "data/statistics.json was not written" in caplog.text


def test_a_log_rewritten_within_the_clocks_tick_is_counted_again(root: Path, always_kept: None) -> None:
    """Same file, same length, same times: the bytes tell."""
    path = log_of(root, "A")
    path.write_bytes(line("A", "i", f"{DAY}0Z", "failed"))
    state = path.stat()
    assert ask(root, clock=lambda: state.st_mtime)["failed_recoveries"] == 1
    with path.open("r+b") as out:
        out.write(line("A", "i", f"{DAY}0Z", "parked"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert ask(root) == scan(root)
    log = stats_rollup.Log(state.st_dev, state.st_ino)
    for later, trusted in ((0.0, False), (stats_rollup.TICK / 2, False), (60.0, True)):
        log.remember(state, state.st_ctime + later)
        assert log.is_untouched(state) is trusted


def test_a_log_whose_middle_was_mended_is_counted_again(root: Path) -> None:
    """Same file, same length, far before the bytes that are compared: its time of change tells."""
    path = big_log(root)
    age(root)
    whole = path.read_bytes()
    with path.open("r+b") as out:
        out.write(whole.replace(b'"RETRY"', b'"SKIP!"', 4))
    assert path.stat().st_size == len(whole)
    assert ask(root) == scan(root)
    assert ask(root)["by_strategy"]["SKIP!"]["total"] == 2


def test_a_rotated_log_that_grows_is_read_before_the_newer_one(root: Path, always_kept: None) -> None:
    """Of two outcomes of one incident the first counts, also when it was written last."""
    log_of(root, "A", ".1").write_bytes(line("A", "i", f"{DAY}0Z"))
    log_of(root, "A").write_bytes(line("A", "j", f"{DAY}1Z", "failed"))
    age(root)
    with log_of(root, "A", ".1").open("ab") as out:
        out.write(line("A", "j", f"{DAY}2Z", "recovered"))
    found = ask(root)
    assert found == scan(root)
    assert (found["successful_recoveries"], found["failed_recoveries"], found["unfinished_recoveries"]) == (1, 0, 1)


def test_an_unfinished_incident_counts_by_its_newest_failure(root: Path) -> None:
    """Whichever line says it: clocks go back."""
    log_of(root, "A").write_bytes(line("A", "i", f"{DAY}1Z") + line("A", "i", f"{DAY}5Z") + line("A", "i", f"{DAY}2Z"))
    assert [ask(root, since=f"{DAY}{n}Z")["unfinished_recoveries"] for n in (1, 5, 6)] == [1, 1, 0]


def test_a_roll_up_that_another_is_writing_is_left_to_him(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a word, and without waiting for the whole of one's own timeout."""
    monkeypatch.setattr(stats_rollup, "PATIENCE", 0.02)
    big_log(root)
    with held(root / "data/.statistics.json.lock"):
        assert ask(root) == scan(root)
    assert not caplog.text
    assert not (root / layout.STATISTICS).exists()
    ask(root)
    assert (root / layout.STATISTICS).exists()


def test_the_oldest_log_has_the_highest_number(root: Path) -> None:
    """Of two outcomes of one incident the older counts."""
    for n, outcome in (("", "skipped"), (".2", "failed"), (".10", "recovered"), (".9", "parked")):
        log_of(root, "A", n).write_bytes(line("A", "i", f"{DAY}0Z", outcome))
    assert ask(root)["by_outcome"]["recovered"] == 1
    assert ask(root) == scan(root)


@pytest.mark.parametrize("gone", ["", ".1", ".2"])
def test_a_log_that_vanished_counts_no_more(root: Path, always_kept: None, gone: str) -> None:
    """The incident that ended in it is under way again, as far as the logs tell."""
    log_of(root, "A", ".2").write_bytes(line("A", "i", f"{DAY}0Z"))
    log_of(root, "A", ".1").write_bytes(line("A", "j", f"{DAY}0Z") + line("A", "i", f"{DAY}1Z", "failed"))
    log_of(root, "A").write_bytes(line("A", "j", f"{DAY}2Z", "recovered"))
    age(root)
    assert ask(root)["total_recoveries"] == 2
    log_of(root, "A", gone).unlink()
    assert ask(root) == scan(root)


def test_outcomes_of_any_order_are_told_from_repeats_line_by_line(root: Path, always_kept: None) -> None:
    """A block that grows by a line a call knows all of its incidents."""
    order = (5, 2, 8, 1, 9, 4)
    for again in range(2):
        for n in order:
            with log_of(root, "A").open("ab") as out:
                out.write(line("A", f"i{n}", f"{DAY}{n}Z", "parked" if again else "failed"))
            age(root)
            assert ask(root) == scan(root)
            assert ask(root, since=f"{DAY}4Z") == scan(root, since=f"{DAY}4Z")
    assert ask(root)["failed_recoveries"] == len(order)


# --- processes

CHILD = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from recovery import stats, stats_rollup, steps
from recovery.flock import Limits
from recovery.store import FileStore
stats_rollup.WORTH_TASKS = 1
steps.install(os.environ)
print(json.dumps(stats.recovery_stats(FileStore(sys.argv[2], Limits(5.0, 10.0, "child")))))
"""


def child(root: Path, fault: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, PY, str(root)],
        env={**os.environ, "RECOVERY_FAULT": fault},
        capture_output=True,
        text=True,
        timeout=60,
    )


def steps_of(root: Path, tmp_path: Path) -> list[str]:
    child(root, f"*=list={tmp_path / 'steps'}")
    return (tmp_path / "steps").read_text().split()


@pytest.mark.parametrize("first", [True, False])
def test_a_kill_at_any_step_of_writing_the_roll_up_costs_nothing(
    tmp_path: Path, always_kept: None, first: bool
) -> None:
    """The next call gives the numbers of a plain look, and tidies."""
    root = tmp_path / "root"
    make(root)

    def prepare() -> None:
        (root / layout.STATISTICS).unlink(missing_ok=True)
        path = log_of(root, "A")
        path.write_bytes(line("A", "i", f"{DAY}0Z", "failed") + line("A", "j", f"{DAY}1Z"))
        if not first:
            ask(root)
            with path.open("ab") as out:
                out.write(line("A", "j", f"{DAY}2Z", "recovered", attempts=2))

    prepare()
    found = steps_of(root, tmp_path)
    assert "put:1" in found
    assert "put-renamed:1" in found
    for step in found:
        prepare()
        done = child(root, f"{step}=kill")
        assert done.returncode == -9, f"{step}: {done}"
        assert ask(root) == scan(root), step
        with log_of(root, "A").open("ab") as out:
            out.write(b"more\n")
        assert ask(root) == scan(root), step
        assert not [*root.rglob("*.stage")], f"{step}: stray files"


def test_a_full_disk_costs_the_roll_up_and_not_the_numbers(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root)
    log_of(root, "A").write_bytes(line("A", "i", f"{DAY}0Z", "failed"))
    for step in ("stage-written", "put", "lock"):
        done = child(root, f"{step}=ENOSPC")
        assert json.loads(done.stdout) == scan(root), f"{step}: {done}"
    assert not [*root.rglob("*.stage")], "stray files"


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from recovery.flock import Limits
from recovery.incidents import Incident, write
from recovery.store import FileStore
store = FileStore(sys.argv[2], Limits(30.0, 60.0, "writer"))
for n in range(100):
    incident = Incident(sys.argv[3], store.now())
    for entry in (incident.failed(OSError("no"), "RETRY", 1, store.now()), incident.ended("recovered", store.now(), 2)):
        store.append(f"logs/recovery/{sys.argv[3]}_recovery.jsonl", entry, sync=False)
"""


def test_askers_and_writers_do_not_hinder_each_other(root: Path, always_kept: None) -> None:
    """Numbers only grow while tasks are at work, and are exact at the end, whoever wrote the roll-up."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, PY, str(root), task]) for task in ("A", "B", "B")]
    try:
        with opened(root) as one, opened(root) as two:
            last = 0
            while any(writer.poll() is None for writer in writers):
                for store in (one, two):
                    found = recovery_stats(store)
                    assert found["total_recoveries"] >= last
                    assert found["skipped_lines"] == 0
                    last = found["total_recoveries"]
    finally:
        codes = [writer.wait() for writer in writers]
    assert codes == [0, 0, 0]
    assert ask(root) == scan(root)
    assert ask(root)["successful_recoveries"] == 300
    assert ask(root)["unfinished_recoveries"] == 0
