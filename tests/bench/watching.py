"""`recovery top`: its line beside a completion, and its screen of a large crowd's workspace; whole processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import crowd
from contenders import OURS, Contender
from scratch import Workspace, tasks_for
from table import Report, Target
from timing import CommandFailed, run

RECOVERY = str(OURS.with_name("recovery"))
SMALL = 9_000


class Watching:
    """The sections about top."""

    def __init__(self, report: Report, scratch: Path, everybody: Sequence[Contender], quick: bool) -> None:
        self.report, self.scratch, self.quick = report, scratch, quick
        self.ours = next((one for one in everybody if one.ours), None)
        self.errors = scratch / "stderr"

    def line(self) -> None:
        """`top --line` and a completion in the same workspace, in turns: an outbox of 9 KB, a task claimed or none."""
        if self.ours is None:
            return
        rounds = 10 if self.quick else 60
        self.report.section(f"recovery top --line beside a completion, 9 KB outbox ({rounds} rounds)", "ms")
        for name, claimed in (("nothing claimed", False), ("a task claimed, one escalated", True)):
            workspace = Workspace(self.scratch / f"line-{claimed}" / "root")
            lines: list[float] = []
            completions: list[float] = []
            env = {**self.ours.env(workspace.root), "RECOVERY_SESSION": "bench"}
            try:
                for number in range(rounds + 1):  # the first makes folders and lock files
                    pairs = workspace.fill(tasks_for(SMALL))
                    if claimed:
                        run([RECOVERY, "claim", *pairs[1]], env, self.errors)
                        note = workspace.root / f"logs/recovery/{pairs[2][1]}_escalation.json"
                        note.write_text('{"agent_id": "A1", "error_type": "Denied", "error_message": "no permission"}')
                    took = run(self.ours.argv(workspace.root, *pairs[0]), env, self.errors)
                    completions += [took] if number else []
                    took = run([RECOVERY, "top", "--line"], env, self.errors)
                    lines += [took] if number else []
            except CommandFailed as error:
                self.report.failed(str(error))
            self.report.row(name, lines, completions, Target(1.5))

    def once(self) -> None:
        """60 agents, 10,000 tasks, a million log records of a month, or of one day, counted once by `stats` before."""
        rounds = 5 if self.quick else 25
        records = 20_000 if self.quick else 1_000_000
        for days, name in ((30, "of a month"), (1, "of one day")):
            root = self.scratch / f"crowd-{days}"
            made = crowd.make(root, time.time(), records=records, days=days)
            if days == 1:  # of a month only the last day is read; of this all, unless it was counted before
                subprocess.run([RECOVERY, "-C", str(root), "stats", "--json"], capture_output=True, check=True)
            self.report.section(
                f"recovery top, 60 agents, 10,000 tasks, {made:,} records {name} ({rounds} rounds)", "ms"
            )
            env = {key: value for key, value in os.environ.items() if not key.startswith("RECOVERY_")}
            times: dict[str, list[float]] = {"--once": [], "--line": []}
            try:
                for number in range(rounds + 1):
                    for option, took in times.items():
                        one = run([RECOVERY, "-C", str(root), "top", option], env, self.errors)
                        if number:
                            took.append(one)
                        elif option == "--once":
                            self.report.row("--once, the first call", [one], None, None)
            except CommandFailed as error:
                self.report.failed(str(error))
            self.report.row("--once", times["--once"], None, Target(500, absolute=True))
            self.report.row("--line", times["--line"], None, None)
