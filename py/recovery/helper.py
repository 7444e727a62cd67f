"""The helper behind the scripts: one verb, one line on stdout, an exit code.

Starting it is most of what the main job costs, so it imports no more than that verb needs.
"""

from __future__ import annotations

import os
import sys
import time

from recovery import jsontext, layout, steps, workspace
from recovery.errors import (
    BUG,
    BY_CODE,
    DENIED,
    IO,
    TRY_AGAIN,
    UNAVAILABLE,
    USAGE,
    RecoveryError,
    UsageError,
    from_os_error,
)
from recovery.flock import Limits
from recovery.retry import next_pause  # not where it is used: an import that fails there would hide the real error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Optional

    from recovery.incidents import Incident
    from recovery.store import FileStore
    from recovery.verbs import Result

_COMMON = {
    "-C": "root=",
    "--json": "json",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
}
_VERBS: dict[str, dict[str, str]] = {
    "complete": {
        **_COMMON,
        "--dry-run": "dry_run",
        "--again": "again",
        "--keep-backup": "keep_backup",
        "-m": "message=",
    },
    "assign": {**_COMMON, "--dry-run": "dry_run", "--again": "again"},
    "rollback": {**_COMMON, "--dry-run": "dry_run"},
    "recover": {**_COMMON, "--dry-run": "dry_run"},
    "status": {**_COMMON, "-a": "agent=", "-s": "status=", "-t": "task=", "-p": "progress"},
    "init": {**_COMMON, "--here": "here", "--dry-run": "dry_run"},
    "clean": {**_COMMON, "--older-than": "older_than=", "--dry-run": "dry_run"},
    "health": {**_COMMON},
}
#: What a monitoring plugin says where it can't look.
UNKNOWN = 3
#: The codes whose tries are worth a line in the recovery log; refusals of bad input change nothing at all.
_LOGGED = (*TRY_AGAIN, UNAVAILABLE, BUG, DENIED)


class Request:
    """A command line, taken apart."""

    def __init__(self, verb: str, words: list[str]) -> None:
        self.verb = verb
        self.options: dict[str, Any] = {}
        self.words: list[str] = []
        known = _VERBS[verb]
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if word == "--":
                self.words += rest
                break
            if word in known and not known[word].endswith("="):
                self.options[known[word]] = True
            elif name in known and known[name].endswith("=") and (word == name or name.startswith("--")):
                if not equals:
                    if not rest:
                        raise UsageError(f"{name} needs a value", hint="see --help")
                    value = rest.pop(0)
                if known[name][:-1] in self.options:
                    raise UsageError(f"{name} is given twice", hint="see --help")
                self.options[known[name][:-1]] = value
            elif word.startswith("-") and word != "-" and not self._may_be_text():
                raise UsageError(f"unknown option {word[:40]!a}", hint="see --help; a word behind -- is no option")
            else:
                self.words.append(word)

    def _may_be_text(self) -> bool:
        """A message or title may begin with a dash: behind AGENT TASK what is no option of ours is text."""
        if self.verb not in ("complete", "assign") or not self.words:
            return False
        return len(self.words) == (1 if "/" in self.words[0] else 2)

    def agent_and_task(self, most: int) -> tuple[str, str, list[str]]:
        """AGENT TASK or AGENT/TASK, and at most `most` words behind; UsageError (64)."""
        words = self.words
        if words and "/" in words[0]:
            agent, _, task = words[0].partition("/")
            words = [agent, task, *words[1:]]
        elif os.environ.get("RECOVERY_AGENT") and (len(words) == 1 or (len(words) == 2 and not layout.is_id(words[1]))):
            words = [os.environ["RECOVERY_AGENT"], *words]  # two words: TASK "and a message"
        if len(words) < 2:
            raise UsageError("AGENT and TASK are needed", hint="see --help")
        if len(words) > 2 + most:
            raise UsageError(
                f"too many words: {words[2 + most][:40]!a} … ; put a message or title in quotes", hint="see --help"
            )
        return layout.require_id("agent", words[0]), layout.require_id("task", words[1]), words[2:]


def main(argv: list[str]) -> NoReturn:
    """Run one verb and leave the process with its exit code."""
    _require_streams()
    code = BUG
    try:
        steps.install(os.environ)
        code = _run(argv)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        _tell(f"this is a bug in Postbox Recovery: {type(error).__name__}: {error}")
        if os.environ.get("RECOVERY_DEBUG") == "1":
            sys.excepthook(type(error), error, error.__traceback__)
    steps.at("exit", code)
    os._exit(code)  # nothing is buffered, and tearing the interpreter down would cost a tenth of the whole command


def _require_streams() -> None:
    """A closed stdin, stdout or stderr would be the number of the next file opened: fill the place."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _run(argv: list[str]) -> int:
    verb = argv[0] if argv else ""
    as_json = "--json" in argv
    try:
        if verb not in _VERBS:
            raise UsageError(f"unknown verb {verb[:40]!a}", hint="see `recovery --help`")
        request = Request(verb, argv[1:])
        as_json = bool(request.options.get("json"))
        return _report(_try(request), request)
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else from_os_error(error, verb)
        report_error(refusal, as_json)
        if verb != "health" or refusal.code == USAGE:
            return refusal.code
        if not as_json:
            _write(1, f"RECOVERY UNKNOWN - {refusal}\n")
        return UNKNOWN


def _try(request: Request) -> Result:
    """One verb, as often as it takes, within one deadline."""
    verb = request.verb
    if verb == "init":
        from recovery.init import init

        if len(request.words) > 1:
            raise UsageError(f"init takes one folder, not {request.words[1][:40]!a} too", hint="see --help")
        folder = request.words[0] if request.words else request.options.get("root", "")
        return init(folder, bool(request.options.get("here")), bool(request.options.get("dry_run")))
    call = _parse(request)
    limits = limits_from_environment(" ".join([verb, "/".join(call[:2])]).strip())
    attempts, delay = _whole_number("RECOVERY_MAX_ATTEMPTS", 3), seconds("RECOVERY_RETRY_DELAY", 2.0)
    suite = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    root = workspace.find(request.options.get("root"), os.environ, suite)
    steps.at("begin", f"{verb} in {root}")
    tries = _Tries(attempts, delay, limits.deadline)
    while True:
        try:
            result = _once(request, call, root, limits, tries)
            result.data["root"] = root
            if verb not in ("status", "recover", "health"):
                result.details.append(f"workspace {root}")
            return result
        except RecoveryError as error:
            if tries.pause is None:
                raise
            _tell(f"{error}")
            _tell(f"  try {tries.attempt} of {attempts} ended with {error.code}; again in {tries.pause:.1f} s")
        time.sleep(tries.pause)
        tries.pause = None
        tries.attempt += 1


class _Tries:
    """How far a command has got: which try, the pause before the next (None: there is none), what went wrong so far."""

    def __init__(self, attempts: int, delay: float, deadline: float) -> None:
        self.attempts, self.delay, self.deadline = attempts, delay, deadline
        self.attempt = 1
        self.pause: Optional[float] = None
        self.incident: Optional[Incident] = None


def _once(request: Request, call: list[Any], root: str, limits: Limits, tries: _Tries) -> Result:
    from recovery.store import FileStore

    store = FileStore(root, limits)
    try:
        result = _call(store, request, call)
        if tries.incident is not None:
            _log(store, tries.incident.ended("recovered", store.now(), tries.attempt))
        return result
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else from_os_error(error, request.verb)
        tries.pause = next_pause(refusal, tries.attempt, tries.attempts, tries.delay, tries.deadline)
        try:
            _log_failure(store, request, refusal, tries)
        except (OSError, ImportError) as problem:  # an import is a read too, and must not hide the real error
            store.told.append(f"this could not be logged: {problem}")
        raise refusal from None
    finally:
        if store.escalated:
            try:
                _notify(store)
            except (OSError, ImportError) as problem:
                store.told.append(f"nobody could be told of an escalation: {problem}")
        for line in store.told:
            _tell(line)
        store.close()


def _parse(request: Request) -> list[Any]:
    """The verb's arguments, checked before any file is touched."""
    verb = request.verb
    if verb == "complete":
        agent, task, rest = request.agent_and_task(1)
        if "message" in request.options:
            if rest:
                raise UsageError("the message is given twice")
            rest = [request.options["message"]]
        from recovery.tasks import DEFAULT_MESSAGE

        return [agent, task, _text(rest[0]) if rest else DEFAULT_MESSAGE]
    if verb == "assign":
        agent, task, rest = request.agent_and_task(3)
        if len(rest) < 2:
            raise UsageError("AGENT TASK TITLE PRIORITY are needed", hint="see --help")
        from recovery.tasks import PRIORITIES

        priority = rest[1].upper()
        if priority not in PRIORITIES:
            raise UsageError(f"priority {rest[1][:40]!a} is none of {' '.join(PRIORITIES)}")
        if not rest[0]:
            raise UsageError("the title is empty")
        return [agent, task, _text(rest[0]), priority, _hours(rest[2]) if len(rest) > 2 else None]
    if verb == "rollback":
        agent, task, _ = request.agent_and_task(0)
        return [agent, task]
    if verb == "clean":
        request.options["days"] = _age(request)
        return []
    if verb == "health":
        return request.words
    if request.words:
        raise UsageError(f"{verb} takes no {request.words[0][:40]!a}", hint="see --help")
    for kind in ("agent", "task"):
        if kind in request.options:
            layout.require_id(kind, request.options[kind])
    return []


def _age(request: Request) -> float:
    """Days, from --older-than or the one word there is; UsageError (64), Unavailable (69) on an old Python."""
    if sys.hexversion < 0x030B0000:
        from recovery.errors import Unavailable

        version = ".".join(str(number) for number in sys.version_info[:3])
        raise Unavailable(
            f"cleaning needs Python 3.11, this is {version} ({sys.executable}). Nothing changed.",
            hint="name a newer python3 in RECOVERY_PYTHON",
        )
    from recovery.clean import days

    given = list(request.words)
    if "older_than" in request.options:
        given.append(request.options["older_than"])
    if len(given) > 1:
        raise UsageError(f"one age is enough: {given[1][:40]!a} is too much", hint="see --help")
    return days(given[0] if given else "7d")


def _hours(text: str) -> float:
    whole, dot, part = text.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or not whole or len(text) > 9 or (dot and not part):
        raise UsageError(f"hours {text[:40]!a} is not a positive number")
    if not float(text):
        raise UsageError("hours must be more than 0")
    return float(text)


def _text(word: str) -> str:
    """An argument as text, whatever the locale; bytes that aren't UTF-8 become U+FFFD, which is said."""
    data = os.fsencode(word)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        _tell("the text is not UTF-8; what can't be read is stored as U+FFFD")
        return data.decode("utf-8", "replace")


def limits_from_environment(command: str) -> Limits:
    """RECOVERY_LOCK_TIMEOUT and RECOVERY_DEADLINE, in seconds or as 90s, 10m, 2h; UsageError (64)."""
    limits = Limits(seconds("RECOVERY_LOCK_TIMEOUT", 30.0), seconds("RECOVERY_DEADLINE", 60.0), command)
    limits.family = "all"
    return limits


def seconds(name: str, default: float) -> float:
    """A duration from the environment, in seconds; see `duration`."""
    text = os.environ.get(name, "")
    return duration(text, name) if text else default


def duration(text: str, name: str, bare: float = 1.0) -> float:
    """Seconds, from `90`, `1.5`, `90s`, `10m`, `2h`, `7d`; a number alone counts `bare` seconds each.

    UsageError (64), which says that it is `name` that was given so.
    """
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not number.replace(".", "", 1).isdigit() or not number.isascii():
        raise UsageError(f"{name}={text[:40]!a} is not a duration like 90, 10m, 2h or 7d", hint="see --help")
    return float(number) * (unit or bare)


def _whole_number(name: str, default: int) -> int:
    text = os.environ.get(name, "") or str(default)
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 9999:
        raise UsageError(f"{name}={text[:40]!a} is not a number from 1 to 9999")
    return int(text)


def _call(store: FileStore, request: Request, call: list[Any]) -> Result:
    verb, options = request.verb, request.options
    dry_run = bool(options.get("dry_run"))
    if verb == "status":
        from recovery.status import status

        return status(
            store, options.get("agent"), options.get("status"), options.get("task"), bool(options.get("progress"))
        )
    if verb == "recover":
        from recovery.recover import recover

        return recover(store, dry_run)
    if verb == "health":
        from recovery.health import health

        return health(store, call)
    if verb == "clean":
        from recovery.clean import clean

        return clean(store, options["days"], dry_run)
    courtesy = None
    if not dry_run:
        from recovery.documented import Courtesy

        courtesy = Courtesy(os.environ, call[0], call[1], store.limits)
        if courtesy.warning:
            store.told.append(courtesy.warning)
    try:
        if verb == "rollback":
            from recovery.rollback import rollback

            return rollback(store, call[0], call[1], dry_run)
        again = bool(options.get("again"))
        if verb == "assign":
            from recovery.assign import assign

            agent, task, title, priority, hours = call
            return assign(store, agent, task, title, priority, hours, again=again, dry_run=dry_run)
        from recovery.complete import complete

        agent, task, message = call
        return complete(
            store,
            agent,
            task,
            message,
            again=again,
            keep_backup=bool(options.get("keep_backup")),
            dry_run=dry_run,
        )
    finally:
        if courtesy is not None:
            courtesy.release()


# --- what is said


def _report(result: Result, request: Request) -> int:
    options = request.options
    code = int(result.data.get("code", 0))
    if options.get("json"):
        text = jsontext.dumps(result.data)
    elif options.get("quiet") and (request.verb != "health" or not code):
        return code
    elif options.get("verbose") or request.verb in ("status", "recover"):
        indent = "" if request.verb == "status" else "  "
        text = "\n".join([result.line, *(indent + line for line in result.details)])
    else:
        text = result.line
    try:
        _write(1, text + "\n")
    except OSError as error:
        if request.verb == "status":
            _tell(f"stdout can't be written: {error.strerror}")
            return IO
        _tell(f"stdout can't be written ({error.strerror}); what was done is done: {result.line}")
    return code


def report_error(error: RecoveryError, as_json: bool) -> None:
    if as_json:
        data = {
            "ok": False,
            "code": error.code,
            "error": str(error),
            "hint": error.hint,
            "next": error.hint or ("run the same command again" if error.code in TRY_AGAIN else "see --help"),
        }
        try:
            _write(1, jsontext.dumps(data) + "\n")
        except OSError:
            pass
    _tell(str(error))
    if error.hint:
        _tell(f"  next: {error.hint}")


def _tell(text: str) -> None:
    try:
        _write(2, "recovery: " + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + "\n")
    except OSError:
        pass


def _write(fd: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(fd, data) :]


def _log_failure(store: FileStore, request: Request, error: RecoveryError, tries: _Tries) -> None:
    """A failed try goes to logs/recovery, where the disk and the locks let it; a person is told where one is needed."""
    if error.code not in _LOGGED or request.verb not in ("assign", "complete", "rollback"):
        return
    from recovery import incidents

    agent, task, _ = request.agent_and_task(3)
    now = store.now()
    if tries.pause is not None:
        from recovery import budget

        with _short_wait(store):
            why = budget.spend(store, task)
        if why is not None:
            tries.pause = None
            store.told.append(f"not tried again: {why}")
    if tries.incident is None:
        tries.incident = incidents.Incident(task, now, agent=agent, op=request.verb)
    tries.incident.more["code"] = error.code
    strategy = BY_CODE[error.code]
    outcome = "" if tries.pause is not None else "escalated" if strategy == "ESCALATE" else "failed"
    _log(store, tries.incident.failed(error, strategy, tries.attempt, now, outcome))
    if error.code in (BUG, DENIED):
        from recovery import escalations

        try:
            with _short_wait(store):
                escalations.report(store, task, type(error).__name__, str(error), agent)
        except (RecoveryError, OSError) as problem:
            store.told.append(f"no escalation could be written: {problem}")


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
