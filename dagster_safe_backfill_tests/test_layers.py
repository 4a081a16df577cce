"""The folder tree is the diagram of DESIGN.md: imports point down only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import dagster_safe_backfill

PACKAGE = "dagster_safe_backfill"
ROOT = Path(dagster_safe_backfill.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

FLOORS = (
    ("errors", "redaction"),
    ("model", "audits"),
    ("sql",),
    ("warehouses",),
    ("wap",),
    ("runs", "reports"),
    ("assets", "components", "cli"),
)
"""Each floor imports itself and those before it."""
FLOOR_OF = {folder: number for number, floor in enumerate(FLOORS) for folder in floor}

_STANDARD_ONLY = set[str]()
THIRD_PARTY = {
    "errors": _STANDARD_ONLY,
    "redaction": _STANDARD_ONLY,
    "model": _STANDARD_ONLY,
    "audits": _STANDARD_ONLY,
    "sql": {"sqlglot", "typing_extensions"},
    "warehouses": {"sqlglot", "duckdb", "snowflake", "pyarrow", "pandas", "polars", "typing_extensions"},
    "wap": {"sqlglot", "typing_extensions"},
    "runs": {"dagster", "typing_extensions"},
    "reports": {"dagster", "pygal", "typing_extensions"},
    "cli": {"click", "rich", "yaml", "dagster", "dagster_graphql", "dagster_shared", "typing_extensions"},
    "assets": {"dagster", "dagster_snowflake", "snowflake", "pydantic", "pandas", "typing_extensions"},
}
PRIVATE_DAGSTER = {"runs.private_dagster", "cli.api.workspace", "cli.api.local_daemon"}
MOST_ENTRIES = 12
LONGEST_CHAIN = 10
MOST_IMPORTS_IN_FUNCTIONS = 5


def folder_of(module: str) -> str:
    """Return the folder of a module, or the module itself where it stands at the top, by its path in the package."""
    return module.split(".", maxsplit=1)[0]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    own = folder_of(module_of(path))
    if own == "__init__":
        return
    inside = [name.removeprefix(f"{PACKAGE}.") for name in imports(path) if name.startswith(PACKAGE)]
    too_high = [name for name in inside if FLOOR_OF[folder_of(name)] > FLOOR_OF[own]]
    assert not too_high


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_third_party_packages_stay_in_their_folder(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    foreign = roots - set(sys.stdlib_module_names) - {PACKAGE}
    assert foreign <= THIRD_PARTY.get(folder_of(module_of(path)), set())


def test_the_warehouses_do_not_import_each_other() -> None:
    prefix = f"{PACKAGE}.warehouses."
    for path in (ROOT / "warehouses").glob("*/*.py"):
        others = {name.removeprefix(prefix) for name in imports(path) if name.startswith(prefix)}
        assert {folder_of(name) for name in others} <= {"backoff", "base", "frames", path.parent.name}, path


def test_dagsters_private_modules_are_imported_in_few_files() -> None:
    users = {
        module_of(path)
        for path in FILES
        if any(name.startswith(("dagster._", "dagster_shared")) for name in imports(path))
    }
    assert users <= PRIVATE_DAGSTER


def test_folders_stay_small() -> None:
    crowded = [
        folder
        for folder in {path.parent for path in FILES}
        if len({one.name for one in folder.iterdir()} - {"__init__.py", "__pycache__"}) > MOST_ENTRIES
    ]
    assert not crowded


def test_the_way_down_is_short() -> None:
    """Whoever reads a module, and what it imports, reads at most so many one after the other."""
    edges = {f"{PACKAGE}.{module_of(path)}".removesuffix(".__init__"): [*own_imports(path)] for path in FILES}
    del edges[PACKAGE]

    begun = set[str]()

    @cache
    def longest(module: str) -> tuple[str, ...]:
        # Two modules may name each other for the type checker.
        begun.add(module)
        chain = max(
            ((module, *longest(other)) for other in edges[module] if other not in begun), key=len, default=(module,)
        )
        begun.discard(module)
        return chain

    chain = max(map(longest, edges), key=len)
    assert len(chain) <= LONGEST_CHAIN, chain


def own_imports(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a module imports, wherever in it it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith(f"{PACKAGE}."):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = (ROOT.parent / inner.replace(".", "/")).with_suffix(".py").exists()
                yield inner if is_module else node.module


def test_files_stay_readable() -> None:
    long = {module_of(path): lines for path in FILES if (lines := len(path.read_text().splitlines())) > 400}
    assert not long


def test_functions_stay_short() -> None:
    lengths = sorted(
        _code_lines(node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[len(lengths) * 9 // 10] <= 25


def _code_lines(node: ast.FunctionDef) -> int:
    """Return how many lines a function's statements span, its docstring and nested functions apart."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    nested = [inner for inner in body if isinstance(inner, ast.FunctionDef)]
    spans = [(inner.end_lineno or 0) - inner.lineno + 1 for inner in body if inner not in nested]
    return sum(spans)


RUN_ON_DUCKDB = """
import sys
import dagster as dg, pandas as pd
import dagster_safe_backfill as sb

@dg.asset
def one():
    return pd.DataFrame({"a": [1]})

manager = sb.RangeDuckDBIOManager(database=sys.argv[1], schema="main")
assert dg.materialize([one], resources={"io_manager": manager}).success
ours = [name for name in sys.modules if name.startswith("dagster_safe_backfill") and "snowflake" in name]
# The namespace `snowflake` is made in every process by what is installed.
found = ours + [name for name in sys.modules if name.startswith(("snowflake.", "dagster_snowflake"))]
assert not found, found
"""


def test_a_run_on_duckdb_loads_nothing_of_snowflake(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN_ON_DUCKDB, str(tmp_path / "warehouse.duckdb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
