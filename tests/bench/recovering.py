"""with_recovery, the breaker and checkpoints against the libraries that people would take instead."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contenders import REPOSITORY
from table import Report, Target

Call = Callable[[], Any]


def work() -> int:
    """What is called: nothing, so that only the wrapping is measured."""
    return 1


class Recovering:
    """The sections about the recovery manager; all run inside this interpreter."""

    def __init__(self, report: Report, scratch: Path, quick: bool) -> None:
        self.report, self.scratch, self.quick = report, scratch, quick

    def load(self) -> bool:
        sys.path.append(str(REPOSITORY / "py"))
        try:
            self.ours = importlib.import_module("recovery_manager")
        except ImportError as error:
            self.report.failed(f"py/recovery_manager.py: {error}")
            return False
        return True

    def _peer(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError:
            self.report.skipped(name, "not installed (the `bench` extra installs it)")
            return None

    def _root(self, name: str) -> Path:
        root = self.scratch / name
        (root / "postbox").mkdir(parents=True)
        return root

    def calls(self) -> None:
        """A call that succeeds, through each library's decorator; and one through a closed breaker."""
        if not self.load():
            return
        blocks, each = (7, 2_000) if self.quick else (25, 20_000)
        manager = self.ours.RecoveryManager(self._root("calls"))
        makers: dict[str, Call] = {"ours": manager.with_recovery("BENCH-1", checkpoint_enabled=False)(work)}
        backoff, tenacity, stamina = (self._peer(name) for name in ("backoff", "tenacity", "stamina"))
        if backoff is not None:
            makers["backoff"] = backoff.on_exception(backoff.expo, Exception, max_tries=3)(work)
        if tenacity is not None:
            makers["tenacity"] = tenacity.retry(stop=tenacity.stop_after_attempt(3))(work)
        if stamina is not None:
            makers["stamina"] = stamina.retry(on=Exception, attempts=3)(work)
        self.report.section(f"with_recovery, a call that succeeds, no checkpoints ({blocks} x {each})", "µs")
        self.report.rows(_interleaved(makers, blocks, each), {"backoff": Target(0.25)})
        pybreaker = self._peer("pybreaker")
        guarded = self.ours.CircuitBreaker("bench", base_path=self._root("breaker"))(work)
        guarded()  # makes the state file
        makers = {"ours": guarded}
        if pybreaker is not None:
            makers["pybreaker, in memory"] = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60)(work)
        self.report.section(f"a call through a closed breaker, shared by all processes ({blocks} x {each})", "µs")
        self.report.rows(_interleaved(makers, blocks, each), {"pybreaker, in memory": Target(1.0)})

    def checkpoints(self) -> None:
        """One durable checkpoint: a line in a log and its snapshot, a row in sqlite3, langgraph's own saver."""
        if not self.load():
            return
        blocks, each = (5, 20) if self.quick else (25, 40)
        manager = self.ours.RecoveryManager(self._root("checkpoints"))
        data = {"page": 17, "done": list(range(20)), "note": "größer"}
        makers: dict[str, Call] = {"ours": lambda: manager.create_checkpoint("BENCH-1", "running", data)}
        makers["sqlite3, WAL, synchronous FULL"] = _sqlite_rows(self.scratch / "rows.db", data)
        saver = self._langgraph(data)
        if saver is not None:
            makers["langgraph-checkpoint-sqlite"] = saver
        targets = {"sqlite3, WAL, synchronous FULL": Target(1.1), "langgraph-checkpoint-sqlite": Target(0.9)}
        self.report.section(f"create_checkpoint, durable ({blocks} x {each})", "µs")
        self.report.rows(_interleaved(makers, blocks, each), targets)
        kept = manager.checkpoint_history("BENCH-1")
        if not kept or kept[-1].data != data:
            self.report.failed("create_checkpoint: the last one is not there")

    def _langgraph(self, data: dict[str, Any]) -> Call | None:
        module = self._peer("langgraph.checkpoint.sqlite")
        base = self._peer("langgraph.checkpoint.base")
        if module is None or base is None:
            return None
        connection = sqlite3.connect(self.scratch / "langgraph.db", check_same_thread=False)
        saver = module.SqliteSaver(connection)
        saver.setup()
        config = {"configurable": {"thread_id": "BENCH-1", "checkpoint_ns": ""}}

        def put() -> None:
            checkpoint = {**base.empty_checkpoint(), "channel_values": data}
            saver.put(config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, {})

        return put


def _sqlite_rows(path: Path, data: dict[str, Any]) -> Call:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    columns = "task_id, checkpoint_id, timestamp, state, data"
    connection.execute(f"create table checkpoints ({columns})")

    def insert() -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = ("BENCH-1", os.urandom(6).hex(), stamp, "running", json.dumps(data))
        connection.execute(f"insert into checkpoints ({columns}) values (?, ?, ?, ?, ?)", row)

    return insert


def _interleaved(makers: dict[str, Call], blocks: int, each: int) -> dict[str, list[float]]:
    """Microseconds a call, one figure a block; the contenders take turns."""
    times: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(blocks):
        for name, call in makers.items():
            started = time.perf_counter()
            for _index in range(each):
                call()
            times[name].append((time.perf_counter() - started) / each * 1e6)
    return times
