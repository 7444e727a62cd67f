"""trust: a person approves the commands of checks.json; nothing in it is ever run before.

The approval stands in the approving user's own data folder, XDG_DATA_HOME or ~/.local/share, by the path of the
workspace, with the text that was approved.  So it holds against whoever may write into the workspace only, an agent
among them, or a repository that one has just cloned.  It does not hold against whoever may write into that folder or
run programs as that user, and says nothing about what the commands themselves read: `make test` does what the
Makefile says that day.
"""

from __future__ import annotations

import os
import pwd
from stat import S_IMODE, S_ISREG

from recovery import durable, jsontext, layout, say, steps, tasks, workspace
from recovery.checkfile import Checks, together
from recovery.errors import DataError, Denied, NotFound, StorageError, Unavailable, UsageError, from_os_error
from recovery.request import Request, Verb
from recovery.verbs import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Mapping, Optional, Sequence

    from recovery.store import FileStore

FORMAT = 1
#: So much of a hash names a file beyond doubt.
_SHORT = 12
_ASK = "run `recovery trust`: a person looks at it and approves it"


class Approval:
    """What was approved for a workspace: the bytes of checks.json, when, by whom.

    `key` seals the results of checks; it was made with the first approval.
    """

    def __init__(self, text: bytes, when: str, by: str, key: bytes) -> None:
        self.text, self.when, self.by, self.key = text, when, by, key
        self.checks = Checks(text)


def approved(root: str, environ: Mapping[str, str]) -> Optional[Approval]:
    """The approval of a workspace, None if there is none.

    Denied (77) where others may have written it: the file or its folder belongs to neither this user nor root, may be
    written by others, or lies in the workspace.  DataError (65) if it is damaged.
    """
    path = workspace.approval(root, environ)
    if not path:
        return None
    folder = _require_outside(os.path.dirname(path), root)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise from_os_error(error, f"the approval {path} can't be read") from None
    try:
        _require_own(os.stat(folder), folder)
        st = os.fstat(fd)
        _require_own(st, path)
        if not S_ISREG(st.st_mode):
            raise DataError(f"{path} is not a regular file")
        data = durable.read_all(fd, st.st_size)
    finally:
        os.close(fd)
    try:
        found = jsontext.loads(data.decode("utf-8"))
        if found["format"] != FORMAT or found["root"] != os.fsencode(os.path.realpath(root)).decode("latin-1"):
            raise ValueError("it is another's")
        key = bytes.fromhex(found["key"])
        return Approval(found["text"].encode("latin-1"), str(found["approved_at"]), str(found["by"]), key)
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"{path} is damaged: {error}", hint=_ASK) from None


class Demand:
    """The checks that a task needs, by name in order, the approved file that says what they are, the approval's key."""

    def __init__(self, names: Sequence[str], checks: Checks, key: bytes) -> None:
        self.names, self.checks, self.key = names, checks, key


def demanded(store: FileStore, environ: Mapping[str, str], agent: str, named: Sequence[str]) -> Optional[Demand]:
    """What a task has to pass before it counts as completed: what it names, and what is required of its agent.

    None if that is nothing.  Denied (77) if the file that says so is not, or no longer, the approved one; DataError
    (65) if it is damaged, or there is no such check.  What the approved text requires counts even where the file is
    gone or changed, or an agent could get rid of it.
    """
    approval, now = _said(store, environ)
    names = together(named, _required(agent, approval, now))
    if not names:
        return None
    asked = ", ".join(tasks.shown(name, 40) for name in names)
    if now is None and approval is None:
        raise DataError(
            f"the checks {asked} are named, but there is no {layout.CHECKS} that says what they are. Nothing changed.",
            hint=f"write {layout.CHECKS} (recovery trust --help), then `recovery trust`",
        )
    if now is None:
        raise Denied(
            f"{layout.CHECKS}, which was approved, is gone; it says what the checks {asked} are. Nothing changed.",
            hint="put it back, or `recovery trust --revoke`",
        )
    if approval is None or approval.checks.sha256 != now.sha256:
        what = "was never approved" if approval is None else "has changed since it was approved"
        raise Denied(
            f"{layout.CHECKS} {what} by {_user()}: the checks {asked} were not run. Nothing changed.", hint=_ASK
        )
    for name in names:
        if name not in now.checks:
            raise DataError(
                f"there is no check {tasks.quoted(name, 40)} in {layout.CHECKS}. Nothing changed.",
                hint="the checks there: " + (", ".join(now.checks) or "none"),
            )
    return Demand(names, now, approval.key)


def required(store: FileStore, environ: Mapping[str, str], agent: str, other: str) -> list[str]:
    """What is required of an agent and not of the other: by what is approved, and by what stands there now.

    Denied (77) or DataError (65) where that can't be known.
    """
    said = _said(store, environ)
    theirs = _required(other, *said)
    return [name for name in _required(agent, *said) if name not in theirs]


def _said(store: FileStore, environ: Mapping[str, str]) -> tuple[Optional[Approval], Optional[Checks]]:
    text = read(store)
    return approved(store.root.path, environ), Checks(text) if text is not None else None


def _required(agent: str, approval: Optional[Approval], now: Optional[Checks]) -> list[str]:
    by = [approval.checks if approval is not None else None, now]
    return together(*(checks.required_of(agent) for checks in by if checks is not None))


def needed(store: FileStore, environ: Mapping[str, str]) -> Optional[Checks]:
    """The approved checks, for who only wants to know what is required; None where nothing is approved or believed."""
    try:
        approval = approved(store.root.path, environ)
    except (Denied, DataError, StorageError):
        return None
    return approval.checks if approval is not None else None


def read(store: FileStore) -> Optional[bytes]:
    """The bytes of checks.json, None if there is none.  DataError (65) if it is no regular file in the workspace."""
    version = store.read(layout.CHECKS, strict=False)
    return version.text.encode("latin-1") if version is not None else None


# --- where it stands


def _require_outside(folder: str, root: str) -> str:
    if os.path.realpath(folder).startswith(workspace.project_of(root).rstrip("/") + "/"):
        raise Denied(
            f"the approvals in {folder} would lie in the workspace itself, where agents may write",
            hint="name another folder in XDG_DATA_HOME",
        )
    return folder


def _require_own(st: os.stat_result, path: str) -> None:
    if st.st_uid not in (os.geteuid(), 0):
        raise Denied(f"{path} belongs to uid {st.st_uid}: it is not believed", hint=_ASK)
    if S_IMODE(st.st_mode) & 0o022:
        raise Denied(f"{path} may be written by others: it is not believed", hint=f"chmod go-w {path}")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _write(path: str, root: str, text: Optional[bytes], when: str, key: bytes = b"") -> bool:
    """Keep an approval, durably, or with None remove it; whether anything changed.  A crash leaves old or new."""
    folder = os.path.dirname(path)
    if text is None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
    else:
        os.makedirs(folder, 0o700, exist_ok=True)
        _require_own(os.stat(folder), folder)
        entry = {
            "format": FORMAT,
            "root": os.fsencode(os.path.realpath(root)).decode("latin-1"),
            "approved_at": when,
            "by": f"{_user()}@{os.uname().nodename}",
            "key": key.hex(),
            "text": text.decode("latin-1"),
        }
        stage = f"{path}.new"
        fd = os.open(stage, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            durable.write_all(fd, (jsontext.dumps(entry) + "\n").encode("utf-8"))
            os.fsync(fd)
        except OSError:
            os.unlink(stage)
            raise
        finally:
            os.close(fd)
        steps.at("approve", path)
        os.rename(stage, path)
        steps.at("approved", path)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


# --- the verb


def trust(store: FileStore, environ: Mapping[str, str], how: str, named: str = "") -> Result:
    """Show checks.json and what changed in it, and ask whether it is approved.

    how    "ask" on the terminal; "yes": `named` is the hash of what was looked at, or its first 12 digits and more;
           "show" only tells; "revoke" takes the approval back.

    NotFound (66) without checks.json, DataError (65) if it is damaged, UsageError (64) if nobody can be asked or the
    hash is another's, Unavailable (69) if this user has no folder of his own.
    """
    root = store.root.path
    path = workspace.approval(root, environ)
    if not path:
        raise Unavailable(
            f"{_user()} has no home folder to keep an approval in", hint="name a folder of his own in XDG_DATA_HOME"
        )
    if how == "revoke":
        return _revoked(path, root)
    text = read(store)
    if text is None:
        raise NotFound(f"there is no {layout.CHECKS} in {root}", hint="write it; recovery trust --help shows how")
    checks = Checks(text)
    try:
        before = approved(root, environ)
    except (DataError, Denied) as error:
        store.told.append(str(error))
        before = None
    same = before is not None and before.checks.sha256 == checks.sha256
    state = "approved" if same else "changed" if before is not None else "not approved"
    data: dict[str, Any] = {
        "ok": True,
        "code": 0,
        "changed": False,
        "state": state,
        "sha256": checks.sha256,
        "checks": {name: check.said for name, check in checks.checks.items()},
        "required": checks.required,
        **({"approved_at": before.when, "approved_by": before.by} if before is not None else {}),
    }
    if how == "show" or same:
        word = "already approved" if same and how != "show" else state
        by = f" by {before.by} at {before.when}" if before is not None and same else ""
        data["code"] = 0 if same else 1
        data["ok"] = same
        return Result(f"{word}: {layout.CHECKS} {checks.sha256}{by}", False, data, _shown(text, before))
    if how == "yes":
        if len(named) < _SHORT or not checks.sha256.startswith(named.lower()):
            raise UsageError(
                f"{layout.CHECKS} is not {named[:70]!a}. Nothing was approved.",
                hint="look at it (`recovery trust --show`), then give its hash, 12 digits at least",
            )
    elif not _says_yes(text, before, checks):
        raise UsageError("nothing was approved", hint="recovery trust --show")
    try:
        _write(
            _require_outside(os.path.dirname(path), root) and path,
            root,
            text,
            store.now(),
            before.key if before is not None else os.urandom(32),
        )
    except OSError as error:
        raise from_os_error(error, "nothing was approved") from None
    data.update(changed=True, state="approved")
    return Result(f"approved {layout.CHECKS} {checks.sha256} for {_user()}", True, data, [f"kept in {path}"])


def _revoked(path: str, root: str) -> Result:
    try:
        changed = _write(path, root, None, "")
    except OSError as error:
        raise from_os_error(error, "nothing was revoked") from None
    line = "revoked: no check runs here any more" if changed else "there was no approval; nothing changed"
    return Result(line, changed, {"ok": True, "code": 0, "changed": changed, "state": "not approved"})


def _says_yes(text: bytes, before: Optional[Approval], checks: Checks) -> bool:
    if not (os.isatty(0) and os.isatty(2)):
        raise UsageError(
            f"nobody can be asked here: stdin is no terminal. Nothing was approved; {layout.CHECKS} was not run.",
            hint="a person looks at `recovery trust --show`, then gives the hash: recovery trust --yes HASH",
        )
    for line in _shown(text, before):
        say.write(2, line + "\n")
    say.write(2, f"\n{checks.sha256}\nThese commands will run as {_user()}. Approve them? Type yes: ")
    answer = b""
    while not answer.endswith(b"\n"):
        more = os.read(0, 256)
        if not more:
            break
        answer += more
    return answer.strip() == b"yes"


def _shown(text: bytes, before: Optional[Approval]) -> list[str]:
    """The file, line by line, and what changed since it was approved; no escape code reaches the terminal."""
    shown = [say.harmless(line) for line in text.decode("utf-8", "replace").splitlines()]
    if before is not None and before.text != text:
        from recovery import difference

        shown += ["", "What changed since it was approved:", *difference.lines(before.text, text, "approved", "now")]
    return shown


def _parse(request: Request) -> list[Any]:
    request.no_words()
    asked = [how for how in ("show", "revoke") if request.asked(how)] + (["yes"] if "yes" in request.options else [])
    if len(asked) > 1:
        raise UsageError("only one of --show, --revoke, --yes", hint="see --help")
    return [asked[0] if asked else "ask", request.options.get("yes", "")]


VERB = Verb(
    {"--show": "show", "--revoke": "revoke", "--yes": "yes="},
    _parse,
    lambda store, request, call: trust(store, os.environ, *call),
    tries=False,
    indent="  ",
)
