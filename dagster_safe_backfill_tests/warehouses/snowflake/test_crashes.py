"""What a lost session leaves on Snowflake, where no transaction undoes a table: found, replaced, or dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.options import Strategy
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.wap import publish, write
from dagster_safe_backfill.wap.ledger.record import record_intent
from dagster_safe_backfill.warehouses.snowflake.driver import Connection, Connections
from dagster_safe_backfill.warehouses.snowflake.tables import SnowflakeTables
from dagster_safe_backfill.warehouses.snowflake.transaction import Transaction
from dagster_safe_backfill_tests.harness.publications import STRATEGIES, Publications, day_rows
from dagster_safe_backfill_tests.harness.snowflake.emulator import Emulator
from dagster_safe_backfill_tests.harness.snowflake.proxy import FOREVER, How, Proxy
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

OLD, NEW = day_rows(0, 1.0), day_rows(0, 2.0)


@pytest.fixture
def table(account: SnowflakeBackend) -> Publications:
    return Publications(account, live=OLD)


class Killed(BaseException):
    pass


CALLERS = {"record_staged": write, "record_change": publish}
"""The module that calls each recorder of the ledger."""


Kill = Callable[[str], AbstractContextManager[None]]
"""Ends the session within the block, when the ledger is to record something by the function of a name."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    """End sessions as a kill does: Snowflake rolls back, and nobody cleans up."""

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    @contextmanager
    def kill_at(recorder: str) -> Iterator[None]:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(
                Transaction, "roll_back", lambda self: self.own.execute("ROLLBACK") if self.has_begun else None
            )
            patch.setattr(Transaction, "close", lambda self, *, is_committed: None)
            patch.setattr(CALLERS[recorder], recorder, killed)
            yield

    return kill_at


def test_a_shadow_that_was_never_recorded_is_dropped_once_its_run_is_over(table: Publications, kill: Kill) -> None:
    with kill("record_staged"):
        table.stage(NEW, [0], "dead")
    assert table.tables("__shadow_") == ["t__shadow_dead"]
    assert table.retire(running=["dead"]).shadows == ()
    assert table.retire(keep_shadows_for=timedelta(days=1)).shadows == ()
    assert [shadow.name for shadow in table.retire().shadows] == ["t__shadow_dead"]
    assert table.tables("__shadow_") == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_archive_that_was_never_recorded_is_dropped_or_made_anew(
    table: Publications, kill: Kill, strategy: Strategy
) -> None:
    staged = table.stage(NEW, [0], "dead")
    for _ in range(2):
        with kill("record_change"):
            table.publish(staged, "dead", strategy=strategy)
        assert table.tables("__archive_") == ["t__archive_dead"]
    with table.warehouse.connect(read_only=True) as session:
        interrupted = session.tables.interrupted(table.spec.table)
    assert (interrupted is not None) == (strategy == "swap")
    assert table.retire(running=["dead"]).archives == ()
    retired = table.retire(keep_shadows_for=timedelta(days=1)).archives
    # A swap is undone before, and its clone with it.
    assert [archive.name for archive in retired] == ([] if strategy == "swap" else ["t__archive_dead"])
    assert table.tables("__archive_") == []
    assert table.values() == {0: [1.0] * 3}
    published = table.publish(staged, "dead", strategy=strategy)
    assert not published.is_repeated
    assert table.values() == {0: [2.0] * 3}
    assert table.retire().archives == ()
    table.rollback("dead")
    assert table.values() == {0: [1.0] * 3}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("how", ["lose reply", "refuse"])
def test_a_commit_in_doubt_is_settled_by_the_ledger(
    emulator: Emulator, proxy: Proxy, strategy: Strategy, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = Connections.renewed

    def unreachable(self: Connections) -> Connection:
        if any(failed.faults for failed in proxy.statements):
            raise sb.WarehouseUnavailableError("Snowflake can't be reached")
        return renewed(self)

    account = SnowflakeBackend(replace(emulator, port=proxy.port))
    table = Publications(account, live=OLD)
    staged = table.stage(NEW, [0], "1")
    archive = table.spec.table.archive("1")
    with table.warehouse.connect() as connection:
        record_intent(connection, table.spec.table, origin=Origin(run_id="1", publication_id="1"), archives=[archive])
    patient, table.warehouse = table.warehouse, account.manager(network_timeout=1).warehouse()
    # After a swap nothing but the ledger's row is left to be committed.
    last = r"INSERT INTO \S+_LEDGER" if strategy == "swap" else "COMMIT"
    proxy.fail(when=f"^{last}", how=how, times=FOREVER)
    # Nobody can be asked.
    monkeypatch.setattr(Connections, "renewed", unreachable)
    with pytest.raises(sb.WarehouseUnavailableError, match=last):
        table.publish(staged, "1", strategy=strategy)
    proxy.heal()
    monkeypatch.undo()
    table.warehouse = patient
    again = table.publish(staged, "1", strategy=strategy)
    assert again.is_repeated == (how == "lose reply")
    assert table.values() == {0: [2.0] * 3}
    assert again.archive is not None
    assert sum(event == "published" for event, _, _ in table.events()) == 1
    assert table.tables("__shadow_") == []
    table.rollback("1")
    assert table.values() == {0: [1.0] * 3}
    emulator.drop(account.database)


@pytest.mark.parametrize("strategy", ["merge", "replace"])
@pytest.mark.parametrize("day", ["2024-01-01", "2024-01-02"], ids=["in the slice", "beside it"])
def test_a_row_that_comes_in_meanwhile_is_not_lost(
    table: Publications, account: SnowflakeBackend, monkeypatch: pytest.MonkeyPatch, strategy: Strategy, day: str
) -> None:
    """INSERT takes no lock: this one commits between the conflict check and the change."""
    staged = table.stage(NEW, [0], "1")
    archive = SnowflakeTables.archive
    seen: list[str] = []

    def late(self: SnowflakeTables, *args: Any) -> None:
        archive(self, *args)
        if not seen:
            seen.append(day)
            with account.session() as other:
                other.cursor().execute(f"INSERT INTO t VALUES ('{day}', 99, 5, NULL)")

    monkeypatch.setattr(SnowflakeTables, "archive", late)
    if day == "2024-01-02":
        table.publish(staged, "1", strategy=strategy)
        assert table.values() == {0: [2.0] * 3, 1: [5.0]}
        return
    with pytest.raises(sb.PublishConflictError, match="by no publication, so by hand"):
        table.publish(staged, "1", strategy=strategy)
    assert seen
    assert table.values() == {0: [1.0] * 3 + [5.0]}
    assert table.tables("__archive_") == []
