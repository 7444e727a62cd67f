"""The page that `recovery explain` prints: a screen of it, in which no escape code reaches the terminal.  Pure."""

from __future__ import annotations

import os

from recovery.request import in_place
from recovery.say import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Sequence

    from recovery.cause import Cause, Facts


class Event:
    """Something that happened: `time` (UTC, ISO 8601; "" unknown), of what `kind`, in words; a change's `seq`.

    `op` is the verb of a change, or the one that was tried; `attempt` the number of a try, or of the one that a
    checkpoint came after (None: it came after none, 0: after the last); `incident` what tries belong to.
    """

    __slots__ = ("attempt", "incident", "kind", "op", "seq", "text", "time")

    def __init__(self, time: str, kind: str, text: str, seq: Optional[int] = None, op: str = "") -> None:
        self.time = time if isinstance(time, str) else ""  # out of files that others may write
        self.kind, self.text, self.seq, self.op = kind, text, seq, op
        self.attempt: Any = None
        self.incident: Any = None

    def data(self) -> dict[str, Any]:
        more = {} if self.seq is None else {"seq": self.seq}
        return {"time": self.time, "kind": self.kind, "text": self.text, **more}


#: What finds damage that nothing has met yet, where nothing else is to be done.
CLEAR = "recovery doctor"


class Row:
    """A line of the overview: whose, which task ("": the agent's outbox), when, why, what to run; the worst ranks 0."""

    __slots__ = ("agent", "next", "rank", "task", "when", "why")

    def __init__(self, agent: str, task: str, when: str, why: str, following: str, rank: int = 0) -> None:
        self.agent, self.task, self.when, self.why, self.next = agent, task, when, why, following
        self.rank = rank

    def data(self, place: str) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("agent", "task", "when", "why")}
        return {**found, "next": in_place(self.next, place)}

    def subject(self) -> str:
        return "/".join(part for part in (self.agent, self.task) if part) or "workspace"


def in_order(events: Sequence[Event]) -> list[Event]:
    """By time; of one second as it must have been, from what each log says of its own order and what follows what."""
    seconds: dict[str, list[Event]] = {}
    for one in events:
        seconds.setdefault(one.time, []).append(one)
    return [one for time in sorted(seconds) for one in _of_second(seconds[time])]


#: The changes that a command's tries lead to.
_ENDS = ("complete", "fail", "release")
#: What stands behind everything else of its second, in this order.
_LAST = ("backup", "died", "journal", "escalated", "parked", "resolved", "foreign")


def _of_second(events: Sequence[Event]) -> list[Event]:
    """Changes by their numbers; tries before the change that they led to, and behind it that this was a success."""
    if len(events) == 1:
        return list(events)
    changes = sorted((one for one in events if one.seq is not None), key=lambda one: one.seq or 0)
    before: list[list[Event]] = [[] for _ in range(len(changes) + 1)]  # each change
    after: list[list[Event]] = [[] for _ in range(len(changes) + 1)]  # each, and the last what has none
    first = 0
    for incident in _tries(events):
        ops = [one.op for one in incident if one.op] or _ENDS
        at = next((n for n in range(first, len(changes)) if changes[n].op in ops), len(changes))
        end = next((n for n, one in enumerate(incident) if one.kind == "ended"), len(incident))
        if end < len(incident) and not incident[end].op:  # a run's: the change follows
            first = min(at + 1, len(changes))
        elif end < len(incident) and at < len(changes) and "recovered" in incident[end].text:
            after[at] += incident[end:]
            del incident[end:]
            first = at + 1
        before[at] += incident
    for one in events:
        if one.kind in ("claim", "record", "receipt", "archived"):  # what a change of that second did
            op = {"claim": "claim", "archived": "archive"}.get(one.kind, "complete")
            after[max((n for n, change in enumerate(changes) if change.op == op), default=-1)].append(one)
    last = sorted((one for one in events if one.kind in _LAST), key=lambda one: _LAST.index(one.kind))
    told = [one for n, change in enumerate(changes) for one in (*before[n], change, *after[n])]
    told += [*before[-1], *after[-1]]
    for told_of in [one for one in told if one.kind == "ended" and "escalated" in one.text]:
        for one in [one for one in last if one.kind == "escalated"][:1]:
            last.remove(one)
            told.insert(told.index(told_of) + 1, one)
    return [*told, *last]


def _tries(events: Sequence[Event]) -> list[list[Event]]:
    """The tries and checkpoints of a second, in their order, by incident."""
    tries = [one for one in events if one.kind in ("try", "ended")]
    found: list[Event] = []
    for one in events:
        if one.kind == "checkpoint":
            behind = [n + 1 for n, other in enumerate(tries) if _is_behind(one, other)][:1] or [0]
            found += [*tries[: behind[0]], one]
            del tries[: behind[0]]
    apart: list[list[Event]] = []
    for one in [*found, *tries]:
        if apart and (one.kind == "checkpoint" or apart[-1][-1].incident in (None, one.incident)):
            one.incident = apart[-1][-1].incident if one.incident is None else one.incident
            apart[-1].append(one)
        else:
            apart.append([one])
    return apart


def _is_behind(checkpoint: Event, one: Event) -> bool:
    """Whether a checkpoint was made right after that try, or end."""
    if checkpoint.attempt == 0:
        return one.kind == "ended"
    return checkpoint.attempt is not None and one.attempt == checkpoint.attempt


def size() -> tuple[int, int]:
    """Columns and lines of the terminal on stdout, 80 and 24 where there is none; never less than 20 and 8."""
    try:
        found = os.get_terminal_size(1)
        return max(found.columns or 80, 20), max(found.lines or 24, 8)
    except OSError:
        return 80, 24


def of_tasks(
    told: Sequence[tuple[Facts, Sequence[Event], Cause]], following: str, notes: Sequence[str], width: int, height: int
) -> list[str]:
    """A page about one task, or about each that has the id; of `height` lines, or of as many as it takes (0)."""
    notes = [line for note in notes for line in wrapped(harmless(note), width, 2)]
    end = [*notes, f"next: {harmless(following)}"]
    blocks = [(_head(facts, why, width, bool(height)), [_of_event(one, width, not height) for one in events])
              for facts, events, why in told]  # fmt: skip
    lines: list[str] = []
    # the screen's last line is the prompt's; the tasks share what the causes and the end leave of it
    room = height - 1 - len(end) - sum(len(head) for head, _ in blocks) - (len(blocks) - 1)
    share = max(room // len(blocks), 2)
    for n, (head, events) in enumerate(blocks):
        lines += [""] * bool(n) + head
        flat = [line for event in events for line in event]
        if height and len(flat) > share:
            more = len(flat) - share + 1
            flat = [f"({more} earlier: --full)", *flat[more:]]
        lines += flat
    return [*lines, *end]


def _head(facts: Facts, why: Cause, width: int, short: bool) -> list[str]:
    subject = "/".join(part for part in (facts["agent"], facts["task"]) if part)
    state = facts.get("status") or ("not in the outbox" if facts["agent"] else "no agent's task")
    title = f" {facts['title']}" if facts.get("title") else ""
    first = cut(harmless(f"{subject}: {state}.{title}"), width)
    lines = wrapped(harmless(f"cause: {why.why}"), width, 2)
    if short and len(lines) > 7:
        lines = [*lines[:6], "  … (--full)"]
    return [first, *lines]


def _of_event(one: Event, width: int, full: bool) -> list[str]:
    """`11-25 08:00:12 kind  words`; on a narrow screen the time alone stands before the words."""
    when = f"{one.time[5:10]} {one.time[11:19]}" if one.time else "?"
    number = f" {one.seq}" if one.seq is not None else ""
    lead = f"{when:<14} {one.kind + number:<11} " if width >= 60 else f"{one.time[11:16] or '?'} "
    text = harmless(lead + " ".join(one.text.split()) if not full else lead + one.text)
    return wrapped(text, width, 4) if full else [cut(text, width)]


def of_change(line: dict[str, Any], agent: str, task: str) -> str:
    """A change of a task in a few words: its verb, what became of the status, which other fields, who."""
    words: list[str] = []
    try:
        others: list[str] = []
        for file in line["files"]:
            for op in file.get("ops", ()) if file["name"] == f"postbox/{agent}/outbox.json" else ():
                path = op["path"]
                if path[:2] != ["tasks", ["task_id", task]]:
                    continue
                if len(path) == 2:
                    words.append("added" if op.get("before") is None else "removed")
                elif path[2] == "status":
                    words.append(f"{_bare(op.get('before'))} -> {_bare(op.get('after'))}")
                else:
                    others.append(str(path[2]))
        if not words and others:
            words.append(", ".join(others))
    except (LookupError, TypeError, ValueError, AttributeError):
        words = ["in a form that this version doesn't know"]
    what = f"{line['op']} of {line['undoes_op']}" if isinstance(line.get("undoes_op"), str) else line["op"]
    said = f": {'; '.join(words)}" if words else ""
    by = line.get("by")
    who = f" (pid {by['pid']})" if isinstance(by, dict) and "pid" in by else ""
    return f"{what}{said}{who}{_waits(line.get('waited'))}"


def _waits(waited: Any) -> str:
    """For which locks a change had waited for more than a second, and who held them."""
    found = [one for one in waited if isinstance(one, dict)] if isinstance(waited, list) else []
    return "".join(
        f"; waited {one.get('seconds')} s for {one.get('lock')}, held by {one.get('held_by')}" for one in found
    )


def _bare(value: Optional[str]) -> str:
    return "absent" if value is None else value.strip('"')


def of_rows(
    rows: Sequence[Row], since: str, notes: Sequence[str], width: int, height: int, place: str = ""
) -> list[str]:
    """The overview: a line for each row, its command behind it; the last, and those of a full page, say the `place`."""
    if place and len(rows) > 1 and height:
        notes = [*notes, f"the commands above want {place} too"]
    if not rows:
        said = [line for note in notes for line in wrapped(harmless(note), width, 2)]
        words = f"nothing went wrong since {since} as far as it is recorded, and nothing waits"
        return [*wrapped(words, width, 2), *said, f"next: {harmless(in_place(CLEAR, place))}"]
    notes = [line for note in notes for line in wrapped(harmless(note), width, 2)]
    end = [*notes, f"next: {harmless(in_place(rows[0].next, place))}"]
    things = "1 thing" if len(rows) == 1 else f"{len(rows)} things"
    lines = [cut(f"{things} since {since}, or open; the worst first", width)]
    room = height - 2 - len(end)
    shown = rows if not height or len(rows) <= room else rows[: max(room - 1, 1)]
    for row in shown:
        lines += _of_row(row, width) if height else _of_row_in_full(row, width, place)
    if len(shown) < len(rows):
        lines.append(f"({len(rows) - len(shown)} more: --full)")
    return [*lines, *end]


def _of_row(row: Row, width: int) -> list[str]:
    subject, why = harmless(row.subject()), harmless(" ".join(row.why.split()))
    for command in (row.next, f"recovery explain {row.subject()}"):  # which tells the long one, too
        tail = f"  -> {harmless(command)}"
        if width - len(tail) >= 30:
            return [cut(f"{subject}: {why}", width - len(tail)) + tail]
    return [cut(f"{subject}: {why}", width)]  # a narrow screen: --full has the commands


def _of_row_in_full(row: Row, width: int, place: str) -> list[str]:
    subject, why = harmless(row.subject()), harmless(" ".join(row.why.split()))
    return [*wrapped(f"{subject}: {why}", width, 4), f"    -> {harmless(in_place(row.next, place))}"]


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def wrapped(text: str, width: int, indent: int) -> list[str]:
    """A text over several lines of at most `width`, between words where there are some; further ones are indented."""
    lines: list[str] = []
    lead = ""
    while len(lead) + len(text) > width:
        room = width - len(lead)
        at = text.rfind(" ", 1, room + 1)
        if not text[: max(at, 0)].strip():
            at = room
        lines.append(lead + text[:at].rstrip())
        text = text[at:].lstrip()
        lead = " " * indent
    return [*lines, lead + text]
