"""A scratch workspace with realistic outboxes, the suite's commands run in it, and what its files hold.

Every command is a real process in a process group of its own, with an environment made from nothing.
`RECOVERY_SUITE_UNDER_TEST` names another copy of the suite (a mutant); `RECOVERY_TEST_FULL=1` asks for every case
instead of a fixed sample.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUITE = Path(os.environ.get("RECOVERY_SUITE_UNDER_TEST") or Path(__file__).resolve().parents[2])
FULL = os.environ.get("RECOVERY_TEST_FULL") == "1"
PYTHON = os.path.realpath(sys.executable)

#: How progress.json may look: `tasks` an object by id, a list with `id`, or no such file at all.
FORMS = ("object", "list", "absent")

_SCRIPTS = {"complete": "complete_task_with_recovery.sh", "assign": "assign_task.sh", "status": "task_status.sh"}
_LONG_AGO = "2025-05-30T00:00:00Z"


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (negative: the signal that ended it), stdout and stderr."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n  stdout: {self.out.strip()}\n  stderr: {self.err.strip()}"


def _task(task: str, title: str, status: str = "pending") -> dict[str, Any]:
    return {
        "task_id": task,
        "title": title,
        "priority": "HIGH",
        "status": status,
        "created_at": _LONG_AGO,
        "estimated_hours": 2.50,
        "context": {"goal": "größer, 更大", "limit": 12345678901234567890},
        "deliverables": ["report", "tests \u2713"],
    }


def outbox(agent: str, *numbers: int) -> str:
    """An outbox as agents write it: two spaces, non-ASCII as is, a history."""
    body = {
        "agent_id": agent,
        "agent_name": f"Agent {agent}",
        "version": "1.0.0",
        "expertise": ["testing", "integration"],
        "tasks": [_task(f"{agent}-{n}", f"Work {n} of {agent}") for n in numbers],
        "history": [{"task_id": f"{agent}-0", "status": "completed", "timestamp": _LONG_AGO}],
    }
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def progress(form: str, tasks: Mapping[str, str]) -> str:
    """progress.json over `tasks` (id to agent), all pending."""
    entries: Any = {t: {"status": "pending", "agent": a, "title": f"Work of {a}"} for t, a in tasks.items()}
    if form == "list":
        entries = [{"id": task, **entry} for task, entry in entries.items()]
    body = {
        "sprint_id": "PHASE_6.15_SPRINT_3",
        "total_tasks": len(tasks),
        "completed": 0,
        "pending": len(tasks),
        "last_updated": _LONG_AGO,
        "tasks": entries,
    }
    return json.dumps(body, indent=2, ensure_ascii=False)  # and no final newline: it stays that way


class Workspace:
    """A root with the agents CC, CA, CB (tasks CC-1 … CC-4 and so on) and the documented locks beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locks = root.with_name(root.name + ".locks")

    @classmethod
    def make(cls, root: Path, form: str = "object") -> Workspace:
        listed = {}
        for agent in ("CC", "CA", "CB"):
            folder = root / "postbox" / agent
            folder.mkdir(parents=True)
            (folder / "outbox.json").write_text(outbox(agent, 1, 2, 3, 4))
            listed.update({f"{agent}-{n}": agent for n in (1, 2, 3, 4)})
        if form != "absent":
            (root / ".sprint").mkdir()
            (root / ".sprint/progress.json").write_text(progress(form, listed))
        return cls(root)

    def copy(self, root: Path) -> Workspace:
        shutil.copytree(self.root, root)
        return Workspace(root)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.locks, ignore_errors=True)

    # --- commands

    def environment(self, **more: str) -> dict[str, str]:
        """Made from nothing, so that no HOME and nothing of the caller's gets in."""
        return {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "ORCHESTRATION_ROOT": str(self.root),
            "ORCHESTRATION_LOCK_DIR": str(self.locks),
            "RECOVERY_PYTHON": PYTHON,
            "RECOVERY_RETRY_DELAY": "0",
            "RECOVERY_LOCK_TIMEOUT": "10",  # so that a deadlock is a failure soon
            "RECOVERY_DEADLINE": "20",
            **more,
        }

    def words(self, command: Sequence[str]) -> list[str]:
        """The command line of `("complete", "CC", …)`: its documented script, or the front door."""
        script = _SCRIPTS.get(command[0])
        if script:
            return [str(SUITE / "bin" / script), *command[1:]]
        return [str(SUITE / "bin/recovery"), *command]

    def start(
        self, command: Sequence[str], fault: str = "", before: Sequence[str] = (), **more: str
    ) -> subprocess.Popen[str]:
        """Start a command in a process group of its own; `before` is put in front of it (strace …)."""
        if fault:
            more["RECOVERY_FAULT"] = fault
        return subprocess.Popen(
            [*before, *self.words(command)],
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,
        )

    def run(self, command: Sequence[str], fault: str = "", before: Sequence[str] = (), **more: str) -> Done:
        """Run a command until it and every child of it has ended (a child that runs on keeps the pipe open)."""
        return finish(self.start(command, fault, before, **more))

    def steps(self, command: Sequence[str], **more: str) -> list[str]:
        """Run a command unhurt; the steps it met, as STEP:N."""
        listing = self.root.with_name(self.root.name + ".steps")
        listing.unlink(missing_ok=True)
        done = self.run(command, fault=f"*=list={listing}", **more)
        assert done.code == 0, f"{command}: {done}"
        found = listing.read_text().split()
        listing.unlink()
        return found

    # --- files

    def path(self, name: str) -> Path:
        return self.root / name

    def snapshot(self) -> dict[str, bytes]:
        """Every file below the root, by its relative name."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    found[os.path.relpath(path, self.root)] = file.read()
        return found

    def data(self) -> dict[str, bytes]:
        """The files that belong to people and agents; lock files are no data, anything unexpected is."""
        return {
            name: data
            for name, data in self.snapshot().items()
            if not name.startswith(("data/", "logs/")) and not _is_lock(name)
        }

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_bytes())

    def task(self, agent: str, task: str) -> dict[str, Any]:
        """The one entry of a task in its outbox; an AssertionError unless there is exactly one."""
        found = [t for t in self.json(f"postbox/{agent}/outbox.json")["tasks"] if t["task_id"] == task]
        assert len(found) == 1, f"{agent}/{task} stands {len(found)} times in the outbox"
        return dict(found[0])

    def progress(self) -> dict[str, Any]:
        return dict(self.json(".sprint/progress.json"))

    def listed(self, task: str) -> dict[str, Any]:
        entries = self.progress()["tasks"]
        if isinstance(entries, dict):
            return dict(entries[task])
        found = [entry for entry in entries if entry["id"] == task]
        assert len(found) == 1, f"{task} is listed {len(found)} times in progress.json"
        return dict(found[0])

    def lines(self, folder: str) -> list[dict[str, Any]]:
        """All lines of all .jsonl files in a folder; each must be whole."""
        found = []
        for path in sorted(self.path(folder).glob("*.jsonl")):
            for text in path.read_text().splitlines():
                found.append(json.loads(text))
        return found

    def changes(self) -> list[tuple[str, str, str]]:
        """What the change log says was done: (op, agent, task), sorted."""
        return sorted((line["op"], line["agent"], line["task"]) for line in self.lines("data/changes"))

    def require_locks_free(self) -> None:
        documented = [str(path) for path in self.locks.rglob("*.lock")]
        for name in [*self.snapshot(), *documented]:
            if not name.endswith(".lock"):
                continue
            fd = os.open(self.root / name, os.O_RDONLY)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AssertionError(f"{name} is still locked") from None
            finally:
                os.close(fd)


def finish(process: subprocess.Popen[str], timeout: float = 60) -> Done:
    """Wait for a started command; one that hangs is ended, with its group, and is a failure."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"{process.args!r} hangs: {Done(process.returncode, out, err)}") from None
    return Done(process.returncode, out, err)


def _is_lock(name: str) -> bool:
    base = os.path.basename(name)
    return base in (".outbox.json.lock", ".progress.json.lock")
