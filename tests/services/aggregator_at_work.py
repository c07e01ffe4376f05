"""An aggregator at work in this process: its API on a port, and its periodic jobs beside it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from services.aggregator.background import jobs
from services.aggregator.settings import AggregatorSettings
from tests.services.command_parties import unsettled_environment
from tests.services.service_applications import serving


@contextmanager
def at_work(settings: AggregatorSettings, engine: Engine) -> Iterator[None]:
    """The aggregator's API and its periodic jobs."""
    stopping, work = threading.Event(), jobs(settings, engine)

    def run() -> None:
        while not stopping.wait(0.1):
            for job in work:
                with unsettled_environment():
                    job.run()

    thread = threading.Thread(target=run)
    with serving(settings):
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join(20)
