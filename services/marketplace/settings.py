"""Settings of the marketplace."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from services.foundation.settings import ServiceSettings


class MarketplaceSettings(ServiceSettings):
    """What the marketplace needs beyond every service's settings: the key that pays for relayed calls.

    Only the background process signs with it; the API of a cluster runs without.
    """

    service = "marketplace"

    relayer_key: SecretStr | None = Field(default=None, description="private key of the relayer, 64 hex digits; never in production")
    relayer_keystore: Path | None = Field(default=None, description="keystore v3 file of the relayer")
    relayer_passphrase: SecretStr | None = Field(default=None, description="opens relayer_keystore")

    @field_validator("relayer_key")
    @classmethod
    def _private_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", value.get_secret_value()):
            raise ValueError("expected 64 hex digits")
        return value

    @model_validator(mode="after")
    def _one_form_of_the_key(self) -> Self:
        if self.relayer_key is not None and self.relayer_keystore is not None:
            raise ValueError("REXIS_RELAYER_KEY and REXIS_RELAYER_KEYSTORE are both set; which key pays would be a guess: unset one")
        if (self.relayer_keystore is None) != (self.relayer_passphrase is None):
            raise ValueError("REXIS_RELAYER_KEYSTORE and REXIS_RELAYER_PASSPHRASE belong together: set both or neither")
        if self.env == "production" and self.relayer_key is not None:
            raise ValueError("REXIS_ENV=production refuses REXIS_RELAYER_KEY: a raw key belongs into a keystore (REXIS_RELAYER_KEYSTORE)")
        return self
