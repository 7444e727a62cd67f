#!/bin/bash
# Usage: recovery torture [--minutes N | --quick] [--dir PATH] [--seed N] [--trial KIND:N]
#
# Prove on the disk that holds your data that nothing is lost: SIGKILL and TERM at every step of every command, power
# cuts, writers in crowds, frozen and endless holders of locks, who comes late or in between, full disks and failing
# calls. After each trial every file must be whole, old or new and never a mixture, nothing lost, doubled or left lying
# about, and the same command must work again.
#
# All of it happens in a scratch folder on that disk, which is removed at the end; your workspace is not touched, but
# for logs/recovery/certificate.json, which says what was tried, on which file system, with which seed, and what could
# not be tried here and why. `health_check.sh` warns where it is missing or does not fit. After a violation the scratch
# folder is kept, and the command is told that does that very trial again. Ctrl-C cleans up, and leaves no certificate.
#
# Best as root: without it, or without strace(1), some trials can't be made; each is named with the reason.
#
# The states a power cut may leave are computed from the recorded calls, after the model of the ALICE paper (OSDI
# 2014): what was not synced may be missing, cut, or out of order. No machine is switched off.
#
# Options:
#   --minutes N      how long (2), preparing included; each kind of trial is made once, however slow the machine is
#   --quick          20 seconds
#   --dir PATH       try the disk that holds this folder, instead of the workspace's; the certificate is kept only if it
#                    is the same one
#   --seed N         try the same places again
#   --trial KIND:N   only this trial, as a violation names it
#   --dry-run        say where it would be tried, change nothing
#   --json           one object on stdout: the certificate
#   -q, --quiet      nothing on success
#   -C DIR           the workspace
#   -h, --help       this text
#
# Exit codes: 0 no violations; 1 violations; 64 usage; 66 no workspace or folder; 69 locks or renames don't work there,
# or the packages are missing; 74 too little room, or a disk error; 77 no permission; 130 interrupted.
# Environment: ORCHESTRATION_ROOT RECOVERY_PYTHON
