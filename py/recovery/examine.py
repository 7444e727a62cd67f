"""Looking through a workspace for what is broken: reads only, and holds one agent's folder at a time.

What is read without a lock may be met half-way; a file in which something is wrong is therefore read again, until it
is the same twice.
"""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR, S_ISREG

from recovery import (
    archived,
    chain,
    contention,
    damage,
    derived,
    durable,
    finish,
    gone,
    jsonl,
    jsontext,
    layout,
    rebuild,
    say,
    segments,
    tasks,
    verbs,
)
from recovery.damage import Finding
from recovery.errors import DataError, RecoveryError
from recovery.store import config_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Optional

    from recovery.store import FileStore

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STAGED = "a staged file without an owner"
BACKUP = "outbox.json.backup_"
RECORD = "_completion.json"
_SNAPSHOT = "_checkpoint.json"
#: What nobody can make again: whether a call was made, why a task was parked.
_PERSONS = (layout.ONCE + "/", layout.MANUAL + "/")
#: A document larger than this is not looked through: it would have to be held as a whole.
LARGEST = 1 << 28
#: So many torn lines of one log are told.
TORN = 20
#: Read again so often where something is wrong and the file keeps changing.
_ROUNDS = 8


class Examined:
    """What was looked through: the findings, and how many agents and files."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.agents = self.files = 0
        self.torn = 0  # lines of logs
        self.notes: list[str] = []


def examine(store: FileStore, only: str = "") -> Examined:
    """Look through a workspace, or through what is one agent's.  A crash leaves nothing: it only reads."""
    look = _Look(store, only)
    for name in look.blocked:
        person = put_away(store, name)
        look.tell(name, "not-a-folder", "something else stands where a folder belongs", person=person)
    look.agents_all()
    if "data" not in look.blocked:
        look.shared_files()
    return look.found


def bytes_of(folder: int, base: str) -> Optional[bytes]:
    """A regular file's bytes as they were at one moment; None if it is gone, or is no such file (OSError says why)."""
    for _ in range(_ROUNDS):
        try:
            fd = os.open(base, _READ, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            st = os.fstat(fd)
            if not S_ISREG(st.st_mode):
                raise OSError(errno.EISDIR if S_ISDIR(st.st_mode) else errno.ENXIO, "not a regular file")
            if st.st_size > LARGEST:
                raise OSError(errno.EFBIG, "too large")
            data = durable.read_all(fd, st.st_size)
            now = os.fstat(fd)
        finally:
            os.close(fd)
        if (now.st_size, now.st_mtime_ns) == (st.st_size, st.st_mtime_ns) and len(data) == st.st_size:
            break
    return data


def settled(folder: int, base: str, is_well: Callable[[bytes], Any]) -> tuple[Optional[bytes], Any]:
    """A file's bytes and what `is_well` makes of them; where that is None, read until it is the same twice."""
    data = bytes_of(folder, base)
    if data is None:
        return None, None
    value = is_well(data)
    for _ in range(_ROUNDS):
        if value is not None:
            break
        again = bytes_of(folder, base)
        if again is None or again == data:
            return again, None
        data, value = again, is_well(again)
    return data, value


class _Look:
    def __init__(self, store: FileStore, only: str) -> None:
        self.store, self.only = store, only
        self.found = Examined()
        #: in the place of these folders stands something else: nothing below them is looked for
        self.blocked = verbs.blocked_folders(store)
        #: what progress is compared with: every task there is, and those completed and gone; None once it can't be
        self.compared: Optional[list[rebuild.Task]] = [] if not only else None
        try:
            if "progress.json" not in store.list(".sprint"):
                self.compared = None
        except RecoveryError:  # which is told where it is looked through
            self.compared = None
        self.done: dict[str, list[str]] = {}
        self._known: Optional[gone.Known] = None

    def tell(self, name: str, kind: str, words: str, line: int = 0, column: int = 0, **more: str) -> Finding:
        finding = Finding(name, kind, words, line, column, **more)
        self.found.findings.append(finding)
        return finding

    # --- agents

    def agents_all(self) -> None:
        try:
            postbox = os.open("postbox", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.store.root.folder(""))
        except OSError as error:
            self._refused("postbox", error, "")
            return
        try:
            names = os.listdir(postbox)
            for name in [self.only] if self.only else sorted(names):
                if layout.is_id(name):
                    self._agent(postbox, name)
            for name in self.known.missed(self.only) if self.only not in names else ():
                if name not in names and not os.path.lexists(os.path.join(self.store.root.path, "postbox", name)):
                    self._gone(name)
        finally:
            os.close(postbox)

    def _agent(self, postbox: int, agent: str) -> None:
        try:
            folder = os.open(agent, _FOLDER, dir_fd=postbox)
        except OSError as error:
            if error.errno != errno.ENOTDIR or os.path.islink(os.path.join(self.store.root.path, "postbox", agent)):
                self._refused(f"postbox/{agent}", error, agent)
            return
        try:
            names = os.listdir(folder)
            value = None
            if "outbox.json" in names:
                self.found.agents += 1
                value = self._outbox(folder, agent)
            elif self._was_here(agent, names):
                self.tell(layout.outbox(agent), "missing", "the agent's folder has no outbox", agent=agent)
                self.compared = None
            if len(names) > 1 or not names:
                self._beside(folder, agent, names, value)
        except OSError as error:
            self._refused(f"postbox/{agent}", error, agent)
        finally:
            os.close(folder)

    @property
    def known(self) -> gone.Known:
        if self._known is None:
            self._known = gone.Known(self.store)
        return self._known

    def _gone(self, agent: str) -> None:
        """An agent without a folder who is missed: with how much, as far as it is known."""
        from recovery import evidence

        count = len(evidence.gather(self.store, agent).order)
        words = "the agent's folder is gone" + (f", and with it {count} task(s) at least" if count else "")
        words += f" ({self.known.words(agent)}); if it was removed on purpose: recovery doctor --removed {agent}"
        self.tell(layout.outbox(agent), "missing", words, agent=agent)
        self.compared = None

    def _was_here(self, agent: str, names: list[str]) -> bool:
        """Whether an agent had an outbox: its backup or archive, a record, or the change log says so."""
        if "archive" in names or any(name.startswith(BACKUP) for name in names) or self.known.misses(agent):
            return True
        return "completed" in names and any(
            name.endswith(RECORD) for name in self.store.list(f"postbox/{agent}/completed")
        )

    def _outbox(self, folder: int, agent: str) -> Optional[dict[str, Any]]:
        name = layout.outbox(agent)
        self.found.files += 1
        try:
            data, value = settled(folder, "outbox.json", damage.whole_outbox)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return self._linked(name, agent)
            self._refused(name, error, agent)
            return None
        if data is not None:
            self._mode(folder, name, agent)
            if value is None:
                self.found.findings += damage.leave_large(damage.outbox(name, agent, data)[0], data)
            else:
                self.found.findings += damage.unusable(name, agent, value)
        if value is None:
            self.compared = None
        elif self.compared is not None:
            self._note(agent, value)
        return dict(value) if value is not None else None

    def _mode(self, folder: int, name: str, agent: str) -> None:
        """Whether those who share an agent's folder, and its owner, may read what is in there."""
        try:
            st, above = os.stat("outbox.json", dir_fd=folder, follow_symlinks=False), os.fstat(folder)
        except OSError:
            return
        group = st.st_gid == above.st_gid and st.st_mode & 0o040
        if st.st_mode & 0o004 or (group and above.st_uid != st.st_uid):
            return
        if above.st_uid != st.st_uid and above.st_uid:
            words = f"belongs to user {st.st_uid}, and user {above.st_uid}, whose folder it is, may not read it"
        elif above.st_mode & 0o020 and not group:
            words = f"is closed to group {above.st_gid}, with which its folder is shared"
        else:
            return
        person = f"chgrp {above.st_gid} {name} && chmod g+rw {name}"
        self.tell(name, "permission", words, agent=agent, person=person)

    def _linked(self, name: str, agent: str) -> Optional[dict[str, Any]]:
        """An outbox that is a link: one that stays inside is as good as a file."""
        try:
            place = self.store.root.place(name)
            data, value = settled(place.folder, place.base, damage.whole_outbox)
            if data is not None and value is None:
                self.found.findings += damage.leave_large(damage.outbox(name, agent, data)[0], data)
                self.compared = None
            return dict(value) if value is not None else None
        except DataError as error:
            words = str(error).replace(f"{name} is ", "is ", 1)
            self.tell(name, "link", words, agent=agent, person="replace the link by a file")
        except OSError as error:
            self._refused(name, error, agent)
        self.compared = None
        return None

    def _note(self, agent: str, value: dict[str, Any]) -> None:
        """Keep of an outbox what progress is compared with."""
        assert self.compared is not None
        for task in value["tasks"]:
            if type(task.get("task_id")) is not str or not layout.is_id(task["task_id"]):
                continue
            status = "pending" if task.get("status") is None else task["status"]
            words = (_text(task.get(key)) for key in ("title", "completed_at"))
            self.compared.append(rebuild.Task(agent, task["task_id"], status, *words))
        history = value.get("history")
        for entry in history if isinstance(history, list) else ():
            if isinstance(entry, dict) and type(entry.get("task_id")) is str:
                if type(entry.get("status")) is str and entry["status"].lower() == "completed":
                    self._add_done(entry["task_id"], agent)

    def _add_done(self, task: str, agent: str) -> None:
        if agent not in self.done.setdefault(task, []):
            self.done[task].append(agent)

    def _beside(self, folder: int, agent: str, names: list[str], value: Optional[dict[str, Any]]) -> None:
        """Backups, records, staged files of an agent."""
        for base in names:
            if base.startswith(BACKUP):
                self._backup(folder, agent, base, value)
            elif _is_stage(base) and _is_left(folder, folder, base):
                self.tell(f"postbox/{agent}/{base}", "leftover", _STAGED, agent=agent)
        for base in ("completed", "inbox", "archive"):
            if base not in names:
                continue
            try:
                below = os.open(base, _FOLDER, dir_fd=folder)
            except OSError as error:
                self._refused(f"postbox/{agent}/{base}", error, agent)
                continue
            try:
                if base == "archive":
                    self._archive(agent)
                    continue
                for one in sorted(os.listdir(below)):
                    if _is_stage(one) and _is_left(folder, below, one):
                        self.tell(f"postbox/{agent}/{base}/{one}", "leftover", _STAGED, agent=agent)
                    elif base == "completed" and one.endswith(RECORD):
                        self._record(below, agent, one, value)
            finally:
                os.close(below)

    def _archive(self, agent: str) -> None:
        """An agent's archive: its logs, their parts, and whether each line is of a task of this agent."""
        self._folder(layout.archives(agent), agent)
        for month in segments.logs(self.store, layout.archives(agent)):
            for part in (*segments.of(self.store, month), month):
                try:
                    records = jsonl.records(segments.read(self.store, part) or b"")[0]
                except (RecoveryError, OSError):
                    continue  # which was told
                wrong = [words for words in map(archived.flaw_of, records, [agent] * len(records)) if words]
                if wrong:
                    more = f", and {len(wrong) - 1} line(s) more like that" if len(wrong) > 1 else ""
                    person = "see whose it is, and move the line there"
                    self.tell(part, "foreign", wrong[0] + more, agent=agent, person=person)

    def _archived(self) -> None:
        """Lines that the change log gave to an archive and that it has lost."""
        for _ in range(_ROUNDS):
            before = self._last_commit()
            lost = lost_archived(self.store, self.only)
            if not lost or (before is not None and before == self._last_commit()):
                break
        else:
            return
        for name, lines in lost.items():
            some = " ".join(str(item["append"].get("task_id")) for _, item in lines[:3])
            more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
            self.tell(name, "lost-line", f"{some}{more} should be there", agent=name.split("/")[1])

    def _record(self, folder: int, agent: str, base: str, outbox: Optional[dict[str, Any]]) -> None:
        name, task = f"postbox/{agent}/completed/{base}", base[: -len(RECORD)]
        self.found.files += 1
        try:
            data, value = settled(folder, base, damage.whole_object)
        except OSError as error:
            self._refused(name, error, agent)
            return
        if data is None:
            return
        if value is None:
            self.found.findings += damage.leave_large(damage.object_file(name, data, agent)[0], data)
            return
        if not layout.is_id(task) or _text(value.get("status")) != "completed":
            return
        if outbox is not None and _says_otherwise(outbox, task):
            self._disagreement(agent, task, name)
        if self.compared is not None:
            self._add_done(task, agent)

    def _disagreement(self, agent: str, task: str, name: str) -> None:
        """A record of a task that its outbox calls open; looked at once more, for both change in one commit."""
        try:
            version, record = self.store.read(layout.outbox(agent)), self.store.read(name)
        except RecoveryError:
            return
        self.store.root.forget(f"postbox/{agent}")
        outbox = damage.whole_outbox(version.text.encode("latin-1")) if version is not None else None
        if record is None or outbox is None or not _says_otherwise(outbox, task):
            return
        words = f"{task} is completed by its record, and open in the outbox"
        person = f"see which is right: recovery complete {agent} {task}, or recovery reopen {agent} {task} after that"
        self.tell(name, "record", words, agent=agent, person=person)

    def _backup(self, folder: int, agent: str, base: str, outbox: Optional[dict[str, Any]]) -> None:
        self.found.files += 1
        name = f"postbox/{agent}/{base}"
        try:
            data, value = settled(folder, base, damage.whole_outbox)
        except OSError as error:
            self._refused(name, error, agent)
            return
        if data is None or not _is_left(folder, folder, base):
            return
        if value is None:
            self.tell(name, "stale-backup", "is damaged itself, so it is no backup", 1, 1, agent=agent)
        elif outbox is not None and self._is_stale(agent, base, data) and _is_left(folder, folder, base):
            self.tell(name, "stale-backup", "the change that it was made for was committed", agent=agent)

    def _is_stale(self, agent: str, base: str, data: bytes) -> bool:
        """Whether the commit that a backup was made for is recorded as done, and nobody asked to keep it."""
        name, digest = f"postbox/{agent}/{base}", durable.digest_of(data)
        for _, line in change_lines(self.store, f'"backup": {jsontext.quote(name)}'.encode()):
            if line.get("backup") == name and not line.get("keep_backup"):
                if digest in [file.get("before") for file in line["files"]]:
                    return True
        return False

    # --- everybody's

    def shared_files(self) -> None:
        self._config()
        self._checks()
        self._rules()
        self._progress()
        self._journal()
        self._conflicts()
        self._archived()
        if not self.only:
            for folder in (layout.CHANGES, layout.CHECKPOINTS, layout.LOGS, layout.RECEIPTS, layout.TIMINGS):
                self._folder(folder)
            for folder in (layout.BREAKERS, layout.MANUAL, layout.ONCE, layout.REMOVED):
                self._folder(folder)
        self._chains()

    def _open(self, name: str) -> Optional[durable.Place]:
        try:
            return self.store.root.place(name)
        except FileNotFoundError:
            return None
        except DataError as error:
            words = str(error).replace(f"{name} is ", "is ", 1)
            self.tell(name, "link", words, person="replace the link by a file")
        except OSError as error:
            self._refused(name, error, "")
        return None

    def _config(self) -> None:
        place = self._open(layout.CONFIG)
        if place is None:
            return
        try:
            data, value = settled(place.folder, place.base, whole_config)
        except OSError as error:
            self._refused(layout.CONFIG, error, "")
            return
        self.found.files += data is not None
        if data is not None and value is None:
            self.found.findings += config(data)

    def _checks(self) -> None:
        """checks.json, which is a person's: what is wrong with it is said, and nothing else done."""
        if self.only or self.store.read_state(layout.CHECKS) is None:
            return
        from recovery.checkfile import Checks

        self.found.files += 1
        try:
            version = self.store.read(layout.CHECKS, strict=False)
            if version is not None:
                Checks(version.text.encode("latin-1"))
        except RecoveryError as error:
            words = str(error).replace(". Nothing changed.", "")
            for told in (f"{layout.CHECKS}: ", f"{layout.CHECKS} is damaged: "):
                words = words[len(told) :] if words.startswith(told) else words
            self.tell(layout.CHECKS, "damaged", words, person="put it right, then `recovery trust`")

    def _rules(self) -> None:
        """alerts.rules, a person's too."""
        if self.only or self.store.read_state(layout.ALERT_RULES) is None:
            return
        from recovery import alert_rules

        self.found.files += 1
        person = "put it right; `health_check.sh --help` has what a rule is"
        try:
            _, bad = alert_rules.read(self.store) or ([], [])
        except RecoveryError as error:
            self.tell(layout.ALERT_RULES, "damaged", str(error), person=person)
            return
        for one in bad[:TORN]:
            self.tell(layout.ALERT_RULES, "damaged", one.words, one.line, one.column, person=person)
        if len(bad) > TORN:
            self.tell(layout.ALERT_RULES, "damaged", f"and {len(bad) - TORN} lines more like that", person=person)

    def _progress(self) -> None:
        if self.only or ".sprint" in self.blocked:
            return
        place = self._open(layout.PROGRESS)
        if place is None:
            return
        self.found.files += 1
        try:
            data, value = settled(place.folder, place.base, whole_progress)
        except OSError as error:
            self._refused(layout.PROGRESS, error, "")
            return
        if data is None:
            if verbs.misses_progress(self.store):
                self.tell(layout.PROGRESS, "missing", "its lock file is there, and it is not")
            return
        if value is None:
            self.found.findings += damage.leave_large(progress(data), data)
            return
        if self.compared is None:
            return
        try:
            changes = rebuild.rebuild(value, self.compared, self.done, "", "", add=False).changes
            if changes:
                changes = self._compared_again()
        except DataError as error:
            self.tell(layout.PROGRESS, "shape", str(error), person="put it right by hand")
            return
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            self.tell(layout.PROGRESS, "disagrees", "; ".join(changes[:3]) + more)

    def _compared_again(self) -> list[str]:
        """What progress says otherwise, looked at until no commit came between; nothing where they never stop."""
        for _ in range(_ROUNDS):
            before = self._last_commit()
            again = _Look(self.store, "")
            again.agents_all()
            place = self.store.root.place(layout.PROGRESS)
            _, value = settled(place.folder, place.base, whole_progress)
            if before is None or value is None or again.compared is None:
                return []
            changes = rebuild.rebuild(value, again.compared, again.done, "", "", add=False).changes
            if not changes or self._last_commit() == before:
                return changes
        return []

    def _last_commit(self) -> Optional[int]:
        """The number of the last commit, 0 if there was none; None while one is not finished."""
        journal = self.store.journal()
        record = journal.read() if journal is not None else None
        if record is not None and not record.finished:
            return None
        return record.seq if record is not None else 0

    def _journal(self) -> None:
        try:
            record = self.store.unfinished()
            if record is None:
                if not self.only and finish.is_garbled(self.store):
                    self.tell(layout.JOURNAL, "garbled", "holds no record that can be read")
                return
            if contention.is_committing(self.store):
                return
            again = self.store.unfinished()  # its owner may just have come to its end
            if again is None or again.seq != record.seq:
                return
            finish.files_of(record)
            line = record.body["line"]
            what = f"{line['op']} {line['agent']}/{line['task']} of {line['time']}, by pid {line['by']['pid']}"
            if not self.only or line["agent"] == self.only:
                self.tell(layout.JOURNAL, "journal", what)
        except (DataError, KeyError, TypeError) as error:
            words = str(error) if isinstance(error, DataError) else "holds a record that can't be read"
            self.tell(layout.JOURNAL, "journal-damaged", words)
        except OSError as error:
            self._refused(layout.JOURNAL, error, "")

    def _conflicts(self) -> None:
        for base in self.store.list(layout.CONFLICTS):
            if base.endswith(".parked.json"):
                agent, _, rest = base.partition("@")
                if self.only in ("", agent):
                    words = f"{agent}/{rest.partition('@')[0]} could be neither finished nor undone"
                    self.tell(f"{layout.CONFLICTS}/{base}", "parked", words, agent=agent if layout.is_id(agent) else "")

    def _folder(self, folder: str, agent: str = "") -> None:
        """The logs with their parts, and the objects, of one of our own folders."""
        for base in self.store.list(folder):
            name = f"{folder}/{base}"
            if base.startswith("."):
                continue
            part = segments.parse(base)
            if base.endswith(".jsonl") or (part is not None and not base.endswith(".gz")):
                self._log(name, agent)
            elif part is not None:
                self._packed(name, agent)
            elif base.endswith(".json"):
                self._object(name)

        for log in segments.logs(self.store, folder):
            for name, before, after in segments.missing(self.store, log):
                self.tell(name, "part-gone", gone_between(self.store, before, after), agent=agent)

    def _object(self, name: str) -> None:
        place = self._open(name)
        if place is None:
            return
        self.found.files += 1
        try:
            data, value = settled(place.folder, place.base, damage.whole_object)
        except OSError as error:
            self._refused(name, error, "")
            return
        if data is None:
            return
        if value is None:
            found = damage.leave_large(damage.object_file(name, data)[0], data)
            for one in found:
                if name.startswith(_PERSONS):
                    one.repair, one.person = "", "nobody but a person can say what it was: look at it, then remove it"
            self.found.findings += found
        elif name.startswith(layout.CHECKPOINTS) and name.endswith(_SNAPSHOT):
            self._snapshot(name, value)

    def _snapshot(self, name: str, value: dict[str, Any]) -> None:
        """Whether a task's last checkpoint is the last of its history."""
        history = name[: -len(_SNAPSHOT)] + "_history.jsonl"
        last = last_record(self.store, history)
        same = ("checkpoint_id", "timestamp", "state")
        if last is None or all(last.get(key) == value.get(key) for key in same) or contention.is_committing(self.store):
            return
        last, version = last_record(self.store, history), self.store.read(name, strict=False)
        value_now = damage.whole_object(version.text.encode("latin-1")) if version is not None else None
        if last is not None and value_now is not None and any(last.get(key) != value_now.get(key) for key in same):
            self.tell(name, "cache", f"its last checkpoint is not that of {history}")

    def _packed(self, name: str, agent: str) -> None:
        place = self._open(name)
        if place is None:
            return
        self.found.files += 1
        try:
            data = bytes_of(place.folder, place.base)
        except OSError as error:
            self._refused(name, error, agent)
            return
        if data is not None and not segments.is_whole(data):
            there = jsonl.records(segments.read(self.store, name) or b"")[0]
            lost = lost_changes(self.store, name) if name.startswith(layout.CHANGES) else ""
            self.tell(name, "packed", f"{len(there)} line(s) of it are left" + lost, agent=agent)

    def _log(self, name: str, agent: str = "") -> None:
        place = self._open(name)
        if place is None:
            return
        self.found.files += 1
        try:
            count = 0
            for number, _, length, words in torn_lines(self.store, name):
                count += 1
                if count <= TORN:
                    self.tell(name, "torn-line", f"{length} bytes {words}", number, 1, agent=agent)
            self.found.torn += count
            if count > TORN:
                self.tell(name, "torn-line", f"and {count - TORN} lines more like that", number, 1, agent=agent)
            lost = lost_changes(self.store, name) if count and name.startswith(layout.CHANGES) else ""
            if lost:
                self.found.findings[-1].words += lost
        except OSError as error:
            self._refused(name, error, agent)
        except DataError as error:
            self.tell(name, "not-a-file", str(error), person="replace it by a file")

    def _chains(self) -> None:
        """Whether receipts, completion records and outboxes fit together; `recovery receipts verify` says more."""
        from recovery import receipts

        for agent in chain.agents(self.store):
            if self.only in ("", agent):
                try:
                    data = receipts.verify(self.store, agent).data
                    wrong = data["agents"][agent]["findings"]
                except RecoveryError as error:
                    wrong = [str(error)]
                for words in wrong:
                    if "torn or foreign" not in words:
                        person = f"recovery receipts verify --agent {agent} says more"
                        self.tell(layout.receipts(agent), "chain", words, agent=agent, person=person)

    def _refused(self, name: str, error: OSError, agent: str) -> None:
        """A file or folder that can't be opened, or is none; one that is gone by now is nobody's trouble."""
        self.compared = None
        if error.errno == errno.ENOENT:
            return
        kind, person = "permission", f"look at {name}: ls -ld"
        if error.errno in (errno.EACCES, errno.EPERM):
            person = "give it owner and mode of its folder (chown, chmod)"
        elif error.errno in (errno.ELOOP, errno.ENOTDIR):
            kind, person = "link", "replace the link by what belongs there"
        elif error.errno in (errno.EISDIR, errno.ENXIO):
            kind, person = "not-a-file", put_away(self.store, name)
        elif error.errno == errno.EFBIG:
            kind, person = "too-large", "look at it"
        self.tell(name, kind, error.strerror or str(error), agent=agent, person=person)


def put_away(store: FileStore, name: str) -> str:
    """The command that moves away what stands in the place of a file or folder, from any folder."""
    path = free = os.path.join(os.path.abspath(store.root.path), name) + ".away"
    number = 1
    while os.path.lexists(free):
        free, number = f"{path}.{number}", number + 1
    return f"mv {say.quoted(path[: -len('.away')])} {say.quoted(free)}"


def _says_otherwise(outbox: dict[str, Any], task: str) -> bool:
    """Whether an outbox has a task, and not as completed."""
    return any(
        entry.get("task_id") == task and _text(entry.get("status") or "pending").lower() not in ("completed", "")
        for entry in outbox["tasks"]
    )


def _text(value: Any) -> str:
    """A string of latin-1 text as a string, "" for anything else."""
    try:
        return jsontext.from_latin(value) if type(value) is str else ""
    except UnicodeEncodeError:  # it was written with escapes, which are read already
        return str(value)


def _is_stage(base: str) -> bool:
    return base.startswith(".") and base.endswith(".stage")


def _is_left(agent: int, folder: int, base: str) -> bool:
    """Whether a file is there still that only who holds the outbox's lock should have, and nobody holds it."""
    if contention.is_busy(agent, ".outbox.json.lock"):
        return False
    try:
        os.stat(base, dir_fd=folder, follow_symlinks=False)
        return True
    except OSError:
        return False


def whole_progress(data: bytes) -> Optional[tasks.Progress]:
    """progress.json, read; None if it is damaged."""
    if damage.whole_object(data) is None:
        return None
    try:
        return tasks.Progress(layout.PROGRESS, version_of(data))
    except DataError:
        return None


def whole_config(data: bytes) -> Optional[dict[str, Any]]:
    """data/config.json, read; None if no command can use it."""
    try:
        return config_of(jsontext.decode(data))
    except ValueError:
        return None


def config(data: bytes) -> list[Finding]:
    """What is wrong with a data/config.json that no command can use."""
    if damage.whole_object(data) is None:
        return damage.object_file(layout.CONFIG, data)[0]
    return [Finding(layout.CONFIG, "shape", "has no `format` that is a number", 1, 1)]


def progress(data: bytes) -> list[Finding]:
    """What is wrong with a progress.json that is not whole."""
    name = layout.PROGRESS
    if damage.whole_object(data) is None:
        return damage.object_file(name, data)[0]
    try:
        tasks.Progress(name, version_of(data))
    except DataError as error:
        return [Finding(name, "shape", str(error).partition(": ")[2], 1, 1)]
    return [Finding(name, "damaged", "can't be read", 1, 1)]


def version_of(data: bytes) -> durable.Version:
    """Bytes as if they had just been read from nowhere."""
    return durable.Version(data.decode("latin-1"), durable.digest_of(data), os.stat_result((0,) * 10))


def change_lines(store: FileStore, holding: bytes = b"") -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of the change log that hold some bytes, oldest first, each with its log's name; bounded memory."""
    for log in segments.logs(store, layout.CHANGES):
        for name in (*segments.of(store, log), log):
            if name == log:
                found: Iterable[Optional[bytes]] = (data for _, _, _, data in _lines(store, name))
            else:
                found = (segments.read(store, name) or b"").split(b"\n")
            for data in found:
                if not data or holding not in data:
                    continue
                try:
                    line = jsontext.loads(data.decode("utf-8"))
                except ValueError:
                    continue
                if derived.is_change(line):
                    yield name, line


def _lines(store: FileStore, name: str) -> Iterator[tuple[int, int, int, Optional[bytes]]]:
    try:
        fd, _ = durable.open_regular(store.root.place(name))
    except (FileNotFoundError, DataError):
        return
    try:
        yield from jsonl.scan(fd)
    finally:
        os.close(fd)


def torn_lines(store: FileStore, name: str) -> Iterator[tuple[int, int, int, str]]:
    """The lines of a log that are no record: number, offset, length, words.  OSError, DataError.

    One that somebody may still be writing is none of them.
    """
    fd, _ = durable.open_regular(store.root.place(name))
    try:
        for number, at, length, data in jsonl.scan(fd):
            if data is not None and (jsonl.is_record(data) or not data.strip()):
                continue
            if not _is_written(store, fd, at + length):
                continue
            if data is None:
                words = "in one line: no record is that long"
            elif not data.strip(b"\0 \t\r"):
                words = "of NULs"
            else:
                words = "that are no whole record: " + tasks.quoted(data.decode("utf-8", "backslashreplace"), 40)
            yield number, at, length, words
    finally:
        os.close(fd)


def _is_written(store: FileStore, fd: int, end: int) -> bool:
    """Whether nobody is writing the line of a log that was read up to `end`.

    With a line end there it is written; any other byte is its writer's.  Where the log ends there, before and after a
    moment at which the commit lock was free, nobody was at it in between either: a log only grows.
    """
    after = os.pread(fd, 1, end)
    return after == b"\n" or (not after and not contention.is_committing(store) and not os.pread(fd, 1, end))


def lost_changes(store: FileStore, name: str) -> str:
    """Which changes are lost with what is torn, or can't be unpacked, in one part of the change log, in words.

    Numbers that are missing elsewhere are nobody's loss: a change that was undone as a whole has one, too.
    """
    lost: list[tuple[int, int]] = []
    last: Optional[int] = None
    torn = 0
    journal = store.journal()
    record = journal.read() if journal is not None else None
    parts = [part for log in segments.logs(store, layout.CHANGES) for part in (*segments.of(store, log), log)]
    for part in parts:
        data = segments.read(store, part) or b""
        for line in data.split(b"\n"):
            if not line:
                continue
            change = jsonl.record_of(line)
            if change is None or not derived.is_change(change):
                torn += part == name
                continue
            if torn and change["seq"] > (change["seq"] - torn if last is None else last + 1):
                lost.append((change["seq"] - torn if last is None else last + 1, change["seq"] - 1))
            last, torn = change["seq"], 0
        if part == name and name.endswith(".gz"):
            torn += 1
    if torn and last is not None and record is not None and record.finished and record.seq > last:
        lost.append((last + 1, record.seq))
    some = ", ".join(f"{a}" if a == z else f"{a} to {z}" for a, z in lost[:20])
    return f"; lost with it: change {some}" if some else ""


def gone_between(store: FileStore, before: str, after: str) -> str:
    """What stood between two parts of a log, in words: by the numbers of the changes around it, in the change log."""
    words = f"it stood between {before.rpartition('/')[2]} and {after.rpartition('/')[2]}"
    if not before.startswith(layout.CHANGES):
        return words
    ends = [derived.counted_lines(store, name)[0] for name in (before, after)]
    if all(ends):
        first, last = ends[0][-1]["seq"] + 1, ends[1][0]["seq"] - 1
        words += f"; gone with it: change {first}" + (f" to {last}" if last > first else "")
    return words


def lost_archived(store: FileStore, only: str = "") -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """By archive, the lines that the change log gave it and that are not there: txid and item of `derived`.

    A line that a later one of the same task has overruled is not missed.
    """
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    present = derived.Present(store)
    later: dict[str, dict[str, str]] = {}
    for _, line in change_lines(store, f"postbox/{only}/archive/".encode() if only else b"/archive/"):
        for item in line["derived"]:
            name = item["name"]
            if not layout.is_archive(name) or (only and name.split("/")[1] != only):
                continue
            try:
                if not derived.is_missing(line["txid"], item, present):
                    continue
                if name not in later:
                    later[name] = archived.times_of(store, name)
            except (OSError, RecoveryError):
                continue  # which was told
            entry = item["append"]
            if str(entry.get("archived_at")) >= later[name].get(str(entry.get("task_id")), ""):
                found.setdefault(name, []).append((line["txid"], item))
    return found


def last_record(store: FileStore, name: str) -> Optional[dict[str, Any]]:
    """The last whole record of a log, None if there is none near its end."""
    try:
        fd, st = durable.open_regular(store.root.place(name))
    except (FileNotFoundError, DataError):
        return None
    try:
        data = os.pread(fd, 1 << 18, max(0, st.st_size - (1 << 18)))
    finally:
        os.close(fd)
    found = jsonl.records(data)[0]
    return found[-1] if found else None


def records_of(store: FileStore, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole records of a log, with their line numbers; bounded memory."""
    for number, _, _, data in _lines(store, name):
        try:
            value = jsontext.loads(data.decode("utf-8")) if data is not None and data.strip() else None
        except ValueError:
            continue
        if isinstance(value, dict):
            yield number, value
