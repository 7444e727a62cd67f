"""Locks and transactions for Python programs; `file_lock` is the documented door to this module.

Everything rests on flock(2): shells see these locks with flock(1), and the kernel frees them when a process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from fcntl import LOCK_EX, LOCK_NB
from fcntl import flock as kernel_flock
from pathlib import Path
from stat import S_IMODE
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from recovery import contention, documented, durable, flock, jsontext, layout, renames, steps, swap, workspace
from recovery.errors import (
    Busy,
    DataError,
    LockTimeout,
    NotFound,
    RecoveryError,
    StorageError,
    Unavailable,
    from_os_error,
)
from recovery.flock import HeldLock, Limits
from recovery.store import FileStore, Held

P = ParamSpec("P")
R = TypeVar("R")

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_live: weakref.WeakSet[FileLock] = weakref.WeakSet()
_transactions: weakref.WeakSet[_Transaction] = weakref.WeakSet()
_note: tuple[int, bytes] = (0, b"")


def _my_note() -> bytes:
    global _note
    pid = os.getpid()
    if _note[0] != pid:
        _note = (pid, flock.note_text(_command(), state="taken").ljust(512))
    return _note[1]


@functools.cache
def _command() -> str:
    return flock.text_of("/proc/self/cmdline").replace("\0", " ").strip()[:80] or "python"


class _Gate:
    """What the threads and tasks of this process queue at before one of them asks the kernel, a gate a lock file.

    So only waiting for *other* processes takes the kernel, and the kernel's own timeout machinery.
    """

    __slots__ = ("__weakref__", "lock", "owner")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner: Any = None

    def queue(self, owner: Any, timeout: float, name: str) -> float:
        """Wait for the other threads and tasks of this process; returns the seconds that are left."""
        if self.owner == owner and isinstance(owner, int):
            raise Busy(f"{name} is held by this very thread, in another way")
        began = time.monotonic()
        seconds = min(timeout, threading.TIMEOUT_MAX) if timeout > 0 else -1
        if timeout == 0 or not self.lock.acquire(timeout=seconds):
            raise LockTimeout(
                f"Failed to acquire lock on {name} after {round(timeout, 1):g} seconds "
                "(held by another thread or task of this process)"
            )
        return max(timeout - (time.monotonic() - began), 0.0) if timeout > 0 else timeout


_gates: weakref.WeakValueDictionary[str, _Gate] = weakref.WeakValueDictionary()
_gates_lock = threading.Lock()


def _gate_of(lock_file: str) -> _Gate:
    with _gates_lock:
        gate = _gates.get(lock_file)
        if gate is None:
            gate = _gates[lock_file] = _Gate()
        return gate


class _Context:
    """What one owner (a thread or an asyncio task) holds of a FileLock."""

    __slots__ = ("depth", "held", "lock")

    def __init__(self, lock: HeldLock | None, held: Held | None) -> None:
        self.lock, self.held, self.depth = lock, held, 1

    def release(self) -> None:
        if self.lock is not None:
            self.lock.release()
        elif self.held is not None:
            self.held.release()
            self.held.store.close()


class FileLock:
    """An exclusive lock on a file, across processes, threads and asyncio tasks.

    `path` is the file to protect; the lock is `.NAME.lock` beside it, the same that the scripts take and that
    `flock .NAME.lock command` takes in a shell.  A path that ends in `.lock` is the lock file itself.  Inside a
    workspace, what a dead process left half done on that file is finished or undone before the lock is yours.

    `timeout` is in seconds (default 30; 0 tries once; negative waits for ever).  Raises LockTimeout (a TimeoutError)
    when it has passed, NotFound if the folder doesn't exist, Unavailable if the lock file is a folder, a fifo or a
    link, Denied without permission.

        with FileLock("postbox/CC/outbox.json", timeout=5):
            ...
        async with FileLock("settings.json"):
            ...

    Re-entrant per object and owner: the thread (or task) that holds it may take it again.  Other owners wait, even
    on the same object.  A forked child holds nothing.  An object that is collected lets go, and when the process
    dies, however it dies, the lock is free.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = 30.0) -> None:
        self.path, self._root, self.lock_file = workspace.where(path)
        self.timeout = timeout
        self._gate = _gate_of(self.lock_file)
        self._learn = False  # whether to look at what the last holder left
        self._mine: dict[Any, _Context] = {}
        self._pid = os.getpid()
        _live.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, timeout={self.timeout!r})"

    # --- taking

    def acquire(self, timeout: float | None = None) -> FileLock:
        """Take the lock, waiting at most `timeout` seconds (default: the object's); returns itself."""
        self._acquire(threading.get_ident(), self.timeout if timeout is None else timeout)
        return self

    def try_acquire(self) -> bool:
        """Take the lock if it is free now; whether it was."""
        try:
            self._acquire(threading.get_ident(), 0)
        except LockTimeout:
            return False
        return True

    def release(self) -> None:
        """Give it back once; RuntimeError if this thread doesn't hold it."""
        self._release(threading.get_ident())

    @property
    def is_mine(self) -> bool:
        """Whether this thread holds it through this object."""
        return threading.get_ident() in self._mine

    def is_locked(self) -> bool:
        """Whether anybody holds it, here or in another process.  Changes nothing, creates nothing."""
        try:
            fd = os.open(self.lock_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return contention.is_held(fd)
        finally:
            os.close(fd)

    def __enter__(self) -> FileLock:
        self._acquire(threading.get_ident(), self.timeout)
        return self

    def __exit__(self, *_: object) -> None:
        self._release(threading.get_ident())

    async def __aenter__(self) -> FileLock:
        await self.acquire_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._release(asyncio.current_task())

    async def acquire_async(self, timeout: float | None = None) -> FileLock:
        """`acquire` for a task: the event loop goes on meanwhile; a cancelled wait leaves no lock behind."""
        owner = asyncio.current_task()
        seconds = self.timeout if timeout is None else timeout
        with contextlib.suppress(LockTimeout):
            self._acquire(owner, 0)
            return self
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        left = threading.Event()

        def tell(error: BaseException | None) -> None:
            if done.cancelled():
                if error is None:
                    self._release(owner)
            elif error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def wait() -> None:
            error: BaseException | None = None
            try:
                self._acquire(owner, seconds)
            except BaseException as problem:
                error = problem
            try:
                loop.call_soon_threadsafe(tell, error)
            except RuntimeError:  # the loop has gone
                if error is None:
                    self._release(owner)
            left.set()

        threading.Thread(target=wait, name="recovery-lock-async", daemon=True).start()
        try:
            await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled() and done.exception() is None:
                self._release(owner)  # it came together with the cancelling
            raise
        return self

    def __del__(self) -> None:
        for owner in list(getattr(self, "_mine", ())):
            self._mine[owner].depth = 1
            self._release(owner)

    # --- the work

    def _acquire(self, owner: Any, timeout: float) -> None:
        context = self._mine.get(owner)
        if context is not None:
            context.depth += 1
            return
        gate = self._gate
        got = False
        try:
            got = gate.lock.acquire(False)
            if not got:
                timeout = gate.queue(owner, timeout, self.lock_file)
                got = True
            if self._root is None:
                context = _Context(self._take(timeout), None)
            else:
                context = self._take_in_root(self._root, timeout)
            gate.owner = owner
            self._mine[owner] = context
        except BaseException:
            if got:
                gate.lock.release()
            raise

    def _take(self, timeout: float) -> HeldLock:
        path = self.lock_file
        try:  # the ordinary case in as few system calls as can be
            lock = HeldLock(os.open(path, _OPEN), None, path, path, True)
        except FileNotFoundError:
            _require_folder(path)
            lock = flock.open_lock(None, path, path, *self._like())
        except OSError:
            lock = flock.open_lock(None, path, path, 0o600, -1)
        try:
            try:
                kernel_flock(lock.fd, LOCK_EX | LOCK_NB)
                won = flock.settle(lock, learn=self._learn)
            except BlockingIOError:
                won = False
                if timeout == 0:
                    who = contention.holder(lock.fd)
                    raise LockTimeout(f"Failed to acquire lock on {path} after 0 seconds (held by {who})") from None
            except OSError as error:
                raise StorageError(f"{path}: cannot be locked: {error.strerror}") from None
            if not won:
                lock.close()
                limits = _limits(timeout)
                limits.family = ""  # a parent that forked workers doesn't wait for them under this lock: it may let go
                lock = flock.take(None, path, path, limits, learn=self._learn)
            if not self._learn and os.pread(lock.fd, len(flock.HELD), 0) != flock.HELD:
                lock.write_note(_my_note(), to_tidy=False)  # but never over a dead one's note of what he had staged
            return lock
        except BaseException:
            lock.close()
            raise

    def _take_in_root(self, root: str, timeout: float) -> _Context:
        _require_folder(self.path)
        store = FileStore(root, _limits(timeout))
        try:
            name = os.path.relpath(self.path, root)
            held = store.lock([name], create=True)
            return _Context(None, held)
        except BaseException:
            store.close()
            raise

    def _like(self) -> tuple[int, int]:
        """Mode and group of a lock file that is new: those of the file it covers, else its folder's."""
        for path in (self.path, os.path.dirname(self.lock_file)):
            try:
                st = os.stat(path)
                return flock.mode_of(st), st.st_gid
            except OSError:
                continue
        return 0o600, -1

    def _release(self, owner: Any) -> None:
        context = self._mine.get(owner)
        if context is None:
            if self._pid != os.getpid():
                return  # a forked child leaves its parent's block: there is nothing to give back
            raise RuntimeError(f"{self!r} is not held by this thread or task")
        context.depth -= 1
        if not context.depth:
            del self._mine[owner]
            self._gate.owner = None
            try:
                context.release()
            finally:
                self._gate.lock.release()


def _forget_in_child() -> None:
    """The child of a fork holds nothing: its copies of the descriptors are closed, the locks stay the parent's."""
    global _gates_lock
    _gates_lock = threading.Lock()
    for gate in list(_gates.values()):
        gate.lock, gate.owner = threading.Lock(), None
    for lock in list(_live):
        for context in list(lock._mine.values()):
            context.release()
        lock._mine.clear()
    for transaction in list(_transactions):
        transaction.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _limits(timeout: float) -> Limits:
    seconds = timeout if timeout >= 0 else 1e9
    return Limits(seconds, seconds + 1e-3, _command())


def _require_folder(path: str) -> None:
    if not os.path.isdir(os.path.dirname(path)):
        raise NotFound(f"the folder of {path} doesn't exist")


# --- documented locks


def get_task_lock(task_id: str, timeout: float = 30.0) -> FileLock:
    """The documented lock of a task: `ORCHESTRATION_LOCK_DIR/tasks/TASK.lock`.  UsageError (64) on a bad id."""
    return _documented_lock("tasks", "task", task_id, timeout)


def get_agent_lock(agent_id: str, timeout: float = 30.0) -> FileLock:
    """The documented lock of an agent: `ORCHESTRATION_LOCK_DIR/agents/AGENT.lock`.  UsageError (64) on a bad id."""
    return _documented_lock("agents", "agent", agent_id, timeout)


def _documented_lock(kind: str, word: str, name: str, timeout: float) -> FileLock:
    layout.require_id(word, name)
    base = documented.folder_of(os.environ)
    try:
        os.close(documented.open_folder(base, kind))
    except OSError as error:
        raise Unavailable(f"the lock folder {base} can't be used: {error.strerror}") from None
    return FileLock(os.path.join(base, kind, name + ".lock"), timeout)


def with_file_lock(path: str | os.PathLike[str], timeout: float = 30.0) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: run the function, plain or async, while `path` is locked."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def locked_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with FileLock(path, timeout):
                    return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)

            return cast("Callable[P, R]", locked_async)

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with FileLock(path, timeout):
                return function(*args, **kwargs)

        return locked

    return decorate


# --- transactions


@contextlib.contextmanager
def file_transaction(path: str | os.PathLike[str], timeout: float = 30.0) -> Iterator[Path]:
    """Change one file in one step: yields the Path of a private copy beside it, renamed into place at the end.

    Any exception in the block (KeyboardInterrupt too) or a crash leaves the file as it was, an absent one absent.
    The copy doesn't exist yet if the file doesn't; a block that leaves the copy as it was changes nothing.  Mode,
    owner and extended attributes survive; a link stays a link and the file behind it is changed (inside a workspace
    only if that is inside too).  A crash leaves at most the private copy, which the next holder of the lock removes.

    Raises LockTimeout, DataError (the file was changed meanwhile by somebody who ignores the lock, or a link leads
    out of the workspace), Busy (the lock file was removed meanwhile), StorageError, Denied.
    """
    shown, root, lock_file = workspace.where(path)
    if root is None:
        transaction = _Transaction(shown, os.path.dirname(shown), os.path.basename(shown), None, timeout)
    else:
        transaction = _Transaction(shown, root, os.path.relpath(shown, root), lock_file, timeout)
    with transaction as copy:
        yield copy


class _Transaction:
    """The work of `file_transaction`: `root` and `name` say where; with a `lock_file` root is a workspace."""

    def __init__(self, shown: str, root: str, name: str, lock_file: str | None, timeout: float) -> None:
        self.shown, self.root, self.name = shown, root, name
        self.limits = _limits(timeout)
        self.pid = os.getpid()
        self.gate = _gate_of(lock_file) if lock_file else None
        self.gate_file = lock_file or ""
        _transactions.add(self)

    def __enter__(self) -> Path:
        try:
            self._begin()
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            if isinstance(error, FileNotFoundError):
                raise NotFound(f"the folder of {self.shown} doesn't exist") from None
            raise from_os_error(error, self.shown) from None
        return Path(os.path.join(self.folder_path, self.stage))

    def _begin(self) -> None:
        if self.gate is not None:
            _require_folder(self.shown)
            if not self.gate.lock.acquire(False):
                self.gate.queue(threading.get_ident(), self.limits.patience, self.gate_file)
            self.gate.owner = threading.get_ident()
            try:
                self.store: FileStore | None = FileStore(self.root, self.limits)
            except BaseException:
                self._open_gate()
                raise
            self.files = self.store.root
            try:
                self.held: Held | FileLock = self.store.lock([self.name], create=True)
            except BaseException:
                self.store.close()
                self._open_gate()
                raise
            nonce = self.store.nonce
        else:
            self.store = None
            self.files = durable.Root(self.root)
            self.held = FileLock(os.path.join(self.root, self.name), 0)
            self.held._learn = True
            self.held._acquire(threading.get_ident(), self.limits.patience)
            nonce = os.urandom(6).hex()
            context = self.held._mine[threading.get_ident()]
            if context.lock is not None:
                if context.lock.dirty is not None:
                    self._tidy(context.lock.dirty)
                context.lock.write_note(flock.note_text(self.limits.command, nonce, (self.name,)))
        try:
            self.place = self.files.place(self.name)
            self.stage = durable.stage_name(self.place.base, nonce)
            self.folder_path = os.path.join(self.root, os.path.dirname(self.place.name))
            self._copy()
        except BaseException:
            self._leave()
            raise

    def _tidy(self, note: dict[str, Any]) -> None:
        nonce = str(note.get("nonce", ""))
        if nonce.isalnum():
            durable.remove(self.files.folder(""), durable.stage_name(self.name, nonce))

    def _copy(self) -> None:
        self.before: str | None = None
        self.owner: tuple[int, int, int] | None = None
        try:
            fd, st = durable.open_regular(self.place)
        except FileNotFoundError:
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            steps.at("stage", self.name)
            copy = os.open(self.stage, flags, 0o600, dir_fd=self.place.folder)
            try:
                self.before = durable.copy_hashed(fd, copy)
                steps.at("stage-written", self.name)
                durable.own(copy, S_IMODE(st.st_mode), st.st_uid, st.st_gid)
                durable.copy_attributes(fd, copy)
            finally:
                os.close(copy)
            self.owner = (S_IMODE(st.st_mode), st.st_uid, st.st_gid)
        except BaseException:
            durable.remove(self.place.folder, self.stage)
            raise
        finally:
            os.close(fd)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pid != os.getpid():
            return  # a forked child: all of it is the parent's
        try:
            if kind is None:
                self._commit()
        except OSError as problem:
            if isinstance(problem, RecoveryError):
                raise
            raise from_os_error(problem, self.shown) from None
        finally:
            durable.remove(self.place.folder, self.stage)
            self._leave()

    def _commit(self) -> None:
        copy = durable.Place(self.place.folder, self.stage, self.stage)
        try:
            fd, _ = durable.open_regular(copy)
        except FileNotFoundError:
            if self.before is None:
                return
            raise DataError(f"the private copy of {self.shown} is gone; nothing was changed") from None
        try:
            if durable.copy_hashed(fd) == self.before:
                return
            if self.owner is not None:
                durable.own(fd, *self.owner)
            os.fsync(fd)
            steps.at("stage-synced", self.name)
        finally:
            os.close(fd)
        commit_lock = self.store.commit_lock() if self.store is not None else None
        try:
            swap.into_place(self.place, self.stage, self.before, lambda: self._still_ours(commit_lock), self.shown)
        finally:
            if commit_lock is not None:
                commit_lock.release()

    def _still_ours(self, commit_lock: HeldLock | None) -> bool:
        if isinstance(self.held, Held):
            return self.held.all_current() and (commit_lock is None or commit_lock.is_current())
        lock = self.held._mine[threading.get_ident()].lock
        return lock is not None and lock.is_current()

    def _leave(self) -> None:
        try:
            self.held.release()
            self.files.close()
        finally:
            self._open_gate()

    def _open_gate(self) -> None:
        if self.gate is not None:
            self.gate.owner = None
            self.gate.lock.release()

    def forget(self) -> None:
        """In a forked child: close what the parent holds, and give nothing back."""
        if isinstance(getattr(self, "held", None), Held):
            self.held.release()


# --- a lock that is a folder


class DirectoryLock:
    """A lock that is a folder: `path` exists while somebody holds it, with the holder's note in `owner.json`.

    For programs that look at a folder, or disks without flock.  The folder is prepared aside and renamed into place,
    so it never stands there without its note.  A lock whose owner is provably gone (same boot and pid namespace, no
    such process) is taken over; one of another host or namespace is not: after `timeout` seconds (default 30) the
    LockTimeout says what a person may run.  Waiting looks again every few milliseconds.  Not re-entrant.
    """

    MARKER = "owner.json"

    def __init__(self, path: str | os.PathLike[str], timeout: float = 30.0) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.timeout = timeout
        self._nonce = ""
        self._pid = 0

    def acquire(self, timeout: float | None = None) -> DirectoryLock:
        """Take the lock; LockTimeout, Denied, StorageError, NotFound (no such parent folder)."""
        if self.is_mine:
            raise Busy(f"{self.path} is held through this very object")
        seconds = self.timeout if timeout is None else timeout
        until = time.monotonic() + (seconds if seconds >= 0 else 1e9)
        nonce = os.urandom(6).hex()
        prepared = os.path.join(os.path.dirname(self.path), f".{os.path.basename(self.path)}.{nonce}.prepared")
        try:
            os.mkdir(prepared)
            with open(os.path.join(prepared, self.MARKER), "wb") as marker:
                marker.write(flock.note_text(_command(), nonce))
            pause = 0.0005
            while True:
                try:
                    renames.rename_new(prepared, self.path)
                    self._nonce, self._pid = nonce, os.getpid()
                    self._remove_strays()
                    return self
                except (FileExistsError, NotADirectoryError, OSError) as error:
                    if isinstance(error, NotADirectoryError):
                        raise Unavailable(f"{self.path} is no folder: not used as a lock") from None
                    if not os.path.isdir(self.path):
                        if os.path.lexists(self.path):
                            raise Unavailable(f"{self.path} is no folder: not used as a lock") from None
                        if not isinstance(error, FileExistsError) and error.errno not in (39, 66):
                            raise
                if self._take_over():
                    continue
                left = until - time.monotonic()
                if left <= 0:
                    raise self._timeout(seconds)
                time.sleep(min(pause, left))
                pause = min(pause * 2, 0.02)
        except OSError as error:
            self._remove(prepared)
            if isinstance(error, RecoveryError):
                raise
            if isinstance(error, FileNotFoundError):
                raise NotFound(f"the folder of {self.path} doesn't exist") from None
            raise from_os_error(error, self.path) from None
        except BaseException:
            self._remove(prepared)
            raise

    def release(self) -> None:
        """Give it back; RuntimeError if this object doesn't hold it.  A forked child gives nothing back."""
        if not self._nonce:
            raise RuntimeError(f"{self.path} is not held through this object")
        nonce, self._nonce = self._nonce, ""
        if self._pid != os.getpid() or (self._owner() or {}).get("nonce") != nonce:
            return
        gone = os.path.join(os.path.dirname(self.path), f".{os.path.basename(self.path)}.{nonce}.prepared")
        with contextlib.suppress(OSError):
            os.rename(self.path, gone)
            self._remove(gone)

    @property
    def is_mine(self) -> bool:
        return bool(self._nonce) and self._pid == os.getpid()

    def is_locked(self) -> bool:
        """Whether anybody holds it; changes nothing."""
        owner = self._owner()
        return owner is not None and not _provably_gone(owner)

    def __enter__(self) -> DirectoryLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _owner(self, folder: str = "") -> dict[str, Any] | None:
        try:
            with open(os.path.join(folder or self.path, self.MARKER), encoding="utf-8") as marker:
                value = jsontext.loads(marker.read())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _take_over(self) -> bool:
        """Move a dead owner's folder away, under a lock beside it: of two who judge, one moves."""
        owner = self._owner()
        if owner is None or not _provably_gone(owner):
            return False
        with FileLock(self.path + ".guard.lock", 1.0):
            again = self._owner()
            if again is None or again.get("nonce") != owner.get("nonce"):
                return True
            gone = os.path.join(
                os.path.dirname(self.path), f".{os.path.basename(self.path)}.{os.urandom(6).hex()}.prepared"
            )
            os.rename(self.path, gone)
        self._remove(gone)
        return True

    def _remove_strays(self) -> None:
        """Folders that dead processes had prepared, and never came to rename."""
        above, base = os.path.split(self.path)
        for name in os.listdir(above):
            if name.startswith(f".{base}.") and name.endswith(".prepared"):
                owner = self._owner(os.path.join(above, name))
                if owner is not None and _provably_gone(owner):
                    self._remove(os.path.join(above, name))

    def _remove(self, folder: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, self.MARKER))
        with contextlib.suppress(OSError):
            os.rmdir(folder)

    def _timeout(self, seconds: float) -> LockTimeout:
        owner = self._owner() or {}
        who = f"pid {owner.get('pid')} on {owner.get('host')}, {owner.get('command')}"
        return LockTimeout(
            f"Failed to acquire lock on {self.path} after {seconds:g} seconds (held by {who})",
            hint=f"if that process is gone for sure: rm -r '{self.path}'",
        )


def _provably_gone(owner: dict[str, Any]) -> bool:
    """Same boot, same pid namespace, and no process with that pid and start time."""
    me = flock.identity()
    if (owner.get("boot"), owner.get("namespace"), owner.get("host")) != (me["boot"], me["namespace"], me["host"]):
        return False
    pid = owner.get("pid")
    if not isinstance(pid, int) or not 0 < pid < 2**31 or not me["boot"]:
        return False
    start = flock.start_time(pid)
    if start:
        return start != owner.get("start") or contention.state_of(pid) == "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # EPERM: alive, and somebody else's
    return False
