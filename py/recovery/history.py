"""history: an agent's changes, and its outbox as it was.  Only reads."""

from __future__ import annotations

import os
import time
from itertools import islice

from recovery import archived, changelog, derived, durable, jsontext, layout, lost, page, say, segments, tasks, verbs
from recovery.errors import DataError, NotFound, UsageError
from recovery.request import Request, Verb, time_of, whole_number
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Optional

    from recovery.store import FileStore

    Line = dict[str, Any]

#: Changes that are listed where nobody says how many.
MOST = 20


def history(store: FileStore, agent: str, task: str = "", most: int = MOST) -> Result:
    """The newest `most` changes of an agent, or of one of its tasks, the newest last.

    NotFound (66) if the agent has neither an outbox nor a change, or the task no change, no entry and no archive.
    What can't be read is said, the rest is shown, and the code is its own (74, 77).
    """
    skipped = segments.Skipped()
    found: list[Line] = []
    for line in changelog.by_number(store, task or agent, skipped=skipped):
        if changelog.is_of(line, agent, task):
            found.append(line)
            if len(found) >= most:
                break
    found.reverse()
    if not found:
        skipped.require()
        _require_known(store, agent, task)
    _tell(skipped)
    lines = [words for line in found for words in changelog.shown(line)]
    lines = lines or [f"no change of {agent}{'/' + task if task else ''} is recorded in {layout.CHANGES}/"]
    code = skipped.refusals[0].code if skipped.refusals else 0
    data = {"ok": not code, "code": code, "changed": False, "agent": agent, "task": task or None, "changes": found}
    return Result(lines[0], False, {**data, "torn": skipped.torn, "problems": skipped.problems}, lines[1:])


def _require_known(store: FileStore, agent: str, task: str) -> None:
    """NotFound (66) for an agent without outbox, or a task that is neither in it nor archived."""
    if agent not in verbs.agents(store):
        raise verbs.unknown(store, agent, task or "any task")
    version = store.read(layout.outbox(agent)) if task else None
    if version is not None:
        outbox = tasks.Outbox(layout.outbox(agent), version)
        if outbox.find(task) is None and outbox.archived(task) is None and archived.find(store, agent, task) is None:
            raise verbs.unknown(store, agent, task, outbox)


def _tell(skipped: segments.Skipped) -> None:
    for problem in skipped.problems:
        say.tell(f"{problem}; the other months are shown")
    if skipped.torn:
        say.tell(f"{skipped.torn} torn or foreign lines of {layout.CHANGES}/ were passed over")


# --- an earlier outbox


class Moment:
    """A moment of the log: right after change number `seq`, after change `txid`, or at `time` (UTC, ISO 8601, Z)."""

    def __init__(self, seq: int = -1, txid: str = "", time: str = "") -> None:
        self.seq, self.txid, self.time = seq, txid, time

    def has(self, line: Line) -> bool:
        """Whether a change had been made by then."""
        if self.txid:
            return bool(line["txid"] == self.txid)
        return bool(line["time"] <= self.time if self.time else line["seq"] <= self.seq)

    def __str__(self) -> str:
        return self.txid or self.time or f"change {self.seq}"


def moment_of(text: str, now: float) -> Moment:
    """A moment from `2h` (ago), a change's number or txid, or ISO 8601 (UTC without an offset); UsageError (64)."""
    if text.isascii() and text.isdigit():
        return Moment(seq=int(text[:18]))
    stamp, dash, nonce = text.partition("-")
    if dash and nonce.isalnum() and len(stamp) == 16 and stamp[8] + stamp[15] == "TZ":
        return Moment(txid=text)
    try:
        return Moment(time=time_of(text, "--at", now))
    except UsageError as error:
        error.args = (f"{error}, the number of a change, or its txid",)
        error.hint = "recovery history AGENT shows the numbers"
        raise


def at(store: FileStore, agent: str, moment: Moment, task: str = "") -> Result:
    """An agent's outbox, or the entry of a task, as it was at a moment: its bytes on stdout, nothing else.

    DataError (65) where somebody changed, past the suite, fields that would have to be taken back, or where a change is
    lost that may have to be; if they changed others that is said and theirs are shown.  NotFound (66): the log doesn't
    reach so far, or there was none then.  Denied (77), StorageError (74): it can't be read.
    """
    if moment.txid:
        line = next((line for line in derived.newest_first(store, moment.txid) if line["txid"] == moment.txid), None)
        if line is None:
            raise NotFound(f"there is no such change: {moment}", hint=f"recovery history {agent}")
    for _ in range(3):
        told: list[str] = []
        skipped = segments.Skipped()
        numbers = lost.Numbers.of(store)
        version = store.read(layout.outbox(agent))
        try:
            text = rebuilt(
                None if version is None else version.text,
                changelog.by_number(store, skipped=skipped),
                layout.outbox(agent),
                moment,
                told.append,
                numbers,
            )
        except (DataError, NotFound):
            skipped.require()
            if _is_same(version, store.read(layout.outbox(agent))):
                raise
            continue
        if not told or _is_same(version, store.read(layout.outbox(agent))):
            break
    if moment.time and _is_ambiguous(store, moment):
        told.append(f"the clock was set back: changes before the last by {moment} say that they were made later")
    skipped.require()
    _tell(skipped)
    record = store.unfinished()
    if record is not None:
        told.append("a commit is unfinished: `recovery recover` first, if none is under way")
    for words in told:
        say.tell(words)
    if text is None:
        raise NotFound(f"{agent} had no outbox at {moment}", hint=f"recovery history {agent}")
    if task:
        try:
            span = jsontext.find(text, ["tasks", ["task_id", task]])
        except jsontext.BadJSON as error:
            raise DataError(f"the outbox of {agent} at {moment} is damaged: {error}") from None
        if span is None:
            raise NotFound(f"{agent} had no {task} in its outbox at {moment}", hint=f"recovery history {agent} {task}")
        text = text[span[0] : span[1]] + "\n"
    shown = jsontext.from_latin(text)
    data = {"ok": True, "code": 0, "changed": False, "agent": agent, "task": task or None, "at": str(moment)}
    return Result("", False, {**data, "text": shown, "notes": told, "torn": skipped.torn})


def _is_ambiguous(store: FileStore, moment: Moment) -> bool:
    """Whether the change before the last by a time was made later, says its line."""
    lines = changelog.by_number(store)
    return any(moment.has(line) for line in lines) and not all(moment.has(line) for line in islice(lines, 1))


def rebuilt(
    text: Optional[str],
    changes: Iterable[Line],
    name: str,
    moment: Moment,
    tell: Callable[[str], None],
    numbers: Optional[lost.Numbers] = None,
) -> Optional[str]:
    """What the file `name` held at a moment, from what it holds now (latin-1 text; None: there is none).

    `changes` come the highest number first; the inverse of each that was made later is applied.  Each names the hashes
    it found and left: where one doesn't fit, somebody wrote past the suite, which is told, and the field's own values
    decide.  So it is for the last that had been made by then, up to which the log is read.  DataError (65) where a
    change is lost (`numbers`, see `recovery.lost`) that may have to be taken back too.
    """
    numbers = lost.Numbers() if numbers is None else numbers
    made = -1  # the newest change that had been made by then
    proven = 1 << 62  # what is lost from that number on has not touched the file
    line: Optional[Line] = None
    for newer, line in enumerate(changes):
        numbers.meet(line)
        if not newer and moment.seq > max(line["seq"], numbers.newest):
            raise NotFound(f"there is no change {moment.seq}: the newest is {max(line['seq'], numbers.newest)}")
        if made < 0 and moment.has(line):
            made = max(moment.seq, line["seq"])
        for file in line["files"]:
            if file["name"] != name:
                continue
            fits = _hash(text) == file.get("after")
            missing = 0 if fits else numbers.lost(line["seq"], proven)
            if made >= 0:
                _tell_of(text, line, file, missing, made, tell)
                return text
            if missing and _hash(text) != file.get("before"):
                raise lost.refusal(missing, f"and {name} is not what {_which(line)} left: its state before is unknown")
            text = _before(text, line, file, tell)
            proven = line["seq"]
    if line is None:
        raise NotFound(f"no change is recorded in {layout.CHANGES}/: only what stands there now is known")
    if made >= 0 or moment.seq == line["seq"] - 1:
        missing = numbers.lost(max(made, line["seq"] - 1), proven)
        if missing:
            raise lost.refusal(missing, f"and it may have changed {name} after {moment}")
        return text
    raise NotFound(
        f"{layout.CHANGES}/ reaches back to change {line['seq']} of {line['time']}, not to {moment}",
        hint=f"--at {line['seq'] - 1} is the state before that change",
    )


def _tell_of(text: Optional[str], line: Line, file: Line, missing: int, made: int, tell: Callable[[str], None]) -> None:
    """Say where the state of a moment is not what the last change before it left; DataError (65): it may be later."""
    if _hash(text) == file.get("after"):
        return
    name = file["name"]
    if missing > made:
        raise lost.refusal(missing, f"and {name} is not what {_which(line)} left: what it was then is unknown")
    if missing:
        tell(f"change {missing} is lost: its line is missing in {layout.CHANGES}/; shown is what was found after it")
    else:
        tell(f"{name} is not what {_which(line)} left: somebody wrote past the suite; it is shown as it is")


def _hash(text: Optional[str]) -> Optional[str]:
    return None if text is None else durable.digest_of(text.encode("latin-1"))


def _which(line: Line) -> str:
    return f"change {line['seq']} ({line['op']} {line['agent']}/{line['task']} of {line['time']})"


def _before(text: Optional[str], line: Line, file: Line, tell: Callable[[str], None]) -> Optional[str]:
    """The text before a change, from that after it; DataError (65)."""
    hash_now, which = _hash(text), _which(line)
    name = file["name"]
    fits = hash_now == file.get("after")
    if not fits and hash_now == file.get("before"):
        tell(f"{name} is as it was before {which}: somebody put an older copy back past the suite")
        return text
    hint = f"recovery history {line['agent']} shows what each change did"
    if text is None and "write" not in file:
        raise DataError(f"{name} was there after {which} and is not: somebody removed it past the suite", hint=hint)
    try:
        if "write" in file:
            if not fits:
                raise DataError(f"{name} is not what {which} left: somebody wrote past the suite", hint=hint)
            old, _ = file["write"]
            return None if old is None else old.encode("utf-8", "surrogateescape").decode("latin-1")
        assert text is not None
        walked = jsontext.Walked(text)
        stand = jsontext.standing(walked, file["ops"])
        if stand != "after":
            raise DataError(
                f"somebody changed fields of {which} in {name} past the suite: {_differing(walked, file['ops'])}",
                hint=hint,
            )
        if not fits:
            tell(f"{name} is not what {which} left: somebody wrote past the suite; what they changed is shown as it is")
        return jsontext.applied(text, jsontext.inverse(file["ops"]))
    except jsontext.BadJSON as error:
        raise DataError(f"{name} is damaged: {error}", hint=hint) from None
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(f"{which} is recorded in a form that this version doesn't know", hint=hint) from None


def _differing(walked: jsontext.Walked, ops: Iterable[dict[str, Any]]) -> str:
    from recovery.rollback import differences

    return differences(walked, ops)


def _is_same(one: Optional[durable.Version], other: Optional[durable.Version]) -> bool:
    return (None if one is None else one.hash) == (None if other is None else other.hash)


def _parse(request: Request) -> list[Any]:
    words = list(request.words)
    if words and "/" in words[0]:
        words = [*words[0].split("/", 1), *words[1:]]
    elif not words and os.environ.get("RECOVERY_AGENT"):
        words = [os.environ["RECOVERY_AGENT"]]
    if not words:
        raise UsageError("AGENT is needed", hint="see --help")
    if len(words) > 2:
        raise UsageError(f"too many words: {words[2][:40]!a}", hint="see --help")
    agent, task = layout.require_id("agent", words[0]), layout.require_id("task", words[1]) if words[1:] else ""
    limit, moment = request.options.get("limit"), request.options.get("at")
    if limit is not None and moment is not None:
        raise UsageError("--limit is for the list, --at for one state", hint="see --help")
    most = MOST if limit is None else whole_number("--limit", limit, 10**6)
    return [agent, task, most, None if moment is None else moment_of(moment, time.time())]


def _call(store: FileStore, request: Request, call: list[Any]) -> Result:
    agent, task, most, moment = call
    if moment is None:
        return _on_screen(history(store, agent, task, most))
    result = at(store, agent, moment, task)
    if not request.asked("json") and not request.asked("quiet"):
        result.then = lambda: _print(result.data["text"])
    return result


def _on_screen(result: Result) -> Result:
    """The list as it fits a terminal, if it goes to one."""
    if os.isatty(1):
        width = page.size()[0]
        result.line, *result.details = [
            part for line in (result.line, *result.details) for part in page.wrapped(line, width, 9)
        ]
    return result


def _print(text: str) -> None:
    """The very bytes, so that `> FILE` is a copy.  Who closes the pipe has read enough."""
    try:
        say.write(1, text)
    except BrokenPipeError:
        pass


VERB = Verb({"--at": "at=", "--limit": "limit="}, _parse, _call, tries=False, reads=True, indent="")
