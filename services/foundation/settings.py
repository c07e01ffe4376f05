"""One frozen settings object per process, read once from the environment (`REXIS_…`) and passed down.

Everything that can hold a secret (keys, and URLs with a password) has a `_FILE` variant (`REXIS_SESSION_KEY_FILE=/run/secrets/session`),
so that a cluster mounts it instead of putting it into the environment. Nothing here has an embedded default: `services.local` starts
the embedded parts and passes their URLs; `REXIS_ENV=production` refuses URLs that point to them.
"""

import os
import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from rexis.errors import ConfigurationError

LOCAL_CHAIN_ID = 31337
ChainPolicyName = Literal["local", "qbft", "op-stack", "arbitrum", "generic"]
URL_FIELDS = ("database_url", "redis_url", "object_store_url", "chain_rpc_url")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


class _FileVariants(PydanticBaseSettingsSource):
    """Reads `REXIS_<FIELD>_FILE` for secrets and URLs."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        variable = f"REXIS_{field_name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        secret = field.annotation in (SecretStr, SecretStr | None) or field_name in URL_FIELDS
        if path is None or not secret:
            return None, field_name, False
        if variable in os.environ:
            raise ConfigurationError(f"{variable} and {variable}_FILE are both set; keep one of them")
        try:
            return Path(path).read_text().strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{variable}_FILE={path} can not be read: {error}") from error

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class ServiceSettings(BaseSettings):
    """What every service needs. Each service derives its own class and sets `service`.

    All of a service's processes (API, background, worker) read the same variables; two services never share an environment.
    """

    service: ClassVar[str]

    model_config = SettingsConfigDict(env_prefix="REXIS_", frozen=True, extra="ignore")

    env: Literal["local", "production"] = "local"
    debug: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    public_url: str = Field(description="origin under which callers reach this service; sign-in messages are bound to it")
    database_url: str
    redis_url: str
    object_store_url: str = Field(description="file:///folder, s3://bucket/prefix, or memory:// in tests")
    session_key: SecretStr = Field(description="Ed25519 private key, 64 hex digits; signs this service's session tokens")

    chain_rpc_url: str = Field(description="JSON-RPC node; of several, separated by commas, one is asked until it does not answer")
    chain_id: int = LOCAL_CHAIN_ID
    deployment_file: Path | None = Field(
        default=None, description="deployment record to trust; default: the one shipped in rexis.chain for chain_id"
    )

    chain_policy: ChainPolicyName | None = Field(
        default=None, description="how the chain is treated (docs/guides/operator.md); default: by chain_id, generic for an unknown one"
    )
    max_fee_gwei: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="most that this service offers per gas, instead of what chain_policy allows"
    )

    max_body_bytes: int = Field(default=1 << 20, gt=0, description="largest request body outside the upload protocol")
    read_timeout_s: float = Field(default=30.0, gt=0, description="longest silence of a client inside a request body")
    drain_s: float = Field(default=0.0, ge=0, description="time between SIGTERM and the closing of the listener, with /readyz at 503")

    heartbeat_file: Path | None = Field(default=None, description="file that a background process or worker touches while it is well")

    @field_validator("session_key")
    @classmethod
    def _ed25519_key(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", value.get_secret_value()):
            raise ValueError("expected 64 hex digits")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _FileVariants(settings_cls)

    @model_validator(mode="after")
    def _refuse_embedded_parts_in_production(self) -> Self:
        if self.env == "production":
            refused = [
                ("REXIS_DEBUG", self.debug, "debug output is on"),
                ("REXIS_DATABASE_URL", not self.database_url.startswith("postgresql"), "only PostgreSQL 15+ is a production database"),
                ("REXIS_REDIS_URL", urlsplit(self.redis_url).hostname in LOOPBACK_HOSTS, "a Redis on loopback is the embedded one"),
                ("REXIS_OBJECT_STORE_URL", not self.object_store_url.startswith("s3://"), "only S3 is a production object store"),
                ("REXIS_CHAIN_ID", self.chain_id == LOCAL_CHAIN_ID, f"{LOCAL_CHAIN_ID} is the local development chain"),
                ("REXIS_CHAIN_POLICY", self.chain_policy == "local", "only the local development chain may lose what was final"),
                ("REXIS_PUBLIC_URL", not self.public_url.startswith("https://"), "tokens must not travel without TLS"),
            ]
            reasons = [f"{name}: {why}" for name, wrong, why in refused if wrong]
            if reasons:
                raise ValueError("REXIS_ENV=production refuses: " + "; ".join(reasons))
        return self

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment.

        Raises:
            ConfigurationError: a variable is missing or refused; the message names each one.
        """
        try:
            return cls(**{})
        except ValidationError as error:
            lines = [
                (f"REXIS_{'_'.join(str(part) for part in item['loc']).upper()}: " if item["loc"] else "") + item["msg"]
                for item in error.errors(include_input=False)
            ]
            raise ConfigurationError(f"the {cls.service} can not start: " + "; ".join(lines)) from None

    def masked(self) -> dict[str, Any]:
        """The effective settings for the first log line, without secrets and what a URL can hide: password, query, key in an RPC path."""
        shown = self.model_dump(mode="json")
        for name in URL_FIELDS:
            urls = str(shown[name]).split(",") if name == "chain_rpc_url" else [str(shown[name])]
            shown[name] = ",".join(_masked(url.strip(), hide_path=name == "chain_rpc_url") for url in urls)
        return shown


def _masked(text: str, *, hide_path: bool) -> str:
    url = urlsplit(text)
    credentials, _, host = url.netloc.rpartition("@")
    path = "/***" if hide_path and url.path.strip("/") else url.path
    return f"{url.scheme}://{'***@' if credentials else ''}{host}{path}{'?***' if url.query else ''}"


class RelayerSettings(ServiceSettings):
    """Settings of a service that writes to the chain: the key that signs for the service, and pays for the calls that it relays.

    Only the background process and workers sign with it; the API of a cluster runs without.
    """

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
