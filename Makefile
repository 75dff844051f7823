# Everything a developer runs. `make` or `make help` lists the targets.
#
# Variables:
#   PYTHON       the interpreter the environments are made with   (default: python3)
#   VENV         where the environment lives                      (default: .venv)
#   PIP_ARGS     passed to every `pip install`, e.g. an extra index or --find-links
#   PYTEST_ARGS  passed to pytest                                 (default: -n 2)
#   CI           when set, the tests marked slow run too

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
OLDEST := $(VENV)-oldest
PIP_ARGS ?=
PYTEST_ARGS ?= -n 2
MARKERS := $(if $(CI),,-m "not slow")

BIN := $(VENV)/bin
PIP_INSTALL := python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
# Two test workers with one thread each: what the results are asserted for.
PYTEST_ENV := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} MPLBACKEND=Agg

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

# One environment; each stamp file records that a set of extras is installed. They are
# older than pyproject.toml or the constraints exactly when something has to be redone.
REQUIREMENTS := pyproject.toml constraints/cpu.txt

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "agop needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(REQUIREMENTS) | $(VENV)/.created
	$(BIN)/$(PIP_INSTALL) -c constraints/cpu.txt -e .
	@touch $@

$(VENV)/.installed-%: $(REQUIREMENTS) | $(VENV)/.created
	$(BIN)/$(PIP_INSTALL) -c constraints/cpu.txt -e '.[$*]'
	@touch $@ $(VENV)/.installed

.PHONY: env env-dev
env: $(VENV)/.installed ## Create .venv with agop and what it needs
env-dev: $(VENV)/.installed-dev ## The same, with the test and development tools

.PHONY: demo
demo: env ## Where do a machine and a network look? Writes two pictures
	$(BIN)/python -m agop demo

.PHONY: test
test: lint types pytest ## Lint, types, tests and doctests: all that must pass

.PHONY: lint
lint: env-dev ## Check style, format and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

.PHONY: types
types: env-dev ## Check types
	$(BIN)/mypy

.PHONY: pytest
pytest: env-dev ## Run the tests and doctests only
	$(PYTEST_ENV) $(BIN)/python -m pytest $(MARKERS) $(PYTEST_ARGS)

.PHONY: docs
docs: $(VENV)/.installed-docs ## Build the documentation with its gallery
	MPLBACKEND=Agg $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

.PHONY: bench
bench: $(VENV)/.installed-bench ## Run the short benchmarks; results are JSON files
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/tabular.py

.PHONY: test-oldest
test-oldest: $(OLDEST)/.installed ## Run the tests with the oldest supported versions
	$(PYTEST_ENV) $(OLDEST)/bin/python -m pytest $(MARKERS) $(PYTEST_ARGS)

$(OLDEST)/.installed: pyproject.toml constraints/oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/$(PIP_INSTALL) -c constraints/oldest.txt -e '.[test]'
	@touch $@

.PHONY: clean
clean: ## Remove the environments and everything generated
	rm -rf $(VENV) $(OLDEST) build dist docs/_build docs/api docs/auto_examples \
	    .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	    agop-demo.png agop-demo-faces.png
	find agop tests examples benchmarks -name __pycache__ -type d \
	    -exec rm -rf {} + 2>/dev/null || true
