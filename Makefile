# Everything a newcomer types. Each target sets up what it needs in .venv by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Images that `make image-check` builds and tries.
IMAGES ?= prep train

.PHONY: help setup demo demo-long test test-slow test-cluster test-all check bench docs image-check clean

help:
	@echo "make demo       archive, shards, pretraining and scores, made up and small: about 10 minutes"
	@echo "make demo-long  the same with more patches and steps, beside full supervision: under an hour"
	@echo "make test       style checks and the tests, under 10 minutes"
	@echo "make test-all   the same, then the long tests, those on a Slurm, the pages and the demo"
	@echo "make check      ruff, mypy and import contracts alone"
	@echo "make bench      speed as ratios against plain baselines"
	@echo "make docs       the pages as a site, in build/site"
	@echo "make test-cluster   a real Slurm on this machine, where its packages are installed"
	@echo "make image-check    images built and tried without a daemon (IMAGES=prep: only that)"

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "$(PYTHON) is not Python 3.11 to 3.13; name one with make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh demo

demo-long: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh demo-long long

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest

test-slow: $(READY)
	$(BIN)/pytest -m slow

test-cluster: $(READY)
	$(BIN)/pytest -m cluster tests/cluster

test-all:
	$(MAKE) test
	$(MAKE) test-slow
	$(MAKE) test-cluster
	$(MAKE) docs
	$(MAKE) demo

bench: $(READY)
	@below=; for benchmark in benchmarks/*.py; do \
		$(BIN)/python $$benchmark || below="$$below $$benchmark"; \
	done; [ -z "$$below" ] || { echo "failed or below a bar:$$below"; exit 1; }

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

image-check: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" python docker/image_check.py $(IMAGES)

clean:
	rm -rf demo demo-long build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
