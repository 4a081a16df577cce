"""What Python runs first: the daemon of `dagster dev` looks at the backfills each second, not each half minute."""

import sys

if "dagster._daemon" in sys.orig_argv:
    from dagster._daemon import controller

    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
