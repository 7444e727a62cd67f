"""What happened to each agent over a period, from the change log and the recovery logs, the newest first.  Only reads.

Bounded, however long the logs are: what is left out is said (`notes`), never shown as if it had not happened.

    since, until    UTC
    lanes           [{"agent": "CC" ("": programs that are no agent's), "claims": […], "marks": […], "left_out": 0}],
                    those with anything in it; claims and marks oldest first
      claims        {"task", "by", "since", "until" ("": held still), "end" (held, done, failed, released, swept,
                    taken over …), "state" (alive …, of one that is held), "silent_since" ("": not silent)}
      marks         {"kind": a key of KINDS, "task", "time", "until" ("": a moment), "text", "count"}, and "op" of a
                    change: of one kind and verb that lie close together the newest, with their number
    rates           [{"time", "good", "bad"}], BUCKETS spans of equal length: how many recoveries ended how in each
    notes           what is not shown, and what could not be read, in words
"""

from __future__ import annotations

import time
from bisect import bisect_right
from functools import partial
from hashlib import blake2b

from recovery import changelog, claims, explain, jsonl, jsontext, layout, page, segments
from recovery.durations import epoch
from recovery.errors import RecoveryError, from_os_error
from recovery.incidents import OUTCOMES
from recovery.stats_lines import parsed, rows_of
from recovery.stats_rollup import task_of_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from recovery.store import FileStore

    Record = dict[str, Any]

#: What a mark stands for, in words; the order is that in which they lie on top of each other.
KINDS = {
    "change": "other change of a task",
    "done": "completed",
    "recovered": "recovered",
    "try": "try that failed",
    "wait": "waited for a lock",
    "failed": "gave up",
    "crash": "process died in a commit",
    "repair": "repaired",
}
#: Spans of the success rate.
BUCKETS = 48
#: Lines that are looked at: of the change log, of one recovery log, of all of them.
CHANGES, OF_LOG, OF_LOGS = 10_000, 300, 12_000
#: Bytes of recovery logs from which the success rate is counted, and of one of them.
COUNTED, TAIL = 24 << 20, 4 << 20
#: Claims and marks of all lanes together, and the fewest that a lane may have.
SHOWN, LEAST = 3000, 24
#: Lanes: those in which most happened.
LANES = 100
#: Marks of one kind that lie closer than this part of the period are one.
_CLOSE = 1 / 400
_STAMP = "%Y-%m-%dT%H:%M:%SZ"


class Timeline:
    """A look at the logs between `start` and `end`, seconds since 1970; `told` are claims that are held now.

    `told` are the `agents` of `recovery.overview`.  `changes` are the changes that were met, the newest first.
    """

    def __init__(self, store: FileStore, start: float, end: float, told: Sequence[Record] = ()) -> None:
        self.store, self.start, self.end, self.told = store, start, end, told
        self.first, self.last = iso(start), iso(end)
        self.skipped = segments.Skipped()
        self.notes: list[str] = []
        self.changes: list[Record] = []
        self._agents = {agent["agent"] for agent in told}
        self._claims: dict[tuple[str, str, int], Record] = {}
        self._marks: dict[str, list[Record]] = {}
        self._owners: dict[str, set[str]] = {}
        self._after: dict[tuple[str, str], str] = {}  # when the claim began that was met last, the next one of the task

    def collect(self) -> Record:
        """All of it, see above.  Raises nothing for what can't be read."""
        self._held = {
            (agent["agent"], claim["task"], claim["since"]): claim for agent in self.told for claim in agent["claims"]
        }
        for agent, task, since in self._held:
            self._owners.setdefault(task, set()).add(agent)
            self._after[agent, task] = since
        self._read_changes()
        logs = self._logs()
        self._read_incidents(logs)
        rates = self._rates(logs)
        torn = self.skipped.torn
        if torn:
            self.notes.append(f"{torn} torn or foreign line{'s' if torn > 1 else ''} of the logs passed over")
        return {
            "since": self.first,
            "until": self.last,
            "lanes": self._lanes(),
            "rates": rates,
            "notes": [*self.notes, *dict.fromkeys(self.skipped.problems)],
        }

    def _trying(self, what: str, call: Callable[[], Any], default: Any) -> Any:
        try:
            return call()
        except (RecoveryError, OSError) as error:
            self.skipped.refuse(error if isinstance(error, RecoveryError) else from_os_error(error, what))
            return default

    # --- the change log

    def _read_changes(self) -> None:
        for line in changelog.by_number(self.store, skipped=self.skipped):
            if line["time"] < self.first:
                break
            if len(self.changes) >= CHANGES:
                self.notes.append(f"changes before {line['time']} are not shown: there are more than {CHANGES} since")
                break
            self.changes.append(line)
            self._owners.setdefault(line["task"], set()).add(line["agent"])
            self._waits(line)
            self._changed(line)
            for file in line["files"]:
                agent = _agent_of(file["name"])
                if agent and "ops" in file:
                    try:
                        self._claims_of(agent, file["ops"], line["time"])
                    except (LookupError, TypeError, ValueError, AttributeError):
                        continue  # in a form that this version doesn't know

    def _changed(self, line: Record) -> None:
        """Mark a change at each of its tasks, but a claim: that is a bar."""
        if line["op"] == "claim":
            return
        if line["op"] == "complete":
            self._mark("done", line["agent"], line["task"], line["time"], "completed")
            return
        many = line.get("tasks")
        groups = many.items() if isinstance(many, dict) else [(line["agent"], [line["task"]])]
        for agent, names in groups:
            for task in names if isinstance(names, list) else ():
                if isinstance(task, str) and layout.is_id(task):
                    self._mark(
                        "change", agent, task, line["time"], page.of_change(line, agent, task), op=str(line["op"])
                    )

    def _claims_of(self, agent: str, ops: list[Record], when: str) -> None:
        """The claims that a change left in an outbox; the newest word about each counts."""
        for op in ops:
            path, after = op["path"], op.get("after")
            if len(path) < 2 or path[0] != "tasks" or not after or op["op"] != "set":
                continue
            if path[2:] == ["claim"]:
                value = jsontext.loads(after)
            elif len(path) == 2 and '"claim"' in after:
                value = jsontext.loads(after).get("claim")
            else:
                continue
            claim = claims.of(value)
            if claim is not None:
                self._claim(agent, str(path[1][1]), claim, when)

    def _claim(self, agent: str, task: str, claim: Record, when: str) -> None:
        key = (agent, task, claim["generation"])
        since, ended = str(claim.get("since") or ""), str(claim.get("ended") or "")
        if key in self._claims or (agent, task, since) in self._held:
            return
        after = self._after.get((agent, task), "")
        self._after[agent, task] = since
        until, end = ended, str(claim["state"])
        if not ended:  # held, says the log, and is not: whoever came after took it over, or it was ended past the suite
            until, end = (after, "taken over") if after else (when, "lost")
        self._claims[key] = {
            "task": task,
            "by": str(claim.get("by") or "somebody"),
            "since": since,
            "until": until,
            "end": end,
            "state": "",
            "silent_since": "",
        }

    def _waits(self, line: Record) -> None:
        waited = line.get("waited")
        for one in waited if isinstance(waited, list) else ():
            seconds = one.get("seconds") if isinstance(one, dict) else None
            if isinstance(seconds, (int, float)) and 0 <= seconds < 1e7:
                text = f"{line['op']} waited {seconds} s for {one.get('lock')}, held by {one.get('held_by')}"
                self._mark("wait", line["agent"], line["task"], line["time"], text, seconds)

    # --- the recovery logs

    def _logs(self) -> list[tuple[str, int]]:
        """The recovery logs, and parts of them that were put aside, that were written to in the period: names and
        sizes, the one that was written to last first."""
        found = []
        bases = self._trying(f"could not list {layout.LOGS}", partial(self.store.list, layout.LOGS), [])
        there = set(bases)
        for base in bases:
            task = _task_of(base)
            if not task or not layout.is_id(task) or (base.endswith(".gz") and base[:-3] in there):
                continue
            name = f"{layout.LOGS}/{base}"
            st = self._trying(name, partial(self.store.read_state, name), None)
            if st is not None and st.st_mtime >= self.start:
                found.append((st.st_mtime, name, st.st_size))
        return [(name, size) for _, name, size in sorted(found, reverse=True)]

    def owner(self, task: str, named: str) -> str:
        """Whose task it is, of which a log says that it is that of `named`: a program may write its own name there.

        "" where no agent has it.  Known once it was collected.
        """
        if named in self._agents:
            return named
        owners = self._owners.get(task, ())
        return next(iter(owners)) if len(owners) == 1 else ""

    def _read_incidents(self, logs: Sequence[tuple[str, int]]) -> None:
        left, cut = OF_LOGS, 0
        for n, (name, _) in enumerate(logs):
            if left <= 0:
                cut += len(logs) - n
                break
            for count, line in enumerate(segments.backwards(self.store, name, skipped=self.skipped)):
                record = jsonl.record_of(line)
                when = record.get("timestamp") if record is not None else None
                if record is None or type(when) is not str:
                    self.skipped.torn += 1
                    continue
                if when < self.first:
                    break
                if count >= OF_LOG:
                    cut += 1
                    break
                left -= 1
                self._incident(record, when)
        if cut:
            one = "1 recovery log" if cut == 1 else f"{cut} recovery logs"
            self.notes.append(f"the marks are those of the newest lines: earlier ones of {one} are not shown")

    def _incident(self, record: Record, when: str) -> None:
        details, task = record.get("details"), str(record.get("task_id") or "")
        if not isinstance(details, dict) or not task:
            return
        agent = self.owner(task, str(details.get("agent") or ""))
        kind, message = str(record.get("error_type") or ""), str(record.get("error_message") or "")
        outcome = str(details.get("outcome") or "")
        text = " ".join(explain.of_line(details, kind, message).split())
        if kind == "OwnerDied" and outcome != "returned":
            began = _began(str(details.get("incident") or ""))
            if began >= self.first:
                what = f"pid {details.get('pid')} died in the middle of {details.get('op')} {agent}/{task}"
                self._mark("crash", agent, task, began, what)
            self._mark("repair" if OUTCOMES.get(outcome) else "failed", agent, task, when, text)
        elif kind == "OwnerDied":
            self._mark("repair", agent, task, when, text)
        elif not outcome:
            self._mark("try", agent, task, when, text)
        elif outcome in OUTCOMES and OUTCOMES[outcome] is not None:
            self._mark("recovered" if OUTCOMES[outcome] else "failed", agent, task, when, text)
            waited = details.get("lock_wait")
            if isinstance(waited, (int, float)) and 0.05 <= waited < 1e7:
                self._mark("wait", agent, task, when, f"{waited:.1f} s of it for locks", waited)

    def _mark(self, kind: str, agent: str, task: str, when: str, text: str, seconds: float = 0.0, op: str = "") -> None:
        """A mark at a time; one that lasted `seconds` ended then."""
        until = ""
        if seconds:
            began = epoch(when)
            when, until = (iso(began - seconds), when) if began is not None else (when, "")
        one = {"kind": kind, "task": task, "time": when, "until": until, "text": text, "count": 1}
        if op:
            one["op"] = op
        self._marks.setdefault(agent, []).append(one)

    # --- how often it went well

    def _rates(self, logs: Sequence[tuple[str, int]]) -> list[Record]:
        """Recoveries that ended, by time; where there is too much, of so many logs as are chosen by their names."""
        chosen = list(logs)
        total = sum(min(size, TAIL) for _, size in logs)
        if total > COUNTED:
            chosen.sort(key=lambda log: blake2b(log[0].encode(), digest_size=8).digest())
            room, kept = COUNTED, 0
            while kept < len(chosen) and (room > 0 or not kept):
                room -= min(chosen[kept][1], TAIL)
                kept += 1
            self.notes.append(
                f"the success rate over time is of {kept} of {len(logs)} recovery logs, taken without regard to content"
            )
            chosen = chosen[:kept]
        span = (self.end - self.start) / BUCKETS
        starts = [iso(self.start + n * span) for n in range(BUCKETS)]
        counted = [[0, 0] for _ in starts]  # bad, good
        seen: set[str] = set()
        short = 0
        for name, size in chosen:
            short += size > TAIL
            data = self._trying(name, partial(segments.read, self.store, name, TAIL), None) or b""
            if len(data) == TAIL:
                data = data[data.find(b"\n") + 1 :]
            for when, outcome in _ends(data, _task_of(name.rpartition("/")[2]), seen):
                if self.first <= when + "Z" <= self.last and OUTCOMES[outcome] is not None:
                    counted[max(bisect_right(starts, when + "Z") - 1, 0)][bool(OUTCOMES[outcome])] += 1
        if short:
            self.notes.append(f"of {short} long recovery logs only the last {TAIL >> 20} MB count in the success rate")
        return [{"time": start, "good": good, "bad": bad} for start, (bad, good) in zip(starts, counted)]

    # --- lanes

    def _lanes(self) -> list[Record]:
        by_agent: dict[str, list[Record]] = {}
        for (agent, task, since), claim in self._held.items():
            one = {"task": task, "by": claim["by"], "since": since, "until": "", "end": "held"}
            by_agent.setdefault(agent, []).append(
                {**one, "state": claim["state"], "silent_since": claim["silent_since"]}
            )
        for (agent, _, _), claim in self._claims.items():
            if claim["until"] >= self.first:
                by_agent.setdefault(agent, []).append(claim)
        busiest = sorted(
            {*by_agent, *self._marks},
            key=lambda name: (-len(by_agent.get(name, ())) - len(self._marks.get(name, ())), name),
        )
        if len(busiest) > LANES:
            self.notes.append(f"lanes are drawn of the {LANES} agents to whom most happened, of {len(busiest)}")
        names = sorted(busiest[:LANES], key=lambda name: (not name, name))
        room = max(SHOWN // max(len(names), 1), LEAST)
        lanes = []
        for name in names:
            bars = sorted(by_agent.get(name, ()), key=lambda one: (one["until"] or "~", one["since"]))
            marks = self._merged(self._marks.get(name, []))
            # where there is not room for all, no change takes that of what went wrong
            shown = sorted(marks, key=lambda one: one["kind"] != "change")[-room:]
            shown.sort(key=lambda one: str(one["time"]))
            kept = bars[-room:]
            lane = {"agent": name, "claims": sorted(kept, key=lambda one: str(one["since"])), "marks": shown}
            lanes.append({**lane, "left_out": len(bars) - len(kept) + len(marks) - len(shown)})
        return lanes

    def _merged(self, marks: list[Record]) -> list[Record]:
        """Marks by time; of one kind that lie close together the newest, with their number."""
        close = (self.end - self.start) * _CLOSE
        last: dict[tuple[str, str], tuple[float, Record]] = {}
        kept: list[Record] = []
        for mark in sorted(marks, key=lambda one: str(one["time"]), reverse=True):
            when = epoch(mark["time"])
            if when is None or when > self.end + 60:  # no time of ours
                continue
            key = (mark["kind"], mark.get("op", ""))
            before = last.get(key)
            if before is not None and before[0] - when < close and mark["kind"] != "wait":
                before[1]["count"] += 1
                continue
            last[key] = (when, mark)
            kept.append(mark)
        for mark in kept:
            if mark["count"] > 1:
                mark["text"] += f" (and {mark['count'] - 1} more of it right before)"
        return kept[::-1]


def iso(when: float) -> str:
    """A time as the logs write it."""
    return time.strftime(_STAMP, time.gmtime(when))


def _agent_of(name: str) -> str:
    parts = name.split("/")
    ours = len(parts) == 3 and parts[0] == "postbox" and parts[2] == "outbox.json" and layout.is_id(parts[1])
    return parts[1] if ours else ""


def _task_of(base: str) -> str:
    """Whose recovery log, or part of one, a file is; "" if it is none."""
    part = segments.parse(base)
    return task_of_log(base if part is None else part[0]) or ""


def _began(txid: str) -> str:
    """When a change was begun, as its txid says; "" where it doesn't."""
    stamp = txid.partition("-")[0]
    if len(stamp) != 16 or stamp[8] != "T" or not (stamp[:8] + stamp[9:15]).isdigit():
        return ""
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:11]}:{stamp[11:13]}:{stamp[13:15]}Z"


def _ends(data: bytes, task: str, seen: set[str]) -> Iterator[tuple[str, str]]:
    """When each recovery in a log ended, and how; its first end counts."""
    if data and not data.endswith(b"\n"):
        data = data[: data.rfind(b"\n") + 1]
    for row in rows_of(data):
        if row[-1]:
            if not row[-1].strip():
                continue
            read = parsed(row[-1], task)
            if read is None:
                continue
            row = read
        if row[5] and row[0] == task and row[4] not in seen:
            seen.add(row[4])
            yield row[1][:19], row[5]
