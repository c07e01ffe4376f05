"""Policies of chains: what each preset does on a chain that behaves so, which one is chosen, and that the guide tells the truth."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import Engine

from rexis.chain.connection import open_web3
from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.errors import ConfigurationError, UnavailableError
from services.foundation.outbox.fees import Signed
from services.foundation.outbox.policies import GWEI, KNOWN_CHAINS, PRESETS, ChainPolicy, policy_of
from services.foundation.settings import ChainPolicyName
from tests.services.chain_outbox import Outbox
from tests.services.chain_process import ChainProcess, Gate, Proxy, funded_signer, rpc, running
from tests.services.test_settings import LOCAL, PRODUCTION, ExampleSettings, set_all

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "operator.md"
ORACLE = "0x420000000000000000000000000000000000000F"
# Answers one word: 10^15 wei for every byte of call data.
ORACLE_CODE = "0x" + "36" + "66" + format(10**15, "014x") + "02" + "5f52" + "60205ff3"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ChainProcess]:
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


def sent(outbox: Outbox, nonce: int = 0) -> Signed:
    return Signed.parse(outbox.transactions(nonce)[-1].raw)


def blocks(number: int) -> str:
    return f"{number} block{'' if number == 1 else 's'} on top"


def row(name: str, policy: ChainPolicy) -> str:
    """The line of the guide's table that a preset has to have."""
    final = blocks(policy.finality) if isinstance(policy.finality, int) else f"tag `{policy.finality}`"
    final += f", and {policy.final_after_s:g} s" if policy.final_after_s else ""
    cells = [
        f"`{name}`",
        blocks(policy.confirmations),
        final + ("; may be lost" if policy.final_may_be_lost else ""),
        policy.fees,
        f"{policy.max_fee_per_gas / GWEI:g}",
        "none" if policy.fees == "legacy" else f"{policy.max_priority_fee_per_gas / GWEI:g}",
        "none" if policy.data_fee_oracle is None else f"`{policy.data_fee_oracle}`",
        f"{policy.gas_allowance} times",
        f"{policy.patience_s:g} s",
        f"{policy.doubt_s:g} s",
        "read",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_guide_tells_what_the_presets_are() -> None:
    assert set(PRESETS) == set(get_args(ChainPolicyName))
    text = GUIDE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(?:local|qbft|op-stack|arbitrum|generic)` \|.*$", text, re.MULTILINE) == [
        row(name, policy) for name, policy in PRESETS.items()
    ]
    for chain_id, name in KNOWN_CHAINS.items():
        sentence = next(
            part for part in text.replace("\n", " ").split("`REXIS_CHAIN_ID` decides.")[1].split("| preset")[0].split("`, ") if name in part
        )
        assert str(chain_id) in sentence


def test_the_chain_decides_unless_the_operator_does() -> None:
    chosen = {chain_id: policy_of(chain_id) for chain_id in (31337, 10, 8453, 42161, 1, 1337)}
    assert list(chosen.values()) == [PRESETS[name] for name in ("local", "op-stack", "op-stack", "arbitrum", "generic", "generic")]
    assert policy_of(1337, "qbft") == PRESETS["qbft"]
    assert policy_of(8453, max_fee_gwei=0.25) == replace(PRESETS["op-stack"], max_fee_per_gas=GWEI // 4)


def test_settings_choose_the_policy_and_production_refuses_the_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REXIS_CHAIN_POLICY", "REXIS_MAX_FEE_GWEI"):
        monkeypatch.delenv(name, raising=False)
    set_all(monkeypatch, PRODUCTION | {"REXIS_CHAIN_POLICY": "qbft", "REXIS_MAX_FEE_GWEI": "2.5"})
    settings = ExampleSettings.from_environment()
    assert (settings.chain_policy, settings.max_fee_gwei) == ("qbft", 2.5)
    monkeypatch.setenv("REXIS_CHAIN_POLICY", "local")
    with pytest.raises(ConfigurationError, match="REXIS_CHAIN_POLICY: only the local"):
        ExampleSettings.from_environment()
    for wrong in ({"REXIS_CHAIN_POLICY": "clique"}, {"REXIS_MAX_FEE_GWEI": "0"}, {"REXIS_MAX_FEE_GWEI": "inf"}):
        for name in ("REXIS_CHAIN_POLICY", "REXIS_MAX_FEE_GWEI"):
            monkeypatch.delenv(name, raising=False)
        set_all(monkeypatch, LOCAL | wrong)
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            ExampleSettings.from_environment()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_runs_a_call_up_the_ladder(outbox: Outbox, proxy: Proxy, name: ChainPolicyName) -> None:
    policy = replace(PRESETS[name], final_after_s=0.0)
    rpc(outbox.gate.url, "anvil_setCode", ORACLE, "0x5f5f5260205ff3")
    # A node of an L2 keeps few states: what it is asked about an account is asked of the newest block.
    for method in ("eth_getTransactionCount", "eth_call", "eth_getBalance", "eth_estimateGas"):
        proxy.refuses[method] = lambda parameters: parameters[1] not in ("latest", "pending") and {"code": -32000, "message": "pruned"}
    data, relay, seen = outbox.promise(), outbox.relay(policy, proxy.url), ["queued"]
    rpc(outbox.gate.url, "evm_setAutomine", False)
    for _ in range(80):
        relay.run_once()
        if outbox.states()[0] != seen[-1]:
            seen += outbox.states()
        rpc(outbox.gate.url, "evm_mine")
    ladder = {"qbft": ["mined", "final"], "local": ["final"]}.get(name, ["mined", "confirmed", "final"])
    assert seen == ["queued", "submitted", *ladder]
    assert outbox.gate.calls() == data
    assert (sent(outbox).fees.tip is None) == (name == "qbft")
    assert sent(outbox).fees.most <= policy.max_fee_per_gas


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_consortium_without_gas_fees_needs_no_ether(engine: Engine, tmp_path: Path) -> None:
    with running(tmp_path, "--base-fee", "0", "--gas-price", "0") as chain:
        opened = Proxy(chain.url)
        # Anvil always names a price; a Besu node with --min-gas-price=0 names none.
        opened.rewrites["eth_gasPrice"] = lambda _parameters, _result: "0x0"
        outbox = Outbox(engine, LocalSigner.generate(), Gate(chain.url))
        rpc(chain.url, "evm_setAutomine", False)
        data = outbox.promise(2)
        relay = outbox.relay(replace(PRESETS["qbft"], patience_s=0.0), opened.url)
        for _ in range(3):
            relay.run_once()
        assert [len(outbox.transactions(nonce)) for nonce in (0, 1)] == [1, 1]
        for _ in range(3):
            rpc(chain.url, "evm_mine")
            relay.run_once()
        opened.close()
        assert outbox.gate.calls() == data
        assert outbox.states() == ["final"] * 2
        assert int(rpc(chain.url, "eth_getBalance", outbox.signer.address, "latest"), 16) == 0


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_an_op_stack_chain_is_paid_for_the_bytes_as_well(outbox: Outbox) -> None:
    policy = replace(PRESETS["op-stack"], finality=0)
    data = outbox.promise()
    with pytest.raises(UnavailableError, match="REXIS_CHAIN_POLICY"):
        outbox.relay(policy).run_once()
    rpc(outbox.gate.url, "anvil_setCode", ORACLE, ORACLE_CODE)
    # A transaction of 130 bytes in a call of 228: twice that, in units of 10^15, is below half an ether, and the account's one is enough.
    rpc(outbox.gate.url, "anvil_setBalance", outbox.signer.address, hex(10**17))
    with pytest.raises(UnavailableError, match="fund it"):
        outbox.relay(policy).run_once()
    assert outbox.states() == ["queued"]
    rpc(outbox.gate.url, "anvil_setBalance", outbox.signer.address, hex(10**18))
    outbox.relay(policy).run_once()
    assert outbox.states() == ["submitted"]
    assert outbox.gate.calls() == data


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_arbitrum_gets_no_tip_and_room_for_what_l1_costs(outbox: Outbox) -> None:
    """There an estimate is above the gas that the call itself needs, which its ceiling was made for."""
    data = outbox.promise(gas=21_500)
    outbox.relay(replace(PRESETS["arbitrum"], finality=0)).run_once()
    assert outbox.gate.calls() == data
    assert sent(outbox).fees.tip == 0
    assert 21_500 < sent(outbox).gas < 215_000


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_node_without_final_blocks_is_told_apart_from_one_that_is_away(outbox: Outbox, proxy: Proxy) -> None:
    proxy.rewrites["eth_getBlockByNumber"] = lambda parameters, result: None if parameters[0] == "finalized" else result
    data, relay = outbox.promise(), outbox.relay(PRESETS["generic"], proxy.url)
    relay.run_once()
    with pytest.raises(UnavailableError, match=r"no block as finalized.*REXIS_CHAIN_POLICY"):
        relay.run_once()
    assert outbox.gate.calls() == data


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seals", [97, 32 + 65 * 22])
def test_headers_with_seals_are_read_on_every_chain(outbox: Outbox, proxy: Proxy, seals: int) -> None:
    def with_seals(_parameters: list[Any], block: Any) -> Any:
        return block and block | {"extraData": "0x" + "5e" * seals}

    proxy.rewrites["eth_getBlockByNumber"] = proxy.rewrites["eth_getBlockByHash"] = with_seals
    block: Any = open_web3(proxy.url).eth.get_block("latest")
    assert len(block["proofOfAuthorityData"]) == seals
    data = outbox.promise()
    outbox.settle(outbox.relay(replace(PRESETS["qbft"], confirmations=0, finality=0), proxy.url))
    assert outbox.gate.calls() == data


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_failure_in_an_old_block_ends_although_its_state_is_pruned(outbox: Outbox, proxy: Proxy) -> None:
    """A relay that was away for long asks why a call failed; nodes have the states of the last 128 blocks."""
    rpc(outbox.gate.url, "evm_setAutomine", False)
    outbox.promise()
    relay = outbox.relay(url=proxy.url)
    relay.run_once()
    outbox.gate.toggle_first()
    rpc(outbox.gate.url, "evm_mine")
    proxy.refuses["eth_call"] = lambda parameters: parameters[1] != "pending" and {"code": -32603, "message": "state is pruned"}
    # A young block has its state, so this is the node's own trouble, and the reason is asked for again.
    with pytest.raises(UnavailableError, match="calls wait"):
        relay.run_once()
    rpc(outbox.gate.url, "anvil_mine", hex(200))
    relay.run_once()
    (failed,) = outbox.intents()
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["error"] == "Unknown"


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_node_that_lags_behind_another_makes_no_call_run_twice(outbox: Outbox, proxy: Proxy) -> None:
    """One node of an address counts the nonce already, another one has no receipt yet."""
    data, relay = outbox.promise(), outbox.relay(ChainPolicy(doubt_s=60.0), proxy.url)
    relay.run_once()
    proxy.rewrites["eth_getTransactionReceipt"] = lambda _parameters, _result: None
    for _ in range(3):
        assert relay.run_once() == 1
        rpc(outbox.gate.url, "evm_mine")
    assert outbox.states() == ["submitted"]
    proxy.rewrites.clear()
    outbox.settle(relay)
    assert outbox.gate.calls() == data
    assert (outbox.nonce(), outbox.intents()[0].attempts) == (1, 1)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_nonce_used_elsewhere_in_a_block_that_went_away_is_not_lost(outbox: Outbox, proxy: Proxy) -> None:
    """That something else has the nonce counts only when the block in which it was seen is final, and the same one."""
    policy = ChainPolicy(confirmations=2, finality=2)
    rpc(outbox.gate.url, "evm_setAutomine", False)
    data, relay = outbox.promise(), outbox.relay(policy)
    relay.run_once()
    (ours,) = outbox.transactions(0)
    before = rpc(outbox.gate.url, "evm_snapshot")
    rpc(outbox.gate.url, "anvil_dropTransaction", ours.hash)
    fields = {"chainId": 31337, "nonce": 0, "to": outbox.signer.address, "value": 0, "data": b"", "gas": 21_000, "gasPrice": 10**10}
    rpc(outbox.gate.url, "eth_sendRawTransaction", to_hex(outbox.signer.sign_transaction(fields)))
    rpc(outbox.gate.url, "evm_mine")
    relay.run_once()
    assert rpc(outbox.gate.url, "evm_revert", before) is True
    rpc(outbox.gate.url, "evm_setAutomine", False)
    rpc(outbox.gate.url, "eth_sendRawTransaction", to_hex(ours.raw))
    for _ in range(4):
        rpc(outbox.gate.url, "evm_mine")
        relay.run_once()
    assert outbox.gate.calls() == data
    assert (outbox.states(), outbox.intents()[0].attempts) == (["final"], 1)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_nonce_is_given_up_in_the_history_in_which_it_was_used(outbox: Outbox) -> None:
    """Something else used it, was undone, and used it again: what counts is how deep the second time lies."""
    rpc(outbox.gate.url, "evm_setAutomine", False)
    data, relay = outbox.promise(), outbox.relay(ChainPolicy(confirmations=2, finality=2))
    relay.run_once()
    (ours,) = outbox.transactions(0)
    rpc(outbox.gate.url, "anvil_dropTransaction", ours.hash)
    fields = {"chainId": 31337, "nonce": 0, "to": outbox.signer.address, "value": 0, "data": b"", "gas": 21_000, "gasPrice": 10**10}
    elsewhere = to_hex(outbox.signer.sign_transaction(fields))
    before = rpc(outbox.gate.url, "evm_snapshot")
    rpc(outbox.gate.url, "eth_sendRawTransaction", elsewhere)
    rpc(outbox.gate.url, "evm_mine")
    relay.run_once()
    assert rpc(outbox.gate.url, "evm_revert", before) is True
    rpc(outbox.gate.url, "evm_setAutomine", False)
    # Two of these come before it, so that the number of the block in which it was seen first is final, and its hash is another one.
    rpc(outbox.gate.url, "evm_increaseTime", 60)
    for _ in range(2):
        rpc(outbox.gate.url, "evm_mine")
    rpc(outbox.gate.url, "eth_sendRawTransaction", elsewhere)
    rpc(outbox.gate.url, "evm_mine")
    relay.run_once()
    assert (outbox.states(), outbox.intents()[0].transaction_hash) == (["submitted"], ours.hash)
    for _ in range(8):
        rpc(outbox.gate.url, "evm_mine")
        relay.run_once()
    assert outbox.gate.calls() == data
    assert (outbox.states(), outbox.intents()[0].attempts, outbox.nonce()) == (["final"], 2, 2)
