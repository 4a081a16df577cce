"""One notion of same: values that a database calls equal and that differ, in every place that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import KeyDimension, PartitionSlice
from dagster_safe_backfill.model.states import Audited, Origin, Published
from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.wap.write import live_before, write
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.publications import MONTH, STRATEGIES, publish_rules

ALIKE = {
    "nocase": ("VARCHAR COLLATE NOCASE", "'paris'", "'Paris'"),
    "noaccent": ("VARCHAR COLLATE NOACCENT", "'café'", "'cafe'"),
    "both collations": ("VARCHAR COLLATE NOCASE.NOACCENT", "'É'", "'e'"),
    "a language": ("VARCHAR COLLATE de.NOCASE", "'straße'", "'Straße'"),
    "interval": ("INTERVAL", "INTERVAL '30 days'", "INTERVAL '1 month'"),
    "hours": ("INTERVAL", "INTERVAL '24 hours'", "INTERVAL '1 day'"),
    "mixed signs": ("INTERVAL", "INTERVAL '1 month -1 day'", "INTERVAL '29 days'"),
    "double": ("DOUBLE", "0.0", "-0.0::DOUBLE"),
    "float": ("FLOAT", "-0.0::FLOAT", "0.0::FLOAT"),
    "list": ("DOUBLE[]", "[1.0, 0.0]", "[1.0, -0.0::DOUBLE]"),
    "array": ("FLOAT[2]", "[0.0, 1.0]", "[-0.0::FLOAT, 1.0]"),
    "struct": ('STRUCT("a b" DOUBLE, c VARCHAR)', "{'a b': 0.0, 'c': 'x'}", "{'a b': -0.0::DOUBLE, 'c': 'x'}"),
    "list of structs": ("STRUCT(a FLOAT)[]", "[{'a': 0.0}, NULL]", "[{'a': -0.0::FLOAT}, NULL]"),
    "map": ("MAP(VARCHAR, DOUBLE)", "MAP {'a': 0.0}", "MAP {'a': -0.0::DOUBLE}"),
    "keys of a map": ("MAP(INTERVAL, INTEGER)", "MAP {INTERVAL '30 days': 1}", "MAP {INTERVAL '1 month': 1}"),
    "intervals in a list": ("INTERVAL[]", "[INTERVAL '30 days']", "[INTERVAL '1 month']"),
    "intervals in a struct": ("STRUCT(i INTERVAL)", "{'i': INTERVAL '60 days'}", "{'i': INTERVAL '2 months'}"),
    "union": ("UNION(i INTERVAL, n INTEGER)", "INTERVAL '30 days'", "INTERVAL '1 month'"),
    "list of lists": ("DOUBLE[][]", "[[0.0], NULL]", "[[-0.0::DOUBLE], NULL]"),
}
"""A type, and two of its values that DuckDB calls equal."""

of_each = pytest.mark.parametrize(("kind", "one", "other"), ALIKE.values(), ids=ALIKE)
by_each = pytest.mark.parametrize("strategy", STRATEGIES)


class Kept:
    """A table of `p` (its partition), `k` (its key) and `v`, and publications of queries to it."""

    def __init__(self, backend: Backend, *, p: str = "VARCHAR", k: str = "BIGINT", v: str = "VARCHAR") -> None:
        self.backend = backend
        backend.change(f"CREATE TABLE t (p {p}, k {k}, v {v})")
        self.types = {"p": p, "k": k, "v": v}
        self.spec = TableSpec(
            table=TableRef(schema="main", name="t"), partition_expr={None: "p"}, unique_key=("k",), on_empty="allow"
        )
        self.runs = 0

    def fill(self, *rows: str) -> None:
        self.backend.change(f"INSERT INTO t VALUES {', '.join(rows)}")

    def published(
        self, rows: Sequence[str], keys: Sequence[str] = ("a",), *, strategy: Strategy = "merge", **options: Any
    ) -> Published:
        """Publish rows, computed by a query whose columns have no collation."""
        found = self.judged(rows, keys, **options)
        assert isinstance(found, Audited), [result.problem or result.finding for result in found.results]
        run = f"run {self.runs}"
        with self.backend.warehouse.connect() as session:
            who = Origin(run_id=run, publication_id=run)
            return publish(session, found, rules=publish_rules(strategy), origin=who)

    def judged(
        self,
        rows: Sequence[str],
        keys: Sequence[str] = ("a",),
        *,
        audits: Sequence[sb.Audit] = (),
        types: dict[str, str] | None = None,
    ) -> Any:
        self.runs += 1
        who = Origin(run_id=f"run {self.runs}", publication_id=f"run {self.runs}")
        kinds = {name: kind.split(" COLLATE")[0] for name, kind in self.types.items()} | (types or {})
        cast = ", ".join(f"{self.cast(name, kind)} AS {name}" for name, kind in kinds.items())
        data = Query(f"SELECT {cast} FROM (VALUES {', '.join(rows)}) AS x ({', '.join(self.types)})")
        partitions = slice_of(*keys)
        with self.backend.warehouse.connect() as session:
            before = live_before(session, spec=self.spec, partition_slice=partitions)
            staged = write(session, data, spec=self.spec, partition_slice=partitions, origin=who, before=before)
            return audit(session, staged, audits, origin=who, gate="run")

    def cast(self, value: str, kind: str) -> str:
        return f"CAST({value} AS {kind})"

    def rolled_back(self, keys: Sequence[str] = ("a",)) -> None:
        with self.backend.warehouse.connect() as session:
            rollback(
                session,
                Chosen(publication_id=f"run {self.runs}"),
                spec=self.spec,
                partition_slice=slice_of(*keys),
                origin=Origin(run_id="back", publication_id="back"),
                archive_for=MONTH,
            )

    def live(self) -> list[tuple[Any, ...]]:
        """Return the rows as a second connection shows them: as texts, whose bytes are compared."""
        return self.backend.read("SELECT * FROM (SELECT p::TEXT, k::TEXT, v::TEXT FROM t) ORDER BY ALL")


def slice_of(*keys: str) -> PartitionSlice:
    return PartitionSlice(keys=keys, dimensions=(KeyDimension(values=keys),))


def shown(backend: Backend, kind: str, value: str) -> str:
    """Return a value's text."""
    ((text,),) = backend.read(f"SELECT CAST(CAST({value} AS {kind.split(' COLLATE', maxsplit=1)[0]}) AS TEXT)")
    return text


def touched(published: Published) -> tuple[int, int, int, int]:
    (one,) = published.row_counts.values()
    return one.inserted, one.updated, one.deleted, one.unchanged


@of_each
@by_each
def test_a_change_that_the_database_calls_equal(
    backend: Backend, kind: str, one: str, other: str, strategy: Strategy
) -> None:
    kept = Kept(backend, v=kind)
    kept.fill(f"('a', 1, {one})", f"('a', 2, {one})", f"('a', 3, {one})", f"('b', 9, {one})")
    before = kept.live()
    rows = [f"('a', 1, {other})", f"('a', 2, {one})", f"('a', 3, {one})"]
    compared = sb.compare(max_changed=0)
    (result,) = kept.judged(rows, audits=[compared]).results
    assert result.failed_keys == ("a",), result.finding
    assert "1 changed (v in 1), 2 unchanged" in str(result.finding)
    found = kept.published(rows, strategy=strategy)
    if strategy != "replace":
        assert touched(found) == (0, 1, 0, 2)
    expected = [("a", "1", shown(backend, kind, other)), *before[1:]]
    assert kept.live() == expected
    kept.rolled_back()
    assert kept.live() == before
    kept.published(rows, strategy=strategy)
    again = kept.published(rows, strategy=strategy)
    if strategy != "replace":
        assert touched(again) == (0, 0, 0, 3)
    assert kept.live() == expected


@of_each
@by_each
def test_keys_that_the_database_calls_equal_are_two(
    backend: Backend, kind: str, one: str, other: str, strategy: Strategy
) -> None:
    kept = Kept(backend, k=kind)
    both = [f"('a', {one}, 'x')", f"('a', {other}, 'y')"]
    # The audit of the key finds nothing, as these are two keys.
    assert touched(kept.published(both, audits=[sb.unique()], strategy=strategy))[0] == 2
    live = kept.live()
    assert {v for *_, v in live} == {"x", "y"}
    again = kept.published(both, strategy=strategy)
    if strategy != "replace":
        assert touched(again) == (0, 0, 0, 2)
    changed = kept.published([both[0], f"('a', {other}, 'z')"], strategy=strategy)
    if strategy != "replace":
        assert touched(changed) == (0, 1, 0, 1)
    assert sorted(v for *_, v in kept.live()) == ["x", "z"]
    gone = kept.published([f"('a', {other}, 'z')"], strategy=strategy)
    if strategy != "replace":
        assert touched(gone) == (0, 0, 1, 1)
    assert kept.live() == [("a", shown(backend, kind, other), "z")]
    kept.rolled_back()
    assert sorted(v for *_, v in kept.live()) == ["x", "z"]


@of_each
def test_a_key_that_is_live_elsewhere(backend: Backend, kind: str, one: str, other: str) -> None:
    kept = Kept(backend, k=kind)
    kept.fill(f"('b', {one}, 'x')")
    kept.published([f"('a', {other}, 'y')"], audits=[sb.unique()])
    found = kept.judged([f"('a', {one}, 'y')"], audits=[sb.unique()])
    assert not isinstance(found, Audited)
    assert [row[2] for row in kept.live()] == ["y", "x"]


@of_each
def test_somebodys_change_is_a_conflict(backend: Backend, kind: str, one: str, other: str) -> None:
    kept = Kept(backend, v=kind)
    kept.fill(f"('a', 1, {one})")
    found = kept.judged([f"('a', 1, {one})"])
    # DuckDB's UPDATE doesn't write a value that it calls equal to the present one.
    backend.change("DELETE FROM t", f"INSERT INTO t VALUES ('a', 1, {other})")
    before = kept.live()
    who = Origin(run_id="run 1", publication_id="run 1")
    with backend.warehouse.connect() as session, pytest.raises(sb.PublishConflictError):
        publish(session, found, rules=publish_rules("merge"), origin=who)
    assert kept.live() == before


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("VARCHAR COLLATE NOCASE", ("eu", "EU")),
        ("VARCHAR COLLATE NOACCENT", ("e", "é")),
        ("DOUBLE", ("0", "-0")),
        ("INTERVAL", ("30 days", "1 month")),
    ],
)
def test_partition_keys_that_the_database_calls_equal(
    backend: Backend, kind: str, keys: tuple[str, str], strategy: Strategy
) -> None:
    kept = Kept(backend, p=kind)
    first, second = keys
    kept.published([f"('{first}', 1, 'x')"], [first], strategy=strategy)
    kept.published([f"('{second}', 2, 'y')"], [second], strategy=strategy)
    assert [row[1:] for row in sorted(kept.live(), key=lambda row: row[1])] == [("1", "x"), ("2", "y")]
    before = kept.live()
    assert touched(kept.published([f"('{second}', 3, 'z')"], [second], strategy=strategy))[2] == 1
    assert sorted(row[1:] for row in kept.live()) == [("1", "x"), ("3", "z")]
    kept.rolled_back([second])
    assert kept.live() == before
    both = [f"('{first}', 1, 'x')", f"('{second}', 2, 'w')"]
    counts = kept.published(both, keys, strategy=strategy).row_counts
    assert [one.staged for one in counts.values()] == [1, 1]
    assert sorted(row[1:] for row in kept.live()) == [("1", "x"), ("2", "w")]
    with pytest.raises(sb.RowsOutsideSliceError):
        kept.judged([f"('{first}', 1, 'x')"], [second])


@of_each
def test_a_query_brings_its_collation_along(backend: Backend, kind: str, one: str, other: str) -> None:
    """A comparison follows the collation of either side, and the live column has none here."""
    kept = Kept(backend, v=kind.split(" COLLATE", maxsplit=1)[0])
    kept.fill(f"('a', 1, {one})")
    backend.change(f"CREATE TABLE others (p VARCHAR, k BIGINT, v {kind})")
    backend.change(f"INSERT INTO others VALUES ('a', 1, {other})")
    who = Origin(run_id="q", publication_id="q")
    with backend.warehouse.connect() as session:
        query = Query("SELECT p, k, v FROM others")
        staged = write(session, query, spec=kept.spec, partition_slice=slice_of("a"), origin=who)
        audited = audit(session, staged, [sb.compare()], origin=who, gate="run")
        assert "1 changed" in str(audited.results[0].finding)
        assert isinstance(audited, Audited)
        assert touched(publish(session, audited, rules=publish_rules("merge"), origin=who)) == (0, 1, 0, 0)
    assert kept.live() == [("a", "1", shown(backend, kind, other))]


@of_each
def test_a_reference_to_an_equal_value_is_an_orphan(backend: Backend, kind: str, one: str, other: str) -> None:
    kept = Kept(backend, v=kind)
    backend.change(f"CREATE TABLE cities (name {kind})", f"INSERT INTO cities VALUES ({one})")
    refers = sb.references("v", table="cities", column="name")
    (result,) = kept.judged([f"('a', 1, {one})", f"('a', 2, {other})"], audits=[refers]).results
    assert result.failed_rows == 1, result.problem
    (sampled,) = result.sample
    assert sampled["k"] == 2


def test_a_reference_from_a_column_without_a_collation(backend: Backend) -> None:
    kept = Kept(backend)
    backend.change("CREATE TABLE cities (name VARCHAR COLLATE NOCASE)", "INSERT INTO cities VALUES ('paris')")
    refers = sb.references("v", table="cities", column="name")
    (result,) = kept.judged(["('a', 1, 'paris')", "('a', 2, 'Paris')"], audits=[refers]).results
    assert result.failed_rows == 1


@of_each
def test_repeated_values_are_identical(backend: Backend, kind: str, one: str, other: str) -> None:
    kept = Kept(backend, v=kind)
    kept.fill(f"('b', 9, {one})")
    (result,) = kept.judged([f"('a', 1, {other})"], audits=[sb.unique("v")]).results
    assert result.failed_rows == 0
    rows = [f"('a', 1, {one})", f"('a', 2, {other})", f"('a', 3, {other})"]
    (result,) = kept.judged(rows, audits=[sb.unique("v")]).results
    assert result.failed_rows == 3
    assert len(result.sample) == 3


@of_each
def test_keep_latest_keeps_both(backend: Backend, kind: str, one: str, other: str) -> None:
    kept = Kept(backend, k=kind, v="INTEGER")
    kept.spec = replace(kept.spec, keep_latest="v")
    kept.published([f"('a', {one}, 1)", f"('a', {one}, 2)", f"('a', {other}, 1)"])
    assert sorted(row[2] for row in kept.live()) == ["1", "2"]


@of_each
def test_the_latest_value_is_kept_as_it_is(backend: Backend, kind: str, one: str, other: str) -> None:
    kept = Kept(backend, v=kind)
    kept.spec = replace(kept.spec, keep_latest="v")
    for value in (one, other):
        # A NULL that is cast to a UNION is one with a NULL in it, which is a value.
        earlier = [] if kind.startswith("UNION") else ["('a', 1, NULL)"]
        kept.published([f"('a', 1, {value})", *earlier])
        # The value is live, and publishing it again by itself changes nothing.
        assert touched(kept.published([f"('a', 1, {value})"])) == (0, 0, 0, 1)


def test_not_a_number_is_one_value(backend: Backend) -> None:
    kept = Kept(backend, v="DOUBLE")
    kept.fill("('a', 1, 'nan')")
    assert touched(kept.published(["('a', 1, '-nan')"])) == (0, 0, 0, 1)


def test_null_is_the_same_as_null_and_differs_from_empty(backend: Backend) -> None:
    kept = Kept(backend, v="VARCHAR COLLATE NOCASE")
    kept.fill("('a', 1, NULL)", "('a', 2, '')", "('a', 3, 'x')")
    assert touched(kept.published(["('a', 1, NULL)", "('a', 2, NULL)", "('a', 3, 'X')"])) == (0, 2, 0, 1)


def test_a_setting_that_gives_every_text_a_collation(backend: Backend) -> None:
    with pytest.raises(sb.ConfigurationError, match="default_collation"):
        type(backend.warehouse)("x.duckdb", config={"default_collation": "nocase"})  # type: ignore[call-arg]


def test_a_key_that_is_live_in_another_partition_names_it(backend: Backend) -> None:
    kept = Kept(backend)
    kept.fill("('mon', 1, 'x')", "('mon', 2, 'x')", "('tue', 3, 'x')")
    before = kept.live()
    moved = ["('tue', 1, 'x')", "('tue', 3, 'x')"]
    (result,) = kept.judged(moved, ["tue"], audits=[sb.unique()]).results
    assert result.failed_rows == 1
    assert "(k) is live in another partition, for (1) where p is mon" in str(result.finding)
    assert "in one run" in str(result.finding)
    assert kept.live() == before
    # What the message says works: both partitions in one run, or the one that the row left first.
    found = kept.published([*moved, "('mon', 2, 'x')"], ["mon", "tue"], audits=[sb.unique()])
    assert [(one.inserted, one.updated, one.deleted) for one in found.row_counts.values()] == [(0, 0, 1), (1, 0, 0)]
    assert kept.live() == [("mon", "2", "x"), ("tue", "1", "x"), ("tue", "3", "x")]
    kept.rolled_back(["mon", "tue"])
    assert kept.live() == before
    kept.published(["('mon', 2, 'x')"], ["mon"])
    kept.published(moved, ["tue"], audits=[sb.unique()])
    assert kept.live() == [("mon", "2", "x"), ("tue", "1", "x"), ("tue", "3", "x")]


def test_repeated_values_of_the_batch_are_in_no_other_partition(backend: Backend) -> None:
    kept = Kept(backend)
    (result,) = kept.judged(["('a', 1, 'x')", "('a', 1, 'y')"], audits=[sb.unique()]).results
    assert result.failed_rows == 2
    assert result.finding is None


@pytest.mark.parametrize("nulls", ["NULL", "'x'"])
def test_a_reference_beside_null(backend: Backend, nulls: str) -> None:
    """NULL among the referenced values must not hide an orphan."""
    kept = Kept(backend, v="VARCHAR COLLATE NOCASE")
    backend.change("CREATE TABLE cities (name VARCHAR)", f"INSERT INTO cities VALUES ('a'), ({nulls})")
    refers = sb.references("v", table="cities", column="name")
    (result,) = kept.judged(["('a', 1, 'A')", "('a', 2, NULL)", "('a', 3, 'a')"], audits=[refers]).results
    assert result.failed_rows == 1
