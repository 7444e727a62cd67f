"""The workspace on a local file system: lock, read, commit, append, list.

This is the whole interface that the verbs know (`Store` below); a store on etcd or Redis offers the same five.
How a commit survives everything is in `recovery.commit`.
"""

from __future__ import annotations

import errno
import os
import time

from recovery import commit as protocol
from recovery import durable, flock, jsonl, jsontext, layout, steps
from recovery.errors import DataError, NotFound, RecoveryError, Unavailable, Unconfirmed, from_os_error
from recovery.finish import locks_of
from recovery.journal import Journal, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Callable, Iterable, Optional, Protocol, Sequence, Union

    from recovery.commit import Change, Put
    from recovery.durable import Place, Version
    from recovery.flock import HeldLock, Limits

    class Store(Protocol):
        """What a verb may ask of a workspace."""

        limits: Limits

        def lock(self, names: Sequence[str], create: bool = False) -> Held:
            """Hold the files `names` for a moment: read them, commit a change over them.  LockTimeout (75).

            The first of them must be there, unless `create`: NotFound (66).
            """

        def read(self, name: str, strict: bool = True, known: Optional[Version] = None) -> Optional[Version]:
            """A file's bytes and state now, None if there is none; 65 unless it is a regular file of UTF-8.

            Without `strict` any bytes will do: logs may end in half a character.  A version that is `known` comes
            back itself, without a look at the bytes, as long as nobody has changed the file.
            """

        def commit(self, held: Held, change: Union[Change, Put]) -> str:
            """All of the change's files or none; returns its txid.  See `recovery.commit` for what it raises."""

        def append(self, name: str, record: dict[str, Any], sync: bool = True, snapshot: str = "") -> int:
            """Add one line to a log, durably unless `sync` says otherwise; returns the log's size in bytes.

            Unconfirmed (71): it was added, and may not survive a power cut; after any other error it was not.

            The file `snapshot`, where one is named, then holds the record alone: a cache of the log's last line.
            """

        def list(self, folder: str) -> Sequence[str]:
            """The names in a folder, "" for the root, sorted; [] if there is none."""


class NeedsMore(Exception):
    """A plan has found further files to change and added them to its names: lock them all, plan again."""


def transact(
    store: Store, names: Sequence[str], plan: Callable[[], Union[Change, Put, None]], create: bool = False
) -> Optional[str]:
    """Lock, plan, commit; from the beginning again when another's change came between.

    `plan` reads through the store and returns the change, or None if nothing is to be done.  A plan that finds more
    files to change adds them to `names`, a list then, and raises NeedsMore.  Returns the txid.
    """
    for _ in range(8):
        try:
            with store.lock(names, create) as held:
                change = plan()
                if change is None:
                    return None
                try:
                    return store.commit(held, change)
                except protocol.StartAgain as why:
                    steps.at("start-again", why)
        except NeedsMore:
            continue
    raise protocol.lost_race(names)


class Held:
    """Data locks of some files, held; a context manager that lets go."""

    def __init__(self, store: FileStore, names: Sequence[str]) -> None:
        self.store, self.names = store, tuple(names)
        self.locks: dict[str, HeldLock] = {}

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.release()

    def release(self) -> None:
        for held in reversed(list(self.locks.values())):
            steps.at("unlock", held.name)
            held.release()
        self.locks.clear()

    def leave_notes(self) -> None:
        """Let the locks' notes say "held" when they are released: the next holder looks for what is left to tidy."""
        for held in self.locks.values():
            held.noted = False

    def all_current(self) -> bool:
        return all(held.is_current() for held in self.locks.values())


class FileStore:
    """A workspace on this machine's disk.  Raises 66 if there is none, 69 if its format or disk can't be used."""

    #: Seconds since the epoch.
    clock: Callable[[], float] = staticmethod(time.time)

    def __init__(self, path: str, limits: Limits, mends: bool = False) -> None:
        self.limits = limits
        self.mends = mends  # a damaged data/config.json doesn't stop who is there to mend it
        self.root = durable.Root(path)
        self.nonce = os.urandom(6).hex()
        self._journal: Optional[Journal] = None
        self._boot_checked = False
        self.config = self._read_config()
        st = os.fstat(self.root.folder(""))
        if not os.major(st.st_dev):  # no block device of this machine: tmpfs, or somebody else's disk
            from recovery.disk import require_local

            require_local(path, self.config.get("accept_file_systems", ()))
        self.cache_into_place = durable.into_place  # how a file that can be made again takes its place
        self.told: list[str] = []  # what a person should hear of on stderr, a line each
        self.tidied: list[str] = []  # what was removed after owners that died before their commit point
        self.grown = False  # whether a log has become long, or a month's first line was written: see recovery.cleanup
        self.escalated = False  # whether an escalation was written, of which people are to be told
        self.resolved: list[tuple[str, str, str, Optional[Exception]]] = []  # agent, task, txid, why undone

    def is_open(self) -> bool:
        """Whether this still is the workspace at its path; if not it is to be opened anew (see `Root.refresh`)."""
        if self.root.refresh():
            return True
        if not self.root.path_is_open():
            if self._journal is not None:
                self._journal.fd = -1  # somebody else's by now
            self._journal = None
        return False

    def close(self) -> None:
        self.forget_journal()
        self.root.close()

    def _read_config(self) -> dict[str, Any]:
        try:
            version = self.read(layout.CONFIG)
            config = config_of(version.text) if version else {"format": layout.FORMAT}
        except (ValueError, DataError) as error:
            if self.mends:
                return {}
            said = str(error) if isinstance(error, DataError) else f"{layout.CONFIG} is damaged: {error}"
            raise DataError(said, hint="run `recovery doctor --repair`") from None
        form = config["format"]
        if form > layout.FORMAT or config.get("backend", "files") != "files":
            raise Unavailable(
                f"{layout.CONFIG} asks for format {form}, backend {config.get('backend', 'files')!r}: "
                f"this version knows format {layout.FORMAT}, backend 'files'",
                hint="use the version of the suite that made this workspace",
            )
        return dict(config)

    # --- the five

    def lock(self, names: Sequence[str], create: bool = False) -> Held:
        """See Store.lock.  What a dead owner left on these files is finished or undone before this returns."""
        while True:
            self.nonce = os.urandom(6).hex()
            held = Held(self, names)
            try:
                self._take(held, create)
                record = self.unfinished()
                if record is None or not locks_of(record) & set(held.locks):
                    self.tidy(held)
                    covered: dict[str, list[str]] = {}
                    for name in held.names:
                        covered.setdefault(self._lock_name(name), []).append(name)
                    for lock_name, one in held.locks.items():
                        note = layout.for_note(covered.get(lock_name, ()))
                        one.write_note(flock.note_text(self.limits.command, self.nonce, note))
                    return held
            except OSError as error:
                held.release()
                if isinstance(error, RecoveryError):
                    raise
                raise from_os_error(error, "could not lock " + ", ".join(names)) from None
            except BaseException:
                held.release()
                raise
            held.release()  # resolve from empty hands
            from recovery.resolve import resolve

            resolve(self, record)

    def read(self, name: str, strict: bool = True, known: Optional[Version] = None) -> Optional[Version]:
        """See Store.read."""
        try:
            place = self.root.place(name)
            if known is not None and known.is_untouched(place):
                return known
            fd, st = durable.open_regular(place)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise DataError(f"{name}: its folder is not a folder") from None
        except OSError as error:
            raise from_os_error(error, f"could not read {name}") from None
        try:
            data = durable.read_all(fd, st.st_size)
            digest = durable.digest_of(data)
            try:
                text = jsontext.decode(data) if strict else data.decode("latin-1")
            except jsontext.BadJSON as error:
                raise DataError(f"{name} {error}") from None
            return durable.Version(text, digest, st)
        except OSError as error:
            raise from_os_error(error, f"could not read {name}") from None
        finally:
            os.close(fd)

    def commit(self, held: Held, change: Union[Change, Put]) -> str:
        """See Store.commit."""
        if isinstance(change, protocol.Put):
            return protocol.put(self, held, change)
        return protocol.commit(self, held, change)

    def append(self, name: str, record: dict[str, Any], sync: bool = True, snapshot: str = "") -> int:
        """See Store.append.  Under the commit lock: the same that a commit's own log lines are written under."""
        try:
            lock = self.commit_lock()
            try:
                self.require_derived()
                size = self.append_line(name, jsontext.dumps(record), str(record["txid"]), check=False, sync=sync)
                self.root.sync_made()
                if snapshot:
                    from recovery import derived

                    entry = {key: value for key, value in record.items() if key != "txid"}
                    derived.derive(self, {"txid": "", "derived": [{"name": snapshot, "snapshot": entry}]}, False, False)
                return size
            finally:
                lock.release()
        except NotSynced as error:
            raise Unconfirmed(f"{name}: the line may not survive a power cut: {error.strerror}") from None
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            raise from_os_error(error, f"could not write {name}") from None

    def list(self, folder: str) -> Sequence[str]:
        """See Store.list."""
        try:
            return self.root.names(folder)
        except (FileNotFoundError, NotADirectoryError, DataError):
            return []
        except OSError as error:
            raise from_os_error(error, f"could not list {folder}") from None

    def discard(self, name: str) -> bool:
        """Unlink a staged file that nobody owns any more; whether it was there."""
        place = self.root.place(name)
        return durable.remove(place.folder, place.base)

    def remove(self, name: str) -> bool:
        """Unlink a file of the suite's; False if it isn't there.  StorageError (74), Denied (77): it stays."""
        try:
            place = self.root.place(name)
            os.unlink(place.base, dir_fd=place.folder)
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise from_os_error(error, f"could not remove {name}") from None

    # --- what the commit protocol needs below that

    def read_state(self, name: str) -> Optional[os.stat_result]:
        """What stands at `name`, not followed; None if nothing does."""
        try:
            place = self.root.place(name)
            return os.stat(place.base, dir_fd=place.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _lock_name(self, name: str) -> str:
        try:
            return layout.lock_of(self.root.place(name).name)
        except FileNotFoundError:  # its folder is made when there is something to put into it
            return layout.lock_of(name)

    def _take(self, held: Held, create: bool) -> None:
        locks = set()
        if not create and self.read_state(held.names[0]) is None:
            raise NotFound(f"there is no {held.names[0]}")
        if create:
            self.root.place(held.names[0], create=True)
        for name in held.names:
            locks.add(self._lock_name(name))
        self.take_locks(held, locks)

    def take_locks(self, held: Held, names: Iterable[str], skip_gone: bool = False) -> None:
        """Take the data locks named, in their order; each with mode and group of the file it covers.

        With `skip_gone` a lock whose folder has been removed is passed over: nothing stands there to be locked.
        """
        for lock_name in layout.lock_order(names):
            folder_name, _, base = lock_name.rpartition("/")
            try:
                folder = self.root.folder(folder_name)
            except OSError as error:
                if skip_gone and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                like = os.stat(base[1:-5], dir_fd=folder, follow_symlinks=False)
            except OSError:
                like = os.fstat(folder)
            try:
                mode, gid = flock.mode_of(like), like.st_gid
                held.locks[lock_name] = flock.take(folder, base, lock_name, self.limits, mode, gid)
            except Unavailable:  # a folder or a link where the lock file should be: nobody can hold it
                if not skip_gone:
                    raise

    def shared(self) -> tuple[int, int]:
        """Mode and group of what the suite keeps for everybody who may use the postbox."""
        try:
            st = os.stat("postbox", dir_fd=self.root.folder(""))
        except OSError:
            st = os.fstat(self.root.folder(""))
        return flock.mode_of(st), st.st_gid

    def commit_lock(self) -> HeldLock:
        """The root's commit lock; nobody waits for another lock while holding it."""
        mode, gid = self.shared()
        lock = flock.take(
            self.root.folder("data", create=True), layout.COMMIT_LOCK, "data/.commit.lock", self.limits, mode, gid
        )
        lock.write_note(flock.note_text(self.limits.command))
        return lock

    def journal(self, create: bool = False, mode: int = 0o600) -> Optional[Journal]:
        """The journal, open; made at its full size with `create` (only under the commit lock)."""
        if self._journal is None:
            try:
                folder = self.root.folder("data", create)
                fd = _open_journal(folder)
            except FileNotFoundError:
                if not create:
                    return None
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open("journal", flags, 0o600, dir_fd=folder)
                durable.own(fd, mode & self.shared()[0] | 0o600, -1, self.shared()[1])
                self.root.made.add("data")
            self._journal = Journal(fd)
        return self._journal

    def forget_journal(self) -> None:
        """Close the journal: another file takes its place."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def require_derived(self) -> None:
        """Lines that a power cut took come back before newer ones follow them: the last of a log stays the last."""
        if self._boot_checked:
            return
        self._boot_checked = True
        journal = self.journal()
        last = journal.read() if journal is not None else None
        if last is not None and last.body.get("boot") != flock.identity()["boot"]:
            from recovery import derived

            derived.rederive(self)

    def unfinished(self) -> Optional[Record]:
        """The record of a commit that is under way, or that a dead owner left; None otherwise."""
        journal = self.journal()
        record = journal.read() if journal is not None else None
        if record is not None and not record.finished:
            steps.at("unfinished", record.txid)
            return record
        return None

    def append_line(self, name: str, line: str, txid: str, check: bool, sync: bool, window: int = 0) -> int:
        """One line of JSON into a log, under the commit lock; with `check` not if `txid` is there already.

        It is looked for in the last 64 KiB and the bytes of eight such lines, or of the `window` that its change wrote.
        Returns the log's size.
        """
        fd = self.open_log(name)
        try:
            if not check or not jsonl.tail_has(fd, txid, 65536 + max(8 * len(line), window)):
                _add(fd, name, line)
            if sync:
                try:
                    os.fdatasync(fd)
                    steps.at("append-synced", name)
                except OSError as error:
                    raise NotSynced(*error.args) from None
            size = os.fstat(fd).st_size
            if size // jsonl.LONG > (size - len(line)) // jsonl.LONG:
                self.grown = True
            elif size <= len(line) + 1 and name.startswith(layout.CHANGES) and len(self.list(layout.CHANGES)) > 1:
                self.grown = True  # a month begins, and there is an older one
            return size
        finally:
            os.close(fd)

    def open_log(self, name: str) -> int:
        """A log, open for appending, made where it is missing; under the commit lock.  DataError (65), OSError."""
        place = self.root.place(name, create=True)
        return jsonl.open_append(self.root, place, *self.like(place))

    def like(self, place: Place) -> tuple[int, int]:
        """Mode and group of a new file of the suite's: as its folder in an agent's, as the postbox elsewhere."""
        if place.name.startswith("postbox/"):
            st = os.fstat(place.folder)
            return flock.mode_of(st), st.st_gid
        return self.shared()

    def tidy(self, held: Held) -> None:
        """Remove what dead holders of these locks staged and never committed, and the backups that came to nothing."""
        for lock in held.locks.values():
            if lock.dirty is not None:
                from recovery.resolve import tidy_after

                tidy_after(self, lock.dirty)
                lock.dirty = None

    def now(self) -> str:
        """UTC, ISO 8601, whole seconds, `Z`."""
        return self.time(self.clock())

    @staticmethod
    def time(seconds: float) -> str:
        """A moment, in seconds since the epoch, as `now` gives it."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def config_of(text: str) -> dict[str, Any]:
    """What data/config.json says; without a `format`, as who only wrote a setting leaves it, it is of this version.

    ValueError if it is no object, or its `format` no number.
    """
    config = jsontext.loads(jsontext.from_latin(text))
    if not isinstance(config, dict) or type(config.setdefault("format", layout.FORMAT)) is not int:
        raise ValueError("it is no object that says its `format`")
    return config


class NotSynced(OSError):
    """A line is written, and nobody knows whether it is on the disk."""


def _add(fd: int, name: str, line: str) -> None:
    """Append a line, or leave the log as it was."""
    size = os.fstat(fd).st_size
    try:
        steps.at("append", name)
        jsonl.append(fd, line)
        steps.at("appended", name)
    except OSError:
        try:
            os.ftruncate(fd, size)
        except OSError:
            pass  # a torn line: readers pass it over
        raise


def _open_journal(folder: int) -> int:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open("journal", os.O_RDWR | flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):  # who may not write may look
            return os.open("journal", os.O_RDONLY | flags, dir_fd=folder)
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise DataError("data/journal is not a regular file") from None
        raise
    return fd
