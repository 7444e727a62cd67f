"""Agents that take tasks and are shot: every task is completed exactly once, and never has two owners at a time.

    python tests/long/agents.py [--agents 60] [--tasks 2000] [--seed N] [--dir DIR]

Each agent runs `recovery run BOX --next -- work` again and again. One run in four is killed with -9 at a moment by
chance: the wrapper, its command's group, or both; `recovery sweep` gives back what they leave. The work holds a lock of
its own on the task, so that a second owner is caught in the act. A command may run again after its owner died; that it
is completed once is read from the change log.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

RECOVERY = str(Path(__file__).resolve().parents[2] / "bin" / "recovery")
BOXES = 4
#: What an agent does: hold the task, for a moment.  `$1` is where the locks and the list of crimes are.
WORK = """
exec 8>"$1/$RECOVERY_TASK" || exit 1
flock -n 8 || { echo "$RECOVERY_CLAIM" >>"$1/../two-owners"; exit 1; }
sleep "0.0$2"
echo "$RECOVERY_CLAIM"
"""
#: What `recovery run` says when there is nothing left, when nothing is free, and when the task was swept meanwhile.
NOTHING, BUSY, NOT_YOURS = 66, 75, 76


@dataclass
class Found:
    """What came of it."""

    completions: Counter[str] = field(default_factory=Counter)
    open_tasks: list[str] = field(default_factory=list)
    two_owners: list[str] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def wrong(self, tasks: int) -> list[str]:
        """What isn't as it should be, in words."""
        twice = [f"{task} was completed {n} times" for task, n in self.completions.items() if n != 1]
        owners = [f"two owners: {one}" for one in self.two_owners]
        still = [f"{task} is not completed" for task in self.open_tasks]
        recorded = len(self.completions)
        count = [] if recorded == tasks else [f"{recorded} of {tasks} completions are recorded"]
        bugs = [f"{n} runs ended with {code}" for code, n in self.codes.items() if code in (65, 70, 125)]
        return [*twice, *owners, *still, *count, *bugs]


class Crowd:
    """The agents, who kills them, and what is left to do."""

    def __init__(self, folder: Path, agents: int, tasks: int, seed: int) -> None:
        self.root, self.agents, self.tasks = folder / "work space", agents, tasks
        self.random = random.Random(seed)
        self.locks = folder / "owned"
        self.locks.mkdir(parents=True)
        self.crimes = folder / "two-owners"
        self.found = Found()
        self.guard = threading.Lock()
        self.over = threading.Event()
        others = {
            name: value for name, value in os.environ.items() if not name.startswith(("RECOVERY_", "ORCHESTRATION_"))
        }
        self.env = {
            **others,
            "ORCHESTRATION_ROOT": str(self.root),
            "ORCHESTRATION_LOCK_DIR": str(folder / "locks"),
            "RECOVERY_RETRY_DELAY": "0.01",
            "RECOVERY_DEADLINE": "10m",
            "RECOVERY_LOCK_TIMEOUT": "5m",
        }

    def fill(self) -> None:
        for box in range(BOXES):
            mine = range(box, self.tasks, BOXES)
            entries = [
                {"task_id": f"T-{n}", "title": f"Task {n}", "status": "pending", "created_at": "2026-11-25T00:00:00Z"}
                for n in mine
            ]
            path = self.root / "postbox" / f"BOX-{box}" / "outbox.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"agent_id": f"BOX-{box}", "tasks": entries, "history": []}, indent=1))
        (self.root / "data").mkdir()
        budget = {"per_task": 1000, "overall": 1000000, "window": 3600}
        (self.root / "data" / "config.json").write_text(json.dumps({"format": 1, "retry_budget": budget}))

    def run(self) -> Found:
        self.fill()
        began = time.monotonic()
        sweeper = threading.Thread(target=self._sweep)
        sweeper.start()
        threads = [threading.Thread(target=self._agent, args=(n,)) for n in range(self.agents)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.over.set()
        sweeper.join()
        self.found.seconds = time.monotonic() - began
        self._count()
        return self.found

    def _agent(self, number: int) -> None:
        """Take the next task until no box has one that is open; a box that has nothing free is come back to."""
        boxes = [f"BOX-{(number + n) % BOXES}" for n in range(BOXES)]
        while boxes:
            code = self._once(boxes[0])
            if code == NOTHING:
                boxes.pop(0)
            elif code == BUSY:
                boxes.append(boxes.pop(0))
                self.over.wait(0.1)

    def _once(self, box: str) -> int:
        with self.guard:
            work = str(self.random.randrange(10, 60))
            kind = self.random.choice(("wrapper", "group", "both")) if self.random.random() < 0.25 else ""
            after = self.random.random() * 0.4
        command = ["sh", "-c", WORK, "work", str(self.locks), work]
        process = subprocess.Popen(
            [RECOVERY, "run", "-q", "--attempts", "20", box, "--next", "--", *command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if kind:
            self._kill(process, kind, after)
        code = process.wait()
        with self.guard:
            self.found.codes[code] += 1
        return code

    def _kill(self, process: subprocess.Popen[bytes], kind: str, after: float) -> None:
        try:
            process.wait(after)
            return
        except subprocess.TimeoutExpired:
            pass
        groups = list(_children(process.pid)) if kind in ("group", "both") else []
        if kind in ("wrapper", "both"):
            process.kill()
        for group in groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        with self.guard:
            self.found.kills[kind] += 1

    def _sweep(self) -> None:
        while not self.over.wait(0.3):
            subprocess.run([RECOVERY, "sweep", "-q"], env=self.env, check=False, capture_output=True)

    def _count(self) -> None:
        for log in sorted((self.root / "data" / "changes").glob("*.jsonl")):
            for line in log.read_text().splitlines():
                entry = json.loads(line)
                if entry["op"] == "complete":
                    self.found.completions[entry["task"]] += 1
        for box in self.root.glob("postbox/*/outbox.json"):
            for task in json.loads(box.read_text())["tasks"]:
                if task["status"] != "completed":
                    self.found.open_tasks.append(f"{task['task_id']} ({task['status']})")
        if self.crimes.exists():
            self.found.two_owners += self.crimes.read_text().splitlines()


def _children(pid: int) -> Iterator[int]:
    """The commands of a wrapper, each the leader of its group."""
    try:
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if os.getpgid(int(word)) == int(word):
                yield int(word)
    except (OSError, ValueError):
        return


def main() -> int:
    parser = argparse.ArgumentParser(description="Agents that take tasks and are shot.")
    parser.add_argument("--agents", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--dir", help="where the scratch workspace is made")
    options = parser.parse_args()
    print(f"{options.agents} agents, {options.tasks} tasks, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="agents-", dir=options.dir) as folder:
        found = Crowd(Path(folder), options.agents, options.tasks, options.seed).run()
    wrong = found.wrong(options.tasks)
    print(f"{sum(found.completions.values())} completions in {found.seconds:.0f} s; killed: {dict(found.kills)}")
    print(f"exit codes: {dict(sorted(found.codes.items()))}")
    for line in wrong[:50]:
        print(f"WRONG: {line}")
    print("wrong" if wrong else "every task was completed once, by one owner at a time")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
