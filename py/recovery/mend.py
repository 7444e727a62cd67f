"""Making a whole outbox of a damaged one, of what was read of it and what is known elsewhere.  Pure.

What the file itself still says counts; what is known elsewhere only fills in what is missing, and decides where the
file says two things.  Nothing that was whole is dropped: what has no place becomes an element of `salvaged`, the
beginning of a text that was cut stands in `cut_off` of its object.  What is not decided is a `Doubt`, for a person.
"""

from __future__ import annotations

from recovery import damage, jsontext, salvage, tasks
from recovery.errors import DataError
from recovery.salvage import Item, Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Optional

    from recovery.evidence import Evidence, Known
    from recovery.salvage import Reading

#: Members that hold what has no other place.
ASIDE, CUT = "salvaged", "cut_off"
#: Flaws that took something away: what is missing may be filled in from elsewhere.
_TAKEN = frozenset(["empty", "missing", "nul", "cut", "gap", "unreadable", "junk", "too-deep"])


_NOTHING_LEFT = "nothing was left of it: it says what other places know"


class Doubt:
    """What was not decided: of a `task` ("": of the file), a member `key`, the value `kept` and the `other` one."""

    __slots__ = ("kept", "key", "other", "task", "words")

    def __init__(self, task: str, key: str, words: str, kept: str = "", other: str = "") -> None:
        self.task, self.key, self.words, self.kept, self.other = task, key, words, kept, other

    def data(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name)}

    def text(self) -> str:
        subject = " ".join(word for word in (self.task, self.key) if word)
        both = f": kept {tasks.shown(self.kept)}, the other is {tasks.shown(self.other)}" if self.other else ""
        return f"{subject}: {self.words}{both}" if subject else self.words + both


class Mended:
    """What a repair comes to.

    text    the new file, latin-1 text
    whole   tasks that were whole in the file
    came    for each task that wasn't, its members' names by their source ("the file" is the damaged one)
    doubts  what a person has to decide
    notes   what was done, in words
    """

    def __init__(self) -> None:
        self.text = ""
        self.whole: list[str] = []
        self.came: dict[str, dict[str, list[str]]] = {}
        self.entries = 0
        self.doubts: list[Doubt] = []
        self.notes: list[str] = []

    def from_(self, task: str, key: str, source: str) -> None:
        self.came.setdefault(task, {}).setdefault(source, []).append(key)

    def data(self) -> dict[str, Any]:
        return {
            "whole": self.whole,
            "from": self.came,
            "history": self.entries,
            "notes": self.notes,
            "undecided": [doubt.data() for doubt in self.doubts],
        }


def outbox(agent: str, reading: Reading, known: Evidence) -> Mended:
    """Make one whole outbox.  DataError (65) if none can be made that the other commands would accept."""
    work = _Work(agent, reading, known)
    work.made.text = work.mend()
    if damage.whole_outbox(work.made.text.encode("latin-1")) is None:
        raise DataError(f"no whole outbox of {agent} can be made of this")
    return work.made


def object_text(reading: Reading, made: Mended, fill: Optional[Callable[[Item, Mended], None]]) -> str:
    """The JSON object that is left in a file: of several the last whole one, and into it what the others hold.

    `fill` may put in what is missing and known.  What was cut stands in `cut_off`.
    """
    apart = [item for item in reading.documents if item.stray and reading.between is not None]
    found = [item for item in reading.documents if item.kind == "{" and item not in apart]
    whole = [item for item in found if not item.is_lossy()]
    top = (whole or found or [Item.of("{}")])[-1]
    for item in [*found, *reading.sides]:
        if item is not top and item.kind == "{":
            _put_beside(top, item, made, f"line {reading.place(item.at)[0]}")
    if apart:
        made.notes.append(f"{len(apart)} value(s) that have no place stand in `{ASIDE}`")
        aside = ", ".join(item.text() for item in apart)
        top.put(ASIDE, Item.of(f"[{aside}]"))
    made.doubts += _doubled(top, "", "the file has two values")
    if fill is not None:
        fill(top, made)
    for key, text in top.partial.items():
        if text and top.get(key) is None:
            made.doubts.append(Doubt("", key, f"cut off, and known nowhere else: see `{CUT}`"))
        else:
            top.partial = {one: words for one, words in top.partial.items() if one != key}
    if any(flaw.kind in _TAKEN for flaw in reading.flaws) and top.is_lossy():
        what = "something of it is lost" if reading.between is None else _of_gap(reading)
        made.doubts.append(Doubt("", "", f"{what}, and known nowhere else"))
    write_cut_ends(top)
    if not reading.documents:
        made.doubts.append(Doubt("", "", _NOTHING_LEFT))
        made.notes.append("nothing was left of it")
    elif reading.flaws and not made.notes:
        made.notes.append("what could be read was kept")
    return top.text() + ("\n" if reading.text.endswith("\n") or not found else "")


def write_cut_ends(item: Item) -> None:
    """Write the beginnings of texts that were cut into the objects they stood in."""
    for part in list(item.parts or ()):
        write_cut_ends(part.item)
    if item.partial and item.kind == "{":
        there = item.get(CUT)
        old = there.value() if there is not None and there.kind == "{" else {}
        text = jsontext.dumps({**old, **{key: words for key, words in item.partial.items() if words}})
        if text != "{}":
            item.put(CUT, Item.of(jsontext.to_latin(text)))


def fill_progress(top: Item, made: Mended, known: dict[str, dict[str, Known]]) -> None:
    """Put the entries that were lost into progress.json, in the form that it has (by id where that is lost too)."""
    listed = top.get("tasks")
    misfits = [listed] if listed is not None and not listed.kind else []
    if listed is not None and listed.kind == "[":
        misfits = [part.item for part in listed.expand() if part.item.kind != "{"]
        listed.parts = [part for part in listed.expand() if part.item.kind == "{"]
    if misfits:
        made.notes.append(f"{len(misfits)} value(s) that are no entry stand in `{ASIDE}`")
        top.put(ASIDE, Item.of("[" + ", ".join(item.text() for item in misfits) + "]"))
    if not top.is_lossy() and listed is not None and listed.kind:
        return
    if listed is None or not listed.kind:
        listed = Item("{", 0)
        listed.parts = []
        top.put("tasks", listed)
    unit = jsontext.layout(top.text(), jsontext.document(top.text()))
    there: dict[str, Item] = {}
    for part in listed.expand():
        name = part.key if listed.kind == "{" else part.item.word("task_id") or part.item.word("id")
        there[name] = part.item
    for task, fields in known.items():
        entry = there.get(task)
        if entry is None:
            entry = Item.of("{}" if listed.kind == "{" else "{" + f'"id": {jsontext.quote(task)}' + "}")
            lead = "\n" + unit * 2 if unit else ""
            head = f"{jsontext.quote(task)}: " if listed.kind == "{" else ""
            listed.expand().append(Part(lead, task if head else "", head, entry))
            listed.close = listed.close or ("\n" + unit if unit else "")
        elif not entry.is_lossy():
            continue
        for key, (text, source) in fields.items():
            if entry.get(key) is None:
                entry.put(key, Item.of(text))
                entry.partial.pop(key, None)
                made.from_(task, key, source)


def _doubled(item: Item, task: str, words: str, path: str = "") -> Iterator[Doubt]:
    """A question for each name in a value that stands there with two values, the last of which was kept."""
    for key, earlier in item.doubles:
        here = item.get(key)
        if here is not None:
            both = (jsontext.from_latin(one.text()) for one in (here, earlier))
            yield Doubt(task, path + key, words, *both)
    for part in item.parts or ():
        yield from _doubled(part.item, task, words, f"{path}{part.key}." if part.key else path)


def _of_gap(reading: Reading) -> str:
    """Where a piece is missing, for a person."""
    assert reading.between is not None
    line = next(reading.place(flaw.at)[0] for flaw in reading.flaws if flaw.kind == "gap")
    before, behind = (tasks.shown(name) for name in reading.between)
    if before and behind:
        return f"something between {before} and {behind} is lost (line {line})"
    if not before and not behind:
        return f"something is lost (line {line})"
    return f"something is lost {f'behind {before}' if before else f'before {behind}'} (line {line})"


def _put_beside(top: Item, other: Item, made: Mended, source: str) -> None:
    """What another document of the same file has beside this one, and where they differ."""
    for part in list(other.expand()):
        here = top.get(part.key)
        if here is None:
            top.put(part.key, part.item)
            made.from_("", part.key, source)
        elif here.kind == part.item.kind == "{":
            _put_beside(here, part.item, made, source)
        elif not _same(here, part.item):
            words = (jsontext.from_latin(one.text()) for one in (here, part.item))
            made.doubts.append(Doubt("", part.key, f"the file has two values ({source})", *words))


FILE = "the file"


class _Work:
    def __init__(self, agent: str, reading: Reading, known: Evidence) -> None:
        self.agent, self.reading, self.known = agent, reading, known
        self.made = Mended()
        self.lost = any(flaw.kind in _TAKEN for flaw in reading.flaws)
        self.no_box = False  # it was nothing but reports and the like
        self.shapeless = ""  # why it held no list of tasks, so that what it had is known elsewhere only
        self.aside: list[Item] = []
        self.unit = "  "
        self.indexes: dict[int, dict[str, Item]] = {}

    def mend(self) -> str:
        top = self._joined(self.reading.documents)
        if self.reading.sides:
            self._merge_box(top, self._joined(self.reading.sides), "the other side of the merge")
            self.made.notes.append("joined both sides of a merge")
        listed = top.get("tasks")
        assert listed is not None
        if not self.reading.documents:
            self.made.notes.append("nothing was left of it")
        self._tell_bad_bytes()
        for text in self.reading.junk[:10]:
            self.made.notes.append(f"left out: {tasks.quoted(jsontext.from_latin(text))}")
        self._one_of_each(listed)
        for part in list(listed.expand()):
            self._task(listed, part.item)
        self._history(top)
        if self.lost or self.shapeless or self.no_box:
            before = len(listed.expand())
            self._bring_back(top, listed)
            if self.no_box and len(listed.expand()) > before:
                self.shapeless = "it held no outbox, and open tasks are known elsewhere"
            self._tell_loss(top, listed)
        write_cut_ends(top)
        if self.aside:
            there = top.get(ASIDE)
            if there is None or there.kind != "[":
                there = self._list_in(top, ASIDE)
            for item in self.aside:
                self._add(there, self._moved(item, 2))
            self.made.notes.append(f"{len(self.aside)} value(s) that have no place stand in `{ASIDE}`")
        history = top.get("history")
        self.made.entries = len(history.expand()) if history is not None and history.kind == "[" else 0
        end = "\n" if self.reading.text.endswith("\n") or not self.reading.documents else ""
        return top.text() + end

    # --- one document of many

    def _joined(self, documents: list[Item]) -> Item:
        """One outbox of all documents: the last whole one with `tasks`, and into it what the others hold."""
        documents = list(self._unwrapped(documents))
        boxes = [item for item in documents if _is_box(item)]
        whole = [item for item in boxes if item.get("tasks") is not None and not item.is_lossy()]
        listed = [item for item in boxes if item.get("tasks") is not None]
        candidates = whole or listed or boxes
        top = candidates[-1] if candidates else self._new_top()
        if candidates:
            self._reshape(top)
        self.unit = jsontext.layout(top.text(), jsontext.document(top.text()))
        tasks_ = self._list_of(top, "tasks")
        for key, earlier in top.doubles:
            if key in ("tasks", "history") and earlier.kind == "[":
                for part in earlier.expand():
                    self._place(top, part.item, key)
            else:
                self._two_values(top, key, earlier, "", "the file, earlier")
        for item in documents:
            if item is top:
                continue
            line = self.reading.place(item.at)[0]
            if item in boxes:
                self._merge_box(top, item, f"line {line}")
            elif item.kind == "{" and item.lossy and not item.expand():
                self.aside += [item] if item.partial else []
            elif item.kind == "{" and (item.word("task_id") or not item.stray):
                kind = "tasks" if _is_task(item) else "history"
                self._place(top, item, kind)
                word = "a task" if kind == "tasks" else "an entry of `history`"
                self.made.notes.append(f"the document of line {line} ({self._name_of(item)}) became {word}")
            elif (
                item.kind == "["
                and not (item.stray and item.lossy)
                and any(part.item.kind == "{" for part in item.expand())
            ):
                for part in item.expand():
                    self._place(top, part.item, "tasks" if _is_task(part.item) else "history")
                self.made.notes.append(f"the list of line {line} became tasks and entries of `history`")
            else:
                self.aside.append(item)
        for part in list(tasks_.expand()):
            if part.item.kind != "{":
                tasks_.expand().remove(part)
                if part.item.text() != "null":
                    self.aside.append(part.item)
        return top

    def _unwrapped(self, documents: list[Item], depth: int = 5) -> Iterator[Item]:
        """The documents, with what a list or a text around a whole outbox holds in the place of that."""
        for item in documents:
            inner = [part.item for part in item.expand()] if item.kind == "[" else _in_text(item)
            opened = list(self._unwrapped(inner, depth - 1)) if inner and depth else []
            if not any(map(_is_box, opened) if item.kind else (one.kind for one in opened)):
                yield item
                continue
            what = "list" if item.kind else "text"
            self.made.notes.append(f"what the {what} of line {self.reading.place(item.at)[0]} held was taken out of it")
            for one in opened:
                one.at = one.at if item.kind else item.at  # a text has offsets of its own
            yield from opened

    def _new_top(self) -> Item:
        top = Item.of(jsontext.to_latin(tasks.empty_outbox(self.agent)).strip())
        for key, (text, source) in self.known.top.items():
            top.put(key, Item.of(text))
            self.made.from_("", key, source)
        self.no_box = True
        return top

    def _reshape(self, top: Item) -> None:
        """Give a document its `tasks`, where they are in another form or under a name that fell over."""
        listed = top.get("tasks")
        inner = _in_text(listed) if listed is not None else []
        if len(inner) == 1 and inner[0].kind:
            listed = inner[0]
            top.put("tasks", listed)
            self.made.notes.append("`tasks` was a text that holds them")
        if listed is not None and listed.kind == "[":
            return
        if listed is not None and listed.kind == "{" and listed.word("task_id"):
            only = Item("[", listed.at)
            only.parts = [Part("", "", "", listed)]
            top.put("tasks", only)
            self.made.notes.append("`tasks` was a task; it is a list now")
            return
        if listed is not None and listed.kind == "{":
            moved = Item("[", listed.at)
            for part in listed.expand():
                if part.item.kind == "{" and not part.item.word("task_id"):
                    part.item.put("task_id", Item.of(part.head[: part.head.rindex('"') + 1]))
                part.head = part.key = ""
            moved.parts, moved.close, moved.lossy = listed.parts, listed.close, listed.lossy
            top.put("tasks", moved)
            self.made.notes.append("`tasks` was an object by id; it is a list now")
            return
        if listed is not None:
            if listed.text() not in ("null", '""'):
                self.aside.append(listed)
            top.put("tasks", Item.of("[]"))
            self.made.notes.append("`tasks` was no list; it is one now")
            self.shapeless = "its `tasks` were no list"
            return
        for part in top.expand():
            if part.key not in ("history", "messages", "archive", ASIDE) and _is_task_list(part.item):
                self.made.notes.append(f"{jsontext.quote(part.key)} holds the tasks; it is called `tasks` now")
                part.key, part.head = "tasks", '"tasks"' + part.head[part.head.rindex('"') + 1 :]
                return
        self.shapeless = "it had no `tasks`"

    def _merge_box(self, top: Item, other: Item, source: str) -> None:
        """What another version of the outbox holds beside this one."""
        for part in other.expand():
            here = top.get(part.key)
            if part.key in ("tasks", "history") and part.item.kind == "[":
                for entry in part.item.expand():
                    self._place(top, entry.item, part.key, source)
            elif here is None:
                top.put(part.key, self._moved(part.item, 1))
                self.made.from_("", part.key, source)
            elif not _same(here, part.item):
                self._two_values(top, part.key, part.item, "", source)

    def _place(self, top: Item, item: Item, key: str, source: str = "") -> None:
        """Put a task or an entry of the history where it belongs, unless the very same stands there."""
        if item.kind != "{":
            if item.text() != "null":
                self.aside.append(item)
            return
        listed = self._list_of(top, key)
        there = self._index(listed, key)
        name = (item.word("task_id") if key == "tasks" else _canonical(item)) or f" {id(item)}"
        if name not in there:
            there[name] = self._moved(item, 2)
            self._add(listed, there[name])
        elif key == "tasks":
            self._join(there[name], item, name, source or f"line {self.reading.place(item.at)[0]}")

    def _index(self, listed: Item, key: str) -> dict[str, Item]:
        """The tasks of a list by id, the entries of a history by what they say; made once."""
        found = self.indexes.get(id(listed))
        if found is None:
            found = self.indexes[id(listed)] = {}
            for part in listed.expand():
                if part.item.kind == "{":
                    name = part.item.word("task_id") if key == "tasks" else _canonical(part.item)
                    found.setdefault(name or f" {id(part.item)}", part.item)
        return found

    def _join(self, task: Item, other: Item, name: str, source: str) -> None:
        """One task of two with the same id; if their titles differ they are two."""
        titles = [one.get("title") for one in (task, other)]
        if titles[0] is not None and titles[1] is not None and not _same(titles[0], titles[1]):
            self.aside.append(other)
            words = f"two tasks have this id ({source}): the second stands in `{ASIDE}`"
            self.made.doubts.append(Doubt(name, "task_id", words))
            return
        for part in list(other.expand()):
            here = task.get(part.key)
            if here is None:
                task.put(part.key, self._moved(part.item, 3))
                self.made.from_(name, part.key, source)
            elif not _same(here, part.item):
                self._two_values(task, part.key, part.item, name, source)
        for key, text in other.partial.items():
            if task.get(key) is None:
                task.partial.setdefault(key, text)

    def _two_values(self, item: Item, key: str, other: Item, task: str, source: str) -> None:
        """A member has two values: what is known elsewhere decides, else a completion stands, or what there is."""
        here = item.get(key)
        if here is None:
            item.put(key, other)
            return
        if task:
            known = self.known.of(task).get(key)
        else:
            known = self.known.top.get(key)
        if known is not None:
            held = Item.of(known[0])
            if _same(held, here):
                return
            if _same(held, other):
                item.put(key, self._moved(other, 3 if task else 1))
                self.made.from_(task, key, f"{source}, as {known[1]} says")
                return
        kept, gone = here, other
        if key == "status" and other.text().lower() == '"completed"':
            kept, gone = other, here
            item.put(key, other)
        words = (jsontext.from_latin(one.text()) for one in (kept, gone))
        self.made.doubts.append(Doubt(task, key, f"the file has two values ({source})", *words))

    def _one_of_each(self, listed: Item) -> None:
        """One entry for each id."""
        first: dict[str, Item] = {}
        parts = listed.expand()
        again = []
        kept = []
        for part in parts:
            self._named(part.item)
            name = part.item.word("task_id")
            if name and first.setdefault(name, part.item) is not part.item:
                again.append((name, part))
            else:
                kept.append(part)
        parts[:] = kept
        for n, (name, part) in enumerate(again):
            if n < 10:
                self.made.notes.append(f"{name} stood there twice")
            self._join(first[name], part.item, name, f"line {self.reading.place(part.item.at)[0]}")
        if len(again) > 10:
            self.made.notes.append(f"and so did {len(again) - 10} more")

    # --- one task

    def _named(self, item: Item) -> None:
        """An id that is no text becomes the text of it."""
        named = item.get("task_id")
        if named is None or named.is_lossy() or named.text() == "null" or named.text()[:1] == '"':
            return
        held = jsontext.from_latin(named.text())
        item.put("task_id", Item.of(jsontext.to_latin(jsontext.quote(held))))
        self.made.notes.append(f"the id {tasks.shown(held)} was no text")

    def _task(self, listed: Item, item: Item) -> None:
        name = item.word("task_id")
        for key, earlier in item.doubles:
            self._two_values(item, key, earlier, name, "the file, earlier")
        for part in item.parts or ():
            self.made.doubts += _doubled(part.item, name, "the file has two values", part.key + ".")
        self._status(item, name)
        if not item.is_lossy():
            if name and name not in self.made.came:
                self.made.whole.append(name)
            return
        if not name:
            name = self._name_again(listed, item)
            if not name:
                return
        for part in item.expand():
            self.made.from_(name, part.key, FILE)
        for key, known in self.known.of(name).items():
            self._fill(item, name, key, known)
        if item.get("status") is None:
            self.made.doubts.append(Doubt(name, "status", "its status is lost, so it counts as pending"))
        if item.partial:
            some = ", ".join(item.partial)
            self.made.doubts.append(Doubt(name, some, f"cut off, and known nowhere else: see `{CUT}`"))

    def _status(self, item: Item, name: str) -> None:
        """A status that is no text: the known one takes its place, or none does, which is pending."""
        status = item.get("status")
        if status is None or status.text() == "null" or status.text()[:1] == '"':
            return
        item.drop("status")
        held = jsontext.from_latin(status.text())
        known = self.known.of(name).get("status") if not status.is_lossy() else None
        if known is not None and known[0][:1] == '"':
            item.put("status", Item.of(known[0]))
            self.made.from_(name, "status", known[1])
            self.made.notes.append(f"the status of {name} was {tasks.shown(held)}")
        else:
            words = f"it was {tasks.quoted(held)}, which is no text: the task counts as pending"
            self.made.doubts.append(Doubt(name, "status", words))

    def _fill(self, item: Item, task: str, key: str, known: Known) -> None:
        text, source = known
        here, value = item.get(key), Item.of(text)
        if here is None:
            partial = item.partial.get(key)
            if partial is not None and not _begins(value, partial):
                return
            item.put(key, self._moved(value, 3))
            item.partial.pop(key, None)
            self.made.from_(task, key, source)
        elif here.is_lossy() and _is_within(here, value):
            item.put(key, self._moved(value, 3))
            item.partial.pop(key, None)
            self.made.came[task][FILE].remove(key)
            self.made.from_(task, key, source)

    def _name_again(self, listed: Item, item: Item) -> str:
        """The id of a task that lost it, "" if it stays unknown: an entry that is nothing else is put aside."""
        beginning = item.partial.get("task_id", "")
        there = {part.item.word("task_id") for part in listed.expand()}
        fits = [
            task
            for task, fields in self.known.fields.items()
            if task not in there
            and task.startswith(beginning)
            and all(part.key in fields and _same(part.item, Item.of(fields[part.key][0])) for part in item.expand())
        ]
        if (beginning or item.expand()) and len(fits) == 1:
            item.partial.pop("task_id", None)
            first = Item.of(jsontext.quote(fits[0]))
            item.put("task_id", first)
            parts = item.expand()
            parts.insert(0, parts.pop())
            self.made.notes.append(f"a task whose id was lost can only be {fits[0]}")
            return fits[0]
        if not item.expand():
            part = next(part for part in listed.expand() if part.item is item)
            listed.expand().remove(part)
            if not item.partial:
                return ""
            self.aside.append(item)
        words = f"a task has lost its id{f' ({tasks.shown(beginning)}…)' if beginning else ''}: no command can name it"
        self.made.doubts.append(Doubt("", "task_id", words))
        return ""

    # --- what is gone altogether

    def _bring_back(self, top: Item, listed: Item) -> None:
        """Tasks, entries of the history and members that the damage took, as they are known elsewhere."""
        there = {part.item.word("task_id") for part in listed.expand()}
        history = top.get("history")
        past = history.expand() if history is not None and history.kind == "[" else []
        archived = {part.item.word("task_id") for part in past}
        for task in self.known.order:
            if task in there or task in archived or task in self.known.gone:
                continue
            fields = self.known.of(task)
            entry = Item.of("{" + jsontext.to_latin(f'"task_id": {jsontext.quote(task)}') + "}")
            for key, (text, source) in fields.items():
                if key != "task_id":
                    entry.put(key, Item.of(text))
                self.made.from_(task, key, source)
            self._add(listed, self._moved(entry, 2))
            if "status" not in fields:
                self.made.doubts.append(Doubt(task, "status", "its status is lost, so it counts as pending"))
        for key, (text, source) in self.known.top.items():
            partial = top.partial.get(key)
            if top.get(key) is None and (partial is None or _begins(Item.of(text), partial)):
                top.put(key, self._moved(Item.of(text), 1))
                top.partial.pop(key, None)
                self.made.from_("", key, source)
        for text, source in self.known.history:
            entry = Item.of(text)
            entries = self._list_of(top, "history")
            there_ = self._index(entries, "history")
            if _canonical(entry) not in there_:
                there_[_canonical(entry)] = entry
                self._add(entries, self._moved(entry, 2))
                self.made.from_("", "history", source)

    def _history(self, top: Item) -> None:
        """Entries of the history that are not whole: as a backup has them, where that fits what is left."""
        history = top.get("history")
        for part in history.expand() if history is not None and history.kind == "[" else ():
            name = part.item.word("task_id") or "an entry"
            self.made.doubts += _doubled(part.item, name, "an entry of history has two values")
            if not part.item.is_lossy():
                continue
            fits = [(text, source) for text, source in self.known.history if _is_within(part.item, Item.of(text))]
            if len(fits) == 1 and part.item.expand():
                part.item = self._moved(Item.of(fits[0][0]), 2)
                self.made.from_(f"{name} (history)", "all", fits[0][1])
            else:
                keys = [member.key for member in part.item.expand()]
                self.made.came.setdefault(f"{name} (history)", {})[FILE] = keys
                some = ", ".join(part.item.partial)
                words = f"cut off, and known nowhere else: see `{CUT}`" if some else "an entry of history is not whole"
                self.made.doubts.append(Doubt(name if some else "", some, words))

    def _tell_loss(self, top: Item, listed: Item) -> None:
        """Say that something is gone of which nobody knows what it was."""
        history = top.get("history")
        if not self.reading.documents:
            words = _NOTHING_LEFT
        elif self.no_box and any(item.kind == "[" for item in self.reading.documents):
            words = "it was a bare list of tasks: its other members and its history are back as far as known elsewhere"
        elif self.reading.between is not None:
            words = f"{_of_gap(self.reading)}: it is back as far as other places know it"
        elif any(item is not None and item.lossy for item in (top, listed, history)):
            line = self.reading.place(min(flaw.at for flaw in self.reading.flaws if flaw.kind in _TAKEN))[0]
            words = f"from line {line} on something is lost: it is back as far as other places know it"
        elif self.shapeless and self.known.order:
            words = f"{self.shapeless}: what other places know of its tasks is back"
        elif not self.made.doubts and any(flaw.kind == "unreadable" for flaw in self.reading.flaws):
            line = next(self.reading.place(flaw.at)[0] for flaw in self.reading.flaws if flaw.kind == "unreadable")
            words = f"what stood in line {line} can't be read: it is back as far as other places know it"
        elif not self.made.doubts and self.reading.junk:
            words = "text that belongs to nothing was left out: see the notes of the report"
        else:
            return
        self.made.doubts.append(Doubt("", "", words))

    def _tell_bad_bytes(self) -> None:
        for kind, words in (
            ("not-utf-8", "bytes that are not UTF-8 were replaced by U+FFFD"),
            ("too-deep", "a value that is nested too deeply was left out"),
        ):
            lines = [self.reading.place(flaw.at)[0] for flaw in self.reading.flaws if flaw.kind == kind]
            if lines:
                self.made.doubts.append(Doubt("", "", f"{words} (line {', '.join(map(str, lines[:5]))})"))

    # --- how it is written

    def _list_of(self, top: Item, key: str) -> Item:
        there = top.get(key)
        if there is not None and there.kind == "[":
            return there
        if there is not None and there.text() not in ("null", '""', "{}"):
            self.aside.append(there)
        return self._list_in(top, key)

    def _list_in(self, top: Item, key: str) -> Item:
        made = Item("[", 0)
        made.parts, made.close = [], ""
        top.put(key, made)
        return made

    def _add(self, listed: Item, item: Item) -> None:
        """One element more in a list of the top, laid out like the others."""
        first = not listed.expand()
        listed.add(item)
        if first and self.unit:
            listed.expand()[0].lead, listed.close = "\n" + self.unit * 2, "\n" + self.unit
        elif first:
            listed.expand()[0].lead = listed.close = ""

    def _moved(self, item: Item, depth: int) -> Item:
        """A value laid out as its new place asks; what is cut in it stays noted."""
        if item.is_lossy() or item.doubles or item.partial:
            return item
        value = item.value()
        text = jsontext.pretty(value, self.unit, self.unit * depth) if self.unit else jsontext.pretty(value, "")
        return Item.of(jsontext.to_latin(text), item.at)

    def _name_of(self, item: Item) -> str:
        return tasks.shown(item.word("task_id")) or "without a task_id"


def _in_text(item: Item) -> list[Item]:
    """The objects, lists and texts that a text holds as JSON, [] if it is none or holds none."""
    value = item.value() if not item.kind and item.raw[:1] == '"' else None
    if type(value) is not str or value.lstrip()[:1] not in ("{", "[", '"'):
        return []
    found = salvage.read(value.encode("utf-8", "surrogateescape"))
    return found.documents if not found.junk else []


def _is_box(item: Item) -> bool:
    """Whether a document is an outbox, and no report."""
    if item.kind != "{":
        return False
    listed = item.get("tasks")
    if listed is not None:
        return True
    if item.get("task_id") is not None:
        return False
    return any(
        item.get(key) is not None or key in item.partial for key in ("agent_id", "agent_name", "history", "expertise")
    ) or any(_is_task_list(part.item) for part in item.expand())


def _is_task(item: Item) -> bool:
    """Whether an object is a task rather than a report of one."""
    keys = {part.key for part in item.expand()} if item.kind == "{" else set()
    return "title" in keys and bool(keys & {"status", "priority"}) and not keys & {"timestamp", "summary", "report"}


def _is_task_list(item: Item) -> bool:
    parts = item.expand() if item.kind == "[" else []
    return bool(parts) and all(part.item.kind == "{" and part.item.word("task_id") for part in parts)


def _same(a: Item, b: Item) -> bool:
    return jsontext.same(jsontext.from_latin(a.text()), jsontext.from_latin(b.text()))


def _begins(whole: Item, beginning: str) -> bool:
    value = None if whole.kind else whole.value()
    return type(value) is str and value.startswith(beginning)


def _is_within(part: Item, whole: Item) -> bool:
    """Whether what is left of a value is a piece of a whole one."""
    if part.kind != whole.kind:
        return False
    if not part.kind:
        return _same(part, whole)
    if part.kind == "[":
        ours, theirs = part.expand(), whole.expand()
        return len(ours) <= len(theirs) and all(_is_within(a.item, b.item) for a, b in zip(ours, theirs))
    for one in part.expand():
        other = whole.get(one.key)
        if other is None or not _is_within(one.item, other):
            return False
    for key, text in part.partial.items():
        held = whole.get(key)
        if held is None or not (_begins(held, text) or held.kind):
            return False
    return True


def _canonical(item: Item) -> str:
    """A text that two items share if, and as good as only if, they hold the same value."""
    return jsontext.dumps(_sorted(item.value()))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    return f"number {value}" if type(value) is jsontext.Number else value
