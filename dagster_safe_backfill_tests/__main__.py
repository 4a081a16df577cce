"""Sets up the environment, then runs the tests: `python3 -m dagster_safe_backfill_tests`, all or with `--quick` some.

Takes what pytest takes.
"""

import sys
from pathlib import Path

from example_project.environment import ROOT, run_inside

if __name__ == "__main__":
    run_inside("dagster_safe_backfill_tests")
    import pytest

    given = sys.argv[1:]
    if not any(Path(argument.partition("::")[0]).exists() for argument in given):
        given.append(str(ROOT / "dagster_safe_backfill_tests"))
    # One process more than CI has cores: tests of daemons and browsers wait most of the time.
    raise SystemExit(pytest.main(["-n", "3", "--dist", "worksteal", "--rootdir", str(ROOT), *given]))
