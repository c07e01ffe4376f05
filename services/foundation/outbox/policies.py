"""What differs from chain to chain: when a fact may be acted on, what a call may cost, and how long one waits before paying more."""

from dataclasses import dataclass, replace
from typing import Literal

from services.foundation.settings import LOCAL_CHAIN_ID, ChainPolicyName

GWEI = 10**9


@dataclass(frozen=True)
class ChainPolicy:
    """When a fact of a chain may be acted on, and what a call may cost.

    Attributes:
        confirmations: blocks on top of a confirmed one: it may be shown, and a reorganisation may still undo it.
        finality: blocks on top of a final one, or the tag under which the node keeps the newest final block; never before confirmed.
        final_after_s: seconds that a block must have been there besides.
        final_may_be_lost: the chain can lose blocks after they were final (a local chain that is restored from an older file).
        settle_s: how long a call that was accepted, lost, and is refused now is tried again.
        doubt_s: how long a nonce must have been used by something unknown, besides being final, before its call is signed again:
            nodes behind one address may be at different blocks.
        max_attempts: nonces of one call, or tries when the node can not run it.
        fees: EIP-1559, or a gas price as the node names it, also none at all; a chain without base fee gets a gas price anyway.
        max_fee_per_gas: wei; nothing is ever offered above it.
        max_priority_fee_per_gas: wei; a replacement, which has to raise both fees, may go above it.
        gas_allowance: a call's ceiling of gas is multiplied with it, where an estimate has more in it than the call's own work.
        data_fee_oracle: address of the contract that knows what the bytes of a transaction cost on top; None where they cost nothing.
        patience_s: how long a transaction may stay unmined before it is signed again with higher fees.
    """

    confirmations: int = 0
    finality: int | Literal["safe", "finalized"] = 0
    final_after_s: float = 0.0
    final_may_be_lost: bool = False
    settle_s: float = 60.0
    doubt_s: float = 0.0
    max_attempts: int = 5
    fees: Literal["eip-1559", "legacy"] = "eip-1559"
    max_fee_per_gas: int = 500 * GWEI
    max_priority_fee_per_gas: int = 5 * GWEI
    gas_allowance: int = 1
    data_fee_oracle: str | None = None
    patience_s: float = 60.0


PRESETS: dict[ChainPolicyName, ChainPolicy] = {
    # Anvil mines at once, writes its state every second, and forgets what came after the last time it did.
    "local": ChainPolicy(final_after_s=3.0, final_may_be_lost=True, patience_s=30.0),
    # A block with the seals of two thirds of the validators is never undone; one more for nodes that hear of it later.
    "qbft": ChainPolicy(confirmations=1, finality=1, doubt_s=30.0, fees="legacy", patience_s=30.0),
    # Blocks every two seconds; the sequencer's word until the batch is final on L1, and L1 is paid for the bytes.
    "op-stack": ChainPolicy(
        confirmations=2,
        finality="finalized",
        doubt_s=60.0,
        max_fee_per_gas=10 * GWEI,
        max_priority_fee_per_gas=1 * GWEI,
        data_fee_oracle="0x420000000000000000000000000000000000000F",
        patience_s=20.0,
    ),
    # First come, first served: a tip buys nothing. An estimate has the price of the bytes on L1 in it, counted as gas.
    "arbitrum": ChainPolicy(
        confirmations=2,
        finality="finalized",
        doubt_s=60.0,
        max_fee_per_gas=10 * GWEI,
        max_priority_fee_per_gas=0,
        gas_allowance=10,
        patience_s=20.0,
    ),
    # As on Ethereum itself: blocks every twelve seconds, final after two epochs.
    "generic": ChainPolicy(confirmations=3, finality="finalized", doubt_s=60.0, patience_s=60.0),
}

# Optimism and Base, Arbitrum One, and their public test chains.
KNOWN_CHAINS: dict[int, ChainPolicyName] = {
    LOCAL_CHAIN_ID: "local",
    **dict.fromkeys((10, 8453, 11155420, 84532), "op-stack"),
    **dict.fromkeys((42161, 421614), "arbitrum"),
}


def policy_of(chain_id: int, name: ChainPolicyName | None = None, *, max_fee_gwei: float | None = None) -> ChainPolicy:
    """The policy for a chain.

    Args:
        name: of a preset; None takes the one of a well-known chain, and `generic` for any other.
        max_fee_gwei: the operator's ceiling instead of the preset's.
    """
    preset = PRESETS[name or KNOWN_CHAINS.get(chain_id, "generic")]
    return preset if max_fee_gwei is None else replace(preset, max_fee_per_gas=int(max_fee_gwei * GWEI))
