"""What the recovery logs counted that are gone: `data/folded.json`, so that cleaning up changes no number.

Unlike the roll-up it is the truth.  A task's logs are folded in two steps: what they count is written here, together
with the names of their files, in one step that is synced; then the files go.  Who reads meanwhile, or after a crash in
between, passes those files over: nothing is counted twice, nothing is lost.  A file that is folded was renamed first,
under the lock of the appends, to a name that is never appended to.

The newest MOST tasks are kept one by one, older ones as the sums of their month.
"""

from __future__ import annotations

import os

from recovery import derived, jsonl, jsontext, layout, segments, steps
from recovery.errors import DataError, Unavailable
from recovery.stats_rollup import Finished, Logs, Numbers, Task
from recovery.store import FileStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from recovery.stats_rollup import Files

    #: Sums of the outcomes, unfinished incidents, lines passed over, oldest outcome, newest line, tasks.
    Plain = list[Any]

FORMAT = 1
#: Tasks that are kept one by one.
MOST = 20_000
#: A log that is to be folded gets this number: newer than every other that was put aside.
_LAST = 0


class Folded:
    """The file, read: `tasks` and `months` by name, and `gone`, the files that are counted here, as [name, inode]."""

    def __init__(self, store: FileStore) -> None:
        """DataError (65): it is damaged; Unavailable (69): a newer version wrote it."""
        self.tasks: dict[str, Plain] = {}
        self.months: dict[str, Plain] = {}
        self.gone: list[list[Any]] = []
        version = store.read(layout.FOLDED)
        self.hash = version.hash if version is not None else ""
        if version is None:
            return
        try:
            body = jsontext.loads(jsontext.from_latin(version.text))
            form = body["format"]
            if type(form) is int and form > FORMAT:
                raise Unavailable(f"{layout.FOLDED} has format {form}, this version knows {FORMAT}")
            self.tasks, self.months, self.gone = body["tasks"], body["months"], body["gone"]
            for one in (*self.tasks.values(), *self.months.values()):
                Finished().add(one[0])
                if [type(value) for value in one[1:]] != [int, int, str, str, int]:
                    raise ValueError("is not what was counted")
            if not all(layout.is_id(task) for task in self.tasks):
                raise ValueError("names what is no task")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise DataError(
                f"{layout.FOLDED} is damaged: {error}",
                hint="put back a copy; without it the statistics of logs that are gone are lost",
            ) from None

    def without(self, found: dict[str, Files]) -> dict[str, Files]:
        """The logs that are not counted here."""
        gone = {(name, inode) for name, inode in self.gone}
        if not gone:
            return found
        kept = {
            task: [(name, st) for name, st in files if (name, st.st_ino) not in gone] for task, files in found.items()
        }
        return {task: files for task, files in kept.items() if files}

    def add_to(self, numbers: Numbers, task: str | None, since: str, counted: Iterable[str]) -> None:
        """Add what is folded, of all or of `task`: with `since` whatever is as a whole from then on.

        `counted` are the tasks that are among the numbers already.
        """
        if task is not None:
            chosen = [(task, self.tasks[task])] if task in self.tasks else []
        else:
            chosen = [*self.tasks.items(), *self.months.items()]
        known = set(counted)
        for name, (finished, unfinished, skipped, oldest, newest, tasks) in chosen:
            numbers.skipped += skipped
            if newest and (not since or (oldest or newest) >= since):
                numbers.finished.add(finished)
                numbers.unfinished += unfinished
                numbers.tasks += 0 if name in known else tasks

    def add(self, task: str, counted: Plain) -> None:
        self.tasks[task] = _sum(self.tasks.pop(task, None), counted, one=True)
        while len(self.tasks) > MOST:
            oldest = next(iter(self.tasks))
            plain = self.tasks.pop(oldest)
            month = (plain[4] or "none")[:7]
            self.months[month] = _sum(self.months.get(month), plain, one=False)

    def text(self) -> str:
        body = {"format": FORMAT, "gone": self.gone, "months": self.months, "tasks": self.tasks}
        return jsontext.dumps(body) + "\n"


def _sum(known: Plain | None, more: Plain, one: bool) -> Plain:
    if known is None:
        return more
    finished = Finished()
    finished.add(known[0])
    finished.add(more[0])
    oldest = min(filter(None, (known[3], more[3])), default="")
    tasks = max(known[5], more[5]) if one else known[5] + more[5]
    return [finished.plain(), known[1] + more[1], known[2] + more[2], oldest, max(known[4], more[4]), tasks]


def _plain(task: Task) -> Plain:
    newest = task.newest
    return [task.finished.plain(), len(task.opened), task.skipped, task.oldest, newest, int(bool(newest))]


def old(store: FileStore, waiting: set[str]) -> Iterator[tuple[str, str, list[str], int]]:
    """The tasks with logs, except those `waiting`: newest line, id, file names, bytes; as they are found.

    A log in which nothing counts goes by the time of its last write.
    """
    logs = Logs(store, layout.LOGS, store.clock)
    try:
        for task, files in logs.found(None).items():
            if task in waiting or not layout.is_id(task):
                continue
            newest = max(_newest(store, name, st) for name, st in files)
            size = sum(st.st_size for _, st in files)
            yield newest, task, [f"{layout.LOGS}/{name}" for name, _ in files], size
    finally:
        logs.close()


def _newest(store: FileStore, name: str, st: os.stat_result) -> str:
    """The time of a log's last line."""
    data = segments.read(store, f"{layout.LOGS}/{name}", 1 << 16)
    for entry in reversed(jsonl.records(data or b"")[0]):
        if type(entry.get("timestamp")) is str:
            return str(entry["timestamp"])
    return store.time(st.st_mtime)


def fold(store: FileStore, newest: Mapping[str, str]) -> list[str]:
    """Count the logs of these tasks into `data/folded.json` and remove them; the tasks that were folded.

    One that has a newer line by now than its `newest`, as `old` found it, stays.  Holds the commit lock, which every
    append takes, so a few tasks at once are enough.  A crash leaves the numbers as they were.  DataError (65); OSError.
    """
    done: list[str] = []
    lock = store.commit_lock()
    logs = Logs(store, layout.LOGS, store.clock)
    try:
        folded = Folded(store)
        _remove(store, folded)  # of a crash
        for task, last in newest.items():
            files = folded.without(logs.found(task)).get(task, [])
            if not files or max(_newest(store, name, st) for name, st in files) > last:
                continue
            files = _put_aside(store, task, files)
            counted = Task()
            counted.count(task, logs, files)
            folded.add(task, _plain(counted))
            folded.gone += [[name, st.st_ino] for name, st in files]
            done.append(task)
        if done:
            os.fsync(store.root.place(f"{layout.LOGS}/any").folder)  # the new names are there before they are counted
            steps.at("fold", len(done))
            derived.create(store, layout.FOLDED, folded.text())
            steps.at("folded", len(done))
            _remove(store, folded)
        return done
    finally:
        logs.close()
        lock.release()


def _put_aside(store: FileStore, task: str, files: Files) -> Files:
    """Rename the log that is appended to, if it is among the files."""
    live = layout.recovery_log(task).rpartition("/")[2]
    aside = f"{live[: -len('.jsonl')]}.{_LAST}.jsonl"
    if files[-1][0] != live:
        return files
    place = store.root.place(f"{layout.LOGS}/{live}")
    if any(name == aside for name, _ in files):  # of a crash: it is counted now, the live one next time
        return files[:-1]
    steps.at("fold-aside", live)
    os.rename(place.base, aside, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    return [*files[:-1], (aside, os.stat(aside, dir_fd=place.folder, follow_symlinks=False))]


def _remove(store: FileStore, folded: Folded) -> None:
    """Remove the files that are counted already, then forget them: their inodes may be others' soon."""
    if not folded.gone:
        return
    for name, inode in folded.gone:
        st = store.read_state(f"{layout.LOGS}/{name}")
        if st is not None and st.st_ino == inode:
            steps.at("fold-remove", name)
            store.discard(f"{layout.LOGS}/{name}")
    os.fsync(store.root.place(f"{layout.LOGS}/any").folder)
    folded.gone = []
    derived.create(store, layout.FOLDED, folded.text())
    steps.at("fold-removed")
