"""`recovery report --html` of a large crowd's workspace, and what `recovery serve` costs while nothing happens."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import crowd
from contenders import OURS
from table import Report, Target
from timing import CommandFailed, run

RECOVERY = str(OURS.with_name("recovery"))


class Reporting:
    """The sections about report and serve."""

    def __init__(self, report: Report, scratch: Path, quick: bool) -> None:
        self.report, self.scratch, self.quick = report, scratch, quick
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("RECOVERY_")}

    def page(self) -> None:
        """60 agents, 10,000 tasks, a million log records of a month, or of one day, counted once by `stats` before."""
        rounds = 3 if self.quick else 15
        records = 20_000 if self.quick else 1_000_000
        page = self.scratch / "page.html"
        for days, name in ((30, "of a month"), (1, "of one day")):
            root = self.scratch / f"reported-{days}"
            made = crowd.make(root, time.time(), records=records, days=days)
            if days == 1:
                subprocess.run([RECOVERY, "-C", str(root), "stats", "--json"], capture_output=True, check=True)
            title = f"recovery report --html, 60 agents, 10,000 tasks, {made:,} records {name} ({rounds} rounds)"
            self.report.section(title, "s, MB")
            took: list[float] = []
            try:
                for number in range(rounds + 1):
                    one = run(
                        [RECOVERY, "-C", str(root), "report", "--html", str(page)], self.env, self.scratch / "stderr"
                    )
                    took += [one / 1000] if number else []
            except CommandFailed as error:
                self.report.failed(str(error))
            self.report.row("seconds, whole process", took, None, Target(2, absolute=True))
            self.report.row("megabytes", [page.stat().st_size / 1e6], None, Target(2, absolute=True))

    def idle(self) -> None:
        """One browser connected, six agents, nothing happens; then something does."""
        seconds = 3 if self.quick else 60
        root = self.scratch / "served"
        crowd.make(root, time.time(), agents=6, tasks=120, records=1200)
        self.report.section(f"recovery serve, one browser connected, {seconds} s in which nothing happens", "s")
        server = subprocess.Popen(
            [RECOVERY, "-C", str(root), "serve"],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            place, token = address.split("/")[2:4]
            host, _, port = place.partition(":")
            with socket.create_connection((host, int(port))) as news, news.makefile("rb") as lines:
                news.sendall(f"GET /{token}/events HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
                urllib.request.urlopen(address).read()  # noqa: S310 - ours, on loopback
                time.sleep(2)
                before = _cpu(server.pid)
                time.sleep(seconds)
                self.report.row("CPU seconds", [_cpu(server.pid) - before], None, None)
                took = []
                for number in range(3 if self.quick else 10):
                    run(
                        [RECOVERY, "-C", str(root), "assign", "A00", f"NEW-{number}", "New", "LOW"],
                        self.env,
                        root / "err",
                    )
                    began = time.perf_counter()
                    while f"NEW-{number}".encode() not in urllib.request.urlopen(address).read():  # noqa: S310
                        while not lines.readline().startswith(b"event: changed"):
                            pass
                    took.append(time.perf_counter() - began)
                self.report.row("from a change to its page", took, None, Target(1, absolute=True))
        finally:
            server.terminate()
            server.wait()


def _cpu(pid: int) -> float:
    """Seconds that the threads of a process have run, to the nanosecond."""
    folders = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in folders) / 1e9
