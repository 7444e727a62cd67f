"""`recovery setup` changes what it says and nothing else, once, and takes it out again to the byte."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as given_
from hypothesis import settings
from hypothesis import strategies as st

from recovery import hookfile, layout, prime, request, say, textblock
from recovery import setup as verb
from recovery.errors import Busy, DataError, Denied, NotFound
from recovery.flock import Limits
from recovery.hook import EVENTS
from recovery.store import FileStore
from recovery.torture.scratch import SUITE
from recovery.verbs import Result

SETTINGS = [
    None,
    "{}",
    "{}\n",
    "{ }",
    '{"hooks": {}}\n',
    '{ "hooks" : { } }',
    '{"hooks":{"Stop":[],"stop":[\n],"SessionStart":[ ]}}',
    '{"version": 1, "hooks": {"stop": [{"command": "say done"}]}}',
    '{\n\t"größe": 12345678901234567890,\n\t"permissions": {"allow": ["Bash(ls:*)"]}\n}',
    '{\r\n  "model": "opus",\r\n  "hooks": {\r\n    "Stop": [\r\n      {"hooks": []}\r\n    ]\r\n  }\r\n}\r\n',
    '{"hooks": {"PreToolUse": [{"matcher": "Edit|MultiEdit|NotebookEdit|Write", "hooks": [{"command": "lint"}]}]}}',
    '{"hooks": {"Stop": [{"matcher": "*"}, 3, {"hooks": [4]}], "Other": [], "SessionEnd": [{"matcher": "*"}]}}',
]
TEXTS = [None, "", "x", "# Us\n", "# Us\n\n", "a\r\nb\r\n", "a\r\nb", "\r\n", "\ufeffgrün\n", "a\n\n\n"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose workspace is nested in it."""
    (tmp_path / "a project" / ".orchestration" / "postbox").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a project")
    monkeypatch.setenv("PATH", f"{SUITE / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "a project"


@pytest.fixture
def store(project: Path) -> Iterator[FileStore]:
    store = FileStore(str(project / ".orchestration"), Limits(5.0, 5.0, "test"))
    yield store
    store.close()


def tree(project: Path) -> dict[str, bytes | None]:
    """All that is in the project, with its bytes, without the workspace."""
    return {
        str(path.relative_to(project)): path.read_bytes() if path.is_file() else None
        for path in sorted(project.rglob("*"))
        if ".orchestration" not in path.parts
    }


def run(store: FileStore, program: str = "claude", **more: Any) -> Result:
    return verb.setup(store, program, **more)


def given(project: Path, name: str, text: str | None) -> Path:
    path = project / name
    if text is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    return path


# --- settings


@pytest.mark.parametrize("text", SETTINGS)
@pytest.mark.parametrize("program", hookfile.FILES)
def test_the_hooks_are_put_in_once_all_else_stays_and_removal_gives_the_bytes_back(
    store: FileStore, project: Path, program: str, text: str | None
) -> None:
    path = given(project, hookfile.FILES[program], text)
    before = tree(project)
    assert run(store, program).changed
    after = path.read_bytes().decode()
    assert sorted(commands(json.loads(after), program)) == sorted(EVENTS[program])
    assert "\r\n" not in (text or "") or after.count("\r\n") == after.count("\n")
    for piece in ("12345678901234567890", "größe", "Bash(ls:*)", "say done", "lint"):
        assert (piece in after) == (piece in (text or ""))
    whole = tree(project)
    again = run(store, program)
    assert (again.changed, tree(project)) == (False, whole), "the same again changes nothing"
    assert again.line.endswith("nothing changed")
    assert run(store, program, remove=True).changed
    assert tree(project) == before
    assert not (project / ".orchestration" / layout.SETUP).exists()
    assert not run(store, program, remove=True).changed


def commands(body: Any, program: str) -> list[str]:
    """The events for which the program will call us, as it reads its settings."""
    found = []
    for event, groups in body["hooks"].items():
        for group in groups:
            if not isinstance(group, dict):
                continue
            for entry in [group] if program == "cursor" else group.get("hooks", []):
                words = entry.get("command", "") if isinstance(entry, dict) else ""
                if words.endswith(f"recovery hook {program} {event}"):
                    assert "timeout" in entry
                    assert program == "cursor" or entry["type"] == "command"
                    found.append(event)
    return found


@pytest.mark.parametrize("text", [text for text in SETTINGS[:-1] if text is not None])
def test_without_the_note_a_clone_loses_the_same_entries(store: FileStore, project: Path, text: str) -> None:
    path = given(project, hookfile.FILES["claude"], text)
    run(store)
    (project / ".orchestration" / layout.SETUP).unlink()
    run(store, remove=True)
    left = json.loads(path.read_text()) if path.exists() else {}
    before = json.loads(text)
    for body in (left, before):
        body["hooks"] = {event: [one for one in groups if one] for event, groups in body.get("hooks", {}).items()}
        body["hooks"] = {event: groups for event, groups in body["hooks"].items() if groups}
    assert left == before


def test_what_a_person_adds_beside_ours_stays_when_ours_goes(store: FileStore, project: Path) -> None:
    path = given(project, ".claude/settings.json", None)
    run(store)
    body = json.loads(path.read_text())
    body["hooks"]["Stop"][0]["hooks"].append({"type": "command", "command": "say done"})
    body["model"] = "opus"
    path.write_text(json.dumps(body))
    run(store, remove=True)
    kept = {"matcher": "*", "hooks": [{"type": "command", "command": "say done"}]}
    assert json.loads(path.read_text()) == {"hooks": {"Stop": [kept]}, "model": "opus"}


def test_a_hook_that_a_person_has_edited_stays_and_is_said_unless_forced(store: FileStore, project: Path) -> None:
    path = given(project, ".claude/settings.json", None)
    run(store)
    theirs = path.read_text().replace("recovery hook claude Stop", "RECOVERY_AGENT=CC recovery hook claude Stop")
    path.write_text(theirs)
    store.told.clear()
    assert not run(store).changed
    assert store.told == [".claude/settings.json: somebody has edited the hook for Stop; it stays (--force overwrites)"]
    assert run(store, force=True).changed
    assert "RECOVERY_AGENT" not in path.read_text()
    assert sorted(commands(json.loads(path.read_text()), "claude")) == sorted(EVENTS["claude"])


THEIRS = {
    "more is run": ("hook claude Stop", "hook claude Stop; ./my-backup.sh"),
    "another timeout": ('"timeout": 10', '"timeout": 5'),
    "another matcher": ("startup|resume|clear|compact", "startup"),
    "a condition": ('"type": "command"', '"type": "command", "once": true'),
}


@pytest.mark.parametrize("what", THEIRS)
def test_a_hook_that_a_person_has_edited_is_not_taken_out_and_is_named_unless_forced(
    store: FileStore, project: Path, what: str
) -> None:
    path = given(project, ".claude/settings.json", '{"hooks": {}}')
    run(store)
    ours = path.read_text()
    path.write_text(ours.replace(*THEIRS[what], 1))
    event = "Stop" if what == "more is run" else "SessionStart"
    before = entries(path)
    for again in (False, True):
        store.told.clear()
        assert run(store, remove=True).changed != again
        assert entries(path) == {event: before[event]}
        assert store.told == [
            f".claude/settings.json: somebody has edited the hook for {event}; it stays (--force takes it out)"
        ]
    assert run(store, remove=True, force=True).changed
    assert not entries(path), "a file that was there is not removed"
    assert not (project / ".orchestration" / layout.SETUP).exists()


def entries(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()).get("hooks", {}))


def test_a_hook_that_a_person_wrote_before_stays_and_removal_gives_the_bytes_back(
    store: FileStore, project: Path
) -> None:
    theirs = '{"type": "command", "command": "recovery hook claude SessionStart", "timeout": 5}'
    other = '{"hooks": [{"command": "recovery hook claude Stop --mine"}]}'
    text = f'{{"hooks": {{"SessionStart": [{{"hooks": [{theirs}]}}], "PostToolUse": [ {other} ]}}}}'
    path = given(project, ".claude/settings.json", text)
    run(store)
    assert theirs in path.read_text()
    assert other in path.read_text(), "at a moment that is none of ours"
    assert len(commands(json.loads(path.read_text()), "claude")) == 4
    store.told.clear()
    run(store, remove=True)
    assert path.read_text() == text
    assert [line.split("; ")[0].rpartition(" ")[2] for line in store.told] == ["SessionStart", "PostToolUse"]
    run(store, remove=True, force=True)
    assert "recovery" not in path.read_text()


def test_a_suite_that_has_moved_gets_its_new_place_and_stands_there_once(
    store: FileStore, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = given(project, ".claude/settings.json", '{"model": "opus"}\n')
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    run(store)
    script = say.quoted(f"{SUITE}/bin/recovery")
    assert f"[ ! -x {script} ] || {script} hook claude Stop" in path.read_text()
    monkeypatch.setenv("PATH", f"{SUITE / 'bin'}:/usr/bin:/bin")
    run(store)
    assert str(SUITE) not in path.read_text()
    assert sorted(commands(json.loads(path.read_text()), "claude")) == sorted(EVENTS["claude"])
    run(store, remove=True)
    assert path.read_text() == '{"model": "opus"}\n'


def test_a_hook_is_silent_where_the_suite_is_not(tmp_path: Path) -> None:
    for command in (hookfile.command("claude", "Stop", ""), hookfile.command("claude", "Stop", "/no such/recovery")):
        done = subprocess.run(
            ["/bin/sh", "-c", command], check=False, capture_output=True, env={"PATH": "/nowhere"}, cwd=tmp_path
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), command


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{\n  // mine\n  "a": 1\n}', r"line 2, column 3"),
        ('{"a": 1,}', r"line 1, column 9"),
        ("[]", r"line 1, column 1"),
        ("", "is empty"),
        ('{"hooks": []}', r"`hooks` is not an object \(line 1, column 11\)"),
        ('{"hooks": {"Stop": {}}}', r"line 1, column 20"),
        ('{"a": 1, "a": 2}', r"second time"),
    ],
)
def test_damaged_settings_are_refused_with_their_place_and_no_file_is_changed(
    store: FileStore, project: Path, text: str, where: str
) -> None:
    given(project, ".claude/settings.json", text)
    before = tree(project)
    for remove in (False, True):
        with pytest.raises(DataError, match=where):
            run(store, remove=remove)
    assert tree(project) == before
    assert not (project / ".orchestration" / "data").exists()


# --- AGENTS.md and CLAUDE.md


@pytest.mark.parametrize("text", TEXTS)
def test_the_block_is_put_behind_the_text_and_removal_gives_the_bytes_back(
    store: FileStore, project: Path, text: str | None
) -> None:
    path = given(project, "AGENTS.md", text)
    before = tree(project)
    run(store, "agents-md")
    data = path.read_bytes()
    assert data.startswith((text or "").encode())
    lines = data.decode()[len(text or "") :].strip("\r\n").splitlines()
    assert 3 < len(lines) <= 10
    assert (data.count(b"\r\n") == data.count(b"\n")) == ("\r\n" in (text or ""))
    for word in (
        "prime",
        "claim AGENT --next",
        "complete",
        "fail",
        "release",
        "65",
        "66",
        "75",
        "76",
        "Not 0 = not done",
    ):
        assert word in data.decode()
    assert not run(store, "agents-md").changed
    run(store, "agents-md", remove=True)
    assert tree(project) == before


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ("Never delete prod", "Never delete prod\nRun tests first\n"),
        ("a\r\nb", "a\r\nb\r\nRun tests first\n"),
        ("before\n", "before\nRun tests first\n"),
        ("", "Run tests first\n"),
    ],
)
@pytest.mark.parametrize("noted", [True, False])
def test_text_that_comes_behind_the_block_stays_and_is_a_line_of_its_own(
    store: FileStore, project: Path, before: str, left: str, noted: bool
) -> None:
    path = given(project, "AGENTS.md", before)
    run(store, "agents-md")
    path.write_bytes(path.read_bytes() + b"Run tests first\n")
    assert not run(store, "agents-md").changed
    if not noted:
        (project / ".orchestration" / layout.SETUP).unlink()
    run(store, "agents-md", remove=True)
    assert path.read_bytes().decode() == left


def test_an_empty_line_before_the_block_that_is_gone_costs_no_line_end(store: FileStore, project: Path) -> None:
    path = given(project, "AGENTS.md", "before\n")
    run(store, "agents-md")
    path.write_text(path.read_text().replace("\n\n<!--", "\n<!--") + "behind\n")
    run(store, "agents-md", remove=True)
    assert path.read_text() == "before\nbehind\n"


def test_an_older_block_is_brought_up_to_date_where_it_stands(store: FileStore, project: Path) -> None:
    old, _ = textblock.put("before\n", ["what it said once"], "AGENTS.md")
    path = given(project, "AGENTS.md", old + "behind\n")
    assert run(store, "agents-md").changed
    text = path.read_text()
    assert "what it said once" not in text
    assert text.startswith("before\n\n<!--")
    assert text.endswith("-->\nbehind\n")


def test_other_line_ends_are_no_edit(store: FileStore, project: Path) -> None:
    """git's autocrlf does that."""
    path = given(project, "AGENTS.md", "x\n")
    run(store, "agents-md")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert not run(store, "agents-md").changed
    assert run(store, "agents-md", remove=True).changed


def test_a_block_that_a_person_has_edited_is_shown_and_not_overwritten_without_force(
    store: FileStore, project: Path
) -> None:
    path = given(project, "AGENTS.md", "x\n")
    run(store, "agents-md")
    theirs = path.read_text().replace("Take work", "Never take work")
    path.write_text(theirs)
    for remove in (False, True):
        with pytest.raises(DataError, match=r"AGENTS.md:3: somebody has edited") as refusal:
            run(store, "agents-md", remove=remove)
        assert "Never take work" in "\n".join(refusal.value.more["difference"])
        assert path.read_text() == theirs
    run(store, "agents-md", force=True)
    assert "Never take work" not in path.read_text()
    run(store, "agents-md", remove=True)
    assert path.read_text() == "x\n"


def test_two_blocks_are_refused_and_force_keeps_the_first(store: FileStore, project: Path) -> None:
    path = given(project, "AGENTS.md", "x\n")
    run(store, "agents-md")
    once = path.read_text()
    path.write_text(once + "between\n" + once[3:])
    with pytest.raises(DataError, match="2 blocks of recovery's, at lines 3 and 13"):
        run(store, "agents-md")
    run(store, "agents-md", force=True)
    assert path.read_text() == once + "between\n"


@pytest.mark.parametrize("lost", ["begin", "end"])
def test_a_marker_that_stands_alone_is_refused(store: FileStore, project: Path, lost: str) -> None:
    path = given(project, "AGENTS.md", "x\n")
    run(store, "agents-md")
    kept = [line for line in path.read_text().splitlines(keepends=True) if f"postbox-recovery:{lost}" not in line]
    path.write_text("".join(kept))
    for force in (False, True):
        with pytest.raises(DataError, match=r"AGENTS.md:\d+: a marker of recovery's block stands alone"):
            run(store, "agents-md", force=force)


def test_claude_code_gets_the_import_unless_it_is_there_or_the_file_is_the_same(
    store: FileStore, project: Path
) -> None:
    path = given(project, "CLAUDE.md", "# Ours\n")
    run(store)
    assert "\n@AGENTS.md\n" in path.read_text()
    run(store, remove=True)
    assert path.read_text() == "# Ours\n"
    path.write_text("# Ours\n@AGENTS.md\n")
    run(store)
    assert path.read_text() == "# Ours\n@AGENTS.md\n"
    run(store, remove=True)
    path.unlink()
    given(project, "AGENTS.md", "x\n")
    path.symlink_to("AGENTS.md")
    run(store)
    assert path.is_symlink()
    assert path.read_text().count("@AGENTS.md") == 0
    assert path.read_text().count("postbox-recovery:begin") == 1
    run(store, remove=True)
    assert path.read_text() == "x\n"


def test_the_block_goes_with_the_last_program_that_needs_it(store: FileStore, project: Path) -> None:
    for noted in (True, False):
        before = tree(project)
        run(store, "claude")
        run(store, "cursor")
        if not noted:
            (project / ".orchestration" / layout.SETUP).unlink()
        run(store, "claude", remove=True)
        assert "postbox-recovery:begin" in (project / "AGENTS.md").read_text()
        assert not (project / "CLAUDE.md").exists()
        run(store, "cursor", remove=True)
        assert {name for name in tree(project) if not name.startswith(".c")} == set(before)


def test_a_block_that_stays_for_another_program_is_said(store: FileStore, project: Path) -> None:
    for program in ("claude", "agents-md"):
        run(store, program)
    before = tree(project)
    kept = f"in {project}; AGENTS.md keeps our block, for claude;"
    for dry_run, line in (
        (True, f"agents-md would be taken out {kept} no file changed"),
        (False, f"agents-md was taken out {kept} no file changed"),
        (False, f"agents-md is not set up {kept} nothing changed"),
    ):
        assert run(store, "agents-md", remove=True, dry_run=dry_run).line == line
    assert tree(project) == before
    run(store, "cursor")
    line = run(store, remove=True).line
    assert (
        line == f"removed claude in {project}: CLAUDE.md, .claude/settings.json; AGENTS.md keeps our block, for cursor"
    )
    path = project / ".cursor/hooks.json"
    path.write_text(path.read_text().replace("cursor stop", "cursor stop --mine"))
    run(store, "cursor", remove=True)
    line = run(store, "cursor", remove=True).line
    assert line == f"cursor has nothing more to take out without --force in {project}; nothing changed"
    run(store, "cursor", remove=True, force=True)
    assert run(store, "cursor", remove=True).line == f"cursor is not set up in {project}; nothing changed"
    assert tree(project) == {}


# --- files that are not ordinary


def test_a_read_only_file_is_refused_and_no_other_is_changed(store: FileStore, project: Path) -> None:
    path = given(project, "CLAUDE.md", "x\n")
    path.chmod(0o444)
    before = tree(project)
    with pytest.raises(Denied, match=r"CLAUDE\.md is read-only"):
        run(store)
    assert tree(project) == before


def test_a_link_inside_the_project_stays_one_and_one_that_leads_out_is_refused(
    store: FileStore, project: Path, tmp_path: Path
) -> None:
    (project / "docs").mkdir()
    given(project, "docs/agents.md", "x\n").chmod(0o640)
    (project / "AGENTS.md").symlink_to("docs/agents.md")
    run(store, "agents-md")
    assert (project / "AGENTS.md").is_symlink()
    assert "postbox-recovery:begin" in (project / "docs/agents.md").read_text()
    assert stat.S_IMODE((project / "docs/agents.md").stat().st_mode) == 0o640
    run(store, "agents-md", remove=True)
    assert (project / "docs/agents.md").read_text() == "x\n"
    (tmp_path / "mine.md").write_text("x\n")
    (project / "AGENTS.md").unlink()
    (project / "AGENTS.md").symlink_to(tmp_path / "mine.md")
    with pytest.raises(DataError, match="leads out of"):
        run(store, "agents-md")
    assert (tmp_path / "mine.md").read_text() == "x\n"


@pytest.mark.parametrize("name", ["AGENTS.md", ".claude/settings.json"])
def test_a_folder_or_text_that_is_none_is_refused(store: FileStore, project: Path, name: str) -> None:
    given(project, name, "").unlink()
    (project / name).mkdir()
    with pytest.raises(DataError, match="is a folder"):
        run(store)
    (project / name).rmdir()
    (project / name).write_bytes("x".encode("utf-16"))
    before = tree(project)
    with pytest.raises(DataError, match="UTF"):
        run(store)
    assert tree(project) == before


# --- looking, racing, dying


def test_the_difference_is_shown_before_anything_is_written_and_a_dry_run_writes_nothing(
    store: FileStore, project: Path
) -> None:
    given(project, "AGENTS.md", "x\x1b[2J\n")
    before = tree(project)
    shown: list[str] = []
    result = run(store, dry_run=True, show=shown.append)
    assert result.line.startswith("would set up claude in ")
    assert tree(project) == before
    assert not (project / ".orchestration" / "data").exists()

    def show(text: str) -> None:
        assert tree(project) == before
        shown.append(text)

    run(store, show=show)
    assert shown[0] == shown[1]
    for piece in (
        "+++ AGENTS.md",
        "--- /dev/null\n+++ CLAUDE.md\n@@ -0,0 +1,3 @@\n",
        "+@AGENTS.md",
        " x\\x1b[2J",
        "+++ .claude/settings.json",
    ):
        assert piece in shown[0]


@pytest.mark.parametrize("text", [None, "", "x", "a\n\nb\n", "a\r\nb\r\n", "a\r\nb", "grün\n\tx"])
@pytest.mark.parametrize(
    "tool",
    [
        pytest.param(
            "patch -s -p0 --binary", marks=pytest.mark.skipif(not shutil.which("patch"), reason="no patch(1)")
        ),
        "git apply -p0",
    ],
)
def test_what_a_dry_run_shows_is_a_difference_that_patch_and_git_apply(
    store: FileStore, project: Path, tool: str, text: str | None
) -> None:
    for name in ("AGENTS.md", "CLAUDE.md"):
        given(project, name, text)
    given(project, ".claude/settings.json", '{"hooks": {}}')
    for remove in (False, True):
        before = tree(project)
        shown = "".join(f"{line}\n" for line in run(store, dry_run=True, remove=remove).data["difference"])
        run(store, remove=remove)
        after = tree(project)
        undo_to(project, before)
        subprocess.run(shlex.split(tool), input=shown.encode(), check=True)
        assert tree(project) == after


def undo_to(project: Path, before: dict[str, bytes | None]) -> None:
    """Make the project's files what they were."""
    for name in tree(project).keys() - before.keys():
        if (project / name).is_file():
            (project / name).unlink()
    for name, data in before.items():
        if data is not None:
            (project / name).write_bytes(data)


def test_two_at_once_do_not_mix(store: FileStore, project: Path) -> None:
    fd = os.open(project, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        with pytest.raises(Busy, match="another `recovery setup`"):
            run(store)
    finally:
        os.close(fd)
    assert tree(project) == {}


@pytest.mark.parametrize("step", ["stage-written:1", "replace:1", "replaced:1", "replace:2", "replaced:3", "unlink:1"])
def test_killed_anywhere_the_same_command_does_the_rest_and_removal_is_whole(
    store: FileStore, project: Path, step: str
) -> None:
    given(project, "AGENTS.md", "x")
    given(project, ".claude/settings.json", '{"hooks": {}}')
    before = tree(project)
    argv = [sys.executable, "-I", "-S", str(SUITE / "py/recovery/__main__.py"), "setup", "claude"]
    for more in ([], ["--remove"]):
        done = subprocess.run([*argv, *more], check=False, env={**os.environ, "RECOVERY_FAULT": f"{step}=kill"})
        assert done.returncode == (-9 if bool(more) or "unlink" not in step else 0) or (more and "3" in step)
        for name, data in tree(project).items():
            assert (
                data is None
                or name.endswith(".stage")
                or data.startswith(before.get(name) or b"<!--")
                or "json" in name
            )
        run(store, remove=bool(more))
        if more:
            assert tree(project) == before, "to the byte, and no stray file"
        else:
            assert not run(store).changed
    assert not (project / ".orchestration" / layout.SETUP).exists()


def test_a_linked_worktree_is_set_up_itself(
    store: FileStore, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-C", str(project)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run([*git, "worktree", "add", "-q", str(tmp_path / "linked")], check=True, capture_output=True)
    root = str(project / ".orchestration")
    assert verb.project_for(root, False) == str(project)
    monkeypatch.chdir(tmp_path / "linked")
    assert verb.project_for(root, False) == str(tmp_path / "linked")
    assert verb.project_for(root, True) == str(project)
    monkeypatch.chdir("/")
    assert verb.project_for(root, False) == str(project)
    run(store, "cursor", project=str(tmp_path / "linked"))
    assert (tmp_path / "linked/.cursor/hooks.json").exists()
    run(store, "cursor", remove=True, project=str(tmp_path / "linked"))
    assert sorted(path.name for path in (tmp_path / "linked").iterdir()) == [".git"]


def test_outside_of_every_workspace_the_suites_own_is_not_set_up_in_its_place(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tmp_path / "suite"
    (suite / "postbox").mkdir(parents=True)
    (suite / "docs").mkdir()
    monkeypatch.setattr(request, "_suite", lambda: str(suite))
    monkeypatch.delenv("ORCHESTRATION_ROOT", raising=False)

    def root_of(*words: str) -> str:
        return request.root_of(request.Request("setup", verb.VERB, ["claude", *words]))

    for here, root in ((project, project / ".orchestration"), (suite / "docs", suite)):
        monkeypatch.chdir(here)
        assert root_of() == str(root)
    (tmp_path / "no workspace").mkdir()
    monkeypatch.chdir(tmp_path / "no workspace")
    with pytest.raises(NotFound, match="there is no workspace here") as refusal:
        root_of()
    assert refusal.value.hint == "run `recovery init`"
    assert request.root_of(request.Request("prime", prime.VERB, [])) == str(suite)
    assert root_of("-C", str(suite)) == str(suite)
    monkeypatch.setenv("ORCHESTRATION_ROOT", str(suite))
    assert root_of() == str(suite)


# --- whatever stands there

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_entry = st.fixed_dictionaries({}, optional={"command": st.text(max_size=5), "type": st.just("command")})
_group = st.fixed_dictionaries(
    {}, optional={"matcher": st.sampled_from(["*", "Write|Delete", "x"]), "hooks": st.lists(_entry, max_size=2)}
)
_hooks = st.dictionaries(
    st.sampled_from(["Stop", "stop", "SessionStart", "PreToolUse", "Other"]), st.lists(_group | _entry, max_size=3)
)
_settings = st.fixed_dictionaries({}, optional={"hooks": _hooks, "version": st.integers(), "more": _json})


@settings(max_examples=150, deadline=None)
@given_(
    body=_settings,
    indent=st.sampled_from([None, 0, 1, 2, 4, "\t"]),
    tight=st.booleans(),
    ends=st.sampled_from(["", "\n", "\r\n", " \n\n"]),
    program=st.sampled_from(sorted(hookfile.FILES)),
)
def test_any_settings_come_back_to_the_byte(body: Any, indent: Any, tight: bool, ends: str, program: str) -> None:
    text = json.dumps(body, indent=indent, separators=(",", ":") if tight else None, ensure_ascii=False) + ends
    text = (text.replace("\n", "\r\n") if ends == "\r\n" else text).encode("utf-8", "replace").decode("latin-1")
    added, ops, edited = hookfile.put(text, program, "")
    assert ops is not None
    assert not edited
    assert sorted(commands(json.loads(added.encode("latin-1")), program)) == sorted(EVENTS[program])
    assert hookfile.put(added, program, "") == (added, None, [])
    assert hookfile.take(added, program, [ops]) == (text, [])
    left = json.loads(hookfile.take(added, program, [])[0].encode("latin-1"))
    assert {key: value for key, value in left.items() if key not in ("hooks", "version")} == {
        key: value for key, value in json.loads(text.encode("latin-1")).items() if key not in ("hooks", "version")
    }


@settings(max_examples=200, deadline=None)
@given_(text=st.text(alphabet="a \t\r\n<-", max_size=12), lines=st.lists(st.text("ab-", max_size=4), max_size=3))
def test_any_text_comes_back_to_the_byte(text: str, lines: list[str]) -> None:
    added, gap = textblock.put(text, lines, "x")
    assert gap is not None
    assert added.startswith(text)
    assert textblock.put(added, lines, "x") == (added, None)
    assert textblock.take(added, "x", gap) == text
