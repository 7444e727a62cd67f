"""Words are read as they are meant or refused; what comes first is done first, and its time is nobody's deadline."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from recovery import say
from recovery.errors import Busy, UsageError
from recovery.flock import Limits
from recovery.helper import VERBS, verb_of
from recovery.request import FirstThis, Request, command, first_things_first, in_place
from support.workspace import SUITE


def test_the_call_is_made_again_with_what_the_work_brought() -> None:
    store: Any = SimpleNamespace(limits=Limits())
    seen = []

    def call(brought: Any) -> str:
        seen.append(brought)
        if brought is None:
            raise FirstThis(lambda given: (given is store, "brought"))
        return "done"

    assert first_things_first(store, call) == "done"
    assert seen == [None, (True, "brought")]


def test_the_deadline_moves_by_the_seconds_that_the_work_took() -> None:
    store: Any = SimpleNamespace(limits=Limits(1.0, 1.0))
    before = store.limits.deadline
    took = []

    def work(_: Any) -> bool:
        began = time.monotonic()
        while time.monotonic() < began + 0.01:
            pass
        took.append(time.monotonic() - began)
        return True

    def call(brought: Any) -> None:
        if not brought:
            raise FirstThis(work)

    first_things_first(store, call)
    assert store.limits.deadline - before >= took[0]


def test_a_command_that_is_told_can_be_pasted_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`recovery` where the PATH has it; else the script of this suite, from here."""
    root = str(tmp_path)
    (tmp_path / "postbox").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"/usr/bin:{SUITE / 'bin'}")
    assert command(root, "reopen", "CC", "T-1") == "recovery reopen CC T-1"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert in_place("recovery sweep", "") == f"{say.quoted(f'{SUITE}/bin/recovery')} sweep"
    assert in_place("df -h /", "-C x") == "df -h /"
    monkeypatch.chdir(SUITE)
    assert command(root, "sweep") == f"./bin/recovery -C {tmp_path} sweep"
    assert in_place(in_place("recovery sweep", "-C x"), "-C x") == "./bin/recovery -C x sweep"


def test_work_that_never_ends_the_matter_is_busy_and_failing_work_is_told() -> None:
    store: Any = SimpleNamespace(limits=Limits())

    def again(_: Any) -> NoReturn:
        raise FirstThis(lambda given: None)

    with pytest.raises(Busy):
        first_things_first(store, again)

    def fails(_: Any) -> NoReturn:
        raise FirstThis(lambda given: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        first_things_first(store, fails)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_no_verb_takes_an_empty_value_for_an_option_that_is_not_given(name: str) -> None:
    """`--anchor "$HEAD"` with nothing in HEAD is no look for an anchor; only a message may be empty."""
    verb = verb_of(name)
    for option, meaning in {"-C": "root=", **verb.options}.items():
        if meaning.endswith("=?"):
            assert Request(name, verb, [option, ""]).options == {meaning[:-2]: ""}
        elif "=" in meaning:
            for words in ([option, ""], [f"{option}="]):
                if option.startswith("--") or len(words) == 2:
                    with pytest.raises(UsageError, match="needs a value"):
                        Request(name, verb, words)
