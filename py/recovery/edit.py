"""edit: an agent's outbox in an editor, and back in one commit, as visudo does it."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile

from recovery import claims, durable, jsontext, layout, request, say, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.durable import Version
from recovery.errors import DataError, RecoveryError, Unavailable, UsageError
from recovery.foreground import Foreground, Stopped
from recovery.request import Request, Verb
from recovery.store import transact
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from recovery.store import FileStore

#: The task under whose name a change of several is recorded.
SEVERAL = "outbox"


def edit(store: FileStore, agent: str, dry_run: bool = False, stdout: int = 1) -> Result:
    """Let a person edit a private copy of an outbox, look whether it is one, and commit it.

    The editor is VISUAL, EDITOR, or the first there is; no lock is held meanwhile.  A damaged outbox may be opened,
    only a whole one comes back.  Claims are not changed so.  Without a terminal a text that won't do is DataError (65),
    as it is when the outbox was changed meanwhile: nothing is merged, both differences are shown, and the text stays
    in the file that is named.  Progress is not changed.  A crash, or a signal, leaves the outbox old or new, and the
    copy in the folder for temporary files: the next edit names it, or removes it if it holds nothing new.
    """
    name = layout.outbox(agent)
    before = store.read(name, strict=False)
    if before is None:
        raise verbs.unknown(store, agent, "")
    old = before.text.encode("latin-1")
    _look_for_others(store, agent, old)
    folder = tempfile.mkdtemp(prefix=_prefix(store, agent))
    copy = os.path.join(folder, f"{agent}-outbox.json")
    keep = False
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(copy, old)
        while True:
            keep = True
            try:
                _run_editor(copy, stdout, lock)
            except Stopped as stopped:
                keep = _read(copy) != old
                return _cut_off(name, agent, stopped, copy if keep else "")
            new = _read(copy)
            if new == old:
                keep = False
                return Result(f"{name} was not changed", False, _data(agent, False))
            try:
                text, changed = _checked(name, before, new, copy)
                break
            except DataError as error:
                if not (os.isatty(0) and os.isatty(2)):
                    raise DataError(
                        f"{error}. Nothing changed; your text is in {copy}",
                        hint=f"mend it, then: EDITOR='cp {copy}' recovery edit {agent}",
                    ) from None
                say.tell(f"{error}")
                answer = _ask()
                if answer != "e":
                    keep = answer == "x"
                    where = f"; your text is in {copy}" if keep else ""
                    return Result(f"{name} was not changed{where}", False, _data(agent, False))
        if dry_run:
            keep = False
            lines = _difference(name, "yours", old, new)
            return Result(f"would change {name}; nothing changed", False, _data(agent, False, dry_run=True), lines)
        result = _commit(store, agent, before, text, changed, copy, new)
        keep = False
        return result
    except OSError as error:
        if isinstance(error, RecoveryError):
            raise
        raise Unavailable(f"{copy}: {error.strerror or error}; nothing changed") from None
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _prefix(store: FileStore, agent: str) -> str:
    """What the folders of copies of one outbox are called."""
    return f"recovery-edit-{agent}-{durable.digest_of(os.fsencode(os.path.realpath(store.root.path)))[:8]}-"


def _look_for_others(store: FileStore, agent: str, old: bytes) -> None:
    """Copies that earlier edits left: what holds nothing new is removed, the others named, but for those at work."""
    where, prefix = tempfile.gettempdir(), _prefix(store, agent)
    for base in sorted(os.listdir(where)):
        folder = os.path.join(where, base)
        if not base.startswith(prefix):
            continue
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                continue
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            copy = os.path.join(folder, f"{agent}-outbox.json")
            if os.path.lexists(copy) and _read(copy) != old:
                say.tell(f"the text of an earlier edit is in {copy}; remove it when it has served")
            else:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # somebody is at it
        finally:
            os.close(fd)


def _cut_off(name: str, agent: str, stopped: Stopped, copy: str) -> Result:
    where = f"; your text is in {copy}" if copy else ""
    say.tell(f"{stopped}: {name} was not changed{where}")
    return Result("", False, {**_data(agent, False), "ok": False, "code": stopped.code, "text": copy or None})


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _data(agent: str, changed: bool, **more: Any) -> dict[str, Any]:
    return {"ok": True, "code": 0, "changed": changed, "agent": agent, **more}


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _run_editor(path: str, stdout: int, lock: int) -> None:
    """Run the editor to its end, in our place.  Stopped, by a signal; RecoveryError (1): it ended with an error."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    if not editor:
        found = [name for name in ("sensible-editor", "editor", "vi", "nano") if shutil.which(name)]
        if not found:
            raise Unavailable("there is no editor; nothing changed", hint="name one in VISUAL or EDITOR")
        editor = found[0]
    with Foreground(out=stdout) as place:
        # a person's own words for a program and its options, as git and visudo take them
        ended = place.run(["sh", "-c", editor + ' "$@"', editor, path], pass_fds=[lock])
    if ended.stopped is not None:
        raise ended.stopped
    if ended.returncode:
        raise RecoveryError(f"the editor ended with {ended.code}; nothing changed. Your text is in {path}")


def _ask() -> str:
    """What is to be done about a text that won't do: e, x or Q."""
    while True:
        say.tell("what now? (e)dit again, e(x)it and keep the text in its file, (Q)uit and throw it away")
        answer = sys.stdin.readline()
        if answer.strip() in ("e", "x", "Q"):
            return answer.strip()
        if not answer:  # the terminal is gone
            return "x"


def _checked(name: str, before: Version, new: bytes, copy: str) -> tuple[str, str]:
    """The new text, and the one task that it changes (SEVERAL, if it is more); DataError says what is wrong, where."""
    try:
        text = jsontext.decode(new)
    except jsontext.BadJSON as error:
        raise DataError(f"your text {error}") from None
    try:
        now = tasks.Outbox("your text", Version(text, "", os.stat(copy)))
    except DataError as error:
        raise DataError(str(error).replace(" is damaged and was not touched:", ":")) from None
    try:
        was = tasks.Outbox(name, before)
    except DataError:
        return text, SEVERAL
    return text, _changed(was, now)


def _changed(was: tasks.Outbox, now: tasks.Outbox) -> str:
    entries = [{task: box.text[start:end] for task, _, _, start, end in box.tasks if task} for box in (was, now)]
    found = [task for task in {**entries[0], **entries[1]} if entries[0].get(task) != entries[1].get(task)]
    for task in found:
        claim = claims.of(tasks.value(was, task, "claim"))
        if claim is None and (task not in entries[1] or tasks.value(now, task, "claim") is None):
            continue
        if task not in entries[1] and not claims.is_held(claim):
            continue
        if task not in entries[1] or tasks.value(now, task, "claim") != tasks.value(was, task, "claim"):
            raise DataError(f"your text changes the claim of {task}: `recovery claim` and `recovery release` do that")
    return found[0] if len(found) == 1 and layout.is_id(found[0]) else SEVERAL


def _commit(store: FileStore, agent: str, before: Version, text: str, changed: str, copy: str, new: bytes) -> Result:
    name = layout.outbox(agent)
    store.limits = request.limits_from_environment(f"edit {agent}/{changed}")  # the person's time doesn't count
    found: dict[str, Any] = {}

    def plan() -> Optional[Change]:
        current = store.read(name, strict=False)
        if current is None or current.hash != before.hash:
            old = before.text.encode("latin-1")
            theirs = b"" if current is None else current.text.encode("latin-1")
            for line in _difference(name, "now", old, theirs) + _difference(name, "yours", old, new):
                say.write(2, line + "\n")
            raise DataError(
                f"{name} was changed by somebody while you edited it: see both changes above. Nothing changed; your "
                f"text is in {copy}",
                hint=f"recovery edit {agent} once more, and take over from there what you want",
            )
        now = store.now()
        edits = [Edit(name, current, after=jsontext.from_latin(text))]
        change = Change("edit", agent, changed, now, txid_of(now, store.nonce), edits)
        found.update(files=[name], txid=change.txid, time=now)
        return change

    transact(store, [name], plan)
    line = f"changed {name}; 1 file, read back; recovery rollback {agent} {changed} takes it back"
    return Result(line, True, _data(agent, True, task=changed, files=[name], txid=found["txid"]), verbs.wrote(found))


def _difference(name: str, what: str, old: bytes, new: bytes) -> list[str]:
    import difflib

    a, b = (data.decode("utf-8", "backslashreplace").split("\n") for data in (old, new))
    lines = difflib.unified_diff(a, b, f"{name} (as it was)", f"{name} ({what})", lineterm="")
    return [say.harmless(line, "\t") for line in lines]


def _parse(asked: Request) -> list[Any]:
    words = asked.words or ([os.environ["RECOVERY_AGENT"]] if os.environ.get("RECOVERY_AGENT") else [])
    if len(words) != 1:
        raise UsageError("AGENT is needed", hint="see --help")
    return [layout.require_id("agent", words[0])]


def _call(store: FileStore, asked: Request, call: list[Any]) -> Result:
    return edit(store, call[0], asked.asked("dry_run"), 2 if asked.asked("json") else 1)


VERB = Verb({"--dry-run": "dry_run"}, _parse, _call, tries=False)
