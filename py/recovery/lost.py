"""Changes whose line the log has lost: a torn line, a part that is damaged or gone.

Every commit has a number, one more than the last.  A number may be missing for one good reason: that commit was undone
as a whole, which the journal says of the last one, and the line after it of those before (`aborted`).  Any other stood.
Nobody knows what it was; that it didn't touch a file is proven where the hashes of the changes around it join.
"""

from __future__ import annotations

from recovery import changelog, layout
from recovery.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable

    from recovery.journal import Record
    from recovery.store import FileStore

    Line = dict[str, Any]

#: Numbers of undone commits in a row that a line keeps.
_KEPT = 100


class Numbers:
    """The numbers that are missing, as the log is read, the highest first.

    `newest` is the number of the last commit that has ended: read it before the log, whose lines come before that.
    """

    def __init__(self, newest: int = 0, aborted: Iterable[int] = ()) -> None:
        self.newest, self._aborted = newest, set(aborted)
        self._next = newest
        self._gaps: list[tuple[int, int]] = []

    @classmethod
    def of(cls, store: FileStore) -> Numbers:
        """As the journal has it; without one only what is missing between two lines is seen."""
        journal = store.journal()
        record = journal.read() if journal is not None else None
        if journal is None or record is None:
            return cls(journal.next_seq - 1 if journal is not None else 0)
        return cls(journal.next_seq - 1 if record.finished else record.seq - 1, aborted_by(record))

    def meet(self, line: Line) -> None:
        """Read one more line: what lies between it and the one before it is missing."""
        self._aborted.update(_numbers(line.get("aborted")))
        if line["seq"] < self._next:
            self._gaps.append((line["seq"] + 1, self._next))
        self._next = min(self._next, line["seq"] - 1) if self._next else line["seq"] - 1

    def lost(self, above: int = 0, below: int = 1 << 62) -> int:
        """The newest number between those two which is missing, 0 if none is."""
        for first, last in self._gaps:
            for number in range(min(last, below - 1), max(first, above + 1) - 1, -1):
                if number not in self._aborted:
                    return number
        return 0


def aborted_by(record: Record) -> list[int]:
    """The undone commits that end with the journal's last record: [] if that one stood."""
    if record.direction != "ABORT":
        return []
    line = record.body.get("line")
    before = line.get("aborted") if isinstance(line, dict) else None
    return [*_numbers(before), record.seq][-_KEPT:]


def _numbers(value: Any) -> list[int]:
    return [one for one in value if type(one) is int] if isinstance(value, list) else []


def refusal(number: int, why: str) -> DataError:
    """65: the line of a change is missing, and what depends on it."""
    return DataError(
        f"change {number} is lost: its line is missing in {layout.CHANGES}/, {why}",
        hint="recovery doctor",
    )


def newest(store: FileStore) -> int:
    """The newest change that is missing in the whole log, 0 if none is."""
    numbers = Numbers.of(store)
    line: Line = {"seq": 0}
    for line in changelog.by_number(store):
        numbers.meet(line)
    if not line["seq"]:  # none is left
        numbers.meet(line)
    return numbers.lost()


def require_last(store: FileStore, line: Line, agent: str, task: str) -> None:
    """DataError (65) if a later change of the task may have been lost from the log.

    The caller holds the locks of the line's files.  Where numbers are missing, the outboxes of `line`, and the agent's,
    must be what the changes around them left, each the next one's `before`: whatever moves a task moves its outbox.
    The other files are many tasks', or are compared as a whole.
    """
    numbers = Numbers.of(store)
    for one in changelog.by_number(store):
        if one["seq"] <= line["seq"]:
            break
        numbers.meet(one)
    numbers.meet(line)
    number = numbers.lost(line["seq"])
    if not number:
        return
    outboxes = [file["name"] for file in line["files"] if file["name"].endswith("/outbox.json")]
    for name in sorted({layout.outbox(agent), *outboxes}):
        if not _joins(store, line, name):
            raise refusal(
                number,
                f"and {name} is not what the changes around it left: it may have been one of {agent}/{task}. "
                "Nothing changed.",
            )


def _joins(store: FileStore, line: Line, name: str) -> bool:
    """Whether a file is what its recorded changes left, from the newest to `line`, each what the next one found."""
    version = store.read(name, strict=False)
    stands = None if version is None else version.hash
    for one in changelog.by_number(store, name):
        for file in one["files"]:
            if file["name"] != name:
                continue
            if file.get("after") != stands:
                return False
            if one["seq"] <= line["seq"]:
                return True
            stands = file.get("before")
    return False
