"""The platform as one object: starts whole or not at all, and leaves no process behind."""

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from services.local import record
from services.local.anvil import CHAIN_ID
from services.local.chain_state import Copying
from services.local.composition import ROOT, Composition
from services.local.ports import STANDARD, PortClaims
from services.local.settings import SERVICES, LocalSettings
from services.local.supervisor import Status, Supervisor
from services.local.sweep import sweep

STALE_GRACE_S = 5.0

OnChange = Callable[[str, Status], None]


class Platform:
    """A running platform; use `start`, and `stop` or a `with` statement.

    Attributes:
        urls: where each service and the chain are reached, by name.
        ports: by name; a service that has its standard port is not moved.
        swept: how many processes of an earlier start, left by a crash, were ended first.
        mark: a process with this value of `sweep.MARK` in its environment ends with the platform, however that ends.
    """

    def __init__(self, settings: LocalSettings, on_change: OnChange) -> None:
        self.settings = settings
        self._on_change = on_change
        with ExitStack() as undo:
            self._lock = record.FolderLock(settings.folder)
            undo.callback(self._lock.release)
            self.swept = sweep(f"{settings.folder}#", STALE_GRACE_S)
            wanted: dict[str, int | None] = {name: STANDARD[name] for name in SERVICES}
            if not settings.chain_rpc_url:
                wanted["chain"] = STANDARD["chain"]
            if not settings.redis_url:
                wanted["redis"] = None
            self._claims = PortClaims(wanted)
            undo.callback(self._claims.release)
            self.ports = self._claims.ports
            self.mark = f"{settings.folder}#{secrets.token_hex(8)}"
            self._composition = Composition(settings, self.ports, self.mark)
            self.urls = self._composition.urls
            self.supervisor = Supervisor(
                self._composition.specs(),
                logs=settings.folder / "logs",
                cwd=ROOT,
                start_timeout_s=settings.start_timeout_s,
                stop_timeout_s=settings.stop_timeout_s,
                on_change=self._changed,
            )
            self._copying = None if settings.chain_rpc_url else Copying(self._composition.chain_state)
            undo.pop_all()

    @classmethod
    def start(
        cls,
        settings: LocalSettings,
        *,
        on_change: OnChange = lambda _name, _status: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Start everything and return when all of it is ready, or when `interrupted()` holds.

        Raises:
            RexisError: something can not be started or kept running; nothing is left behind.
        """
        platform = cls(settings, on_change)
        try:
            platform.supervisor.start()
            platform.supervisor.wait_ready(interrupted)
        except BaseException:
            platform.stop()
            raise
        return platform

    def wait(self, interrupted: Callable[[], bool]) -> None:
        """Keep running until `interrupted()` holds.

        Raises:
            RexisError: a process can not be kept running.
        """
        self.supervisor.wait_failure(interrupted)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """End all processes, each after those that need it."""
        self.supervisor.stop(hurry)
        if self._copying is not None:
            self._copying.stop()
        self._claims.release()
        record.remove(self.settings.folder)
        self._lock.release()

    def moved_ports(self) -> dict[str, int]:
        """Ports that had to be chosen because the standard one was taken."""
        return {name: port for name, port in self.ports.items() if name in STANDARD and port != STANDARD[name]}

    def _changed(self, name: str, status: Status) -> None:
        record.write(self.settings.folder, self._describe())
        self._on_change(name, status)

    def _describe(self) -> dict[str, Any]:
        processes = {
            name: {
                "state": status.state,
                "pid": status.pid,
                "restarts": status.restarts,
                "ready_after_s": status.ready_after_s,
                "log": status.log,
            }
            for name, status in self.supervisor.status.items()
        }
        return {
            "pid": os.getpid(),
            "chain_id": CHAIN_ID,
            "urls": self.urls,
            "ports": self.ports,
            "pids": self.supervisor.pids(),
            "processes": processes,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
