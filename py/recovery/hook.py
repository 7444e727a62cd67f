"""`recovery hook`: what an agent's program runs at certain moments, answered in that program's protocol.

    SessionStart   `prime` goes into the context
    PreToolUse     an edit of what only commands may change is refused, with the command to use
    Stop           claims that the session still holds are reminded of, once
    SessionEnd     they are given back

A refusal blocks: exit code 2 and its reason on stderr for Claude Code and Codex, a JSON answer with code 0 for Cursor.
Nothing else ever does: no workspace, input that is no JSON, a damaged outbox, a bug of ours end with 0, in silence: a
broken hook must not stop anybody's work.  The protocols:
https://code.claude.com/docs/en/hooks, https://developers.openai.com/codex/hooks, https://cursor.com/docs/hooks
"""

from __future__ import annotations

import os
import time
from stat import S_ISREG

from recovery import jsontext, layout, say, steps, workspace
from recovery.errors import NotFound, RecoveryError, UsageError
from recovery.flock import Limits
from recovery.request import Request, Verb
from recovery.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

    from recovery.store import FileStore

    Given = dict[str, Any]

START, TOOL, STOP, END = "SessionStart", "PreToolUse", "Stop", "SessionEnd"
#: What each program calls its moments.
EVENTS = {
    "claude": {START: START, TOOL: TOOL, STOP: STOP, END: END},
    "codex": {START: START, TOOL: TOOL, STOP: STOP},  # it has no end of a session: `recovery sweep` sees to its claims
    "cursor": {"sessionStart": START, "preToolUse": TOOL, "stop": STOP, "sessionEnd": END},
}
BLOCKS = 2

#: Seconds that a hook may wait for locks, in all: `sweep` sees to claims that could not be given back.
_PATIENCE = 2.0
#: Seconds in which the input has to be there.
_ARRIVES = 5.0
#: Bytes of input that are read: it holds the whole text of a file that is written.
_MOST_INPUT = 1 << 28
#: Sessions of which it is kept (in data/reminded.json) which claims they were reminded of; the newest.
_SESSIONS = 50
#: Claims that one reminder names.
_FEW = 5
#: Reasons for a session's end after which the same program goes on, with the same claims.
_GOES_ON = ("clear", "resume")
#: What a tool that changes files is called, in part.
_EDITS = ("write", "edit", "replace", "patch", "delete")
#: Under which names a tool says which file.
_PATHS = ("file_path", "notebook_path", "path", "target_file", "filePath")
#: The suite's own in data/, by their names there; what else stands there is the user's, and so is config.json.
_OWN = frozenset(
    name.split("/")[1]
    for name in vars(layout).values()
    if isinstance(name, str) and name.startswith("data/") and name != layout.CONFIG
)


class Answer:
    """What a hook says: the exit code, and the text for stdout and for stderr."""

    __slots__ = ("code", "err", "out")

    def __init__(self, out: str = "", code: int = 0, err: str = "") -> None:
        self.out, self.code, self.err = out, code, err


def refusal(program: str, reason: str) -> Answer:
    """The answer that keeps a tool from being run."""
    if program == "cursor":
        return Answer(jsontext.dumps({"permission": "deny", "user_message": reason, "agent_message": reason}))
    return Answer(code=BLOCKS, err=reason)


def context(program: str, text: str) -> Answer:
    """The answer that gives text to the agent when its session begins."""
    return Answer(jsontext.dumps({"additional_context": text}) if program == "cursor" else text)


def reminder(program: str, text: str) -> Answer:
    """The answer that has the agent go on once more, with this text."""
    if program == "cursor":
        return Answer(jsontext.dumps({"followup_message": text}))
    return Answer(code=BLOCKS, err=text)


# --- before a tool is run


def reason_against(given: Given, root: str = "") -> str:
    """Why a tool must not be run, with the command to use instead; "" if nothing is against it.  `root` as `answer`."""
    tool, asked = given.get("tool_name"), given.get("tool_input")
    if not isinstance(tool, str) or not isinstance(asked, dict) or not any(word in tool.lower() for word in _EDITS):
        return ""
    folder = given["cwd"] if isinstance(given.get("cwd"), str) else "."
    places: dict[str, Optional[str]] = {}  # with the workspace above each
    for path in paths_of(asked):
        for full in _readings(folder, path):
            above = places[full] = workspace.root_above(os.path.dirname(full))
            why = refused(os.path.relpath(full, above)) if above is not None else ""
            if why:
                return why
    return _reason_by_inode(places, given, root)


def _readings(folder: str, path: str) -> dict[str, None]:
    """The files that a path can mean: programs differ in `~`, and fold `..` before links are followed, or behind."""
    found = []
    for one in (path, os.path.expanduser(path)):
        full = os.path.join(folder, one)
        parent, base = os.path.split(full)
        plain = os.path.abspath(full)
        found += [plain, os.path.realpath(plain), os.path.realpath(full), os.path.join(os.path.realpath(parent), base)]
    return dict.fromkeys(found)


def _reason_by_inode(places: dict[str, Optional[str]], given: Given, root: str) -> str:
    """As `reason_against`, for another name (a hard link) of an outbox or of progress.json."""
    linked = [one for one in map(_stat, places) if one is not None and S_ISREG(one.st_mode) and one.st_nlink > 1]
    if not linked:
        return ""
    roots = dict.fromkeys(filter(None, places.values()))
    try:
        roots[_root(given, root)] = None
    except RecoveryError:
        pass
    for root in roots:
        boxes = sorted(os.listdir(os.path.join(root, "postbox")))
        for name in [*map(layout.outbox, boxes), layout.PROGRESS]:
            there = _stat(os.path.join(root, name))
            if there is not None and any(os.path.samestat(there, one) for one in linked):
                return refused(name)
    return ""


def _stat(path: str) -> Optional[os.stat_result]:
    try:
        return os.stat(path)
    except OSError:
        return None


def paths_of(asked: Given) -> list[str]:
    """The files that a tool's input names: its own members, or the heads of an apply_patch text."""
    found = [asked[key] for key in _PATHS if isinstance(asked.get(key), str)]
    patch = asked.get("command") or asked.get("input")
    for line in patch.splitlines() if isinstance(patch, str) else ():
        for head in ("*** Update File: ", "*** Add File: ", "*** Delete File: ", "*** Move to: "):
            if line.startswith(head):
                found.append(line[len(head) :].strip())
    return [path for path in found if path and "\0" not in path]


def refused(name: str) -> str:
    """Why a file of the workspace, by its root-relative name, is not to be edited; "" if it may be."""
    parts = name.split("/")
    shown = say.shown(name, 200)
    in_box = parts[2] if len(parts) > 2 and parts[0] == "postbox" else ""
    agent = parts[1] if in_box and layout.is_id(parts[1]) else "AGENT"
    if in_box == "outbox.json":
        return (
            f"{shown} is changed by commands only: an edit could undo what others write at this moment. Nothing was "
            f"changed. Use `recovery claim|start|complete|fail|note {agent} TASK …`, `recovery assign` for a new task; "
            f"a person uses `recovery edit {agent}`."
        )
    if in_box in ("archive", "completed") or in_box.startswith(("outbox.json.", ".outbox.json.")):
        return (
            f"{shown} is written by commands only, which go by it to tell and to take back what was done. Nothing was "
            f"changed. `recovery history {agent}` tells it; `recovery undo|rollback {agent} TASK` and "
            f"`recovery archive --restore {agent} TASK` take it back."
        )
    if name == layout.PROGRESS:
        return (
            f"{shown} is changed together with the outboxes, by the same commands. Nothing was changed. Use `recovery "
            "complete AGENT TASK` and the like; `recovery progress rebuild` makes it agree with the outboxes."
        )
    if len(parts) > 1 and parts[0] == "data" and (parts[1] in _OWN or parts[1].startswith(".")):
        return (
            f"{shown} is the suite's own state: an edit could lose somebody's work. Nothing was changed. `recovery "
            "doctor` says what is broken, `recovery doctor --repair` and `recovery recover` mend it."
        )
    return ""


# --- the session's claims


def claims_of_session(store: FileStore) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What this session has claimed and still holds: agent, task, claim.  A damaged outbox is passed over.

    A claim under `recovery run` is its command's, whatever agent runs in it: that ends it.
    """
    from recovery import owners, processes, sweep, verbs

    me = owners.caller(os.environ)[0]
    for agent in verbs.one_by_one(store, verbs.agents(store, closed=True)):
        try:
            held = sweep.held(store, agent)
        except RecoveryError:
            continue
        for task, claim in held.items():
            if claim.get("kind") == "run":
                continue
            if owners.is_caller(claim) or _started_by(me, claim["owner"], owners.where, processes):
                yield agent, task, claim


def _started_by(me: dict[str, Any], owner: dict[str, Any], where: Any, processes: Any) -> bool:
    """Whether a claim's owner is a shell that the agent's program keeps open: a child of the program, as we are."""
    if "pid" not in me or "pid" not in owner or where(owner) != "here":
        return False
    if processes.is_gone(int(owner["pid"]), str(owner.get("start", ""))):
        return False
    above = processes.ancestors(int(owner["pid"]))
    return any((one.pid, one.start) == (me["pid"], me["start"]) for one in above)


def reminded(store: FileStore, session: str, tokens: list[str]) -> bool:
    """Note that a session is reminded of these claims; whether it had been of all of them.  A lost note costs one more
    reminder: it is kept where that can be done, and never waited for long."""
    from recovery.commit import Put
    from recovery.store import transact

    found = [False]

    def plan() -> Optional[Put]:
        version = store.read(layout.REMINDED, strict=False)
        try:
            known = jsontext.loads(jsontext.from_latin(version.text)) if version is not None else {}
        except ValueError:
            known = {}
        known = known if isinstance(known, dict) else {}
        before = known.pop(session, [])
        found[0] = isinstance(before, list) and set(tokens) <= set(map(str, before))
        if found[0]:
            return None
        known[session] = tokens
        kept = dict(list(known.items())[-_SESSIONS:])
        return Put(layout.REMINDED, version, jsontext.pretty(kept) + "\n")

    transact(store, [layout.REMINDED], plan, create=True)
    return found[0]


# --- the four moments


def _start(store: FileStore, program: str) -> Answer:
    from recovery import prime

    agent = os.environ.get("RECOVERY_AGENT", "")
    try:
        try:
            told = prime.prime(store, layout.require_id("agent", agent) if agent else "")
        except NotFound:  # nobody has given it anything yet
            told = prime.prime(store)
        lines = [told.line, *told.details]
    except RecoveryError as error:
        lines = [f"Postbox Recovery: {error}", f"Next: {error.hint or 'tell a person'}"]
    return context(program, "\n".join(say.harmless(line) for line in lines))


def _stop(store: FileStore, program: str, given: Given) -> Answer:
    if given.get("stop_hook_active") is True or given.get("loop_count"):
        return Answer()  # it goes on because of such an answer already
    if given.get("status", "completed") != "completed":
        return Answer()  # a person has stopped it
    from recovery import claims

    held = list(claims_of_session(store))
    if not held:
        return Answer()
    session = next((given[key] for key in ("session_id", "conversation_id") if isinstance(given.get(key), str)), "")
    tokens = [claims.token(agent, task, claim["generation"]) for agent, task, claim in held]
    if reminded(store, say.shown(session, 100), tokens):
        return Answer()
    more = f" and {len(held) - _FEW} more" if len(held) > _FEW else ""
    names = ", ".join(f"{agent}/{task}" for agent, task, _ in held[:_FEW])
    one = "{} {}".format(*held[0][:2])
    return reminder(
        program,
        f'You still hold {names}{more}. Done: recovery complete {one} "what was done". Not to be done: recovery fail '
        f'{one} "why", or recovery release {one}. Still at it: go on. This is said once.',
    )


def _end(store: FileStore, given: Given) -> None:
    if given.get("reason") in _GOES_ON:
        return
    from recovery import release

    for agent, task, claim in list(claims_of_session(store)):
        if claim.get("lease"):
            continue  # it was asked for longer than this, and ends by itself
        try:
            store.limits.command = f"release {agent}/{task}"
            release.release(store, agent, task, why="its session ended", generation=claim["generation"])
        except RecoveryError as error:
            steps.at("hook", f"{agent}/{task}: {error}")


def answer(program: str, event: str, given: Given, root: str = "") -> Answer:
    """What to answer; `event` as the program calls it, `root` names the workspace.

    A crash in the middle leaves what `release` leaves: each claim as it was, or given back.
    """
    moment = EVENTS[program][event]
    if moment == TOOL:
        why = reason_against(given, root)
        return refusal(program, why) if why else Answer()
    from recovery.store import FileStore

    limits = Limits(_PATIENCE, _PATIENCE, f"hook {event}")
    limits.family = "all"
    store = FileStore(_root(given, root), limits)
    try:
        if moment == START:
            return _start(store, program)
        if moment == STOP:
            return _stop(store, program, given)
        _end(store, given)
        return Answer()
    finally:
        store.close()


def _root(given: Given, named: str) -> str:
    """The workspace: the one named, or that of the folder which the program works in.  NotFound (66)."""
    if named or os.environ.get("ORCHESTRATION_ROOT"):
        return workspace.find(named, os.environ, "")
    roots = given.get("workspace_roots")
    places = [given.get("cwd"), os.environ.get("CLAUDE_PROJECT_DIR"), *(roots if isinstance(roots, list) else [])]
    for place in places:
        if isinstance(place, str) and os.path.isdir(place):
            os.chdir(place)
            try:
                return workspace.find(None, os.environ, "")
            except NotFound:
                continue
    return workspace.find(None, os.environ, "")


def _given() -> Given:
    """The JSON object on stdin, as soon as all of it is there; {} where it is something else, or comes too slowly."""
    if os.isatty(0):
        return {}
    from select import select

    parts: list[bytes] = []
    size, last, until = 0, b"", time.monotonic() + _ARRIVES
    while size < _MOST_INPUT and select([0], [], [], max(0.0, until - time.monotonic()))[0]:
        data = os.read(0, 1 << 20)
        if not data:
            break
        parts.append(data)
        size += len(data)
        last = data.rstrip()[-1:] or last
        # not every program closes the pipe: where nothing follows at once, it may be whole
        if last == b"}" and not select([0], [], [], 0)[0]:
            found = _object(parts)
            if found is not None:
                return found
    return _object(parts) or {}


def _object(parts: list[bytes]) -> Optional[Given]:
    try:
        value = jsontext.loads(b"".join(parts).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# --- the verb


def _parse(request: Request) -> list[Any]:
    words = request.words
    if len(words) != 2 or words[0] not in EVENTS or words[1] not in EVENTS[words[0]]:
        known = "; ".join(f"{program} {'|'.join(events)}" for program, events in EVENTS.items())
        raise UsageError(f"a program and its event are needed: {known}", hint="see --help")
    return words


def _silence() -> int:
    """Let nothing reach stderr, whoever says it (who waits for a lock tells so); returns the stderr that was."""
    heard, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return heard


def _call(store: None, request: Request, call: list[Any]) -> Result:
    program, event = call
    found = Answer()
    heard = _silence() if os.environ.get("RECOVERY_DEBUG") != "1" else -1
    try:
        found = answer(program, event, _given(), request.options.get("root", ""))
    except Exception as error:  # whatever it is: it is not the agent's fault
        steps.at("hook", f"{type(error).__name__}: {error}")
    if heard >= 0:
        os.dup2(heard, 2)
        os.close(heard)
    for fd, text in ((1, found.out), (2, found.err)):
        if text:
            try:
                say.write(fd, text + "\n")
            except OSError:
                pass
    return Result("", False, {"code": found.code})


VERB = Verb({}, _parse, _call, tries=False, in_root=False, reads=True, indent="")
