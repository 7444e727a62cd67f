"""The README tells the truth: its tables are the code's, its examples run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recovery import errors, retry

SUITE = Path(__file__).resolve().parents[2]
README = (SUITE / "README.md").read_text(encoding="utf-8")


def table_after(heading: str) -> list[list[str]]:
    rows = README.split(heading, 1)[1].split("\n|---", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_exit_codes_are_those_of_the_code() -> None:
    told = {int(row[0]): row[2] for row in table_after("### Exit codes")}
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert set(told) == codes
    assert {code for code, again in told.items() if again == "yes"} == set(errors.TRY_AGAIN)
    assert retry.CAP == 60


def test_the_environment_is_that_of_the_help() -> None:
    table = (SUITE / "lib" / "help.sh").read_text().split("<<'TABLE'\n")[1].split("\nTABLE")[0]
    helped = {line.split("|")[0]: line.split("|")[1] for line in table.splitlines()}
    told = {row[0].strip("`"): row[1].strip("`") for row in table_after("### Environment")}
    assert told == {name: default for name, default in helped.items() if name not in ("RECOVERY_DEBUG", "NO_COLOR")}


def test_every_path_that_is_linked_is_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (SUITE / path).exists(), path


BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", README, re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_python_example_runs_and_prints_what_is_said(tmp_path: Path, number: int) -> None:
    code, shown = BLOCKS[number]
    outbox = tmp_path / "postbox" / "CC" / "outbox.json"
    outbox.parent.mkdir(parents=True)
    outbox.write_text('{"tasks": [], "note": "old"}\n')
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SUITE / "py"), "ORCHESTRATION_LOCK_DIR": str(tmp_path / "locks")},
    )
    assert done.returncode == 0, done.stderr
    assert not shown or done.stdout == shown
    if "file_transaction" in code:
        assert outbox.read_text() == '{"tasks": [], "note": "new"}\n'
    assert [path.name for path in tmp_path.rglob("*") if path.name.endswith(".stage")] == []


ONE_LINERS = README.split("## Use it for your own agents", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0].splitlines()


@pytest.fixture
def own_agents(tmp_path: Path) -> dict[str, str]:
    """What the one-liners talk of, and cron's environment."""
    outbox = tmp_path / "postbox" / "CC" / "outbox.json"
    outbox.parent.mkdir(parents=True)
    outbox.write_text('{"tasks": [{"task_id": "T-1", "title": "Test", "status": "pending"}]}\n')
    (tmp_path / "tasks.json").write_text('{"done": 1}\n')
    (tmp_path / "fetch.sh").write_text("#!/bin/sh\necho fetched\n")
    (tmp_path / "agent.sh").write_text("#!/bin/sh\necho did $RECOVERY_AGENT/$RECOVERY_TASK\n")
    for script in ("fetch.sh", "agent.sh"):
        (tmp_path / script).chmod(0o755)
    return {"PATH": f"{SUITE / 'bin'}:/usr/bin:/bin", "ORCHESTRATION_LOCK_DIR": str(tmp_path / "locks")}


def _as_cron_does(line: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env=env,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_the_one_liners_for_own_agents_run_as_written_from_cron_too(tmp_path: Path, own_agents: dict[str, str]) -> None:
    tx, retry_, run = ONE_LINERS
    assert _as_cron_does(tx, tmp_path, own_agents).returncode == 0
    assert json.loads((tmp_path / "tasks.json").read_text()) == {"done": 2}
    done = _as_cron_does(retry_, tmp_path, own_agents)
    assert (done.returncode, done.stdout) == (0, "fetched\n")
    done = _as_cron_does(run, tmp_path, own_agents)
    assert (done.returncode, done.stdout) == (0, "did CC/T-1\n"), done.stderr
    (task,) = json.loads((tmp_path / "postbox" / "CC" / "outbox.json").read_text())["tasks"]
    assert (task["status"], task["completion_message"]) == ("completed", "did CC/T-1")
    assert _as_cron_does(run, tmp_path, own_agents).returncode == 66, "nothing is left"


def test_the_one_liners_keep_what_they_promise_when_it_goes_wrong(tmp_path: Path, own_agents: dict[str, str]) -> None:
    tx, retry_, run = ONE_LINERS
    own_agents |= {"RECOVERY_RETRY_DELAY": "0.01"}
    (tmp_path / "tasks.json").write_text('{"done": "x"}\n')
    assert _as_cron_does(tx, tmp_path, own_agents).returncode == 5  # jq's own
    assert (tmp_path / "tasks.json").read_text() == '{"done": "x"}\n'
    (tmp_path / "fetch.sh").write_text("#!/bin/sh\necho limit, resets 3pm\nexit 7\n")
    assert _as_cron_does(retry_, tmp_path, own_agents).returncode == 7
    assert _as_cron_does(retry_, tmp_path, own_agents).returncode == 69, "for everybody, until three"
    (tmp_path / "agent.sh").write_text("#!/bin/sh\necho broken >&2\nexit 9\n")
    assert _as_cron_does(run, tmp_path, own_agents).returncode == 9
    (task,) = json.loads((tmp_path / "postbox" / "CC" / "outbox.json").read_text())["tasks"]
    assert task["status"] == "failed"
    assert "broken" in task["failure_reason"]


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 4
    assert sum(bool(shown) for _, shown in BLOCKS) >= 1


def test_the_demo_shows_what_the_readme_says() -> None:
    shown = subprocess.run([SUITE / "tests" / "demo.sh"], check=True, capture_output=True, text=True)
    for words in (
        "completed CC/TASK-003 (pending -> completed); 3 files, read back",
        "already completed CC/TASK-003",
        "(killed by signal 9)",
        "unfinished commit: complete CA/TASK-002",
        "progress: total_tasks 3, completed 3, in_progress 0",
        "rolled back CC/TASK-001",
        "nothing to recover",
    ):
        assert words in shown.stdout, words
    assert "recovery: finished `complete CA/TASK-002`" in shown.stderr


def test_the_first_commands_work_in_a_bare_clone(tmp_path: Path) -> None:
    """No venv, no package, a minimal PATH, a space in the path: the first lines of the README."""
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", str(SUITE), str(clone)], check=True)
    commands = re.search(r"```sh\n(.*?)```", README, re.S)
    assert commands is not None
    lines = [line for line in commands[1].splitlines() if line.startswith("./bin/")]
    assert len(lines) == 2
    done = subprocess.run(
        ["sh", "-ec", "\n".join(lines)],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "ORCHESTRATION_LOCK_DIR": str(tmp_path / "locks")},
    )
    assert done.returncode == 0, done.stderr
    expected = README.split("```\nassigned ", 1)[1].split("```", 1)[0]
    assert done.stdout == "assigned " + expected


def test_the_install_block_runs_as_it_stands(tmp_path: Path) -> None:
    """Cloned, demonstrated, installed, found on the PATH, completed on TAB; only `make test` is left out."""
    commands = README.split("## Install", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0]
    lines = [line.split("#")[0].rstrip() for line in commands.splitlines()]
    assert lines[0].startswith("git clone URL ")
    assert "make test" in lines
    lines.remove("make test")
    lines[0] = lines[0].replace("URL", '"$1"')
    lines += ["complete -p recovery", "cd /", "command -v recovery", "recovery --version", "recovery completion bash"]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines), "bash", str(SUITE)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(tmp_path / "a home"),
            "ORCHESTRATION_LOCK_DIR": str(tmp_path / "locks"),
        },
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "a home" / ".local" / "bin" / "recovery") in done.stdout.splitlines()
    assert re.search(r"^complete .*recovery$", done.stdout, re.M), done.stdout


WALK = README.split("## From an empty folder to a checked task", 1)[1].split("```\n", 1)[1].split("```", 1)[0]
_TURN = re.compile(r"^(you|CC|CA)\$ (.+)\n", re.M)
#: What is another each time: by what it is replaced before two runs are compared.
_OTHER = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"\bpid \d+", "pid N"),
    (r"\b[0-9a-f]{40,64}\b", "HASH"),
    (r"after \d+\.\d+ s", "after N s"),
    (r"(made a workspace in \S+) \(\w+\)", r"\1 (FILE SYSTEM)"),
    (r"(approved checks.json HASH) for \S+", r"\1 for USER"),
)


def _without_what_changes(text: str) -> str:
    for pattern, word in _OTHER:
        text = re.sub(pattern, word, text)
    return text


def test_the_walk_through_is_what_happens(tmp_path: Path) -> None:
    """Every command as it stands, in its own terminal's environment; stdout and stderr as they are printed."""
    shop = tmp_path / "shop"
    shop.mkdir()
    common = {"PATH": f"{SUITE / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    common |= {"ORCHESTRATION_LOCK_DIR": str(tmp_path / "locks"), "RECOVERY_RETRY_DELAY": "0.01"}
    turns = _TURN.findall(WALK)
    assert {who for who, _ in turns} == {"you", "CC", "CA"}
    shown = []
    for who, command in turns:
        mine = {} if who == "you" else {"RECOVERY_AGENT": who, "RECOVERY_SESSION": who}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=shop,
            env={**common, **mine},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            process_group=0,
        )
        ended = {0: "", -9: "Killed\n"}.get(done.returncode, f"(exit code {done.returncode})\n")
        shown.append(f"{who}$ {command}\n{done.stdout}{ended}")
    said = "".join(shown).replace(str(tmp_path), "/home/you")
    assert _without_what_changes(said) == _without_what_changes(WALK)
    assert said.count("Killed") == 1
    assert [path for path in shop.rglob("*") if path.name.endswith(".stage")] == []
