"""Finishing what dead owners left: their records, their staged files, the records that were parked.

Nobody holds a lock when resolving begins (`resolve`), so that two who meet the same record can't wait for each other.
"""

from __future__ import annotations

import os

from recovery import derived, durable, jsontext, layout, steps
from recovery.errors import DataError, RecoveryError, RollbackFailed
from recovery.finish import (
    Conflict,
    defer_signals,
    files_of,
    finish,
    locks_of,
    remove_backup,
    subject,
    sync_folders,
    unconfirmed,
    undefer_signals,
    words,
)
from recovery.incidents import Incident
from recovery.journal import Record
from recovery.undo import folder_there, restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.durable import Place
    from recovery.flock import Note
    from recovery.store import FileStore


def resolve(store: FileStore, record: Record) -> None:
    """Finish or undo what a dead owner left.  The caller holds no lock; locks are taken here, in order.

    Busy (75) if a live process holds a data lock named in the record, Unconfirmed (71) if the disk doesn't let it.
    """
    from recovery.store import Held

    while True:
        steps.at("resolve", record.txid)
        held = Held(store, ())
        lock = None
        mask = None
        try:
            store.take_locks(held, locks_of(record), skip_gone=True)
            lock = store.commit_lock()
            now = store.unfinished()
            if now is None:
                return
            if now.txid != record.txid:
                record = now
                continue
            mask = defer_signals()
            reason = finish(store, now, files_of(now), own=False)
            if reason is None:
                remove_backup(store, now.body["line"])
            store.tidy(held)
            _tell(store, now, reason)
            return
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            raise unconfirmed(record, error) from None
        finally:
            if lock is not None:
                lock.release()
            held.release()
            if mask is not None:
                undefer_signals(mask)


def _tell(store: FileStore, record: Record, reason: Optional[Exception]) -> None:
    line = record.body["line"]
    what = f"{line['op']} {subject(record)}"
    if reason is None:
        text = f"finished `{what}`, which pid {line['by']['pid']} had left half done"
    else:
        text = f"undid `{what}`, which pid {line['by']['pid']} had left half done: {words(reason)}"
        if isinstance(reason, Conflict) and reason.restored:
            text += "; it was not done again: repeat that command if you want it"
    store.told.append(text)
    store.resolved.append((line["agent"], line["task"], record.txid, reason))
    by = f"pid {os.getpid()}, {store.limits.command}"
    incident = Incident(
        line["task"], store.now(), agent=line["agent"], op=line["op"], pid=line["by"]["pid"], repaired_by=by
    )
    incident.id = record.txid  # the same, whoever resolves it
    incident.failed(OwnerDied(text), "RETRY" if reason is None else "ROLLBACK", 1, store.now())
    failed = isinstance(reason, RollbackFailed)
    outcome = "recovered" if reason is None else "rollback_failed" if failed else "rolled_back"
    entry = incident.ended(outcome, store.now())
    try:
        name = layout.recovery_log(line["task"])
        store.append_line(name, jsontext.dumps(entry), entry["txid"], check=True, sync=False)
    except (OSError, DataError) as error:
        store.told.append(f"the recovery could not be logged: {error}")


class OwnerDied(Exception):
    """What the recovery log calls the failure of a process that did not live to report one."""


def tidy_after(store: FileStore, note: Note) -> None:
    """What a holder of data locks that died left beside the files it meant to change.

    Staged files go.  Its backup goes if the change was committed, or if it is equal to what is there now; else it
    stays for people.  OSError.
    """
    nonce, names = str(note.get("nonce", "")), note.get("files") or []
    if not nonce.isalnum() or not isinstance(names, list) or not all(type(name) is str for name in names):
        return  # no note of ours
    line = _committed(store, nonce)
    task = str(note.get("command", "")).rpartition("/")[2]
    for name in names:
        try:
            steps.at("tidy", name)
            if name.endswith("/*"):
                _unlink_all(store, name[:-2], nonce)
                continue
            place = store.root.place(str(name))
            _unlink(store, place, durable.stage_name(place.base, nonce))
            _unlink(store, place, durable.stage_name(place.base + ".backup", nonce))
            if not name.endswith("/outbox.json") or not layout.is_id(task):
                continue
            backup = durable.beside(place, f"{place.base}.backup_{task}")
            if line is not None:
                remove_backup(store, line)
                continue
            kept = durable.hash_or_none(backup)
            if kept is not None and kept == durable.current_hash(place)[0]:
                _unlink(store, backup, backup.base)
        except (FileNotFoundError, DataError):
            continue


def _unlink_all(store: FileStore, folder: str, nonce: str) -> None:
    for base in store.list(folder):
        if base.startswith(".") and base.endswith(durable.stage_name("", nonce)[1:]):
            _unlink(store, store.root.place(f"{folder}/{base}"), base)


def _unlink(store: FileStore, place: Place, base: str) -> None:
    try:
        os.unlink(base, dir_fd=place.folder)
        store.tidied.append(durable.beside(place, base).name)
    except FileNotFoundError:
        pass


def _committed(store: FileStore, nonce: str) -> Optional[dict[str, Any]]:
    """The change log's line of the commit that was made under `nonce`, None if it never was."""
    for line in derived.newest_first(store, nonce, parts=4):  # the older it is, the less a backup matters
        if line["txid"].endswith("-" + nonce):
            return line
    return None


def finish_parked(store: FileStore) -> tuple[list[str], list[str]]:
    """Try again to undo the records that were parked; a line for each: those undone, those that still can't be."""
    from recovery.store import Held

    done, left = [], []
    for base in store.list(layout.CONFLICTS):
        if not base.endswith(".parked.json"):
            continue
        name = f"{layout.CONFLICTS}/{base}"
        version = store.read(name)
        if version is None:
            continue
        record = Record(0, jsontext.from_latin(version.text), "ABORT", False)
        with Held(store, ()) as held:
            store.take_locks(held, locks_of(record), skip_gone=True)
            lock = store.commit_lock()
            try:
                failed = _restore_all(store, record)
                if failed:
                    left.append(f"{subject(record)} could still not be undone: {'; '.join(failed)}")
                    continue
                place = store.root.place(name)
                undone = place.base.replace(".parked.json", ".undone.json")
                os.rename(place.base, undone, src_dir_fd=place.folder, dst_dir_fd=place.folder)
                os.fsync(place.folder)
                done.append(f"undid {subject(record)}, which had been parked since {record.body['line']['time']}")
            finally:
                lock.release()
    return done, left


def _restore_all(store: FileStore, record: Record) -> list[str]:
    failed = []
    for file in files_of(record):
        try:
            restore(store, file)
        except (OSError, RecoveryError, jsontext.BadJSON) as error:
            failed.append(f"{file['name']}: {error}")
    sync_folders(store, [file for file in files_of(record) if folder_there(store, file)])
    return failed
