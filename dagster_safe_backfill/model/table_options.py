"""The options of an asset's table: where it is, which computed rows it accepts, and which keys its asset had before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from dagster_safe_backfill.errors import ConfigurationError
from dagster_safe_backfill.model.tables import KeepLatest, OnEmpty, OnMissingColumn, OnOutside
from dagster_safe_backfill.model.validation import check_choice, check_text, check_time_zone, closest, refused

_KEY = 'the key of an asset, such as "raw/orders", or a list of keys'


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How the asset's table is kept, and which computed rows it accepts.

    Attributes:
        schema: The table's schema. If None, it is the I/O manager's schema, or else the last part of the asset key's
            prefix.
        column_timezone: The time zone of wall-clock columns (TIMESTAMP), such as `"America/New_York"`. If None, it is
            the partitions definition's.
        updated_at_column: A column that each publication sets to its time in the rows that it changes.
        on_empty: What happens if the function returns no rows at all: `"refuse"` raises, `"allow"` empties the slice.
        on_outside: What happens to computed rows outside the slice: `"refuse"` raises, `"drop"` leaves them out and
            counts them.
        on_missing_column: What happens if a column of the table isn't computed: `"refuse"` raises, `"fill"` writes the
            column's default, or NULL if it has none, so that days can be computed that are older than the column.
            Columns of the unique key and of `partition_expr`, and columns that can't be NULL and have no default, are
            never filled. A column that has a default in the database takes it in either case.
        on_duplicate: What happens to computed rows with the same unique key: `"raise"` raises,
            `keep_latest("ingested_at")` keeps the latest row of each key and counts the others.
        renamed_from: The key that the asset had before it was renamed, such as `"raw/orders"`; several keys, the oldest
            first, if it was renamed more than once. The asset keeps the table of the oldest key, with its history,
            archives and shadows, so that queries of the table still work. Assets of the old keys can't write the table
            any more once the renamed asset has written it.

    Raises:
        ConfigurationError: A value isn't allowed.

    Example:
        ```python
        table = sb.TableOptions(schema="sales", on_outside="drop", on_duplicate=sb.keep_latest("ingested_at"))
        ```
    """

    schema: str | None = None
    column_timezone: str | None = None
    updated_at_column: str | None = None
    on_empty: OnEmpty = "refuse"
    on_outside: OnOutside = "refuse"
    on_missing_column: OnMissingColumn = "refuse"
    on_duplicate: Literal["raise"] | KeepLatest = "raise"
    renamed_from: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.schema is not None:
            check_text("schema", self.schema, what="the name of a schema")
        if self.column_timezone is not None:
            check_time_zone("column_timezone", self.column_timezone)
        if self.updated_at_column is not None:
            check_text("updated_at_column", self.updated_at_column, what="the name of a column")
        check_choice("on_empty", self.on_empty, get_args(OnEmpty))
        check_choice("on_outside", self.on_outside, get_args(OnOutside))
        check_choice("on_missing_column", self.on_missing_column, get_args(OnMissingColumn))
        if self.on_duplicate != "raise" and not isinstance(self.on_duplicate, KeepLatest):  # pyright: ignore[reportUnnecessaryIsInstance]: users' own
            hint = 'did you mean "raise"?' if closest(self.on_duplicate, ["raise"]) else None
            raise refused("on_duplicate", '"raise" or keep_latest("a_column")', self.on_duplicate, hint=hint)
        object.__setattr__(self, "renamed_from", _asset_keys(self.renamed_from))

    @property
    def former_keys(self) -> tuple[str, ...]:
        """The keys that the asset had before, the oldest first; empty if it wasn't renamed."""
        return cast("tuple[str, ...]", self.renamed_from)

    @property
    def keep_latest(self) -> str | None:
        """The column whose largest value selects the row of a key that is kept; None if duplicates are an error."""
        return None if self.on_duplicate == "raise" else self.on_duplicate.column


def _asset_keys(given: object) -> tuple[str, ...]:
    """Return asset keys as texts.

    Raises:
        ConfigurationError: The value isn't a key or a list of keys, or names a key twice.
    """
    keys = (given,) if isinstance(given, str) else given
    # A dagster.AssetKey is a tuple, too.
    if not isinstance(keys, Sequence) or isinstance(keys, bytes | bytearray) or hasattr(given, "to_user_string"):
        raise refused("renamed_from", _KEY, given)
    for key in cast("Sequence[object]", keys):
        if not isinstance(key, str) or not all(part.strip() for part in key.split("/")):
            raise refused("renamed_from", _KEY, key)
    known = cast("Sequence[str]", keys)
    if len(set(known)) < len(known):
        raise ConfigurationError(f"renamed_from names a key twice: {', '.join(known)}. Name each key once.")
    return tuple(known)
