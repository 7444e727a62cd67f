"""Ours and its peers side by side, in one interleaved run: medians, ratios, and the targets.

    python tests/bench/bench.py [--quick] [--only SECTION] [--jq PATH] [--dir DIR]

The report is Markdown on stdout. A missed target is a result, not a failure; the
exit code is 1 only if a command failed or something was lost. Measure on a quiet
machine, on the file system that matters (--dir): a tmpfs makes every sync free.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from checking import Checking
from completing import Completions
from contenders import OURS, Contender, contenders
from counting import Counting
from doctoring import Doctoring
from explaining import Explaining
from keeping import Keeping
from locking import Locks
from priming import Priming
from recovering import Recovering
from reporting import Reporting
from table import Report
from timing import floor
from watching import Watching
from wrapping import Wrapping

SECTIONS = (
    "one",
    "large",
    "writers",
    "claims",
    "archive",
    "syncs",
    "locks",
    "transactions",
    "manager",
    "checkpoints",
    "statistics",
    "try",
    "tx",
    "health",
    "doctor",
    "cleanup",
    "explain",
    "top",
    "report",
    "prime",
)


def file_system(path: Path) -> str:
    """The type of the file system `path` is on, after /proc/self/mountinfo."""
    best, kind = Path(), "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ", 1)
        mount = Path(left.split()[4])
        if path.is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, right.split()[0]
    return kind


def machine(scratch: Path) -> str:
    models = (
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    facts = (
        next(models, platform.machine()),
        f"{os.cpu_count()} cores",
        f"Linux {platform.release()}",
        file_system(scratch.resolve()),
        f"Python {platform.python_version()}",
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    )
    return ", ".join(facts)


def starting(scratch: Path, everybody: Sequence[Contender], rounds: int) -> str:
    """What it costs here to start each program and do nothing: explains most of section 1."""
    nothing = {
        "bash": ["bash", "-c", ":"],
        "python3 on PATH": ["python3", "-I", "-S", "-c", ""],
        "sqlite3": ["sqlite3", "-version"],
    }
    nothing |= {one.name.replace(" script", ""): [one.jq, "-n", "1"] for one in everybody if one.jq}
    costs = []
    for name, argv in nothing.items():
        program = shutil.which(argv[0])
        if program is not None:
            costs.append(f"{name} {floor([program, *argv[1:]], scratch / 'stderr', rounds):.1f} ms")
    return ", ".join(costs)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ours and its peers side by side.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under a minute")
    parser.add_argument("--only", choices=SECTIONS, help="one section")
    parser.add_argument(
        "--jq",
        metavar="PATH",
        default=os.environ.get("BENCH_JQ"),
        help="a jq besides the one on PATH (default: $BENCH_JQ)",
    )
    parser.add_argument("--dir", metavar="DIR", help="where to make workspaces (default: the temp folder)")
    options = parser.parse_args()
    if options.jq and shutil.which(options.jq) is None:
        parser.error(f"no such program: {options.jq}")
    return options


def main() -> int:
    options = arguments()
    report = Report()
    everybody = contenders(options.jq)
    if not OURS.exists():
        report.failed(f"{OURS.name} is not there: peers only")
    for tool, what in (("jq", "complete_jq.sh"), ("sqlite3", "complete_sqlite.sh")):
        if not any(one.script.name == what for one in everybody):
            report.skipped(what, f"{tool} is not installed")
    report.title(f"Benchmark{' (quick)' if options.quick else ''}")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir) as folder:
        scratch = Path(folder)
        completions = Completions(report, scratch, everybody, options.quick)
        locks = Locks(report, scratch, options.quick)
        recovering = Recovering(report, scratch, options.quick)
        jqs = [one.jq for one in everybody if one.jq]
        reporting = Reporting(report, scratch, options.quick)
        watching = Watching(report, scratch, everybody, options.quick)
        wrapping = Wrapping(report, scratch, jqs, options.quick)
        if options.only in (None, "locks", "transactions"):
            locks.load()
        sections: dict[str, tuple[Callable[[], None], ...]] = {
            "one": (completions.one,),
            "large": (completions.large,),
            "writers": (completions.writers,),
            "claims": (completions.claims,),
            "archive": (completions.archived,),
            "syncs": (completions.syncs,),
            "locks": (locks.uncontended, locks.contended, locks.hand_over),
            "transactions": (locks.transactions,),
            "manager": (recovering.calls,),
            "checkpoints": (recovering.checkpoints,),
            "statistics": (Counting(report, scratch, options.quick).statistics,),
            "try": (wrapping.tries,),
            "tx": (wrapping.transactions,),
            "health": (Checking(report, scratch, options.quick).health,),
            "doctor": (Doctoring(report, scratch, jqs, options.quick).healthy,),
            "cleanup": (Keeping(report, scratch, options.quick).light,),
            "explain": (Explaining(report, scratch, options.quick).long_logs,),
            "top": (watching.line, watching.once),
            "report": (reporting.page, reporting.idle),
            "prime": (Priming(report, scratch, next(one for one in everybody if one.ours), options.quick).prime,),
        }
        for name in SECTIONS:
            for section in sections[name] if options.only in (None, name) else ():
                section()
        report.end()
        print(f"\nStarting and doing nothing: {starting(scratch, everybody, 5 if options.quick else 25)}.")
        print(f"\nMachine: {machine(scratch)}.")
    for failure in report.failures:
        print(f"bench: {failure}", file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: {error}")
