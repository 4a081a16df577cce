"""The data of `diff`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from dagster_safe_backfill.cli.answers.data.publications import KnownPublicationData
from dagster_safe_backfill.model.events import StagedEvent

CellValue = str | int | float | bool | None
"""A value of a table, as JSON has it: times and what JSON can't hold are texts."""
RowKind = Literal["new", "changed", "gone"]


class AggregateValuesData(TypedDict):
    """An aggregate of both sides.

    Attributes:
        before: Its value over the rows before.
        after: Its value over the rows after.
    """

    before: CellValue
    after: CellValue


class RowDifferencesData(TypedDict):
    """How many rows differ.

    Attributes:
        new: Rows that are only after.
        changed: Rows whose key is on both sides, and whose values differ; None if rows are compared as a whole.
        gone: Rows that are only before.
        unchanged: Rows that are equal.
        aggregates: A mapping from each aggregate, as it was given, to its values.
    """

    new: int
    changed: int | None
    gone: int
    unchanged: int
    aggregates: dict[str, AggregateValuesData]


class PartitionDifferencesData(RowDifferencesData):
    """How many rows of one partition differ.

    Attributes:
        partition: Its key.
        event: The newest entry of the ledger about what is staged; None of a publication.
        different: True if rows differ.
    """

    partition: str
    event: StagedEvent | None
    different: bool


class ColumnDifferencesData(TypedDict):
    """How the columns differ. Those that are new, gone or of another type are not compared.

    Attributes:
        added: Columns that are new.
        dropped: Columns that are gone.
        retyped: Columns that have another type.
        changed: A mapping from column to the number of rows that changed in it; without columns in which none did.
    """

    added: list[str]
    dropped: list[str]
    retyped: list[str]
    changed: dict[str, int]


class SampleRowData(TypedDict):
    """A row that differs.

    Attributes:
        kind: How it differs.
        key: The values of its key; empty if rows are compared as a whole.
        before: Its values before, of a changed row those that changed; None of a new one.
        after: Its values after, likewise; None of one that is gone.
        times: How many rows are equal to it.
    """

    kind: RowKind
    key: dict[str, CellValue]
    before: dict[str, CellValue] | None
    after: dict[str, CellValue] | None
    times: int


class DiffData(TypedDict):
    """What differs between staged and live rows, or before and after a publication.

    Attributes:
        asset: The asset's key.
        table: Its table.
        mode: `staged`: live rows are before, staged ones after; `publication`: what it replaced, and what it wrote.
        comparing: What is compared, for people; empty if nothing is.
        nothing: Why nothing is compared, for people; None if something is.
        run_ids: The runs that staged the rows; empty of a publication.
        publication_ids: The publications; empty of staged rows.
        different: True if rows differ; None if the warehouse can't be reached.
        matched_by: The columns by which rows are matched; empty if they are compared as a whole.
        total: How many rows differ, over all partitions.
        partitions: The same of each partition.
        columns: How the columns differ.
        samples: Rows that differ, up to ten of each kind; empty without `--rows`.
        known: What Dagster knows of the live rows while the warehouse can't be reached, the newest first; then nothing
            is compared. Empty if it can be reached.
    """

    asset: str
    table: str
    mode: Literal["staged", "publication"]
    comparing: str
    nothing: str | None
    run_ids: list[str]
    publication_ids: list[str]
    different: bool | None
    matched_by: list[str]
    total: RowDifferencesData
    partitions: list[PartitionDifferencesData]
    columns: ColumnDifferencesData
    samples: list[SampleRowData]
    known: list[KnownPublicationData]
