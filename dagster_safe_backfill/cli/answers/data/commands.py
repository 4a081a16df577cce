"""What can be done next, as calls of the command."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

CommandName = Literal["watch", "stop", "wait", "retry", "diff", "approve", "undo"]


class Commands(TypedDict):
    """Calls of the command that can be made next, as they are typed in a shell; None for those that make no sense now.

    Calls for several assets under one name are joined by `; `.

    Attributes:
        watch: Follows the backfill.
        stop: Cancels it, and ends its runs.
        wait: Waits until a cancelled one has ended.
        retry: Goes on with what isn't done.
        diff: Compares the rows that were staged or rejected with the live ones.
        approve: Publishes what is staged.
        undo: Takes back what it published.
    """

    watch: str | None
    stop: str | None
    wait: str | None
    retry: str | None
    diff: str | None
    approve: str | None
    undo: str | None
