# shellcheck shell=bash
# The one place that starts Python.  The script turns into the helper: one process, which holds its own locks.
#
# The helper needs the standard library alone, so the system's own python3 is taken where it is new enough: it starts
# fastest and isn't gone tomorrow.  Else the PATH's: a version manager's `python3` is a script that costs more than the
# whole job, so the real interpreter behind it is asked for once and remembered in .cache/python3 beside the suite
# (where that can be written).

start_python() { # <interpreter> <arg>...
  "$@"
}

become_helper() { # <verb> [<arg>...]
  # where half of the suite is missing Python would end with 2, a hook's code for a refusal
  [[ $1 != hook || -r $RECOVERY_SUITE/py/recovery/__main__.py ]] || exit 0
  find_python "$@"
  # -I -S: no site packages, no PYTHON* variables, nothing imported from the current folder
  start_python exec "$RECOVERY_PYTHON_FOUND" -I -S "$RECOVERY_SUITE/py/recovery/__main__.py" "$@"
}

become_command_line() { # <verb> [<arg>...]
  local python
  find_python "$@"
  for python in "$RECOVERY_SUITE/.venv/bin/python" "$RECOVERY_PYTHON_FOUND"; do
    if [[ -x $python ]] && start_python "$python" -I -c 'import orjson, typer' 2>/dev/null; then
      start_python exec "$python" -I "$RECOVERY_SUITE/py/recovery/__main__.py" --typer "$@"
    fi
  done
  json_refusal_if_asked "the packages typer and orjson are missing" \
    'run make setup in the suite, or name a python3 that has them in RECOVERY_PYTHON' 'make setup' "$@"
  warn "\`recovery $1\` needs the packages typer and orjson; the scripts and the other verbs work without it"
  local how="install them for $RECOVERY_PYTHON_FOUND, or name a python3 that has them in RECOVERY_PYTHON"
  [[ ! -e $RECOVERY_SUITE/Makefile ]] || how="make -C '$(cd -- "$RECOVERY_SUITE" && pwd)' setup"
  die "$EXIT_UNAVAILABLE" "  next: $how"
}

become_live() { # <verb> [<arg>...]; returns where no Python has rich: the helper says so
  local python
  find_python "$@"
  for python in "$RECOVERY_SUITE/.venv/bin/python" "$RECOVERY_PYTHON_FOUND"; do
    if [[ -x $python ]] && start_python "$python" -I -c 'import rich' 2>/dev/null; then
      start_python exec "$python" -I "$RECOVERY_SUITE/py/recovery/__main__.py" "$@"
    fi
  done
}

find_python() { # [<arg>...]; sets RECOVERY_PYTHON_FOUND
  local cache=$RECOVERY_SUITE/.cache/python3
  if [[ -n ${RECOVERY_PYTHON-} ]]; then
    RECOVERY_PYTHON_FOUND=$RECOVERY_PYTHON
    [[ $RECOVERY_PYTHON == */* && -x $RECOVERY_PYTHON ]] ||
      RECOVERY_PYTHON_FOUND=$(type -P "$RECOVERY_PYTHON") || no_python "RECOVERY_PYTHON names no program" "$@"
    # to ask costs as much as the job: what is called python is believed, and says itself what is wrong with it; but of a
    # hook nobody wants to hear that, and Python 2 would refuse whatever an agent does
    [[ ${1-} != hook && -f $RECOVERY_PYTHON_FOUND && ${RECOVERY_PYTHON##*/} == *py* ]] ||
      real_python "$RECOVERY_PYTHON_FOUND" || no_python "RECOVERY_PYTHON is no python3, 3.9 or newer" "$@"
    return
  fi
  if [[ -r $cache ]] && IFS= read -r RECOVERY_PYTHON_FOUND <"$cache" && [[ -x $RECOVERY_PYTHON_FOUND ]]; then
    return
  fi
  local name
  for name in /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.10 python3.9 python; do
    if real_python "$name"; then
      remember_python "$cache"
      return
    fi
  done
  no_python "python3, 3.9 or newer, is not on the PATH" "$@"
}

no_python() { # <text> [<arg>...]
  if [[ ${2-} == hook ]]; then
    # a broken hook stops nobody's work
    [[ ${RECOVERY_DEBUG-} != 1 ]] || warn "$1${RECOVERY_PYTHON:+: ${RECOVERY_PYTHON@Q}}"
    exit 0
  fi
  json_refusal_if_asked "no usable python3" \
    'install python3, 3.9 or newer, or name it in RECOVERY_PYTHON' 'install python3' "${@:2}"
  warn "$1${RECOVERY_PYTHON:+: ${RECOVERY_PYTHON@Q}}"
  die "$EXIT_UNAVAILABLE" "  next: install python3, or name it in RECOVERY_PYTHON"
}

json_refusal_if_asked() { # <error> <hint> <next> [<arg>...]; texts that need no escaping
  local word
  for word in "${@:4}"; do
    [[ $word != -- ]] || return 0
    if [[ $word == --json ]]; then # the only JSON that is not Python's: there is none
      printf '{"ok": false, "code": %d, "error": "%s", "hint": "%s", "next": "%s"}\n' \
        "$EXIT_UNAVAILABLE" "$1" "$2" "$3" || :
      return 0
    fi
  done
}

real_python() { # <name>; sets RECOVERY_PYTHON_FOUND
  type -P "$1" >/dev/null || return 1
  RECOVERY_PYTHON_FOUND=$(start_python "$1" -I -S -c '
import os, sys
if sys.version_info >= (3, 9):
    print(os.path.realpath(sys.executable))' 2>/dev/null) && [[ -x $RECOVERY_PYTHON_FOUND ]]
}

remember_python() { # <cache file>
  local folder=${1%/*}
  { mkdir -p "$folder" && printf '%s\n' "$RECOVERY_PYTHON_FOUND" >"$1.$$" && mv -f "$1.$$" "$1"; } 2>/dev/null || :
}
