"""health_check.sh: is this workspace all right?  For cron and monitoring systems; reads only.

Levels, exit codes and performance data are those of monitoring plugins (monitoring-plugins.org, "Development
Guidelines"): 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; one line that says it all, `|` and the numbers, details below.
"""

from __future__ import annotations

import os
import time

from recovery import request, say
from recovery.errors import DataError, RecoveryError, UsageError, from_os_error
from recovery.health_checks import CHECKS, MEASURES, Finding, Look
from recovery.request import Verb
from recovery.signals import plain as signal
from recovery.thresholds import CRITICAL, LEVELS, UNKNOWN, WARNING, Range, level, number, parse, worst
from recovery.verbs import Result
from recovery.walks import OutOfTime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Optional, Sequence

    from recovery.ping import Ping
    from recovery.request import Request
    from recovery.store import FileStore

    Thresholds = dict[str, tuple[Optional[Range], Optional[Range]]]

#: Of the time limit the part that is kept for telling people, so that checks that hang keep nobody from being told.
_TELLING = 0.25
#: Characters of one check's words in the first line; the details have them all.
_SHOWN = 200


class Asked:
    """What the command line and the environment ask for; UsageError (64)."""

    def __init__(self, asked: Request, environ: Mapping[str, str]) -> None:
        options = asked.options
        skipped = options.get("skip", [])
        for name in [*asked.words, *skipped]:
            if name not in CHECKS:
                raise UsageError(f"there is no check {name[:40]!a}", hint="the checks: " + " ".join(CHECKS))
        self.names = [name for name in CHECKS if name in (asked.words or CHECKS) and name not in skipped]
        if not self.names:
            raise UsageError("every check is skipped", hint="the checks: " + " ".join(CHECKS))
        self.thresholds = thresholds(
            _pairs(environ, "RECOVERY_HEALTH_WARN") + [("--warn", one) for one in options.get("warn", [])],
            _pairs(environ, "RECOVERY_HEALTH_CRIT") + [("--crit", one) for one in options.get("crit", [])],
        )
        window = options.get("window") or environ.get("RECOVERY_HEALTH_WINDOW") or "24h"
        self.window = request.duration(window, "--window" if options.get("window") else "RECOVERY_HEALTH_WINDOW")
        if not 60 <= self.window <= 366 * 86400:
            raise UsageError(f"a window of {window} is none from 1m to 366d", hint="see --help")
        timeout = options.get("timeout")
        self.timeout = request.duration(timeout, "--timeout") if timeout else request.seconds("RECOVERY_DEADLINE", 60.0)
        if self.timeout <= 0:
            raise UsageError("a timeout of 0 leaves no time to look", hint="see --help")
        self.alert = bool(options.get("alert"))
        self.prometheus = options.get("prometheus") or environ.get("RECOVERY_HEALTH_PROMETHEUS") or ""
        self.ping = _ping(options.get("ping") or "", environ.get("RECOVERY_HEALTH_PING", ""))


def _ping(asked: str, by_default: str) -> Optional[Ping]:
    """To whom a check is reported.  UsageError (64) for what was `asked` for; a default that is no URL is only said."""
    if not asked and not by_default:
        return None
    from recovery.ping import Ping

    try:
        return Ping(asked or by_default)
    except UsageError as error:
        if asked:
            raise
        say.tell(f"RECOVERY_HEALTH_PING: {error}")
        return None


def _pairs(environ: Mapping[str, str], name: str) -> list[tuple[str, str]]:
    return [(name, word) for word in environ.get(name, "").split()]


def thresholds(warn: Sequence[tuple[str, str]], crit: Sequence[tuple[str, str]]) -> Thresholds:
    """The ranges of each measure: its own, or what is given as (where, `NAME=RANGE`), the last of them; an empty range
    never alerts.  UsageError (64)."""
    texts = {name: [one.warning, one.critical] for name, one in MEASURES.items()}
    for which, given in enumerate((warn, crit)):
        for where, word in given:
            name, equals, text = word.partition("=")
            if not equals or name not in MEASURES:
                hint = "NAME=RANGE, where NAME is one of " + " ".join(MEASURES)
                raise UsageError(f"{where} {word[:60]!a} names no number", hint=hint)
            if text:
                parse(text, MEASURES[name].unit, f"{where} {name}")
            texts[name][which] = text
    ranges: Thresholds = {}
    for name, (warning, critical) in texts.items():
        unit = MEASURES[name].unit
        ranges[name] = (
            parse(warning, unit, name) if warning else None,
            parse(critical, unit, name) if critical else None,
        )
    return ranges


def level_of(finding: Finding, ranges: Thresholds) -> int:
    """What a finding means: its own level, or a number's, whichever is worse."""
    judged = [level(value, *ranges[name]) for name, value in finding.values.items() if name not in finding.unjudged]
    return worst([finding.level, *judged])


class _Deadline:
    """Cuts off what takes too long: OutOfTime inside of `try_to`, once; whatever is tried later isn't begun.

    By a signal, which ends a read that hangs, too.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.over, self._inside = seconds, False, False
        self._before = signal.signal(signal.SIGALRM, self._rings)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))  # a parent may have handed it down blocked
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before if self._before is not None else signal.SIG_DFL)

    def _rings(self, signum: int, frame: Any) -> None:
        self.over = True
        if self._inside:
            raise OutOfTime

    def try_to(self, do: Callable[[], Finding]) -> Finding:
        """What `do` finds; UNKNOWN and why where it can't look, CRITICAL where what it looks at is damaged."""
        try:
            self._inside = True
            if self.over:
                raise OutOfTime
            return do()
        except (RecoveryError, OSError) as error:
            refusal = error if isinstance(error, RecoveryError) else from_os_error(error, "could not look")
            hint = f": {refusal.hint}" if refusal.hint else ""
            return Finding(f"{refusal}{hint}", level=CRITICAL if isinstance(refusal, DataError) else UNKNOWN)
        except OutOfTime:
            return Finding(f"not known within {number(self.seconds)} s", level=UNKNOWN)
        finally:
            self._inside = False


def health(asked: Request, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> Result:
    """Run the checks asked for.  UsageError, which `refused` tells; anything else that is wrong is said as UNKNOWN.

    Changes nothing in the workspace but what `--alert` told; writes the file of `--prometheus` and pings, where it is
    told to.
    """
    began, now = time.monotonic(), clock()
    wanted = Asked(asked, environ)
    telling = wanted.timeout * _TELLING if wanted.alert else 0.0
    deadline = _Deadline(wanted.timeout - telling)
    if wanted.ping is not None:
        wanted.ping.start()
    try:
        findings, root = _found(asked, wanted, environ, now, deadline, began + wanted.timeout)
    finally:
        deadline.end()
    levels = {name: level_of(finding, wanted.thresholds) for name, finding in findings.items()}
    if wanted.prometheus:
        problem = _write(wanted, root, findings, levels, now, time.monotonic() - began)
        if problem:
            findings["prometheus"], levels["prometheus"] = Finding(problem, level=UNKNOWN), UNKNOWN
    for name, finding in findings.items():
        if levels[name] and finding.next:
            finding.text += f": run `{finding.next}`"
    result = _result(findings, levels, wanted.thresholds)
    result.data["root"] = root
    if not asked.asked("verbose") and len(result.details) > 1:
        bad = [line for line in result.details if not line.startswith(LEVELS[0])]
        result.line = "\n".join([result.line, *(bad if len(bad) > 1 else [])])
    if result.data["code"]:
        asked.options.pop("quiet", None)  # cron mails what is said
    if wanted.ping is not None:
        wanted.ping.end(result.data["code"], "\n".join([result.line, *result.details]))
    return result


def refused(error: Exception) -> Result:
    """What can't be meant, or done, in a plugin's way: a line on stdout, and UNKNOWN."""
    hint = getattr(error, "hint", "")
    data = {"ok": False, "code": UNKNOWN, "level": LEVELS[UNKNOWN], "error": str(error), "hint": hint}
    data.update(next=hint or "see --help", **getattr(error, "more", {}))
    return Result(f"RECOVERY {LEVELS[UNKNOWN]} - {_shown(str(error))}", False, data)


def _found(
    asked: Request, wanted: Asked, environ: Mapping[str, str], now: float, deadline: _Deadline, until: float
) -> tuple[dict[str, Finding], str]:
    """What each check found, and the workspace ("" if there is none).

    People are told `until` then at most, by time.monotonic.
    """
    from recovery.store import FileStore

    opened: list[FileStore] = []
    root: list[str] = []

    def open_() -> Finding:
        root.append(request.root_of(asked))
        opened.append(FileStore(root[0], request.limits_from_environment("health")))
        return Finding("")

    finding = deadline.try_to(open_)
    if not opened:
        return {"workspace": finding}, root[0] if root else ""
    look = Look(opened[0], environ, now, wanted.window)
    try:
        look.begin(wanted.names)
        for name in wanted.names:
            look.found[name] = deadline.try_to(lambda: CHECKS[name].look(look))  # noqa: B023
        if wanted.alert:
            _alert(look, environ, until)
        return look.found, root[0]
    finally:
        look.stop()
        opened[0].close()


def _alert(look: Look, environ: Mapping[str, str], until: float) -> None:
    """Tell people of the rules that have become true, or over; what is said of it goes to the check of that name."""
    from recovery import alerts, notify

    within = max(0.0, min(notify.WITHIN, until - time.monotonic()))
    found = look.found.setdefault("alerts", Finding("rules not looked at"))
    try:
        request.require_python_311("telling people of alerts")
        told = alerts.look(look.store, look.values, notify.from_environment(environ), look.now, within)
    except (RecoveryError, OSError) as error:
        refusal = error if isinstance(error, RecoveryError) else from_os_error(error, "nobody could be told of alerts")
        found.text, found.level = f"{found.text}; {refusal}", worst([found.level, UNKNOWN])
        return
    for word, keys in (("told of", told.on), ("told that it is over", told.over)):
        if keys:
            found.text += f"; {word}: {', '.join(keys)}"
    if told.problems:
        found.text, found.level = "; ".join([found.text, *told.problems]), worst([found.level, WARNING])
        for problem in told.problems:
            say.tell(problem)


def _result(findings: Mapping[str, Finding], levels: Mapping[str, int], ranges: Thresholds) -> Result:
    total = worst(list(levels.values()))
    texts = {name: _shown(finding.text) for name, finding in findings.items()}
    bad = sorted(
        (name for name in findings if levels[name]), key=lambda name: worst([levels[name]]) == total, reverse=True
    )
    words = [f"{name}: {texts[name][:_SHOWN]}" for name in bad]
    line = f"RECOVERY {LEVELS[total]} - {'; '.join(words) or f'{len(findings)} checks'}"
    numbers = [
        _performance(name, value, (None, None) if name in one.unjudged else ranges[name])
        for one in findings.values()
        for name, value in one.values.items()
    ]
    if numbers:
        line += " | " + " ".join(numbers)
    checks = {
        name: {
            "level": LEVELS[levels[name]],
            "text": finding.text,
            "values": finding.values,
            **({"next": finding.next} if finding.next and levels[name] else {}),
        }
        for name, finding in findings.items()
    }
    data = {"ok": not total, "code": total, "level": LEVELS[total], "checks": checks}
    return Result(line, False, data, [f"{LEVELS[levels[name]]:<9} {name}: {text}" for name, text in texts.items()])


def _performance(name: str, value: float, ranges: tuple[Optional[Range], Optional[Range]]) -> str:
    """A number as performance data: label=value[UOM];warn;crit;min."""
    warning, critical = ("" if one is None else str(one) for one in ranges)
    return f"{name}={number(value)}{MEASURES[name].unit};{warning};{critical};0"


def _shown(text: str) -> str:
    """Words that can stand in front of performance data, and on a terminal."""
    return say.harmless(text).replace("|", "/")


def _write(
    wanted: Asked, root: str, findings: Mapping[str, Finding], levels: Mapping[str, int], now: float, took: float
) -> str:
    """Write the file for Prometheus; what went wrong, "" if nothing did.

    A slip of the hand must not cost an outbox: see `recovery.belonging`.
    """
    from recovery import belonging, prometheus
    from recovery.prometheus import Gauge

    if root and belonging.belongs(wanted.prometheus, root, ".prom"):
        return f"{wanted.prometheus} is the workspace's own, and was not written: it takes a name like health.prom"
    values = {name: value for finding in findings.values() for name, value in finding.values.items()}
    gauges = [
        Gauge(one.metric, one.help, [({}, values[name] * one.scale)])
        for name, one in MEASURES.items()
        if name in values
    ]
    of_checks: list[tuple[dict[str, str], float]] = [({"check": name}, one) for name, one in levels.items()]
    gauges += [
        Gauge("check_level", "What each check says: 0 OK, 1 warning, 2 critical, 3 unknown.", of_checks),
        Gauge("check_timestamp_seconds", "When these numbers were found, in seconds since 1970.", [({}, now)]),
        Gauge("check_duration_seconds", "How long that took.", [({}, round(took, 6))]),
    ]
    try:
        prometheus.write(wanted.prometheus, prometheus.text_of(gauges, os.path.abspath(root) if root else ""))
    except OSError as error:
        return f"{wanted.prometheus} could not be written: {error.strerror or error}"
    return ""


_OPTIONS = {
    "--warn": "warn=*",
    "-w": "warn=*",
    "--crit": "crit=*",
    "-c": "crit=*",
    "--skip": "skip=*",
    "--window": "window=",
    "--timeout": "timeout=",
    "-t": "timeout=",
    "--alert": "alert",
    "--prometheus": "prometheus=",
    "--ping": "ping=",
}
VERB = Verb(
    _OPTIONS,
    lambda request: [],
    lambda store, request, call: health(request, os.environ),
    tries=False,
    in_root=False,
    reads=True,
    refused=refused,
)
