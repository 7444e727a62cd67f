"""The report in a real browser: Debian's Chromium, driven by Playwright.

Without a browser these tests are skipped, each of them by name; in CI that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recovery import report, report_page, serve
from recovery.flock import Limits
from recovery.store import FileStore
from support import busy
from support.workspace import SUITE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

#: Pixels: a phone, and a wall.
PHONE, WALL = 360, 1920
#: What counts as large text in WCAG 2.1, 1.4.3: 24 px, or 18.66 px and bold.
CONTRAST = """
() => {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = colour;
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (c) => ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((m, n) => n - m);
    return (x + 0.05) / (y + 0.05);
  };
  const weak = [];
  for (const one of document.body.querySelectorAll("*")) {
    if (["SCRIPT", "STYLE", "TITLE", "NOSCRIPT"].includes(one.tagName.toUpperCase())) continue;
    const style = getComputedStyle(one);
    const words = [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (words && one.checkVisibility()) {
      const colour = one instanceof SVGElement ? style.fill : style.color;
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
      const found = ratio(rgb(colour), behind(one));
      if (found < (large ? 3 : 4.5)) weak.push(`${one.tagName} ${one.textContent.slice(0, 40)} ${found.toFixed(2)}`);
    }
    if (["rect", "circle", "path"].includes(one.tagName) && !one.closest("symbol")) {
      for (const colour of [style.fill, style.stroke]) {
        if (colour !== "none" && rgb(colour)[3] && ratio(rgb(colour), behind(one)) < 3)
          weak.push(`${one.outerHTML.slice(0, 60)} ${colour}`);
      }
    }
  }
  return weak;
}
"""
#: What a screen reader relies on.
STRUCTURE = """
() => {
  const wrong = [];
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`id ${id} twice`);
  for (const name of ["aria-labelledby", "popovertarget"])
    for (const one of document.querySelectorAll(`[${name}]`))
      if (!document.getElementById(one.getAttribute(name))) wrong.push(`${name} ${one.getAttribute(name)}`);
  for (const one of document.querySelectorAll("a[href^='#'], use"))
    if (!document.getElementById(one.getAttribute("href").slice(1))) wrong.push(`link ${one.getAttribute("href")}`);
  for (const one of document.querySelectorAll("svg"))
    if (one.getAttribute("role") === "img" ? !one.getAttribute("aria-label") : !one.closest("[aria-hidden=true]"))
      wrong.push(`svg ${one.outerHTML.slice(0, 80)}`);
  for (const one of document.querySelectorAll("table"))
    if (!one.caption || !one.querySelector("th[scope]")) wrong.push("table");
  let level = 0;
  for (const one of document.querySelectorAll("h1, h2, h3")) {
    if (+one.tagName[1] > level + 1) wrong.push(`heading ${one.textContent}`);
    level = +one.tagName[1];
  }
  if (document.querySelectorAll("h1, main").length !== 2 || !document.documentElement.lang) wrong.push("landmarks");
  return wrong;
}
"""


@dataclass
class Seen:
    """What a page said and did that it should not."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@dataclass
class Tab:
    page: Page
    seen: Seen


class Chromium:
    """The browser, which all tests of a process share; a context, with nothing in it, for each tab."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []

    def open(self, address: str, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Tab:
        colours: Any = scheme
        context = self.browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=colours, java_script_enabled=scripts
        )
        self.contexts.append(context)
        page, seen = context.new_page(), Seen()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))

        def dialog(found: Any) -> None:
            seen.dialogs.append(found.message)
            found.dismiss()

        page.on("dialog", dialog)
        page.goto(address)
        return Tab(page, seen)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        assert not os.environ.get("CI"), "there is no chromium: the page is not tested"
        pytest.skip("NOT TESTED: there is no chromium (apt-get install chromium, or name one in CHROMIUM)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def chromium(browser: Browser) -> Iterator[Chromium]:
    found = Chromium(browser)
    yield found
    for context in found.contexts:
        context.close()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busy.make(tmp_path_factory.mktemp("browser") / "work space", time.time())


@pytest.fixture(scope="session")
def address(root: Path) -> str:
    """The page about a workspace in which everything happened, and all words are hostile."""
    path = root.with_name("page.html")
    report.write(str(path), report_page.page_of(report.look(FileStore(str(root), Limits()))))
    return path.as_uri()


def unfold(page: Page) -> None:
    """Open what is folded away."""
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")


def sideways(page: Page) -> list[int]:
    """The width of what there is to see and of the window."""
    found: list[int] = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    return found


def test_the_page_asks_for_nothing_and_complains_of_nothing(chromium: Chromium, address: str) -> None:
    tab = chromium.open(address)
    assert tab.seen == Seen(requests=[address])
    assert "need you" in tab.page.title()


def test_hostile_words_do_nothing_but_stand_there(chromium: Chromium, address: str) -> None:
    tab = chromium.open(address)
    assert "owned" not in tab.page.title()
    assert tab.page.locator("script").count() == 1
    assert tab.page.locator("img, iframe, object, embed, form, [onerror], [style]").count() == 0
    assert "<img src=x onerror=alert(1)> </script><script>" in tab.page.locator("#needs").inner_text()
    unfold(tab.page)
    for task in tab.page.locator("#needs button.task").all():
        task.click()
        tab.page.keyboard.press("Escape")
    assert tab.seen == Seen(requests=[address])


def test_the_policy_keeps_out_what_is_not_the_pages_own(chromium: Chromium, address: str) -> None:
    """Were a word ever taken for HTML, the browser would still not obey it."""
    tab = chromium.open(address)
    refused: list[str] = []
    tab.page.on("requestfailed", lambda request: refused.append(f"{request.url} {request.failure}"))
    tab.page.evaluate(
        """() => {
          const inside = document.createElement("div");
          inside.innerHTML = '<img src="https://example.invalid/x"><b onclick="window.owned = 1">x</b>';
          document.body.append(inside);
          inside.querySelector("b").click();
          const script = document.createElement("script");
          script.textContent = "window.owned = 1";
          document.body.append(script);
        }"""
    )
    assert tab.page.evaluate("() => window.owned") is None
    assert len([line for line in tab.seen.console if "Content Security Policy" in line]) >= 3
    assert refused == ["https://example.invalid/x csp"]


@pytest.mark.parametrize("width", [PHONE, WALL])
def test_nothing_lies_beside_the_screen(chromium: Chromium, address: str, width: int) -> None:
    page = chromium.open(address, width=width).page
    assert sideways(page) == [width, width]
    unfold(page)
    assert sideways(page) == [width, width]
    page.locator("#needs button.task").first.click()
    box = page.locator(".explanation:popover-open").bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width


def test_the_keyboard_opens_an_explanation_and_comes_back(chromium: Chromium, address: str) -> None:
    page = chromium.open(address).page
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "To what needs you"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    task = page.evaluate("() => document.activeElement.textContent")
    assert "/" in task
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid", "and is seen"
    page.keyboard.press("Enter")
    shown = page.locator(".explanation:popover-open")
    assert shown.locator("h3").inner_text() == task
    assert "cause: " in shown.inner_text()
    assert "next: recovery" in shown.inner_text()
    assert page.evaluate("() => document.activeElement.textContent") == "close"
    page.keyboard.press("Escape")
    assert shown.count() == 0
    assert page.evaluate("() => document.activeElement.textContent") == task


def test_a_click_in_a_lane_opens_the_tasks_explanation(chromium: Chromium, address: str) -> None:
    page = chromium.open(address).page
    page.locator("#lanes svg a rect.claim").first.click()
    assert "CC/" in page.locator(".explanation:popover-open h3").inner_text()


def test_a_lane_shows_what_happened_and_an_unreadable_outbox_says_so_in_its_own(
    chromium: Chromium, address: str
) -> None:
    page = chromium.open(address).page
    lanes = {lane.locator("h3").inner_text(): lane for lane in page.locator("#lanes article").all()}
    assert set(lanes) == {"CB", "CC", "no agent"}
    assert "can't be read" in lanes["CB"].inner_text() or "damaged" in lanes["CB"].inner_text()
    for shape in ("rect.claim", "rect.gone", "rect.silent", "rect.m-wait"):
        assert lanes["CC"].locator(shape).count() >= 1, shape
    for kind in ("done", "try", "failed", "crash", "repair", "wait"):
        assert lanes["CC"].locator(f"use[href='#m-{kind}']").count() >= 1, kind
    assert lanes["CC"].locator("summary").inner_text().startswith("3 claims, 1 silent, 1 completion, 1 failed try, ")
    lanes["CC"].locator("summary").click()
    rows = lanes["CC"].locator("tbody tr").all_inner_texts()
    assert any("process died in a commit" in row for row in rows), "the table says it too"
    assert page.locator("#success rect").count() >= 1
    assert page.locator("#success line.line").count() == 1


def test_a_screen_reader_finds_its_way(chromium: Chromium, address: str) -> None:
    page = chromium.open(address).page
    assert page.evaluate(STRUCTURE) == []
    outline = page.locator("main").aria_snapshot()
    for words in ('heading "Needs you now"', 'img "CC: ', 'button "CC/T-3"', 'heading "Store"'):
        assert words in outline, words


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_the_dark_and_in_the_light(chromium: Chromium, address: str, scheme: str) -> None:
    page = chromium.open(address, scheme=scheme).page
    unfold(page)
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CONTRAST) == []
    page.locator("#needs button.task").first.click()
    assert page.evaluate(CONTRAST) == []


def test_without_javascript_the_state_is_told_and_a_task_explained(chromium: Chromium, address: str) -> None:
    page = chromium.open(address, scripts=False).page
    assert "things need you" in page.locator("body").inner_text()
    assert page.locator("#needs code.next").first.inner_text().startswith("recovery ")
    assert not page.locator(".explanation").first.is_visible()
    page.locator("#needs button.task").first.click()
    assert page.locator(".explanation:popover-open").is_visible()
    page.keyboard.press("Escape")
    page.locator("#lanes svg a rect.claim").first.click()
    assert page.locator(".explanation:target").is_visible()


# --- live


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[serve.Serving, Path]]:
    root = busy.make(tmp_path / "live", time.time(), "Words")
    (root / "postbox" / "CB" / "outbox.json").write_text('{"tasks": []}')
    serving = serve.Serving(serve.Pages(str(root), 86400.0), 0)
    serving.start()
    yield serving, root
    serving.close()


def test_a_change_is_on_the_live_page_within_a_second(chromium: Chromium, live: tuple[serve.Serving, Path]) -> None:
    """And what a person has opened stays open, the keyboard where it was."""
    serving, root = live
    tab = chromium.open(serving.address)
    page = tab.page
    page.wait_for_function("() => document.getElementById('live').textContent.startsWith('live, updated')")
    page.locator("#agents summary").click()
    task = page.locator("#needs button.task").first
    name = task.inner_text()
    task.focus()
    page.keyboard.press("Enter")
    took = []
    env = {**os.environ, "ORCHESTRATION_ROOT": str(root), "ORCHESTRATION_LOCK_DIR": str(root.with_name("locks"))}
    env["RECOVERY_PYTHON"] = sys.executable
    for n in range(3):
        command = [str(SUITE / "bin" / "recovery"), "assign", "CA", f"NEW-{n}", f"Change {n}", "CRITICAL"]
        subprocess.run(command, env=env, check=True, capture_output=True)
        began = time.monotonic()
        page.get_by_text(f"Change {n}").first.wait_for()
        took.append(time.monotonic() - began)
    assert min(took) < 1.0, took
    assert page.locator(".explanation:popover-open h3").inner_text() == name
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.activeElement.textContent") == name
    assert page.locator("#idle").get_attribute("open") is not None
    assert tab.seen.console == []
    assert {url.split("/")[2] for url in tab.seen.requests} == {f"127.0.0.1:{serving.port}"}


def test_the_live_page_says_when_its_server_is_gone(chromium: Chromium, live: tuple[serve.Serving, Path]) -> None:
    serving, _ = live
    page = chromium.open(serving.address).page
    page.wait_for_function("() => document.getElementById('live').textContent.startsWith('live')")
    serving.close()
    page.wait_for_function("() => document.getElementById('live').textContent.includes(\"can't be reached\")")


def test_the_live_page_tells_the_state_without_javascript(chromium: Chromium, live: tuple[serve.Serving, Path]) -> None:
    serving, _ = live
    page = chromium.open(serving.address, scripts=False).page
    assert "things need you" in page.locator("body").inner_text()
    assert page.locator("#live").inner_text() == "live needs JavaScript"
