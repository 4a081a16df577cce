"""One notion of same on Snowflake: values that it calls equal and that differ, or that have equal hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.model.tables import Query
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, publish_rules
from dagster_safe_backfill_tests.wap.test_sameness import Kept, slice_of, touched

pytestmark = [pytest.mark.every_warehouse, pytest.mark.only("snowflake", reason="DuckDB's are in wap/test_sameness.py")]

ALIKE = {
    "ci": ("VARCHAR COLLATE 'en-ci'", "paris", "Paris"),
    "ai": ("VARCHAR COLLATE 'fr-ai'", "café", "cafe"),
    "ci and ai": ("VARCHAR(10) COLLATE 'en-ci-ai'", "É", "e"),
    "upper": ("VARCHAR COLLATE 'upper'", "a", "A"),
    "zeros": ("FLOAT", "0.0", "-0.0"),
    "number": ("VARIANT", "1", "1.0"),
    "number and text": ("VARIANT", "1", '"1"'),
    "null": ("VARIANT", "null", '"null"'),
    "within an object": ("OBJECT", '{"a":{"b":1}}', '{"a":{"b":1.0}}'),
    "within an array": ("ARRAY", "[1,null]", '[1,"null"]'),
}
"""A type, and the texts of two of its values that have equal hashes, or that Snowflake calls equal or shows alike."""


class KeptOnSnowflake(Kept):
    """Texts are JSON where the type is semi-structured."""

    def cast(self, value: str, kind: str) -> str:
        is_json = kind in ("VARIANT", "OBJECT", "ARRAY")
        return f"CAST(PARSE_JSON({value}) AS {kind})" if is_json else super().cast(value, kind)


class Wide(KeptOnSnowflake):
    """A table with a column of each type, and of each type a row in which only that column is to change."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.types = {"p": "VARCHAR", "k": "BIGINT"} | {f"v{i}": kind for i, (kind, _, _) in enumerate(ALIKE.values())}
        columns = ", ".join(f"{name} {kind}" for name, kind in self.types.items())
        backend.change("DROP TABLE t", f"CREATE TABLE t ({columns})")
        self.ones = [one for _, one, _ in ALIKE.values()]
        self.others = [[*self.ones] for _ in ALIKE]
        for i, (_, _, other) in enumerate(ALIKE.values()):
            self.others[i][i] = other

    def row(self, key: int, values: Sequence[str], partition: str = "a") -> str:
        return f"('{partition}', {key}, {', '.join(map(repr, values))})"

    def live(self) -> list[tuple[Any, ...]]:
        columns = ", ".join(f"CAST({name} AS VARCHAR)" for name in self.types)
        return self.backend.read(f"SELECT {columns} FROM t ORDER BY p, k")


def test_a_change_that_the_database_calls_equal(backend: Backend) -> None:
    for strategy in STRATEGIES:
        with backend.another() as fresh:
            _changed(Wide(fresh), strategy)


def _changed(kept: Wide, strategy: Strategy) -> None:
    count = len(ALIKE)
    kept.fill(*(kept.row(i, kept.ones) for i in range(count + 1)), kept.row(99, kept.ones, "b"))
    before = kept.live()
    # The last row doesn't change.
    rows = [kept.row(i, values) for i, values in enumerate([*kept.others, kept.ones])]
    (result,) = kept.judged(rows, audits=[sb.compare(max_changed=0)]).results
    in_each = ", ".join(f"v{i} in 1" for i in range(count))
    assert f"{count} changed ({in_each}), 1 unchanged" in str(result.finding)
    found = kept.published(rows, strategy=strategy)
    if strategy != "replace":
        assert touched(found) == (0, count, 0, 1)
    after = [("a", str(i), *values) for i, values in enumerate([*kept.others, kept.ones])]
    assert kept.live() == [*after, before[-1]]
    again = kept.judged(rows, audits=[sb.compare(max_changed=0)])
    assert again.results[0].failed_keys == ()
    kept.runs -= 1
    kept.rolled_back()
    assert kept.live() == before


def test_each_change_has_another_fingerprint(backend: Backend) -> None:
    kept = Wide(backend)
    kept.fill(kept.row(0, kept.ones))
    found: set[Fingerprint] = set()
    for values in [kept.ones, *kept.others]:
        backend.change("DELETE FROM t", f"INSERT INTO t VALUES {kept.row(0, values)}")
        with backend.warehouse.connect(read_only=True) as session:
            columns = session.tables.columns(kept.spec.table) or ()
            live = live_slice(session, spec=kept.spec, partition_slice=slice_of("a"), columns=columns)
            found.add(live_fingerprints(session, live, columns)["a"])
    assert len(found) == len(ALIKE) + 1


def test_keys_that_the_database_calls_equal_are_two(backend: Backend) -> None:
    for name, strategy in zip(("ci", "zeros", "number"), STRATEGIES, strict=True):
        kind, one, other = ALIKE[name]
        with backend.another() as fresh:
            kept = KeptOnSnowflake(fresh, k=kind)
            both = [f"('a', '{one}', 'x')", f"('a', '{other}', 'y')"]
            assert touched(kept.published(both, audits=[sb.unique()], strategy=strategy))[0] == 2
            if strategy != "replace":
                assert touched(kept.published(both, strategy=strategy)) == (0, 0, 0, 2)
            kept.published([f"('a', '{other}', 'z')"], strategy=strategy)
            assert kept.live() == [("a", other, "z")]
            kept.rolled_back()
            assert sorted(kept.live()) == sorted([("a", one, "x"), ("a", other, "y")])


def test_partition_keys_that_the_database_calls_equal(backend: Backend) -> None:
    kept = KeptOnSnowflake(backend, p="VARCHAR COLLATE 'en-ci'")
    kept.published(["('eu', 1, 'x')"], ["eu"])
    kept.published(["('EU', 2, 'y')"], ["EU"])
    assert sorted(kept.live()) == [("EU", "2", "y"), ("eu", "1", "x")]
    assert touched(kept.published(["('EU', 3, 'z')"], ["EU"], strategy="replace"))[2] == 1
    assert sorted(kept.live()) == [("EU", "3", "z"), ("eu", "1", "x")]
    with pytest.raises(sb.RowsOutsideSliceError):
        kept.judged(["('eu', 1, 'x')"], ["EU"])


def test_a_query_does_not_bring_its_collation_along(backend: Backend) -> None:
    """A comparison follows the collation of either side, and the live column has none here."""
    kept = KeptOnSnowflake(backend)
    kept.fill("('a', 1, 'x')", "('a', 2, 'y')")
    backend.change(
        "CREATE TABLE others (p VARCHAR COLLATE 'en-ci', k BIGINT, v VARCHAR COLLATE 'en-ci')",
        "INSERT INTO others VALUES ('a', 1, 'X'), ('a', 2, 'y')",
    )
    who = Origin(run_id="q", publication_id="q")
    query = Query("SELECT p, k, v FROM others -- as it is")
    with backend.warehouse.connect() as session:
        staged = write(session, query, spec=kept.spec, partition_slice=slice_of("a"), origin=who)
        audited = audit(session, staged, [sb.compare()], origin=who, gate="run")
        assert "1 changed" in str(audited.results[0].finding)
        assert isinstance(audited, Audited)
        assert touched(publish(session, audited, rules=publish_rules("merge"), origin=who)) == (0, 1, 0, 1)
    assert kept.live() == [("a", "1", "X"), ("a", "2", "y")]


def test_latest_rows_of_a_query_with_a_collation_are_those_of_each_key(backend: Backend) -> None:
    backend.change(
        "CREATE TABLE others (p VARCHAR, k VARCHAR COLLATE 'en-ci', v INT)",
        "INSERT INTO others VALUES ('a', 'x', 1), ('a', 'x', 2), ('a', 'X', 1)",
    )
    kept = KeptOnSnowflake(backend, k="VARCHAR", v="INT")
    kept.spec = replace(kept.spec, keep_latest="v")
    who = Origin(run_id="q", publication_id="q")
    with backend.warehouse.connect() as session:
        query = Query("SELECT * FROM others")
        staged = write(session, query, spec=kept.spec, partition_slice=slice_of("a"), origin=who)
        audited = audit(session, staged, [], origin=who, gate="run")
        assert isinstance(audited, Audited)
        publish(session, audited, rules=publish_rules("merge"), origin=who)
    assert sorted(kept.live()) == [("a", "X", "1"), ("a", "x", "2")]


def test_a_value_beside_an_identity_is_changed_in_place(backend: Backend) -> None:
    """Where an UPDATE writes it, the row isn't deleted and inserted, which would give it another number."""
    kept = KeptOnSnowflake(backend, v="VARIANT")
    backend.change("ALTER TABLE t ADD COLUMN number INT AUTOINCREMENT")
    backend.change("INSERT INTO t (p, k, v) VALUES ('a', 1, '1'), ('a', 2, '1')")
    before = backend.read("SELECT k, number FROM t ORDER BY k")
    assert touched(kept.published(["('a', 1, '1.0')", "('a', 2, '1')"])) == (0, 1, 0, 1)
    assert kept.live() == [("a", "1", "1.0"), ("a", "2", "1")]
    assert backend.read("SELECT k, number FROM t ORDER BY k") == before
