"""The lines of the live script: what is tried, by its title."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dagster_safe_backfill_tests.snowflake.account import Account


@dataclass(frozen=True, kw_only=True)
class Line:
    """One thing that is tried.

    Attributes:
        title: What it is, in one line.
        attempt: Tries it in an account, and returns what was seen. It raises if that isn't as it should be.
    """

    title: str
    attempt: Callable[[Account], str]


LINES: list[Line] = []


def line(title: str) -> Callable[[Callable[[Account], str]], Callable[[Account], str]]:
    """Make a function a line of the script."""

    def added(attempt: Callable[[Account], str]) -> Callable[[Account], str]:
        LINES.append(Line(title=title, attempt=attempt))
        return attempt

    return added


def lines(title: str, *cases: str) -> Callable[[Callable[[Account, str], str]], Callable[[Account, str], str]]:
    """Make a function a line of the script for each of some cases, which it gets beside the account."""

    def added(attempt: Callable[[Account, str], str]) -> Callable[[Account, str], str]:
        for case in cases:
            LINES.append(Line(title=f"{title} ({case})", attempt=lambda account, case=case: attempt(account, case)))
        return attempt

    return added
