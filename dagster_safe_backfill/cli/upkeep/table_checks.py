"""The checks of `doctor` that need the definitions: of each asset, its table and its warehouse."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import dagster as dg

from dagster_safe_backfill.cli.answers.answer import CommandError
from dagster_safe_backfill.cli.answers.data.upkeep import CheckVerdict
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.definitions import Definitions, LoadedAsset
from dagster_safe_backfill.cli.following.place import Place, command
from dagster_safe_backfill.cli.upkeep.checks import Check
from dagster_safe_backfill.cli.upkeep.jobs import RetentionJob, retention_jobs, rollback_job, told_of_runs
from dagster_safe_backfill.errors import OtherAssetError, SafeBackfillError
from dagster_safe_backfill.model.events import KnownRuns
from dagster_safe_backfill.model.options import UNKNOWN_RUN_DAYS
from dagster_safe_backfill.model.states import Origin
from dagster_safe_backfill.model.tables import TableRef, names_of
from dagster_safe_backfill.sql import ledger, terms
from dagster_safe_backfill.wap.ledger.belongings import archives_that_exist, shadows_that_exist
from dagster_safe_backfill.wap.ledger.history import known_ledger, partition_keys
from dagster_safe_backfill.wap.ledger.waiting import newest, staged_partitions, standing
from dagster_safe_backfill.wap.retention import RetentionRules, Retired, owners, retire
from dagster_safe_backfill.warehouses.base import Session

_SHADOW_DAYS = 7.0
_LEAST_FREE = 200 * 2**20
"""Bytes of disk below which a publication is likely to fail."""


@dataclass(kw_only=True)
class TableChecks:
    """Checks assets one by one; what is one warehouse's is checked once.

    Attributes:
        definitions: The user's definitions.
        place: What the call connects to; its Dagster knows their runs and partitions, and hints name it.
    """

    definitions: Definitions
    place: Place
    _seen: set[str] = field(default_factory=set[str])
    _locked: dict[str, str] = field(default_factory=dict[str, str])

    def of_asset(self, name: str) -> Iterator[Check]:
        """Yield the checks of one asset. None of them raises."""
        jobs = self.definitions.jobs(name)
        try:
            with self.definitions.asset(name) as loaded:
                yield from self._of_loaded(loaded, jobs)
        except CommandError as error:
            yield Check(
                name=error.problem.code,
                verdict="problem",
                message=error.problem.message,
                hint=error.problem.hint,
                asset=name,
            )
        except (SafeBackfillError, dg.DagsterError) as error:
            yield Check(name="definition", verdict="problem", message=str(error).strip(), asset=name)
        except Exception as error:  # of a user's resource: the other assets are checked all the same
            yield Check(name="unforeseen", verdict="problem", message=f"{type(error).__name__}: {error}", asset=name)

    def _of_loaded(self, loaded: LoadedAsset, jobs: Sequence[dg.JobDefinition]) -> Iterator[Check]:
        name, table = loaded.name, loaded.spec.table
        kind = type(loaded.table_io).__name__
        yield Check(name="io_manager", verdict="ok", message=f"{table}, kept by {kind}", asset=name)
        retention = next((one for one in retention_jobs(jobs) if name in one.assets), None)
        yield from _of_rollback(loaded, jobs)
        yield _of_retention(loaded, self.place.dagster, retention)
        place = table.database or str(table.schema)
        if place in self._locked:
            yield Check(name="warehouse", verdict="problem", message=self._locked[place], asset=name)
            return
        if place not in self._seen:
            self._seen.add(place)
            if table.storage_kind == "duckdb":
                yield from _of_file(Path(table.database))
        try:
            yield from loaded.read_soon(
                lambda session: self._of_table(loaded, session, place, retention), default=[_no_database(loaded)]
            )
        except CommandError as error:
            # Once for all of its assets: each would wait again.
            self._locked[place] = f"it is {place}, which is locked or can't be reached"
            yield Check(
                name="warehouse",
                verdict="problem",
                message=error.problem.message,
                hint=error.problem.hint,
                asset=name,
            )

    def _of_table(
        self, loaded: LoadedAsset, session: Session, place: str, retention: RetentionJob | None
    ) -> list[Check]:
        """Return the checks of a table, whose session is open only for so long."""
        found: list[Check] = []
        if f"version of {place}" not in self._seen:
            self._seen.add(f"version of {place}")
            ((told,),) = session.query(terms.database_version())
            kind = loaded.spec.table.storage_kind or "the database"
            found.append(Check(name="warehouse", verdict="ok", message=f"{place} is reached: {kind} {told}"))
        table = loaded.spec.table
        columns = known_ledger(session, table)
        found.append(_of_ledger(loaded, table, None if columns is None else names_of(columns)))
        if columns is None:
            return found
        work = _OfTable(
            loaded=loaded,
            session=session,
            table=table,
            place=self.place,
            days=_SHADOW_DAYS if retention is None else retention.shadow_days,
            unknown_run_days=UNKNOWN_RUN_DAYS if retention is None else retention.unknown_run_days,
        )
        return [*found, *work.checks()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfTable:
    """The checks of a table that has a ledger."""

    loaded: LoadedAsset
    session: Session
    table: TableRef
    place: Place
    days: float
    unknown_run_days: float

    def _check(self, name: str, verdict: CheckVerdict, message: str, hint: str | None = None) -> Check:
        return Check(name=name, verdict=verdict, message=message, hint=hint, asset=self.loaded.name)

    @property
    def _retention_hint(self) -> str:
        return f"`{command(self.place, 'retention', '--yes')}` drops them"

    def checks(self) -> Iterator[Check]:
        interrupted = self.session.tables.interrupted(self.table)
        if interrupted is not None:
            text = f"a swap of {self.table} with {interrupted} was interrupted"
            yield self._check("swap", "problem", text, "the next run or rollback of the asset completes or undoes it")
        made_by = owners(self.session, self.table)
        waiting = self._waiting()
        runs = told_of_runs(self.place.dagster, made_by | {one for one, _count in waiting.items()})
        retired = self._retired(runs)
        if isinstance(retired, Check):
            yield retired
            return
        if retired.clock_problem is not None:
            yield self._check("clock", "warning", f"retention would drop nothing: {retired.clock_problem}")
        yield self._of_archives(retired)
        yield from self._of_shadows(retired)
        yield self._of_waiting(
            {run: count for run, count in waiting.items() if run in runs.ended or run in runs.unknown}
        )
        yield self._of_green()

    def _retired(self, runs: KnownRuns) -> Retired | Check:
        former = self.loaded.options.table.former_keys
        origin = Origin(run_id="doctor", publication_id="doctor", asset_key=self.loaded.name, former_keys=former)
        try:
            rules = RetentionRules(
                runs=runs,
                shadows_for=timedelta(days=self.days),
                unknown_for=timedelta(days=self.unknown_run_days),
            )
            return retire(self.session, self.table, rules=rules, origin=origin, dry_run=True)
        except OtherAssetError as error:
            return self._check("owner", "problem", str(error))

    def _of_archives(self, retired: Retired) -> Check:
        stray = self._stray(archives_that_exist(self.session, self.table), retired)
        if retired.archives:
            text = f"{len(retired.archives):,} archives have expired"
            return self._check("archives", "warning", text, self._retention_hint)
        if stray:
            text = f"no publication made {', '.join(sorted({*stray}))}, which have names of archives"
            return self._check("archives", "warning", text, "rename or drop what you don't need")
        kept = sum(one.kind == "archive" for one in retired.kept)
        return self._check("archives", "ok", f"{kept:,} archives are kept, none has expired")

    def _stray(self, every: Sequence[TableRef], retired: Retired) -> Sequence[str]:
        """Return those of some tables that the ledger doesn't know; it knows what is kept and what is over."""
        known = {str(one).casefold() for one in (*retired.over, *(one.table for one in retired.kept))}
        return [str(one) for one in every if str(one).casefold() not in known]

    def _of_shadows(self, retired: Retired) -> Iterator[Check]:
        stray = self._stray(shadows_that_exist(self.session, self.table), retired)
        if retired.shadows:
            text = f"{len(retired.shadows):,} shadows are of runs that ended more than {self.days:g} days ago"
            yield self._check("shadows", "warning", text, self._retention_hint)
        if stray:
            text = f"no run recorded {', '.join(stray)}, which have names of shadows"
            yield self._check("shadows", "warning", text, "rename or drop what you don't need")
        if not retired.shadows and not stray:
            kept = sum(one.kind == "shadow" for one in retired.kept)
            yield self._check("shadows", "ok", f"{kept:,} shadows are kept, none is over")

    def _waiting(self) -> dict[str, int]:
        """Return a mapping from run to the number of partitions that it staged, that passed and that aren't live."""
        staged = newest(staged_partitions(self.session, self.table)).values()
        passed = [one for one in staged if one.event in ("audited", "approved")]
        counts: dict[str, int] = {}
        for one in standing(self.session, self.table, passed):
            counts[one.run_id] = counts.get(one.run_id, 0) + 1
        return counts

    def _of_waiting(self, counts: Mapping[str, int]) -> Check:
        many = sum(counts.values())
        if not many:
            return self._check("staged", "ok", "no staged partitions wait")
        text = f"{many:,} partitions passed their audits in runs that ended or aren't known, and aren't published"
        name = self.loaded.name
        approve, diff = command(self.place, "approve", name), command(self.place, "diff", name)
        hint = f"`{approve}` publishes them" if self.loaded.is_staged else "run the asset again"
        return self._check("staged", "warning", text, f"`{diff}` shows them; {hint}")

    def _of_green(self) -> Check:
        """Compare what is green in Dagster with the ledger."""
        (asset,) = self.place.dagster.assets([self.loaded.name])
        recorded = {*partition_keys(self.session, self.table)}
        green = self.place.dagster.statuses(asset).materialized if asset.kind is not None else frozenset[str]()
        lacking = sorted(green - recorded)
        if not lacking:
            return self._check("green", "ok", f"{len(green):,} partitions are green, and all are in the ledger")
        text = f"{len(lacking):,} partitions are green in Dagster, and no publication is in the ledger: {lacking[0]}"
        more = f" to {lacking[-1]}" if len(lacking) > 1 else ""
        hint = "they were materialized without this library, or in another warehouse; compute them again if in doubt"
        return self._check("green", "warning", text + more, hint)


def _of_rollback(loaded: LoadedAsset, jobs: Sequence[dg.JobDefinition]) -> Iterator[Check]:
    variable = loaded.name.rpartition("/")[2]
    job = rollback_job(jobs, loaded.name)
    if job is not None:
        yield Check(name="rollback_job", verdict="ok", message=job.name, asset=loaded.name)
    else:
        yield Check(
            name="rollback_job",
            verdict="warning",
            message="no rollback job, so its publications can't be undone through Dagster",
            hint=f"add jobs=[sb.build_rollback_job({variable})] to the Definitions",
            asset=loaded.name,
        )


def _of_retention(loaded: LoadedAsset, dagster: Dagster, retention: RetentionJob | None) -> Check:
    name, variable = loaded.name, loaded.name.rpartition("/")[2]
    if retention is None:
        return Check(
            name="retention",
            verdict="warning",
            message="no retention schedule, so expired archives and old shadows stay",
            hint=f"add schedules=[sb.build_retention_schedule([{variable}])] to the Definitions, and turn it on",
            asset=name,
        )
    (asset,) = dagster.assets([name])
    schedules, job = dagster.schedules_of_job(asset, retention.job.name), retention.job.name
    running = [one for one, is_on in schedules.items() if is_on]
    if not schedules:
        text, hint = f"no schedule runs {job} there", "add the schedule itself to the Definitions, and load them again"
    elif not running:
        text = f"the schedule {', '.join(schedules)} is stopped"
        hint = "turn it on in Dagster's UI, under Automation, or by `dagster schedule start`"
    elif not dagster.has_daemon("SCHEDULER"):
        text, hint = f"{running[0]} is on, and no scheduler daemon runs it", "start `dagster-daemon run`"
    else:
        return Check(name="retention", verdict="ok", message=f"{running[0]} is on, and runs {job}", asset=name)
    message = f"{text}, so expired archives and old shadows stay"
    return Check(name="retention", verdict="warning", message=message, hint=hint, asset=name)


def _of_file(path: Path) -> Iterator[Check]:
    """Yield the checks of a DuckDB file that need no session."""
    folder = path.parent
    if not folder.is_dir():
        yield Check(name="disk", verdict="problem", message=f"there is no directory {folder}", hint="create it")
        return
    unwritable = [str(one) for one in (folder, path) if one.exists() and not os.access(one, os.W_OK)]
    if unwritable:
        yield Check(
            name="disk",
            verdict="problem",
            message=f"{' and '.join(unwritable)} can't be written by this user, and DuckDB writes files beside its own",
            hint="run it as the user of the runs, or change the permissions",
        )
        return
    free, size = shutil.disk_usage(folder).free, path.stat().st_size if path.exists() else 0
    text = f"{_bytes(free)} are free, and {path.name} has {_bytes(size)}"
    if free < max(size, _LEAST_FREE):
        hint = "a swap copies the whole table, and archives keep replaced rows: make room"
        yield Check(name="disk", verdict="warning", message=text, hint=hint)
    else:
        yield Check(name="disk", verdict="ok", message=text)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _of_ledger(loaded: LoadedAsset, table: TableRef, names: Sequence[str] | None) -> Check:
    place, asset = ledger.ledger_of(table), loaded.name
    if names is None:
        return Check(name="ledger", verdict="ok", message=f"no {place} yet: nothing was published", asset=asset)
    lacking = ledger.COLUMNS.keys() - {*map(str.casefold, names)}
    if not lacking:
        return Check(name="ledger", verdict="ok", message=f"{place} is readable", asset=asset)
    text = f"{place} is of an earlier version, without {', '.join(sorted(lacking))}"
    return Check(
        name="ledger", verdict="warning", message=text, hint="the next run of the asset adds what it lacks", asset=asset
    )


def _no_database(loaded: LoadedAsset) -> Check:
    place = loaded.spec.table.database
    return Check(name="warehouse", verdict="ok", message=f"no {place} yet: nothing was written", asset=loaded.name)
