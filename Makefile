# One task file; CI calls the same. Every target makes the environment first, if it has to.
PYTHON ?= python3

.PHONY: demo test lint types bench lock

demo:  ## a safe backfill of a month of real flights
	$(PYTHON) -m example_project

test:  ## the whole suite
	$(PYTHON) -m dagster_safe_backfill_tests

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m dagster_safe_backfill_tests --version

lint: .venv/installed  ## style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/installed  ## pyright, strict on the package
	.venv/bin/pyright

bench: .venv/installed  ## speed, memory and statements, side by side
	.venv/bin/python -m bench

lock:  ## resolve the locked versions anew
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --no-emit-package dagster-safe-backfill \
		--no-header --no-annotate --output-file requirements.lock
