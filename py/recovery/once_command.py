"""once: run a command at most once for a key, whatever dies, and repeat what it said; settle what nobody knows."""

from __future__ import annotations

import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, TypeVar

from recovery import commands, jsontext, layout, once, parking, request, say, session, turns
from recovery.errors import Busy, NotFound, RecoveryError, UsageError
from recovery.flock import Limits
from recovery.foreground import Ended, Foreground, Stopped, follow, unwritten
from recovery.request import Request, Verb
from recovery.result import Result
from recovery.session import Session
from recovery.status import plain
from recovery.store import FileStore

T = TypeVar("T")
#: What there is to do about an output that is kept.
_REPEATS = "run the same command again: it repeats that"

#: Bytes of each of a command's outputs that are kept for a repeat, the last ones: twice that, and all of it escaped, is
#: what a record may hold.
MOST = 1 << 18


# --- running


def run_once(asked: Request, key: str) -> Result:
    """Run the command unless the key's was done before; then its output and code come again.

    Exit code 0 is done.  Any other says that it did not happen, and it may be run again (with --keep-failures it is
    done as well).  A signal's death, a time limit, our own death leave unknown whether it took effect: told (70) until
    --verify or a person knows.  A crash at any point leaves the key started, which is that.
    """
    words = asked.require_command()
    timeout = request.duration(asked.options["timeout"], "--timeout") or None if "timeout" in asked.options else None
    out = 2 if asked.asked("json") else 1
    root = request.root_of(asked)
    task = os.environ.get("RECOVERY_TASK", "")
    call = once.Call(_session(root), key, task if layout.is_id(task) else "")
    if call.repeat():
        return _repeated(asked, call, out)
    with Foreground(out=out, keep_out=MOST, keep_err=MOST, apart=True, drain=commands.DRAIN, deaf=True) as place:
        verify = _verifier(place, asked.options["verify"]) if "verify" in asked.options else None
        try:
            if not call.begin(verify):
                return _repeated(asked, call, out)
            assert call.turn is not None
            try:
                call.start()
            except RecoveryError as error:
                raise type(error)(f"{error}. Nothing was run.", hint=error.hint) from None
            try:
                ended = place.run(words, timeout, pass_fds=[call.turn.fd])
            except commands.CommandFailed as error:
                _noted(asked, call, f"{error}. It was not run", call.failed, "--undone")
                raise
            return _judged(asked, call, ended, verify, timeout)
        finally:
            call.release()


def _judged(asked: Request, call: once.Call, ended: Ended, verify: Any, timeout: float | None) -> Result:
    program = os.path.basename(asked.command[0])
    is_unknown = not ended.in_time or ended.returncode < 0 or ended.stopped is not None
    code = 124 if not ended.in_time else ended.stopped.code if ended.stopped is not None else ended.code
    data: dict[str, Any] = {"ok": code == 0, "code": code, "whose": "command", "key": call.key, "changed": True}
    data.update(outcome="done" if not code else "failed", seconds=round(ended.seconds, 3))
    if not ended.in_time or ended.told:
        data["whose"] = "recovery"
    if is_unknown:
        late = f"timed out after {timeout:g} s" if timeout and not ended.in_time else ""
        how = late or (
            f"was {ended.stopped}" if ended.stopped is not None else f"was killed by signal {-ended.returncode}"
        )
        if verify is None:
            data.update(outcome="unknown", error=f"{program} {how}: it may have taken effect")
            data["next"] = request.settling(request.root_of(asked), call.key)
        elif _noted(asked, call, f"{program} {how}", lambda: call.took_effect(verify, how), ""):
            say.tell(f"{program} {how}, but --verify finds that it took effect")
            data.update(ok=True, code=0, whose="recovery", outcome="done")
        else:
            _noted(asked, call, f"{program} {how}, and --verify finds that it had no effect", call.failed, "--undone")
            data["error"] = f"{program} {how}; --verify finds that it had no effect"
    elif code and not asked.asked("keep_failures"):
        _noted(asked, call, f"{program} was run and exited with {code}", call.failed, "--undone")
        data["error"] = f"{program} exited with {code}: it counts as not done, and may be run again"
    else:
        kept = {
            "code": code,
            "cut": ended.out.cut or ended.err.cut,
            **_kept("stdout", ended.out),
            **_kept("stderr", ended.err),
        }
        _noted(
            asked,
            call,
            f"{program} was run and exited with {code}",
            lambda: call.done(kept, f"it exited with {code}; "),
            "--done",
        )
    if ended.unwritten is not None and not data["code"]:
        what = f"{program} was run and exited with 0, and its output is "
        if call.lost:
            how = request.settling(request.root_of(asked), call.key, "--done")
            raise unwritten(ended.unwritten, what + "lost", how)
        raise unwritten(ended.unwritten, what + "kept", _REPEATS)
    if "error" in data and not asked.asked("quiet"):
        say.tell(data["error"])
        if "next" in data:
            say.tell(f"  next: {data['next']}")
    result = Result("", True, data)
    result.then = follow(ended.stopped)
    return result


def _noted(asked: Request, call: once.Call, what: str, note: Callable[[], T], answer: str) -> T:
    """Record how the call ended.  Where that can't be done the refusal says so (125): `what` is known here only, and
    a repeat is told that nobody knows until a person hands it on, with `answer`."""
    try:
        return note()
    except once.OutcomeUnknown:
        raise
    except RecoveryError as error:
        raise RecoveryError(
            f"{what}, but that could not be recorded, nor what it wrote: {error}. A repeat will be refused (70)",
            hint="make room, then: " + request.settling(request.root_of(asked), call.key, answer),
            code=request.WRAPPER_FAILED,
        ) from None


def _kept(name: str, kept: commands.Kept) -> dict[str, str]:
    data = kept.octets()
    try:
        text = data.decode("utf-8")
        if text.isprintable() or all(c.isprintable() or c in "\n\r\t" for c in text):
            return {name: text}
    except UnicodeDecodeError:
        pass
    return {f"{name}_base64": b64encode(data).decode("ascii")}  # JSON would need six bytes for each of some


def _repeated(asked: Request, call: once.Call, out: int) -> Result:
    """What the command wrote, and its code, again; a result of another kind (a program's) is written as JSON."""
    found = call.result
    data: dict[str, Any] = {"ok": True, "code": 0, "whose": "command", "key": call.key, "changed": False}
    data["outcome"] = "repeated"
    if (
        isinstance(found, dict)
        and isinstance(found.get("code"), int)
        and ("stdout" in found or "stdout_base64" in found)
    ):
        data.update(ok=found["code"] == 0, code=found["code"], cut=bool(found.get("cut")))
        if found.get("cut") and not asked.asked("quiet"):
            say.tell(f"of what it wrote only the end was kept, {MOST:,} bytes")
        outputs = {name: _octets(found, name) for name in ("stdout", "stderr")}
    else:
        outputs = {"stdout": (jsontext.dumps(found) + "\n").encode() if found is not None else b""}
    _write(2, outputs.get("stderr", b""))
    problem = _write(out, outputs["stdout"])
    if problem is not None and not data["code"]:
        raise unwritten(problem, f"{plain(call.key)} was done before, and what it wrote is kept", _REPEATS)
    return Result("", False, data)


def _octets(result: dict[str, Any], name: str) -> bytes:
    return b64decode(result[f"{name}_base64"]) if f"{name}_base64" in result else str(result.get(name, "")).encode()


def _write(fd: int, data: bytes) -> OSError | None:
    """Write all of it; else why not."""
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        return error
    return None


def _verifier(place: Foreground, command: str) -> Any:
    """Asks the user's command whether it took effect: 0 yes, 1 no, anything else: it doesn't know either."""

    def verify() -> bool:
        before, place.out = place.out, 2
        try:
            ended = place.run(["sh", "-c", command])
        finally:
            place.out = before
        if ended.stopped is not None:
            raise ended.stopped
        if ended.returncode not in (0, 1):
            raise commands.failed(["the command of --verify"], ended.returncode, ended.err, ended.out, ended.seconds)
        return ended.returncode == 0

    return verify


def _session(root: str) -> Session:
    sys.argv[0] = "recovery"  # what the notes in locks say
    session.warn_on_stderr()
    return Session(root, request.seconds("RECOVERY_LOCK_TIMEOUT", 30.0))


# --- settling


def settle(asked: Request, key: str, done: bool) -> Result:
    """Note a person's answer: whether a call took effect whose process died in it.

    NotFound (66) for a key that isn't there or whose outcome is known, Busy (75) while its call is being made.
    """
    name, shown, word = once.file_of(key), plain(key), "done" if done else "undone"
    root = request.root_of(asked)
    store = FileStore(root, Limits(request.seconds("RECOVERY_LOCK_TIMEOUT", 30.0), command="once"))
    look = request.command(root, "escalations")
    try:
        version = store.read(name)
        if version is None:
            raise NotFound(f"there is no key {shown}. Nothing changed.", hint=look)
        record = once.parse(name, version.text, key)
        if not once.needs_answer(record):
            when = record.get("done_at") or record["started_at"]
            raise NotFound(f"the outcome of {shown} is known: {record['state']} at {when}. Nothing changed.", hint=look)
        who = turns.holder(store, name)
        if who is not None:
            raise Busy(f"the call {shown} is being made by {who}. Nothing changed.", hint="wait for it")
        data: dict[str, Any] = {"ok": True, "code": 0, "changed": False, "key": key, "outcome": word, "root": root}
        if asked.asked("dry_run"):
            return Result(f"would note {shown} as {word}; nothing changed", False, {**data, "dry_run": True})
        if not once.settle(store, _session(root), key, done):
            raise Busy(f"somebody settled {shown} at the same moment", hint=look)
        task = str(record.get("task_id") or "")
        line = f"noted {shown} as {word}"
        data.update(changed=True, task=task)
        if layout.is_id(task) and parking.reason(store, task) is not None:
            data["next"] = request.command(root, "escalations", "clear", task)
            line += f"\n  {task} is still parked; next: {data['next']}"
        return Result(line, True, data)
    finally:
        store.close()


def _parse(asked: Request) -> list[Any]:
    done, undone = asked.asked("done"), asked.asked("undone")
    words = asked.words
    if (done or undone) and not words and len(asked.command) == 1:  # once --done -- -a-key-with-a-dash
        words, asked.command = asked.command, []
    if len(words) != 1:
        raise UsageError("one KEY is needed", hint="see --help")
    if not words[0]:
        raise UsageError("the key is empty", hint="see --help")
    try:
        words[0].encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("the key is not UTF-8", hint="see --help") from None
    if done or undone:
        if done == undone or asked.command:
            raise UsageError("one of --done, --undone and a command behind -- is enough", hint="see --help")
    elif not asked.command:
        raise UsageError("a command behind --, or --done or --undone is needed", hint="see --help")
    return [words[0], done if done or undone else None]


def _call(store: None, asked: Request, call: list[Any]) -> Result:
    key, done = call
    if done is not None:
        return settle(asked, key, done)
    try:
        return run_once(asked, key)
    except (once.OutcomeUnknown, once.ResultLost) as error:
        error.hint = request.settling(request.root_of(asked), key)
        raise
    except Stopped as stopped:  # before the command, or by --verify
        return Result(
            "", False, {"ok": False, "code": stopped.code, "whose": "recovery", "key": key, "outcome": "stopped"}
        )


VERB = Verb(
    {
        "--done": "done",
        "--undone": "undone",
        "--dry-run": "dry_run",
        "--verify": "verify=",
        "--keep-failures": "keep_failures",
        "--timeout": "timeout=",
    },
    _parse,
    _call,
    tries=False,
    in_root=False,
    wraps=True,
)
