"""What the emulated Snowflake answers where the real one refuses: its number, its SQLSTATE and its words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SnowflakeError(Exception):
    """An error as Snowflake's server reports it; the connector makes its exceptions of it."""

    errno: int
    sqlstate: str
    message: str

    def __str__(self) -> str:
        return f"{self.errno:06d} ({self.sqlstate}): {self.message}"


def syntax_error(unexpected: str) -> SnowflakeError:
    return SnowflakeError(1003, "42000", f"SQL compilation error:\nsyntax error unexpected '{unexpected}'.")


def does_not_exist(kind: str, name: str) -> SnowflakeError:
    message = f"SQL compilation error:\n{kind} '{name}' does not exist or not authorized."
    return SnowflakeError(2003, "02000" if kind == "Schema" else "42S02", message)


def already_exists(name: str) -> SnowflakeError:
    return SnowflakeError(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.")


def invalid_identifier(name: str) -> SnowflakeError:
    return SnowflakeError(904, "42000", f"SQL compilation error: error line 1\ninvalid identifier '{name}'")


def unknown_function(name: str) -> SnowflakeError:
    return SnowflakeError(2140, "42601", f"SQL compilation error:\nUnknown function {name}")


def unsupported(what: str) -> SnowflakeError:
    return SnowflakeError(2, "0A000", f"SQL compilation error:\nUnsupported feature '{what}'.")


def lock_not_released(holder: str, table: str, transaction: int, waiter: str, seconds: float) -> SnowflakeError:
    message = (
        f"Statement '{holder}' has locked table '{table}' in transaction {transaction} and this lock has not yet been"
        f" released.\nYour statement '{waiter}' was aborted because the lock was not released within {seconds:g} s"
        " (LOCK_TIMEOUT)."
    )
    return SnowflakeError(625, "57014", message)


def transaction_aborted(transaction: int) -> SnowflakeError:
    return SnowflakeError(615, "57014", f"Transaction '{transaction}' was aborted, SQL execution canceled.")


def no_time_travel(table: str) -> SnowflakeError:
    """CLONE of a table without retention that others change: https://docs.snowflake.com/en/user-guide/object-clone"""
    return SnowflakeError(707, "02000", f"Time travel data is not available for table {table}.")


def no_transaction(transaction: int) -> SnowflakeError:
    return SnowflakeError(2, "42601", f"Transaction {transaction} does not exist or you are not its user.")


def timed_out(seconds: float) -> SnowflakeError:
    message = f"Statement reached its statement or warehouse timeout of {seconds:g} second(s) and was canceled."
    return SnowflakeError(630, "57014", message)


def canceled() -> SnowflakeError:
    return SnowflakeError(604, "57014", "SQL execution canceled")


def login_refused(number: int) -> SnowflakeError:
    said = {
        390100: "Incorrect username or password was specified.",
        390144: "JWT token is invalid.",
        390189: "Role 'NONE' specified in the connect string does not exist or not authorized.",
        390318: "OAuth access token expired.",
        390422: "Incoming request with IP/Token 203.0.113.9 is not allowed to access Snowflake.",
    }
    return SnowflakeError(number, "08001", said.get(number, "The login was refused."))


def not_allowed(target: str) -> SnowflakeError:
    return SnowflakeError(3001, "42501", f"SQL access control error:\nInsufficient privileges to operate on {target}")


def session_gone() -> SnowflakeError:
    return SnowflakeError(390111, "08001", "Session no longer exists. New login required to access the service.")


def failed(error: Exception) -> SnowflakeError:
    """Return what is no answer of Snowflake's: a fault or a gap of the emulator itself."""
    return SnowflakeError(300010, "XX000", f"The emulator failed: {error!r}")
