"""Which of a partition's changes are still in effect, and which must be undone to undo given publications."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Undoable(Protocol):
    """A publication or rollback of one partition."""

    @property
    def publication_id(self) -> str:
        """The id of the publication or rollback."""
        ...

    @property
    def undone(self) -> tuple[str, ...]:
        """The publications that a rollback undid, the oldest first; empty for a publication."""
        ...


Standing = Literal["undone", "already", "covered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPath:
    """How to undo chosen changes of a partition.

    Attributes:
        standing: `undone` if the chosen changes are the last ones in effect, `already` if none of them is in effect any
            more, `covered` if other changes were published on top of them.
        undone: The positions of the chosen changes in effect, the oldest first. The rows that the first one replaced
            are restored.
        over: The positions of the other changes on top of the first chosen one, the oldest first.
    """

    standing: Standing
    undone: tuple[int, ...] = ()
    over: tuple[int, ...] = ()


def rollback_path(history: Sequence[Undoable], chosen: Collection[str]) -> RollbackPath:
    """Return how the chosen publications of a partition are undone.

    A rollback restores the state before the publications that it undid, and can itself be undone.

    Args:
        history: All changes of the partition, the oldest first.
        chosen: The ids of the publications, or of a rollback.
    """
    standing = _standing(history)
    # A rollback restores the state that the changes below it made, so it doesn't cover them.
    layers = [i for i in standing if history[i].publication_id in chosen or not history[i].undone]
    undone = tuple(i for i in layers if history[i].publication_id in chosen)
    if not undone:
        return RollbackPath(standing="already")
    over = tuple(i for i in layers if i > undone[0] and i not in undone)
    return RollbackPath(standing="covered" if over else "undone", undone=undone, over=over)


def _standing(history: Sequence[Undoable]) -> list[int]:
    """Return the positions of the changes in effect, each on top of those before it."""
    now: list[int] = []
    before: dict[str, list[int]] = {}
    for position, change in enumerate(history):
        before[change.publication_id] = now
        # A rollback puts back into effect the changes that were in effect before the first publication that it undid.
        lowest = change.undone[0] if change.undone else None
        now = [*(now if lowest is None else before.get(lowest, now)), position]
    return now


def undone(history: Sequence[Undoable]) -> set[int]:
    """Return the positions of the changes of a partition that are not in effect any more.

    Args:
        history: Changes of the partition up to its last one, the oldest first. Earlier ones may be left out.
    """
    now: list[int] = []
    before: dict[str, list[int]] = {}
    for position, change in enumerate(history):
        before[change.publication_id] = now
        # Of what it undid, the oldest may be a change that was left out.
        lowest = next((before[name] for name in change.undone if name in before), now)
        now = [*lowest, position]
    return {*range(len(history))} - {*now}
