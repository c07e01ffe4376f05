"""The development chain as a child process: what its flags promise, and whom `wait_for_anvil` believes."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3

from rexis.chain.connection import open_web3
from rexis.errors import ConfigurationError, UnavailableError
from services.local.anvil import anvil_command, find_anvil, wait_for_anvil

DEADLINE_S = 20.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def pay(web3: Web3) -> Any:
    accounts = web3.eth.accounts
    return web3.eth.send_transaction({"from": accounts[0], "to": accounts[1], "value": 1})


def test_transactions_are_mined_at_once_and_time_moves_without_them(port: int, tmp_path: Path) -> None:
    command = anvil_command(find_anvil(), port, tmp_path / "ready.json", state=tmp_path / "state.json", block_time_s=1)
    with running(command) as process:
        web3 = open_web3(wait_for_anvil(process, port, tmp_path / "ready.json"))
        for _ in range(5):
            # Without automine, the receipt would take up to a second to appear.
            hash_ = pay(web3)
            receipt = web3.eth.wait_for_transaction_receipt(hash_, timeout=0.5, poll_latency=0.01)
            assert receipt["status"] == 1
        first = web3.eth.get_block("latest")
        until(lambda: web3.eth.get_block("latest")["timestamp"] >= first["timestamp"] + 2)
        idle = [web3.eth.get_block(number) for number in range(first["number"] + 1, web3.eth.block_number + 1)]
        assert idle
        assert all(not block["transactions"] for block in idle)
        # Block time is the clock's.
        assert abs(web3.eth.get_block("latest")["timestamp"] - time.time()) < 5


def test_the_state_survives_sigterm_at_once_and_sigkill_from_the_last_interval_on(port: int, tmp_path: Path) -> None:
    ready, state = tmp_path / "ready.json", tmp_path / "state.json"
    # One interval of an hour: whatever is on disk after SIGTERM was written by SIGTERM.
    command = anvil_command(find_anvil(), port, ready, state=state, state_interval_s=3600)
    with running(command) as process:
        web3 = open_web3(wait_for_anvil(process, port, ready))
        paid, genesis = pay(web3), web3.eth.get_block(0)["hash"]
        block = web3.eth.wait_for_transaction_receipt(paid, poll_latency=0.01)["blockHash"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    assert json.loads(state.read_text())

    with running(anvil_command(find_anvil(), port, ready, state=state, state_interval_s=1)) as process:
        web3 = open_web3(wait_for_anvil(process, port, ready))
        assert web3.eth.get_block(0)["hash"] == genesis
        assert web3.eth.get_transaction_receipt(paid)["blockHash"] == block
        later = pay(web3)
        until(lambda: later.to_0x_hex() in state.read_text())
        process.kill()
        process.wait(DEADLINE_S)

    with running(anvil_command(find_anvil(), port, ready, state=state)) as process:
        web3 = open_web3(wait_for_anvil(process, port, ready))
        assert web3.eth.get_transaction_receipt(later)["status"] == 1


def test_a_taken_port_is_not_taken_for_our_chain(port: int, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    with running(anvil_command(find_anvil(), port, theirs)) as first:
        wait_for_anvil(first, port, theirs)
        # An earlier run's file must not vouch for this one.
        ours.write_text("{}")
        with (
            running(anvil_command(find_anvil(), port, ours)) as second,
            pytest.raises(UnavailableError, match=f"is port {port} taken"),
        ):
            wait_for_anvil(second, port, ours)


def test_a_damaged_state_file_is_named(port: int, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"block": {')
    with (
        running(anvil_command(find_anvil(), port, tmp_path / "ready.json", state=state)) as process,
        pytest.raises(UnavailableError, match="state file damaged"),
    ):
        wait_for_anvil(process, port, tmp_path / "ready.json")


def test_a_child_that_never_answers_is_given_up(port: int, tmp_path: Path) -> None:
    with running(["sleep", "60"]) as process, pytest.raises(UnavailableError, match="did not answer"):
        wait_for_anvil(process, port, tmp_path / "ready.json", timeout_s=0.2)


def test_a_wrong_path_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REXIS_ANVIL", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="REXIS_ANVIL"):
        find_anvil()
