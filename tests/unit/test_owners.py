"""Who is asking, and who is still there: never guessed from silence, never from a pid alone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import claim_locks, claims, flock, owners, processes
from recovery.errors import UsageError
from recovery.tasks import TRANSITIONS, may_become


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads its own group."""
    process = subprocess.Popen(["sleep", "600"], process_group=0)
    yield process
    process.kill()
    process.wait()


# --- which program is a session


@pytest.mark.parametrize(
    "words",
    [
        "bash -c ls",
        "/bin/sh -ec ls",
        "bash script.sh",
        "/usr/bin/env bash",
        "zsh -lc ls",
        "bash -- script.sh",
        "timeout 10 x",
        "sudo -u x y",
        "xargs -n1 x",
        "make test",
        "node /usr/lib/node_modules/npm/bin/npx-cli.js x",
        "npm exec x",
        "uv run x",
        "flock x y",
        "/opt/suite/bin/recovery try -- x",
    ],
)
def test_a_shell_that_runs_a_script_and_a_wrapper_are_passed_by(words: str) -> None:
    """They are there for one command only."""
    assert owners.is_passing(os.path.basename(words.split()[0]), words.split())


@pytest.mark.parametrize(
    "words",
    [
        "-bash",
        "bash",
        "bash -i",
        "zsh -l",
        "bash --norc -i",
        "claude",
        "node /opt/agent/cli.js",
        "python3 agent.py",
        "vim x",
    ],
)
def test_an_interactive_shell_and_any_other_program_stay(words: str) -> None:
    """It is they who have the task."""
    assert not owners.is_passing(os.path.basename(words.split()[0]).lstrip("-"), words.split())
    assert not owners.is_service(os.path.basename(words.split()[0]).lstrip("-"), words.split())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cron", ["/usr/sbin/CRON", "-f"]),
        ("crond", ["crond"]),
        ("systemd", ["/lib/systemd/systemd", "--user"]),
        ("sshd", ["sshd: me@pts/0"]),
        ("containerd-shim", ["/usr/bin/containerd-shim-runc-v2", "-id", "x"]),
        ("tini", ["tini", "--", "x"]),
        ("tmux: server", ["tmux", "new"]),
    ],
)
def test_what_outlives_every_session_is_nobodys(name: str, words: list[str]) -> None:
    """Two jobs of one cron must never be taken for the same."""
    assert owners.is_service(name, words)


def test_recovery_session_is_a_living_process_or_a_name(sleeper: subprocess.Popen[bytes]) -> None:
    """A number must be alive; it is kept with its beginning.  Any other text is a name."""
    owner, by = owners.caller({"RECOVERY_SESSION": str(sleeper.pid)})
    assert (owner["pid"], owner["start"]) == (sleeper.pid, flock.start_time(sleeper.pid))
    assert by == f"pid {sleeper.pid}, sleep"
    assert owners.caller({"RECOVERY_SESSION": "agent 7 ☃"}) == ({"session": "agent 7 ☃"}, "session agent 7 ☃")
    for wrong in ("4194999", "0", "007", "99999999999999", "x" * 201):
        with pytest.raises(UsageError):
            owners.caller({"RECOVERY_SESSION": wrong})


# --- is it still there


def owner_of(pid: int) -> dict[str, Any]:
    look = processes.look(pid)
    assert look is not None
    return {**flock.identity(), "pid": pid, "start": look.start}


def test_a_process_is_alive_while_it_is_there_stopped_or_not(sleeper: subprocess.Popen[bytes]) -> None:
    """SIGSTOP is no death; a zombie is one, and so is a number that another process has got since."""
    owner = owner_of(sleeper.pid)
    assert owners.judge_process(owner)[0] == owners.ALIVE
    sleeper.send_signal(signal.SIGSTOP)
    assert owners.judge_process(owner)[0] == owners.ALIVE
    assert owners.judge_process({**owner, "start": "1"})[0] == owners.DEAD
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert owners.judge_process(owner)[0] == owners.DEAD
    sleeper.wait()
    assert owners.judge_process(owner) == (owners.DEAD, f"pid {sleeper.pid} is gone")


def test_a_process_that_may_not_be_signalled_is_alive(tmp_path: Path) -> None:
    """EPERM means alive: pid 1, asked by somebody without rights."""
    if os.geteuid() != 0:
        assert owners.judge_process(owner_of(1))[0] == owners.ALIVE
        return
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        alive = not processes.is_gone(1, "") and not processes.group_is_gone(os.getpgid(1) or 1, "")
        os._exit(0 if alive else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"boot": "earlier"}, owners.DEAD),
        ({"boot": "earlier", "host": "another"}, owners.UNKNOWN),
        ({"namespace": "pid:[1]"}, owners.UNKNOWN),
        ({"host": "renamed"}, owners.ALIVE),
        ({}, owners.ALIVE),
    ],
)
def test_what_cannot_be_looked_into_is_unknown_and_an_earlier_boot_is_gone(change: dict[str, str], state: str) -> None:
    """Same kernel and namespace: it is looked for, whatever the host is called by now."""
    assert owners.judge_process({**owner_of(os.getpid()), **change})[0] == state


def test_a_named_session_never_dies_by_itself() -> None:
    assert owners.judge_process({"session": "x"}) == (owners.ALIVE, "")


ELSEWHERE = {"namespace": "pid:[1]"}


@pytest.mark.parametrize(
    ("lock", "change", "trust", "state"),
    [
        ("held", {}, False, owners.ALIVE),
        ("held", ELSEWHERE, True, owners.ALIVE),
        ("held", {"boot": "earlier"}, False, owners.ALIVE),  # the kernel knows better than any note
        ("free", {}, False, owners.DEAD),
        ("free", {"boot": "earlier"}, False, owners.DEAD),
        ("free", ELSEWHERE, False, owners.UNKNOWN),
        ("free", ELSEWHERE, True, owners.DEAD),
        ("missing", ELSEWHERE, True, owners.UNKNOWN),
        ("missing", {"boot": "earlier"}, False, owners.DEAD),
        ("missing", {}, False, owners.ALIVE),  # its process, this one, is there
    ],
)
def test_a_run_is_judged_by_its_lock_first(lock: str, change: dict[str, str], trust: bool, state: str) -> None:
    """A held lock is life wherever it is held; a free one proves death only where one can look."""
    owner = {**owner_of(os.getpid()), **change}
    assert claim_locks.verdict(lock, {}, owner, trust)[0] == state
    assert claim_locks.verdict(lock, owner, {}, trust)[0] == state


def test_a_free_lock_is_not_death_while_somebody_of_the_group_lives(sleeper: subprocess.Popen[bytes]) -> None:
    """Nor is a group that is gone life; its number led by somebody with another beginning is a stranger's."""
    note = {**owner_of(os.getpid()), "group": sleeper.pid, "group_start": flock.start_time(sleeper.pid)}
    assert claim_locks.verdict("free", note, {})[0] == owners.ALIVE
    assert claim_locks.verdict("free", {**note, "group_start": "1"}, {})[0] == owners.DEAD
    sleeper.send_signal(signal.SIGSTOP)
    assert claim_locks.verdict("free", note, {})[0] == owners.ALIVE
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert claim_locks.verdict("free", note, {})[0] == owners.DEAD
    sleeper.wait()
    assert claim_locks.verdict("free", note, {})[0] == owners.DEAD


# --- leases and clocks


@pytest.mark.parametrize(
    ("boot", "clock", "now", "expired"),
    [
        ("b", 1000.0, 5000.0, False),
        ("b", 1099.9, 99999.0, False),  # the time of day was put forward: the kernel's own clock counts
        ("b", 1100.0, 0.0, True),  # … and back: no lease lives again
        ("b", 1100.0, 5000.0, True),
        ("later", 5.0, 5099.0, False),  # after a reboot the time of day is all there is
        ("later", 5.0, 5100.0, True),
        ("later", 5.0, 4999.0, True),  # … and one before the beginning measures nothing
    ],
)
def test_a_lease_is_over_at_its_time_whatever_is_done_to_the_clock(
    boot: str, clock: float, now: float, expired: bool
) -> None:
    """Begun at 5000 of the day and 1000 of the kernel's clock, for 100 seconds."""
    claim = {"since": "1970-01-01T01:23:20Z", **owners.lease(100, "b", 1000.0, 5000.0)}
    assert claim["lease_until"] == "1970-01-01T01:25:00Z"
    assert owners.is_expired(claim, boot, clock, now) is expired


@pytest.mark.parametrize("marks", [None, "x", {}, {"boot": "b"}, {"until": 1}])
def test_a_lease_without_marks_falls_back_to_the_time_of_day(marks: Any) -> None:
    """Whatever somebody wrote there, nothing is thrown."""
    claim = {"since": "1970-01-01T01:23:20Z", **owners.lease(100, "b", 1000.0, 5000.0), "lease_clock": marks}
    assert owners.is_expired(claim, "c", 1.0, 5099.0) is False
    assert owners.is_expired(claim, "c", 1.0, 5101.0) is True


# --- claims as they stand in a file


HELD = {"generation": 1, "state": "held", "owner": {}}


@pytest.mark.parametrize(
    "value",
    [None, "mine", 7, [], {}, {"generation": 1}]
    + [{**HELD, key: wrong} for key, wrong in (("generation", "1"), ("state", 2), ("owner", []))],
)
def test_what_this_suite_could_not_have_written_is_no_claim(value: Any) -> None:
    assert claims.of(value) is None


def test_every_status_leads_somewhere_and_only_to_statuses_of_the_table() -> None:
    """Out of completed leads reopen alone; failed and ready for review can be taken up again."""
    for status, allowed in TRANSITIONS.items():
        assert set(allowed) <= set(TRANSITIONS)
        assert status not in allowed
        assert allowed
    assert TRANSITIONS["completed"] == ("pending",)
    assert may_become("failed", "in_progress")
    assert may_become("somebody else's", "completed")
