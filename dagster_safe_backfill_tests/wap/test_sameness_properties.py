"""Sameness as a property: random values of random types, against a dict of what was written, literal by literal."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.slices import KeyDimension, PartitionSlice
from dagster_safe_backfill.model.states import Audited, Origin, Published
from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.wap.tables.slices import live_slice
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.harness.backends import Backend, DuckDBBackend
from dagster_safe_backfill_tests.harness.publications import MONTH, publish_rules

KEYS = ("a", "A", "á")
"""The partitions; the table's collation calls them equal."""
SLICE = PartitionSlice(keys=KEYS, dimensions=(KeyDimension(values=KEYS),))

_TEXTS = ["'paris'", "'Paris'", "'PARIS'", "'é'", "'e'", "'E'", "''", "'ß'", "'ss'", "'it''s'"]
_NUMBERS = ["0", "'-0.0'", "'nan'", "'inf'", "1.5", "-1.5"]
_SPANS = ["'30 days'", "'1 month'", "'720 hours'", "'1 day'", "'24 hours'", "'1 month -1 day'", "'29 days'", "'0 days'"]
POOLS: dict[str, Sequence[str]] = {
    "VARCHAR": _TEXTS,
    "VARCHAR COLLATE NOCASE": _TEXTS,
    "VARCHAR COLLATE NOACCENT.NOCASE": _TEXTS,
    "VARCHAR COLLATE de.NOACCENT": _TEXTS,
    "DOUBLE": _NUMBERS,
    "FLOAT": _NUMBERS,
    "INTERVAL": _SPANS,
    "BIGINT": ["0", "1", "-1"],
    "TIMESTAMPTZ": ["'2024-01-01 10:00:00+00'", "'2024-01-01 11:00:00+00'"],
    "TIMETZ": ["'10:00:00+01'", "'09:00:00+00'"],
    "DECIMAL(18, 2)": ["1.50", "0", "1.51"],
    "BLOB": ["'a'", "'A'", "'\\x00'"],
    "JSON": ["'{\"a\": 1}'", "'{\"a\":1}'", "'{\"a\": 1.0}'"],
    "BIT": ["'10'", "'010'"],
    "DOUBLE[]": ["[0.0]", "['-0.0'::DOUBLE]", "['-0.0'::DOUBLE, NULL]", "[0.0, NULL]", "[]", "[NULL]", "[1.5]"],
    "VARCHAR[]": ["['a']", "['A']", "['NULL']", "[NULL]", "['a, b']", "['a', 'b']"],
    "STRUCT(a FLOAT, b INTERVAL)": [
        "{'a': 0.0, 'b': INTERVAL '30 days'}",
        "{'a': '-0.0'::FLOAT, 'b': INTERVAL '30 days'}",
        "{'a': 0.0, 'b': INTERVAL '1 month'}",
        "{'a': NULL, 'b': INTERVAL '1 month'}",
        "{'a': NULL, 'b': NULL}",
    ],
    "MAP(VARCHAR, INTERVAL)": ["MAP {'x': INTERVAL '1 month'}", "MAP {'x': INTERVAL '30 days'}", "MAP {'X': NULL}"],
}
"""Values of each type as literals; each is another value than the others."""

Row = tuple[str, str, str]
"""The partition and the values of `v` and `w`, as literals."""
Rows = dict[str, Row]
"""Rows by the literal of their key."""


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, str], Rows, Rows]:
    """Draw the types of a table, its live rows, and the rows that are computed."""
    kinds = st.sampled_from([*POOLS])
    types = {"k": draw(kinds), "v": draw(kinds), "w": draw(kinds)}
    values = [st.sampled_from([*POOLS[types[name]], "NULL"]) for name in ("v", "w")]
    rows = st.dictionaries(st.sampled_from([*POOLS[types["k"]]]), st.tuples(st.sampled_from(KEYS), *values), max_size=6)
    return types, draw(rows), draw(rows)


def listed(rows: Rows, types: dict[str, str]) -> str:
    """Return rows as a SELECT, whose columns have no collation."""
    casts = ", ".join(f"CAST({name} AS {re.sub(' COLLATE.*', '', kind)}) AS {name}" for name, kind in types.items())
    each = [
        f"SELECT p, {casts} FROM (SELECT '{p}' AS p, {k} AS k, {v} AS v, {w} AS w)" for k, (p, v, w) in rows.items()
    ]
    return " UNION ALL ".join(each) or f"SELECT 'x' AS p, {casts} FROM (SELECT NULL AS k, NULL AS v, NULL AS w) LIMIT 0"


def texts(backend: Backend, select: str) -> Counter[tuple[Any, ...]]:
    """Return rows as texts, in which values that differ differ; read on a connection of its own."""
    return Counter(backend.read(f"SELECT p::TEXT, k::TEXT, v::TEXT, w::TEXT FROM ({select})"))


class World:
    """A table of random types in a file of its own."""

    def __init__(self, backend: Backend, types: dict[str, str], live: Rows) -> None:
        self.backend, self.types = backend, types
        columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
        backend.change(f"CREATE TABLE t (p VARCHAR COLLATE NOCASE.NOACCENT, {columns})")
        backend.change(f"INSERT INTO t {listed(live, types)}")
        self.spec = TableSpec(
            table=TableRef(schema="main", name="t"), partition_expr={None: "p"}, unique_key=("k",), on_empty="allow"
        )

    def published(self, rows: Rows, run: str, strategy: Strategy) -> tuple[str, Published]:
        """Return what `compare` says, and the publication."""
        who = Origin(run_id=run, publication_id=run)
        with self.backend.warehouse.connect() as session:
            data = Query(listed(rows, self.types))
            staged = write(session, data, spec=self.spec, partition_slice=SLICE, origin=who)
            found = audit(session, staged, [sb.compare(), sb.unique()], origin=who, gate="run")
            assert isinstance(found, Audited), [one.problem or one.finding for one in found.results]
            return str(found.results[0].finding), publish(session, found, rules=publish_rules(strategy), origin=who)

    def fingerprints(self) -> dict[str, Fingerprint]:
        with self.backend.warehouse.connect(read_only=True) as session:
            columns = session.tables.columns(self.spec.table) or ()
            live = live_slice(session, spec=self.spec, partition_slice=SLICE, columns=columns)
            return live_fingerprints(session, live, columns)

    def rolled_back(self, run: str) -> None:
        with self.backend.warehouse.connect() as session:
            rollback(
                session,
                Chosen(publication_id=run),
                spec=self.spec,
                partition_slice=SLICE,
                origin=Origin(run_id="back", publication_id="back"),
                archive_for=MONTH,
            )

    def live(self) -> Counter[tuple[Any, ...]]:
        return texts(self.backend, "SELECT * FROM t")


def expected(live: Rows, computed: Rows) -> Counter[str]:
    """Return the numbers of rows as a dict says; a row that moves is deleted and inserted."""
    counts: Counter[str] = Counter()
    for key in live.keys() | computed.keys():
        was, now = live.get(key), computed.get(key)
        if was is None or now is None or was[0] != now[0]:
            counts["deleted"] += was is not None
            counts["inserted"] += now is not None
        else:
            counts["unchanged" if was == now else "updated"] += 1
    return +counts


def counted(published: Published) -> Counter[str]:
    counts: Counter[str] = Counter()
    for one in published.row_counts.values():
        counts += Counter(inserted=one.inserted, updated=one.updated, deleted=one.deleted, unchanged=one.unchanged)
    return +counts


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases(), strategy=st.sampled_from(["merge", "swap"]))
def test_what_differs_by_bytes_is_published_and_nothing_else(
    case: tuple[dict[str, str], Rows, Rows], strategy: Strategy
) -> None:
    types, live, computed = case
    with tempfile.TemporaryDirectory() as folder:
        world = World(DuckDBBackend(folder), types, live)
        before, was = world.live(), world.fingerprints()
        finding, published = world.published(computed, "1", strategy)
        counts = expected(live, computed)
        after = texts(world.backend, listed(computed, types))
        assert world.live() == after
        is_rewritten = counted(published)["inserted"] == len(computed) and counted(published)["deleted"] == len(live)
        assert counted(published) == counts or (is_rewritten and not counts["unchanged"])
        said = [int(number) for number in re.findall(r"(\d+) (?:rows added|removed|changed|unchanged)", finding)]
        assert said == [counts[name] for name in ("inserted", "deleted", "updated", "unchanged")]
        now = world.fingerprints()
        for key in KEYS:
            own = [{k: row for k, row in rows.items() if row[0] == key} for rows in (live, computed)]
            assert (was[key] == now[key]) == (own[0] == own[1])
        _, again = world.published(computed, "2", strategy)
        assert sum(one.touched for one in again.row_counts.values()) == 0
        assert world.live() == after
        if live != computed:
            world.rolled_back("1")
            assert world.live() == before
            assert world.fingerprints() == was
