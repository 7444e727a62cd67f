"""What holds for all tests, the fixtures of the crash tests, and the workspace that most others work in."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from recovery.session import Session
from recovery.store import FileStore
from support.promise import Bench, Failures, Scenario
from support.workspace import SUITE, Workspace

# A shell starts its background jobs deaf to these, and so does nohup; what is tested here would inherit that.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


# Commands that are told to people are `recovery …` where the PATH has that, as an installed suite's is.
os.environ["PATH"] = f"{SUITE / 'bin'}:{os.environ['PATH']}"


@pytest.fixture
def failures() -> Failures:
    """Collects what fails at each point; the test fails at its end if anything did."""
    return Failures()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that collected failures fails, and not its teardown."""
    result = yield
    found = pyfuncitem.funcargs.get("failures")
    if isinstance(found, Failures):
        found.report()
    return result


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[[Scenario], Bench]]:
    """Workspaces of a scenario in a scratch folder that is removed behind the test."""
    yield lambda scenario: Bench(tmp_path, scenario)
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """A workspace of two agents; a test that needs another has its own."""
    return Workspace.make(tmp_path / "ws")


@pytest.fixture
def store(space: Workspace) -> Iterator[FileStore]:
    with Session(space.root).store() as opened:
        yield opened
