# Every target does its own set-up; `make help` lists them.
PYTHON ?= python3.11
BIN := .venv/bin
UV_VERSION := 0.13.9

.PHONY: help setup demo check test test-slow benchmarks
.DEFAULT_GOAL := help

help: ## every target in a line
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.done ## a virtual environment in .venv with the pinned versions and this package

.venv/.done: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	touch $@

demo: setup ## DeepCluster on real digits: a table and a page to look at, in under 3 minutes
	$(BIN)/ssl-lightning demo

check: setup ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: check ## check, then the fast tests
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup ## kills, two processes, notebooks, documentation commands, three demo seeds
	$(BIN)/pytest -n 2 --dist loadfile -m slow

benchmarks: setup ## every benchmark but gpu.py, which needs a method; results in benchmarks/README.md
	for file in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/[a-z]*.py)); do $(BIN)/python $$file || exit 1; done
