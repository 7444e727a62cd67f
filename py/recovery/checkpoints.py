"""Checkpoints: where a task has got to, durable when `create` returns.

The truth is the log `data/checkpoints/TASK_history.jsonl`, one line a checkpoint, appended and synced;
`TASK_checkpoint.json` is its last line, kept for people, and can be made from it.  The scripts' commits write the
same lines, with `metadata.op`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recovery import derived, durable, jsonl, jsontext, layout, steps, tasks, verbs
from recovery.commit import Put, txid_of
from recovery.errors import DataError, RecoveryError, UsageError, from_os_error
from recovery.rules import TaskState
from recovery.store import FileStore, transact

#: Bytes that one checkpoint may take, and nesting levels; what is bigger belongs into a file of its own.
MOST, LEVELS = 1 << 20, 100
#: A history that grows beyond LIMIT bytes is folded down to its newest lines, about KEEP bytes of them.
LIMIT, KEEP = 1 << 20, 1 << 18
#: Digits that an integer may have: what Python reads back by default (sys.int_info.default_max_str_digits).
DIGITS = 4300

_OPEN = frozenset(("pending", "running", "retrying"))
#: After these a task that is run again begins anew: what it had done does not count.
_ENDS = frozenset(("completed", "rolled_back"))


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint: `state` is a TaskState, or the text of one that this version doesn't know.

    `timestamp` is UTC, ISO 8601, `Z`; `data` what the program gave, `metadata` what the suite notes.
    """

    task_id: str
    checkpoint_id: str
    timestamp: str
    state: TaskState | str
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same, as it stands in the file."""
        return {
            "task_id": self.task_id,
            "checkpoint_id": self.checkpoint_id,
            "timestamp": self.timestamp,
            "state": str(self.state),
            "data": self.data,
            "metadata": self.metadata,
        }


def create(
    store: FileStore,
    task: str,
    state: TaskState | str,
    data: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    folder: str = layout.CHECKPOINTS,
) -> Checkpoint:
    """Add a checkpoint; it survives kill -9 and a power cut once this returns.

    A crash leaves the line whole, or torn (readers skip it), or not there.  UsageError (64) for a bad id or state,
    DataError (65) for what JSON can't hold, with the path of the bad value; what `Store.append` raises.
    """
    layout.require_id("task", task)
    try:
        known = TaskState(state)
    except ValueError:
        raise UsageError(f"state {str(state)[:40]!a} is none of {' '.join(TaskState)}") from None
    plain = require_json(dict(data or {}), "data")
    about = require_json(dict(metadata or {}), "metadata")
    now = store.now()
    txid = txid_of(now, os.urandom(6).hex())
    made = Checkpoint(task, txid, now, known, plain, about)
    name = layout.history(task, folder)
    line = {"txid": txid, **made.as_dict()}
    size = store.append(name, line, snapshot=layout.checkpoint(task, folder))
    # looked at once in LIMIT bytes of growth: even finding that a fold would bring nothing takes reading it all
    if size > LIMIT and size // LIMIT > (size - _size(jsontext.dumps(line))) // LIMIT:
        _fold(store, name)
    return made


def history(store: FileStore, task: str, folder: str = layout.CHECKPOINTS) -> list[Checkpoint]:
    """All checkpoints that are kept of a task, oldest first; torn and foreign lines are passed over."""
    return [_checkpoint(entry) for entry in _entries(store, task, folder) if not derived.folded(entry)]


def load(store: FileStore, task: str, folder: str = layout.CHECKPOINTS) -> Checkpoint | None:
    """The last checkpoint of a task, None if it has none.

    From the history; from the snapshot where the history was lost, or lost its end.
    """
    last = _last(store, task, folder)
    snapshot = _snapshot(store, task, folder)
    if snapshot is not None and (last is None or last["timestamp"] < snapshot["timestamp"]):
        # a clock that was set back makes later lines look older: they count, if the snapshot's own is there too
        if all(entry["checkpoint_id"] != snapshot["checkpoint_id"] for entry in _entries(store, task, folder)):
            return _checkpoint(snapshot)
    return _checkpoint(last) if last is not None else None


def carried(store: FileStore, task: str, folder: str = layout.CHECKPOINTS) -> dict[str, Any]:
    """The data that the suite's own checkpoints of a run take over: what the program noted last, {} for a new run.

    From where `load` has it: a snapshot that is older than the history must not become the newest data.
    """
    last = load(store, task, folder)
    if last is None or last.state in _ENDS or "op" in last.metadata:
        return {}
    return dict(last.data)


def steps_done(store: FileStore, task: str, folder: str = layout.CHECKPOINTS) -> dict[str, Any]:
    """The steps that the task's run has done, with their results; {} once it was completed or rolled back."""
    done: dict[str, Any] = {}
    for entry in _entries(store, task, folder):
        _count_step(done, entry)
    return done


def _count_step(done: dict[str, Any], entry: dict[str, Any]) -> None:
    if entry["state"] in _ENDS:
        done.clear()
    done.update(derived.folded(entry).get("steps") or {})
    for name in entry["metadata"].get("undone") or ():
        done.pop(name, None)
    if "step" in entry["metadata"]:
        done[str(entry["metadata"]["step"])] = entry["metadata"].get("result")


def cleanup(
    store: FileStore,
    task: str | None = None,
    older_than_days: float = 7,
    folder: str = layout.CHECKPOINTS,
    log_folder: str = layout.LOGS,
) -> list[str]:
    """Remove the checkpoints of tasks that have ended, and whose last one is older; returns those tasks.

    Which those are `ended` says.  A crash leaves some removed.
    """
    found = list(ended(store, task, older_than_days, folder, log_folder))
    return [one for one, _ in found if remove(store, one, older_than_days, folder, task is not None)]


def ended(
    store: FileStore,
    task: str | None = None,
    older_than_days: float = 7,
    folder: str = layout.CHECKPOINTS,
    log_folder: str = layout.LOGS,
) -> Iterator[tuple[str, str]]:
    """The tasks (or `task`, if it is one) whose checkpoints may go, each with the time of its last one, as it is found.

    Never an open task's: its last state is pending, running or retrying, or it is open in somebody's outbox,
    or waits for a person (parked, or with an open escalation in `log_folder`), or it failed and a next run would
    resume it (steps of it are done; one that is named by `task` gives them up).  A task whose change was rolled back
    keeps them: the scripts answer from there.  UsageError (64) for a bad id or a negative age; DataError (65) where an
    outbox is damaged: nobody knows what is open.
    """
    if task is not None:
        layout.require_id("task", task)
    before = _before(store, older_than_days)
    waits = waiting(store, log_folder)
    for one in [task] if task is not None else tasks_with_checkpoints(store, folder):
        when = None if one in waits else _end_of(store, one, before, folder, task is not None)
        if when is not None:
            yield one, when


def _before(store: FileStore, days: float) -> str:
    if not days >= 0:
        raise UsageError(f"older_than_days is {days}: 0 or more is needed")
    return store.time(max(store.clock() - min(days, 36500) * 86400, 0))


def tasks_with_checkpoints(store: FileStore, folder: str = layout.CHECKPOINTS) -> list[str]:
    """Ids of the tasks that have checkpoints, sorted."""
    found = set()
    for name in store.list(folder):
        for end in ("_history.jsonl", "_checkpoint.json"):
            if name.endswith(end) and layout.is_id(name[: -len(end)]):
                found.add(name[: -len(end)])
    return sorted(found)


def _end_of(store: FileStore, task: str, before: str, folder: str, named: bool) -> str | None:
    """When the task's last checkpoint was made, if it was before and they may go."""
    last = load(store, task, folder)
    if last is None or last.state in _OPEN or last.timestamp >= before:
        return None
    if last.state == "rolled_back" and "op" in last.metadata:
        return None
    if last.state == "failed" and not named and steps_done(store, task, folder):
        return None
    return last.timestamp


def remove(
    store: FileStore, task: str, older_than_days: float = 7, folder: str = layout.CHECKPOINTS, named: bool = False
) -> bool:
    """Remove the checkpoints of a task that `ended` found; False if there is a newer one by now.

    Under the commit lock, which is every append's: no line is lost, and no lock file is left for each task.
    """
    before = _before(store, older_than_days)
    lock = store.commit_lock()
    try:
        if _end_of(store, task, before, folder, named) is None:
            return False
        # the truth last: a crash in between leaves a history, from which the snapshot can be made
        for name in (layout.checkpoint(task, folder), layout.history(task, folder)):
            store.discard(name)
            steps.at("checkpoints-removed", name)
        return True
    finally:
        lock.release()


def waiting(store: FileStore, log_folder: str = layout.LOGS) -> set[str]:
    """Tasks that somebody still has to do, or to look at.  DataError (65): a damaged outbox, nobody knows."""
    found = {name[: -len(".json")] for name in store.list(layout.MANUAL) if name.endswith(".json")}
    for name in store.list(log_folder):
        task, escalation, _ = name.rpartition("_escalation")
        if escalation and name.endswith(".json"):
            found.add(task)
    for agent in verbs.one_by_one(store, verbs.agents(store)):
        version = store.read(layout.outbox(agent))
        if version is not None:
            found.update(tasks.Outbox(layout.outbox(agent), version).open_tasks())
    return found


def _fold(store: FileStore, name: str) -> None:
    """Bring a long history down to its newest lines, behind one line that says what the older ones had to say:
    which steps were done, and which commits' lines stood there (so that nobody writes them again)."""

    def plan() -> Put | None:
        version = store.read(name, strict=False)
        if version is None or version.size <= LIMIT:
            return None
        first = jsonl.records(version.text.partition("\n")[0].encode("latin-1"))[0]
        if first and version.size < 4 * derived.folded(first[0]).get("kept", 0):
            return None  # what the last fold kept is as big as that: folding again would bring nothing
        entries = [entry for entry in jsonl.records(version.text.encode("latin-1"))[0] if _is_ours(entry)]
        kept = _newest(entries)
        done: dict[str, Any] = {}
        txids: list[str] = []
        dropped = 0
        for entry in entries[: len(entries) - len(kept)]:
            _count_step(done, entry)
            before = derived.folded(entry)
            txids += before.get("txids", [])
            dropped += int(before.get("lines", 1))
            if "op" in entry["metadata"]:
                txids.append(str(entry.get("txid")))
        last = _last_of_scripts(entries[: len(entries) - len(kept)])
        lines = [jsontext.dumps(entry) for entry in [*last, *kept]]
        about = {"lines": dropped, "steps": done, "txids": txids}
        # the steps' results stay, too: were they not counted, each append beyond them would write them all again
        about["kept"] = sum(_size(line) for line in [*lines, jsontext.dumps(about)])
        oldest = _checkpoint(kept[0]).as_dict()
        head = {"txid": f"{oldest['checkpoint_id']}-fold", **oldest, "data": {}, "metadata": {"folded": about}}
        return Put(name, version, "".join(line + "\n" for line in [jsontext.dumps(head), *lines]))

    transact(store, [name], plan)


def _newest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    size = 0
    for at in range(len(entries) - 1, -1, -1):
        size += _size(jsontext.dumps(entries[at]))
        if size > KEEP and at < len(entries) - 1:
            return entries[at + 1 :]
    return entries


def _size(line: str) -> int:
    """Bytes that a line takes in the file."""
    return len(line.encode("utf-8")) + 1


def _last_of_scripts(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last line of each agent's commits on the task: whether it was rolled back is answered from there."""
    last = {str(entry["data"].get("agent")): entry for entry in entries if "op" in entry["metadata"]}
    return list(last.values())


def _entries(store: FileStore, task: str, folder: str) -> Iterator[dict[str, Any]]:
    layout.require_id("task", task)
    version = store.read(layout.history(task, folder), strict=False)
    if version is not None:
        for entry in jsonl.records(version.text.encode("latin-1"))[0]:
            if _is_ours(entry):
                yield entry


def _last(store: FileStore, task: str, folder: str) -> dict[str, Any] | None:
    """The last whole checkpoint of the history; no line before it is parsed."""
    for text in _ends(store, layout.history(layout.require_id("task", task), folder)):
        end = len(text)
        while end > 0:
            start = text.rfind("\n", 0, end) + 1
            for entry in jsonl.records(text[start:end].encode("latin-1"))[0]:
                if _is_ours(entry) and not derived.folded(entry):
                    return entry
            end = start - 1
    return None


def _ends(store: FileStore, name: str) -> Iterator[str]:
    """The history's last lines, as latin-1; if they won't do, more of them, and all of it at last."""
    try:
        fd, st = durable.open_regular(store.root.place(name))
    except (OSError, RecoveryError):
        pass  # `read` says what is the matter
    else:
        try:
            for most in (1 << 16, 1 << 22):
                if st.st_size > most:
                    yield os.pread(fd, most, st.st_size - most).partition(b"\n")[2].decode("latin-1")
        except OSError as error:
            raise from_os_error(error, f"could not read {name}") from None
        finally:
            os.close(fd)
    version = store.read(name, strict=False)
    if version is not None:
        yield version.text


def _snapshot(store: FileStore, task: str, folder: str) -> dict[str, Any] | None:
    try:
        version = store.read(layout.checkpoint(task, folder))
        entry = jsontext.loads(jsontext.from_latin(version.text)) if version else None
    except (RecoveryError, ValueError):
        return None
    return entry if isinstance(entry, dict) and _is_ours(entry) else None


def _is_ours(entry: dict[str, Any]) -> bool:
    """Whether a line is a checkpoint as this version writes them."""
    texts = all(isinstance(entry.get(key), str) for key in ("task_id", "checkpoint_id", "timestamp", "state"))
    return texts and isinstance(entry.get("data"), dict) and isinstance(entry.get("metadata"), dict)


def _checkpoint(entry: dict[str, Any]) -> Checkpoint:
    try:
        state: TaskState | str = TaskState(entry["state"])
    except ValueError:
        state = str(entry["state"])
    return Checkpoint(
        entry["task_id"], entry["checkpoint_id"], entry["timestamp"], state, entry["data"], entry["metadata"]
    )


def require_json(value: Any, where: str, level: int = 0, most: int = MOST) -> Any:
    """`value` as plain JSON types (a tuple becomes a list, numpy.float64 a float, an IntEnum's member an int).

    DataError (65) that names the path of what isn't JSON, or is an integer of more digits than can be read back.
    """
    plain = _plain(value, where, level)
    if not level and len(jsontext.dumps(plain)) > most:
        raise DataError(f"{where} takes more than {most:,} bytes of JSON", hint="keep it in a file, and note its name")
    return plain


def _plain(value: Any, where: str, level: int) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if isinstance(value, int):
        return _whole(int(value), where)
    if isinstance(value, float):
        value = float(value)
        if math.isfinite(value):
            return value
        raise _no_json(where, f"{value}")
    if level > LEVELS:
        raise DataError(f"{where} is nested deeper than {LEVELS} levels")
    if isinstance(value, str):
        if kind is jsontext.Number:  # read from a text, and too long for an int
            raise _too_long(where)
        if kind is not str:
            value = str.__str__(value)
        if value.isascii() or _is_unicode(value):
            return value
        raise DataError(f"{where} holds half a character (a lone surrogate)")
    if isinstance(value, Mapping):
        plain = {}
        for key, one in value.items():
            if not isinstance(key, str):
                raise DataError(f"{where} has the key {_shown(key)}, which is no text")
            plain[_plain(key, f"{where}: a key", level + 1)] = _plain(one, f"{where}.{key}", level + 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(one, f"{where}[{n}]", level + 1) for n, one in enumerate(value)]
    raise _no_json(where, f"a {kind.__name__}")


def _shown(key: Any) -> str:
    try:
        return f"{key!r:.60}"
    except ValueError:  # an integer of too many digits
        return f"of type {type(key).__name__}"


def _no_json(where: str, what: str) -> DataError:
    return DataError(
        f"{where} is {what}: JSON can't hold it", hint="give text, numbers, true, false, null, lists, dicts"
    )


def _whole(value: int, where: str) -> int:
    if _is_long(value):
        raise _too_long(where)
    return value


def _too_long(where: str) -> DataError:
    return DataError(f"{where} is an integer of more than {_most_digits():,} digits", hint="give it as text")


def _is_long(value: int) -> bool:
    """Whether Python refuses to write the integer, or to read it back."""
    return value.bit_length() > 2000 and abs(value) >= 10 ** _most_digits()


def _most_digits() -> int:
    return min(DIGITS, sys.get_int_max_str_digits() or DIGITS)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False
