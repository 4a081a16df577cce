"""retries: work that failed for a reason that can pass is done again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

from dagster_safe_backfill.errors import ConfigurationError, is_transient

_Result = TypeVar("_Result")


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
