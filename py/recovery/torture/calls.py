"""What programs call, as commands of the torture: each runs in a forked child, in the workspace it stands in.

transact VALUE        file_transaction on shared.json: its field `value` becomes VALUE
count NAME            add one to the field `count` of a file, as the suite changes files of its own
checkpoint TASK N     a checkpoint of a task, with data {"n": N}
log TASK N            a line in a task's recovery log
rollup                the statistics, which writes their roll-up
trip NAME             open a circuit breaker
fail NAME             a failure of what a circuit breaker guards
hold NAME SECONDS     the lock of a file, waited for so long, held for no time
tidy DAYS             what `cleanup` does, so many days later, where a log of 2 KB is a long one
tidy-lightly DAYS     the same behind a command: for a second at most, without a word
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress

import file_lock
from recovery import checkpoints, cleanup, helper, jsonl, steps
from recovery.breaker import CircuitBreaker
from recovery.commit import Put
from recovery.errors import RecoveryError
from recovery.incidents import Incident, write
from recovery.session import Session
from recovery.stats import recovery_stats
from recovery.store import FileStore, transact


def _transact(value: str) -> None:
    with file_lock.file_transaction("shared.json") as copy:
        body = json.loads(copy.read_bytes())
        if body["value"] != value:
            body["value"] = value
            copy.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _count(name: str) -> None:
    def plan() -> Put:
        before = store.read(name, strict=False)
        body = json.loads(before.text) if before else {}
        body["count"] = body.get("count", 0) + 1
        return Put(name, before, json.dumps(body))

    with _session().store() as store:
        transact(store, [name], plan, create=True)


def _checkpoint(task: str, number: str) -> None:
    with _session().store() as store:
        checkpoints.create(store, task, "running", {"n": int(number)})


def _log(task: str, number: str) -> None:
    with _session().store() as store:
        incident = Incident(task, store.now())
        write(store, incident.failed(ConnectionError(number), "RETRY", 1, store.now(), "failed"))


def _rollup() -> None:
    with _session().store() as store:
        os.write(1, b"%d\n" % recovery_stats(store)["total_recoveries"])


def _trip(name: str) -> None:
    CircuitBreaker(name, session=_session()).trip(3600, "torture")


def _break(name: str) -> None:
    with suppress(ConnectionError), CircuitBreaker(name, 1000, session=_session()):
        raise ConnectionError("down")


def _hold(name: str, seconds: str) -> None:
    with file_lock.FileLock(name, timeout=float(seconds)):
        pass


def _tidy(days: str) -> None:
    jsonl.LONG = 2000
    with _session().store() as store:
        store.clock = lambda: time.time() + 86400.0 * int(days)
        result = cleanup.cleanup(store)
        os.write(1, result.line.encode() + b"\n")
        if result.data["code"]:
            refusal = RecoveryError("; ".join(result.data["notes"]))
            refusal.code = result.data["code"]
            raise refusal


def _tidy_lightly(days: str) -> None:
    jsonl.LONG = 2000
    FileStore.clock = staticmethod(lambda: time.time() + 86400.0 * int(days))
    cleanup.light(".")


def _session() -> Session:
    return Session(".", lock_timeout=10)


CALLS: dict[str, Callable[..., None]] = {
    "transact": _transact,
    "count": _count,
    "checkpoint": _checkpoint,
    "log": _log,
    "rollup": _rollup,
    "trip": _trip,
    "break": _break,
    "hold": _hold,
    "tidy": _tidy,
    "tidy-lightly": _tidy_lightly,
}


def run(command: tuple[str, ...]) -> None:
    """Run one in this process, which it leaves with the exit code a script would have."""
    steps.install(os.environ)
    steps.at("begin", " ".join(command))
    try:
        CALLS[command[0]](*command[1:])
        with suppress(OSError):  # it is done, whoever can't be told
            os.write(1, b"done\n")
    except (RecoveryError, OSError) as error:
        helper.report_error(error if isinstance(error, RecoveryError) else RecoveryError(str(error)), False)
        os._exit(getattr(error, "code", 74))
    steps.at("exit", 0)
    os._exit(0)
