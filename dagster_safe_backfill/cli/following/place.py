"""Where a backfill is: the Dagster that a call reaches, by which words, and the backfill or run that an id means."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Protocol

from dagster_safe_backfill.cli.answers.answer import CommandError, usage_error
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import BACKFILL_TAG, Backfill, Run

_SEARCHED = 1000
"""Among how many of the newest backfills and runs the beginning of an id is looked up."""
_SHORTEST = 6
"""How much of a backfill's id, which has 8 letters, is enough to end it or to go on with it."""
_OF_THE_WAREHOUSE = {"diff", "rollback", "history", "retention"}
"""The verbs that need the definitions, which a URL alone doesn't give."""
_RUN_IDS = """
query ($limit: Int!) { runIdsOrError(limit: $limit) { ... on RunIds { results } } }
"""


class Place(Protocol):
    """What a call connects to; a `Connection` is one."""

    url: str | None
    modules: Sequence[str]
    files: Sequence[str]
    workspaces: Sequence[str]
    working_directory: str | None
    attribute: str | None
    launches: bool

    @property
    def dagster(self) -> Dagster:
        """The Dagster to ask."""
        ...


def command(place: Place, verb: str, *arguments: str) -> str:
    """Return a call of the command on the same place, as it is typed in a shell. It never holds a token."""
    words = ["safe-backfill", verb, *arguments]
    if place.url is not None:
        words += ["--url", place.dagster.place]
    for name, values in (("-m", place.modules), ("-f", place.files), ("-w", place.workspaces)):
        for value in values:
            words += [name, value]
    if place.working_directory is not None:
        words += ["-d", place.working_directory]
    if place.attribute is not None:
        words += ["-a", place.attribute]
    has_code = place.modules or place.files or place.workspaces
    if verb in _OF_THE_WAREHOUSE and place.url is not None and not has_code:
        words += ["-m", "YOUR_DEFINITIONS"]
    return shlex.join(words)


def find(dagster: Dagster, wanted: str) -> Backfill | Run:
    """Return the backfill or the run with an id, or with the only id that begins so.

    Raises:
        CommandError: There is none, or there are several.
    """
    found = _by_whole_id(dagster, wanted)
    if found is not None:
        return found
    only = _only(dagster, wanted, [*_backfills_beginning_with(dagster, wanted), *_runs_beginning_with(dagster, wanted)])
    return find(dagster, only)


def find_to_change(dagster: Dagster, wanted: str) -> Backfill | Run:
    """Return the backfill or the run that is to be ended, or gone on with.

    A slip of the hand must not end another's work: a run is named by its whole id, and a backfill by its whole id, or
    by at least 6 characters with which no other one begins.

    Raises:
        CommandError: There is none, there are several, or too little of an id is given.
    """
    found = _by_whole_id(dagster, wanted)
    if found is not None:
        return found
    if len(wanted) < _SHORTEST:
        raise usage_error(
            "short_id",
            f"'{wanted}' is too little of an id to change something by it",
            hint=f"give the whole id, or at least {_SHORTEST} characters of a backfill's; see `safe-backfill list`",
        )
    ids = _backfills_beginning_with(dagster, wanted)
    runs = [] if ids else _runs_beginning_with(dagster, wanted)
    if runs:
        raise usage_error(
            "short_id",
            f"no backfill's id begins with {wanted}, and a run is ended by its whole id only",
            hint=f"runs that begin so: {', '.join(runs[:5])}",
        )
    return dagster.backfill(_only(dagster, wanted, ids), runs=0)


def find_backfill_to_change(dagster: Dagster, wanted: str) -> Backfill:
    """Return the backfill that is to be gone on with, by as much of its id as `find_to_change` asks for.

    Raises:
        CommandError: There is none, there are several, too little of an id is given, or it is the id of a run.
    """
    found = find_to_change(dagster, wanted)
    if isinstance(found, Backfill):
        return found
    of = found.tags.get(BACKFILL_TAG)
    raise usage_error(
        "not_a_backfill",
        f"{found.id} is a run of {found.job}, and not a backfill",
        hint=f"it belongs to backfill {of}" if of else "look at it in Dagster's UI, which can execute it again",
    )


def _by_whole_id(dagster: Dagster, wanted: str) -> Backfill | Run | None:
    # A run's id is a UUID; a backfill's is shorter.
    asked = (_run, _backfill) if len(wanted) >= 32 else (_backfill, _run)
    found = (ask(dagster, wanted) for ask in asked)
    return next((one for one in found if one is not None), None)


def _only(dagster: Dagster, wanted: str, ids: Sequence[str]) -> str:
    """Return the only one of the ids that begin as wanted.

    Raises:
        CommandError: There is none, or there are several.
    """
    if len(ids) > 1:
        raise usage_error(
            "ambiguous_id", f"{len(ids)} ids begin with {wanted}: {', '.join(ids[:5])}", hint="give more of it"
        )
    if not ids:
        raise usage_error(
            "unknown_backfill",
            f"{dagster.place} knows no backfill and no run {wanted}",
            hint="`safe-backfill list` names the backfills that it knows",
        )
    return ids[0]


def _backfills_beginning_with(dagster: Dagster, beginning: str) -> list[str]:
    ids = [one.id for one in dagster.backfills(limit=_SEARCHED)] if beginning else []
    return [one for one in ids if one.startswith(beginning)]


def _runs_beginning_with(dagster: Dagster, beginning: str) -> list[str]:
    if not beginning:
        return []
    ids = dagster.ask(_RUN_IDS, limit=_SEARCHED)["runIdsOrError"].get("results", ())
    return [one for one in ids if one.startswith(beginning)]


def _backfill(dagster: Dagster, wanted: str) -> Backfill | None:
    try:
        return dagster.backfill(wanted, runs=0)
    except CommandError as error:
        return _none_if(error, "unknown_backfill")


def _run(dagster: Dagster, wanted: str) -> Run | None:
    try:
        return dagster.run(wanted)
    except CommandError as error:
        return _none_if(error, "unknown_run")


def _none_if(error: CommandError, code: str) -> None:
    if error.problem.code != code:
        raise error
