"""checks.json: which checks there are, what each runs, and who needs which.

    {
      "checks": {
        "tests": {"run": ["make", "test"], "timeout": "10m"},
        "lint":  {"run": "make lint && git diff --exit-code", "cwd": "web", "env": {"CI": "1"}}
      },
      "required": {"*": ["tests"], "CC": ["lint"]}
    }

    run       words, never taken apart again, or one line for /bin/sh
    timeout   10m if nothing is said
    cwd       below the project's folder; that itself if nothing is said
    env       variables, beside the few that are handed on (`recovery.checks`)
    inputs    files, folders, patterns whose bytes say whether a result still holds; without them, git's whole tree
    worktree  true: where the command is called from, if that is a git worktree of the same repository

Pure.  A key that isn't known is refused: a typing error must not weaken anything.
"""

from __future__ import annotations

import hashlib
import json

from recovery import layout, request
from recovery.errors import DataError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence

#: Seconds that a check may take where nothing is said.
TIMEOUT = 600.0
_KNOWN = {"run", "timeout", "cwd", "env", "inputs", "worktree"}


def canonical(value: Any) -> bytes:
    """The one form of a JSON value that hashes are made of: keys sorted, no spaces, UTF-8; `jq -cjS .` makes it too."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def sha256_of(value: Any) -> str:
    """SHA-256 of the canonical form: unlike the suite's other hashes people are to make these with their own tools."""
    return hashlib.sha256(canonical(value)).hexdigest()


class Check:
    """One check: its `words`, its `timeout` in seconds, and `sha256`, the hash of all that is said of it."""

    def __init__(self, name: str, said: dict[str, Any]) -> None:
        self.name, self.said = name, said
        run = said["run"]
        self.words: list[str] = ["/bin/sh", "-c", run] if isinstance(run, str) else list(run)
        self.timeout = _seconds(said["timeout"], name) if "timeout" in said else TIMEOUT
        self.cwd: str = said.get("cwd", ".")
        self.env: dict[str, str] = said.get("env", {})
        self.inputs: list[str] = said.get("inputs", [])
        self.worktree: bool = said.get("worktree", False)
        self.sha256 = sha256_of({"name": name, **said})

    def line(self) -> str:
        """What it runs, for people."""
        run = self.said["run"]
        return run if isinstance(run, str) else " ".join(word if word.isprintable() else ascii(word) for word in run)


class Checks:
    """A whole file: `checks` by name, `required` by agent, and `sha256`, the hash of its bytes."""

    def __init__(self, text: bytes) -> None:
        self.sha256 = hashlib.sha256(text).hexdigest()
        found = _parsed(text)
        _require(isinstance(found, dict) and set(found) <= {"checks", "required"}, 'it holds "checks" and "required"')
        said = found.get("checks", {})
        _require(isinstance(said, dict), '"checks" is an object')
        self.checks = {name: _check(name, value) for name, value in said.items()}
        self.required: dict[str, list[str]] = found.get("required", {})
        _require(isinstance(self.required, dict), '"required" is an object')
        for agent, names in self.required.items():
            _require(agent == "*" or layout.is_id(agent), f'"required" is by agent, or "*": {agent[:40]!a}')
            _require(_are_texts(names), f'"required" of {agent} is a list of names')
            for name in names:
                _require(name in self.checks, f'"required" of {agent}: there is no check {name[:40]!a}')

    def required_of(self, agent: str) -> list[str]:
        """The checks that every task of an agent needs, whatever its own entry says."""
        return [*self.required.get("*", []), *self.required.get(agent, [])]


def named_in(entry: Any, where: str) -> list[str]:
    """What a task's own `checks` asks for; DataError (65) unless that is a list of names."""
    if entry is None:
        return []
    if not _are_texts(entry) or len(entry) > layout.MOST_CHECKS:
        raise DataError(f'{where}: "checks" is a list of names. Nothing changed.', hint="put it right, then repeat")
    return list(entry)


def together(*lists: Sequence[str]) -> list[str]:
    """Each name once, in the order in which they come."""
    return list(dict.fromkeys(name for names in lists for name in names))


def _parsed(text: bytes) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        _require(len(found) == len(items), "a key stands there twice")
        return found

    def constant(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{layout.CHECKS} is damaged: {error}", hint="put it right, then `recovery trust`") from None


def _check(name: str, said: Any) -> Check:
    _require(layout.is_check(name), f"{name[:40]!a} is no name for a check")
    _require(
        isinstance(said, dict) and "run" in said and set(said) <= _KNOWN, f'{name} has "run", and at most {_known()}'
    )
    run = said["run"]
    good = _are_texts(run) and run and run[0] if isinstance(run, list) else isinstance(run, str) and run.strip()
    _require(bool(good), f'"run" of {name} is a list of words, or one line for the shell')
    words = run if isinstance(run, list) else [run]
    cwd, env, inputs = said.get("cwd", "."), said.get("env", {}), said.get("inputs", [])
    _require(_is_inside(cwd), f'"cwd" of {name} is a folder of the project, written from there')
    _require(isinstance(env, dict) and _are_texts(list(env.values())), f'"env" of {name} is an object of texts')
    _require(all(key and "=" not in key for key in env), f'"env" of {name}: a name without "="')
    _require(_are_texts(inputs) and all(map(_is_inside, inputs)), f'"inputs" of {name} are paths below the project')
    _require(type(said.get("worktree", False)) is bool, f'"worktree" of {name} is true or false')
    _require(not any("\0" in text for text in (*words, *env, *env.values())), f"{name} holds a NUL")
    return Check(name, said)


def _known() -> str:
    return ", ".join(sorted(_KNOWN - {"run"}))


def _seconds(value: Any, name: str) -> float:
    try:
        found = request.duration(value, "timeout") if isinstance(value, str) else 0.0
    except UsageError:
        found = 0.0
    _require(0 < found <= 7 * 86400, f'"timeout" of {name} is a duration like "90", "10m", "2h"')
    return found


def _is_inside(path: Any) -> bool:
    return (
        isinstance(path, str)
        and bool(path)
        and not path.startswith("/")
        and ".." not in path.split("/")
        and "\0" not in path
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _require(good: bool, what: str) -> None:
    if not good:
        raise DataError(f"{layout.CHECKS}: {what}. Nothing changed.", hint="put it right, then `recovery trust`")
