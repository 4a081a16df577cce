"""What stands in a partition, by the changes that the ledger tells of, and what undoing some of them would restore."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Undoable(Protocol):
    """A publication or a rollback, as one partition saw it."""

    @property
    def publication_id(self) -> str:
        """Its id."""
        ...

    @property
    def undone(self) -> tuple[str, ...]:
        """The publications that it undid, the lowest layer first; none, if it is no rollback."""
        ...


Standing = Literal["undone", "already", "covered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPath:
    """How to undo some changes of a partition.

    Attributes:
        standing: `undone` if they are the last that stand, `already` if none of them stands any more, `covered` if
            others stand on them.
        undone: The positions of those that are undone, the oldest first: what the first replaced is restored.
        over: The positions of others that stand on the first of them, the oldest first.
    """

    standing: Standing
    undone: tuple[int, ...] = ()
    over: tuple[int, ...] = ()


def rollback_path(history: Sequence[Undoable], chosen: Collection[str]) -> RollbackPath:
    """Return how the chosen publications of a partition are undone.

    A rollback takes the partition back to what stood before the publications that it undid, and can itself be undone.

    Args:
        history: All changes of the partition, the oldest first.
        chosen: The ids of the publications, or of a rollback.
    """
    standing = _standing(history)
    # A rollback shows what stood before, so it hides nothing that stands below it.
    layers = [i for i in standing if history[i].publication_id in chosen or not history[i].undone]
    undone = tuple(i for i in layers if history[i].publication_id in chosen)
    if not undone:
        return RollbackPath(standing="already")
    over = tuple(i for i in layers if i > undone[0] and i not in undone)
    return RollbackPath(standing="covered" if over else "undone", undone=undone, over=over)


def _standing(history: Sequence[Undoable]) -> list[int]:
    """Return the positions of the changes that stand, each on those before it."""
    now: list[int] = []
    before: dict[str, list[int]] = {}
    for position, change in enumerate(history):
        before[change.publication_id] = now
        # What stood before the lowest of the layers that a rollback undid stands again.
        lowest = change.undone[0] if change.undone else None
        now = [*(now if lowest is None else before.get(lowest, now)), position]
    return now
