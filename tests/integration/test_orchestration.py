"""Scripts and Python programs on one workspace: they see each other's commits, checkpoints, failures and numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recovery_manager import (
    CircuitBreaker,
    RecoveryManager,
    RecoveryStrategy,
    RollbackFailed,
    TaskFailedError,
    TaskParkedError,
    TaskState,
)
from support.meeting import held
from support.workspace import Workspace

OUTBOX = "postbox/CC/outbox.json"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "ws")


@pytest.fixture
def manager(space: Workspace) -> RecoveryManager:
    return RecoveryManager(base_path=space.root, initial_retry_delay=0.0, notifiers=[])


def entries(space: Workspace, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in space.path(f"logs/recovery/{task}_recovery.jsonl").read_text().splitlines()]


class TestErrorRecovery:
    """The documented use of the recovery manager, on a workspace that the scripts use too."""

    def test_retry_strategy(self, manager: RecoveryManager) -> None:
        calls = 0

        @manager.with_recovery("TASK-001", strategy=RecoveryStrategy.RETRY)
        def flaky() -> str:
            nonlocal calls
            calls += 1
            if calls < 3:
                raise ConnectionError("temporary")
            return "success"

        assert flaky() == "success"
        assert calls == 3
        stats = manager.get_recovery_stats()
        assert (stats["total_recoveries"], stats["successful_recoveries"], stats["success_rate"]) == (1, 1, 1.0)

    def test_retries_used_up(self, manager: RecoveryManager) -> None:
        def broken() -> None:
            raise ConnectionError("still down")

        with pytest.raises(TaskFailedError, match="Task TASK-002 failed after 3 retries: still down"):
            manager.execute_with_recovery("TASK-002", broken)
        stats = manager.get_recovery_stats()
        assert (stats["total_recoveries"], stats["failed_recoveries"], stats["success_rate"]) == (1, 1, 0.0)
        assert stats["by_strategy"]["RETRY"]["failed"] == 1
        assert stats["by_error_type"]["ConnectionError"]["total"] == 1

    def test_rollback_strategy(self, manager: RecoveryManager, space: Workspace) -> None:
        before = space.path(OUTBOX).read_bytes()

        @manager.with_recovery("TASK-003", protect=[OUTBOX])
        def corrupting() -> None:
            space.path(OUTBOX).write_text('{"tasks": [')
            json.loads(space.path(OUTBOX).read_text())

        with pytest.raises(TaskFailedError, match=r"rolled back: postbox/CC/outbox\.json"):
            corrupting()
        assert space.path(OUTBOX).read_bytes() == before

    def test_rollback_failure(self, manager: RecoveryManager, space: Workspace) -> None:
        def hopeless() -> None:
            space.path(OUTBOX).unlink()
            os.mkfifo(space.path(OUTBOX))
            raise KeyError("tasks")

        with pytest.raises(RollbackFailed, match="Rollback failed"):
            manager.execute_with_recovery("TASK-004", hopeless, protect=[OUTBOX])

    def test_skip_strategy(self, manager: RecoveryManager) -> None:
        result = manager.execute_with_recovery("TASK-005", lambda: 1 // 0, strategy=RecoveryStrategy.SKIP)
        assert result is None

    def test_manual_strategy(self, manager: RecoveryManager, space: Workspace) -> None:
        for _ in range(2):
            with pytest.raises(TaskParkedError):
                manager.execute_with_recovery("TASK-006", lambda: 1 // 0, strategy=RecoveryStrategy.MANUAL)
        space.path("data/manual/TASK-006.json").unlink()
        assert manager.execute_with_recovery("TASK-006", lambda: 1) == 1

    def test_escalate_strategy(self, manager: RecoveryManager, space: Workspace) -> None:
        with pytest.raises(TaskFailedError):
            manager.execute_with_recovery("TASK-007", lambda: 1 // 0, strategy=RecoveryStrategy.ESCALATE)
        entry = space.json("logs/recovery/TASK-007_escalation.json")
        assert set(entry) >= {"task_id", "timestamp", "error_type", "error_message", "strategy", "success", "details"}

    def test_checkpoints(self, manager: RecoveryManager, space: Workspace) -> None:
        manager.create_checkpoint("TASK-008", TaskState.RUNNING, {"step": 1})
        manager.create_checkpoint("TASK-008", TaskState.RUNNING, {"step": 2})
        checkpoint = manager.load_checkpoint("TASK-008")
        assert checkpoint is not None
        assert checkpoint.data == {"step": 2}
        assert len(manager.checkpoint_history("TASK-008")) == 2
        assert manager.cleanup_checkpoints("TASK-008", older_than_days=0) == 0  # it is running
        entry = space.json("data/checkpoints/TASK-008_checkpoint.json")
        assert set(entry) == {"task_id", "checkpoint_id", "timestamp", "state", "data", "metadata"}


class TestOneTruth:
    """What a script did counts in Python, and the other way round."""

    def test_a_scripts_recovery_counts(self, space: Workspace, manager: RecoveryManager) -> None:
        """A completion that made it at its second try is one successful recovery."""
        done = space.run(("complete", "CC", "CC-1"), fault="journal-write:1=EIO")
        assert done.code == 0, done
        numbers = manager.get_recovery_stats()
        assert (numbers["total_recoveries"], numbers["successful_recoveries"]) == (1, 1)
        assert entries(space, "CC-1")[-1]["details"]["op"] == "complete"

    def test_a_journal_that_could_not_be_written_makes_nobody_a_dead_owner(
        self, space: Workspace, manager: RecoveryManager
    ) -> None:
        """The commit before it was finished, and is not taken for one that a dead process left."""
        assert space.run(("complete", "CC", "CC-1")).code == 0
        done = space.run(("complete", "CC", "CC-2"), fault="journal-write:1=EIO")
        assert done.code == 0, done
        assert "half done" not in done.err
        assert list(manager.get_recovery_stats()["by_error_type"]) == ["StorageError"]

    def test_a_scripts_failure_counts_and_so_does_its_wait(self, space: Workspace, manager: RecoveryManager) -> None:
        with held(space.path("postbox/CC/.outbox.json.lock")):
            done = space.run(("complete", "CC", "CC-1"), RECOVERY_LOCK_TIMEOUT="0.05", RECOVERY_MAX_ATTEMPTS="2")
        assert done.code == 75, done
        numbers = manager.get_recovery_stats()
        assert (numbers["failed_recoveries"], numbers["success_rate"]) == (1, 0.0)
        assert numbers["by_error_type"]["LockTimeout"]["total"] == 1
        assert 0.09 < numbers["lock_wait_time"] < 5

    def test_a_dead_scripts_commit_is_a_recovery_when_it_is_finished(
        self, space: Workspace, manager: RecoveryManager
    ) -> None:
        space.run(("complete", "CC", "CC-1"), fault="replaced=kill")
        assert space.run(("recover",)).code == 0
        numbers = manager.get_recovery_stats()
        assert (numbers["successful_recoveries"], numbers["by_error_type"]["OwnerDied"]["total"]) == (1, 1)

    def test_a_scripts_checkpoint_is_loaded_in_python(self, space: Workspace, manager: RecoveryManager) -> None:
        assert space.run(("complete", "CC", "CC-1")).code == 0
        checkpoint = manager.load_checkpoint("CC-1")
        assert checkpoint is not None
        assert (checkpoint.state, checkpoint.data["agent"]) == (TaskState.COMPLETED, "CC")

    def test_a_used_up_budget_holds_the_scripts_back_too(self, space: Workspace) -> None:
        space.path("data").mkdir(exist_ok=True)
        space.path("data/config.json").write_text('{"format": 1, "retry_budget": {"per_task": 1}}')
        faults = "journal-write:1=EIO,journal-write:2=EIO,journal-write:3=EIO"
        done = space.run(("complete", "CC", "CC-1"), fault=faults, RECOVERY_MAX_ATTEMPTS="9")
        assert done.code == 74
        assert "not tried again: task CC-1 has used 1 of 1 tries" in done.err
        assert [entry["success"] for entry in entries(space, "CC-1")] == [False, False]
        assert entries(space, "CC-1")[-1]["details"]["outcome"] == "failed"

    def test_scripts_and_python_complete_side_by_side(self, space: Workspace, manager: RecoveryManager) -> None:
        running = [space.start(("complete", "CC", f"CC-{n}")) for n in (1, 2, 3)]
        for n in (1, 2, 3, 4):
            manager.execute_with_recovery(f"CA-{n}", lambda n=n: space.run(("complete", "CA", f"CA-{n}")))
        for process in running:
            assert process.wait() == 0
            process.communicate()
        assert space.progress()["completed"] == 7
        assert manager.get_recovery_stats()["failed_recoveries"] == 0

    def test_a_breaker_is_seen_by_every_process(self, space: Workspace) -> None:
        breaker = CircuitBreaker("api", base_path=space.root)
        breaker.trip(100, "quota")
        assert CircuitBreaker("api", base_path=space.root).state == "open"
        assert space.json("data/breakers/api.json")["state"] == "open"

    def test_an_escalation_of_a_script_is_told(self, space: Workspace, tmp_path: Path) -> None:
        told = tmp_path / "told"
        command = f"dd status=none of={told}"
        done = space.run(("complete", "CC", "CC-1"), fault="stage:1=EACCES", RECOVERY_NOTIFY_CMD=command)
        assert done.code == 77, done
        assert json.loads(told.read_text())["task_id"] == "CC-1"
        told.unlink()
        again = space.run(("complete", "CC", "CC-1"), fault="stage:1=EACCES", RECOVERY_NOTIFY_CMD=command)
        assert again.code == 77, again
        assert not told.exists()  # that one is open, and was told
