"""Settings of the trainer."""

from pydantic import Field

from services.foundation.settings import RelayerSettings


class TrainerSettings(RelayerSettings):
    """What the trainer needs beyond every service that writes to the chain. Its account is the issuer of receipts."""

    service = "trainer"

    verifier_url: str | None = Field(default=None, description="verifier that receipts are deposited at; without one their holders do it")
