"""Carrying a decided change to its end: replace, verify, record, forget; or undoing it as a whole.

The owner of a commit and whoever resolves a dead owner's record run this same code under the commit lock and the
data locks of the record's files; they differ in what they trust (`own`).
"""

from __future__ import annotations

import os
from stat import S_IMODE

from recovery import derived, durable, jsontext, layout, steps
from recovery.errors import DataError, RecoveryError, Unconfirmed
from recovery.signals import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, Optional, Sequence

    from recovery.durable import Place
    from recovery.journal import Record
    from recovery.store import FileStore

    File = dict[str, Any]

#: How often a commit tries to win against a writer who ignores the locks before it gives up.
ROUNDS = 8


class Conflict(Exception):
    """A file of an unfinished record holds somebody else's change; `restored`: a person put the old state back."""

    def __init__(self, reason: str, restored: bool = False) -> None:
        super().__init__(reason)
        self.restored = restored


def defer_signals() -> Any:
    """Hold back INT, TERM, HUP and ALRM from the journal to forget; returns what `undefer_signals` takes."""
    return plain.pthread_sigmask(plain.SIG_BLOCK, (plain.SIGINT, plain.SIGTERM, plain.SIGHUP, plain.SIGALRM))


def undefer_signals(mask: Any) -> None:
    plain.pthread_sigmask(plain.SIG_SETMASK, mask)


def locks_of(record: Record) -> set[str]:
    """The data locks that cover a record's files."""
    files_of(record)
    return {str(extra["lock"]) for extra in record.body["extra"]}


def words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def subject(record: Record) -> str:
    line = record.body["line"]
    return f"{line['agent']}/{line['task']}"


def files_of(record: Record) -> list[File]:
    """One dict a file: what the change log holds of it and what only the journal holds.  DataError if it is forged."""
    body = record.body
    line: dict[str, Any] = body.get("line") or {}
    if not (
        derived.is_change(line)
        and body.get("txid") == line["txid"]
        and isinstance(line.get("by"), dict)
        and "pid" in line["by"]
        and all(map(_is_file, line["files"]))
        and _is_extra(body.get("extra"), len(line["files"]))
    ):
        raise DataError(
            "data/journal holds a record that this suite can't have written",
            hint="`recovery doctor --repair` moves it away",
        )
    return [
        {**extra, **file, "state": extra["before"], "expect": file["after"]}
        for file, extra in zip(line["files"], body["extra"])
    ]


_Text = (str, type(None))


def _is_file(file: File) -> bool:
    """Whether it can be finished or undone: its hashes, and its edit in a form that is known."""
    if not all(isinstance(file.get(key, 0), _Text) for key in ("before", "after")):
        return False
    if "write" in file:
        pair = file["write"]
        return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, _Text) for text in pair)
    return isinstance(file["ops"], list) and all(map(_is_op, file["ops"]))


def _is_op(op: Any) -> bool:
    if not isinstance(op, dict) or not isinstance(op.get("path"), list) or not op["path"]:
        return False
    if op.get("op") == "add":
        return type(op.get("by")) is int
    return op.get("op") == "set" and isinstance(op.get("before", 0), _Text) and isinstance(op.get("after", 0), _Text)


def _is_name(name: str) -> bool:
    """Whether it is one of a file below the workspace."""
    return not any(part in ("", ".", "..") for part in name.split("/"))


def refusal_of(store: FileStore) -> Optional[DataError]:
    """Why nobody can finish what the journal holds, so that every command is refused; None if somebody can."""
    try:
        journal = store.journal()
        record = journal.read() if journal is not None else None
        if record is not None and not record.finished:
            files_of(record)
    except DataError as error:
        return error
    return None


def is_garbled(store: FileStore) -> bool:
    """Whether the journal holds bytes that are no record, while nobody writes there."""
    from recovery import contention  # which a change needs only where it waits

    for _ in range(2):  # who wrote when it was read may have come to its end since
        journal = store.journal()
        if journal is None or contention.is_committing(store) or not journal.is_garbled():
            return False
    return True


def _is_extra(extra: Any, count: int) -> bool:
    return (
        isinstance(extra, list)
        and len(extra) == count
        and all(
            isinstance(one, dict)
            and type(one.get("lock")) is str
            and _is_name(one["lock"])
            and type(one.get("stage")) is str
            and "/" not in one["stage"]
            and isinstance(one.get("mode"), int)
            and isinstance(one.get("before", 0), (dict, type(None)))
            for one in extra
        )
    )


def finish(store: FileStore, record: Record, files: list[File], own: bool) -> Optional[Exception]:
    """Carry a durable record to its end; None if it was finished, the reason if it was undone."""
    journal = store.journal()
    assert journal is not None
    try:
        if not own:
            journal.sync("resolve-sync")
            part = derived.recorded_in(store, record) if record.direction == "REDO" else ""
            if part == layout.changes(record.body["line"]["time"]):
                _record_and_forget(store, record, files, own)  # which syncs the line, and doesn't add it again
                return None
            if part:
                _forget(store, record, files, own)
                return None
        if record.direction == "ABORT":
            return _undo(store, record, files, None)
        try:
            for file in files:
                _replace(store, file, own)
            for _ in range(ROUNDS):
                sync_folders(store, files)
                if not _verify_fails(store, files):
                    break
            else:
                raise Conflict("another writer put the old state back again and again")
        except (Conflict, RecoveryError, jsontext.BadJSON, OSError) as why:
            return _undo(store, record, files, why)
        steps.at("verified", record.txid)
        _record_and_forget(store, record, files, own)
        return None
    except _FolderSync as error:
        raise unconfirmed(record, error.error) from None
    except (OSError, RecoveryError) as error:
        raise unconfirmed(record, error) from None


def _undo(store: FileStore, record: Record, files: list[File], why: Optional[Exception]) -> Exception:
    from recovery.undo import abort, reason_of  # seldom needed, so not read by every command

    return abort(store, record, files, why or reason_of(record))


def unconfirmed(record: Record, error: Exception) -> Unconfirmed:
    return Unconfirmed(
        f"the change of {subject(record)} is decided but not finished: {words(error)}",
        hint="run the same command again: it finishes the change or finds it done",
    )


class _FolderSync(Exception):
    """A folder fsync that fails is neither redo nor abort: nobody knows what is on the disk."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _replace(store: FileStore, file: File, own: bool) -> None:
    """Bring one file to its after-state, or raise: Conflict, or OSError if it can't be."""
    try:
        place = store.root.place(file["name"], create=file["state"] is None)
    except FileNotFoundError:
        raise Conflict(f"{file['name']} is gone, and its folder with it") from None
    if place.name != file["name"]:
        raise Conflict(f"the folder of {file['name']} has become a link")
    now, st = durable.current_hash(place)
    if now == file["expect"] or (now == file["after"] and now is not None):
        return
    if now == file["before"]:
        if not own and st is not None and (st.st_ino, st.st_mtime_ns) != (file["state"]["ino"], file["state"]["mtime"]):
            raise Conflict(f"{file['name']} was put back by somebody after the crash", restored=True)
        if file["after"] is None:
            steps.at("replace", file["name"])
            os.unlink(place.base, dir_fd=place.folder)
            steps.at("replaced", file["name"])
            return
        if not _is_staged(place, file, own):
            restage(store, place, file, _after_bytes(store, file))
    else:
        text, stand = standing(store, file)
        if stand == "after":
            file["expect"] = now
            return
        if stand != "before":
            raise Conflict(f"{file['name']} was changed by another writer")
        file["expect"] = restage(
            store, place, file, jsontext.pieces(text, jsontext.splices(jsontext.Walked(text), file["ops"]))
        )
    steps.at("replace", file["name"])
    os.rename(file["stage"], place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    steps.at("replaced", file["name"])


def _is_staged(place: Place, file: File, own: bool) -> bool:
    """Whether the staged file is there still; its owner knows what it wrote, a resolver looks."""
    stage = durable.beside(place, file["stage"])
    if not own:
        return bool(durable.hash_or_none(stage) == file["after"])
    try:
        os.stat(stage.base, dir_fd=stage.folder, follow_symlinks=False)
        return True
    except FileNotFoundError:
        return False


def standing(store: FileStore, file: File) -> tuple[str, str]:
    """A changed file's text, and how it stands to the record's edit by the edit's own fields."""
    if "ops" not in file:
        return "", "other"
    version = store.read(file["name"])
    if version is None:
        return "", "other"
    walked = jsontext.Walked(version.text)
    walked.whole()
    return version.text, jsontext.standing(walked, file["ops"])


def _after_bytes(store: FileStore, file: File) -> Iterator[bytes]:
    if "ops" not in file:
        yield str(file["write"][1]).encode("utf-8", "surrogateescape")
        return
    version = store.read(file["name"])
    if version is None:
        raise Conflict(f"{file['name']} is gone")
    yield from jsontext.pieces(version.text, jsontext.splices(jsontext.Walked(version.text), file["ops"]))


def restage(store: FileStore, place: Place, file: File, data: Iterable[bytes]) -> str:
    """Stage once more what was lost with its owner; returns the hash."""
    durable.remove(place.folder, file["stage"])
    mode, uid, gid, like = file["mode"], -1, -1, -1
    try:
        like, st = durable.open_regular(place)
        mode, uid, gid = S_IMODE(st.st_mode), st.st_uid, st.st_gid
    except FileNotFoundError:
        if file["state"]:
            mode, uid, gid = file["state"]["mode"], file["state"]["uid"], file["state"]["gid"]
    try:
        return durable.stage(place, file["stage"], data, mode, uid, gid, like).sync().hash
    finally:
        if like >= 0:
            os.close(like)


def sync_folders(store: FileStore, files: Sequence[File]) -> None:
    """fsync each folder once; folders made on the way too."""
    try:
        done = store.root.sync_made()
        for file in files:
            folder = store.root.place(file["name"]).folder
            if folder not in done:
                done.add(folder)
                steps.at("folder-sync", file["name"])
                os.fsync(folder)
                steps.at("folder-synced", file["name"])
    except OSError as error:
        raise _FolderSync(error) from None


def _verify_fails(store: FileStore, files: Sequence[File]) -> bool:
    """Read everything back.  A file that an unlocked writer threw back to the old state is replaced again."""
    again = False
    for file in files:
        steps.at("verify", file["name"])
        now = durable.current_hash(store.root.place(file["name"]))[0]
        if now == file["expect"]:
            continue
        if now == file["before"] or standing(store, file)[1] == "before":
            _replace(store, file, own=True)
            again = True
    return again


def _record_and_forget(store: FileStore, record: Record, files: Sequence[File], own: bool) -> None:
    line = record.body["line"]
    store.append_line(layout.changes(line["time"]), record.line, line["txid"], check=not own, sync=True)
    if store.root.made:
        store.root.sync_made()
    _forget(store, record, files, own)


def _forget(store: FileStore, record: Record, files: Sequence[File], own: bool) -> None:
    """What follows from a change whose line is in the log; then the journal is done with it."""
    line = record.body["line"]
    if not own:
        clean_stages(store, files)
    derived.derive(store, line, check=not own, sync=bool(record.body.get("durable_log")))
    journal = store.journal()
    assert journal is not None
    journal.mark_done(record.seq, record.txid)


def clean_stages(store: FileStore, files: Sequence[File]) -> None:
    for file in files:
        try:
            durable.remove(store.root.place(file["name"]).folder, file["stage"])
        except (OSError, DataError):
            pass


def remove_backup(store: FileStore, line: dict[str, Any], own: bool = False) -> bool:
    """After a verified success: the backup of a change, if it still is what that change had found.

    Its owner, who has held the lock all the while, need not look.  False if it could not be removed.
    """
    name = line.get("backup")
    if not name or line.get("keep_backup"):
        return True
    try:
        place = store.root.place(name)
        if own or durable.current_hash(place)[0] in [file["before"] for file in line["files"]]:
            steps.at("backup-remove", name)
            os.unlink(place.base, dir_fd=place.folder)
        return True
    except FileNotFoundError:
        return True
    except (OSError, DataError):
        return False


def half_done(store: FileStore) -> Optional[dict[str, Any]]:
    """The commit that has not come to its end: `op`, `agent`, `task`, `time`, `txid`, `tasks` (of many: by agent),
    `pid`, and whether somebody is at it (`under_way`).  DataError (65) where nobody can finish it: `refusal_of`."""
    from recovery import contention

    record = store.unfinished()
    while record is not None:
        under_way = contention.is_committing(store)
        now = record if under_way else store.unfinished()
        if now is not None and now.txid == record.txid:
            break
        record = now  # that one came to its end between the two looks
    if record is None:
        return None
    files_of(record)
    line = record.body["line"]
    many = line.get("tasks")
    return {
        **{key: line[key] for key in ("op", "agent", "task", "time", "txid")},
        "tasks": many if isinstance(many, dict) else {},
        "pid": line["by"]["pid"],
        "under_way": under_way,
    }


def parked(store: FileStore) -> dict[str, tuple[str, str]]:
    """The parked records by name, each with its agent and task ("", "": ids too long for a file's name)."""
    found = {}
    for base in store.list(layout.CONFLICTS):
        if base.endswith(".parked.json"):
            agent, _, rest = base.partition("@")
            task = rest.rpartition("@")[0]
            known = layout.is_id(agent) and layout.is_id(task)
            found[f"{layout.CONFLICTS}/{base}"] = (agent, task) if known else ("", "")
    return found


def is_parked(store: FileStore, agent: str, task: str) -> Optional[str]:
    """The parked record of a task, if there is one: until it is undone the task answers 70."""
    start = layout.whose(agent, task)
    for base in store.list(layout.CONFLICTS):
        if base.startswith(start) and base.endswith(".parked.json"):
            return f"{layout.CONFLICTS}/{base}"
    return None
