"""Recording the examples of the page of the JSON: `python -m dagster_safe_backfill_tests.cli.record_examples`.

It takes some minutes, as it waits for a real `dagster dev`. Only the address and the folder are replaced.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from dagster_safe_backfill.cli.main import run
from dagster_safe_backfill_tests.cli.answers import check_answer
from dagster_safe_backfill_tests.cli.json_page import EXAMPLES
from dagster_safe_backfill_tests.e2e.dagster_dev import served

_PROJECT = "dagster_safe_backfill_tests.cli.project"
_SHOWN_ADDRESS, _SHOWN_FOLDER, _SHOWN_PROJECT = "http://localhost:3000", "/srv/shop", "shop.definitions"


class _Recorder:
    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def call(self, *arguments: str, has_code: bool = False, is_recorded: bool = False) -> Any:
        """Make a call, record it if asked to, and return its data."""
        place = ("--url", self.address, *(("-m", _PROJECT) if has_code else ()))
        sys.modules.pop(_PROJECT, None)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = run([*arguments, "--json", *place])
        check_answer(out.getvalue(), exit_code=code, verb=arguments[0])
        if is_recorded:
            words = [f'"{word}"' if {*word} & {*" ("} else word for word in arguments]
            text = f"{' '.join(['safe-backfill', *words, '--json'])}\n{out.getvalue()}"
            for real, shown in self._replaced().items():
                text = text.replace(real, shown)
            (EXAMPLES / f"{arguments[0]}.txt").write_text(text)
        return json.loads(out.getvalue())["data"]

    def record(self, *arguments: str, has_code: bool = False) -> Any:
        return self.call(*arguments, has_code=has_code, is_recorded=True)

    def _replaced(self) -> dict[str, str]:
        return {self.address: _SHOWN_ADDRESS, str(self.folder): _SHOWN_FOLDER, _PROJECT: _SHOWN_PROJECT}

    def all(self) -> None:
        """Record an answer of each verb."""
        days = ("--from", "2024-01-01", "--to", "2024-01-02")
        self.record("plan", "sales", *days, "--reason", "a fix", has_code=True)
        launched = self.record("launch", "sales", *days, "--reason", "a fix", "--yes", has_code=True)
        (self.folder / "bad").write_text("2024-01-04")
        rejected = self.call("launch", "batched", "--from", "2024-01-03", "--to", "2024-01-04", "--yes")["backfill_id"]
        staged = self.call("launch", "staged__shadow", "--last", "2", "--yes")["backfill_id"]
        self.call("watch", launched["backfill_id"])
        self.record("status", launched["backfill_id"])
        self.record("watch", rejected)
        (self.folder / "bad").unlink()
        self.record("retry", rejected)
        self.record("list", "--limit", "1", "--asset", "sales")
        self.call("watch", staged)
        self.call("launch", "staged__audit", "--yes", "--watch")
        self.record("approve", "staged", "--yes")
        self.record("diff", "sales", "--publication", "newest", "--aggregate", "sum(amount)", "--rows", *days,
                    has_code=True)  # fmt: skip
        self.record("rollback", "sales", has_code=True)
        self.record("history", "sales", "--limit", "1", has_code=True)
        self.record("retention", "batched", has_code=True)
        self.record("doctor")
        (self.folder / "slow").write_text("60")
        last = self.call("launch", "by_day", "--last", "2", "--yes")["backfill_id"]
        self.record("cancel", last, "--now")


def main() -> None:
    """Record all examples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SALES_FOLDER"] = name
        os.environ["DAGSTER_HOME"] = str(folder / "home")
        EXAMPLES.mkdir(exist_ok=True)
        with served(folder, ["-m", _PROJECT]) as address:
            # Plans are saved in the working directory.
            os.chdir(folder)
            _Recorder(folder, address).all()


if __name__ == "__main__":
    main()
