"""What the time line tells of the logs, and what it says that it leaves out."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import pytest

from recovery import durations, overview, timeline
from recovery.flock import Limits
from recovery.store import FileStore
from support import busy
from support.workspace import Workspace

NOW = 1_795_600_000.0
HOUR = 3600.0


class Space:
    """A workspace's logs, and the time line of the last two hours of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "postbox").mkdir(parents=True)

    def changes(self, *lines: str) -> None:
        busy.write(self.root / f"data/changes/{busy.iso(NOW)[:7]}.jsonl", "".join(lines))

    def log(self, task: str, *lines: str, part: str = "") -> Path:
        return busy.write(self.root / f"logs/recovery/{task}_recovery.jsonl{part}", "".join(lines))

    def look(self, *told: dict[str, Any]) -> dict[str, Any]:
        agents = told or ({"agent": "CC", "claims": []},)
        return timeline.Timeline(FileStore(str(self.root), Limits()), NOW - 2 * HOUR, NOW, agents).collect()

    def lane(self, *told: dict[str, Any], agent: str = "CC") -> dict[str, Any]:
        (found,) = [lane for lane in self.look(*told)["lanes"] if lane["agent"] == agent]
        return dict(found)

    def marks(self, agent: str = "CC") -> list[tuple[str, str, str]]:
        return [(one["kind"], one["task"], one["time"]) for one in self.lane(agent=agent)["marks"]]


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(tmp_path / "ws")


def ago(seconds: float) -> str:
    return busy.iso(NOW - seconds)


def test_a_claim_lasts_from_its_beginning_to_its_end_and_a_completion_is_marked(space: Space) -> None:
    done = busy.claim("codex", NOW - 900, state="done", ended=ago(300))
    space.changes(
        busy.change(1, NOW - 900, "claim", "CC", "T-1", busy.claim("codex", NOW - 900)),
        busy.change(2, NOW - 300, "complete", "CC", "T-1", done),
    )
    (bar,) = space.lane()["claims"]
    assert (bar["task"], bar["since"], bar["until"], bar["end"]) == ("T-1", ago(900), ago(300), "done")
    assert space.marks() == [("done", "T-1", ago(300))]


def test_a_claim_that_is_held_now_is_told_by_the_outbox_and_drawn_once(space: Space) -> None:
    space.changes(busy.change(1, NOW - 900, "claim", "CC", "T-1", busy.claim("codex", NOW - 900)))
    held = {"task": "T-1", "by": "codex", "since": ago(900), "silent_since": ago(600), "state": "alive"}
    (bar,) = space.lane({"agent": "CC", "claims": [held]})["claims"]
    assert (bar["since"], bar["until"], bar["end"], bar["silent_since"]) == (ago(900), "", "held", ago(600))
    (bar,) = space.lane()["claims"]
    assert (bar["end"], bar["until"]) == ("lost", ago(900)), "the log has no end, and nobody holds it"


def test_a_claim_that_somebody_took_over_ended_when_he_did(space: Space) -> None:
    done = busy.claim("second", NOW - 600, 2, state="done", ended=ago(300))
    space.changes(
        busy.change(1, NOW - 900, "claim", "CC", "T-1", busy.claim("first", NOW - 900)),
        busy.change(2, NOW - 600, "claim", "CC", "T-1", busy.claim("second", NOW - 600, 2)),
        busy.change(3, NOW - 300, "complete", "CC", "T-1", done),
    )
    bars = [(bar["by"], bar["since"], bar["until"], bar["end"]) for bar in space.lane()["claims"]]
    assert bars == [("first", ago(900), ago(600), "taken over"), ("second", ago(600), ago(300), "done")]


def test_a_claim_that_began_before_the_period_and_ended_in_it_is_there(space: Space) -> None:
    done = busy.claim("codex", NOW - 9 * HOUR, state="swept", ended=ago(HOUR))
    old = busy.claim("codex", NOW - 9 * HOUR, 7, state="done", ended=ago(8 * HOUR))
    space.changes(
        busy.change(1, NOW - HOUR, "sweep", "CC", "T-1", done),
        busy.change(2, NOW - HOUR, "note", "CC", "T-9", old),
    )
    assert [(bar["task"], bar["end"]) for bar in space.lane()["claims"]] == [("T-1", "swept")]


def test_a_crash_is_marked_where_the_commit_began_and_its_repair_where_somebody_finished_it(space: Space) -> None:
    txid = "20261125T084640Z-0123456789ab"
    died = durations.epoch("2026-11-25T08:46:40Z")
    assert died is not None
    assert NOW - 2 * HOUR < died < NOW
    about = {"agent": "CC", "op": "complete", "pid": 77}
    space.log("T-1", busy.ended(died + 60, "T-1", "recovered", txid, kind="OwnerDied", message="finished", **about))
    lane = space.lane()
    assert [(one["kind"], one["time"]) for one in lane["marks"]] == [
        ("crash", "2026-11-25T08:46:40Z"),
        ("repair", "2026-11-25T08:47:40Z"),
    ]
    assert lane["marks"][0]["text"] == "pid 77 died in the middle of complete CC/T-1"


def test_tries_their_end_and_waits_for_locks_are_marked(space: Space) -> None:
    waited = [{"lock": "postbox/CC/outbox.json", "seconds": 60, "held_by": "pid 9, vim"}]
    done = busy.claim("codex", NOW - 900, state="done", ended=ago(100))
    space.changes(busy.change(1, NOW - 100, "complete", "CC", "T-2", done, waited=waited))
    space.log(
        "T-1",
        busy.tried(NOW - 1000, "T-1", agent="CC"),
        busy.ended(NOW - 500, "T-1", "failed", agent="CC", lock_wait=120.0),
    )
    assert space.marks() == [
        ("try", "T-1", ago(1000)),
        ("wait", "T-1", ago(620)),
        ("failed", "T-1", ago(500)),
        ("wait", "T-2", ago(160)),
        ("done", "T-2", ago(100)),
    ]


def test_what_a_program_logs_under_its_own_name_is_in_the_lane_of_the_tasks_agent(space: Space) -> None:
    held = {"task": "T-1", "by": "codex", "since": ago(900), "silent_since": "", "state": "alive"}
    told = {"agent": "CC", "claims": [held]}
    space.log("T-1", busy.tried(NOW - 60, "T-1", agent="my-program"))
    space.log("other", busy.tried(NOW - 50, "other", agent="my-program"))
    lanes = {lane["agent"]: [one["task"] for one in lane["marks"]] for lane in space.look(told)["lanes"]}
    assert lanes == {"CC": ["T-1"], "": ["other"]}


def test_marks_of_one_kind_that_lie_together_are_one_that_says_so(space: Space) -> None:
    space.log("T-1", *(busy.tried(NOW - 600 + n, "T-1", n, agent="CC") for n in range(8)))
    (mark,) = space.lane()["marks"]
    assert mark["text"].endswith("(and 7 more of it right before)")
    assert mark["count"] == 8


def test_the_success_rate_counts_each_incident_once_where_it_ended(space: Space) -> None:
    span = 2 * HOUR / timeline.BUCKETS
    first = NOW - 2 * HOUR + 1
    space.log(
        "T-1",
        busy.ended(first - 60, "T-1", "failed", "before"),
        busy.ended(first, "T-1", "recovered", "a"),
        busy.ended(first + 2, "T-1", "failed", "a"),
        busy.ended(first + 3, "T-1", "failed", "b"),
        busy.ended(first + span, "T-1", "cancelled", "c"),
        busy.ended(NOW - 1, "T-1", "returned", "d"),
        busy.tried(NOW - 1, "T-1", 1, "e"),
        "torn",
    )
    rates = space.look()["rates"]
    assert len(rates) == timeline.BUCKETS
    assert [(n, one["good"], one["bad"]) for n, one in enumerate(rates) if one["good"] + one["bad"]] == [
        (0, 1, 1),
        (timeline.BUCKETS - 1, 1, 0),
    ]


def test_parts_of_a_log_that_were_put_aside_are_read_and_one_that_is_there_twice_once(space: Space) -> None:
    old = busy.ended(NOW - 3000, "T-1", "failed", "a", agent="CC")
    space.log("T-1", busy.ended(NOW - 60, "T-1", "recovered", "b", agent="CC"))
    space.log("T-1", old, part=".0001")
    (space.root / "logs/recovery/T-1_recovery.jsonl.0001.gz").write_bytes(gzip.compress(old.encode()))
    assert space.marks() == [("failed", "T-1", ago(3000)), ("recovered", "T-1", ago(60))]
    assert not [one for one in space.lane()["marks"] if "more of it" in one["text"]]
    (space.root / "logs/recovery/T-1_recovery.jsonl.0001").unlink()
    assert space.marks() == [("failed", "T-1", ago(3000)), ("recovered", "T-1", ago(60))]
    assert sum(one["good"] + one["bad"] for one in space.look()["rates"]) == 2


def test_what_is_left_out_is_said(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("CHANGES", 2), ("OF_LOG", 3), ("OF_LOGS", 4), ("COUNTED", 1), ("SHOWN", 3), ("LEAST", 2)):
        monkeypatch.setattr(timeline, name, most)
    claims = [
        busy.change(n, NOW - 900 + 30 * n, "complete", "CC", f"T-{n}",
                    busy.claim("codex", NOW - 2000, state="done", ended=ago(900 - 30 * n)))
        for n in range(1, 6)
    ]  # fmt: skip
    space.changes(*claims)
    for task in ("A", "B", "C"):
        space.log(task, *(busy.tried(NOW - 1000 + 100 * n, task, n, agent="CC") for n in range(5)))
    found = space.look()
    (lane,) = found["lanes"]
    assert len(lane["claims"]) <= 3
    assert len(lane["marks"]) <= 3
    assert lane["left_out"] > 0
    assert found["notes"] == [
        f"changes before {ago(900 - 90)} are not shown: there are more than 2 since",
        "the marks are those of the newest lines: earlier ones of 3 recovery logs are not shown",
        "the success rate over time is of 1 of 3 recovery logs, taken without regard to content",
    ]


def test_what_can_not_be_read_is_said_and_hides_nothing_else(space: Space) -> None:
    (space.root / "logs/recovery/X_recovery.jsonl").mkdir(parents=True)
    space.log("T-1", busy.tried(NOW - 60, "T-1", agent="CC"), "no line of ours\n", '{"timestamp": 7}\n')
    space.log("T-2", busy.tried(NOW - 50, "T-2", agent="CC").replace('"details": {', '"details": 0, "more": {'))
    found = space.look()
    assert [(one["kind"], one["task"]) for lane in found["lanes"] for one in lane["marks"]] == [("try", "T-1")]
    assert any("X_recovery.jsonl" in note for note in found["notes"])
    assert any("torn or foreign" in note for note in found["notes"])


def test_the_times_of_foreign_hands_are_no_error(space: Space) -> None:
    odd = busy.claim("x", NOW, state="done", ended="yesterday")
    space.changes(
        busy.change(1, NOW - 60, "complete", "CC", "T-1", {**odd, "since": ["?"]}),
        busy.change(2, NOW - 50, "complete", "CC", "T-2", {"generation": "1"}, waited=[7, {"seconds": "x"}]),
    )
    space.log("T-1", busy.tried(NOW - 60, "T-1", agent="CC").replace("Z", "+99:99").replace("2026", "9999"))
    assert {one["kind"] for one in space.lane()["marks"]} == {"done"}


def test_every_change_of_a_task_is_marked_those_of_one_verb_that_lie_together_once(space: Space) -> None:
    none = busy.claim("x", NOW - 7000, state="released")
    ops = ["assign", "assign", "reopen", "start", "review", "fail", "release", "claim"]
    space.changes(*(busy.change(n, NOW - 500 + n, op, "CC", f"T-{n}", none) for n, op in enumerate(ops, 1)))
    marks = space.lane()["marks"]
    assert [(one["kind"], one["op"], one["task"], one["count"]) for one in marks] == [
        ("change", op, f"T-{n}", 1 + (op == "assign")) for n, op in enumerate(ops, 1) if n > 1 and op != "claim"
    ]


def test_a_change_of_many_tasks_is_in_the_lane_of_each_agent(space: Space) -> None:
    tasks = {"CC": ["T-1"], "CA": ["T-2", 7]}
    space.changes(busy.change(1, NOW - 60, "distribute", "CC", "T-1", {}, tasks=tasks))
    assert space.marks("CA") == [("change", "T-2", ago(60))]
    assert space.marks("CC") == [("change", "T-1", ago(60))]


def test_where_there_is_no_room_changes_make_way_for_what_went_wrong(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "SHOWN", 2)
    monkeypatch.setattr(timeline, "LEAST", 2)
    space.log("T-1", busy.tried(NOW - 3000, "T-1", agent="CC"))
    space.changes(*(busy.change(n, NOW - 1000 + 100 * n, "assign", "CC", f"T-{n}", {}) for n in range(1, 4)))
    assert [kind for kind, *_ in space.marks()] == ["try", "change"]
    assert space.lane()["left_out"] == 2


def test_of_many_lanes_those_are_drawn_in_which_most_happened(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "LANES", 2)
    for n, agent in enumerate(("CA", "CB", "CC")):
        lines = [busy.tried(NOW - 1000 + 100 * k, agent, k, agent=agent) for k in range(n + 1)]
        space.log(agent, *lines)
    found = space.look(*({"agent": agent, "claims": []} for agent in ("CA", "CB", "CC")))
    assert [lane["agent"] for lane in found["lanes"]] == ["CB", "CC"]
    assert found["notes"] == ["lanes are drawn of the 2 agents to whom most happened, of 3"]


def test_what_the_suite_itself_logs_of_a_day_is_what_is_drawn(tmp_path: Path) -> None:
    """A claim, a commit that is killed half-way, whoever finishes it, a task that somebody took and failed."""
    space = Workspace.make(tmp_path / "ws")
    began = time.time() - 60
    for command in (("claim", "CC", "CC-1"), ("complete", "CC", "CC-1", "done"), ("claim", "CC", "CC-2")):
        assert space.run(command).code == 0
    assert space.run(("fail", "CC", "CC-2", "why"), fault="replaced:1=kill-group").code == -9
    assert space.run(("recover",)).code == 0
    assert space.run(("claim", "CC", "CC-3")).code == 0
    assert space.run(("assign", "CC", "CC-9", "New", "LOW")).code == 0
    store = FileStore(str(space.root), Limits())
    told = overview.look(store)["agents"]
    (lane,) = timeline.Timeline(store, began, time.time(), told).collect()["lanes"]
    assert lane["agent"] == "CC"
    assert {(bar["task"], bar["end"]) for bar in lane["claims"]} == {
        ("CC-1", "done"), ("CC-2", "failed"), ("CC-3", "held"),
    }  # fmt: skip
    assert {(mark["kind"], mark["task"]) for mark in lane["marks"]} == {
        ("done", "CC-1"), ("change", "CC-2"), ("crash", "CC-2"), ("repair", "CC-2"), ("change", "CC-9"),
    }  # fmt: skip
    changes = {mark["task"]: mark["text"] for mark in lane["marks"] if mark["kind"] == "change"}
    assert changes["CC-9"].startswith("assign: added")
    assert changes["CC-2"].startswith("fail: ")
