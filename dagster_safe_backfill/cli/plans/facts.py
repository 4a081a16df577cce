"""What is known of an asset's partitions before a backfill: why each would be computed, and what is live now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dagster_safe_backfill.cli.answers.answer import CommandError
from dagster_safe_backfill.cli.api.client import Dagster
from dagster_safe_backfill.cli.api.values import Asset, Materialization, Statuses
from dagster_safe_backfill.cli.connection import Connection
from dagster_safe_backfill.cli.plans.live import ComputedFrom, LiveFacts
from dagster_safe_backfill.cli.selection import Filter, Selection

_WITHOUT_CODE = (
    "without the definitions (-m, -f or -w), the plan knows neither the code nor the live rows: changes by hand aren't"
    " noticed, and runs don't check what changed after the plan"
)
_NOT_OURS = (
    "without an I/O manager of this library, there are no audits before rows go live, no ledger and no way back, and"
    " runs don't check what changed after the plan"
)
_HELD = (
    "So of what is live, only what Dagster's events show is known: neither changes by hand nor of the code since the"
    " last publication are noticed, and the runs of this plan don't check whether live rows changed after it"
)
_NO_VERSIONS = "data versions that were observed of it can't be compared through --url"
_ASKED = "asked for"
_MISSING = "never materialized"
_FAILED = "its last run failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an asset, and which of its partitions a call chooses.

    Attributes:
        computed_by: The asset whose runs compute the rows: of the staged shape `x__shadow`.
        reasons: A mapping from each chosen key, in order, to why it is computed.
        newest: The newest materializations of the chosen partitions.
        live: What the warehouse says of them; None without the definitions.
        warnings: What isn't known, for people.
    """

    asset: Asset
    computed_by: Asset
    statuses: Statuses
    reasons: Mapping[str, Sequence[str]]
    newest: Mapping[str, Materialization]
    live: LiveFacts | None = None
    warnings: Sequence[str] = field(default_factory=tuple[str, ...])

    @property
    def keys(self) -> list[str]:
        """The chosen keys, in order."""
        return [*self.reasons]


def facts_of(connection: Connection, asset: Asset, selection: Selection) -> Facts:
    """Return what is known of an asset, and which of its partitions a selection chooses.

    Raises:
        CommandError: A key isn't the asset's, or Dagster or the warehouse can't be reached.
    """
    dagster = connection.dagster
    named = selection.of(asset)
    computed_by = dagster.assets(asset.staging[:1])[0] if asset.staging else asset
    statuses = _statuses(dagster, asset, computed_by)
    may_be = named if _looks_at_all(selection) else [key for key in named if _is_wanted(key, statuses, selection.only)]
    newest = dagster.newest(asset, may_be) if asset.kind is not None else _newest_of_whole(dagster, asset)
    live = _live(connection, asset.key, may_be) if connection.has_code else None
    changed = _changed(dagster, asset, newest, live)
    reasons: dict[str, list[str]] = {}
    for key in may_be:
        is_changed = "changed" in selection.only and key in changed
        if not selection.only or is_changed or _is_wanted(key, statuses, selection.only):
            reasons[key] = _reasons(key, statuses, changed) or [_ASKED]
    return Facts(
        asset=asset,
        computed_by=computed_by,
        statuses=statuses,
        reasons=reasons,
        newest={key: one for key, one in newest.items() if key in reasons or not key},
        live=live,
        warnings=_warnings(live, has_code=connection.has_code),
    )


def _warnings(live: LiveFacts | None, *, has_code: bool) -> Sequence[str]:
    if live is None:
        return (_NOT_OURS if has_code else _WITHOUT_CODE,)
    if live.held is not None:
        return (f"{live.held} {_HELD}",)
    versioned = sorted({name for one in live.computed_from.values() for name in one.versioned})
    return (f"{', '.join(versioned)}: {_NO_VERSIONS}",) if versioned else ()


def _changed(
    dagster: Dagster, asset: Asset, newest: Mapping[str, Materialization], live: LiveFacts | None
) -> Mapping[str, Sequence[str]]:
    """Return what changed since partitions were computed, from what is nearest to the truth that can be read."""
    if live is None or live.held is not None:
        return _newer_upstream(dagster, asset, newest)
    changed = {key: [*reasons] for key, reasons in live.changed.items()}
    for key, reasons in _read_before(dagster, live.computed_from).items():
        changed.setdefault(key, []).extend(reasons)
    return changed


def _read_before(dagster: Dagster, made: Mapping[str, ComputedFrom]) -> dict[str, list[str]]:
    """Return the partitions that read something of which a Dagster has a newer materialization."""
    found: dict[str, list[str]] = {}
    names = sorted({name for one in made.values() for name in one.upstream})
    for other in dagster.assets_if_known(names):
        read = {key: one.upstream[other.key] for key, one in made.items() if other.key in one.upstream}
        wanted = {one for keys in read.values() for one in keys or ()}
        times = dagster.newest(other, [key for key in other.keys if key in wanted]) if wanted else {}
        whole = dagster.newest_of_whole(other)
        for key, keys in read.items():
            events = [whole] if keys is None else [times.get(one) for one in keys]
            if any(event is not None and event.at > made[key].at for event in events):
                found.setdefault(key, []).append(f"{other.key} changed since")
    return found


def _live(connection: Connection, name: str, keys: Sequence[str]) -> LiveFacts | None:
    """Return what the warehouse says; None of an asset that another I/O manager keeps."""
    try:
        with connection.definitions.asset(name) as loaded:
            return loaded.facts(keys)
    except CommandError as error:
        if error.problem.code != "not_ours":
            raise
        return None


def _statuses(dagster: Dagster, asset: Asset, computed_by: Asset) -> Statuses:
    """Return the statuses of an asset's partitions; of the staged shape, also what failed or runs in `x__shadow`."""
    if asset.kind is None:
        return Statuses()
    own = dagster.statuses(asset)
    if computed_by is asset:
        return own
    staging = dagster.statuses(computed_by)
    return Statuses(
        materialized=own.materialized,
        failed=own.failed | staging.failed,
        materializing=own.materializing | staging.materializing,
    )


def _newest_of_whole(dagster: Dagster, asset: Asset) -> dict[str, Materialization]:
    newest = dagster.newest_of_whole(asset)
    return {} if newest is None else {"": newest}


def _looks_at_all(selection: Selection) -> bool:
    return not selection.only or "changed" in selection.only


def _is_wanted(key: str, statuses: Statuses, only: frozenset[Filter]) -> bool:
    is_failed = key in statuses.failed
    is_missing = not is_failed and key not in statuses.materialized
    return ("failed" in only and is_failed) or ("missing" in only and is_missing)


def _reasons(key: str, statuses: Statuses, changed: Mapping[str, Sequence[str]]) -> list[str]:
    reasons: list[str] = []
    if key in statuses.failed:
        reasons.append(_FAILED)
    elif key not in statuses.materialized and key not in statuses.materializing:
        reasons.append(_MISSING)
    return [*reasons, *changed.get(key, ())]


def _newer_upstream(dagster: Dagster, asset: Asset, newest: Mapping[str, Materialization]) -> dict[str, list[str]]:
    """Return the partitions of which an upstream asset is newer, as far as Dagster's events of equal keys show it."""
    found: dict[str, list[str]] = {}
    upstream = [name for name in asset.upstream if name != asset.key]
    for other in dagster.assets(upstream) if upstream else ():
        if other.kind is None:
            whole = dagster.newest_of_whole(other)
            times = dict.fromkeys(newest, whole) if whole else {}
        else:
            shared = {*other.keys}
            times = dagster.newest(other, [key for key in newest if key in shared])
        for key, own in newest.items():
            theirs = times.get(key)
            if theirs is not None and theirs.at > own.at:
                found.setdefault(key, []).append(f"{other.key} is newer")
    return found
