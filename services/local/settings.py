"""What the local platform starts itself, and what it is given: a URL that is set is used, and nothing is started for it."""

from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rexis.errors import ConfigurationError

SERVICES = ("marketplace", "trainer", "aggregator", "verifier")


class LocalSettings(BaseSettings):
    """Read from `REXIS_…`; keyword arguments win.

    Attributes:
        data_dir: everything the platform keeps: databases, objects, chain, keys, logs.
        redis_url, chain_rpc_url, object_store_url, <service>_database_url: back ends that run already.
        start_timeout_s: how long one process may take to become ready.
        stop_timeout_s: how long one process may take to end before it is killed.
    """

    model_config = SettingsConfigDict(env_prefix="REXIS_", frozen=True, extra="ignore")

    env: Literal["local", "production"] = "local"
    data_dir: Path = Path(".rexis")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    redis_url: str | None = None
    chain_rpc_url: str | None = None
    object_store_url: str | None = None
    marketplace_database_url: str | None = None
    trainer_database_url: str | None = None
    aggregator_database_url: str | None = None
    verifier_database_url: str | None = None

    start_timeout_s: float = 120.0
    stop_timeout_s: float = 10.0

    @model_validator(mode="after")
    def _refuse_production(self) -> Self:
        if self.env == "production":
            raise ValueError(
                "REXIS_ENV=production refuses the local platform: its chain, keys and databases are for one development machine; "
                "deploy the services with deploy/k8s, or unset REXIS_ENV"
            )
        return self

    @classmethod
    def read(cls, *, data_dir: Path | None = None) -> Self:
        """Read the environment; `data_dir` wins over it.

        Raises:
            ConfigurationError: a value is refused; the message names each one.
        """
        try:
            return cls() if data_dir is None else cls(data_dir=data_dir)
        except ValidationError as error:
            lines = [
                ("_".join(("REXIS", *map(str, item["loc"]))).upper() + ": " if item["loc"] else "")
                + item["msg"].removeprefix("Value error, ")
                for item in error.errors(include_input=False)
            ]
            raise ConfigurationError("the local platform can not start: " + "; ".join(lines)) from None

    @property
    def folder(self) -> Path:
        """`data_dir`, absolute and without symbolic links, so that it names one platform."""
        return self.data_dir.resolve()

    def database_url(self, service: str) -> str:
        """The service's database: the given one, else a SQLite file in the folder."""
        given: str | None = getattr(self, f"{service}_database_url")
        return given or f"sqlite:///{self.folder / service}.sqlite"

    def objects_url(self, service: str) -> str:
        """The service's own prefix of the object store."""
        return f"{self.object_store_url.rstrip('/')}/{service}" if self.object_store_url else (self.folder / "objects" / service).as_uri()
