# `make` lists the targets. Everything is installed into .venv; nothing outside this folder is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.core
DEV := $(VENV)/.dev
DOCS := $(VENV)/.docs

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check fmt lint types imports docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUN) ## train a plain and a residual net side by side, under two minutes
	$(BIN)/resnets demo

test: $(DEV) ## run the tests
	$(BIN)/python -m pytest

check: lint types imports test ## what must pass before a change lands: format, lint, types, imports, tests

fmt: $(DEV) ## format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(DEV) ## check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(DEV) ## check types
	$(BIN)/pyright

imports: $(DEV) ## check that imports go down the layers only
	$(BIN)/lint-imports

docs: $(DOCS) ## build the documentation into site/
	$(BIN)/mkdocs build --strict

clean: ## remove the environment, caches and built files; runs stay
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "resnets needs Python 3.11 or newer; $(PYTHON) is not. Name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamp files are newer than pyproject.toml when what it asks for is installed.
$(RUN): pyproject.toml | $(BIN)/python
	$(BIN)/pip install --editable .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/pip install --editable '.[dev,tensorboard]'
	@touch $@ $(RUN)

$(DOCS): pyproject.toml | $(BIN)/python
	$(BIN)/pip install --editable '.[docs]'
	@touch $@ $(RUN)
