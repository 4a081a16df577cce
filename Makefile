# One task file; CI calls the same. Every target makes the environment first, if it has to.
PYTHON ?= python3
TESTS := dagster_safe_backfill_tests

.PHONY: demo quick test lint types docs bench live lock

demo:  ## a safe backfill of a month of real flights
	$(PYTHON) -m example_project

quick:  ## what most mistakes break, in under 90 seconds
	$(PYTHON) -m $(TESTS) --quick

test:  ## the whole suite
	$(PYTHON) -m $(TESTS)

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m $(TESTS) --version

lint: .venv/installed  ## style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/installed  ## pyright, strict on the package
	.venv/bin/pyright

docs:  ## run the examples of the docs and docstrings, and check the links
	$(PYTHON) -m $(TESTS) -n 0 $(TESTS)/test_docs.py $(TESTS)/warehouses/test_new_warehouse_page.py

bench: .venv/installed  ## speed, memory and statements, side by side
	.venv/bin/python -m bench

live: .venv/installed  ## what only a Snowflake account can show; DSB_SNOWFLAKE_* tell how to log in
	.venv/bin/python -m dagster_safe_backfill_tests.snowflake.live

lock:  ## resolve the locked versions anew
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --no-emit-package dagster-safe-backfill \
		--no-header --no-annotate --output-file requirements.lock
