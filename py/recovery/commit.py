"""The commit protocol: files change together or not at all, through kill -9, power cut, full disk and EIO.

The words, in order: begin, stage, journal (its fdatasync is the commit point), replace, verify, record, forget.
A record that its owner did not finish is finished or undone by whoever next takes a lock on one of its files, or
commits.  Owner and resolver run the same code below (`_finish`, `_abort`); they differ in what they trust.

What a crash leaves behind:

    before the commit point   staged files and a backup, named in the lock's note, removed by the next holder
    after it                  a record, from which with the old files everything is finished or undone

Raised by `commit`: StorageError (74) or Denied (77), the previous state stands; DataError (65), somebody else's
change was in the way; Busy (75), a lock was lost or a race; Unconfirmed (71), repeat the command; RollbackFailed
(70), the record was kept in data/conflicts.
"""

from __future__ import annotations

import errno
import os
from stat import S_IMODE

from recovery import durable, flock, jsonl, jsontext, layout, steps
from recovery.errors import (
    Busy,
    DataError,
    RecoveryError,
    RollbackFailed,
    StorageError,
    Unavailable,
    Unconfirmed,
    from_os_error,
)

try:
    from _signal import SIG_BLOCK, SIG_SETMASK, SIGHUP, SIGINT, SIGTERM, pthread_sigmask
except ImportError:
    from signal import SIG_BLOCK, SIG_SETMASK, SIGHUP, SIGINT, SIGTERM, pthread_sigmask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, Optional, Sequence

    from recovery.durable import Place, Version
    from recovery.flock import Note
    from recovery.journal import Record
    from recovery.jsontext import Op
    from recovery.store import FileStore, Held

    File = dict[str, Any]

#: How often a commit tries to win against a writer who ignores the locks before it gives up.
ROUNDS = 8


class StartAgain(Exception):
    """Nothing was changed, but what was read is no longer true: plan again."""


class Conflict(Exception):
    """A file of an unfinished record holds somebody else's change; `restored`: a person put the old state back."""

    def __init__(self, reason: str, restored: bool = False) -> None:
        super().__init__(reason)
        self.restored = restored


class Edit:
    """What happens to one file: `ops` (see `recovery.jsontext`) on a JSON document, or the whole text `after`.

    `before` is the version that was planned on, None for a file that isn't there; `after` None removes the file.
    `like` gives mode and group to a file that is new.
    """

    __slots__ = ("after", "before", "like", "name", "ops", "splices")

    def __init__(
        self,
        name: str,
        before: Optional[Version],
        ops: Optional[Sequence[Op]] = None,
        after: Optional[str] = None,
        like: Optional[Version] = None,
        splices: Optional[Sequence[jsontext.Splice]] = None,
    ) -> None:
        self.splices = splices  # where `ops` cut into `before`, if the planner knows
        self.name, self.before, self.ops, self.after, self.like = name, before, ops, after, like


class Change:
    """One commit: its edits, who does what to which task, and the log lines that follow from it.

    `derived` is a list of `{"name": FILE, "append": {...}}` and `{"name": FILE, "snapshot": {...}}`; they are written
    without a sync of their own, because the change log, which is synced, can write them again (`rederive`), unless
    `durable_log` asks for it.
    """

    __slots__ = ("agent", "derived", "durable_log", "edits", "extra", "keep_backup", "op", "task", "time", "txid")

    def __init__(self, op: str, agent: str, task: str, time: str, txid: str, edits: Sequence[Edit]) -> None:
        self.op, self.agent, self.task, self.time, self.txid = op, agent, task, time, txid
        self.edits = edits
        self.derived: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.keep_backup = self.durable_log = False


def txid_of(time: str, nonce: str) -> str:
    """A transaction id: sortable by time, unique by its nonce."""
    return time.replace("-", "").replace(":", "") + "-" + nonce


def lost_race(names: Iterable[str]) -> Busy:
    return Busy(
        "other writers kept changing " + ", ".join(names) + "; nothing was changed", hint="run the same command again"
    )


def locks_of(record: Record) -> set[str]:
    """The data locks that cover a record's files."""
    return {str(extra["lock"]) for extra in record.body["extra"]}


# --- the owner


def commit(store: FileStore, held: Held, change: Change) -> str:
    """Carry the change out; returns its txid.  `held` must cover every file of it."""
    work = _Work(store, change)
    mask = None
    lock = None
    try:
        try:
            work.stage()
            work.backup()
            store.root.sync_made()
            lock = store.commit_lock()
            record = store.unfinished()
            if record is not None:
                raise _Resolve(record)
            body, line = work.recheck(held, lock)
            mask = pthread_sigmask(SIG_BLOCK, (SIGINT, SIGTERM, SIGHUP))
            record = work.write_journal(body, line)
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            raise from_os_error(error, f"could not prepare the change of {work.names()}") from None
        work.committed = True
        reason = _finish(store, record, _files(record), own=True)
        lock.release()
        held.release()
        if reason is not None:
            raise _undone(reason, record)
        steps.at("committed", change.txid)
        if not change.keep_backup:
            remove_backup(store, record)
        return change.txid
    except _Resolve as found:
        work.clean(failed=False)
        if lock is not None:
            lock.release()
            lock = None
        held.release()
        resolve(store, found.record)
        raise StartAgain("an unfinished commit came first") from None
    except StartAgain:
        work.clean(failed=False)
        raise
    except BaseException:
        work.clean()
        raise
    finally:
        if lock is not None:
            lock.release()
        if mask is not None:
            held.release()
            pthread_sigmask(SIG_SETMASK, mask)


class _Resolve(Exception):
    def __init__(self, record: Record) -> None:
        super().__init__(record.txid)
        self.record = record


def _undone(reason: Exception, record: Record) -> RecoveryError:
    what = f"the change of {_subject(record)} was undone as a whole: {_words(reason)}"
    if isinstance(reason, RecoveryError):
        return type(reason)(f"{what}; the previous state stands", hint=reason.hint)
    if isinstance(reason, Conflict):
        return DataError(f"{what}; the edit was set aside in {layout.CONFLICTS}/", hint="look at it, then repeat")
    if isinstance(reason, OSError):
        return from_os_error(reason, f"{what}; the previous state stands")
    return StorageError(what)


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _subject(record: Record) -> str:
    line = record.body["line"]
    return f"{line['agent']}/{line['task']}"


class _Work:
    """What an owner prepares before its commit point, and cleans up if it never gets there."""

    def __init__(self, store: FileStore, change: Change) -> None:
        self.store, self.change = store, change
        self.places: list[Place] = []
        self.stages: list[Optional[durable.Stage]] = []
        self.backup_name = ""
        self.backup_made: Optional[Place] = None
        self.committed = False

    def names(self) -> str:
        return ", ".join(edit.name for edit in self.change.edits)

    def stage(self) -> None:
        for edit in self.change.edits:
            self.places.append(self._stage(edit))

    def _stage(self, edit: Edit) -> Place:
        place = self.store.root.place(edit.name, create=edit.before is None)
        before = edit.before
        like = -1
        if before is not None:
            like, st = durable.open_regular(place)
        try:
            if like >= 0:
                _require_replaceable(place, like, st)
            if edit.ops is None and edit.after is None:
                self.stages.append(None)
                return place
            mode, uid, gid = self._owner(edit, place)
            base = durable.stage_name(place.base, self.store.nonce)
            stage = durable.stage(place, base, self._bytes(edit), mode, uid, gid, like)
            self.stages.append(stage)
            if stage.lost:
                self.store.told.append(f"{place.name}: its {stage.lost} could not be kept; it now belongs to you")
            return place
        finally:
            if like >= 0:
                os.close(like)

    def _owner(self, edit: Edit, place: Place) -> tuple[int, int, int]:
        if edit.before is not None:
            return edit.before.mode, edit.before.uid, edit.before.gid
        if edit.like is not None:
            return edit.like.mode, -1, edit.like.gid
        st = os.fstat(place.folder)
        return flock.mode_of(st), -1, st.st_gid

    def _bytes(self, edit: Edit) -> Iterable[bytes]:
        if edit.ops is not None and edit.before is not None:
            cuts = edit.splices
            if cuts is None:
                cuts = jsontext.splices(edit.before.text, edit.ops)
            return jsontext.pieces(edit.before.text, cuts)
        return (str(edit.after).encode("utf-8", "surrogateescape"),)

    def backup(self) -> None:
        """The outbox's bytes as they were read, for people, before anything changes; see `tidy_after`."""
        for edit, place in zip(self.change.edits, self.places):
            if edit.before is None or not edit.name.endswith("/outbox.json"):
                continue
            base = f"{place.base}.backup_{self.change.task}"
            target = _beside(place, base)
            self.backup_name = target.name
            digest = _hash_or_none(target)
            if digest == edit.before.hash:
                return
            if digest is not None:
                _put_away(target)
            steps.at("backup", target.name)
            stage = durable.stage_name(base, self.store.nonce)
            durable.stage(place, stage, jsontext.pieces(edit.before.text, ()), edit.before.mode, -1, edit.before.gid)
            _into_place(place, stage, base)
            self.backup_made = target
            steps.at("backed-up", target.name)
            return

    def recheck(self, held: Held, lock: flock.HeldLock) -> tuple[dict[str, Any], dict[str, Any]]:
        """Under the commit lock: what was read is still there and the locks are still ours; the record's content."""
        store, change = self.store, self.change
        steps.at("recheck")
        if not held.all_current() or not lock.is_current():
            raise Busy(
                "a lock file was removed while it was held; nothing was changed", hint="run the same command again"
            )
        files, extra = [], []
        for edit, place, stage in zip(change.edits, self.places, self.stages):
            before = edit.before.hash if edit.before else None
            if durable.current_hash(place)[0] != before:
                raise StartAgain(f"{place.name} was changed meanwhile")
            file: File = {"name": place.name, "before": before, "after": stage.hash if stage else None}
            if edit.ops is not None:
                file["ops"] = list(edit.ops)
            else:
                old = edit.before
                file["write"] = [None if old is None else jsontext.from_latin(old.text), edit.after]
            files.append(file)
            extra.append(
                {
                    "lock": layout.lock_of(place.name),
                    "stage": stage.base if stage else durable.stage_name(place.base, store.nonce),
                    "before": edit.before.state() if edit.before else None,
                    "mode": self._owner(edit, place)[0],
                }
            )
        line = {
            "seq": 0,
            "txid": change.txid,
            "time": change.time,
            "op": change.op,
            "agent": change.agent,
            "task": change.task,
            "by": {"pid": os.getpid(), "uid": os.geteuid(), "host": flock.identity()["host"]},
            **change.extra,
            "files": files,
            "derived": change.derived,
        }
        body = {
            "txid": change.txid,
            "boot": flock.identity()["boot"],
            "keep_backup": change.keep_backup,
            "durable_log": change.durable_log,
            "backup": self.backup_name,
            "extra": extra,
        }
        return body, line

    def write_journal(self, body: dict[str, Any], line: dict[str, Any]) -> Record:
        """The commit point.  If it can't be reached nothing is renamed and the record is marked done."""
        from recovery.journal import Record, allocate

        store = self.store
        strictest = 0o666
        for extra in body["extra"]:
            strictest &= extra["mode"]
        journal = store.journal(create=True, mode=strictest)
        assert journal is not None
        allocate(journal.fd)
        last = journal.read()
        if last is not None and last.body.get("boot") != body["boot"]:
            rederive(store, last)
        seq = journal.next_seq
        log = layout.changes(self.change.time)
        if seq == 1:
            seq = _last_seq(store) + 1
        place = store.root.place(log, create=True)  # what can't be written is refused before, not after
        mode, gid = store.shared()
        os.close(jsonl.open_append(store.root, place, mode, gid))
        store.root.sync_made()
        line["seq"] = seq
        text = jsontext.dumps({**body, "line": line})
        try:
            journal.write(seq, text)
            journal.sync()
        except OSError as error:
            try:
                journal.mark_done(seq, body["txid"])
            except OSError:
                raise Unconfirmed(
                    f"the journal could not be written and not be cleared: {error.strerror}",
                    hint="repeat the command when the disk is well: it finishes or finds nothing to do",
                ) from None
            raise
        return Record(seq, {**body, "line": line}, len(text), "REDO", False)

    def clean(self, failed: bool = True) -> None:
        """Nothing was committed: take away what was staged.  After a failure the backup stays for people."""
        if self.committed:
            return
        for place, stage in zip(self.places, self.stages):
            if stage is not None:
                durable.remove(place.folder, stage.base)
        if self.backup_made is not None and not failed:
            durable.remove(self.backup_made.folder, self.backup_made.base)


def _require_replaceable(place: Place, fd: int, st: os.stat_result) -> None:
    """Refuse before the commit point what rename(2) would refuse after it: a file that is a mount point."""
    if st.st_dev != os.fstat(place.folder).st_dev or durable.mount_id(fd) != durable.mount_id(place.folder):
        raise Unavailable(
            f"{place.name} is a mount point: it can't be replaced in one step", hint="mount its folder instead"
        )


def _beside(place: Place, base: str) -> Place:
    from recovery.durable import Place as Beside

    return Beside(place.folder, base, place.name[: -len(place.base)] + base)


def _into_place(place: Place, stage: str, base: str) -> None:
    try:
        os.rename(stage, base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    except OSError:
        durable.remove(place.folder, stage)
        raise


def _hash_or_none(place: Place) -> Optional[str]:
    try:
        return durable.current_hash(place)[0]
    except DataError:
        return "not a regular file"


def _put_away(place: Place) -> None:
    """Rename an older backup to the first free `.N`: it may be the only good copy somebody has."""
    n = 1
    while True:
        name = f"{place.base}.{n}"
        try:
            os.stat(name, dir_fd=place.folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(place.base, name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            return
        n += 1


def _last_seq(store: FileStore) -> int:
    """A journal that was lost or left out of a copy goes on counting where the change log stopped."""
    for name in reversed(store.list(layout.CHANGES)):
        if name.endswith(".jsonl"):
            found = change_lines(store, f"{layout.CHANGES}/{name}")
            if found:
                return max(int(line.get("seq", 0)) for line in found)
    return 0


def change_lines(store: FileStore, name: str) -> list[dict[str, Any]]:
    """All whole lines of one month's change log; torn ones are passed over."""
    version = store.read(name, strict=False)
    return jsonl.records(version.text.encode("latin-1"))[0] if version else []


# --- owner and resolver


def _files(record: Record) -> list[File]:
    """One dict a file: what the change log holds of it and what only the journal holds."""
    return [
        {**extra, **file, "state": extra["before"], "expect": file["after"]}
        for file, extra in zip(record.body["line"]["files"], record.body["extra"])
    ]


def _finish(store: FileStore, record: Record, files: list[File], own: bool) -> Optional[Exception]:
    """Carry a durable record to its end; None if it was finished, the reason if it was undone."""
    journal = store.journal()
    assert journal is not None
    try:
        line = record.body["line"]
        log = layout.changes(line["time"])
        if not own:
            journal.sync("resolve-sync")
            if record.direction == "REDO" and _in_log(store, log, record):
                _record_and_forget(store, record, files, own)
                return None
        if record.direction == "ABORT":
            return _abort(store, record, files, StorageError("it had begun to be undone"))
        try:
            for file in files:
                _replace(store, file, own)
            for _ in range(ROUNDS):
                _sync_folders(store, files)
                if not _verify_fails(store, files):
                    break
            else:
                raise Conflict("another writer overwrote it again and again")
        except (Conflict, RecoveryError, jsontext.BadJSON, OSError) as why:
            return _abort(store, record, files, why)
        steps.at("verified", record.txid)
        _record_and_forget(store, record, files, own)
        return None
    except _FolderSync as error:
        raise _unconfirmed(record, error.error) from None
    except (OSError, RecoveryError) as error:
        raise _unconfirmed(record, error) from None


def _unconfirmed(record: Record, error: Exception) -> Unconfirmed:
    return Unconfirmed(
        f"the change of {_subject(record)} is decided but not finished: {_words(error)}",
        hint="run the same command again: it finishes the change or finds it done",
    )


class _FolderSync(Exception):
    """A folder fsync that fails is neither redo nor abort: nobody knows what is on the disk."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _in_log(store: FileStore, log: str, record: Record) -> bool:
    try:
        place = store.root.place(log)
        fd, _ = durable.open_regular(place)
    except (FileNotFoundError, DataError):
        return False
    try:
        return jsonl.tail_has(fd, record.txid, 65536 + 2 * record.length)
    finally:
        os.close(fd)


def _replace(store: FileStore, file: File, own: bool) -> None:
    """Bring one file to its after-state, or raise: Conflict, or OSError if it can't be."""
    place = store.root.place(file["name"], create=file["state"] is None)
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
        if not own and _hash_or_none(_beside(place, file["stage"])) != file["after"]:
            _restage(store, place, file, _after_bytes(store, file))
    else:
        text, stand = _standing(store, file)
        if stand == "after":
            file["expect"] = now
            return
        if stand != "before":
            raise Conflict(f"{file['name']} was changed by another writer")
        file["expect"] = _restage(store, place, file, jsontext.pieces(text, jsontext.splices(text, file["ops"])))
    steps.at("replace", file["name"])
    os.rename(file["stage"], place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    steps.at("replaced", file["name"])


def _standing(store: FileStore, file: File) -> tuple[str, str]:
    """A changed file's text, and how it stands to the record's edit by the edit's own fields."""
    if "ops" not in file:
        return "", "other"
    version = store.read(file["name"])
    if version is None:
        return "", "other"
    top = jsontext.document(version.text)
    return version.text, jsontext.standing(version.text, file["ops"], top)


def _after_bytes(store: FileStore, file: File) -> Iterator[bytes]:
    if "ops" not in file:
        yield str(file["write"][1]).encode("utf-8", "surrogateescape")
        return
    version = store.read(file["name"])
    if version is None:
        raise Conflict(f"{file['name']} is gone")
    yield from jsontext.pieces(version.text, jsontext.splices(version.text, file["ops"]))


def _restage(store: FileStore, place: Place, file: File, data: Iterable[bytes]) -> str:
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
        return durable.stage(place, file["stage"], data, mode, uid, gid, like).hash
    finally:
        if like >= 0:
            os.close(like)


def _sync_folders(store: FileStore, files: Sequence[File]) -> None:
    """fsync each folder once; folders made on the way too."""
    done = set()
    try:
        store.root.sync_made()
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
        if now == file["before"] or _standing(store, file)[1] == "before":
            _replace(store, file, own=True)
            again = True
    return again


def _record_and_forget(store: FileStore, record: Record, files: Sequence[File], own: bool) -> None:
    line = record.body["line"]
    store.append_line(layout.changes(line["time"]), line, check=not own, sync=True)
    if store.root.made:
        store.root.sync_made()
    if not own:
        _clean_stages(store, files)
    derive(store, line, check=not own, sync=bool(record.body.get("durable_log")))
    journal = store.journal()
    assert journal is not None
    journal.mark_done(record.seq, record.txid)
    if not own and not record.body["keep_backup"]:
        remove_backup(store, record)


def _clean_stages(store: FileStore, files: Sequence[File]) -> None:
    for file in files:
        try:
            durable.remove(store.root.place(file["name"]).folder, file["stage"])
        except (OSError, DataError):
            pass


def remove_backup(store: FileStore, record: Record) -> None:
    """After a verified success: the backup, if it is the record's own."""
    name = record.body["backup"]
    if not name:
        return
    try:
        place = store.root.place(name)
        states = [file["before"] for file in record.body["line"]["files"]]
        if durable.current_hash(place)[0] in states:
            durable.remove(place.folder, place.base)
    except (OSError, DataError):
        pass


# --- what follows from a change


def derive(store: FileStore, line: dict[str, Any], check: bool, sync: bool) -> None:
    """Write a change's checkpoint and log lines.  A failure costs nothing: the change log can write them again."""
    for item in line["derived"]:
        try:
            if "append" in item:
                store.append_line(item["name"], {"txid": line["txid"], **item["append"]}, check, sync)
            else:
                place = store.root.place(item["name"], create=True)
                base = f".{place.base}.stage"
                mode, gid = store.shared()
                text = jsontext.dumps(item["snapshot"], "  ") + "\n"
                _write_cache(place, base, text.encode("utf-8"), mode, gid)
        except (OSError, RecoveryError) as error:
            if sync and isinstance(error, OSError):
                raise
            store.told.append(f"{item['name']} could not be written: {error} (`recovery recover` writes it later)")
    if sync:
        store.root.sync_made()


def _write_cache(place: Place, base: str, data: bytes, mode: int, gid: int) -> None:
    """A file that can be made again: renamed into place whole, not synced."""
    durable.remove(place.folder, base)
    steps.at("snapshot", place.name)
    fd = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place.folder)
    try:
        durable.write_all(fd, data)
        durable.own(fd, mode, -1, gid)
    except OSError:
        durable.remove(place.folder, base)
        raise
    finally:
        os.close(fd)
    _into_place(place, base, place.base)


def rederive(store: FileStore, last: Optional[Record] = None) -> int:
    """Write again the derived lines that a power cut may have taken: those of the change log's newest months.

    The first commit after a reboot does it (the journal remembers the boot of the last one), and `recovery recover`.
    Returns how many lines were missing.
    """
    steps.at("rederive")
    missing = 0
    months = [name for name in store.list(layout.CHANGES) if name.endswith(".jsonl")]
    present: dict[str, set[Any]] = {}
    newest: dict[str, dict[str, Any]] = {}
    for month in months[-2:]:
        for line in change_lines(store, f"{layout.CHANGES}/{month}"):
            for item in line.get("derived", ()):
                name = item["name"]
                if "append" not in item:
                    newest[name] = item["snapshot"]
                    continue
                if name not in present:
                    version = store.read(name, strict=False)
                    found = jsonl.records(version.text.encode("latin-1"))[0] if version else []
                    present[name] = {entry.get("txid") for entry in found}
                if line["txid"] not in present[name]:
                    present[name].add(line["txid"])
                    store.append_line(name, {"txid": line["txid"], **item["append"]}, check=False, sync=True)
                    missing += 1
    for name, snapshot in newest.items():
        if store.read(name) is None:
            derive(store, {"txid": "", "derived": [{"name": name, "snapshot": snapshot}]}, check=False, sync=False)
            missing += 1
    store.root.sync_made()
    return missing


# --- undoing a record


def _abort(store: FileStore, record: Record, files: list[File], why: Exception) -> Exception:
    """Turn the whole record to ABORT and take back what it replaced, field by field; returns the reason."""
    journal = store.journal()
    assert journal is not None
    steps.at("abort", why)
    if record.direction != "ABORT":
        journal.mark_abort(record)
    failed = []
    for file in files:
        try:
            _restore(store, file)
        except (OSError, RecoveryError, jsontext.BadJSON) as error:
            failed.append(f"{file['name']}: {error}")
    _sync_folders(store, [file for file in files if _folder_there(store, file)])
    _clean_stages(store, files)
    if failed:
        set_aside(store, record, "parked", "; ".join(failed))
        why = RollbackFailed(
            f"it could be neither finished nor undone ({'; '.join(failed)}); "
            f"its record is kept in {layout.CONFLICTS}/",
            hint="run `recovery recover` when the cause is gone",
        )
    elif isinstance(why, (Conflict, DataError, jsontext.BadJSON)):  # the disk's failures are told, not set aside
        set_aside(store, record, "conflict", str(why))
    journal.mark_done(record.seq, record.txid)
    return why


def _folder_there(store: FileStore, file: File) -> bool:
    try:
        store.root.place(file["name"])
        return True
    except (OSError, DataError):
        return False


def _restore(store: FileStore, file: File) -> None:
    try:
        place = store.root.place(file["name"])
        now, _ = durable.current_hash(place)
    except FileNotFoundError:
        return  # its folder is gone, and the file with it
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
        _restage(store, place, file, (old.encode("utf-8", "surrogateescape"),))
    else:
        try:
            text, stand = _standing(store, file)
        except (DataError, jsontext.BadJSON):
            return  # damaged by somebody else: not ours to guess at
        if stand != "after":
            return
        _restage(store, place, file, jsontext.pieces(text, jsontext.splices(text, jsontext.inverse(file["ops"]))))
    steps.at("restore", file["name"])
    os.rename(file["stage"], place.base, src_dir_fd=place.folder, dst_dir_fd=place.folder)
    steps.at("restored", file["name"])


def set_aside(store: FileStore, record: Record, kind: str, reason: str) -> None:
    """Keep a record in data/conflicts, durably, and say in logs/recovery that a person is needed."""
    line = record.body["line"]
    name = layout.set_aside(line["agent"], line["task"], record.txid, kind)
    entry = {"kind": kind, "reason": reason, "direction": record.direction, "seq": record.seq, **record.body}
    _create(store, name, jsontext.dumps(entry, "  ") + "\n")
    escalate(store, line["agent"], line["task"], kind, reason, name)


def escalate(store: FileStore, agent: str, task: str, kind: str, reason: str, where: str = "") -> None:
    """Write `logs/recovery/TASK_escalation.json`, or `…_escalation.N.json`: a later one never overwrites.

    An escalation for the same reason that is still there is enough.  A failure to write costs only the note.
    """
    entry = {
        "task_id": task,
        "agent_id": agent,
        "timestamp": store.now(),
        "error_type": kind,
        "error_message": reason,
        "strategy": "ESCALATE",
        "success": False,
        "details": {"record": where},
    }
    try:
        for n in range(100):
            name = f"{layout.LOGS}/{task}_escalation{'.' + str(n) if n else ''}.json"
            old = store.read(name)
            if old is None:
                _create(store, name, jsontext.dumps(entry, "  ") + "\n")
                return
            known = jsontext.loads(jsontext.from_latin(old.text))
            if isinstance(known, dict) and (known.get("error_type"), known.get("error_message")) == (kind, reason):
                return
    except (OSError, ValueError, RecoveryError) as error:
        store.told.append(f"no escalation could be written for {agent}/{task}: {error}")


def _create(store: FileStore, name: str, text: str) -> None:
    place = store.root.place(name, create=True)
    mode, gid = store.shared()
    base = durable.stage_name(place.base, store.nonce)
    durable.remove(place.folder, base)
    durable.stage(place, base, (text.encode("utf-8"),), mode, -1, gid)
    _into_place(place, base, place.base)
    store.root.made.add(place.name.rpartition("/")[0])
    store.root.sync_made()


# --- the resolver


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
            for name in locks_of(record):
                store.root.folder(name.rpartition("/")[0])
            store.take_locks(held, {name: None for name in locks_of(record)})
            lock = store.commit_lock()
            now = store.unfinished()
            if now is None:
                return
            if now.txid != record.txid:
                record = now
                continue
            mask = pthread_sigmask(SIG_BLOCK, (SIGINT, SIGTERM, SIGHUP))
            reason = _finish(store, now, _files(now), own=False)
            store.tidy(held)
            _tell(store, now, reason)
            return
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            raise _unconfirmed(record, error) from None
        finally:
            if lock is not None:
                lock.release()
            held.release()
            if mask is not None:
                pthread_sigmask(SIG_SETMASK, mask)


def _tell(store: FileStore, record: Record, reason: Optional[Exception]) -> None:
    line = record.body["line"]
    what = f"{line['op']} {_subject(record)}"
    if reason is None:
        text = f"finished `{what}`, which pid {line['by']['pid']} had left half done"
    else:
        text = f"undid `{what}`, which pid {line['by']['pid']} had left half done: {_words(reason)}"
        if isinstance(reason, Conflict) and reason.restored:
            text += "; it was not done again: repeat that command if you want it"
    store.told.append(text)
    store.resolved.append((line["agent"], line["task"], record.txid, reason))
    entry = {
        "task_id": line["task"],
        "timestamp": store.now(),
        "error_type": "OwnerDied",
        "error_message": text,
        "strategy": "RETRY" if reason is None else "ROLLBACK",
        "success": not isinstance(reason, RollbackFailed),
        "details": {"agent": line["agent"], "op": line["op"], "pid": line["by"]["pid"]},
    }
    try:
        store.append_line(layout.recovery_log(line["task"]), {"txid": record.txid, **entry}, check=True, sync=False)
    except (OSError, DataError) as error:
        store.told.append(f"the recovery could not be logged: {error}")


def tidy_after(store: FileStore, note: Note) -> None:
    """What a holder that died before its commit point left: staged files, and a backup equal to what is there now."""
    nonce, names = str(note.get("nonce", "")), note.get("files") or []
    if not nonce.isalnum():
        return
    journal = store.journal()
    last = journal.read() if journal is not None else None
    task = str(note.get("command", "")).rpartition("/")[2]
    for name in names:
        try:
            place = store.root.place(str(name))
            steps.at("tidy", name)
            durable.remove(place.folder, durable.stage_name(place.base, nonce))
            if not name.endswith("/outbox.json") or not layout.is_id(task):
                continue
            backup = _beside(place, f"{place.base}.backup_{task}")
            durable.remove(place.folder, durable.stage_name(backup.base, nonce))
            if last is not None and last.txid.endswith("-" + nonce):
                if last.finished and not last.body["keep_backup"]:
                    remove_backup(store, last)
            else:
                kept = _hash_or_none(backup)
                if kept is not None and kept == durable.current_hash(place)[0]:
                    durable.remove(place.folder, backup.base)
        except (OSError, DataError):
            continue


def finish_parked(store: FileStore) -> list[str]:
    """Try again to undo the records that were parked; a line for each, done or not."""
    from recovery.journal import Record
    from recovery.store import Held

    lines = []
    for base in store.list(layout.CONFLICTS):
        if not base.endswith(".parked.json"):
            continue
        name = f"{layout.CONFLICTS}/{base}"
        version = store.read(name)
        if version is None:
            continue
        body = jsontext.loads(jsontext.from_latin(version.text))
        record = Record(int(body["seq"]), body, 0, "ABORT", False)
        with Held(store, ()) as held:
            store.take_locks(held, {lock: None for lock in locks_of(record)})
            failed = []
            for file in _files(record):
                try:
                    _restore(store, file)
                except (OSError, DataError, jsontext.BadJSON) as error:
                    failed.append(f"{file['name']}: {error}")
            _sync_folders(store, [file for file in _files(record) if _folder_there(store, file)])
            if failed:
                lines.append(f"{_subject(record)} could still not be undone: {'; '.join(failed)}")
                continue
            place = store.root.place(name)
            done = place.base.replace(".parked.json", ".undone.json")
            os.rename(place.base, done, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            os.fsync(place.folder)
            lines.append(f"undid {_subject(record)}, which had been parked since {body['line']['time']}")
    return lines


def is_parked(store: FileStore, agent: str, task: str) -> Optional[str]:
    """The parked record of a task, if there is one: until it is undone the task answers 70."""
    start = f"{agent}@{task}@"
    for base in store.list(layout.CONFLICTS):
        if base.startswith(start) and base.endswith(".parked.json"):
            return f"{layout.CONFLICTS}/{base}"
    return None


def errno_name(error: OSError) -> str:
    """ENOSPC and the like, for logs."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
