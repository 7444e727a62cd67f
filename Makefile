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

shell_files := $(wildcard bin/* lib/*.sh lib/*.bash lib/help/*.sh share/*.sh tests/*.sh tests/bench/peers/*.sh tests/shell/*.bash)
# what only runs where there is Python 3.11; all else is read by the scripts, on 3.9 too
cold := breaker.py breaker_state.py checkpoints.py clean.py cli.py cli_breaker.py cli_checkpoint.py \
  cli_look.py cli_main.py cli_torture.py locks.py manager.py once.py once_command.py protect.py renames.py report.py \
  report_page.py report_text.py reset_times.py rules.py run.py run_task.py serve.py session.py stats.py stats_lines.py \
  stats_recent.py stats_rollup.py timeline.py timeouts.py try_command.py
hot := $(filter-out $(addprefix py/recovery/,$(cold)),$(wildcard py/recovery/*.py))
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

.PHONY: picture
picture: $(STAMP) ## the picture in the README, of agents that really work and are shot (two minutes; needs chromium)
	$(BIN)/python tests/demo/picture.py

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
install: ## install scripts, manual pages, completion and systemd units below PREFIX (/usr/local); DESTDIR for packagers
	@share/install.sh install '$(PREFIX)' '$(DESTDIR)' '$(PYTHON)'

.PHONY: uninstall
uninstall: ## remove what install made
	@share/install.sh uninstall '$(PREFIX)' '$(DESTDIR)'

.PHONY: clean
clean: ## remove what the targets above made in this folder
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist py/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
