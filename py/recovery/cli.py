"""The verbs that people look with: `recovery locks`, `recovery changes`.  Typer; the work verbs do without it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":  # run by lib/python.sh from a checkout that isn't installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson
import typer

from recovery import contention, derived, documented, helper, layout, verbs, workspace
from recovery.errors import RecoveryError
from recovery.status import plain
from recovery.store import FileStore

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Root = Annotated[str | None, typer.Option("-C", metavar="DIR", help="The workspace.")]
Json = Annotated[bool, typer.Option("--json", help="One object on stdout.")]


def _store(root: str | None, verb: str) -> FileStore:
    suite = str(Path(__file__).resolve().parent.parent.parent)
    return FileStore(workspace.find(root, os.environ, suite), helper.limits_from_environment(verb))


def _print_json(data: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(data) + b"\n")


@app.command()
def locks(root: Root = None, as_json: Json = False) -> None:
    """Who holds which lock of the workspace, and which of the documented locks.  Changes nothing."""
    store = _store(root, "locks")
    found = []
    for shown, path in _lock_files(store):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            held = contention.is_held(fd)
            found.append({"lock": shown, "held": held, "by": contention.holder(fd) if held else None})
        finally:
            os.close(fd)
    if as_json:
        _print_json({"ok": True, "code": 0, "changed": False, "locks": found})
        return
    busy = [one for one in found if one["held"]]
    for one in busy:
        typer.echo(f"{one['lock']}  held by {plain(one['by'])}")
    typer.echo(f"{len(busy)} held, {len(found) - len(busy)} free")


def _lock_files(store: FileStore) -> list[tuple[str, str]]:
    names = [layout.lock_of(layout.outbox(agent)) for agent in verbs.agents(store)]
    names += [layout.lock_of(layout.PROGRESS), f"data/{layout.COMMIT_LOCK}"]
    base = Path(documented.folder_of(os.environ))
    courtesy = [str(path) for kind in ("tasks", "agents") for path in sorted((base / kind).glob("*.lock"))]
    return [(name, os.path.join(store.root.path, name)) for name in names] + [(path, path) for path in courtesy]


@app.command()
def changes(
    agent: Annotated[str | None, typer.Argument(help="Only this agent; AGENT/TASK is accepted.")] = None,
    task: Annotated[str | None, typer.Argument(help="Only this task.")] = None,
    root: Root = None,
    most: Annotated[int, typer.Option("--most", min=1, help="How many, newest last.")] = 20,
    as_json: Json = False,
) -> None:
    """What was changed, when, by whom: the newest lines of data/changes/."""
    if agent and "/" in agent and task is None:
        agent, _, task = agent.partition("/")
    for kind, value in (("agent", agent), ("task", task)):
        if value is not None:
            layout.require_id(kind, value)
    store = _store(root, "changes")
    found: list[dict[str, Any]] = []
    for name in reversed([name for name in store.list(layout.CHANGES) if name.endswith(".jsonl")]):
        for line in reversed(derived.change_lines(store, f"{layout.CHANGES}/{name}")):
            if agent in (None, line["agent"]) and task in (None, line["task"]):
                found.append(line)
            if len(found) >= most:
                break
    found = found[:most][::-1]
    if as_json:
        _print_json({"ok": True, "code": 0, "changed": False, "changes": found})
        return
    for line in found:
        typer.echo(f"{line['time']}  {line['op']:<9} {line['agent']}/{line['task']}  pid {line['by']['pid']}")
        for file in line["files"]:
            for words in _fields(file):
                typer.echo(f"    {plain(words)}")
    if not found:
        typer.echo("no changes are recorded")


def _fields(file: dict[str, Any]) -> list[str]:
    if "write" in file:
        old, new = file["write"]
        return [f"{file['name']}: {'written' if old is None else 'removed' if new is None else 'replaced'}"]
    words = []
    for op in file["ops"]:
        where = ".".join(step if isinstance(step, str) else step[1] for step in op["path"])
        if op["op"] == "add":
            words.append(f"{file['name']}: {where} {op['by']:+d}")
        else:
            words.append(f"{file['name']}: {where} {op['before'] or 'absent'} -> {op['after'] or 'absent'}")
    return words


def main() -> None:
    """Run; errors as the scripts tell them, with the contract's codes."""
    try:
        app(prog_name="recovery", standalone_mode=False)
    except RecoveryError as error:
        helper.report_error(error, "--json" in sys.argv)
        sys.exit(error.code)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(64)


if __name__ == "__main__":
    main()
