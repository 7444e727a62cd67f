"""The command line of a verb, taken apart and checked before any file is touched.

Each verb of the helper is a module with a `VERB`, which says how its words are read and what is called with them.
"""

from __future__ import annotations

import os
import sys
import time

from recovery import layout, say, workspace
from recovery.errors import Busy, RecoveryError, UsageError
from recovery.flock import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    from recovery.store import FileStore
    from recovery.verbs import Result

_STAMP = "%Y-%m-%dT%H:%M:%SZ"
#: What a wrapper answers, as timeout(1) does, where it is its own work that failed and not the command.
WRAPPER_FAILED = 125

_COMMON = {
    "-C": "root=",
    "--json": "json",
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
}


class Verb:
    """What the helper knows of a verb.

    options  by their words, beside those that all verbs have; "name=" for one with a value, "name=*" for one that may
             be given again (a list), "name=?" for one whose value may be empty.  As `Request.options`.
    parse    from the request to the arguments of the call, a list; UsageError (64).
    call     does it, with the workspace's store (None without `in_root`); what it raises may be tried again.
    of_task  the arguments begin with agent and task ("": none is named): the documented locks are taken, failed tries
             are logged.
    text     a word behind AGENT TASK that is no option of ours may begin with a dash: it is somebody's text.
    tries    whether a refusal that may pass is tried again within the deadline.
    in_root  whether it works in a workspace.
    by_place only in one that is named or that the current folder leads to: the suite's own is not taken for want of it.
    reads    it changes nothing: what can't be printed was not done.
    wraps    it runs the command behind `--`, whose exit code it passes on: see `helper.own_code` for its own.
    mends    it works where data/config.json is damaged, too.
    refused  what it answers in the place of a refusal, where programs expect codes of their own; None: it refuses.
    indent   before each detail, which are always shown; None: they are shown with -v, together with the workspace.
    """

    __slots__ = (
        "by_place", "call", "in_root", "indent", "mends", "of_task", "options", "parse", "reads", "refused", "text",
        "tries", "wraps",
    )  # fmt: skip

    def __init__(
        self,
        options: dict[str, str],
        parse: Callable[[Request], list[Any]],
        call: Callable[[Any, Request, list[Any]], Result],
        of_task: bool = False,
        text: bool = False,
        tries: bool = True,
        in_root: bool = True,
        reads: bool = False,
        indent: Optional[str] = None,
        wraps: bool = False,
        mends: bool = False,
        refused: Optional[Callable[[Exception], Result]] = None,
        by_place: bool = False,
    ) -> None:
        self.options, self.parse, self.call = options, parse, call
        self.of_task, self.text, self.tries, self.in_root, self.reads = of_task, text, tries, in_root, reads
        self.indent, self.wraps, self.mends, self.refused = indent, wraps, mends, refused
        self.by_place = by_place


class FirstThis(Exception):
    """Raised by what changes a task: `work`, which may take long, is to be done first, while no lock is held."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        super().__init__("work comes first")
        self.work = work


def first_things_first(store: FileStore, call: Callable[[Any], Any]) -> Any:
    """Make a call; where it raises FirstThis do that work and make it again, with what came of it (None at first).

    The deadline is for locks, waits and tries: such work doesn't count.  Busy (75) if it never comes to an end.
    """
    brought = None
    for _ in range(8):
        try:
            return call(brought)
        except FirstThis as first:
            began = time.monotonic()
            try:
                brought = first.work(store)
            finally:
                store.limits.deadline += time.monotonic() - began
    raise Busy("what this waits for kept changing; nothing was changed", hint="run the same command again")


class Request:
    """A command line, taken apart: `options` by name, `words` in order, and the `command` that a wrapper is to run.

    `given` is all of it but the workspace.
    """

    def __init__(self, name: str, verb: Verb, words: list[str]) -> None:
        self.name, self.verb = name, verb
        self.options: dict[str, Any] = {}
        self.words: list[str] = []
        self.command: list[str] = []
        self.brought: Any = None
        self.given = list(words)
        known = {**_COMMON, **verb.options}
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if word == "--":
                if verb.wraps:
                    self.command = rest
                else:
                    self.words += rest
                break
            if word in known and "=" not in known[word]:
                self.options[known[word]] = True
            elif name in known and "=" in known[name] and (word == name or name.startswith("--")):
                if not equals:
                    if not rest or (verb.wraps and rest[0] == "--"):
                        raise UsageError(f"{name} needs a value", hint="see --help")
                    value = rest.pop(0)
                key, _, kind = known[name].partition("=")
                if kind != "?":
                    require_value(name, value)
                if key == "root":
                    at = len(words) - len(rest)
                    self.given[at - 2 : at] = []  # -C DIR, which is never joined by "="
                if kind == "*":
                    self.options.setdefault(key, []).append(value)
                elif key in self.options:
                    raise UsageError(f"{name} is given twice", hint="see --help")
                else:
                    self.options[key] = value
            elif word.startswith("-") and word != "-" and not self._may_be_text():
                raise UsageError(f"unknown option {word[:40]!a}", hint="see --help; a word behind -- is no option")
            else:
                self.words.append(word)

    def _may_be_text(self) -> bool:
        if not self.verb.text or not self.words:
            return False
        return len(self.words) == (1 if "/" in self.words[0] else 2)

    def asked(self, name: str) -> bool:
        """Whether an option without a value was given."""
        return bool(self.options.get(name))

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

    def require_command(self) -> list[str]:
        """The command behind `--`; UsageError (64) if there is none."""
        if not self.command:
            hint = f"recovery {self.name} … -- command [argument…]"
            raise UsageError("there is no command: it stands behind --. Nothing was run.", hint=hint)
        return self.command

    def no_words(self) -> None:
        """UsageError (64) if there are any."""
        if self.words:
            raise UsageError(f"{self.name} takes no {self.words[0][:40]!a}", hint="see --help")


def require_value(name: str, value: str) -> None:
    """UsageError (64) for an empty one: mostly a variable that is not set, never to be taken for no option at all."""
    if not value:
        raise UsageError(f"{name} needs a value, and this one is empty", hint="see --help")


def root_of(request: Request) -> str:
    """The workspace that is meant; NotFound (66)."""
    return workspace.find(request.options.get("root"), os.environ, "" if request.verb.by_place else _suite())


def _suite() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def place_of(root: str) -> str:
    """What a command that is told to people has to say of the workspace: `-C DIR`, quoted for a shell, or "".

    It is "" where the current folder alone leads to it: ORCHESTRATION_ROOT may be set for one command only.
    """
    nothing: dict[str, str] = {}
    for environ in (os.environ, nothing):
        try:
            found = workspace.find(None, environ, _suite())
        except RecoveryError:
            return f"-C {say.quoted(os.path.abspath(root))}"
        if os.path.realpath(found) != os.path.realpath(root):
            return f"-C {say.quoted(os.path.abspath(root))}"
    return ""


#: What the front door is to be called, by PATH and current folder.
_DOORS: dict[tuple[str, str], str] = {}


def front_door() -> str:
    """What is to be typed here for `recovery`: that, if the PATH has it; else the path of this suite's script."""
    path = os.environ.get("PATH", "")
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    if (path, here) not in _DOORS:
        script = f"{_suite()}/bin/recovery"
        on_path = any(folder and os.access(f"{folder}/recovery", os.X_OK) for folder in path.split(":"))
        inside = f"{here.rstrip('/')}/"
        if on_path or not os.access(script, os.X_OK):
            script = "recovery"
        elif here and script.startswith(inside):
            script = f"./{script[len(inside) :]}"
        _DOORS[path, here] = say.quoted(script)
    return _DOORS[path, here]


def in_place(text: str, place: str) -> str:
    """A `recovery …` command that works from here: by its `front_door`, and with where its workspace is (see
    `place_of`) unless it says that.  Any other command stands."""
    name, space, rest = text.partition(" ")
    if not space or name != "recovery":
        return text
    return " ".join([front_door(), *([place] if place and not rest.startswith("-C ") else []), rest])


def plain(*words: str) -> str:
    """A command of the front door for `in_place`, each word quoted as a shell takes it."""
    return " ".join(["recovery", *map(say.quoted, words)])


def command(root: str, *words: str) -> str:
    """A command of the front door for people to run, for this workspace and from here: see `place_of`."""
    return in_place(plain(*words), place_of(root))


def settle(key: str, answer: str = "") -> str:
    """The command, for `in_place`, that settles an idempotency key of which nobody knows: with the one `answer`, or
    with either."""
    option = answer or "--done"
    words = ["once", option, "--", key] if key.startswith("-") else ["once", key, option]
    return plain(*words) + ("" if answer else "  # or --undone")


def settling(root: str, key: str, answer: str = "") -> str:
    """The same, for this workspace and from here."""
    return in_place(settle(key, answer), place_of(root))


def task_of(text: str) -> str:
    """The id in TASK or AGENT/TASK; UsageError (64).  What is kept by task belongs to the id, whoever has it."""
    agent, slash, task = text.rpartition("/")
    if slash:
        layout.require_id("agent", agent)
    return layout.require_id("task", task)


# --- from words to values


def text(word: str) -> str:
    """An argument as text, whatever the locale; bytes that aren't UTF-8 become U+FFFD, which is said."""
    data = os.fsencode(word)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        say.tell("the text is not UTF-8; what can't be read is stored as U+FFFD")
        return data.decode("utf-8", "replace")


def limits_from_environment(command: str) -> Limits:
    """RECOVERY_LOCK_TIMEOUT and RECOVERY_DEADLINE, in seconds or as 90s, 10m, 2h; UsageError (64)."""
    limits = Limits(seconds("RECOVERY_LOCK_TIMEOUT", 30.0), seconds("RECOVERY_DEADLINE", 60.0), command)
    limits.family = "all"
    return limits


def seconds(name: str, default: float) -> float:
    """A duration from the environment, in seconds; see `duration`."""
    value = os.environ.get(name, "")
    return duration(value, name) if value else default


def duration(value: str, name: str, bare: float = 1.0) -> float:
    """Seconds, from `90`, `1.5`, `90s`, `10m`, `2h`, `7d`; a number alone counts `bare` seconds each.

    UsageError (64), which says that it is `name` that was given so.
    """
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(value[-1:], 0)
    number = value[:-1] if unit else value
    if not number.replace(".", "", 1).isdigit() or not number.isascii():
        raise UsageError(f"{name}={value[:40]!a} is not a duration like 90, 10m, 2h or 7d", hint="see --help")
    return float(number) * (unit or bare)


def time_of(value: str, name: str, now: float) -> str:
    """A time (UTC, ISO 8601, Z), from `2h` (before `now`), a day, or ISO 8601, UTC without an offset.

    UsageError (64), which says that it is `name` that was given so.
    """
    is_day = len(value) == 8 and value.isascii() and value.isdigit()
    try:
        if not is_day:
            return time.strftime(_STAMP, time.gmtime(max(now - duration(value, name), 0.0)))
    except (UsageError, OverflowError, ValueError):
        pass
    from datetime import datetime

    text = f"{value[:4]}-{value[4:6]}-{value[6:]}" if is_day else value
    try:
        found = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)
        offset = found.utcoffset()
        return (found if offset is None else found - offset).strftime(_STAMP)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name} {value[:40]!a} is no moment: 2h (ago), 2026-11-25, 2026-11-25T08:00:00Z", hint="see --help"
        ) from None


def whole_number(name: str, value: str, most: int = 9999) -> int:
    """A number from 1 to `most`; UsageError (64), which says that it is `name` that was given so."""
    if not (value.isascii() and value.isdigit()) or not 1 <= int(value[:9]) <= most:
        raise UsageError(f"{name}={value[:40]!a} is not a number from 1 to {most}")
    return int(value)


def require_python_311(what: str) -> None:
    """Unavailable (69) on an older Python, before a module is imported that wants a newer one."""
    if sys.hexversion < 0x030B0000:
        from recovery.errors import Unavailable

        version = ".".join(str(number) for number in sys.version_info[:3])
        raise Unavailable(
            f"{what} needs Python 3.11, this is {version} ({sys.executable}). Nothing changed.",
            hint="name a newer python3 in RECOVERY_PYTHON",
        )
