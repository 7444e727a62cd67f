"""Recovery for Python programs: retries, rollback, checkpoints, breakers, honest statistics.

from recovery_manager import RecoveryManager, RecoveryStrategy, TaskState
"""

from recovery.rules import RecoveryStrategy, TaskState

__all__ = ["RecoveryStrategy", "TaskState"]
