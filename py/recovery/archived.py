"""Tasks that were completed and archived: `postbox/AGENT/archive/YYYY-MM.jsonl`, by the month of their completion.

A line a task, written by `recovery.archive`: `task_id agent_id archived_at completed_at`, the whole `entry` as it stood
in the outbox, its completion `record`, its `brief`, and as `listed` what progress.json had of it.  What would not come
back as it was from there stands as text besides (`entry_text`, `record_text`).  A line with `restored_at`, in the same
file, says that the task went back to its outbox.  Of a task's lines in a month the last holds, by its place in the
file: no clock decides.  It is archived if that one is no return, in the newest month if there are several; and what
stands in the outbox is not archived, whatever is said here.

Lines and files that can't be read may hold any task: one that is found nowhere else is not said to be new then, unless
the change log knows what stood there (`recovery.archived_log`).

`data/archive/AGENT.index` says which task is in which month, so that nobody has to read a year to know that a new task
is new.  It is a cache: what it doesn't cover is read, and without it everything.  It covers no file that has something
in it that can't be read.
"""

from __future__ import annotations

import os

from recovery import durable, jsonl, jsontext, layout, segments
from recovery.errors import DataError, RecoveryError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, Optional

    from recovery.store import FileStore

    Line = dict[str, Any]

FORMAT = 2
#: Bytes of a task's hash in an index, and of an entry: the hash, and the number of the month.
_HASH, _ENTRY = 8, 10


def is_there(store: FileStore, agent: str) -> bool:
    """Whether an agent has an archive: one question to the file system."""
    return store.read_state(layout.archives(agent)) is not None


def index_of(store: FileStore, agent: str) -> Optional[Index]:
    """The index of an agent's archive, for whoever looks for several tasks in it; None if there is no archive."""
    return Index(store, agent) if is_there(store, agent) else None


def find(store: FileStore, agent: str, task: str) -> Optional[Line]:
    """The archive's line of a task; None if it isn't there, or went back.

    Whoever asks has looked into the outbox.  DataError (65), Denied (77), StorageError (74): it is not found, and
    not all of the archive can be read.
    """
    index = index_of(store, agent)
    return index.line_of(task)[1] if index is not None else None


def among(store: FileStore, agent: str, tasks: Iterable[str]) -> set[str]:
    """Those of these tasks that are archived, as far as that can be read; each was looked for in the outbox before.

    DataError (65), Denied (77): there is no archive that could be listed.
    """
    index = index_of(store, agent)
    found = set()
    for task in tasks if index is not None else ():
        try:
            if index is not None and index.line_of(task)[1] is not None:
                found.add(task)
        except RecoveryError:
            continue
    return found


def lines_of(store: FileStore, month: str, task: str) -> list[Line]:
    """All lines of a task in one month, the oldest first; those of times when it went back, too."""
    return [line for line in _lines(store, month, task) if line["task_id"] == task]


def every(store: FileStore, agent: str) -> Iterator[Line]:
    """The lines of all tasks in an agent's archive, by month; of each its last.  One month at a time is in memory."""
    if not is_there(store, agent):
        return
    index = Index(store, agent)
    holding = index.holding()
    for n, month in enumerate(index.months):
        last = {line["task_id"]: line for line in _lines(store, month)}
        for line in last.values():
            if "restored_at" not in line and holding.get(_hash_of(line["task_id"]), n) == n:
                yield line


def count(store: FileStore, agent: str, there: Iterable[str] = ()) -> int:
    """How many tasks are in an agent's archive, without those that are `there` in its outbox.

    Lines that can't be read don't count.  A file that can't be is refused, as by `find`.
    """
    if not is_there(store, agent):
        return 0
    index = Index(store, agent)
    index.require_files()
    return len(index.holding().keys() - {_hash_of(task) for task in there})


def _lines(store: FileStore, month: str, about: str = "") -> Iterator[Line]:
    """All lines of a month, oldest first; with `about` only those in which that word stands."""
    for part in [*segments.of(store, month), month]:
        yield from _whole(segments.read(store, part) or b"", about)


def _whole(data: bytes, about: str = "") -> Iterator[Line]:
    if about:
        word = about.encode("utf-8")
        data = b"\n".join(line for line in data.split(b"\n") if word in line)
    for line in jsonl.records(data)[0]:
        if _is_line(line):
            yield line


def _is_line(line: Line) -> bool:
    return type(line.get("task_id")) is str and type(line.get("archived_at")) is str


def lines_in(data: bytes) -> Iterator[tuple[int, Optional[Line]]]:
    """The lines of a file with their numbers; None for one that can't be read, or is none of an archive.

    Without those that a crash tore: the same whole follows these.
    """
    torn, at = b"", 0
    for number, text in enumerate(data.split(b"\n"), 1):
        if not text.strip():
            continue
        if torn and not text.startswith(torn):
            yield at, None
        line = jsonl.record_of(text)
        if line is not None and _is_line(line):
            yield number, line
            torn = b""
        else:
            torn, at = text, number
    if torn:
        yield at, None


def _unreadable(data: bytes) -> int:
    """How many lines can't be read."""
    return sum(line is None for _, line in lines_in(data))


def flaw_of(line: Line, agent: str) -> str:
    """What keeps a record of an agent's archive from being the line of a task of that agent, "" if nothing does."""
    task = line.get("task_id")
    if type(task) is not str or type(line.get("archived_at")) is not str:
        return "a line is of no archived task"
    if line.get("agent_id", agent) != agent:
        return f"the line of {jsontext.quote(task)} is of agent {jsontext.dumps(line['agent_id'])}"
    return ""


def times_of(store: FileStore, month: str) -> dict[str, str]:
    """When each task of a month was last archived, or went back."""
    found: dict[str, str] = {}
    for line in _lines(store, month):
        found[line["task_id"]] = max(line["archived_at"], found.get(line["task_id"], ""))
    return found


def entry_text(line: Line) -> str:
    """The task's entry as it stood in the outbox; ValueError if the line has none."""
    if type(line.get("entry_text")) is str:
        return str(line["entry_text"])
    if not isinstance(line.get("entry"), dict):
        raise ValueError("the line has no entry")
    return jsontext.pretty(line["entry"])


def record_text(line: Line) -> Optional[str]:
    """The text of its completion record, None if it had none."""
    if type(line.get("record_text")) is str:
        return str(line["record_text"])
    return jsontext.pretty(line["record"]) + "\n" if isinstance(line.get("record"), dict) else None


# --- the index


class _Part:
    """Of one file the lines that the kept index doesn't cover, and where they end; `problem`: why they can't be read.

    `name` is what the file is called uncompressed.
    """

    __slots__ = ("data", "end", "month", "name", "problem")

    def __init__(self, store: FileStore, month: str, name: str, covered: int = 0) -> None:
        self.month = month
        self.name = name[: -len(".gz")] if name.endswith(".gz") else name
        self.problem: Optional[RecoveryError] = None
        skipped = segments.Skipped()
        data = b""
        try:
            data = segments.read(store, name, skipped=skipped) or b""
        except RecoveryError as error:
            self.problem = error
        except OSError as error:
            self.problem = from_os_error(error, f"could not read {name}")
        if skipped.problems:
            self.problem = DataError(skipped.problems[0])
        self.data, self.end = data[covered if len(data) > covered else 0 :], len(data)


class Index:
    """Which of an agent's tasks are in which months: the kept index, and beyond it whatever was written since.

    DataError (65) where the archive is no folder of this workspace; Denied (77) where it can't be listed.
    """

    def __init__(self, store: FileStore, agent: str) -> None:
        self.store, self.agent = store, agent
        store.root.place(f"{layout.archives(agent)}/any")
        self.months = [name for name in segments.logs(store, layout.archives(agent)) if layout.is_archive(name)]
        self._kept: list[str] = []  # the months it was made of
        self._covered: dict[str, int] = {}  # of each file, as it is called uncompressed, the bytes that it covers
        self._entries = b""
        self._read()
        self._fresh = list(self._look())

    def _read(self) -> None:
        try:
            data = segments.read(self.store, layout.index(self.agent)) or b""
            head, newline, entries = data.partition(b"\n")
            body = jsontext.loads(head.decode("ascii"))
            whole = bool(newline) and body["format"] == FORMAT and body["hash"] == durable.digest_of(entries)
            if whole and not len(entries) % _ENTRY:
                covered = {str(name): int(size) for name, size in body["covered"].items()}
                self._kept, self._covered, self._entries = list(map(str, body["months"])), covered, entries
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecoveryError):
            pass  # none, or another version's, or nobody can read it

    def _look(self) -> Iterator[_Part]:
        """Each file with lines that aren't covered."""
        for month in self.months:
            new = False
            for name in segments.of(self.store, month):
                if (name[: -len(".gz")] if name.endswith(".gz") else name) not in self._covered:
                    new = True
                    yield _Part(self.store, month, name)
            covered = 0 if new else self._covered.get(month, 0)  # what is new among the parts was covered as this
            st = self.store.read_state(month)
            if st is not None and st.st_size != covered:
                yield _Part(self.store, month, month, covered)

    def line_of(self, task: str) -> tuple[str, Optional[Line]]:
        """The line that holds of an archived task, and its month; ("", None) if it isn't archived.  As `find`."""
        months = self.months_of(task)
        for month in reversed(months):
            last = lines_of(self.store, month, task)[-1:]
            if last and "restored_at" not in last[0]:
                return month, last[0]
        return self._in_doubt(task, months)

    def require_files(self) -> None:
        """Refuse where a file as a whole can't be read."""
        for part in self._fresh:
            if part.problem is not None:
                raise part.problem

    def _in_doubt(self, task: str, months: Iterable[str]) -> tuple[str, Optional[Line]]:
        """As `line_of`, of a task that may stand in what can't be read: the change log knows, or it is refused."""
        bad: dict[str, Optional[DataError]] = {}
        for part in self._fresh:
            if part.problem is not None and not isinstance(part.problem, DataError):
                raise self._unknown(task, part.problem)
            if part.problem is not None or _unreadable(part.data):
                bad[part.month] = part.problem
        for month in months:  # what the index has of it is not there any more
            parts = [segments.read(self.store, name) or b"" for name in [*segments.of(self.store, month), month]]
            if any(map(_unreadable, parts)):
                bad.setdefault(month, None)
        for month in sorted(bad, reverse=True):
            from recovery import archived_log

            try:
                line = archived_log.line_of(self.store, month, task)
            except DataError as error:
                raise self._unknown(task, bad[month] or error) from None
            if line is not None and "restored_at" not in line:
                return month, line
        return "", None

    def _unknown(self, task: str, why: RecoveryError) -> RecoveryError:
        return type(why)(
            f"whether {self.agent}/{task} is in the archive can't be known: {why}. Nothing changed.",
            hint=why.hint or "`recovery doctor --repair` brings back what is known, and asks about the rest",
        )

    def months_of(self, task: str) -> list[str]:
        """The months in which something may stand of a task, oldest first."""
        found = set()
        wanted = _hash_of(task)
        low, high = 0, len(self._entries) // _ENTRY
        while low < high:
            middle = (low + high) // 2
            if self._entries[middle * _ENTRY : middle * _ENTRY + _HASH] < wanted:
                low = middle + 1
            else:
                high = middle
        while self._entries[low * _ENTRY : low * _ENTRY + _HASH] == wanted:
            number = int.from_bytes(self._entries[low * _ENTRY + _HASH : (low + 1) * _ENTRY], "big")
            found.add(self._kept[number] if number < len(self._kept) else "")
            low += 1
        word = task.encode("utf-8")
        found.update(part.month for part in self._fresh if word in part.data)
        return [month for month in self.months if month in found]

    def holding(self) -> dict[bytes, int]:
        """Of each archived task, by its hash, the number of the newest month that has it."""
        data = self.text()
        entries = self._entries if data is None else data.partition(b"\n")[2]
        return {  # sorted: of a task the newest month is the last
            entries[at : at + _HASH]: int.from_bytes(entries[at + _HASH : at + _ENTRY], "big")
            for at in range(0, len(entries), _ENTRY)
        }

    def text(self) -> Optional[bytes]:
        """The index as it should be kept by now; None if nothing was written since it was."""
        if not self._fresh and self._kept == self.months:
            return None
        numbers = {month: n.to_bytes(_ENTRY - _HASH, "big") for n, month in enumerate(self.months)}
        entries = set()
        for at in range(0, len(self._entries), _ENTRY):
            number = int.from_bytes(self._entries[at + _HASH : at + _ENTRY], "big")
            month = self._kept[number] if number < len(self._kept) else ""
            if month in numbers:
                entries.add(self._entries[at : at + _HASH] + numbers[month])
        covered = dict(self._covered)
        for part in self._fresh:
            if part.problem is None and not _unreadable(part.data):
                covered[part.name] = part.end
            for line in _whole(part.data):
                entry = _hash_of(line["task_id"]) + numbers[part.month]
                (entries.discard if "restored_at" in line else entries.add)(entry)
        for month in self.months:
            if not any(part.name == month for part in self._fresh) and self.store.read_state(month) is None:
                covered.pop(month, None)
        body = b"".join(sorted(entries))
        head = {"format": FORMAT, "hash": durable.digest_of(body), "months": self.months, "covered": covered}
        return jsontext.dumps(head).encode("ascii") + b"\n" + body


def _hash_of(task: str) -> bytes:
    return bytes.fromhex(durable.digest_of(task.encode("utf-8"))[: 2 * _HASH])


def keep_index(store: FileStore, agent: str) -> None:
    """Bring an agent's index up to date; written in one step, not synced: a damaged one is none.

    What was committed stands whether it can be written or not; where it can't, that is said.
    """
    try:
        _write_index(store, agent)
    except (OSError, RecoveryError) as error:
        store.told.append(f"{layout.index(agent)} could not be written: {error} (the next `recovery archive` does)")


def _write_index(store: FileStore, agent: str) -> None:
    data = Index(store, agent).text()
    if data is None:
        return
    lock = store.commit_lock()
    try:
        place = store.root.place(layout.index(agent), create=True)
        base = f".{place.base}.stage"
        durable.remove(place.folder, base)
        mode, gid = store.shared()
        made = durable.stage(place, base, (data,), mode, -1, gid)
        try:
            os.rename(base, place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        finally:
            made.discard()
    finally:
        lock.release()
