"""What `run_command` promises: nothing of a command is left, nothing of it hangs us.  Real processes."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from recovery.commands import CommandFailed, run_command
from recovery.errors import NotFound, RecoveryError, UsageError
from recovery.parking import TaskParkedError
from recovery.rules import RecoveryStrategy, exit_code, usual
from recovery.timeouts import TaskTimeout, run_with_timeout
from support.meeting import until

PY = str(Path(__file__).resolve().parents[2] / "py")


@pytest.fixture(autouse=True)
def nothing_left() -> object:
    """No descriptor and no child stays behind a test."""
    gc.collect()  # descriptors of other tests
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def is_gone(pid: int) -> bool:
    """Whether a process is dead (a zombie that init hasn't waited for yet is)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def pids_in(path: Path, count: int) -> list[int]:
    until(lambda: path.exists() and len(path.read_text().split()) == count, f"{count} pids in {path.name}")
    return [int(word) for word in path.read_text().split()]


def test_output_of_a_command_that_succeeds_comes_back() -> None:
    done = run_command(["sh", "-c", "cat; printf 'warn\\377' >&2"], input="héllo\n")
    assert (done.stdout, done.stderr, done.returncode) == ("héllo\n", "warn\\xff", 0)


def test_words_are_never_evaluated_and_one_string_is_refused() -> None:
    assert run_command(["echo", "$(id); *", Path("a b")]).stdout == "$(id); * a b\n"
    for bad in ("echo hi", b"echo", [], ["a\0b"]):
        with pytest.raises(UsageError):
            run_command(bad)  # type: ignore[arg-type]


def test_an_exit_code_is_passed_on_with_the_last_lines_of_stderr() -> None:
    with pytest.raises(CommandFailed, match=r"^sh exited with 65: 30$") as caught:
        run_command(["sh", "-c", "echo out; seq 1 30 >&2; exit 65"])
    error = caught.value
    assert (error.returncode, error.code, exit_code(error)) == (65, 65, 65)
    assert error.args_run == ("sh", "-c", "echo out; seq 1 30 >&2; exit 65")
    assert error.stderr_tail.splitlines() == [str(n) for n in range(11, 31)]
    assert error.stdout_tail == "out"
    assert usual(error) is RecoveryStrategy.ROLLBACK


@pytest.mark.parametrize(
    ("script", "returncode", "code"), [("exit 1", 1, 1), ("kill -9 $$", -9, 137), ("kill -TERM $$", -15, 143)]
)
def test_the_code_is_the_shells_and_the_returncode_pythons(script: str, returncode: int, code: int) -> None:
    with pytest.raises(CommandFailed) as caught:
        run_command(["sh", "-c", script])
    assert (caught.value.returncode, caught.value.code, exit_code(caught.value)) == (returncode, code, code)


def test_what_cannot_be_found_is_127_and_what_cannot_be_executed_126(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("echo hi\n")
    for words, code in (
        (["no-such-command-here"], 127),
        ([plain / "beneath"], 127),
        ([plain], 126),
        ([tmp_path], 126),
    ):
        with pytest.raises(CommandFailed) as caught:
            run_command(words)
        assert (caught.value.code, caught.value.returncode) == (code, code)
        assert usual(caught.value) is RecoveryStrategy.ESCALATE
    plain.chmod(plain.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(CommandFailed) as caught:  # no #! line: a shell would run it, the kernel doesn't
        run_command([plain])
    assert caught.value.code == 126
    with pytest.raises(NotFound):
        run_command(["true"], cwd=tmp_path / "gone")


def test_large_output_and_input_do_not_deadlock() -> None:
    text = "x" * 3_000_000
    done = run_command(["sh", "-c", "tee /dev/stderr"], input=text, timeout=20)
    assert done.stdout == text
    assert done.stderr == text
    assert run_command(["sh", "-c", "tee /dev/stderr"], input=text, timeout=20, most=1000).stdout == "x" * 1000


def refuse(kind: str) -> None:
    error: RecoveryError = TaskParkedError("TASK-1", "it failed twice")
    if kind == "command":
        error = CommandFailed("sh exited with 3: bad", -15, ["sh", "-c", "exit 3"], "bad", "good")
    error.hint += " (really)"
    error.add_note("noted")
    error.attempt = 3  # type: ignore[attr-defined]
    raise error


@pytest.mark.parametrize("kind", ["command", "parked"])
def test_errors_come_back_whole_from_a_process_pool_and_as_copies(kind: str) -> None:
    with pytest.raises(RecoveryError) as caught:
        refuse(kind)
    with ProcessPoolExecutor(1) as pool, pytest.raises(type(caught.value)) as pooled:
        pool.submit(refuse, kind).result(30)
    copies = [pickle.loads(pickle.dumps(caught.value, protocol)) for protocol in range(6)]
    for one in (pooled.value, copy.copy(caught.value), *copies):
        assert type(one) is type(caught.value)
        assert (str(one), one.args, vars(one)) == (str(caught.value), caught.value.args, vars(caught.value))
        assert one.code == {"command": 143, "parked": 70}[kind]


def test_of_endless_output_the_last_part_is_kept_and_it_is_said_that_some_is_missing() -> None:
    done = run_command(["sh", "-c", "seq 5000000; echo end"], timeout=60)
    assert len(done.stdout) == 1 << 24
    assert done.cut
    assert done.stdout.endswith("4999999\n5000000\nend\n")
    whole = run_command(["sh", "-c", "seq 3000000"], timeout=60, most=0)
    assert (whole.stdout.count("\n"), whole.cut) == (3_000_000, False)
    for size, cut in ((1000, False), (1001, True), (300_000, True)):
        small = run_command(["head", "-c", str(size), "/dev/zero"], most=1000)
        assert (small.stdout, small.cut) == ("\0" * 1000, cut)
    assert run_command(["sh", "-c", "printf abc >&2"], most=2).cut


def test_endless_output_until_a_timeout_does_not_eat_the_memory() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from recovery.commands import run_command\n"
        "from recovery.timeouts import TaskTimeout\n"
        "try: run_command(['yes'], timeout=0.7)\n"
        "except TaskTimeout as error: print(error.stdout_tail.splitlines()[-1])\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, PY], capture_output=True, text=True, check=True)
    last, kibibytes = done.stdout.split()
    assert last == "y"
    assert int(kibibytes) < 100_000


def test_the_tail_of_long_lines_is_short_and_one_whose_beginning_is_missing_shows_its_end() -> None:
    with pytest.raises(CommandFailed) as caught:
        run_command(["sh", "-c", "head -c 9000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 3"])
    assert caught.value.stderr_tail == "…" + "x" * 497 + "end"
    with pytest.raises(CommandFailed) as caught:
        run_command(["sh", "-c", "seq 100000 >&2; printf 'b%0600d\\nlast\\n' 0 >&2; exit 3"])
    lines = caught.value.stderr_tail.splitlines()
    assert len(lines) == 20
    assert lines[0] == "99983"
    assert lines[-2:] == ["b" + "0" * 499 + "…", "last"]


def test_a_timeout_ends_the_whole_group_by_term_and_says_what_it_said_last(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = "trap 'echo bye >&2; exit 0' TERM; sleep 60 & echo $! >>$0; echo $$ >>$0; echo hello >&2; wait"
    began = time.monotonic()
    with pytest.raises(TaskTimeout, match=r"^Command bash timed out after 2 s$") as caught:
        run_command(["bash", "-c", script, pids], timeout=2, grace=20)
    assert time.monotonic() - began < 15, "the grace was waited for although everybody had gone"
    assert caught.value.code == 124
    assert caught.value.stderr_tail == "hello\nbye"
    assert all(is_gone(pid) for pid in pids_in(pids, 2))


def test_who_ignores_term_is_killed_after_the_grace_grandchildren_too(tmp_path: Path) -> None:
    """The leader obeys, its child does not: the grace is for it as well, and then KILL."""
    pids = tmp_path / "pids"
    child = "trap '' TERM; echo $$ >>$0; while :; do sleep 1; done"
    script = 'bash -c "$1" "$0" & echo $$ >>$0; wait'
    began = time.monotonic()
    with pytest.raises(TaskTimeout):
        run_command(["bash", "-c", script, pids, child], timeout=0.5, grace=0.4)
    assert 0.9 <= time.monotonic() - began < 5
    for pid in pids_in(pids, 2):
        until(lambda pid=pid: is_gone(pid), f"{pid} is gone")  # type: ignore[misc]


def test_a_stopped_command_is_ended_by_term_within_the_grace(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TaskTimeout):
        run_command(["sh", "-c", "kill -STOP $$; sleep 60"], timeout=0.2, grace=20)
    assert time.monotonic() - began < 5


def test_a_command_that_fills_the_pipe_in_its_last_words_does_not_hang() -> None:
    script = "trap 'head -c 500000 /dev/zero | tr \"\\\\0\" x >&2; exit 0' TERM; echo go; sleep 60 & wait"
    began = time.monotonic()
    with pytest.raises(TaskTimeout):
        run_command(["bash", "-c", script], timeout=0.4, grace=20)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("limit", [None, 30.0])
def test_a_background_child_that_keeps_the_pipe_does_not_hang_us_and_lives_on(
    tmp_path: Path, limit: float | None
) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    done = run_command(["sh", "-c", "sleep 60 & echo $! >$0; echo done", pids], timeout=limit)
    assert time.monotonic() - began < 5
    assert done.stdout == "done\n"
    (pid,) = pids_in(pids, 1)
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_command_that_does_not_read_its_input_costs_nothing() -> None:
    """Not even where the program has put SIGPIPE's default back, which would be its death."""
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv[1]); from recovery.commands import run_command\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "for _ in range(20): run_command(['sh', '-c', 'exec <&-; echo ok'], input='x' * 1_000_000)\n"
        "print('alive', signal.SIGPIPE in signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.sigpending())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, PY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive False set()\n"), done.stderr


def test_no_descriptor_of_ours_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        assert str(tmp_path / "lock") not in run_command(["sh", "-c", "ls -l /proc/$$/fd"]).stdout


def test_it_runs_in_the_folder_and_environment_asked_for(tmp_path: Path) -> None:
    done = run_command(["/bin/sh", "-c", "pwd; echo $A"], cwd=tmp_path, env={"A": "b"})
    assert done.stdout == f"{tmp_path.resolve()}\nb\n"


def test_without_capture_output_is_the_callers(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["sh", "-c", "echo out; echo err >&2"], capture=False).stdout == ""
    with pytest.raises(CommandFailed, match=r"^sh exited with 3$"):
        run_command(["sh", "-c", "exit 3"], capture=False)
    assert capfd.readouterr() == ("out\n", "err\n")


INTERRUPTED = (
    "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from recovery.commands import run_command\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(99))\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell starts its background jobs without it
    "try: run_command(['bash', '-c', sys.argv[3], sys.argv[2]], grace=float(sys.argv[4]))\n"
    "except KeyboardInterrupt: print('interrupted', flush=True); sys.exit(77)\n"
)


def interrupted(pids: Path, script: str, grace: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, PY, str(pids), script, str(grace)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 77), (signal.SIGTERM, 99)])
def test_ctrl_c_and_any_other_exception_end_the_group_and_pass(tmp_path: Path, number: int, code: int) -> None:
    pids = tmp_path / "pids"
    with interrupted(pids, "sleep 60 & echo $! >>$0; echo $$ >>$0; wait", 20) as process:
        both = pids_in(pids, 2)
        process.send_signal(number)
        assert process.wait(10) == code
    for pid in both:
        until(lambda pid=pid: is_gone(pid), f"{pid} is gone")  # type: ignore[misc]


def test_a_second_ctrl_c_during_the_grace_kills_at_once(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = "trap 'echo termed >>$0.term' TERM; echo $$ >>$0; while :; do sleep 0.01; done"
    with interrupted(pids, script, 60) as process:
        (pid,) = pids_in(pids, 1)
        process.send_signal(signal.SIGINT)
        until(Path(f"{pids}.term").exists, "TERM has come")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 77
    until(lambda: is_gone(pid), f"{pid} is gone")


def test_an_interrupt_while_the_process_is_being_made_loses_no_child(tmp_path: Path) -> None:
    """An alarm at every moment from before the fork to behind the exec: either nothing runs, or it is ended."""
    pids = tmp_path / "pids"
    run_command(["true"])
    words = ["sh", "-c", "echo $$ >>$0; exec sleep 30", pids]
    for n in range(60):
        with pytest.raises(TaskTimeout, match=r"^Task"):
            run_with_timeout(run_command, (words,), {"grace": 5}, 0.0002 + n * 0.0001)
    for word in pids.read_text().split() if pids.exists() else ():
        assert is_gone(int(word))


def test_a_lost_exit_code_is_never_taken_for_success() -> None:
    """Where SIGCHLD is ignored the kernel throws exit codes away."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(CommandFailed, match="its exit code is lost") as caught:
            run_command(["sh", "-c", "exit 3"])
        assert caught.value.code == 125
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("hide", [True, False])
def test_it_works_in_a_thread_and_without_pidfd(monkeypatch: pytest.MonkeyPatch, hide: bool) -> None:
    if hide:
        monkeypatch.delattr(os, "pidfd_open")
    seen: list[object] = []

    def work() -> None:
        seen.append(run_command(["echo", "hi"]).stdout)
        try:
            run_command(["sleep", "30"], timeout=0.1)
        except TaskTimeout as error:
            seen.append(error.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert seen == ["hi\n", 124]


@pytest.mark.parametrize("bad", [0, -1, float("nan"), "5"])
def test_bad_limits_are_refused_before_anything_runs(tmp_path: Path, bad: float) -> None:
    calls: list[Callable[[], object]] = [lambda: run_command(["touch", tmp_path / "ran"], timeout=bad)]
    if bad != 0:
        calls.append(lambda: run_command(["touch", tmp_path / "ran"], grace=bad))
    for call in calls:
        with pytest.raises(UsageError):
            call()
    assert not (tmp_path / "ran").exists()
