"""One script for the first day with an account: `python -m dagster_safe_backfill_tests.snowflake.live`.

Each line tries one thing that the emulator takes for granted, in a schema of its own, and prints a verdict: `pass`,
`FAIL`, or `account only` on the emulator. It writes a report to hand back. `DSB_SNOWFLAKE_ACCOUNT`, `_USER`,
`_DATABASE` and `_WAREHOUSE`, with `_PASSWORD` or `_PRIVATE_KEY_PATH` (and `_ROLE`), tell how to log in, as a user who
may create schemas in that database. It takes under 30 minutes of an X-Small warehouse. With `--emulated`, it runs on
the emulator, which shows that the lines themselves work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from dagster_safe_backfill_tests.snowflake import lines_of_locks, lines_of_statements, lines_of_tables, lines_of_values
from dagster_safe_backfill_tests.snowflake.account import (
    NEEDED,
    PREFIX,
    Account,
    AccountOnlyError,
    Login,
    login_of_environment,
)
from dagster_safe_backfill_tests.snowflake.lines import LINES, Line

assert lines_of_locks, lines_of_tables  # imported for their lines
assert lines_of_statements, lines_of_values

Outcome = Literal["pass", "FAIL", "account only"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one line.

    Attributes:
        line: What was tried.
        outcome: What came of it.
        seconds: How long it took.
        found: What was seen, or the error.
    """

    line: str
    outcome: Outcome
    seconds: float
    found: str

    def __str__(self) -> str:
        said = self.found.splitlines()[-1] if self.found else ""
        return f"{self.outcome:12}  {self.seconds:7.1f} s  {self.line}: {said}"


def tried(line: Line, login: Login) -> Verdict:
    """Try one line in a schema of its own."""
    begun = time.monotonic()
    outcome: Outcome = "FAIL"
    try:
        account = Account(login)
        try:
            found = line.attempt(account)
            outcome = "pass"
        finally:
            account.close()
    except AccountOnlyError as reason:
        outcome, found = "account only", str(reason)
    # Whatever it raises is what the report is for, and the other lines are still tried.
    except Exception:
        found = traceback.format_exc()
    return Verdict(line=line.title, outcome=outcome, seconds=time.monotonic() - begun, found=found)


def report(verdicts: Sequence[Verdict], facts: Mapping[str, str]) -> str:
    """Return the report as JSON."""
    return json.dumps({"facts": dict(facts), "verdicts": [asdict(one) for one in verdicts]}, indent=2)


@contextmanager
def emulated() -> Iterator[Login]:
    """Yield how to log in to an emulator that runs as long as the block."""
    from dagster_safe_backfill_tests.harness.snowflake.emulator import serve

    with serve() as emulator:
        address = emulator.additional_connection_arguments()
        options = {"account": "emulated", "user": "tester", "password": "none", "database": emulator.database()}
        login_timeout = address.pop("login_timeout")
        yield Login(options={**options, "login_timeout": login_timeout}, address=address, is_emulated=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all lines, print their verdicts, write the report, and return 1 if a line failed."""
    parser = argparse.ArgumentParser(prog="python -m dagster_safe_backfill_tests.snowflake.live", description=__doc__)
    parser.add_argument("--emulated", action="store_true", help="run on the emulator")
    parser.add_argument("--only", metavar="TEXT", help="run the lines that have this text in their titles")
    parser.add_argument("--report", type=Path, default=Path("snowflake-report.json"), help="where the report goes")
    given = parser.parse_args(arguments)
    if given.emulated:
        with emulated() as login:
            return _run(login, given.report, only=given.only)
    login = login_of_environment()
    if login is None:
        names = ", ".join(PREFIX + name for name in NEEDED)
        parser.error(f"no account: set {names} and {PREFIX}PASSWORD or {PREFIX}PRIVATE_KEY_PATH, or give --emulated")
    return _run(login, given.report, only=given.only)


def _run(login: Login, path: Path, *, only: str | None) -> int:
    verdicts: list[Verdict] = []
    for line in LINES:
        if only is None or only.casefold() in line.title.casefold():
            verdicts.append(tried(line, login))
            sys.stdout.write(f"{verdicts[-1]}\n")
            sys.stdout.flush()
    facts = {
        "account": "emulated" if login.is_emulated else "Snowflake",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.write_text(report(verdicts, facts))
    sys.stdout.write(f"the report is in {path}\n")
    return int(any(one.outcome == "FAIL" for one in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
