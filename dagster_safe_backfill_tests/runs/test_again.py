"""What a run computes that is launched, retried or re-executed after an earlier one, and which rows go live."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill_tests.harness.assets import green
from dagster_safe_backfill_tests.harness.backends import Backend
from dagster_safe_backfill_tests.harness.rates import JANUARY, Rates, defined

pytestmark = pytest.mark.every_warehouse

D = JANUARY
EACH = sb.Batches(size=1, publish_each=True, canary=False)


@pytest.fixture
def rates(backend: Backend, instance: dg.DagsterInstance) -> Rates:
    return Rates(backend, instance)


def days(calls: list[tuple[str, ...]]) -> list[str]:
    return [key for call in calls for key in call]


class TestPublishedWorkIsDone:
    """With publish_each, a retry or re-execution doesn't compute again what it published itself."""

    @pytest.mark.parametrize("from_failure", [False, True])
    @pytest.mark.parametrize("is_killed", [False, True])
    def test_a_re_execution(self, rates: Rates, is_killed: bool, from_failure: bool) -> None:
        (rates.kills if is_killed else rates.breaks)(D[3])
        rates.run([defined(rates, batches=EACH)], D[0], D[4])
        assert rates.values() == [1, 2, 3]
        rates.run([defined(rates, batches=EACH)], D[0], D[4], again=rates.last, from_failure=from_failure)
        assert days(rates.calls) == [*D[3:5]]
        assert rates.values() == [1, 2, 3, 4, 5]
        assert green(rates.instance, "revenue") == set(D[:5])

    def test_a_retry_of_the_step(self, rates: Rates) -> None:
        rates.breaks(D[3])
        rates.run([defined(rates, batches=EACH, retry_policy=dg.RetryPolicy(max_retries=1))], D[0], D[4])
        assert days(rates.calls) == [*D[:4], *D[3:5]]
        assert rates.values() == [1, 2, 3, 4, 5]

    def test_a_re_execution_of_a_re_execution(self, rates: Rates) -> None:
        for key in (D[2], D[4]):
            rates.breaks(key)
            rates.run([defined(rates, batches=EACH)], D[0], D[4], again=rates.last)
        rates.run([defined(rates, batches=EACH)], D[0], D[4], again=rates.last)
        assert days(rates.calls) == [D[4]]
        assert rates.values() == [1, 2, 3, 4, 5]

    def test_of_a_backfill(self, rates: Rates) -> None:
        rates.breaks(D[3])
        rates.run([defined(rates, batches=EACH)], D[0], D[4], tags={"dagster/backfill": "first"})
        tags = {"dagster/backfill": "again", "dagster/root_backfill_id": "first"}
        rates.run([defined(rates, batches=EACH)], D[0], D[4], tags=tags)
        assert days(rates.calls) == [*D[3:5]]
        assert rates.values() == [1, 2, 3, 4, 5]

    def test_killed_between_the_publication_and_its_events(self, rates: Rates, monkeypatch: pytest.MonkeyPatch) -> None:
        from dagster_safe_backfill.runs import wap_run

        real = wap_run.materialization_events

        def killed(*args: Any) -> Any:
            rates.kills("now")
            rates.called(["now"])

        monkeypatch.setattr(wap_run, "materialization_events", killed)
        rates.run([defined(rates, batches=EACH)], D[0], D[2])
        assert rates.values() == [1]
        assert green(rates.instance, "revenue") == set()
        monkeypatch.setattr(wap_run, "materialization_events", real)
        rates.run([defined(rates, batches=EACH)], D[0], D[2], again=rates.last)
        assert days(rates.calls) == [*D[1:3]]
        assert rates.values() == [1, 2, 3]
        assert green(rates.instance, "revenue") == set(D[:3])

    def test_not_if_live_changed_since(self, rates: Rates) -> None:
        rates.breaks(D[3])
        rates.run([defined(rates, batches=EACH)], D[0], D[3])
        rates.backend.change(f"UPDATE revenue SET value = 99 WHERE day = '{D[1]}'")
        rates.run([defined(rates, batches=EACH)], D[0], D[3], again=rates.last)
        assert days(rates.calls) == [D[1], D[3]]
        assert rates.values() == [1, 2, 3, 4]

    def test_not_if_another_run_published_since(self, rates: Rates) -> None:
        rates.breaks(D[3])
        rates.run([defined(rates, batches=EACH)], D[0], D[3])
        broken = rates.last
        rates.held["rates"] = 10
        rates.run([defined(rates, batches=EACH)], D[1], D[1])
        rates.held["rates"] = 1
        rates.run([defined(rates, batches=EACH)], D[0], D[3], again=broken)
        assert days(rates.calls) == [D[1], D[3]]
        assert rates.values() == [1, 2, 3, 4]

    def test_not_if_it_was_rolled_back(self, rates: Rates) -> None:
        rates.breaks(D[2])
        asset = defined(rates, batches=EACH)
        rates.run([asset], D[0], D[2])
        broken = rates.last
        job = sb.build_rollback_job(asset)
        resources = {"io_manager": rates.backend.io_manager}
        assert job.execute_in_process(resources=resources, instance=rates.instance).success
        assert rates.values() == [1]
        rates.run([asset], D[0], D[2], again=broken)
        assert days(rates.calls) == [*D[1:3]]
        assert rates.values() == [1, 2, 3]

    def test_not_if_its_input_or_code_changed(self, rates: Rates) -> None:
        source = dg.AssetSpec("source")
        rates.held["rates"] = 3
        rates.breaks(D[2])
        rates.run([defined(rates, batches=EACH, deps=[source]), source], D[0], D[2])
        rates.held["rates"] = 1
        rates.instance.report_runless_asset_event(dg.AssetMaterialization("source"))
        rates.run([defined(rates, batches=EACH, deps=[source]), source], D[0], D[2], again=rates.last)
        assert rates.values() == [1, 2, 3]

    @pytest.mark.parametrize("is_killed", [False, True])
    def test_a_new_launch_computes_what_it_was_asked_for(self, rates: Rates, is_killed: bool) -> None:
        rates.held["rates"] = 3
        (rates.kills if is_killed else rates.breaks)(D[3])
        rates.run([defined(rates, batches=EACH)], D[0], D[3])
        rates.held["rates"] = 1
        rates.run([defined(rates, batches=EACH)], D[0], D[3])
        assert days(rates.calls) == [*D[:4]]
        assert rates.values() == [1, 2, 3, 4]

    def test_a_re_execution_of_a_run_that_succeeded_computes_all(self, rates: Rates) -> None:
        rates.held["rates"] = 3
        rates.run([defined(rates, batches=EACH)], D[0], D[2])
        rates.held["rates"] = 1
        rates.run([defined(rates, batches=EACH)], D[0], D[2], again=rates.last, from_failure=False)
        assert rates.values() == [1, 2, 3]


class TestSourceThatDagsterDoesNotKnow:
    """A day is rejected, and the source is mended for all days."""

    def rejected(self, rates: Rates, *further: str, **options: Any) -> None:
        rates.held["rates"] = 100
        assert "small" in rates.said(rates.run([defined(rates, **options)], D[0], D[5]))
        rates.held["rates"] = 1

    @pytest.mark.parametrize("again", ["launched", "re-executed", "a backfill"])
    def test_all_days_are_computed_again(self, rates: Rates, again: str) -> None:
        self.rejected(rates)
        tags = {"dagster/backfill": "new"} if again == "a backfill" else None
        by = rates.last if again == "re-executed" else None
        rates.run([defined(rates)], D[0], D[5], again=by, from_failure=False, tags=tags)
        assert days(rates.calls) == [*D[:6]]
        assert rates.values() == [1, 2, 3, 4, 5, 6]

    def test_what_a_rejected_run_had_published(self, rates: Rates) -> None:
        self.rejected(rates, batches=EACH)
        assert rates.values() == [100, 200, 300, 400]
        rates.run([defined(rates, batches=EACH)], D[0], D[5])
        assert rates.values() == [1, 2, 3, 4, 5, 6]

    def test_what_was_computed_after_the_rejection_by_the_same_run_before_it_was_killed(self, rates: Rates) -> None:
        """The second batch is rejected, the third passes, the fourth is killed: all come from the same bad source."""
        first = sb.Batches(size=1, canary=False)
        audits = [sb.expression("value <> 20", name="odd")]
        rates.held["rates"] = 10
        rates.kills(D[3])
        assert rates.run([defined(rates, audits=audits, batches=first)], D[0], D[3]) is None
        rates.held["rates"] = 1
        rates.run([defined(rates, audits=audits, batches=first)], D[0], D[3])
        assert days(rates.calls) == [*D[:4]]
        assert rates.values() == [1, 2, 3, 4]

    def test_a_re_execution_from_failure_of_one_of_all(self, rates: Rates) -> None:
        """Who asked for all again, and then for what is missing of that, asked for nothing of the first run."""
        self.rejected(rates)
        rates.kills(D[1])
        assert rates.run([defined(rates)], D[0], D[5], again=rates.last, from_failure=False) is None
        rates.run([defined(rates)], D[0], D[5], again=rates.last)
        assert days(rates.calls) == [*D[1:6]]
        assert rates.values() == [1, 2, 3, 4, 5, 6]

    def test_a_step_that_fails_is_not_retried_after_a_rejection(self, rates: Rates) -> None:
        """The retry would compute the same from the same source."""
        self.rejected(rates, retry_policy=dg.RetryPolicy(max_retries=2))
        assert days(rates.calls) == [*D[:6]]

    @pytest.mark.parametrize("error", [RuntimeError, dg.Failure])
    def test_an_error_of_the_function(self, rates: Rates, error: Any) -> None:
        """Whoever mends the source after an error may have mended what was read before it."""
        rates.held["rates"] = 3
        rates.breaks(D[2], error)
        rates.run([defined(rates)], D[0], D[2])
        rates.held["rates"] = 1
        rates.run([defined(rates)], D[0], D[2])
        assert rates.values() == [1, 2, 3]
