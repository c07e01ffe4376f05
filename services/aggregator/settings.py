"""Settings of the aggregator."""

from services.foundation.settings import RelayerSettings


class AggregatorSettings(RelayerSettings):
    """Nothing beyond what every service needs that writes to the chain: its account is the aggregator that federations name."""

    service = "aggregator"
