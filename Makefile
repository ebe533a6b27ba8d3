# Names of what this project can do. What they do is in .ci/ and in the package.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: help setup bake fmt check test soak bench docs clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-8s %s\n", $$1, $$2}' Makefile

setup:  ## install what is missing: Debian packages, the virtual environment
	@.ci/setup

bake: setup  ## make the image of amibuild.toml on this machine
	@$(VENV)/bin/amibuild bake

fmt: setup  ## format the code
	@$(VENV)/bin/ruff check --fix --quiet . && $(VENV)/bin/ruff format .

check: setup  ## lint, types, shell scripts, generated docs
	@.ci/check

test: setup  ## unit, contract, and the one scenario on real machines
	@$(VENV)/bin/pytest --numprocesses 3

soak: setup  ## the tests that take long
	@$(VENV)/bin/pytest --numprocesses 2 -m soak --timeout 4800

bench: setup  ## measure what the README promises
	@$(PYTHON) benchmarks/bench.py && $(PYTHON) -m benchmarks.space && $(PYTHON) -m benchmarks.upload

docs: setup  ## write the generated parts of README.md, and the contract and the hardening as tables
	@$(PYTHON) -m amibuild.cli.docs
	@$(PYTHON) -m tests.contract.table
	@$(PYTHON) -m tests.hardening.table

clean:  ## remove what setup and tests made here
	@rm -rf $(VENV) .amibuild-test .mypy_cache .ruff_cache .pytest_cache .hypothesis
