"""Logins: what a refused one says, how often one is tried, and how often a person is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import Source, events, failure_of, run_range
from dagster_safe_backfill_tests.harness.snowflake.users import User
from dagster_safe_backfill_tests.harness.snowflake_backend import SnowflakeBackend

REFUSED = {
    390100: "the user or the password is wrong",
    390144: "the private key doesn't belong to the user",
    390189: "the role doesn't exist, or the user doesn't have it",
    390318: "the OAuth token has expired",
    390422: "network policy doesn't allow this machine's IP address",
    # Not in the list of reasons, and a refusal none the less.
    390139: "Snowflake refused the login. It isn't tried again",
    394302: "Snowflake refused the login. It isn't tried again",
}


def user(account: SnowflakeBackend, name: str, **settings: Any) -> User:
    assert account.emulator.account is not None
    found = account.emulator.account.user(name)
    for setting, value in settings.items():
        setattr(found, setting, value)
    return found


def test_a_refused_login_is_a_configuration_error_and_is_tried_once(
    account: SnowflakeBackend, instance: dg.DagsterInstance
) -> None:
    for number, why in REFUSED.items():
        refused = user(account, f"refused_{number}", refusal=number)
        manager = account.manager(user=f"refused_{number}")
        with pytest.raises(sb.ConfigurationError, match=why) as raised, manager.warehouse().connect():
            pass
        assert str(number) in str(raised.value)
        assert refused.logins == 1, number
    asset = events(Source(), limits=sb.Limits(retry_wait=0.0, max_retries=5))
    result = run_range([asset], "2024-01-01", "2024-01-01", io_manager=manager, instance=instance)
    assert "ConfigurationError" in failure_of(result, "events")
    assert refused.logins == 2


def test_a_password_that_is_changed_while_a_run_works_ends_it_with_one_more_login(
    account: SnowflakeBackend, instance: dg.DagsterInstance
) -> None:
    changed = user(account, "changed")

    def change() -> None:
        changed.refusal = 390100
        for session in account.emulator.sessions():
            if session["database"] == account.database:
                account.emulator.end_session(session["session"])

    asset = events(Source(meanwhile=change), limits=sb.Limits(retry_wait=0.0, max_retries=5))
    manager = account.manager(user="changed")
    result = run_range([asset], "2024-01-01", "2024-01-01", io_manager=manager, instance=instance)
    before, changed.logins = changed.logins, 0
    said = failure_of(result, "events")
    assert "the user or the password is wrong" in said or "the session with Snowflake was lost" in said
    assert before <= 4


def test_a_session_logs_in_once_for_all_cancels(account: SnowflakeBackend) -> None:
    from dagster_safe_backfill.warehouses.snowflake.driver import Connections

    seen = user(account, "cancels")
    connections = Connections(lambda: account.manager(user="cancels")._connect({}))
    own = connections.opened()
    for _ in range(5):
        connections._cancel([own._driver.session_id])
    assert seen.logins == 2
    connections.close()
    names = [one["database"] for one in account.emulator.sessions()]
    assert account.database not in names


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the connector's tokens in a folder of this test."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("SF_TEMPORARY_CREDENTIAL_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("asking")
def test_a_person_is_asked_once(account: SnowflakeBackend, instance: dg.DagsterInstance) -> None:
    asked = user(account, "person", mfa=True)
    manager = account.manager(user="person", authenticator="username_password_mfa")
    result = run_range([events(Source())], "2024-01-01", "2024-01-02", io_manager=manager, instance=instance)
    assert result.success
    assert asked.logins > 2
    assert asked.prompts == 1


@pytest.mark.usefixtures("asking")
def test_a_login_that_would_ask_again_and_again_is_refused(account: SnowflakeBackend) -> None:
    asked = user(account, "nagged", mfa=True, issues_tokens=False)
    manager = account.manager(user="nagged", authenticator="username_password_mfa")
    with (
        pytest.raises(sb.ConfigurationError, match="ALTER ACCOUNT SET ALLOW_CLIENT_MFA_CACHING = TRUE"),
        manager.warehouse().connect(),
    ):
        pass
    assert asked.prompts == 1
    further = {**account.emulator.additional_connection_arguments(), "client_request_mfa_token": False}
    wanted = account.manager(
        user="nagged", authenticator="username_password_mfa", additional_snowflake_connection_args=further
    )
    with wanted.warehouse().connect() as connection:
        assert connection.tables.list("main", "t") == ()
    passcode = {**account.emulator.additional_connection_arguments(), "passcode": "123456"}
    with (
        pytest.raises(sb.ConfigurationError, match="a passcode is for one login"),
        account.manager(additional_snowflake_connection_args=passcode).warehouse().connect(),
    ):
        pass
