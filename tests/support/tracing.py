"""Make real system calls of the helper fail, or kill it at one, with strace(1).

Only the helper is traced: RECOVERY_PYTHON names a wrapper that starts strace and the interpreter under it, so that
the N-th call means the same call in every run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.workspace import PYTHON, Workspace

#: The calls that change something, or on whose answer a change hangs.
CALLS = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "renameat", "unlinkat", "mkdirat", "flock", "fchmod",
    "read", "pread64",
)  # fmt: skip


def require_strace() -> None:
    """Skip, loudly, where strace can't be used; in CI that is a failure."""
    why = ""
    if not shutil.which("strace"):
        why = "strace is not installed"
    else:
        trial = ["strace", "-qq", "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=1", "true"]
        done = subprocess.run(trial, capture_output=True, text=True)
        if done.returncode:
            why = f"strace can't trace here: {done.stderr.strip()}"
    if why and os.environ.get("CI") == "true":
        pytest.fail(f"{why}: in CI the system call faults must run")
    if why:
        pytest.skip(f"SYSTEM CALL FAULTS NOT TESTED: {why}")


@dataclass(frozen=True)
class Call:
    """The N-th call of one name in the helper, as an unhurt run met it."""

    name: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.name} {self.number} {self.text[:100]}"


def _wrapper(space: Workspace, options: list[str]) -> str:
    path = space.root.with_name(space.root.name + ".strace")
    words = " ".join(f"'{word}'" for word in ["strace", "-qq", *options, PYTHON])
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    path.chmod(0o755)
    return str(path)


def calls(space: Workspace, command: tuple[str, ...]) -> list[Call]:
    """Run a command unhurt; its calls that have to do with the workspace, each with its number."""
    log = space.root.with_name(space.root.name + ".calls")
    python = _wrapper(space, ["-y", "-o", str(log), "-e", "trace=" + ",".join(CALLS)])
    done = space.run(command, RECOVERY_PYTHON=python)
    assert done.code == 0, f"{command} under strace: {done}"
    seen: dict[str, int] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        met = re.match(r"(\w+)\((.*)", line)
        if not met:
            continue
        name, text = met.groups()
        seen[name] = seen.get(name, 0) + 1
        ours = str(space.root) in text or name not in ("openat", "read", "pread64")
        if ours and not text.startswith(("/dev/null", "2<")):
            found.append(Call(name, seen[name], text))
    Path(log).unlink()
    return found


def order(space: Workspace, command: tuple[str, ...]) -> list[tuple[str, str]]:
    """Run a command unhurt; its syncs, renames and journal writes in their order, as (call, path below the root)."""
    log = space.root.with_name(space.root.name + ".order")
    python = _wrapper(space, ["-y", "-o", str(log), "-e", "trace=fsync,fdatasync,renameat,pwrite64,write,mkdirat"])
    done = space.run(command, RECOVERY_PYTHON=python)
    assert done.code == 0, f"{command} under strace: {done}"
    found = []
    for line in log.read_text(errors="replace").splitlines():
        met = re.match(r"(\w+)\(\d+<([^>]*)>(.*)", line)
        if not met or not met[2].startswith(str(space.root)):
            continue
        path = met[2][len(str(space.root)) :].lstrip("/")
        if met[1] == "renameat":
            target = re.search(r'>, "([^"]+)"\) = 0', met[3])
            assert target, line
            path += "/" + target[1]
        elif met[1] == "pwrite64":
            path += "@" + met[3].rpartition(") =")[0].rpartition(", ")[2]
        found.append((met[1], path))
    log.unlink()
    return found


def inject(space: Workspace, call: Call, what: str, forever: bool = False) -> dict[str, str]:
    """The environment in which this call goes wrong: `what` is `error=EIO` or `signal=SIGKILL`."""
    when = f"{call.number}+" if forever else str(call.number)
    options = ["-o", os.devnull, "-e", f"trace={call.name}", "-e", f"inject={call.name}:{what}:when={when}"]
    return {"RECOVERY_PYTHON": _wrapper(space, options)}
