"""The user's function: what it may be, take and return, and what of it is on the events of partitions."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Optional

import dagster as dg
import pandas as pd
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.runs.function.user_function import ComputeFunction
from dagster_safe_backfill_tests.conftest import Read
from dagster_safe_backfill_tests.harness.assets import DAYS, Source, failure_of, green, metadata_by_partition, run_range

FOUR = DAYS.get_partition_keys()[:4]
OPTIONS: dict[str, Any] = {
    "partitions_def": DAYS,
    "partition_expr": "day",
    "unique_key": ["day", "id"],
    "backfill_policy": sb.single_run(),
    "audits": [sb.expression("value > 0", name="positive")],
    "limits": sb.Limits(max_retries=0),
}
Make = Callable[..., dg.AssetsDefinition]
VERSION = "dagster/data_version"


def wap(function: Callable[..., object], **options: Any) -> dg.AssetsDefinition:
    return sb.wap_asset(**(OPTIONS | options))(function)


def shadow(function: Callable[..., object], **options: Any) -> dg.AssetsDefinition:
    return sb.build_staged_wap_assets(function, **(OPTIONS | options)).shadow


@pytest.fixture(params=[wap, shadow], ids=["wap_asset", "staged"])
def make(request: pytest.FixtureRequest) -> Make:
    """Make an asset of each shape that calls the user's function."""
    return request.param


class Runs:
    def __init__(self, io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> None:
        self._on: dict[str, Any] = {"io_manager": io_manager, "instance": instance}
        self.instance = instance

    def __call__(self, *assets: dg.AssetsDefinition, keys: Sequence[str] = FOUR, **options: Any) -> Any:
        return run_range(assets, keys[0], keys[-1], **self._on, **options)

    def failure(self, asset: dg.AssetsDefinition) -> str:
        return failure_of(self(asset), asset.op.name)

    def newest(self, asset: dg.AssetsDefinition) -> dict[str, dg.AssetMaterialization]:
        """Return each partition's newest materialization, as Dagster has stored it."""
        found: dict[str, dg.AssetMaterialization] = {}
        for record in self.instance.fetch_materializations(asset.key, limit=1000).records:
            event = record.asset_materialization
            assert event is not None
            found.setdefault(str(event.partition), event)
        return found


@pytest.fixture
def runs(io_manager: sb.RangeIOManager, instance: dg.DagsterInstance) -> Runs:
    return Runs(io_manager, instance)


def numbered(event: dg.AssetMaterialization, *names: str) -> list[Any]:
    return [event.metadata[name].value if name in event.metadata else None for name in names]


def result_of(kind: type, rows: object, **beside: Any) -> Any:
    return dg.MaterializeResult(value=rows, **beside) if kind is dg.MaterializeResult else dg.Output(rows, **beside)


@pytest.mark.every_warehouse
@pytest.mark.parametrize("kind", [dg.MaterializeResult, dg.Output])
@pytest.mark.parametrize("batches", [None, sb.Batches(size=1)], ids=["one batch", "batches"])
def test_what_is_returned_beside_the_rows_is_on_the_partitions_events(
    runs: Runs, make: Make, kind: type, batches: sb.Batches | None
) -> None:
    source = Source()

    def events(context, partitions: sb.PartitionSlice):  # type: ignore[no-untyped-def]
        return result_of(
            kind,
            source.frame(partitions.keys),
            metadata={"first": partitions.keys[0], "rows_staged": -1},
            data_version=dg.DataVersion(f"v of {partitions.keys[0]}"),
            tags={"of": partitions.keys[0], "same": "x"},
        )

    asset = make(events, batches=batches)
    result = runs(asset)
    assert result.success
    found = runs.newest(asset)
    assert sorted(found) == FOUR
    for key, event in found.items():
        first = FOUR[0] if batches is None else key
        assert numbered(event, "first", "rows_staged") == [first, 3]
        tags = event.tags or {}
        assert (tags["of"], tags["same"], tags[VERSION]) == (first, "x", f"v of {first}")
        assert tags["dagster/data_version_is_user_provided"] == "true"
        assert tags["dagster/code_version"] == result.run_id


@pytest.mark.parametrize("kind", [dg.MaterializeResult, dg.Output])
def test_a_result_is_as_a_plain_assets(instance: dg.DagsterInstance, runs: Runs, make: Make, kind: type) -> None:
    def events(context: dg.AssetExecutionContext, partitions: sb.PartitionSlice):  # type: ignore[no-untyped-def]
        context.add_asset_metadata({"k": "partition", "p": 1}, partition_key=FOUR[0])
        context.add_asset_metadata({"k": "asset", "a": 1})
        context.add_output_metadata({"k": "output", "o": 1})
        rows = Source().frame(FOUR)
        return result_of(
            kind, rows, metadata={"k": "result", "r": 1}, data_version=dg.DataVersion("v"), tags={"t": "1"}
        )

    # Dagster knows the context by its name alone, and doesn't resolve the annotations of nested functions.
    plain_function: Any = lambda context: events(context, partitions=None)  # type: ignore[arg-type]  # noqa: E731
    plain = dg.asset(
        plain_function,
        name="plain",
        partitions_def=DAYS,
        backfill_policy=sb.single_run(),
        metadata={"partition_expr": "day"},
    )
    ours = make(events)
    assert runs(ours).success
    assert runs(plain).success
    names = ("k", "r", "o", "a", "p")
    expected = {key: numbered(event, *names) for key, event in runs.newest(plain).items()}
    assert expected[FOUR[0]] == ["partition", 1, 1, 1, 1]
    assert expected[FOUR[1]] == ["asset", 1, 1, 1, None]
    assert {key: numbered(event, *names) for key, event in runs.newest(ours).items()} == expected
    kept = ("t", VERSION, "dagster/data_version_is_user_provided")
    for key, event in runs.newest(plain).items():
        tags = event.tags or {}
        assert {name: (runs.newest(ours)[key].tags or {}).get(name) for name in kept} == {n: tags[n] for n in kept}


@pytest.mark.every_warehouse
def test_a_query_may_be_returned_in_a_result(runs: Runs, read: Read) -> None:
    def events(partitions: sb.PartitionSlice) -> dg.MaterializeResult:
        day = partitions.keys[0]
        sql = f"SELECT CAST('{day}' AS TIMESTAMP) AS day, 1 AS id, 2.0 AS value"
        return dg.MaterializeResult(value=sb.Query(sql), metadata={"mine": 1})

    asset = wap(events)
    assert runs(asset, keys=FOUR[:1]).success
    assert numbered(runs.newest(asset)[FOUR[0]], "mine") == [1]
    assert read("SELECT id, value FROM events") == [(1, 2.0)]


def some_result(returned: Callable[[pd.DataFrame], object], returns: Any = None) -> Callable[..., object]:
    def events(partitions: sb.PartitionSlice) -> Any:
        return returned(Source().frame(partitions.keys))

    events.__annotations__["return"] = returns
    if returns is None:
        del events.__annotations__["return"]
    return events


WRONG_RESULTS: dict[str, tuple[Callable[[pd.DataFrame], object], Any, str]] = {
    "no value": (lambda _: dg.MaterializeResult(metadata={"a": 1}), None, "without a value, so there are no rows"),
    "checks": (
        lambda rows: dg.MaterializeResult(value=rows, check_results=[dg.AssetCheckResult(passed=True)]),
        None,
        r"checks are its audits",
    ),
    "another asset": (
        lambda rows: dg.MaterializeResult("others", value=rows),
        None,
        "for others, and it computes events",
    ),
    "another output": (lambda rows: dg.Output(rows, "others"), None, "named others"),
    "another annotation": (dg.Output, pd.DataFrame, "returned a dg.Output, and is annotated with"),
    "no output": (lambda rows: rows, dg.Output[pd.DataFrame], "annotated with dg.Output, and returned a DataFrame"),
    "an event": (lambda _: dg.AssetMaterialization("events"), None, "returned a dg.AssetMaterialization"),
    "metadata that Dagster can't keep": (lambda rows: dg.Output(rows, metadata={"a": object()}), None, "metadata"),
}


@pytest.mark.parametrize(("returned", "returns", "says"), WRONG_RESULTS.values(), ids=WRONG_RESULTS)
def test_a_result_that_cannot_be_used_is_refused(
    runs: Runs, read: Read, make: Make, returned: Callable[[pd.DataFrame], object], returns: Any, says: str
) -> None:
    failure = runs.failure(make(some_result(returned, returns)))
    assert says in failure
    assert read("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'events%'") == [(0,)]


def test_a_result_may_name_its_own_asset_and_output(runs: Runs, make: Make) -> None:
    key = make(plain_function, name="events").key
    named: list[Callable[[pd.DataFrame], object]] = [
        lambda rows: dg.MaterializeResult(key, value=rows),
        lambda rows: dg.Output(rows, "result"),
    ]
    for returned in named:
        assert runs(make(some_result(returned))).success
    assert runs(make(some_result(dg.Output, dg.Output[pd.DataFrame]))).success
    assert runs(make(some_result(dg.Output, dg.Output))).success


def adding(source: Source) -> Callable[..., object]:
    def events(context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
        context.add_output_metadata({"output": partitions.keys[0]})
        context.op_execution_context.add_output_metadata({"by op": 1})
        dg.AssetExecutionContext.get().add_output_metadata({"by get": 2})
        context.add_asset_metadata({"asset": partitions.keys[0]})
        for key in partitions.keys:
            context.add_asset_metadata({"partition": key}, partition_key=key)
        return source.frame(partitions.keys)

    return events


ADDED = ("output", "asset", "partition", "by op", "by get")


@pytest.mark.every_warehouse
@pytest.mark.parametrize("batches", [None, sb.Batches(size=1)], ids=["one batch", "batches"])
def test_added_metadata_is_that_of_its_batch(runs: Runs, make: Make, batches: sb.Batches | None) -> None:
    asset = make(adding(Source()), batches=batches)
    assert runs(asset).success
    for key, event in runs.newest(asset).items():
        first = FOUR[0] if batches is None else key
        assert numbered(event, *ADDED) == [first, first, key, 1, 2]


def test_output_metadata_is_of_the_asset_for_a_function_with_the_op_context(runs: Runs, make: Make) -> None:
    def events(context: dg.OpExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
        context.add_output_metadata({"mine": 1})
        return Source().frame(partitions.keys)

    asset = make(events)
    assert runs(asset).success
    assert [numbered(event, "mine") for event in runs.newest(asset).values()] == [[1]] * 4


@pytest.mark.every_warehouse
@pytest.mark.parametrize("how", ["rejected", "raised"])
def test_what_went_live_has_the_users_metadata_if_a_later_batch_fails(runs: Runs, how: str) -> None:
    source = Source(spoiled={(FOUR[2], 0): -1.0}) if how == "rejected" else Source(broken={FOUR[2]})
    compute = adding(source)

    def events(context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> dg.MaterializeResult:
        day = partitions.keys[0]
        rows = compute(context, partitions)
        return dg.MaterializeResult(
            value=rows, metadata={"result": day}, tags={"of": day}, data_version=dg.DataVersion(day)
        )

    asset = wap(events, batches=sb.Batches(size=1, publish_each=True))
    assert not runs(asset).success
    live = {*FOUR[:2], *(FOUR[3:] if how == "rejected" else ())}
    assert green(runs.instance, "events") == live
    for key, event in runs.newest(asset).items():
        assert numbered(event, *ADDED, "result", "rows_staged") == [key, key, key, 1, 2, key, 3]
        assert ((event.tags or {})["of"], (event.tags or {})[VERSION]) == (key, key)


def test_publish_each_ends_with_each_partitions_own_tags(runs: Runs) -> None:
    def events(partitions: sb.PartitionSlice) -> dg.MaterializeResult:
        tags = {"of": partitions.keys[0]} if partitions.keys[0] != FOUR[1] else None
        return dg.MaterializeResult(value=Source().frame(partitions.keys), tags=tags)

    asset = wap(events, batches=sb.Batches(size=1, publish_each=True))
    result = runs(asset)
    assert result.success
    found = runs.newest(asset)
    assert {key: (event.tags or {}).get("of") for key, event in found.items()} == {
        key: None if key == FOUR[1] else key for key in FOUR
    }
    # As Dagster computes them, where the function returns none.
    assert len({(event.tags or {})[VERSION] for event in found.values()}) == 1


@pytest.mark.every_warehouse
def test_what_is_staged_beside_rejected_partitions_has_the_users_metadata(runs: Runs) -> None:
    def events(partitions: sb.PartitionSlice) -> dg.MaterializeResult:
        rows = Source(spoiled={(FOUR[2], 0): -1.0}).frame(partitions.keys)
        return dg.MaterializeResult(value=rows, metadata={"mine": 1}, tags={"t": "1"})

    asset = shadow(events)
    assert not runs(asset).success
    found = runs.newest(asset)
    assert {*found} == {*FOUR} - {FOUR[2]}
    assert {(*numbered(event, "mine"), (event.tags or {})["t"]) for event in found.values()} == {(1, "1")}


def test_a_failed_call_leaves_the_context_as_it_was(runs: Runs, make: Make) -> None:
    seen: list[object] = []

    def events(context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
        seen.append(context.get_step_execution_context())
        raise ValueError("broken")

    assert "broken" in runs.failure(make(events))
    assert "add_output_metadata" not in vars(seen[0])


def slice_of(*keys: str) -> sb.PartitionSlice:
    return sb.PartitionSlice(keys=keys, dimensions=())


def plain_function(partitions: sb.PartitionSlice) -> pd.DataFrame:
    """What it computes."""
    return Source().frame(partitions.keys)


def changed(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    return asset.with_attributes(group_names_by_key={asset.key: "others"})


def mapped(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(tags={"a": "b"}))


def loaded(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    module = types.ModuleType("module_of_assets")
    vars(module)["events"] = asset
    (found,) = dg.load_assets_from_modules([module], group_name="others", key_prefix="prefix")
    assert isinstance(found, dg.AssetsDefinition)
    return found


WAYS = [lambda asset: asset, changed, mapped, loaded, lambda asset: loaded(changed(mapped(asset)))]


@pytest.mark.parametrize("way", WAYS)
def test_the_function_can_be_tested_without_a_run(make: Make, way: Callable[..., dg.AssetsDefinition]) -> None:
    asset = way(make(plain_function))
    assert sb.compute_function(asset) is plain_function
    assert len(typing.cast("Any", sb.compute_function(asset))(slice_of(FOUR[0]))) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "arguments", [(), (dg.build_asset_context(),), (slice_of(FOUR[0]),), (dg.build_asset_context(), slice_of(FOUR[0]))]
)
def test_an_asset_that_is_called_says_how_to_test_it(
    make: Make, way: Callable[..., dg.AssetsDefinition], arguments: tuple[object, ...]
) -> None:
    asset = way(make(plain_function))
    with pytest.raises(sb.ConfigurationError, match=r"can't be called.*sb\.compute_function\(asset\)"):
        asset(*arguments)


def test_each_of_the_three_says_how_to_test_it_and_two_have_the_function() -> None:
    assets = sb.build_staged_wap_assets(plain_function, **OPTIONS)
    for asset in assets:
        with pytest.raises(sb.ConfigurationError, match="can't be called"):
            asset()
    assert sb.compute_function(assets.published) is plain_function
    with pytest.raises(sb.ConfigurationError, match="plain_function__audit has no function"):
        sb.compute_function(assets.audit)


def test_a_plain_asset_has_no_function_for_the_library() -> None:
    @dg.asset
    def plain() -> int:
        return 1

    for asset in (plain, dg.AssetsDefinition(specs=[dg.AssetSpec("plain")])):
        with pytest.raises(sb.ConfigurationError, match="plain has no function"):
            sb.compute_function(asset)


def test_a_changed_definition_runs(runs: Runs, make: Make) -> None:
    asset = changed(mapped(make(plain_function)))
    assert runs(asset).success


def taking(hint: object, name: str = "partitions") -> Callable[..., object]:
    """Return a function whose only parameter has an annotation; none, if it is the empty one."""
    names: dict[str, Any] = {"Source": Source, "__name__": __name__}
    exec(f"def events({name}): return Source().frame({name}.keys)", names)
    function: types.FunctionType = names["events"]
    if hint is not None:
        function.__annotations__[name] = hint
    return function


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (None, "partitions"),
        (sb.PartitionSlice, "anything"),
        (Optional[sb.PartitionSlice], "anything"),  # noqa: UP045
        (sb.PartitionSlice | None, "anything"),
        (None | sb.PartitionSlice, "partitions"),
        (Annotated[sb.PartitionSlice, "more"], "anything"),
        (Annotated[sb.PartitionSlice | None, "more"], "anything"),
    ],
)
def test_the_slices_parameter_is_known(runs: Runs, make: Make, hint: object, name: str) -> None:
    assert runs(make(taking(hint, name))).success


@pytest.mark.parametrize("hint", ["sb.PartitionSlice", "sb.PartitionSlice | None", "Optional[sb.PartitionSlice]"])
def test_the_slices_parameter_is_known_by_a_text(runs: Runs, make: Make, hint: str) -> None:
    def events(x: Any) -> pd.DataFrame:
        return Source().frame(x.keys)

    events.__annotations__ = {"x": hint}
    assert runs(make(events)).success


def test_an_optional_slice_is_given(runs: Runs, make: Make) -> None:
    def events(partitions: sb.PartitionSlice | None = None) -> pd.DataFrame:
        assert partitions is not None
        return Source().frame(partitions.keys)

    assert runs(make(events)).success


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (sb.PartitionSlice | str, "anything"),
        (list[sb.PartitionSlice], "anything"),
        (type[sb.PartitionSlice], "anything"),
        (Sequence[str], "partitions"),
        (list[str], "partitions"),
        (str, "partitions"),
        (object, "partitions"),
        (Any, "partitions"),
        (Optional[str], "partitions"),  # noqa: UP045
    ],
)
def test_a_parameter_that_cannot_be_understood_is_refused(make: Make, hint: object, name: str) -> None:
    with pytest.raises(sb.ConfigurationError, match=rf"the parameter {name} .*write {name}: sb\.PartitionSlice"):
        make(taking(hint, name))


@pytest.mark.parametrize(
    ("hint", "arguments"),
    [
        (None, {"ins": {"partitions": dg.AssetIn("upstream")}}),
        (Any, {"ins": {"partitions": dg.AssetIn("upstream")}}),
        (pd.DataFrame, {}),
        (pd.DataFrame, {"ins": {"partitions": dg.AssetIn("upstream")}}),
    ],
)
def test_an_input_may_have_the_name(make: Make, hint: object, arguments: Mapping[str, Any]) -> None:
    asset = make(taking(hint), **arguments)
    assert {key.to_user_string() for key in asset.dependency_keys} == {"upstream" if arguments else "partitions"}


def test_upstream_assets_may_come_from_an_iterator(make: Make) -> None:
    asset = make(plain_function, deps=(name for name in ("one", "two")))
    assert {key.to_user_string() for key in asset.dependency_keys} == {"one", "two"}


def with_rows(rows_per_day: int, partitions: sb.PartitionSlice, *, factor: float = 1.0) -> pd.DataFrame:
    """What it computes."""
    frame = Source(rows_per_day=rows_per_day).frame(partitions.keys)
    return frame.assign(value=frame["value"] * factor)


class Computes:
    """What it computes."""

    def __init__(self, rows_per_day: int) -> None:
        self.rows_per_day = rows_per_day

    def __call__(self, context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
        assert context.partition_keys
        return with_rows(self.rows_per_day, partitions)

    def events(self, context: dg.AssetExecutionContext, partitions: sb.PartitionSlice) -> pd.DataFrame:
        """What it computes."""
        return self(context, partitions)

    @classmethod
    def of_class(cls, partitions: sb.PartitionSlice) -> pd.DataFrame:
        """What it computes."""
        return with_rows(2, partitions)


class Untold:
    def __call__(self, partitions) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """What it computes."""
        return with_rows(2, partitions)


FUNCTIONS: dict[str, tuple[Callable[..., object], str | None]] = {
    "partial": (functools.partial(with_rows, 2, factor=3.0), "with_rows"),
    "partial by name": (functools.partial(with_rows, rows_per_day=2, factor=3.0), "with_rows"),
    "partial of a partial": (functools.partial(functools.partial(with_rows, 2), factor=3.0), "with_rows"),
    "bound method": (Computes(2).events, "events"),
    "partial of a method": (functools.partial(Computes(2).events), "events"),
    "class method": (Computes.of_class, "of_class"),
    "callable object": (Computes(2), None),
    "callable object that says it": (Untold(), None),
    "partial of an object": (functools.partial(Computes(2)), None),
}


@pytest.mark.parametrize(("function", "name"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_whatever_can_be_called_is_a_function(
    runs: Runs, make: Make, function: Callable[..., object], name: str | None
) -> None:
    asset = make(function) if name else make(function, name="named")
    assert asset.key.path[-1].removesuffix("__shadow") == (name or "named")
    assert asset.descriptions_by_key[asset.key].endswith("What it computes.")
    assert not asset.dependency_keys
    result = runs(asset)
    assert result.success
    found = metadata_by_partition(result, asset.op.name)
    assert [found[key]["rows_staged"] for key in FOUR] == [2] * 4
    assert sb.compute_function(asset) is function


def test_a_callable_object_needs_a_name(make: Make) -> None:
    with pytest.raises(sb.ConfigurationError, match=r"a Computes, has no name .*name=…"):
        make(Computes(2))


def generator(partitions: sb.PartitionSlice) -> Any:
    yield partitions


async def coroutine(partitions: sb.PartitionSlice) -> Any: ...


async def generated(partitions: sb.PartitionSlice) -> Any:
    yield partitions


class Yields:
    def __call__(self, partitions: sb.PartitionSlice) -> Any:
        yield partitions


@pytest.mark.parametrize(
    "function", [generator, coroutine, generated, functools.partial(generator), Yields(), functools.partial(Yields())]
)
def test_what_yields_or_awaits_is_refused(make: Make, function: Callable[..., object]) -> None:
    with pytest.raises(sb.ConfigurationError, match="not yield or await"):
        make(function, name="named")


def positional(partitions: sb.PartitionSlice, /) -> None: ...
def starred(*partitions: sb.PartitionSlice) -> None: ...
def double_starred(**partitions: sb.PartitionSlice) -> None: ...


@pytest.mark.parametrize("function", [positional, starred, double_starred])
def test_parameters_without_a_name_are_refused(make: Make, function: Callable[..., object]) -> None:
    with pytest.raises(sb.ConfigurationError, match="can't be given by its name"):
        make(function)


def test_what_cannot_be_called_is_refused(make: Make) -> None:
    with pytest.raises(sb.ConfigurationError, match="must be callable, not 3"):
        make(3, name="named")


def test_partials_and_methods_over_other_values_are_other_code() -> None:
    def code(function: Callable[..., object]) -> str | None:
        return ComputeFunction(function, resource_key="io_manager").digest()

    def partial(factor: float) -> Callable[..., object]:
        return functools.partial(with_rows, 2, factor=factor)

    assert code(partial(1.0)) == code(partial(1.0)) != code(partial(2.0))
    assert code(Computes(1).events) == code(Computes(1).events) != code(Computes(2).events)
    assert code(Computes(1)) == code(Computes(1)) != code(Computes(2))
