"""Start whole processes and say how long they took, how much they held, how often they synced."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SYNC_CALLS = ("fsync", "fdatasync", "sync", "syncfs", "msync", "sync_file_range")

_SAID_AT_MOST = 500

# Small on purpose: what a child holds before exec counts towards its peak.
_PEAK = """
import os, resource, sys
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


class CommandFailed(Exception):
    """A measured command did not exit 0; the text says which and what it printed."""


def run(argv: list[str], env: Mapping[str, str], errors: Path) -> float:
    """Milliseconds from starting `argv` to its end; stdout is discarded, stderr goes to `errors`."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(errors), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    started = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - started) * 1000
    code = os.waitstatus_to_exitcode(status)
    if code:
        said = errors.read_text(errors="replace").strip()[-_SAID_AT_MOST:]
        raise CommandFailed(f"{' '.join(argv[-3:-1])} exited {code}: {said}")
    return took


def interleaved(
    contenders: Mapping[str, list[str]],
    env: Mapping[str, str],
    rounds: int,
    errors: Path,
    failed: Callable[[str], object],
    prepare: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of each contender, one after the other in each round; the first round warms up and does not count.

    `prepare` is called before each round, `failed` with what went wrong.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        prepare()
        for name, argv in contenders.items():
            try:
                took = run(argv, env, errors)
            except CommandFailed as error:
                failed(f"{name}: {error}")
                continue
            times[name] += [took] if number else []
    return times


def peak_bytes(argv: list[str], env: Mapping[str, str], errors: Path) -> int:
    """The largest resident set of any single process among `argv` and what it started."""
    # -I -S: the wrapper's own size is the floor of what can be measured.
    run([sys.executable, "-I", "-S", "-c", _PEAK, *argv], env, errors)
    return int(errors.read_text().split()[-1]) * 1024


def can_trace() -> bool:
    """Whether strace is there and allowed to trace."""
    try:
        command = ["strace", "-qq", "-o", os.devnull, "true"]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


def sync_calls(argv: list[str], env: Mapping[str, str], errors: Path, log: Path) -> int:
    """How many calls that wait for the disk `argv` and its children make."""
    # "?" lets strace start where a call does not exist.
    wanted = ",".join("?" + name for name in SYNC_CALLS)
    strace = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={wanted}"]
    run([*strace, *argv], env, errors)
    # A call that was interrupted shows up again as "<... resumed>", without "(".
    return len(re.findall(rf"\b(?:{'|'.join(SYNC_CALLS)})\(", log.read_text()))


def floor(argv: list[str], errors: Path, rounds: int) -> float:
    """Median milliseconds of a command that does nothing: the price of starting it."""
    return statistics.median(run(argv, os.environ, errors) for _ in range(rounds))
