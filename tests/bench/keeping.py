"""The light cleanup behind a command that has found the change log grown long: it promises a second at most."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from contenders import REPOSITORY
from explaining import fill_changes
from table import Report, Target
from timing import interleaved

#: Whole processes: the interpreter's start is in it.
LIGHT = "import sys; sys.path.insert(0, sys.argv[1]); from recovery import cleanup; cleanup.light(sys.argv[2])"
#: Tasks with two checkpoint files each: a workspace within its budget, and one that nobody ever cleaned up.
TASKS = (10_000, 50_000)


class Keeping:
    """The section about the light cleanup: a change log to be put aside, among more and more checkpoints."""

    def __init__(self, report: Report, scratch: Path, quick: bool) -> None:
        self.report, self.scratch, self.quick = report, scratch, quick

    def light(self) -> None:
        """What it must have done each time: the log is put aside and compressed."""
        rounds = 1 if self.quick else 10
        self.report.section(f"the light cleanup, a change log of 48 MB to be put aside ({rounds} rounds)", "ms")
        log = fill_changes(self.scratch / "cleanup-log")
        for tasks in TASKS[:1] if self.quick else TASKS:
            root = self.scratch / f"cleanup-{tasks}"
            _fill(root, tasks)
            changes = root / "data" / "changes"

            def prepare(changes: Path = changes) -> None:
                shutil.rmtree(changes, ignore_errors=True)
                changes.mkdir()
                shutil.copy(log, changes / log.name)

            argv = [sys.executable, "-c", LIGHT, str(REPOSITORY / "py"), str(root)]
            times = interleaved({"": argv}, os.environ, rounds, self.scratch / "stderr", self.report.failed, prepare)
            if [path.name for path in changes.iterdir()] != [f"{log.name}.0001.gz"]:
                self.report.failed(f"the light cleanup among {tasks * 2} files did not put the log aside")
            self.report.row(f"among {tasks * 2:,} other files", times[""], None, Target(2000, absolute=True))


def _fill(root: Path, tasks: int) -> None:
    folder = root / "data" / "checkpoints"
    folder.mkdir(parents=True)
    (root / "postbox/CC").mkdir(parents=True)
    (root / "postbox/CC/outbox.json").write_text('{"tasks": []}')
    for n in range(tasks):
        made = f'"task_id": "T-{n}", "checkpoint_id": "c{n}", "timestamp": "2026-11-25T00:00:00Z", "state": "running"'
        line = f'{{"txid": "c{n}", {made}, "data": {{}}, "metadata": {{}}}}\n'
        (folder / f"T-{n}_history.jsonl").write_text(line)
        (folder / f"T-{n}_checkpoint.json").write_text(line)
