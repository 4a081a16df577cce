"""The entry point `safe-backfill`: it finds the verb, runs it, and turns every ending into an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from dagster_safe_backfill.cli.answers.answer import CommandError, Exit, usage_error
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.errors import SafeBackfillError, WarehouseLockedError, WarehouseUnavailableError
from dagster_safe_backfill.redaction import without_secrets

VERBS = {
    "plan": "Say what a backfill would do, and save it as a plan. Nothing is touched.",
    "launch": "Start a backfill, of a plan or of what `plan` takes.",
    "watch": "Follow a backfill until it ends. Ctrl-C detaches.",
    "status": "Show a backfill, partition by partition.",
    "list": "List the backfills that Dagster knows.",
    "cancel": "Stop a backfill.",
    "retry": "Go on with a backfill that failed or was cancelled.",
    "approve": "Publish what a staged backfill has staged and audited.",
    "diff": "Compare staged rows with live ones, or show what a publication changed.",
    "rollback": "Undo a publication. Dry unless --yes.",
    "history": "Show what was published and rolled back.",
    "retention": "Drop expired archives and the shadows of ended runs. Dry unless --yes.",
    "doctor": "Check Dagster, the warehouse and the definitions.",
}
"""The verbs and their short help, so that `--help` loads none of them."""
_OF_BACKFILLS = frozenset({"watch", "status", "list", "cancel", "retry"})
"""The verbs of backfills that were launched, which stand in a folder of their own."""


class _Verbs(click.Group):
    """A group that loads a verb's module when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        folder = "verbs.backfills" if cmd_name in _OF_BACKFILLS else "verbs"
        found: click.Command = importlib.import_module(f"{__package__}.{folder}.{cmd_name}_verb").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([*VERBS.items()])


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 refused by a guard, 4 differences found, 5 unreachable or locked,"
    " 6 time is up and it still runs, 130 detached.",
)
@click.version_option(package_name="dagster-safe-backfill")
def group() -> None:
    """Prepare, start, watch and undo backfills of Dagster assets.

    Reach Dagster by --url, or by -m, -f or -w as Dagster's own command does.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    # Dagster's warnings are for those who write definitions; `python -W` shows them.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; it prints, and raises nothing."""
    verb = next((one for one in arguments if one in VERBS), None)
    output = Output(verb=verb, as_json="--json" in arguments, is_colorful="--no-color" not in arguments)
    try:
        ending = group.main([*arguments], prog_name="safe-backfill", standalone_mode=False, obj=Connection)
        return int(ending) if isinstance(ending, int) else Exit.DONE
    except SystemExit as ending:
        # Of click's shell completion.
        return int(ending.code or 0)
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has enough of it; Python must not flush it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except (Exception, KeyboardInterrupt) as error:
        failure = _as_command_error(error)
        output.fail(failure)
        return failure.exit_code


def _as_command_error(error: BaseException) -> CommandError:
    """Return an error as the command tells it: no call ends with a traceback."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return CommandError("detached", "interrupted", exit_code=Exit.DETACHED)
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, SafeBackfillError):
        return _of_library(error)
    return CommandError(
        "unforeseen",
        without_secrets(f"{type(error).__name__}: {error}"),
        exit_code=Exit.FAILED,
        hint="this is a fault of safe-backfill; please report it with what you typed",
    )


def _of_click(error: click.ClickException) -> CommandError:
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"{error.ctx.command_path} --help lists what it takes"
    return usage_error("usage", error.format_message(), hint=hint)


def _of_library(error: SafeBackfillError) -> CommandError:
    if isinstance(error, WarehouseLockedError | WarehouseUnavailableError):
        return CommandError("warehouse_unreachable", str(error), exit_code=Exit.UNREACHABLE)
    return CommandError(type(error).__name__, without_secrets(str(error)), exit_code=Exit.FAILED)
