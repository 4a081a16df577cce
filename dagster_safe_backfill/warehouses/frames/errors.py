"""The errors of frames that can't be converted."""

from __future__ import annotations

from dagster_safe_backfill.errors import SafeBackfillError


class FrameError(SafeBackfillError):
    """A frame that can't be converted to an Arrow table. The caller adds the name of the warehouse's table."""


class UnreadableError(Exception):
    """A column that a library of frames has no type for. `from_arrow` raises a `ReadError` in its place.

    Attributes:
        column: The name of the column.
        library: The library.
        lacks: What it doesn't have, as in "no type for it".
    """

    def __init__(self, column: str, library: str, lacks: str) -> None:
        super().__init__(f"{column}: {library} has {lacks}")
        self.column = column
        self.library = library
        self.lacks = lacks


class NoColumnsError(FrameError):
    """A frame without columns, such as `pandas.DataFrame()`."""
