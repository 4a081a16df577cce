"""What the pages say of the command is so: verbs, options, exit codes, and what is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dagster_safe_backfill.cli.answers.answer import Exit
from dagster_safe_backfill.cli.main import VERBS
from dagster_safe_backfill_tests.cli import reference
from dagster_safe_backfill_tests.cli.conftest import Terminal

DOCS = Path(__file__).parents[2] / "docs"
_RUN = """
import sys
from dagster_safe_backfill.cli.main import run
code = run(sys.argv[1:])
roots = {name.partition(".")[0] for name in sys.modules}
print(code, *sorted(roots & {"dagster", "dagster_graphql", "rich", "duckdb", "pandas", "sqlglot", "pyarrow"}))
"""


def _loaded(*arguments: str) -> tuple[int, set[str]]:
    """Return the exit code of a call in a process of its own, and which heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, check=True, env={**os.environ}
    )
    code, *found = done.stdout.splitlines()[-1].split()
    return int(code), {*found}


def test_the_reference_is_that_of_the_command() -> None:
    assert reference.PAGE.read_text() == reference.page(), "python -m dagster_safe_backfill_tests.cli.reference"


def test_the_page_has_every_exit_code() -> None:
    page = (DOCS / "command.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == {int(one) for one in Exit}


def test_the_pages_commands_exist() -> None:
    texts = [(DOCS / "command.md").read_text(), (DOCS.parent / "README.md").read_text()]
    named = {verb for text in texts for verb in re.findall(r"^\$ safe-backfill (\w+)", text, re.MULTILINE)}
    assert named <= {*VERBS}
    assert len(named) >= 10


def test_the_options_that_the_page_names_exist() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", reference.page()))
    page = (DOCS / "command.md").read_text()
    ours = page.partition("## For those who come from Airflow")
    named = set(re.findall(r"--[a-z][a-z-]+", ours[0] + ours[2].partition("## Answers for scripts")[2]))
    assert named <= known


@pytest.mark.parametrize("verb", VERBS)
def test_help_loads_neither_dagster_nor_rich(verb: str) -> None:
    assert _loaded(verb, "--help") == (0, set())


def test_by_url_neither_dagster_nor_the_code_is_loaded(online: Terminal) -> None:
    assert _loaded("list", *online.place, "--json") == (0, set())
    code, found = _loaded("list", *online.place)
    assert (code, found) == (0, {"rich"})
    code, found = _loaded("plan", "sales", "--last", "1", "--dry-run", "--json", *online.place)
    assert (code, found) == (0, set())
    backfill_id = online("launch", "batched", "--partitions", "2024-01-19", "--yes", "-q").out.strip()
    assert _loaded("status", backfill_id, *online.place, "--json") == (0, set())
    assert online("watch", backfill_id, "--json").exit_code == 0
