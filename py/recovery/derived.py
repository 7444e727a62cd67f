"""What follows from a change: checkpoint and log lines, edits set aside.

None of it decides a commit.  The lines derived from a change can be written again from the change log, which is
synced; what a person must see (`set_aside`, and `recovery.escalations`) is synced itself.
"""

from __future__ import annotations

import os

from recovery import durable, escalations, jsonl, jsontext, layout, steps
from recovery.errors import DataError, RecoveryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.durable import Place
    from recovery.journal import Record
    from recovery.segments import Skipped
    from recovery.store import FileStore


#: Seconds before the newest change within which a power cut may have taken what was derived from one: the kernel
#: writes everything within a minute.
_UNSAFE = 86400


def newest_first(
    store: FileStore, about: str = "", parts: int = 1 << 30, skipped: Optional[Skipped] = None
) -> Iterator[dict[str, Any]]:
    """Every recorded change, the newest first; torn and foreign lines are passed over, and counted in `skipped`.

    With `about` only lines in which that word stands, an id mostly: the others are not even parsed.  At most so many
    `parts` are read beside the months' own files.  A month that can't be read is refused (65, 74, 77), or, with
    `skipped`, said there and passed over.  See `segments.newest_first`.
    """
    for name in reversed(months(store, skipped)):
        yield from of_month(store, name, about, parts, skipped)


def months(store: FileStore, skipped: Optional[Skipped] = None) -> list[str]:
    """The months' logs, the oldest first; with `skipped` a folder that can't be read is said there."""
    from recovery import segments  # which no commit needs

    try:
        return segments.logs(store, layout.CHANGES)
    except RecoveryError as error:
        if skipped is None:
            raise
        skipped.refuse(error)
        return []


def of_month(
    store: FileStore, name: str, about: str = "", parts: int = 1 << 30, skipped: Optional[Skipped] = None
) -> Iterator[dict[str, Any]]:
    """The same of one month's log, `name`."""
    from recovery import segments

    for line in segments.newest_first(store, name, about.encode("utf-8"), skipped, parts):
        if is_change(line):
            yield line
        elif skipped is not None:
            skipped.torn += 1


_LINE = {"seq": int, "txid": str, "time": str, "op": str, "agent": str, "task": str, "files": list, "derived": list}


def is_change(line: Any) -> bool:
    """Whether a line of the change log, or of the journal, is one that this suite could have written.

    Whoever may write into data/ must not be able to point outside of the root with it.
    """
    if not isinstance(line, dict) or not all(isinstance(line.get(key), kind) for key, kind in _LINE.items()):
        return False
    if not (layout.is_id(line["agent"]) and layout.is_id(line["task"]) and line["time"][:7].replace("-", "").isdigit()):
        return False
    if not line["txid"].replace("-", "").isalnum():
        return False
    for file in line["files"]:
        if not isinstance(file, dict) or type(file.get("name")) is not str or not ("ops" in file or "write" in file):
            return False
    return all(
        isinstance(item, dict)
        and _may_be_derived(str(item.get("name", "")))
        and isinstance(item.get("append", item.get("snapshot")), dict)
        for item in line["derived"]
    )


def _may_be_derived(name: str) -> bool:
    folders = (layout.CHECKPOINTS + "/", layout.LOGS + "/", layout.RECEIPTS + "/")
    return name.startswith(folders) or layout.is_archive(name)


def is_about(line: dict[str, Any], agent: str, task: str) -> bool:
    """Whether a change was one of this task: its own, or one of many that it was among (`tasks`: agent to ids)."""
    if (line["agent"], line["task"]) == (agent, task):
        return True
    many = line.get("tasks")
    return isinstance(many, dict) and task in many.get(agent, ())


def counted_lines(store: FileStore, name: str) -> tuple[list[dict[str, Any]], int]:
    """The whole lines of one part of the change log (see `recovery.segments`), and how many were passed over."""
    from recovery import segments

    data = segments.read(store, name)
    if data is None:
        return [], 0
    found, torn = jsonl.records(data)
    whole = [line for line in found if is_change(line)]
    return whole, torn + len(found) - len(whole)


def last_seq(store: FileStore) -> int:
    """A journal that was lost or left out of a copy goes on counting where the change log stopped."""
    for line in newest_first(store):
        return int(line["seq"])
    return 0


def recorded_in(store: FileStore, record: Record) -> str:
    """The part of the change log that has a commit's line among its last ones, "" if none has.

    The log may have been put aside since; such a part is synced here, for nobody appends to it, and syncs it so.
    """
    from recovery import segments

    name, window = layout.changes(record.body["line"]["time"]), 65536 + 2 * len(record.text)
    for part in [name, *segments.of(store, name)[-1:]]:
        try:
            data = segments.read(store, part, window)
        except DataError:  # no file of ours: the append says what is the matter
            return ""
        if data and any(entry.get("txid") == record.txid for entry in jsonl.records(data)[0]):
            if part != name:
                segments.sync(store, part)
            return part
    return ""


def derive(store: FileStore, line: dict[str, Any], check: bool, sync: bool) -> None:
    """Write a change's checkpoint and log lines.  A failure costs nothing: the change log can write them again.

    With `sync` a line that can't be written is refused: DataError (65), OSError.
    """
    # of many lines of one log the last is synced, and with it those before
    last = {item["name"]: item for item in line["derived"]} if sync else {}
    window = len(jsontext.dumps(line["derived"])) if check else 0
    for item in line["derived"]:
        try:
            if "append" in item:
                entry = {"txid": line["txid"], **item["append"]}
                at_last = last.get(item["name"]) is item
                store.append_line(item["name"], jsontext.dumps(entry), str(entry["txid"]), check, at_last, window)
            else:
                place = store.root.place(item["name"], create=True)
                base = f".{place.base}.stage"
                mode, gid = store.shared()
                text = jsontext.pretty(item["snapshot"]) + "\n"
                _write_cache(store, place, base, text.encode("utf-8"), mode, gid)
        except (OSError, RecoveryError) as error:
            if sync and "append" in item:  # a snapshot is a cache
                raise
            store.told.append(f"{item['name']} could not be written: {error} (`recovery recover` writes it later)")
    if sync:
        store.root.sync_made()


def _write_cache(store: FileStore, place: Place, base: str, data: bytes, mode: int, gid: int) -> None:
    """A file that can be made again: renamed into place whole, not synced."""
    durable.remove(place.folder, base)
    steps.at("snapshot", place.name)
    fd = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=place.folder)
    try:
        durable.write_all(fd, data)
        durable.own(fd, mode, -1, gid)
    except OSError:
        durable.remove(place.folder, base)
        raise
    finally:
        os.close(fd)
    store.cache_into_place(place, base, place.base)


def rederive(store: FileStore) -> int:
    """Write again the derived lines that a power cut may have taken: those of the change log's last day.

    The first commit after a reboot does it (the journal remembers the boot of the last one), and `recovery recover`.
    Returns how many lines were missing.
    """
    steps.at("rederive")
    missing = 0
    present = Present(store)
    gone = _counted_until(store)
    for line in reversed(_last_day(store)):
        for item in line["derived"]:
            try:
                if not _is_counted(item, gone):
                    missing += rederive_one(store, line["txid"], item, present)
            except (OSError, RecoveryError) as error:  # one bad log must not stop the others
                store.told.append(f"{item['name']} could not be written: {error}")
    missing += _rebuild_snapshots(store)
    store.root.sync_made()
    return missing


def _counted_until(store: FileStore) -> dict[str, str]:
    """Of each task whose logs were folded into the statistics (`recovery.stats_folded`), the time of the last line."""
    try:
        version = store.read(layout.FOLDED)
        tasks = jsontext.loads(version.text)["tasks"] if version is not None else {}
        return {task: str(counted[4]) for task, counted in tasks.items()}
    except (RecoveryError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # whoever folds says that it is damaged


def _is_counted(item: dict[str, Any], until: dict[str, str]) -> bool:
    """Whether a line stood in a log that was folded: written again it would be counted twice."""
    entry = item.get("append")
    if not item["name"].startswith(layout.LOGS + "/") or not isinstance(entry, dict):
        return False
    return str(entry.get("timestamp", ""))[:19] <= until.get(str(entry.get("task_id")), "")


def _last_day(store: FileStore) -> list[dict[str, Any]]:
    """The changes of the day before the newest, the newest first."""
    found: list[dict[str, Any]] = []
    first = ""
    for line in newest_first(store):
        first = first or _day_before(line["time"])
        if line["time"] < first:
            break
        found.append(line)
    return found


def _day_before(moment: str) -> str:
    from datetime import datetime, timedelta  # what a commit need not read

    try:
        return (datetime.fromisoformat(moment[:19]) - timedelta(seconds=_UNSAFE)).isoformat()
    except (ValueError, OverflowError):  # no time of ours: all of it
        return ""


def _rebuild_snapshots(store: FileStore) -> int:
    """Make the snapshots again that are gone or empty: each is the last line of its task's history."""
    rebuilt = 0
    for base in store.list(layout.CHECKPOINTS):
        task = base[: -len("_history.jsonl")]
        if not base.endswith("_history.jsonl") or not layout.is_id(task):
            continue
        snapshot = layout.checkpoint(task)
        try:
            st = store.read_state(snapshot)
            if st is not None and st.st_size:
                continue
            version = store.read(layout.history(task), strict=False)
            lines = jsonl.records(version.text.encode("latin-1"))[0] if version is not None else []
            if lines:
                entry = {key: value for key, value in lines[-1].items() if key != "txid"}
                derive(store, {"txid": "", "derived": [{"name": snapshot, "snapshot": entry}]}, False, False)
                rebuilt += 1
        except (OSError, RecoveryError) as error:
            store.told.append(f"{snapshot} could not be written: {error}")
    return rebuilt


class Present:
    """Which lines the logs have: each log is read once, and each folder listed once, however many are asked for."""

    def __init__(self, store: FileStore) -> None:
        self.store = store
        self._txids: dict[str, set[str]] = {}
        self._parts: dict[str, dict[str, list[str]]] = {}

    def of(self, name: str) -> set[str]:
        """The txids of a log's lines, in all its parts."""
        if name not in self._txids:
            from recovery import segments

            folder = name.rpartition("/")[0]
            if folder not in self._parts:
                self._parts[folder] = segments.in_folder(self.store, folder)
            parts = [*self._parts[folder].get(name, []), name]
            found = [entry for part in parts for entry in _entries(self.store, part)]
            self._txids[name] = {str(entry.get("txid")) for entry in found}
            self._txids[name].update(*(folded(entry).get("txids", ()) for entry in found))
        return self._txids[name]


def rederive_one(store: FileStore, txid: str, item: dict[str, Any], present: Present) -> int:
    """Append one line that a change gave to a log, if the log lacks it: 1 then, else 0.  Under the commit lock."""
    if not is_missing(txid, item, present):
        return 0
    name, txid = item["name"], str(item["append"].get("txid", txid))
    present.of(name).add(txid)
    store.append_line(name, jsontext.dumps({"txid": txid, **item["append"]}), txid, check=False, sync=True)
    return 1


def is_missing(txid: str, item: dict[str, Any], present: Present) -> bool:
    """Whether a log lacks a line that a change gave it."""
    return "append" in item and str(item["append"].get("txid", txid)) not in present.of(item["name"])


def _entries(store: FileStore, name: str) -> list[dict[str, Any]]:
    from recovery import segments

    data = segments.read(store, name)
    return jsonl.records(data)[0] if data else []


def folded(entry: dict[str, Any]) -> dict[str, Any]:
    """What a log's first line says of the older ones that were folded into it; {} for any other line."""
    metadata = entry.get("metadata")
    found = metadata.get("folded") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def set_aside(store: FileStore, record: Record, kind: str, reason: str) -> None:
    """Keep a record in data/conflicts, durably, and say in logs/recovery that a person is needed."""
    line = record.body["line"]
    name = layout.set_aside(line["agent"], line["task"], record.txid, kind)
    entry = {"kind": kind, "reason": reason, "direction": record.direction, "seq": record.seq, **record.body}
    create(store, name, jsontext.pretty(entry) + "\n")
    escalations.write(store, line["task"], kind, reason, agent=line["agent"], record=name)


def create(store: FileStore, name: str, text: str) -> None:
    """A new file, durably, in one step.  Under the commit lock.  OSError."""
    place = store.root.place(name, create=True)
    mode, gid = store.shared()
    base = f".{place.base}.stage"  # one name, for the commit lock is held: the next one removes what a crash leaves
    durable.remove(place.folder, base)
    durable.stage(place, base, (text.encode("utf-8"),), mode, -1, gid).sync()
    durable.into_place(place, base, place.base)
    store.root.made.add(place.name.rpartition("/")[0])
    store.root.sync_made()
