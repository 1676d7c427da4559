# `make demo` shows what the package does; `make test` checks everything. Both build their own environment in .venv.

VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

# One thread per process: the tests run side by side, and more threads than cores slow each other down.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help demo test lint format clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.base-installed ## localize the shipped sample movie and draw the picture
	@$(BIN)/smlm-pb demo --out demo_output --overwrite

test: $(VENV)/.dev-installed lint ## check style and types, run all tests (GUI tests on a virtual display)
	@.ci/qt-packages
	@echo "== tests"
	@$(TEST_ENV) $(BIN)/python -m pytest -q -n 2 -m "not slow and not gui"
	@echo "== tests of the napari panel"
	@$(TEST_ENV) .ci/with-display $(BIN)/python -m pytest -q -m "gui and not slow"

lint: $(VENV)/.dev-installed ## check style and types
	@echo "== style and types"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . >/dev/null || { echo "Some files are not formatted: run 'make format'."; exit 1; }
	@$(BIN)/mypy

format: $(VENV)/.dev-installed ## format the code
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo_output

$(VENV)/bin/python:
	@.ci/make-venv $(PYTHON) $(VENV)

# torch first and pinned: with it in place nothing else asks for another build of it.
$(VENV)/.base-installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing smlm-pb into $(VENV) (the first time this takes a minute or two) ..."
	@$(PIP) torch
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.base-installed
	@echo "Installing napari and the test tools into $(VENV) (the first time this takes a minute or two) ..."
	@$(PIP) -e ".[napari,test,distributed]"
	@touch $@
