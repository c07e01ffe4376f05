"""Several nodes of one chain: the next one answers where one does not, but only for questions, and only if it is the same chain."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from rexis.chain.connection import Chain
from rexis.chain.deployments import Deployment
from rexis.encoding import from_hex
from rexis.errors import UnavailableError, WrongChainError
from services.foundation.outbox.relay import Relay
from tests.services.chain_outbox import AT_ONCE, Outbox
from tests.services.chain_process import ChainProcess, Gate, Proxy, funded_signer, replaced, rpc, running
from tests.services.test_settings import PRODUCTION, ExampleSettings, set_all


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    with running(tmp_path_factory.mktemp("anvil")) as chain:
        yield chain


@pytest.fixture
def proxies(node: ChainProcess) -> Iterator[list[Proxy]]:
    opened = [Proxy(node.url), Proxy(node.url)]
    yield opened
    for each in opened:
        each.close()


@pytest.fixture
def outbox(engine: Engine, node: ChainProcess) -> Outbox:
    return Outbox(engine, funded_signer(node.url), Gate(node.url))


def record(node: ChainProcess) -> Deployment:
    return Deployment(31337, from_hex(rpc(node.url, "eth_getBlockByNumber", "0x0", False)["hash"], 32), {})


def urls(proxies: list[Proxy]) -> str:
    return ", ".join(proxy.url for proxy in proxies)


def silence(proxy: Proxy) -> None:
    """It answers nothing from now on."""

    def refuse() -> None:
        raise ConnectionRefusedError

    for method in (
        "eth_chainId",
        "eth_blockNumber",
        "eth_getBlockByNumber",
        "eth_getTransactionCount",
        "eth_call",
        "eth_sendRawTransaction",
    ):
        proxy.before[method] = refuse


def test_the_next_node_answers_and_is_kept(node: ChainProcess, proxies: list[Proxy]) -> None:
    chain = Chain.connect(urls(proxies), record(node))
    head = chain.web3.eth.block_number
    assert [len(proxy.passed["eth_blockNumber"]) for proxy in proxies] == [1, 0]
    silence(proxies[0])
    assert [chain.web3.eth.block_number for _ in range(3)] == [head] * 3
    proxies[0].before.clear()
    assert chain.web3.eth.block_number == head
    assert [len(proxy.passed["eth_blockNumber"]) for proxy in proxies] == [1, 4]
    silence(proxies[1])
    assert chain.web3.eth.block_number == head
    silence(proxies[0])
    with pytest.raises(UnavailableError):
        chain.check()
    with pytest.raises(UnavailableError):
        Chain.connect(urls(proxies), record(node))


def test_a_node_that_is_away_at_first_stops_nobody(node: ChainProcess, proxies: list[Proxy]) -> None:
    for away in proxies:
        silence(away)
        assert Chain.connect(urls(proxies), record(node)).web3.eth.chain_id == 31337
        away.before.clear()


def test_a_node_of_another_chain_is_refused_at_first_and_later(node: ChainProcess, proxies: list[Proxy], tmp_path: Path) -> None:
    with replaced(tmp_path, node.url) as other:
        for order in ((proxies[0].url, other.url), (other.url, proxies[0].url)):
            with pytest.raises(WrongChainError, match="genesis"):
                Chain.connect(",".join(order), record(node))
        chain = Chain.connect(urls(proxies), record(node))
        # Behind the second address is another chain now: an answer of it would be worse than none.
        proxies[1].upstream = other.url
        silence(proxies[0])
        with pytest.raises(UnavailableError):
            chain.check()
        assert "eth_blockNumber" not in proxies[1].passed


def test_what_a_node_refuses_is_not_asked_elsewhere(node: ChainProcess, proxies: list[Proxy]) -> None:
    chain = Chain.connect(urls(proxies), record(node))
    proxies[0].refuses["eth_blockNumber"] = lambda _: {"code": -32600, "message": "no", "status": 400}
    with pytest.raises(OSError, match="400"):
        chain.web3.eth.get_block_number()
    assert proxies[1].passed["eth_blockNumber"] == []


def test_calls_go_on_over_another_node_and_run_once(outbox: Outbox, node: ChainProcess, proxies: list[Proxy]) -> None:
    relay = Relay(outbox.engine, Chain.connect(urls(proxies), record(node)), outbox.signer, AT_ONCE)
    data = outbox.promise(2)
    outbox.settle(relay)

    def arrived_but_not_answered() -> None:
        raise ConnectionAbortedError

    proxies[0].after["eth_sendRawTransaction"] = arrived_but_not_answered
    data += outbox.promise(2)
    with pytest.raises(UnavailableError, match="calls wait"):
        relay.run_once()
    assert proxies[1].passed["eth_sendRawTransaction"] == []
    silence(proxies[0])
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    assert outbox.states() == ["final"] * 4
    assert outbox.nonce() == 4


def test_no_log_line_shows_what_an_address_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PRODUCTION | {"REXIS_CHAIN_RPC_URL": "https://u:pw1@a.example/v3/key2, https://b.example/?k=key3"})
    shown = ExampleSettings.from_environment().masked()["chain_rpc_url"]
    assert shown == "https://***@a.example/***,https://b.example/?***"
