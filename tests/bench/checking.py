"""`health_check.sh` against the find and du that the documentation puts into cron, and a start of Python."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from contenders import REPOSITORY
from table import Report, Target
from timing import interleaved

OURS = REPOSITORY / "bin" / "health_check.sh"
FILES = 10_000
#: What people run by hand: old locks, and how large logs and checkpoints are; then a Python that does nothing.
PAIR = """
find "$1" -name '*.lock' -mmin +60
du -sh "$2/logs/recovery" "$2/data/checkpoints"
"$3" -c ''
"""
#: An interpreter itself: what stands for python3 on a developer's PATH may be a script that looks for one first.
PYTHON = os.path.realpath(sys.executable)


class Checking:
    """10,000 lock files and 10,000 recovery logs, written to over a year: 27 of them within the last day."""

    def __init__(self, report: Report, scratch: Path, quick: bool) -> None:
        self.report, self.scratch, self.quick = report, scratch, quick

    def health(self) -> None:
        """All checks; the certificate's warning is put aside, for everything but 0 is a failure here."""
        rounds = 10 if self.quick else 60
        root, locks = self.scratch / "health", self.scratch / "health-locks"
        for folder in (root / "postbox/CC", root / "logs/recovery", root / "data/checkpoints", locks / "tasks"):
            folder.mkdir(parents=True)
        (root / "postbox/CC/outbox.json").write_text('{"tasks": []}')
        now = time.time()
        for n in range(FILES):
            (locks / f"tasks/T-{n}.lock").touch()
            path = root / f"logs/recovery/T-{n}_recovery.jsonl"
            path.write_text(_line(n, now - n * 365 * 86400 / FILES))
            for one in (locks / f"tasks/T-{n}.lock", path):
                os.utime(one, (now - n * 365 * 86400 / FILES,) * 2)
        env = {**os.environ, "ORCHESTRATION_LOCK_DIR": str(locks)}
        contenders = {
            "ours": [str(OURS), "-C", str(root), "--skip", "certificate"],
            "find + du + python3": ["sh", "-c", PAIR, "sh", str(locks), str(root), PYTHON],
        }
        times = interleaved(contenders, env, rounds, self.scratch / "stderr", self.report.failed)
        self.report.section(f"health_check.sh, {FILES} locks and {FILES} logs ({rounds} rounds)", "ms")
        self.report.rows(times, {"find + du + python3": Target(1.0)})


def _line(n: int, when: float) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    return (
        f'{{"txid": "{n}-end", "task_id": "T-{n}", "timestamp": "{stamp}", "error_type": "E", "error_message": "m", '
        f'"strategy": "RETRY", "success": true, "details": {{"incident": "{n}", "outcome": "recovered", '
        '"attempts": 2, "seconds": 2.5, "lock_wait": 0.0}}\n'
    )
