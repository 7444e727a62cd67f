"""What an archive can't say, asked of the change log: it has each line that ever went into one, as far as it reaches.

An archive has a line that can't be read where a disk lost it, or wrote zeros over it.  Which task it was is known all
the same if the log is whole from the change on that wrote the last line before it: what the archive should hold behind
that is what the log has.  A log that knows nothing of the lines that can be read is another life's, and knows nothing.
"""

from __future__ import annotations

from recovery import archived, changelog, layout, lost, segments
from recovery.errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore


class _Damage:
    """What can't be read of a month: `where` first, the txid of the change `before` that, those that came `behind` it.

    `text` are the lines that can't be read, as far as there are any bytes.
    """

    def __init__(self, store: FileStore, month: str) -> None:
        self.where = self.before = ""
        self.behind: set[str] = set()
        texts = []
        for part in [*segments.of(store, month), month]:
            skipped = segments.Skipped()
            try:
                data = segments.read(store, part, skipped=skipped) or b""
            except DataError:
                self.where = self.where or part
                continue
            lines = data.split(b"\n")
            for number, line in archived.lines_in(data):
                if line is None:
                    self.where = self.where or f"{part}:{number}"
                    texts.append(lines[number - 1])
                elif self.where:
                    self.behind.add(_change_of(line))
                else:
                    self.before = _change_of(line)
            if skipped.problems:
                self.where = self.where or part
        self.text = b"\n".join(texts)


def _change_of(line: dict[str, Any]) -> str:
    return str(line.get("txid")).rpartition("-")[0]


def is_known(store: FileStore, month: str) -> bool:
    """Whether the change log knows what should stand in a month, of which something can't be read.  As `line_of`."""
    try:
        line_of(store, month, "")
        return True
    except DataError:
        return False


def line_of(store: FileStore, month: str, task: str) -> Optional[dict[str, Any]]:
    """A task's last line in a month of which something can't be read, by the change log; None if it had none there.

    DataError (65): the log doesn't reach back to what can't be read, has lost a line since, or doesn't know what stands
    there; Denied (77), StorageError (74).
    """
    damage = _Damage(store, month)
    numbers = lost.Numbers.of(store)
    found: Optional[dict[str, Any]] = None
    first, is_ours = 0, False
    for line in changelog.by_number(store):
        numbers.meet(line)
        first = line["seq"]
        damage.behind.discard(line["txid"])
        for item in reversed(line["derived"]):
            if item["name"] == month and isinstance(item.get("append"), dict):
                is_ours = True
                if found is None and item["append"].get("task_id") == task:
                    found = dict(item["append"])
        if line["txid"] == damage.before:
            damage.before = ""
            first = 1
            break
    if damage.before or damage.behind or first != 1 or not is_ours:
        raise _refusal(damage, "doesn't reach back to it")
    if store.journal() is None or numbers.lost():
        raise _refusal(damage, "has lost lines since")
    if found is None and task and task.encode("utf-8") in damage.text:
        raise _refusal(damage, f"doesn't know of {task}, which it names")
    return found


def _refusal(damage: _Damage, why: str) -> DataError:
    return DataError(f"{damage.where} can't be read, and {layout.CHANGES}/ {why}")
