# make demo   set up, start the real Triton, transcribe real speech, show it, stop everything
# make test   set up and run the tests
# make lint   ruff, mypy, and hadolint for the images
# make serve  serve the demo model, or another with MODEL=folder

VENV := .venv
BIN := $(VENV)/bin
# The first Python 3.11 or 3.12 that runs (a pyenv shim may be there and not run).
PYTHON ?= $(shell for p in python3 python3.12 python3.11 /usr/bin/python3; do \
	$$p -c 'import sys, venv, ensurepip; assert (3, 11) <= sys.version_info[:2] < (3, 13)' 2>/dev/null && echo $$p && break; done)
MODEL ?=

.PHONY: demo test lint format serve system clean

demo: $(VENV)/.demo
	$(BIN)/python -m moulin.demo

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/benchmark-tables.py --check
	$(BIN)/hadolint deploy/docker/*.Dockerfile

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(VENV)/.demo
	$(BIN)/moulin serve $(MODEL)

# Debian and Ubuntu packages, only where something is missing.
system:
	scripts/system-packages.sh "$(PYTHON)"

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "moulin needs Python 3.11 or 3.12 with venv: apt-get install python3-venv" >&2; exit 1; }
	$(MAKE) system
	"$(PYTHON)" -m venv $(VENV)

# What is installed is remembered in stamp files, so that a second run starts at once.
$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	scripts/browser.sh
	@touch $@ $(VENV)/.demo

$(VENV)/.lint: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lint]'
	@touch $@
