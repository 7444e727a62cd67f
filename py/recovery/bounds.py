"""What the suite writes, and the bounds of it: one table, for cleanup, health check and help.

All of it together stays below a budget, by default 256 MB and 20,000 files a workspace; data/config.json may say
otherwise:

    "bounds": {"megabytes": 256, "files": 20000}

Each kind has its share of both, in percent, and an age.  What is older goes, and where a kind has more than its share
the oldest of it; but never what is open, however much there is: then the budget is exceeded, and that is said.  Tasks
are their owners' and not the suite's: outboxes, briefs, completion records and archives are in no budget, and nothing
but their owners removes them.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from recovery import layout
from recovery.errors import RecoveryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.store import FileStore

#: The budget where nobody says otherwise.
DEFAULTS = {"megabytes": 256, "files": 20000}
MEGABYTE = 1 << 20


class Kind:
    """One kind of files.

    what     in words
    size     percent of the budget's bytes that it may take, `files` of its files
    days     age from which on it goes; 0: by its share only
    kept     what is never removed, whatever its age and its share
    """

    __slots__ = ("days", "files", "kept", "name", "size", "what")

    def __init__(self, name: str, what: str, size: int, files: int, days: int, kept: str) -> None:
        self.name, self.what, self.size, self.files, self.days, self.kept = name, what, size, files, days, kept


KINDS = {
    kind.name: kind
    for kind in (
        Kind("changes", "the change log", 40, 5, 0, "each month's own file, and the newest part that was put aside"),
        Kind("checkpoints", "checkpoints", 10, 40, 7, "of tasks that are open, parked, escalated, resumable, undone"),
        Kind("logs", "recovery logs", 10, 20, 30, "of tasks that are open, parked or escalated; what they count stays"),
        Kind("escalations", "escalations", 2, 5, 90, "those that are open"),
        Kind("backups", "backups of outboxes", 8, 3, 30, "of tasks that are open, or that nobody knows of"),
        Kind("quarantine", "damaged originals", 10, 3, 90, "what an open escalation names"),
        Kind("conflicts", "edits that were set aside", 4, 3, 90, "parked ones, and what an open escalation names"),
        Kind("receipts", "receipts", 6, 2, 0, "all of them: a chain has no end that could go"),
        Kind("breakers", "circuit breakers", 1, 4, 90, "those that are open, or count failures"),
        Kind("keys", "idempotency keys", 3, 5, 30, "those of calls whose outcome is unknown, or that are younger"),
        Kind("timings", "durations", 1, 2, 90, "the newest of each that is in use"),
        Kind("checks", "results and logs of checks", 3, 3, 30, "those of checks that run"),
        Kind("locks", "lock files", 1, 4, 0, "those that are held, or whose file is there"),
        Kind("state", "journal, statistics, indexes, private copies", 1, 1, 0, "all of it"),
        Kind("archives", "archives of tasks", 0, 0, 0, "all of them: they are in no budget, and only compressed"),
    )
}


class Limits:
    """A workspace's budget: bytes and files."""

    __slots__ = ("files", "size")

    def __init__(self, size: int, files: int) -> None:
        self.size, self.files = size, files

    def of(self, kind: Kind) -> tuple[int, int]:
        """The share of a kind: bytes, files."""
        return self.size * kind.size // 100, self.files * kind.files // 100


def limits_of(store: FileStore) -> Limits:
    """What the workspace's config says, else DEFAULTS; nonsense in it is told and passed over."""
    values = dict(DEFAULTS)
    config = store.config.get("bounds", {})
    for key, value in (config if isinstance(config, dict) else {"bounds": config}).items():
        if key in DEFAULTS and type(value) is int and 1 <= value <= 10**9:
            values[key] = value
        else:
            store.told.append(f"{layout.CONFIG}: bounds: {key} {str(value)[:40]!a} is no bound; passed over")
    return Limits(values["megabytes"] * MEGABYTE, values["files"])


class File:
    """A file of the suite's: its name, bytes, and when it was last written (seconds since the epoch)."""

    __slots__ = ("kind", "mtime", "name", "size")

    def __init__(self, name: str, kind: str, st: os.stat_result) -> None:
        self.name, self.kind, self.size, self.mtime = name, kind, st.st_size, st.st_mtime


_BY_FOLDER = {
    layout.CHANGES: "changes",
    layout.CHECKPOINTS: "checkpoints",
    layout.LOGS + "/resolved": "escalations",
    layout.CONFLICTS: "conflicts",
    layout.QUARANTINE: "quarantine",
    layout.RECEIPTS: "receipts",
    layout.BREAKERS: "breakers",
    layout.ONCE: "keys",
    layout.TIMINGS: "timings",
    layout.RESULTS: "checks",
    layout.CHECK_LOGS: "checks",
    layout.LOCKS: "locks",
    layout.CLAIMS: "locks",
}


def kind_of(folder: str, base: str) -> str:
    """The kind of a file, "" for one that is none of the suite's to remove."""
    if folder.startswith("postbox/") or folder == ".sprint":
        if base.startswith("outbox.json.backup_"):
            return "backups"
        return "locks" if base.startswith(".") and base.endswith(".lock") else ""
    if base == "README.md":
        return ""
    if base.startswith(".") and base.endswith((".lock", ".turn")):
        return "locks"
    if folder == layout.LOGS:
        return "escalations" if "_escalation" in base else "logs"
    for above in (folder, folder.rpartition("/")[0]):
        if above in _BY_FOLDER:
            return _BY_FOLDER[above]
    return "state"


def files(store: FileStore) -> Iterator[File]:
    """Everything that the suite has written in a workspace.  What comes and goes meanwhile may be missed."""
    for folder in ("data", "logs"):
        yield from _below(store, folder, 3)
    for agent in store.list("postbox"):
        if layout.is_id(agent):
            yield from _below(store, f"postbox/{agent}", 0)
            store.root.forget(f"postbox/{agent}")  # of thousands one at a time is open
    yield from _below(store, ".sprint", 0)


def _below(store: FileStore, folder: str, levels: int) -> Iterator[File]:
    try:
        above = store.root.place(f"{folder}/any").folder
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    except (OSError, RecoveryError):
        return
    folders = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    st = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if S_ISDIR(st.st_mode) and levels:
                    folders.append(entry.name)
                elif S_ISREG(st.st_mode):
                    kind = kind_of(folder, entry.name)
                    if kind:
                        yield File(f"{folder}/{entry.name}", kind, st)
    finally:
        os.close(fd)
    for name in folders:
        yield from _below(store, f"{folder}/{name}", levels - 1)


class Use:
    """What there is of each kind: bytes and number of files; and of all."""

    __slots__ = ("by_kind", "files", "limits", "size")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.by_kind: dict[str, list[int]] = {name: [0, 0] for name in KINDS}
        self.size = self.files = 0

    def add(self, file: File, sign: int = 1) -> None:
        one = self.by_kind[file.kind]
        one[0] += sign * file.size
        one[1] += sign
        self.size += sign * file.size
        self.files += sign

    def is_over(self, kind: Optional[Kind] = None) -> bool:
        """Whether there is more than the budget, or of a kind than its share."""
        if kind is None:
            return self.size > self.limits.size or self.files > self.limits.files
        size, count = self.limits.of(kind)
        return self.by_kind[kind.name][0] > size or self.by_kind[kind.name][1] > count

    def words(self) -> str:
        """`3.1 of 256 MB, 812 of 20000 files`."""
        size, most = (f"{value / MEGABYTE:.1f}".replace(".0", "") for value in (self.size, self.limits.size))
        return f"{size} of {most} MB, {self.files} of {self.limits.files} files"

    def as_dict(self) -> dict[str, Any]:
        by_kind = {name: {"bytes": size, "files": count} for name, (size, count) in self.by_kind.items()}
        limits = {"bytes": self.limits.size, "files": self.limits.files}
        return {"bytes": self.size, "files": self.files, "limits": limits, "over": self.is_over(), "by_kind": by_kind}


def use(store: FileStore) -> Use:
    """How much of its budget a workspace uses.  Reads folders, opens no file."""
    found = Use(limits_of(store))
    for file in files(store):
        found.add(file)
    return found
