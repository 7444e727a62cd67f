"""Telling people: each escalation goes to the notifiers, once if nothing dies in between.

A notifier is a `Notifier`, or any callable that takes the event.  The event is the escalation's entry (see
`recovery.incidents`) and `file`, its root-relative name ("" if it could not be written), and `root`.  Alerts come with
the same members, see `recovery.alerts`.
"""

from __future__ import annotations

import os
import time

from recovery import jsontext, layout
from recovery.commit import txid_of
from recovery.errors import RecoveryError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Mapping, Optional, Sequence, Union

    from recovery.session import Session
    from recovery.store import Store

    Event = Mapping[str, Any]
    AnyNotifier = Union["Notifier", Callable[[Event], object]]

NOTIFICATIONS = layout.LOGS + "/notifications.jsonl"
#: Seconds for all notifiers together.
WITHIN = 30.0
#: Set for a notifier's command: what it runs of ours tells nobody, or it could go on for ever.
NESTED = "RECOVERY_NOTIFYING"
_SHOWN = 500  # characters of a command's output in a warning
_KEPT = 1 << 16  # bytes of it that are kept


class NotToldError(Exception):
    """A notifier's failure, in words that hold no secret of its configuration."""


class Notifier:
    """Something that tells people.  `timeout` is in seconds; `name` is how warnings call it."""

    name = "notifier"
    timeout = 10.0

    def tell(self, event: Event, within: float) -> None:
        """Tell of `event` within so many seconds; any Exception is a failure."""
        raise NotImplementedError


class LogNotifier(Notifier):
    """A durable line in logs/recovery/notifications.jsonl: `txid`, `told_at`, and the event.

    `where` is a store, or a `recovery.session.Session`.  A crash leaves the line whole, torn (readers pass over it)
    or absent.  Its waits are the store's own: within the lock timeout.
    """

    name = "the notification log"

    def __init__(self, where: Union[Store, Session]) -> None:
        self.where: Any = where

    def tell(self, event: Event, within: float) -> None:
        if hasattr(self.where, "append"):
            self._append(self.where, event)
        else:
            with self.where.store() as store:
                self._append(store, event)

    def _append(self, store: Store, event: Event) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        store.append(NOTIFICATIONS, {**event, "txid": txid_of(now, os.urandom(6).hex()), "told_at": now}, sync=True)


class CommandNotifier(Notifier):
    """Run a command with the event, one JSON object, on its stdin; anything but exit 0 is a failure.

    `command` is a list of words, or a text that is cut into words as a shell would; no shell runs.  After `timeout`
    seconds its process group gets SIGTERM, a second later SIGKILL, both within what `tell` is given.  It inherits no
    descriptor but 0, 1, 2, and RECOVERY_NOTIFYING=1.  UsageError (64) if there are no words in it.
    """

    def __init__(self, command: Union[str, Sequence[str]], timeout: float = 10.0) -> None:
        from recovery.timeouts import require_seconds

        if isinstance(command, str):
            import shlex

            try:
                command = shlex.split(command)
            except ValueError as error:
                raise UsageError(f"a notifier's command can't be cut into words: {error}") from None
        if not command:
            raise UsageError("a notifier's command is empty")
        self.words, self.timeout = list(command), require_seconds(timeout)
        self.name = f"the command {os.path.basename(self.words[0]) or self.words[0]}"

    def tell(self, event: Event, within: float) -> None:
        from recovery.commands import CommandFailed, run_command
        from recovery.timeouts import TaskTimeout

        text = jsontext.dumps(dict(event)) + "\n"
        grace = min(1.0, within / 4)
        environ = {**os.environ, NESTED: "1"}
        try:
            run_command(self.words, min(self.timeout, within - grace), grace, env=environ, input=text, most=_KEPT)
        except (CommandFailed, TaskTimeout) as error:
            how = "took too long and was ended" if isinstance(error, TaskTimeout) else f"failed with {error.code}"
            if getattr(error, "returncode", 0) in (126, 127):
                how = "can't be run"
            said = " | ".join(part.strip() for part in (error.stderr_tail, error.stdout_tail) if part.strip())
            raise NotToldError(how + (f": {said[-_SHOWN:]}" if said else "")) from None


class WebhookNotifier(Notifier):
    """POST the event as application/json to an http or https URL; any answer but 2xx is a failure.

    No redirect is followed: a POST that comes back as a GET would have told nobody.  `headers` are pairs, for tokens.
    Warnings name the host only, for the rest of such a URL is often the secret.  The environment's proxies are used.
    After `timeout` seconds, name look-up included, it counts as failed, although the host may still get the event.
    UsageError (64) for another scheme or no host.
    """

    def __init__(self, url: str, timeout: float = 10.0, headers: Iterable[tuple[str, str]] = ()) -> None:
        from recovery.posting import host_of
        from recovery.timeouts import require_seconds

        host = host_of(url, "a webhook")
        self.url, self.timeout, self.headers = url, require_seconds(timeout), list(headers)
        self.name = f"the webhook at {host}"

    def tell(self, event: Event, within: float) -> None:
        from recovery.posting import post

        data = jsontext.dumps(dict(event)).encode("utf-8")
        headers = [("Content-Type", "application/json"), *self.headers]
        problem = post(self.url, data, headers, min(self.timeout, within)).result()
        if problem:
            raise NotToldError(problem)


class _Unusable(Notifier):
    """A notifier that the environment asks for and that can't be made: its failure is said when it is needed."""

    def __init__(self, name: str, problem: str) -> None:
        self.name, self.problem = name, problem

    def tell(self, event: Event, within: float) -> None:
        raise NotToldError(self.problem)


def from_environment(environ: Mapping[str, str]) -> list[AnyNotifier]:
    """The notifiers of RECOVERY_NOTIFY_CMD and RECOVERY_NOTIFY_URL, none if RECOVERY_NOTIFYING is set.

    Raises nothing: a value that can't be used becomes a notifier that fails with the reason.
    """
    found: list[AnyNotifier] = []
    if environ.get(NESTED):
        return found
    makers: tuple[tuple[str, Callable[[str], Notifier]], ...] = (
        ("RECOVERY_NOTIFY_CMD", CommandNotifier),
        ("RECOVERY_NOTIFY_URL", WebhookNotifier),
    )
    for variable, make in makers:
        value = environ.get(variable, "")
        if value:
            try:
                found.append(make(value))
            except UsageError as error:
                found.append(_Unusable(variable, str(error)))
    return found


def notify(
    notifiers: Sequence[AnyNotifier],
    event: Event,
    within: float = WITHIN,
    warn: Optional[Callable[[str], object]] = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Tell each notifier, in order; returns a line for each that failed, which `warn` gets too.

    `warn` None is the logger "recovery".  A failure, any Exception, never hides anything and stops nobody behind it.
    `within` is the seconds for all together: who comes after them isn't told, which is a failure.  A plain callable
    can't be cut off.
    """
    problems = []
    until = monotonic() + within
    for notifier in notifiers:
        name = notifier.name if isinstance(notifier, Notifier) else getattr(notifier, "__name__", "a notifier")
        try:
            left = until - monotonic()
            if left <= 0:
                time_ = f"the {within:g} s" if within > 0 else "all the time"
                raise NotToldError(
                    f"not asked, for {time_} for telling people {'were' if within > 0 else 'was'} used up"
                )
            if isinstance(notifier, Notifier):
                notifier.tell(event, left)
            else:
                notifier(event)
        except Exception as error:
            problem = f"{name} was not told of {event.get('file') or event.get('task_id')}: {_words(error)}"
            problems.append(problem)
            _warn(problem, warn)
    return problems


def _words(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # somebody's __str__
        text = ""
    return (
        text if isinstance(error, (NotToldError, RecoveryError)) and text else f"{type(error).__name__} {text}".strip()
    )


def _warn(problem: str, warn: Optional[Callable[[str], object]]) -> None:
    if warn is None:
        import logging

        logging.getLogger("recovery").warning("%s", problem)
    else:
        warn(problem)
