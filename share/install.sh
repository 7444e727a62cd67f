#!/bin/bash
# Usage: install.sh install PREFIX DESTDIR PYTHON
#        install.sh uninstall PREFIX DESTDIR
#
# What `make install` and `make uninstall` do. Everything that was made is written down beside the suite, with the
# folders that were not there before, so that nothing of it stays behind, and nothing else goes.
set -euo pipefail
shopt -s nullglob

SUITE=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd)
SCRIPTS=(assign_task.sh complete_task_with_recovery.sh task_status.sh clean_checkpoints.sh health_check.sh recovery)
TIMERS=(health sweep cleanup)
umask 022

main() { # <action> <prefix> <destdir> [<python>]
  local action=$1
  PREFIX=$2
  DESTDIR=$3
  [[ $PREFIX$DESTDIR != *$'\n'* ]] || refuse 'a folder with a newline in its name is not supported'
  [[ $PREFIX == /* ]] || PREFIX=$PWD/$PREFIX
  [[ -z $DESTDIR || $DESTDIR == /* ]] || DESTDIR=$PWD/$DESTDIR
  PREFIX=${PREFIX%/}
  BASE=$DESTDIR$PREFIX
  LIBEXEC=libexec/postbox-recovery
  RECORD=$BASE/$LIBEXEC/installed
  remember
  case $action in
  install) install_all "$4" ;;
  uninstall) remove_all ;;
  *) refuse "there is no $action" ;;
  esac
}

refuse() { # <text>
  printf 'install.sh: %s\n' "$1" >&2
  exit 1
}

# --- what is there

remember() { # sets FOLDERS, those that an earlier install made, without DESTDIR; and OLD, its files, below the base
  local kind name
  FOLDERS=() OLD=()
  [[ -e $RECORD ]] || return 0
  while IFS=' ' read -r kind name; do
    if [[ $kind == folder ]]; then
      FOLDERS+=("$name")
    else
      OLD+=("$name")
    fi
  done <"$RECORD"
}

folder() { # <folder, without DESTDIR>
  [[ ! -d $DESTDIR$1/ ]] || return 0
  folder "${1%/*}"
  mkdir -- "$DESTDIR$1"
  FOLDERS+=("$1")
}

put() { # <mode> <target relative to the base> <source>...; the target is a folder where it ends in /
  local mode=$1 target=$2 source name
  shift 2
  for source; do
    name=$target
    [[ $target != */ ]] || name=$target${source##*/}
    folder "$PREFIX/${name%/*}"
    install -m "$mode" -- "$source" "$BASE/$name"
    NEW+=("$name")
  done
}

point() { # <link relative to the base> <where to>
  folder "$PREFIX/${1%/*}"
  ln -sfn -- "$2" "$BASE/$1"
  NEW+=("$1")
}

# --- install

install_all() { # <python>
  local script
  NEW=()
  mkdir -p -- "${DESTDIR:-/}"
  folder "$PREFIX/$LIBEXEC/.cache"
  SCRATCH=$(mktemp -d)
  trap 'record; rm -rf -- "$SCRATCH"' EXIT # what was made by an install that fails can be removed, too
  put 755 "$LIBEXEC/bin/" "${SCRIPTS[@]/#/$SUITE/bin/}"
  put 644 "$LIBEXEC/lib/" "$SUITE"/lib/*.sh "$SUITE"/lib/*.bash
  put 644 "$LIBEXEC/lib/help/" "$SUITE"/lib/help/*.sh
  put 644 "$LIBEXEC/py/" "$SUITE"/py/*.py
  put 644 "$LIBEXEC/py/recovery/" "$SUITE"/py/recovery/*.py "$SUITE/py/recovery/py.typed"
  put 644 "$LIBEXEC/py/recovery/web/" "$SUITE"/py/recovery/web/*
  put 644 "$LIBEXEC/py/recovery/torture/" "$SUITE"/py/recovery/torture/*.py
  "$1" -m compileall -q -s "$DESTDIR" "$BASE/$LIBEXEC/py"
  "$1" -I -S -c 'import os, sys; print(os.path.realpath(sys.executable))' >"$BASE/$LIBEXEC/.cache/python3"
  for script in "${SCRIPTS[@]}"; do
    point "bin/$script" "../$LIBEXEC/bin/$script"
  done
  install_completion
  install_manuals
  install_units "$PREFIX/bin"
  drop_old
  OLD=()
}

install_completion() {
  local script folder=share/bash-completion/completions
  put 644 "$folder/recovery" "$SUITE/lib/completion.bash"
  for script in "${SCRIPTS[@]}"; do
    [[ $script == recovery ]] || point "$folder/$script" recovery
  done
}

install_manuals() {
  local script verb help
  # shellcheck source=lib/verbs.sh
  source "$SUITE/lib/verbs.sh"
  for script in "${SCRIPTS[@]}"; do
    manual "$script" "$SUITE/bin/$script"
  done
  for verb in $WORK_VERBS $LOOK_VERBS; do
    find_help "$verb" "$SUITE/bin"
    help=$RECOVERY_HELP
    if [[ $help == "$SUITE"/bin/* ]]; then
      point "share/man/man1/recovery-$verb.1" "${help##*/}.1"
    else
      manual "recovery-$verb" "$help"
    fi
  done
}

manual() { # <name> <help file>
  "$BASH" "$SUITE/share/man.sh" "$1" "$2" >"$SCRATCH/$1.1"
  put 644 share/man/man1/ "$SCRATCH/$1.1"
}

install_units() { # <folder of the commands>; for users' managers and the system's
  local name place unit_bin=${1//%/%%}
  unit_bin=${unit_bin//\\/\\\\}
  unit_bin=${unit_bin//\"/\\\"}
  for name in "${TIMERS[@]}"; do
    fill "$SUITE/share/systemd/postbox-recovery-$name@.service.in" "$unit_bin" >"$SCRATCH/postbox-recovery-$name@.service"
    for place in share/systemd/user/ lib/systemd/system/; do
      put 644 "$place" "$SCRATCH/postbox-recovery-$name@.service" "$SUITE/share/systemd/postbox-recovery-$name@.timer"
    done
  done
  local cron_bin
  printf -v cron_bin %q "$1"
  fill "$SUITE/share/crontab.in" "${cron_bin//%/\\%}" >"$SCRATCH/crontab.example"
  put 644 share/doc/postbox-recovery/ "$SCRATCH/crontab.example" "$SUITE/README.md" "$SUITE/CHANGELOG.md" "$SUITE/LICENSE"
}

fill() { # <template> <what @BIN@ stands for>
  local text
  text=$(<"$1")
  printf '%s\n' "${text//@BIN@/"$2"}"
}

drop_old() { # what an earlier version had, and this one hasn't
  local name
  local -A kept=()
  for name in "${NEW[@]}"; do
    kept[$name]=yes
  done
  for name in "${OLD[@]}"; do
    [[ -n ${kept[$name]-} ]] || rm -f -- "$BASE/$name"
  done
}

record() { # for `remember`
  {
    ((${#FOLDERS[@]} == 0)) || printf 'folder %s\n' "${FOLDERS[@]}"
    ((${#OLD[@]} + ${#NEW[@]} == 0)) || printf 'file %s\n' "${OLD[@]}" "${NEW[@]}"
  } >"$RECORD.new"
  mv -f -- "$RECORD.new" "$RECORD"
}

# --- uninstall

remove_all() {
  local name at path
  [[ -e $RECORD ]] || refuse "nothing that install made is in $BASE"
  for name in "${OLD[@]}"; do
    rm -f -- "$BASE/$name"
  done
  rm -rf -- "${BASE:?}/$LIBEXEC" # with what Python and the scripts have kept there since
  for ((at = ${#FOLDERS[@]} - 1; at >= 0; at--)); do
    path=$DESTDIR${FOLDERS[at]}
    [[ ! -d $path ]] || rmdir --ignore-fail-on-non-empty -- "$path"
  done
}

main "$@"
