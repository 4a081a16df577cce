"""The codes of errors: what each means, and which the command's code raises with which exit code."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import get_args

import dagster_safe_backfill.cli
from dagster_safe_backfill import errors
from dagster_safe_backfill.cli.answers.answer import Exit
from dagster_safe_backfill.cli.answers.data.plans import GuardName
from dagster_safe_backfill.cli.following.states import BAD

MEANINGS: Mapping[str, str] = {
    "already_launched": "A backfill carries out the plan already.",
    "already_publishing": "A backfill or a run publishes the asset now.",
    "already_retried": "Another backfill goes on, or went on, with this one.",
    "ambiguous_id": "Several ids begin so.",
    "ambiguous_keys": "The dimensions name several keys that are written alike.",
    "audit_failed": "The newest audit of what is staged failed. `partitions` are those that it blocked.",
    "audit_outdated": "Partitions were staged again after the newest audit.",
    "audit_running": "The audit of what is staged runs now.",
    "backfill_failed": "Dagster gave the backfill up.",
    "bad_aggregate": "An aggregate of `--aggregate` can't be measured.",
    "bad_config": "The file of `--config` is no run configuration.",
    "bad_confirm": "A `--confirm` is neither a number nor `ASSET=N`, or doesn't fit the assets.",
    "bad_dimension": "A `--dimension` is not `NAME=KEYS`.",
    "bad_tag": "A `--tag` is not `KEY=VALUE`.",
    "bad_token": "The token can't be one of Dagster+.",
    "bad_url": "The URL is none.",
    "changed_meanwhile": "What waits to be published changed before the yes.",
    "code_elsewhere": "A code server has the definitions, and they are needed here.",
    "code_not_loaded": "The definitions can't be loaded.",
    "contradiction": "Options contradict each other.",
    "daemon_failed": "With `--in-process`: what is done in place of the daemon failed.",
    "daemon_runs": "With `--in-process`: a daemon runs.",
    "dagster_error": "Dagster answers with an error.",
    "detached": "Ctrl-C was pressed; the backfill goes on.",
    "edited_plan": "The plan's file was edited.",
    "empty_file": "The file of `--partitions-file` names no partitions.",
    "empty_value": "An option or argument is given and empty, as of an unset variable.",
    "file_exists": "There is a file where the plan is to be saved.",
    "guard_count": "There are more partitions than `Limits(max_partitions=…)` allows.",
    "guard_hours": "`Limits(allowed_hours=…)` doesn't allow it now.",
    "guard_order": "`--newest-first`, and the asset is computed from its own earlier partitions.",
    "guard_overlap": "Another backfill or run works on some of the partitions.",
    "http_error": "The webserver, or a proxy before it, answers with an HTTP error.",
    "inverted_range": "A range runs backwards.",
    "needs_code": "The plan was made with the definitions, and they aren't named.",
    "no_code": "The verb needs the definitions, and they aren't named.",
    "no_daemon": "The time is up, and no daemon takes the run up.",
    "no_dagster": "Nothing says which Dagster to ask.",
    "no_dagster_home": "`DAGSTER_HOME` isn't set, or is no directory.",
    "no_dimensions": "`--dimension`, and the asset's partitions have no dimensions.",
    "no_graphql": "The package `dagster-graphql` isn't installed.",
    "no_instance": "Dagster's instance can't be opened.",
    "no_order": "`--from`, `--to` or `--last`, and the asset's multi-partitions are in no one order.",
    "no_partitions": "The asset, or the run, has no partitions.",
    "no_pool": "`--concurrency`, and the assets have no pool, or several.",
    "no_rollback_job": "The definitions have no rollback job of the asset.",
    "no_selection": "No partitions are named.",
    "not_a_backfill": "The id is that of a run.",
    "not_a_plan": "The file is no plan, or one of another version.",
    "not_audited": "What is staged was never audited together. `partitions` are those.",
    "not_confirmed": "Nobody said yes.",
    "not_dagster": "Something else than Dagster answers at the URL.",
    "not_ended": "Runs couldn't be ended.",
    "not_ours": "The asset's I/O manager isn't one of this library.",
    "not_published": "The publication has none of the named partitions.",
    "not_retryable": "Dagster can't go on with this backfill.",
    "not_staged": "The asset isn't one of `build_staged_wap_assets`.",
    "nothing_staged": "Nothing that the run or backfill staged waits.",
    "partitions_cancelled": "Partitions were cancelled. `partitions` are those.",
    "partitions_failed": "Partitions failed. `partitions` are those.",
    "partitions_not_live": "It is over, and partitions that were to go live are only staged. `partitions` are those.",
    "partitions_rejected": "Audits blocked partitions. `partitions` are those.",
    "plan_no_longer_true": "Code, definition or live rows changed after the plan was made. `partitions` are those"
    " whose rows did.",
    "rollback_conflict": "Partitions were changed after the publication. `partitions` are those.",
    "run_failed": "The run of the job failed, or was cancelled.",
    "runs_only": "The backfill has started all of its runs; only `--now` ends these.",
    "secret_in_config": "The file of `--config` has a secret, and plans are kept and shown.",
    "short_id": "Too little of an id to change something by it.",
    "still_running": "The backfill (3), or the run that was waited for (6), hasn't ended.",
    "stopped": "With `--in-process`: the time is up (6), or Ctrl-C was pressed (130), so it was cancelled.",
    "time_is_up": "The time is up, and it hasn't ended.",
    "unauthorized": "Dagster refuses the token.",
    "unforeseen": "A fault of the command; please report it.",
    "unknown_asset": "There is no such asset.",
    "unknown_backfill": "There is no such backfill, or run.",
    "unknown_dimension": "The partitions have no such dimension.",
    "unknown_partition": "The asset has no such partition. `partitions` are those.",
    "unknown_plan": "There is no such plan.",
    "unknown_publication": "There is no such publication.",
    "unknown_run": "There is no such run.",
    "unreachable": "No Dagster answers at the URL. A change may have been made all the same.",
    "unreadable_file": "A file can't be read.",
    "unwritable_file": "The plan can't be saved.",
    "usage": "The call can't be understood.",
    "warehouse_locked": "Another process, such as a run, holds the DuckDB file.",
    "warehouse_unreachable": "The warehouse can't be reached.",
}

_OF_ANSWERS: Mapping[str, frozenset[int]] = {
    **{f"partitions_{state}": frozenset({1}) for state in (*BAD, "not_live")},
    **dict.fromkeys(("backfill_failed", "not_ended", "run_failed"), frozenset({1})),
    **dict.fromkeys(("rollback_conflict", "not_confirmed"), frozenset({3})),
    **dict.fromkeys(("no_daemon", "still_running", "time_is_up"), frozenset({6})),
    "stopped": frozenset({6, 130}),
    "detached": frozenset({130}),
}
"""The exit codes of the errors that come with an answer, which say no exit code themselves."""
_RAISERS = {
    "usage_error": (0, Exit.USAGE),
    "refusal": (0, Exit.REFUSED),
    "unreachable": (0, Exit.UNREACHABLE),
    "_check_not_running": (2, Exit.REFUSED),
}
"""The functions that make errors: which of their arguments is the code, and the exit code."""
_REFUSING_GUARDS = {*get_args(GuardName)} - {"daemon"}


@cache
def raised() -> Mapping[str, frozenset[int]]:
    """Return a mapping from each code that the command's code names to the exit codes with which it comes."""
    found: dict[str, set[int]] = {}
    for path in Path(dagster_safe_backfill.cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for code, exits in _of_call(node):
                    found.setdefault(code, set()).update(exits)
    return {code: frozenset(exits) for code, exits in found.items()}


def _of_call(call: ast.Call) -> Iterator[tuple[str, frozenset[int]]]:
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    named = {one.arg: one.value for one in call.keywords}
    if name in _RAISERS:
        position, exit_code = _RAISERS[name]
        for code in _codes(call.args[position]):
            yield code, frozenset({int(exit_code)})
    elif name == "CommandError":
        for code in _codes(call.args[0]):
            exit_code = named["exit_code"]
            assert isinstance(exit_code, ast.Attribute)
            yield code, frozenset({int(Exit[exit_code.attr])})
    elif name == "Problem":
        for code in _codes(named["code"]):
            yield code, _OF_ANSWERS[code]


def _codes(node: ast.expr) -> list[str]:
    """Return the codes that an expression stands for; none where it passes on another's."""
    match node:
        case ast.Constant(value=str(code)):
            return [code]
        case ast.JoinedStr(values=[ast.Constant(value="guard_"), _]):
            return [f"guard_{name}" for name in _REFUSING_GUARDS]
        case ast.JoinedStr(values=[ast.Constant(value="partitions_"), _]):
            return [f"partitions_{state}" for state in BAD]
        case ast.Name(id="code") | ast.Attribute() | ast.Call():
            return []
        case _:
            raise AssertionError(ast.unparse(node))


@cache
def of_library() -> Mapping[str, str]:
    """Return a mapping from the name of each error of the library to what it means."""
    kinds = [kind for _name, kind in inspect.getmembers(errors, inspect.isclass)]
    own = [kind for kind in kinds if issubclass(kind, errors.SafeBackfillError) and not kind.__name__.startswith("_")]
    return {kind.__name__: re.split(r"\n\s*\n", inspect.getdoc(kind) or "")[0] for kind in own}


def exits_of(code: str) -> frozenset[int]:
    """Return the exit codes with which an error comes."""
    return frozenset({1}) if code in of_library() else raised()[code]
