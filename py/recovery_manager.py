"""Recovery for Python programs: retries, rollback, checkpoints, breakers, honest statistics.

from recovery_manager import RecoveryManager, RecoveryStrategy, TaskState
"""

from recovery.breaker import CircuitBreaker, CircuitOpen
from recovery.budget import RetryBudget
from recovery.checkpoints import Checkpoint
from recovery.commands import CommandFailed
from recovery.errors import DataError, NotFound, RecoveryError, RollbackFailed, UsageError
from recovery.manager import RecoveryManager
from recovery.notify import CommandNotifier, LogNotifier, WebhookNotifier
from recovery.once import OutcomeUnknown, ResultLost
from recovery.parking import TaskParkedError
from recovery.rules import RecoveryStrategy, TaskState
from recovery.run import TaskFailedError
from recovery.timeouts import AdaptiveTimeout, TaskTimeout

__all__ = [
    "AdaptiveTimeout",
    "Checkpoint",
    "CircuitBreaker",
    "CircuitOpen",
    "CommandFailed",
    "CommandNotifier",
    "DataError",
    "LogNotifier",
    "NotFound",
    "OutcomeUnknown",
    "RecoveryError",
    "RecoveryManager",
    "RecoveryStrategy",
    "ResultLost",
    "RetryBudget",
    "RollbackFailed",
    "TaskFailedError",
    "TaskParkedError",
    "TaskState",
    "TaskTimeout",
    "UsageError",
    "WebhookNotifier",
]
