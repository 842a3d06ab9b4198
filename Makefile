# Two commands do everything: `make demo` and `make test`. Both set up what they need in .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTOS ?=
DEMO := runs/demo

.PHONY: setup demo test lint check clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CrispEdit needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

# A small dataset from rendered landscapes, or from your own photographs: make demo PHOTOS=~/Pictures
demo: setup
	$(BIN)/python -m crispedit.pipelines.demo $(DEMO) $(PHOTOS)

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typed && mkdir -p build/typed/crispedit
	ln -s $(CURDIR)/crispedit/* $(CURDIR)/filters $(CURDIR)/shards $(CURDIR)/pipelines $(CURDIR)/configs build/typed/crispedit/
	$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
