#!/usr/bin/env bats

load test_helper

# `make install` and `make uninstall`, in a prefix with a space and a per cent sign in its name.

PREFIX_NAME='a pre%fix'

make_suite() { # <target> [<variable>=<value>...]
  make --silent --no-print-directory -C "$SUITE" "$@" PYTHON="$PYTHON"
}

whole_tree() { # <folder>
  (cd "$1" && find . -printf '%p %y %m %l\n' | LC_ALL=C sort && find . -type f -exec sha256sum {} + | LC_ALL=C sort)
}

has() { # <tool>...; where one is missing that part is not tested, which is said, and in CI a failure
  local tool
  for tool; do
    type -P "$tool" >/dev/null || {
      [[ -z ${CI-} ]] || fail "$tool is missing"
      echo "# NOT TESTED: $tool is missing" >&3
      return 1
    }
  done
}

@test "what is installed works from its prefix, and is gone after uninstall: the tree is the one before" {
  local prefix="$BATS_TEST_TMPDIR/$PREFIX_NAME" before page unit instance
  mkdir -p "$prefix/share/man/man1" "$prefix/bin"
  echo mine >"$prefix/bin/other"
  before=$(whole_tree "$prefix")
  runs make_suite install PREFIX="$prefix"
  assert_equal "" "$output$stderr"

  runs "$prefix/bin/complete_task_with_recovery.sh" CC TASK-168B
  assert_completed CC TASK-168B
  runs env -i PATH=/usr/bin:/bin "$prefix/bin/health_check.sh" -q -C "$ROOT" journal
  runs "$prefix/bin/recovery" --version

  # every script and verb has a page that says what --help says, and that man can read
  for page in health_check.sh assign_task.sh recovery $(source "$SUITE/lib/verbs.sh" && printf 'recovery-%s ' $WORK_VERBS $LOOK_VERBS); do
    assert_exists "$prefix/share/man/man1/$page.1"
  done
  if has man; then
    run -0 bash -c 'cd "$1" && for page in *.1; do LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings=mac,char,break -l "$page" >/dev/null || exit; done 2>&1' \
      - "$prefix/share/man/man1"
    assert_output ""
    run -0 env LC_ALL=C.UTF-8 MANWIDTH=80 man -l "$prefix/share/man/man1/health_check.sh.1"
    assert_output_has "--prometheus FILE" "EXIT STATUS" "RECOVERY_HEALTH_PING"
  fi
  if has mandoc; then
    run mandoc -T lint -W error "$prefix"/share/man/man1/*.1
    assert_output ""
  fi

  # completion, as bash-completion loads it: by the command's name
  run -0 bash -c 'PATH="$1/bin:$PATH"; source "$1/share/bash-completion/completions/health_check.sh"
    COMP_WORDS=(health_check.sh lo) COMP_CWORD=1; _recovery; echo "${COMPREPLY[*]}"' - "$prefix"
  assert_output "locks logs"

  # the units, of both managers
  assert_equal 'ExecStart="'"${prefix//%/%%}"'/bin/health_check.sh" -q --skip certificate -C %f' \
    "$(grep ^ExecStart= "$prefix/share/systemd/user/postbox-recovery-health@.service")"
  if has systemd-analyze systemd-escape; then
    instance=$(systemd-escape --path "$ROOT")
    for unit in "$prefix"/lib/systemd/system/*; do
      cp "$unit" "$TMPDIR/$(basename "${unit/@./@"$instance".}")"
    done
    run systemd-analyze verify --man=no "$TMPDIR"/postbox-recovery-*
    [[ $output != *postbox-recovery* ]] || fail "$output" # of the machine's own units it may say what it likes
    rm "$TMPDIR"/postbox-recovery-*
  fi

  # a line of the crontab, as cron runs it: by sh, with \% for a per cent sign
  local line
  line=$(grep '^[^#].*health_check' "$prefix/share/doc/postbox-recovery/crontab.example")
  line=${line#*'*  '}
  line=${line//'\%'/%}
  printf -v page %q "$ROOT"
  complete_task CC TASK-168B
  run -0 env -i PATH=/usr/bin:/bin sh -c "${line/'/path/to/workspace'/"$page"}"
  assert_output ""
  given postbox/XX/outbox.json '{'
  run -2 env -i PATH=/usr/bin:/bin sh -c "${line/'/path/to/workspace'/"$page"}"
  assert_output_has "RECOVERY CRITICAL"

  runs make_suite uninstall PREFIX="$prefix"
  assert_equal "$before" "$(whole_tree "$prefix")"
  run --separate-stderr -2 make_suite uninstall PREFIX="$prefix"
  assert_stderr_has "nothing that install made"
  assert_equal "$before" "$(whole_tree "$prefix")"
}

@test "a package for another prefix names that prefix, and a second install drops what is not there any more" {
  local dest="$BATS_TEST_TMPDIR/package" suite="$BATS_TEST_TMPDIR/suite"
  copy_suite "$suite"
  cp -R -p "$SUITE/share" "$SUITE/Makefile" "$SUITE/README.md" "$SUITE/CHANGELOG.md" "$SUITE/LICENSE" "$suite/"
  echo '# an old one' >"$suite/lib/help/old.sh"
  SUITE=$suite PYTHON=true runs make_suite install PREFIX=/opt/postbox DESTDIR="$dest" # nothing is compiled
  assert_exists "$dest/opt/postbox/libexec/postbox-recovery/lib/help/old.sh"
  run ! grep -rlF "$dest" "$dest"
  assert_output ""
  rm "$suite/lib/help/old.sh"
  SUITE=$suite PYTHON=true runs make_suite install PREFIX=/opt/postbox DESTDIR="$dest"
  assert_absent "$dest/opt/postbox/libexec/postbox-recovery/lib/help/old.sh"
  assert_equal 'ExecStart="/opt/postbox/bin/recovery" sweep -q -C %f' \
    "$(grep ^ExecStart= "$dest/opt/postbox/lib/systemd/system/postbox-recovery-sweep@.service")"
  SUITE=$suite runs make_suite uninstall PREFIX=/opt/postbox DESTDIR="$dest"
  assert_equal "" "$(ls -A "$dest")"
}
