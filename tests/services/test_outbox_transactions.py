"""The chain outbox: every promised call runs once, whatever is killed when; refusals are decoded and cost no nonce."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from rexis.chain.signer import LocalSigner, development_signer
from rexis.encoding import to_hex
from rexis.errors import UnavailableError, UnexpectedMessageError, WrongChainError
from services.foundation.database import transaction
from services.foundation.outbox.policies import PRESETS, ChainPolicy
from services.foundation.outbox.transactions import ChainTransaction, enqueue_call
from tests.services.chain_outbox import AT_ONCE, DEADLINE_S, Outbox
from tests.services.chain_process import ChainProcess, Gate, Halt, Once, Proxy, funded_signer, replaced, rpc, running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    with running(tmp_path_factory.mktemp("anvil")) as chain:
        yield chain


@pytest.fixture
def proxy(node: ChainProcess) -> Iterator[Proxy]:
    opened = Proxy(node.url)
    yield opened
    opened.close()


@pytest.fixture
def outbox(engine: Engine, node: ChainProcess) -> Outbox:
    return Outbox(engine, funded_signer(node.url), Gate(node.url))


def test_calls_run_in_order_and_become_final(outbox: Outbox) -> None:
    data = outbox.promise(3)
    relay = outbox.relay()
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    assert outbox.states() == ["final"] * 3
    for nonce, intent in enumerate(outbox.intents()):
        sent = rpc(outbox.gate.url, "eth_getTransactionByHash", intent.transaction_hash)
        receipt = rpc(outbox.gate.url, "eth_getTransactionReceipt", intent.transaction_hash)
        assert (int(sent["nonce"], 16), sent["type"]) == (nonce, "0x2")
        # An estimate with a fifth on top, which is not the ceiling.
        assert int(receipt["gasUsed"], 16) < int(sent["gas"], 16) < 2 * int(receipt["gasUsed"], 16) < intent.gas
        assert intent.block_number == int(receipt["blockNumber"], 16)


def test_a_key_promises_one_call(outbox: Outbox) -> None:
    with transaction(outbox.engine) as session:
        first = enqueue_call(session, key="k", to=outbox.gate.address, data=b"a", gas=100_000, label="x")
        assert enqueue_call(session, key="k", to=outbox.gate.address, data=b"a", gas=100_000, label="x").id == first.id
    with transaction(outbox.engine) as session:
        assert enqueue_call(session, key="k", to=outbox.gate.address.lower(), data=b"a", gas=100_000, label="x").id == first.id
        with pytest.raises(UnexpectedMessageError, match="another call"):
            enqueue_call(session, key="k", to=outbox.gate.address, data=b"b", gas=100_000, label="x")
    assert len(outbox.intents()) == 1


def test_a_key_promises_one_call_to_simultaneous_transactions(outbox: Outbox) -> None:
    def promise(_: int) -> object:
        with transaction(outbox.engine) as session:
            return enqueue_call(session, key="k", to=outbox.gate.address, data=b"once", gas=100_000, label="x").id

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(promise, range(16)))) == 1
    outbox.settle(outbox.relay())
    assert outbox.gate.calls() == [b"once"]


def test_a_promise_of_a_transaction_that_is_rolled_back_is_none(outbox: Outbox) -> None:
    with pytest.raises(ZeroDivisionError), transaction(outbox.engine) as session:
        enqueue_call(session, key="k", to=outbox.gate.address, data=b"never", gas=100_000, label=str(1 / 0))
    outbox.settle(outbox.relay())
    assert outbox.nonce() == 0


@pytest.mark.parametrize(
    ("dialect", "when", "method", "number"),
    [
        ("sqlite", "before", "eth_estimateGas", 2),
        ("sqlite", "before", "eth_sendRawTransaction", 2),  # signed and stored, not sent
        ("sqlite", "after", "eth_sendRawTransaction", 2),  # mined, not known to be
        ("sqlite", "after", "eth_getTransactionReceipt", 3),
        ("postgres", "before", "eth_sendRawTransaction", 2),
        ("postgres", "after", "eth_sendRawTransaction", 2),
    ],
)
def test_a_killed_relay_loses_and_repeats_nothing(outbox: Outbox, proxy: Proxy, when: str, method: str, number: int) -> None:
    data = outbox.promise(3)
    halt = Halt(number)
    getattr(proxy, when)[method] = halt
    url, key = outbox.engine.url.render_as_string(hide_password=False), outbox.signer._private_key.hex()
    process = subprocess.Popen([sys.executable, "-m", "tests.services.relay_process", url, proxy.url, key], cwd=ROOT)
    try:
        assert halt.reached.wait(DEADLINE_S), "the relay did not get to this point"
    finally:
        process.kill()
        process.wait()
        halt.released.set()
    outbox.settle(outbox.relay())
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 3


def test_two_relays_at_once_send_nothing_twice(outbox: Outbox) -> None:
    data = outbox.promise(12)
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(outbox.settle, outbox.relay()) for _ in range(3)]:
            done.result()
    assert sorted(outbox.gate.calls()) == sorted(data)
    assert outbox.nonce() == 12
    assert outbox.states() == ["final"] * 12


def test_a_refused_call_fails_with_the_contracts_reason_and_costs_no_nonce(outbox: Outbox) -> None:
    relay = outbox.relay()
    outbox.settle(relay)
    outbox.gate.toggle()
    outbox.promise()
    outbox.settle(relay)
    (failed,) = outbox.intents()
    assert failed.state == "failed"
    assert failed.error is not None
    assert (failed.error["contract"], failed.error["error"], failed.error["arguments"]) == ("DatasetRegistry", "ZeroHash", {})
    assert failed.transaction_hash is None
    outbox.gate.toggle()
    data = outbox.promise(2)
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 2
    assert outbox.states() == ["failed", "final", "final"]


def test_a_refusal_does_not_count_while_an_earlier_call_is_under_way(outbox: Outbox) -> None:
    """The refused call may depend on the earlier one, which the node has not mined yet."""
    relay = outbox.relay()
    rpc(outbox.gate.url, "evm_setAutomine", False)
    try:
        data = outbox.promise(2)
        relay.run_once()
        assert outbox.states() == ["submitted"] * 2
        in_the_way = outbox.gate.toggle_first()
        data += outbox.promise()
        for _ in range(3):
            assert relay.run_once() == 3
        assert outbox.states() == ["submitted", "submitted", "queued"]
        rpc(outbox.gate.url, "anvil_dropTransaction", in_the_way)
        rpc(outbox.gate.url, "evm_mine")
    finally:
        rpc(outbox.gate.url, "evm_setAutomine", True)
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    # Calls that wait in the node together have a nonce each.
    assert [intent.attempts for intent in outbox.intents()] == [1, 1, 1]
    assert outbox.nonce() == 3


def test_a_call_that_fails_in_its_block_is_not_repeated(outbox: Outbox) -> None:
    relay = outbox.relay()
    rpc(outbox.gate.url, "evm_setAutomine", False)
    try:
        outbox.promise()
        assert relay.run_once() == 1
        assert outbox.states() == ["submitted"]
        outbox.gate.toggle_first()
        rpc(outbox.gate.url, "evm_mine")
    finally:
        rpc(outbox.gate.url, "evm_setAutomine", True)
    outbox.settle(relay)
    outbox.gate.toggle()
    data = outbox.promise()
    outbox.settle(relay)
    failed, final = outbox.intents()
    assert (failed.state, final.state) == ("failed", "final")
    assert failed.error is not None
    assert failed.transaction_hash is not None
    assert failed.attempts == 1
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 2


def test_an_older_state_after_sigkill_gets_its_calls_back(engine: Engine, tmp_path: Path) -> None:
    with running(tmp_path, keep_state=True) as node:
        # Accounts of the genesis: what is given to others later is lost with the blocks.
        outbox = Outbox(engine, development_signer(1), Gate(node.url))
        relay = outbox.relay()
        data = outbox.promise(2)
        outbox.settle(relay)
        node.stop()
        node.keep("older.json")
        node.start(keep_state=True)
        data += outbox.promise(3)
        outbox.settle(relay)
        assert outbox.states() == ["final"] * 5
        data += outbox.promise()
        relay.run_once()
        node.kill()
        with pytest.raises(UnavailableError):
            relay.run_once()
        node.restore("older.json")
        node.start(keep_state=True)
        assert len(outbox.gate.calls()) == 2
        hashes = [intent.transaction_hash for intent in outbox.intents()]
        outbox.settle(relay)
        assert outbox.gate.calls() == data
        assert outbox.states() == ["final"] * 6
        # The same bytes as before, and not new transactions.
        assert [intent.transaction_hash for intent in outbox.intents()] == hashes


def test_a_call_that_fails_after_it_was_lost_is_signed_again_and_runs_once(outbox: Outbox) -> None:
    relay, url = outbox.relay(), outbox.gate.url
    before = rpc(url, "evm_snapshot")
    data = outbox.promise()
    outbox.settle(relay)
    first_hash = outbox.intents()[0].transaction_hash
    assert rpc(url, "evm_revert", before) is True

    outbox.gate.toggle()
    outbox.run_until(relay, ["queued"])
    # It is refused now, which does not count yet.
    assert relay.run_once() == 1
    waiting = outbox.intents()[0]
    assert (waiting.state, waiting.lost_once, outbox.nonce()) == ("queued", True, 1)
    assert outbox.gate.calls() == []

    outbox.gate.toggle()
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    assert outbox.intents()[0].transaction_hash != first_hash
    assert outbox.nonce() == 2


def test_a_call_signed_twice_runs_once_when_both_are_lost(outbox: Outbox) -> None:
    relay, url = outbox.relay(), outbox.gate.url
    start = rpc(url, "evm_snapshot")
    data = outbox.promise()
    outbox.settle(relay)
    assert rpc(url, "evm_revert", start) is True
    start = rpc(url, "evm_snapshot")
    outbox.gate.toggle()
    outbox.run_until(relay, ["queued"])
    outbox.gate.toggle()
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    # Now the first transaction would succeed as well.
    assert rpc(url, "evm_revert", start) is True
    data += outbox.promise()
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 3
    assert outbox.states() == ["final", "final"]


def test_a_call_whose_nonce_was_used_elsewhere_is_signed_again(outbox: Outbox, proxy: Proxy) -> None:
    relay = outbox.relay(url=proxy.url)

    def refuse() -> None:
        raise ConnectionRefusedError

    proxy.before["eth_sendRawTransaction"] = Once(refuse)
    data = outbox.promise()
    with pytest.raises(UnavailableError):
        relay.run_once()
    assert outbox.states() == ["signed"]
    fields = {"chainId": 31337, "nonce": 0, "to": outbox.signer.address, "value": 0, "gas": 21_000, "gasPrice": 10**10}
    rpc(outbox.gate.url, "eth_sendRawTransaction", to_hex(outbox.signer.sign_transaction(fields)))
    rpc(outbox.gate.url, "evm_mine")
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 2
    with transaction(outbox.engine, read_only=True) as session:
        assert sorted(session.scalars(select(ChainTransaction.nonce))) == [0, 1]


def test_a_call_waits_for_fees_below_the_ceiling(outbox: Outbox) -> None:
    data = outbox.promise()
    with pytest.raises(UnavailableError, match="ceiling"):
        outbox.relay(replace(AT_ONCE, max_fee_per_gas=1)).run_once()
    assert outbox.states() == ["queued"]
    outbox.settle(outbox.relay())
    assert outbox.gate.calls() == data


def test_a_call_waits_for_funds(engine: Engine, node: ChainProcess) -> None:
    outbox = Outbox(engine, LocalSigner.generate(), Gate(node.url))
    data = outbox.promise()
    with pytest.raises(UnavailableError, match=f"{outbox.signer.address} has 0 wei.*fund it"):
        outbox.relay().run_once()
    rpc(node.url, "anvil_setBalance", outbox.signer.address, hex(10**18))
    outbox.settle(outbox.relay())
    assert outbox.gate.calls() == data


def test_a_call_above_its_gas_ceiling_ends_with_a_reason(outbox: Outbox) -> None:
    outbox.promise(gas=21_500)
    data = outbox.promise()
    outbox.settle(outbox.relay())
    unfit, final = outbox.intents()
    assert (unfit.state, final.state) == ("failed", "final")
    assert unfit.error is not None
    assert "21500 gas" in unfit.error["detail"]
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 1


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_getTransactionCount", "eth_call", "eth_estimateGas", "eth_getBalance"])
def test_a_node_over_its_limit_costs_a_call_nothing_but_time(outbox: Outbox, proxy: Proxy, method: str) -> None:
    relay = outbox.relay(url=proxy.url)
    data = outbox.promise(2)
    proxy.refuses[method] = lambda _: True
    for _ in range(AT_ONCE.max_attempts + 1):
        with pytest.raises(UnavailableError, match="calls wait"):
            relay.run_once()
    assert [(intent.state, intent.attempts, intent.error) for intent in outbox.intents()] == [("queued", 0, None)] * 2
    proxy.refuses.clear()
    outbox.settle(relay)
    assert outbox.gate.calls() == data


def test_finality_waits_for_confirmations_and_time(outbox: Outbox) -> None:
    relay = outbox.relay(ChainPolicy(confirmations=2, final_after_s=0.5))
    outbox.promise()
    outbox.run_until(relay, ["mined"])
    assert relay.run_once() == 1
    assert outbox.states() == ["mined"]
    rpc(outbox.gate.url, "anvil_mine", "0x2")
    outbox.settle(relay)
    assert outbox.states() == ["final"]
    with transaction(outbox.engine, read_only=True) as session:
        (sent,) = session.scalars(select(ChainTransaction))
    assert sent.mined_at is not None
    assert sent.final_at is not None
    assert (sent.final_at - sent.mined_at).total_seconds() >= 0.5


def test_finality_may_be_the_nodes_own(outbox: Outbox) -> None:
    relay = outbox.relay(PRESETS["generic"])
    outbox.promise()
    outbox.run_until(relay, ["mined"])
    # Anvil calls a block finalized two epochs of 32 later.
    rpc(outbox.gate.url, "anvil_mine", "0x20")
    assert relay.run_once() == 1
    rpc(outbox.gate.url, "anvil_mine", "0x20")
    outbox.run_until(relay, ["final"])


def test_a_node_that_answers_with_errors_is_unavailable(outbox: Outbox, proxy: Proxy) -> None:
    data, relay = outbox.promise(), outbox.relay(url=proxy.url)
    proxy.refuses["eth_getTransactionCount"] = lambda _: True
    with pytest.raises(UnavailableError, match="calls wait"):
        relay.run_once()
    assert outbox.states() == ["queued"]
    proxy.refuses.clear()
    outbox.settle(relay)
    assert outbox.gate.calls() == data


def test_another_genesis_is_refused(outbox: Outbox, tmp_path: Path) -> None:
    outbox.promise()
    outbox.settle(outbox.relay())
    with replaced(tmp_path, outbox.gate.url) as other, pytest.raises(WrongChainError, match="replaced"):
        outbox.relay(url=other.url).run_once()
