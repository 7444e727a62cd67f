"""Undoing a record as a whole: its direction turns to ABORT, what it replaced is restored field by field."""

from __future__ import annotations

import os

from recovery import derived, durable, jsontext, layout, steps
from recovery.errors import DataError, RecoveryError, RollbackFailed, StorageError
from recovery.finish import Conflict, clean_stages, restage, standing, sync_folders, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.journal import Record
    from recovery.store import FileStore

    File = dict[str, Any]


def abort(store: FileStore, record: Record, files: list[File], why: Exception) -> Exception:
    """Turn the whole record to ABORT and take back what it replaced, field by field; returns the reason."""
    journal = store.journal()
    assert journal is not None
    steps.at("abort", why)
    if record.direction != "ABORT":
        journal.mark_abort(record, kind_of(why), words(why))
    failed = []
    for file in files:
        try:
            restore(store, file)
        except (OSError, RecoveryError, jsontext.BadJSON) as error:
            failed.append(f"{file['name']}: {error}")
    sync_folders(store, [file for file in files if folder_there(store, file)])
    clean_stages(store, files)
    if failed:
        derived.set_aside(store, record, "parked", "; ".join(failed))
        why = RollbackFailed(
            f"it could be neither finished nor undone ({'; '.join(failed)}); its record is kept in {layout.CONFLICTS}/",
            hint="run `recovery recover` when the cause is gone",
        )
    elif kind_of(why) != "failed":  # the disk's failures are told, not set aside
        try:
            derived.set_aside(store, record, "conflict", str(why))
        except (OSError, RecoveryError) as error:  # all is undone: this must not stop the workspace
            store.told.append(f"the edit could not be set aside: {error}")
    journal.mark_done(record.seq, record.txid)
    return why


def kind_of(why: Exception) -> str:
    """What made a record an ABORT, in one word: somebody restored the old state, another's edit, or the disk."""
    if isinstance(why, Conflict):
        return "restored" if why.restored else "conflict"
    return "conflict" if isinstance(why, (DataError, jsontext.BadJSON)) else "failed"


def reason_of(record: Record) -> Exception:
    """The reason that `kind_of` was told, for whoever finishes the abort of a dead one."""
    if record.kind in ("conflict", "restored"):
        return Conflict(record.reason, restored=record.kind == "restored")
    return StorageError(record.reason)


def folder_there(store: FileStore, file: File) -> bool:
    try:
        store.root.place(file["name"])
        return True
    except (OSError, DataError):
        return False


def restore(store: FileStore, file: File) -> None:
    try:
        place = store.root.place(file["name"])
        now, _ = durable.current_hash(place)
    except (FileNotFoundError, DataError):
        return  # it is gone, or something else stands there: not ours any more
    if place.name != file["name"]:
        return  # its folder has become a link to somewhere else
    if now == file["before"]:
        return
    if "write" in file:
        if now != file["after"]:
            return  # somebody else's: it stays
        old = file["write"][0]
        if old is None:
            steps.at("restore", file["name"])
            os.unlink(place.base, dir_fd=place.folder)
            return
        restage(store, place, file, (old.encode("utf-8", "surrogateescape"),))
    else:
        try:
            text, stand = standing(store, file)
        except (DataError, jsontext.BadJSON):
            return  # damaged by somebody else: not ours to guess at
        if stand != "after":
            return
        back = jsontext.splices(jsontext.Walked(text), jsontext.inverse(file["ops"]))
        restage(store, place, file, jsontext.pieces(text, back))
    steps.at("restore", file["name"])
    os.rename(file["stage"], place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    steps.at("restored", file["name"])
