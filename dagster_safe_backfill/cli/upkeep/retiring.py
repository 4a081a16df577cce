"""What retention would drop of an asset's tables, what it keeps and why; and dropping it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

from dagster_safe_backfill.cli.answers.data.upkeep import (
    AssetRetentionData,
    DroppedTableData,
    DropState,
    KeptTableData,
    TableKind,
)
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.definitions import LoadedAsset
from dagster_safe_backfill.cli.upkeep.jobs import told_of_runs
from dagster_safe_backfill.cli.upkeep.tables import seconds
from dagster_safe_backfill.errors import TableNotFoundError
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.sql import staging
from dagster_safe_backfill.wap.retention import Kept, RetentionRules, Retired, drop_found, owners, retire
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What retention drops and keeps of one asset.

    Attributes:
        asset: The asset's key.
        shadow_days: For how many days shadows are kept.
        unknown_run_days: For how many days what runs made that Dagster doesn't know is kept.
        job: The name of the retention job that is for the asset; None if there is none.
        retired: What is over, and what is kept.
        state: What became of what is over.
        sizes: A mapping from table to its number of rows, of those that exist.
    """

    asset: str
    shadow_days: float
    unknown_run_days: float
    job: str | None
    retired: Retired
    state: DropState
    sizes: Mapping[TableRef, int] = field(default_factory=dict[TableRef, int])

    @property
    def is_any(self) -> bool:
        """True if there is anything to drop."""
        return bool(self.over)

    @property
    def over(self) -> Sequence[TableRef]:
        """The tables that would be dropped, or were, or are to be, as `state` says."""
        return self.retired.over

    def in_state(self, state: DropState) -> Retention:
        """Return it with what became of the tables."""
        return replace(self, state=state)

    def with_sizes(self, sizes: Mapping[TableRef, int]) -> Retention:
        """Return it with the sizes of tables that it doesn't know itself."""
        return replace(self, sizes={**sizes, **self.sizes})

    @property
    def as_data(self) -> AssetRetentionData:
        """It as JSON."""
        archives = [self._dropped(one, "archive") for one in self.retired.archives]
        return {
            "asset": self.asset,
            "table": str(self.retired.table),
            "job": self.job,
            "shadow_days": self.shadow_days,
            "unknown_run_days": self.unknown_run_days,
            "state": self.state if self.is_any else None,
            "clock_problem": self.retired.clock_problem,
            "drops": [*archives, *(self._dropped(one, "shadow") for one in self.retired.shadows)],
            "keeps": [self._kept(one) for one in self.retired.kept],
        }

    def _dropped(self, table: TableRef, kind: TableKind) -> DroppedTableData:
        return {"table": str(table), "kind": kind, "row_count": self.sizes.get(table)}

    def _kept(self, one: Kept) -> KeptTableData:
        return {
            "table": str(one.table),
            "kind": one.kind,
            "row_count": self.sizes.get(one.table),
            "why": one.why,
            "expires_at": seconds(one.until),
            "run_id": one.run_id,
        }


def retention_of(
    loaded: LoadedAsset,
    dagster: Dagster,
    *,
    shadow_days: float,
    unknown_run_days: float,
    job: str | None,
    drops: bool = False,
) -> Retention:
    """Return what retention would drop of an asset's tables; with `drops`, drop it in this process.

    Raises:
        CommandError: The warehouse can't be reached.
        OtherAssetError: The table belongs to another asset.
    """
    table, run_id = loaded.spec.table, f"safe-backfill_{uuid.uuid4().hex}"
    own = loaded.options.table.former_keys
    origin = Origin(run_id=run_id, publication_id=run_id, asset_key=loaded.name, former_keys=own)
    found, sizes = Retired(table=table, is_dry=not drops), dict[TableRef, int]()
    connect = partial(loaded.soon.connected, run_id=run_id)
    try:
        with connect(read_only=True) as session:
            rules = RetentionRules(
                runs=told_of_runs(dagster, owners(session, table)),
                shadows_for=timedelta(days=shadow_days),
                unknown_for=timedelta(days=unknown_run_days),
            )
            found = retire(session, table, rules=rules, origin=origin, dry_run=True)
            sizes = _sizes(session, [*found.over, *(one.table for one in found.kept)])
        if drops:
            found = drop_found(connect, found, rules=rules, origin=origin)
    except TableNotFoundError:
        # Without a database there is nothing to drop.
        pass
    return Retention(
        asset=loaded.name,
        shadow_days=shadow_days,
        unknown_run_days=unknown_run_days,
        job=job,
        retired=found,
        state="dropped" if drops else "would_drop",
        sizes=sizes,
    )


def _sizes(session: Session, tables: Sequence[TableRef]) -> dict[TableRef, int]:
    if not tables:
        return {}
    return {tables[int(place)]: int(count) for place, count in session.query(staging.sizes(tables))}
