"""Pauses between attempts, with jitter, until a time-out."""

from __future__ import annotations

import random
import time

# Short, so that a process that opens a DuckDB file again and again doesn't starve those that wait for it.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2


class Backoff:
    """Pauses that double from attempt to attempt, up to a fifth of a second.

    Args:
        timeout: Seconds from now after which there is no further attempt.
    """

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._pause = _FIRST_PAUSE

    def sleep(self) -> bool:
        """Wait before the next attempt. Return False at once if the time-out would end during the wait."""
        if time.monotonic() + self._pause >= self._deadline:
            return False
        # Without jitter, processes that blocked each other would try again at the same moment.
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True
