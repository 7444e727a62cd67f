"""clean: remove what nobody needs any more, the checkpoints of ended tasks and old idempotency records.

The part of `recovery.cleanup` that has a name of its own since ever; its ages stand in the same table.  Needs Python
3.11, as all of the recovery manager does; the helper says so before it imports this.
"""

from __future__ import annotations

from typing import Any

from recovery import bounds, checkpoints, checks, once, request
from recovery.errors import UsageError
from recovery.request import Request, Verb
from recovery.store import FileStore
from recovery.verbs import Result


def days(text: str) -> float:
    """An age in days from `7`, `7d`, `12h`; UsageError (64).  A number alone is days, as in the cron tables of old."""
    return request.duration(text, "--older-than", bare=86400.0) / 86400.0


def clean(
    store: FileStore, older_than_days: float, dry_run: bool = False, task: str | None = None, records: bool = True
) -> Result:
    """Remove the checkpoints of tasks (or of `task`) that ended so long ago, see `checkpoints.ended`, and with
    `records` the idempotency records and the files of checks that are old after `bounds.KINDS`.

    With `dry_run` nothing is changed.  DataError (65) where an outbox is damaged: nobody knows what is open, so
    nothing is removed.  A crash leaves some removed; the next run removes the rest.
    """
    old_tasks = [one for one, _ in checkpoints.ended(store, task, older_than_days)]
    age = bounds.KINDS["keys"].days
    names = once.old(store, age) if records else []
    before = store.clock() - bounds.KINDS["checks"].days * 86400
    runs = checks.old(store, before) if records else []
    if not dry_run:
        old_tasks = [
            one for one in old_tasks if checkpoints.remove(store, one, older_than_days, named=task is not None)
        ]
        names = [one for one in names if once.remove(store, one, age)]
        runs = [one for one in runs if checks.remove(store, one, before)]
    what = [f"the checkpoints of {_count(len(old_tasks), 'task')}"] if old_tasks else []
    what += [_count(len(names), "idempotency record")] if names else []
    what += [_count(len(runs), "result") + " and log(s) of checks"] if runs else []
    line = ("would remove " if dry_run else "removed ") + " and ".join(what) if what else "nothing to remove"
    changed = bool(what) and not dry_run
    data: dict[str, Any] = {"ok": True, "code": 0, "changed": changed, "tasks": old_tasks, "records": names}
    data["runs"] = runs
    details = [f"{one}: its checkpoints" for one in old_tasks] + names + runs
    return Result(line, changed, {**data, "dry_run": True} if dry_run else data, details)


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("" if n == 1 else "s")


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
