"""The development chain: anvil, the native binary inside an npm package, as a child process.

Measured with 1.7.1: `--mixed-mining --block-time N` mines a transaction at once (2 to 10 ms) and an empty block every N
seconds, so that block time moves while nothing happens; `--state` with `--state-interval` works beside it; SIGTERM writes the
state in milliseconds, SIGKILL loses what came after the last interval. The state file is rewritten in place, about 1.8 kB a
block: keep copies, and check that the file is whole JSON before a start.
"""

import json
import os
import platform
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rexis.errors import ConfigurationError, UnavailableError

CHAIN_ID = 31337

_CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
_SYSTEMS = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def find_anvil() -> Path:
    """Path of the native binary: `REXIS_ANVIL`, else the one that `npm ci` puts under `contracts/node_modules`.

    One on PATH is not taken: the state file's format changes between versions.

    Raises:
        ConfigurationError: none is there, or `REXIS_ANVIL` points to nothing.
    """
    if chosen := os.environ.get("REXIS_ANVIL"):
        if not os.access(chosen, os.X_OK):
            raise ConfigurationError(f"REXIS_ANVIL={chosen} is not an executable file")
        return Path(chosen)
    system, machine = _SYSTEMS.get(platform.system(), ""), _MACHINES.get(platform.machine(), "")
    binary = "anvil.exe" if system == "win32" else "anvil"
    found = _CONTRACTS / "node_modules" / "@foundry-rs" / f"anvil-{system}-{machine}" / "bin" / binary
    if not os.access(found, os.X_OK):
        raise ConfigurationError(
            f"no anvil for {platform.system()} {platform.machine()}: run `npm ci` in contracts/, or set REXIS_ANVIL or REXIS_CHAIN_RPC_URL"
        )
    return found


def anvil_command(
    binary: Path, port: int, ready: Path, *, state: Path | None = None, state_interval_s: int = 1, block_time_s: int | None = 5
) -> list[str]:
    """Command line of a chain on loopback with id `CHAIN_ID`; a transaction is mined at once.

    Args:
        port: TCP port on 127.0.0.1; anvil exits at once if it is taken.
        ready: file that anvil writes once it owns the port (`wait_for_anvil` looks for it); one of an earlier run is removed here.
        state: file to load if it exists, and to write every `state_interval_s` seconds and on SIGTERM; None keeps nothing.
        block_time_s: seconds between empty blocks; None mines no empty block, so block time stands still between transactions.
    """
    ready.unlink(missing_ok=True)
    command = [str(binary), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID), "--quiet", "--no-cors"]
    command += ["--config-out", str(ready)]
    if state is not None:
        command += ["--state", str(state), "--state-interval", str(state_interval_s)]
    if block_time_s is not None:
        command += ["--mixed-mining", "--block-time", str(block_time_s)]
    return command


@contextmanager
def passing_anvil(*, genesis_time: int | None = None) -> Iterator[str]:
    """URL of a chain that ends with the block and keeps nothing; its time moves with transactions only.

    Args:
        genesis_time: Unix time of block 0; None takes the clock.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = anvil_command(find_anvil(), port, ready, block_time_s=None)
        if genesis_time is not None:
            command += ["--timestamp", str(genesis_time)]
        with subprocess.Popen(command) as process:
            try:
                yield wait_for_anvil(process, port, ready)
            finally:
                process.terminate()


def wait_for_anvil(process: "subprocess.Popen[bytes]", port: int, ready: Path, *, timeout_s: float = 10.0) -> str:
    """Wait until this child answers JSON-RPC, and return its URL.

    An answer alone proves nothing: a process whose port is taken exits, and somebody else's chain answers in its place. Anvil
    writes `ready` after it has bound the port, so the file tells that the answer is our child's.

    Raises:
        UnavailableError: the child exited, another program answers on its port, or nothing does within `timeout_s` seconds.
    """
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (status := process.poll()) is not None:
            raise UnavailableError(f"anvil exited with status {status} at start: is port {port} taken, or its state file damaged?")
        if ready.exists():
            client, chain_id = _call(url, "web3_clientVersion"), _call(url, "eth_chainId")
            if not str(client).startswith("anvil/") or chain_id != hex(CHAIN_ID):
                raise UnavailableError(f"expected anvil with chain id {CHAIN_ID} on port {port}, got {client!r} with {chain_id!r}")
            return url
        time.sleep(0.02)
    raise UnavailableError(f"anvil did not answer on port {port} within {timeout_s} s")


def _call(url: str, method: str) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5.0) as response:
            return json.loads(response.read(65536))["result"]
    except (OSError, ValueError, KeyError) as error:
        raise UnavailableError(f"{method} on {url} failed: {error}") from error
