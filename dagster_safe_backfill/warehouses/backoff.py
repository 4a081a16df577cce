"""Pauses between attempts, with jitter, until a time-out."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

# Short, so that a process that opens a DuckDB file again and again doesn't starve those that wait for it.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts, each twice as long as the one before, up to a fifth of a second.

    Args:
        timeout: The seconds after which no further attempt is made, counted from the start of the first attempt.
    """

    timeout: float
    _started: float = field(default_factory=time.monotonic, init=False)
    _pause: float = field(default=_FIRST_PAUSE, init=False)

    def sleep(self) -> bool:
        """Wait before the next attempt; return False at once if the timeout would end first."""
        if time.monotonic() + self._pause >= self._started + self.timeout:
            return False
        # Without jitter, processes that blocked each other would try again at the same moment.
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True
