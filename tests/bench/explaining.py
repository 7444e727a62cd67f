"""`recovery explain` where the logs are long: whole processes, against what we want (nobody else does this)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from contenders import REPOSITORY
from scratch import Workspace
from table import Report, Target
from timing import interleaved

OURS = REPOSITORY / "bin" / "recovery"
_LINES = 100_000
_TASK = "TASK-77"


class Explaining:
    """The section about explain: a task's own log of 100,000 lines, and a change log in which it stands once."""

    def __init__(self, report: Report, scratch: Path, quick: bool) -> None:
        self.report, self.scratch, self.quick = report, scratch, quick

    def long_logs(self) -> None:
        """Each log alone, and the overview; the change log is as long as it was before there was a rotation."""
        rounds = 5 if self.quick else 25
        self.report.section(f"recovery explain, logs of {_LINES:,} lines, whole process ({rounds} rounds)", "ms")
        for kind, fill in (("recovery log", _failures), ("change log, one line is the task's", fill_changes)):
            space = Workspace(self.scratch / f"explain-{fill.__name__}", ["CC"])
            outbox = {"agent_id": "CC", "tasks": [{"task_id": _TASK, "status": "pending"}], "history": []}
            space.outbox("CC").parent.mkdir(parents=True)
            space.outbox("CC").write_text(json.dumps(outbox))
            log = fill(space.root)
            size = f"{log.stat().st_size / 1e6:.0f} MB"
            ours = [str(OURS), "explain", "-C", str(space.root)]
            asked = {"the task": [*ours, _TASK], "the overview": ours}
            times = interleaved(asked, os.environ, rounds, self.scratch / "stderr", self.report.failed)
            for name, took in times.items():
                self.report.row(f"{kind}, {size}: {name}", took, None, Target(300, absolute=True))


def _failures(root: Path) -> Path:
    log = root / "logs" / "recovery" / f"{_TASK}_recovery.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        for number in range(_LINES):
            details = {"incident": f"i{number // 3}", "attempt": number % 3 + 1, "agent": "CC", "op": "complete"}
            entry = {"txid": f"x{number}", "task_id": _TASK, "timestamp": "2026-11-25T00:00:00Z", "details": details}
            more = {"error_type": "ConnectionError", "error_message": "no network", "strategy": "RETRY"}
            out.write(json.dumps({**entry, **more, "success": False}) + "\n")
    return log


def fill_changes(root: Path) -> Path:
    log = root / "data" / "changes" / "2026-11.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        for number in range(_LINES):
            task = _TASK if number == 7 else f"OTHER-{number}"
            path = ["tasks", ["task_id", task], "status"]
            ops = [{"op": "set", "path": path, "before": '"pending"', "after": '"pending"'}]
            file = {"name": "postbox/CC/outbox.json", "before": "a" * 40, "after": "b" * 40, "ops": ops}
            by = {"pid": 1, "uid": 0, "host": "bench"}
            made = {"seq": number + 1, "txid": f"20261125T000000Z-{number:012x}", "time": "2026-11-25T00:00:00Z"}
            what = {"op": "note", "agent": "CC", "task": task, "by": by, "files": [file], "derived": []}
            out.write(json.dumps({**made, **what}) + "\n")
    return log
