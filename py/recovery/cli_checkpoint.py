"""`recovery checkpoint`: where tasks have got to."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from recovery import checkpoints, jsontext, request
from recovery.cli import DryRun, Json, Quiet, Root, Task, actions, answer, opened
from recovery.errors import DataError, NotFound, UsageError
from recovery.rules import TaskState
from recovery.status import plain

app = actions()
#: Bytes that are read from stdin; a checkpoint takes fewer.
_MOST = 4 * checkpoints.MOST


@app.command("list")
def list_all(root: Root = None, as_json: Json = False) -> int:
    """The tasks that have checkpoints, and the last state of each."""
    with opened(root, "checkpoint list") as store:
        found = []
        for task in checkpoints.tasks_with_checkpoints(store):
            last = checkpoints.load(store, task)
            if last is not None:
                found.append({"task_id": task, "state": str(last.state), "timestamp": last.timestamp})
    lines = [f"{one['task_id']:<24} {plain(one['state']):<12} {plain(one['timestamp'])}" for one in found]
    return answer({"checkpoints": found}, lines or ["no checkpoints here"], as_json)


@app.command()
def show(task: Task, root: Root = None, as_json: Json = False) -> int:
    """The last checkpoint of a task."""
    task = request.task_of(task)
    with opened(root, "checkpoint show") as store:
        last = checkpoints.load(store, task)
    if last is None:
        raise _none(task)
    return answer({"checkpoint": last.as_dict()}, [jsontext.pretty(last.as_dict())], as_json)


@app.command()
def history(task: Task, root: Root = None, as_json: Json = False) -> int:
    """All checkpoints that are kept of a task, oldest first."""
    task = request.task_of(task)
    with opened(root, "checkpoint history") as store:
        found = [one.as_dict() for one in checkpoints.history(store, task)]
        last = checkpoints.load(store, task)
    if not found and last is not None:
        found = [last.as_dict()]
    if not found:
        raise _none(task)
    lines = [
        f"{plain(one['timestamp'])}  {plain(one['state']):<12} {plain(jsontext.dumps(one['data']))}  "
        f"{plain(jsontext.dumps(one['metadata'])) if one['metadata'] else ''}".rstrip()
        for one in found
    ]
    return answer({"task_id": task, "checkpoints": found}, lines, as_json)


def _none(task: str) -> NotFound:
    return NotFound(f"{task} has no checkpoint", hint="recovery checkpoint list shows which tasks have some")


@app.command()
def add(
    task: Task,
    state: Annotated[str, typer.Argument(metavar="STATE", help=" ".join(TaskState))],
    data: Annotated[str | None, typer.Argument(metavar="[JSON|-]", help="An object; - reads it from stdin.")] = None,
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """Add a checkpoint, durably."""
    task = request.task_of(task)
    if state not in list(TaskState):
        raise UsageError(f"state {state[:40]!a} is none of {' '.join(TaskState)}", hint="see --help")
    given = {} if data is None else _object(data)
    with opened(root, f"checkpoint add {task}") as store:
        if dry_run:
            checkpoints.require_json(given, "data")
            told = {"dry_run": True, "task_id": task, "state": state}
            return answer(told, [f"would add a checkpoint of {task}: {state}; nothing changed"], as_json, quiet)
        made = checkpoints.create(store, task, state, given)
    line = f"added a checkpoint of {task}: {state}"
    return answer({"checkpoint": made.as_dict()}, [line], as_json, quiet, changed=True)


def _object(word: str) -> dict[str, Any]:
    """The JSON object in an argument, or on stdin for "-"; DataError (65) with line and column."""
    if word == "-":
        with open(0, "rb", closefd=False) as stdin:
            text, where = stdin.read(_MOST + 1), "what stdin gives"
    else:
        text, where = os.fsencode(word), "the data"
    if len(text) > _MOST:
        raise DataError(f"{where} is longer than {_MOST:,} bytes. Nothing changed.", hint="note the name of a file")
    try:
        latin = jsontext.decode(text)
        jsontext.document(latin)  # here, where a byte is a character, it is known where something is wrong
        value: dict[str, Any] = jsontext.loads(jsontext.from_latin(latin))
        return value
    except ValueError as error:
        raise DataError(
            f"{where} is not a JSON object: {error}. Nothing changed.", hint='give an object, like {"page": 3}'
        ) from None


@app.command()
def clean(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Only this task.")] = None,
    older_than: Annotated[str, typer.Option("--older-than", metavar="DAYS", help="7, 7d, 12h …")] = "7d",
    root: Root = None,
    as_json: Json = False,
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> int:
    """Remove the checkpoints of tasks that ended so long ago; never those of an open task."""
    from recovery import clean as cleaning

    task = None if task is None else request.task_of(task)
    days = cleaning.days(older_than)
    with opened(root, "checkpoint clean") as store:
        result = cleaning.clean(store, days, dry_run, task, records=False)
    return answer(
        result.data, [result.line, *(f"  {line}" for line in result.details)], as_json, quiet, changed=result.changed
    )
