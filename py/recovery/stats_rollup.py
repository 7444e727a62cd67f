"""What was counted in the recovery logs, so that no line is counted twice: per log, per block, kept in one file.

A log is counted in blocks of whole lines of at least BLOCK bytes.  A block remembers the time of its newest line, so
that a question about the last hour reads the last hour, and the least and the greatest id of the incidents that ended
in it, so that an incident which ends a second time is looked for where it can be, and not remembered for ever.
"""

from __future__ import annotations

import os
from collections import Counter
from stat import S_ISLNK, S_ISREG

from recovery import durable, layout
from recovery.commit import Put, StartAgain
from recovery.errors import Busy, DataError, RecoveryError
from recovery.flock import Limits
from recovery.incidents import OUTCOMES
from recovery.stats_lines import parsed, rows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from recovery.stats_lines import Row
    from recovery.store import FileStore

    Key = tuple[str, str, str]  # strategy, error type, outcome
    Files = list[tuple[str, os.stat_result]]
    Plain = list[Any]  # as it stands in the roll-up

#: Of the roll-up; to be changed with what is counted or how it is kept.
FORMAT = 1
#: Bytes after which a block of lines is closed.
BLOCK = 256 * 1024
#: Bytes before the counted end of a log that tell whether it is still the log that was counted.
MARK = 4096
#: The roll-up is written again once so many bytes, or logs, would otherwise be counted again: less isn't worth a sync.
WORTH_BYTES, WORTH_TASKS = 64 * 1024, 16
#: A file written to this recently may be written to again without its times showing it (the kernel's clock tick).
TICK = 0.1
#: Seconds that the writing of the roll-up waits for another process at most.
PATIENCE = 1.0

_BLANK = " \t\r\n\v\f"


class Finished:
    """Sums over outcome lines; times in microseconds."""

    def __init__(self) -> None:
        self.counts: Counter[Key] = Counter()
        self.tries = self.seconds = self.waited = 0

    def add(self, plain: Plain) -> None:
        """Add what `plain` gave."""
        counts, tries, seconds, waited = plain
        for strategy, error_type, outcome, n in counts:
            self.counts[strategy, error_type, outcome] += n
        self.tries += tries
        self.seconds += int(seconds)
        self.waited += int(waited)

    def plain(self) -> Plain:
        sums = [str(self.seconds), str(self.waited)]  # which may be more than the 64 bits of some JSON readers
        return [[[*key, n] for key, n in self.counts.items()], self.tries, *sums]

    def count(self, rows: Iterable[Row]) -> None:
        """Count the rows of outcome lines."""
        keys = []
        for _, _, error_type, strategy, _, outcome, attempts, seconds, waited, _ in rows:
            keys.append((strategy, error_type, outcome))
            self.tries += max(int(attempts) - 1, 0) if outcome == "recovered" else int(attempts)
            self.seconds += round(float(seconds) * 1e6)
            self.waited += round(float(waited) * 1e6)
        self.counts.update(keys)


class Numbers:
    """What is added up over the tasks."""

    def __init__(self) -> None:
        self.finished = Finished()
        self.tasks = self.unfinished = self.skipped = 0

    def add(self, task: str, finished: Plain, newest: str) -> None:
        """All outcomes of a task, as `Finished.plain` has them, none of them later than `newest`."""
        self.finished.add(finished)

    def count(self, task: str, rows: list[Row]) -> None:
        """Some outcome lines of a task."""
        self.finished.count(rows)

    def report(self) -> dict[str, Any]:
        by_outcome = dict.fromkeys(OUTCOMES, 0)
        by_strategy: dict[str, dict[str, int]] = {}
        by_error_type: dict[str, dict[str, int]] = {}
        ended: Counter[bool | None] = Counter()
        for (strategy, error_type, outcome), n in sorted(self.finished.counts.items()):
            by_outcome[outcome] += n
            success = OUTCOMES[outcome]
            ended[success] += n
            if success is not None:
                for table, name in ((by_strategy, strategy), (by_error_type, error_type)):
                    entry = table.setdefault(name, {"total": 0, "successful": 0, "failed": 0})
                    entry["total"] += n
                    entry["successful" if success else "failed"] += n
        total = ended[True] + ended[False]
        finished = total + ended[None]
        return {
            "success_rate": ended[True] / total if total else 1.0,
            "total_recoveries": total,
            "successful_recoveries": ended[True],
            "failed_recoveries": ended[False],
            "cancelled_recoveries": ended[None],
            "unfinished_recoveries": self.unfinished,
            "by_strategy": by_strategy,
            "by_error_type": by_error_type,
            "by_outcome": by_outcome,
            "tasks_affected": self.tasks,
            "failed_tries": self.finished.tries,
            "avg_retry_time": self.finished.seconds / finished / 1e6 if finished else 0.0,
            "lock_wait_time": self.finished.waited / 1e6,
            "skipped_lines": self.skipped,
        }


# --- one log


class Block:
    """Some whole lines of a log: those that end at `end` and begin where the block before it ends."""

    __slots__ = ("end", "greatest", "least", "lines", "newest", "repeats")

    def __init__(
        self, end: int, lines: int = 0, newest: str = "", least: str = "", greatest: str = "", repeats: Any = ()
    ) -> None:
        self.end, self.lines = end, lines
        self.newest = newest  # time of a failure or outcome line
        self.least, self.greatest = least, greatest  # ids of incidents that ended here
        self.repeats: list[int] = list(repeats)  # outcome lines, counted from 0, of incidents that had ended before

    def plain(self) -> Plain:
        return [self.end, self.lines, self.newest, self.least, self.greatest, self.repeats]


class Log:
    """How far one file was counted: whole lines up to the end of its last block."""

    __slots__ = ("blocks", "ctime", "device", "inode", "mark", "mtime", "size")

    def __init__(
        self, device: int, inode: int, size: int = 0, mtime: int = 0, ctime: int = 0, mark: str = "", blocks: Any = ()
    ) -> None:
        self.device, self.inode, self.size, self.mtime, self.ctime = device, inode, size, mtime, ctime
        self.mark = mark  # hash of the bytes right before `end`
        self.blocks: list[Block] = [Block(*block) for block in blocks]

    def plain(self) -> Plain:
        state = [self.device, self.inode, self.size, self.mtime, self.ctime, self.mark]
        return [*state, [block.plain() for block in self.blocks]]

    @property
    def end(self) -> int:
        return self.blocks[-1].end if self.blocks else 0

    def spans(self) -> list[tuple[int, Block]]:
        """Each block, after where it begins."""
        return list(zip([0, *(block.end for block in self.blocks)], self.blocks))

    def remember(self, st: os.stat_result, now: float) -> None:
        """`st` is from before the reading: what was written since then shows in it."""
        self.size, self.mtime, self.ctime = st.st_size, st.st_mtime_ns, st.st_ctime_ns
        if max(self.mtime, self.ctime) > (now - TICK) * 1e9:
            self.ctime = -1

    def is_untouched(self, st: os.stat_result) -> bool:
        state = [self.device, self.inode, self.size, self.mtime, self.ctime]
        return state == [st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns]

    def may_have_grown(self, st: os.stat_result) -> bool:
        """The same file, and longer or only renamed; one of the same length that was written to was rewritten."""
        if (st.st_dev, st.st_ino) != (self.device, self.inode):
            return False
        return st.st_size > self.size or (st.st_size == self.size and st.st_mtime_ns == self.mtime)


class Moved(Exception):
    """A name doesn't lead to the file any more that it led to when the folder was listed."""


class Logs:
    """The one place that touches the files: lists them, and reads pieces of those that were listed."""

    def __init__(self, store: FileStore, folder: str, clock: Callable[[], float]) -> None:
        self.store, self.folder, self.clock = store, folder, clock
        self._open: dict[str, int] = {}

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def found(self, task_id: str | None) -> dict[str, Files]:
        """Each task's logs, the oldest first, as they are now.  DataError for one that is no regular file."""

        def wanted(name: str) -> bool:
            task = task_of_log(name)
            return task is not None and task_id in (None, task)

        return self._by_task(self._states(self.folder, wanted))

    def of(self, names: Iterable[str]) -> dict[str, Files]:
        """The same for some names; those that are gone, or no logs, are left out."""
        states = {}
        for name in names:
            st = self.store.read_state(f"{self.folder}/{name}")
            if st is not None and task_of_log(name) is not None:
                states[name] = st
        return self._by_task(states)

    def _by_task(self, states: dict[str, os.stat_result]) -> dict[str, Files]:
        found: dict[str, Files] = {}
        for *_, name, task in sorted(_key(name) for name in states):
            st = states[name]
            if S_ISLNK(st.st_mode):
                place = self.store.root.place(f"{self.folder}/{name}")
                st = os.stat(place.base, dir_fd=place.folder, follow_symlinks=False)
            if not S_ISREG(st.st_mode):
                raise DataError(f"{self.folder}/{name} is not a regular file")
            found.setdefault(task, []).append((name, st))
        return found

    def checkpoint_size(self, folder: str, task_id: str | None) -> int:
        """Bytes of the files in the checkpoint folder, or of the two of one task."""
        mine = {os.path.basename(name(task_id, folder)) for name in (layout.checkpoint, layout.history) if task_id}
        states = self._states(folder, lambda name: not mine or name in mine)
        return sum(st.st_size for st in states.values() if S_ISREG(st.st_mode))

    def _states(self, folder: str, wanted: Callable[[str], bool]) -> dict[str, os.stat_result]:
        """The state of each file wanted, all of one moment: from a listing during which no name came, went or changed.

        Where that doesn't stop the last look is the answer: names of other files come and go, too.
        """
        states: dict[str, os.stat_result] = {}
        try:
            above = self.store.root.place(folder + "/any").folder
            # a descriptor of its own: copies of one (after a fork too) share how far the listing has come
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
        except (FileNotFoundError, NotADirectoryError):
            return states
        try:
            for _ in range(8):
                before = os.fstat(fd).st_mtime_ns
                states.clear()
                with os.scandir(fd) as entries:
                    for entry in entries:
                        if wanted(entry.name):
                            try:
                                states[entry.name] = entry.stat(follow_symlinks=False)
                            except FileNotFoundError:
                                before = -1
                if os.fstat(fd).st_mtime_ns == before:
                    break
            return states
        finally:
            os.close(fd)

    def read(self, name: str, log: Log, start: int, end: int) -> bytes:
        """Bytes from `start` to `end`, fewer if the file has become shorter; Moved."""
        fd = self._open.get(name)
        if fd is None:
            try:
                fd, st = durable.open_regular(self.store.root.place(f"{self.folder}/{name}"))
            except FileNotFoundError:
                raise Moved from None
            if len(self._open) >= 16:
                self.close()
            self._open[name] = fd
            if (st.st_dev, st.st_ino) != (log.device, log.inode):
                raise Moved
        return os.pread(fd, end - start, start)


def _named(name: str) -> tuple[str, str] | None:
    """Task and number ("": none) of TASK_recovery.jsonl or TASK_recovery.N.jsonl; None if it is neither."""
    stem, end = name[: -len(".jsonl")], "_recovery"
    if not name.endswith(".jsonl"):
        return None
    head, _, number = stem.rpartition(".")
    if number.isascii() and number.isdigit() and len(number) <= 18 and head.endswith(end):
        stem = head
    else:
        number = ""
    return (stem[: -len(end)], number) if stem.endswith(end) and stem != end else None


def task_of_log(name: str) -> str | None:
    """Whose recovery log a file is, by its base name; None if it is none."""
    found = _named(name)
    return None if found is None else found[0]


def _key(name: str) -> tuple[bool, int, str, str]:
    """How a log sorts, the oldest first: the highest number, then lower ones, then the one without; and its task."""
    found = _named(name)
    assert found is not None
    task, number = found
    return not number, -int(number or 0), name, task


class Task:
    """What was counted in a task's logs, as one: an incident may begin in one file and end in the next."""

    __slots__ = ("_finished", "_logs", "finished", "logs", "newest", "oldest", "opened", "skipped")

    def __init__(
        self,
        logs: Plain | None = None,
        finished: Plain | None = None,
        opened: dict[str, str] | None = None,
        skipped: int = 0,
        oldest: str = "",
        newest: str = "",
    ) -> None:
        self._logs, self._finished = logs, finished  # plain, and all there is until `unfold`: most tasks need no more
        self.logs: list[Log] = []
        self.finished = Finished()
        self.opened = {} if opened is None else opened  # incidents without an outcome: the time of their newest line
        self.skipped = skipped
        self.oldest, self.newest = oldest, newest  # the first of the outcomes' times, the last of all lines'

    def unfold(self) -> Task:
        if self._logs is not None and self._finished is not None:
            self.logs = [Log(*log) for log in self._logs]
            self.finished.add(self._finished)
            self._logs = self._finished = None
        return self

    def plain(self) -> Plain:
        logs = [log.plain() for log in self.logs] if self._logs is None else self._logs
        finished = self.finished.plain() if self._finished is None else self._finished
        return [logs, finished, self.opened, self.skipped, self.oldest, self.newest]

    def is_current(self, files: Files) -> bool:
        """Whether nobody has written to these logs since they were counted."""
        if self._logs is None:
            return len(self.logs) == len(files) and all(log.is_untouched(st) for log, (_, st) in zip(self.logs, files))
        return [log[:5] for log in self._logs] == [
            [st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns] for _, st in files
        ]

    def continues(self, logs: Logs, files: Files) -> bool:
        """Whether all that was counted is still there, in the same order, and everything new comes after it."""
        if not 0 < len(self.logs) <= len(files):
            return False
        for log, (name, st) in zip(self.logs, files):
            if log.is_untouched(st):
                continue
            if not log.may_have_grown(st) or log.mark != _mark(logs, name, log):
                return False
            if log is not self.logs[-1] and b"\n" in logs.read(name, log, log.end, st.st_size):
                return False
        return True

    def count(self, task: str, logs: Logs, files: Files) -> int:
        """Count what is new since `continues`; how many bytes that was."""
        counted = 0
        names = [name for name, _ in files]
        ended = Ended(task, logs, [(name, log) for name, log in zip(names, self.logs) if log.blocks])
        for n, (name, st) in enumerate(files):
            if n < len(self.logs) and self.logs[n].is_untouched(st):
                continue
            if n == len(self.logs):
                self.logs.append(Log(st.st_dev, st.st_ino))
            log = self.logs[n]
            before = log.end
            if n >= len(self.logs) - 1:
                self._count_log(task, logs, name, log, st.st_size, ended)
            log.mark = _mark(logs, name, log)
            log.remember(st, logs.clock())
            counted += log.end - before
        return counted

    def _count_log(self, task: str, logs: Logs, name: str, log: Log, size: int, ended: Ended) -> None:
        at = log.end
        pieces: list[bytes] = []  # of a line that is longer than what was read
        while at < size:
            piece = logs.read(name, log, at, min(at + BLOCK, size))
            if not piece:
                break
            at += len(piece)
            cut = piece.rfind(b"\n") + 1
            if cut:
                data = b"".join((*pieces, piece[:cut]))
                pieces = []
                start = log.blocks[-2].end if len(log.blocks) > 1 else 0
                if not log.blocks or log.end - start >= BLOCK:
                    log.blocks.append(Block(log.end))
                self._count_lines(task, log.blocks[-1], data, ended)
            if cut < len(piece):
                pieces.append(piece[cut:])

    def _count_lines(self, task: str, block: Block, data: bytes, ended: Ended) -> None:
        opened, seen = self.opened, ended.seen
        rows = rows_of(data)
        times, firsts = [block.newest], []
        for n, row in enumerate(rows):
            owner, when, _, _, incident, outcome, _, _, _, other = row
            if owner != task:
                found = parsed(other, task)
                if found is None:
                    self.skipped += bool(owner or other.strip(_BLANK))
                    continue
                row = found
                when, incident, outcome = row[1], row[4], row[5]
            times.append(when)
            if incident in seen or (incident <= ended.greatest and ended.before(incident)):
                if outcome:
                    block.repeats.append(block.lines + n)
            elif outcome:
                seen.add(incident)
                opened.pop(incident, None)
                firsts.append(row)
            elif when > opened.get(incident, ""):
                opened[incident] = when
        block.newest = max(times)
        self.newest = max(self.newest, block.newest)
        if firsts:
            self.finished.count(firsts)
            began, ids = [row[1] for row in firsts], [row[4] for row in firsts]
            self.oldest = min(began) if not self.oldest else min(self.oldest, *began)
            block.least = min(ids) if not block.least else min(block.least, *ids)
            block.greatest = max(block.greatest, *ids)
        block.lines += len(rows)
        block.end += len(data)

    def add_to(self, numbers: Numbers, task: str, logs: Logs, files: Files, since: str) -> None:
        """Add what counts from `since` on."""
        numbers.skipped += self.skipped
        if not self.newest or self.newest < since:
            return
        numbers.tasks += 1
        numbers.unfinished += sum(when >= since for when in self.opened.values()) if since else len(self.opened)
        if self.oldest >= since:
            numbers.add(task, self.finished.plain() if self._finished is None else self._finished, self.newest)
            return
        for log, (name, _) in zip(self.unfold().logs, files):
            for start, block in log.spans():
                if block.newest >= since and block.greatest:
                    ended = _outcomes(_whole(logs, name, log, start, block.end), task)
                    repeats = set(block.repeats)
                    numbers.count(task, [row for n, row in ended if row[1] >= since and n not in repeats])


def _outcomes(data: bytes, task: str) -> Iterable[tuple[int, Row]]:
    """The rows of the outcome lines in a block, each after the line's number."""
    for n, row in enumerate(rows_of(data)):
        known = row if row[0] == task else parsed(row[9], task)
        if known is not None and known[5]:
            yield n, known


class Ended:
    """The incidents that have ended.  Those of blocks that were counted by an earlier call are read when asked for."""

    def __init__(self, task: str, logs: Logs, counted: Iterable[tuple[str, Log]]) -> None:
        self.seen: set[str] = set()
        self.task, self.logs = task, logs
        self._unread = [
            (name, log, start, block) for name, log in counted for start, block in log.spans() if block.greatest
        ]
        #: Of the incidents that ended in blocks which have not been read.
        self.greatest = max((block.greatest for *_, block in self._unread), default="")

    def before(self, incident: str) -> bool:
        """Whether it ended in one of the blocks where it can have; they are read."""
        unread = []
        for one in self._unread:
            name, log, start, block = one
            if not block.least <= incident <= block.greatest:
                unread.append(one)
                continue
            data = _whole(self.logs, name, log, start, block.end)
            self.seen.update(row[4] for _, row in _outcomes(data, self.task))
        if len(unread) < len(self._unread):
            self._unread = unread
            self.greatest = max((block.greatest for *_, block in unread), default="")
        return incident in self.seen


def _whole(logs: Logs, name: str, log: Log, start: int, end: int) -> bytes:
    data = logs.read(name, log, start, end)
    if len(data) < end - start or not data.endswith(b"\n"):
        raise Moved  # cut off since it was listed
    return data


def _mark(logs: Logs, name: str, log: Log) -> str:
    return durable.digest_of(logs.read(name, log, max(0, log.end - MARK), log.end))


# --- the roll-up


class Rollup:
    """`data/statistics.json`: for each log folder and task what was counted, under a hash of it all."""

    def __init__(self, store: FileStore, folder: str) -> None:
        self.store, self.folder = store, folder
        self.version: durable.Version | None = None
        self.tasks: dict[str, Task] = {}
        self._others: dict[str, Any] = {}
        self._bytes = self._tasks = 0  # counted or dropped since it was written
        kept = self._read()
        if kept is None:
            self._tasks = WORTH_TASKS
        else:
            self._others = kept
            self.tasks = {task: Task(*plain) for task, plain in kept.pop(folder, {}).items()}

    def _read(self) -> dict[str, Any] | None:
        try:
            self.version = self.store.read(layout.STATISTICS, strict=False)
        except RecoveryError:
            return None
        if self.version is None:
            return None
        text, head = self.version.text, _head()
        hashed = len(head) + 40
        body = text[hashed + len(_MIDDLE) : -len(_END)]
        if not (text.startswith(head) and text.startswith(_MIDDLE, hashed) and text.endswith(_END)):
            return None
        data = body.encode("latin-1")
        if durable.digest_of(data) != text[len(head) : hashed]:
            return None
        return dict(_loads(data))

    def update(self, logs: Logs, found: Mapping[str, Files], task_id: str | None) -> None:
        """Count what is new in the logs `found`; forget those that are gone."""
        for task in [task for task in self.tasks if task not in found and task_id in (None, task)]:
            del self.tasks[task]
            self._tasks += 1
        for task, files in found.items():
            known = self.tasks.get(task)
            if known is not None and known.is_current(files):
                continue
            try:
                if known is None or not known.unfold().continues(logs, files):
                    known = Task()
                self._bytes += known.count(task, logs, files)
            except BaseException:
                self.tasks.pop(task, None)  # it may be counted in part
                raise
            self.tasks[task] = known
            self._tasks += 1

    def write(self) -> None:
        """Keep it for the next caller if that is worth a sync; waits for others no longer than PATIENCE."""
        if self._bytes < WORTH_BYTES and self._tasks < WORTH_TASKS:
            return
        if self.version is None and not self.tasks:
            return
        folders = {**self._others, self.folder: {task: known.plain() for task, known in self.tasks.items()}}
        data = _dumps(folders)
        text = _head() + durable.digest_of(data) + _MIDDLE + data.decode("utf-8") + _END
        limits = self.store.limits
        self.store.limits = Limits(PATIENCE, PATIENCE, limits.command)
        self.store.limits.family = ""
        try:
            with self.store.lock([layout.STATISTICS], create=True) as held:
                self.store.commit(held, Put(layout.STATISTICS, self.version, text))
        except (Busy, StartAgain):
            pass  # another's is as good
        finally:
            self.store.limits = limits


_MIDDLE, _END = '", "folders": ', "}\n"


def _head() -> str:
    """How a roll-up of this version begins; one of another version, or other outcomes, begins otherwise."""
    return f'{{"format": {FORMAT}, "outcomes": "{" ".join(OUTCOMES)}", "hash": "'


def _dumps(value: Any) -> bytes:
    try:
        import orjson

        return orjson.dumps(value)
    except (ImportError, TypeError):  # lone surrogates, which only `json` writes
        import json

        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _loads(data: bytes) -> Any:
    try:
        import orjson

        return orjson.loads(data)
    except (ImportError, ValueError):
        import json

        return json.loads(data)
