"""The workspace of a Python program that runs for long: a store for each thread, fresh limits for each use."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from recovery import forks as forks
from recovery import renames, say, steps, workspace
from recovery.errors import NotFound, RecoveryError, UsageError
from recovery.flock import Limits
from recovery.store import FileStore

T = TypeVar("T")

log = logging.getLogger("recovery")


class Session:
    """Opens the workspace; safe to use from any thread, and after a fork.

    `base_path` is the root, which may be any folder; None finds it as the scripts do (ORCHESTRATION_ROOT, upwards
    from the current folder, the git repository's main worktree).  `lock_timeout` is in seconds, for each lock.
    NotFound (66) if there is no such folder.
    """

    def __init__(self, base_path: str | os.PathLike[str] | None = None, lock_timeout: float = 30.0) -> None:
        if base_path is None:
            self.root = workspace.find(None, os.environ, "")
        else:
            named = os.path.abspath(os.fspath(base_path))
            self.root = workspace.root_at(named) or named
            if not os.path.isdir(self.root):
                raise NotFound(f"{named} is not a folder", hint="run `recovery init`")
        if os.environ.get("RECOVERY_DEBUG") == "1" and not steps.is_installed():
            steps.install(os.environ)
        self.lock_timeout = lock_timeout
        self._command = (os.path.basename(sys.argv[0]) if sys.argv else "") or "python"
        self._mine = threading.local()

    @contextmanager
    def store(self) -> Iterator[FileStore]:
        """This thread's store.  What it has to say to people goes to the logger "recovery"."""
        store: FileStore | None = getattr(self._mine, "store", None)
        if store is None or not store.is_open():
            store = self._mine.store = FileStore(self.root, self._limits())
            store.cache_into_place = renames.into_place
        store.limits = self._limits()
        try:
            yield store
        except BaseException as error:
            _release_frames(error)
            raise
        finally:
            for line in store.told:
                log.warning("%s", line)
            store.told.clear()

    def _limits(self) -> Limits:
        limits = Limits(self.lock_timeout, self.lock_timeout * 2, self._command)
        limits.family = ""
        return limits

    def inside(self, path: str | os.PathLike[str]) -> str:
        """A path, relative to the root or absolute, as a root-relative name; UsageError (64) if it leads out."""
        root = Path(self.root).resolve()
        full = Path(os.path.abspath(os.path.join(root, os.fspath(path))))
        for name in (full, full.parent.resolve() / full.name):
            if name.is_relative_to(root) and name != root:
                return str(name.relative_to(root))
        raise UsageError(f"{os.fspath(path)!a} is not below the workspace {self.root}")


def warn_on_stderr() -> None:
    """What the package warns of is said as the scripts say such things.

    A breaker's new state is left out: where it matters it is the answer of the command itself.
    """
    if not any(isinstance(handler, _ToStderr) for handler in log.handlers):
        log.addHandler(_ToStderr(logging.WARNING))


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.funcName != "_say":
            say.tell(record.getMessage())


def _release_frames(error: BaseException) -> None:
    """Let go of a lock that an interrupt has caught between its taking and the `try` that would give it back.

    It lives in frames of ours that are over, and that the traceback keeps.
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(_OURS):
            with suppress(RuntimeError):  # still running
                trace.tb_frame.clear()
        trace = trace.tb_next


_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def best_effort(what: str, work: Callable[[], T]) -> T | None:
    """Do some bookkeeping; where the disk or a lock doesn't let it, say what was lost and go on with None.

    A task's own result or error is worth more than the note about it.
    """
    try:
        return work()
    except (RecoveryError, OSError) as error:
        log.warning("%s: %s", what, error)
        return None
