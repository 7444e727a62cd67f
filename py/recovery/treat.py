"""Repairing what the doctor found: each file in a commit of its own, its original in data/quarantine before.

A crash in the middle leaves each file as it was or repaired; the same repair again goes on with what is left.  Nobody
else's work is in the way: a file is looked at again under its lock, and one that is whole by then is left alone.
"""

from __future__ import annotations

import functools
import os
import re

from recovery import (
    archived,
    archived_log,
    damage,
    derived,
    durable,
    escalations,
    evidence,
    examine,
    finish,
    init,
    jsonl,
    jsontext,
    layout,
    mend,
    openfiles,
    quarantine,
    rebuild,
    recover,
    salvage,
    segments,
    tasks,
)
from recovery.commit import Change, Edit, txid_of
from recovery.errors import IO, DataError, RecoveryError, from_os_error
from recovery.journal import Record
from recovery.store import transact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Optional

    from recovery.damage import Finding
    from recovery.mend import Doubt
    from recovery.store import FileStore

_TASK_ID = re.compile(rb'"task_id": ?"([A-Za-z0-9][A-Za-z0-9._-]{0,127})"')
#: The task under whose name the repair of a whole file is recorded.
SUBJECT = "doctor"
#: So many questions about one file are asked one by one.
_QUESTIONS = 20


class Treated:
    """What a repair did: `done` in words with what --json says of it, and what was `left`, with why."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.files: list[dict[str, Any]] = []
        self.left: list[str] = []
        self.asked: list[str] = []
        self.next = ""  # what the disk or a lock asks for first

    def did(self, line: str, **data: Any) -> None:
        self.lines.append(line)
        self.files.append({"done": line, **data})


def treat(store: FileStore, findings: list[Finding], made: Treated, dry_run: bool = False) -> None:
    """Repair what can be, which `made` then tells; with `dry_run` only find out what would be written."""
    work = _Treatment(store, dry_run, made)
    made.left.clear()
    made.next = ""
    by_file: dict[str, list[Finding]] = {}
    for one in findings:
        if one.repair:
            by_file.setdefault(one.name, []).append(one)
    kinds = {one.kind for one in findings}
    for one in findings:
        if one.kind == "parked":
            work.attempt(one.name, functools.partial(work.unreadable_parked, one))
    if kinds & {"journal", "parked", "leftover"}:
        work.attempt("data/", work.recover)
    for name in sorted(by_file, key=_order):
        for kind, cure in work.cures(name, by_file[name]):
            work.attempt(name, cure)
            if kind != "torn-line":
                break


def _order(name: str) -> tuple[int, str]:
    """Logs first, which the rest is filled in from; outboxes before what is compared with them."""
    if name == layout.CONFIG:
        return -1, name
    if name.endswith(".jsonl") or segments.parse(name.rpartition("/")[2]) is not None:
        return 0, name
    if name.endswith("/outbox.json"):
        return 1, name
    if name == layout.PROGRESS:
        return 3, name
    return (4, name) if "/outbox.json.backup_" in name else (2, name)


class _Treatment:
    def __init__(self, store: FileStore, dry_run: bool, made: Treated) -> None:
        self.store, self.dry_run, self.made = store, dry_run, made

    def attempt(self, name: str, cure: Callable[[], None]) -> None:
        """One file's repair; what stands in its way stops no other."""
        try:
            cure()
        except RecoveryError as error:
            self.refused(error, f"{name}: ")
        except OSError as error:
            self.refused(from_os_error(error, name))
        self.store.root.forget("postbox/" + name.split("/")[1] if name.startswith("postbox/") else layout.QUARANTINE)

    def refused(self, error: RecoveryError, about: str = "") -> None:
        self.made.left.append(about + str(error))
        if error.code >= IO and error.hint:
            self.made.next = error.hint

    def cures(self, name: str, findings: list[Finding]) -> Iterator[tuple[str, Callable[[], None]]]:
        kind = findings[0].kind
        parts = name.split("/")
        if kind in ("journal", "parked", "leftover"):
            return
        if kind in ("journal-damaged", "garbled"):
            yield kind, self.journal
        elif kind == "part-gone":
            yield kind, lambda: self.gone(name, findings[0].words)
        elif segments.parse(parts[-1]) is not None and name.endswith(".gz"):
            yield "torn-line", lambda: self.packed(name)
            if layout.is_archive(segments.log_of(name)):
                yield "lost-line", lambda: self.archived(parts[1], segments.log_of(name))
        elif name.endswith(".jsonl") or segments.parse(parts[-1]) is not None:
            if any(one.kind == "torn-line" for one in findings):
                yield "torn-line", lambda: self.torn(name)
            if layout.is_archive(segments.log_of(name)):
                yield "lost-line", lambda: self.archived(parts[1], segments.log_of(name))
        elif kind == "stale-backup":
            yield kind, lambda: self.backup(parts[1], name)
        elif len(parts) == 3 and parts[0] == "postbox":
            yield kind, lambda: self.outbox(parts[1], findings)
        elif len(parts) == 4 and parts[2] == "completed":
            yield kind, lambda: self.record(parts[1], name, findings)
        elif name == layout.CONFIG:
            yield kind, lambda: self.config(findings)
        elif name == layout.PROGRESS and kind in ("disagrees", "missing"):
            yield kind, lambda: self.disagreement(kind == "missing")
        elif name == layout.PROGRESS:
            yield kind, lambda: self.progress(findings)
        elif name.startswith(layout.CHECKPOINTS + "/"):
            yield kind, lambda: self.cache(name, findings)
        elif name.startswith(layout.RECEIPTS + "/"):
            yield kind, lambda: self.head(name, findings)
        elif name.startswith(layout.BREAKERS + "/"):
            yield kind, lambda: self.away(name)
        else:
            yield kind, lambda: self.object(name, findings, damage.whole_object)

    # --- what recover does

    def recover(self) -> None:
        openfiles.require(len(self.store.list("postbox")))
        result = recover.recover(self.store, self.dry_run)
        if self.dry_run:
            for one in result.data["found"]:
                self.made.did(f"would finish, undo or remove {one}")
            return
        for one in result.data["done"]:
            self.made.did(str(one))

    def unreadable_parked(self, finding: Finding) -> None:
        """A parked record that is damaged can't be undone by anybody: it goes to quarantine, and a person is asked."""
        try:
            version = self.store.read(finding.name)
            if version is not None:
                finish.files_of(Record(0, jsontext.from_latin(version.text), "ABORT"))
            return
        except DataError:
            pass
        words = f"{finding.words}, and the record of it is damaged: look whether the task is as it should be"
        if self.dry_run:
            self.made.did(f"would move {finding.name} to {layout.QUARANTINE}/", file=finding.name)
            return
        kept = quarantine.move(self.store, finding.name)
        agent, _, rest = finding.name.rpartition("/")[2].partition("@")
        doubt = mend.Doubt(rest.partition("@")[0], "", words)
        self.ask(agent if layout.is_id(agent) else "", finding.name, [doubt], kept or "")
        self.made.did(f"moved {finding.name} to {kept}: it is damaged", file=finding.name, quarantine=kept)
        self.made.asked.append(doubt.text())

    def journal(self) -> None:
        """A journal that this suite can't have written keeps everybody from working: out of the way with it."""
        words = "data/journal held a record that can't be read: see whether the last change was made as a whole"
        if self.dry_run:
            self.made.did(f"would move {layout.JOURNAL} to {layout.QUARANTINE}/", file=layout.JOURNAL)
            return
        kept = quarantine.move(self.store, layout.JOURNAL)
        self.store.forget_journal()
        self.ask("", layout.JOURNAL, [mend.Doubt("", "", words)], kept or "")
        self.made.did(f"moved {layout.JOURNAL} to {kept}", file=layout.JOURNAL, quarantine=kept)
        self.made.asked.append(words)

    def away(self, name: str) -> None:
        """State that begins anew where there is none: into quarantine with what can't be read."""
        if self.dry_run:
            self.made.did(f"would move {name} to {layout.QUARANTINE}/", file=name)
            return
        kept = quarantine.move(self.store, name)
        if kept is not None:
            self.made.did(f"moved {name} to {kept}; it begins anew", file=name, quarantine=kept)

    def config(self, findings: list[Finding]) -> None:
        """The settings as `recovery init` writes them, with what could be read of those that were there.

        A crash in the middle leaves the damaged file, or none, which is as good as what init writes.
        """
        place = self.store.root.place(layout.CONFIG)
        data = examine.bytes_of(place.folder, place.base)
        if data is None or examine.whole_config(data) is not None:
            return
        made = mend.Mended()
        reading = salvage.read(data)
        text = jsontext.from_latin(mend.object_text(reading, made, None))
        body = {**init.settings(self.store.root.path), **dict(jsontext.loads(text))}
        if type(body["format"]) is not int:
            body["format"] = layout.FORMAT
        if self.dry_run:
            self.made.did(f"would write {layout.CONFIG} anew, and keep it in {layout.QUARANTINE}/", file=layout.CONFIG)
            return
        kept = quarantine.keep(self.store, layout.CONFIG, data, {"findings": [one.data() for one in findings]})
        if made.doubts:
            words = "settings in it that could not be read are the default ones now (accept_file_systems and others)"
            self.question(layout.CONFIG, words, kept)
        lock = self.store.commit_lock()
        try:
            derived.create(self.store, layout.CONFIG, jsontext.pretty(body) + "\n")
        finally:
            lock.release()
        line = f"wrote {layout.CONFIG} anew, with what could be read of it; the original is {kept}"
        self.made.did(line, file=layout.CONFIG, quarantine=kept)

    # --- outboxes

    def outbox(self, agent: str, findings: list[Finding]) -> None:
        name = layout.outbox(agent)
        gone = findings[0].kind == "missing" and not self.store.list(f"postbox/{agent}/inbox")
        found: dict[str, Any] = {}
        is_gone = agent not in self.store.list("postbox")

        def plan() -> Optional[Change]:
            found.clear()
            version = self.store.read(name, strict=False)
            data = version.text.encode("latin-1") if version is not None else b""
            if version is not None and damage.whole_outbox(data) is not None:
                return None
            _require_moderate(name, data)
            now, reading = damage.outbox(name, agent, data)
            made = mend.outbox(agent, reading, evidence.gather(self.store, agent))
            if is_gone:
                words = "its folder was gone, and nobody knows whether these are all of its tasks: look"
                more = f"was it removed on purpose, remove it again, and say so: recovery doctor --removed {agent}"
                made.doubts.append(mend.Doubt("", "", f"{words}; {more}"))
            found.update(made=made, before=version)
            if self.dry_run:
                return None
            report = {"findings": [one.data() for one in now], **made.data()}
            if version is not None:
                found["kept"] = quarantine.keep(self.store, name, data, report, version.mode, version.gid)
            self.ask(agent, name, made.doubts, found.get("kept", ""))
            edits = [Edit(name, version, after=jsontext.from_latin(made.text))]
            if gone and version is None:  # with the folder
                edits += _briefs(agent, edits[0].after)
                found["briefs"] = [edit.name for edit in edits[1:]]
            return self.change(agent, SUBJECT, edits, found)

        if self.dry_run:
            plan()
        else:
            transact(self.store, [name, *([layout.briefs(agent)] if gone else [])], plan, create=True)
        if "made" not in found:
            return
        made = found["made"]
        if found.get("briefs"):
            made.notes.append(
                f"wrote {len(found['briefs'])} brief(s) of tasks that are to do again, as `assign` words them"
            )
        details = _words_of(made)
        if self.dry_run:
            self.made.did(
                f"would repair {name}: {details}", file=name, text=jsontext.from_latin(made.text), **made.data()
            )
        else:
            kept = f"; the original is {found['kept']}" if "kept" in found else ""
            self.made.did(
                f"repaired {name}: {details}{kept}",
                file=name,
                quarantine=found.get("kept"),
                txid=found["txid"],
                **made.data(),
            )
        for doubt in _few(made.doubts):
            self.made.asked.append(f"{agent} {doubt.text()}")

    def change(self, agent: str, task: str, edits: list[Edit], found: dict[str, Any]) -> Change:
        now = self.store.now()
        change = Change("doctor", agent, task, now, txid_of(now, self.store.nonce), edits)
        change.make_backup = False  # the original is in quarantine
        found["txid"] = change.txid
        return change

    def ask(self, agent: str, name: str, doubts: list[Doubt], kept: str) -> None:
        """Ask a person what a repair did not decide, before it is done.  No lock is held but the file's.

        StorageError (74): the question can't be written, so nothing is repaired that nobody would ask about again.
        """
        for doubt in _few(doubts):
            task = doubt.task if layout.is_id(doubt.task) else SUBJECT
            reason = f"{name}: {doubt.text()}"
            escalations.require(self.store, task, "Undecided", reason, agent, quarantine=kept, undecided=doubt.data())

    # --- files with one object

    def record(self, agent: str, name: str, findings: list[Finding]) -> None:
        """A completion record: as the change log has it, else what is left of it, filled in from the outbox."""
        task = name.rpartition("/")[2][: -len(examine.RECORD)]
        exact = self.recorded(name)

        def fill(top: salvage.Item, made: mend.Mended) -> None:
            known = evidence.gather(self.store, agent)
            version = self.store.read(layout.outbox(agent), strict=False)
            fields: dict[str, tuple[str, str]] = {}
            past: dict[str, tuple[str, str]] = {}
            if version is not None and damage.whole_outbox(version.text.encode("latin-1")) is not None:
                box = tasks.Outbox(layout.outbox(agent), version)
                entry = box.find(task)
                if entry is not None and entry[1].lower() == "completed":
                    item = salvage.Item.of(box.text[entry[3] : entry[4]])
                    fields = {part.key: (part.item.text(), layout.outbox(agent)) for part in item.expand()}
                past = _in_history(box, layout.outbox(agent), task)
            fields = {**past, **known.of(task), **fields}
            own = {"task_id": task, "agent_id": agent, "status": "completed"}
            for key, word in own.items():
                if top.get(key) is None:
                    top.put(key, salvage.Item.of(jsontext.to_latin(jsontext.quote(word))))
                    made.from_(task, key, "its name")
            for key in ("completed_at", "completion_message", "title"):
                if top.get(key) is None and key in fields:
                    top.partial.pop(key, None)
                    top.put(key, salvage.Item.of(fields[key][0]))
                    made.from_(task, key, fields[key][1])

        if exact is not None:
            self.object(name, findings, damage.whole_object, exact, agent=agent, task=task)
        else:
            self.object(name, findings, damage.whole_object, fill=fill, agent=agent, task=task)

    def recorded(self, name: str) -> Optional[tuple[str, str]]:
        """The whole text that the change log last gave to a file, and where it says so."""
        found = None
        for log, line in examine.change_lines(self.store, jsontext.dumps(name).encode()):
            for file in line["files"]:
                if file["name"] == name and isinstance(file.get("write"), list):
                    text = file["write"][-1]
                    whole = isinstance(text, str) and damage.whole_object(text.encode("utf-8", "surrogateescape"))
                    found = (text, f"{log} ({line['txid']})") if whole else None
        return found

    def head(self, name: str, findings: list[Finding]) -> None:
        """The head of a chain of receipts, as the change log has it; nothing else may say where a chain ends."""
        exact = self.recorded(name)
        if exact is None:
            raise DataError("the change log doesn't have it; `recovery receipts verify` says what its last receipt is")
        self.object(name, findings, damage.whole_object, exact)

    def progress(self, findings: list[Finding]) -> None:
        """A damaged progress.json: what is left of it, filled in; one of which nothing is left counts as gone."""
        place = self.store.root.place(layout.PROGRESS)
        data = examine.bytes_of(place.folder, place.base)
        if data is None or salvage.read(data).documents:
            self.object(layout.PROGRESS, findings, examine.whole_progress, fill=self.fill_progress)
        elif self.dry_run:
            line = f"would move {layout.PROGRESS} to {layout.QUARANTINE}/, and list its tasks anew"
            self.made.did(line, file=layout.PROGRESS)
        else:
            with self.store.lock([layout.PROGRESS]):  # it leaves the lock file, by which it is missed
                kept = quarantine.move(self.store, layout.PROGRESS)
            self.made.did(f"moved {layout.PROGRESS} to {kept}: nothing was left of it", quarantine=kept)
            self.disagreement(True)

    def fill_progress(self, top: salvage.Item, made: mend.Mended) -> None:
        """Entries of progress.json that are lost, as the change log has them."""
        mend.fill_progress(top, made, evidence.Progress(self.store).entries)

    def object(
        self,
        name: str,
        findings: list[Finding],
        is_well: Callable[[bytes], Any],
        exact: Optional[tuple[str, str]] = None,
        fill: Optional[Callable[[salvage.Item, mend.Mended], None]] = None,
        agent: str = "",
        task: str = "",
    ) -> None:
        """A file that holds one JSON object: `exact` text and its source where that is known, else what is left."""
        found: dict[str, Any] = {}

        def plan() -> Optional[Change]:
            found.clear()
            version = self.store.read(name, strict=False)
            if version is None:
                return None
            data = version.text.encode("latin-1")
            if is_well(data) is not None:
                return None
            _require_moderate(name, data)
            made = mend.Mended()
            reading = salvage.read(data)
            if exact is not None:
                text = exact[0]
                made.notes.append(f"it is what {exact[1]} says")
            else:
                text = jsontext.from_latin(mend.object_text(reading, made, fill))
                if is_well(text.encode("utf-8", "surrogateescape")) is None:
                    raise DataError(f"{name} can't be made whole: a person has to look")
            found.update(made=made, text=text)
            if self.dry_run:
                return None
            report = {"findings": [one.data() for one in findings], **made.data()}
            found["kept"] = quarantine.keep(self.store, name, data, report, version.mode, version.gid)
            self.ask(agent, name, made.doubts, found["kept"])
            return self.change(agent or SUBJECT, task or SUBJECT, [Edit(name, version, after=text)], found)

        if self.dry_run:
            plan()
        else:
            transact(self.store, [name], plan)
        if "made" not in found:
            return
        made = found["made"]
        if self.dry_run:
            self.made.did(f"would repair {name}: {_words_of(made)}", file=name, text=found["text"])
            return
        line = f"repaired {name}: {_words_of(made)}; the original is {found['kept']}"
        self.made.did(line, file=name, quarantine=found["kept"], txid=found["txid"], **made.data())
        self.made.asked += [f"{name}: {doubt.text()}" for doubt in _few(made.doubts)]

    def cache(self, name: str, findings: list[Finding]) -> None:
        """A checkpoint's snapshot: made again from the task's history, which is the truth."""
        task = name.rpartition("/")[2][: -len("_checkpoint.json")]
        if not name.endswith("_checkpoint.json") or not layout.is_id(task):
            self.object(name, findings, damage.whole_object)
            return
        last = None
        for _, line in examine.records_of(self.store, layout.history(task)):
            last = line
        if last is None:
            self.object(name, findings, damage.whole_object)
            return
        if self.dry_run:
            self.made.did(f"would make {name} again from {layout.history(task)}", file=name)
            return
        entry = {key: value for key, value in last.items() if key != "txid"}
        kept = quarantine.move(self.store, name)
        lock = self.store.commit_lock()
        try:
            item = {"name": name, "snapshot": entry}
            derived.derive(self.store, {"txid": "", "derived": [item]}, check=False, sync=True)
        finally:
            lock.release()
        self.made.did(f"made {name} again from {layout.history(task)}", file=name, quarantine=kept)

    def backup(self, agent: str, name: str) -> None:
        if self.dry_run:
            self.made.did(f"would move {name} to {layout.QUARANTINE}/", file=name)
            return
        with self.store.lock([layout.outbox(agent)]):
            kept = quarantine.move(self.store, name)
        if kept is not None:
            self.made.did(f"moved {name} to {kept}", file=name, quarantine=kept)

    def disagreement(self, gone: bool) -> None:
        openfiles.require(len(self.store.list("postbox")))
        known = evidence.Progress(self.store) if gone else None
        if known is not None and known.text and examine.whole_progress(known.text.encode("latin-1")) is not None:
            self.written_again(known.text)
            return
        if known is not None and not self.dry_run:
            words = (
                "it is gone: its tasks are listed anew, as the outboxes, their history and the records have them; what "
                "else stood in it (a sprint's name, tasks that nobody has) is known nowhere else"
            )
            self.question(layout.PROGRESS, words, "")
        told = list(self.store.told)
        result = rebuild.run(self.store, dry_run=self.dry_run, add=gone, known=known.word if known else None)
        self.store.told = told  # its notes are about what is as it may be
        if result.data["changes"]:
            word = "would rebuild" if self.dry_run else "rebuilt"
            self.made.did(f"{word} {layout.PROGRESS}: {'; '.join(result.data['changes'])}", file=layout.PROGRESS)

    def written_again(self, text: str) -> None:
        """progress.json as the change log has it to the last byte; what the outboxes say otherwise comes after."""
        found: dict[str, Any] = {}

        def plan() -> Optional[Change]:
            if self.store.read(layout.PROGRESS, strict=False) is not None:
                return None
            edits = [Edit(layout.PROGRESS, None, after=jsontext.from_latin(text))]
            return self.change(SUBJECT, SUBJECT, edits, found)

        if self.dry_run:
            self.made.did(f"would write {layout.PROGRESS} again, as {layout.CHANGES}/ has it", file=layout.PROGRESS)
            return
        transact(self.store, [layout.PROGRESS], plan, create=True)
        if found:
            line = f"wrote {layout.PROGRESS} again, as {layout.CHANGES}/ has it"
            self.made.did(line, file=layout.PROGRESS, txid=found["txid"])

    # --- logs

    def torn(self, name: str) -> None:
        """Blank the lines that are no record, in their place: a log keeps its length, and nobody else's line moves.

        What they held is in quarantine first.  A crash leaves some blanked, and the others torn as they were.
        """
        lines = list(examine.torn_lines(self.store, name))
        if not lines:
            return
        lost = examine.lost_changes(self.store, name) if name.startswith(layout.CHANGES) else ""
        if self.dry_run:
            self.made.did(f"would blank {len(lines)} torn line(s) of {name}, and keep them in quarantine", file=name)
            return
        place = self.store.root.place(name)
        pieces, spans = [], []
        fd = os.open(place.base, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.folder)
        try:
            for number, at, length, _ in lines:
                nuls = length > damage.LARGEST and _is_nul(fd, at, length)
                if length > damage.LARGEST and not nuls:
                    self.made.left.append(f"{name}: line {number} is {length} bytes long: a person has to look")
                    continue
                pieces.append(b"" if nuls else os.pread(fd, length, at))
                spans.append({"line": number, "offset": at, "bytes": length, **({"nuls": True} if nuls else {})})
            if not spans:
                return
            kept = quarantine.keep(self.store, name, b"\n".join(pieces) + b"\n", {"lines": spans})
            if lost:
                self.question(name, f"torn lines{lost}: what it did to the files stands in them only", kept)
            if layout.is_archive(segments.log_of(name)):
                self.torn_archive(name, pieces, kept)
            lock = self.store.commit_lock()
            try:
                for span, data in zip(spans, pieces):
                    if os.pread(fd, len(data), span["offset"]) == data:
                        _blank(fd, span["offset"], span["bytes"])
                os.fsync(fd)
            finally:
                lock.release()
        finally:
            os.close(fd)
        self.made.did(f"blanked {len(spans)} torn line(s) of {name}; they are {kept}", file=name, quarantine=kept)

    def packed(self, name: str) -> None:
        """A compressed part that is damaged: a plain one with what can be unpacked takes its place."""
        place = self.store.root.place(name)
        data = examine.bytes_of(place.folder, place.base)
        if data is None or segments.is_whole(data):
            return
        left = segments.read(self.store, name) or b""
        count = len(jsonl.records(left)[0])
        if self.dry_run:
            self.made.did(f"would unpack {count} line(s) of {name}, and keep it in quarantine", file=name)
            return
        lost = examine.lost_changes(self.store, name) if name.startswith(layout.CHANGES) else ""
        kept = quarantine.keep(self.store, name, data, {"lines": count})
        self.question(name, f"only {count} line(s) of it could be unpacked{lost}", kept)
        lock = self.store.commit_lock()
        try:
            plain = segments.unpack(self.store, name, left)
        finally:
            lock.release()
        self.made.did(f"unpacked {count} line(s) of {name} to {plain}; it is {kept}", file=name, quarantine=kept)

    def gone(self, name: str, words: str) -> None:
        """A part of a log that somebody removed: nothing else knows what was in it."""
        if self.dry_run:
            self.made.did(f"would put an empty part in the place of {name}", file=name)
            return
        log, number = segments.log_of(name), name.rpartition(".")[2]
        if number not in [one.rpartition(".")[2] for one, _, _ in segments.missing(self.store, log)]:
            return
        self.question(name, f"it is gone: {words}; a copy of it, put back over the empty one, brings that back", "")
        if segments.stand_in(self.store, name):
            self.made.did(f"put an empty part in the place of {name}", file=name)

    def question(self, name: str, words: str, kept: str, agent: str = "", task: str = "") -> None:
        doubt = mend.Doubt(task, "", words)
        self.ask(agent, name, [doubt], kept)
        self.made.asked.append(f"{name}: {doubt.text()}")

    # --- archives

    def torn_archive(self, name: str, pieces: list[bytes], kept: str) -> None:
        """Ask about the torn lines of an archive whose tasks are neither there otherwise nor in the change log."""
        agent, month = name.split("/")[1], segments.log_of(name)
        back = [item["append"] for _, item in examine.lost_archived(self.store, agent).get(month, [])]
        there = {str(line.get("task_id")) for line in back}.union(archived.times_of(self.store, month))
        unknown = 0
        for piece in pieces:
            match = _TASK_ID.search(piece)
            task = match.group(1).decode() if match is not None else ""
            if task and task not in there:
                self.question(name, "its line in the archive is torn, and known nowhere else", kept, agent, task)
            unknown += not task
        if unknown > len(back) and not archived_log.is_known(self.store, month):
            words = f"{unknown} torn line(s) name no task, and {len(back)} came back from the change log"
            self.question(name, words, kept, agent)

    def archived(self, agent: str, month: str) -> None:
        """Lines that an archive has lost, from the change log; its index is made again."""
        lost = examine.lost_archived(self.store, agent).get(month, [])
        some = " ".join(str(item["append"].get("task_id")) for _, item in lost[:20])
        if not lost:
            return
        if self.dry_run:
            self.made.did(f"would write {len(lost)} line(s) of {month} again: {some}", file=month)
            return
        lock = self.store.commit_lock()
        try:
            present = derived.Present(self.store)
            for txid, item in lost:  # looked at again, for nobody writes there now
                derived.rederive_one(self.store, txid, item, present)
            place = self.store.root.place(layout.index(agent))
            durable.remove(place.folder, place.base)
        except FileNotFoundError:
            pass  # there never was an index
        finally:
            lock.release()
        archived.keep_index(self.store, agent)
        self.made.did(f"wrote {len(lost)} line(s) of {month} again, from {layout.CHANGES}: {some}", file=month)


def _briefs(agent: str, text: Optional[str]) -> Iterator[Edit]:
    """The briefs of an outbox's tasks that are still to do, of those that `assign` would have written."""
    for entry in jsontext.loads(text or "{}")["tasks"]:
        task, status = entry.get("task_id"), entry.get("status")
        words = [entry.get(key) for key in ("title", "priority", "created_at")]
        done = type(status) is str and status.lower() in tasks.CLOSED - {"failed"}
        if type(task) is str and layout.is_id(task) and not done and all(type(word) is str for word in words):
            yield Edit(layout.inbox(agent, task), None, after=tasks.inbox_note(agent, entry))


def _few(doubts: list[Doubt]) -> list[Doubt]:
    """The first questions, and one for all the others: nobody answers thousands."""
    if len(doubts) <= _QUESTIONS:
        return doubts
    words = f"and {len(doubts) - _QUESTIONS} questions more: the report beside the original in quarantine has them all"
    return [*doubts[:_QUESTIONS], mend.Doubt("", "", words)]


def _is_nul(fd: int, at: int, length: int) -> bool:
    """Whether a piece of a file is nothing but NULs, as a power cut leaves them."""
    end = at + length
    while at < end:
        data = os.pread(fd, min(1 << 20, end - at), at)
        if not data or data.strip(b"\0"):
            return False
        at += len(data)
    return True


def _in_history(box: tasks.Outbox, name: str, task: str) -> dict[str, tuple[str, str]]:
    """What the last entry of the history says of a completed task: its members with their source."""
    span = box.top.span("history")
    history = salvage.Item.of(box.text[span[0] : span[1]]) if span is not None else None
    found: dict[str, tuple[str, str]] = {}
    for part in history.expand() if history is not None and history.kind == "[" else ():
        if part.item.word("task_id") == task and part.item.word("status").lower() == "completed":
            found = {member.key: (member.item.text(), name) for member in part.item.expand()}
    return found


def _blank(fd: int, at: int, length: int) -> None:
    """Blanks in the place of a line; a long one at the end, a hole maybe, is cut off: blanks would fill the disk."""
    last = at + length >= os.fstat(fd).st_size
    if last and length > 1 << 20:
        os.ftruncate(fd, at)
        return
    while length > 0:
        piece = min(length, 1 << 20)
        blank = b" " * piece
        if last and piece == length:
            blank = blank[:-1] + b"\n"
        os.pwrite(fd, blank, at)
        at, length = at + piece, length - piece


def _require_moderate(name: str, data: bytes) -> None:
    if not damage.is_moderate(data):
        raise DataError(f"{name} is too large ({len(data)} bytes) to be repaired in one change: a person has to look")


def _words_of(made: mend.Mended) -> str:
    words = []
    if made.whole:
        words.append(f"{len(made.whole)} task(s) whole")
    for task, sources in made.came.items():
        shown = ", ".join(f"{' '.join(keys)} from {source}" for source, keys in sources.items() if keys)
        words.append(f"{task or 'the outbox'}: {shown}")
    if made.entries:
        words.append(f"{made.entries} entries of history")
    words += made.notes
    return tasks.shown("; ".join(words) or "nothing was missing", 2000)
