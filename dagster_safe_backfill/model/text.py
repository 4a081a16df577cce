"""Parts of messages: lists of values, and the table that an error is about."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import cast

from dagster_safe_backfill.errors import SafeBackfillError

_SHOWN = 10


def listed(values: Sequence[object], *, shown: int = _SHOWN) -> str:
    """Return the first `shown` values, separated by commas, and the number of the others: `"a, b and 3 more"`."""
    head = ", ".join(str(value) for value in values[:shown])
    rest = len(values) - shown
    return f"{head} and {rest} more" if rest > 0 else head


def is_blank(value: object) -> bool:
    """Return True of a text without content, as of an unset variable, and of a list or tuple with one."""
    values = cast("Sequence[object]", value if isinstance(value, list | tuple) else [value])
    return any(isinstance(one, str) and not one.strip() for one in values)


@contextmanager
def about(table: object) -> Generator[None, None, None]:
    """Put the table's name before the message of a `SafeBackfillError` raised in the block, unless it is in it.

    A name in the SQL of a statement that the message ends with doesn't count.
    """
    try:
        yield
    except SafeBackfillError as error:
        message, *rest = error.args
        if str(table) not in str(message).partition("(while running")[0]:
            # Changed in place, so that the error keeps its class, attributes, cause and traceback.
            error.args = (f"{table}: {message}", *rest)
        raise
