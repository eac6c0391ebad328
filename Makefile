# Two commands for a fresh Linux machine with Python 3.11 or newer: make demo, make test.
# Both make .venv first, from pyproject.toml with the versions in constraints.txt.
# PYTHON=python3.12 picks an interpreter; VENV=path on the command line uses a ready environment.

SHELL := /bin/bash
PYTHON ?= python3
PACKAGES := ir compiler backends autotune specs

ifeq ($(origin VENV),command line)
READY :=
else
VENV := .venv
READY := .venv/.ready
endif
BIN := $(VENV)/bin

.PHONY: demo test sanitize fuzz evidence survey model speeds gpu systems lint tree format install clean
.DEFAULT_GOAL := demo

demo: $(READY)
	$(BIN)/python -m mixc.demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# Every spec at every size that people use, under the address sanitiser: hours.
sanitize: $(READY)
	MIXC_SANITIZE=all $(BIN)/python -m pytest -n 2 -q tests/backends/cpu/test_sanitizers.py

# Random specs against the reference, into build/fuzz/report.md; taken up again where it stopped.
EXAMPLES ?= 20000
SEED ?= 0
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --examples $(EXAMPLES) --seed $(SEED)

# README's table of systems, and what `mixc list` knows, from what mixc makes of each spec.
systems: $(READY)
	@mkdir -p build
	$(BIN)/python -m mixc.show.known_states
	$(BIN)/mixc list --markdown > build/systems.md
	sed -i -e '/^<!-- systems -->/,/^<!-- end of systems -->/{//!d}' -e '/^<!-- systems -->/r build/systems.md' README.md

# What every kernel of the library computes after Triton's last pass, executed; goes on where it stopped.
# Needs Python 3.12 or newer beside the one that runs mixc; build/evidence/evidence.md is what came of it.
evidence: $(READY)
	$(BIN)/python -m tests.evidence $(OPTIONS)

# What compilers make of the library's kernels, forward and backward: spills, registers, tensor cores; goes on
# where it stopped, hours for all. OPTIONS="gla kda --target cuda:90 --size 128 --pass backward" asks for less.
# OPTIONS=--keep writes what spills into tests/survey/spills.tsv.
survey: $(READY)
	$(BIN)/python -m tests.survey $(OPTIONS)

# Recurrences by the model of the machine code, beside flash-linear-attention's: tests/survey/recurrences.tsv.
model: $(READY)
	$(BIN)/python -m tests.survey.recurrences

# README's tables of speeds on this machine, by the commands in them; in pieces: OPTIONS="--minutes 8".
speeds: $(READY)
	$(BIN)/python -m tests.survey.speeds $(OPTIONS)

# On a machine with a GPU: the library checked, tuned and timed, in pieces of MINUTES that go on where the
# last one stopped; build/gpu/report.md is what came of it. VENV=/usr takes the machine's own Python.
MINUTES ?= 7.5
gpu: $(READY) tree
	@$(BIN)/python3 -c "from setuptools import build_meta as b; b.prepare_metadata_for_build_wheel('build/types')" > /dev/null
	PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/types $(BIN)/python3 -m mixc.campaign --minutes $(MINUTES) $(OPTIONS)

lint: $(READY) tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p mixc

# The packages under one roof, as an installed mixc has them: for mypy, and where nothing can be installed.
tree:
	@mkdir -p build/types/mixc
	@for name in $(PACKAGES); do ln -sfn ../../../$$name build/types/mixc/$$name; done
	@for name in mixc/*; do ln -sfn ../../../$$name build/types/mixc/$${name##*/}; done
	@find build/types -xtype l -delete

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(READY)

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mixc needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
	  echo "No virtual environment: install the system's venv package (Debian, Ubuntu:"; \
	  echo "apt install python3-venv) and run make again."; rm -rf .venv; exit 1; }
	.venv/bin/python -m pip install -q -c constraints.txt setuptools
	.venv/bin/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[test]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
