"""recover: finish or undo, now, what dead processes left."""

from __future__ import annotations

from recovery import derived, layout, resolve
from recovery.errors import NotFound
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Sequence

    from recovery.store import FileStore


def recover(store: FileStore) -> Result:
    """Finish or undo whatever dead owners left in this workspace: an unfinished commit, parked records, lost log
    lines, staged files.  Safe at any time and twice."""
    done: list[str] = []
    while True:
        record = store.unfinished()
        if record is None:
            break
        resolve.resolve(store, record)
    done += store.told
    store.told = []
    done += resolve.finish_parked(store)
    if store.journal() is not None:
        lock = store.commit_lock()
        try:
            lines = derived.rederive(store)
        finally:
            lock.release()
        if lines:
            done.append(f"wrote {lines} log line(s) again from the change log")
    done += _sweep(store)
    count = len(done)
    line = "nothing to recover" if not count else f"recovered: {count} thing(s) put right"
    return Result(line, bool(count), {"ok": True, "code": 0, "changed": bool(count), "done": done}, done)


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
            with store.lock([name]):
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
            if base.startswith(".") and base.endswith(".stage") and store.discard(f"{folder}/{base}"):
                done.append(f"removed {folder}/{base}, which a dead process had left")
    return done
