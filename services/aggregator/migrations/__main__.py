"""`python -m services.aggregator.migrations`: bring the aggregator's database to the newest revision; idempotent."""

from services.aggregator.settings import AggregatorSettings
from services.foundation.assembly import run_migration_command

if __name__ == "__main__":
    run_migration_command(AggregatorSettings)
