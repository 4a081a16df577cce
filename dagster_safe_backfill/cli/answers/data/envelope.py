"""What every verb prints with `--json`, around its data."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

SCHEMA: Literal["safe-backfill/1"] = "safe-backfill/1"
"""The version of the JSON envelope. It changes when a key is renamed or removed, not when one is added."""


class ErrorData(TypedDict):
    """Why the exit code isn't 0.

    Attributes:
        code: A short name that doesn't change.
        message: What is wrong, for people.
        hint: What to do next; None if there is nothing to add.
        partitions: The partition keys that it is about; empty if it is about none, or about all.
    """

    code: str
    message: str
    hint: str | None
    partitions: list[str]


class Envelope(TypedDict):
    """What every verb prints with `--json`.

    Attributes:
        schema: The version of this format.
        verb: The verb; None if the call names none that there is.
        exit_code: The exit code.
        data: What the verb found or did; None if an error came before there was anything to tell.
        warnings: What is to be known besides.
        errors: Why the exit code isn't 0; empty where the data alone tells.
    """

    schema: Literal["safe-backfill/1"]
    verb: str | None
    exit_code: int
    data: object
    warnings: list[str]
    errors: list[ErrorData]
