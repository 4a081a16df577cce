"""Waits between tries, with jitter, until a time-out."""

from __future__ import annotations

import random
import time

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2


class Backoff:
    """Doubles the pause between tries, up to a fifth of a second.

    Args:
        timeout: Seconds, from now on, after which it is no use to try again.
    """

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._pause = _FIRST_PAUSE

    def sleep(self) -> bool:
        """Wait before the next try; return False at once if the time-out would be over by then."""
        if time.monotonic() + self._pause >= self._deadline:
            return False
        # With jitter, those who got in each other's way don't come back at once.
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True
