"""`python -m tests.campaign.mortal_process rounds|api RULE NOTE`: a part of the aggregator that dies of SIGKILL at its commits.

Whenever it is dead it is forked again, with everything loaded, so that hundreds of deaths take minutes. A commit counts if something was
written in its transaction. Where it died is appended to NOTE: `before` or `after`, and the tables that were written.

    after    after every commit: no life has two
    before   before the second commit of every life
    points   before and after the first commit that writes just these tables, for every such set of tables
"""

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import Connection, Engine, Pool, event

from services.aggregator.app import create_app
from services.aggregator.background import jobs
from services.aggregator.settings import AggregatorSettings
from services.foundation.database import open_engine

WRITES = re.compile(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM)\s+\"?(\w+)")
# Every life of the background process begins with it: if it always counted, nothing would come after it.
GREETING = {"aggregator_account"}
# Sleeps of the jobs in their own process.
PAUSE_S = 0.02


class Death:
    """Watches every engine of this process, and strikes by the rule."""

    def __init__(self, rule: str, note: Path) -> None:
        self.rule, self.note, self.commits = rule, note, 0
        self.known = set(note.read_text().splitlines()) if note.exists() else set()
        event.listen(Engine, "before_cursor_execute", self.at_statement)
        event.listen(Engine, "commit", self.at_commit)
        event.listen(Engine, "rollback", lambda connection: connection.info.pop("written", None))
        event.listen(Pool, "checkin", self.at_return)

    def at_statement(self, connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if found := WRITES.match(statement):
            connection.info.setdefault("written", set()).add(found[1])

    def at_commit(self, connection: Connection) -> None:
        written = connection.info.pop("written", None)
        if written is None or (written == GREETING and (self.rule == "before" or "after aggregator_account" in self.known)):
            return
        self.commits += 1
        point = ", ".join(sorted(written))
        if self.rule == "before":
            if self.commits == 2:
                self.strike(f"before {point}")
        elif self.rule == "after" or f"after {point}" not in self.known:
            if self.rule == "points" and f"before {point}" not in self.known:
                self.strike(f"before {point}")
            connection.info["struck"] = f"after {point}"

    def at_return(self, _connection: Any, record: Any) -> None:
        """A connection goes back to the pool: what it did is committed."""
        if (line := record.info.pop("struck", None)) is not None:
            self.strike(line)

    def strike(self, line: str) -> None:
        with self.note.open("a") as note:
            note.write(line + "\n")
        os.kill(os.getpid(), signal.SIGKILL)


def live(part: str, settings: AggregatorSettings) -> None:
    """One life."""
    if part == "api":
        uvicorn.run(create_app(settings), host="127.0.0.1", port=int(settings.public_url.rpartition(":")[2]), log_level="error")
        return
    engine = open_engine(settings.database_url)
    carrying = [job for job in jobs(settings, engine) if job.name != "uploads"]
    while True:
        for job in carrying:
            job.run()
        time.sleep(PAUSE_S)


def main(part: str, rule: str, note: Path) -> None:
    """Live again and again, until this process itself is killed."""
    settings, child = AggregatorSettings.from_environment(), 0

    def end(*_: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            Death(rule, note)
            live(part, settings)
            os._exit(1)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
