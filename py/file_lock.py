"""Locks and transactions on files that many processes share; see each name's own documentation.

from file_lock import FileLock, DirectoryLock, file_transaction, get_task_lock
"""

from recovery.errors import (
    Busy,
    DataError,
    Denied,
    LockTimeout,
    NotFound,
    RecoveryError,
    StorageError,
    Unavailable,
    UsageError,
)
from recovery.locks import DirectoryLock, FileLock, file_transaction, get_agent_lock, get_task_lock, with_file_lock

__all__ = [
    "Busy",
    "DataError",
    "Denied",
    "DirectoryLock",
    "FileLock",
    "LockTimeout",
    "NotFound",
    "RecoveryError",
    "StorageError",
    "Unavailable",
    "UsageError",
    "file_transaction",
    "get_agent_lock",
    "get_task_lock",
    "with_file_lock",
]
