"""The report: the same facts as text and as a page, in which somebody's words are words and nothing more."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import time
from html import escape as html_escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recovery import durable, explain, overview, report, report_page, report_text
from recovery.errors import DataError, RecoveryError, UsageError
from recovery.flock import Limits
from recovery.request import Request, place_of
from recovery.store import FileStore
from support import busy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return busy.make(tmp_path / "a <b>work</b> space", time.time())


def store_of(root: Path) -> FileStore:
    return FileStore(str(root), Limits())


class Page(HTMLParser):
    """What a browser would make of a page: tags, attributes, text outside of styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.blocks: dict[str, list[str]] = {"style": [], "script": []}
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in self.blocks else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        (self.blocks[self._inside] if self._inside else self.said).append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.said).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(root: Path) -> Page:
    return Page(report_page.page_of(report.look(store_of(root))))


def test_the_page_holds_what_needs_a_person_with_the_commands_and_every_agent(page: Page, root: Path) -> None:
    told = overview.look(store_of(root))
    assert len(told["needs_you"]) >= 3
    for need in told["needs_you"]:
        assert need["next"] in page.text
    for words in ("CB", "Unterminated", "gave up", "process died in a commit", "pid 77 died in the middle of"):
        assert words in page.text, words


def test_text_and_page_tell_the_same(root: Path) -> None:
    data = report.look(store_of(root))
    text = " ".join(" ".join(report_text.lines_of(data, 80)).split())
    page = Page(report_page.page_of(data)).text
    for need in data["overview"]["needs_you"]:
        assert need["next"] in text
        assert need["next"] in page
    for agent in data["overview"]["agents"]:
        assert agent["agent"] in text
        assert agent["agent"] in page
    assert report_text.rate_in_words(data["overview"]) in text


def test_somebodys_words_are_shown_and_make_no_element_and_no_attribute(page: Page) -> None:
    assert {name for name, _ in page.tags} == {
        "html", "head", "meta", "title", "link", "style", "body", "a", "header", "div", "h1", "h2", "h3", "span", "p",
        "main", "section", "ol", "ul", "li", "time", "code", "button", "strong", "br", "details", "summary", "svg",
        "defs", "g", "path", "circle", "rect", "use", "text", "line", "article", "table", "caption", "thead", "tbody",
        "tr", "th", "td", "pre", "footer", "script",
    }  # fmt: skip
    assert len(page.all("script")) == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    links = {str(one["href"]) for one in page.all("a")}
    assert all(link.startswith("#") for link in links), links
    assert "<img src=x onerror=alert(1)> </script><script>" in page.text, "shown as it stands"
    assert "\\x1b[31mred" in page.text
    assert "\\u202etfel" in page.text
    assert not set(page.text) & set("\x00\x07\x1b\u202e\u202c")


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(page: Page) -> None:
    (policy,) = [str(one["content"]) for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        code = "".join(page.blocks[kind]).encode()
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'" in policy
    assert not [one for name, one in page.tags if name != "a" and ("src" in one or "http" in str(one.get("href")))]


def test_commands_on_a_page_name_the_workspace_for_it_is_read_anywhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is read where it was asked for, and keeps to the short form there."""
    monkeypatch.chdir(root)
    monkeypatch.delenv("ORCHESTRATION_ROOT", raising=False)
    (root / "data/breakers").mkdir(exist_ok=True)
    (root / "data/breakers/api.json").write_text("garbage")
    path = tmp_path / "page.html"
    report.report(store_of(root), html=str(path))
    found = re.findall(r"(?:->|next:|<code class=\"next\">) ?(.+?)(?:</code>|<|\n)", path.read_text())
    commands = [one for one in found if one.startswith(("recovery ", "health_check.sh "))]
    assert len(commands) >= 8
    assert [one for one in commands if one.endswith("breaker show api")]
    named = f"-C &#x27;{html_escape(str(root))}&#x27;"
    assert [one for one in commands if named not in one] == []
    for need in report.look(store_of(root))["overview"]["needs_you"]:
        assert "-C" not in need["next"]
    told = report.report(store_of(root))
    assert "-C " not in "\n".join([told.line, *told.details])


def test_an_explanation_is_what_explain_says(root: Path) -> None:
    data = report.look(store_of(root))
    (one,) = [one for one in data["explanations"] if (one["agent"], one["task"]) == ("CC", "T-2")]
    screen = explain.Screen(width=report.WIDTH, height=report.LINES, place=place_of(str(root)))
    said = explain.explain(store_of(root), "CC", "T-2", screen)
    assert one["lines"] == [said.line, *said.details]
    assert one["next"] == said.data["next"]


def test_what_is_explained_is_bounded_and_the_most_urgent_comes_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "EXPLAINED", 2)
    data = report.look(store_of(root))
    urgent = [(one["agent"], one["task"]) for one in data["overview"]["needs_you"] if one["task"]]
    assert [(one["agent"], one["task"]) for one in data["explanations"]] == list(dict.fromkeys(urgent))[:2]
    monkeypatch.setattr(report, "ROOM", 10)
    assert report.look(store_of(root))["explanations"] == []
    assert "popovertarget" not in report_page.page_of(report.look(store_of(root)))


def test_an_empty_workspace_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "postbox").mkdir()
    data = report.look(store_of(tmp_path))
    data["overview"]["needs_you"] = []  # a full disk, say, is the machine's
    page = Page(report_page.page_of(data))
    assert "Nothing needs you" in page.text
    assert "No change of a task, no try and no repair is recorded in this time." in page.text
    assert "No retries or repairs in this time." in page.text
    assert "nothing went wrong" not in page.text
    assert "nothing needs you" in report_text.lines_of(data, 80)[0]


def test_where_something_could_not_be_read_nobody_is_told_that_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "postbox").mkdir()
    data = report.look(store_of(tmp_path))
    whole = {**data["overview"], "needs_you": [], "notes": [], "unread": [], "unknown": []}
    html = report_page.page_of({**data, "overview": whole})
    assert "no person is waited for" in html
    assert '<p class="state good">Nothing needs you</p>' in html
    words = "no permission to read <b>"
    older = {key: value for key, value in whole.items() if key != "unread"}
    for told in ({**whole, "notes": [words], "unread": [words]}, {**older, "notes": [words]}):
        html = report_page.page_of({**data, "overview": told})
        said = "othing needs you as far as can be read; 1 thing could not be read"
        assert "no person is waited for" not in html
        assert f'<p class="state warn">N{said}</p>' in html
        assert Page(html).text.count(words) >= 2, "where it counts, and with what is not shown"
        assert report_text.lines_of({**data, "overview": told}, 200)[0].startswith(f"n{said}")
    need = {"what": "w", "kind": "check", "agent": "", "task": "", "since": "", "next": "df"}
    told = {**told, "needs_you": [need], "unknown": ["success", "use", "breakers", "journal"]}
    assert report_text.headline(told) == "1 thing needs you; 1 thing could not be read"
    page = Page(report_page.page_of({**data, "overview": told})).text
    text = "\n".join(report_text.lines_of({**data, "overview": told}, 200))
    for said in (page, text):
        assert "retries or repairs" not in said
        assert len(re.findall("(?i)unknown", said)) >= 4


def test_tasks_in_progress_that_nobody_has_claimed_and_those_for_review_are_somebodys(root: Path) -> None:
    data = report.look(store_of(root))
    agent = next(one for one in data["overview"]["agents"] if one["agent"] == "CA")
    agent["in_progress"] = [{"task": "T-8", "title": "Under <i>way</i>", "since": data["overview"]["time"]}]
    agent["review"] = [f"R-{n}" for n in range(12)]
    page = Page(report_page.page_of(data)).text
    assert "CA/T-8 Under <i>way</i>in progress, claimed by nobody" in page
    assert "CA/R-9 ready for review and 2 more" in " ".join(page.split())
    text = " ".join(" ".join(report_text.lines_of(data, 400)).split())
    assert "T-8 in progress since" in text
    assert "R-9 and 2 more" in text
    assert "CA (0)" not in text, "nobody at work"


def test_a_report_changes_nothing_in_the_workspace(root: Path, tmp_path: Path) -> None:
    def tree() -> list[tuple[str, int, int]]:
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*"))]

    before = tree()
    report.report(store_of(root), html=str(tmp_path / "page.html"))
    assert tree() == before


# --- as text


def test_the_text_keeps_to_the_width_commands_apart(root: Path) -> None:
    data = report.look(store_of(root))
    for width in (40, 80, 120):
        lines = report_text.lines_of(data, width)
        assert max(len(line) for line in lines if "->" not in line) <= width
        assert all(line.isprintable() for line in lines)


def test_an_agents_line_shows_claims_and_marks_where_they_were() -> None:
    drawn = {"since": "2026-11-25T00:00:00Z", "until": "2026-11-25T10:00:00Z"}
    claim = {"since": "2026-11-25T02:30:00Z", "until": "2026-11-25T05:30:00Z", "silent_since": "2026-11-25T04:30:00Z"}
    mark = {"kind": "crash", "time": "2026-11-25T08:30:00Z"}
    lane = {"claims": [claim], "marks": [mark, {**mark, "kind": "done"}]}
    assert report_text._strip(lane, drawn, 10) == "..==~~..X."


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (61, "61 s"), (5400, "90 min"), (86400, "24 h"), (172800, "2 d")]
)
def test_how_long_ago_it_was_is_said_in_one_unit(seconds: int, words: str) -> None:
    assert report_text.ago(busy.iso(1e9), busy.iso(1e9 + seconds)) == words
    assert report_text.ago("never", busy.iso(1e9)) == "never"


@pytest.mark.parametrize(("seconds", "words"), [(86400, "24 h"), (7 * 86400, "7 d"), (5400, "90 min"), (90, "90 s")])
def test_a_period_is_said_as_people_say_it(seconds: int, words: str) -> None:
    assert report_text.period(seconds) == words


# --- the file


def test_the_file_is_replaced_in_one_step_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    old = os.umask(0o027)
    try:
        report.write(str(path), "one")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(old)
    path.chmod(0o604)
    with path.open() as reader:
        report.write(str(path), "two \ud800")
        assert reader.read() == "one", "who has it open keeps what he has"
    assert path.read_text() == "two \\ud800"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_what_is_the_workspaces_own_is_never_written_over_however_it_is_named(root: Path, tmp_path: Path) -> None:
    before = {str(one): one.read_bytes() for one in root.rglob("*") if one.is_file()}
    (tmp_path / "way").symlink_to(root)
    (tmp_path / "in").symlink_to(root / "postbox" / "CC")
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "postbox" / "CX").symlink_to(outside)
    for path in (
        f"{root}/postbox/CC/outbox.json",
        f"{root}/data/journal",
        f"{root}/data/new",
        f"{root}/postbox/../data//config.json",
        f"{tmp_path}/way/.sprint/progress.json",
        f"{tmp_path}/in/outbox.json",
        f"{tmp_path}/in/../../data/config.json",
        f"{root}/postbox/CX/outbox.json",
    ):
        for force in (False, True):
            with pytest.raises(UsageError, match="the workspace's own"):
                report.report(store_of(root), html=path, force=force)
    hard = tmp_path / "hard"
    hard.hardlink_to(root / "postbox" / "CC" / "outbox.json")
    with pytest.raises(UsageError, match="no report"):
        report.report(store_of(root), html=str(hard))
    report.report(store_of(root), html=str(hard), force=True)
    assert hard.read_text().endswith("</html>\n")
    assert {str(one): one.read_bytes() for one in root.rglob("*") if one.is_file()} == before
    assert list(outside.iterdir()) == []
    report.report(store_of(root), html=str(root / "today.html"))
    assert (root / "today.html").read_text().endswith("</html>\n")


def test_a_file_that_is_no_report_stays_unless_it_is_said_that_it_may_go(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("")
    report.report(store_of(root), html=str(path))
    report.report(store_of(root), html=str(path))
    for mine in ("precious", "<!doctype html>\n<html lang='en'>"):
        path.write_text(mine)
        with pytest.raises(UsageError, match="no report"):
            report.report(store_of(root), html=str(path))
        assert path.read_text() == mine
    report.report(store_of(root), html=str(path), force=True)
    assert path.read_text().startswith(report_page.HEAD)
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["page.html"]


def test_a_file_that_can_not_be_written_is_refused_and_what_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    path = tmp_path / "page.html"
    path.write_text(report_page.HEAD)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(DataError, match="not a regular file"):
        report.report(store_of(root), html=str(tmp_path / "link"))
    with pytest.raises(RecoveryError, match="could not write"):
        report.report(store_of(root), html=str(tmp_path / "nowhere" / "page.html"))

    def full(fd: int, data: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(durable, "write_all", full)
    with pytest.raises(RecoveryError, match="No space") as error:
        report.report(store_of(root), html=str(path))
    assert error.value.code == 74
    assert path.read_text() == report_page.HEAD
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_file()) == ["link", "page.html"]


def test_a_page_on_stdout_is_the_page_and_nothing_else(
    root: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    result = report.report(store_of(root), html="-")
    told = capfd.readouterr().out
    assert told.startswith(report_page.HEAD)
    assert told.endswith("\n</html>\n")
    assert (result.line, result.details) == ("", [])
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("since", ["0", "59", "367d", "x", "-1h"])
def test_a_period_that_makes_no_sense_is_refused(since: str) -> None:
    asked = Request("report", report.VERB, ["--since", since])
    with pytest.raises(UsageError):
        report.VERB.parse(asked)


def test_the_pages_files_are_there_and_installed() -> None:
    suite = Path(report_page.__file__).resolve().parents[2]
    assert 'web/*"' in (suite / "pyproject.toml").read_text()
    assert re.search(r"py/recovery/web/", (suite / "share/install.sh").read_text())


def test_the_data_is_json(root: Path) -> None:
    result: dict[str, Any] = report.report(store_of(root)).data
    assert json.loads(json.dumps(result)) == result


def test_a_page_stays_small_whatever_there_is_to_tell(root: Path) -> None:
    """A thousand agents, each with a thousand claims and words without end."""
    data = report.look(store_of(root))
    words = "word " * 50_000
    claim = {"task": "T-1", "title": words, "by": words, "since": "", "silent_since": "", "state": "dead"}
    agent = {"open": 1, "ready": 1, "blocked": 0, "problem": "", "claims": [claim] * 1000}
    told = data["overview"]
    told["agents"] = [{**agent, "agent": f"A{n}", "problem": words if n % 2 else ""} for n in range(1000)]
    told["needs_you"] = [{**told["needs_you"][0], "what": words}] * 5000
    told["store"]["damage"] = [words] * 1000
    told["notes"] = [words] * 1000
    html = report_page.page_of(data)
    assert len(html) < 2_000_000
    assert "and 4900 more" in Page(html).text
    text = "\n".join(report_text.lines_of(data, 80))
    assert len(text) < 2_000_000
    assert "and 4900 more" in text
