"""The numbers of `recovery.stats` for the last hours, by who is in a hurry and may write nothing: the health check,
and `recovery.overview`."""

from __future__ import annotations

import time

from recovery import jsontext, layout, segments
from recovery.errors import Busy
from recovery.incidents import OUTCOMES
from recovery.stats_lines import moment_of
from recovery.stats_rollup import Logs, Moved, Numbers, Rollup, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Optional

    from recovery.stats_lines import Row
    from recovery.stats_rollup import Plain
    from recovery.store import FileStore

#: What the recovery log calls the failure of a process that died in the middle of a commit, or of its task.
DIED = "OwnerDied"
#: Lines of one log, from its end, among which a task's last failure is looked for.
_FAR = 2000


class _ByCause(Numbers):
    """The same numbers, and by what they were caused."""

    def __init__(self) -> None:
        super().__init__()
        #: what failed for good, by error type: how often, and of each task a time after which it did no more
        self.failures: dict[str, tuple[list[int], dict[str, str]]] = {}
        #: the tasks among which a dead process's commit was finished or undone, each with such a time
        self.crashes: dict[str, str] = {}

    def add(self, task: str, finished: Plain, newest: str) -> None:
        super().add(task, finished, newest)
        for _, error_type, outcome, n in finished[0]:
            self._meet(task, error_type, outcome, n, newest)

    def count(self, task: str, rows: list[Row]) -> None:
        super().count(task, rows)
        for _, when, error_type, _, _, outcome, *_ in rows:
            self._meet(task, error_type, outcome, 1, when)

    def _meet(self, task: str, error_type: str, outcome: str, n: int, newest: str) -> None:
        if error_type == DIED and outcome in _OF_COMMITS:
            self.crashes[task] = max(newest, self.crashes.get(task, ""))
        if OUTCOMES[outcome] is False:
            counted, tasks = self.failures.setdefault(error_type, ([0], {}))
            counted[0] += n
            tasks[task] = max(newest, tasks.get(task, ""))


_FAILED = tuple(outcome for outcome, success in OUTCOMES.items() if success is False)
#: How a dead process's commit may end; the task of an owner who died is `returned`.
_OF_COMMITS = ("recovered", "rolled_back", "rollback_failed")


def recent_stats(store: FileStore, names: Iterable[str], since: float, much: bool) -> dict[str, Any]:
    """The numbers of `recovery_stats(since=…)`, from those logs alone (base names) that were written to since then.

    Writes nothing.  With `much` in them it begins where the roll-up ends, if there is one.  Of an incident that ended
    twice, and the first time in a log that isn't among them, the second end counts.  What `recovery_stats` raises.

    Beside those it has, for `failures` and `last_crash`:

        causes    of what failed for good, by error type: [times, {task: a time that no later one has}]
        crashes   tasks among which a dead process's commit was finished or undone: {task: such a time}
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
            numbers = _ByCause()
            for task, files in found.items():
                counted[task].add_to(numbers, task, logs, files, start)
            causes = {cause: [counted[0], tasks] for cause, (counted, tasks) in numbers.failures.items()}
            return {**numbers.report(), "causes": causes, "crashes": numbers.crashes}
        except Moved:
            continue
        finally:
            logs.close()
    raise Busy(f"the logs in {layout.LOGS} kept being renamed", hint="ask again")


def failures(store: FileStore, causes: dict[str, Any], most: int, tasks: int) -> list[dict[str, Any]]:
    """What failed for good, by its cause, the most frequent first: `most` of them, the rest as one without tasks.

    Each has `cause`, `count`, `last` (UTC), and of its tasks the last few, `AGENT/TASK` where the log says whose.
    """
    ordered = sorted(causes.items(), key=lambda one: (-one[1][0], one[0]))
    found = []
    for cause, (count, when) in ordered[:most]:
        lines = _newest(store, when, cause, _FAILED, tasks)
        names = ["/".join(filter(None, (_details(line).get("agent"), line["task_id"]))) for line in lines]
        last = lines[0]["timestamp"] if lines else max(when.values()) + "Z"
        found.append({"cause": cause, "count": count, "last": last, "tasks": names})
    rest = ordered[most:]
    if rest:
        last = max(when for _, (_, tasks_) in rest for when in tasks_.values()) + "Z"
        count = sum(one[1][0] for one in rest)
        found.append({"cause": f"{len(rest)} other causes", "count": count, "last": last, "tasks": []})
    return found


def last_crash(store: FileStore, crashes: dict[str, str]) -> Optional[dict[str, str]]:
    """The last commit that a dead process left, once somebody had dealt with it; None if there was none.

    `time` (of the repair, UTC), `what` it was, `by` whom it was left and `repaired_by` whom it was finished or undone
    ("": not recorded), `how` in words.
    """
    lines = _newest(store, crashes, DIED, _OF_COMMITS, 1)
    if not lines:
        return None
    line, details = lines[0], _details(lines[0])
    what = f"{details.get('op') or 'a change of'} " + "/".join(filter(None, (details.get("agent"), line["task_id"])))
    by = f"pid {details['pid']}" if type(details.get("pid")) is int else ""
    return {
        "time": str(line["timestamp"]),
        "what": what,
        "by": by,
        "repaired_by": str(details.get("repaired_by") or ""),
        "how": str(line.get("error_message") or ""),
    }


def _newest(
    store: FileStore, tasks: dict[str, str], cause: str, outcomes: Iterable[object], most: int
) -> list[dict[str, Any]]:
    """The last outcome line of each task that ended so, the newest first, `most` of them.

    Each task comes with a time that no line of its is later than: where that lies before all that was found, its log is
    not read.
    """
    wanted = frozenset(outcomes)
    found: list[dict[str, Any]] = []
    for task, bound in sorted(tasks.items(), key=lambda one: one[1], reverse=True):
        if len(found) >= most and bound < str(found[-1]["timestamp"]).rstrip("Z"):
            break
        word = jsontext.quote(cause).encode()
        for n, line in enumerate(segments.newest_first(store, layout.recovery_log(task), word, segments.Skipped())):
            if n >= _FAR:
                break
            if line.get("error_type") == cause and _details(line).get("outcome") in wanted:
                found.append({**line, "task_id": task, "timestamp": str(line.get("timestamp"))})
                break
        found = sorted(found, key=lambda one: one["timestamp"], reverse=True)[:most]
    return found


def _details(line: dict[str, Any]) -> dict[str, Any]:
    details = line.get("details")
    return details if isinstance(details, dict) else {}
