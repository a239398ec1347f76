# Needs make and Python 3.11 or newer; everything else goes into .venv. `make` alone lists what there is to run.
.DEFAULT_GOAL := help
.PHONY: help install serve test check format soak bench-append bench-context bench-eviction bench-migration bench-retrieval bench-search clean

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$p" && break; done)
# Paths stay relative: the checkout's own path may hold spaces.
RUN := .venv/bin/python -m
PIP := $(RUN) pip install --quiet --disable-pip-version-check

help: ## List what there is to run
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

install: .venv/installed ## Create .venv and install Turnstone into it

serve: .venv/installed ## Start the server and its database on http://127.0.0.1:8420 (Ctrl-C stops both)
	@.venv/bin/turnstone serve

# Each process of tests has a PostgreSQL of its own.
test: check ## Lint, format, strict types, import contracts, then all tests
	$(RUN) pytest -n auto --maxprocesses 4 --dist worksteal

check: .venv/installed-dev ## All of `make test` but the tests
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	.venv/bin/lint-imports

format: .venv/installed-dev ## Format the code and sort its imports
	$(RUN) ruff check --fix --select I .
	$(RUN) ruff format .

soak: .venv/installed-dev ## The crash test for 20 rounds instead of 3
	CRASH_ROUNDS=20 $(RUN) pytest tests/crash --timeout=3600

bench-eviction: .venv/installed-bench ## Evidence recall of each eviction policy; DATA=path to LoCoMo, LongMemEval or JSON lines
	$(RUN) benchmarks.eviction "$(DATA)" $(ARGS)

bench-append: .venv/installed ## Appends and reads over HTTP, against pgbench on the same database; items against events (6 minutes)
	$(RUN) benchmarks.append

bench-context: .venv/installed ## Working sets and contexts over HTTP, against a static route; a million events (12 minutes)
	$(RUN) benchmarks.context $(ARGS)

bench-migration: .venv/installed ## A whole embedding migration on live traffic, from add to contract; DATA=path to LoCoMo, ARGS=--quick
	$(RUN) benchmarks.migration "$(DATA)" $(ARGS)

bench-retrieval: .venv/installed ## Evidence found by searches over HTTP; DATA="paths to LoCoMo or LongMemEval", ARGS=--ablate
	$(RUN) benchmarks.retrieval $(DATA) $(ARGS)

bench-search: .venv/installed ## Latency, memory and throughput of searches, up to a million events of others (20 minutes)
	$(RUN) benchmarks.search $(ARGS)

bench-append-full: .venv/installed ## The same with 10 million events loaded
	$(RUN) benchmarks.append --loaded 10000000

clean: ## Remove .venv and caches; data directories stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# The stamps make a second `make serve` start at once; a changed pyproject.toml installs again.
.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Turnstone needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x .venv/bin/python || "$(PYTHON)" -m venv .venv || { rm -rf .venv; \
		echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv (once)"
	@$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[dev]'
	@touch $@

.venv/installed-bench: .venv/installed
	@echo "Installing what the plots need"
	@$(PIP) --editable '.[bench]'
	@touch $@
