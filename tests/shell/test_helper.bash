# shellcheck shell=bash
# Loaded by every file here: a scratch workspace for each test, the scripts as functions, and the assertions.
#
# Tests use the scripts as people do and look at files; none knows how they work inside.  Nothing sleeps: who has
# to wait, waits at a fifo, or at a step that RECOVERY_FAULT=STEP=wait=FILE stops.

bats_require_minimum_version 1.10.0

# A test that waits for what never comes is a failure, not a hang.
export BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-30}

SUITE=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
PYTHON=/usr/bin/python3
[[ -x $PYTHON ]] || PYTHON=$(type -P python3)

setup() {
  make_workspace
}

teardown() {
  local pid
  : >"$BATS_TEST_TMPDIR/go" # nobody is left waiting at a test's barrier
  for pid in "${STARTED[@]}"; do
    kill -CONT "$pid" 2>/dev/null || :
    kill "$pid" 2>/dev/null || :
  done
}

# --- a workspace

make_workspace() { # sets the environment of the scripts; nothing of the caller's own is left
  local name
  for name in ${!RECOVERY_@} ${!ORCHESTRATION_@}; do
    unset "$name"
  done
  STARTED=()
  [[ :$PATH: == *":$SUITE/bin:"* ]] || PATH=$SUITE/bin:$PATH # else commands that are told have the script's path
  ROOT="$BATS_TEST_TMPDIR/work space"
  export ORCHESTRATION_ROOT=$ROOT
  export ORCHESTRATION_LOCK_DIR="$BATS_TEST_TMPDIR/lock dir"
  export TMPDIR="$BATS_TEST_TMPDIR/tmp dir"
  export RECOVERY_RETRY_DELAY=0.01 RECOVERY_LOCK_TIMEOUT=20
  mkdir -p "$TMPDIR" "$BATS_TEST_TMPDIR/elsewhere"
  fill_workspace "$ROOT"
  cd "$BATS_TEST_TMPDIR/elsewhere" || return
}

fill_workspace() { # <root>; two agents with a few tasks, and the progress file
  mkdir -p "$1/.sprint" "$1"/postbox/{CC,CA}/{inbox,completed}
  cat >"$1/postbox/CC/outbox.json" <<'JSON'
{
  "agent_id": "CC",
  "version": "1.0.0",
  "tasks": [
    {
      "task_id": "TASK-168B",
      "title": "End to end tests",
      "priority": "CRITICAL",
      "status": "pending",
      "created_at": "2025-05-30T00:00:00Z"
    },
    {
      "task_id": "TASK-165C",
      "title": "Smoke tests",
      "status": "completed",
      "completed_at": "2025-05-29T00:00:00Z",
      "completion_message": "all green"
    },
    {"task_id": "TASK-169A", "title": "Load tests", "status": "in_progress"}
  ],
  "history": []
}
JSON
  cat >"$1/postbox/CA/outbox.json" <<'JSON'
{
  "agent_id": "CA",
  "tasks": [
    {"task_id": "TASK-168C", "title": "Front end", "status": "in_progress", "priority": "HIGH"}
  ],
  "history": []
}
JSON
  cat >"$1/.sprint/progress.json" <<'JSON'
{
  "sprint_id": "SPRINT_3",
  "total_tasks": 4,
  "completed": 1,
  "in_progress": 2,
  "pending": 1,
  "tasks": {
    "TASK-168B": {"status": "pending", "agent": "CC", "title": "End to end tests"},
    "TASK-168C": {"status": "in_progress", "agent": "CA", "title": "Front end"}
  }
}
JSON
}

given() { # <file under the root> <content>; %b escapes are not read
  local path=$ROOT/$1
  mkdir -p "${path%/*}"
  printf '%s' "$2" >"$path"
}

given_octets() { # <file under the root> <content with \x escapes>
  local path=$ROOT/$1
  mkdir -p "${path%/*}"
  printf '%b' "$2" >"$path"
}

repeat() { # <times> <character>
  head -c "$1" /dev/zero | tr '\0' "$2"
}

copy_suite() { # <folder>; the commands alone, as somebody would put them into a project
  mkdir -p "$1"
  cp -R -p -- "$SUITE/bin" "$SUITE/lib" "$SUITE/py" "$1/"
}

# --- the scripts

complete_task() { "$SUITE/bin/complete_task_with_recovery.sh" "$@"; }
assign_task() { "$SUITE/bin/assign_task.sh" "$@"; }
task_status() { "$SUITE/bin/task_status.sh" "$@"; }
recovery() { "$SUITE/bin/recovery" "$@"; }

with() { # <NAME=value>... -- <command>...; `run` takes no assignments
  while [[ $1 != -- ]]; do
    local -x "${1?}"
    shift
  done
  shift
  "$@"
}

runs() { # <command>...; exit 0, and stdout in $output, stderr in $stderr
  run --separate-stderr -0 "$@"
}

refused() { # <code> <command>...; says why on stderr, changes nothing, leaves nothing
  local code=$1 before
  shift
  before=$(tree "$ROOT")
  run --separate-stderr "-$code" "$@"
  assert_equal "$before" "$(tree "$ROOT")"
  [[ $stderr == *recovery:* ]] || fail "stderr doesn't say what happened: $stderr"
  [[ $stderr != *Traceback* && $stderr != *"this is a bug"* ]] || fail "not a refusal but a bug: $stderr"
}

crash_at() { # <step> <command>...; SIGKILL there
  local step=$1
  shift
  run --separate-stderr -137 with RECOVERY_FAULT="$step=kill" -- "$@"
}

# --- who holds a lock meanwhile

hold() { # <lock file>; a process of ours holds it until `let_go`
  mkfifo "$BATS_TEST_TMPDIR/held" "$BATS_TEST_TMPDIR/gate"
  mkdir -p "${1%/*}"
  # shellcheck disable=SC2016 # for sh
  flock --no-fork "$1" sh -c ': >"$1"; read -r _ <"$2"' a-test-holds-it "$BATS_TEST_TMPDIR/held" "$BATS_TEST_TMPDIR/gate" 3>&- &
  STARTED+=("$!")
  : <"$BATS_TEST_TMPDIR/held"
}

let_go() {
  echo >"$BATS_TEST_TMPDIR/gate"
  wait "${STARTED[-1]}"
  unset 'STARTED[-1]'
}

# --- what runs beside a test

until_there() { # <file>; which somebody else makes, not empty
  until [[ -s $1 ]]; do
    read -rt 0.01 _ <> <(:) || :
  done
}

ended_with() { # <code>; what was started last ends so
  local status=0
  wait "${STARTED[-1]}" || status=$?
  unset 'STARTED[-1]'
  assert_equal "$1" "$status"
}

assert_gone() { # <pid>; dead, or a zombie that nobody has waited for yet
  [[ ! -e /proc/$1 || $(ps -o stat= -p "$1") == Z* ]] || fail "process $1 lives"
}

# --- other people

let_others_in() { # the folders above the test's own, which bats keeps to itself
  local folder=$BATS_TEST_TMPDIR
  while [[ $folder != / && -O $folder ]]; do
    chmod a+rx "$folder"
    folder=${folder%/*}
    folder=${folder:-/}
  done
}

require_root() {
  ((EUID == 0)) || skip "only root can become somebody else"
}

as_user() { # <uid> <gid> <command>...
  local uid=$1 gid=$2
  shift 2
  setpriv --reuid "$uid" --regid "$gid" --clear-groups --inh-caps=-all "$@"
}

as_plain_root() { # <command>...; root whom file modes bind, as in a container without capabilities
  setpriv --bounding-set=-all --inh-caps=-all "$@"
}

# --- what is expected

fail() { # <text>
  printf '%s\n' "$1" >&2
  return 1
}

assert_equal() { # <expected> <actual>
  [[ $1 == "$2" ]] || fail "$(printf 'expected: %s\nactual:   %s' "$1" "$2")"
}

# shellcheck disable=SC2154 # output, stderr: set by run
assert_output() { assert_equal "$1" "$output"; }

# shellcheck disable=SC2154
assert_output_has() { # <text>...
  local text
  for text; do
    [[ $output == *"$text"* ]] || fail "$(printf 'stdout lacks: %s\nstdout:       %s' "$text" "$output")"
  done
}

# shellcheck disable=SC2154
assert_stderr_has() { # <text>...
  local text
  for text; do
    [[ $stderr == *"$text"* ]] || fail "$(printf 'stderr lacks: %s\nstderr:       %s' "$text" "$stderr")"
  done
}

assert_absent() { # <path>...
  local path
  for path; do
    [[ ! -e $path && ! -L $path ]] || fail "$path is there"
  done
}

assert_exists() { # <path>...
  local path
  for path; do
    [[ -e $path ]] || fail "$path is not there"
  done
}

json() { # <file, - for stdin> <python expression of d>
  "$PYTHON" -I -S -c '
import json, sys
data = open(0 if sys.argv[1] == "-" else sys.argv[1], encoding="utf-8").read()
d = json.loads(data)
sys.stdout.buffer.write(str(eval(sys.argv[2])).encode("utf-8", "surrogatepass"))' "$1" "$2"
}

assert_json() { # <file under the root> <python expression of d> <expected>
  assert_equal "$3" "$(json "$ROOT/$1" "$2")"
}

assert_output_json() { # <python expression of d> <expected>; stdout must be exactly one document
  assert_equal "$2" "$(printf '%s' "$output" | json - "$1")"
}

task() { # <agent> <task> [<field>]; of the outbox, by default its status
  json "$ROOT/postbox/$1/outbox.json" "{t.get('task_id'): t for t in d['tasks']}['$2'].get('${3-status}')"
}

assert_open() { # <agent> <task>
  local now
  now=$(task "$1" "$2")
  [[ $now != completed ]] || fail "$1/$2 is completed"
  assert_absent "$ROOT/postbox/$1/completed/$2_completion.json"
}

assert_completed() { # <agent> <task> [<message>]; in the outbox, in its record and, where it is listed, in progress
  assert_equal completed "$(task "$1" "$2")"
  assert_json "postbox/$1/completed/$2_completion.json" \
    'd["task_id"] + " " + d["agent_id"] + " " + d["status"]' "$2 $1 completed"
  if [[ $# -gt 2 ]]; then
    assert_equal "$3" "$(task "$1" "$2" completion_message)"
    assert_json "postbox/$1/completed/$2_completion.json" 'd["completion_message"]' "$3"
  fi
  [[ ! -f $ROOT/.sprint/progress.json ]] || assert_json .sprint/progress.json \
    "{**{t.get('id'): t for t in (d['tasks'] if isinstance(d.get('tasks'), list) else [])}, \
      **(d['tasks'] if isinstance(d.get('tasks'), dict) else {})}.get('$2', {'status': 'completed'})['status']" completed
}

tree() { # <root>; a checksum of names, kinds, modes, owners and bytes of postbox/ and .sprint/, locks and backups apart
  (
    cd "$1" || return
    find postbox .sprint ! -name '.*.lock' ! -name '*.json.backup_*' -printf '%p %y %m %U %G %l\n' 2>/dev/null | LC_ALL=C sort
    find postbox .sprint -type f ! -name '.*.lock' ! -name '*.json.backup_*' -exec sha256sum {} + 2>/dev/null | LC_ALL=C sort
  ) | sha256sum
}

remember_tree() {
  REMEMBERED=$(tree "$ROOT")
}

assert_unchanged() {
  assert_equal "$REMEMBERED" "$(tree "$ROOT")"
}

assert_no_stray_files() { # [<glob of what this test put there, relative to the root>...]
  local path name glob stray=()
  while IFS= read -r -d '' path; do
    name=${path#"$ROOT/"}
    case $name in
    postbox/*/outbox.json | postbox/*/.outbox.json.lock | postbox/README.md) ;;
    postbox/*/inbox/*.md | postbox/*/completed/*_completion.json) ;;
    .sprint/progress.json | .sprint/.progress.json.lock) ;;
    data/journal | data/.commit.lock | data/config.json | data/changes/[0-9]*-[0-9]*.jsonl) ;;
    data/budget.json | data/.budget.json.lock) ;; # tries were counted
    data/checkpoints/*_checkpoint.json | data/checkpoints/*_history.jsonl | logs/recovery/*_recovery.jsonl) ;;
    *)
      for glob; do
        # shellcheck disable=SC2053 # it is a glob
        [[ $name != $glob ]] || continue 2
      done
      stray+=("$path")
      ;;
    esac
  done < <(find "$ROOT" "$TMPDIR" "$BATS_TEST_TMPDIR/elsewhere" ! -type d -print0 2>/dev/null)
  ((${#stray[@]} == 0)) || fail "stray files: ${stray[*]}"
}

assert_locks_free() {
  local lock
  while IFS= read -r -d '' lock; do
    flock -n "$lock" true || fail "$lock is still held"
  done < <(find "$ROOT" "$ORCHESTRATION_LOCK_DIR" -name '*.lock' -type f -print0 2>/dev/null)
}
