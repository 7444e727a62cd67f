"""Workspaces made for a measurement: realistic tasks, fresh ids for every round, checked after."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# Stands in a template where the round's own number goes: every round has tasks
# nobody has completed before, in a file of exactly the same size.
_ROUND = "R@@@@"
_LISTED = 10
_FOLDERS = ("data/changes", "data/checkpoints", "logs/recovery", ".sprint")


def _task(agent: str, number: int) -> dict[str, Any]:
    return {
        "task_id": f"TASK-{agent}-{_ROUND}-{number:05}",
        "title": f"Rotate the credentials of service {number} and document the process",
        "priority": ("LOW", "MEDIUM", "HIGH", "CRITICAL")[number % 4],
        "status": ("pending", "assigned", "in_progress")[number % 3],
        "created_at": "2025-05-30T00:00:00Z",
        "estimated_hours": 1.5 + number % 7,
        "description": "Replace every exposed key, clean the history, and put in place a way "
        "to manage secrets that survives the next release: façade, größe, 鍵 and ✓.",
        "context": {
            "goal": "No secret in any repository before the release",
            "phase": "SECURITY",
            "attempts": number,
            "blocked": False,
            "reviewer": None,
        },
        "deliverables": [
            "All compromised keys rotated",
            "History cleaned and checked",
            "An .env.example without real values",
            "Hooks that refuse a commit with a secret in it",
        ],
        "dependencies": [],
    }


@lru_cache(maxsize=4)
def _outbox(agent: str, tasks: int) -> bytes:
    one = json.dumps([_task(agent, 1)], indent=2, ensure_ascii=False)
    assert len(one) < 2000, "a task of about 1 KB keeps 9 KB near 9 tasks"
    body = {
        "agent_id": agent,
        "agent_name": f"Agent {agent}",
        "agent_type": "ai",
        "version": "1.0.0",
        "expertise": ["python", "backend", "api"],
        "tasks": [_task(agent, number) for number in range(tasks)],
        "history": [],
        "metadata": {"last_updated": "2025-05-30T00:00:00Z", "total_tasks_completed": 0},
    }
    return (json.dumps(body, indent=2, ensure_ascii=False) + "\n").encode()


def tasks_for(size: int) -> int:
    """How many tasks make an outbox of about `size` bytes."""
    empty = len(_outbox("A1", 0))
    return max(1, round((size - empty) / (len(_outbox("A1", 1)) - empty)))


def _put(path: Path, content: bytes) -> None:
    """Replace durably, so that the command under test syncs only what it wrote itself."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _without(tasks: Sequence[dict[str, Any]], done: set[str]) -> list[dict[str, Any]]:
    return [task for task in tasks if task["task_id"] not in done]


@dataclass
class Workspace:
    """A root with one outbox for each agent and, in files, one shared progress."""

    root: Path
    agents: Sequence[str] = ("A1",)
    rounds: int = 0

    def outbox(self, agent: str) -> Path:
        return self.root / "postbox" / agent / "outbox.json"

    @property
    def progress(self) -> Path:
        return self.root / ".sprint" / "progress.json"

    def fill(self, tasks: int, listed: int = _LISTED) -> list[tuple[str, str]]:
        """New outboxes of `tasks` tasks each. Returns the (agent, task) pairs progress lists.

        They are the `listed` tasks in the middle of each outbox.
        """
        self.rounds += 1
        for folder in (*_FOLDERS, *(f"postbox/{agent}/completed" for agent in self.agents)):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        number = f"R{self.rounds:04}"
        first = max(0, (tasks - listed) // 2)
        pairs = []
        for agent in self.agents:
            _put(self.outbox(agent), self._pristine(agent, tasks))
            for task in range(first, min(tasks, first + listed)):
                pairs.append((agent, f"TASK-{agent}-{number}-{task:05}"))
        sprint = {
            "sprint_id": "SPRINT_3",
            "start_date": "2025-05-29",
            "total_tasks": len(pairs),
            "completed": 0,
            "in_progress": len(pairs),
            "tasks": {
                task: {"status": "in_progress", "agent": agent, "title": f"Credentials {task}"} for agent, task in pairs
            },
            "last_updated": "2025-05-30T00:00:00Z",
        }
        _put(self.progress, (json.dumps(sprint, indent=2) + "\n").encode())
        return pairs

    def complete_all(self, agent: str) -> None:
        """Say of every task of an agent that it was completed long ago, as another program would."""
        text = self.outbox(agent).read_bytes()
        for status in (b"pending", b"assigned", b"in_progress"):
            done = b'"status": "completed",\n      "completed_at": "2025-06-01T00:00:00Z",'
            text = text.replace(b'"status": "%s",' % status, done)
        _put(self.outbox(agent), text)

    def _pristine(self, agent: str, tasks: int) -> bytes:
        return _outbox(agent, tasks).replace(_ROUND.encode(), f"R{self.rounds:04}".encode())

    def lost(self, done: Sequence[tuple[str, str]], tasks: int, message: str, files: bool) -> list[str]:
        """What is not as it should be once `done`, and nothing else, has been completed.

        `files`: progress and records are files too, not rows of a database.
        """
        wrong = []
        for agent in self.agents:
            found = json.loads(self.outbox(agent).read_bytes())["tasks"]
            expected = {task for owner, task in done if owner == agent}
            before = json.loads(self._pristine(agent, tasks))["tasks"]
            if _without(found, expected) != _without(before, expected):
                wrong.append(f"{agent}: tasks nobody completed are not what they were")
            completed = {
                task["task_id"]
                for task in found
                if task["status"] == "completed" and task["completion_message"] == message
            }
            wrong += [f"{agent}: {task} is wrong" for task in sorted(expected ^ completed)]
        if not files:
            return wrong
        sprint = json.loads(self.progress.read_bytes())
        if sprint["completed"] != len(done):
            wrong.append(f"progress counts {sprint['completed']}, not {len(done)}")
        for agent, task in done:
            if sprint["tasks"][task]["status"] != "completed":
                wrong.append(f"progress has {task} {sprint['tasks'][task]['status']}")
            record = self.root / "postbox" / agent / "completed" / f"{task}_completion.json"
            if not record.is_file() or json.loads(record.read_bytes())["completion_message"] != message:
                wrong.append(f"no record of {task}")
        return wrong
