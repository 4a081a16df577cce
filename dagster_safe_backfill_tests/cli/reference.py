"""The references of the command; `python -m dagster_safe_backfill_tests.cli.reference` writes both.

That of the verbs and options is made from click, and that of the JSON by `json_page.py` from the types of the answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from dagster_safe_backfill.cli.main import VERBS, group
from dagster_safe_backfill_tests.cli import json_page

PAGE = Path(__file__).parents[2] / "docs" / "command-reference.md"
_SHARED = {
    "url",
    "token",
    "modules",
    "files",
    "workspaces",
    "working_directory",
    "attribute",
    "as_json",
    "no_color",
    "quiet",
}
_HEAD = """# The command: reference

Made from the command itself. [The command](command.md) explains what it is for, and [its JSON](command-json.md)
is a page of its own.
"""


def page() -> str:
    """Return the reference as Markdown."""
    context = click.Context(group, info_name="safe-backfill")
    commands = {name: command for name in VERBS if (command := group.get_command(context, name)) is not None}
    shared = [one for one in commands["plan"].params if one.name in _SHARED]
    parts = [_HEAD, *_section("Every verb", None, shared)]
    for name, command in commands.items():
        own = [one for one in command.params if one.name not in _SHARED]
        parts += _section(name, command, own)
    return "\n".join(parts).rstrip() + "\n"


def _section(name: str, command: click.Command | None, params: list[click.Parameter]) -> Iterator[str]:
    yield f"## {name}\n"
    if command is not None:
        arguments = [one.make_metavar(click.Context(command)) for one in params if isinstance(one, click.Argument)]
        yield f"```text\n{' '.join(['safe-backfill', name, *arguments, '[OPTIONS]'])}\n```\n"
        yield f"{inspect.cleandoc(command.help or '')}\n"
    options = [one for one in params if isinstance(one, click.Option)]
    rows = [record for one in options if (record := one.get_help_record(click.Context(click.Command(name))))]
    if rows:
        yield "| option | |\n|---|---|"
        for option, text in rows:
            yield f"| `{option.replace('|', chr(92) + '|')}` | {text.replace('|', chr(92) + '|')} |"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
    json_page.PAGE.write_text(json_page.page())
