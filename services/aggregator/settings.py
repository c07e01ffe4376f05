"""Settings of the aggregator."""

from services.foundation.settings import ServiceSettings


class AggregatorSettings(ServiceSettings):
    """Nothing beyond what every service needs: the aggregator writes nothing to the chain yet."""

    service = "aggregator"
