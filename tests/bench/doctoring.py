"""`recovery doctor` over healthy outboxes against `jq empty`, which says no more than that each is JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from contenders import REPOSITORY
from scratch import Workspace, tasks_for
from table import Report, Target
from timing import interleaved

OURS = REPOSITORY / "bin" / "recovery"
_SIZE = 9_000


class Doctoring:
    """The section about the doctor; whole processes, taking turns."""

    def __init__(self, report: Report, scratch: Path, jqs: Sequence[str], quick: bool) -> None:
        self.report, self.scratch, self.jqs, self.quick = report, scratch, jqs, quick

    def healthy(self) -> None:
        """Every outbox of many agents is looked through, and found whole."""
        agents, rounds = 1_000, 5 if self.quick else 25
        names = [f"A{number:04}" for number in range(agents)]
        space = Workspace(self.scratch / "doctor", names)
        space.fill(tasks_for(_SIZE))
        space.progress.unlink()
        outboxes = [str(space.outbox(name)) for name in names]
        size = sum(os.path.getsize(path) for path in outboxes) / agents
        contenders = {"ours": [str(OURS), "doctor", "-C", str(space.root)]}
        contenders |= {f"{jq} empty": [jq, "empty", *outboxes] for jq in self.jqs}
        times = interleaved(contenders, os.environ, rounds, self.scratch / "stderr", self.report.failed)
        self.report.section(
            f"recovery doctor, {agents:,} healthy outboxes of {size / 1000:.1f} KB ({rounds} rounds)", "ms"
        )
        self.report.rows(times, {f"{jq} empty": Target(2.0) for jq in self.jqs})
