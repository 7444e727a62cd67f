"""`recovery hook`, against inputs as Claude Code, Codex and Cursor document them: what is refused, what passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recovery import flock, hook, layout, owners, prime, release
from recovery.errors import UsageError
from recovery.hook import answer
from recovery.request import Request
from recovery.torture.scratch import SUITE

COMMON: dict[str, dict[str, Any]] = {
    "claude": {
        "session_id": "00893aaf-19fa-41d2-8238-13269b9b3ca0",
        "transcript_path": "/home/me/.claude/projects/x/00893aaf-19fa-41d2-8238-13269b9b3ca0.jsonl",
        "cwd": "ROOT",
        "permission_mode": "default",
    },
    "codex": {
        "session_id": "0199f3b1-7c1e-7b52-a1de-6b0b8f3c2a11",
        "transcript_path": None,
        "cwd": "ROOT",
        "model": "gpt-5.5-codex",
        "permission_mode": "acceptEdits",
        "turn_id": "7",
    },
    "cursor": {
        "conversation_id": "668320d2-2fd8-4888-b33c-2a466fec86e7",
        "generation_id": "490b90b7-a2ce-4c2c-bb76-cb77b125df2f",
        "model": "claude-opus-4-7",
        "cursor_version": "3.8.11",
        "workspace_roots": ["ROOT"],
        "user_email": None,
        "transcript_path": None,
    },
}
OUTBOX, PROGRESS, JOURNAL = "postbox/CC/outbox.json", ".sprint/progress.json", "data/journal"
PATCH = "*** Begin Patch\n*** Update File: src/a.py\n@@\n-a\n+b\n*** {}: {}\n*** End Patch\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose agent CC has a free task, and two that are claimed: one by this session."""
    root = tmp_path / "work space"
    held = {"generation": 3, "state": "held", "kind": "session", "since": "2026-11-25T08:00:00Z", "by": "somebody"}
    tasks = [
        {"task_id": "T-1", "title": "One", "status": "pending"},
        {"task_id": "T-2", "title": "Two", "status": "in_progress", "claim": {**held, "owner": {"session": "mine"}}},
        {"task_id": "T-3", "title": "Three", "status": "in_progress", "claim": {**held, "owner": {"session": "other"}}},
    ]
    (root / "postbox/CC").mkdir(parents=True)
    (root / OUTBOX).write_text(json.dumps({"agent_id": "CC", "tasks": tasks, "history": []}))
    for name in ("RECOVERY_AGENT", "ORCHESTRATION_ROOT", "RECOVERY_CLAIM", "CLAUDE_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECOVERY_SESSION", "mine")
    monkeypatch.chdir(tmp_path)
    return root


def given(program: str, event: str, root: Path, **more: Any) -> dict[str, Any]:
    """One recorded input, in this workspace."""
    entry = {**COMMON[program], "hook_event_name": event, **more}
    return dict(json.loads(json.dumps(entry).replace("ROOT", str(root))))


def tool(program: str, root: Path, path: str, name: str = "Write") -> dict[str, Any]:
    """An input for the edit of a file, as that program says it."""
    event = "preToolUse" if program == "cursor" else "PreToolUse"
    if program == "codex":
        return given(
            program,
            event,
            root,
            tool_name="apply_patch",
            tool_input={"command": PATCH.format("Add File", path)},
            tool_use_id="call_1",
        )
    asked = {"file_path": str(root / path), "content": "x"}
    more = {"cwd": str(root)} if program == "cursor" else {}
    return given(program, event, root, tool_name=name, tool_input=asked, tool_use_id="toolu_01", **more)


def status(root: Path, task: str) -> str:
    entries = json.loads((root / OUTBOX).read_text())["tasks"]
    return str({one["task_id"]: one["status"] for one in entries}[task])


# --- before an edit


@pytest.mark.parametrize(
    "name",
    [
        OUTBOX,
        PROGRESS,
        JOURNAL,
        "data/claims/CC/T-1.g1.lock",
        "data/.commit.lock",
        "data/alerts.json",
        "data/receipts/CC.jsonl",
        "data/tx/x/outbox.json",
        "postbox/CC/outbox.json.backup_T-1",
        "postbox/CC/outbox.json.backup_T-1.2",
        "postbox/CC/.outbox.json.lock",
        "postbox/CC/archive/2026-11.jsonl",
        "postbox/CC/completed/T-1_completion.json",
    ],
)
def test_an_edit_of_what_only_commands_change_is_refused_as_each_program_wants_it(root: Path, name: str) -> None:
    for program in ("claude", "codex"):
        found = answer(program, "PreToolUse", tool(program, root, name))
        assert (found.code, found.out) == (2, "")
        assert found.err.startswith(name)
        assert "recovery " in found.err, "it says what to run"
    found = answer("cursor", "preToolUse", tool("cursor", root, name))
    said = json.loads(found.out)
    assert (found.code, found.err, said["permission"]) == (0, "", "deny")
    assert said["agent_message"].startswith(name)
    assert said["user_message"] == said["agent_message"]


@pytest.mark.parametrize(
    "name", ["Write", "Edit", "MultiEdit", "NotebookEdit", "StrReplace", "Delete", "mcp__fs__write"]
)
def test_whatever_the_tool_that_edits_is_called(root: Path, name: str) -> None:
    entry = tool("claude", root, OUTBOX, name)
    if name == "NotebookEdit":
        entry["tool_input"]["notebook_path"] = entry["tool_input"].pop("file_path")
    assert answer("claude", "PreToolUse", entry).code == 2


@pytest.mark.parametrize(
    "name",
    [
        "src/a.py",
        "postbox/CC/inbox/T-1.md",
        "postbox/CC/notes.md",
        "postbox/README.md",
        "data/config.json",
        "data/measurements.csv",
        "checks.json",
        "other/postbox",
    ],
)
def test_any_other_file_may_be_edited(root: Path, name: str) -> None:
    for program, event in (("claude", "PreToolUse"), ("codex", "PreToolUse"), ("cursor", "preToolUse")):
        found = answer(program, event, tool(program, root, name))
        assert (found.code, found.out, found.err) == (0, "", ""), program


def test_an_outbox_may_be_read(root: Path) -> None:
    assert answer("claude", "PreToolUse", tool("claude", root, OUTBOX, "Read")).code == 0
    shell = given("codex", "PreToolUse", root, tool_name="Bash", tool_input={"command": f"cat {OUTBOX}"})
    assert answer("codex", "PreToolUse", shell).code == 0


def test_no_way_of_writing_the_path_gets_past(root: Path) -> None:
    (root / "link.json").symlink_to(OUTBOX)
    (root.parent / "elsewhere").symlink_to(root)
    for path in (f"./x/../{OUTBOX}", "link.json", f"{root.parent}/elsewhere/{OUTBOX}", f"{root}//{OUTBOX}"):
        entry = tool("claude", root, OUTBOX)
        entry["tool_input"]["file_path"] = path
        assert answer("claude", "PreToolUse", entry).code == 2, path
    for verb in ("Update File", "Delete File", "Move to"):
        entry = given("codex", "PreToolUse", root, tool_name="apply_patch")
        entry["tool_input"] = {"command": PATCH.format(verb, OUTBOX)}
        assert answer("codex", "PreToolUse", entry).code == 2, verb


def test_a_link_before_two_dots_is_read_both_ways(root: Path) -> None:
    """Some programs fold `..` away before they follow links, the kernel follows them first."""
    for target, path in (("postbox/CC/inbox", "l/../outbox.json"), ("docs", f"work space/l/../{OUTBOX}")):
        (root / target).mkdir(exist_ok=True)
        link = (root if "work" in path else root.parent) / "l"
        link.symlink_to(root / target)
        entry = tool("claude", root, OUTBOX)
        entry["tool_input"]["file_path"] = f"{root.parent}/{path}"
        assert answer("claude", "PreToolUse", entry).code == 2, path
    entry["tool_input"]["file_path"] = f"{root.parent}/l/T-1.md"
    assert answer("claude", "PreToolUse", entry).code == 0, "a brief"


def test_a_path_from_home_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    entry = tool("claude", root, OUTBOX)
    for path, code in ((f"~/{root.name}/{OUTBOX}", 2), (f"~/{root.name}/notes.md", 0)):
        entry["tool_input"]["file_path"] = path
        assert answer("claude", "PreToolUse", entry).code == code, path


def test_another_name_of_the_same_file_is_refused_as_that_is(root: Path) -> None:
    (root / PROGRESS).parent.mkdir()
    (root / PROGRESS).write_text("{}")
    for number, name in enumerate((OUTBOX, PROGRESS)):
        for link in (root / f"link-{number}", root.parent / f"elsewhere-{number}"):
            os.link(root / name, link)
            found = answer("claude", "PreToolUse", tool("claude", root, str(link)))
            assert found.code == 2, link
            assert found.err.startswith(name)
    (root / "notes.md").write_text("x")
    os.link(root / "notes.md", root / "more.md")
    assert answer("claude", "PreToolUse", tool("claude", root, "more.md")).code == 0


def test_whatever_the_layout_has_in_data_is_the_suites_own() -> None:
    own = {value for value in vars(layout).values() if isinstance(value, str) and value.startswith("data/")}
    assert own > {layout.ALERTS, layout.TX, layout.JOURNAL}
    assert {name for name in own if not hook.refused(name)} == {layout.CONFIG}


def test_a_file_like_that_outside_of_a_workspace_is_nobodys_business(tmp_path: Path) -> None:
    assert hook.reason_against(tool("claude", tmp_path, "data/journal")) == ""


# --- a session begins


def test_the_tasks_go_into_the_context_when_a_session_begins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_AGENT", "CC")
    for program in ("claude", "codex"):
        for source in ("startup", "resume", "clear", "compact"):
            found = answer(program, "SessionStart", given(program, "SessionStart", root, source=source))
            assert (found.code, found.err) == (0, "")
            assert found.out.startswith("Postbox Recovery: agent CC, 3 open tasks"), (
                "neither { nor [: that would be JSON"
            )
            assert '- T-2 yours "Two"' in found.out
    cursor = given("cursor", "sessionStart", root, session_id="x", is_background_agent=False, composer_mode="agent")
    found = answer("cursor", "sessionStart", cursor)
    assert json.loads(found.out)["additional_context"] == answer("claude", "SessionStart", {}, str(root)).out


def test_an_agent_that_has_no_outbox_yet_is_told_of_the_workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_AGENT", "NEW")
    found = answer("claude", "SessionStart", given("claude", "SessionStart", root, source="startup"))
    assert found.out.startswith("Postbox Recovery: 1 agent;")


def test_a_damaged_outbox_is_said_when_a_session_begins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_AGENT", "CC")
    (root / OUTBOX).write_text('{"tasks": [,]}')
    found = answer("claude", "SessionStart", given("claude", "SessionStart", root, source="startup"))
    assert found.code == 0
    assert found.out.startswith("Postbox Recovery: postbox/CC/outbox.json is damaged")


# --- it stops, it ends


def test_claims_that_are_still_held_are_reminded_of_once(root: Path) -> None:
    entry = given("claude", "Stop", root, stop_hook_active=False)
    found = answer("claude", "Stop", entry)
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("You still hold CC/T-2. Done: recovery complete CC T-2")
    assert "T-3" not in found.err, "that one is somebody else's"
    assert answer("claude", "Stop", entry).code == 0, "the same claim in the same session"
    assert answer("claude", "Stop", {**entry, "session_id": "another"}).code == 2
    assert answer("codex", "Stop", given("codex", "Stop", root, stop_hook_active=False)).code == 2
    cursor = answer("cursor", "stop", given("cursor", "stop", root, status="completed", loop_count=0))
    assert cursor.code == 0
    assert json.loads(cursor.out)["followup_message"].startswith("You still hold CC/T-2.")


@pytest.mark.parametrize(
    ("program", "event", "more"),
    [
        ("claude", "Stop", {"stop_hook_active": True}),
        ("codex", "Stop", {"stop_hook_active": True}),
        ("cursor", "stop", {"status": "completed", "loop_count": 1}),
        ("cursor", "stop", {"status": "aborted", "loop_count": 0}),
    ],
)
def test_a_reminder_never_makes_a_loop(root: Path, program: str, event: str, more: dict[str, Any]) -> None:
    found = answer(program, event, given(program, event, root, **more))
    assert (found.code, found.out, found.err) == (0, "", "")


def test_a_session_without_claims_stops_in_silence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_SESSION", "nobody")
    assert answer("claude", "Stop", given("claude", "Stop", root, stop_hook_active=False)).code == 0
    assert not (root / layout.REMINDED).exists()


def test_what_is_kept_of_reminders_is_bounded_and_may_be_damaged(root: Path) -> None:
    (root / "data").mkdir()
    (root / layout.REMINDED).write_text('{"torn')
    entry = given("claude", "Stop", root, stop_hook_active=False)
    assert answer("claude", "Stop", entry).code == 2
    (root / layout.REMINDED).write_text(json.dumps({f"s-{number}": ["CC/T-9:1"] for number in range(60)}))
    assert answer("claude", "Stop", entry).code == 2
    kept = [*(f"s-{number}" for number in range(11, 60)), entry["session_id"]]
    assert list(json.loads((root / layout.REMINDED).read_text())) == kept


def test_the_claims_of_a_session_are_given_back_at_its_end_and_no_others(root: Path) -> None:
    ended = given("claude", "SessionEnd", root, reason="prompt_input_exit")
    found = answer("claude", "SessionEnd", ended)
    assert (found.code, found.out, found.err) == (0, "", "")
    assert [status(root, task) for task in ("T-1", "T-2", "T-3")] == ["pending", "pending", "in_progress"]
    claim = json.loads((root / OUTBOX).read_text())["tasks"][1]["claim"]
    assert (claim["state"], claim["why"]) == ("released", "its session ended")
    assert answer("claude", "SessionEnd", ended).code == 0, "a second time"


def test_cursor_gives_them_back_too(root: Path) -> None:
    entry = given("cursor", "sessionEnd", root, session_id="x", reason="window_close", duration_ms=45000)
    assert answer("cursor", "sessionEnd", entry).out == ""
    assert status(root, "T-2") == "pending"


@pytest.mark.parametrize("reason", ["clear", "resume"])
def test_a_program_that_goes_on_keeps_its_claims(root: Path, reason: str) -> None:
    answer("claude", "SessionEnd", given("claude", "SessionEnd", root, reason=reason))
    assert status(root, "T-2") == "in_progress"


def test_a_lease_and_a_claim_of_recovery_run_are_not_the_sessions_to_give_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.loads((root / OUTBOX).read_text())
    body["tasks"][1]["claim"]["lease"] = 3600
    body["tasks"][1]["claim"]["lease_until"] = "2999-01-01T00:00:00Z"
    (root / OUTBOX).write_text(json.dumps(body))
    answer("claude", "SessionEnd", given("claude", "SessionEnd", root, reason="other"))
    assert status(root, "T-2") == "in_progress"
    del body["tasks"][1]["claim"]["lease"]
    body["tasks"][1]["claim"].update(kind="run", owner=dict(flock.identity()))
    (root / OUTBOX).write_text(json.dumps(body))
    assert owners.is_caller(body["tasks"][1]["claim"]), "we run below it"
    answer("claude", "SessionEnd", given("claude", "SessionEnd", root, reason="other"))
    assert status(root, "T-2") == "in_progress"
    assert answer("claude", "Stop", given("claude", "Stop", root, stop_hook_active=False)).code == 0


def test_a_shell_that_the_agents_program_keeps_open_is_of_its_session(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claims are in the shell's name, which is no ancestor of the hook but started by the same program."""
    monkeypatch.delenv("RECOVERY_SESSION")
    me = owners.caller(os.environ)[0]
    shell = subprocess.Popen(["sleep", "600"])
    try:
        body = json.loads((root / OUTBOX).read_text())
        owner = {**flock.identity(), "pid": shell.pid, "start": flock.start_time(shell.pid)}
        body["tasks"][1]["claim"]["owner"] = owner
        (root / OUTBOX).write_text(json.dumps(body))
        monkeypatch.setattr(owners, "caller", lambda _: ({**flock.identity()}, "the test"))
        assert me, "the tests run in some session"
        assert answer("claude", "Stop", given("claude", "Stop", root, stop_hook_active=False)).code == 2
        answer("claude", "SessionEnd", given("claude", "SessionEnd", root, reason="other"))
        ended = json.loads((root / OUTBOX).read_text())["tasks"][1]["claim"]
        assert ended["state"] == "released"
        assert "forced_by" not in ended, "it was its own"
        body["tasks"][1]["claim"]["owner"] = {**owner, "start": "1"}
        (root / OUTBOX).write_text(json.dumps(body))
        entry = given("claude", "Stop", root, stop_hook_active=False)
        assert answer("claude", "Stop", {**entry, "session_id": "b"}).code == 0, "another process had that number"
    finally:
        shell.kill()
        shell.wait()


# --- what goes wrong


def test_only_the_programs_and_events_there_are_can_be_named() -> None:
    for words in (
        [],
        ["claude"],
        ["vim", "Stop"],
        ["codex", "SessionEnd"],
        ["cursor", "Stop"],
        ["claude", "Stop", "x"],
    ):
        with pytest.raises(UsageError, match="claude SessionStart"):
            hook.VERB.parse(Request("hook", hook.VERB, words))


def run(root: Path, program: str, event: str, text: bytes, **more: str) -> subprocess.CompletedProcess[bytes]:
    """The hook as the program runs it, in a folder that is no workspace."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SUITE / "py/recovery/__main__.py"), "hook", program, event],
        input=text,
        capture_output=True,
        check=False,
        cwd=root.parent,
        env={"PATH": os.environ["PATH"], "RECOVERY_SESSION": "mine", **more},
    )


def test_a_broken_hook_stops_nobodys_work(root: Path) -> None:
    """Input that is no JSON, no workspace, an outbox that is damaged or a folder, a lock that can't be had."""
    outside = json.dumps(given("claude", "x", root.parent)).encode()
    odd = (b"", b"{", b"[1]", b"\xff\xfe", b'{"tool_input": 3, "tool_name": []}', outside)
    for number, text in enumerate(odd):
        for event in ("PreToolUse", ("Stop", "SessionEnd", "SessionStart")[number % 3]):
            done = run(root, "claude", event, text)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), (event, text)
    (root / OUTBOX).unlink()
    (root / OUTBOX).mkdir()
    (root / "data").mkdir()
    (root / layout.CONFIG).write_text('{"format": 99}')
    for event in ("Stop", "SessionEnd", "SessionStart"):
        done = run(root, "claude", event, json.dumps(given("claude", event, root)).encode())
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), event


def test_an_input_is_answered_once_it_is_whole_whether_or_not_the_pipe_is_closed(root: Path) -> None:
    entry = tool("claude", root, OUTBOX)
    entry["tool_input"]["content"] = "}" * 300_000
    text = json.dumps(entry).encode()
    for behind in (b"", b"\n"):
        with subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUITE / "py/recovery/__main__.py"), "hook", "claude", "PreToolUse"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=root.parent,
        ) as program:
            try:
                assert program.stdin is not None
                for piece in (text[:20], text[20:-1], text[-1:] + behind):
                    program.stdin.write(piece)
                    program.stdin.flush()
                assert program.wait(60) == 2
                assert program.stderr is not None
                assert program.stderr.read().startswith(OUTBOX.encode())
            finally:
                program.kill()


def test_an_input_that_never_comes_to_an_end_passes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    stdin = os.dup(0)
    try:
        os.dup2(ours, 0)
        os.write(theirs, b'{"tool_name": {}')
        monkeypatch.setattr(hook, "_ARRIVES", 0.05)
        result = hook.VERB.call(None, Request("hook", hook.VERB, ["claude", "PreToolUse"]), ["claude", "PreToolUse"])
    finally:
        os.dup2(stdin, 0)
        for fd in (ours, theirs, stdin):
            os.close(fd)
    assert result.data["code"] == 0


def test_a_lock_that_somebody_holds_is_not_waited_for_long_and_in_silence(root: Path) -> None:
    words = ["sh", "-c", 'exec 9>"$1"; flock 9; echo; exec sleep 600', "sh", str(root / layout.lock_of(OUTBOX))]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            entry = given("claude", "SessionEnd", root, reason="other")
            done = run(root, "claude", "SessionEnd", json.dumps(entry).encode())
        finally:
            holder.kill()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert status(root, "T-2") == "in_progress"


def test_a_suite_of_which_a_part_is_missing_stops_nobodys_work(root: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    for folder in ("bin", "lib", "py"):
        shutil.copytree(SUITE / folder, suite / folder, ignore=shutil.ignore_patterns("torture", "__pycache__"))
    entry = json.dumps(tool("claude", root, OUTBOX)).encode()
    for part in ("hook.py", "helper.py", "__main__.py"):
        (suite / "py/recovery" / part).unlink()
        done = subprocess.run(
            [suite / "bin/recovery", "hook", "claude", "PreToolUse"], input=entry, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), part


def test_the_code_that_blocks_reaches_the_program(root: Path) -> None:
    done = run(root, "claude", "PreToolUse", json.dumps(tool("claude", root, OUTBOX)).encode())
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(OUTBOX.encode())


def test_an_error_of_ours_is_no_answer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise AssertionError("a bug")

    monkeypatch.setattr(prime, "prime", broken)
    monkeypatch.setattr(hook, "_given", lambda: given("claude", "SessionStart", root))
    result = hook.VERB.call(None, Request("hook", hook.VERB, ["claude", "SessionStart"]), ["claude", "SessionStart"])
    assert result.data["code"] == 0


def test_a_claim_that_can_not_be_given_back_keeps_nobody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recovery.errors import Busy

    def busy(*_: object, **__: object) -> Any:
        raise Busy("a lock")

    monkeypatch.setattr(release, "release", busy)
    found = answer("claude", "SessionEnd", given("claude", "SessionEnd", root, reason="other"))
    assert found.code == 0
    assert status(root, "T-2") == "in_progress"
