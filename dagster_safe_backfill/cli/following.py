"""Following a backfill until it ends."""

from __future__ import annotations

import time

from dagster_safe_backfill.cli.answers import Answer, Exit
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.output import Output


def follow(
    connection: Connection, _output: Output, backfill_id: str, *, timeout: float | None = None, interval: float = 1.0
) -> Answer:
    """Return what became of a backfill."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while (found := connection.dagster.backfill(backfill_id)).is_open:
        if deadline is not None and time.monotonic() > deadline:
            return Answer(data={}, show=lambda _screen: None, exit_code=Exit.RUNNING)
        time.sleep(interval)
    is_done = found.status == "COMPLETED_SUCCESS"
    return Answer(
        data={"id": found.id, "status": found.status},
        show=lambda screen: screen.print(f"{found.id} {found.status}"),
        exit_code=Exit.DONE if is_done else Exit.FAILED,
    )
