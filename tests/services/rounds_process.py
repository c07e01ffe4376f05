"""`python -m tests.services.rounds_process COMMIT WHEN`: an aggregator's jobs, without a lease, in a process that kills itself.

It dies of SIGKILL at its COMMIT-th transaction that may write: WHEN `before` or `after` that is committed.
"""

import os
import signal
import sys
import time
from typing import Any

from sqlalchemy import Connection, event

from services.aggregator.background import jobs
from services.aggregator.settings import AggregatorSettings
from services.foundation.database import open_engine


class Death:
    """Counts commits, and strikes."""

    def __init__(self, commit: int, when: str) -> None:
        self.left, self.when = commit, when

    def at_commit(self, connection: Connection) -> None:
        if not connection.get_execution_options().get("read_only", False):
            self.left -= 1
            if self.left == 0 and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)

    def at_return(self, *_: Any) -> None:
        """A connection goes back to the pool: what it did is committed."""
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    settings = AggregatorSettings.from_environment()
    engine = open_engine(settings.database_url)
    death = Death(int(sys.argv[1]), sys.argv[2])
    event.listen(engine, "commit", death.at_commit)
    event.listen(engine.pool, "checkin", death.at_return)
    # The reaper's empty transactions would use the commits up.
    carrying = [job for job in jobs(settings, engine) if job.name != "uploads"]
    while True:
        for job in carrying:
            job.run()
        time.sleep(0.1)
