"""The helper behind the scripts: one verb, one line on stdout, an exit code.

Starting it is most of what the main job costs, so it imports no more than that verb needs.
"""

from __future__ import annotations

import os
import sys
import time

from recovery import jsontext, request, say, steps
from recovery.errors import (
    BUG,
    BY_CODE,
    DENIED,
    FAILED,
    IO,
    TRY_AGAIN,
    UNAVAILABLE,
    RecoveryError,
    Taken,
    UsageError,
    of_verb,
)
from recovery.flock import Limits
from recovery.request import WRAPPER_FAILED, Request
from recovery.retry import next_pause  # not where it is used: an import that fails there would hide the real error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Optional

    from recovery.incidents import Incident
    from recovery.request import Verb
    from recovery.store import FileStore
    from recovery.verbs import Result

#: The verbs, and the module whose `VERB` each is; MODULE.NAME for another of its names.
VERBS = {
    "archive": "archive",
    "assign": "assign",
    "claim": "claim",
    "clean": "clean",
    "cleanup": "cleanup",
    "complete": "complete",
    "distribute": "distribute",
    "doctor": "doctor",
    "edit": "edit",
    "escalations": "escalations_command",
    "explain": "explain",
    "fail": "fail",
    "health": "health",
    "history": "history",
    "hook": "hook",
    "import": "importing",
    "init": "init",
    "locks": "locks_command",
    "note": "note",
    "once": "once_command",
    "prime": "prime",
    "progress": "rebuild",
    "reassign": "reassign",
    "receipts": "receipts",
    "recover": "recover",
    "release": "release",
    "reopen": "reopen",
    "report": "report",
    "review": "review",
    "rollback": "rollback",
    "run": "run_task",
    "serve": "serve",
    "setup": "setup",
    "start": "start",
    "status": "status",
    "sweep": "sweep",
    "top": "top",
    "trust": "trust",
    "try": "try_command",
    "tx": "tx",
    "undo": "rollback.UNDO",
}
#: Those of them that want Python 3.11, and what a refusal calls them.
NEWER = {
    "clean": "cleaning",
    "once": "running a command once",
    "report": "the report",
    "run": "running a task",
    "serve": "the live report",
    "try": "trying a command",
}
#: The codes whose tries are worth a line in the recovery log; refusals of bad input change nothing at all.
_LOGGED = (*TRY_AGAIN, UNAVAILABLE, BUG, DENIED)


def main(argv: list[str]) -> NoReturn:
    """Run one verb and leave the process with its exit code."""
    require_streams()
    code = BUG
    try:
        steps.install(os.environ)
        code = _run(argv)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if argv[:1] == ["hook"] and os.environ.get("RECOVERY_DEBUG") != "1":
            os._exit(0)  # a broken hook stops nobody's work
        say.tell(f"this is a bug in Postbox Recovery: {type(error).__name__}: {error}")
        if os.environ.get("RECOVERY_DEBUG") == "1":
            sys.excepthook(type(error), error, error.__traceback__)
        code = WRAPPER_FAILED if _wraps(argv) else BUG
        verb = _read(argv)
        if verb is not None and verb.refused is not None:
            code = _answer(verb.refused(RecoveryError(f"this is a bug: {error}")), "--json" in argv)
    steps.at("exit", code)
    os._exit(code)  # nothing is buffered, and tearing the interpreter down would cost a tenth of the whole command


def require_streams() -> None:
    """A closed stdin, stdout or stderr would be the number of the next file opened: fill the place.

    What is written to a stdout that was closed is an error as before, ours or a command's.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_RDWR)


def _run(argv: list[str]) -> int:
    verb = argv[0] if argv else ""
    as_json = "--json" in argv[: argv.index("--") if "--" in argv else None]
    asked: Optional[Request] = None
    try:
        asked = Request(verb, verb_of(verb), argv[1:])
        as_json = asked.asked("json")
        result = _try(asked)
        code = _report(result, asked)
        if result.then is not None:
            result.then()
        return code
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else of_verb(error, verb)
        if asked is not None and as_json:
            refusal.more = {**_root_of(asked), **refusal.more}
        if _wraps(argv):
            return _report_own(refusal, as_json)
        read = _read(argv)
        if read is not None and read.refused is not None:
            _tell(refusal)
            return _answer(read.refused(refusal), as_json)
        report_error(refusal, as_json)
        return refusal.code


def _root_of(asked: Request) -> dict[str, str]:
    """Which workspace was meant, for a refusal; nothing where that can't be told."""
    try:
        return {"root": request.root_of(asked)}
    except (RecoveryError, OSError):
        return {}


def _answer(result: Result, as_json: bool) -> int:
    """A refusal that is the answer."""
    text = say.harmless_json(jsontext.dumps(result.data)) if as_json else say.harmless(result.line)
    return say.answer(text, int(result.data["code"]))


def verb_of(name: str) -> Verb:
    """A verb, its module read; UsageError (64), Unavailable (69) where this Python is too old for it."""
    if name not in VERBS:
        raise UsageError(f"unknown verb {name[:40]!a}", hint="see `recovery --help`")
    if name in NEWER:
        request.require_python_311(NEWER[name])
    module, _, attribute = VERBS[name].partition(".")
    verb: Verb = getattr(__import__(f"recovery.{module}", fromlist=["VERB"]), attribute or "VERB")
    return verb


def _read(argv: list[str]) -> Optional[Verb]:
    """The verb, if its module has come to be read."""
    module, _, attribute = VERBS.get(argv[0] if argv else "", "").partition(".")
    verb: Optional[Verb] = getattr(sys.modules.get("recovery." + module), attribute or "VERB", None)
    return verb


def _wraps(argv: list[str]) -> bool:
    """Whether somebody's command is run by this verb (False if the verb never came to be read)."""
    verb = _read(argv) if "--" in argv[1:] else None
    return verb is not None and verb.wraps


def _report_own(error: RecoveryError, as_json: bool) -> int:
    """A wrapper's own refusal.  Its disk's failures are 125: they must not be taken for the command's."""
    if error.code in (IO, DENIED, FAILED):
        error.code = WRAPPER_FAILED
    report_error(error, as_json, whose="recovery")
    return error.code


def _try(asked: Request) -> Result:
    """One verb, as often as it takes, within one deadline."""
    verb = asked.verb
    call = verb.parse(asked)
    if not verb.in_root:
        return verb.call(None, asked, call)
    limits = request.limits_from_environment(asked.name + (f" {call[0]}/{call[1]}".rstrip("/") if verb.of_task else ""))
    attempts = request.whole_number("RECOVERY_MAX_ATTEMPTS", os.environ.get("RECOVERY_MAX_ATTEMPTS") or "3")
    delay = request.seconds("RECOVERY_RETRY_DELAY", 2.0)
    root = request.root_of(asked)
    steps.at("begin", f"{asked.name} in {root}")
    tries = _Tries(attempts if verb.tries else 1, delay)
    while True:
        try:
            result = _once(asked, call, root, limits, tries)
            result.data["root"] = root
            if not verb.reads and verb.indent is None:
                result.details.append(f"workspace {root}")
            return result
        except RecoveryError as error:
            if tries.pause is None:
                raise
            say.tell(f"{error}")
            say.tell(f"  try {tries.attempt} of {attempts} ended with {error.code}; again in {tries.pause:.1f} s")
        time.sleep(tries.pause)
        tries.pause = None
        tries.attempt += 1


class _Tries:
    """How far a command has got: which try, the pause before the next (None: there is none), what went wrong so far."""

    def __init__(self, attempts: int, delay: float) -> None:
        self.attempts, self.delay = attempts, delay
        self.attempt = 1
        self.pause: Optional[float] = None
        self.incident: Optional[Incident] = None


def _once(asked: Request, call: list[Any], root: str, limits: Limits, tries: _Tries) -> Result:
    from recovery.store import FileStore

    store = FileStore(root, limits, asked.verb.mends)
    try:
        result = _call(store, asked, call)
        if "root" in asked.options and type(result.data.get("next")) is str:
            _put_in_place(result, request.place_of(root))
        if tries.incident is not None:
            _log(store, tries.incident.ended("recovered", store.now(), tries.attempt))
        if store.grown and result.then is None:
            result.then = lambda: _clean_up(root)
        return result
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else of_verb(error, asked.name)
        tries.pause = next_pause(refusal, tries.attempt, tries.attempts, tries.delay, limits.deadline)
        try:
            if asked.verb.of_task:
                _log_failure(store, asked, call[0], call[1], refusal, tries)
        except (OSError, ImportError) as problem:  # an import is a read too, and must not hide the real error
            store.told.append(f"this could not be logged: {problem}")
        if "root" in asked.options and refusal.hint:
            refusal.hint = request.in_place(refusal.hint, request.place_of(root))
        raise refusal from None
    finally:
        if store.escalated:
            try:
                _notify(store)
            except (OSError, ImportError) as problem:
                store.told.append(f"nobody could be told of an escalation: {problem}")
        for line in store.told:
            say.tell(line)
        store.close()


def _put_in_place(result: Result, place: str) -> None:
    """The command to run next says of the workspace what this one's -C did."""
    told = result.data["next"]
    result.data["next"] = following = request.in_place(told, place)
    result.details = [f"next: {following}" if line == f"next: {told}" else line for line in result.details]


def _clean_up(root: str) -> None:
    """Once in some thousand changes, behind the answer: a log has grown long."""
    from recovery import cleanup

    cleanup.light(root)


def _call(store: FileStore, asked: Request, call: list[Any]) -> Result:
    def bringing(brought: Any) -> Result:
        asked.brought = brought
        return _call_locked(store, asked, call)

    result: Result = request.first_things_first(store, bringing)
    return result


def _call_locked(store: FileStore, asked: Request, call: list[Any]) -> Result:
    verb = asked.verb
    if not verb.of_task or asked.asked("dry_run"):
        return verb.call(store, asked, call)
    from recovery.documented import Courtesy

    courtesy = Courtesy(os.environ, call[0], call[1], store.limits)
    if courtesy.warning:
        store.told.append(courtesy.warning)
    try:
        return verb.call(store, asked, call)
    finally:
        courtesy.release()


# --- what is said


def _report(result: Result, asked: Request) -> int:
    code = int(result.data.get("code", 0))
    verb = asked.verb
    if asked.asked("json"):
        text = say.harmless_json(jsontext.dumps(result.data))
    elif asked.asked("quiet"):
        return code
    elif verb.indent is not None or asked.asked("verbose"):
        indent = "  " if verb.indent is None else verb.indent
        text = "\n".join([result.line, *(indent + line for line in result.details)])
    else:
        text = result.line
    text = "\n".join(map(say.harmless, text.split("\n")))
    return say.answer(text, code, "" if verb.reads else result.line) if text else code


def report_error(error: RecoveryError, as_json: bool, **more: str) -> None:
    """Say why not: on stderr, and with `as_json` as one object on stdout, which holds `more` too."""
    if as_json:
        data = {
            "ok": False,
            "code": error.code,
            "error": str(error),
            "hint": error.hint,
            "next": error.hint or ("run the same command again" if error.code in TRY_AGAIN else "see --help"),
            **error.more,
            **more,
        }
        try:
            say.write(1, say.harmless_json(jsontext.dumps(data)) + "\n")
        except OSError:
            pass
    _tell(error)


def _tell(error: RecoveryError) -> None:
    say.tell(str(error))
    if error.hint:
        say.tell(f"  next: {error.hint}")


def _log_failure(store: FileStore, asked: Request, agent: str, task: str, error: RecoveryError, tries: _Tries) -> None:
    """A failed try goes to logs/recovery, where the disk and the locks let it; a person is told where one is needed."""
    if (error.code not in _LOGGED and not error.logged) or isinstance(error, Taken) or not task:
        return
    from recovery import incidents

    now = store.now()
    if tries.pause is not None:
        from recovery import budget

        with _short_wait(store):
            why = budget.spend(store, task)
        if why is not None:
            tries.pause = None
            store.told.append(f"not tried again: {why}")
    if tries.incident is None:
        tries.incident = incidents.Incident(task, now, agent=agent, op=asked.name)
        if sum(map(len, asked.given)) <= _MOST_WORDS and all(map(_is_text, asked.given)):
            tries.incident.more["given"] = asked.given
    tries.incident.more["code"] = error.code
    strategy = BY_CODE.get(error.code, "MANUAL")
    outcome = "" if tries.pause is not None else "escalated" if strategy == "ESCALATE" else error.outcome
    _log(store, tries.incident.failed(error, strategy, tries.attempt, now, outcome))
    if error.code in (BUG, DENIED):
        from recovery import escalations

        try:
            with _short_wait(store):
                escalations.report(store, task, type(error).__name__, str(error), agent)
        except (RecoveryError, OSError) as problem:
            store.told.append(f"no escalation could be written: {problem}")


#: Characters of a command line that are logged with its failure, so that it can be given again.
_MOST_WORDS = 2000


def _is_text(word: str) -> bool:
    try:
        word.encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False


def _notify(store: FileStore) -> None:
    """Tell RECOVERY_NOTIFY_CMD and RECOVERY_NOTIFY_URL, where they are set, of escalations nobody was told of."""
    from recovery import escalations, notify

    notifiers = notify.from_environment(os.environ)
    if notifiers:
        try:
            escalations.deliver(store, notifiers)
        except (RecoveryError, OSError) as problem:
            store.told.append(f"nobody could be told of an escalation: {problem}")


def _log(store: FileStore, entry: dict[str, Any]) -> None:
    from recovery import incidents

    try:
        with _short_wait(store):
            incidents.write(store, entry)
    except (RecoveryError, OSError) as problem:
        store.told.append(f"this could not be logged: {problem}")


class _short_wait:  # noqa: N801 - a with statement's word
    """Log lines don't wait long: who has just been told of a busy lock wants the answer now."""

    def __init__(self, store: FileStore) -> None:
        self.store, self.limits = store, store.limits

    def __enter__(self) -> None:
        self.store.limits = Limits(0.2, 0.2, self.limits.command)

    def __exit__(self, *_: object) -> None:
        self.store.limits = self.limits
