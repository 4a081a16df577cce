"""Backfills that are launched as others launch them, for the verbs that follow, stop and go on with them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.transport import HttpTransport
from dagster_safe_backfill.cli.api.values import Backfill


def at(address: str) -> Dagster:
    """Return the Dagster at an address."""
    return Dagster(HttpTransport(url=address))


def launch(dagster: Dagster, assets: Sequence[str], first: str, last: str, **tags: str) -> str:
    """Launch a backfill of a range of days of January 2024; `x__audit` and `prices` have no partitions."""
    ranges = {name: [(_day(first), _day(last))] for name in assets if name not in {"staged__audit", "prices"}}
    return dagster.launch_backfill(assets, ranges, tags=tags)


def launch_job(dagster: Dagster, module: str, job: str, *days: str) -> str:
    """Launch a backfill of a job."""
    place = {"repositoryName": "__repository__", "repositoryLocationName": module}
    selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": place}
    params: dict[str, Any] = {"selector": selector, "partitionNames": [*map(_day, days)]}
    document = """
    mutation ($params: LaunchBackfillParams!) {
      launchPartitionBackfill(backfillParams: $params) { ... on LaunchBackfillSuccess { backfillId } }
    }
    """
    return dagster.ask(document, params=params)["launchPartitionBackfill"]["backfillId"]


def ended(dagster: Dagster, ids: Iterable[str], *, within: float = 400) -> list[Backfill]:
    """Wait until backfills have ended, and return them."""
    deadline = time.monotonic() + within
    while any((found := dagster.backfill(one)).is_open or any(run.is_open for run in found.runs) for one in ids):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    return [dagster.backfill(one) for one in ids]


def computed(folder: Path, asset: str) -> list[str]:
    """Return the days of January 2024 that the project's function of an asset has computed, in order."""
    file = folder / "computed"
    lines = file.read_text().split("\n") if file.exists() else []
    return [line.split()[1][-2:] for line in lines if line.startswith(f"{asset} ")]


def _day(number: str) -> str:
    return f"2024-01-{number}"
