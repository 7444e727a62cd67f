"""At most once: a call with an idempotency key leaves its effect once, whatever dies, and repeats its result.

`data/once/KEY.json` says "started", durably, before the call, and "done", with the result, after it.  While the call
runs its process holds a kernel lock, so "started" with a free lock means: the process died, and nobody knows whether
the effect is there.  (The words and the idea: Stripe's idempotency keys; Helland, "Idempotence Is Not a Medical
Condition", 2012.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recovery import checkpoints, durable, flock, jsontext, layout, turns
from recovery.commands import CommandFailed
from recovery.commit import Put
from recovery.errors import Busy, DataError, LockTimeout, RecoveryError, StorageError, from_os_error
from recovery.session import Session, log
from recovery.store import FileStore, transact
from recovery.timeouts import TaskTimeout

FORMAT = 1


def leaves_unknown(error: BaseException) -> bool:
    """Whether an error tells nothing about the effect: no answer in time, a connection or a process cut off half-way.

    Any other says that the call did not happen; where that isn't so, `verify` is needed.
    """
    if isinstance(error, RecoveryError):
        return isinstance(error, TaskTimeout) or (isinstance(error, CommandFailed) and error.returncode < 0)
    return isinstance(error, (TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError))


class OutcomeUnknown(RecoveryError):
    """70: a call with this key was started by a process that died; whether it took effect, a person has to find out."""

    code = 70


class ResultLost(DataError):
    """65: the call was done, once, but its result could not be kept; it is not done again."""


def file_of(key: str) -> str:
    """Where a key's record stands; keys that aren't ids go by their hash."""
    return f"{layout.ONCE}/{key if layout.is_id(key) else '~' + durable.digest_of(key.encode('utf-8'))}.json"


class Call:
    """One use of an idempotency key: `begin`, `start`, the call, then `done` or `failed`, then `release`.

    `start` comes right before each call.  A crash before it returns leaves nothing done; after it, and before `done`
    returns, a key whose outcome is unknown; after that, the result.
    """

    def __init__(self, session: Session, key: str, task: str) -> None:
        if not isinstance(key, str) or not key:
            raise DataError("an idempotency key is a text that isn't empty")
        checkpoints.require_json(key, "idempotency_key")
        self.session, self.key, self.task, self.name = session, key, task, file_of(key)
        self.turn: flock.HeldLock | None = None
        self.result: Any = None

    def begin(self, verify: Callable[[], Any] | None = None, wait: float | None = None) -> bool:
        """Whether the call is to be made now; False: it was done before, `result` is what came of it.

        `verify` decides about a key whose process died: False or None, it had no effect and is to be made; True, it
        had (the result is None); anything else is the result.  Without it OutcomeUnknown.  ResultLost; LockTimeout
        (75) while another live process or thread makes the call, after `wait` seconds (default: the session's
        `lock_timeout`).
        """
        with self.session.store() as store:
            try:
                self.turn = turns.take(store, self.name, self.session.lock_timeout if wait is None else wait)
                if self.turn is None:
                    who = turns.holder(store, self.name) or "another process"
                    raise LockTimeout(f"a call with the key {self.key[:80]!r} is being made by {who}")
                found = self._read(store)
            except OSError as error:
                self.release()
                if isinstance(error, RecoveryError):
                    raise
                raise from_os_error(error, f"the key {self.key[:80]!r} can't be used") from None
            except BaseException:
                self.release()
                raise
        try:
            if found is None or found["state"] == "failed":
                return True
            return self._settled(found, verify)
        except BaseException:
            self.release()
            raise

    def repeat(self) -> bool:
        """Whether it was done before, so that `result` is what came of it; asked without waiting for anybody.

        ResultLost; what `FileStore.read` raises.
        """
        with self.session.store() as store:
            found = self._read(store)
        return found is not None and found["state"] == "done" and not self._settled(found, None)

    def start(self) -> None:
        """Note, durably, that the call is made now: right before it, and again before each further try."""
        with self.session.store() as store:
            self._write(store, "started")

    def _settled(self, found: dict[str, Any], verify: Callable[[], Any] | None) -> bool:
        if found["state"] == "done" and not (self.settles and found.get("lost")):
            if found.get("lost"):
                raise ResultLost(
                    f"the call with the key {self.key[:80]!r} was done at {found['done_at']}, but its result could not "
                    f"be kept: {found['lost']}. It is not done again."
                )
            self.result = found.get("result")
            return False
        since = f"was started at {found['started_at']}, and how it ended was never recorded (killed, or a full disk)"
        return not self.took_effect(verify, since)

    def took_effect(self, verify: Callable[[], Any] | None, since: str) -> bool:
        """Ask `verify` (see `begin`) whether the call took effect; if so it is recorded as done.  OutcomeUnknown."""
        hint = f"find out, then settle the key, or give verify= (its record is {self.name})"
        what = f"a call with the key {self.key[:80]!r} {since}: it may have taken effect"
        if verify is None:
            raise OutcomeUnknown(what, hint=hint)
        try:
            answer = verify()
        except Exception as error:
            raise OutcomeUnknown(f"{what}, and verify= raised {error!r:.200}", hint=hint) from error
        if answer is None or answer is False:
            return False
        self.result = None if answer is True else answer
        self.done(self.result)
        return True

    def done(self, result: Any, words: str = "") -> None:
        """The call was made and this came of it.

        A result that JSON can't hold, or a disk has no room for, is said, and `lost` tells why, behind `words`; that
        the call was done is recorded then without it.  If not even that can be written the outcome stays unknown:
        StorageError (74), and whatever else writing raises.
        """
        more: dict[str, Any] = {}
        try:
            more["result"] = checkpoints.require_json(result, "result")
            with self.session.store() as store:
                self._write(store, "done", **more)
        except (DataError, StorageError) as error:
            self.lost = f"{words}{error}"
            with self.session.store() as store:
                self._write(store, "done", lost=self.lost)
            log.warning("the key %.80r is done, but its result is lost to a repeat: %s", self.key, error)

    lost = ""
    settles = False

    def failed(self) -> None:
        """The call raised: it is taken as not having happened, and may be made again."""
        with self.session.store() as store:
            self._write(store, "failed")

    def release(self) -> None:
        """Let others look at the key.  A forked child lets go of nothing."""
        if self.turn is not None:
            self.turn.release()
            self.turn = None

    def _read(self, store: FileStore) -> dict[str, Any] | None:
        version = store.read(self.name)
        return None if version is None else parse(self.name, version.text, self.key)

    def _write(self, store: FileStore, state: str, **more: Any) -> None:
        def plan() -> Put:
            before = store.read(self.name, strict=False)
            old = parse(self.name, before.text, self.key) if before is not None else {}
            now = store.now()
            entry = {
                "format": FORMAT,
                "key": self.key,
                "task_id": self.task or old.get("task_id", ""),
                "state": state,
                "started_at": now if state == "started" else old.get("started_at", now),
                "by": {name: flock.identity()[name] for name in ("pid", "host")},
                **({"done_at": now} if state == "done" else {}),
                **more,
            }
            return Put(self.name, before, jsontext.pretty(entry) + "\n")

        transact(store, [self.name], plan, create=True)


def parse(name: str, text: str, key: str | None = None) -> dict[str, Any]:
    """A key's record; DataError (65) if it is damaged, of a newer format, or another key's: never guessed about."""
    try:
        found = jsontext.loads(jsontext.from_latin(text))
    except ValueError as error:
        hint = "look at it; remove it if the call was never made"
        raise DataError(f"{name} is damaged: {error}", hint=hint) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("state") not in _STATES:
        raise DataError(f"{name} is not a record of this version", hint="look at it with the version that made it")
    if key is not None and found.get("key") != key:
        raise DataError(f"{name} belongs to the key {found.get('key')!r:.80}")
    return found


_STATES = ("started", "done", "failed")


def needs_answer(record: dict[str, Any]) -> bool:
    """Whether a person may settle a key: its outcome is unknown, or known, but its result is lost to a repeat."""
    return record["state"] == "started" or bool(record.get("lost"))


def settle(store: FileStore, session: Session, key: str, done: bool) -> bool:
    """A person's answer about a key whose outcome is unknown, or whose result is lost; False if there is no such key,
    or it is another."""
    call = Call(session, key, "")
    version = store.read(call.name)
    if version is None or not needs_answer(parse(call.name, version.text, key)):
        return False
    call.settles, asked = True, False

    def answer() -> bool:
        nonlocal asked
        asked = True
        return done

    try:
        if call.begin(answer) and asked:
            call.failed()
        return asked
    finally:
        call.release()


def old(store: FileStore, older_than_days: float = 30) -> list[str]:
    """The records of calls that were done (or failed) longer ago, and of which none is being made; their names."""
    found = []
    for base in store.list(layout.ONCE):
        name = f"{layout.ONCE}/{base}"
        if base.startswith(".") or not base.endswith(".json") or turns.holder(store, name) is not None:
            continue
        if _is_old(store, name, older_than_days) is not None:
            found.append(name)
    return found


def _is_old(store: FileStore, name: str, days: float) -> durable.Version | None:
    before = store.time(max(store.clock() - min(days, 36500) * 86400, 0))
    try:
        version = store.read(name)
        found = parse(name, version.text) if version is not None else None
    except DataError:
        return None
    if found is None or found["state"] == "started" or str(found.get("done_at") or found["started_at"]) >= before:
        return None
    return version


def remove(store: FileStore, name: str, older_than_days: float = 30) -> bool:
    """Remove a record that `old` found; False if there is another one by now."""
    held = turns.take(store, name)
    if held is None:
        return False
    try:
        version = _is_old(store, name, older_than_days)
        if version is None:
            return False
        transact(store, [name], lambda: Put(name, version, None))
        return True
    except Busy:
        return False
    finally:
        held.release()


def cleanup(store: FileStore, older_than_days: float = 30) -> list[str]:
    """Remove the records of calls that were done (or failed) longer ago; returns their names.

    A repeat after that is a new call.  Those whose outcome is unknown stay.
    """
    return [name for name in old(store, older_than_days) if remove(store, name, older_than_days)]
