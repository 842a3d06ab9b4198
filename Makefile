# Two commands do everything: `make demo` and `make test`. Both set up what they need in .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTOS ?=
DEMO := runs/demo

PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq

.PHONY: setup demo test lint check clean

setup: $(VENV)/.ready

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CrispEdit needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml | $(BIN)/python
	@echo 'Set-up: installing CrispEdit, and what developing it needs, into $(VENV).'
	@$(PIP) -e '.[dev]'
	@touch $(VENV)/.ready $(VENV)/.demo

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo 'Set-up: installing CrispEdit, and what training needs, into $(VENV).'
	@$(PIP) -e '.[train]'
	@touch $@

# A small dataset from rendered landscapes, or from your own photographs: make demo PHOTOS=~/Pictures
demo: $(VENV)/.demo
	@$(BIN)/python -m crispedit.pipelines.demo $(DEMO) $(PHOTOS)

# Three processes, because a third of the tests' time is waiting. tests/conftest.py divides the files among them.
test: setup
	$(BIN)/python -m pytest -n 3

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typed && mkdir -p build/typed/crispedit
	ln -s $(CURDIR)/crispedit/* $(CURDIR)/filters $(CURDIR)/shards $(CURDIR)/pipelines $(CURDIR)/configs build/typed/crispedit/
	$(BIN)/mypy

check: lint test

clean:
	rm -rf $(VENV) runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
