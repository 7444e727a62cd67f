#!/usr/bin/env bats
# shellcheck disable=SC2016 # for bash -c

load test_helper

works() { # [<command that changes the environment>...]
  runs "$@" "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B "größe"
  assert_equal "" "$stderr"
  assert_completed CC TASK-168B "größe"
}

@test "51: no HOME, no USER, the locale C, next to no PATH" {
  works env -i PATH=/usr/bin:/bin ORCHESTRATION_ROOT="$ROOT" ORCHESTRATION_LOCK_DIR="$ORCHESTRATION_LOCK_DIR"
  assert_no_stray_files
}

@test "51: CDPATH set and exported" {
  mkdir -p trap/bin trap/lib
  works env CDPATH="$PWD/trap:$SUITE"
  runs env CDPATH="$SUITE:$PWD/trap" bash -c 'cd "$1" && bin/complete_task_with_recovery.sh CC TASK-169A' bash "$SUITE"
  assert_output_has "completed CC/TASK-169A"
}

@test "51: IFS, odd values of it" {
  works env IFS=/ IFS=_
}

@test "51: odd time zones: the times are UTC" {
  local zone now
  now=$(date -u +%Y-%m-%dT%H)
  for zone in Pacific/Kiritimati Nonsense/Zone '<x>-25:61' ''; do
    fill_workspace "$ROOT"
    rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/*
    works env TZ="$zone"
    [[ $(task CC TASK-168B completed_at) == "$now"* || $(task CC TASK-168B completed_at) == "$(date -u +%Y-%m-%dT%H)"* ]]
  done
}

@test "51: hostile modules in the current folder" {
  local name
  for name in json os sys time _json _signal recovery hashlib errno stat fcntl encodings sitecustomize usercustomize; do
    echo 'open("pwned", "w"); raise SystemExit(99)' >"$name.py"
  done
  works
  assert_absent pwned
}

@test "51: hostile PYTHONPATH, PYTHONSTARTUP, PYTHONHOME and the like" {
  echo 'open("pwned", "w"); raise SystemExit(99)' | tee json.py os.py sitecustomize.py >startup.py
  works env PYTHONPATH="$PWD" PYTHONSTARTUP="$PWD/startup.py" PYTHONHOME="$PWD" PYTHONINSPECT=1 PYTHONVERBOSE=1 \
    PYTHONOPTIMIZE=2 PYTHONWARNINGS=error PYTHONUTF8=0 PYTHONIOENCODING=ascii PYTHONINTMAXSTRDIGITS=640
  assert_absent pwned
}

@test "51: BASH_ENV, ENV, SHELLOPTS, BASHOPTS, POSIXLY_CORRECT and exported functions" {
  echo 'set -f' >bash_env
  works env POSIXLY_CORRECT=1
  fill_workspace "$ROOT"
  rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/*
  works env SHELLOPTS=braceexpand:nounset:noglob:noclobber BASHOPTS=extglob:nullglob:failglob
  fill_workspace "$ROOT"
  rm -rf "$ROOT/data" "$ROOT"/postbox/CC/completed/*
  works env BASH_ENV="$PWD/bash_env"
}

@test "51: xtrace from outside goes to stderr only" {
  runs env SHELLOPTS=xtrace "$SUITE/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_output "completed CC/TASK-168B (pending -> completed); 3 files, read back"
}

@test "51: variables with the names of the scripts' own" {
  works env script=x target=x code=9 json=1 line=x wait=x try=x RECOVERY_LIB=/nonsense RECOVERY_SUITE=/nonsense \
    RECOVERY_PYTHON_FOUND=/bin/false EXIT_OK=9
}

@test "51: a variable that says the set-up has been read" {
  works env RECOVERY_SETUP_READ=1
}

@test "51: a current folder that is gone" {
  mkdir gone
  cd gone
  rmdir ../gone
  runs complete_task CC TASK-168B
  assert_completed CC TASK-168B
}

only() { # <tool>...; a PATH with these alone, in $few, and a suite that remembers no python and finds no system's
  local tool
  few=$BATS_TEST_TMPDIR/path
  mkdir "$few"
  copy_suite "$BATS_TEST_TMPDIR/suite"
  sed -i 's|/usr/bin/python3|/nowhere/python3|' "$BATS_TEST_TMPDIR/suite/lib/python.sh"
  for tool; do
    ln -s "$(type -P "$tool")" "$few/$tool"
  done
}

@test "52: no python on the PATH is refused by name" {
  only bash env mkdir mv
  refused 69 env PATH="$few" "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_stderr_has python3 PATH RECOVERY_PYTHON
  assert_no_stray_files
}

@test "52: --json for that too is one object" {
  only bash env mkdir mv
  refused 69 env PATH="$few" "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" --json CC TASK-168B
  assert_output_json 'd["ok"], d["code"]' "(False, 69)"
}

@test "52: a python that is too old, or that ends at once, is passed over" {
  only bash env mkdir mv
  printf '#!/bin/sh\nexit 1\n' >"$few/python3"
  chmod +x "$few/python3"
  refused 69 env PATH="$few" "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  ln -s "$PYTHON" "$few/python3.11"
  runs env PATH="$few" "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_completed CC TASK-168B
}

@test "52: no jq, no flock, no core utilities on the PATH: none is needed" {
  only bash env
  ln -s "$PYTHON" "$few/python3"
  runs env PATH="$few" "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_equal "" "$stderr"
  assert_completed CC TASK-168B
}

@test "52: a remembered python that is gone is looked for again" {
  copy_suite "$BATS_TEST_TMPDIR/suite"
  mkdir "$BATS_TEST_TMPDIR/suite/.cache"
  echo /nonexistent/python3 >"$BATS_TEST_TMPDIR/suite/.cache/python3"
  runs "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_completed CC TASK-168B
}

@test "52: a RECOVERY_PYTHON that isn't there is named" {
  refused 69 with RECOVERY_PYTHON=/nonexistent/python -- complete_task CC TASK-168B
  assert_stderr_has /nonexistent/python RECOVERY_PYTHON
  [[ $stderr != *": line "[0-9]* ]] || fail "bash speaks instead of us: $stderr"
}

@test "a hook without a usable Python passes in silence, whatever it is for" {
  local python
  printf '#!/bin/sh\nexit 2\n' >"$BATS_TEST_TMPDIR/python2"
  chmod +x "$BATS_TEST_TMPDIR/python2"
  for python in /nonexistent "$BATS_TEST_TMPDIR/python2"; do
    runs with RECOVERY_PYTHON="$python" -- recovery hook claude PreToolUse
    assert_output ""
    assert_equal "" "$stderr"
    runs with RECOVERY_PYTHON="$python" RECOVERY_DEBUG=1 -- recovery -C "$ROOT" hook claude PreToolUse
    assert_stderr_has "RECOVERY_PYTHON" "$python"
  done
}

@test "52: a RECOVERY_PYTHON that is no Python is named" {
  local program
  for program in /bin/false false "$BATS_TEST_TMPDIR"; do
    refused 69 with RECOVERY_PYTHON="$program" -- recovery note CC TASK-168B words
    assert_stderr_has "'$program'" "RECOVERY_PYTHON is no python3"
  done
  ln -s "$PYTHON" "$BATS_TEST_TMPDIR/serpent"
  runs with RECOVERY_PYTHON="$BATS_TEST_TMPDIR/serpent" -- recovery note CC TASK-168B words
}

@test "52: no TMPDIR" {
  works env TMPDIR="$BATS_TEST_TMPDIR/nowhere"
  assert_absent "$BATS_TEST_TMPDIR/nowhere"
}

@test "10: bytecode that a full disk or a power cut left damaged is compiled anew" {
  local file left
  copy_suite "$BATS_TEST_TMPDIR/suite"
  find "$BATS_TEST_TMPDIR/suite" -name __pycache__ -prune -exec rm -rf {} +
  runs "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  while IFS= read -r file; do
    truncate -s 100 "$file"
  done < <(find "$BATS_TEST_TMPDIR/suite/py/recovery" -name '*.pyc')
  runs "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_output_has "nothing changed"
  runs "$BATS_TEST_TMPDIR/suite/bin/complete_task_with_recovery.sh" CC TASK-168B
  left=$(find "$BATS_TEST_TMPDIR/suite/py/recovery" -name 'store*.pyc' -size -1k)
  assert_equal "" "$left"
}

@test "10: a limit on the size of files leaves no bytecode that ends every later run" {
  copy_suite "$BATS_TEST_TMPDIR/suite"
  find "$BATS_TEST_TMPDIR/suite" -name __pycache__ -prune -exec rm -rf {} +
  run --separate-stderr -74 prlimit --fsize=4000 "$BATS_TEST_TMPDIR/suite/bin/assign_task.sh" CC T-1 first LOW
  runs "$BATS_TEST_TMPDIR/suite/bin/assign_task.sh" CC T-1 first LOW
}
