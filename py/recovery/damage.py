"""What may be wrong with a workspace, in words: the kinds of damage, what each means and what a repair does.

Pure.  The judgements of single files are here too: what makes an outbox, progress or a record one that the other
commands accept.
"""

from __future__ import annotations

from recovery import jsontext, layout, salvage, tasks
from recovery.jsontext import BadJSON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.salvage import Flaw, Reading

_UNREAD = "nobody can read the file"
#: Each kind: what it is called, what it means, what --repair does ("" where a person has to).
KINDS = {
    "empty": ("empty", "nothing of it is left here", "puts it together again from what is held elsewhere"),
    "missing": ("missing", "it was here once", "puts it together again from what is held elsewhere"),
    "nul": ("NUL bytes", "a crash or a disk left nothing here", "keeps what is whole, and fills in what is known"),
    "cut": (
        "cut off",
        "its end was never written, or is lost",
        "keeps every whole object and field, and fills in what is known",
    ),
    "gap": (
        "piece missing",
        "what follows closes other brackets than are open: something between is lost",
        "keeps both sides where they were, and asks a person what stood between",
    ),
    "unreadable": ("unreadable", _UNREAD, "leaves this piece out, keeps the rest, and fills in what is known"),
    "glued": ("several documents", "other programs read the first, or nothing", "makes one of them, none is dropped"),
    "trailing-comma": ("trailing comma", _UNREAD, "takes the comma out"),
    "comma": ("comma", _UNREAD, "puts the comma right"),
    "bracket": ("bracket", _UNREAD, "puts the bracket in"),
    "bom": ("byte order mark", _UNREAD, "takes the mark out"),
    "utf-16": ("UTF-16", _UNREAD, "writes it as UTF-8"),
    "not-utf-8": ("not UTF-8", _UNREAD, "puts U+FFFD where the bytes can't be read"),
    "conflict": ("conflict markers", _UNREAD, "joins both sides; where they differ a person is asked"),
    "junk": ("foreign text", _UNREAD, "leaves it out"),
    "nan": ("not JSON", _UNREAD, "keeps it as text"),
    "not-json": ("not JSON", _UNREAD, "writes what is meant"),
    "control": ("control characters", _UNREAD, "escapes them"),
    "too-deep": ("nested too deeply", _UNREAD, "leaves this value out"),
    "duplicate-key": (
        "duplicate key",
        "programs see one of the two",
        "keeps the one that is known elsewhere, else the last, as readers do; then, if they differ, a person is asked",
    ),
    "duplicate-id": (
        "duplicate id",
        "commands can't tell which task is meant",
        "makes one task of them; where they differ a person is asked",
    ),
    "shape": ("wrong shape", "it is not what the commands write", "gives it the right shape, and keeps what it holds"),
    "stale-backup": (
        "stale backup",
        "its change was committed long ago: put back, it would undo newer work",
        "moves it to data/quarantine",
    ),
    "journal": ("unfinished change", "a process died half-way", "finishes or undoes it, as recovery recover does"),
    "journal-damaged": (
        "journal",
        "no command can change anything",
        "moves it to data/quarantine, and asks a person what was begun",
    ),
    "garbled": (
        "journal",
        "torn before its commit point it never happened; damaged since, a change may be half done",
        "moves it to data/quarantine, and asks a person to look",
    ),
    "parked": ("parked change", "the task answers 70 until it is undone", "undoes it, as recovery recover does"),
    "leftover": ("left over", "a dead process had not put it in place", "removes it, as recovery recover does"),
    "torn-line": ("torn line", "a process died while it was written; readers pass it over", "moves it to quarantine"),
    "packed": (
        "compressed part",
        "it can't be unpacked as a whole",
        "keeps what can be unpacked, and asks a person about the rest",
    ),
    "part-gone": (
        "part gone",
        "somebody removed it: what stood there can't be explained, undone or counted any more",
        "puts an empty one there, and asks a person for a copy",
    ),
    "lost-line": (
        "lost line",
        "it was archived, and is in neither outbox nor archive",
        "writes it again, as the change log has it",
    ),
    "foreign": ("foreign line", "it is not what `recovery archive` wrote there", ""),
    "cache": ("stale copy", "it does not say what its log says", "makes it again from the log"),
    "disagrees": (
        "disagrees",
        "it does not say what the outboxes say",
        "makes it agree, as progress rebuild does",
    ),
    "record": ("disagrees", "the record and the outbox say two things", ""),
    "permission": ("no permission", "commands can't work with it", ""),
    "link": ("link", "commands refuse it", ""),
    "not-a-file": ("not a file", "commands refuse it", ""),
    "not-a-folder": ("not a folder", "commands can't work with what belongs there", ""),
    "chain": ("receipts", "what says that completions were checked does not fit together", ""),
    "too-large": ("too large", "it is not looked through", ""),
    "damaged": ("damaged", "it can't be read", ""),
}


class Finding:
    """One thing that is wrong.

    name          the file, below the root
    line, column  from 1; 0 where that has no meaning
    kind          see KINDS
    words         what is there, in a sentence
    repair        what --repair does about it; "" if a person has to
    person        what that person may run
    agent         whose file it is, "" for everybody's
    """

    __slots__ = ("agent", "column", "done", "kind", "line", "name", "person", "repair", "words")

    def __init__(
        self, name: str, kind: str, words: str, line: int = 0, column: int = 0, agent: str = "", person: str = ""
    ) -> None:
        self.name, self.kind, self.words, self.line, self.column = name, kind, words, line, column
        self.agent, self.person = agent, person
        self.repair = "" if person else KINDS[kind][2]
        self.done = False

    def text(self) -> str:
        """One line of it, in which no escape code reaches the terminal."""
        where = self.name + (f":{self.line}:{self.column}" if self.line else "")
        called, means, _ = KINDS[self.kind]
        what = f"--repair {self.repair}" if self.repair else self.person or "a person has to look"
        return tasks.shown(f"{where}: {called}: {self.words}; {means}; {what}", 600)

    def data(self) -> dict[str, Any]:
        means = KINDS[self.kind][1]
        return {
            "file": self.name,
            "line": self.line,
            "column": self.column,
            "kind": self.kind,
            "what": self.words,
            "means": means,
            "repair": self.repair,
            **({"next": self.person} if self.person else {}),
            **({"agent": self.agent} if self.agent else {}),
        }


#: Of a file with more flaws than this only so many are told.
MOST = 50


#: A repair's record holds a file before and after: a larger one is left to a person.
LARGEST = 1 << 24


def is_moderate(data: bytes) -> bool:
    """Whether a file can be repaired in one change."""
    return len(data) + 5 * data.count(b"\0") <= LARGEST


def leave_large(found: list[Finding], data: bytes) -> list[Finding]:
    """The findings of a file; of one that is too large to be repaired they promise no repair."""
    for one in found if not is_moderate(data) else ():
        one.repair, one.person = "", f"too large ({len(data)} bytes) to be repaired in one change: mend it by hand"
    return found


def of_reading(name: str, reading: Reading, agent: str = "") -> list[Finding]:
    """The flaws of a file that was read, as findings: those of one kind and wording are one, at the place of the first.

    At most MOST, and one that counts the rest.
    """
    same: dict[tuple[str, str], list[Flaw]] = {}
    for flaw in reading.flaws:
        same.setdefault((flaw.kind, flaw.words), []).append(flaw)
    found = []
    for flaws in list(same.values())[:MOST]:
        first, words = flaws[0], flaws[0].words
        if len(flaws) > 1:
            words += f", and so it is at {len(flaws) - 1} places more, down to line {reading.place(flaws[-1].at)[0]}"
        found.append(Finding(name, first.kind, words, *reading.place(first.at), agent))
    rest = [flaw for flaws in list(same.values())[MOST:] for flaw in flaws]
    if rest:
        words = f"and {len(rest)} flaws more from here on"
        found.append(Finding(name, rest[0].kind, words, *reading.place(rest[0].at), agent))
    return found


def whole_outbox(data: bytes) -> Optional[dict[str, Any]]:
    """The value of an outbox that is whole, None for one that isn't, or that holds a key or an id twice.

    What is accepted here, `tasks.Outbox` accepts, and no status in it is refused by the commands (`tasks.status_of`).
    """
    value = whole_object(data)
    if value is None:
        return None
    listed = value.get("tasks")
    if not isinstance(listed, list):
        return None
    seen = set()
    count = 0
    for task in listed:
        if not isinstance(task, dict) or type(task.get("status")) not in (str, type(None)):
            return None
        name = task.get("task_id")
        if type(name) is str:
            count += 1
            seen.add(name)
        elif name is not None:  # no command can name it
            return None
    return value if len(seen) == count else None


def unusable(name: str, agent: str, value: dict[str, Any]) -> list[Finding]:
    """Tasks of a whole outbox that can't be completed: nobody can tell which checks they need."""
    found = []
    for task in value["tasks"]:
        checks = task.get("checks")
        texts = isinstance(checks, list) and all(type(one) is str for one in checks)
        if checks is not None and not (texts and len(checks) <= layout.MOST_CHECKS):
            words = f"the `checks` of {jsontext.dumps(task.get('task_id'))} are no list of names"
            found.append(Finding(name, "shape", words, agent=agent, person="write its `checks` as a list of names"))
    return found


def whole_object(data: bytes) -> Optional[dict[str, Any]]:
    """The object that a file holds (latin-1 text, numbers as they stand), None if it isn't one whole JSON object."""
    try:
        text = jsontext.decode(data)
        start = len(text) - len(text.lstrip(" \t\r\n"))
        if text[start : start + 1] != "{":
            return None
        value, end = jsontext.value_at(text, start, unique=True)
    except BadJSON:
        return None
    return value if not text[end:].strip(" \t\r\n") else None


def outbox(name: str, agent: str, data: bytes) -> tuple[list[Finding], Reading]:
    """What is wrong with an outbox that is not whole."""
    reading = salvage.read(data)
    found = of_reading(name, reading, agent)
    documents = reading.documents
    if not documents:
        if not found:
            found.append(Finding(name, "shape", "holds nothing that can be read", 1, 1, agent))
        return found, reading

    def tell(kind: str, words: str, at: int) -> None:
        found.append(Finding(name, kind, words, *reading.place(at), agent))

    if len(documents) == 1:
        top = documents[0]
        listed = top.get("tasks")
        if top.kind != "{":
            tell("shape", "is a bare list" if top.kind else f"is {_kind(top.raw)}, not an object", top.at)
        elif listed is None:
            tell("shape", "has no `tasks`", top.at)
        elif listed.kind != "[":
            tell("shape", f"`tasks` is {_kind(listed.text())}, not a list", listed.at)
    seen: dict[str, bool] = {}
    for top in documents if len(documents) == 1 else ():
        listed = top.get("tasks")
        for part in listed.expand() if listed is not None and listed.kind == "[" else ():
            if part.item.kind != "{":
                tell("shape", f"a task is {_kind(part.item.text())}, not an object", part.item.at)
                continue
            task, named = part.item.word("task_id"), part.item.get("task_id")
            if named is not None and named.text() != "null" and named.text()[:1] != '"':
                words = f"the id of a task is {_kind(named.text())}, not a text: no command can name it"
                tell("shape", words, named.at)
            if task and task in seen:
                tell("duplicate-id", f"the task {jsontext.quote(task)} stands here a second time", part.item.at)
            seen[task] = True
            status = part.item.get("status")
            if status is not None and status.text() != "null" and status.text()[:1] != '"':
                words = f"the status of {jsontext.quote(task)} is {_kind(status.text())}, not a text"
                tell("shape", words, status.at)
    found.sort(key=lambda one: (one.line, one.column))
    if len(found) > 2 * MOST:
        more = len(found) - 2 * MOST
        found[2 * MOST :] = [Finding(name, found[-1].kind, f"and {more} things more from here on", agent=agent)]
        found[-1].line, found[-1].column = found[-2].line, found[-2].column
    return found, reading


def _kind(text: str) -> str:
    return {"{": "an object", "[": "a list", '"': "a text", "n": "null", "t": "true", "f": "false"}.get(
        text[:1], "a number"
    )


def object_file(name: str, data: bytes, agent: str = "") -> tuple[list[Finding], Reading]:
    """What is wrong with a file that should hold one JSON object and doesn't."""
    reading = salvage.read(data)
    found = of_reading(name, reading, agent)
    if len(reading.documents) == 1 and reading.documents[0].kind != "{":
        top = reading.documents[0]
        found.append(Finding(name, "shape", f"is {_kind(top.text())}, not an object", *reading.place(top.at), agent))
    if not found:
        found.append(Finding(name, "damaged", "is not a JSON object", 1, 1, agent))
    return found, reading
