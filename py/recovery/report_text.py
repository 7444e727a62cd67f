"""The report as plain text: the words of the page, and a line for each agent in place of its swimlane.  Pure."""

from __future__ import annotations

from recovery import durations
from recovery.page import cut, wrapped
from recovery.say import harmless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Data = dict[str, Any]

#: So many things that need a person are shown, agents, claims of one, and characters of what one needs.
NEEDS, AGENTS, CLAIMS, LONG = 100, 100, 10, 600
#: The share of recoveries that ought to end well, as the health check has it.
LINE = 0.95
#: What stands for what in an agent's line; of several in one column the last of these.
_SIGNS = {
    "change": "c",
    "done": "v",
    "recovered": "o",
    "try": "r",
    "wait": "w",
    "failed": "!",
    "repair": "+",
    "crash": "X",
}
_HELD, _SILENT, _EMPTY = "=", "~", "."
#: What is said where no lane is drawn.
NOTHING = "no change of a task, no try and no repair is recorded in this time"
LEGEND = (
    f"{_HELD} claimed  {_SILENT} silent  c other change  v completed  r try that failed  o recovered  ! gave up  "
    "w waited for a lock  X died in a commit  + repaired"
)


def headline(told: Data) -> str:
    """The state in a sentence, and whether that can be known."""
    needs, unread = told["needs_you"], len(unread_of(told))
    words = "1 thing needs you" if len(needs) == 1 else f"{len(needs) or 'no'} things need you"
    if unread:
        things = "1 thing" if unread == 1 else f"{unread} things"
        return f"{words if needs else 'nothing needs you as far as can be read'}; {things} could not be read"
    return words if needs else "nothing needs you"


def unread_of(told: Data) -> list[str]:
    """What could not be read, where somebody may be needed; of an overview that doesn't tell those apart all notes."""
    return list(told["unread"] if "unread" in told else told.get("notes", ()))


def is_busy(agent: Data) -> bool:
    """Whether there is more to tell of an agent than its numbers."""
    return any(agent.get(key) for key in ("claims", "problem", "in_progress", "review"))


def is_at_work(agent: Data) -> bool:
    return bool(agent["claims"] or agent.get("in_progress"))


def is_unknown(told: Data, what: str) -> bool:
    """Whether `what` (success use breakers journal) was not measured, and is empty or 0 for that."""
    return what in told.get("unknown", ())


def more(items: Sequence[object], most: int) -> list[str]:
    """What is said where there are more than are shown."""
    return [f"  and {len(items) - most} more"] if len(items) > most else []


def names(tasks: Sequence[str]) -> str:
    """The first of many names."""
    rest = f" and {len(tasks) - CLAIMS} more" if len(tasks) > CLAIMS else ""
    return " ".join(tasks[:CLAIMS]) + rest


def on_one_line(value: object, most: int = LONG) -> str:
    """Somebody's words, which may come over several lines, on one, and not for ever."""
    return cut(" ".join(cut(str(value), 2 * most).split()), most)


def period(seconds: float) -> str:
    """A period in words: `24 h`, `7 d`, `90 min`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size * (2 if unit == "d" else 1) and not seconds % size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def ago(when: str, now: str) -> str:
    """How long before `now` a time was, in words; the time itself where that can't be told."""
    then, at = durations.epoch(when), durations.epoch(now)
    if then is None or at is None:
        return when
    return durations.words(at - then)


def subject(agent: str, task: str) -> str:
    return "/".join(part for part in (agent, task) if part)


def agent_and_task(name: str) -> tuple[str, str]:
    """Both, of a task that is named AGENT/TASK, or TASK where no agent has it."""
    agent, _, task = name.rpartition("/")
    return agent, task


def rate_in_words(told: Data) -> str:
    """How many recoveries ended well, against the line."""
    success = told["success"]
    if is_unknown(told, "success"):
        return "how many recoveries ended well is unknown: the logs can't be read"
    if success["rate"] is None:
        return "no retries or repairs in this time"
    share, count = success["rate"], success["incidents"]
    side = "below" if share < LINE else "not below"
    recoveries = "recovery" if count == 1 else "recoveries"
    return f"{share * 100:.1f} % of {count} {recoveries} ended well, {side} the line of {LINE * 100:.0f} %"


def use_in_words(told: Data) -> str:
    """What the suite's own files take, of what they may."""
    use = told["store"]["use"]
    limits = use["limits"]
    if is_unknown(told, "use"):
        return f"unknown, of {limits['bytes'] / (1 << 20):.0f} MB"
    size, most = use["bytes"] / (1 << 20), limits["bytes"] / (1 << 20)
    return f"{size:.1f} of {most:.0f} MB, {use['files']} of {limits['files']} files"


def crash_in_words(crash: Data) -> str:
    """The last process that died in a commit."""
    how = f", {crash['how']}" if crash.get("how") else ""
    return f"{crash['what']} by {crash['by']} at {crash['time']}, repaired by {crash['repaired_by'] or '?'}{how}"


def lines_of(data: Data, width: int) -> list[str]:
    """The report on lines of at most `width`, commands apart."""
    told, drawn = data["overview"], data["timeline"]
    now = told["time"]
    head = f"{headline(told)}; {told['root']}, the {period(told['since'])} before {now}"
    lines = wrapped(harmless(head), width, 2)
    if told["needs_you"]:
        lines += ["", "NEEDS YOU"]
        for one in told["needs_you"][:NEEDS]:
            who = subject(one["agent"], one["task"])
            since = f" ({ago(one['since'], now)})" if one["since"] else ""
            what = f"{who + ': ' if who else ''}{on_one_line(one['what'])}{since}"
            lines += [*_item(what, width), f"      -> {one['next']}"]
        lines += more(told["needs_you"], NEEDS)
    lines += ["", "AGENTS", *_agents(told, width)]
    lines += ["", "TIME LINE", *_lanes(told, drawn, width)]
    lines += ["", "SUCCESS", *_item(rate_in_words(told), width), *_rates(drawn["rates"], width)]
    if told["failures"]:
        lines += ["", "FAILURES"]
        for one in told["failures"]:
            words = f"{one['count']} x {one['cause']}, the last {ago(one['last'], now)} ago: {' '.join(one['tasks'])}"
            lines += _item(words, width)
    lines += ["", "QUEUE", *_queue(told["queue"], now, width)]
    if is_unknown(told, "breakers"):
        lines += ["", "BREAKERS", "  unknown: they can't be read"]
    elif told["breakers"]:
        lines += ["", "BREAKERS"]
        for one in told["breakers"]:
            until = f" until {one['until']}" if one["until"] else ""
            lines += _item(f"{one['name']}: {one['state']}{until}: {one['why']}", width)
    lines += ["", "STORE", *_store(told, width)]
    notes = [*told.get("notes", ()), *drawn["notes"]]
    if notes:
        lines += ["", "NOT SHOWN", *(line for note in notes[:NEEDS] for line in _item(note, width))]
        lines += more(notes, NEEDS)
    return [harmless(line) for line in lines]


def _item(text: str, width: int) -> list[str]:
    return ["  " + line for line in wrapped(harmless(on_one_line(text, 2 * LONG)), max(width - 2, 20), 2)]


def _agents(told: Data, width: int) -> list[str]:
    busy = [one for one in told["agents"] if is_busy(one)]
    idle = [f"{one['agent']} ({one['open']})" for one in told["agents"] if not is_busy(one)]
    lines: list[str] = []
    for one in busy[:AGENTS]:
        counts = f"{one['open']} open, {one['ready']} ready, {one['blocked']} blocked"
        if one["problem"]:
            lines += _item(f"{one['agent']}: {one['problem']}", width)
        else:
            lines += _item(f"{one['agent']}: {counts}", width)
        for claim in one["claims"][:CLAIMS]:
            state = "" if claim["state"] == "alive" else f", {claim['state']}"
            silent = f", silent since {claim['silent_since']}" if claim["silent_since"] else ""
            held = f"{claim['task']} held by {on_one_line(claim['by'])} since {claim['since']}{state}{silent}"
            lines += ["  " + line for line in _item(held, width - 2)]
        lines += more(one["claims"], CLAIMS)
        for task in one.get("in_progress", ())[:CLAIMS]:
            since = f" since {task['since']}" if task.get("since") else ""
            lines += ["  " + line for line in _item(f"{task['task']} in progress{since}, claimed by nobody", width - 2)]
        lines += more(one.get("in_progress", ()), CLAIMS)
        if one.get("review"):
            lines += ["  " + line for line in _item(f"ready for review: {names(one['review'])}", width - 2)]
    lines += more(busy, AGENTS)
    if idle:
        lines += _item(f"nobody at work, open tasks in brackets: {' '.join(idle)}", width)
    return lines or ["  no agents here"]


def _lanes(told: Data, drawn: Data, width: int) -> list[str]:
    problems = [one["agent"] for one in told["agents"] if one["problem"]][:AGENTS]
    lanes = {lane["agent"]: lane for lane in drawn["lanes"]}
    names = sorted({*lanes, *problems}, key=lambda name: (not name, name))
    if not names:
        return _item(NOTHING, width)
    label = min(max(len(name or "no agent") for name in names), 20)
    room = max(width - label - 3, 10)
    lines = [f"  {'':<{label}} {_ruler(drawn, room)}"]
    for name in names:
        said = (name or "no agent")[:label]
        if name in lanes:
            lines.append(f"  {said:<{label}} {_strip(lanes[name], drawn, room)}")
        if name in problems:
            lines.append(f"  {said:<{label}} can't be read: see above")
    return [*lines, *_item(LEGEND, width)]


def place_of(drawn: Data, when: str) -> float:
    """Where in the period a time lies, from 0 to 1; "" is its end."""
    first, last = durations.epoch(drawn["since"]), durations.epoch(drawn["until"])
    at = durations.epoch(when) if when else last
    assert first is not None
    assert last is not None
    return min(max(((at if at is not None else last) - first) / max(last - first, 1.0), 0.0), 1.0)


def _ruler(drawn: Data, room: int) -> str:
    first, last = drawn["since"][5:16].replace("T", " "), drawn["until"][11:16]
    return f"{first}{'':{max(room - len(first) - len(last), 1)}}{last}"


def _strip(lane: Data, drawn: Data, room: int) -> str:
    cells = [_EMPTY] * room

    def column(when: str) -> int:
        return min(int(place_of(drawn, when) * room), room - 1)

    for claim in lane["claims"]:
        for n in range(column(claim["since"]), column(claim["until"]) + 1):
            cells[n] = _HELD
    for claim in lane["claims"]:
        if claim["silent_since"]:
            for n in range(column(claim["silent_since"]), column(claim["until"]) + 1):
                cells[n] = _SILENT
    for kind, sign in _SIGNS.items():
        for mark in lane["marks"]:
            if mark["kind"] == kind:
                cells[column(mark["time"])] = sign
    return "".join(cells)


def _rates(rates: Iterable[Data], width: int) -> list[str]:
    counted = [one for one in rates if one["good"] + one["bad"]]
    lines = []
    for one in counted[-8:]:
        total = one["good"] + one["bad"]
        share = one["good"] / total
        under = ", below the line" if share < LINE else ""
        lines += _item(f"from {one['time']} {share * 100:.1f} % of {total}{under}", width)
    return lines


def _queue(queue: Data, now: str, width: int) -> list[str]:
    lines = [f"  {queue['ready']} ready, {queue['blocked']} blocked"]
    for one in queue["next"][:5]:
        title = f" {one['title']}" if one["title"] else ""
        lines += _item(f"ready: {subject(one['agent'], one['task'])} {one['priority'] or ''}{title}", width)
    for one in queue["waiting"][:5]:
        lines += _item(f"blocked: {subject(one['agent'], one['task'])} by {' '.join(one['by'])}", width)
    return lines


def _store(told: Data, width: int) -> list[str]:
    store = told["store"]
    lines = _item(f"use: {use_in_words(told)}", width)
    for damage in store["damage"][:CLAIMS]:
        lines += _item(f"damaged: {damage}", width)
    lines += more(store["damage"], CLAIMS)
    if is_unknown(told, "journal"):
        lines += _item("unfinished: unknown, the journal can't be read", width)
    elif store["journal"]:
        lines += _item(f"unfinished: {store['journal']}", width)
    if store["last_crash"]:
        lines += _item(f"last crash: {crash_in_words(store['last_crash'])}", width)
    if store["certificate"]:
        lines += _item(f"disk: {store['certificate']}", width)
    return lines
