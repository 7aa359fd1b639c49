# The commands that people and CI run here. Needs make and Python 3.11 to 3.13; the first target that needs an
# environment makes it in .venv from requirements-test.lock, and installs again when the lock changes.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter to build .venv with; empty: the first suitable one of python3, python3.13, 3.12, 3.11.
PYTHON ?=
# Where `make ui` listens, on 127.0.0.1.
PORT ?= 3000
# Inputs of `make fuzz`, for each of its two parts.
INPUTS ?= 1000000
# Repetitions in `make storm` of the work that `make stories` does once.
TIMES ?= 20

BIN := .venv/bin
READY := .venv/.installed
# Dagster's records: a folder of the clone that links to dagster.yaml.
DAGSTER_HOME := $(CURDIR)/.home
OPENED := .home/.opened

# A developer's own settings must not decide whether the tests pass.
CLEAN_ENV := env -u DAGSTER_HOME -u DAGSTER_POSTGRES_URL -u BACKFILL_ENV -u PYTHONDONTWRITEBYTECODE

# One process more than processors: many tests wait for a process that they have started.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo ui test stories cover lint bench storm ray fuzz examples docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(OPENED) ## one day from ticks to tables, without any account; then a table of the results
	@DAGSTER_HOME="$(DAGSTER_HOME)" $(BIN)/backfill-assets demo

ui: $(OPENED) ## the Dagster UI with its daemon on 127.0.0.1:3000 (PORT=… for another), over the same data
	@DAGSTER_HOME="$(DAGSTER_HOME)" $(BIN)/backfill-assets standins -- \
	    $(BIN)/dg dev -m backfill_assets.definitions -h 127.0.0.1 -p $(PORT)

test: lint ## style, types, spelling and all tests but the stories
	@$(CLEAN_ENV) $(PYTEST) -m 'not story'

stories: $(READY) ## the long tests: daemon, service, browser, cloud, killed processes, orders of days, damage
	@$(CLEAN_ENV) $(PYTEST) -m story

cover: $(READY) ## the test suite once more, with the lines that it does not reach
	@$(CLEAN_ENV) $(PYTEST) --cov --cov-report=term

lint: $(READY) ## style, types and spelling only
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

bench: $(READY) ## the comparisons of benchmarks/ as one table in docs/performance.md (ROWS=… for other files of trades)
	@$(BIN)/python benchmarks/bench.py $(if $(ROWS),--rows $(ROWS))

storm: $(READY) ## days and services killed at random moments, days in random orders (TIMES=… for another number)
	@BACKFILL_TIMES=$(TIMES) $(CLEAN_ENV) $(BIN)/python -m pytest -v backfill_assets_tests/pipeline/test_kill.py \
	    backfill_assets_tests/pipeline/test_neighbours.py backfill_assets_tests/progress/test_service_processes.py \
	    backfill_assets_tests/pipeline/test_damaged_pairs.py backfill_assets_tests/pipeline/test_any_sequence.py \
	    backfill_assets_tests/rehearsal/test_broken_deployment.py backfill_assets_tests/rehearsal/test_replay.py \
	    backfill_assets_tests/rehearsal/test_broken_promises.py backfill_assets_tests/progress/test_database_outage.py \
	    backfill_assets_tests/test_benchmarks.py backfill_assets_tests/test_runbook.py \
	    backfill_assets_tests/test_deploy.py backfill_assets_tests/automation/test_run_order.py

ray: $(READY) ## twenty days on a Ray cluster of three local nodes, of which one is killed (installs Ray into .venv)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r deploy/ray/requirements.txt
	@$(CLEAN_ENV) $(BIN)/python -m pytest -v backfill_assets_tests/ray_cluster

fuzz: $(READY) ## mutated tick files, with every index checked (INPUTS=… for another number than a million)
	@NUMBA_BOUNDSCHECK=1 $(BIN)/python -m backfill_assets_tests.ticks.fuzzing --inputs $(INPUTS)
	@NUMBA_BOUNDSCHECK=1 $(BIN)/python -m backfill_assets_tests.ticks.fuzzing --storm --inputs $(INPUTS)

examples: $(READY) ## run the notebooks of examples/ and keep their output and charts
	@$(CLEAN_ENV) $(BIN)/python -m backfill_assets_tests.notebooks

docs: $(READY) ## the docs as a site in build/docs/site, for a browser without a network; a link to nowhere fails
	@$(BIN)/python scripts/docs_site.py

# setuptools builds the package itself, without isolation, so it is pinned like everything else.
# `make lock UPGRADE=--upgrade` takes newer versions; without it only packages that setup.cfg demands change.
# The second lock is a part of the first, so the tested versions run. The locks are complete, so they are
# installed without dependencies: pip does not find the pin of a package that another asks for with extras.
COMPILE := $(BIN)/uv pip compile pyproject.toml - --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate --quiet
lock: $(READY) ## write requirements-test.lock and its run-time part, requirements.lock, from setup.cfg
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv
	@echo 'setuptools>=77' | $(COMPILE) --extra test $(UPGRADE) -o requirements-test.lock
	@echo 'setuptools>=77' | $(COMPILE) --constraint requirements-test.lock $(UPGRADE) -o requirements.lock
	@echo "$$(grep -c == requirements-test.lock) pins, $$(grep -c == requirements.lock) of them at run time; the next make installs the changes."

clean: ## remove .venv, Dagster's records and caches; data/ is kept
	@rm -rf .venv .home build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

# A separate process opens it once: services that open a fresh database together may disturb each other.
$(OPENED): dagster.yaml $(READY)
	@mkdir -p .home
	@ln -sf ../dagster.yaml .home/dagster.yaml
	@DAGSTER_HOME="$(DAGSTER_HOME)" $(BIN)/python -c 'import dagster; dagster.DagsterInstance.get().dispose()'
	@touch $(OPENED)

$(READY): requirements-test.lock setup.cfg pyproject.toml
	@suits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; \
	if ! $(BIN)/python -c "$$suits" 2>/dev/null; then \
	    found=; bare=; \
	    for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	        "$$name" -c "$$suits" 2>/dev/null || continue; \
	        if "$$name" -c 'import ensurepip, venv' 2>/dev/null; then found=$$name; break; fi; \
	        bare=$$name; \
	    done; \
	    if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	        echo "make: $$bare cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv) and run make again" >&2; exit 1; \
	    elif [ -z "$$found" ]; then \
	        echo "make: no Python 3.11, 3.12 or 3.13 $(if $(PYTHON),at $(PYTHON),in PATH): install one, or name it with make PYTHON=/path/to/python3.11" >&2; exit 1; \
	    fi; \
	    echo "Making .venv with $$("$$found" --version) ..."; \
	    "$$found" -m venv --clear .venv || exit 1; \
	fi
	@echo "Installing what requirements-test.lock pins into .venv (a few minutes, only the first time) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r requirements-test.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
	@echo "Installed."
