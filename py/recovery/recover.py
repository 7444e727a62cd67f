"""recover: finish or undo, now, what dead processes left."""

from __future__ import annotations

from recovery import derived, layout, resolve
from recovery.errors import BUG, NotFound
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence

    from recovery.store import FileStore


def recover(store: FileStore, dry_run: bool = False) -> Result:
    """Finish or undo whatever dead owners left in this workspace: an unfinished commit, parked records, lost log
    lines, staged files.  Safe at any time and twice."""
    if dry_run:
        found = _what_waits(store)
        line = f"would finish, undo or remove {len(found)} thing(s); nothing changed" if found else "nothing to recover"
        return Result(line, False, {"ok": True, "code": 0, "changed": False, "dry_run": True, "found": found}, found)
    done: list[str] = []
    while True:
        record = store.unfinished()
        if record is None:
            break
        resolve.resolve(store, record)
    done += store.told
    store.told = []
    undone, left = resolve.finish_parked(store)
    done += undone
    if store.journal() is not None:
        lock = store.commit_lock()
        try:
            lines = derived.rederive(store)
        finally:
            lock.release()
        if lines:
            done.append(f"wrote {lines} log line(s) again from the change log")
    done += _sweep(store)
    done += [f"removed {name}, which a dead process had left" for name in store.tidied]
    count = len(done)
    for name in store.list(layout.CHANGES):
        torn = derived.counted_lines(store, f"{layout.CHANGES}/{name}")[1] if name.endswith(".jsonl") else 0
        if torn:
            done.append(f"{layout.CHANGES}/{name}: {torn} torn or foreign line(s) passed over")
    line = "nothing to recover" if not count else f"recovered: {count} thing(s) put right"
    if left:
        line += f"; {len(left)} could not be"
    code = BUG if left else 0
    done += left
    return Result(line, bool(count), {"ok": not left, "code": code, "changed": bool(count), "done": done}, done)


def _what_waits(store: FileStore) -> list[str]:
    """What recover would look after, found without changing anything."""
    found = []
    record = store.unfinished()
    if record is not None:
        line = record.body["line"]
        found.append(f"an unfinished commit: {line['op']} {line['agent']}/{line['task']} of {line['time']}")
    found += [f"parked: {layout.CONFLICTS}/{name}" for name in store.list(layout.CONFLICTS) if ".parked." in name]
    for folder in _folders(store):
        found += [f"staged: {folder}/{name}" for name in store.list(folder) if _is_stage(name)]
    return found


def _is_stage(name: str) -> bool:
    return name.startswith(".") and name.endswith(".stage")


def _folders(store: FileStore) -> list[str]:
    found = [".sprint", layout.CHECKPOINTS, layout.LOGS, layout.CONFLICTS]
    for agent in store.list("postbox"):
        found += [f"postbox/{agent}", f"postbox/{agent}/completed", f"postbox/{agent}/inbox"]
    return found


def _sweep(store: FileStore) -> list[str]:
    """Remove staged files that no lock's note names any more (their lock file was removed)."""
    done = []
    places = [(layout.outbox(agent), f"postbox/{agent}") for agent in store.list("postbox") if layout.is_id(agent)]
    if "progress.json" in store.list(".sprint"):
        places.append((layout.PROGRESS, ".sprint"))
    for name, folder in places:
        folders = [folder] if folder == ".sprint" else [folder, f"{folder}/completed", f"{folder}/inbox"]
        if not any(base.endswith(".stage") for one in folders for base in store.list(one)):
            continue
        try:
            with store.lock([name]):  # which tidies after a dead holder by itself
                done += _remove_stages(store, folders)
        except NotFound:
            done += _remove_stages(store, folders)
    ours = [layout.CHECKPOINTS, layout.LOGS, layout.CONFLICTS]
    if any(base.endswith(".stage") for one in ours for base in store.list(one)):
        lock = store.commit_lock()
        try:
            done += _remove_stages(store, ours)
        finally:
            lock.release()
    return done


def _remove_stages(store: FileStore, folders: Sequence[str]) -> list[str]:
    done = []
    for folder in folders:
        for base in store.list(folder):
            if _is_stage(base) and store.discard(f"{folder}/{base}"):
                done.append(f"removed {folder}/{base}, which a dead process had left")
    return done
