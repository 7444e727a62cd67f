"""The picture in the README: `recovery report` of a workspace in which agents really worked, failed and were shot.

    python tests/demo/picture.py [--seconds 100] [--seed N] [--out share/report.png] [--keep DIR]

Six agents take tasks by `recovery run`. Some commands fail, at once or for good; some runs are killed with -9, whole
completions are killed in the middle of a commit, locks are held by somebody else, a quota runs out, and at the end an
outbox is cut off. Then Chromium (Debian's package, or the one that $CHROMIUM names) takes a picture of the page.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

SUITE = Path(__file__).resolve().parents[2]
RECOVERY = str(SUITE / "bin" / "recovery")
AGENTS = {
    "CC": ("testing", ["Load tests", "End to end tests", "Flaky login test", "Coverage of the parser", "Soak test"]),
    "CA": ("docs", ["Release notes", "Manual: recovery", "Screenshots", "Glossary", "Upgrade guide"]),
    "CB": ("backend", ["Rate limits", "Migration 0042", "Slow query", "Audit log", "Cache headers"]),
    "UI": ("frontend", ["Dark mode", "Keyboard navigation", "Empty states", "Table on phones", "Focus ring"]),
    "OPS": ("operations", ["Rotate keys", "Backups", "Alert rules", "Disk budget", "Image build"]),
    "QA": ("quality", ["Review release", "Triage", "Sample receipts", "Accessibility", "Sign-off"]),
}
#: What an agent's command does: work for a while, and go wrong as it was told to.
WORK = """
sleep "$1"
case $2 in
flaky) [ -e "$3" ] || { : >"$3"; echo "ConnectionError: api.example: connection reset" >&2; exit 75; } ;;
broken) echo "AssertionError: 3 of 218 tests failed" >&2; exit 1 ;;
esac
echo "done, reviewed by nobody"
"""


class Day:
    """A busy day in little more than a minute."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self.root, self.locks, self.seconds = folder / "sprint-12", folder / "locks", seconds
        self.random = random.Random(seed)
        self.guard = threading.Lock()
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RECOVERY_", "ORCHESTRATION_"))
        }
        self.env = {
            **kept,
            "ORCHESTRATION_ROOT": str(self.root),
            "ORCHESTRATION_LOCK_DIR": str(self.locks),
            "RECOVERY_PYTHON": sys.executable,
            "RECOVERY_RETRY_DELAY": "1.5",
        }
        self.end = 0.0

    def recovery(self, *words: str, **more: str) -> int:
        done = subprocess.run(
            [RECOVERY, *words],
            cwd=self.root,
            env={**self.env, **more},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return done.returncode

    def run(self) -> None:
        (self.root / "postbox").mkdir(parents=True)
        backlog = []
        for agent, (_, titles) in AGENTS.items():
            for n in range(20):
                task: dict[str, Any] = {"task_id": f"{agent}-{n + 1}", "title": titles[n % len(titles)], "agent": agent}
                task["priority"] = self.random.choice(["LOW", "MEDIUM", "HIGH", "CRITICAL"])
                if n in (9, 14):
                    task["dependencies"] = [f"{agent}-{n - 3}"]
                backlog.append(task)
            self.recovery("assign", agent, f"{agent}-0", "Read the brief", "LOW")
        (self.root / "backlog.json").write_text(json.dumps({"tasks": backlog}))
        assert self.recovery("distribute", str(self.root / "backlog.json")) == 0
        self.end = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self._agent, args=(agent,)) for agent in AGENTS]
        threads += [threading.Thread(target=one) for one in (self._sweeper, self._locker, self._quota)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._last_things()

    def left(self) -> float:
        return self.end - time.monotonic()

    def _agent(self, agent: str) -> None:
        while self.left() > 0:
            with self.guard:
                chance, work, pause = self.random.random(), self.random.uniform(1.5, 7), self.random.uniform(0.2, 4)
            kind = "flaky" if chance < 0.2 else "broken" if chance < 0.25 else ""
            mark = self.marks / f"{agent}-{time.monotonic_ns()}"
            command = ["sh", "-c", WORK, "work", f"{work:.1f}", kind, str(mark)]
            tries = ["--attempts", "2"] if kind == "broken" else []
            words = [RECOVERY, "run", "-q", *tries, agent, "--next", "--", *command]
            in_commit = 0.25 <= chance < 0.37
            fault = {"RECOVERY_FAULT": "replaced:3=kill-group"} if in_commit else {}
            process = subprocess.Popen(
                words,
                env={**self.env, **fault},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
            if 0.37 <= chance < 0.47:
                self._kill(process, work / 2)
            process.wait()
            time.sleep(min(pause, max(self.left(), 0)))

    def _kill(self, process: subprocess.Popen[bytes], after: float) -> None:
        """kill -9 of all of it: the wrapper's group, and that of its command."""
        try:
            process.wait(after)
            return
        except subprocess.TimeoutExpired:
            pass
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for group in (process.pid, *map(int, children)):
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _sweeper(self) -> None:
        while self.left() > 15:
            self.recovery("sweep", "-q")
            time.sleep(5)

    def _locker(self) -> None:
        """Somebody who keeps a lock for seconds, as a person with an editor does."""
        for agent in ("CA", "UI", "CB"):
            time.sleep(self.seconds / 6)
            lock = self.root / "postbox" / agent / ".outbox.json.lock"
            subprocess.run(["flock", str(lock), "sleep", "7"], check=False)

    def _quota(self) -> None:
        time.sleep(self.seconds * 0.6)
        limit = "echo 'usage limit reached, resets in 90 minutes' >&2; exit 1"
        options = ["--until-reset", "resets in (.*)", "--breaker", "model-quota", "--attempts", "1"]
        self.recovery("try", "nightly-summary", *options, "--", "sh", "-c", limit)
        self.recovery("try", "publish-docs", "--attempts", "1", "--", "/no/such/program")

    def _last_things(self) -> None:
        held = subprocess.Popen(["sleep", "60"])
        session = {"RECOVERY_SESSION": str(held.pid)}
        self.recovery("claim", "OPS", "--next", **session)
        held.kill()  # and nobody sweeps
        held.wait()
        self.recovery("claim", "CC", "--next", RECOVERY_SESSION=str(os.getpid()))
        self.recovery("claim", "UI", "--next", RECOVERY_SESSION=str(os.getpid()))
        outbox = self.root / "postbox" / "QA" / "outbox.json"
        outbox.write_bytes(outbox.read_bytes()[:-700])


def small(data: bytes) -> bytes:
    """A screenshot with the 256 colours that it has most of: a third of the bytes, and nobody sees it.

    Chromium writes 8-bit RGB or RGBA, not interlaced; PNG, second edition, 9 and 11.
    """
    at, parts, wide, high, step = 8, b"", 0, 0, 0
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            wide, high, depth, colours, *_, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, interlaced) == (8, 0)
            step = {2: 3, 6: 4}[colours]
        parts += body if kind == b"IDAT" else b""
        at += 12 + length
    raw = zlib.decompress(parts)
    rows, above = [], bytearray(wide * step)
    for y in range(high):
        start = y * (wide * step + 1)
        row = bytearray(raw[start + 1 : start + 1 + wide * step])
        _unfilter(raw[start], row, above, step)
        rows.append(row)
        above = row
    pixels = [[tuple(row[x : x + 3]) for x in range(0, len(row), step)] for row in rows]
    counted = Counter(colour for row in pixels for colour in row)
    palette = [colour for colour, _ in counted.most_common(256)]

    def nearest(colour: tuple[int, ...]) -> int:
        return min(
            range(len(palette)), key=lambda n: sum((a - b) ** 2 for a, b in zip(colour, palette[n], strict=True))
        )

    places = {colour: nearest(colour) for colour in counted}
    plain = b"".join(b"\0" + bytes(places[colour] for colour in row) for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", wide, high, 8, 3, 0, 0, 0)),
        (b"PLTE", b"".join(map(bytes, palette))),
        (b"IDAT", zlib.compress(plain, 9)),
        (b"IEND", b""),
    )
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    for x in range(len(row)):
        left, up, corner = (row[x - step], above[x], above[x - step]) if x >= step else (0, above[x], 0)
        if kind == 1:
            row[x] = (row[x] + left) & 255
        elif kind == 2:
            row[x] = (row[x] + up) & 255
        elif kind == 3:
            row[x] = (row[x] + (left + up) // 2) & 255
        elif kind == 4:
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda one: abs(guess - one))
            row[x] = (row[x] + nearest) & 255


def shoot(page: Path, picture: Path, width: int = 1200, height: int = 1560, scheme: str = "light") -> None:
    """A picture of the top of a page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        tab.goto(page.as_uri())
        picture.write_bytes(small(tab.screenshot()))
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The picture in the README, from a real run.")
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=SUITE / "share" / "report.png")
    parser.add_argument("--keep", type=Path, help="leave the workspace and the page here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="picture-") as scratch:
        folder = options.keep or Path(scratch)
        day = Day(folder, options.seconds, options.seed)
        day.run()
        page = folder / "report.html"
        since = f"{options.seconds + 15:.0f}s"
        code = day.recovery("report", "--since", since, "--html", str(page))
        assert code == 0, code
        shoot(page, options.out)


if __name__ == "__main__":
    main()
