"""An aggregator at work in this process: its API on a port, and its periodic jobs beside it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from services.aggregator.background import jobs
from services.aggregator.settings import AggregatorSettings
from tests.services.command_parties import working
from tests.services.service_applications import serving


@contextmanager
def at_work(settings: AggregatorSettings, engine: Engine) -> Iterator[None]:
    """The aggregator's API and its periodic jobs."""
    with serving(settings), working(jobs(settings, engine)):
        yield
