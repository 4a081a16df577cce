"""The columns of a rollback: which of a table's columns it drops, adds again, or puts back with the whole table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from dagster_safe_backfill.errors import ArchiveNotFoundError, RollbackConflictError, RollbackError
from dagster_safe_backfill.model.slices import TableSlice
from dagster_safe_backfill.model.tables import Column, TableRef, names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.sql import staging, terms
from dagster_safe_backfill.sql.slicing import expression, inside, outside
from dagster_safe_backfill.wap.ledger.alterations import Alteration
from dagster_safe_backfill.wap.ledger.history import Change, changes_by, history
from dagster_safe_backfill.wap.rollback.undone import UndonePartition, archives_of
from dagster_safe_backfill.warehouses.base import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsBack:
    """How a rollback changes the live table's columns back.

    Attributes:
        before: The live table's columns before the rollback.
        dropped: The columns that the undone publications added, and that no other rows use.
        kept: The columns that they added, and that stay because other partitions, or the asset's own options, use them.
        restored: The columns that they dropped or changed.
        missing: Those of them that are added to the live table again; other partitions get their default in them.
        whole: The archive that takes the live table's place; None if the table is changed in place.
    """

    before: tuple[Column, ...]
    dropped: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    restored: tuple[Column, ...] = ()
    missing: tuple[Column, ...] = ()
    whole: TableRef | None = None

    @property
    def remaining(self) -> tuple[Column, ...]:
        """The columns of a table that is changed in place, after the rollback."""
        return (*(one for one in self.before if one.name not in self.dropped), *self.restored)

    @property
    def present(self) -> tuple[str, ...]:
        """The names of the columns of a table that is changed in place, before any are dropped."""
        return names_of((*self.before, *self.restored))


def columns_back(
    session: Session,
    live: TableSlice,
    columns: Sequence[Column],
    undoing: Mapping[str, UndonePartition],
    altered: Mapping[str, Alteration],
) -> ColumnsBack:
    """Return how a rollback changes the live table's columns back.

    Args:
        session: An open session, in the rollback's transaction.
        live: The partitions to roll back.
        columns: The live table's columns.
        undoing: The changes to undo in each partition.
        altered: The table's `alterations`.

    Raises:
        ArchiveNotFoundError: A publication dropped or changed columns, and their values are not kept any more.
        RollbackConflictError: The columns can only be put back with the whole table, and other changes would be undone.
    """
    changes: dict[str, Change] = {}
    for one in undoing.values():
        for layer in one.layers:
            # All partitions of a swap have the same archive, but only those that it changed name it.
            if layer.publication_id not in changes or layer.archive is not None:
                changes[layer.publication_id] = layer
    gone, added = _net(session, changes, altered, columns)
    present = names_of(columns)
    candidates = [name for name in present if name in added]
    missing = [column for column in gone if column not in columns]
    # On Snowflake, an earlier attempt may have added columns again; they count as added by this rollback.
    before = tuple(column for column in columns if column not in gone)
    if missing:
        last = changes[gone[missing[-1]]]
        archive = _archive_of(session, live, last, f"dropped or changed {listed(names_of(missing))}")
        if last.event == "rolled_back" and not {*names_of(missing)}.intersection(present):
            # If only a part of that rollback is undone, its other partitions have rows of before in the archive.
            if {change.key for change in changes_by(session, live.table, last.publication_id)} <= {*live.keys}:
                _check_defaults(session, live, missing, archive)
            return ColumnsBack(before=before, kept=tuple(candidates), restored=(*gone,), missing=tuple(missing))
        _check_last_and_whole(session, live, undoing, changes)
        return ColumnsBack(before=before, dropped=tuple(candidates), restored=(*gone,), whole=archive)
    used = _used(session, live, columns, candidates, undoing) if candidates else set[str]()
    for change in changes.values():
        # A rollback that had put a whole table back replaced one that didn't have these columns.
        if change.event == "rolled_back" and change.strategy == "swap" and used.intersection(_added(change, altered)):
            archive = _archive_of(session, live, change, f"put {listed(sorted(used))} back")
            _check_last_and_whole(session, live, undoing, changes)
            return ColumnsBack(before=before, dropped=tuple(candidates), restored=(*gone,), whole=archive)
    return ColumnsBack(
        before=before,
        dropped=tuple(name for name in candidates if name not in used),
        kept=tuple(name for name in candidates if name in used),
        restored=(*gone,),
    )


def _net(
    session: Session,
    changes: Mapping[str, Change],
    altered: Mapping[str, Alteration],
    columns: Sequence[Column],
) -> tuple[dict[Column, str], set[str]]:
    """Return the columns that the changes together took away, with the change that did, and the names they added."""
    gone: dict[Column, str] = {}
    added: set[str] = set()
    for publication, change in sorted(changes.items(), key=lambda one: one[1].recorded_at):
        alteration = altered.get(publication)
        if alteration is not None:
            gone |= {column: publication for column in alteration.gone if column.name not in added}
            # A column that was added before and is gone again was never there, as far as the rollback is concerned.
            added -= {*names_of(alteration.gone)}
            for name in alteration.added:
                if name not in names_of(gone):
                    added.add(name)
        elif change.strategy == "swap" and change.archive is not None:
            # Earlier versions recorded no alterations; the archive of a swap has the columns that there were.
            archived = session.tables.columns(change.archive) or ()
            gone |= {column: publication for column in archived if column not in columns}
    return gone, added


def _added(change: Change, altered: Mapping[str, Alteration]) -> tuple[str, ...]:
    return altered[change.publication_id].added if change.publication_id in altered else ()


def _archive_of(session: Session, live: TableSlice, change: Change, what: str) -> TableRef:
    """Return the archive that has the columns that were there before a change.

    Raises:
        ArchiveNotFoundError: It isn't kept any more, or never was.
    """
    if change.archive is not None and session.tables.columns(change.archive) is not None:
        return change.archive
    raise ArchiveNotFoundError(
        f"{live.table}: {change.publication_id} {what}, and what was there before is not kept any more, or never was"
        f" (archive_days sets for how long), so {listed(live.keys)} can't be rolled back. Compute these partitions"
        " again.",
        table=str(live.table),
        keys=live.keys,
    )


def _check_defaults(session: Session, live: TableSlice, missing: Sequence[Column], archive: TableRef) -> None:
    """Refuse to add columns again whose rows in other partitions had other values than they would get.

    Raises:
        RollbackConflictError: Rows of other partitions had values in the columns.
    """
    archived = session.tables.columns(archive) or ()
    there = [column for column in missing if column in archived]
    names = _valued(session, live, there, archive, where=outside(inside(live))) if there else None
    if names:
        raise RollbackConflictError(
            f"{live.table}: rows of other partitions had values in {listed(sorted(names))} that column_defaults doesn't"
            f" give them, so nothing was rolled back. They are in {archive}.",
            table=str(live.table),
            keys=live.keys,
        )


def _valued(
    session: Session, live: TableSlice, columns: Sequence[Column], table: TableRef, *, where: exp.Expr
) -> set[str]:
    """Return the columns in which some rows of a table have another value than the column's default."""
    conditions: list[exp.Expr] = []
    for column, default in staging.with_defaults(live.spec, columns, dialect=session.dialect.name).items():
        value = terms.typed(default or exp.null(), column.type, dialect=session.dialect.name)
        here, there = (session.dialect.exact(one, column) for one in (terms.column(column.name), value))
        conditions.append(terms.count_where(terms.any_unequal(here, there)))
    select = exp.select(*conditions).from_(terms.table(table)).where(where)
    (counts,) = session.query(select)
    return {column.name for column, count in zip(columns, counts, strict=True) if count}


def _used(
    session: Session,
    live: TableSlice,
    columns: Sequence[Column],
    candidates: Collection[str],
    undoing: Mapping[str, UndonePartition],
) -> set[str]:
    """Return the added columns that other partitions, the restored rows or the asset's own options use."""
    spec = live.spec
    read = [one.name for column in live.columns.values() for one in expression(column).find_all(exp.Column)]
    own = {*map(str.casefold, (*read, *spec.unique_key))}
    used = {name for name in candidates if name.casefold() in own}
    undone = {layer.publication_id for one in undoing.values() for layer in one.layers}
    newest = {change.key: change for change in history(session, spec.table)}
    for key, change in newest.items():
        if key not in live.keys and change.event != "rolled_back" and change.publication_id not in undone:
            used |= {*change.columns}.intersection(candidates)
    # Another publication may have added a column, too, and before this one.
    for one in undoing.values():
        beneath = one.history[one.lowest - 1] if one.lowest else None
        if beneath is not None and beneath.event != "rolled_back":
            used |= {*beneath.columns}.intersection(candidates)
    # Also what nobody recorded, such as a value that was written by hand.
    added = [one for one in columns if one.name in candidates]
    used |= _valued(session, live, added, spec.table, where=outside(inside(live)))
    for archive, keys in archives_of(undoing).items():
        archived = session.tables.columns(archive) or ()
        kept = [one for one in added if one in archived]
        if kept:
            used |= _valued(session, live, kept, archive, where=inside(live.only(keys)))
    return used


def check_alterable(session: Session, table: TableRef, back: ColumnsBack) -> None:
    """Refuse to change the columns of a table that a foreign key refers to.

    Raises:
        RollbackError: The columns can't be put back.
    """
    names = listed([*back.dropped, *(() if back.whole is None else names_of(back.restored))])
    if names and session.tables.is_referenced(table):
        # DuckDB 2.0: `Cannot alter entry "t" because there are entries that depend on it`, also for RENAME.
        raise RollbackError(
            f"{table}: the publication added, dropped or changed the columns {names}, and a foreign key of another"
            " table refers to the table. The database changes and replaces no such table, so nothing was rolled back."
            " Create the other table again without the foreign key, roll back, and add the key again. To put back only"
            " rows, compute and publish these partitions again.",
            table=str(table),
        )


def _check_last_and_whole(
    session: Session, live: TableSlice, undoing: Mapping[str, UndonePartition], changes: Mapping[str, Change]
) -> None:
    """Refuse to put a whole table back if that would undo other changes, or other partitions, than were chosen.

    Raises:
        RollbackConflictError: It would.
    """
    done = history(session, live.table)
    last = done[-1].publication_id
    partitions = {change.key for change in done if change.publication_id in changes}
    if last in changes and partitions == set(undoing) and len(changes) == 1:
        return
    raise RollbackConflictError(
        f"{live.table}: {listed([*changes])} changed the table's columns, so it can only be undone whole,"
        f" with all of its partitions, and while nothing was published on top. The last publication is {last}; roll"
        " back the later publications first.",
        table=str(live.table),
        keys=[*undoing],
    )
