"""Files that are protected for a run: kept as they were before it, and put back, all or none, if it fails.

The run's own work on them is undone.  What anybody committed with the suite's commands meanwhile stays (the run's own
commands too: each is a change of its own): it is applied again on top of the old state.  Whoever else writes them, by
`file_transaction` or a script with `flock` and `mv`, can't be told from the run, and is undone with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from stat import S_IMODE
from typing import Any

from recovery import commit, derived, durable, jsontext
from recovery.commit import Change, Edit, txid_of
from recovery.durable import Version
from recovery.errors import RecoveryError, RollbackFailed, UsageError, from_os_error
from recovery.store import FileStore, transact

#: Bytes of a file that can be protected: its old and new state both go through the journal.
MOST = 16 << 20


@dataclass
class Protected:
    """What `keep` found: each file's version, None where there was none, and how far the change log was.

    `own` are the txids of this run's restores.
    """

    task: str
    agent: str
    files: dict[str, Version | None]
    seq: int
    own: set[str] = field(default_factory=set)


def keep(store: FileStore, task: str, agent: str, names: Iterable[str]) -> Protected:
    """Read the files under their locks and copy each to `NAME.backup_TASK`, durably, before the run begins.

    A differing older backup, of a run that failed or died, is kept as `.backup_TASK.N`, which is said.  UsageError (64)
    for a file that is too big; what `Store.lock` and `Store.read` raise.  A crash leaves whole backups, which people
    may use.
    """
    wanted = sorted(set(names))
    if not wanted:
        return Protected(task, agent, {}, 0)
    try:
        return _keep(store, task, agent, wanted)
    except OSError as error:
        if isinstance(error, RecoveryError):
            raise
        raise from_os_error(error, "could not keep " + ", ".join(wanted)) from None


def _keep(store: FileStore, task: str, agent: str, wanted: list[str]) -> Protected:
    files: dict[str, Version | None] = {}
    with store.lock(wanted, create=True):
        for name in wanted:
            version = files[name] = store.read(name, strict=False)
            if version is not None:
                if version.size > MOST:
                    raise UsageError(f"{name} has {version.size:,} bytes; at most {MOST:,} can be protected")
                _backup(store, task, name, version)
        store.root.sync_made()
        return Protected(task, agent, files, _last_seq(store))


def _backup(store: FileStore, task: str, name: str, version: Version) -> None:
    place = store.root.place(name)
    fd, _ = durable.open_regular(place)
    try:
        target = durable.beside(place, f"{place.base}.backup_{task}")
        if durable.hash_or_none(target) not in (None, version.hash):
            store.told.append(f"{target.name} is kept as {target.name}.N: an earlier run of {task} had found that")
        target, stage = commit.stage_backup(store, task, place, version, fd)
        if stage is not None:
            durable.into_place(target, stage.sync().base, target.base)
            store.root.made.add(target.name.rpartition("/")[0])
    finally:
        os.close(fd)


def _last_seq(store: FileStore) -> int:
    journal = store.journal()
    if journal is None:
        return 0
    journal.read()
    return journal.next_seq - 1


def restore(store: FileStore, kept: Protected) -> list[str]:
    """Put the files back in one commit; returns the names of those that had changed.

    RollbackFailed (70), "Rollback failed …" with the reasons, if that can't be done; the backups stay.  A crash
    leaves a record that the next command finishes.
    """
    restored: list[str] = []

    def plan() -> Change | None:
        restored.clear()
        meanwhile = _committed_since(store, kept)
        edits = []
        for name, old in kept.files.items():
            now = store.read(name, strict=False)
            text = _with_commits(name, old.text if old is not None else None, meanwhile)
            if text == (now.text if now is not None else None):
                continue
            after = None if text is None else jsontext.from_latin(text)
            edits.append(Edit(name, now, after=after, like=old))
            restored.append(name)
        if not edits:
            return None
        now_text = store.now()
        change = Change("restore", kept.agent, kept.task, now_text, txid_of(now_text, store.nonce), edits)
        change.make_backup = False  # the one that `keep` made holds the good bytes
        return change

    try:
        for name, old in kept.files.items():
            if old is not None:
                store.root.place(name, create=True)  # its folder may have been removed
        if kept.files:
            txid = transact(store, list(kept.files), plan, create=True)
            kept.own.update([txid] if txid is not None else [])
            restored += [name for name in _modes_restored(store, kept) if name not in restored]
    except (RecoveryError, OSError, jsontext.BadJSON) as error:
        backups = ", ".join(
            f"{name}.backup_{kept.task}"
            for name, old in kept.files.items()
            if _is_backed_up(store, name, old, kept.task)
        )
        raise RollbackFailed(
            f"Rollback failed for task {kept.task}: {error}",
            hint=f"what the files held before the run is in {backups}" if backups else "remove what the run made",
        ) from error
    return restored


def _is_backed_up(store: FileStore, name: str, old: Version | None, task: str) -> bool:
    try:
        place = store.root.place(name)
        return (
            old is not None and durable.hash_or_none(durable.beside(place, f"{place.base}.backup_{task}")) == old.hash
        )
    except (OSError, RecoveryError):
        return False


def _modes_restored(store: FileStore, kept: Protected) -> list[str]:
    """Give back the modes that the run changed without changing the content; the names of those files."""
    found = []
    for name, old in kept.files.items():
        if old is None:
            continue
        fd, st = durable.open_regular(store.root.place(name))
        try:
            if S_IMODE(st.st_mode) != old.mode:
                os.fchmod(fd, old.mode)
                found.append(name)
        finally:
            os.close(fd)
    return found


def _committed_since(store: FileStore, kept: Protected) -> list[dict[str, Any]]:
    """The change log's lines since the run began that are about protected files, without our own restores."""
    if _last_seq(store) == kept.seq:
        return []
    found = []
    for line in derived.newest_first(store):
        if line["seq"] <= kept.seq:
            break
        if line["txid"] not in kept.own:
            found.append(line)
    return sorted(found, key=lambda line: int(line["seq"]))


def _with_commits(name: str, text: str | None, lines: list[dict[str, Any]]) -> str | None:
    for line in lines:
        for file in line["files"]:
            if file["name"] != name:
                continue
            if "write" in file:
                text = None if file["write"][1] is None else jsontext.to_latin(file["write"][1])
            elif text is None:
                raise RollbackFailed(f"{name} was made by this run and changed by `{line['op']} {line['agent']}` since")
            else:
                text = jsontext.applied(text, file["ops"])
    return text


def discard(store: FileStore, kept: Protected) -> None:
    """After a success: remove the backups, where they still are what was kept."""
    for name, old in kept.files.items():
        if old is not None:
            place = store.root.place(name)
            backup = durable.beside(place, f"{place.base}.backup_{kept.task}")
            if durable.hash_or_none(backup) == old.hash:
                durable.remove(backup.folder, backup.base)
