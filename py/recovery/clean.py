"""clean: remove what nobody needs any more, the checkpoints of ended tasks and old idempotency records.

Needs Python 3.11, as all of the recovery manager does; the helper says so before it imports this.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from recovery import checkpoints, checks, layout, once, request, turns
from recovery.commit import Put
from recovery.errors import DataError, UsageError
from recovery.request import Request, Verb
from recovery.store import FileStore
from recovery.verbs import Result

#: Days that the result of a call is kept for a repeat of it.
RECORD_DAYS = 30.0


def days(text: str) -> float:
    """An age in days from `7`, `7d`, `12h`; UsageError (64).  A number alone is days, as in the cron tables of old."""
    return request.duration(text, "--older-than", bare=86400.0) / 86400.0


def clean(
    store: FileStore, older_than_days: float, dry_run: bool = False, task: str | None = None, records: bool = True
) -> Result:
    """Remove the checkpoints of tasks (or of `task`) that ended so long ago, see `checkpoints.cleanup`, and with
    `records` the idempotency records that were settled RECORD_DAYS ago, see `once.cleanup`.

    With `dry_run` nothing is changed.  DataError (65) where an outbox is damaged: nobody knows what is open, so
    nothing is removed.  A crash leaves some removed; the next run removes the rest.
    """
    looked = cast(FileStore, _DryStore(store)) if dry_run else store
    tasks = checkpoints.cleanup(looked, task, older_than_days)
    names: list[str] = []
    if records:
        names = _old_records(store) if dry_run else once.cleanup(store, RECORD_DAYS)
    old = time.time() - RECORD_DAYS * 86400
    runs = (checks.old if dry_run else checks.remove_old)(store, old) if records else []
    what = [f"the checkpoints of {_count(len(tasks), 'task')}"] if tasks else []
    what += [_count(len(names), "idempotency record")] if names else []
    what += [_count(len(runs), "result") + " and log(s) of checks"] if runs else []
    line = ("would remove " if dry_run else "removed ") + " and ".join(what) if what else "nothing to remove"
    changed = bool(what) and not dry_run
    data: dict[str, Any] = {"ok": True, "code": 0, "changed": changed, "tasks": tasks, "records": names, "runs": runs}
    details = [f"{one}: its checkpoints" for one in tasks] + names + runs
    return Result(line, changed, {**data, "dry_run": True} if dry_run else data, details)


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("" if n == 1 else "s")


class _DryStore:
    """A store that reads and does as if it wrote: what is planned on it is decided as ever, and comes to nothing."""

    def __init__(self, store: FileStore) -> None:
        self.read, self.list, self.root = store.read, store.list, store.root

    def lock(self, names: Sequence[str], create: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def commit(self, held: None, change: Put) -> str:
        return ""


def _old_records(store: FileStore) -> list[str]:
    """What `once.cleanup` would remove, found without its locks."""
    before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - RECORD_DAYS * 86400))
    found = []
    for base in store.list(layout.ONCE):
        name = f"{layout.ONCE}/{base}"
        if base.startswith(".") or not base.endswith(".json") or turns.holder(store, name) is not None:
            continue
        try:
            version = store.read(name)
            record = once.parse(name, version.text) if version is not None else None
        except DataError:
            continue
        if record is not None and record["state"] != "started":
            if str(record.get("done_at") or record["started_at"]) < before:
                found.append(name)
    return found


def _parse(request: Request) -> list[Any]:
    given = list(request.words)
    if "older_than" in request.options:
        given.append(request.options["older_than"])
    if len(given) > 1:
        raise UsageError(f"one age is enough: {given[1][:40]!a} is too much", hint="see --help")
    return [days(given[0] if given else "7d"), request.asked("dry_run")]


VERB = Verb(
    {"--older-than": "older_than=", "--dry-run": "dry_run"}, _parse, lambda store, request, call: clean(store, *call)
)
