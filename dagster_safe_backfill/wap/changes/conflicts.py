"""Conflicts: checks that nobody else changed the live partitions before or while rows are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dagster_safe_backfill.errors import PublishConflictError, PublishError, TransactionConflictError
from dagster_safe_backfill.model.events import Fingerprint
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.states import Origin, Staged
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.changes.fingerprints import live_fingerprints
from dagster_safe_backfill.wap.ledger.history import history, staged_at
from dagster_safe_backfill.warehouses.base import Session


def check_conflict(session: Session, staged: Staged, now: Mapping[str, Fingerprint], *, origin: Origin) -> None:
    """Refuse to publish partitions whose live rows changed after the new rows were computed.

    `now` has the fingerprints of these partitions, and of those that rows leave for them.

    Raises:
        PublishConflictError: Live partitions changed.
    """
    nothing, seen = Fingerprint(), _seen(staged)
    changed: list[str] = []
    for key, found in now.items():
        # Not `is_like`: after an upgrade, other hashes can't show that nothing changed. Rows can be computed anew.
        if found != seen.get(key, nothing):
            changed.append(key)
    if not changed:
        return
    table = staged.spec.table
    since = {change.key: change for change in history(session, table, changed)}
    at = staged_at(session, table, origin.group)
    names = names_of(staged.live_columns or staged.columns)
    by = {
        key: change
        for key, change in since.items()
        # Equal rows have other hashes over other columns. Then only the time of the change shows that it was this one.
        if change.fingerprint == now[key] or (change.columns != names and (at is None or change.recorded_at > at))
    }
    nobody = "by no publication, so by hand"
    upgraded = "the database was upgraded, and hashes rows in another way, so it can't be seen if they changed"
    who = listed(
        [f"{key}: {by.get(key, upgraded if now[key].is_like(seen.get(key, nothing)) else nobody)}" for key in changed]
    )
    raise PublishConflictError(
        f"{table}: {len(changed)} of the {len(now)} partitions changed since they were computed ({who}), so nothing"
        f" was published; the rows are in {staged.place}. Look at what changed, and compute the partitions again."
        ' on_conflict="overwrite" in publish= would replace the changed rows and archive them.',
        table=str(table),
        keys=changed,
        published_since={key: by[key].publication_id if key in by else None for key in changed},
    )


def _seen(staged: Staged) -> Mapping[str, Fingerprint]:
    """Return the fingerprints before the rows were computed: of their partitions, and of those that they leave."""
    seen: dict[str, Fingerprint] = {}
    # The earliest look at a partition counts: the rows don't know what changed after it.
    for key in sorted(staged.left, key=lambda key: str(staged.computed_at.get(key, "")), reverse=True):
        seen |= staged.left[key]
    return seen | dict(staged.fingerprints)


def seeing(session: Session, shadow: TableRef) -> Session:
    """Return the session that reads what is committed, or the given one if only that sees the shadow."""
    return session if session.is_scratch(shadow) else session.reader


def reader_of(
    session: Session, shadow: TableRef, live: TableSlice, columns: Sequence[Column], before: Mapping[str, Fingerprint]
) -> Session:
    """Return the session that compares the live rows with a shadow: one that sees both as they are committed.

    Args:
        session: The session of the transaction, which holds the table.
        shadow: The table that is compared with the live one.
        live: The live partitions.
        columns: The live table's columns; empty if it doesn't exist.
        before: The fingerprints of the partitions as they are committed.

    Raises:
        TransactionConflictError: Only the transaction's session sees the shadow, and it doesn't see the live rows yet.
    """
    reader = seeing(session, shadow)
    if reader is session.reader:
        return reader
    if columns and live_fingerprints(session, live, columns) != before:
        raise TransactionConflictError(f"{live.table}: this session doesn't see yet what another one has committed")
    return session


def check_seen(
    session: Session, committed: Session, shadow: TableRef, live: TableSlice, columns: Sequence[Column]
) -> None:
    """Raise, so that the transaction is tried again, if its session doesn't see the live rows as they are committed.

    Only that session sees a scratch table, so the live rows are compared with it there. See `reader_of`.

    Raises:
        TransactionConflictError: Another session's rows aren't seen yet.
    """
    if columns and seeing(session, shadow) is not session.reader:
        reader_of(session, shadow, live, columns, live_fingerprints(committed, live, columns))


def check_meanwhile(
    session: Session, live: TableSlice, columns: Sequence[Column], before: Mapping[str, Fingerprint]
) -> None:
    """Raise, so that the transaction is rolled back, if others changed live partitions after they were read.

    Call it after the transaction has changed the rows. From then on others can't change these rows. They can still
    insert rows, which stay beside those of this transaction and differ from its fingerprints in the ledger.

    Raises:
        TransactionConflictError: Another session has committed a change of the partitions.
    """
    latest = session.tables.reread()
    if latest is not None:
        _check_same(latest, live, columns, before, table=live.table)


def check_replaced(
    session: Session, live: TableSlice, aside: TableRef, columns: Sequence[Column], before: Mapping[str, Fingerprint]
) -> None:
    """Raise, so that the table is swapped back, if others changed live partitions before the table was put aside.

    Nothing is checked if the table was not replaced.

    Raises:
        TransactionConflictError: Another session has committed a change of the partitions.
    """
    latest = session.tables.reread()
    if latest is not None and latest.tables.columns(aside) is not None:
        old = replace(live, spec=replace(live.spec, table=aside))
        _check_same(latest, old, columns, before, table=live.table)


def _check_same(
    latest: Session,
    live: TableSlice,
    columns: Sequence[Column],
    before: Mapping[str, Fingerprint],
    *,
    table: TableRef,
) -> None:
    now = live_fingerprints(latest, live, columns)
    changed = [key for key in live.keys if now[key] != before[key]]
    if changed:
        raise TransactionConflictError(
            f"{table}: another session changed {listed(changed)} while these partitions were written, so nothing"
            " of this was committed"
        )


def check_written(
    session: Session, staged: Staged, after: Mapping[str, Fingerprint], expected: Mapping[str, int]
) -> None:
    """Raise, so that the transaction is rolled back, if a live partition hasn't the expected number of rows.

    Raises:
        PublishError: A partition has another number of rows.
        TransactionConflictError: Partitions have more rows, which another session inserted meanwhile.
    """
    wrong: list[str] = []
    for key in after:
        if after[key].rows != expected.get(key, 0):
            wrong.append(key)
    if not wrong:
        return
    # An INSERT of another session can only add rows. Missing rows have another cause.
    if all(after[key].rows > expected.get(key, 0) for key in wrong):
        session.tables.explain_more_rows(staged.spec.table, partitions=listed(wrong))
    shown = listed([f"{key}: {after[key].rows} and not {expected.get(key, 0)}" for key in wrong])
    raise PublishError(
        f"{staged.spec.table}: after the publication, live partitions had other numbers of rows than expected"
        f" ({shown}), so it was undone; the rows are in {staged.place}. This is a bug; please report it.",
        table=str(staged.spec.table),
    )
