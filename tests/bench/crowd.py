"""A workspace of a large crowd: many agents with many tasks each, and a month of recovery logs behind them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

DAY = 86400.0
#: Of each hundred tasks: completed, failed, claimed; the rest waits, a part of it for another task.
COMPLETED, FAILED, CLAIMED = 55, 1, 2
#: Lines of one incident: two tries, and its end.
_LINES = 3
_OUTCOMES = ("recovered",) * 19 + ("failed",)
_ERRORS = ("ConnectionError", "LockTimeout", "TimeoutError", "CommandFailed")


def make(
    root: Path, now: float, agents: int = 60, tasks: int = 10_000, records: int = 1_000_000, days: int = 30
) -> int:
    """Fill `root`; every task has a log, whose lines end at its own moment of the last `days`.  Returns the records.

    The logs' times of writing are those of their last lines, so that what is recent can be told as in real life.
    """
    for folder in ("data/changes", "data/checkpoints", "logs/recovery", ".sprint"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    each = tasks // agents
    for number in range(agents):
        agent = f"A{number:02d}"
        outbox = root / "postbox" / agent / "outbox.json"
        (outbox.parent / "inbox").mkdir(parents=True)
        entries = [_task(agent, n, number * each + n, now) for n in range(each)]
        body = {"agent_id": agent, "agent_name": agent, "version": "1.0.0", "tasks": entries, "history": []}
        outbox.write_text(json.dumps(body, indent=2) + "\n")
    written = 0
    most = records // (agents * each) // _LINES * _LINES
    for number in range(agents * each):
        written += _log(root, number, each, most, now - DAY * days * (number + 1) / (agents * each), now)
    return written


def _stamp(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _id(agent: str, n: int) -> str:
    return f"{agent}-TASK-{n:04d}"


def _task(agent: str, n: int, number: int, now: float) -> dict[str, object]:
    place = number % 100
    entry: dict[str, object] = {
        "task_id": _id(agent, n),
        "title": f"Rotate the credentials of service {number} and document the process",
        "priority": ("LOW", "MEDIUM", "HIGH", "CRITICAL")[number % 4],
        "status": "pending",
        "created_at": _stamp(now - DAY * (1 + number % 29)),
        "estimated_hours": 1 + number % 7,
        "description": "Replace every exposed key, clean the history, and put in place a way to manage secrets.",
        "dependencies": [],
    }
    if place < COMPLETED:
        entry.update(status="completed", completed_at=_stamp(now - DAY), completion_message="done and documented")
    elif place < COMPLETED + FAILED:
        entry.update(status="failed", failed_at=_stamp(now - number), failure_reason="no connection to the vault")
    elif place < COMPLETED + FAILED + CLAIMED:
        claim = {"generation": 1, "state": "held", "kind": "session", "owner": {"session": f"codex-{number}"}}
        entry.update(status="in_progress", claim={**claim, "by": f"session codex-{number}", "since": _stamp(now - 900)})
    elif place % 4 == 0 and n:
        entry["dependencies"] = [_id(agent, n - 1)]
    return entry


def _log(root: Path, number: int, each: int, lines: int, last: float, now: float) -> int:
    agent, n = f"A{number // each:02d}", number % each
    task = _id(agent, n)
    out = []
    for line in range(lines):
        incident, step = divmod(line, _LINES)
        when = min(last - (lines - 1 - line), now)
        error = _ERRORS[(number + incident) % len(_ERRORS)]
        details: dict[str, object] = {"incident": f"{_stamp(when - step)}-{number:06x}{incident:04x}"}
        outcome = _OUTCOMES[(number + incident) % len(_OUTCOMES)] if step == _LINES - 1 else ""
        if outcome:
            details.update(outcome=outcome, attempts=3, seconds=2.5, lock_wait=0.0)
        else:
            details["attempt"] = step + 1
        details.update(agent=agent, op="complete", code=75)
        entry = {
            "txid": f"{details['incident']}-{step + 1 if not outcome else 'end'}",
            "task_id": task,
            "timestamp": _stamp(when),
            "error_type": error,
            "error_message": "the other side did not answer in time",
            "strategy": "RETRY",
            "success": outcome == "recovered",
            "details": details,
        }
        out.append(json.dumps(entry))
    path = root / f"logs/recovery/{task}_recovery.jsonl"
    path.write_text("\n".join(out) + "\n")
    os.utime(path, (last, last))
    return lines
