"""`python -m services.marketplace.migrations`: bring the marketplace's database to the newest revision; idempotent."""

from services.foundation.assembly import run_migration_command
from services.marketplace.settings import MarketplaceSettings

if __name__ == "__main__":
    run_migration_command(MarketplaceSettings)
