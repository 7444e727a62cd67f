"""tx: a command changes private copies of files, which take the files' places together, or not at all.

No data lock is held while the command runs: the copies are made under the locks, and what was copied is compared,
under the locks again, with what is there then.  Who changed a file in between has won, and the command is run again on
the new content.  Two `tx` of one file take turns, so that they never do that to each other.
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB
from fcntl import flock as kernel_flock
from stat import S_IMODE, S_ISDIR

from recovery import durable, flock, jsontext, layout, request, say, steps, swap, workspace
from recovery.commands import failed
from recovery.errors import Busy, DataError, Denied, NotFound, RecoveryError, UsageError, from_os_error, of_verb
from recovery.foreground import Foreground, Stopped, follow
from recovery.request import Request, Verb
from recovery.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.commit import Change
    from recovery.durable import Place, Version
    from recovery.flock import HeldLock
    from recovery.foreground import Ended
    from recovery.store import FileStore

#: Bytes of a file that can be changed together with others: its old and new state both go through the journal.
MOST = 16 << 20
#: Runs of the command in all, where other writers keep coming first.
RUNS = 8
#: Where the copies of files in a workspace stand, each run's in a folder of its own.


class Target:
    """One FILE: where it stands, and what its copy was made of (`before`, a hash; None: it isn't there)."""

    def __init__(self, word: str, shown: str, root: Optional[str], name: str) -> None:
        self.word, self.shown, self.root, self.name = word, shown, root, name
        self.copy = ""
        self.before: Optional[str] = None
        self.after: Optional[str] = None

    @property
    def is_changed(self) -> bool:
        return self.after != self.before


class _Lost(Exception):
    """Another writer came first: the copies are out of date."""


def targets_of(words: list[str]) -> list[Target]:
    """The FILEs that are meant; UsageError (64), NotFound (66) where the folder of one isn't there."""
    if not words:
        raise UsageError("no FILE is named", hint="recovery tx FILE… -- command [argument…]")
    found: dict[str, Target] = {}
    for word in words:
        if not word or "\0" in word:
            raise UsageError("a FILE is an empty word", hint="see --help")
        shown, root, _ = workspace.where(word, is_lock=False)
        name = os.path.basename(shown) if root is None else os.path.relpath(shown, root)
        if root is not None:
            real = os.path.realpath(shown)
            name = os.path.relpath(real, root) if real.startswith(root + "/") else name
            if name.split("/")[0] == "data":
                raise UsageError(f"{word} is in data/, which is the suite's own. Nothing was run.")
        if not os.path.isdir(os.path.dirname(shown)):
            raise NotFound(f"the folder of {word} doesn't exist. Nothing was run.", hint="make it first")
        if os.path.isdir(shown):
            raise DataError(f"{word} is a folder. Nothing was run.", hint="name the files in it")
        key = os.path.realpath(shown)
        if key in found:
            raise UsageError(f"{word} is named twice (as {found[key].word}). Nothing was run.")
        found[key] = Target(word, shown, root, name)
    targets = list(found.values())
    if len(targets) > 1 and (targets[0].root is None or len({target.root for target in targets}) > 1):
        raise UsageError(
            "several files change together only within one workspace. Nothing was run.",
            hint="one `recovery tx` a file, or `recovery init` in the folder above them",
        )
    return targets


class Transaction:
    """The work of one `recovery tx`."""

    def __init__(self, asked: Request, targets: list[Target]) -> None:
        options = asked.options
        self.targets, self.words = targets, asked.require_command()
        self.quiet, self.check_json, self.check = asked.asked("quiet"), asked.asked("check_json"), options.get("check")
        self.backup = layout.require_id("backup", options["backup"]) if "backup" in options else None
        self.timeout = request.duration(options["timeout"], "--timeout") or None if "timeout" in options else None
        self.dry_run = asked.asked("dry_run")
        self.to_stdout = asked.asked("stdout")
        if self.to_stdout and len(targets) > 1:
            raise UsageError("--stdout is for one FILE", hint="see --help")
        self.root = targets[0].root
        self.named = f"tx {targets[0].word}" + (f" and {len(targets) - 1} more" if len(targets) > 1 else "")
        agent, task = os.environ.get("RECOVERY_AGENT", ""), os.environ.get("RECOVERY_TASK", "")
        self.agent = agent if layout.is_id(agent) else "recovery"
        self.task = task if layout.is_id(task) else "tx"
        self.out = 2 if asked.asked("json") else 1
        self.nonce = os.urandom(6).hex()
        self.runs = 0
        self.folder = ""
        self.ended: Optional[Ended] = None
        self.place = Foreground(out=self.out)

    def carry_out(self) -> int:
        """The exit code.  What the command left undone, or isn't accepted, changes nothing."""
        # the base that everything happens under: the workspace, or the one file's own folder
        base = self.root if self.root is not None else os.path.dirname(self.targets[0].shown)
        self.store: Optional[FileStore] = None
        if self.root is not None:
            from recovery.store import FileStore  # a file elsewhere needs none of it

            self.store = FileStore(base, self._limits())
        self.files = self.store.root if self.store is not None else durable.Root(base)
        turns: list[HeldLock] = []
        try:
            for target in sorted(self.targets, key=lambda one: one.name):
                turns.append(self._turn(target))
            with _private_folder(self.files, self._folder_name()) as self.folder:
                return self._run()
        except Stopped as stopped:  # before the command, or between two of them
            self.stopped = stopped
            return self._say(stopped.code, str(stopped))
        except PermissionError as error:
            if self.runs:
                raise
            refusal = of_verb(error, "tx")
            raise Denied(f"{refusal}. Nothing was run.", hint=refusal.hint) from None
        finally:
            for turn in turns:
                if turn.folder is not None and turn.is_current():
                    durable.remove(
                        turn.folder, turn.base
                    )  # while it is held: who waits finds that, and makes a new one
                turn.release()
            if self.store is not None:
                for line in self.store.told:
                    say.tell(line)
                self.store.close()
            else:
                self.files.close()

    def _limits(self) -> flock.Limits:
        return request.limits_from_environment(self.named)

    def _turn(self, target: Target) -> HeldLock:
        limits = self._limits()
        if self.store is not None:
            key = f".{durable.digest_of(os.fsencode(target.name))}.turn"
            folder, shown = self.store.root.folder(layout.TX, create=True), f"the turn of {target.word}"
            mode, gid = self.store.shared()
        else:
            key, folder, shown = f".{target.name}.turn", self.files.folder(""), f"the turn of {target.word}"
            mode, gid = 0o600, -1
        return flock.take(folder, key, shown, limits, mode, gid, learn=False)

    def _folder_name(self) -> str:
        return (
            f"{layout.TX}/{self.nonce}" if self.root is not None else f".{self.targets[0].name[:100]}.{self.nonce}.tx"
        )

    def _run(self) -> int:
        with self.place:
            while True:
                self.runs += 1
                self._copy()
                code = self._run_once()
                if code:
                    return code
                try:
                    if not self.dry_run:
                        self._commit()
                    return 0
                except _Lost as lost:
                    problem = str(lost)
                if self.runs >= RUNS:
                    from recovery.commit import lost_race

                    raise lost_race(target.word for target in self.targets)
                if not self.place.can_repeat_stdin:
                    raise Busy(
                        f"{problem} was changed by somebody meanwhile, and what stdin held is read already; "
                        "nothing was changed",
                        hint="run the same command again",
                    )
                if not self.quiet:
                    say.tell(
                        f"{problem} was changed by somebody meanwhile: the command is run again on what it holds now"
                    )

    def _copy(self) -> None:
        """Make the private copies, under the files' locks: nobody who takes them is caught half-way."""
        names = [target.name for target in self.targets]
        if self.store is not None:
            self.store.limits = self._limits()
            with self.store.lock(names, create=True):
                for number, target in enumerate(self.targets, 1):
                    self._copy_one(number, target)
        else:
            lock = self._plain_lock()
            try:
                self._copy_one(1, self.targets[0])
            finally:
                lock.release()

    def _copy_one(self, number: int, target: Target) -> None:
        folder = os.path.join(self.folder, str(number))
        if self.runs > 1:
            _remove(folder)
        os.mkdir(folder, 0o700)
        target.copy = os.path.join(folder, os.path.basename(target.name))
        target.before = None
        try:
            fd, st = durable.open_regular(self.files.place(target.name))
        except FileNotFoundError:
            return
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            copy = os.open(target.copy, flags, 0o600)
            try:
                target.before = durable.copy_hashed(fd, copy)
                durable.own(copy, S_IMODE(st.st_mode) | 0o600, -1, -1)
            finally:
                os.close(copy)
        finally:
            os.close(fd)

    def _run_once(self) -> int:
        copies = [target.copy for target in self.targets]
        env = {**os.environ, **{f"TX_{number}": copy for number, copy in enumerate(copies, 1)}}
        written = -1
        if self.to_stdout:
            path = os.path.join(self.folder, "stdout")
            written = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.place.out = written if self.to_stdout else self.out
        try:
            ended = self.ended = self.place.run(filled_in(self.words, copies), self.timeout, env=env)
        finally:
            if written >= 0:
                os.close(written)
            self.place.out = self.out
        code = self._judge(ended, self.words)
        if not code:
            if self.to_stdout:
                os.replace(os.path.join(self.folder, "stdout"), copies[0])
            for target in self.targets:
                self._look(target)
            for target in self.targets:
                if target.is_changed:
                    self._check(target)
        return code

    def _judge(self, ended: Ended, words: list[str]) -> int:
        program = os.path.basename(words[0]) or words[0]
        if not ended.in_time:
            return self._say(124, f"{program} timed out after {self.timeout:g} s")
        stopped = ended.stopped
        if stopped is not None:
            self.stopped = stopped
            return self._say(stopped.code, f"{program} was {stopped}")
        if ended.returncode:
            return self._say(ended.code, str(failed(words, ended.returncode, ended.err, ended.out, ended.seconds)))
        return 0

    stopped: Optional[Stopped] = None
    why = ""

    def _say(self, code: int, text: str) -> int:
        self.why = f"{text}; nothing was changed"
        if not self.quiet:
            say.tell(self.why)
        return code

    def _look(self, target: Target) -> None:
        """What the command has made of a copy."""
        try:
            folder = os.open(os.path.dirname(target.copy), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                base = os.path.basename(target.copy)
                fd, _ = durable.open_regular(durable.Place(folder, base, f"the copy of {target.word}"))
            finally:
                os.close(folder)
        except FileNotFoundError:
            if target.before is not None:
                hint = "a file can't be removed in a transaction"
                raise DataError(f"the copy of {target.word} is gone; nothing was changed", hint=hint) from None
            target.after = None
            return
        try:
            target.after = durable.copy_hashed(fd)
        finally:
            os.close(fd)

    def _check(self, target: Target) -> None:
        """DataError (65) where the new content isn't accepted."""
        is_outbox = (
            self.root is not None and target.name.startswith("postbox/") and target.name.endswith("/outbox.json")
        )
        if self.check_json or is_outbox:
            with open(target.copy, "rb") as copy:
                data = copy.read()
            try:
                jsontext.loads(jsontext.from_latin(jsontext.decode(data)))
            except (ValueError, RecursionError) as error:
                raise DataError(f"what the command made of {target.word} {error}; nothing was changed") from None
        if is_outbox:
            from recovery.tasks import Outbox

            try:
                Outbox(target.word, _version(target.copy))
            except DataError as error:
                raise DataError(f"what the command made of it is no outbox: {error}") from None
        if self.check is not None:
            self.place.out = 2
            try:
                ended = self.place.run(["sh", "-c", self.check, "sh", target.copy])
            finally:
                self.place.out = self.out
            if ended.returncode:
                what = f"--check refused what the command made of {target.word}"
                raise DataError(f"{what} (exit code {ended.code}); nothing was changed")

    # --- the end

    def _commit(self) -> None:
        changed = [target for target in self.targets if target.is_changed]
        if not changed:
            return
        if self.store is None:
            self._commit_plain()
        elif len(changed) == 1 and max(os.stat(changed[0].copy).st_size, self._size(changed[0])) > MOST:
            self.store.limits = self._limits()
            with self.store.lock([changed[0].name], create=True) as held:
                lock = self.store.commit_lock()
                try:
                    self._swap(changed[0], lambda: held.all_current() and lock.is_current(), self.store.nonce)
                finally:
                    lock.release()
        else:
            self._commit_together(changed)

    def _size(self, target: Target) -> int:
        state = self.store.read_state(target.name) if self.store is not None else None
        return state.st_size if state is not None else 0

    def _commit_together(self, changed: list[Target]) -> None:
        from recovery.commit import Change, Edit, txid_of
        from recovery.store import transact

        store = self.store
        assert store is not None
        for target in changed:
            size = max(os.stat(target.copy).st_size, self._size(target))
            if size > MOST:
                raise UsageError(f"{target.word} has {size:,} bytes; at most {MOST:,} can change together with others")

        def plan() -> Optional[Change]:
            edits = []
            for target in changed:
                before = store.read(target.name, strict=False)
                if (before.hash if before is not None else None) != target.before:
                    raise _Lost(target.word)
                text = _version(target.copy).text
                edits.append(Edit(target.name, before, after=jsontext.from_latin(text)))
            for edit in edits:
                if self.backup is not None and edit.before is not None:
                    self._back_up(store.root.place(edit.name), edit.before)
            now = store.now()
            change = Change("tx", self.agent, self.task, now, txid_of(now, store.nonce), edits)
            change.make_backup = False  # of an outbox: here it is --backup's to ask for
            return change

        store.limits = self._limits()
        self.txid = transact(store, [target.name for target in changed], plan, create=True)

    txid: Optional[str] = None

    def _back_up(self, place: Place, before: Version) -> None:
        from recovery.commit import stage_backup

        assert self.backup is not None
        assert self.store is not None
        fd, _ = durable.open_regular(place)
        try:
            target, stage = stage_backup(self.store, self.backup, place, before, fd)
            if stage is not None:
                durable.into_place(target, stage.sync().base, target.base)
                os.fsync(target.folder)
        finally:
            os.close(fd)

    def _plain_lock(self) -> HeldLock:
        """The lock beside a file that is in no workspace; what a dead holder had staged is removed."""
        target, folder = self.targets[0], self.files.folder("")
        try:
            st = os.stat(target.name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            st = os.fstat(folder)
        shown = os.path.join(os.path.dirname(target.shown), f".{target.name}.lock")
        lock = flock.take(folder, f".{target.name}.lock", shown, self._limits(), flock.mode_of(st), st.st_gid)
        left = str((lock.dirty or {}).get("nonce", ""))
        if left.isalnum():
            durable.remove(folder, durable.stage_name(target.name, left))
        lock.write_note(flock.note_text(self.named, self.nonce, (target.name,)))
        return lock

    def _commit_plain(self) -> None:
        lock = self._plain_lock()
        try:
            self._swap(self.targets[0], lock.is_current, self.nonce)
        finally:
            lock.release()

    def _swap(self, target: Target, is_ours: Any, nonce: str) -> None:
        """One file, however large, by one rename."""
        place = self.files.place(target.name)
        like = -1
        mode, uid, gid = flock.mode_of(os.fstat(place.folder)), -1, os.fstat(place.folder).st_gid
        copy = os.open(target.copy, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stage = None
        try:
            try:
                like, st = durable.open_regular(place)
                mode, uid, gid = S_IMODE(st.st_mode), st.st_uid, st.st_gid
            except FileNotFoundError:
                pass
            stage = durable.stage(place, durable.stage_name(place.base, nonce), _pieces(copy), mode, uid, gid, like)
            if stage.lost:
                say.tell(f"{target.word}: its {stage.lost} could not be kept; it now belongs to you")
            if self.backup is not None and like >= 0:
                self._back_up_plain(place, like, mode, gid)
            stage.sync()
            swap.into_place(place, stage.base, target.before, is_ours, target.word)
        except swap.Changed:
            raise _Lost(target.word) from None
        except OSError as error:
            if isinstance(error, RecoveryError):
                raise
            raise from_os_error(error, f"could not write {target.word}; nothing was changed") from None
        finally:
            if stage is not None:
                stage.discard()
            for fd in (copy, like):
                if fd >= 0:
                    os.close(fd)

    def _back_up_plain(self, place: Place, source: int, mode: int, gid: int) -> None:
        from recovery.commit import put_away

        target = durable.beside(place, f"{place.base}.backup_{self.backup}")
        before = durable.copy_hashed(source)
        os.lseek(source, 0, os.SEEK_SET)
        there = durable.hash_or_none(target)
        if there == before:
            return
        if there is not None:
            put_away(target)
        stage = durable.stage_copy(target, durable.stage_name(target.base, self.nonce), source, mode, gid)
        durable.into_place(target, stage.sync().base, target.base)


def filled_in(words: list[str], copies: list[str]) -> list[str]:
    """The command's words, in which `{}` is all copies and `{2}` the second; only where it is a whole word."""
    found = []
    for word in words:
        if word == "{}":
            found += copies
        elif word[:1] == "{" and word[-1:] == "}" and word[1:-1].isascii() and word[1:-1].isdigit():
            number = int(word[1:-1][:9])
            if not 1 <= number <= len(copies):
                raise UsageError(
                    f"{word[:20]} means FILE number {number}, and there are {len(copies)}. Nothing was run."
                )
            found.append(copies[number - 1])
        else:
            found.append(word)
    return found


def _version(path: str) -> Version:
    """A copy as the store would read it."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        st = os.fstat(fd)
        data = durable.read_all(fd, st.st_size)
        return durable.Version(data.decode("latin-1"), durable.digest_of(data), st)
    finally:
        os.close(fd)


def _pieces(fd: int) -> Iterator[bytes]:
    while True:
        data = os.read(fd, 1 << 20)
        if not data:
            return
        yield data


class _private_folder:
    """A folder for our eyes only, gone at the end.  Its lock is held as long, so that what dead ones left is removed.

    The command and its children don't hold it: whose parent is gone works on a copy that nobody waits for.
    """

    def __init__(self, root: durable.Root, name: str) -> None:
        self.root, self.name, self.fd = root, name, -1
        above, _, self.base = name.rpartition("/")
        self.above = root.folder(above, create=True)

    def __enter__(self) -> str:
        self._sweep()
        os.mkdir(self.base, 0o700, dir_fd=self.above)
        steps.at("tx-folder", self.name)
        self.fd = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.above)
        kernel_flock(self.fd, LOCK_EX | LOCK_NB)
        return os.path.join(os.path.abspath(self.root.path), self.name)

    def __exit__(self, *_: object) -> None:
        _remove(os.path.join(self.root.path, self.name))
        if self.fd >= 0:
            os.close(self.fd)

    def _sweep(self) -> None:
        end = self.base.partition(".")[0] == "" and self.base[:-15]  # `.NAME.NONCE.tx`: only those of the same file
        for other in os.listdir(self.above):
            if other.startswith(".") if not end else not (other.startswith(end) and other.endswith(".tx")):
                continue
            try:
                fd = os.open(other, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.above)
            except OSError:
                continue
            try:
                kernel_flock(fd, LOCK_EX | LOCK_NB)
                if os.fstat(fd).st_uid == os.geteuid():
                    _remove(f"/proc/self/fd/{self.above}/{other}")
            except OSError:
                pass  # somebody is at it
            finally:
                os.close(fd)


def _remove(folder: str) -> None:
    """Remove a folder and all in it, links not followed; what can't be removed stays, for the next one."""
    try:
        for entry in os.scandir(folder):
            if S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                _remove(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(folder)
    except OSError:
        pass


def _parse(asked: Request) -> list[Any]:
    return [Transaction(asked, targets_of(asked.words))]


def _call(store: None, asked: Request, call: list[Any]) -> Result:
    work: Transaction = call[0]
    code = work.carry_out()
    changed = [target.word for target in work.targets if target.is_changed] if not code else []
    data: dict[str, Any] = {
        "ok": not code,
        "code": code,
        "whose": "recovery" if code == 124 or (work.stopped is not None and not work.stopped.terminal) else "command",
        "changed": bool(changed),
        "files": changed,
        "runs": work.runs,
        "seconds": round(work.ended.seconds, 3) if work.ended is not None else None,
    }
    if work.txid is not None:
        data["txid"] = work.txid
    if work.root is not None:
        data["root"] = work.root
    if code:
        data["error"] = work.why
        data["next"] = "mend what the command complains about, then run it again"
    if work.dry_run:
        data.update(dry_run=True, changed=False)
        line = f"would change {', '.join(changed) or 'nothing'}; nothing changed" if not code else ""
        return Result(line, False, data)
    result = Result("", bool(changed), data)
    result.then = follow(work.stopped)
    return result


VERB = Verb(
    {
        "--backup": "backup=",
        "--check": "check=",
        "--check-json": "check_json",
        "--dry-run": "dry_run",
        "--stdout": "stdout",
        "--timeout": "timeout=",
    },
    _parse,
    _call,
    tries=False,
    in_root=False,
    wraps=True,
)
