"""Which errors pass: those after which the same work may succeed, or be continued, without a change by anybody."""

from __future__ import annotations

from collections.abc import Iterator

from dagster_safe_backfill.errors import (
    BatchTimeoutError,
    OutOfResourcesError,
    OutsideAllowedHoursError,
    SafeBackfillError,
    TransactionConflictError,
    WarehouseLockedError,
    WarehouseUnavailableError,
)

_TRANSIENT = (
    ConnectionError,
    TimeoutError,
    TransactionConflictError,
    WarehouseLockedError,
    WarehouseUnavailableError,
)


INTERRUPTIONS: tuple[type[BaseException], ...] = (
    *_TRANSIENT,
    BatchTimeoutError,
    OutOfResourcesError,
    OutsideAllowedHoursError,
)
"""Errors that end a run though nothing is wrong with its code or its data, so that its work can be continued."""


def is_transient(error: BaseException) -> bool:
    """Return True if the failed work may succeed when it is repeated.

    Transient errors are a database that is locked, can't be reached or saw a conflict, and Python's ConnectionError and
    TimeoutError. They may be the cause of another error, because client libraries wrap them. The library's other errors
    are not transient, whatever their cause is; neither are errors with `allow_retries=False`, such as a
    `dagster.Failure`.
    """
    for link in _chain(error):
        if isinstance(link, _TRANSIENT):
            return True
        # The attribute is dagster.Failure's. It is found by name, so that this module needs only the standard library.
        if isinstance(link, SafeBackfillError) or getattr(link, "allow_retries", None) is False:
            return False
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause's cause, and so on."""
    # `raise error from error` makes a cycle: Python prevents cycles of `__context__`, but not of `__cause__`.
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        # requests and urllib raise their own OSError while they handle that of the socket, without `from` (PEP 3134).
        is_wrapped = isinstance(link, OSError) and not link.__suppress_context__
        link = link.__cause__ or (link.__context__ if is_wrapped else None)
