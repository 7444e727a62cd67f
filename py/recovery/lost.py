"""Changes whose line the log has lost: a torn line, a part that is damaged or gone.

Every commit has a number, one more than the last.  A number may be missing for one good reason: that commit was undone
as a whole, which the journal says of the last one, and the line after it of those before (`aborted`).  An earlier
version's line doesn't, but data/conflicts/ does of an edit that was set aside.  Any other stood.  Nobody knows what it
was; that it didn't touch a file is proven where the hashes of the changes around it join.
"""

from __future__ import annotations

from itertools import islice

from recovery import changelog, jsontext, layout
from recovery.errors import DataError, RecoveryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional

    from recovery import segments
    from recovery.journal import Record
    from recovery.store import FileStore

    Line = dict[str, Any]

#: Numbers of undone commits in a row that a line keeps.
_KEPT = 100


class Numbers:
    """The numbers that are missing, as the log is read, the highest first.

    `newest` is the number of the last commit that has ended: read it before the log, whose lines come before that.
    """

    def __init__(self, newest: int = 0, aborted: Iterable[int] = (), store: Optional[FileStore] = None) -> None:
        self.newest, self._aborted = newest, set(aborted)
        self._store = store  # until what was set aside has been looked at
        self._next = newest
        self._gaps: list[tuple[int, int]] = []

    @classmethod
    def of(cls, store: FileStore) -> Numbers:
        """As the journal has it; without one only what is missing between two lines is seen."""
        journal = store.journal()
        record = journal.read() if journal is not None else None
        if journal is None or record is None:
            return cls(journal.next_seq - 1 if journal is not None else 0, store=store)
        return cls(journal.next_seq - 1 if record.finished else record.seq - 1, aborted_by(record), store)

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
                if number not in self._aborted and not self._was_set_aside(number):
                    return number
        return 0

    def _was_set_aside(self, number: int) -> bool:
        if self._store is not None:
            self._aborted |= _set_aside(self._store)
            self._store = None
        return number in self._aborted


def aborted_by(record: Record) -> list[int]:
    """The undone commits that end with the journal's last record: [] if that one stood."""
    if record.direction != "ABORT":
        return []
    line = record.body.get("line")
    before = line.get("aborted") if isinstance(line, dict) else None
    return [*_numbers(before), record.seq][-_KEPT:]


def _set_aside(store: FileStore) -> set[int]:
    """The commits whose edits were set aside, after all that they had done was undone."""
    found = set()
    for base in store.list(layout.CONFLICTS):
        try:
            version = store.read(f"{layout.CONFLICTS}/{base}") if base.endswith(".conflict.json") else None
            value = jsontext.loads(jsontext.from_latin(version.text)) if version is not None else None
        except (RecoveryError, ValueError):
            continue  # it proves nothing
        if isinstance(value, dict) and value.get("direction") == "ABORT" and type(value.get("seq")) is int:
            found.add(value["seq"])
    return found


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
    must be what the changes around the gap left and found: whatever moves a task moves its outbox.  Somebody's hand in
    them elsewhere raises no doubt, as a number says between which two changes its own stood.  The other files are many
    tasks', or are compared as a whole.
    """
    numbers = since(store, line)
    if not numbers.lost(line["seq"]):
        return
    outboxes = [file["name"] for file in line["files"] if file["name"].endswith("/outbox.json")]
    for name in sorted({layout.outbox(agent), *outboxes}):
        number = in_doubt(store, numbers, line, name)
        if number:
            raise refusal(
                number,
                f"and {name} is not what the changes around it left: it may have been one of {agent}/{task}. "
                "Nothing changed.",
            )


def since(store: FileStore, line: Line, most: int = 1 << 62, skipped: Optional[segments.Skipped] = None) -> Numbers:
    """What is missing behind a change; of the newest `most` lines, where that is asked for, alone."""
    numbers = Numbers.of(store)
    for one in islice(changelog.by_number(store, skipped=skipped), most):
        numbers.meet(one)
        if one["seq"] <= line["seq"]:
            break
    return numbers


def in_doubt(store: FileStore, numbers: Numbers, line: Line, name: str) -> int:
    """The newest lost change that may have been one of a file, and came after `line`; 0 if there is none."""
    if not numbers.lost(line["seq"]):
        return 0
    version = store.read(name, strict=False)
    found, below = None if version is None else version.hash, 1 << 62
    for one in changelog.by_number(store, name):
        for file in one["files"]:
            if file["name"] != name:
                continue
            above = max(one["seq"], line["seq"])
            number = numbers.lost(above, below) if file.get("after") != found else 0
            if number or above == line["seq"]:
                return number
            found, below = file.get("before"), above
    return numbers.lost(line["seq"], below)
