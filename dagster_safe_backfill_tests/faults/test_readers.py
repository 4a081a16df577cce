"""Readers during publications: each read is all of one version, and what the database's lock says is told as it is."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
import sqlglot

from dagster_safe_backfill.model.options import PUBLISH_BY_NAME, Strategy
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill_tests.faults.reader import TOTALS, Seen, reading_process, reading_thread
from dagster_safe_backfill_tests.harness.audited import DAYS, Row, frame, slice_of
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows

PUBLICATIONS = 100
COUNT = 50
"""Rows a day."""


def version(number: int) -> list[Row]:
    """Return all rows in a version; each says its number."""
    return [row for day in range(DAYS) for row in day_rows(day, float(number), COUNT)]


@pytest.fixture
def table(tmp_path: Path) -> Publications:
    return Publications(tmp_path, live=version(0))


def published(table: Publications, number: int, *, strategy: Strategy) -> None:
    """Publish a version in a session of its own."""
    who = Origin(run_id=str(number), publication_id=str(number))
    rules = PUBLISH_BY_NAME[strategy]()
    with table.warehouse.connect() as connection:
        staged = write(
            connection, frame(version(number)), spec=table.spec, partition_slice=slice_of(range(DAYS)), origin=who
        )
        audited = audit(connection, staged, [], origin=who, gate="run")
        assert isinstance(audited, Audited)
        publish(connection, audited, rules=rules, origin=who)


def versions(seen: Seen) -> list[int]:
    """Return the versions that were read, in order, each once; each read was of just one, and none went back."""
    assert seen.error is None
    for count, lowest, highest, total in seen.totals:
        assert (count, lowest, total) == (DAYS * COUNT, highest, DAYS * COUNT * (highest or 0))
    found = [int(highest) for _, _, highest, _ in seen.totals]
    assert all(one <= other for one, other in pairwise(found))
    return sorted(set(found))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_process_reads_one_version_or_the_next(table: Publications, strategy: Strategy) -> None:
    with reading_process(table.path) as (seen, reads_again):
        for number in range(1, PUBLICATIONS + 1):
            published(table, number, strategy=strategy)
            assert number % 4 or reads_again()
    found = versions(seen)
    sys.stdout.write(
        f"{strategy}: {len(seen.totals)} reads of {len(found)} versions; {len(seen.kept_out)} times locked, then"
        f" {seen.waited} times read after a wait\n"
    )
    assert len(found) >= PUBLICATIONS / 4
    assert {0, PUBLICATIONS} <= set(found)
    assert seen.waited
    assert seen.kept_out
    assert all("IO Error: Could not set lock" in refusal for refusal in seen.kept_out)
    # On a busy machine the holder may have let go before it is looked for; then nobody is named.
    assert set(seen.refused) <= {os.getpid(), None}


def test_a_reader_that_waited_in_vain_is_told_by_whom(table: Publications) -> None:
    with reading_process(table.path) as (seen, reads_again):
        with table.warehouse.connect():
            assert not reads_again(seconds=1)
        assert reads_again()
    assert set(seen.refused) == {os.getpid()}
    assert versions(seen) == [0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_threads_read_one_version_or_the_next(table: Publications, strategy: Strategy) -> None:
    select = sqlglot.parse_one(TOTALS, dialect="duckdb")
    with (
        duckdb.connect(table.path) as plain,
        table.warehouse.connect(read_only=True) as connection,
        reading_thread(lambda: plain.execute(TOTALS).fetchall()[0]) as first,
        reading_thread(lambda: connection.query(select)[0]) as second,
    ):
        for number in range(1, PUBLICATIONS + 1):
            published(table, number, strategy=strategy)
    for seen in (first, second):
        found = versions(seen)
        sys.stdout.write(f"{strategy}: {len(seen.totals)} reads of {len(found)} versions\n")
        assert len(found) > PUBLICATIONS / 2
