"""What Claude Code keeps of its tasks, in both of its forms.

Task files: a folder `~/.claude/tasks/LIST/` with one file a task, `1.json`, `2.json` … beside hidden ones:

    {"id": "1", "subject": "…", "description": "…", "activeForm": "…", "owner": "…", "status": "pending",
     "blocks": ["2"], "blockedBy": [], "metadata": {}}

The status is pending, in_progress or completed; `blocks` and `blockedBy` are two ways to say the same, and either will
do.  (As its tools TaskCreate and TaskUpdate write them; described by users of Claude Code 2.1 and in
github.com/L1AD/claude-task-viewer.)

Todo lists, which it kept before that in `~/.claude/todos/` and still hands to its tool TodoWrite: a list, or an object
with `todos`, of `{"content": "…", "status": "…", "activeForm": "…"}`, in older versions with `id` and `priority`
(github.com/anthropics/claude-code, issues 7523 and 7274).  Where there is no id it comes from the words.
"""

from __future__ import annotations

from recovery import durable, sources, tasks
from recovery.backlog import Item, plain, priority_of, spot, texts, title_of, words
from recovery.sources import Array, Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from recovery.sources import Source

STATUSES = ("pending", "in_progress", "completed")


def read_folder(path: str) -> tuple[Source, list[tuple[str, Item]]]:
    """Each task of a folder with its id, and a source that stands for them all; DataError (65) names the file."""
    found: list[tuple[str, Item]] = []
    names = [name for name in sources.folder(path) if name.endswith(".json")]
    for name in sorted(names, key=lambda name: (len(name), name)):  # 2.json before 10.json
        source = sources.read(f"{path.rstrip('/')}/{name}")
        found += _read_file(source, source.json())
    return sources.Source(path, b""), _linked(found)


def read_tasks(source: Source, top: Any) -> list[tuple[str, Item]]:
    """The same from one file, that of a task or a list of them."""
    return _linked(_read_file(source, top))


def _read_file(source: Source, top: Any) -> list[tuple[str, Item]]:
    """Tasks as they stand in a file; `more["blocks"]` still says what waits for each."""
    found = []
    listed = zip(top, top.spots) if isinstance(top, Array) else [(top, 0)]
    for value, at in listed:
        if not isinstance(value, Object):
            raise source.refusal("a task is not an object", at)
        ident = words(source, value, "id")
        if not ident:
            raise source.refusal("a task has no `id`", value.at)
        item = Item("", title_of(source, value, "subject"), value.at)
        item.status = _status(source, value)
        item.dependencies = texts(source, value, "blockedBy")
        item.more = {"blocks": texts(source, value, "blocks")}
        if words(source, value, "description"):
            item.more["description"] = words(source, value, "description")
        if value.get("metadata"):
            item.more["metadata"] = plain(value["metadata"])
        found.append((ident, item))
    return found


def _linked(found: list[tuple[str, Item]]) -> list[tuple[str, Item]]:
    """Every task with all that it waits for, also where only the other one says so."""
    by_id = dict(found)
    for ident, item in found:
        for other in item.more.pop("blocks"):
            if other in by_id and ident not in by_id[other].dependencies:  # whom nobody has can't be kept waiting
                by_id[other].dependencies.append(ident)
    return found


def read_todos(source: Source, top: Any) -> list[tuple[str, Item]]:
    """The tasks of a todo list."""
    listed = top.get("todos") if isinstance(top, Object) else top
    if not isinstance(listed, Array):
        raise source.refusal("`todos` is not a list", getattr(top, "at", 0))
    found: list[tuple[str, Item]] = []
    seen: dict[str, int] = {}
    for value, at in zip(listed, listed.spots):
        if not isinstance(value, Object):
            raise source.refusal("a todo is not an object", at)
        item = Item("", title_of(source, value, "content"), at)
        item.status = _status(source, value)
        item.priority = priority_of(source, value)
        ident = words(source, value, "id")
        if not ident:
            seen[item.title] = seen.get(item.title, 0) + 1
            name = item.title if seen[item.title] == 1 else f"{item.title}\n{seen[item.title]}"
            ident = durable.digest_of(name.encode("utf-8"))[:8]
        found.append((ident, item))
    return found


def _status(source: Source, value: Object) -> str:
    status = words(source, value, "status") or "pending"
    if status not in STATUSES:
        hint = "known are " + " ".join(STATUSES)
        raise source.refusal(f"the status {tasks.quoted(status)} is unknown", spot(value, "status"), hint)
    return status
