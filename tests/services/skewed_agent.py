"""`python -m tests.services.skewed_agent SECONDS SITE`: `rexis agent run SITE --json` on a machine whose clock is so much ahead."""

import datetime
import sys
import time
from collections.abc import Callable
from typing import Self


def _shift(seconds: float) -> None:
    """Move the clock of this process; before anything else is loaded."""
    right: Callable[[], float] = time.time

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return super().now(tz) + datetime.timedelta(seconds=seconds)

    vars(datetime)["datetime"], vars(time)["time"] = Shifted, lambda: right() + seconds


if __name__ == "__main__":
    _shift(float(sys.argv[1]))
    sys.argv = ["rexis", "agent", "run", sys.argv[2], "--json"]
    from rexis.cli.command import main

    main()
