"""import: take tasks over from the files of other programs, all of them or none (see `recovery.place`).

A task that was done there comes as a completed entry: it is counted, others may depend on it, and that is all: no
completion record, no brief.  Each task is taken over once; what happens to it there later is not followed.
"""

from __future__ import annotations

from recovery import backlog, claudetasks, layout, place, sources, tasks
from recovery.backlog import Backlog
from recovery.errors import DataError, UsageError
from recovery.request import Request, Verb
from recovery.sources import Array, Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

    from recovery.backlog import Item
    from recovery.sources import Source

FORMATS = ("task-master", "claude-tasks", "todos", "markdown")


def read(path: str, prefix: str, form: str = "", tag: str = "", drop_missing: bool = False) -> Backlog:
    """The tasks in a file or folder, with ids of ours; DataError (65) and what `recovery.sources` raises.

    The format is found out unless `form` (one of FORMATS) says it; `prefix` begins every id, `tag` is Task Master's.
    """
    notes: list[str] = []
    if sources.is_folder(path):
        if form not in ("", "claude-tasks"):
            raise UsageError(f"{tasks.shown(path)} is a folder, which only claude-tasks has. Nothing changed.")
        form = "claude-tasks"
        source, found = claudetasks.read_folder(path)
    else:
        source = sources.read(path)
        form, found, notes = _read(source, path, form, tag)
    if tag and form != "task-master":
        raise UsageError(f"--tag is for task-master; this is {form}. Nothing changed.", hint="leave it out")
    if drop_missing:
        notes += _drop_missing(found)
    items = _renamed(source, found, prefix, form, path)
    backlog.check(source, items)
    by_id = {item.task: item for item in items}
    for item in items:
        for one in item.dependencies:
            if by_id[one].status in ("cancelled", "deferred") and item.status not in tasks.CLOSED:
                notes.append(f"{item.task} waits for {one}, which is {by_id[one].status}")
    return Backlog(source, items, prefix, notes)


def _read(source: Source, path: str, form: str, tag: str) -> tuple[str, list[tuple[str, Item]], list[str]]:
    if form == "markdown" or (not form and _is_prose(source, path)):
        from recovery import checklist

        found = checklist.read(source)
        if not found:
            raise DataError(
                f"{tasks.shown(source.name)} holds no check list, no line like `- [ ] text`. Nothing changed.",
                hint="--format says what it is: " + ", ".join(FORMATS),
            )
        return "markdown", found, []
    top = source.json()
    form = form or _form(top)
    if form == "task-master":
        from recovery import taskmaster

        found, notes = taskmaster.read(source, top, tag)
        return form, found, notes
    if form == "todos":
        return form, claudetasks.read_todos(source, top), []
    if form == "claude-tasks":
        return form, claudetasks.read_tasks(source, top), []
    raise source.refusal(
        "this is none of the formats that can be told from their content",
        getattr(top, "at", 0),
        "--format says what it is: " + ", ".join(FORMATS) + "; a backlog of our own is for `recovery distribute`",
    )


def _is_prose(source: Source, path: str) -> bool:
    if path.lower().endswith((".md", ".markdown", ".txt")):
        return True
    return not path.lower().endswith(".json") and source.text.lstrip(" \n\t\r")[:1] not in ("{", "[")


def _form(top: Any) -> str:
    """Which format a JSON document is in, "" if that can't be told."""
    from recovery import taskmaster

    if isinstance(top, Array):
        first = top[0] if top and isinstance(top[0], Object) else {}
        return "todos" if "content" in first else "claude-tasks" if "subject" in first else ""
    if not isinstance(top, Object):
        return ""
    if isinstance(top.get("tasks"), Array):
        ours = any(isinstance(one, Object) and "task_id" in one for one in top["tasks"])
        return "" if ours else "task-master"
    if isinstance(top.get("todos"), Array):
        return "todos"
    if "subject" in top:
        return "claude-tasks"
    return "task-master" if taskmaster.is_tagged(top) else ""


def _drop_missing(found: Sequence[tuple[str, Item]]) -> list[str]:
    """Take out dependencies on tasks that aren't there; what was taken out, in words."""
    there = {ident for ident, _ in found}
    notes = []
    for ident, item in found:
        gone = [one for one in item.dependencies if one not in there]
        item.dependencies = [one for one in item.dependencies if one in there]
        notes += [f"{tasks.quoted(ident)} depended on {tasks.quoted(one)}, which isn't there: left out" for one in gone]
    return notes


def _renamed(source: Source, found: Sequence[tuple[str, Item]], prefix: str, form: str, path: str) -> list[Item]:
    """The items under ids of ours, what they refer to likewise; where each comes from stays in `imported_from`."""
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for ident, item in found:
        task = f"{prefix}-{backlog.as_id(ident) or 'task'}"
        if ident in ids or task in taken or not layout.is_id(task):
            what = "stands here a second time" if ident in ids else f"would be {tasks.quoted(task)}, which it can't be"
            raise source.refusal(f"the id {tasks.quoted(ident)} {what}", item.at)
        ids[ident] = task
        taken.add(task)
    base = "stdin" if path == "-" else path.rstrip("/").rpartition("/")[2]
    for ident, item in found:
        item.task = ids[ident]
        for one in item.dependencies:
            if one not in ids:
                hint = "add it, or leave such dependencies out with --drop-missing"
                raise source.refusal(
                    f"{tasks.quoted(ident)} depends on {tasks.quoted(one)}, which isn't there", item.at, hint
                )
        item.dependencies = [ids[one] for one in item.dependencies]
        if "parent" in item.more:
            item.more["parent"] = ids[item.more["parent"]]
        item.more["imported_from"] = {"format": form, "file": base, "id": ident}
    if form == "markdown":
        parents = {item.task: item for _, item in found}
        for _, item in found:
            if "parent" in item.more:
                parents[item.more["parent"]].dependencies.append(item.task)
    return [item for _, item in found]


def _parse(request: Request) -> list[Any]:
    options = request.options
    if len(request.words) != 1:
        raise UsageError("one FILE is needed, or - for stdin", hint="see --help")
    path = request.words[0]
    agent = options.get("agent", "")
    if bool(agent) == request.asked("distribute"):
        raise UsageError("who gets the tasks? --agent AGENT, or --distribute", hint="see --help")
    if agent:
        layout.require_id("agent", agent)
        if "agents" in options or request.asked("strict"):
            raise UsageError("--agents and --strict are for --distribute", hint="see --help")
    elif request.asked("create"):
        raise UsageError("--create needs --agent AGENT", hint="see --help")
    form = options.get("format", "")
    if form and form not in FORMATS:
        raise UsageError(f"--format {form[:40]!a} is none of {' '.join(FORMATS)}", hint="see --help")
    prefix = options.get("prefix") or ("" if path == "-" else backlog.prefix_of(path))
    if not prefix:
        raise UsageError("a --prefix for the ids is needed here", hint="see --help")
    layout.require_id("prefix", prefix)
    terms = place.Terms.asked(request, agent)
    return [terms, read(path, prefix, form, options.get("tag", ""), request.asked("drop_missing"))]


VERB = Verb(
    {
        **place.OPTIONS,
        "--agent": "agent=",
        "--distribute": "distribute",
        "--create": "create",
        "--format": "format=",
        "--prefix": "prefix=",
        "--tag": "tag=",
        "--drop-missing": "drop_missing",
    },
    _parse,
    lambda store, request, call: place.place(store, call[1], call[0]),
)
