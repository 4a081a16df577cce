"""Sets up the environment, then runs the tests: `python3 -m dagster_safe_backfill_tests`."""

import sys

from example_project.environment import ROOT, run_inside

if __name__ == "__main__":
    run_inside("dagster_safe_backfill_tests")
    import pytest

    raise SystemExit(
        pytest.main(
            [
                "-n",
                "2",
                "--dist",
                "worksteal",
                "--rootdir",
                str(ROOT),
                *(sys.argv[1:] or [str(ROOT / "dagster_safe_backfill_tests")]),
            ]
        )
    )
