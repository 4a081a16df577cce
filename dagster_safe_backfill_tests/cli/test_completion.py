"""What a shell completes: verbs, options, and what Dagster knows."""

from __future__ import annotations

import pytest

from dagster_safe_backfill.cli.main import run
from dagster_safe_backfill_tests.cli.conftest import Terminal


def _completed(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """Return what bash is told for the last of some words."""
    monkeypatch.setenv("_SAFE_BACKFILL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["safe-backfill", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    terminal.capture.readouterr()
    assert run([]) == 0
    return [line.partition(",")[2] for line in terminal.capture.readouterr().out.splitlines() if line]


def test_verbs(offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _completed(offline, monkeypatch, "pl") == ["plan"]


def test_assets(online: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    place = online.place
    assert _completed(online, monkeypatch, "plan", *place, "sa") == ["sales"]
    assert "staged__shadow" in _completed(online, monkeypatch, "plan", *place, "st")


def test_partition_keys(online: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("plan", *online.place, "sales", "--from")
    assert _completed(online, monkeypatch, *words, "2024-01-3") == ["2024-01-30", "2024-01-31"]
    words = ("plan", *online.place, "sales", "--partitions")
    found = _completed(online, monkeypatch, *words, "2024-01-01,2024-01-3")
    assert found == ["2024-01-01,2024-01-30", "2024-01-01,2024-01-31"]


def test_without_a_dagster_nothing_is_said(offline: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _completed(offline, monkeypatch, "plan", "--url", "http://127.0.0.1:1", "sa") == []
