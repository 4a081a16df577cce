"""The options of `plan` and `launch`, and what they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import click

from dagster_safe_backfill.cli.answers.answer import usage_error
from dagster_safe_backfill.cli.plans.confirming import confirmed_of
from dagster_safe_backfill.cli.plans.making import Wish
from dagster_safe_backfill.cli.plans.secrets import check_no_secrets
from dagster_safe_backfill.cli.selection import OPTIONS as SELECTION
from dagster_safe_backfill.cli.selection import Selection, selection_of

OPTIONS: Sequence[Callable[[Any], Any]] = (
    *SELECTION,
    click.option("--newest-first", is_flag=True, help="Let the batches of a run begin with the newest partitions."),
    click.option("--reason", help="Why it is done; a tag of the backfill."),
    click.option("--owner", help="Who answers for it; a tag of the backfill."),
    click.option(
        "--config",
        "config",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="The run configuration, as YAML or JSON.",
    ),
    click.option(
        "--confirm",
        "confirmed",
        multiple=True,
        metavar="[ASSET=]N",
        help="Allow exactly N partitions, though Limits(max_partitions=…) allows fewer. Of several assets, give"
        " ASSET=N for each that needs it.",
    ),
)


def asked_of(
    *,
    newest_first: bool,
    reason: str | None,
    owner: str | None,
    config: str | None,
    confirmed: Sequence[str],
    **selection: Any,
) -> tuple[Selection, Wish]:
    """Return what the options of a call ask for.

    Raises:
        CommandError: Options contradict each other, a file can't be read, or the configuration has a secret.
    """
    wish = Wish(
        newest_first=newest_first,
        owner=owner,
        reason=reason,
        run_config=None if config is None else _run_config(Path(config)),
        confirmed=confirmed_of(confirmed),
    )
    return selection_of(**selection), wish


def _run_config(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found: object = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except OSError as error:
        raise usage_error("unreadable_file", f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise usage_error("bad_config", f"{path} is not a run configuration: {error}") from error
    try:
        json.dumps(found)
    except TypeError as error:
        raise usage_error("bad_config", f"{path}: {error}", hint="put dates into quotes") from error
    if not isinstance(found, dict):
        raise usage_error("bad_config", f"{path} is not a run configuration: it is no mapping")
    config = cast("Mapping[str, Any]", found)
    check_no_secrets(config, file=path)
    return config


def _yaml(text: str) -> object:
    import yaml  # a dependency of Dagster

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
