"""The report as one page of HTML that needs nothing else: no server, no font, no script from elsewhere.  Pure.

Somebody's words get into it through `_text` alone: what could turn text about is shown, what HTML means is escaped.
Styles and scripts are the files in `web/`; the page's own policy lets the browser run those, by their hashes, and
nothing else.  Positions are attributes of SVG, as such a policy allows no style in the middle of the page.
"""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from html import escape

from recovery import layout
from recovery.durations import epoch
from recovery.report_text import (
    AGENTS,
    CLAIMS,
    LINE,
    NEEDS,
    NOTHING,
    agent_and_task,
    ago,
    crash_in_words,
    headline,
    is_at_work,
    is_busy,
    is_unknown,
    more,
    on_one_line,
    period,
    place_of,
    rate_in_words,
    subject,
    unread_of,
    use_in_words,
)
from recovery.say import harmless
from recovery.timeline import KINDS, iso

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Data = dict[str, Any]

#: How each page begins, by which it is known.
HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="generator" content="Postbox Recovery report">\n'
)
#: Events of an agent in its table, rows of claims in its lane.
EVENTS, ROWS = 24, 3
#: The least width of a bar, of the whole.
_NARROW = 0.003
#: Pixels of a row of claims, and of the row of marks.
_ROW, _MARKS = 12, 18
#: Shapes of the marks, around 0,0: no two differ by colour alone.
_SHAPES = {
    "change": '<path fill="none" d="M0 1V6" stroke-width="2"/>',
    "done": '<path d="M-4 0 -1 3 4 -4" fill="none" stroke-width="1.5"/>',
    "recovered": '<circle r="4"/>',
    "try": '<path fill="none" d="M0 -6V6" stroke-width="2.5"/>',
    "wait": '<path d="M-4 -4H4L0 0 4 4H-4L0 0Z"/>',
    "failed": '<path fill="none" d="M-4 -4 4 4M4 -4-4 4" stroke-width="2.5"/>',
    "crash": '<path d="M0 -8 2 -2 8 0 2 2 0 8-2 2-8 0-2-2Z"/>',
    "repair": '<path fill="none" d="M8 -5V5M3 0H13" stroke-width="3"/>',
}
#: The same counted: one, and several.
_COUNTED = {
    "change": ("other change", "other changes"),
    "done": ("completion", "completions"),
    "recovered": ("recovered", "recovered"),
    "try": ("failed try", "failed tries"),
    "wait": ("wait for a lock", "waits for locks"),
    "failed": ("gave up", "gave up"),
    "crash": ("death in a commit", "deaths in a commit"),
    "repair": ("repair", "repairs"),
}
#: Of the claims whose owners were gone: how they are, and how they ended.
_GONE = {"dead", "expired", "swept", "taken over"}
_ENDS = {"done": "completed", "failed": "failed", "held": "held", "lost": "ended past the suite"}


def page_of(data: Data, live: bool = False) -> str:
    """The page about what `recovery.report.look` found; `live` is for `recovery serve`."""
    return _Page(data, live).html()


def policy(live: bool = False) -> str:
    """What the page may load and run: its own style and scripts."""
    scripts = " ".join(f"'sha256-{_hash(name)}'" for name in _scripts(live))
    connect = "; connect-src 'self'" if live else ""
    return (
        f"default-src 'none'; style-src 'sha256-{_hash('report.css')}'; script-src {scripts}; img-src data:{connect}; "
        "base-uri 'none'; form-action 'none'"
    )


def _scripts(live: bool) -> list[str]:
    return ["report.js", "live.js"] if live else ["report.js"]


@cache
def _file(name: str) -> str:
    """A file of `web/`."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "web", name), encoding="utf-8") as file:
        return "\n" + file.read()


def _hash(name: str) -> str:
    return base64.b64encode(hashlib.sha256(_file(name).encode()).digest()).decode()


def _text(value: object) -> str:
    return escape(harmless(str(value)))


def _line(value: object) -> str:
    """Words that may have come over several lines, on one, and not for ever."""
    return _text(on_one_line(value))


def _percent(share: float) -> str:
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + "%"


def _list(items: Iterable[str], kind: str, tag: str = "ul") -> str:
    return f'<{tag} class="{kind}" role="list">' + "".join(f"<li>{item}</li>" for item in items) + f"</{tag}>"


class _Page:
    def __init__(self, data: Data, live: bool) -> None:
        self.told, self.drawn, self.live = data["overview"], data["timeline"], live
        self.explained = data["explanations"]
        self.ids = {(one["agent"], one["task"]) for one in self.explained}
        self.now = self.told["time"]

    def html(self) -> str:
        name = os.path.basename(self.told["root"].rstrip("/")) or "/"
        styles, scripts = _file("report.css"), "".join(f"<script>{_file(one)}</script>" for one in _scripts(self.live))
        refresh = '<noscript><meta http-equiv="refresh" content="10"></noscript>\n' if self.live else ""
        return (
            f'{HEAD}<meta http-equiv="Content-Security-Policy" content="{policy(self.live)}">\n{refresh}'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
            f"<title>{_text(headline(self.told))} - {_text(name)}</title>\n<style>{styles}</style>\n</head>\n<body>\n"
            '<a class="skip" href="#needs">To what needs you</a>\n'
            f"{self._head(name)}\n<main>\n{self._body()}\n</main>\n{self._explanations()}\n{self._foot()}\n"
            f"{scripts}\n</body>\n</html>\n"
        )

    def _head(self, name: str) -> str:
        wrong = self.told["needs_you"]
        kind = "bad" if wrong else "warn" if unread_of(self.told) else "good"
        state = f'<p class="state {kind}">{_text(_capital(headline(self.told)))}</p>'
        when = f"{self._time(self.now, full=True)}, the {period(self.told['since'])} before it; times are UTC"
        at_work = sum(map(is_at_work, self.told["agents"]))
        queue = self.told["queue"]
        facts = (
            f"{at_work} of {len(self.told['agents'])} agents at work, {queue['ready']} tasks ready, "
            f"{queue['blocked']} blocked; {rate_in_words(self.told)}"
        )
        live = '<p class="soft" id="live" role="status">live needs JavaScript</p>' if self.live else ""
        return (
            f'<header>{self._part("head")}<h1>Postbox Recovery: <span title="{_text(self.told["root"])}">{_text(name)}'
            f'</span></h1>{state}<p>{facts}</p><p class="soft">As of {when}</p></div>{live}</header>'
        )

    def _part(self, name: str) -> str:
        """What is put in its place as a whole where the page is live."""
        return f'<div id="{name}" data-part>'

    def _section(self, name: str, title: str, body: str, tabbed: bool = False) -> str:
        more = ' tabindex="-1"' if tabbed else ""
        heading = f'<h2 id="h-{name}">{title}</h2>'
        return f'<section id="{name}" data-part aria-labelledby="h-{name}"{more}>{heading}{body}</section>'

    def _body(self) -> str:
        left = [self._failures(), self._breakers(), self._store(), self._queue()]
        return "\n".join(
            [
                self._needs(),
                self._agents(),
                self._lanes(),
                self._success(),
                f'<div class="columns">{"".join(left)}</div>',
                self._notes(),
            ]
        )

    # --- pieces

    def _time(self, when: str, full: bool = False) -> str:
        """A moment: how long ago, and on the pointer when; "" for an unknown one."""
        if epoch(when) is None:
            return _text(when)
        if full:
            return f'<time datetime="{_text(when)}">{_text(when[:19].replace("T", " "))}</time>'
        return f'<time class="ago" datetime="{_text(when)}" title="{_text(when)}">{ago(when, self.now)} ago</time>'

    def _task(self, agent: str, task: str) -> str:
        """A task's name; what opens its explanation, where there is one."""
        name = _text(subject(agent, task))
        if (agent, task) not in self.ids:
            return f"<span class=task>{name}</span>" if name else ""
        return f'<button type="button" class="task" popovertarget="{_id(agent, task)}">{name}</button>'

    def _named(self, name: str) -> str:
        """A task that is named AGENT/TASK."""
        return self._task(*agent_and_task(name))

    # --- sections

    def _needs(self) -> str:
        items = []
        for one in self.told["needs_you"][:NEEDS]:
            since = f' <span class="soft">{self._time(one["since"])}</span>' if one["since"] else ""
            who = self._task(one["agent"], one["task"]) if one["task"] else _text(one["agent"])
            items.append(
                f'<p><span class="kind">{_text(one["kind"])}</span> {who} {_line(one["what"])}{since}</p>'
                f'<code class="next">{_text(one["next"])}</code>'
            )
        unread = unread_of(self.told)
        nobody = '<p class="good">Nothing: no person is waited for.</p>'
        if unread:
            nobody = '<p class="warn">Nothing, as far as can be read; this could not be:</p>'
            nobody += _list(map(_line, unread[:NEEDS]), "plain") + _more(unread, NEEDS)
        said = _list(items, "needs", "ol") if items else nobody
        said += _more(self.told["needs_you"], NEEDS)
        return self._section("needs", "Needs you now", said, tabbed=True)

    def _agents(self) -> str:
        busy = [one for one in self.told["agents"] if is_busy(one)]
        idle = [one for one in self.told["agents"] if not is_busy(one)]
        cards = []
        for one in busy[:AGENTS]:
            lines = [f"<h3>{_text(one['agent'])}</h3>"]
            if one["problem"]:
                lines.append(f'<p class="bad">{_line(one["problem"])}</p>')
            else:
                lines.append(f'<p class="soft">{one["open"]} open, {one["ready"]} ready, {one["blocked"]} blocked</p>')
            lines += [self._claim(one["agent"], claim) for claim in one["claims"][:CLAIMS]]
            lines.append(_more(one["claims"], CLAIMS))
            cards.append("".join(lines) + self._unclaimed(one))
        said = _list(cards, "cards") + _more(busy, AGENTS) if cards else "<p>Nobody has a task.</p>"
        if idle:
            names = ", ".join(f"{_text(one['agent'])} <span class=soft>({one['open']} open)</span>" for one in idle)
            said += f"<details id=idle><summary>{len(idle)} without a task</summary><p>{names}</p></details>"
        return self._section("agents", "Who has what", said)

    def _unclaimed(self, one: Data) -> str:
        """An agent's tasks that are under way without a claim, and those that are handed over."""
        said = ""
        for task in one.get("in_progress", ())[:CLAIMS]:
            title = f" {_line(task['title'])}" if task.get("title") else ""
            since = f", {self._time(task['since'])}" if task.get("since") else ""
            words = f"<span class=soft>in progress, claimed by nobody{since}</span>"
            said += f"<p>{self._task(one['agent'], task['task'])}{title}<br>{words}</p>"
        said += _more(one.get("in_progress", ()), CLAIMS)
        review = one.get("review", ())
        if review:
            tasks = " ".join(self._task(one["agent"], task) for task in review[:CLAIMS])
            said += f"<p>{tasks} <span class=soft>ready for review</span></p>{_more(review, CLAIMS)}"
        return said

    def _claim(self, agent: str, claim: Data) -> str:
        title = f" {_line(claim['title'])}" if claim["title"] else ""
        words = f"{_line(claim['by'])}, {self._time(claim['since'])}"
        if claim["state"] != "alive":
            words += f', <strong class="bad">{_text(claim["state"])}</strong>'
        if claim["silent_since"]:
            words += f', <strong class="warn">last sign of life {self._time(claim["silent_since"])}</strong>'
        return f"<p>{self._task(agent, claim['task'])}{title}<br><span class=soft>{words}</span></p>"

    def _lanes(self) -> str:
        problems = {one["agent"]: one["problem"] for one in self.told["agents"] if one["problem"]}
        problems = dict(list(problems.items())[:AGENTS])
        lanes = {lane["agent"]: lane for lane in self.drawn["lanes"]}
        names = sorted({*lanes, *problems}, key=lambda name: (not name, name))
        nothing = {"claims": [], "marks": [], "left_out": 0}
        drawn = [self._lane(name, lanes.get(name, nothing), problems.get(name, "")) for name in names]
        quiet = [one["agent"] for one in self.told["agents"] if one["agent"] not in names]
        said = f"<svg height=0 aria-hidden=true><defs>{_DEFS}</defs></svg>{_LEGEND}{self._axis()}{''.join(drawn)}"
        if not drawn:
            said = f"<p>{_capital(NOTHING)}.</p>"
        elif quiet:
            words = f"{_count(len(quiet), 'agent')} to whom nothing happened"
            said += f"<details id=quiet><summary>{words}</summary><p>{_text(', '.join(quiet))}</p></details>"
        return self._section("lanes", f"The last {period(self.told['since'])}", said)

    def _axis(self) -> str:
        first, last = epoch(self.drawn["since"]), epoch(self.drawn["until"])
        assert first is not None
        assert last is not None
        step = next((s for s in _STEPS if (last - first) / s <= 8), _STEPS[-1])
        ticks = []
        at = (first // step + 1) * step
        while at < last:
            x, when = _percent((at - first) / (last - first)), iso(at)
            shown = when[5:10] if step >= 86400 else when[11:16] if step >= 60 else when[11:19]
            ticks.append(f'<text x="{x}" y="12" text-anchor="middle">{shown}</text>')
            at += step
        return f'<div class="lane" aria-hidden="true"><header></header><svg height="16">{"".join(ticks)}</svg></div>'

    def _lane(self, agent: str, lane: Data, problem: str) -> str:
        name, summary = _text(agent or "no agent"), _summary(lane)
        said = f'<p class="problem bad">{_line(problem)}</p>' if problem else ""
        events = self._events(agent, lane)
        table = f'<p class="soft">{summary}</p>'
        if events:
            shown, count = events[:EVENTS], len(events) + lane["left_out"]
            rows = "".join(
                f"<tr><td>{when}</td><td>{_text(what)}</td><td>{task}</td><td>{_line(words)}</td></tr>"
                for _, when, what, task, words in shown
            )
            more = f"the newest {len(shown)} of {count}" if count > len(shown) else "the newest first"
            table = (
                f'<details id="events-{_text(agent)}"><summary>{summary}</summary>'
                f"<table><caption>What happened to {name}, {more}</caption><thead><tr><th scope=col>when</th>"
                f"<th scope=col>what</th><th scope=col>task</th><th scope=col>in words</th></tr></thead>"
                f"<tbody>{rows}</tbody></table></details>"
            )
        drawing = self._drawing(agent, lane, f"{name}: {summary}")
        return f'<article class="lane"><header><h3>{name}</h3></header>{said}{drawing}{table}</article>'

    def _drawing(self, agent: str, lane: Data, label: str) -> str:
        rows: list[str] = []  # the end of the last claim in each row
        drawn = []
        for claim in lane["claims"]:
            until = claim["until"] or "~"
            row = next((n for n, end in enumerate(rows) if end <= claim["since"]), len(rows))
            if row >= ROWS:
                row = ROWS - 1
                rows[row] = max(rows[row], until)
            elif row == len(rows):
                rows.append(until)
            else:
                rows[row] = until
            drawn.append(self._bar(agent, claim, row * (_ROW + 2) + 2))
        middle = max(len(rows), 1) * (_ROW + 2) + _MARKS // 2 + 2
        drawn.append(f'<line class="base" x1="0" x2="100%" y1="{middle}" y2="{middle}"/>')
        order = list(KINDS)
        for mark in sorted(lane["marks"], key=lambda one: order.index(one["kind"])):
            drawn.append(self._mark(agent, mark, middle))
        height = middle + _MARKS // 2 + 1
        return f'<svg height="{height}" role="img" aria-label="{label}">{"".join(drawn)}</svg>'

    def _bar(self, agent: str, claim: Data, y: int) -> str:
        x, end = place_of(self.drawn, claim["since"]), place_of(self.drawn, claim["until"])
        kind = "gone" if {claim["state"], claim["end"]} & _GONE else "claim"
        words = f"{claim['task']}: {_ENDS.get(claim['end'], claim['end'])}, by {claim['by']}, from {claim['since']}"
        words += f" to {claim['until']}" if claim["until"] else ", still"
        bar = _rectangle(kind, x, end, y, _ROW)
        if claim["silent_since"]:
            words += f", silent since {claim['silent_since']}"
            bar += _rectangle("silent", max(place_of(self.drawn, claim["silent_since"]), x), end, y + 3, _ROW - 6)
        return self._linked(agent, claim["task"], f"<title>{_line(words)}</title>{bar}")

    def _mark(self, agent: str, mark: Data, y: int) -> str:
        x = min(place_of(self.drawn, mark["time"]), 1 - _NARROW)
        shape = f'<use href="#m-{mark["kind"]}" x="{_percent(x)}" y="{y}"/>'
        if mark["until"]:
            shape += _rectangle("m-wait", x, place_of(self.drawn, mark["until"]), y - 1, 2)
        words = f"{mark['time'][11:19]} {mark['task']}: {KINDS[mark['kind']]}: {mark['text'][:300]}"
        return self._linked(agent, mark["task"], f"<title>{_line(words)}</title>{shape}")

    def _linked(self, agent: str, task: str, inside: str) -> str:
        """For the pointer; the keyboard has the table."""
        if (agent, task) not in self.ids:
            return f"<g>{inside}</g>"
        return f'<a href="#{_id(agent, task)}" tabindex="-1">{inside}</a>'

    def _events(self, agent: str, lane: Data) -> list[tuple[str, str, str, str, str]]:
        """Time, the time as it is shown, what, which task, and words; the newest first."""
        found = []
        for mark in lane["marks"]:
            found.append((mark["time"], KINDS[mark["kind"]], mark["task"], mark["text"][:300]))
        for claim in lane["claims"]:
            found.append((claim["since"], "claimed", claim["task"], f"by {claim['by']}"))
            if claim["silent_since"]:
                found.append((claim["silent_since"], "silent since then", claim["task"], f"by {claim['by']}"))
            if claim["until"] and claim["end"] != "done":  # which has its mark
                end = _ENDS.get(claim["end"], claim["end"])
                found.append((claim["until"], "claim ended", claim["task"], end))
        found.sort(key=lambda one: str(one[0]), reverse=True)
        return [(one[0], self._time(one[0]), one[1], self._task(agent, one[2]), one[3]) for one in found]

    def _success(self) -> str:
        counted = [one for one in self.drawn["rates"] if one["good"] + one["bad"]]
        said = f"<p>{_capital(rate_in_words(self.told))}.</p>"
        if counted:
            said += self._chart(counted)
        return self._section("success", "Recoveries that ended well", said)

    def _chart(self, counted: Sequence[Data]) -> str:
        rates = self.drawn["rates"]
        drawn, rows = [], []
        for n, one in enumerate(rates):
            total = one["good"] + one["bad"]
            if not total:
                continue
            share = one["good"] / total
            kind, words = ("rate", "") if share >= LINE else ("under", ", below the line")
            shown = f"{share * 100:.1f} % of {total}{words}"
            x, wide = _percent(n / len(rates)), _percent(0.8 / len(rates))
            y, high = _percent(1 - share), _percent(max(share, 0.01))
            drawn.append(
                f'<rect class="{kind}" x="{x}" y="{y}" width="{wide}" height="{high}">'
                f"<title>from {one['time']}: {shown}</title></rect>"
            )
            rows.append(f"<tr><td>{self._time(one['time'], full=True)}</td><td>{shown}</td></tr>")
        line, percent = _percent(1 - LINE), f"{LINE * 100:.0f} %"
        label = f"Success rate over time against the line of {percent}; the table below has the numbers"
        return (
            f'{self._axis()}<div class="lane"><header class="soft">up to 100 %<br>- - line of {percent}</header>'
            f'<svg height="110" role="img" aria-label="{label}">{"".join(drawn)}'
            f'<line class="line" x1="0" x2="100%" y1="{line}" y2="{line}"/></svg>'
            '<details id="rates"><summary>as a table</summary><table><caption>Success rate by time</caption>'
            f"<thead><tr><th scope=col>from</th><th scope=col>ended well</th></tr></thead><tbody>"
            f"{''.join(reversed(rows))}</tbody></table></details></div>"
        )

    def _failures(self) -> str:
        items = []
        for one in self.told["failures"]:
            tasks = " ".join(map(self._named, one["tasks"]))
            what = f"<strong>{one['count']} x {_line(one['cause'])}</strong>"
            items.append(f"{what}, the last {self._time(one['last'])}<br>{tasks}")
        said = _list(items, "plain") if items else "<p>None.</p>"
        return self._section("failures", "What failed, by cause", said)

    def _queue(self) -> str:
        queue = self.told["queue"]
        said = f"<p>{queue['ready']} ready, {queue['blocked']} blocked.</p>"
        ready = [
            f"{self._task(one['agent'], one['task'])} {_text(one['priority'] or '')} {_line(one['title'] or '')}"
            for one in queue["next"][:10]
        ]
        waiting = []
        for one in queue["waiting"][:10]:
            others = [self._named(by if "/" in by else f"{one['agent']}/{by}") for by in one["by"]]
            waiting.append(f"{self._task(one['agent'], one['task'])} waits for {' '.join(others)}")
        if ready:
            said += f"<h3>Next to be taken</h3>{_list(ready, 'plain')}"
        if waiting:
            said += f"<h3>Blocked</h3>{_list(waiting, 'plain')}"
        return self._section("queue", "Queue", said)

    def _breakers(self) -> str:
        items = []
        for one in self.told["breakers"]:
            until = f" until {_text(one['until'])}" if one["until"] else ""
            items.append(f"<strong>{_text(one['name'])}</strong> {_text(one['state'])}{until}<br>{_line(one['why'])}")
        said = _list(items, "plain") if items else "<p>All are closed.</p>"
        if is_unknown(self.told, "breakers"):
            said = '<p class="warn">Unknown: they can\'t be read.</p>'
        return self._section("breakers", "Breakers and quotas", said)

    def _store(self) -> str:
        store = self.told["store"]
        items = [f"Of its budget: {_text(use_in_words(self.told))}"]
        items += [f'<span class="bad">Damaged: {_line(one)}</span>' for one in store["damage"][:CLAIMS]]
        items += [f"and {len(store['damage']) - CLAIMS} more"] if len(store["damage"]) > CLAIMS else []
        if is_unknown(self.told, "journal"):
            items.append('<span class="warn">Unfinished: unknown, the journal can\'t be read</span>')
        elif store["journal"]:
            items.append(f'<span class="warn">Unfinished: {_line(store["journal"])}</span>')
        crash = store["last_crash"]
        items.append(f"Last crash: {_line(crash_in_words(crash)) if crash else 'none in this time'}")
        if store["certificate"]:
            items.append(f'<span class="warn">Disk: {_line(store["certificate"])}</span>')
        return self._section("store", "Store", _list(items, "plain"))

    def _notes(self) -> str:
        notes = [*self.told.get("notes", ()), *self.drawn["notes"]]
        if not notes:
            return '<div id="notes" data-part></div>'
        return self._section("notes", "Not shown", _list(map(_line, notes[:NEEDS]), "plain") + _more(notes, NEEDS))

    def _explanations(self) -> str:
        said = []
        for one in self.explained:
            id_, name = _id(one["agent"], one["task"]), _text(subject(one["agent"], one["task"]))
            lines = escape("\n".join(map(harmless, one["lines"])))
            said.append(
                f'<section class="explanation" id="{id_}" popover role="dialog" aria-labelledby="h-{id_}"><header>'
                f'<h3 id="h-{id_}">{name}</h3><button type="button" popovertarget="{id_}" popovertargetaction="hide" '
                f"autofocus>close</button></header><pre>{lines}</pre></section>"
            )
        return f"{self._part('explanations')}{''.join(said)}</div>"

    def _foot(self) -> str:
        return f'<footer class="soft"><p>{_text(self.told["root"])}; <code>recovery report --help</code></p></footer>'


_STEPS = (
    10,
    60,
    300,
    600,
    1800,
    3600,
    3 * 3600,
    6 * 3600,
    12 * 3600,
    86400,
    2 * 86400,
    7 * 86400,
    30 * 86400,
    61 * 86400,
)
_DEFS = "".join(f'<g id="m-{kind}" class="m-{kind}">{shape}</g>' for kind, shape in _SHAPES.items())


def _legend() -> str:
    def key(inside: str, words: str) -> str:
        return f'<svg width="20" height="18" aria-hidden="true">{inside}</svg>{words}'

    bars = [
        key('<rect class="claim" y="3" width="20" height="12" rx="2"/>', "claimed"),
        key('<rect class="gone" y="3" width="20" height="12" rx="2"/>', "its owner is gone"),
        key('<rect class="claim" y="3" width="20" height="12" rx="2"/>'
            '<rect class="silent" y="6" width="20" height="6"/>', "silent"),
    ]  # fmt: skip
    marks = [key(f'<use href="#m-{kind}" x="10" y="9"/>', words) for kind, words in KINDS.items()]
    return _list([*bars, *marks], "legend")


_LEGEND = _legend()


def _id(agent: str, task: str) -> str:
    assert layout.is_id(task)
    return f"task:{agent}/{task}"


def _more(items: Sequence[object], most: int) -> str:
    return "".join(f"<p>{words}</p>" for words in more(items, most))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _rectangle(kind: str, x: float, end: float, y: int, height: int) -> str:
    x = min(x, 1 - _NARROW)
    wide = _percent(max(end - x, _NARROW))
    return f'<rect class="{kind}" x="{_percent(x)}" y="{y}" width="{wide}" height="{height}" rx="2"/>'


def _summary(lane: Data) -> str:
    """What a lane shows, in words."""
    words = [_count(len(lane["claims"]), "claim")] if lane["claims"] else []
    silent = sum(bool(claim["silent_since"]) for claim in lane["claims"])
    words += [f"{silent} silent"] if silent else []
    for kind in sorted(KINDS, key=lambda one: one == "change"):  # what went wrong first
        count = sum(mark["count"] for mark in lane["marks"] if mark["kind"] == kind)
        words += [f"{count} {_COUNTED[kind][count > 1]}"] if count else []
    words += [f"{lane['left_out']} more not drawn"] if lane["left_out"] else []
    return ", ".join(words) or "nothing recorded"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
