"""The runs of a planned backfill refuse if the code or the live rows are no longer what the plan was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from dagster_safe_backfill.errors import ConfigurationError, PlanChangedError
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.plans import PLAN_TAG, Expected
from dagster_safe_backfill.model.tables import TableRef
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.ledger.history import Change, history
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAsset:
    """What the plan of a run's backfill expects of one asset.

    Attributes:
        plan: The plan's id.
        asset: The key of the live asset.
        table: Its table.
        expected: What the plan expects of all its assets.
        instance: Knows which runs belong to the plan.
    """

    plan: str
    asset: str
    table: TableRef
    expected: Expected
    instance: dg.DagsterInstance

    def check_code(self, code: str | None, keys: Sequence[str]) -> None:
        """Refuse code that isn't the plan's, if it can be told.

        Raises:
            PlanChangedError: The asset's code changed after the plan was made.
        """
        if code is not None and self.expected.knows_code(self.asset) and not self.expected.is_code(self.asset, code):
            raise self._refused(f"the code of {self.asset} changed after the plan {self.plan} was made", keys)

    def check_live(self, session: Session | None, keys: Sequence[str], fingerprints: Mapping[str, Fingerprint]) -> None:
        """Refuse partitions whose live rows aren't those that the plan was made from.

        Rows that an earlier run of the same plan published are as the plan wants them.

        Args:
            session: An open session; None if there is no database yet.
            keys: The partitions.
            fingerprints: The fingerprints of those that have live rows.

        Raises:
            PlanChangedError: Some of the partitions changed.
        """
        if not self.expected.knows_live(self.asset):
            return
        live = {key: fingerprints.get(key, Fingerprint()) for key in keys}
        changed = self.expected.changed(self.asset, {key: str(one) for key, one in live.items()})
        if not changed:
            return
        newest: dict[str, Change] = {}
        if session is not None:
            newest = {change.key: change for change in history(session, self.table, changed)}
        by_others: dict[str, str] = {}
        for key in changed:
            reason = self._reason(newest.get(key), live[key])
            if reason is not None:
                by_others[key] = reason
        if by_others:
            why = "; ".join(f"{key}: {reason}" for key, reason in [*by_others.items()][:3])
            raise self._refused(
                f"{listed([*by_others])} changed after the plan {self.plan} was made ({why})", [*by_others]
            )

    def _reason(self, newest: Change | None, live: Fingerprint) -> str | None:
        """Return what changed a partition; None if a run of the plan did."""
        if newest is None or newest.fingerprint != live:
            return "its rows were changed outside of this library"
        run = self.instance.get_run_by_id(newest.run_id)
        is_own = run is not None and run.tags.get(PLAN_TAG) == self.plan
        return None if is_own else str(newest)

    def _refused(self, what: str, keys: Sequence[str]) -> PlanChangedError:
        return PlanChangedError(
            f"{self.table}: {what}, so it was not carried out. Make a new plan: safe-backfill plan {self.asset}",
            plan=self.plan,
            keys=keys,
        )


def planned_asset(run: dg.DagsterRun, asset: str, table: TableRef, instance: dg.DagsterInstance) -> PlannedAsset | None:
    """Return what the plan of a run's backfill expects of an asset; None if it expects nothing, or there is none.

    Raises:
        ConfigurationError: The run's tag isn't one that a plan wrote.
    """
    try:
        expected = Expected.parse(run.tags)
    except ValueError as error:
        raise ConfigurationError(f"{error}, so the run can't check whether its plan is still true") from error
    if expected is None:
        return None
    return PlannedAsset(
        plan=run.tags.get(PLAN_TAG, ""),
        asset=asset,
        table=table,
        expected=expected,
        instance=instance,
    )
