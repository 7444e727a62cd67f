"""Alerts: a rule that becomes true is told once, and once that it is over, whoever dies in between."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recovery import alert_rules, alerts, layout
from recovery.health_checks import MEASURES
from support.looking import Space
from support.workspace import SUITE

RULE = "parked >= 1"


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(tmp_path / "a work space")


class Told:
    """A notifier's command, and what it was told: a file of lines."""

    def __init__(self, space: Space, tmp_path: Path) -> None:
        self.space, self.path = space, tmp_path / "told"
        command = tmp_path / "tell"
        command.write_text(f"#!/bin/sh\ncat >>'{self.path}'\n[ ! -e '{tmp_path}/deaf' ]\n")
        command.chmod(0o755)
        self.environ = {"RECOVERY_NOTIFY_CMD": str(command)}
        self.now = time.time()

    def look(self, *words: str, **environ: str) -> dict[str, Any]:
        """One look, ten minutes after the one before; what is said of the rules."""
        self.now += 600
        environ = environ or self.environ
        found = self.space.look("conflicts", "alerts", "--alert", *words, clock=lambda: self.now, **environ)
        return dict(found.data["checks"]["alerts"])

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    @property
    def states(self) -> list[str]:
        return [one["details"]["state"] for one in self.events]

    def process(self, fault: str = "") -> int:
        """One look, as a whole process."""
        asked = [str(SUITE / "bin/health_check.sh"), "-C", str(self.space.root), "--alert", "conflicts", "alerts"]
        environ = {**self.space.environ, **self.environ, "PATH": os.environ["PATH"], "RECOVERY_PYTHON": sys.executable}
        if fault:
            environ["RECOVERY_FAULT"] = fault
        return subprocess.run(asked, env=environ, capture_output=True, check=False).returncode


@pytest.fixture
def told(space: Space, tmp_path: Path) -> Told:
    space.write(layout.ALERT_RULES, f"# mine\n{RULE} : a person has to look\n")
    return Told(space, tmp_path)


def park(space: Space) -> Path:
    return space.write("data/conflicts/x.parked.json", {})


def test_all_who_hang_together_are_ended_within_the_time_limit(told: Told, space: Space, tmp_path: Path) -> None:
    """Of -t, or RECOVERY_DEADLINE; each notifier alone might have taken ten seconds.  No time is told as negative."""
    park(space)
    space.write(layout.ALERT_RULES, "".join(f"parked >= 0.{n}\n" for n in range(1, 6)))
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 60\n")
    slow.chmod(0o755)
    began = time.monotonic()
    found = told.look("-t", "1", RECOVERY_NOTIFY_CMD=str(slow))
    assert time.monotonic() - began < 5
    assert found["level"] == "WARNING"
    assert "not asked, for all the time for telling people was used up" in found["text"]
    assert not re.search(r"for the -|for the 0", found["text"])


def test_a_rule_whose_number_nobody_looked_at_is_not_ok(told: Told, space: Space) -> None:
    space.write(layout.ALERT_RULES, "stale_locks > 0\nparked > 0\n")
    found = told.look()
    assert found["level"] == "UNKNOWN"
    assert "not looked at: what is asked for by stale_locks > 0" in found["text"]
    assert told.look("locks")["level"] == "OK"


# --- what a rule is


@pytest.mark.parametrize(
    ("line", "key", "values", "holds"),
    [
        ("success_rate < 0.95 for 20 incidents", "", {"success_rate": 0.9, "incidents": 20}, True),
        ("success_rate < 0.95 for 20 incidents", "", {"success_rate": 0.9, "incidents": 19}, None),
        ("success_rate<9% for 2 incidents", "success_rate < 9% for 2 incidents",
         {"success_rate": 0, "incidents": 2}, True),
        ("success_rate < 0.95", "", {"success_rate": 0.9, "incidents": 19}, None),
        ("success_rate < 0.95", "", {"success_rate": 0.95, "incidents": 19}, False),
        ("success_rate < 0.95", "", {"incidents": 0}, False),
        ("success_rate < 0.95", "", {}, None),
        ("open_escalations > 0 : a # and more", "open_escalations > 0", {"escalations": 1}, True),
        ("  damaged  !=  0   # mine", "damaged != 0", {"damaged": 0}, False),
        ("pending_age > 2d for 1h", "", {"pending_age": 2 * 86400}, False),
        ("oldest_pending_task_seconds >= 2d", "", {"pending_age": 2 * 86400}, True),
        ("log_bytes > 64M", "", {"log_size": (64 << 20) + 1}, True),
        ("used >= 80%", "", {"used": 80}, True),
        ("budget_used_ratio >= 80%", "", {"used": 79.9}, False),
        ("budget_used_ratio == 0.8", "", {"used": 80}, True),
        ("stale_locks <= 3\r", "stale_locks <= 3", {"stale_locks": 4}, False),
    ],
)  # fmt: skip
def test_a_rule_is_read_as_it_is_written(line: str, key: str, values: dict[str, float], holds: bool | None) -> None:
    rules, bad = alert_rules.parse(f"\n# comment\n{line}\n")
    assert bad == []
    assert rules[0].key == (key or line)
    assert rules[0].judge(values)[0] is holds


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("nonsense > 3", 1, "no number 'nonsense'"),
        ("  stale_lock > 3", 3, "maybe stale_locks"),
        ("alerts > 0", 1, "no number"),
        ("damaged", 8, "one of <"),
        ("damaged is 3", 9, "one of < <= > >= == != belongs here, not 'is'"),
        ("damaged =< 3", 9, "not '=<'"),
        ("damaged > ", 10, "a number belongs here"),
        ("damaged > -1", 11, "a number belongs here"),
        ("damaged > 10%", 11, "a number belongs here"),
        ("pending_age > 2 parsecs", 17, "`for N incidents`, `for TIME` or `: words`"),
        ("pending_age > 2p", 15, "a time like 90 or 10m"),
        ("log_size > 3x", 12, "a size like 64M"),
        ("success_rate < 0.95 for", 24, "belongs behind `for`"),
        ("success_rate < 0.95 for few incidents", 25, "belongs behind `for`"),
        ("success_rate < 0.95 for 0 incidents", 25, "belongs behind `for`"),
        ("damaged > 0 for 20 incidents", 20, "only numbers of incidents"),
        ("damaged > 0 for 10m now", 21, "not 'now'"),
        ("damaged > 0 :  ", 13, "behind the colon"),
        ("damaged > 0\x00", 11, "a number belongs here"),
        ("\ufeffdamaged > 0", 1, "no number"),
        ("d" * 2000, 1001, "at most 1000"),
    ],
)
def test_what_is_no_rule_is_named_with_line_and_column_and_spoils_no_other(line: str, column: int, words: str) -> None:
    rules, bad = alert_rules.parse(f"agents > 1\n{line}\nclaimed > 1\n")
    assert [rule.key for rule in rules] == ["agents > 1", "claimed > 1"]
    assert [(one.line, one.column) for one in bad] == [(2, column)], str(bad[0])
    with pytest.raises(alert_rules.BadRule, match=f"alerts.rules:2:{column}: .*({words})"):
        raise bad[0]


def test_a_rule_that_stands_there_twice_and_one_too_many_are_named() -> None:
    _, bad = alert_rules.parse("agents > 1\nagents>1\n" + "".join(f"agents > {n}\n" for n in range(2, 300)))
    assert str(bad[0]).endswith("this rule stands in line 1 already")
    assert len(bad) == 1 + 298 - (alert_rules.MOST - 1)
    assert "more than 200 rules" in str(bad[1])


def test_each_number_of_the_health_check_can_be_named_by_both_of_its_names() -> None:
    for name, one in MEASURES.items():
        for word in {name, one.metric} - {"alerts", "alerts_on"}:
            rules, bad = alert_rules.parse(f"{word} > 1")
            assert ([rule.measure for rule in rules], bad) == ([name], [])


@pytest.mark.parametrize(("name", "count"), [("README.md", 3), ("bin/health_check.sh", 4)])
def test_the_rules_that_the_documentation_shows_are_rules(name: str, count: int) -> None:
    shown = re.findall(r"^(?:#   )?([a-z_]+ [<>] [0-9].*)$", (SUITE / name).read_text(), re.MULTILINE)
    rules, bad = alert_rules.parse("\n".join(shown))
    assert (len(rules), bad) == (count, [])


# --- what the health check says of them


def test_rules_are_looked_at_without_being_told_and_nothing_is_written(space: Space) -> None:
    park(space)
    space.write(layout.ALERT_RULES, f"{RULE}\ndead_owners > 0\nagents\n")
    before = space.tree()
    found = space.look("conflicts", "alerts", RECOVERY_NOTIFY_CMD="false").data["checks"]
    assert space.tree() == before
    assert found["alerts"]["level"] == "UNKNOWN"  # whether an owner is dead
    assert found["alerts"]["values"] == {"alerts": 1}
    assert "alerts.rules:3:7: " in found["alerts"]["text"]
    assert "true: parked >= 1, 1 can't be told from what was looked at" in found["alerts"]["text"]
    assert found["conflicts"]["level"] == "CRITICAL"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * 300_000, b"\x00" * 10, b'{"rules": []}', None])
def test_a_file_of_rules_that_is_none_stops_no_other_check(told: Told, content: bytes | None) -> None:
    path = told.space.root / layout.ALERT_RULES
    path.unlink()
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    park(told.space)
    found = told.space.look("conflicts", "alerts", "--alert", clock=time.time, **told.environ).data["checks"]
    assert (found["conflicts"]["level"], found["alerts"]["level"] in ("WARNING", "UNKNOWN")) == ("CRITICAL", True)
    assert layout.ALERT_RULES in found["alerts"]["text"]
    assert told.events == []


def test_more_than_a_person_writes_is_not_read(space: Space) -> None:
    space.write(layout.ALERT_RULES, "agents > 1\n" * 30_000)
    assert space.found("alerts")[1].startswith("alerts.rules is larger than")


# --- telling


def test_what_becomes_true_is_told_once_and_once_that_it_is_over(told: Told) -> None:
    told.look()
    assert told.events == []
    parked = park(told.space)
    assert f"told of: {RULE}" in told.look()["text"]
    for _ in range(3):
        assert "told of" not in told.look()["text"]
    (event,) = told.events
    assert event["error_message"].startswith(f"parked is 1 ({RULE}, since ")
    assert event["error_message"].endswith("): a person has to look")
    assert (event["success"], event["details"]["rule"], event["root"]) == (False, RULE, str(told.space.root))
    parked.unlink()
    assert "told that it is over" in told.look()["text"]
    told.look()
    assert told.states == ["on", "over"]
    assert told.events[1]["error_message"].startswith(f"over: parked is 0 ({RULE}, since ")
    assert (told.events[1]["success"], told.events[1]["details"]["since"]) == (True, event["details"]["since"])
    park(told.space)
    told.look()
    assert told.states == ["on", "over", "on"]


def test_a_rule_with_a_time_is_told_when_it_has_been_true_for_so_long(told: Told) -> None:
    told.space.write(layout.ALERT_RULES, f"{RULE} for 15m\n")
    parked = park(told.space)
    told.look()
    told.look()
    assert told.events == []
    parked.unlink()
    told.look()
    park(told.space)
    for _ in range(2):
        told.look()
    assert told.events == []
    told.look()
    assert told.states == ["on"]


def test_what_could_not_be_looked_at_is_neither_true_nor_over(told: Told) -> None:
    """And so is what too few incidents say, and a rule while some line of its file is wrong."""
    parked = park(told.space)
    told.look()
    parked.unlink()
    found = told.space.look("journal", "alerts", "--alert", clock=time.time, **told.environ)
    assert "1 can't be told" in found.data["checks"]["alerts"]["text"]
    told.space.write(layout.ALERT_RULES, "parked >= one\n")
    told.look()
    assert told.states == ["on"]
    told.space.write(layout.ALERT_RULES, "agents > 99\n")
    told.look()
    assert told.states == ["on", "over"]
    assert "the rule is gone" in told.events[1]["error_message"]


def test_a_notifier_that_fails_is_asked_again_until_somebody_knows(
    told: Told, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deaf").touch()
    park(told.space)
    for _ in range(4):
        found = told.look()
        assert (found["level"], "was not told of alerts.rules" in found["text"]) == ("WARNING", True)
    assert "the command tell was not told" in capfd.readouterr().err
    (tmp_path / "deaf").unlink()
    assert told.look()["level"] == "OK"
    told.look()
    assert told.states == ["on"] * 5


def test_what_nobody_heard_to_be_over_is_no_news_when_it_is_on_again(told: Told, tmp_path: Path) -> None:
    parked = park(told.space)
    told.look()
    parked.unlink()
    (tmp_path / "deaf").touch()
    told.look()
    park(told.space)
    (tmp_path / "deaf").unlink()
    for _ in range(3):
        told.look()
    assert told.states == ["on", "over"]  # the second one was not heard


def test_a_clock_that_was_set_back_keeps_no_rule_waiting(told: Told) -> None:
    told.space.write(layout.ALERT_RULES, f"{RULE} for 15m\n")
    park(told.space)
    told.look()
    told.now -= 86400
    for _ in range(3):
        told.look()
    assert told.states == ["on"]


def test_without_anybody_to_tell_that_is_said(told: Told) -> None:
    park(told.space)
    found = told.look(HOME="")
    assert (found["level"], "RECOVERY_NOTIFY_CMD" in found["text"]) == ("WARNING", True)
    told.look()
    assert told.states == ["on"]


def test_what_was_told_is_told_anew_where_that_is_not_known_any_more(told: Told) -> None:
    park(told.space)
    told.look()
    told.space.write(layout.ALERTS, '{"format": 1, "rules": ')
    assert "data/alerts.json is damaged" in told.look()["text"]
    told.look()
    assert told.states == ["on", "on"]


def test_where_it_can_not_be_noted_people_are_told_all_the_same(told: Told) -> None:
    park(told.space)
    (told.space.root / layout.ALERTS).mkdir(parents=True)
    for _ in range(2):
        assert "could not be noted" in told.look()["text"]
    assert told.states == ["on", "on"]


@pytest.mark.parametrize("state", ["on", "over"])
def test_who_dies_between_telling_and_noting_it_has_it_told_once_more_and_no_third_time(told: Told, state: str) -> None:
    parked = park(told.space)
    if state == "over":
        assert told.process() == 2
        parked.unlink()
        told.path.unlink()
    before = 2 if state == "on" else 0
    for _ in range(2):
        assert told.process("alerted=kill") == -9
    for _ in range(2):
        assert told.process() == before
    assert told.states == [state] * 2


@pytest.mark.parametrize(
    ("step", "times"),
    [("put:1", 1), ("put-renamed:1", 1), ("alert", 1), ("alerted", 2), ("put:2", 2), ("put-renamed:2", 1)],
)
def test_who_dies_anywhere_has_it_told_and_at_most_once_more(told: Told, step: str, times: int) -> None:
    park(told.space)
    assert told.process(f"{step}=kill") == -9
    told.process()
    told.process()
    assert told.states == ["on"] * times
    assert [path.name for path in told.space.root.rglob("*.stage")] == []


def test_what_somebody_may_have_heard_is_told_to_be_over(told: Told) -> None:
    parked = park(told.space)
    assert told.process("alerted=kill") == -9
    parked.unlink()
    told.process()
    told.process()
    assert told.states == ["on", "over"]


def test_a_rule_that_is_true_again_after_somebody_died_telling_that_it_is_over_is_told_again(told: Told) -> None:
    park(told.space)
    told.process()
    (told.space.root / "data/conflicts/x.parked.json").unlink()
    assert told.process("alerted=kill") == -9
    park(told.space)
    told.process()
    assert told.states == ["on", "over", "on"]


def test_two_that_look_at_once_tell_once(told: Told) -> None:
    park(told.space)
    crowd = [threading.Thread(target=told.process) for _ in range(6)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert told.states == ["on"]


class Posted(BaseHTTPRequestHandler):
    got: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []
    listening = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Posted,), {"got": got}))
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_address[1]}/alerts", got
    listening.shutdown()
    listening.server_close()


def test_a_success_rate_below_095_reaches_a_webhook_and_so_does_its_end(
    space: Space, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    """The rule of the documentation, with the real logs."""
    url, got = hook
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 60))
    space.write(layout.ALERT_RULES, "success_rate < 0.95 for 20 incidents\n")

    def incidents(good: int, bad: int) -> None:
        lines = ""
        for n, outcome in enumerate(["recovered"] * good + ["failed"] * bad):
            details = {"incident": f"i{n}", "outcome": outcome, "attempts": 2, "seconds": 3.0, "lock_wait": 0.0}
            line = {"txid": f"{n}", "task_id": "T-1", "timestamp": stamp, "error_type": "E", "error_message": "m",
                    "strategy": "RETRY", "success": outcome == "recovered", "details": details}  # fmt: skip
            lines += json.dumps(line) + "\n"
        space.write("logs/recovery/T-1_recovery.jsonl", lines)

    for good, bad in ((18, 1), (18, 2), (17, 3), (15, 1), (39, 2)):
        incidents(good, bad)
        space.look("success", "alerts", "--alert", clock=lambda: now, RECOVERY_NOTIFY_URL=url)
    assert [(one["details"]["state"], one["details"]["value"]) for one in got] == [("on", 0.9), ("over", 0.9512)]
    assert got[0]["details"]["incidents"] == 20


def test_what_is_kept_of_alerts_is_small_and_goes_with_them(told: Told) -> None:
    parked = park(told.space)
    told.look()
    path = told.space.root / layout.ALERTS
    before = path.stat()
    told.look()
    assert path.stat().st_ino == before.st_ino  # nothing new, nothing written
    assert list(json.loads(path.read_text())["rules"]) == [RULE]
    parked.unlink()
    told.look()
    assert json.loads(path.read_text())["rules"] == {}
    assert alerts.MOST == 2
