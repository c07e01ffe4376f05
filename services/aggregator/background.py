"""The aggregator's background process: `python -m services.aggregator.background`. It has no jobs of its own yet."""

from services.aggregator.settings import AggregatorSettings
from services.foundation.assembly import run_service_background

if __name__ == "__main__":
    run_service_background(AggregatorSettings, lambda _settings, _engine: [])
