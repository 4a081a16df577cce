"""The JSON is what its page says. That each answer of each other test is so, `Terminal` checks."""

from __future__ import annotations

import json
import re
import typing
from typing import Any

import pytest
from pydantic import ValidationError

from dagster_safe_backfill.cli.answers.answer import Exit, unreachable
from dagster_safe_backfill.cli.answers.data.envelope import Envelope, ErrorData
from dagster_safe_backfill.cli.following import here, watching
from dagster_safe_backfill.cli.main import VERBS
from dagster_safe_backfill_tests.cli import json_page
from dagster_safe_backfill_tests.cli.answers import check_answer, data_type, nested
from dagster_safe_backfill_tests.cli.codes import MEANINGS, exits_of, raised
from dagster_safe_backfill_tests.cli.conftest import Terminal

TYPES = list(dict.fromkeys([Envelope, ErrorData, *(kind for verb in VERBS for kind in nested(data_type(verb)))]))


def _checked(answer: Any, verb: str) -> None:
    check_answer(json.dumps(answer), exit_code=answer["exit_code"], verb=verb)


def test_the_page_is_that_of_the_code() -> None:
    """A key that comes, goes or is renamed is seen here."""
    assert json_page.PAGE.read_text() == json_page.page(), "python -m dagster_safe_backfill_tests.cli.reference"


def test_the_headings_of_the_page_lead_to_one_place_each() -> None:
    page = json_page.PAGE.read_text()
    anchors = [heading.lower().replace(" ", "-") for heading in re.findall(r"^##+ (.+)$", page, re.MULTILINE)]
    assert len(anchors) == len({*anchors})
    assert {*re.findall(r"\(#([\w-]+)\)", page)} <= {*anchors}


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_each_key_is_described(kind: Any) -> None:
    described = json_page.keys_described(kind)
    assert described.keys() == typing.get_type_hints(kind).keys()
    assert all(meaning.endswith(".") for meaning in described.values())


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_are_answers(verb: str) -> None:
    call, answer = json_page.example(verb)
    assert call.startswith(f"safe-backfill {verb} ")
    assert answer["data"] is not None
    _checked(answer, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_a_key_more_or_less_is_noticed(verb: str) -> None:
    """Whatever checks the answers of all other tests can fail."""
    answer: Any = json_page.example(verb)[1]
    data = answer["data"]
    first = next(iter(data))
    for wrong in (
        {**data, "another": 1},
        {name: value for name, value in data.items() if name != first},
        {**data, first: object.__name__ * 2 if not isinstance(data[first], str) else 1},
    ):
        with pytest.raises(ValidationError):
            _checked({**answer, "data": wrong}, verb)
    with pytest.raises(ValidationError):
        _checked({**answer, "another": 1}, verb)


def test_every_code_of_the_command_has_a_meaning_and_no_other() -> None:
    assert raised().keys() == MEANINGS.keys()
    assert list(MEANINGS) == sorted(MEANINGS)
    known = {int(one) for one in Exit}
    assert all(exits_of(code) <= known for code in MEANINGS)


def test_a_code_of_another_exit_code_is_noticed() -> None:
    error = {"code": "unknown_asset", "message": "no", "hint": None, "partitions": []}
    answer = {"schema": "safe-backfill/1", "verb": "plan", "data": None, "warnings": [], "errors": [error]}
    _checked({**answer, "exit_code": 2}, "plan")
    with pytest.raises(AssertionError):
        _checked({**answer, "exit_code": 3}, "plan")
    with pytest.raises(KeyError):
        _checked({**answer, "exit_code": 2, "errors": [{**error, "code": "unheard_of"}]}, "plan")


def test_launch_answers_in_one_shape(offline: Terminal) -> None:
    """`Terminal` holds each against the type; here is what is empty in which case."""
    nothing = offline("launch", "sales", "--failed", "--yes", "--json").data
    assert (nothing["plan"], nothing["backfill_id"], nothing["guards"], nothing["progress"]) == (None, None, [], None)
    dry = offline("launch", "sales", "--last", "1", "--dry-run", "--json").data
    assert (dry["dry_run"], dry["backfill_id"], dry["path"]) == (True, None, None)
    assert dry["plan"]["launched"] == ["sales"]
    file = str(offline.folder / "plan.json")
    assert offline("plan", "sales", "--last", "1", "--out", file).exit_code == 0
    launched = offline("launch", file, "--yes", "--json").data
    assert (launched["dry_run"], launched["path"], launched["progress"]) == (False, file, None)
    assert launched["backfill_id"] in launched["commands"]["watch"]
    assert launched["commands"]["retry"] is None


def test_the_id_is_not_lost_if_the_watching_fails(offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_given: object, **_named: object) -> None:
        raise unreachable("unreachable", "it went away")

    monkeypatch.setattr(here, "follow", gone)
    told = offline("launch", "sales", "--last", "1", "--yes", "--watch", "--json")
    assert (told.exit_code, told.codes, told.data["progress"]) == (5, ["unreachable"], None)
    assert offline("status", told.data["backfill_id"], "--json").data["backfill_id"] == told.data["backfill_id"]
    assert told.data["plan"]["plan_id"]


def test_ctrl_c_before_anything_was_read(offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "find", interrupted)
    told = offline("watch", "abcdefgh", "--json")
    assert (told.exit_code, told.codes, told.data) == (130, ["detached"], None)


def test_what_stages_only_has_nothing_to_undo(offline: Terminal) -> None:
    told = offline("launch", "staged__shadow", "--last", "1", "--yes", "--json")
    assert {name for name, call in told.data["commands"].items() if call} == {"watch", "stop"}
