# Everything a newcomer types. Each target sets up what it needs in .venv by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test test-slow test-all check bench clean

help:
	@echo "make demo       archive, shards, pretraining and scores, made up and small: about 10 minutes"
	@echo "make test       style checks and the tests, under 10 minutes"
	@echo "make test-all   the same, then the long tests and the demo"
	@echo "make check      ruff, mypy and import contracts alone"
	@echo "make bench      speed as ratios against plain baselines"

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "$(PYTHON) is not Python 3.11 to 3.13; name one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh demo

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest

test-slow: $(READY)
	$(BIN)/pytest -m slow

test-all:
	$(MAKE) test
	$(MAKE) test-slow
	$(MAKE) demo

bench: $(READY)
	@for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done

clean:
	rm -rf demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
