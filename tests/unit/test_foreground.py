"""Running a command in our place: its terminal, Ctrl-C, Ctrl-Z, as a person at a shell meets them.  Real terminals."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recovery.errors import UsageError
from recovery.processes import group_members
from recovery.try_command import codes
from recovery.tx import filled_in

RECOVERY = str(Path(__file__).resolve().parents[2] / "bin" / "recovery")
#: The same as a word for a shell.
TYPED = shlex.quote(RECOVERY)


class Terminal:
    """A shell with job control on a terminal of its own."""

    def __init__(self, root: Path) -> None:
        (root / "postbox").mkdir(parents=True)
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(root)
            env = {"PATH": os.environ["PATH"], "PS1": "$ ", "TERM": "dumb", "ORCHESTRATION_ROOT": str(root)}
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], env)
        self.said = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """Wait for what is to appear next; what stood before it is passed over."""
        end = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.said)
            if found is not None:
                self.said = self.said[found.end() :]
                return found
            assert time.monotonic() < end, f"{pattern!r} did not appear in {self.said!r}"
            try:
                self.read(0.1)
            except OSError:
                pytest.fail(f"the shell has gone; {pattern!r} did not appear in {self.said!r}")

    def read(self, seconds: float) -> None:
        """Take what appears, waiting at most so long for it."""
        if select.select([self.fd], [], [], seconds)[0]:
            self.said += os.read(self.fd, 65536).decode("utf-8", "replace").replace("\r", "")

    def appears(self, text: str, seconds: float) -> bool:
        """Whether it stands there within so many seconds; nothing is passed over."""
        end = time.monotonic() + seconds
        while text not in self.said and time.monotonic() < end:
            self.read(max(end - time.monotonic(), 0))
        return text in self.said

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(tmp_path: Path) -> object:
    found = Terminal(tmp_path / "ws")
    found.until(r"\$ ")
    yield found
    found.close()


def test_a_command_reads_from_the_terminal(terminal: Terminal) -> None:
    terminal.type(f"{TYPED} try x -- sh -c 'echo re''ady; read a; echo \"got $a\"'; echo \"code $?\"\n")
    terminal.until("\nready")
    terminal.type("hello\n")
    terminal.until("got hello")
    terminal.until("code 0")


def test_a_command_has_the_terminal_on_all_its_descriptors(terminal: Terminal) -> None:
    terminal.type(f"{TYPED} try x -- sh -c 'test -t 0 && test -t 1 && test -t 2'; echo \"code $?\"\n")
    terminal.until("\ncode 0")


def test_ctrl_c_ends_the_command_and_nothing_is_tried_again(terminal: Terminal) -> None:
    terminal.type(f"{TYPED} try x -- sh -c 'echo re''ady; read a'\n")
    terminal.until("\nready")
    terminal.type("\x03")
    terminal.until(r"stopped by SIGINT\n+\$ ")
    terminal.type('echo "code $?"\n')
    terminal.until("\ncode 130")
    terminal.type("cat logs/recovery/x_recovery.jsonl\n")
    terminal.until('"outcome": "cancelled"')


def test_ctrl_c_ends_the_loop_of_a_script_around_it(terminal: Terminal, tmp_path: Path) -> None:
    script = tmp_path / "loop.sh"
    script.write_text(f"#!/bin/bash\nwhile :; do {TYPED} try x -- sh -c 'echo ready; read a'; done\n")
    terminal.type(f"bash {script}\n")
    terminal.until("\nready")
    terminal.type("\x03")
    terminal.until(r"stopped by SIGINT\n+\$ ")


def test_a_command_that_takes_ctrl_c_for_itself_goes_on(terminal: Terminal) -> None:
    terminal.type(
        f"{TYPED} try x -- sh -c 'trap \"echo cau''ght\" INT; echo re''ady; read a; read a'; echo \"code $?\"\n"
    )
    terminal.until("\nready")
    terminal.type("\x03")
    terminal.until("caught")
    terminal.type("on\non\n")
    terminal.until("code 0")


def test_ctrl_z_stops_the_whole_job_and_fg_continues_it(terminal: Terminal) -> None:
    terminal.type(f"{TYPED} try x -- sh -c 'echo re''ady; read a; echo \"got $a\"'; echo \"code $?\"\n")
    terminal.until("\nready")
    terminal.type("\x1a")
    terminal.until("Stopped")
    terminal.until(r"\$ ")
    terminal.type("echo still $((1 + 1))\n")
    terminal.until("still 2")
    terminal.type("fg\n")
    terminal.until("recovery'? try")
    terminal.type("again\n")
    terminal.until("got again")


def test_a_further_try_has_the_terminal_too_in_a_pid_namespace_that_does_not_know_the_shell(terminal: Terminal) -> None:
    if subprocess.run(["unshare", "-pf", "--mount-proc", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace may be made here")
    command = "sh -c 'echo re''ady; read a; echo \"got $a\"; test \"$a\" = two'"
    terminal.type(f'unshare -pf --mount-proc {TYPED} try --delay 0.01 x -- {command}; echo "code $?"\n')
    for word in ("one", "two"):
        terminal.until("\nready")
        terminal.type(word + "\n")
        terminal.until(f"got {word}")
    terminal.until("\ncode 0")


def test_a_terminal_that_is_gone_ends_the_command_and_nothing_is_tried_again(tmp_path: Path) -> None:
    """Also where the shell above has no job control, and the kernel tells the command alone."""
    (tmp_path / "postbox").mkdir()
    pid, fd = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        env = {"PATH": os.environ["PATH"], "ORCHESTRATION_ROOT": str(tmp_path)}
        script = f"{TYPED} try --delay 0.01 x -- sh -c 'echo ran; exec sleep 60' >ran; echo never"
        os.execve("/bin/bash", ["bash", "-c", script], env)
    ran, log = tmp_path / "ran", tmp_path / "logs" / "recovery" / "x_recovery.jsonl"
    until(lambda: ran.exists() and ran.read_text() == "ran\n")
    os.close(fd)
    os.waitpid(pid, 0)
    until(lambda: log.exists() and '"outcome": "' in log.read_text())
    assert '"cancelled"' in log.read_text()
    assert ran.read_text() == "ran\n"


def test_in_the_background_it_leaves_the_terminal_to_the_shell(terminal: Terminal) -> None:
    terminal.type(f"{TYPED} try x -- sh -c 'echo do''ne' & wait; echo \"code $?\"\n")
    terminal.until("\ndone")
    terminal.until("code 0")


def test_sigint_from_elsewhere_reaches_the_command_and_is_130(tmp_path: Path) -> None:
    (tmp_path / "postbox").mkdir()
    with subprocess.Popen(
        [RECOVERY, "try", "x", "--", sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ORCHESTRATION_ROOT": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_exit_codes_are_read_as_a_list_of_numbers_and_ranges() -> None:
    assert codes("1,75,100-102") == {1, 75, 100, 101, 102}
    for bad in ("", "x", "1,", "1-", "-1", "0", "256", "9" * 30, "1-x"):
        with pytest.raises(UsageError):
            codes(bad)


def test_only_whole_words_are_copies() -> None:
    assert filled_in(["a{}", "{}", "{2}", "{}b", "{x}", "{ }"], ["/1", "/2"]) == [
        "a{}",
        "/1",
        "/2",
        "/2",
        "{}b",
        "{x}",
        "{ }",
    ]
    for bad in ("{0}", "{3}", "{99999999999999999999}"):
        with pytest.raises(UsageError):
            filled_in([bad], ["/1", "/2"])


def test_ctrl_c_three_times_within_a_second_kills_a_command_that_ignores_it(terminal: Terminal) -> None:
    for verb in ("try x", "once k", "run CC T", "tx f"):
        if verb.startswith("run"):
            terminal.type("mkdir postbox/CC; echo '{\"tasks\": []}' >postbox/CC/outbox.json\n")
            terminal.type(f"{TYPED} assign CC T title LOW\n")
            terminal.until("assigned")
        terminal.type(f"{TYPED} {verb} -- sh -c 'trap \"\" INT; echo re''ady; read a; exec sleep 60'\n")
        terminal.until("\nready")
        terminal.type("\x03")
        terminal.type("on\n")  # once is not enough
        terminal.until("on\n")
        for _ in range(40):  # as fast as fingers are
            terminal.type("\x03")
            if terminal.appears("stopped by SIGINT", 0.15):
                break
        terminal.until("stopped by SIGINT")
        terminal.until(r"\n\$ ")
        terminal.type('echo "code $?"\n')
        terminal.until("\ncode 130")


def test_ctrl_c_kills_no_command_that_takes_it_as_often_as_it_is_typed_slowly(terminal: Terminal) -> None:
    command = "trap \"echo cau''ght\" INT; echo re''ady; until read a; do :; done".replace('"', '\\"')
    terminal.type(f'{TYPED} try x -- sh -c "{command}"; echo "code $?"\n')
    terminal.until("\nready")
    for _ in range(2):
        terminal.type("\x03")
        terminal.until("caught")
    terminal.type("on\n")
    terminal.until("code 0")


def test_who_listens_for_ctrl_c_goes_with_a_wrapper_that_is_killed(terminal: Terminal) -> None:
    terminal.type(f"{TYPED} try x -- sh -c 'echo \"re''ady $PPID $$\"; read a; exec sleep 60'\n")
    found = terminal.until(r"ready (\d+) (\d+)")
    wrapper, command = int(found[1]), int(found[2])
    until(lambda: len(group_members(command)) == 2)
    os.kill(wrapper, signal.SIGKILL)
    until(lambda: [one.pid for one in group_members(command) if one.state not in "ZX"] == [command])
    os.killpg(command, signal.SIGKILL)


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to be"
