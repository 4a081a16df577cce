"""The checks of `doctor`: a verdict each, and what to do; and those of the Dagster that is reached."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dagster_safe_backfill.cli.answers.data.upkeep import CheckData, CheckVerdict
from dagster_safe_backfill.cli.api.client import Dagster

_LEAST, _BELOW = (1, 13, 27), (1, 14)
_SUPPORTED = ">=1.13.27,<1.14"
_OURS = "dagster-safe-backfill"
_DAEMONS: Mapping[str, str] = {
    "BACKFILL": "backfills are not started",
    "QUEUED_RUN_COORDINATOR": "queued runs are not started",
    "SCHEDULER": "schedules, such as that of retention, don't run",
    "SENSOR": "sensors and automation don't run",
}
"""What doesn't happen without each daemon."""

_INSTANCE = """
query { instance { info runQueuingSupported runQueueConfig { maxConcurrentRuns tagConcurrencyLimitsYaml } } }
"""
_LOCATIONS = """
query {
  workspaceOrError {
    ... on Workspace {
      locationEntries {
        name
        locationOrLoadError {
          __typename
          ... on RepositoryLocation { dagsterLibraryVersions { name version } }
          ... on PythonError { message }
        }
      }
    }
  }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check found.

    Attributes:
        name: A short name that doesn't change, such as `daemons`.
        verdict: Whether it is as it should be.
        message: What was found.
        hint: What to do; None if there is nothing to do.
        asset: The asset that it is about; None for Dagster, or a whole warehouse.
    """

    name: str
    verdict: CheckVerdict
    message: str
    hint: str | None = None
    asset: str | None = None

    @property
    def as_data(self) -> CheckData:
        """The check as JSON."""
        return {
            "check": self.name,
            "asset": self.asset,
            "verdict": self.verdict,
            "message": self.message,
            "hint": self.hint,
        }


def checks_of_dagster(dagster: Dagster, *, is_by_url: bool) -> Iterator[Check]:
    """Yield the checks of a Dagster.

    Raises:
        CommandError: It can't be reached.
    """
    # By its URL, the webserver answers; else Dagster is that of this environment.
    found = dagster.version() or version("dagster")
    yield _of_version(found, is_by_url=is_by_url)
    yield from _of_daemons(dagster)
    instance = dagster.ask(_INSTANCE)["instance"]
    yield _of_storage(instance["info"] or "")
    yield _of_queue(instance)
    yield from _of_locations(dagster, found)


def _of_version(found: str, *, is_by_url: bool) -> Check:
    where = "the webserver answers" if is_by_url else "the instance of DAGSTER_HOME is open"
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if _LEAST <= numbers < _BELOW:
        return Check(name="dagster", verdict="ok", message=f"{where}, with Dagster {found}")
    return Check(
        name="dagster",
        verdict="problem",
        message=f"{where}, with Dagster {found}, and this library works with {_SUPPORTED}",
        hint=f"pip install 'dagster{_SUPPORTED}'",
    )


def _of_daemons(dagster: Dagster) -> Iterator[Check]:
    ill = [one for one in dagster.daemons() if one.is_required and not one.is_healthy]
    if not ill:
        yield Check(name="daemons", verdict="ok", message="all required daemons run")
        return
    seen = [one.heartbeat_at for one in ill if one.heartbeat_at is not None]
    last = f"; the last heartbeat was {_ago(max(seen))} ago" if seen else "; there never was a heartbeat"
    lacking = ", ".join(_DAEMONS[one.name] for one in ill if one.name in _DAEMONS) or "they are required"
    yield Check(
        name="daemons",
        verdict="problem",
        message=f"no heartbeat of {', '.join(one.name for one in ill)}{last}: {lacking}",
        hint="start `dagster dev`, or `dagster-daemon run` with the same DAGSTER_HOME",
    )


def _ago(at: float) -> str:
    passed = int(time.time() - at)
    return f"{passed:,} s" if passed < 120 else f"{passed // 60:,} min"


def _of_storage(info: str) -> Check:
    if "Sqlite" in info:
        text = "SQLite, which is enough for one machine; Postgres lets several processes write events at once"
        return Check(name="storage", verdict="ok", message=text)
    name = next((word for word in ("Postgres", "MySQL", "Cloud", "InMemory") if word.casefold() in info.casefold()), "")
    if name == "InMemory":
        return Check(
            name="storage",
            verdict="problem",
            message="the instance is in memory, so runs and backfills are forgotten when its process ends",
            hint="set DAGSTER_HOME",
        )
    return Check(name="storage", verdict="ok", message=name or "a storage that this command doesn't know")


def _of_queue(instance: Mapping[str, Any]) -> Check:
    config = instance["runQueueConfig"]
    if not instance["runQueuingSupported"] or config is None:
        return Check(
            name="run_queue",
            verdict="warning",
            message="runs are not queued, so all runs of a backfill start at once; of DuckDB, one writes at a time",
            hint="configure the QueuedRunCoordinator in dagster.yaml",
        )
    most = config["maxConcurrentRuns"]
    if most is None or most < 0:
        return Check(
            name="run_queue",
            verdict="warning",
            message="any number of runs may run at once; of DuckDB one writes at a time, and the others wait",
            hint="set concurrency: {runs: {max_concurrent_runs: 10}} in dagster.yaml",
        )
    text = f"at most {most} run{'s' * (most != 1)} at once"
    return Check(name="run_queue", verdict="ok", message=f"{text}; of DuckDB one writes at a time, the others wait")


def _of_locations(dagster: Dagster, dagster_version: str) -> Iterator[Check]:
    here = _own_version()
    for entry in dagster.ask(_LOCATIONS)["workspaceOrError"]["locationEntries"]:
        name, found = entry["name"], entry["locationOrLoadError"]
        if found is None or found["__typename"] != "RepositoryLocation":
            message = "it is loading" if found is None else found["message"]
            lines = str(message).strip().splitlines()
            yield Check(
                name="code_location",
                verdict="problem",
                message=f"{name} is not loaded: {lines[0] if lines else ''}",
                hint="`dagster definitions validate` shows all of the error",
            )
            continue
        yield _of_versions(name, found["dagsterLibraryVersions"] or [], here, dagster_version)


def _of_versions(name: str, listed: Sequence[Mapping[str, str]], here: str, dagster_version: str) -> Check:
    versions = {one["name"]: one["version"] for one in listed}
    there, core = versions.get(_OURS), versions.get("dagster", dagster_version)
    if core != dagster_version:
        text, hint = f"{name} has Dagster {core}, and the Dagster that runs it {dagster_version}", "install one version"
    elif there is None:
        text, hint = (
            f"{name} doesn't say which version of {_OURS} it has, if any",
            "install the version of this command",
        )
    elif there != here:
        text, hint = f"{name} has {_OURS} {there}, and this command is {here}", "install one version in both"
    else:
        return Check(name="code_location", verdict="ok", message=f"{name} is loaded, with {_OURS} {there}")
    return Check(name="code_location", verdict="warning", message=text, hint=hint)


def _own_version() -> str:
    try:
        return version(_OURS)
    except PackageNotFoundError:
        return "(not installed)"
