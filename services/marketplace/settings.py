"""Settings of the marketplace."""

from services.foundation.settings import RelayerSettings


class MarketplaceSettings(RelayerSettings):
    """Nothing beyond what every service needs that writes to the chain."""

    service = "marketplace"
