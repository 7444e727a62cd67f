"""recover: finish or undo, now, what dead processes left."""

from __future__ import annotations

from stat import S_ISREG

from recovery import derived, layout, resolve, segments
from recovery.errors import BUG, DataError, LockTimeout, NotFound, RollbackFailed, Unavailable
from recovery.flock import HELD, Limits
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

    from recovery.store import FileStore


def recover(store: FileStore, dry_run: bool = False) -> Result:
    """Finish or undo whatever dead owners left in this workspace: an unfinished commit, parked records, lost log
    lines, staged files.  Safe at any time and twice."""
    if dry_run:
        found = _what_waits(store)
        line = f"would finish, undo or remove {len(found)} thing(s); nothing changed" if found else "nothing to recover"
        return Result(line, False, {"ok": True, "code": 0, "changed": False, "dry_run": True, "found": found}, found)
    while True:
        record = store.unfinished()
        if record is None:
            break
        resolve.resolve(store, record)
    count = sum(not isinstance(reason, RollbackFailed) for *_, reason in store.resolved)
    said, store.told = store.told, []
    done, left = resolve.finish_parked(store)
    if store.journal() is not None:
        lock = store.commit_lock()
        try:
            lines = derived.rederive(store)
        finally:
            lock.release()
        if lines:
            done.append(f"wrote {lines} log line(s) again from the change log")
    swept, passed = _sweep(store)
    done += swept
    done += [f"removed {name}, which a dead process had left" for name in store.tidied]
    count += len(done)
    for log in segments.logs(store, layout.CHANGES):
        for name in (log, *segments.of(store, log)):
            torn = derived.counted_lines(store, name)[1]
            if torn:
                passed.append(f"{name}: {torn} torn or foreign line(s) passed over")
    line = "nothing to recover" if not count else f"recovered: {count} thing(s) put right"
    if left:
        line += f"; {len(left)} could not be"
    store.told += left
    details = [*said, *done, *passed]
    data = {"ok": not left, "code": BUG if left else 0, "changed": bool(count), "done": [*details, *left]}
    return Result(line, bool(count), data, details)


def _what_waits(store: FileStore) -> list[str]:
    """What recover would look after, found without changing anything."""
    found = []
    record = store.unfinished()
    if record is not None:
        line = record.body["line"]
        found.append(f"an unfinished commit: {line['op']} {line['agent']}/{line['task']} of {line['time']}")
    found += [f"parked: {layout.CONFLICTS}/{name}" for name in store.list(layout.CONFLICTS) if ".parked." in name]
    for folder in _folders(store):
        found += [f"staged: {folder}/{name}".replace(": /", ": ") for name in store.list(folder) if _is_stage(name)]
    return found


def _is_stage(name: str) -> bool:
    return name.startswith(".") and name.endswith(".stage")


def _folders(store: FileStore) -> list[str]:
    found = [".sprint", layout.LOGS, *_own_folders(store)]
    for agent in store.list("postbox"):
        found += [f"postbox/{agent}", f"postbox/{agent}/completed", f"postbox/{agent}/inbox"]
    return found


def _own_folders(store: FileStore) -> list[str]:
    """The root, where people keep files that are changed in transactions, and what the suite keeps its state in."""
    return ["", "data", *(f"data/{name}" for name in store.list("data") if "." not in name)]


def _sweep(store: FileStore) -> tuple[list[str], list[str]]:
    """Remove staged files that no lock's note names any more (their lock file was removed).

    A line for each; and one for each place that is not what it should be, which stops nobody's recovery elsewhere.
    """
    done: list[str] = []
    passed: list[str] = []
    places = [
        (layout.outbox(agent), f"postbox/{agent}") for agent in store.list("postbox") if _may_be_agent(store, agent)
    ]
    if "progress.json" in store.list(".sprint"):
        places.append((layout.PROGRESS, ".sprint"))
    for name, folder in places:
        folders = [folder] if folder == ".sprint" else [folder, f"{folder}/completed", f"{folder}/inbox"]
        staged = any(_is_stage(base) for one in folders for base in store.list(one))
        try:
            if staged or is_left_untidy(store, name):
                done += _tidied(store, name, folders)
        except (DataError, Unavailable) as error:
            passed.append(f"passed over {folder}: {error}")
        if folder != ".sprint":
            store.root.forget(folder)  # of thousands one at a time is open
    written_under_the_commit_lock = [layout.CHECKPOINTS, layout.LOGS, layout.CONFLICTS]
    if any(base.endswith(".stage") for one in written_under_the_commit_lock for base in store.list(one)):
        lock = store.commit_lock()
        try:
            done += _remove_stages(store, written_under_the_commit_lock)
        finally:
            lock.release()
    for folder in _own_folders(store):
        for base in store.list(folder):
            target = base[1 : -len(".stage")].rpartition(".")[0]
            if not _is_stage(base) or not target:
                continue
            name = f"{folder}/{target}".lstrip("/")
            try:
                done += _tidied(store, name, [folder], base)
            except (DataError, Unavailable) as error:
                passed.append(f"passed over {name}: {error}")
    return done, passed


def _may_be_agent(store: FileStore, name: str) -> bool:
    """Whether it is called like one, and is no plain file such as a README."""
    st = store.read_state(f"postbox/{name}") if layout.is_id(name) else None
    return st is not None and not S_ISREG(st.st_mode)


def _tidied(store: FileStore, name: str, folders: Sequence[str], only: str = "") -> list[str]:
    """Remove the staged files in `folders`, or `only` that one, under the lock of `name`, unless somebody holds it."""
    limits, store.limits = store.limits, Limits(0.0, 0.0, store.limits.command)
    try:
        with store.lock([name], create=bool(only)):  # which tidies after a dead holder by itself
            return _remove_stages(store, folders, only)
    except LockTimeout:
        return []  # somebody is at work there
    except NotFound:
        return _remove_stages(store, folders)
    finally:
        store.limits = limits


def is_left_untidy(store: FileStore, name: str) -> bool:
    """Whether the last holder of a file's lock, which may be at work still, hasn't said that it left nothing."""
    version = store.read(layout.lock_of(name), strict=False)
    return version is not None and version.text.encode("latin-1").startswith(HELD)


def _remove_stages(store: FileStore, folders: Sequence[str], only: str = "") -> list[str]:
    done = []
    for folder in folders:
        for base in store.list(folder):
            name = f"{folder}/{base}".lstrip("/")
            if _is_stage(base) and only in ("", base) and store.discard(name):
                done.append(f"removed {name}, which a dead process had left")
    return done


def _parse(request: Request) -> list[Any]:
    request.no_words()
    return [request.asked("dry_run")]


VERB = Verb({"--dry-run": "dry_run"}, _parse, lambda store, request, call: recover(store, *call), indent="  ")
