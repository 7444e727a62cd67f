"""Make the N-th system call of a command fail: real ones of the helper with strace(1), or those of `os` in a child.

Only the helper is traced or limited: RECOVERY_PYTHON names a wrapper that starts strace and the interpreter under it,
so that the N-th call means the same call in every run.  Wrapper and logs stand beside the workspace and are gone when
the functions here return, the wrapper of `inject` apart (`injected` removes it).
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recovery.torture.scratch import PYTHON, Command, Forked, Workspace, demand, require_success

#: The calls that change something, or on whose answer a change hangs.
CALLS = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "renameat", "unlinkat", "mkdirat", "flock", "fchmod",
    "read", "pread64",
)  # fmt: skip
#: … of which an unhurt start of the interpreter makes hundreds; those that are not about the workspace don't count.
_READING = ("openat", "read", "pread64")


@functools.cache
def why_not() -> str:
    """Why strace can't be used here, and what would change that; "" if it can."""
    if not shutil.which("strace"):
        return "strace is not installed (Debian, Ubuntu: apt install strace; Fedora: dnf install strace)"
    trial = ["strace", "-qq", "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=1", "true"]
    done = subprocess.run(trial, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit {done.returncode}"
        return (
            f"strace can't trace here: {said} (strace 4.15 or newer is needed; in a container, start it with"
            " --cap-add=SYS_PTRACE; else look at /proc/sys/kernel/yama/ptrace_scope)"
        )
    return ""


@dataclass(frozen=True)
class Call:
    """The N-th call of one name in the helper, as an unhurt run met it."""

    name: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.name} {self.number} {self.text[:100]}"


def calls(space: Workspace, command: Command) -> list[Call]:
    """Run a command unhurt; its calls that have to do with the workspace, each with its number."""
    seen: dict[str, int] = {}
    found = []
    for line in _traced(space, command, CALLS):
        met = re.match(r"(\w+)\((.*)", line)
        if not met:
            continue
        name, text = met.groups()
        seen[name] = seen.get(name, 0) + 1
        aimed = re.sub(r'^AT_FDCWD<[^>]*>, (?="/)', "", text)  # a full name leaves where we stand aside
        ours = str(space.root) in aimed or name not in _READING
        if ours and not text.startswith(("/dev/null", "2<")):
            found.append(Call(name, seen[name], text))
    return found


def order(space: Workspace, command: Command) -> list[tuple[str, str]]:
    """Run a command unhurt; its syncs, renames and journal writes in their order, as (call, path below the root)."""
    found = []
    for line in _traced(space, command, ("fsync", "fdatasync", "renameat", "pwrite64", "write", "mkdirat")):
        met = re.match(r"(\w+)\(\d+<([^>]*)>(.*)", line)
        if not met or not met[2].startswith(str(space.root)):
            continue
        path = met[2][len(str(space.root)) :].lstrip("/")
        if met[1] == "renameat":
            target = re.search(r'>, "([^"]+)"\) = 0', met[3])
            demand(target, line)
            path += "/" + target[1] if target else ""
        elif met[1] == "pwrite64":
            path += "@" + met[3].rpartition(") =")[0].rpartition(", ")[2]
        found.append((met[1], path))
    return found


def inject(space: Workspace, call: Call, what: str, forever: bool = False) -> dict[str, str]:
    """The environment in which this call goes wrong: `what` is `error=EIO` or `signal=SIGKILL`."""
    when = f"{call.number}+" if forever else str(call.number)
    options = ["-o", os.devnull, "-e", f"trace={call.name}", "-e", f"inject={call.name}:{what}:when={when}"]
    return {"RECOVERY_PYTHON": _wrap(space, ["strace", "-qq", *options])}


@contextmanager
def injected(space: Workspace, call: Call, what: str, forever: bool = False) -> Iterator[dict[str, str]]:
    """As `inject`, for as long as the block lasts."""
    try:
        yield inject(space, call, what, forever)
    finally:
        _wrapper(space).unlink(missing_ok=True)


@contextmanager
def limited(space: Workspace, size: int) -> Iterator[dict[str, str]]:
    """The environment in which the helper can write no file longer than `size` bytes."""
    try:
        yield {"RECOVERY_PYTHON": _wrap(space, ["prlimit", f"--fsize={size}"])}
    finally:
        _wrapper(space).unlink(missing_ok=True)


def _wrapper(space: Workspace) -> Path:
    return space.root.with_name(space.root.name + ".python")


def _wrap(space: Workspace, before: list[str]) -> str:
    """The interpreter behind these words.  -B: a cache of bytecode that is cut short would outlive the trial."""
    path = _wrapper(space)
    path.write_text(f'#!/bin/sh\nexec {shlex.join([*before, PYTHON, "-B"])} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def _traced(space: Workspace, command: Command, names: tuple[str, ...]) -> list[str]:
    """Run a command unhurt under strace; the lines about these calls, with the paths of descriptors (-y)."""
    log = space.root.with_name(space.root.name + ".calls")
    python = _wrap(space, ["strace", "-qq", "-y", "-o", str(log), "-e", "trace=" + ",".join(names)])
    try:
        done = space.run(command, RECOVERY_PYTHON=python)
        demand(done.code == 0, f"{command} under strace: {done}")
        return log.read_text(encoding="utf-8", errors="replace").splitlines()
    finally:
        _wrapper(space).unlink(missing_ok=True)
        log.unlink(missing_ok=True)


# --- the calls of `os`, in a forked child

#: Those by which files are changed and looked at.
_OS = (
    "open", "read", "pread", "write", "pwrite", "ftruncate", "posix_fallocate", "fsync", "fdatasync", "rename",
    "link", "unlink", "mkdir", "rmdir", "listdir", "stat", "fchmod", "copy_file_range",
)  # fmt: skip


def break_call(name: str, number: int, error: str, forever: bool = False) -> None:
    """In this process the N-th call of `os.NAME` from now on fails, and with `forever` all that come after it."""
    real, count, code = getattr(os, name), 0, getattr(errno, error)

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == number or (forever and count > number):
            raise OSError(code, os.strerror(code) + f" ({name} {number})")
        return real(*args, **kwargs)

    setattr(os, name, call)


def count_calls(space: Workspace, command: Command) -> dict[str, int]:
    """Run a command unhurt in a forked child; how often it called which function of `os`."""
    out = os.memfd_create("calls")
    write = os.write

    def work() -> None:
        for name in _OS:
            _tell_calls(name, lambda name: write(out, name.encode() + b"\n"))
        space.become(command)

    try:
        require_success(Forked(work, " ".join(command)).finish(), command)
        return dict(Counter(os.pread(out, os.fstat(out).st_size, 0).decode().split()))
    finally:
        os.close(out)


def _tell_calls(name: str, tell: Callable[[str], object]) -> None:
    real = getattr(os, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        tell(name)
        return real(*args, **kwargs)

    setattr(os, name, call)
