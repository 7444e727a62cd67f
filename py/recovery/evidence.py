"""What a workspace holds of an agent's tasks beside its outbox: change log, backups, records, progress, briefs.

A damaged outbox is filled in from it.  The later word counts: backups and the change log are gone through in the order
of time, and a task that was taken out since is `gone`.  Records, progress and briefs say less, and only what nothing
better says.  Every value comes with its source.
"""

from __future__ import annotations

import time

from recovery import damage, durable, jsontext, layout, salvage, tasks, verbs
from recovery.errors import RecoveryError
from recovery.examine import BACKUP, RECORD, change_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.salvage import Item
    from recovery.store import FileStore

    Known = tuple[str, str]  # JSON (latin-1 text), and the source

#: The members of a completion record that are members of the task too.
_OF_RECORD = ("status", "completed_at", "completion_message", "title")
_HOURS = "- Estimated hours: "


class Evidence:
    """What is known elsewhere.

    fields   each task's members, by name
    order    the tasks, as they stood
    gone     tasks that were taken out of the outbox, with the source of that
    top      the outbox's other members
    history  entries of its history
    logged   for each task the members that the change log speaks of: nothing else overrules those
    done     what completion records say; see `of`
    """

    def __init__(self) -> None:
        self.fields: dict[str, dict[str, Known]] = {}
        self.order: list[str] = []
        self.gone: dict[str, str] = {}
        self.top: dict[str, Known] = {}
        self.history: list[Known] = []
        self.logged: dict[str, set[str]] = {}
        self.done: dict[str, dict[str, Known]] = {}

    def of(self, task: str) -> dict[str, Known]:
        """What is known of a task, by member: its record's word before all that the change log has not spoken of."""
        known = dict(self.fields.get(task, {}))
        record = self.done.get(task, {})
        if "status" in self.logged.get(task, ()):
            record = {key: value for key, value in record.items() if key == "title"}
        for key, value in record.items():
            if key != "title" or key not in known:
                known[key] = value
        return known

    def set(self, task: str, key: str, text: str, source: str) -> None:
        if task not in self.fields:
            self.fields[task] = {}
            self.order.append(task)
        self.gone.pop(task, None)
        self.fields[task][key] = (text, source)

    def hint(self, task: str, key: str, value: Any, source: str) -> None:
        """What one of the weaker sources says: it counts where nothing else is known."""
        if type(value) is str and value and key not in self.fields.get(task, {}):
            self.set(task, key, jsontext.to_latin(jsontext.quote(value)), source)

    def take_out(self, task: str, source: str) -> None:
        if self.fields.pop(task, None) is not None:
            self.order.remove(task)
        self.logged.pop(task, None)
        self.gone[task] = source

    def state(self, top: Item, source: str) -> None:
        """A whole outbox as it once was."""
        listed = top.get("tasks")
        there = set()
        for part in listed.expand() if listed is not None and listed.kind == "[" else ():
            task = part.item.word("task_id")
            if task and part.item.kind == "{":
                there.add(task)
                self.entry(task, part.item, source)
        for task in [one for one in self.order if one not in there]:
            self.take_out(task, source)
        for part in top.expand():
            if part.key == "history" and part.item.kind == "[":
                self.history = [(entry.item.text(), source) for entry in part.item.expand()]
            elif part.key != "tasks":
                self.top[part.key] = (part.item.text(), source)

    def entry(self, task: str, item: Item, source: str) -> None:
        """A whole task as it once was."""
        if task in self.fields:
            self.fields[task] = {}
        for part in item.expand():
            self.set(task, part.key, part.item.text(), source)


def gather(store: FileStore, agent: str) -> Evidence:
    """All of it, for one agent.  What can't be read is passed over: it is no evidence."""
    found = Evidence()
    waiting = _backups(store, agent)
    name = layout.outbox(agent)
    seen = set()
    for log, line in change_lines(store, jsontext.dumps(name).encode()):
        seen.add(line["txid"])
        for file in line["files"]:
            if file["name"] == name:
                for one in [one for one in waiting if one[0] < line["time"] or one[1] == file.get("before")]:
                    found.state(one[3], one[2])
                    waiting.remove(one)
                _apply(found, file, f"{log} ({line['txid']})")
    for one in waiting:
        found.state(one[3], one[2])
    _journal(store, found, name, seen)
    _records(store, found, agent)
    _progress(store, found, agent)
    _briefs(store, found, agent)
    return found


def _backups(store: FileStore, agent: str) -> list[tuple[str, str, str, Item]]:
    """The backups that are whole outboxes, oldest first: time, hash, name, content."""
    found = []
    for base in store.list(f"postbox/{agent}"):
        name = f"postbox/{agent}/{base}"
        if not base.startswith(BACKUP):
            continue
        try:
            version = store.read(name, strict=False)
            if version is None or damage.whole_outbox(version.text.encode("latin-1")) is None:
                continue
        except RecoveryError:
            continue
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(version.mtime / 1e9))
        found.append((when, version.hash, name, salvage.Item.of(version.text.strip(" \t\r\n"))))
    return sorted(found, key=lambda one: one[0])


def _apply(found: Evidence, file: dict[str, Any], source: str) -> None:
    """What one recorded change made of the outbox."""
    if "ops" not in file:
        after = file["write"][1] if isinstance(file["write"], list) and len(file["write"]) == 2 else None
        text = jsontext.to_latin(after) if isinstance(after, str) else ""
        if damage.whole_outbox(text.encode("latin-1")) is not None:
            found.state(salvage.Item.of(text.strip(" \t\r\n")), source)
        return
    for op in file["ops"]:
        path, after = op.get("path"), op.get("after")
        if op.get("op") != "set" or not isinstance(path, list) or not path:
            continue
        value = _json(after)
        if value is None and after is not None:
            continue
        if path[0] == "tasks" and len(path) > 1 and isinstance(path[1], list) and path[1][:1] == ["task_id"]:
            _apply_to_task(found, str(path[1][1]), path[2:], value, source)
        elif path[0] == "history" and len(path) == 2 and value is not None:
            found.history.append((value, source))
        elif len(path) == 1 and isinstance(path[0], str) and path[0] != "history" and value is not None:
            found.top[path[0]] = (value, source)


def _json(text: Any) -> Optional[str]:
    """The latin-1 text of a recorded value, None for what is no JSON: anybody may have written it."""
    try:
        latin = jsontext.to_latin(text).strip(" \t\r\n")
        return latin if jsontext.value_at(latin, 0, unique=True)[1] == len(latin) else None
    except (ValueError, AttributeError):
        return None


def _apply_to_task(found: Evidence, task: str, path: list[Any], value: Optional[str], source: str) -> None:
    if not path and value is None:
        found.take_out(task, source)
    elif not path and value is not None:
        if value[:1] == "{":
            found.entry(task, salvage.Item.of(value), source)
            found.logged[task] = set(found.fields.get(task, ()))
    elif len(path) == 1 and isinstance(path[0], str):
        found.logged.setdefault(task, set()).add(path[0])
        if value is not None:
            found.set(task, path[0], value, source)
        else:
            found.fields.get(task, {}).pop(path[0], None)
    elif isinstance(path[0], str):
        found.fields.get(task, {}).pop(path[0], None)  # a member of a member: what the whole is now, nobody recorded


def _journal(store: FileStore, found: Evidence, name: str, seen: set[str]) -> None:
    """The last commit's record, where the change log has lost its line."""
    try:
        journal = store.journal()
        record = journal.read() if journal is not None else None
        if record is None or record.direction != "REDO" or record.txid in seen:
            return
        for file in record.body["line"]["files"]:
            if file["name"] == name:
                _apply(found, file, f"{layout.JOURNAL} ({record.txid})")
    except (RecoveryError, OSError, KeyError, TypeError):
        pass


def _records(store: FileStore, found: Evidence, agent: str) -> None:
    """Completion records: what they say counts, unless the change log has spoken of the task's status."""
    for base in store.list(f"postbox/{agent}/completed"):
        task = base[: -len(RECORD)]
        if not base.endswith(RECORD) or not layout.is_id(task):
            continue
        name = layout.record(agent, task)
        record = verbs.read_record(store, name)
        if record is None or record.get("agent_id", agent) != agent:
            continue
        words = {key: record[key] for key in _OF_RECORD if type(record.get(key)) is str}
        found.done[task] = {key: (jsontext.to_latin(jsontext.quote(word)), name) for key, word in words.items()}


def _progress(store: FileStore, found: Evidence, agent: str) -> None:
    try:
        version = store.read(layout.PROGRESS)
        progress = tasks.Progress(layout.PROGRESS, version) if version is not None else None
    except RecoveryError:
        return
    if progress is None:
        return
    alone = not {"outbox.json", "completed", "archive"}.intersection(store.list(f"postbox/{agent}"))
    for task, entries in progress.listed.items():
        for _, start in entries:
            try:
                node = progress.node_of(task, start)
            except RecoveryError:
                continue
            if progress.owner(node)[1] != agent or task in found.gone or not layout.is_id(task):
                continue
            entry = {key: tasks.field(progress.text, node, key) for key in ("title", "status", "completed_at")}
            if not alone and task not in found.fields and (entry["status"] or "").lower() in tasks.CLOSED:
                continue  # done, and maybe archived: its record says so
            for key, value in entry.items():
                found.hint(task, key, value, layout.PROGRESS)


def _briefs(store: FileStore, found: Evidence, agent: str) -> None:
    """The briefs of assigned tasks, in the words of `tasks.inbox_note`."""
    for base in store.list(f"postbox/{agent}/inbox"):
        task = base[:-3]
        if not base.endswith(".md") or not layout.is_id(task) or task in found.gone or task in found.done:
            continue
        name = layout.inbox(agent, task)
        try:
            version = store.read(name)
        except RecoveryError:
            continue
        lines = jsontext.from_latin(version.text).split("\n") if version is not None else []
        if not lines or not lines[0].startswith(f"# {task}: "):
            continue
        found.hint(task, "title", lines[0][len(task) + 4 :], name)
        for line in lines[1:8]:
            for key, word in (("priority", "- Priority: "), ("created_at", "- Assigned: ")):
                if line.startswith(word):
                    found.hint(task, key, line[len(word) :], name)
            hours = line[len(_HOURS) :] if line.startswith(_HOURS) else ""
            if hours.isascii() and hours.replace(".", "", 1).isdigit() and hours[0] != "." and hours[-1] != ".":
                if task in found.fields and "estimated_hours" not in found.fields[task]:
                    found.set(task, "estimated_hours", str(float(hours)) if hours[0] == "0" else hours, name)


class Progress:
    """What the change log knows of progress.json: `entries`, each task's members; the last whole `text` (latin-1).

    `text` is "" unless the log has every change since the file was written as a whole, and nobody wrote past the suite
    in between.
    """

    def __init__(self, store: FileStore) -> None:
        self.entries: dict[str, dict[str, Known]] = {}
        self.text = ""
        for log, line in change_lines(store, jsontext.dumps(layout.PROGRESS).encode()):
            for file in line["files"]:
                if file["name"] != layout.PROGRESS:
                    continue
                source = f"{log} ({line['txid']})"
                self.text = _after(self.text, file)
                if "ops" in file:
                    apply_to_progress(self.entries, file["ops"], source)
                elif self.text:
                    self.entries = dict(_entries(self.text, source))

    def word(self, task: str, key: str) -> str:
        """A member of an entry that is a text, "" if there is none."""
        text, _ = self.entries.get(task, {}).get(key, ("", ""))
        value = jsontext.loads(jsontext.from_latin(text)) if text else ""
        return value if type(value) is str else ""


def _after(text: str, file: dict[str, Any]) -> str:
    """A file's text after a recorded change, "" where that can't be known."""
    try:
        if "ops" in file:
            text = jsontext.applied(text, file["ops"]) if text else ""
        else:
            text = (file["write"][1] or "").encode("utf-8", "surrogateescape").decode("latin-1")
    except (LookupError, TypeError, ValueError, AttributeError):
        return ""
    return text if text and durable.digest_of(text.encode("latin-1")) == file.get("after") else ""


def _entries(text: str, source: str) -> Iterator[tuple[str, dict[str, Known]]]:
    """The entries of a whole progress.json, by the id of their task."""
    listed = salvage.Item.of(text.strip(" \t\r\n")).get("tasks")
    for part in listed.expand() if listed is not None and listed.kind else ():
        task = part.key or part.item.word("task_id") or part.item.word("id")
        if task and part.item.kind == "{":
            yield task, {member.key: (member.item.text(), source) for member in part.item.expand()}


def apply_to_progress(known: dict[str, dict[str, Known]], ops: list[dict[str, Any]], source: str) -> None:
    """What one recorded change made of progress.json: of each task its entry's members, with their source."""
    for op in ops:
        path, after = op.get("path"), op.get("after")
        if op.get("op") != "set" or not isinstance(path, list) or path[:1] != ["tasks"] or len(path) not in (2, 3):
            continue
        step = path[1]
        task = step if isinstance(step, str) else str(step[1]) if isinstance(step, list) and len(step) > 1 else ""
        text = _json(after) or ""
        if after is not None and not text:
            continue
        if len(path) == 2 and not text:
            known.pop(task, None)
        elif len(path) == 2 and text[0] == "{":
            known[task] = {part.key: (part.item.text(), source) for part in salvage.Item.of(text).expand()}
        elif len(path) == 3 and isinstance(path[2], str):
            fields = known.setdefault(task, {})
            fields.pop(path[2], None)
            if text:
                fields[path[2]] = (text, source)
