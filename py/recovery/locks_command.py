"""locks: who holds which lock of the workspace, and which of the documented locks.  Only reads."""

from __future__ import annotations

import os

from recovery import contention, documented, layout, verbs
from recovery.request import Request, Verb
from recovery.status import plain
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from recovery.store import FileStore


def locks(store: FileStore) -> Result:
    """Every lock file there is, and who holds it now."""
    found: list[dict[str, Any]] = []
    for shown, path in _lock_files(store):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            held = contention.is_held(fd)
            found.append({"lock": shown, "held": held, "by": contention.holder(fd) if held else None})
        finally:
            os.close(fd)
    busy = [one for one in found if one["held"]]
    lines = [f"{one['lock']}  held by {plain(one['by'])}" for one in busy]
    lines.append(f"{len(busy)} held, {len(found) - len(busy)} free")
    return Result(lines[0], False, {"ok": True, "code": 0, "changed": False, "locks": found}, lines[1:])


def _lock_files(store: FileStore) -> Iterator[tuple[str, str]]:
    names = [layout.lock_of(layout.outbox(agent)) for agent in verbs.agents(store)]
    for name in [*names, layout.lock_of(layout.PROGRESS), f"data/{layout.COMMIT_LOCK}"]:
        yield name, os.path.join(store.root.path, name)
    for kind in ("tasks", "agents"):
        folder = os.path.join(documented.folder_of(os.environ), kind)
        try:
            bases = sorted(os.listdir(folder))
        except OSError:
            continue
        for path in (os.path.join(folder, base) for base in bases if base.endswith(".lock")):
            yield path, path


def _parse(asked: Request) -> list[Any]:
    asked.no_words()
    return []


VERB = Verb({}, _parse, lambda store, asked, call: locks(store), tries=False, reads=True, indent="")
