"""The platform as its users start it: whole, on loopback, surviving kills, leaving nothing behind."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from examples.heart.checks import compare_with_chain
from examples.heart.parties import Hospital
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from services.local import record
from services.local.platform import Platform
from services.local.process import State
from services.local.settings import SERVICES, LocalSettings
from services.local.sweep import members

ROOT = Path(__file__).resolve().parents[2]
CHILDREN = [
    "guard",
    "redis",
    "chain",
    *SERVICES,
    *(f"{name}-background" for name in SERVICES),
    "trainer-worker",
]


def until(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def register(folder: Path, marketplace_url: str) -> dict[str, Any]:
    """A new hospital registers its table, as in the demo."""
    hospital = Hospital("Cleveland", folder / secrets.token_hex(4), {"marketplace": marketplace_url}, {})
    hospital.sign_in()
    return hospital.register()


def read_chain(platform: Platform) -> Chain:
    return Chain.connect(platform.urls["chain"], load(31337))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.start(LocalSettings(data_dir=tmp_path_factory.mktemp("platform"))) as running:
        yield running


def all_ready(platform: Platform) -> bool:
    return all(status.state in (State.READY, State.DONE) for status in platform.supervisor.status.values()) and all(
        ready(platform.urls[name]) for name in SERVICES
    )


def test_everything_is_ready_and_listens_on_loopback_only(platform: Platform) -> None:
    assert all_ready(platform)
    assert sorted(platform.supervisor.pids()) == sorted(CHILDREN)
    described = json.loads((platform.settings.folder / record.RECORD).read_text())
    assert described["urls"] == platform.urls
    mine = members(f"{platform.settings.folder}#")
    listening = [found for process in mine for found in process.net_connections("tcp") if found.status == psutil.CONN_LISTEN]
    assert len(listening) >= len(SERVICES) + 2
    assert {found.laddr.ip for found in listening} == {"127.0.0.1"}


def test_what_a_hospital_registers_is_in_the_catalogue_as_on_the_chain(platform: Platform, tmp_path: Path) -> None:
    entry = register(tmp_path, platform.urls["marketplace"])
    compare_with_chain(read_chain(platform), entry)


@pytest.mark.parametrize("name", CHILDREN)
def test_a_killed_process_comes_back(platform: Platform, name: str) -> None:
    before, restarts = platform.supervisor.pids()[name], platform.supervisor.status[name].restarts
    os.kill(before, signal.SIGKILL)
    until(lambda: platform.supervisor.status[name].restarts > restarts, f"{name} is seen to have ended")
    until(lambda: all_ready(platform), f"everything is ready after {name} was killed")
    assert platform.supervisor.pids()[name] != before


@pytest.mark.parametrize("name", ["marketplace-background", "chain", "redis"])
def test_a_registration_survives_a_kill_in_the_middle(platform: Platform, tmp_path: Path, name: str) -> None:
    os.kill(platform.supervisor.pids()[name], signal.SIGKILL)
    until(lambda: ready(platform.urls["marketplace"]) or name != "chain", "the marketplace sees the chain again")
    entry = register(tmp_path, platform.urls["marketplace"])
    until(lambda: all_ready(platform), "everything is ready again")
    compare_with_chain(read_chain(platform), entry)


def test_what_runs_already_is_used_and_not_started(platform: Platform, tmp_path: Path) -> None:
    redis_url = f"redis://:{(platform.settings.folder / 'keys' / 'redis-password').read_text()}@127.0.0.1:{platform.ports['redis']}/1"
    settings = LocalSettings(data_dir=tmp_path / "second", redis_url=redis_url, chain_rpc_url=platform.urls["chain"])
    with Platform.start(settings) as second:
        assert {"redis", "chain"}.isdisjoint(second.supervisor.pids())
        assert all(second.ports[name] != platform.ports[name] for name in SERVICES)
        # The second marketplace reads the same chain, so it knows the first one's data sets, though not their documents.
        listed = f"{second.urls['marketplace']}/v1/datasets"
        until(lambda: len(httpx.get(listed, timeout=5).json()["items"]) > 0, "the second marketplace has indexed the chain")


def command(*arguments: str, data_dir: Path) -> list[str]:
    return [sys.executable, "-m", "services.local", *arguments, "--data-dir", str(data_dir)]


def everything_runs(data_dir: Path) -> bool:
    described = record.read(data_dir)
    return described is not None and all(process["state"] in (State.READY, State.DONE) for process in described["processes"].values())


def start(data_dir: Path) -> "subprocess.Popen[bytes]":
    """`make up` in a process of its own; returns when everything is ready."""
    running = subprocess.Popen(command("up", data_dir=data_dir), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until(lambda: everything_runs(data_dir) or running.poll() is not None, "the platform is ready", 120)
    assert running.poll() is None, running.stderr.read() if running.stderr else ""
    return running


def marketplace_url(data_dir: Path) -> str:
    described = record.read(data_dir)
    assert described is not None
    return str(described["urls"]["marketplace"])


def test_a_killed_platform_leaves_no_process_and_starts_again_with_everything_it_had(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = start(data_dir)
    entry = register(tmp_path, marketplace_url(data_dir))
    shown = subprocess.run(command("status", "--json", data_dir=data_dir), cwd=ROOT, capture_output=True, check=True)
    assert json.loads(shown.stdout)["ready"] == dict.fromkeys(SERVICES)
    first.kill()
    first.wait()
    until(lambda: not members(f"{data_dir}#"), "the guard has ended every process")

    second = start(data_dir)
    url = f"{marketplace_url(data_dir)}/v1/datasets/{entry['token_id']}"
    until(lambda: httpx.get(url, timeout=5).status_code == 200, "the data set is in the catalogue again")
    assert httpx.get(url, timeout=5).json()["content_root"] == entry["content_root"]

    stopped = subprocess.run(command("down", data_dir=data_dir), cwd=ROOT, capture_output=True, text=True, check=True)
    assert "no process is left" in stopped.stdout
    assert second.wait(30) == 0
    assert not members(f"{data_dir}#")


def test_production_is_refused_with_what_to_do(tmp_path: Path) -> None:
    environment = {**os.environ, "REXIS_ENV": "production"}
    refused = subprocess.run(
        command("up", data_dir=tmp_path / "data"), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "REXIS_ENV=production refuses the local platform" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "data").exists()
