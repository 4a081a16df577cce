"""Everything that may happen to a published table, in any order, against plain dicts."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest import mock

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.events import KnownRuns, RowCounts
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Audited, Origin, Published, Rejected, RolledBack, Staged
from dagster_safe_backfill.model.tables import TableRef, TableSpec
from dagster_safe_backfill.sql.ledger import LEDGER
from dagster_safe_backfill.wap.audit import audit
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill.wap.retention import RetentionRules, Retired, owners, retire
from dagster_safe_backfill.wap.rollback.rollback import Chosen, rollback
from dagster_safe_backfill.wap.write import write
from dagster_safe_backfill.warehouses.duckdb.session import DuckDBWarehouse
from dagster_safe_backfill_tests.harness.audited import DAYS, FIRST, KEYS, slice_of
from dagster_safe_backfill_tests.harness.publications import publish_rules

STEPS = 5_000
EXAMPLES, STEPS_EACH = 5, 50
"""Of one seed, and of one example; Hypothesis ends some before."""
KINDS = {
    "a key and a stamp": (True, True),
    "a key": (True, False),
    "a stamp": (False, True),
    "neither": (False, False),
}
USUAL = {
    *(
        "publish by replace",
        "publish by swap",
        "publish by replace, overwriting",
        "publish, refused",
        "publish, killed",
    ),
    *("roll back one", "roll back one, by force", "roll back, refused", "roll back, killed", "roll back, dry"),
    *("stage, with a new column", "audit, rejected", "repeat", "retire", "UPDATE by hand", "INSERT by hand"),
}
"""What happens in every test, or it tests less than it says."""
TYPES = {"day": pa.date32(), "id": pa.int64(), "value": pa.float64(), "note": pa.string()}
MORE = ("c0", "c1")
STAMP = "updated_at"
ELSEWHERE = 9
"""A day that no batch is for."""
LONG_AGO = 946_684_800_000_000
"""The stamp of rows that were made by hand, in microseconds since 1970."""
FRESH = -1
"""The stamp of rows that were published just now, until the table says when that was."""
KEPT_FOR = (timedelta(days=30), timedelta(microseconds=1), timedelta(0))

Row = dict[str, Any]
Rows = list[Row]
Live = dict[int, Rows]
"""The rows of each day."""
Bag = Counter[tuple[Any, ...]]


def bag(rows: Iterable[Row], columns: Sequence[str]) -> Bag:
    return Counter(tuple(row[name] for name in columns) for row in rows)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the ledger tells of a partition after one change of it."""

    by: str
    at: int
    columns: tuple[str, ...]
    rows: Rows

    def is_of(self, rows: Rows, columns: Sequence[str] | None = None) -> bool:
        """Return whether rows are what was told; if columns were added since, just by their number."""
        if columns is not None and {*columns} != {*self.columns}:
            return len(rows) == len(self.rows)
        return bag(rows, self.columns) == bag(self.rows, self.columns)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A change of one partition that stands there: a publication that changed rows, or any rollback."""

    told: Told
    is_rollback: bool
    has_rows: bool
    """Whether rows changed."""
    replaced: Rows
    columns: tuple[str, ...]
    """Those of the table before, with which `replaced` is archived."""
    added: tuple[str, ...]
    gone: tuple[str, ...]
    """The columns that the whole change added to the table, and dropped from it."""
    beneath: tuple[Layer, ...]

    @property
    def has_changed(self) -> bool:
        return self.has_rows or bool(self.added or self.gone)

    @property
    def name(self) -> str:
        return self.told.by


@dataclass(kw_only=True)
class Day:
    """What is known of one partition.

    Attributes:
        layers: Those that stand.
        names: All layers there ever were.
        newest: The last change that the ledger tells of.
        top: The last of them that was a layer.
    """

    layers: tuple[Layer, ...] = ()
    names: set[str] = field(default_factory=set)
    newest: Told | None = None
    top: Told | None = None

    def going(self, chosen: set[str]) -> tuple[list[Layer], bool]:
        """Return all layers that go, the lowest first, and whether there are others than the chosen among them.

        Rollbacks hide nothing, so they go without a word.
        """
        seen = [layer for layer in self.layers if layer.name in chosen or not layer.is_rollback]
        while seen and seen[0].name not in chosen:
            seen.pop(0)
        return seen, any(layer.name not in chosen for layer in seen)

    def is_changed_by_hand(self, going: list[Layer], live: Rows, columns: Sequence[str]) -> bool:
        """Return whether rows on top of any of the layers aren't those that it left."""
        assert self.top
        for lower, upper in pairwise(going):
            # Over other columns, just the numbers of rows are compared.
            if upper.added or upper.gone:
                if len(upper.replaced) != len(lower.told.rows):
                    return True
            elif not lower.told.is_of(upper.replaced, upper.told.columns):
                return True
        if not going[-1].told.is_of(self.top.rows, self.top.columns):
            return True
        return not self.top.is_of(live, None if {*self.top.columns} <= {*columns} else columns)


@dataclass(kw_only=True)
class Batch:
    """Rows on their way."""

    run: str
    at: int
    days: list[int]
    rows: Rows
    columns: tuple[str, ...]
    staged: Staged
    then: dict[int, Bag]
    """What live was when they were staged, by day."""
    live_columns: tuple[str, ...] | None
    origin: Origin
    audited: Audited | None = None

    @property
    def compared(self) -> tuple[str, ...]:
        return self.columns if self.live_columns is None else self.live_columns


@dataclass(kw_only=True)
class Done:
    """A publication or a rollback, with how to do it again."""

    name: str
    days: list[int]
    backfill: str | None
    is_rollback: bool
    again: Callable[[], Any]
    changes: Mapping[str, RowCounts]


@dataclass(kw_only=True)
class Way:
    """What the model foretells of a rollback: an error about some days, or what becomes of each."""

    error: type[sb.SafeBackfillError] | None = None
    keys: Sequence[int] | None = None
    already: list[int] = field(default_factory=list)
    untouched: list[int] = field(default_factory=list)
    undoing: dict[int, list[Layer]] = field(default_factory=dict)
    """All layers that go, the lowest first."""
    dropped: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    """The columns that are dropped, and those that are added again."""
    gone: tuple[str, ...] = ()
    """All columns that the layers had dropped."""

    def source(self, day: int) -> Layer | None:
        """Return the layer of which comes back what it replaced; None if the rows stay as they are."""
        return next((layer for layer in self.undoing[day] if layer.has_rows), None)

    @property
    def restored(self) -> dict[int, Layer]:
        found = {day: self.source(day) for day in self.undoing}
        return {day: layer for day, layer in found.items() if layer is not None}


Method = Literal["merge", "replace"]


def new_rows(old: Live, rows: Rows, *, method: Method, unread: str | None) -> tuple[Live, dict[int, RowCounts]]:
    """Return what the days of `old` become by `rows`, in which `unread` is not compared, and what that changes."""
    by_key: dict[tuple[int, int], Rows] = {}
    for day, found in old.items():
        for row in found:
            by_key.setdefault((day, row["id"]), []).append(row)
    matches = [by_key.get((number(row), row["id"]), []) for row in rows]
    is_merge = method == "merge" and sum(max(1, len(found)) for found in matches) <= len(rows)
    live: Live = {day: [] for day in old}
    counts = {day: Counter[str]() for day in old}
    for row, found in zip(rows, matches, strict=True):
        same = [one for one in found if all(one[name] == row[name] for name in row if name != unread)]
        live[number(row)].append(same[0] if is_merge and same else row)
        counts[number(row)]["inserted" if not is_merge or not found else "unchanged" if same else "updated"] += 1
    changes: dict[int, RowCounts] = {}
    for day, found in counts.items():
        kept = found["updated"] + found["unchanged"]
        changes[day] = RowCounts(staged=len(live[day]), deleted=len(old[day]) - kept, **found)
    return live, changes


def number(row: Row) -> int:
    return (row["day"] - FIRST).days


class Killed(BaseException):
    """The process ends."""


class Kill(logging.Handler):
    """Ends the process instead of its n-th statement, and copies its file as it is then to `snapshot`."""

    def __init__(self, path: str, at: int, snapshot: Path) -> None:
        super().__init__(logging.DEBUG)
        self._path = path
        self._left = at
        self._snapshot = snapshot

    def emit(self, record: logging.LogRecord) -> None:
        self._left -= 1
        if self._left == 0:
            self._snapshot.mkdir()
            for file in Path(self._path).parent.glob("t.duckdb*"):
                shutil.copy(file, self._snapshot)
        if self._left <= 0:
            raise Killed


@contextmanager
def killed(path: str, at: int | None, snapshot: Path) -> Generator[None, None, None]:
    if at is None:
        yield
        return
    logger, handler = logging.getLogger("dagster_safe_backfill.sql"), Kill(path, at, snapshot)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.setLevel(level)
        logger.removeHandler(handler)


T = TypeVar("T")


def evenly(*options: T) -> st.SearchStrategy[T]:
    """Choose without the preference that `sampled_from` has for what comes first, and for what came before."""
    return st.integers(0, 9_999).map(lambda n: options[n % len(options)])


values = evenly(None, 0.0, 1.5)
some_days = st.lists(st.integers(0, DAYS - 1), min_size=1, max_size=3, unique=True).map(sorted)
drafts = st.lists(st.tuples(st.integers(0, DAYS - 1), st.integers(0, 3), values, evenly(None, "it's")), max_size=8)
strategies = evenly("merge", "replace", "swap")
kept_for = evenly(*KEPT_FOR[:1] * 3, *KEPT_FOR)
backfills = evenly(None, "b0", "b1")
places = evenly(*range(99))
"""Chooses one of however many there are."""
deaths = evenly(*[None] * 40, *range(1, 41))
"""The number of the statement before which the process is killed."""


StepMethod = Callable[..., None]
CHOICES: dict[str, tuple[int, Callable[[Any], object], dict[str, st.SearchStrategy[Any]]]] = {}


def step(
    weight: int, is_possible: Callable[[Any], object], **arguments: st.SearchStrategy[Any]
) -> Callable[[StepMethod], StepMethod]:
    """Make a method a step. A rule each would be simpler, but Hypothesis leaves most of them out of most examples."""

    def mark(method: StepMethod) -> StepMethod:
        CHOICES[method.__name__] = (weight, is_possible, arguments)
        return method

    return mark


class Publishing(RuleBasedStateMachine):
    """A table, its shadows, archives and ledger, beside a model of them."""

    has_key: bool
    has_stamp: bool
    steps: Counter[str]
    errors: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model"))
        self.path = str(self.folder / "t.duckdb")
        self.count = 0
        self.columns: tuple[str, ...] | None = None
        self.live: Live = {day: [] for day in (*range(DAYS), ELSEWHERE)}
        self.days = {day: Day() for day in range(DAYS)}
        self.made: dict[int, list[Told]] = {day: [] for day in range(DAYS)}
        self.staged: list[Batch] = []
        self.done: list[Done] = []
        self.shadows: dict[str, str] = {}
        self.rejected: set[str] = set()
        self.archives: dict[str, timedelta] = {}
        self.told: list[tuple[Any, ...]] = []
        self.has_ledger = False
        self._open()

    def _open(self) -> None:
        self.eyes = duckdb.connect(self.path)
        self._session = DuckDBWarehouse(self.path).connect()
        self.connection = self._session.__enter__()

    def _close(self) -> None:
        self._session.__exit__(None, None, None)
        self.eyes.close()

    def teardown(self) -> None:
        self._close()
        shutil.rmtree(self.folder)

    # Words of the model

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def all_columns(self) -> tuple[str, ...]:
        return (*(self.columns or ()), *([STAMP] if self.has_stamp and self.columns else []))

    def padded(self, row: Row) -> Row:
        """Return a row of before columns were added as it is with them."""
        names = (*(self.columns or ()), *([STAMP] if STAMP in row else []))
        return {name: row[name] if name in row else self.defaults[name] for name in names}

    def take(self, live: Live) -> None:
        """Make rows the live ones; those that were published just now get the stamp that the table gives them."""
        if any(row.get(STAMP) == FRESH for rows in live.values() for row in rows):
            ((stamp, count),) = self.eyes.execute(
                "SELECT max(epoch_us(updated_at)), count(DISTINCT updated_at) FROM t WHERE updated_at >= ?",
                [self.began],
            ).fetchall()
            assert count == 1
            live = {
                day: [{**row, STAMP: stamp} if row[STAMP] == FRESH else row for row in rows]
                for day, rows in live.items()
            }
        self.live |= live

    def record(
        self,
        name: str,
        live: Live,
        changes: Mapping[int, RowCounts],
        archive: str | None,
        undone: Mapping[int, list[Layer]] | None = None,
        *,
        is_whole: bool = False,
        before: Live,
        columns_before: tuple[str, ...],
        counted: Sequence[str],
    ) -> None:
        """Note a publication, or a rollback with the layers that it undid, by day.

        `counted` are the columns before, as the ledger tells them.
        """
        self.take(live)
        columns = self.all_columns()
        added = tuple(name for name in columns if name not in counted)
        gone = tuple(name for name in counted if name not in columns)
        self.count += 1
        for day, change in changes.items():
            known = self.days[day]
            told = Told(by=name, at=self.count, columns=columns, rows=self.live[day])
            known.newest = told
            if change.touched or undone or added or gone:
                layer = Layer(
                    told=told,
                    is_rollback=undone is not None,
                    has_rows=bool(change.touched),
                    replaced=before[day],
                    columns=columns_before,
                    added=added,
                    gone=gone,
                    beneath=known.layers,
                )
                known.layers = (*(undone[day][0].beneath if undone else known.layers), layer)
                known.names.add(name)
                known.top = told
                self.made[day].append(told)
            counts = (change.staged, change.inserted, change.updated, change.deleted, change.unchanged)
            is_kept = bool(change.touched and (before[day] or is_whole)) or (is_whole and undone is not None)
            kept = archive if is_kept else None
            names = json.dumps([one.name for one in undone[day]]) if undone else None
            event = "rolled_back" if undone else "published"
            self.told.append((name, event, KEYS[day], *counts, kept, names))

    @contextmanager
    def expecting(self, error: type[sb.SafeBackfillError] | None, keys: Iterable[int] | None = None):
        """Let the block raise just the error that the model foretells."""
        self.began = datetime.now(timezone.utc)
        if error is None:
            yield
            return
        with pytest.raises(sb.SafeBackfillError) as caught:
            yield
        assert type(caught.value) is error, caught.value
        assert "main.t" in str(caught.value)
        if keys is not None:
            assert set(caught.value.keys) == {KEYS[day] for day in keys}
            assert all(KEYS[day] in str(caught.value) for day in keys)
        self.caught: Any = caught.value
        self.errors[error.__name__] += 1

    # Steps

    @initialize(defaults=st.tuples(evenly(None, 5), evenly(None, 7)), rows=st.none() | drafts)
    def begins(self, defaults: tuple[int | None, int | None], rows: list[Any] | None) -> None:
        self.defaults = dict(zip(MORE, defaults, strict=True))
        self.spec = TableSpec(
            table=TableRef(schema="main", name="t"),
            partition_expr={None: "day"},
            unique_key=("day", "id") if self.has_key else (),
            updated_at_column=STAMP if self.has_stamp else None,
            on_empty="allow",
            on_schema_change="add_columns",
            column_defaults={name: str(value) for name, value in self.defaults.items() if value is not None},
        )
        if rows is not None:
            stamp = ", updated_at TIMESTAMPTZ" if self.has_stamp else ""
            self.eyes.execute(f"CREATE TABLE t (day DATE, id BIGINT, value DOUBLE, note VARCHAR{stamp})")
            self.columns = tuple(TYPES)
            for day, i, value, note in rows:
                self.insert(day, i, value, note)
            self.insert(ELSEWHERE, 0, None, None)

    def insert(self, day: int, i: int, value: float | None, note: str | None) -> None:
        """Insert a row by hand."""
        row = {"day": FIRST + timedelta(days=day), "id": i, "value": value, "note": note}
        row = self.padded({**row, **dict.fromkeys(MORE, 3)})
        stamp = f", make_timestamptz({LONG_AGO})" if self.has_stamp else ""
        names, marks = ", ".join([*row, *([STAMP] if stamp else [])]), ", ".join("?" for _ in row)
        self.eyes.execute(f"INSERT INTO t ({names}) VALUES ({marks}{stamp})", [*row.values()])
        self.live[day] = [*self.live[day], {**row, **({STAMP: LONG_AGO} if stamp else {})}]

    @step(
        5,
        lambda self: len(self.staged) < 3,
        days=some_days,
        draft=drafts,
        keeps=evenly(False, True),
        adds=evenly(*[""] * 10, *MORE),
        is_bad=evenly(*[False] * 5, True),
        backfill=backfills,
    )
    def stages(
        self, days: list[int], draft: list[Any], keeps: bool, adds: str, is_bad: bool, backfill: str | None
    ) -> None:
        names = self.columns or tuple(TYPES)
        names = (*names, adds) if adds and adds not in names else names
        rows = self.computed(days, draft, names, keeps=keeps)
        if is_bad:
            rows.append({**dict.fromkeys(names), "day": FIRST + timedelta(days=days[0]), "id": 99})
        run = self.name("p")
        origin = Origin(run_id=run, publication_id=run, backfill_id=backfill)
        types = [(name, TYPES.get(name, pa.int64())) for name in names]
        table = pa.Table.from_pylist(rows, pa.schema(types))
        staged = write(self.connection, table, spec=self.spec, partition_slice=slice_of(days), origin=origin)
        live_columns = self.all_columns() if self.columns else None
        self.staged.append(
            Batch(
                run=run,
                at=self.count,
                days=days,
                rows=rows,
                columns=names,
                staged=staged,
                then={day: bag(self.live[day], live_columns or ()) for day in days},
                live_columns=live_columns,
                origin=origin,
            )
        )
        self.shadows[run] = staged.shadow.name
        self.has_ledger = True
        self.steps["stage" if {*names} <= {*(self.columns or TYPES)} else "stage, with a new column"] += 1

    def computed(self, days: list[int], draft: list[Any], names: Sequence[str], *, keeps: bool) -> Rows:
        """Return rows of some days: the drafted ones, and perhaps those that are live, a key once."""
        now = [row for day in days for row in self.live[day]] if keeps else []
        rows: Rows = [{name: row[name] if name in row else self.defaults[name] for name in names} for row in now]
        for day, i, value, note in draft:
            if day in days:
                drafted = {"day": FIRST + timedelta(days=day), "id": i, "value": value, "note": note}
                rows.append({name: drafted.get(name, i) for name in names})
        return [*{(row["day"], row["id"]): row for row in rows}.values()] if self.has_key else rows

    @step(4, lambda self: any(not batch.audited for batch in self.staged), place=places)
    def audits(self, place: int) -> None:
        waiting = [batch for batch in self.staged if not batch.audited]
        batch = waiting[place % len(waiting)]
        found = audit(self.connection, batch.staged, [sb.in_range("id", 0, 9)], origin=batch.origin, gate="run")
        if any(row["id"] == 99 for row in batch.rows):
            assert isinstance(found, Rejected)
            self.staged.remove(batch)
            self.rejected.add(batch.run)
            self.steps["audit, rejected"] += 1
            return
        assert isinstance(found, Audited)
        batch.audited = found
        self.steps["audit"] += 1

    @step(
        6,
        lambda self: any(batch.audited for batch in self.staged),
        place=places,
        strategy=strategies,
        overwrites=evenly(False, False, True),
        keep_for=kept_for,
        gives_up=evenly(False, True, True),
        dies_at=deaths,
    )
    def publishes(
        self,
        place: int,
        strategy: Strategy,
        overwrites: bool,
        keep_for: timedelta,
        gives_up: bool,
        dies_at: int | None,
    ) -> None:
        ready = [batch for batch in self.staged if batch.audited]
        batch = ready[place % len(ready)]
        if strategy == "merge" and not self.has_key:
            strategy = "replace"
        rules = publish_rules(strategy, on_conflict="overwrite" if overwrites else "raise", archive_for=keep_for)

        def once() -> Published:
            assert batch.audited
            return publish(self.connection, batch.audited, rules=rules, origin=batch.origin)

        changed = [day for day in batch.days if self.has_moved(batch, day)]
        has_lost = self.columns is not None and not {*(batch.live_columns or ())} <= {*self.all_columns()}
        is_conflict = bool(changed) and not overwrites and not has_lost
        is_unfit = has_lost or not self.is_fit(batch)
        error = sb.PublishConflictError if is_conflict else sb.SchemaMismatchError if is_unfit else None
        published, is_dead = self.survived(once, dies_at, error, changed if is_conflict else None)
        if is_conflict and not is_dead:
            assert self.caught.published_since == {KEYS[day]: self.who(batch, day) for day in changed}
        if error or is_dead:
            if gives_up and not is_dead:
                self.staged.remove(batch)
                self.rejected.add(batch.run)
            self.steps["publish, killed" if is_dead else "publish, refused"] += 1
            return
        live, changes = self.published(batch, strategy)
        is_whole = strategy == "swap" and self.columns is not None
        replaced = any(changes[day].touched and (self.live[day] or is_whole) for day in batch.days)
        archive = None
        if self.columns is not None and keep_for and replaced:
            archive = f"t__archive_{batch.run}"
            self.archives[batch.run] = keep_for
        before, columns_before = {day: self.live[day] for day in live}, self.all_columns()
        new = {*batch.columns} - {*(batch.live_columns or batch.columns)}
        self.add_columns(batch.columns)
        counted = [name for name in columns_before if name not in new] if columns_before else self.all_columns()
        self.record(
            batch.run,
            live,
            changes,
            archive,
            is_whole=is_whole,
            before=before,
            columns_before=columns_before,
            counted=counted,
        )
        assert published.row_counts == {KEYS[day]: change for day, change in changes.items()}
        assert (published.archive and published.archive.name) == archive
        self.staged.remove(batch)
        del self.shadows[batch.run]
        self.done.append(
            Done(
                name=batch.run,
                days=batch.days,
                backfill=batch.origin.backfill_id,
                is_rollback=False,
                again=once,
                changes=published.row_counts,
            )
        )
        self.steps[f"publish by {strategy}{', overwriting' if changed else ''}"] += 1

    def has_moved(self, batch: Batch, day: int) -> bool:
        return bag(self.live[day], [name for name in batch.compared if name in self.all_columns()]) != batch.then[day]

    def is_fit(self, batch: Batch) -> bool:
        """Return whether the live table still has the columns that the batch is for."""
        if self.columns is None:
            return True
        if batch.live_columns is None:
            return {*self.columns} == {*batch.columns}
        return {*batch.columns} >= {*self.columns} and {*batch.columns} - {*batch.live_columns} >= (
            {*batch.columns} - {*self.columns}
        )

    def who(self, batch: Batch, day: int) -> str | None:
        """Return who is said to have changed the rows since; None if that was by hand.

        It is the last publication or rollback if it left the rows that are there; where columns were added since, that
        can't be told, and it is enough that it came after the staging.
        """
        told = self.days[day].newest
        if told is None:
            return None
        is_it = told.is_of(self.live[day]) if {*told.columns} == {*batch.compared} else told.at > batch.at
        return told.by if is_it else None

    def published(self, batch: Batch, strategy: Strategy) -> tuple[Live, dict[int, RowCounts]]:
        fresh = {STAMP: FRESH} if self.has_stamp else {}
        names = {*batch.columns, *(self.columns or ())}
        old: Live = {
            day: [{**{n: self.defaults[n] for n in names - row.keys()}, **row} for row in self.live[day]]
            for day in batch.days
        }
        rows = [{**row, **fresh} for row in batch.rows]
        method: Method = "replace" if strategy == "replace" or not self.has_key or not self.columns else "merge"
        return new_rows(old, rows, method=method, unread=STAMP)

    def add_columns(self, names: Sequence[str]) -> None:
        if self.columns is None:
            self.columns = tuple(names)
        self.columns = (*self.columns, *(name for name in names if name not in self.columns))
        self.live = {day: [self.padded(row) for row in rows] for day, rows in self.live.items()}

    def survived(
        self,
        work: Callable[[], Any],
        dies_at: int | None,
        error: type[sb.SafeBackfillError] | None,
        keys: Iterable[int] | None = None,
    ) -> tuple[Any, bool]:
        """Return what `work` returns, and whether its process was killed; then all goes on with the file as it was."""
        snapshot = self.folder / self.name("snapshot")
        try:
            with killed(self.path, dies_at, snapshot), self.expecting(error, keys):
                return work(), False
        except Killed:
            self._close()
            self.path = str(snapshot / "t.duckdb")
            self._open()
            return None, True
        return None, False

    @step(1, lambda self: self.done, place=places)
    def repeats(self, place: int) -> None:
        done = self.done[place % len(self.done)]
        lost = [day for day in done.days if self.newest(day) != done.name] if not done.is_rollback else []
        with self.expecting(sb.PublishConflictError if lost else None, lost):
            assert done.again().row_counts == done.changes
        self.steps["repeat"] += 1

    def newest(self, day: int) -> str | None:
        told = self.days[day].newest
        return told and told.by

    @step(
        2,
        lambda self: self.columns,
        how=evenly("INSERT", "UPDATE", "UPDATE", "DELETE"),
        day=st.integers(0, DAYS - 1),
        i=st.integers(0, 3),
        value=values,
    )
    def changes_by_hand(self, how: str, day: int, i: int, value: float | None) -> None:
        if how == "INSERT":
            self.insert(day, i, value, "by hand")
        elif how == "UPDATE":
            self.eyes.execute("UPDATE t SET value = ? WHERE day = ? AND id >= ?", [value, KEYS[day], i])
            self.live[day] = [{**row, "value": value} if row["id"] >= i else row for row in self.live[day]]
        else:
            self.eyes.execute("DELETE FROM t WHERE day = ? AND id = ?", [KEYS[day], i])
            self.live[day] = [row for row in self.live[day] if row["id"] != i]
        self.steps[f"{how} by hand"] += 1

    @step(
        5,
        lambda self: self.done,
        what=evenly("one", "one", "one", "backfill", "newest"),
        place=places,
        backfill=evenly("b0", "b1"),
        part=evenly(None, None, *range(16)),
        force=evenly(False, True),
        is_dry=evenly(False, False, False, True),
        keep_for=kept_for,
        dies_at=deaths,
    )
    def rolls_back(
        self,
        what: str,
        place: int,
        backfill: str,
        part: int | None,
        force: bool,
        is_dry: bool,
        keep_for: timedelta,
        dies_at: int | None,
    ) -> None:
        chosen, publications = self.chosen(what, place, backfill)
        only = None
        if part is not None:
            # 0 is a day that may not be among them.
            days = sorted({day for done in publications for day in done.days})
            only = [day for i, day in enumerate(days) if part >> i & 1] or [0]
        run = self.name("r")

        def once() -> RolledBack:
            return rollback(
                self.connection,
                replace(chosen, keys=tuple(KEYS[day] for day in only or ())),
                spec=self.spec,
                partition_slice=slice_of(),
                origin=Origin(run_id=run, publication_id=run),
                archive_for=keep_for,
                force=force,
                dry_run=is_dry,
            )

        way = self.way_back(publications, only, force=force)
        found, is_dead = self.survived(once, dies_at, way.error, way.keys)
        if is_dead or way.error:
            self.steps["roll back, killed" if is_dead else "roll back, refused"] += 1
            return
        live, changes = self.restored(way)
        assert isinstance(found, RolledBack)
        assert {*found.dropped_columns} == {*way.dropped}
        assert {*found.already} == {KEYS[day] for day in way.already}
        assert {*found.untouched} == {KEYS[day] for day in way.untouched}
        assert {*found.removed} == {KEYS[day] for day in live if self.live[day] and not live[day]}
        assert found.row_counts == {KEYS[day]: change for day, change in changes.items()}
        if is_dry or not changes:
            self.steps["roll back, dry" if is_dry else "roll back, nothing to do"] += 1
            return
        archive = None
        if keep_for and (way.dropped or any(change.touched and self.live[day] for day, change in changes.items())):
            archive = f"t__archive_{run}"
            self.archives[run] = keep_for
        assert (found.archive and found.archive.name) == archive
        before, columns_before = {day: self.live[day] for day in live}, (*self.all_columns(), *way.again)
        counted = [name for name in columns_before if name not in way.gone]
        self.alter(dropped=way.dropped, added=way.again)
        self.record(
            run,
            live,
            changes,
            archive,
            way.undoing,
            is_whole=bool(way.dropped),
            before=before,
            columns_before=columns_before,
            counted=counted,
        )
        self.done.append(
            Done(name=run, days=[*changes], backfill=None, is_rollback=True, again=once, changes=found.row_counts)
        )
        self.steps[f"roll back {what}{', by force' if force else ''}"] += 1

    def chosen(self, what: str, place: int, backfill: str) -> tuple[Chosen, list[Done]]:
        """Return what is to be undone, in the library's words and in the model's."""
        publications = [done for done in self.done if not done.is_rollback]
        if what == "newest":
            return Chosen(), publications[-1:]
        if what == "backfill":
            return Chosen(backfill_id=backfill), [done for done in publications if done.backfill == backfill]
        found = self.done[-1 - place % min(len(self.done), 5)]
        return Chosen(publication_id=found.name), [found]

    def way_back(self, publications: Sequence[Done], only: list[int] | None, *, force: bool) -> Way:
        published = {day for done in publications for day in done.days}
        if not published or not published.issuperset(only or ()):
            return Way(error=sb.PublicationNotFoundError)
        names = {done.name for done in publications}
        way = Way()
        covered: list[int] = []
        for day in sorted(only or published):
            known = self.days[day]
            going, has_others = known.going(names)
            if not going and known.names & names:
                way.already.append(day)
            elif not any(layer.has_changed for layer in going):
                way.untouched.append(day)
            else:
                way.undoing[day] = going
                covered += [day] if has_others else []
        changed = [
            day
            for day, going in way.undoing.items()
            if self.days[day].is_changed_by_hand(going, self.live[day], self.all_columns())
        ]
        if (covered or changed) and not force:
            return replace(way, error=sb.RollbackConflictError, keys=covered or changed)
        way = self.with_columns(way)
        if way.error:
            return way
        sources = way.restored
        lost = [day for day, layer in sources.items() if layer.replaced and layer.name not in self.archives]
        if lost:
            return replace(way, error=sb.ArchiveNotFoundError, keys=lost)
        there = {*self.all_columns(), *way.again}
        for layer in sources.values():
            if layer.replaced and not {*layer.columns} <= there:
                days = [day for day, other in sources.items() if other.replaced and other.name == layer.name]
                return replace(way, error=sb.RollbackError, keys=days)
        return way

    def with_columns(self, way: Way) -> Way:
        """Return the way back with the columns that it drops, or adds again."""
        layers = {layer.name: layer for going in way.undoing.values() for layer in going}
        gone: dict[str, Layer] = {}
        added: set[str] = set()
        for layer in sorted(layers.values(), key=lambda layer: layer.told.at):
            gone |= {name: layer for name in layer.gone if name not in added}
            added -= {*layer.gone}
            added |= {name for name in layer.added if name not in gone}
        present = self.all_columns()
        missing = [name for name in gone if name not in present]
        if missing:
            is_kept = gone[missing[-1]].name in self.archives
            way = replace(way, again=tuple(missing), gone=tuple(gone))
            return way if is_kept else replace(way, error=sb.ArchiveNotFoundError, keys=[*way.undoing])
        candidates = [name for name in present if name in added]
        used = {name for name in candidates if self.is_used(name, way, {*layers})}
        return replace(way, dropped=tuple(name for name in candidates if name not in used), gone=tuple(gone))

    def is_used(self, name: str, way: Way, layers: set[str]) -> bool:
        """Return whether rows that the way back leaves, or restores, need a column."""
        for day, known in self.days.items():
            newest = known.newest
            is_other = day not in way.undoing and newest is not None and newest.by not in layers
            if is_other and newest.by.startswith("p") and name in newest.columns:
                return True
        for day in way.undoing:
            beneath = self.under(day, way.undoing[day][0])
            if beneath is not None and beneath.by.startswith("p") and name in beneath.columns:
                return True
        others = [row for day, rows in self.live.items() if day not in way.undoing for row in rows]
        if any(row[name] != self.defaults[name] for row in others):
            return True
        archived = [layer for layer in way.restored.values() if name in layer.columns and layer.name in self.archives]
        # Rows that were archived before the column was there get its default.
        values = (row.get(name, self.defaults[name]) for layer in archived for row in layer.replaced)
        return any(value != self.defaults[name] for value in values)

    def under(self, day: int, lowest: Layer) -> Told | None:
        """Return the layer that was made just before another one, whether it stands or not."""
        made = self.made[day]
        place = next(i for i, told in enumerate(made) if told is lowest.told)
        return made[place - 1] if place else None

    def restored(self, way: Way) -> tuple[Live, dict[int, RowCounts]]:
        names = [name for name in (*self.all_columns(), *way.again) if name not in way.dropped]

        def fit(row: Row) -> Row:
            return {name: row[name] if name in row else self.defaults[name] for name in names}

        sources = way.restored
        old = {day: [fit(row) for row in self.live[day]] for day in sources}
        rows = [fit(row) for layer in sources.values() for row in layer.replaced]
        is_unique = len({(row["day"], row["id"]) for row in rows}) == len(rows)
        live, changes = new_rows(old, rows, method="merge" if self.has_key and is_unique else "replace", unread=None)
        for day in way.undoing:
            if day not in sources:
                live[day] = [fit(row) for row in self.live[day]]
                changes[day] = RowCounts(staged=len(live[day]), unchanged=len(live[day]))
        return live, changes

    def alter(self, *, dropped: Sequence[str], added: Sequence[str]) -> None:
        assert self.columns is not None
        self.columns = (*(name for name in self.columns if name not in dropped), *added)
        self.live = {day: [self.padded(row) for row in rows] for day, rows in self.live.items()}

    @step(1, lambda self: self.archives or self.rejected, is_dry=evenly(False, True), dies_at=deaths)
    def retires(self, is_dry: bool, dies_at: int | None) -> None:
        def once() -> Retired:
            return retire(
                self.connection,
                self.spec.table,
                rules=RetentionRules(
                    runs=KnownRuns(
                        ended={run for run in owners(self.connection, self.spec.table) if run in self.rejected}
                    ),
                    shadows_for=timedelta(0),
                ),
                origin=Origin(run_id="retention", publication_id="retention"),
                dry_run=is_dry,
            )

        found, is_dead = self.survived(once, dies_at, None)
        if is_dead:
            self.steps["retire, killed"] += 1
            return
        expired = [run for run, keep_for in self.archives.items() if keep_for == KEPT_FOR[1]]
        assert {archive.name for archive in found.archives} == {f"t__archive_{run}" for run in expired}
        assert {shadow.name for shadow in found.shadows} == {self.shadows[run] for run in self.rejected}
        if not is_dry:
            self.archives = {run: keep_for for run, keep_for in self.archives.items() if run not in expired}
            self.shadows = {run: shadow for run, shadow in self.shadows.items() if run not in self.rejected}
            self.rejected.clear()
        self.steps["retire, dry" if is_dry else "retire"] += 1

    @rule(data=st.data())
    def goes_on(self, data: st.DataObject) -> None:
        possible = [name for name, (weight, can, _) in CHOICES.items() if can(self) for _ in range(weight)]
        name = data.draw(st.sampled_from(possible))
        getattr(self, name)(**data.draw(st.fixed_dictionaries(CHOICES[name][2]), label=name))

    # What holds after each step

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.check_live()
        self.check_tables()
        self.check_ledger()

    def check_live(self) -> None:
        if self.columns is None:
            return
        names = [f"epoch_us({STAMP})" if name == STAMP else name for name in self.all_columns()]
        found = Counter(self.eyes.execute(f"SELECT {', '.join(names)} FROM t").fetchall())
        assert found == bag((row for rows in self.live.values() for row in rows), self.all_columns())

    def check_tables(self) -> None:
        found = {name for (name,) in self.eyes.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        archives = {f"t__archive_{run}" for run in self.archives}
        own = {name for name, is_there in (("t", self.columns), (LEDGER, self.has_ledger)) if is_there}
        assert found == own | archives | {*self.shadows.values()}

    def check_ledger(self) -> None:
        if not self.has_ledger:
            return
        rows = self.eyes.execute(
            "SELECT publication_id, event, partition_key, rows_staged, rows_inserted, rows_updated, rows_deleted,"
            f" rows_unchanged, archive, undone_publications FROM {LEDGER} WHERE event IN ('published', 'rolled_back')"
        ).fetchall()
        assert Counter(rows) == Counter(self.told)


@pytest.mark.parametrize(("has_key", "has_stamp"), KINDS.values(), ids=KINDS)
def test_live_is_what_the_model_says_after_each_step(has_key: bool, has_stamp: bool) -> None:
    steps: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    machine = type(
        "Machine", (Publishing,), {"has_key": has_key, "has_stamp": has_stamp, "steps": steps, "errors": errors}
    )
    limits = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS_EACH,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
        # To shrink a failure takes minutes, as each try makes its tables anew; add Phase.shrink for that.
        phases=[Phase.generate],
    )
    seeds = count(2 * has_key + has_stamp, step=len(KINDS))
    # Hypothesis takes constants from the code that is imported, so that a seed would draw differently each time.
    with mock.patch.object(HypothesisProvider, "_maybe_draw_constant", return_value=None):
        while steps.total() * len(KINDS) < STEPS:
            run_state_machine_as_test(seed(next(seeds))(machine), settings=limits)
    sys.stdout.write(f"{steps.total()} {dict(steps.most_common())} {dict(errors)}\n")
    assert steps.total() >= STEPS / len(KINDS)
    assert steps.keys() >= USUAL
    assert errors.keys() >= {"PublishConflictError", "RollbackConflictError", "SchemaMismatchError"}
