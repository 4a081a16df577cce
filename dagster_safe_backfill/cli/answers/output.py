"""Where answers go: JSON or a screen on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

import click

from dagster_safe_backfill.cli.answers.answer import Answer, CommandError, envelope, refusal
from dagster_safe_backfill.cli.answers.data.envelope import Envelope

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 120
"""The width of a screen that isn't a terminal, such as a pipe or a log of CI."""


@dataclass(frozen=True)
class Output:
    """How one call of the command prints.

    Attributes:
        verb: The verb; None before it is known.
        as_json: True to print the JSON envelope on stdout.
        is_colorful: False to print no colors, whatever the terminal can do.
        is_quiet: True to print only the answer's `brief`, and errors.
    """

    verb: str | None = None
    as_json: bool = False
    is_colorful: bool = True
    is_quiet: bool = False

    @cached_property
    def screen(self) -> Console:
        """The console on stdout, for answers."""
        return self._console(stderr=False)

    @cached_property
    def log(self) -> Console:
        """The console on stderr, for progress, warnings and errors."""
        return self._console(stderr=True)

    @property
    def is_interactive(self) -> bool:
        """True if a person reads the screen and can answer a question."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.as_json

    def ask(
        self, question: str, *, show: Callable[[Console], None], otherwise: str, warnings: Sequence[str] = ()
    ) -> None:
        """Show on stderr what a question is about, and ask it; `otherwise` says what wasn't done without a yes.

        Raises:
            CommandError: Nobody can be asked here, or the answer is no.
        """
        if not self.is_interactive:
            raise refusal(
                "not_confirmed", f"{otherwise}: nobody can be asked here", hint="--yes does it without a question"
            )
        show(self.log)
        self._warn(warnings)
        if not click.confirm(question, err=True):
            raise refusal("not_confirmed", otherwise)

    def note(self, text: str) -> None:
        """Print a line for people on stderr, such as what is waited for."""
        if not (self.is_quiet or self.as_json):
            self.log.print(text, highlight=False, markup=False, soft_wrap=True)

    def tell(self, answer: Answer[object]) -> None:
        """Print an answer."""
        if self.as_json:
            print_json(
                envelope(
                    self.verb,
                    exit_code=answer.exit_code,
                    data=answer.data,
                    warnings=answer.warnings,
                    errors=answer.errors,
                )
            )
            return
        if self.is_quiet:
            if answer.brief:
                self._line(answer.brief)
        else:
            answer.show(self.screen)
            self._warn(answer.warnings)
        for one in answer.errors:
            self._problem(one.message, one.hint)

    def fail(self, error: CommandError) -> None:
        """Print an error."""
        if self.as_json:
            print_json(envelope(self.verb, exit_code=error.exit_code, errors=[error.problem]))
        else:
            self._problem(error.problem.message, error.problem.hint)

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            self.log.print(f"warning: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _problem(self, message: str, hint: str | None) -> None:
        self.log.print(f"error: {message}", style="bold red", highlight=False, markup=False, soft_wrap=True)
        if hint is not None:
            self.log.print(f"hint: {hint}", highlight=False, markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH
        return Console(stderr=stderr, no_color=not self.is_colorful or None, width=width, highlight=False)


def print_json(document: Envelope) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def duration(seconds: float) -> str:
    """Return a duration as people say it: seconds below two minutes, minutes below two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def clock(at: float, *, seconds: bool = False) -> str:
    """Return a time, in seconds since the epoch, as the screen shows it: in this machine's zone, to the minute."""
    shown = datetime.fromtimestamp(at).astimezone()
    return f"{shown:%Y-%m-%d %H:%M:%S}" if seconds else f"{shown:%Y-%m-%d %H:%M}"
