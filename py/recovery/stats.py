"""Recovery statistics: exact numbers from the recovery logs, without reading again what was counted before.

The logs are the truth (see `recovery.incidents`); `data/statistics.json` is a cache of what was counted in them, which
may be lost, damaged, or another version's at any time: then the logs are counted again.  Because how far a log was
counted and what was counted stand in one file that is replaced in one step, no two of them can disagree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from recovery import layout
from recovery.errors import Busy, RecoveryError, from_os_error
from recovery.session import best_effort
from recovery.stats_folded import Folded
from recovery.stats_lines import moment_of
from recovery.stats_rollup import Logs, Moved, Numbers, Rollup
from recovery.store import FileStore


def recovery_stats(
    store: FileStore,
    task_id: str | None = None,
    since: datetime | float | str | None = None,
    log_folder: str = layout.LOGS,
    checkpoint_folder: str = layout.CHECKPOINTS,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """What the recovery logs tell: of all tasks or of `task_id`, at all times or from `since` on.

    `since` is a datetime (naive ones are UTC), seconds since 1970, or ISO 8601; it is compared with the lines' own
    `timestamp`, to the microsecond.  `clock` only tells which files were written to a moment ago.

    The logs of a task are `TASK_recovery.N.jsonl`, the highest N first, then `TASK_recovery.jsonl`.  A line counts
    once it has its newline.  An *outcome line* is an object of that task with `details.outcome`, one of OUTCOMES; a
    *failure line* is one without.  Both need `task_id timestamp error_type strategy details.incident`, strings, and an
    outcome line `attempts` (a whole number up to 999,999,999), `seconds` and `lock_wait` (from 0 to under 1e9).  Only
    the first outcome line of an incident counts, so a line that was appended twice counts once.  Of these:

        successful_recoveries  incidents whose outcome counts as a success in OUTCOMES (recovered, rolled_back,
                               skipped, returned)
        failed_recoveries      … as none (failed, rollback_failed, parked, escalated)
        cancelled_recoveries   … as neither (cancelled; refused, by a check)
        total_recoveries       successful + failed
        success_rate           successful / total; 1.0 where total is 0: nothing went wrong
        unfinished_recoveries  incidents with a failure line and no outcome line: under way, or their process died
        by_strategy            {"RETRY": {"total", "successful", "failed"}, …}, of the outcome lines
        by_error_type          {"ConnectionError": {"total", "successful", "failed"}, …}, of the outcome lines
        by_outcome             {"recovered": n, …}, every one of OUTCOMES
        tasks_affected         tasks with a failure or outcome line
        failed_tries           sum of the outcome lines' `attempts`, less one where it is "recovered": that try worked
        avg_retry_time         seconds; mean of the outcome lines' `seconds`, cancelled ones too; 0.0 without any
        lock_wait_time         seconds; sum of the outcome lines' `lock_wait`
        skipped_lines          lines that are neither, blank ones apart: torn, foreign, another task's or version's
        log_size               bytes of the logs
        checkpoint_size        bytes of the files in the checkpoint folder; of the task's two, with `task_id`

    Logs that were cleaned up count as ever (`recovery.stats_folded`); with `since`, those of a task whose outcomes are
    all from then on, and of the oldest ones a month of such.

    With `since`, an outcome line counts from that time on, an unfinished incident if one of its failure lines is, a
    task if any of its lines is; the last three numbers do not depend on it.  Times are summed in whole microseconds,
    so that no order of adding shows.

    UsageError (64) for a bad task id or time, DataError (65) for a log that is no regular file, Denied (77) for one
    that can't be read, Busy (75) if logs keep being renamed.  Where the roll-up can't be written, that costs the next
    caller time and nothing else; a crash leaves the old one or the new one.  Logs are only appended to: of bytes that
    somebody changes in the middle of one that then grows, it is noticed if they are among the last 4096 counted.
    """
    if task_id is not None:
        layout.require_id("task", task_id)
    start = moment_of(since)
    rollup = Rollup(store, log_folder)
    for _ in range(8):
        logs = Logs(store, log_folder, clock)
        try:
            folded = Folded(store) if log_folder == layout.LOGS else None
            found = logs.found(task_id)
            if folded is not None:
                found = folded.without(found)
                if Folded(store).hash != folded.hash:
                    raise Moved
            rollup.update(logs, found, task_id)
            numbers = Numbers()
            for task, files in found.items():
                rollup.tasks[task].add_to(numbers, task, logs, files, start)
            if folded is not None:
                counted = [task for task in found if rollup.tasks[task].newest >= (start or "!")]
                folded.add_to(numbers, task_id, start, counted)
            size = logs.checkpoint_size(checkpoint_folder, task_id)
            break
        except Moved:  # rotated just now: look again
            continue
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            raise from_os_error(error, f"could not read {log_folder}") from None
        finally:
            logs.close()
    else:
        raise Busy(f"the logs in {log_folder} kept being renamed", hint="ask again")
    best_effort(f"{layout.STATISTICS} was not written", rollup.write)
    return {
        **numbers.report(),
        "checkpoint_size": size,
        "log_size": sum(st.st_size for files in found.values() for _, st in files),
    }
