# shellcheck shell=bash
# The exit codes, as py/recovery/errors.py has them; a test holds the two equal.
# shellcheck disable=SC2034 # read by those who source this
readonly EXIT_OK=0 EXIT_FAILED=1 EXIT_USAGE=64 EXIT_DATA=65 EXIT_NOT_FOUND=66 EXIT_UNAVAILABLE=69 EXIT_BUG=70 \
  EXIT_UNCONFIRMED=71 EXIT_IO=74 EXIT_BUSY=75 EXIT_NOT_YOURS=76 EXIT_DENIED=77 EXIT_WRAPPER_FAILED=125
