"""`Plan`: what a backfill is to do, as a file that people review and `launch` carries out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

from dagster_safe_backfill.cli.answers.answer import CommandError, refusal, usage_error
from dagster_safe_backfill.cli.answers.data.plans import (
    EstimateData,
    GuardData,
    GuardName,
    PlanContent,
    PlanFile,
    PlannedAssetData,
    PlannedRunData,
)

SCHEMA: Literal["safe-backfill/plan/1"] = "safe-backfill/plan/1"
FOLDER = Path("backfills")
"""Where plans are saved unless `--out` says otherwise, as seen from the working directory."""

_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run that Dagster will launch: a range of partitions, both ends included."""

    first: str
    last: str
    partition_count: int

    @property
    def as_data(self) -> PlannedRunData:
        """The run as JSON."""
        return {"first": self.first, "last": self.last, "partition_count": self.partition_count}


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A condition that `launch` looks at before it launches.

    Attributes:
        name: Which.
        holds: True if nothing is in the way.
        message: What was found.
        hint: What to do about it.
        refuses: False if it only warns.
    """

    name: GuardName
    holds: bool
    message: str
    hint: str | None = None
    refuses: bool = True

    @property
    def as_data(self) -> GuardData:
        """The guard as JSON."""
        return {
            "name": self.name,
            "holds": self.holds,
            "message": self.message,
            "hint": self.hint,
            "refuses": self.refuses,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What earlier publications and runs let expect.

    Attributes:
        row_count: The number of rows; None if nothing is known.
        seconds: The time, with the runs one after the other; None if nothing is known.
        partition_count: From how many earlier partitions it was made.
    """

    row_count: int | None = None
    seconds: float | None = None
    partition_count: int = 0

    @property
    def as_data(self) -> EstimateData:
        """The estimate as JSON."""
        return {"row_count": self.row_count, "seconds": self.seconds, "partition_count": self.partition_count}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAsset:
    """One asset of a plan.

    Attributes:
        key: The asset's key.
        live_asset: The key of the asset whose table it is: of `x__shadow` and `x__audit` that of `x`.
        table: Its table; None without the definitions.
        reasons: A mapping from each partition key, in order, to why it is computed.
        runs: The runs that Dagster will launch.
        batch_size: The number of partitions of a batch; None if a run is one batch, or it isn't known.
        goes_live: When the partitions go live, in words.
        code: A digest of what computes the rows; None if it isn't known.
        definition: A digest of what the partition keys stand for and how the table is kept; None if it isn't known.
        live: A mapping from partition key to the fingerprint of its live rows; empty without the definitions, and if
            `live_unknown` says why.
        live_unknown: Who held the warehouse's file when the plan was made, so that its runs don't check live rows.
        newest: A mapping from partition key to the run and time of its newest materialization.
        estimate: What to expect.
    """

    key: str
    live_asset: str
    table: str | None = None
    reasons: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    runs: Sequence[PlannedRun] = ()
    batch_size: int | None = None
    goes_live: str = ""
    code: str | None = None
    definition: str | None = None
    live: Mapping[str, str] = field(default_factory=dict[str, str])
    live_unknown: str | None = None
    newest: Mapping[str, str] = field(default_factory=dict[str, str])
    estimate: Estimate = field(default_factory=Estimate)

    @property
    def keys(self) -> list[str]:
        """The partition keys, in order."""
        return [*self.reasons]

    @property
    def as_data(self) -> PlannedAssetData:
        """The asset as JSON."""
        return {
            "asset": self.key,
            "live_asset": self.live_asset,
            "table": self.table,
            "reasons": {key: [*reasons] for key, reasons in self.reasons.items()},
            "runs": [one.as_data for one in self.runs],
            "batch_size": self.batch_size,
            "goes_live": self.goes_live,
            "code": self.code,
            "definition": self.definition,
            "live": dict(self.live),
            "live_unknown": self.live_unknown,
            "newest": dict(self.newest),
            "estimate": self.estimate.as_data,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a backfill is to do. It doesn't change: its id is made from its content.

    Attributes:
        created_at: When it was made, in seconds since the epoch.
        dagster: The Dagster that it was made with.
        assets: The assets whose partitions were chosen.
        launched: The keys of all assets that are launched: for a staged asset also `x__shadow` and `x__audit`.
        outdated: The keys of the assets downstream that become outdated.
        newest_first: True if batches begin with the newest partitions.
        owner: Who answers for the backfill.
        reason: Why it is done.
        run_config: The run configuration.
    """

    created_at: float
    dagster: str
    assets: Sequence[PlannedAsset]
    launched: Sequence[str]
    outdated: Sequence[str] = ()
    newest_first: bool = False
    owner: str | None = None
    reason: str | None = None
    run_config: Mapping[str, Any] | None = None

    @property
    def id(self) -> str:
        """The id: the day in UTC, the first asset's name, and a digest of all of it."""
        name = re.sub(r"[^A-Za-z0-9_]+", "-", self.assets[0].key.split("/")[-1])
        # Not in this machine's zone: who reads the file elsewhere must get the same id.
        day = datetime.fromtimestamp(self.created_at, timezone.utc)
        return f"{day:%Y-%m-%d}-{name}-{self._digest}"

    @property
    def partitions(self) -> int:
        """The number of partitions, over all assets."""
        return sum(len(asset.reasons) for asset in self.assets)

    @property
    def as_data(self) -> PlanFile:
        """The plan as JSON, as it is saved."""
        return {"schema": SCHEMA, "plan_id": self.id, **self._content}

    @property
    def _content(self) -> PlanContent:
        return {
            "created_at": self.created_at,
            "dagster": self.dagster,
            "assets": [one.as_data for one in self.assets],
            "launched": [*self.launched],
            "outdated": [*self.outdated],
            "newest_first": self.newest_first,
            "owner": self.owner,
            "reason": self.reason,
            "run_config": None if self.run_config is None else dict(self.run_config),
        }

    @property
    def _digest(self) -> str:
        text = json.dumps(self._content, sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()[:_DIGITS]

    def save(self, path: Path | None = None) -> Path:
        """Write the plan to a new file, which can only be read, and return its path.

        Raises:
            CommandError: The file exists and holds something else, or can't be written.
        """
        target = FOLDER / f"{self.id}.json" if path is None else path
        text = json.dumps(self.as_data, indent=2, ensure_ascii=False) + "\n"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Never over a plan that somebody reviewed: O_EXCL makes a new file or none.
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        except FileExistsError as error:
            raise usage_error(
                "file_exists", f"{target} exists, and plans are never overwritten", hint="name another by --out"
            ) from error
        except OSError as error:
            raise usage_error("unwritable_file", f"{target} can't be written: {error}") from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return target


def keep(plan: Plan) -> Path | None:
    """Save a plan that is launched at once, for who asks later what it was; None if it can't be saved here."""
    try:
        return plan.save()
    except CommandError:
        # Of two calls in one second, the plans may be the same.
        same = FOLDER / f"{plan.id}.json"
        return same if same.is_file() else None


def load(path: Path) -> Plan:
    """Read a plan from its file.

    Raises:
        CommandError: The file can't be read, isn't a plan, or was edited since it was made.
    """
    try:
        read: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise usage_error("unknown_plan", f"there is no plan {path}: {error.strerror}") from error
    except ValueError as error:
        raise usage_error("not_a_plan", f"{path} is not a plan: it is not JSON ({error})") from error
    file = cast("dict[str, Any]", read) if isinstance(read, dict) else dict[str, Any]()
    schema = file.get("schema")
    if schema != SCHEMA:
        raise usage_error(
            "not_a_plan", f"{path} is not a plan of this version: its schema is {schema!r}, not {SCHEMA!r}"
        )
    try:
        plan = _parsed(file)
        plan_id = plan.id
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as error:
        raise usage_error("not_a_plan", f"{path} is not a plan: {error}") from error
    if plan_id != file.get("plan_id"):
        raise refusal(
            "edited_plan",
            f"{path} was edited after it was made: its id is {file.get('plan_id')}, and its content is another",
            hint="make a new plan with what you want: a plan is carried out as it was reviewed",
        )
    return plan


def path_of(name: str) -> Path | None:
    """Return the file of a plan that a call names by its path or id; None if there is none."""
    for path in (Path(name), FOLDER / f"{name}.json"):
        if path.is_file():
            return path
    return None


def _parsed(file: Mapping[str, Any]) -> Plan:
    content = {name: value for name, value in file.items() if name not in {"schema", "plan_id"}}
    assets = [_parsed_asset(one) for one in content.pop("assets")]
    return Plan(assets=assets, **content)


def _parsed_asset(read: dict[str, Any]) -> PlannedAsset:
    parts: dict[str, Any] = {
        **{name: value for name, value in read.items() if name != "asset"},
        "key": read["asset"],
        "runs": [PlannedRun(**run) for run in read["runs"]],
        "estimate": Estimate(**read["estimate"]),
    }
    return PlannedAsset(**parts)
