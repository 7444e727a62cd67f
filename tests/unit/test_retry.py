"""When a command is tried again, and how long it waits."""

from __future__ import annotations

from recovery.errors import Busy, DataError, RecoveryError, StorageError, Unconfirmed
from recovery.retry import CAP, next_pause, pause_before


def test_pauses_are_drawn_from_nothing_to_a_bound_that_doubles() -> None:
    for attempt, most in ((2, 2.0), (3, 4.0), (4, 8.0)):
        assert pause_before(attempt, 2.0, lambda: 0.0) == 0
        assert pause_before(attempt, 2.0, lambda: 0.25) == most / 4
        assert pause_before(attempt, 2.0, lambda: 1.0) == most
        assert 0 <= pause_before(attempt, 2.0) <= most


def test_no_pause_is_longer_than_the_cap() -> None:
    assert pause_before(50, 2.0, lambda: 1.0) == CAP
    assert pause_before(10**9, 2.0, lambda: 1.0, cap=5.0) == 5.0


def test_only_errors_that_trying_helps_against_are_tried_again() -> None:
    def pause(error: RecoveryError) -> float | None:
        return next_pause(error, 1, 3, 2.0, deadline=60.0, now=0.0, draw=lambda: 1.0)

    assert [pause(error) for error in (Unconfirmed("?"), StorageError("?"), Busy("?"))] == [2.0, 2.0, 2.0]
    assert pause(DataError("?")) is None


def test_three_tries_in_all_and_never_past_the_deadline() -> None:
    busy = Busy("?")
    assert next_pause(busy, 2, 3, 2.0, 60.0, now=0.0, draw=lambda: 1.0) == 4.0
    assert next_pause(busy, 3, 3, 2.0, 60.0, now=0.0) is None
    assert next_pause(busy, 1, 3, 2.0, 60.0, now=58.5, draw=lambda: 1.0) is None
