"""cleanup: keep what the suite writes within its bounds, see `recovery.bounds`.

What is to go is planned without a lock, and then looked at again, thing by thing, under the lock of whoever writes it,
which is held for moments: nobody waits for a cleanup.  A plan and a dry run are the same.  Safe at any time, and twice.
"""

from __future__ import annotations

import os
import sys
import time

from recovery import archived, bounds, flock, jsonl, layout, quarantine, segments, steps, tasks, turns, verbs
from recovery.errors import Busy, DataError, RecoveryError, from_os_error
from recovery.flock import Limits
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Optional, TypeVar

    _T = TypeVar("_T")

    from recovery.bounds import File
    from recovery.store import FileStore

#: Whose turn it is: one cleanup at a time.
TURN = "data/cleanup"
#: Seconds that an automatic one may take, and that it waits for a lock.
LIGHT, PATIENCE = 1.0, 0.2
#: Part of its time in which one looks for what is to be done.
_PLANNING = 0.5
#: Part of its size that a compressed log is expected to have, in the plan.
_PACKED = 8
#: Tasks whose logs are folded in one step.
_TOGETHER = 50
#: Parts of the notification log that are kept.
_TOLD = 4
_DAY = 86400.0


class Item:
    """One thing to be done: files of a kind that go (`verb` "removed"), or are compressed; why; and how it is done."""

    __slots__ = ("act", "files", "kind", "size", "verb", "what", "why")

    def __init__(
        self, kind: str, what: str, why: str, files: int, size: int, act: Callable[[], bool], verb: str = "removed"
    ) -> None:
        self.kind, self.what, self.why, self.files, self.size, self.act = kind, what, why, files, size, act
        self.verb = verb

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "what": self.what,
            "why": self.why,
            "files": self.files,
            "bytes": self.size,
            "done": self.verb,
        }


class Plan:
    """What a cleanup will do, found without changing anything: `items` in order; `use` is what will be left.

    It is looked for as long as there `is_time`.  Once that is over (`cut`) it is what was found: logs that have grown
    too long, which come first, and what is too old; not the oldest of a kind, which nobody knows then.
    """

    def __init__(self, store: FileStore, is_time: Callable[[], bool] = lambda: True) -> None:
        self.store = store
        self.is_time = is_time
        self.cut = False
        self.now = store.clock()
        self.use = bounds.Use(bounds.limits_of(store))
        self.files: dict[str, list[File]] = {name: [] for name in bounds.KINDS}
        self.items: list[Item] = []
        self.notes: list[str] = []
        self.code = 0  # of the first thing that was left, because it is damaged, or can't be read, or removed
        for file in self.while_time(bounds.files(store)):
            self.use.add(file)
            self.files[file.kind].append(file)
        self._waiting: Optional[set[str]] = None
        self._named = ""
        self.make()

    def make(self) -> None:
        makers: list[Callable[[], Iterator[None]]] = [
            self.changes,
            self.notifications,
            self.escalations,
            self.backups,
            self.quarantine,
            self.conflicts,
            self.locks,
            self.archives,
        ]
        if sys.hexversion >= 0x030B0000:
            makers += [self.checkpoints, self.logs, self.keys, self.checks, self.breakers, self.timings]
        else:
            self.notes.append("checkpoints, recovery logs, keys, checks, breakers and durations need Python 3.11")
        for n, maker in enumerate(makers):
            if self.cut and n >= 2:
                return
            try:
                for _ in maker():
                    pass
            except (RecoveryError, OSError) as error:  # one kind that can't be looked at stops no other
                refusal = error if isinstance(error, RecoveryError) else from_os_error(error, maker.__name__)
                self.notes.append(f"{maker.__name__} were left alone: {refusal}")
                self.code = self.code or refusal.code

    # --- what several kinds have in common

    def while_time(self, some: Iterable[_T]) -> Iterator[_T]:
        """These things, until the time is over."""
        for one in some:
            if not self.is_time():
                self.cut = True
                return
            yield one

    def before(self, kind: str) -> float:
        """The moment before which what was written last is too old."""
        return self.now - bounds.KINDS[kind].days * _DAY

    def add(self, item: Item) -> None:
        self.items.append(item)
        if item.kind == "archives":
            return
        one = self.use.by_kind[item.kind]
        less = item.size if item.verb == "removed" else item.size - item.size // _PACKED
        count = item.files if item.verb == "removed" else 0
        one[0] -= less
        one[1] -= count
        self.use.size -= less
        self.use.files -= count

    def by_age_and_share(self, kind: str, found: Iterable[tuple[float, Item]]) -> Iterator[None]:
        """Of things that may go, each with its moment: those that are too old, then the oldest beyond the share."""
        for when, item in sorted(found, key=lambda one: (one[0], one[1].what)):
            if bounds.KINDS[kind].days and when < self.before(kind):
                item.why = f"older than {bounds.KINDS[kind].days} days"
            elif not self.cut and self.use.is_over(bounds.KINDS[kind]):
                item.why = f"{bounds.KINDS[kind].what} have more than their share, and it is the oldest"
            else:
                continue
            self.add(item)
            yield

    @property
    def waiting(self) -> set[str]:
        """The tasks that somebody has to do or to look at; DataError (65) where nobody knows."""
        if self._waiting is None:
            from recovery import checkpoints

            self._waiting = checkpoints.waiting(self.store)
        return self._waiting

    def is_named(self, name: str) -> bool:
        """Whether an open escalation names a file; DataError (65), Denied (77): one can't be read, so nobody knows."""
        if not self._named:
            texts = ["-"]
            names = {file.name for file in self.files["escalations"] if "/resolved/" not in file.name}
            for base in self.store.list(layout.LOGS):  # a folder, or a link, where one was, too
                if "_escalation" in base and base.endswith(".json") and base[0] != ".":
                    names.add(f"{layout.LOGS}/{base}")
            for one in sorted(names):
                version = self.store.read(one, strict=False)
                if version is not None and jsonl.record_of(version.text.encode("latin-1")) is None:
                    raise DataError(f"{one} is damaged, and may name any of them")
                texts.append(version.text if version is not None else "")
            self._named = "\n".join(texts)
        return name.rpartition("/")[2] in self._named

    # --- the kinds

    def changes(self) -> Iterator[None]:
        now = layout.changes(self.store.time(self.now))
        logs = segments.logs(self.store, layout.CHANGES)
        for log in logs:
            yield from self._log(log, "changes", log < now and log != logs[-1])
        parts = [part for log in logs for part in segments.of(self.store, log)]
        sizes = {file.name: file.size for file in self.files["changes"]}
        for part in parts[:-1]:
            if self.cut or not self.use.is_over(bounds.KINDS["changes"]):
                break
            self.add(self._file("changes", part, sizes.get(part, 0), "the change log has more than its share"))
            yield

    def notifications(self) -> Iterator[None]:
        log = f"{layout.LOGS}/notifications.jsonl"
        yield from self._log(log, "logs", False)
        sizes = {file.name: file.size for file in self.files["logs"]}
        for part in segments.of(self.store, log)[:-_TOLD]:
            self.add(self._file("logs", part, sizes.get(part, 0), f"more than {_TOLD} older parts"))
            yield

    def archives(self) -> Iterator[None]:
        """Months of which the one after is over, too, are compressed."""
        last = self.store.time(self.now - 32 * _DAY)[:7]
        for agent in self.while_time(verbs.one_by_one(self.store, verbs.agents(self.store))):
            folder = layout.archives(agent)
            for name in segments.logs(self.store, folder):
                if layout.is_archive(name):
                    yield from self._log(name, "archives", name < f"{folder}/{last}")

    def _log(self, log: str, kind: str, is_over: bool) -> Iterator[None]:
        """Put aside what a log has become too long for, and compress what was put aside."""
        for part in segments.of(self.store, log):
            if not part.endswith(".gz"):
                act = _doing(segments.compress, self.store, part)
                self.add(Item(kind, part, "put aside", 1, self._size(part), act, "compressed"))
                yield
        size = self._size(log)
        if size >= jsonl.LONG or (is_over and size):
            why = "its month is over" if is_over else f"longer than {jsonl.LONG >> 20} MB"
            act = _doing(_rotate, self.store, log, jsonl.LONG if not is_over else 1)
            self.add(Item(kind, log, why, 1, size, act, "compressed"))
            yield

    def _size(self, name: str) -> int:
        st = self.store.read_state(name)
        return st.st_size if st is not None else 0

    def _file(self, kind: str, name: str, size: int, why: str) -> Item:
        return Item(kind, name, why, 1, size, _doing(_unlink, self.store, name))

    def _simply(self, kind: str, files: Iterable[File]) -> Iterator[None]:
        found = [(file.mtime, self._file(kind, file.name, file.size, "")) for file in files]
        yield from self.by_age_and_share(kind, found)

    def escalations(self) -> Iterator[None]:
        yield from self._simply("escalations", (one for one in self.files["escalations"] if "/resolved/" in one.name))

    def quarantine(self) -> Iterator[None]:
        """An original and the report beside it go together."""
        together: dict[str, list[File]] = {}
        for file in self.files["quarantine"]:
            end = quarantine.REPORT if file.name.endswith(quarantine.REPORT) else ""
            together.setdefault(file.name[: len(file.name) - len(end)], []).append(file)
        found = []
        for name, files in together.items():
            if not self.is_named(name):
                when = max(file.mtime for file in files)
                act = _doing(quarantine.remove, self.store, name, when)
                size = sum(file.size for file in files)
                found.append((when, Item("quarantine", name, "", len(files), size, act)))
        yield from self.by_age_and_share("quarantine", found)

    def conflicts(self) -> Iterator[None]:
        settled = (
            one
            for one in self.files["conflicts"]
            if one.name.endswith((".conflict.json", ".undone.json")) and not self.is_named(one.name)
        )
        yield from self._simply("conflicts", settled)

    def backups(self) -> Iterator[None]:
        found = []
        of_agent: dict[str, list[tuple[File, set[str]]]] = {}
        for file in self.files["backups"]:
            task = file.name.rpartition(".backup_")[2]
            whose = {task, task.rpartition(".")[0] if task.rpartition(".")[2].isdigit() else task}
            of_agent.setdefault(file.name.split("/")[1], []).append((file, whose))
        for agent in self.while_time(verbs.one_by_one(self.store, list(of_agent))):
            done = _ended(self.store, agent, set().union(*(whose for _, whose in of_agent[agent])))
            for file, whose in of_agent[agent]:
                if whose & done:
                    act = _doing(_remove_backup, self.store, agent, file.name, file.mtime)
                    found.append((file.mtime, Item("backups", file.name, "", 1, file.size, act)))
        yield from self.by_age_and_share("backups", found)

    def checkpoints(self) -> Iterator[None]:
        from recovery import checkpoints

        sizes = {file.name: file.size for file in self.files["checkpoints"]}
        found = []
        for task, when in self.while_time(checkpoints.ended(self.store, None, 0.0)):
            names = [name for name in (layout.checkpoint(task), layout.history(task)) if name in sizes]
            if names:
                size = sum(sizes[name] for name in names)
                act = _doing(checkpoints.remove, self.store, task, 0.0)
                found.append((_moment(when), Item("checkpoints", task, "", len(names), size, act)))
        yield from self.by_age_and_share("checkpoints", found)

    def logs(self) -> Iterator[None]:
        from recovery import stats_folded

        found = []
        newest: dict[str, str] = {}
        for when, task, names, size in self.while_time(stats_folded.old(self.store, self.waiting)):
            newest[task] = when
            found.append((_moment(when), Item("logs", task, "", len(names), size, lambda: False)))
        if self.use.is_over(bounds.KINDS["logs"]) or any(when < self.before("logs") for when, _ in found):
            stats_folded.Folded(self.store)  # where it is damaged nothing can be folded into it
        first = len(self.items)
        yield from self.by_age_and_share("logs", found)
        chosen = self.items[first:]
        for at in range(0, len(chosen), _TOGETHER):
            some = chosen[at : at + _TOGETHER]
            fold = _Fold(self.store, {item.what: newest[item.what] for item in some})
            for item in some:
                item.act = _doing(fold, item.what)

    def keys(self) -> Iterator[None]:
        from recovery import once

        days = bounds.KINDS["keys"].days
        sizes = {file.name: file.size for file in self.files["keys"]}
        for name in once.old(self.store, days):
            act = _doing(once.remove, self.store, name, days)
            self.add(Item("keys", name, f"settled {days} days ago", 1, sizes.get(name, 0), act))
            yield

    def checks(self) -> Iterator[None]:
        from recovery import checks

        before = self.before("checks")
        sizes = {file.name: file.size for file in self.files["checks"]}
        for name in checks.old(self.store, before):
            act = _doing(checks.remove, self.store, name, before)
            why = f"older than {bounds.KINDS['checks'].days} days"
            self.add(Item("checks", name, why, 1, sizes.get(name, 0), act))
            yield

    def breakers(self) -> Iterator[None]:
        from recovery import breaker_state

        found = []
        for file in self.while_time(self.files["breakers"]):
            if file.name.endswith(".json"):
                reading = breaker_state.read(self.store, file.name)
                if reading.problem or reading.state.state != "closed" or reading.state.failures:
                    continue
                when = _moment(reading.state.changed_at or self.store.time(file.mtime))
                act = _doing(_remove_breaker, self.store, file.name)
                found.append((when, Item("breakers", file.name, "", 1, file.size, act)))
            elif ".damaged" in file.name:
                found.append((file.mtime, self._file("breakers", file.name, file.size, "")))
        yield from self.by_age_and_share("breakers", found)

    def timings(self) -> Iterator[None]:
        found = []
        for file in self.while_time(self.files["timings"]):
            entries = jsonl.records(segments.read(self.store, file.name, 4096) or b"")[0]
            when = str(entries[-1].get("timestamp")) if entries else self.store.time(file.mtime)
            found.append((_moment(when), self._file("timings", file.name, file.size, "")))
        yield from self.by_age_and_share("timings", found)

    def locks(self) -> Iterator[None]:
        for file in self.files["locks"]:
            folder, _, base = file.name.rpartition("/")
            what = _covered(folder, base)
            if what and file.mtime < self.now - _DAY and self.store.read_state(what) is None:
                act = _doing(_remove_lock, self.store, file.name, what)
                self.add(Item("locks", file.name, "what it locks is gone", 1, file.size, act))
                yield


# --- how each is done: the last look under its lock, then it goes


def _doing(act: Callable[..., Any], *args: Any) -> Callable[[], bool]:
    return lambda: bool(act(*args))


def _rotate(store: FileStore, log: str, least: int) -> bool:
    part = segments.rotate(store, log, least)
    return part is not None and segments.compress(store, part)


def _unlink(store: FileStore, name: str) -> bool:
    """Under the commit lock, under which these files are made and appended to."""
    lock = store.commit_lock()
    try:
        steps.at("cleanup-remove", name)
        return store.remove(name)
    finally:
        lock.release()


def _ended(store: FileStore, agent: str, asked: set[str]) -> set[str]:
    """The tasks of an agent that are completed, in its outbox or beyond; none where the outbox is damaged.

    The archive is only looked at for those `asked` for.
    """
    name = layout.outbox(agent)
    try:
        version = store.read(name)
        outbox = tasks.Outbox(name, version) if version is not None else None
    except RecoveryError:
        return set()
    found = {base[: -len("_completion.json")] for base in store.list(f"postbox/{agent}/completed")}
    there = set()
    if outbox is not None:
        found |= {task for task, status, *_ in outbox.tasks if status.lower() == "completed"}
        there = {task for task, *_ in outbox.tasks}
        found -= set(outbox.open_tasks())
    try:
        return found | archived.among(store, agent, sorted(asked - found - there))
    except RecoveryError:  # an archive that nobody can list
        return found


def _remove_backup(store: FileStore, agent: str, name: str, mtime: float) -> bool:
    with store.lock([layout.outbox(agent)]):
        st = store.read_state(name)
        if st is None or st.st_mtime != mtime:
            return False
        steps.at("cleanup-remove", name)
        return store.remove(name)


class _Fold:
    """Folds the logs of some tasks together, when the first of them is asked for; says of each whether it was."""

    def __init__(self, store: FileStore, newest: dict[str, str]) -> None:
        self.store, self.newest = store, newest
        self.done: Optional[list[str]] = None

    def __call__(self, task: str) -> bool:
        from recovery import stats_folded

        if self.done is None:
            self.done = []
            self.done = stats_folded.fold(self.store, self.newest)
        return task in self.done


def _remove_breaker(store: FileStore, name: str) -> bool:
    from recovery import breaker_state
    from recovery.commit import Put, StartAgain

    with store.lock([name]) as held:
        reading = breaker_state.read(store, name)
        if reading.version is None or reading.problem or reading.state.state != "closed" or reading.state.failures:
            return False
        try:
            store.commit(held, Put(name, reading.version, None))
            return True
        except StartAgain:
            return False


def _covered(folder: str, base: str) -> str:
    """The file that a hidden lock or turn is for; "" if it stays whatever is there: few, or the sweep's."""
    if folder in (layout.CLAIMS, layout.RESULTS) and base.endswith(".lock"):
        return ""
    if not folder.startswith(("data/", "logs/")) or folder.startswith(layout.CLAIMS):
        return ""
    what = base[1:-5]
    if folder == layout.BREAKERS and base.endswith(".turn"):
        what = what.rpartition(".probe")[0] + ".json"
    return f"{folder}/{what}"


def _remove_lock(store: FileStore, name: str, what: str) -> bool:
    """Unlink a lock file while it is held here, unless its last holder has left something to tidy."""
    place = store.root.place(name)
    try:
        lock = flock.open_lock(place.folder, place.base, name, 0o600, -1)
    except RecoveryError:
        return False
    try:
        if not flock.try_lock(lock) or not lock.is_current() or store.read_state(what) is not None:
            return False
        if os.pread(lock.fd, len(flock.HELD), 0) == flock.HELD:
            return False
        steps.at("cleanup-remove", name)
        os.unlink(place.base, dir_fd=place.folder)
        return True
    except FileNotFoundError:
        return False
    finally:
        lock.close()


def _moment(text: str) -> float:
    """Seconds since the epoch of a time as the suite writes it; the epoch itself for what is none."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text[:19] + "+00:00").timestamp()
    except (ValueError, OverflowError):
        return 0.0


# --- the whole


def cleanup(
    store: FileStore,
    dry_run: bool = False,
    within: Optional[float] = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Result:
    """Do what the bounds ask for; with `dry_run` only say what that is.

    `within` are seconds after which what is left is left for the next time, but for the first thing; half of them those
    after which nothing more is looked for.  Busy (75) while another cleanup is at work.  A damaged outbox keeps its
    agent's backups and everybody's checkpoints and logs, for nobody knows what is open; a damaged open escalation
    everything that it might name; damaged statistics the logs.  That is said, and the code is 65 then, or 74, 77 where
    something can't be read or removed.  What is busy at this moment is left alone.  A crash leaves some done.
    """
    turn = None
    if not dry_run:
        turn = turns.take(store, TURN)
        if turn is None:
            raise Busy(
                f"another cleanup is at work: {turns.holder(store, TURN) or 'it has just ended'}. Nothing changed."
            )
    began = monotonic()
    done: list[Item] = []
    try:
        if not dry_run:
            _write_lost_lines(store)
        plan = Plan(store, lambda: within is None or monotonic() < began + within * _PLANNING)
        left = list(plan.items)
        count = len(left)
        while left and not dry_run:
            if within is not None and len(left) < count and monotonic() >= began + within:
                break
            item = left.pop(0)
            try:
                if item.act():
                    done.append(item)
            except Busy:
                continue  # it is in use: it isn't old
            except (RecoveryError, OSError) as error:
                refusal = error if isinstance(error, RecoveryError) else from_os_error(error, item.what)
                plan.notes.append(f"{item.what} was left: {refusal}")
                plan.code = plan.code or refusal.code
    finally:
        if turn is not None:
            turn.release()
    use = plan.use if dry_run or within is not None else bounds.use(store)  # in a hurry nobody asks
    return _result(plan, plan.items if dry_run else done, use, dry_run, len(left) if not dry_run else 0)


def _write_lost_lines(store: FileStore) -> None:
    """What a power cut took from a log comes back before anything is counted or goes, not afterwards."""
    lock = store.commit_lock()
    try:
        store.require_derived()
    finally:
        lock.release()


def _result(plan: Plan, items: list[Item], use: bounds.Use, dry_run: bool, left: int) -> Result:
    would = "would have " if dry_run else ""
    counts = []
    for kind in bounds.KINDS.values():
        for verb in ("compressed", "removed"):
            some = [item for item in items if item.kind == kind.name and item.verb == verb]
            if some:
                counts.append(f"{would}{verb} {kind.what} ({len(some)})")
    line = "; ".join(counts) if counts else "nothing to clean up"
    line += f"; {use.words()}"
    if left:
        line += f"; {left} thing(s) left for the next time"
    code = plan.code
    data: dict[str, Any] = {
        "ok": not code,
        "code": code,
        "changed": bool(items) and not dry_run,
        "items": [item.as_dict() for item in items],
        "left": left,
        "notes": plan.notes,
        "use": use.as_dict(),
    }
    if dry_run:
        data["dry_run"] = True
    details = [f"{would}{item.verb} {item.what}: {item.why}, {item.size} bytes" for item in items]
    plan.store.told += plan.notes
    if use.is_over():
        plan.store.told.append(over(use))
    return Result(line, bool(items) and not dry_run, data, details)


def over(use: bounds.Use) -> str:
    """What is to be said where everything that may go is gone, and it still is too much."""
    kinds = sorted(use.by_kind, key=lambda name: -use.by_kind[name][0])[:3]
    most = ", ".join(f"{bounds.KINDS[name].what} {use.by_kind[name][0] / bounds.MEGABYTE:.1f} MB" for name in kinds)
    return (
        f"over the budget: {use.words()}; most of it: {most}. What is open is never removed: finish or resolve it, "
        f"or raise `bounds` in {layout.CONFIG}"
    )


def light(path: str) -> None:
    """The automatic one, behind a command that has found a log grown long: a second at most, and not a word.

    Whatever is in its way is in somebody's use: the next one, or a person's, does it.
    """
    from recovery.store import FileStore

    limits = Limits(PATIENCE, LIGHT, "cleanup")
    try:
        store = FileStore(path, limits)
        try:
            cleanup(store, within=LIGHT)
        finally:
            store.close()
    except (RecoveryError, OSError):
        pass


def _parse(request_: Request) -> list[Any]:
    request_.no_words()
    return [request_.asked("dry_run")]


VERB = Verb({"--dry-run": "dry_run"}, _parse, lambda store, request_, call: cleanup(store, *call))
