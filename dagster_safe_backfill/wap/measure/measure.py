"""Measuring audits on rows, in as few scans as possible. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from sqlglot import exp

from dagster_safe_backfill.audits.base import Audit, ColumnTypes, RowAudit
from dagster_safe_backfill.audits.comparison import Comparison
from dagster_safe_backfill.audits.groups import Aggregate, GroupAudit, Side
from dagster_safe_backfill.audits.rows import (
    AcceptedValues,
    FailingRows,
    InRange,
    NotNull,
    References,
    RowExpression,
    Unique,
    unique,
)
from dagster_safe_backfill.audits.verdicts import AuditResult, Verdict
from dagster_safe_backfill.errors import (
    ConfigurationError,
    SafeBackfillError,
    StatementCancelledError,
)
from dagster_safe_backfill.model.states import Staged
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.model.transient import is_transient
from dagster_safe_backfill.redaction import without_secrets
from dagster_safe_backfill.sql import audited_rows, auditing, terms
from dagster_safe_backfill.sql.audited_rows import AuditedRows
from dagster_safe_backfill.wap.measure.compare import Sampler, compared
from dagster_safe_backfill.wap.measure.readings import Position, Readings, Unmeasured, checked, number, readings, said
from dagster_safe_backfill.wap.measure.rows import staged_rows, with_columns
from dagster_safe_backfill.warehouses.base import Row, Session

_BY_CONDITION = (NotNull, AcceptedValues, InRange, RowExpression, References)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The results of audits on one batch.

    Attributes:
        results: A result for each audit, in their order.
        live_rows: A mapping from partition key to the number of live rows; None if they were not counted.
    """

    results: tuple[AuditResult, ...]
    live_rows: Mapping[str, int] | None


def measure(session: Session, batch: AuditedRows, audits: Sequence[Audit], *, counts_live: bool = True) -> Measurement:
    """Measure audits on rows. An audit that can't be measured is `unmeasured`; the others still get their verdicts.

    All conditions on rows, including references, and all aggregates share one scan of the rows under audit and one
    of the live rows. Each audit of repeated values and each query takes one more scan, a comparison takes two, and a
    sample of failing rows takes one.

    Args:
        session: An open session.
        batch: The rows under audit.
        audits: The audits, with distinct names.
        counts_live: True if live rows are counted even if no audit needs them.
    """
    batch = with_columns(session, batch, audits, expressions=_compared(audits, batch))
    questions = _Questions.of(audits, batch)
    keys = batch.table_slice.keys
    positions = len(keys)
    shadow = audited_rows.shadow_rows(batch)
    here = there = None
    if questions.here or questions.has_groups:
        here = readings(session, shadow, questions.here, positions=positions, is_overall=questions.is_overall)
    # Live rows are counted even if no audit needs them, because the report shows them beside the staged ones.
    if questions.has_groups or counts_live:
        live = audited_rows.live_rows(batch) if batch.has_live else None
        there = readings(
            session,
            live,
            questions.there,
            positions=positions,
            is_overall=questions.is_overall,
            like=shadow,
        )
    measuring = _Measuring(session=session, batch=batch, keys=keys, questions=questions, here=here, there=there)
    live_counts = None
    if there is not None and counts_live:
        # The counts are only shown in the report, so the batch isn't rejected for them.
        with suppress(Unmeasured):
            live_counts = dict(zip(keys, map(there.rows, range(positions)), strict=True))
    return Measurement(results=tuple(map(measuring.result, audits)), live_rows=live_counts)


def _compared(audits: Sequence[Audit], batch: AuditedRows) -> set[str]:
    """Return the SQL expressions, other than columns, whose values audits compare."""
    found = set[str]()
    for audit in audits:
        if isinstance(audit, AcceptedValues | InRange):
            found.add(audit.column)
        elif isinstance(audit, GroupAudit):
            # What a user's own class raises is told where its aggregates are measured.
            with suppress(Exception):
                found.update(one.sql for one in audit.aggregates().values() if _is_distinct(one))
    names = {name.casefold() for name in batch.names}
    return {sql for sql in found if sql.casefold() not in names}


def _is_distinct(aggregate: Aggregate | str) -> TypeGuard[Aggregate]:
    return isinstance(aggregate, Aggregate) and aggregate.of == "distinct"


def key_result(session: Session, staged: Staged) -> AuditResult:
    """Measure the audit that the unique key identifies each row."""
    (result,) = measure(session, staged_rows(session, staged), [unique()], counts_live=False).results
    return result


Wanted = Mapping[str, Mapping[str, str]]
"""A mapping from an audit's name to the SQL of its aggregates, by the audit's names for them."""

_FAILURES = "failures"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Questions:
    """The aggregates that the two shared scans compute, and the audits that can't be measured.

    Attributes:
        wanted: The aggregates of each audit.
        here: The distinct aggregates over the rows under audit, by their SQL.
        there: The distinct aggregates over the live rows, by their SQL.
        has_groups: True if there are audits of groups, which need at least the numbers of rows.
        is_overall: True if an audit needs an aggregate over all rows together.
        problems: A mapping from an audit's name to the reason why it can't be measured.
    """

    wanted: Wanted
    here: Mapping[str, exp.Expr]
    there: Mapping[str, exp.Expr]
    has_groups: bool
    is_overall: bool
    problems: Mapping[str, str]

    @classmethod
    def of(cls, audits: Sequence[Audit], batch: AuditedRows) -> _Questions:
        wanted: dict[str, Mapping[str, str]] = {}
        here: dict[str, exp.Expr] = {}
        there: dict[str, exp.Expr] = {}
        problems: dict[str, str] = {}
        has_groups = is_overall = False
        for audit in audits:
            try:
                aggregates = _aggregates(audit, batch)
            except Exception as error:  # an error in one user's audit must not stop the others
                problems[audit.name] = said(error)
                continue
            group = audit if isinstance(audit, GroupAudit) else None
            has_groups |= group is not None
            is_overall |= group is not None and group.over == "run"
            texts: dict[str, str] = {}
            for name, aggregate in aggregates.items():
                # Keyed by its SQL, so that an aggregate of several audits is computed once.
                texts[name] = sql = aggregate.sql(dialect=batch.dialect.name)
                here[sql] = aggregate
                if group is not None and group.needs_live:
                    there[sql] = aggregate
            wanted[audit.name] = texts
        return cls(
            wanted=wanted,
            here=here,
            there=there,
            has_groups=has_groups,
            is_overall=is_overall,
            problems=problems,
        )


def _aggregates(audit: Audit, batch: AuditedRows) -> dict[str, exp.Expr]:
    if isinstance(audit, _BY_CONDITION):
        return {_FAILURES: terms.count_where(auditing.fails(audit, batch))}
    if isinstance(audit, Unique) and auditing.is_of_key(audit, batch):
        return {_FAILURES: terms.count_where(auditing.has_null(batch.key))}
    if isinstance(audit, GroupAudit):
        option = f"audit {audit.name}"
        return {
            name: auditing.aggregated(aggregate, batch, option=option) for name, aggregate in audit.aggregates().items()
        }
    return {}


@dataclass(slots=True, kw_only=True)
class _Measuring:
    """Makes verdicts from the shared scans, and from statements of single audits, each of which runs once."""

    session: Session
    batch: AuditedRows
    keys: tuple[str, ...]
    questions: _Questions
    here: Readings | None
    there: Readings | None
    rows_by_sql: dict[str, Sequence[Row]] = field(default_factory=dict[str, "Sequence[Row]"])

    def result(self, audit: Audit) -> AuditResult:
        try:
            if audit.name in self.questions.problems:
                raise Unmeasured(self.questions.problems[audit.name])
            return self._measured(audit)
        # The batch was stopped at its time limit. That is no verdict of this audit.
        except StatementCancelledError:
            raise
        except (Unmeasured, SafeBackfillError) as error:
            if is_transient(error) and audit.can_block:
                # The caller tries the batch again. An audit that only warns isn't worth a retry and stays unmeasured.
                raise
            verdicts = {key: Verdict(outcome="unmeasured") for key in self.keys}
            return AuditResult(audit=audit, verdicts=verdicts, problem=str(error))

    def _measured(self, audit: Audit) -> AuditResult:
        match audit:
            case NotNull() | AcceptedValues() | InRange() | RowExpression() | References():
                return self._judged(audit, self._failures(audit), lambda: self._failing_rows(audit))
            case Unique():
                # To count repeated values takes one grouping. To find their rows takes a join, which is rarely needed.
                ((are_repeated,),) = self._rows(auditing.repeated_values(audit, self.batch))
                repeated: Mapping[Position, int] = {}
                if are_repeated:
                    repeated = self._counts(auditing.repetitions(audit, self.batch))
                failures = self._failures(audit, and_also=repeated)
                result = self._judged(audit, failures, lambda: self._failing_rows(audit))
                return replace(result, finding=self._elsewhere(audit)) if are_repeated else result
            case FailingRows():
                found = auditing.found_rows(audit, self.batch)
                counts = self._counts(auditing.found_by_partition(found, self.batch))
                return self._judged(audit, counts, lambda: found)
            case GroupAudit():
                return self._of_groups(audit)
            case ColumnTypes():
                return self._of_types(audit)
            case Comparison():
                return compared(self.session, audit, self.batch)
            case _:
                raise ConfigurationError(
                    f"{audit!r} is not one of the audits that the library can measure. Derive your own audits from"
                    " sb.GroupAudit."
                )

    def _counts(self, select: exp.Select) -> Mapping[Position, int]:
        return dict(self._rows(select))

    def _rows(self, select: exp.Select) -> Sequence[Row]:
        """Run a SELECT and return its rows; a SELECT that several audits share runs once."""
        sql = select.sql(dialect=self.session.dialect.name)
        if sql not in self.rows_by_sql:
            self.rows_by_sql[sql] = self.session.query(select)
        return self.rows_by_sql[sql]

    @property
    def _sampler(self) -> Sampler:
        return Sampler(session=self.session, shown=self.batch.sample_columns)

    def _sampler_of(self, audit: RowAudit, select: exp.Query) -> Sampler:
        shown = self.batch.sample_columns
        # Only in a user's own SELECT may a name be that of another column's values.
        if shown is not None and isinstance(audit, FailingRows):
            shown = audited_rows.kept_names(select, shown)
        return Sampler(session=self.session, shown=shown)

    def _failures(self, audit: Audit, *, and_also: Mapping[Position, int] | None = None) -> dict[Position, int]:
        """Return the number of failing rows by position: those that the shared scan found, and `and_also`."""
        others = and_also or {}
        sql = self.questions.wanted[audit.name].get(_FAILURES)
        if sql is None or self.here is None:
            return dict(others)
        here = self.here
        failures = dict(others)
        for i in range(len(self.keys)):
            failures[i] = (here.value(i, sql) or 0) + others.get(i, 0)
        return failures

    def _failing_rows(self, audit: auditing.ByCondition | auditing.ByLookup) -> exp.Query:
        return auditing.failing_rows(auditing.fails(audit, self.batch), self.batch)

    def _judged(self, audit: RowAudit, counts: Mapping[Position, int], failing: Callable[[], exp.Query]) -> AuditResult:
        # A row outside the slice counts in every partition, as `failing_rows` documents.
        nowhere = counts.get(None, 0)
        verdicts: dict[str, Verdict] = {}
        for position, key in enumerate(self.keys):
            failed = counts.get(position, 0) + nowhere
            verdicts[key] = audit.judge(failed, rows=self.batch.counts.get(key, 0))
        # The SELECT of failing rows is only built if there are some.
        if not any(counts.values()):
            return AuditResult(audit=audit, verdicts=verdicts)
        select = failing()
        return AuditResult(
            audit=audit,
            verdicts=verdicts,
            failed_rows=sum(counts.values()),
            sample=self._sampler_of(audit, select).rows(select),
            failing_rows_sql=self._text(select),
            published_rows_sql=self._text(auditing.as_published(select, self.batch)),
        )

    def _text(self, select: exp.Query) -> str:
        return without_secrets(select.sql(dialect=self.session.dialect.name, pretty=True))

    def _elsewhere(self, audit: Unique) -> str | None:
        """Say in which other partitions values of the audited rows are live; None if they aren't."""
        select = auditing.live_elsewhere(audit, self.batch)
        found: Sequence[Row] = () if select is None else self._sampler.tuples(select)
        if not found:
            return None
        names = audit.columns or self.batch.key
        of = [column.sql for column in self.batch.table_slice.columns.values()]
        rows: list[str] = []
        for row in found:
            values = ", ".join(str(self._sampler.masked(*pair)) for pair in zip(names, row, strict=False))
            where = [
                f"{sql} is {self._partition(sql, value)}" for sql, value in zip(of, row[len(names) :], strict=True)
            ]
            rows.append(f"({values}) where {' and '.join(where)}")
        return (
            f"({', '.join(names)}) is live in another partition, for {listed(rows)}. If a row moved, publish the"
            " partition that it left and the one that it is in now in one run, or the one that it left first; or let"
            ' rows move with publish=Merge(on_moved_key="move").'
        )

    def _partition(self, sql: str, value: Any) -> Any:
        return self._sampler.masked_of(terms.columns_read(sql, dialect=self.batch.dialect.name), value)

    def _of_groups(self, audit: GroupAudit) -> AuditResult:
        if audit.over == "run":
            overall = self._verdict(audit, None)
            return AuditResult(audit=audit, verdicts=dict.fromkeys(self.keys, overall), overall=overall)
        verdicts = {key: self._verdict(audit, position) for position, key in enumerate(self.keys)}
        return AuditResult(audit=audit, verdicts=verdicts)

    def _verdict(self, audit: GroupAudit, position: Position) -> Verdict:
        shadow = self._side(audit, self.here, position)
        live = self._side(audit, self.there, position) if audit.needs_live else None
        try:
            verdict = audit.judge(shadow, live)
        except Exception as error:  # an error in one user's audit must not stop the others
            raise Unmeasured(said(error)) from error
        verdict = checked(verdict)
        if verdict.outcome == "failed" and not audit.can_block:
            return replace(verdict, outcome="warned")
        return verdict

    def _side(self, audit: GroupAudit, found: Readings | None, position: Position) -> Side:
        assert found is not None
        wanted = self.questions.wanted[audit.name]
        values = {name: number(found.value(position, sql), name) for name, sql in wanted.items()}
        return Side(rows=found.rows(position), values=values)

    def _of_types(self, audit: ColumnTypes) -> AuditResult:
        found = {column.name.casefold(): column.type for column in self.batch.columns}
        problems: list[str] = []
        for name, expected in audit.types:
            actual = found.get(name.casefold())
            if actual is None:
                problems.append(f"there is no column {name}")
            elif not self.session.dialect.is_type(actual, expected):
                problems.append(f"{name} is {actual}, not {expected}")
        bad = "failed" if audit.can_block else "warned"
        verdict = Verdict(outcome=bad if problems else "passed")
        return AuditResult(
            audit=audit,
            verdicts=dict.fromkeys(self.keys, verdict),
            finding="; ".join(problems) or None,
        )
