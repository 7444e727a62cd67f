"""Take the suite's safeties out, one at a time, and see that the test which guards each of them goes red.

    python tests/mutations/run.py [--only NAME]... [--jobs N] [--torture] [-v]

Each mutant (see mutants.py) is put into a copy of the code and of the tests, so nothing here is touched, and its one
named test is run there.  `caught` needs that test to fail by what it checks: a mutant that can't be compiled, imported
or run, and a test that is skipped or can't be collected, are BROKEN and count as failures of this list.  Before that
every named test has to pass on the untouched copy.

With `--torture` each mutant is put before `recovery torture --quick` instead, which has to find a violation (exit 1).

Exit 0: all were caught; 1: one survived or is broken; 2: the list doesn't fit the code; 130: interrupted.
After DeMillo, Lipton and Sayward, "Hints on Test Data Selection" (1978), with the mutants chosen by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mutants import MUTANTS, Mutant

T = TypeVar("T")

SUITE = Path(__file__).resolve().parents[2]
PYTHON = sys.executable

#: What a copy holds: the code, and the tests with what they are configured by.
COPIED = ("bin", "lib", "py", "tests", "pyproject.toml")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info", ".hypothesis", "*_cache")

#: Seconds for one test or one torture; all of them take a small part of it.
PATIENCE = 180.0

#: What shows that a mutant is no program, and that its test has not judged it.
_NO_PROGRAM = re.compile(
    r"\b(SyntaxError|IndentationError|ImportError|ModuleNotFoundError|NameError|UnboundLocalError): "
    r"|this is a bug in Postbox Recovery: |: (syntax error|unbound variable|command not found)"
)


@dataclass(frozen=True)
class Verdict:
    """How a run ended: `green`, `red` (the test judged, and failed) or `broken` (it did not judge), and why."""

    colour: str
    why: str
    seconds: float


class NoFit(Exception):
    """The list and the code don't fit together."""


# --- copies


def copy_suite(folder: Path) -> Path:
    """What is needed to run the tests, as it stands now."""
    for name in COPIED:
        source, target = SUITE / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_NOT_COPIED)
        else:
            shutil.copy2(source, target)
    return folder


def mutated(text: str, mutant: Mutant) -> str:
    """The file's text with the fault in it.

    NoFit unless each place to change stands there exactly once, and the result can be compiled.
    """
    for before, after in mutant.changes:
        count = text.count(before)
        if count != 1:
            raise NoFit(f"{mutant.name}: stands {count} times in {mutant.file}, once is needed: {before.strip()!r:.90}")
        text = text.replace(before, after)
    if mutant.file.endswith(".py"):
        try:
            compile(text, mutant.file, "exec")
        except SyntaxError as error:
            raise NoFit(f"{mutant.name}: can't be compiled: {error}") from None
    elif subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).returncode:
        raise NoFit(f"{mutant.name}: bash can't read {mutant.file}")
    return text


def apply(mutant: Mutant, folder: Path) -> None:
    """Put the fault into a copy; NoFit."""
    path = folder / mutant.file
    path.write_text(mutated(path.read_text(), mutant))


def require_fit(mutants: Iterable[Mutant]) -> None:
    """NoFit, with all that is wrong, before anything is run."""
    wrong: list[str] = []
    names: set[str] = set()
    for mutant in mutants:
        if mutant.name in names:
            wrong.append(f"{mutant.name}: two mutants have this name")
        names.add(mutant.name)
        path = SUITE / mutant.file
        if not path.is_file():
            wrong.append(f"{mutant.name}: there is no {mutant.file}")
            continue
        try:
            mutated(path.read_text(), mutant)
        except NoFit as error:
            wrong.append(str(error))
    if wrong:
        raise NoFit("\n".join(wrong))


# --- running


class Runner:
    """Starts tests, each in a session of its own, and ends all of that session's processes behind it."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._lock = threading.Lock()
        self._count = 0
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def folder(self, name: str) -> Path:
        with self._lock:
            self._count += 1
            return self.scratch / f"{self._count:03}-{name}"

    def run(self, words: Sequence[str], suite: Path, temporary: Path) -> tuple[int, str, float]:
        """Exit code, output and seconds of a command run in a copy; -1 if it didn't end."""
        temporary.mkdir(parents=True, exist_ok=True)
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("RECOVERY_", "ORCHESTRATION_"))
            },
            "PATH": f"{Path(PYTHON).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(suite / "py"),
            "RECOVERY_SUITE_UNDER_TEST": str(suite),
            "TMPDIR": str(temporary),
        }
        began = time.monotonic()
        output = temporary / "output"  # no pipe: a child that is left behind would keep it open
        with self._lock, output.open("w") as file:
            if self._stopped:
                raise CancelledError
            process = subprocess.Popen(
                words,
                cwd=suite,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            end_session(process.pid)
            process.wait()
            with self._lock:
                self._running.discard(process)
        if self._stopped:
            raise CancelledError
        return code, output.read_text(errors="replace"), time.monotonic() - began

    def stop(self) -> None:
        """End everything that was started, and start no more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            end_session(process.pid)


def end_session(leader: int) -> None:
    """SIGKILL for what is left of the session that `leader` began; tests put commands into groups of their own."""
    while True:
        left = [pid for pid in _pids() if _session_of(pid) == leader]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _session_of(pid: int) -> int:
    """The session of a process that is alive, 0 if it isn't (proc(5): state is the 3rd field, session the 6th)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[3])


# --- judging


def judge(runner: Runner, suite: Path, test: str) -> Verdict:
    """Run one named test in a copy."""
    temporary = runner.folder("tmp")
    try:
        if ".bats::" in test:
            return _judge_bats(runner, suite, test, temporary)
        return _judge_pytest(runner, suite, test, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _judge_pytest(runner: Runner, suite: Path, test: str, temporary: Path) -> Verdict:
    report = temporary / "report.xml"
    options = ["-q", "-x", "--tb=short", "-p", "no:cacheprovider", f"--basetemp={temporary / 'base'}"]
    words = [PYTHON, "-m", "pytest", *options, f"--rootdir={suite}", f"--junitxml={report}", test]
    code, out, seconds = runner.run(words, suite, temporary)
    if code not in (0, 1) or not report.exists():
        return Verdict("broken", _ended(code, out), seconds)
    cases = list(xml.parse(report).getroot().iter("testcase"))
    problems = [
        (kind, found) for case in cases for kind in ("failure", "error", "skipped") for found in case.iter(kind)
    ]
    if len(cases) != 1 and not problems:
        return Verdict("broken", f"{len(cases)} tests ran, one was meant", seconds)
    if not problems:
        return Verdict("green", "", seconds)
    kind, found = problems[0]
    text = f"{found.get('message', '')}\n{found.text or ''}"
    if kind != "failure":
        return Verdict("broken", f"{kind}: {_first(text)}", seconds)
    return _red(text, _first(text), seconds)


def _judge_bats(runner: Runner, suite: Path, test: str, temporary: Path) -> Verdict:
    file, _, name = test.partition("::")
    pattern = "^" + re.sub(r"([][\\.*^$+?(){}|])", r"\\\1", name) + "$"
    code, out, seconds = runner.run(["bats", "--tap", "--filter", pattern, file], suite, temporary)
    lines = out.splitlines()
    ran = [line for line in lines if re.match(r"(not )?ok \d", line)]
    if code not in (0, 1) or len(ran) != 1:
        return Verdict("broken", _ended(code, out) if code else f"{len(ran)} tests ran, one was meant", seconds)
    if " # skip" in ran[0]:
        return Verdict("broken", f"skipped: {ran[0]}", seconds)
    if ran[0].startswith("ok "):
        return Verdict("green", "", seconds)
    told = [line.lstrip("# ") for line in lines if line.startswith("#")]
    return _red(out, next((line for line in told if not line.startswith("(")), ran[0]), seconds)


def _red(text: str, why: str, seconds: float) -> Verdict:
    """A failed test, unless it failed because there was no program to judge."""
    broken = _NO_PROGRAM.search(text)
    if broken:
        line = text[text.rfind("\n", 0, broken.start()) + 1 :].partition("\n")[0]
        return Verdict("broken", f"the mutant doesn't run: {line.strip()}", seconds)
    return Verdict("red", why, seconds)


def _ended(code: int, out: str) -> str:
    how = f"no end after {PATIENCE:g} s" if code == -1 else f"ended with {code}"
    return f"{how}: {' | '.join(out.strip().splitlines()[-3:])}"


def _first(text: str) -> str:
    return text.strip().partition("\n")[0]


def torture(runner: Runner, suite: Path) -> Verdict:
    """Put a copy before `recovery torture --quick`: exit 1 says that it found a violation."""
    temporary = runner.folder("torture")
    try:
        words = ["env", f"RECOVERY_PYTHON={PYTHON}", str(suite / "bin/recovery"), "torture", "--quick", "--dir"]
        code, out, seconds = runner.run([*words, str(temporary)], suite, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    lines = out.strip().splitlines()
    if code == 0:
        return Verdict("green", "", seconds)
    if code != 1:
        return Verdict("broken", _ended(code, out), seconds)
    violations = [line.strip() for line in lines if re.search("violat", line, re.IGNORECASE)]
    return _red(out, (violations or lines or ["it says nothing"])[0], seconds)


# --- the table


class Table:
    """One line a mutant, as it is judged, and how many of each."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.counts = {"caught": 0, "SURVIVED": 0, "BROKEN": 0, "unseen": 0}
        self._lock = threading.Lock()

    def add(self, word: str, mutant: Mutant, by: str, verdict: Verdict | None) -> None:
        took = f" ({verdict.seconds:.1f} s)" if verdict is not None else ""
        lines = [f"{word:8}  {mutant.name}  {'by' if word == 'caught' else 'under'} {by}{took}"]
        why = verdict.why if verdict is not None else mutant.torture
        if word != "caught" or self.verbose:
            lines += [f"          {mutant.what}"]
            lines += [f"          {why[:400]}"] if why else []
        with self._lock:
            self.counts[word] += 1
            print("\n".join(lines), flush=True)

    def total(self, seconds: float) -> str:
        counts = dict(self.counts)
        unseen = counts.pop("unseen")
        rest = f", {unseen} that a torture can't see" if unseen else ""
        return ", ".join(f"{count} {word}" for word, count in counts.items()) + f"{rest}; {seconds:.0f} s"

    def is_clean(self) -> bool:
        return self.counts["caught"] > 0 and not self.counts["SURVIVED"] and not self.counts["BROKEN"]


_WORDS = {"red": "caught", "green": "SURVIVED", "broken": "BROKEN"}


def try_mutant(runner: Runner, base: Path, mutant: Mutant, table: Table, by_torture: bool) -> None:
    """Copy, break, run, say."""
    if by_torture and mutant.torture:
        table.add("unseen", mutant, "torture", None)
        return
    suite = runner.folder(mutant.name)
    try:
        shutil.copytree(base, suite, symlinks=True)
        try:
            apply(mutant, suite)
        except NoFit as error:
            verdict = Verdict("broken", str(error), 0.0)
        else:
            verdict = torture(runner, suite) if by_torture else judge(runner, suite, mutant.test)
    finally:
        shutil.rmtree(suite, ignore_errors=True)
    table.add(_WORDS[verdict.colour], mutant, "torture" if by_torture else mutant.test, verdict)


def require_green(runner: Runner, base: Path, mutants: Sequence[Mutant], jobs: int, by_torture: bool) -> list[str]:
    """Run what is going to judge on the untouched copy; what isn't green, in words."""
    problems: list[str] = []

    def look(test: str) -> None:
        verdict = torture(runner, base) if by_torture else judge(runner, base, test)
        if verdict.colour != "green":
            problems.append(f"{verdict.colour.upper()} without any mutant: {test}\n          {verdict.why}")

    tests = ["torture"] if by_torture else sorted({mutant.test for mutant in mutants})
    each(runner, jobs, look, tests)
    if not problems:
        print(f"{len(tests)} tests are green on the untouched code", flush=True)
    return problems


def each(runner: Runner, jobs: int, work: Callable[[T], None], items: Sequence[T]) -> None:
    """`work` on every item, `jobs` at a time; the first exception, Ctrl-C among them, ends the rest."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()  # or the pool's own end would wait for what is running
            raise


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant (may be given again)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="so many at a time")
    parser.add_argument("--torture", action="store_true", help="judge by `recovery torture --quick`, not by the tests")
    parser.add_argument("--list", action="store_true", help="print the mutants and end")
    parser.add_argument("-v", "--verbose", action="store_true", help="how each was caught, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    chosen = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    unknown = set(options.only or ()) - {mutant.name for mutant in chosen}
    if unknown or options.jobs < 1:
        print(
            f"no mutant is called {', '.join(sorted(unknown))}" if unknown else "--jobs is at least 1", file=sys.stderr
        )
        return 2
    if options.list:
        print("\n".join(f"{mutant.name}: {mutant.what}" for mutant in chosen))
        return 0
    try:
        require_fit(chosen)
    except NoFit as error:
        print(error, file=sys.stderr)
        return 2
    began = time.monotonic()
    table = Table(options.verbose)
    with tempfile.TemporaryDirectory(prefix="postbox-mutants-", ignore_cleanup_errors=True) as scratch:
        runner = Runner(Path(scratch))
        try:
            base = copy_suite(runner.folder("base"))
            problems = require_green(runner, base, chosen, options.jobs, options.torture)
            if problems:
                print("\n".join(problems))
                return 1
            each(runner, options.jobs, lambda one: try_mutant(runner, base, one, table, options.torture), chosen)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        finally:
            runner.stop()
    print(table.total(time.monotonic() - began))
    return 0 if table.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
