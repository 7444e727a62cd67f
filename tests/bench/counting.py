"""recovery_stats against a plain loop over every line, on the same logs."""

from __future__ import annotations

import importlib
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contenders import REPOSITORY
from table import Report, Target

#: Of what a log holds: errors, outcomes and how often each.
_ERRORS = ("ConnectionError", "TimeoutError", "OSError")
_OUTCOMES = ("recovered", "recovered", "recovered", "failed", "escalated", "rolled_back")
_MESSAGE = "[Errno 111] Connection refused while talking to the build server"


class Counting:
    """The section about statistics: a first question, and one after nothing or little has changed."""

    def __init__(self, report: Report, scratch: Path, quick: bool) -> None:
        self.report, self.scratch, self.quick = report, scratch, quick

    def statistics(self) -> None:
        """Section 7: one long log, and many short ones."""
        sys.path.append(str(REPOSITORY / "py"))
        try:
            self.ask = importlib.import_module("recovery.stats").recovery_stats
            self.store = importlib.import_module("recovery.store").FileStore
            self.limits = importlib.import_module("recovery.flock").Limits
        except ImportError as error:
            self.report.failed(f"recovery.stats: {error}")
            return
        records, rounds = (50_000, 3) if self.quick else (1_000_000, 5)
        self.report.section(f"recovery_stats, {records:,} records ({rounds} rounds)", "ms")
        for files, limit in ((1, 0.10), (500 if self.quick else 10_000, 0.15)):
            root = self.scratch / f"statistics-{files}"
            size = fill(root, files, records)
            self._rows(root, f"{files:,} log{'s' if files > 1 else ''}, {size / 1e6:.0f} MB: ", rounds, limit)

    def _rows(self, root: Path, prefix: str, rounds: int, limit: float) -> None:
        loop: list[float] = []
        took: dict[str, list[float]] = {"first": [], "again": [], "one line later": [], "the last hour": []}
        newest = max(path for path in (root / "logs/recovery").iterdir())
        for _ in range(rounds):
            (root / "data/statistics.json").unlink(missing_ok=True)
            started = time.perf_counter()
            expected = plain_loop(root)
            loop.append((time.perf_counter() - started) * 1000)
            for what in took:
                since = None
                if what == "one line later":
                    with newest.open("ab") as out:
                        out.write(newest_line(newest))
                if what == "the last hour":
                    since = json.loads(newest_line(newest))["timestamp"][:14] + "00:00Z"
                store = self.store(str(root), self.limits(30.0, 60.0, "bench"))  # as a new process: it knows nothing
                started = time.perf_counter()
                found = self.ask(store, since=since)
                took[what].append((time.perf_counter() - started) * 1000)
                store.close()
                if since is None and counts(found) != expected:
                    self.report.failed(f"recovery_stats, {what}: {counts(found)}, the plain loop: {expected}")
        targets = {"first": Target(0.70), "again": Target(limit), "one line later": Target(limit)}
        for what, times in took.items():
            self.report.row(f"{prefix}{what} / a plain loop", times, loop, targets.get(what))


def counts(found: dict[str, Any]) -> tuple[int, int, int, int]:
    names = ("successful_recoveries", "failed_recoveries", "unfinished_recoveries", "failed_tries")
    first, second, third, fourth = (int(found[name]) for name in names)
    return first, second, third, fourth


def plain_loop(root: Path) -> tuple[int, int, int, int]:
    """Every line through json.loads, the way one would write it first; the same counts."""
    ended: set[str] = set()
    failing: set[str] = set()
    good = bad = tries = 0
    by_strategy: Counter[tuple[str, bool]] = Counter()
    by_error_type: Counter[tuple[str, bool]] = Counter()
    for name in os.listdir(root / "logs/recovery"):
        for line in open(root / "logs/recovery" / name, encoding="utf-8"):
            record = json.loads(line)
            details = record["details"]
            incident = details["incident"]
            if "outcome" not in details:
                failing.add(incident)
            elif incident not in ended:
                ended.add(incident)
                success = record["success"]
                good, bad = good + success, bad + (not success)
                tries += details["attempts"] - (details["outcome"] == "recovered")
                by_strategy[record["strategy"], success] += 1
                by_error_type[record["error_type"], success] += 1
    return good, bad, len(failing - ended), tries


def newest_line(log: Path) -> bytes:
    with log.open("rb") as lines:
        lines.seek(-4096, os.SEEK_END)
        return lines.read().splitlines(keepends=True)[-1]


def fill(root: Path, files: int, records: int) -> int:
    """Logs of `records` lines in all, spread over `files` tasks, an incident about every ten seconds; their bytes."""
    for name in ("postbox", "data", "logs/recovery"):
        (root / name).mkdir(parents=True)
    draw = random.Random(files)
    size = 0
    for number in range(files):
        lines = _lines(draw, f"TASK-{number:05}")
        path = root / f"logs/recovery/TASK-{number:05}_recovery.jsonl"
        with path.open("w", encoding="utf-8") as out:
            for _ in range(records // files):
                out.write(next(lines))
        size += path.stat().st_size
    time.sleep(0.2)  # logs that were written to a moment ago are looked at more closely
    return size


def _lines(draw: random.Random, task: str) -> Iterator[str]:
    now = 1_700_000_000.0
    while True:
        now += draw.uniform(0, 20)
        began = time.gmtime(now)
        incident = f"{time.strftime('%Y%m%dT%H%M%SZ', began)}-{draw.getrandbits(48):012x}"
        error, tries, outcome = draw.choice(_ERRORS), draw.choice((1, 1, 2, 3)), draw.choice(_OUTCOMES)
        success = outcome in ("recovered", "rolled_back")
        for attempt in range(1, tries + 1):
            now += draw.uniform(0, 2)
            yield _line(task, incident, now, error, f"-{attempt}", False, {"attempt": attempt})
        if draw.random() < 0.99:
            end = {"outcome": outcome, "attempts": tries + (outcome == "recovered"), "seconds": round(now % 9, 6)}
            yield _line(task, incident, now, error, "-end", success, {**end, "lock_wait": round(now % 0.1, 6)})


def _line(task: str, incident: str, now: float, error: str, end: str, success: bool, more: dict[str, Any]) -> str:
    record = {
        "txid": incident + end,
        "task_id": task,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "error_type": error,
        "error_message": _MESSAGE,
        "strategy": "RETRY",
        "success": success,
        "details": {"incident": incident, **more, "agent": "CC"},
    }
    return json.dumps(record) + "\n"
