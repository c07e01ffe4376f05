"""Settings of the aggregator."""

from collections.abc import Mapping

from pydantic import Field, field_validator

from rexis.client.connection import origin
from rexis.encoding import checksum_address
from rexis.errors import ConfigurationError, EncodingError
from services.foundation.settings import RelayerSettings


class AggregatorSettings(RelayerSettings):
    """What every service needs that writes to the chain, and the other aggregators that this one witnesses for.

    Its account is the address under which federations name it.
    """

    service = "aggregator"

    peers: str = Field(
        default="", description="aggregators whose sums this one recomputes and signs: address=https://host, several separated by commas"
    )

    @field_validator("peers")
    @classmethod
    def _addresses_and_origins(cls, value: str) -> str:
        try:
            return ",".join(f"{address}={url}" for address, url in _parsed(value).items())
        except (ConfigurationError, EncodingError) as error:
            raise ValueError(str(error)) from None

    @property
    def peer_urls(self) -> Mapping[str, str]:
        """Origin by checksum address."""
        return _parsed(self.peers)


def _parsed(text: str) -> dict[str, str]:
    pairs = [entry.strip().partition("=") for entry in text.split(",") if entry.strip()]
    found = {checksum_address(address.strip()): origin(url.strip()) for address, _, url in pairs}
    if len(found) < len(pairs):
        raise ConfigurationError("expected each aggregator once")
    return found
