"""The commit protocol: files change together or not at all, through kill -9, power cut, full disk and EIO.

The words, in order: begin, stage, journal (its fdatasync is the commit point), replace, verify, record, forget.
A record that its owner did not finish is finished or undone by whoever next takes a lock on one of its files, or
commits.  Owner and resolver run the same code below (`finish`, `abort`); they differ in what they trust.

What a crash leaves behind:

    before the commit point   staged files and a backup, named in the lock's note, removed by the next holder
    after it                  a record, from which with the old files everything is finished or undone

Raised by `commit`: StorageError (74) or Denied (77), the previous state stands; DataError (65), somebody else's
change was in the way; Busy (75), a lock was lost or a race; Unconfirmed (71), repeat the command; RollbackFailed
(70), the record was kept in data/conflicts.
"""

from __future__ import annotations

import os
import sys

from recovery import derived, durable, flock, jsontext, layout, steps
from recovery.errors import Busy, DataError, RecoveryError, StorageError, Unavailable, Unconfirmed, from_os_error
from recovery.finish import (
    Conflict,
    defer_signals,
    files_of,
    finish,
    remove_backup,
    subject,
    undefer_signals,
    words,
)
from recovery.journal import Record, allocate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional, Sequence

    from recovery.durable import Place, Version
    from recovery.jsontext import Op
    from recovery.store import FileStore, Held

    File = dict[str, Any]


#: So many staged files are written before they are synced, together: each is an open file until then.
_TOGETHER = 64


class StartAgain(Exception):
    """Nothing was changed, but what was read is no longer true: plan again."""


class Edit:
    """What happens to one file: `ops` (see `recovery.jsontext`) on a JSON document, or the whole text `after`.

    `splices` are where the ops cut into `before`.

    `before` is the version that was planned on, None for a file that isn't there; `after` None removes the file.
    `like` gives mode and group to a file that is new, or to one that is to have others.
    """

    __slots__ = ("after", "before", "like", "name", "ops", "splices")

    def __init__(
        self,
        name: str,
        before: Optional[Version],
        ops: Optional[Sequence[Op]] = None,
        splices: Optional[Sequence[jsontext.Splice]] = None,
        *,
        after: Optional[str] = None,
        like: Optional[Version] = None,
    ) -> None:
        self.name, self.before, self.ops, self.splices, self.after, self.like = name, before, ops, splices, after, like


class Change:
    """One commit: its edits, who does what to which task, and the log lines that follow from it.

    `derived` is a list of `{"name": FILE, "append": {...}}` and `{"name": FILE, "snapshot": {...}}`; they are written
    without a sync of their own, because the change log, which is synced, can write them again (`rederive`), unless
    `durable_log` asks for it.

    A backup is made where a change is over one outbox: a copy of one of several would be no state that ever was.
    """

    __slots__ = (
        "agent",
        "derived",
        "durable_log",
        "edits",
        "extra",
        "keep_backup",
        "make_backup",
        "op",
        "task",
        "time",
        "txid",
    )

    def __init__(self, op: str, agent: str, task: str, time: str, txid: str, edits: Sequence[Edit]) -> None:
        self.op, self.agent, self.task, self.time, self.txid = op, agent, task, time, txid
        self.edits = edits
        self.derived: list[dict[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.keep_backup = self.durable_log = False
        self.make_backup = True  # of the outbox of `agent`


class Put:
    """A commit of one file that no other depends on: `text` takes the place of `before`; None means no file.

    The suite's own state (a breaker, a budget) is kept so.  A rename is atomic by itself: no journal, no change log.
    """

    __slots__ = ("before", "name", "text")

    def __init__(self, name: str, before: Optional[Version], text: Optional[str]) -> None:
        self.name, self.before, self.text = name, before, text


def txid_of(time: str, nonce: str) -> str:
    """A transaction id: sortable by time, unique by its nonce."""
    return time.replace("-", "").replace(":", "") + "-" + nonce


def lost_race(names: Iterable[str]) -> Busy:
    return Busy(
        "other writers kept changing " + ", ".join(names) + "; nothing was changed", hint="run the same command again"
    )


def commit(store: FileStore, held: Held, change: Change) -> str:
    """Carry the change out; returns its txid.  `held` must cover every file of it."""
    work = _Work(store, change)
    mask = None
    lock = None
    try:
        try:
            work.stage()
            lock = store.commit_lock()
            record = store.unfinished()
            if record is not None:
                raise _Resolve(record)
            body, line = work.recheck(held, lock)
            mask = defer_signals()
            record, files = work.write_journal(body, line)
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            raise from_os_error(
                error, f"nothing was changed, for the change of {work.names()} could not be prepared"
            ) from None
        work.committed = True
        reason = finish(store, record, files, own=True)
        lock.release()
        if reason is not None:
            raise _undone(reason, record)
        if not remove_backup(store, record.body["line"], own=True):
            held.leave_notes()
        held.release()
        steps.at("committed", change.txid)
        return change.txid
    except _Resolve as found:
        work.clean(failed=False)
        if lock is not None:
            lock.release()
            lock = None
        held.release()
        from recovery.resolve import resolve

        resolve(store, found.record)
        raise StartAgain("an unfinished commit came first") from None
    except StartAgain:
        work.clean(failed=False)
        raise
    except BaseException:
        if work.committed:
            held.leave_notes()
        work.clean()
        raise
    finally:
        if lock is not None:
            lock.release()
        if mask is not None:
            held.release()
            undefer_signals(mask)


def put(store: FileStore, held: Held, change: Put) -> str:
    """Replace or remove one file durably; returns its hash.  Raises as `commit` does.

    A crash leaves it old or new, and at most a staged file, which the next holder of its lock removes.
    """
    place = store.root.place(change.name, create=True)
    mode, gid = store.shared()
    stage = lock = None
    try:
        base = durable.stage_name(place.base, store.nonce)
        if change.text is not None:
            stage = durable.stage(place, base, (change.text.encode("utf-8"),), mode, -1, gid)
            stage.sync()  # behind the assignment: what can't be synced is discarded
        store.root.sync_made()
        lock = store.commit_lock()
        if not held.all_current() or not lock.is_current():
            raise Busy(f"the lock file of {place.name} was removed while it was held; nothing was changed")
        if not _is_unchanged(place, change.before):
            raise StartAgain(f"{place.name} was changed meanwhile")
        steps.at("put", place.name)
        if stage is not None:
            durable.into_place(place, base, place.base)
        else:
            os.unlink(place.base, dir_fd=place.folder)
        steps.at("put-renamed", place.name)
        try:
            os.fsync(place.folder)
        except OSError as error:
            raise Unconfirmed(f"{place.name} was replaced, but may not survive a power cut: {words(error)}") from None
        return stage.hash if stage is not None else ""
    except OSError as error:
        if isinstance(error, RecoveryError):
            raise
        raise from_os_error(error, f"could not write {place.name}") from None
    finally:
        if lock is not None:
            lock.release()
        if stage is not None:
            stage.discard()


class _Resolve(Exception):
    def __init__(self, record: Record) -> None:
        super().__init__(record.txid)
        self.record = record


def _undone(reason: Exception, record: Record) -> RecoveryError:
    what = f"the change of {subject(record)} was undone as a whole: {words(reason)}"
    if isinstance(reason, RecoveryError):
        return type(reason)(f"{what}; the previous state stands", hint=reason.hint)
    if isinstance(reason, Conflict):
        return DataError(f"{what}; the edit was set aside in {layout.CONFLICTS}/", hint="look at it, then repeat")
    if isinstance(reason, OSError):
        return from_os_error(reason, f"{what}; the previous state stands")
    return StorageError(what)


class _Work:
    """What an owner prepares before its commit point, and cleans up if it never gets there."""

    def __init__(self, store: FileStore, change: Change) -> None:
        self.store, self.change = store, change
        self.places: list[Place] = []
        self.stages: list[Optional[durable.Stage]] = []
        self.backup_name = ""
        self.backup_made: Optional[Place] = None
        self.backup_stage: Optional[durable.Stage] = None
        self.committed = False

    def names(self) -> str:
        return ", ".join(edit.name for edit in self.change.edits)

    def stage(self) -> None:
        """Write every new file and the backup, then sync them one after the other."""
        backup = None
        for edit in self.change.edits:
            if len(self.stages) % _TOGETHER == 0:
                self._sync()
            place = self.store.root.place(edit.name, create=edit.before is None)
            self.places.append(place)
            if edit.before is None:
                self._stage(edit, place, -1)
                continue
            like, st = durable.open_regular(place)
            try:
                self._require_replaceable(place, like, st)
                self._stage(edit, place, like)
                if edit.name == layout.outbox(self.change.agent) and self.change.make_backup:
                    target, backup = stage_backup(self.store, self.change.task, place, edit.before, like)
                    self.backup_name, self.backup_stage = target.name, backup
            finally:
                os.close(like)
        self._sync()
        if backup is not None:
            backup.sync()
            durable.into_place(backup.place, backup.base, backup.place.base)
            self.backup_made, self.backup_stage = backup.place, None
            steps.at("backed-up", self.backup_name)

    def _sync(self) -> None:
        for stage in self.stages[-_TOGETHER:]:
            if stage is not None:
                stage.sync()

    def _stage(self, edit: Edit, place: Place, like: int) -> None:
        if edit.ops is None and edit.after is None:
            self.stages.append(None)
            return
        mode, uid, gid = self._owner(edit, place)
        base = durable.stage_name(place.base, self.store.nonce)
        stage = durable.stage(place, base, self._bytes(edit), mode, uid, gid, like)
        self.stages.append(stage)
        if stage.lost:
            self.store.told.append(f"{place.name}: its {stage.lost} could not be kept; it now belongs to you")

    def _require_replaceable(self, place: Place, fd: int, st: os.stat_result) -> None:
        """Refuse before the commit point what rename(2) would refuse after it: a file that is a mount point."""
        other = st.st_dev != os.fstat(place.folder).st_dev
        if other or durable.mount_id(fd) != self.store.root.mount_of(place.folder):
            raise Unavailable(
                f"{place.name} is a mount point: it can't be replaced in one step", hint="mount its folder instead"
            )

    def _owner(self, edit: Edit, place: Place) -> tuple[int, int, int]:
        if edit.before is not None:
            like = edit.like or edit.before
            return like.mode, like.uid, like.gid
        if edit.like is not None:
            return edit.like.mode, -1, edit.like.gid
        st = os.fstat(place.folder)
        return flock.mode_of(st), -1, st.st_gid

    def _bytes(self, edit: Edit) -> Iterable[bytes]:
        if edit.splices is not None and edit.before is not None:
            return jsontext.pieces(edit.before.text, edit.splices)
        return (str(edit.after).encode("utf-8", "surrogateescape"),)

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
            if not _is_unchanged(place, edit.before):
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
            "txid": change.txid,
            "time": change.time,
            "op": change.op,
            "agent": change.agent,
            "task": change.task,
            "by": {"pid": os.getpid(), "uid": os.geteuid(), "host": flock.identity()["host"]},
            **_long_waits(),
            **change.extra,
            **({"backup": self.backup_name} if self.backup_name else {}),
            **({"keep_backup": True} if change.keep_backup else {}),
            "files": files,
            "derived": change.derived,
        }
        body = {
            "txid": change.txid,
            "boot": flock.identity()["boot"],
            "durable_log": change.durable_log,
            "extra": extra,
        }
        return body, line

    def write_journal(self, body: dict[str, Any], line: dict[str, Any]) -> tuple[Record, list[File]]:
        """The commit point; returns the record and its files.

        If it can't be reached nothing is renamed and the record is marked done.  A record that whoever comes after a
        crash would refuse is refused here: nothing could be written in the workspace any more.
        """
        store = self.store
        strictest = 0o666
        for extra in body["extra"]:
            strictest &= extra["mode"]
        journal = store.journal(create=True, mode=strictest)
        assert journal is not None
        allocate(journal.fd)
        last = journal.read()
        if last is not None and last.body.get("boot") != body["boot"]:
            derived.rederive(store)
        if last is not None and last.direction == "ABORT":  # its number has no line, and is not lost
            from recovery import lost

            line["aborted"] = lost.aborted_by(last)
        seq = journal.next_seq
        log = layout.changes(self.change.time)
        if seq == 1:
            seq = derived.last_seq(store) + 1
        record = Record.new(seq, body, line)
        try:
            files = files_of(record)
        except DataError:
            raise DataError(f"the change of {subject(record)} has what no record of this suite may have") from None
        logs = [log]
        if self.change.durable_log:
            logs += sorted({item["name"] for item in self.change.derived if "append" in item})
        for name in logs:  # what can't be written is refused before, not after
            os.close(store.open_log(name))
        store.root.sync_made("data")  # what people keep is synced with its renames
        try:
            journal.write(seq, record.text)
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
        return record, files

    def clean(self, failed: bool = True) -> None:
        """Nothing was committed: take away what was staged.  After a failure the backup stays for people."""
        if self.committed:
            return
        for stage in [*self.stages, self.backup_stage]:
            if stage is not None:
                stage.discard()
        if self.backup_made is not None and not failed:
            durable.remove(self.backup_made.folder, self.backup_made.base)


def _long_waits() -> dict[str, Any]:
    """For which locks this change has waited so long that people were told, and who held them."""
    contention = sys.modules.get("recovery.contention")  # where nobody has waited it was never read
    waits = contention.take_told() if contention is not None else []
    return {"waited": waits} if waits else {}


def stage_backup(
    store: FileStore, task: str, place: Place, before: Version, source: int
) -> tuple[Place, Optional[durable.Stage]]:
    """Stage `NAME.backup_TASK`, a copy of the open file as it was read, for people; None if it is there already.

    A differing older one is put away under another name.  The caller syncs the stage and renames it.
    """
    target = durable.beside(place, f"{place.base}.backup_{task}")
    there = durable.hash_or_none(target)
    if there == before.hash:
        return target, None
    if there is not None:
        put_away(target)
    steps.at("backup", target.name)
    base = durable.stage_name(place.base + ".backup", store.nonce)  # a name that `tidy_after` knows
    return target, durable.stage_copy(target, base, source, before.mode, before.gid)


def _is_unchanged(place: Place, before: Optional[Version]) -> bool:
    """Whether a file is what was planned on.  Its times answer that mostly; its hash is compared before the rename."""
    try:
        if before is not None and before.is_untouched(place):
            return True
    except FileNotFoundError:
        pass
    return durable.current_hash(place)[0] == (before.hash if before else None)


def put_away(place: Place) -> None:
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
