# make demo   set up, start the real Triton, transcribe real speech, show it, stop everything
# make test   set up and run the tests; with PYTHONS=all also a smaller suite on each other Python that is here
# make test-slow   the tests that `make test` leaves out: minutes each, of what its quicker tests show piece by piece
# make constraints   renew deploy/constraints-*.txt
# make lint   ruff, mypy, and hadolint for the images
# make soak   ten minutes of kills, stops and starvation under load; SOAK="--minutes 30" for more
# make rolling   replace, kill and stop every process of a small cluster under load; ROLLING="--streams 60" for more
# make clients  every stock client of docs/clients.md on the demo models: pip and npm fetch gigabytes of them
# make trt    build every test bundle, demo model and published size with TensorRT-RTX, without a GPU: hours on two cores;
#             TRT="--models conformer-offline --for ada --precisions fp16" for less
# make docs   build the site from docs/ into build/site; links that lead nowhere fail
# make session  docs/first-session.md and its pictures, by Chromium, anew
# make release  wheel and sdist of the version in src/moulin/__init__.py into dist/, checked and tried; uploads nothing
# make serve  serve the demo model, or another with MODEL=folder

VENV := .venv
BIN := $(VENV)/bin
# The first Python that runs (a pyenv shim may be there and not run): 3.11 or 3.12, in which Triton runs too, else 3.13 or 3.14.
PYTHON ?= $(shell for last in 12 14; do for p in python3 python3.12 python3.11 python3.13 python3.14 /usr/bin/python3; do \
	$$p -c "import sys, venv, ensurepip; assert (3, 11) <= sys.version_info[:2] <= (3, $$last)" 2>/dev/null \
	&& echo $$p && break 2; done; done)
# Every supported Python of this machine but the one of .venv.
OTHER_PYTHONS = $(shell scripts/other-pythons.sh $(BIN)/python)
PYTHONS ?=
# Files are given to the processes in the order of tests/conftest.py, the long ones first.
PYTEST = $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
MODEL ?=
SOAK ?=
ROLLING ?=
TRT ?=
RELEASE ?=

.PHONY: demo test test-slow soak rolling clients trt constraints docs reference session release lint format serve system clean

demo: $(VENV)/.demo
	$(BIN)/python -m moulin.demo

test: $(VENV)/.test
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)
ifeq ($(PYTHONS),all)
	@test -z "$(OTHER_PYTHONS)" || scripts/test-wheel.sh $(OTHER_PYTHONS)
endif

test-slow: $(VENV)/.test
	$(PYTEST) -m slow $(PYTEST_ARGS)

soak: $(VENV)/.test
	$(BIN)/python scripts/soak.py $(SOAK)

rolling: $(VENV)/.test
	$(BIN)/python scripts/rolling.py $(ROLLING)

clients: $(VENV)/.test
	scripts/all-clients.sh $(BIN)/python

trt: $(VENV)/.test
	$(BIN)/python scripts/trt-matrix.py $(TRT)

constraints: $(BIN)/python
	$(BIN)/python scripts/renew-constraints.py $(BIN)/python $(OTHER_PYTHONS)

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The pages of docs/reference that are written from the program.
reference: $(VENV)/.test
	$(BIN)/python scripts/docs-reference.py
	$(BIN)/python scripts/licences.py

# On a terminal and in a browser, with the demo models; a release checks that it is still so.
session: $(VENV)/.test $(VENV)/.release
	$(BIN)/python scripts/first-session.py

release: $(VENV)/.test $(VENV)/.release
	$(BIN)/python scripts/release.py $(RELEASE)

lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/benchmark-tables.py --check
	$(BIN)/python scripts/numbers-on-paper.py --check
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
	@test -n "$(PYTHON)" || { echo "moulin needs Python 3.11 to 3.14 with venv: apt-get install python3-venv" >&2; exit 1; }
	$(MAKE) system
	"$(PYTHON)" -m venv $(VENV)

# The releases that deploy/constraints-3.X.txt names for this Python.
INSTALL = $(BIN)/python scripts/pip-install.py --constraint \
	deploy/constraints-$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt --editable

# Without its dependencies: it wants an older release of websockets than we, for what no test uses.
RIVA_CLIENT = nvidia-riva-client==2.28.0

# What is installed is remembered in stamp files, so that a second run starts at once.
$(VENV)/.demo: $(BIN)/python pyproject.toml
	@echo "Installing what the demo needs into $(VENV), about a minute ..." >&2
	$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml
	@echo "Installing what the tests need into $(VENV), one to three minutes ..." >&2
	$(INSTALL) '.[test]'
	$(BIN)/python scripts/pip-install.py --no-deps $(RIVA_CLIENT)
	scripts/browser.sh
	@touch $@ $(VENV)/.demo

$(VENV)/.lint: $(BIN)/python pyproject.toml
	$(INSTALL) '.[lint]'
	@touch $@

$(VENV)/.release: $(BIN)/python pyproject.toml
	$(INSTALL) '.[release]'
	@touch $@

$(VENV)/.docs: $(BIN)/python pyproject.toml
	$(INSTALL) '.[docs]'
	@touch $@
