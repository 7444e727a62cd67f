"""At most once: an idempotency key's effect is there once, whatever dies, and its result is repeated."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from recovery import once
from recovery.errors import DataError, LockTimeout
from recovery.once import Call, OutcomeUnknown, ResultLost
from recovery.session import Session
from support import programs
from support.workspace import Workspace


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path / "ws")


@pytest.fixture
def session(space: Workspace) -> Session:
    return Session(space.root, lock_timeout=0.05)


def use(session: Session, key: str, effect: list[Any], result: Any = "receipt", **more: Any) -> Any:
    """What a run does with a key."""
    call = Call(session, key, "T-1")
    try:
        if not call.begin(**more):
            return call.result
        call.start()
        effect.append(key)
        call.done(result)
        return result
    finally:
        call.release()


def test_a_repeat_gets_the_result_and_no_second_effect(session: Session) -> None:
    effect: list[Any] = []
    assert use(session, "pay/42 für A", effect, {"id": 7}) == {"id": 7}
    assert use(session, "pay/42 für A", effect) == {"id": 7}
    assert len(effect) == 1
    assert use(session, "pay/43", effect) == "receipt"
    assert len(effect) == 2


def test_a_call_that_raised_may_be_made_again(session: Session) -> None:
    call = Call(session, "k", "T-1")
    assert call.begin()
    call.start()
    call.failed()
    call.release()
    assert use(session, "k", []) == "receipt"


def test_while_a_live_owner_calls_nobody_else_does(session: Session) -> None:
    first = Call(session, "k", "T-1")
    assert first.begin()
    first.start()
    errors: list[BaseException] = []

    def other() -> None:
        try:
            Call(session, "k", "T-1").begin()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert isinstance(errors[0], LockTimeout)
    first.done(1)
    first.release()
    assert use(session, "k", []) == 1


DIE = """
from recovery import once
from recovery.session import Session
call = once.Call(Session(os.getcwd()), "k", "T-1")
if call.begin():
    call.start()
    with open("effect", "a") as effect:
        effect.write("x")
    steps.at("effect")
    call.done("receipt")
    print("done", flush=True)
call.release()
"""


def test_killed_at_any_step_the_effect_is_there_at_most_once(tmp_path: Path) -> None:
    """After a kill the key is new, done, or unknown; and unknown is never guessed about."""
    empty = Workspace.make(tmp_path / "ws")
    seen = set()
    for number, step in enumerate(programs.steps_of(empty.copy(tmp_path / "listing").root, DIE)):
        space = empty.copy(tmp_path / f"run-{number}")
        done = programs.run(space.root, DIE, fault=f"{step}=kill")
        assert programs.killed(done), (step, done)
        happened = (space.root / "effect").exists()
        effect: list[Any] = ["first"] if happened else []
        try:
            use(Session(space.root), "k", effect)
            seen.add("settled")
        except OutcomeUnknown:
            seen.add("unknown")
            used = use(Session(space.root), "k", effect, verify=lambda happened=happened: happened and "found")
            assert used == ("found" if happened else "receipt"), step
        assert len(effect) == 1, step
        assert use(Session(space.root), "k", effect) is not None
        assert len(effect) == 1, step
        assert programs.strays(space.root) == [], step
        space.remove()
    assert seen == {"settled", "unknown"}


def die_in_the_call(space: Workspace) -> None:
    assert programs.killed(programs.run(space.root, DIE, fault="effect=kill"))


@pytest.mark.parametrize(("answer", "result", "calls"), [(False, "receipt", 1), (None, "receipt", 1), (True, None, 0)])
def test_verify_decides_about_a_dead_owners_key(
    space: Workspace, session: Session, answer: Any, result: Any, calls: int
) -> None:
    die_in_the_call(space)
    effect: list[Any] = []
    assert use(session, "k", effect, verify=lambda: answer) == result
    assert len(effect) == calls
    assert use(session, "k", effect) == result  # and that is settled now
    assert len(effect) == calls


def test_a_verify_that_raises_settles_nothing(space: Workspace, session: Session) -> None:
    die_in_the_call(space)

    def verify() -> bool:
        raise ConnectionError("no bank")

    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="no bank"):
            use(session, "k", [], verify=verify)


@pytest.mark.parametrize(("done", "calls"), [(True, 0), (False, 1)])
def test_a_person_settles_an_unknown_key(space: Workspace, session: Session, done: bool, calls: int) -> None:
    die_in_the_call(space)
    with session.store() as store:
        assert once.settle(store, session, "k", done)
        assert not once.settle(store, session, "k", done)
        assert not once.settle(store, session, "never used", done)
    effect: list[Any] = []
    use(session, "k", effect)
    assert len(effect) == calls


def test_a_result_that_json_cannot_hold_is_said_and_never_earned_twice(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    effect: list[Any] = []
    result = object()
    assert use(session, "k", effect, result) is result
    assert "result is a object" in caplog.text
    with pytest.raises(ResultLost, match="not done again"):
        use(session, "k", effect)
    assert len(effect) == 1


def test_a_damaged_record_is_refused_and_not_guessed_about(space: Workspace, session: Session) -> None:
    effect: list[Any] = []
    use(session, "k", effect)
    for text in ("", "{", '{"format": 9, "state": "done"}', '{"format": 1, "state": "done", "key": "other"}'):
        space.path(once.file_of("k")).write_text(text)
        with pytest.raises(DataError):
            use(session, "k", effect)
    assert len(effect) == 1


def test_cleanup_removes_what_is_settled_and_old(space: Workspace, session: Session) -> None:
    use(session, "old", [])
    use(session, "new", [])
    die_in_the_call(space)  # "k", whose outcome nobody knows
    for key in ("old", "k"):
        path = space.path(once.file_of(key))
        path.write_text(path.read_text().replace("2026-", "2020-").replace("2027-", "2020-"))
    with session.store() as store:
        assert once.cleanup(store) == [once.file_of("old")]
    with pytest.raises(OutcomeUnknown):
        use(session, "k", [])
