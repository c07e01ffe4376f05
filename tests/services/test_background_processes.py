"""The background process of each service: starts, is well, and ends within seconds of SIGTERM."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.foundation.database import migrate, open_engine
from tests.services.service_applications import SERVICES, environment_of, settings_for

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("service", SERVICES)
def test_it_runs_until_sigterm(service: str, tmp_path: Path, redis_url: str) -> None:
    heartbeat = tmp_path / "heartbeat"
    store = f"file://{tmp_path / 'objects'}"
    settings = settings_for(
        service,
        f"sqlite:///{tmp_path / 'b.sqlite'}",
        redis_url=redis_url,
        object_store_url=store,
        heartbeat_file=heartbeat,
        relayer_key="11" * 32,
    )
    engine = open_engine(settings.database_url)
    migrate(engine, f"services.{service}")
    engine.dispose()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{service}.background"], cwd=ROOT, env=environment_of(settings), stderr=log
        )
    try:
        deadline = time.monotonic() + 30
        while not heartbeat.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no heartbeat: {(tmp_path / 'log').read_text()}")
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    written = (tmp_path / "log").read_text()
    assert "background process stopped" in written
    assert "11" * 32 not in written


def test_the_marketplace_needs_a_key_to_relay(tmp_path: Path) -> None:
    settings = settings_for("marketplace", f"sqlite:///{tmp_path / 'b.sqlite'}")
    engine = open_engine(settings.database_url)
    migrate(engine, "services.marketplace")
    engine.dispose()
    command = [sys.executable, "-m", "services.marketplace.background"]
    run = subprocess.run(command, cwd=ROOT, env=environment_of(settings), capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode != 0
    assert "REXIS_RELAYER_KEYSTORE" in run.stderr
