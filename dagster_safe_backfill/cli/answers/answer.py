"""What a verb answers: data and a screen, or errors; and the exit code, which scripts read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from dagster_safe_backfill.cli.answers.data.envelope import SCHEMA, Envelope, ErrorData

if TYPE_CHECKING:
    from rich.console import Console

_Data_co = TypeVar("_Data_co", covariant=True)
_Other = TypeVar("_Other")


class Exit(IntEnum):
    """The exit codes of the command."""

    DONE = 0
    FAILED = 1  # audits blocked partitions, or partitions failed
    USAGE = 2
    REFUSED = 3  # by a guard: count, hours, overlap, a plan that is no longer true, no --yes
    DIFFERENT = 4  # `diff` or `doctor` found something
    UNREACHABLE = 5  # Dagster or the warehouse can't be reached, or is locked
    RUNNING = 6  # the time to wait is up, and the backfill still runs
    DETACHED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error as scripts read it.

    Attributes:
        code: A short name that doesn't change, such as `unknown_asset`.
        message: What is wrong, for people.
        hint: What to do next; None if there is nothing to add.
        partitions: The partition keys that it is about.
    """

    code: str
    message: str
    hint: str | None = None
    partitions: Sequence[str] = ()

    @property
    def as_json(self) -> ErrorData:
        """The problem as an entry of the envelope's `errors`."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "partitions": [*self.partitions],
        }


class CommandError(Exception):
    """A verb can't do what it was asked for.

    Attributes:
        problem: What is wrong.
        exit_code: The exit code.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        exit_code: Exit,
        hint: str | None = None,
        partitions: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.problem = Problem(code=code, message=message, hint=hint, partitions=partitions)
        self.exit_code = exit_code


def usage_error(code: str, message: str, *, hint: str | None = None, partitions: Sequence[str] = ()) -> CommandError:
    """Return the error of a call that can't be understood."""
    return CommandError(code, message, exit_code=Exit.USAGE, hint=hint, partitions=partitions)


def refusal(code: str, message: str, *, hint: str | None = None, partitions: Sequence[str] = ()) -> CommandError:
    """Return the error of a guard that refuses."""
    return CommandError(code, message, exit_code=Exit.REFUSED, hint=hint, partitions=partitions)


def unreachable(code: str, message: str, *, hint: str | None = None) -> CommandError:
    """Return the error of a Dagster or a warehouse that doesn't answer."""
    return CommandError(code, message, exit_code=Exit.UNREACHABLE, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[_Data_co]):
    """What a verb found or did. Its type says what its data is, and docs/command-json.md says so to users.

    Attributes:
        data: The `data` of the JSON envelope: JSON values only.
        show: Prints it for people.
        brief: The one line that `-q` prints, such as an id; empty for nothing.
        exit_code: The exit code.
        warnings: What people and scripts should know besides.
        errors: Why the exit code isn't 0, where there is more to say than the data does.
    """

    data: _Data_co
    show: Callable[[Console], None]
    brief: str = ""
    exit_code: Exit = Exit.DONE
    warnings: Sequence[str] = ()
    errors: Sequence[Problem] = field(default_factory=tuple[Problem, ...])

    def with_data(self, data: _Other) -> Answer[_Other]:
        """Return it with other data."""
        return Answer(
            data=data,
            show=self.show,
            brief=self.brief,
            exit_code=self.exit_code,
            warnings=self.warnings,
            errors=self.errors,
        )


def envelope(
    verb: str | None,
    *,
    exit_code: Exit,
    data: object = None,
    warnings: Sequence[str] = (),
    errors: Sequence[Problem] = (),
) -> Envelope:
    """Return the JSON answer of a verb."""
    return {
        "schema": SCHEMA,
        "verb": verb,
        "exit_code": int(exit_code),
        "data": data,
        "warnings": [*warnings],
        "errors": [one.as_json for one in errors],
    }
