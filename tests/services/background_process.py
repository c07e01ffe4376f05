"""`python -m tests.services.background_process DATABASE_URL LEASE_S FOLDER`: a background process that leaves traces of its runs.

Its jobs: `trace` appends its process id to FOLDER/runs; `obey` hangs as long as FOLDER/hang exists.
"""

import os
import sys
import time
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from services.foundation.background import Job, run_background
from services.foundation.database import open_engine
from services.foundation.settings import ServiceSettings


class BackgroundSettings(ServiceSettings):
    """Settings of a service that does nothing else."""

    service: ClassVar[str] = "background"


def settings_for(database_url: str) -> BackgroundSettings:
    return BackgroundSettings(
        public_url="http://127.0.0.1:8002",
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        object_store_url="memory://",
        session_key=SecretStr("42" * 32),
        chain_rpc_url="http://127.0.0.1:1",
    )


def trace(folder: Path) -> None:
    with (folder / "runs").open("a") as file:
        file.write(f"{os.getpid()}\n")


def obey(folder: Path) -> None:
    while (folder / "hang").exists():
        (folder / "hanging").touch()
        time.sleep(0.02)


if __name__ == "__main__":
    database_url, lease_s, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    jobs = [Job("trace", 0.02, lambda: trace(folder)), Job("obey", 0.02, lambda: obey(folder))]
    heartbeat = folder / f"heartbeat-{os.getpid()}"
    run_background(settings_for(database_url), open_engine(database_url), jobs, lease_s=lease_s, heartbeat=heartbeat)
