"""The script for the first day with an account, run on the emulator: its lines work, or say that they can't there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("fakesnow", reason="fakesnow needs Python 3.11")

ACCOUNT_ONLY = {
    "publications keep each other off (clustered)",
    "how long the lock of a killed process lives",
    "a swap keeps tags, and what becomes of a stream that may be lost",
    "a stream sees what changed, and goes on (merge)",
    "a stream sees what changed, and goes on (replace)",
    "time travel reads what was before",
    "a role with the documented privileges is enough, with future grants to others",
    "a publication of a few days reads a few micro-partitions, in seconds by statement",
    "collations are described, and what differs in any byte is told apart",
    "a user whose session parameters are all odd gets the same rows",
}


def test_each_line_passes_on_the_emulator_or_says_that_it_needs_an_account(tmp_path: Path) -> None:
    from dagster_safe_backfill_tests.snowflake.live import main

    path = tmp_path / "report.json"
    status = main(["--emulated", "--report", str(path)])
    verdicts = {one["line"]: one for one in json.loads(path.read_text())["verdicts"]}
    failed = {line: one["found"] for line, one in verdicts.items() if one["outcome"] == "FAIL"}
    assert failed == {}
    assert status == 0
    assert {line for line, one in verdicts.items() if one["outcome"] == "account only"} == ACCOUNT_ONLY
    assert len(verdicts) == 42


def test_without_a_login_it_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dagster_safe_backfill_tests.snowflake.live import main

    monkeypatch.delenv("DSB_SNOWFLAKE_ACCOUNT", raising=False)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "DSB_SNOWFLAKE_ACCOUNT" in capsys.readouterr().err
