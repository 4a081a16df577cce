"""The options that verbs share, and the decorator that makes a function a verb."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from dagster_safe_backfill.cli.answers.answer import Answer, usage_error
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.model.text import is_blank

_PLACE = (
    click.option(
        "--url",
        metavar="URL",
        envvar="SAFE_BACKFILL_URL",
        help="The URL of a Dagster webserver, or of a Dagster+ deployment; or SAFE_BACKFILL_URL.",
    ),
    click.option(
        "--token",
        metavar="TOKEN",
        envvar="SAFE_BACKFILL_TOKEN",
        help="The user token of Dagster+; better in SAFE_BACKFILL_TOKEN, as other users see a process's arguments.",
    ),
    click.option("-m", "--module-name", "modules", multiple=True, help="A module with the definitions."),
    click.option("-f", "--python-file", "files", multiple=True, help="A file with the definitions."),
    click.option(
        "-w", "--workspace", "workspaces", multiple=True, type=click.Path(exists=True), help="A workspace file."
    ),
    click.option("-d", "--working-directory", help="The directory to load the definitions from."),
    click.option("-a", "--attribute", help="The name of the definitions in the module or file."),
)
_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    click.option("--no-color", is_flag=True, help="Print no colors."),
    click.option("-q", "--quiet", is_flag=True, help="Print only the id, path or count that a script needs."),
)


def verb(name: str, *options: Callable[[Any], Any]) -> Callable[[Callable[..., Answer[object]]], click.Command]:
    """Make a function a verb of the command.

    The function gets a `Connection`, an `Output` and the verb's own parameters, and returns an `Answer`.
    Its docstring is the verb's help.

    Args:
        name: The verb.
        options: The verb's own arguments and options, in the order of its help.
    """

    def decorate(function: Callable[..., Answer[object]]) -> click.Command:
        @functools.wraps(function)
        def call(
            *,
            url: str | None,
            token: str | None,
            modules: Sequence[str],
            files: Sequence[str],
            workspaces: Sequence[str],
            working_directory: str | None,
            attribute: str | None,
            as_json: bool,
            no_color: bool,
            quiet: bool,
            **own: Any,
        ) -> int:
            output = Output(verb=name, as_json=as_json, is_colorful=not no_color, is_quiet=quiet)
            _check_given(own)
            # Made by `main`, which passes the class as the context's object.
            connection = click.get_current_context().obj(
                url=url,
                token=token,
                modules=modules,
                files=files,
                workspaces=workspaces,
                working_directory=working_directory,
                attribute=attribute,
                launches=bool(own.get("in_process")),
            )
            with connection:
                answer = function(connection, output, **own)
                output.tell(answer)
            sys.stdout.flush()
            return int(answer.exit_code)

        made: Any = call
        for option in reversed((*options, *_PLACE, *_OUTPUT)):
            made = option(made)
        return click.command(name)(made)

    return decorate


def _check_given(parameters: Mapping[str, Any]) -> None:
    """Refuse a parameter that is given and empty: it mostly comes from an unset variable, and would mean all.

    Raises:
        CommandError: A text is empty, or one of a list.
    """
    for name, value in parameters.items():
        if is_blank(value):
            raise usage_error(
                "empty_value",
                f"{_spelled(name)} is empty, which names nothing; a variable may be unset",
                hint="give it a value, or leave it out",
            )


def _spelled(parameter: str) -> str:
    """Return how a call spells a parameter."""
    of_verb = click.get_current_context().command.params
    return next((one.opts[0] for one in of_verb if one.name == parameter), parameter)


def option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """Return a click option."""
    return click.option(*names, **settings)


def argument(name: str, **settings: Any) -> Callable[[Any], Any]:
    """Return a click argument."""
    return click.argument(name, **settings)


in_process_option = click.option(
    "--in-process", is_flag=True, help="Do the work of Dagster's daemon here, where none runs, until it ends."
)
yes_option = click.option(
    "--yes",
    "-y",
    is_flag=True,
    help="Do it without a question. Without it, nothing is done unless a person agrees on a terminal.",
)
