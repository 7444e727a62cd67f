# make demo and make test are all a newcomer needs; everything else is listed by make help.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

PREFIX ?= /usr/local
DESTDIR ?=
libexec := $(DESTDIR)$(PREFIX)/libexec/postbox-recovery
scripts := assign_task.sh complete_task_with_recovery.sh task_status.sh clean_checkpoints.sh health_check.sh recovery

shell_files := $(wildcard bin/* lib/*.sh lib/*.bash lib/help/*.sh tests/*.sh tests/bench/peers/*.sh tests/shell/*.bash)
hot := $(addprefix py/recovery/, \
  __init__.py __main__.py archive.py archived.py assign.py backlog.py blocking.py bounds.py budget.py certificate.py chain.py checked.py \
  checkfile.py checklist.py checks.py claim.py claim_locks.py claims.py claudetasks.py cleanup.py commands.py \
  commit.py complete.py contention.py dependencies.py derived.py disk.py distribute.py documented.py \
  durable.py edit.py errors.py escalations.py fail.py faultpoints.py finish.py flock.py foreground.py \
  forks.py health.py helper.py importing.py incidents.py init.py journal.py jsonl.py jsontext.py layout.py \
  moves.py note.py notify.py owners.py place.py processes.py reassign.py rebuild.py receipts.py recover.py \
  release.py reopen.py request.py resolve.py result.py retry.py review.py rollback.py say.py segments.py share.py \
  signals.py sources.py start.py status.py steps.py store.py swap.py sweep.py taskmaster.py tasks.py \
  trace.py treestate.py trust.py turns.py tx.py undo.py verbs.py workspace.py)
# GNU parallel runs the shell tests side by side; without it they run one by one
jobs := $(shell command -v parallel >/dev/null && parallel --version 2>/dev/null | grep -q GNU && echo --jobs 2)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | while IFS=$$'\t' read -r target text; do printf '  make %-16s %s\n' "$$target" "$$text"; done

.PHONY: demo
demo: ## assign, complete, kill -9 half-way and repair, in a scratch workspace
	@tests/demo.sh

.PHONY: setup
setup: $(STAMP) ## install everything for development into .venv

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed for development")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.PHONY: test
test: $(STAMP) ## all tests
	$(BIN)/python -m pytest -q -n 2 --dist worksteal
	$(MAKE) --no-print-directory test-shell

.PHONY: test-shell
test-shell: $(STAMP) ## the shell tests only
	PATH="$(CURDIR)/$(BIN):$$PATH" bats $(jobs) tests/shell

.PHONY: test-full
test-full: $(STAMP) ## the crash tests with every pair of crashes (long)
	RECOVERY_TEST_FULL=1 $(BIN)/python -m pytest -q tests/crash tests/unit

.PHONY: test-mutations
test-mutations: $(STAMP) ## take out each safety in turn: a named test, and the torture, must notice (long)
	$(BIN)/python tests/mutations/run.py
	$(BIN)/python tests/mutations/run.py --torture

.PHONY: torture
torture: $(STAMP) ## ten minutes of recovery torture on this disk, then a year; TORTURE="--minutes 60 --dir PATH"
	RECOVERY_PYTHON='$(CURDIR)/$(BIN)/python' bin/recovery torture $(or $(TORTURE),--minutes 10 --dir .)
	$(MAKE) --no-print-directory year

.PHONY: year
year: $(STAMP) ## a year of work, simulated: bounds kept, statistics exact, as fast at its end; YEAR="--tasks 400000 --dir PATH"
	$(BIN)/python tests/long/year.py $(YEAR)

.PHONY: agents
agents: $(STAMP) ## 60 agents, 2,000 tasks, random kills: each task completed once, never two owners (long); AGENTS="--agents 6"
	$(BIN)/python tests/long/agents.py $(AGENTS)

.PHONY: lint
lint: $(STAMP) ## shellcheck, shfmt, ruff, mypy, and that the helper still runs on Python 3.9
	$(BIN)/shellcheck $(shell_files)
	$(BIN)/shfmt -i 2 -d $(shell_files)
	$(BIN)/shfmt -i 2 -ln bats -d tests/shell/*.bats
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips --eval-annotations --violations -t=3.9- $(hot)

.PHONY: bench
bench: $(STAMP) ## side by side with jq, sqlite3 and the lock libraries (BENCH_JQ names another jq)
	$(BIN)/python tests/bench/bench.py

.PHONY: bench-quick
bench-quick: $(STAMP) ## the same, few rounds
	$(BIN)/python tests/bench/bench.py --quick

.PHONY: install
install: ## install the scripts below PREFIX (default /usr/local); DESTDIR for packagers
	install -d '$(libexec)/bin' '$(libexec)/lib/help' '$(libexec)/py/recovery/torture' '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 $(addprefix bin/,$(scripts)) '$(libexec)/bin'
	install -m 644 lib/*.sh lib/*.bash '$(libexec)/lib'
	install -m 644 lib/help/*.sh '$(libexec)/lib/help'
	install -m 644 py/*.py '$(libexec)/py'
	install -m 644 py/recovery/*.py py/recovery/py.typed '$(libexec)/py/recovery'
	install -m 644 py/recovery/torture/*.py '$(libexec)/py/recovery/torture'
	$(PYTHON) -m compileall -q -s '$(DESTDIR)' '$(libexec)/py'
	install -d '$(libexec)/.cache'
	$(PYTHON) -I -S -c 'import os, sys; print(os.path.realpath(sys.executable))' > '$(libexec)/.cache/python3'
	for script in $(scripts); do ln -sf "../libexec/postbox-recovery/bin/$$script" '$(DESTDIR)$(PREFIX)/bin/'; done

.PHONY: uninstall
uninstall: ## remove what install made
	for script in $(scripts); do rm -f "$(DESTDIR)$(PREFIX)/bin/$$script"; done
	rm -rf '$(libexec)'

.PHONY: clean
clean: ## remove what the targets above made in this folder
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist py/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
