"""What of the staged partitions of a run is live, and what may go live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dagster_safe_backfill.errors import NotStagedError
from dagster_safe_backfill.model.states import Changes, Published
from dagster_safe_backfill.model.tables import TableSpec
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.reports.events import changes_by_partition, partition_metadata, publication_metadata

if TYPE_CHECKING:
    from dagster_safe_backfill.wap.ledger.waiting import Stage
    from dagster_safe_backfill.warehouses.base import Connection

_STANDINGS: Mapping[str, str] = {
    "staged": "staged, its audits have not ended",
    "audited": "staged, and not yet audited with the others",
    "rejected": "rejected by an audit",
    "refused": "refused by an audit of all that was staged with it",
    "rolled_back": "rolled back, and not staged since",
    "taken_up": "taken up by another backfill",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Publications:
    """What a run found, and made, live.

    Attributes:
        now: The publication that it made, if it made one.
        before: The changes of the partitions that had been published before, with the publication's id.
    """

    now: Sequence[Published]
    before: Mapping[str, tuple[str, Changes]]

    def numbers(self, key: str) -> dict[str, Any]:
        """Return the numbers of one partition's materialization."""
        for one in self.now:
            if key in one.changes:
                return {**changes_by_partition([one])[key], **publication_metadata(one)}
        publication_id, changes = self.before[key]
        return {**partition_metadata(changes), "publication_id": publication_id}


def published_before(
    connection: Connection, spec: TableSpec, stages: Mapping[str, Stage]
) -> dict[str, tuple[str, Changes]]:
    """Return what the publications of partitions changed there."""
    from dagster_safe_backfill.wap.ledger import ledger

    ids = {stage.publication_id for stage in stages.values()}
    entries = ledger.changes_by(connection, spec.table, *ids) if ids else []
    return {entry.key: (entry.publication_id, entry.changes) for entry in entries if entry.key in stages}


def check_approved(spec: TableSpec, keys: Sequence[str], found: Mapping[str, Stage]) -> None:
    """Refuse to publish what isn't staged and audited.

    Raises:
        NotStagedError: Some partitions aren't.
    """
    said: dict[str, str] = {}
    for key in keys:
        stage = found.get(key)
        if stage is None or stage.event != "approved":
            said[key] = "not staged" if stage is None else _STANDINGS[stage.event]
    if not said:
        return
    shown = listed([f"{key}: {text}" for key, text in said.items()])
    name = spec.table.name
    raise NotStagedError(
        f"{spec.table}: {len(said)} of {len(keys)} partitions can't be published ({shown}), so none was. Materialize"
        f" them in {name}__shadow, then {name}__audit, and publish then",
        table=str(spec.table),
        keys=[*said],
    )
