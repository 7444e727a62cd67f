"""edit: an agent's outbox in an editor, and back in one commit, as visudo does it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from fcntl import LOCK_EX, LOCK_NB, flock
from stat import S_ISDIR, S_ISREG

from recovery import claims, durable, jsontext, layout, request, say, tasks, verbs
from recovery.commit import Change, Edit, txid_of
from recovery.durable import Version
from recovery.errors import DataError, RecoveryError, Unavailable, UsageError
from recovery.foreground import Foreground, Stopped, follow
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
    in the file that is named, where it was changed; so it does when a signal ends the editor or us (128 + N).  Progress
    is not changed.  A crash leaves the outbox old or new, and the copy in the folder for temporary files: the next edit
    of this outbox says where, or removes it if nothing had been written.
    """
    name = layout.outbox(agent)
    before = store.read(name, strict=False)
    if before is None:
        raise verbs.unknown(store, agent, "")
    old = before.text.encode("latin-1")
    mark = _mark(store, agent)
    earlier = _left_behind(mark, f"{agent}-outbox.json")
    for path in earlier:
        say.tell(f"the text of an earlier edit of {agent} is still in {path}")
        say.tell(f"  next: {_again(agent, path)}, or remove its folder")
    folder, fd = _private_folder(mark, before)
    copy = os.path.join(folder, f"{agent}-outbox.json")
    keep = False
    try:
        _write(copy, old)
        with Foreground(out=stdout) as place:
            while True:
                try:
                    code = _run_editor(place, copy, fd)
                finally:
                    new = _read(copy)
                    keep = new not in (old, b"")
                if code:
                    where = f" Your text is in {copy}" if keep else ""
                    raise RecoveryError(f"the editor ended with {code}; nothing changed.{where}")
                if new == old:
                    return Result(f"{name} was not changed", False, _data(agent, False))
                keep = True
                try:
                    text, changed = _checked(name, before, new, copy)
                    break
                except DataError as error:
                    if not (os.isatty(0) and os.isatty(2)):
                        raise DataError(
                            f"{error}. Nothing changed; your text is in {copy}",
                            hint=f"mend it, then: {_again(agent, copy)}",
                        ) from None
                    say.tell(f"{error}")
                    answer = _ask(place)
                    if answer != "e":
                        keep = answer == "x"
                        where = f"; your text is in {copy}" if keep else ""
                        return Result(f"{name} was not changed{where}", False, _data(agent, False))
        if dry_run:
            keep = False
            lines = _difference(name, "yours", old, new)
            return Result(f"would change {name}; nothing changed", False, _data(agent, False, dry_run=True), lines)
        try:
            result = _commit(store, agent, before, text, changed, copy, new)
        except RecoveryError as error:
            if copy in str(error):
                raise
            say.tell(f"your text is in {copy}")
            error.hint = f"{error.hint or 'look into that'}, then: {_again(agent, copy)}"
            raise
        keep = False
        for path in earlier:
            if _read(path) == new:
                shutil.rmtree(os.path.dirname(path), ignore_errors=True)
        return result
    except Stopped as stopped:
        where = f"; your text is in {copy}" if keep else ""
        data = _data(agent, False, ok=False, code=stopped.code, error=f"{stopped}; nothing changed{where}")
        data["next"] = _again(agent, copy) if keep else "run the same command again"
        say.tell(data["error"])
        say.tell(f"  next: {data['next']}")
        result = Result("", False, data)
        result.then = follow(stopped)
        return result
    except OSError as error:
        if isinstance(error, RecoveryError):
            raise
        raise Unavailable(f"{copy}: {error.strerror or error}; nothing changed") from None
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _data(agent: str, changed: bool, **more: Any) -> dict[str, Any]:
    return {"ok": True, "code": 0, "changed": changed, "agent": agent, **more}


# --- the copy's folder, and those that dead ones left


def _mark(store: FileStore, agent: str) -> str:
    """The beginning of the folder's name: whose copies of which outbox."""
    whose = os.path.realpath(store.root.path) + "\0" + agent
    return f"recovery-edit-{durable.digest_of(os.fsencode(whose))[:12]}-"


def _private_folder(mark: str, before: Version) -> tuple[str, int]:
    """A new one, and its locked descriptor; the editor inherits that, so that a free lock means that nobody edits."""
    folder = tempfile.mkdtemp(prefix=f"{mark}{before.hash[:12]}-")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    flock(fd, LOCK_EX | LOCK_NB)
    return folder, fd


def _left_behind(mark: str, base: str) -> list[str]:
    """The texts of earlier edits that nobody has open; a folder in which nothing was written is removed."""
    found = []
    above = tempfile.gettempdir()
    for name in sorted(os.listdir(above)):
        folder = os.path.join(above, name)
        if not name.startswith(mark):
            continue
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            st = os.fstat(fd)
            if st.st_uid != os.geteuid() or not S_ISDIR(st.st_mode):
                continue
            flock(fd, LOCK_EX | LOCK_NB)
            path = os.path.join(folder, base)
            text = _read(path)
            if text and durable.digest_of(text)[:12] != name[len(mark) :].partition("-")[0]:
                found.append(path)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # an editor is at it
        finally:
            os.close(fd)
    return found


def _again(agent: str, path: str) -> str:
    return f"EDITOR={shlex.quote('cp ' + shlex.quote(path))} recovery edit {agent}"


def _read(path: str) -> bytes:
    """What stands in a file, nothing if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # an editor may leave what nobody writes to
    except FileNotFoundError:
        return b""
    if not S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise DataError(f"{path} is no regular file any more; nothing changed")
    with open(fd, "rb") as file:
        return file.read()


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _run_editor(place: Foreground, path: str, lock: int) -> int:
    """Run the editor to its end, by which it may take what is typed as it likes; its exit code.

    Stopped: a signal told us to end, or Ctrl-C ended it.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    if not editor:
        found = [name for name in ("sensible-editor", "editor", "vi", "nano") if shutil.which(name)]
        if not found:
            raise Unavailable("there is no editor; nothing changed", hint="name one in VISUAL or EDITOR")
        editor = found[0]
    # a person's own words for a program and its options, as git and visudo take them
    words = ["sh", "-c", editor + ' "$@"', editor, path]
    ended = place.run(words, pass_fds=[lock])
    if ended.stopped is not None:
        raise ended.stopped
    return ended.code


def _ask(place: Foreground) -> str:
    """What is to be done about a text that won't do: e, x or Q."""
    while True:
        say.tell("what now? (e)dit again, e(x)it and keep the text in its file, (Q)uit and throw it away")
        place.wait_for(0)
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
    from recovery import difference

    return difference.lines(old, new, f"{name} (as it was)", f"{name} ({what})")


def _parse(asked: Request) -> list[Any]:
    words = asked.words or ([os.environ["RECOVERY_AGENT"]] if os.environ.get("RECOVERY_AGENT") else [])
    if len(words) != 1:
        raise UsageError("AGENT is needed", hint="see --help")
    return [layout.require_id("agent", words[0])]


def _call(store: FileStore, asked: Request, call: list[Any]) -> Result:
    return edit(store, call[0], asked.asked("dry_run"), 2 if asked.asked("json") else 1)


VERB = Verb({"--dry-run": "dry_run"}, _parse, _call, tries=False)
