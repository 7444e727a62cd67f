"""The recovery log: what failed, what was done about it, how it ended.  One format, for the scripts and for Python.

A *recovery* is an incident, from the first failure of a task's run to its outcome: a task that makes it at the third
try is one recovery, and a successful one.  In `logs/recovery/TASK_recovery.jsonl` it is one line for each try that
failed, and one that carries the outcome (the last failure's own line where nothing came after it):

    txid            of the line
    task_id         the task
    timestamp       UTC, ISO 8601, Z
    error_type      the class of the (last) error, error_message its text
    strategy        what was decided about it: RETRY ROLLBACK SKIP MANUAL ESCALATE
    success         whether all is well: false on a failure's line, by OUTCOMES on an outcome's
    details         `incident` (the same in all its lines), `attempt` or, with the `outcome`, `attempts`, `seconds`
                    since the first failure, `lock_wait` seconds of them; of a command that failed its exit `code`,
                    the seconds it `took` and the last lines of its `stderr`; `by`, the process (see `flock.identity`)
                    that goes on after a try that was not the last; of a verb the words it was `given`; more
                    as the writer likes
"""

from __future__ import annotations

import os
import sys
import time

from recovery import flock, layout
from recovery.commit import txid_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    from recovery.store import Store

    Entry = dict[str, Any]

#: How a recovery may end, and whether that is a success; None counts as neither.
OUTCOMES: dict[str, Optional[bool]] = {
    "recovered": True,  # a later try did it
    "rolled_back": True,  # everything protected is as it was before
    "skipped": True,  # left out on purpose
    "returned": True,  # its owner died; it is pending again, or somebody else has it
    "failed": False,  # the tries, the time or the budget were used up
    "rollback_failed": False,
    "parked": False,  # waits for a person
    "escalated": False,  # a person was told
    "refused": None,  # what was to be done was not: its checks failed
    "cancelled": None,  # by Ctrl-C, a signal, a cancelled task
}


class Incident:
    """One recovery under way: made at the first failure, it writes the lines described above.

    `error_type` and `error_message` are those of the last failure; `monotonic` gives seconds, and nothing else.
    """

    def __init__(self, task: str, time_now: str, monotonic: Callable[[], float] = time.monotonic, **more: Any) -> None:
        self.task, self.more, self.monotonic = task, more, monotonic
        self.id = txid_of(time_now, os.urandom(6).hex())
        self.began, self.waited = monotonic(), lock_wait()
        self.attempts = 0
        self.strategy = ""
        self.error_type = self.error_message = ""

    def failed(self, error: BaseException, strategy: str, attempt: int, time_now: str, outcome: str = "") -> Entry:
        """The line of a try that failed with `error`; with `outcome` it is the incident's last."""
        if not self.attempts:
            self.waited -= getattr(error, "waited", 0.0)  # the wait that was the failure
        self.attempts, self.strategy = attempt, strategy
        self.error_type, self.error_message = type(error).__name__, message_of(error)
        more = _told_by(error)
        if outcome:
            return self.ended(outcome, time_now, **more)
        return self._line(f"{self.id}-{attempt}", time_now, False, {"attempt": attempt, **more, "by": flock.identity()})

    def ended(self, outcome: str, time_now: str, attempts: int = 0, **more: Any) -> Entry:
        """The line that closes the incident; `outcome` is one of OUTCOMES, `attempts` the tries in all."""
        details = {
            "outcome": outcome,
            "attempts": attempts or self.attempts,
            "seconds": round(self.monotonic() - self.began, 6),
            "lock_wait": round(max(lock_wait() - self.waited, 0.0), 6),
        }
        return self._line(f"{self.id}-end", time_now, bool(OUTCOMES[outcome]), {**details, **more})

    def _line(self, txid: str, time_now: str, success: bool, details: Entry) -> Entry:
        return {
            "txid": txid,
            "task_id": self.task,
            "timestamp": time_now,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "strategy": self.strategy,
            "success": success,
            "details": {"incident": self.id, **details, **self.more},
        }


def write(store: Store, entry: Entry, folder: str = layout.LOGS) -> None:
    """Append a line to its task's log, durably.  What `Store.append` raises."""
    store.append(layout.recovery_log(entry["task_id"], folder), entry)


def _told_by(error: Any) -> Entry:
    """What an error knows of a command that failed."""
    found: Entry = {}
    if hasattr(error, "stderr_tail"):
        found["code"] = error.code
        if error.took:
            found["took"] = round(error.took, 3)
        if error.stderr_tail:
            found["stderr"] = error.stderr_tail[-MOST:]
    return found


#: Characters of an error's text that are kept: a log line is no place for a book.
MOST = 4000


def message_of(error: BaseException) -> str:
    """An error's text for a log: whole characters, of a length that can be read."""
    try:
        text = str(error) or type(error).__name__
    except Exception:  # somebody's __str__
        text = f"{type(error).__name__}, whose text could not be made"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= MOST else text[:MOST] + "…"


def lock_wait() -> float:
    """Seconds that this thread has waited for locks since it began."""
    contention = sys.modules.get("recovery.contention")
    return float(contention.waited.get(contention.get_ident(), 0.0)) if contention else 0.0
