"""What is written for people: harmless on a terminal, and complete, or it is said that it isn't."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from recovery import request, say
from recovery.tasks import inbox_note

#: Escape codes, C0, DEL, C1 (a CSI of its own in 8 bits), what turns text about, a line of one's own.
NASTY = "a\x1b[2J\x07\x7f\x9b31mb\u202eevil\u2066\u2028c\rd\ne"


def test_no_control_character_of_somebody_elses_text_reaches_a_terminal() -> None:
    line = say.harmless(NASTY)
    assert line == r"a\x1b[2J\x07\x7f\x9b31mb\u202eevil\u2066\u2028c\rd\ne"
    assert say.harmless(line) == line
    assert say.shown(NASTY, 4) == r"a\x1b[…"


def test_text_in_the_worlds_languages_stays_as_it_is() -> None:
    for text in ("Größe 3\u00a0km", "\u3000日本語", "نمی\u200cرود", "👩\u200d💻 é"):
        assert say.harmless(text) == text


def test_json_for_a_terminal_has_the_same_value_and_no_control_character() -> None:
    text = say.harmless_json(json.dumps({"title": NASTY + "é😀"}, ensure_ascii=False))
    assert json.loads(text) == {"title": NASTY + "é😀"}
    assert text.isprintable()
    assert "é😀" in text


def test_a_brief_is_text_that_somebody_may_cat() -> None:
    entry = {"task_id": "T-1", "title": NASTY, "priority": "LOW", "created_at": "2026-01-01T00:00:00Z"}
    brief = inbox_note("CC", entry)
    assert brief.startswith(r"# T-1: a\x1b[2J\x07\x7f\x9b31mb\u202eevil\u2066 c d e" + "\n")
    assert all(line.isprintable() for line in brief.split("\n"))


@pytest.fixture
def stdout_is() -> Iterator[Callable[[int], None]]:
    """Put a descriptor in the place of stdout; put the old one back."""
    before = os.dup(1)

    def put(fd: int) -> None:
        os.dup2(fd, 1)
        os.close(fd)

    yield put
    os.dup2(before, 1)
    os.close(before)


def _unread_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def test_who_closes_the_pipe_has_read_enough_but_a_change_is_said(
    stdout_is: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    stdout_is(_unread_pipe())
    codes = say.answer("three tasks", 0), say.answer("a damaged outbox", 65)
    quiet = capfd.readouterr().err
    stdout_is(_unread_pipe())
    done = say.answer("completed", 0, "completed CC/T-1")
    assert (codes, quiet, done) == ((0, 65), "", 0)
    assert "Broken pipe" in (said := capfd.readouterr().err)
    assert "what was done is done: completed CC/T-1" in said


def test_an_answer_that_nobody_got_is_no_success(
    stdout_is: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    stdout_is(os.open("/dev/full", os.O_WRONLY))
    assert say.answer("three tasks", 0) == 74
    assert say.answer("a damaged outbox", 65) == 65
    assert say.answer("completed", 0, "completed CC/T-1") == 0
    assert "stdout can't be written: No space left" in capfd.readouterr().err


def test_a_shell_reads_each_word_of_a_command_back_and_a_terminal_gets_no_escape_code() -> None:
    words = [
        "plain",
        "two words",
        "it's",
        "a\x1b[1m\nb",
        "\\x41\x07",
        "ü\u202e",
        "\udc80bytes",
        "$(id)`id`",
        "-x",
        "\x7f'4",
    ]
    line = request.command("/a b\n'c'", *words)
    assert line.isprintable()
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], stdout=subprocess.PIPE, check=True).stdout
    expected = ["recovery", "-C", "/a b\n'c'", *words]
    assert read.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in expected]
