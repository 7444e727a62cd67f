#!/usr/bin/env bats

load test_helper

@test "shell and Python agree on every exit code" {
  sed -n 's/^\([A-Z_]*\) = \([0-9]*\)$/\1=\2/p' "$SUITE/py/recovery/errors.py" | sort >python
  tr ' ' '\n' <"$SUITE/lib/exit_codes.sh" | sed -n 's/^EXIT_\([A-Z_]*\)=\([0-9]*\)$/\1=\2/p' | sort >shell
  [[ -s python ]]
  run -0 diff python shell
  rm python shell
}

@test "the codes are those of the contract" {
  # shellcheck source=../../lib/exit_codes.sh
  source "$SUITE/lib/exit_codes.sh"
  assert_equal "0 1 64 65 66 69 70 71 74 75 76 77" "$EXIT_OK $EXIT_FAILED $EXIT_USAGE $EXIT_DATA $EXIT_NOT_FOUND \
$EXIT_UNAVAILABLE $EXIT_BUG $EXIT_UNCONFIRMED $EXIT_IO $EXIT_BUSY $EXIT_NOT_YOURS $EXIT_DENIED"
}
