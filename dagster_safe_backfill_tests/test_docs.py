"""The documentation runs, and tells nothing that isn't there."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import dagster_safe_backfill as sb

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^([ \t]*)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_PREPARED = """
import dagster as dg
import pandas as pd
import dagster_safe_backfill as sb
days = dg.DailyPartitionsDefinition("2024-01-01")
partitions = sb.PartitionSlice(
    keys=("2024-01-01",),
    dimensions=(),
)
@dg.asset(partitions_def=days, metadata={"unique_key": ["id"]})
def flights(): ...
"""


def blocks(text: str) -> list[str]:
    return [textwrap.dedent(code) for _, code in _BLOCK.findall(text)]


def documented() -> list[tuple[str, str]]:
    """Return every Python block of the pages and of the public docstrings, with where it stands."""
    found = [(page.name, code) for page in PAGES for code in blocks(page.read_text())]
    for name in sb.__all__:
        value = getattr(sb, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            found += [(name, code) for code in blocks(inspect.getdoc(value) or "")]
    return found


def test_there_is_something_to_run() -> None:
    assert len(documented()) >= 7


@pytest.mark.parametrize(("where", "code"), documented(), ids=[where for where, _ in documented()])
def test_python_blocks_run(where: str, code: str) -> None:
    names: dict[str, object] = {}
    exec(_PREPARED, names)
    if re.match(r"partitions\.", code):
        for attribute in re.findall(r"^partitions\.(\w+)", code, re.MULTILINE):
            assert hasattr(sb.PartitionSlice, attribute)
    elif code.startswith("audits="):
        exec(f"f({code})", {**names, "f": lambda audits: audits})
    else:
        # This file's own future import would turn the annotations into texts.
        exec(compile(code, where, "exec", dont_inherit=True), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_files_that_the_guide_for_contributors_names_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    places = [ROOT, Path(sb.__file__).parent, Path(__file__).parent]
    named = re.findall(r"`([\w./]+(?:\.py|\.md|\.lock|/))`", page)
    assert len(named) > 30
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_commands_that_the_guide_for_contributors_names_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)`", page)) == targets


def test_the_tests_that_the_architecture_names_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)`", page)
    assert named
    assert all((Path(__file__).parent / name).exists() for name in named)


def test_the_picture_of_the_architecture_names_every_file() -> None:
    package = Path(sb.__file__).parent
    page = (ROOT / "docs" / "architecture.md").read_text()
    faces = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert all(name in page for name in faces | folders)


def defined_in(node: ast.AST, prefix: str = "") -> Iterator[str]:
    """Yield the functions and classes of a module, by their dotted names in it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield prefix + child.name
            yield from defined_in(child, f"{prefix}{child.name}.")
        else:
            yield from defined_in(child, prefix)


_WALKTHROUGH = (ROOT / "docs" / "walkthrough.md").read_text()
_STATION = re.compile(r"^\d+\. `([\w/]+\.py)`, `([\w.]+)`: ", re.MULTILINE)


def test_the_walkthrough_has_three_walks_of_at_most_fifteen_stations() -> None:
    walks = [len(re.findall(r"^\d+\. ", walk, re.MULTILINE)) for walk in _WALKTHROUGH.split("\n## ")[1:]]
    assert len(walks) == 3
    assert all(0 < stations <= 15 for stations in walks)
    assert sum(walks) == len(_STATION.findall(_WALKTHROUGH))


@pytest.mark.parametrize(("file", "name"), _STATION.findall(_WALKTHROUGH))
def test_the_stations_of_the_walkthrough_exist(file: str, name: str) -> None:
    path = Path(sb.__file__).parent / file
    assert name in set(defined_in(ast.parse(path.read_text())))


def test_the_readmes_commands_are_the_ones_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "python3 -m dagster_safe_backfill_tests" in readme
    assert "python3 -m dagster_safe_backfill_tests" in (ROOT / ".ci" / "run").read_text()
