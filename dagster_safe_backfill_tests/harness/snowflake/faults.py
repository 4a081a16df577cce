"""The fault table: for each statement of each change, what a fault left, and what the rerun did.

Besides, the server aborts each transaction before each of its statements, as it does when the transaction is idle and
blocks another one: nobody tells the client.

`python -m dagster_safe_backfill_tests.harness.snowflake.faults` prints it. Of statements that only read one fault is
tried, in turn, as all are alike to the server; of the others each. The tests take every fourth of the former, and one
fault in turn of the latter, but each of what no ROLLBACK undoes.
"""

from __future__ import annotations

import itertools
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dagster_safe_backfill import RangeSnowflakeIOManager, unique
from dagster_safe_backfill.errors import SafeBackfillError
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Audited, Published, RolledBack
from dagster_safe_backfill_tests.harness.audited import KEYS
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake.emulator import serve
from dagster_safe_backfill_tests.harness.snowflake.proxy import FOREVER, How, Passed, Proxy, not_again, proxied
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

Work = Literal["stage", "merge", "replace", "swap", "rollback"]
"""What is tried: the write and the audit, which no strategy changes; a publication of what was staged; its undoing."""

WORKS: tuple[Work, ...] = get_args(Work)
EACH = 0
"""Stands for all statements of a run, in place of a number."""
FIRST, RUN, AGAIN = "first", "faulty", "again"
DAYS = (0, 1, 2)
OLD = [row for day in range(len(KEYS)) for row in day_rows(day, 1.0)]
NEW = [*day_rows(0, 1.0)[:2], (0, 2, 2.0, None), *day_rows(1, 1.0)[1:], *day_rows(1, 1.0, 4)[3:], *day_rows(2, 1.0)]
"""Of three days: a row that changed; one that is gone and one that is new; and a day as it was."""
LIVE_THEN = sorted([*NEW, *day_rows(3, 1.0)])


FATAL: tuple[How, ...] = ("refuse", "lose reply", "end session", "cut off")
PASSING: tuple[How, ...] = ("refuse", "lose reply")
"""The faults for a client that gives up, and those that one that tries again survives."""
COMMITS = re.compile("COMMIT|CREATE .*CLONE|ALTER TABLE .*SWAP", re.DOTALL)
"""What can't be undone by a ROLLBACK."""
CALLED: dict[How, str] = {
    "refuse": "refused",
    "lose reply": "reply lost",
    "end session": "session lost",
    "cut off": "cut off",
    "abort": "aborted",
}
ABORTABLE = re.compile(r"BEGIN\b", re.IGNORECASE), re.compile(r"COMMIT|ROLLBACK", re.IGNORECASE)
"""What begins a transaction, and what ends it."""


class ProxiedBackend(SnowflakeBackend):
    """A fresh database. The library reaches it by way of a proxy, as a client that tries again or doesn't."""

    def __init__(self, proxy: Proxy, *, is_patient: bool) -> None:
        super().__init__(proxy.emulator)
        known = self.io_manager
        further = proxy.additional_connection_arguments()
        # Longer than anything takes, as the connector has a statement cancelled when it is over.
        further["network_timeout"] = 60
        if not is_patient:
            further["backoff_policy"] = not_again
        self.io_manager = RangeSnowflakeIOManager(
            account="emulated",
            user="tester",
            password="none",
            database=self.database,
            schema="main",
            lock_timeout=known.lock_timeout,
            additional_snowflake_connection_args=further,
        )


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A row of the table.

    Attributes:
        saw: What the library raised; nothing, if the client got through.
        live: Which of the two states live was in then.
        left: The tables that were there then, and weren't before or after.
        rerun: What the rerun did.
        problems: What wasn't as promised then.
        unfinished: What wasn't after the rerun.
    """

    work: Work
    number: int
    statement: str
    fault: str
    saw: str = ""
    live: str = ""
    left: str = ""
    rerun: str = ""
    problems: list[str] = field(default_factory=list[str])
    unfinished: list[str] = field(default_factory=list[str])


class Bench:
    """Fresh databases in which a work is to be done, each a clone of one in which all before it is done."""

    def __init__(self, proxy: Proxy, work: Work) -> None:
        self.proxy = proxy
        self.work: Work = work
        backend = SnowflakeBackend(proxy.emulator)
        self.database = backend.database
        template = Publications(backend, live=OLD)
        self.audited: Audited | None = None
        if work in ("merge", "replace", "swap"):
            self.audited = template.stage(NEW, DAYS, RUN, audits=[unique()])
        if work == "rollback":
            template.published(NEW, DAYS, FIRST)
        self.tables = tables(template)

    @property
    def old(self) -> list[tuple[object, ...]]:
        """The live rows before."""
        return list(LIVE_THEN if self.work == "rollback" else sorted(OLD))

    @property
    def new(self) -> list[tuple[object, ...]]:
        """The live rows after."""
        return list(sorted(OLD) if self.work == "rollback" else LIVE_THEN)

    @contextmanager
    def fresh(self, *, is_patient: bool = True) -> Iterator[Publications]:
        """Yield a fresh database."""
        backend = ProxiedBackend(self.proxy, is_patient=is_patient)
        database = Publications(backend, live=None)
        with backend.session() as connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE NOTES")
            for name in map(str.upper, self.tables):
                # As the library makes them.
                kind = "TRANSIENT TABLE" if "__" in name else "TABLE"
                cursor.execute(f'CREATE {kind} "{name}" CLONE {self.database}."MAIN"."{name}"')
        yield database
        self.proxy.emulator.drop(backend.database)

    def run(self, database: Publications) -> Published | RolledBack | None:
        """Do the work."""
        if self.work == "stage":
            database.stage(NEW, DAYS, RUN, audits=[unique()])
            return None
        if self.work == "rollback":
            return database.rollback(FIRST, run=RUN)
        assert self.audited is not None
        return database.publish(self.audited, RUN, strategy=self.work)

    def rerun(self, database: Publications, how: int) -> str:
        """Do it again, by a retry of the step, all of the run or another run in turn; return what that did."""
        run = AGAIN if how % 4 == 3 else RUN
        if self.work == "rollback":
            undone = database.rollback(FIRST, run=run)
            return "found it undone" if undone.already and not undone.row_counts else "undone"
        strategy: Strategy = "merge" if self.work == "stage" else self.work
        if how % 2 == 0 and self.audited is not None:
            published = database.publish(self.audited, run, strategy=strategy)
        else:
            audited = database.stage(NEW, DAYS, run, audits=[unique()])
            published = database.publish(audited, run, strategy=strategy)
        if published.is_repeated:
            return "found it published"
        return "published" if any(one.touched for one in published.row_counts.values()) else "published, no change"

    def statements(self) -> list[Passed]:
        """Return the statements of the work when nothing fails."""
        with self.fresh() as database:
            self.proxy.forget()
            self.run(database)
            return list(self.proxy.statements)


def outcomes(proxy: Proxy, work: Work, *, is_thorough: bool = True) -> Iterator[Outcome]:
    """Try faults at each statement of a work: each fault, or as many as a test has time for."""
    bench = Bench(proxy, work)
    turns = itertools.cycle(FATAL)
    statements = bench.statements()
    for statement in statements:
        if is_reading(statement):
            count = 1 if is_thorough or statement.number % 4 == 1 else 0
        else:
            # What stages has few statements, of which each commits.
            count = len(FATAL) if is_thorough or work == "stage" or COMMITS.match(statement.sql) else 1
        kinds: list[How] = list(itertools.islice(turns, count))
        # The server can abort a transaction before each of its statements. The client isn't told, and goes on.
        if statement.number in in_transactions(statements):
            kinds.append("abort")
        for turn, kind in enumerate(kinds):
            found = Outcome(work=work, number=statement.number, statement=shown(statement), fault=CALLED[kind])
            with bench.fresh(is_patient=False) as database:
                yield tried(bench, database, kind, found, again=turn and statement.number + turn)
    for turn, kind in enumerate(PASSING):
        found = Outcome(work=work, number=EACH, statement="(each)", fault=f"{CALLED[kind]} once")
        with bench.fresh() as database:
            yield tried(bench, database, kind, found, again=turn)


def tried(bench: Bench, database: Publications, how: How, found: Outcome, *, again: int) -> Outcome:
    """Do the work with a fault, look what is left, and do it again."""
    proxy = bench.proxy
    proxy.forget()
    for number in [found.number] if found.number != EACH else range(1, 100):
        proxy.fail(when=number, how=how, times=FOREVER if found.number != EACH else 1)
    found.saw = saw(bench, database, found)
    proxy.heal()
    found.problems += misplaced(proxy.statements, how, found)
    left = end_sessions(proxy, database)
    if left and how != "cut off":
        found.problems.append(f"the library left {left} sessions open")
    found.live = live_state(bench, database)
    found.problems += wrong(bench, database, found.live)
    found.left = ", ".join(leftovers(bench, database, found.live))
    try:
        found.rerun = bench.rerun(database, again)
        database.retire()
    except Exception as error:
        found.rerun = type(error).__name__
        found.unfinished.append(f"the rerun failed: {error}"[:500])
    found.unfinished += wrong_in_the_end(bench, database)
    return found


def in_transactions(statements: Sequence[Passed]) -> set[int]:
    """Return the numbers of the statements that are sent while their session has a transaction, with its end."""
    open_sessions: set[str] = set()
    found: set[int] = set()
    for one in statements:
        if one.session in open_sessions:
            found.add(one.number)
        begins, ends = ABORTABLE
        if begins.match(one.sql):
            open_sessions.add(one.session)
        elif ends.match(one.sql):
            open_sessions.discard(one.session)
    return found


def misplaced(statements: Sequence[Passed], how: How, found: Outcome) -> Iterator[str]:
    """Return whether the fault didn't befall what it was for."""
    if found.number == EACH:
        if any(one.faults != [how] for one in statements) or found.saw:
            yield "not each statement got through after a fault"
        return
    befallen = [(shown(one), how in one.faults) for one in statements[found.number - 1 : found.number]]
    if befallen != [(found.statement, True)]:
        yield f"the fault befell something else: {befallen}"


def end_sessions(proxy: Proxy, database: Publications) -> int:
    """End what sessions were left, as Snowflake does with those whose clients are gone; return how many."""
    left = sessions(proxy, database)
    for one in left:
        proxy.emulator.end_session(one["session"])
    return len(left)


def sessions(proxy: Proxy, database: Publications) -> list[dict[str, Any]]:
    """Return the open sessions with a database."""
    assert isinstance(database.backend, SnowflakeBackend)
    name = database.backend.database
    return [one for one in proxy.emulator.sessions() if one["database"] == name]


def saw(bench: Bench, database: Publications, found: Outcome) -> str:
    """Do the work, and return which error it raised."""
    try:
        bench.run(database)
    except SafeBackfillError as error:
        return type(error).__name__
    except Exception as error:
        found.problems.append(f"not an error of the library's: {error!r}"[:500])
        return type(error).__name__
    return ""


def live_state(bench: Bench, database: Publications) -> str:
    """Return whether live is as it was, or as it was to be; new, and marked as half done, in the midst of a swap."""
    rows = live(database)
    if rows == bench.new and bench.work == "swap" and not recorded(bench, database):
        ((comment,),) = database.read("SELECT comment FROM duckdb_tables() WHERE table_name = 't'")
        return "new, marked" if comment and "dagster_safe_backfill" in comment else "new"
    return "old" if rows == bench.old else "new" if rows == bench.new else "neither"


def recorded(bench: Bench, database: Publications) -> list[str | None]:
    """Return the partitions for which the ledger tells of the work."""
    event = "rolled_back" if bench.work == "rollback" else "published"
    return sorted(key for what, key, run in events(database) if what == event and run == RUN)


def live(database: Publications) -> list[tuple[object, ...]]:
    """Return the live rows."""
    return database.read("SELECT day - DATE '2024-01-01', id, value, note FROM t ORDER BY ALL")


def wrong(bench: Bench, database: Publications, state: str) -> Iterator[str]:
    """Return how the ledger and live disagree once a fault has passed."""
    if state == "neither":
        yield f"live is neither old nor new: {live(database)}"
    if bench.work == "stage" and state != "old":
        yield "live was changed before the publication"
    # A rollback has nothing to undo in a partition that the publication left as it was.
    count = 0 if state != "new" else 2 if bench.work == "rollback" else len(DAYS)
    if recorded(bench, database) != list(KEYS[:count]):
        yield f"live is {state}, and the ledger tells of {recorded(bench, database)}"
    yield from counted(database)
    if bench.audited is not None and state == "old" and f"t__shadow_{RUN}" not in tables(database):
        yield "nothing was published, and the shadow is gone"


def wrong_in_the_end(bench: Bench, database: Publications) -> Iterator[str]:
    """Return what isn't as promised after the rerun and the retention."""
    if live(database) != bench.new:
        yield f"live isn't new: {live(database)}"
    yield from counted(database)
    changes = [(key, run) for what, key, run in events(database) if what in ("published", "rolled_back")]
    if len(changes) != len(set(changes)):
        yield f"recorded twice: {changes}"
    left = [name for name in tables(database) if "shadow" in name or name.startswith("_sb_")]
    archives = {name for (name,) in database.read("SELECT DISTINCT archive FROM _safe_backfill_ledger")}
    left += [name for name in tables(database) if "archive" in name and name not in archives]
    if left:
        yield f"left behind: {', '.join(left)}"
    for one in sessions(bench.proxy, database):
        yield f"a session is open: {one}"
    assert isinstance(database.backend, SnowflakeBackend)
    for ddl in bench.proxy.emulator.ddl_in_transactions(database.backend.database):
        yield f"DDL in a transaction: {ddl}"


def counted(database: Publications) -> Iterator[str]:
    """Return the partitions for which the ledger's newest fingerprint isn't of as many rows as live has."""
    if "_safe_backfill_ledger" not in tables(database):
        return
    sql = """
        SELECT partition_key FROM _safe_backfill_ledger WHERE event IN ('published', 'rolled_back')
        QUALIFY row_number() OVER (PARTITION BY partition_key ORDER BY recorded_at DESC) = 1
            AND split_part(fingerprint, ':', 1)::BIGINT <> (SELECT count(*) FROM t WHERE day::VARCHAR = partition_key)
    """
    for (key,) in database.read(sql):
        yield f"the ledger's fingerprint of {key} is of another number of rows"


def leftovers(bench: Bench, database: Publications, state: str) -> list[str]:
    """Return the tables that a fault left, named without what is random."""
    expected = {*bench.tables, "_safe_backfill_ledger", "t__lock"}
    if state == "new":
        expected.add(f"t__archive_{RUN}")
    return sorted(plain(name) for name in set(tables(database)) - expected)


def tables(database: Publications) -> list[str]:
    """Return the names of the tables."""
    return [name for (name,) in database.read("SELECT table_name FROM duckdb_tables() ORDER BY 1")]


def events(database: Publications) -> list[tuple[str, str | None, str]]:
    """Return what the ledger has; nothing, if there is none yet."""
    return database.events() if "_safe_backfill_ledger" in tables(database) else []


def is_reading(statement: Passed) -> bool:
    """Return whether a statement changes nothing."""
    return statement.sql.startswith(("SELECT", "SHOW", "DESCRIBE"))


def shown(statement: Passed) -> str:
    """Return the beginning of a statement's text, without what is random in it."""
    text = plain(" ".join(statement.sql.split()))
    return re.sub(r"^(PUT '\w+://).*/(\w+\.parquet')", r"\1.../\2", text)[:70]


def plain(text: str) -> str:
    """Return a text without random names."""
    return re.sub(r"[0-9a-fA-F]{32}|(?<=TRANSACTION )\d+", "...", text)


def markdown(rows: Sequence[Outcome]) -> str:
    """Return the table."""
    titles = ("change", "#", "statement", "fault", "the library raised", "live then", "left then", "the rerun")
    lines = [
        (one.work, str(one.number or ""), f"`{one.statement}`", one.fault, one.saw, one.live, one.left, one.rerun)
        for one in rows
    ]
    return "\n".join(f"| {' | '.join(cells).replace('|  |', '| |')} |" for cells in (titles, ("---",) * 8, *lines))


def summary(rows: Sequence[Outcome]) -> str:
    """Return how many faults ended how."""
    counts = Counter((one.work, one.live) for one in rows)
    ends = ", ".join(f"{work}: {count} {live}" for (work, live), count in sorted(counts.items()))
    return (
        f"{len(rows)} faults ({ends}); {sum(bool(one.problems) for one in rows)} wrong,"
        f" {sum(bool(one.unfinished) for one in rows)} not put right by the rerun"
    )


def main(works: Sequence[str]) -> None:
    """Print the table, and what isn't as promised."""
    with serve() as emulator, proxied(emulator) as proxy:
        rows = [one for work in WORKS if work in (works or WORKS) for one in outcomes(proxy, work)]
    print(f"{markdown(rows)}\n\n{summary(rows)}")  # noqa: T201
    for one in rows:
        for problem in [*one.problems, *(f"after the rerun: {problem}" for problem in one.unfinished)]:
            print(f"\n{one.work} #{one.number}, {one.fault}: {problem}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    main(sys.argv[1:])
