"""The numbers of `recovery.stats` for the last hours, by who is in a hurry and may write nothing: the health check."""

from __future__ import annotations

import time

from recovery import layout
from recovery.errors import Busy
from recovery.stats_lines import moment_of
from recovery.stats_rollup import Logs, Moved, Numbers, Rollup, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from recovery.store import FileStore


def recent_stats(store: FileStore, names: Iterable[str], since: float, much: bool) -> dict[str, Any]:
    """The numbers of `recovery_stats(since=…)`, from those logs alone (base names) that were written to since then.

    Writes nothing.  With `much` in them it begins where the roll-up ends, if there is one.  Of an incident that ended
    twice, and the first time in a log that isn't among them, the second end counts.  What `recovery_stats` raises.
    """
    start = moment_of(since)
    for _ in range(8):
        logs = Logs(store, layout.LOGS, time.time)
        try:
            found = logs.of(names)
            if much:
                rollup = Rollup(store, layout.LOGS)
                rollup.update(logs, found, None)
                counted = rollup.tasks
            else:
                counted = {task: Task() for task in found}
                for task, files in found.items():
                    counted[task].count(task, logs, files)
            numbers = Numbers()
            for task, files in found.items():
                counted[task].add_to(numbers, task, logs, files, start)
            return numbers.report()
        except Moved:
            continue
        finally:
            logs.close()
    raise Busy(f"the logs in {layout.LOGS} kept being renamed", hint="ask again")
