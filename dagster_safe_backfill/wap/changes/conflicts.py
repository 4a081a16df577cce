"""Conflicts: whether somebody else changed live before, or while, rows are published."""

from __future__ import annotations

from collections.abc import Mapping

from dagster_safe_backfill.errors import PublishConflictError, PublishError
from dagster_safe_backfill.model.states import Fingerprint, Origin, Staged
from dagster_safe_backfill.model.tables import names_of
from dagster_safe_backfill.model.text import listed
from dagster_safe_backfill.wap.ledger.history import history, staged_at
from dagster_safe_backfill.warehouses.base import Session


def check_conflict(session: Session, staged: Staged, now: Mapping[str, Fingerprint], *, origin: Origin) -> None:
    """Refuse to publish over partitions that changed since their rows were computed.

    Raises:
        PublishConflictError: There are some.
    """
    nothing = Fingerprint()
    changed = [key for key in staged.keys if now[key] != staged.fingerprints.get(key, nothing)]
    if not changed:
        return
    table = staged.spec.table
    since = {change.key: change for change in history(session, table, changed)}
    at = staged_at(session, table, origin.group)
    names = names_of(staged.live_columns or staged.columns)
    by = {
        key: change
        for key, change in since.items()
        # Over other columns the same rows hash otherwise.
        if change.fingerprint == now[key] or (change.columns != names and (at is None or change.recorded_at > at))
    }
    who = listed([f"{key}: {by.get(key, 'by no publication, so by hand')}" for key in changed])
    raise PublishConflictError(
        f"{table}: {len(changed)} of the {len(staged.keys)} partitions changed since they were computed ({who}), so"
        f" nothing was published; the rows are in {staged.place}. Look at what changed, then have the partitions"
        ' computed again. on_conflict="overwrite" would replace what changed, and archive it',
        table=str(table),
        keys=changed,
        published_since={key: by[key].publication_id if key in by else None for key in changed},
    )


def check_written(session: Session, staged: Staged, after: Mapping[str, Fingerprint]) -> None:
    """Refuse, and so undo, a publication after which live has other rows than were staged: nothing is left to luck.

    Raises:
        PublishError: It has.
        TransactionConflictError: It has more, which another session inserted meanwhile.
    """
    expected = staged.rows
    wrong = [key for key in staged.keys if after[key].rows != expected.get(key, 0)]
    if not wrong:
        return
    if all(after[key].rows > expected.get(key, 0) for key in wrong):
        session.tables.explain_more_rows(staged.spec.table, partitions=listed(wrong))
    shown = listed([f"{key}: {after[key].rows} and not {expected.get(key, 0)}" for key in wrong])
    raise PublishError(
        f"{staged.spec.table}: after the publication live had other numbers of rows than were staged ({shown}), so"
        f" it was undone; the rows are in {staged.place}. Report this, please",
        table=str(staged.spec.table),
    )
