"""What says that rows are audited can't be made by hand."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest

import dagster_safe_backfill as sb
from dagster_safe_backfill.model.states import Audited, Origin
from dagster_safe_backfill.wap.publish import publish
from dagster_safe_backfill_tests.harness.publications import Publications, day_rows

PACKAGE = Path(sb.__file__).parent


@pytest.fixture
def audited(tmp_path: Path) -> Audited:
    table = Publications(tmp_path)
    return table.stage(day_rows(0, 1.0), [0], "1")


def test_audited_is_what_an_audit_returns(audited: Audited) -> None:
    with pytest.raises(sb.PublishError, match=r"main\.t: only an audit can make an Audited"):
        Audited(staged=audited.staged, results=audited.results)


def test_what_was_audited_cannot_become_something_else(audited: Audited) -> None:
    other = replace(audited.staged, rows={})
    with pytest.raises(sb.PublishError, match="only an audit"):
        replace(audited, staged=other)


def test_publish_takes_nothing_else() -> None:
    assert get_type_hints(publish)["audited"] is Audited


def test_one_module_can_make_it() -> None:
    makers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and "AUDIT_SEAL" in [alias.name for alias in node.names]
    }
    assert makers == {"wap/audit.py"}


def test_a_group_is_the_publication_if_none_is_named() -> None:
    origin = Origin(run_id="run", publication_id="first")
    assert origin.group == "first"
    assert replace(origin, publication_id="first.1").group == "first"
