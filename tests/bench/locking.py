"""FileLock and file_transaction against raw flock(2), three lock libraries and the hand-made way."""

from __future__ import annotations

import fcntl
import importlib
import mmap
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from contenders import REPOSITORY
from scratch import Workspace, tasks_for
from table import Report, Target

TIMEOUT = 30
HOLD = 0.001
LIBRARIES: tuple[tuple[str, str, dict[str, int]], ...] = (
    ("filelock", "FileLock", {"timeout": TIMEOUT}),
    ("fasteners", "InterProcessLock", {}),
    ("portalocker", "Lock", {"timeout": TIMEOUT}),
)
Make = Callable[[Path], AbstractContextManager[Any]]
_fork = multiprocessing.get_context("fork")


class RawFlock:
    """What nobody can beat: open, flock, unlock, close, blocking for ever."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


@contextmanager
def hand_made_transaction(path: Path) -> Iterator[Path]:
    """flock, mkstemp, copy, fsync, rename, fsync of the folder: what file_transaction replaces."""
    with RawFlock(path.with_name(f".{path.name}.lock")):
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(fd)
        copy = Path(name)
        shutil.copyfile(path, copy)
        shutil.copymode(path, copy)
        try:
            yield copy
        except BaseException:
            copy.unlink()
            raise
        for synced in (copy, path.parent):
            fd = os.open(synced, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(fd)
            os.close(fd)
            if synced is copy:
                copy.rename(path)


class Joinable(Protocol):
    """A process or a thread."""

    def start(self) -> None: ...
    def join(self) -> None: ...


class Locks:
    """The sections that run inside this interpreter."""

    def __init__(self, report: Report, scratch: Path, quick: bool) -> None:
        self.report = report
        self.scratch = scratch
        self.quick = quick
        self.makers: dict[str, Make] = {"raw flock": RawFlock}
        self.transaction: Make | None = None

    def load(self) -> None:
        """Find ours and the libraries; whatever is missing is said, and left out."""
        sys.path.append(str(REPOSITORY / "py"))
        try:
            file_lock = importlib.import_module("file_lock")
            ours = partial(file_lock.FileLock, timeout=TIMEOUT)
            self.makers = {"ours": ours, **self.makers}
            self.transaction = file_lock.file_transaction
        except ImportError as error:
            self.report.failed(f"py/file_lock.py: {error}")
        for name, class_name, options in LIBRARIES:
            try:
                module = importlib.import_module(name)
            except ImportError:
                self.report.skipped(name, "not installed (the `bench` extra installs it)")
                continue
            self.makers[name] = partial(getattr(module, class_name), **options)

    def uncontended(self) -> None:
        """Section 5, first part: nobody else wants the lock."""
        blocks, each = (5, 200) if self.quick else (25, 1000)
        self.report.section(f"FileLock, acquire + release, uncontended ({blocks} x {each})", "µs")
        times: dict[str, list[float]] = {name: [] for name in self.makers}
        for _ in range(blocks):
            for name, make in self.makers.items():
                path = self._path(name)
                cycle = _raw_cycle if name == "raw flock" else _cycle
                started = time.perf_counter()
                cycle(make, path, each)
                times[name].append((time.perf_counter() - started) / each * 1e6)
        self.report.rows(times, {"raw flock": Target(5)})

    def contended(self) -> None:
        """Section 5, second part: everybody wants it, and holds it for a millisecond."""
        rounds, seconds = (1, 0.25) if self.quick else (5, 1.0)
        self.report.section(f"FileLock, contended, held for 1 ms ({rounds} x {seconds:g} s)", "acquired/s")
        for kind, limit in (("processes", 0.95), ("threads", 0.90)):
            for crowd in (4, 16):
                rates: dict[str, list[float]] = {name: [] for name in self.makers}
                out: set[str] = set()
                for _ in range(rounds):
                    for name, make in self.makers.items():
                        if name in out:
                            continue
                        rate, wrong = _contend(make, self._path(name), kind == "threads", crowd, seconds)
                        rates[name].append(rate)
                        if wrong:
                            out.add(name)
                            rates[name].clear()
                            self._unfair(name, f"{crowd} {kind}: {wrong}")
                self.report.rows(rates, {"raw flock": Target(limit, at_least=True)}, prefix=f"{crowd} {kind}: ")

    def hand_over(self) -> None:
        """Section 5, third part: from one's release to the next one's acquire."""
        rounds = 10 if self.quick else 100
        self.report.section(f"FileLock, hand-over to a waiting process ({rounds} rounds)", "µs")
        times = {name: _hand_over(make, self._path(name), rounds) for name, make in self.makers.items()}
        for name, taken in times.items():
            if min(taken) < 0:
                self._unfair(name, "the waiting process had the lock before it was released")
        self.report.rows(times, {})

    def transactions(self) -> None:
        """Section 6: replace a 9 KB file under its lock, durably."""
        rounds = 20 if self.quick else 200
        self.report.section(f"file_transaction, 9 KB file ({rounds} rounds)", "ms")
        workspace = Workspace(self.scratch / "transactions")
        workspace.fill(tasks_for(9_000))
        plain = self.scratch / "plain" / "state.json"
        plain.parent.mkdir()
        content = workspace.outbox("A1").read_bytes()
        makers: dict[str, Make] = {"hand-made": hand_made_transaction}
        if self.transaction is not None:
            makers = {"ours": self.transaction, **makers}
        for where, path in (("a plain folder", plain), ("a workspace", workspace.outbox("A1"))):
            path.write_bytes(content)
            times: dict[str, list[float]] = {name: [] for name in makers}
            lost = dict.fromkeys(makers, 0)
            before = set(path.parent.iterdir())
            for number in range(rounds):
                for name, make in makers.items():
                    new = content.replace(b"Agent A1", f"{name[:2]}{number:06}".encode())
                    started = time.perf_counter()
                    with make(path) as copy:
                        copy.write_bytes(new)
                    times[name].append((time.perf_counter() - started) * 1000)
                    lost[name] += path.read_bytes() != new
            for name, times_lost in lost.items():
                if times_lost:
                    self.report.failed(f"file_transaction: {name} lost {times_lost} of {rounds} changes")
            stray = set(path.parent.iterdir()) - before - {path.with_name(f".{path.name}.lock")}
            if stray:
                self.report.failed(f"file_transaction left {sorted(item.name for item in stray)}")
            self.report.rows(times, {"hand-made": Target(1.0)}, prefix=f"in {where}: ")

    def _path(self, name: str) -> Path:
        return self.scratch / f"{name.replace(' ', '-')}.lock"

    def _unfair(self, name: str, what: str) -> None:
        # A peer that lets two in, or gives up, is only left out of the table.
        if name in ("ours", "raw flock"):
            self.report.failed(f"{name}, {what}")
        else:
            self.report.skipped(name, what)


def _cycle(make: Make, path: Path, times: int) -> None:
    lock = make(path)  # made once and used often, as programs do
    for _ in range(times):
        with lock:
            pass


def _raw_cycle(_: Make, path: Path, times: int) -> None:
    # Without the class around it: the four calls and nothing else.
    for _index in range(times):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _contend(make: Make, path: Path, threads: bool, crowd: int, seconds: float) -> tuple[float, str]:
    """Acquisitions a second by all together, and what went wrong, if anything.

    Each holder adds one to a shared counter around its sleep: if two were ever
    inside at once, the counter ends below the number of acquisitions.
    """
    # One 8-byte cell for the counter, then two for each worker: all, and those in time.
    with mmap.mmap(-1, 8 * (1 + 2 * crowd)) as shared, memoryview(shared).cast("q") as cells:
        meet: Any = threading.Barrier(crowd) if threads else _fork.Barrier(crowd)
        problems = _fork.SimpleQueue()

        def work(number: int) -> None:
            meet.wait()
            end = time.perf_counter() + seconds
            try:
                while time.perf_counter() < end:
                    with make(path):
                        seen = cells[0]
                        time.sleep(HOLD)
                        cells[0] = seen + 1
                        cells[1 + 2 * number] += 1
                        cells[2 + 2 * number] += time.perf_counter() < end
            except Exception as error:  # a peer's timeout is its own exception
                problems.put(f"{type(error).__name__}: {error}")

        workers: list[Joinable] = []
        for number in range(crowd):
            start = threading.Thread if threads else _fork.Process
            workers.append(start(target=work, args=(number,)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        wrong = "" if problems.empty() else problems.get()
        if cells[0] != sum(cells[1::2]):
            wrong = f"two held it at once ({sum(cells[1::2]) - cells[0]} updates lost)"
        return sum(cells[2::2]) / seconds, wrong


def _hand_over(make: Make, path: Path, rounds: int) -> list[float]:
    here, there = _fork.Pipe()
    waiter = _fork.Process(target=_wait_in_line, args=(make, path, there, rounds))
    waiter.start()
    took = []
    for number in range(rounds):
        with make(path):
            here.send(None)
            # Long enough to be waited for, and never in step with a waiter's poll.
            time.sleep(0.01 + 0.1 * number / rounds)
            released = time.perf_counter()
        took.append((here.recv() - released) * 1e6)
    waiter.join()
    return took


def _wait_in_line(make: Make, path: Path, there: Connection, rounds: int) -> None:
    for _ in range(rounds):
        there.recv()
        with make(path):
            # One clock for all processes: CLOCK_MONOTONIC.
            acquired = time.perf_counter()
        there.send(acquired)
