"""Which processes make up the platform, and what each of them is told."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rexis.errors import UnavailableError
from services.local import chain_state, probes
from services.local.anvil import CHAIN_ID, anvil_command, find_anvil
from services.local.keys import ensure_secret
from services.local.ports import HOST
from services.local.process import ProcessSpec
from services.local.redis import find_redis_server
from services.local.settings import SERVICES, LocalSettings
from services.local.sweep import MARK

ROOT = Path(__file__).resolve().parents[2]
WITH_WORKER = ("trainer",)
CHAIN_BLOCK_TIME_S = 10


@dataclass(frozen=True)
class Composition:
    """The platform for `settings`, on `ports`, with `mark` in every process's environment."""

    settings: LocalSettings
    ports: Mapping[str, int]
    mark: str

    @property
    def keys(self) -> Path:
        """Folder of the generated secrets."""
        return self.settings.folder / "keys"

    @property
    def chain_state(self) -> Path:
        """The chain's state file."""
        return self.settings.folder / "chain" / "state.json"

    @property
    def urls(self) -> dict[str, str]:
        """Where each service and the chain are reached."""
        services = {name: f"http://{HOST}:{self.ports[name]}" for name in SERVICES}
        return {**services, "chain": self.settings.chain_rpc_url or f"http://{HOST}:{self.ports['chain']}"}

    @property
    def redis_url(self) -> str:
        """The queue, with its password."""
        if self.settings.redis_url:
            return self.settings.redis_url
        return f"redis://:{self._redis_password}@{HOST}:{self.ports['redis']}/0"

    @property
    def _redis_password(self) -> str:
        return ensure_secret(self.keys / "redis-password").read_text()

    def specs(self) -> list[ProcessSpec]:
        """All processes, in the order in which they are shown.

        Raises:
            ConfigurationError: a program that is to be started is not installed.
        """
        embedded = [spec for spec in (self._redis(), self._chain()) if spec is not None]
        stores = tuple(spec.name for spec in embedded)
        return [
            self._python("guard", "services.local.guard", self.mark, hold_input=True, needs=()),
            *embedded,
            self._schema(),
            self._contracts(needs=tuple(name for name in stores if name == "chain")),
            *(self._api(name, needs=(*stores, "schema")) for name in SERVICES),
            *(self._background(name, needs=(*stores, "schema", "contracts")) for name in SERVICES),
            *(self._worker(name, needs=(*stores, "schema")) for name in WITH_WORKER),
        ]

    # Embedded parts.

    def _redis(self) -> ProcessSpec | None:
        if self.settings.redis_url:
            return None
        folder, port, password = self.settings.folder / "redis", self.ports["redis"], self._redis_password

        def write_configuration() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            lines = [
                f"bind {HOST}",
                f"port {port}",
                f"dir {folder}",
                f"requirepass {password}",
                "appendonly yes",
                'save ""',
                "maxmemory-policy noeviction",
                "set-proc-title no",  # rewriting the title would destroy the mark in the environment
            ]
            configuration.touch(mode=0o600)
            configuration.write_text("\n".join(lines) + "\n")

        configuration = folder / "redis.conf"
        return ProcessSpec(
            "redis",
            (str(find_redis_server()), str(configuration)),
            self._environment(),
            needs=("guard",),
            before=write_configuration,
            probe=partial(probes.redis_ready, port, password),
            port=port,
        )

    def _chain(self) -> ProcessSpec | None:
        if self.settings.chain_rpc_url:
            return None
        ready = self.chain_state.with_name("ready.json")
        command = anvil_command(find_anvil(), self.ports["chain"], ready, state=self.chain_state, block_time_s=CHAIN_BLOCK_TIME_S)

        def prepare() -> None:
            chain_state.restore(self.chain_state)
            ready.unlink(missing_ok=True)

        def probe() -> None:
            _exists(ready)  # written once anvil owns the port: what answers there is our child
            probes.chain_ready(self.urls["chain"], CHAIN_ID)

        return ProcessSpec(
            "chain",
            tuple(command),
            self._environment(),
            needs=("guard",),
            before=prepare,
            probe=probe,
            port=self.ports["chain"],
        )

    # What has to be in place before the services are of use.

    def _schema(self) -> ProcessSpec:
        urls = [f"{name}={self.settings.database_url(name)}" for name in SERVICES]
        environment = {"REXIS_LOCAL_DATABASES": "\n".join(urls)}
        return self._python("schema", "services.local.schema", once=True, environment=environment)

    def _contracts(self, needs: tuple[str, ...]) -> ProcessSpec:
        relayers = [str(self._relayer_key(name)) for name in SERVICES]
        return self._python("contracts", "services.local.contracts", self.urls["chain"], *relayers, once=True, needs=("guard", *needs))

    # Services.

    def _api(self, service: str, needs: tuple[str, ...]) -> ProcessSpec:
        arguments = (
            "--factory", f"services.{service}.app:create_app", "--host", HOST, "--port", str(self.ports[service]),
            "--no-access-log", "--no-server-header", "--timeout-graceful-shutdown", "5",
        )  # fmt: skip
        probe = partial(probes.service_ready, self.urls[service])
        environment = self._service_environment(service)
        port = self.ports[service]
        return self._python(service, "uvicorn", *arguments, needs=("guard", *needs), environment=environment, probe=probe, port=port)

    def _background(self, service: str, needs: tuple[str, ...]) -> ProcessSpec:
        return self._beating(f"{service}-background", service, f"services.{service}.background", needs=needs)

    def _worker(self, service: str, needs: tuple[str, ...]) -> ProcessSpec:
        arguments = ("-A", f"services.{service}.worker:celery", "worker", "--without-gossip", "--without-mingle", "-n", f"{service}@local")
        return self._beating(f"{service}-worker", service, "celery", *arguments, needs=needs)

    def _beating(self, name: str, service: str, module: str, *arguments: str, needs: tuple[str, ...]) -> ProcessSpec:
        """A process that answers nobody, and touches a file while it is well."""
        heartbeat = self.settings.folder / "heartbeats" / name
        environment = {**self._service_environment(service), "REXIS_HEARTBEAT_FILE": str(heartbeat)}
        before, probe = partial(_forget, heartbeat), partial(_exists, heartbeat)
        return self._python(name, module, *arguments, needs=("guard", *needs), environment=environment, before=before, probe=probe)

    # Environments.

    def _python(
        self,
        name: str,
        module: str,
        *arguments: str,
        needs: tuple[str, ...] = ("guard",),
        environment: Mapping[str, str] | None = None,
        probe: Callable[[], None] | None = None,
        port: int | None = None,
        before: Callable[[], None] | None = None,
        once: bool = False,
        hold_input: bool = False,
    ) -> ProcessSpec:
        command = (sys.executable, "-m", module, *arguments)
        return ProcessSpec(name, command, {**self._environment(), **(environment or {})}, needs, probe, port, before, once, hold_input)

    def _environment(self) -> dict[str, str]:
        # No REXIS_ variable of the caller goes on by itself: what is meant for one service must not reach another.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REXIS_")}
        return {**inherited, "PYTHONUNBUFFERED": "1", MARK: self.mark}

    def _service_environment(self, service: str) -> dict[str, str]:
        environment = {
            "REXIS_ENV": "local",
            "REXIS_LOG_LEVEL": self.settings.log_level,
            "REXIS_PUBLIC_URL": self.urls[service],
            "REXIS_DATABASE_URL": self.settings.database_url(service),
            "REXIS_REDIS_URL": self.redis_url,
            "REXIS_OBJECT_STORE_URL": self.settings.objects_url(service),
            "REXIS_CHAIN_RPC_URL": self.urls["chain"],
            "REXIS_SESSION_KEY_FILE": str(ensure_secret(self.keys / f"{service}-session")),
        }
        environment["REXIS_RELAYER_KEY_FILE"] = str(self._relayer_key(service))
        if service == "trainer":
            environment["REXIS_VERIFIER_URL"] = self.urls["verifier"]
        return environment

    def _relayer_key(self, service: str) -> Path:
        return ensure_secret(self.keys / f"{service}-relayer")


def _forget(heartbeat: Path) -> None:
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    heartbeat.unlink(missing_ok=True)


def _exists(sign: Path) -> None:
    if not sign.exists():
        raise UnavailableError(f"{sign} is not written yet")
