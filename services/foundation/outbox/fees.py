"""What a transaction offers per unit of gas, what the chain asks, and what a second offer for the same nonce has to be."""

from dataclasses import dataclass
from typing import Any

import rlp
from web3 import Web3

from rexis.errors import UnavailableError
from services.foundation.outbox.policies import ChainPolicy

# Nodes ask for a tenth more, some for an eighth, on both fees.
RAISE_NUMERATOR, RAISE_DENOMINATOR = 9, 8
DYNAMIC_FEE_TYPE = 2


@dataclass(frozen=True)
class Fees:
    """An offer in wei per gas: `most` for everything, of it `tip` for the block's maker; a tip of None is a legacy gas price."""

    most: int
    tip: int | None

    def fields(self) -> dict[str, int]:
        """As a transaction has them."""
        return {"gasPrice": self.most} if self.tip is None else {"maxFeePerGas": self.most, "maxPriorityFeePerGas": self.tip}

    def raised(self, asked: "Fees") -> "Fees":
        """The least offer that nodes take in place of this one and that is not below what the chain asks; of the same kind as this."""
        tip = None if self.tip is None else max(_raised(self.tip), asked.tip or 0)
        return Fees(max(_raised(self.most), asked.most), tip)


@dataclass(frozen=True)
class Quote:
    """What the chain asks now.

    Attributes:
        base: wei per gas that a block burns; 0 where a gas price is asked for.
        tip: wei per gas besides; None where a gas price is asked for.
        price: the gas price, where it is asked for.
        ceiling: wei per gas that the policy allows.
        block_time: Unix time of the newest block, in seconds.
    """

    base: int
    tip: int | None
    price: int
    ceiling: int
    block_time: int

    @property
    def needed(self) -> int:
        """Wei per gas without which the next block takes nothing."""
        return self.price if self.tip is None else self.base + self.tip

    def offer(self) -> Fees:
        """For a new transaction. Twice the base fee lasts through six full blocks in a row; what is not used is not paid."""
        if self.tip is None:
            return Fees(self.price, None)
        return Fees(min(2 * self.base + self.tip, self.ceiling), self.tip)

    def covered_by(self, fees: Fees) -> bool:
        """Whether the next block would take an offer."""
        if self.tip is None or fees.tip is None:
            return fees.most >= self.needed
        return fees.most >= self.needed and fees.tip >= self.tip


def quote(web3: Web3, policy: ChainPolicy) -> Quote:
    """Ask the chain.

    Raises:
        UnavailableError: it asks for more than the ceiling.
    """
    block: Any = web3.eth.get_block("latest")
    base = block.get("baseFeePerGas")
    if base is None or policy.fees == "legacy":
        asked = Quote(0, None, int(web3.eth.gas_price), policy.max_fee_per_gas, int(block["timestamp"]))
    else:
        # The node is not asked for a tip that would not be paid.
        tip = min(int(web3.eth.max_priority_fee), policy.max_priority_fee_per_gas) if policy.max_priority_fee_per_gas else 0
        asked = Quote(int(base), tip, 0, policy.max_fee_per_gas, int(block["timestamp"]))
    if asked.needed > asked.ceiling:
        raise UnavailableError(
            f"the chain asks for {asked.needed} wei per gas, the ceiling is {asked.ceiling}; calls wait until it asks for less, "
            "or until REXIS_MAX_FEE_GWEI is raised"
        )
    return asked


@dataclass(frozen=True)
class Signed:
    """What signed bytes say: the call, its gas, and the offer. `to` has no checksum."""

    to: str
    data: bytes
    gas: int
    fees: Fees

    @classmethod
    def parse(cls, raw: bytes) -> "Signed":
        """Read bytes that `Relay` signed: a legacy transaction (EIP-155) or one with a dynamic fee (EIP-1559)."""
        if raw[0] == DYNAMIC_FEE_TYPE:
            _, _, tip, most, gas, to, _, data, *_ = rlp.decode(raw[1:])
            return cls("0x" + to.hex(), data, _integer(gas), Fees(_integer(most), _integer(tip)))
        _, most, gas, to, _, data, *_ = rlp.decode(raw)
        return cls("0x" + to.hex(), data, _integer(gas), Fees(_integer(most), None))


def payload(chain_id: int, to: str, data: bytes, gas: int, fees: Fees) -> bytes:
    """The bytes of a call before it is signed, for contracts that price them; its nonce counts as one of four bytes."""
    receiver, nonce, tip = bytes.fromhex(to[2:]), (1 << 32) - 1, fees.tip
    if tip is None:
        return rlp.encode([nonce, fees.most, gas, receiver, 0, data, chain_id, 0, 0])
    return bytes([DYNAMIC_FEE_TYPE]) + rlp.encode([chain_id, nonce, tip, fees.most, gas, receiver, 0, data, []])


def _raised(fee: int) -> int:
    return max(fee + 1, -(-fee * RAISE_NUMERATOR // RAISE_DENOMINATOR))


def _integer(value: bytes) -> int:
    return int.from_bytes(value, "big")
