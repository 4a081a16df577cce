"""What a call is asked, and asks: `--confirm`, secrets of `--config`, and looking again after a person's yes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from dagster_safe_backfill.cli.answers.answer import CommandError
from dagster_safe_backfill.cli.answers.output import Output
from dagster_safe_backfill.cli.plans.confirming import confirmed_of
from dagster_safe_backfill.cli.plans.secrets import check_no_secrets
from dagster_safe_backfill.model.plans import CONFIRMED_TAG, is_confirmed
from dagster_safe_backfill_tests.cli.conftest import Terminal
from dagster_safe_backfill_tests.cli.prepared import materialize


def _asks(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], bool]) -> None:
    """Let a person sit at the terminal, who answers."""
    monkeypatch.setattr(Output, "is_interactive", property(lambda _self: True))
    monkeypatch.setattr("click.confirm", lambda *_given, **_named: answer())


class TestAfterTheYes:
    def test_what_is_as_it_was_is_launched(self, offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        _asks(monkeypatch, lambda: True)
        told = offline("launch", "sales", "--last", "1")
        assert told.exit_code == 0
        assert "1: 2024-01-31, both included" in told.err

    def test_no_launches_nothing(self, offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        _asks(monkeypatch, lambda: False)
        told = offline("launch", "sales", "--last", "1")
        assert (told.exit_code, "nothing was launched" in told.err) == (3, True)

    def test_rows_changed_meanwhile(self, offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        materialize(offline, "sales", "2024-01-01")

        def answer() -> bool:
            offline.sql("UPDATE shop.sales SET amount = 99")
            return True

        _asks(monkeypatch, answer)
        told = offline("launch", "sales", "--partitions", "2024-01-01")
        assert (told.exit_code, "is no longer true" in told.err) == (3, True)
        with dg.DagsterInstance.get() as instance:
            assert not instance.get_backfills()

    def test_another_was_launched_meanwhile(self, offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        def answer() -> bool:
            assert offline("launch", "sales", "--last", "2", "--yes").exit_code == 0
            return True

        _asks(monkeypatch, answer)
        told = offline("launch", "sales", "--last", "1")
        assert (told.exit_code, "covers 1 of these partitions" in told.err) == (3, True)


class TestConfirm:
    def test_several_assets(self, offline: Terminal) -> None:
        arguments = ("launch", "sales", "batched", "--last", "25", "--yes", "--json")
        told = offline(*arguments)
        assert (told.exit_code, told.codes) == (3, ["guard_count"])
        assert told.json["errors"][0]["hint"] == "--confirm batched=25 allows exactly these"
        told = offline(*arguments, "--confirm", "batched=24")
        assert (told.exit_code, told.codes) == (3, ["guard_count"])
        told = offline(*arguments, "--confirm", "batched=25", "--confirm", "sales=25")
        assert told.exit_code == 0
        with dg.DagsterInstance.get() as instance:
            backfill = instance.get_backfill(told.data["backfill_id"])
        assert backfill is not None
        assert is_confirmed(backfill.tags, "batched", 25)
        assert not is_confirmed(backfill.tags, "by_day", 25)

    def test_the_runs_know_it(self, offline: Terminal) -> None:
        offline.write("broken", "2024-01-31")
        arguments = ("--last", "21", "--yes", "--in-process", "--json")
        told = offline("launch", "batched", "sales", *arguments, "--confirm", "batched=21")
        assert "TooManyPartitionsError" not in told.out
        assets = told.data["progress"]["assets"]
        states = next(one for one in assets if one["asset"] == "batched")["counts"]
        assert (states["live"], states["failed"]) == (20, 1)

    def test_one_asset_has_the_number_alone(self, offline: Terminal) -> None:
        told = offline("launch", "batched", "--last", "25", "--confirm", "25", "--yes", "--json")
        assert told.exit_code == 0
        with dg.DagsterInstance.get() as instance:
            backfill = instance.get_backfill(told.data["backfill_id"])
        assert backfill is not None
        assert backfill.tags[CONFIRMED_TAG] == "25"

    @pytest.mark.parametrize("texts", [["x"], ["a=x"], ["=5"], ["5", "6"], ["5", "a=5"], ["a=5", "a=6"], ["-1"]])
    def test_what_is_no_confirmation(self, texts: list[str]) -> None:
        with pytest.raises(CommandError) as caught:
            confirmed_of(texts)
        assert caught.value.problem.code == "bad_confirm"

    def test_a_number_for_several_assets(self, offline: Terminal) -> None:
        for confirmed in ("25", "by_day=25"):
            told = offline("plan", "sales", "batched", "--last", "25", "--confirm", confirmed, "--dry-run", "--json")
            assert (told.exit_code, told.codes) == (2, ["bad_confirm"])

    @pytest.mark.parametrize("text", ["{", '{"a": "5"}', '{"b": 5}', "", "{}"])
    def test_tags_that_confirm_nothing(self, text: str) -> None:
        assert not is_confirmed({CONFIRMED_TAG: text}, "a", 5)


SECRET = "hunter2-of-mine"


class TestSecrets:
    @pytest.mark.parametrize(
        "config",
        [
            {"password": SECRET},
            {"db_password": SECRET},
            {"apiKey": SECRET},
            {"api_key": 12345},
            {"ACCESS_TOKEN": SECRET},
            {"private_key": f"-----BEGIN RSA PRIVATE KEY-----{SECRET}"},
            {"cert": f"-----BEGIN PRIVATE KEY-----\n{SECRET}"},
            {"url": f"postgresql://ann:{SECRET}@db/sales"},
            {"conninfo": f"host=db user=ann password={SECRET}"},
            {"clients": [{"client_secret": SECRET}]},
            {"credentials": SECRET},
        ],
    )
    def test_what_is_refused(self, config: dict[str, object]) -> None:
        with pytest.raises(CommandError) as caught:
            check_no_secrets({"resources": {"db": {"config": config}}}, file="config.yaml")
        problem = caught.value.problem
        assert problem.code == "secret_in_config"
        assert "resources.db.config." in problem.message
        assert SECRET not in problem.message
        assert "{env: NAME}" in (problem.hint or "")

    @pytest.mark.parametrize(
        "config",
        [
            {"password": {"env": "DB_PASSWORD"}},
            {"max_tokens": 4096, "tokenizer": "words", "primary_key": "id"},
            {"url": "postgresql://db/sales?sslmode=require"},
            {"password": "", "use_token": True, "secret": None},
            {"secret_name": "prod/db"},
        ],
    )
    def test_what_is_fine(self, config: dict[str, object]) -> None:
        check_no_secrets({"resources": {"db": {"config": config}}}, file="config.yaml")

    def test_no_plan_is_saved_with_one(self, offline: Terminal) -> None:
        offline.write("run.yaml", f"resources:\n  io_manager:\n    config: {{password: {SECRET}}}\n")
        for verb in (("plan",), ("launch", "--yes")):
            told = offline(*verb, "sales", "--last", "1", "--config", "run.yaml", "--json")
            assert (told.exit_code, told.codes) == (2, ["secret_in_config"])
            assert SECRET not in told.out + told.err
        assert not Path("backfills").exists()


class TestThePlanOfALaunch:
    def test_it_is_saved(self, offline: Terminal) -> None:
        told = offline("launch", "sales", "--last", "1", "--yes", "--reason", "a fix", "--json")
        plan = json.loads(Path(told.data["path"]).read_text())
        assert plan == told.data["plan"]
        assert plan["reason"] == "a fix"
        with dg.DagsterInstance.get() as instance:
            backfill = instance.get_backfill(told.data["backfill_id"])
        assert backfill is not None
        assert backfill.tags["safe_backfill/plan"] == plan["plan_id"]
        assert (
            "its plan is saved as backfills/"
            in offline("launch", "sales", "--last", "2", "--yes", "--allow-overlap").err
        )

    def test_where_it_can_not_be_saved_it_is_launched_all_the_same(self, offline: Terminal) -> None:
        Path("backfills").write_text("no folder")
        told = offline("launch", "sales", "--last", "1", "--yes", "--json")
        assert (told.exit_code, told.data["path"], told.json["warnings"][1:]) == (0, None, [])
