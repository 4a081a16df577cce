"""Every type of DuckDB and of Snowflake comes back the same through a frame of each library, or is refused by name.

The tables of the outcomes are in `docs/types.md`. They are written anew by
`python -m dagster_safe_backfill_tests.warehouses.test_types`, and then read before it is committed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb
import pytest

from dagster_safe_backfill_tests.harness import open_files
from dagster_safe_backfill_tests.harness.backends import Backend, DuckDBBackend
from dagster_safe_backfill_tests.harness.types import (
    ENGINES,
    SNOWFLAKE,
    TYPES,
    Case,
    Outcome,
    all_written_again,
    cases,
    create,
    empty,
    snowflake_cases,
    written_again,
)

PAGE = Path(__file__).parents[2] / "docs" / "types.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->\n"
_OF_SNOWFLAKE = "<!-- table of Snowflake -->\n"
Outcomes = Mapping[tuple[Case, str], Outcome]


def _needs_2(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(condition=duckdb.__version__.startswith("1."), strict=True, reason=reason)


_MARKS = {
    "GEOMETRY": _needs_2("DuckDB 1.x reads geometries of Arrow as BLOB, so that writing them again is refused"),
    "VARIANT": _needs_2("DuckDB 1.x keeps VARIANT only in files of a newer storage version than its default"),
}


def tried(kinds: Iterable[str]) -> dict[tuple[Case, str], Outcome]:
    """Return the outcome of each case of the types, with each library."""
    found: dict[tuple[Case, str], Outcome] = {}
    with tempfile.TemporaryDirectory() as folder, open_files.kept_open():
        backend = DuckDBBackend(folder)
        for case in [case for case in cases() if case.kind in kinds]:
            create(backend, case)
            for name, engine in ENGINES.items():
                found[case, name] = written_again(backend, engine)
    return found


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=_MARKS.get(kind, ())) for kind in TYPES])
def test_what_is_read_and_written_again_is_the_same_or_refused(kind: str) -> None:
    outcomes = tried([kind])
    assert len(outcomes) >= 12
    for (case, name), outcome in outcomes.items():
        if outcome.text != "same":
            assert f"the column x ({_spelled(case.type)}) can't be read" in outcome.text, (case, name, outcome)
    assert f"{row(kind, outcomes)}\n" in table_of(PAGE), f"{row(kind, outcomes)} isn't in {PAGE.name}; see above"


@pytest.mark.every_warehouse
@pytest.mark.only("snowflake", reason="DuckDB's types are those above")
def test_what_is_read_of_snowflake_and_written_again_is_the_same_or_refused(backend: Backend) -> None:
    outcomes = tried_on_snowflake(backend)
    for (case, name), outcome in outcomes.items():
        is_refused = f"is VARCHAR, but {case.kind} in the table" in outcome.text
        assert outcome.text == "same" or is_refused, (case, name, outcome)
    assert [*table(SNOWFLAKE, outcomes)] == table_of(PAGE, _OF_SNOWFLAKE).splitlines()
    for engine in ENGINES.values():
        assert len(empty(backend, engine)) == 0
    dtypes = [str(kind) for kind in empty(backend, ENGINES["pandas"]).dtypes]
    assert dtypes[:5] == ["int64", "int64", "object", "object", "float64"]
    assert dtypes[10] == "datetime64[us]"


def tried_on_snowflake(backend: Backend) -> dict[tuple[Case, str], Outcome]:
    """Return the outcome of each case of Snowflake's types, with each library."""
    found: dict[tuple[Case, str], Outcome] = {}
    for name, engine in ENGINES.items():
        for case, outcome in all_written_again(backend, [*snowflake_cases()], engine).items():
            found[case, name] = outcome
    return found


def _spelled(text: str) -> str:
    return text.replace("TIMETZ", "TIME WITH TIME ZONE").replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE")


def test_the_page_has_every_type() -> None:
    assert len(table_of(PAGE).splitlines()) == len(TYPES) + 2


def table_of(page: Path, begin: str = _BEGIN) -> str:
    """Return one of the page's tables."""
    return page.read_text().partition(begin)[2].partition(_END)[0]


def table(kinds: Iterable[str], outcomes: Outcomes) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| type | {' | '.join(ENGINES)} |"
    yield f"|---|{'---|' * len(ENGINES)}"
    for kind in kinds:
        yield row(kind, outcomes)


def row(kind: str, outcomes: Outcomes) -> str:
    """Return a type's line of the table."""
    return f"| `{kind}` | {' | '.join(_cell(kind, name, outcomes) for name in ENGINES)} |"


def _cell(kind: str, name: str, outcomes: Outcomes) -> str:
    mine = {case: outcome for (case, engine), outcome in outcomes.items() if engine == name and case.kind == kind}
    same = [case for case, outcome in mine.items() if outcome.text == "same"]
    refused = [case.what for case in mine if case not in same]
    if "nested" in refused:
        refused = [what for what in refused if not what.startswith("nested ")]
    if not same:
        is_read = not any("can't be read" in outcome.text for outcome in mine.values())
        return "read, and refused when it is written again" if is_read else "refused"
    dtypes = dict.fromkeys(_short(mine[case].dtype) for case in same if not case.what.startswith("nested"))
    text = "same" + (f", as {', '.join(f'`{one}`' for one in dtypes)}" if any(dtypes) else "")
    return text if not refused else f"{text}; refused: {', '.join(map(_told, refused))}"


def _short(dtype: str) -> str:
    # polars names the categories and the time zone of a type in another way in each version.
    return re.sub(r"^Categorical.*|^Enum.*", "Categorical", dtype).replace("Etc/UTC", "UTC")


def _told(what: str) -> str:
    return what if what in ("plain", "nested", "nested with NULL", "with NULL") else f"`{what}`"


def _write(begin: str, lines: Iterable[str]) -> None:
    text = PAGE.read_text()
    before, _, rest = text.partition(begin)
    PAGE.write_text(f"{before}{begin}{''.join(f'{line}{chr(10)}' for line in lines)}{_END}{rest.partition(_END)[2]}")


if __name__ == "__main__":
    from dagster_safe_backfill_tests.harness.snowflake.emulator import serve
    from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

    _write(_BEGIN, table(TYPES, tried(TYPES)))
    with serve(direct=True) as emulator:
        _write(_OF_SNOWFLAKE, table(SNOWFLAKE, tried_on_snowflake(SnowflakeBackend(emulator))))
