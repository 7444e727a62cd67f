"""Tasks that were completed and archived: `postbox/AGENT/archive/YYYY-MM.jsonl`, by the month of their completion.

A line a task, written by `recovery.archive`: `task_id agent_id archived_at completed_at`, the whole `entry` as it stood
in the outbox, its completion `record`, its `brief`, and as `listed` what progress.json had of it.  What would not come
back as it was from there stands as text besides (`entry_text`, `record_text`).  A line with `restored_at` says that the
task went back to its outbox.  The last line of a task holds; and what stands in the outbox is not archived, whatever is
said here.

`data/archive/AGENT.index` says which task is in which month, so that nobody has to read a year to know that a new task
is new.  It is a cache: what it doesn't cover is read, and without it everything.
"""

from __future__ import annotations

import os

from recovery import durable, jsonl, jsontext, layout, segments
from recovery.errors import RecoveryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, Optional

    from recovery.store import FileStore

    Line = dict[str, Any]

FORMAT = 1
#: Bytes of a task's hash in an index, and of an entry: the hash, and the number of the month.
_HASH, _ENTRY = 8, 10


def is_there(store: FileStore, agent: str) -> bool:
    """Whether an agent has an archive: one question to the file system."""
    return store.read_state(layout.archives(agent)) is not None


def find(store: FileStore, agent: str, task: str) -> Optional[Line]:
    """The archive's line of a task; None if it isn't there, or went back.

    Whoever asks has looked into the outbox.  What can't be read is passed over, and so are torn lines.
    """
    if not is_there(store, agent):
        return None
    months = Index(store, agent).months_of(task)
    found = None
    for month in months:
        for line in _lines(store, month, task):
            if line["task_id"] == task and (found is None or line["archived_at"] >= found["archived_at"]):
                found = line
    return None if found is None or "restored_at" in found else found


def lines_of(store: FileStore, agent: str, task: str) -> list[tuple[str, Line]]:
    """All lines of a task, each with its month, the oldest first; those of times when it went back, too."""
    found = []
    for month in segments.logs(store, layout.archives(agent)):
        found += [(month, line) for line in _lines(store, month, task) if line["task_id"] == task]
    return sorted(found, key=lambda one: str(one[1]["archived_at"]))


def every(store: FileStore, agent: str) -> Iterator[Line]:
    """The lines of all tasks in an agent's archive, by month; of each its last.  One month at a time is in memory."""
    if not is_there(store, agent):
        return
    for month in segments.logs(store, layout.archives(agent)):
        last = {line["task_id"]: line for line in _lines(store, month)}
        for line in last.values():
            if "restored_at" not in line:
                yield line


def count(store: FileStore, agent: str, there: Iterable[str] = ()) -> int:
    """How many tasks are in an agent's archive, without those that are `there` in its outbox."""
    if not is_there(store, agent):
        return 0
    index = Index(store, agent)
    return index.size() - sum(bool(index.months_of(task)) for task in there)


def _lines(store: FileStore, month: str, about: str = "") -> Iterator[Line]:
    """All lines of a month, oldest first; with `about` only those in which that word stands."""
    for part in [*segments.of(store, month), month]:
        yield from _whole(segments.read(store, part) or b"", about)


def _whole(data: bytes, about: str = "") -> Iterator[Line]:
    if about:
        word = about.encode("utf-8")
        data = b"\n".join(line for line in data.split(b"\n") if word in line)
    for line in jsonl.records(data)[0]:
        if type(line.get("task_id")) is str and type(line.get("archived_at")) is str:
            yield line


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


class Index:
    """Which of an agent's tasks are in which months: the kept index, and beyond it whatever was written since."""

    def __init__(self, store: FileStore, agent: str) -> None:
        self.store, self.agent = store, agent
        self.months = segments.logs(store, layout.archives(agent))
        self._kept: list[str] = []  # the months it was made of
        self._covered: dict[str, int] = {}  # of each file, as it is called uncompressed, the bytes that it covers
        self._entries = b""
        self._read()
        self._fresh = list(self._look())

    def _read(self) -> None:
        data = segments.read(self.store, layout.index(self.agent)) or b""
        head, newline, entries = data.partition(b"\n")
        try:
            body = jsontext.loads(head.decode("ascii"))
            whole = bool(newline) and body["format"] == FORMAT and body["hash"] == durable.digest_of(entries)
            if whole and not len(entries) % _ENTRY:
                self._kept, self._covered, self._entries = list(body["months"]), dict(body["covered"]), entries
        except (ValueError, KeyError, TypeError):
            pass  # none, or another version's

    def _look(self) -> Iterator[tuple[str, str, bytes, int]]:
        """Of each file with lines that aren't covered: its month, name, those lines, and where they end."""
        for month in self.months:
            new = False
            for name in segments.of(self.store, month):
                plain = name[: -len(".gz")] if name.endswith(".gz") else name
                if plain not in self._covered:
                    new = True
                    data = segments.read(self.store, name) or b""
                    yield month, plain, data, len(data)
            covered = 0 if new else self._covered.get(month, 0)  # what is new among the parts was covered as this
            st = self.store.read_state(month)
            if st is not None and st.st_size != covered:
                data = segments.read(self.store, month) or b""
                yield month, month, data[covered if len(data) > covered else 0 :], len(data)

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
        found.update(month for month, _, data, _ in self._fresh if word in data)
        return [month for month in self.months if month in found]

    def size(self) -> int:
        """How many tasks are archived; one that is so in two months counts twice."""
        data = self.text()
        return len(self._entries if data is None else data.partition(b"\n")[2]) // _ENTRY

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
        for month, name, data, end in self._fresh:
            covered[name] = end
            for line in _whole(data):
                entry = _hash_of(line["task_id"]) + numbers[month]
                (entries.discard if "restored_at" in line else entries.add)(entry)
        for month in self.months:
            if not any(name == month for _, name, _, _ in self._fresh) and self.store.read_state(month) is None:
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
