"""The process that is killed: it changes a table, and ends by SIGKILL at a statement that it is told, or within it.

Run as a module it is a warm parent that forks one victim for each line of its standard input.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NoReturn

import sqlglot

from dagster_safe_backfill.audits.rows import unique
from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.options import PUBLISH_BY_NAME, Publish
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.model.tables import Query, TableRef, TableSpec
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.retention import RetentionRules, owners, retire
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill.warehouses.base import STATEMENTS, Session
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse
from dagster_safe_backfill_tests.harness.audited import KEYS, slice_of

Transition = Literal["merge", "move", "replace", "swap", "rollback", "retention"]

COLUMNS = "day, id, value, note"
CLOSING = "(closing the connection)"
_LONGEST = 60
"""Seconds after which a victim that hangs is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A change of the table `t`: to the rows of the table `batch`, back from the publication `first`, or of neither.

    Attributes:
        days: The slice, by the numbers of its days.
        archive_for: Seconds for which what is replaced is kept.
        is_published: Whether the rows go live; if not, their shadow is left behind.
    """

    transition: Transition
    run_id: str
    days: tuple[int, ...]
    has_key: bool = True
    archive_for: float = 86400.0
    is_published: bool = True

    @property
    def moves(self) -> bool:
        """Whether rows move from other days."""
        return self.transition == "move"

    @property
    def spec(self) -> TableSpec:
        """How `t` is kept."""
        return TableSpec(
            table=TableRef(schema="main", name="t"),
            partition_expr={None: "day"},
            unique_key=("id",) if self.moves else ("day", "id") if self.has_key else (),
            on_empty="allow",
            on_moved_key="move" if self.moves else "raise",
        )

    @property
    def partition_keys(self) -> tuple[str, ...]:
        """The keys of the slice."""
        return tuple(KEYS[day] for day in self.days)

    @property
    def origin(self) -> Origin:
        """Who does it."""
        return Origin(run_id=self.run_id, publication_id=self.run_id)

    def run_on(self, path: str, *, killer: Killer | None = None) -> None:
        """Do it, in a session of its own; a file that is locked is an error at once."""
        with DuckDBWarehouse(path, lock_timeout=0).connect() as connection:
            self._run(connection)
            if killer is not None:
                killer.reached(CLOSING)

    def _run(self, connection: Session) -> None:
        if self.transition == "rollback":
            rollback(
                connection,
                Chosen(publication_id="first"),
                spec=self.spec,
                partition_slice=slice_of(),
                origin=self.origin,
                archive_for=timedelta(seconds=self.archive_for),
            )
        elif self.transition == "retention":
            retire(
                connection,
                self.spec.table,
                rules=RetentionRules(
                    runs=KnownRuns(ended=owners(connection, self.spec.table)), shadows_for=timedelta(0)
                ),
                origin=self.origin,
            )
        else:
            rules = PUBLISH_BY_NAME["merge" if self.moves else self.transition](archive_days=self.archive_for / 86400)
            self._publish(connection, rules)

    def _publish(self, connection: Session, rules: Publish) -> None:
        query = Query(f"SELECT {COLUMNS} FROM batch")
        partitions = replace(slice_of(self.days), every=slice_of())
        staged = write(connection, query, spec=self.spec, partition_slice=partitions, origin=self.origin)
        audited = audit(connection, staged, [unique()] if self.has_key else [], origin=self.origin, gate="run")
        assert isinstance(audited, Audited)
        if self.is_published:
            publish(connection, audited, rules=rules, origin=self.origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement of a run that went through, and the seconds until the next one began."""

    sql: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a victim ended.

    Attributes:
        is_killed: By SIGKILL; if not, it had done its work before.
        at: The number of the last statement that it began.
        is_inside: Whether the database was at work on it when the kill came.
    """

    is_killed: bool
    at: int
    is_inside: bool


class Killer(logging.Handler):
    """Hears of each statement right before it is run, and kills the process.

    Args:
        memory: What the parent can read after the kill: the number of the statement, and whether it came inside.
        at: The number of the statement; none, if the work is to be done.
        after: How many seconds after the statement has begun; none is before.
    """

    def __init__(self, memory: mmap.mmap, *, at: int | None, after: float | None) -> None:
        super().__init__()
        self.begun: list[tuple[str, float]] = []
        self._memory, self._at, self._after = memory, at, after

    def emit(self, record: logging.LogRecord) -> None:
        """Hear of a statement."""
        self.reached(record.getMessage())

    def reached(self, statement: str) -> None:
        """Kill the process, or let it be killed, if it's time."""
        number = len(self.begun)
        self.begun.append((statement, time.perf_counter()))
        self._memory[:4] = number.to_bytes(4, "little")
        if number != self._at:
            return
        if self._after is None:
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Thread(target=self._kill_within, daemon=True).start()

    def _kill_within(self) -> None:
        time.sleep(self._after or 0)
        # This thread runs while the other has left Python for the database, or waits for its turn to come back.
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        place = frame.f_code.co_name if frame else ""
        self._memory[4] = place == ("connect" if self.begun[-1][0] == CLOSING else "_execute")
        os.kill(os.getpid(), signal.SIGKILL)


class Victims:
    """A warm process that forks victims."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def statements(self, work: Work, path: Path) -> Sequence[Statement]:
        """Let the work be done, and return its statements."""
        log = path.with_suffix(".log")
        end = self._ended({"work": asdict(work), "path": str(path), "log": str(log)})
        assert not end.is_killed
        return [Statement(**statement) for statement in json.loads(log.read_text())]

    def kill(self, work: Work, path: Path, *, at: int, after: float | None = None) -> End:
        """Kill the work before the statement of a number, or some seconds after it began."""
        return self._ended({"work": asdict(work), "path": str(path), "at": at, "after": after})

    def _ended(self, order: object) -> End:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(f"{json.dumps(order)}\n")
        pipe_in.flush()
        found = json.loads(pipe_out.readline())
        assert found is not None, "a victim failed by itself; its standard error says why"
        return End(**found)


@contextmanager
def victims() -> Generator[Victims, None, None]:
    """Start the process that forks victims; it ends with the block."""
    # Arrow's own allocator has a thread, and who forks should have one.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", __name__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Victims(process)
        assert process.stdin is not None
        process.stdin.close()


def _live_and_die(order: dict[str, Any], memory: mmap.mmap) -> NoReturn:
    signal.alarm(_LONGEST)
    try:
        killer = Killer(memory, at=order.get("at"), after=order.get("after"))
        STATEMENTS.addHandler(killer)
        STATEMENTS.setLevel(logging.DEBUG)
        Work(**order["work"]).run_on(order["path"], killer=killer)
        if "log" in order:
            _write_log(Path(order["log"]), killer)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _write_log(path: Path, killer: Killer) -> None:
    ends = [moment for _, moment in killer.begun[1:]] + [time.perf_counter()]
    found = [Statement(sql=sql, seconds=end - begun) for (sql, begun), end in zip(killer.begun, ends, strict=True)]
    path.write_text(json.dumps([asdict(statement) for statement in found]))


def _serve() -> None:
    # What is loaded at first use is loaded once, before there are victims.
    sqlglot.parse_one("SELECT 1", dialect="duckdb").sql(dialect="duckdb")
    # Shared with the victims, so that what they write is there after the kill.
    memory = mmap.mmap(-1, 8)
    for line in sys.stdin:
        memory[:] = bytes(8)
        pid = os.fork()
        if pid == 0:
            _live_and_die(json.loads(line), memory)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        end = End(is_killed=status != 0, at=int.from_bytes(memory[:4], "little"), is_inside=bool(memory[4]))
        found = asdict(end) if status in (0, -signal.SIGKILL) else None
        sys.stdout.write(f"{json.dumps(found)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
