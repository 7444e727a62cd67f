"""What `--until-reset` understands: the time that a command's output names."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from recovery.reset_times import FURTHEST, moment_of, reset_in

#: A Wednesday, 12:00:30 UTC.
NOW = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC).timestamp()


def at(*words: int, zone: str = "UTC") -> float:
    return datetime(*words, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-25T15:30:00Z", at(2026, 11, 25, 15, 30)),
        ("2026-11-25 15:30", at(2026, 11, 25, 15, 30)),
        ("2026-11-25T15:30:00.123+02:00", at(2026, 11, 25, 13, 30)),
        ("reset=1795700000;", 1795700000.0),
        ("1795700000123", 1795700000.0),
        ("3pm", at(2026, 11, 25, 15)),
        ("resets 3:15 p.m.", at(2026, 11, 25, 15, 15)),
        ("11am", at(2026, 11, 26, 11)),
        ("12am", at(2026, 11, 26)),
        ("12pm", at(2026, 11, 26, 12)),  # noon was half a minute ago
        ("12:01", at(2026, 11, 25, 12, 1)),
        ("09:00", at(2026, 11, 26, 9)),
        ("3pm (Europe/Berlin)", at(2026, 11, 25, 15, zone="Europe/Berlin")),
        ("1pm (America/Los_Angeles)", at(2026, 11, 25, 13, zone="America/Los_Angeles")),
        ("in 90 seconds", NOW + 90),
        ("1h 30m", NOW + 5400),
        ("2 minutes and 5.5 seconds", NOW + 125.5),
        ("1500ms", NOW + 1.5),
        ("3 days", NOW + 3 * 86400),
        ("60", NOW + 60),
        ("retry-after: 7.5", NOW + 7.5),
    ],
)
def test_a_time_is_read_as_people_mean_it(text: str, moment: float) -> None:
    assert moment_of(text, NOW, UTC) == pytest.approx(moment, rel=0, abs=0.01)


@pytest.mark.parametrize(
    "text", ["", "soon", "2020-01-01T00:00:00Z", "13pm", "25:00", "2026-13-45T00:00", "0", "400 days"]
)
def test_what_names_no_time_ahead_within_a_year_is_none(text: str) -> None:
    assert moment_of(text, NOW, UTC) is None


def test_a_time_of_day_without_a_zone_is_this_machines() -> None:
    assert moment_of("3pm", NOW, ZoneInfo("Asia/Tokyo")) == at(2026, 11, 26, 15, zone="Asia/Tokyo")


def test_the_last_match_counts_and_of_it_the_first_group() -> None:
    output = "resets in 5 seconds\nresets in 10 seconds (1)\n"
    assert reset_in(output, re.compile(r"resets in (.*?) \("), NOW) == NOW + 10
    assert reset_in(output, re.compile(r"in \d+ seconds"), NOW) == NOW + 10
    assert reset_in(output, re.compile("never"), NOW) is None


def test_nothing_lies_further_than_a_year_ahead() -> None:
    assert moment_of(str(int(FURTHEST)), NOW) == NOW + FURTHEST
    assert moment_of(str(int(FURTHEST) + 1), NOW) is None
