"""retries: work that failed for a reason that can pass is done again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TypeVar

from dagster_safe_backfill.errors import (
    ConfigurationError,
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
_Result = TypeVar("_Result")


def is_transient(error: BaseException) -> bool:
    """Return whether what failed may succeed if it is only done again.

    So it is with a database that is locked, can't be reached or saw a conflict, and with Python's own ConnectionError
    and TimeoutError, also as the cause of another error, since a client's library wraps them in its own. Of the
    library's other errors none is, whatever caused it: no audit, schema or timeout. An error whose `allow_retries` is
    False, as a `dagster.Failure` may say, is believed.
    """
    for link in _chain(error):
        if isinstance(link, _TRANSIENT):
            return True
        if isinstance(link, SafeBackfillError) or getattr(link, "allow_retries", None) is False:
            return False
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, down to the first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        # requests and urllib raise an OSError of theirs while they handle the socket's, and name no cause.
        is_wrapped = isinstance(link, OSError) and not link.__suppress_context__
        link = link.__cause__ or (link.__context__ if is_wrapped else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often work is done again, and the waits before that: exponential backoff with full jitter.

    Before retry n it waits for a random time between 0 and `first_wait` * 2**(n - 1) seconds, at most `longest_wait`;
    so those who failed at once don't come again at once (Marc Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015).

    Attributes:
        max_retries: How often at most; 0 for never.
        first_wait: The longest first wait, in seconds.
        longest_wait: The longest of all, in seconds.

    Raises:
        ConfigurationError: A number is negative or not finite.
    """

    max_retries: int = 3
    first_wait: float = 1.0
    longest_wait: float = 30.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigurationError(f"{name} is {value}, and must be a number from 0 on")

    def call(
        self,
        work: Callable[[], _Result],
        *,
        on_retry: Callable[[BaseException, int, float], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> _Result:
        """Return what `work` returns, done again while it fails for a reason that can pass.

        Args:
            work: It must be harmless to begin it anew.
            on_retry: Called before each wait with the error, the number of the try that failed, from 1 on, and the
                seconds to wait.
            sleep: How to wait.

        Raises:
            Exception: The work's own: the first that can't pass, or the last.
        """
        longest = self.first_wait
        for attempt in range(1, self.max_retries + 1):
            try:
                return work()
            except Exception as error:
                if not is_transient(error):
                    raise
                wait = random.uniform(0, min(longest, self.longest_wait))
                on_retry(error, attempt, wait)
            sleep(wait)
            longest *= 2
        return work()
