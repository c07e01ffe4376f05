"""Transactions that pay too little: signed again with higher fees, and whichever of a nonce is mined is the call's one run."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from rexis.encoding import to_hex
from rexis.errors import UnavailableError
from services.foundation.outbox.fees import Fees, Signed
from services.foundation.outbox.policies import GWEI, ChainPolicy
from services.foundation.outbox.transactions import ChainTransaction
from tests.services.chain_outbox import AT_ONCE, DEADLINE_S, Outbox
from tests.services.chain_process import ChainProcess, Gate, Halt, Once, Proxy, funded_signer, rpc, running

ROOT = Path(__file__).parents[2]
IMPATIENT = ChainPolicy(patience_s=0.0)
LADDER = ChainPolicy(confirmations=2, finality=4, patience_s=0.0)
HIGH, LOW = 100 * GWEI, 1 * GWEI


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ChainProcess]:
    """A chain of its own for each test, since base fees outlast a test."""
    with running(tmp_path) as chain:
        yield chain


@pytest.fixture
def proxy(node: ChainProcess) -> Iterator[Proxy]:
    opened = Proxy(node.url)
    yield opened
    opened.close()


@pytest.fixture
def outbox(engine: Engine, node: ChainProcess) -> Outbox:
    return Outbox(engine, funded_signer(node.url), Gate(node.url))


def mine(outbox: Outbox, *, base: int | None = None) -> list[str]:
    """One block; `base` is its base fee. Returns the hashes in it."""
    if base is not None:
        rpc(outbox.gate.url, "anvil_setNextBlockBaseFeePerGas", hex(base))
    rpc(outbox.gate.url, "evm_mine")
    return [str(each) for each in rpc(outbox.gate.url, "eth_getBlockByNumber", "latest", False)["transactions"]]


def mine_nothing(outbox: Outbox, *, base: int) -> None:
    """A block without transactions, whatever they offer; anvil would drop those that are below its base fee, other nodes keep them."""
    limit = rpc(outbox.gate.url, "eth_getBlockByNumber", "latest", False)["gasLimit"]
    rpc(outbox.gate.url, "evm_setBlockGasLimit", hex(21_000))
    assert mine(outbox, base=base) == []
    rpc(outbox.gate.url, "evm_setBlockGasLimit", limit)


def strand(outbox: Outbox, count: int = 1, *, policy: ChainPolicy = AT_ONCE) -> list[bytes]:
    """Promise calls that wait in the node and pay less than the next block takes; returns their data."""
    rpc(outbox.gate.url, "evm_setAutomine", False)
    data = outbox.promise(count)
    outbox.relay(policy).run_once()
    assert outbox.states() == ["submitted"] * count
    mine_nothing(outbox, base=HIGH)
    return data


def fees(sent: ChainTransaction) -> Fees:
    return Signed.parse(sent.raw).fees


def finish(outbox: Outbox, policy: ChainPolicy = AT_ONCE) -> None:
    """Blocks and passes until every call has ended."""
    relay, deadline = outbox.relay(policy), time.monotonic() + DEADLINE_S
    while relay.run_once():
        assert time.monotonic() < deadline, outbox.states()
        mine(outbox)


@pytest.mark.parametrize("mode", ["eip-1559", "legacy"])
def test_what_pays_too_little_is_signed_again_lowest_nonce_first(outbox: Outbox, proxy: Proxy, mode: Any) -> None:
    policy = replace(IMPATIENT, fees=mode)
    data = strand(outbox, 3, policy=replace(AT_ONCE, fees=mode))
    outbox.relay(policy, url=proxy.url).run_once()
    # The chain asks for its base fee and a tip, and nodes take nothing in place of another that is not an eighth above it.
    for nonce in range(3):
        before, after = (fees(sent) for sent in outbox.transactions(nonce))
        assert after.most >= max(HIGH * 7 // 8, before.most * 9 / 8)
        assert (before.tip is None) == (after.tip is None) == (mode == "legacy")
        assert after.tip is None or before.tip is None or after.tip >= before.tip * 9 / 8
        one, other = (Signed.parse(sent.raw) for sent in outbox.transactions(nonce))
        assert replace(one, fees=other.fees) == other
    sent = [parameters[0] for parameters in proxy.passed["eth_sendRawTransaction"]]
    newest = [outbox.transactions(nonce)[-1] for nonce in range(3)]
    assert sent == [to_hex(each.raw) for each in newest]
    assert mine(outbox) == [each.hash for each in newest]
    finish(outbox)
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 3
    assert [(intent.state, intent.attempts, intent.transaction_hash) for intent in outbox.intents()] == [
        ("final", 1, each.hash) for each in newest
    ]
    # Both of a nonce are kept; one has a block, and none is open any more.
    for nonce in range(3):
        old, new = outbox.transactions(nonce)
        assert (old.block_number, new.block_number is not None) == (None, True)
        assert old.final_at is not None
        assert new.final_at is not None


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_patience_comes_before_a_higher_offer(outbox: Outbox) -> None:
    strand(outbox)
    relay = outbox.relay(replace(AT_ONCE, patience_s=2.0))
    relay.run_once()
    assert len(outbox.transactions(0)) == 1
    time.sleep(2.0)
    relay.run_once()
    assert len(outbox.transactions(0)) == 2


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_pays_enough_waits_for_its_block_without_a_higher_offer(outbox: Outbox) -> None:
    """A chain that stands still is not made faster by money."""
    rpc(outbox.gate.url, "evm_setAutomine", False)
    data = outbox.promise(2)
    relay = outbox.relay(replace(AT_ONCE, patience_s=1.0))
    relay.run_once()
    time.sleep(1.5)
    relay.run_once()
    assert [len(outbox.transactions(nonce)) for nonce in (0, 1)] == [1, 1]
    finish(outbox)
    assert outbox.gate.calls() == data


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_blocks_pass_over_is_offered_for_more_although_it_pays_enough(outbox: Outbox) -> None:
    rpc(outbox.gate.url, "evm_setAutomine", False)
    data = outbox.promise(2)
    relay = outbox.relay(replace(AT_ONCE, patience_s=2.0))
    relay.run_once()
    limit = rpc(outbox.gate.url, "eth_getBlockByNumber", "latest", False)["gasLimit"]
    rpc(outbox.gate.url, "evm_setBlockGasLimit", hex(21_000))
    rpc(outbox.gate.url, "evm_increaseTime", 3)
    assert mine(outbox) == []
    time.sleep(2.0)
    relay.run_once()
    # The second one only waits for its turn.
    assert [len(outbox.transactions(nonce)) for nonce in (0, 1)] == [2, 1]
    rpc(outbox.gate.url, "evm_setBlockGasLimit", limit)
    finish(outbox)
    assert outbox.gate.calls() == data


def test_a_call_follows_whichever_of_its_transactions_was_mined(outbox: Outbox) -> None:
    data = strand(outbox)
    outbox.relay(IMPATIENT).run_once()
    old, new = outbox.transactions(0)
    assert outbox.intents()[0].transaction_hash == new.hash
    # The node has only the first one any more, and it became cheap enough.
    rpc(outbox.gate.url, "anvil_dropTransaction", new.hash)
    rpc(outbox.gate.url, "anvil_setNextBlockBaseFeePerGas", hex(LOW))
    rpc(outbox.gate.url, "eth_sendRawTransaction", to_hex(old.raw))
    assert mine(outbox) == [old.hash]
    finish(outbox)
    (intent,) = outbox.intents()
    assert (intent.state, intent.transaction_hash, intent.attempts) == ("final", old.hash, 1)
    assert outbox.gate.calls() == data
    assert all(sent.final_at is not None for sent in outbox.transactions(0))


@pytest.mark.parametrize("again", ["new", "old", "neither"])
def test_a_reorganisation_after_a_replacement_leads_down_the_ladder_and_up_again(outbox: Outbox, again: str) -> None:
    data = strand(outbox)
    # The block to which the chain goes back has room for others.
    assert mine(outbox, base=HIGH) == []
    relay = outbox.relay(LADDER)
    relay.run_once()
    old, new = outbox.transactions(0)
    before = rpc(outbox.gate.url, "evm_snapshot")
    assert mine(outbox) == [new.hash]
    relay.run_once()
    assert outbox.states() == ["mined"]
    for _ in range(2):
        mine(outbox)
    relay.run_once()
    assert outbox.states() == ["confirmed"]

    assert rpc(outbox.gate.url, "evm_revert", before) is True
    rpc(outbox.gate.url, "evm_setAutomine", False)
    if again != "neither":
        chosen = new if again == "new" else old
        rpc(outbox.gate.url, "anvil_setNextBlockBaseFeePerGas", hex(LOW))
        rpc(outbox.gate.url, "eth_sendRawTransaction", to_hex(chosen.raw))
        assert mine(outbox) == [chosen.hash]
        relay.run_once()
        assert outbox.states() == ["mined"]
        assert outbox.intents()[0].transaction_hash == chosen.hash
    else:
        relay.run_once()
        assert outbox.states() == ["submitted"]
        assert outbox.is_known(outbox.transactions(0)[-1])
    finish(outbox, LADDER)
    assert outbox.gate.calls() == data
    (intent,) = outbox.intents()
    (mined,) = [sent for sent in outbox.transactions(0) if sent.block_number is not None]
    assert (intent.state, intent.transaction_hash, intent.block_number, intent.attempts) == ("final", mined.hash, mined.block_number, 1)


def test_the_other_one_of_a_nonce_mined_unseen_after_a_reorganisation_is_seen(outbox: Outbox) -> None:
    """The nonce count never shrinks here: only the block tells that another transaction has it now."""
    data = strand(outbox)
    # The block to which the chain goes back has room for others.
    assert mine(outbox, base=HIGH) == []
    relay = outbox.relay(LADDER)
    relay.run_once()
    old, new = outbox.transactions(0)
    before = rpc(outbox.gate.url, "evm_snapshot")
    assert mine(outbox) == [new.hash]
    relay.run_once()
    first = outbox.intents()[0]
    assert rpc(outbox.gate.url, "evm_revert", before) is True
    rpc(outbox.gate.url, "evm_setAutomine", False)
    mine(outbox)
    rpc(outbox.gate.url, "anvil_setNextBlockBaseFeePerGas", hex(LOW))
    rpc(outbox.gate.url, "eth_sendRawTransaction", to_hex(old.raw))
    assert mine(outbox) == [old.hash]
    relay.run_once()
    (intent,) = outbox.intents()
    assert (intent.transaction_hash, intent.lost_once) == (old.hash, True)
    assert intent.block_number == (first.block_number or 0) + 1
    assert outbox.transactions(0)[-1].block_number is None
    finish(outbox, LADDER)
    assert outbox.gate.calls() == data


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_relay_killed_around_a_replacement_loses_and_repeats_nothing(outbox: Outbox, proxy: Proxy, when: str) -> None:
    data = strand(outbox, 2)
    halt = Halt()
    getattr(proxy, when)["eth_sendRawTransaction"] = halt
    url, key = outbox.engine.url.render_as_string(hide_password=False), outbox.signer._private_key.hex()
    process = subprocess.Popen([sys.executable, "-m", "tests.services.relay_process", url, proxy.url, key, "0"], cwd=ROOT)
    try:
        assert halt.reached.wait(DEADLINE_S), "the relay replaced nothing"
    finally:
        process.kill()
        process.wait()
        halt.released.set()
    stored = outbox.transactions(0)
    assert [sent.submitted_at is not None for sent in stored] == [True, False]
    assert outbox.is_known(stored[1]) == (when == "after")
    # What was stored is sent, and nothing is signed for it a third time.
    outbox.relay().run_once()
    assert len(outbox.transactions(0)) == 2
    assert outbox.is_known(stored[1])
    finish(outbox, IMPATIENT)
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 2


def test_relays_at_once_replace_one_after_the_other(outbox: Outbox) -> None:
    data = strand(outbox, 4)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(outbox.relay(IMPATIENT).run_once) for _ in range(4)]:
            done.result()
    for nonce in range(4):
        offers = [fees(sent) for sent in outbox.transactions(nonce)]
        assert len(offers) > 1
        for before, after in pairwise(offers):
            assert after.most >= before.most * 9 / 8
            assert (after.tip or 0) >= (before.tip or 0) * 9 / 8
    finish(outbox)
    assert outbox.gate.calls() == data
    assert outbox.nonce() == 4


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "answer",
    [
        {"code": -32000, "message": "replacement transaction underpriced"},
        {"code": -32000, "message": "already known"},
        {"code": -32000, "message": "nonce too low: next nonce 1, tx nonce 0"},
        {"code": -32003, "message": "transaction already imported"},
    ],
    ids=lambda answer: str(answer["message"]).replace(" ", "-"),
)
def test_what_a_node_says_against_a_replacement_is_no_failure(outbox: Outbox, proxy: Proxy, answer: dict[str, Any]) -> None:
    data = strand(outbox)
    proxy.refuses["eth_sendRawTransaction"] = lambda _: answer
    assert outbox.relay(IMPATIENT, url=proxy.url).run_once() == 1
    refused = outbox.transactions(0)[-1]
    assert (refused.submitted_at, outbox.states()) == (None, ["submitted"])
    # As long as it is refused, what the node has of this nonce stays in it.
    outbox.relay(url=proxy.url).run_once()
    assert outbox.is_known(outbox.transactions(0)[0])
    proxy.refuses.clear()
    finish(outbox, IMPATIENT)
    assert outbox.gate.calls() == data
    assert outbox.intents()[0].attempts == 1


def test_what_is_mined_while_it_is_replaced_runs_once(outbox: Outbox, proxy: Proxy) -> None:
    data = strand(outbox)
    (first,) = outbox.transactions(0)

    def mine_the_first() -> None:
        assert mine(outbox, base=LOW) == [first.hash]

    proxy.before["eth_sendRawTransaction"] = Once(mine_the_first)
    outbox.relay(IMPATIENT, url=proxy.url).run_once()
    assert len(outbox.transactions(0)) == 2
    finish(outbox)
    assert outbox.gate.calls() == data
    assert outbox.intents()[0].transaction_hash == first.hash
    assert outbox.nonce() == 1


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("ceiling", "said"), [(50 * GWEI, "asks for .* the ceiling is"), (90 * GWEI, "has to be .* above the ceiling")])
def test_no_offer_is_above_the_ceiling(outbox: Outbox, ceiling: int, said: str) -> None:
    data = strand(outbox, policy=replace(AT_ONCE, max_fee_per_gas=ceiling))
    if ceiling == 90 * GWEI:
        # An offer that has come close to the ceiling can not be raised by an eighth.
        mine(outbox, base=40 * GWEI)
        outbox.relay(replace(IMPATIENT, max_fee_per_gas=ceiling)).run_once()
        assert len(outbox.transactions(0)) == 2
        mine_nothing(outbox, base=85 * GWEI)
    with pytest.raises(UnavailableError, match=said):
        outbox.relay(replace(IMPATIENT, max_fee_per_gas=ceiling)).run_once()
    assert all(fees(sent).most <= ceiling for sent in outbox.transactions(0))
    assert outbox.states() == ["submitted"]
    # The higher ceiling of an operator, or a chain that asks for less, and it goes on.
    finish(outbox, IMPATIENT)
    assert outbox.gate.calls() == data


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_replacement_needs_funds_for_itself_only(outbox: Outbox) -> None:
    data = strand(outbox)
    gas = Signed.parse(outbox.transactions(0)[0].raw).gas
    rpc(outbox.gate.url, "anvil_setBalance", outbox.signer.address, hex(gas * 150 * GWEI))
    with pytest.raises(UnavailableError, match="fund it"):
        outbox.relay(IMPATIENT).run_once()
    assert len(outbox.transactions(0)) == 1
    rpc(outbox.gate.url, "anvil_setBalance", outbox.signer.address, hex(gas * 202 * GWEI))
    outbox.relay(IMPATIENT).run_once()
    assert len(outbox.transactions(0)) == 2
    finish(outbox)
    assert outbox.gate.calls() == data


def test_an_older_state_gets_the_mined_one_back_also_beside_a_dearer_one(engine: Engine, tmp_path: Path) -> None:
    """The cheaper transaction of a nonce was mined and lost: bytes of both may be mined, and are not signed a third time as a surprise."""
    with running(tmp_path / ".") as node:
        outbox = Outbox(engine, funded_signer(node.url), Gate(node.url))
        start = rpc(node.url, "evm_snapshot")
        data = strand(outbox)
        outbox.relay(IMPATIENT).run_once()
        old, new = outbox.transactions(0)
        rpc(node.url, "anvil_dropTransaction", new.hash)
        rpc(node.url, "anvil_setNextBlockBaseFeePerGas", hex(LOW))
        rpc(node.url, "eth_sendRawTransaction", to_hex(old.raw))
        assert mine(outbox) == [old.hash]
        finish(outbox)
        assert rpc(node.url, "evm_revert", start) is True
        rpc(node.url, "evm_setAutomine", False)
        outbox.relay(replace(AT_ONCE, patience_s=3600.0)).run_once()
        mine_nothing(outbox, base=HIGH)
        outbox.relay(IMPATIENT).run_once()
        finish(outbox)
        assert outbox.gate.calls() == data
        assert outbox.nonce() == 1
