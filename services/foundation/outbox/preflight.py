"""What the node says about a call before it is signed, and about one that failed: gas, fees, and the contract's own reason."""

from dataclasses import dataclass
from typing import Any

from web3 import Web3
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import BlockIdentifier, TxParams

from rexis.chain.explanations import NOT_REPEATABLE
from rexis.chain.reverts import decode_revert
from rexis.errors import ChainError, ContractRevertedError, UnavailableError

# State, and with it the cost of a call, may change between estimate and execution.
GAS_MARGIN = 1.2
# JSON-RPC codes of answers about a call; any other is about the node, such as a rate limit, and says nothing about the call.
CALL_FAULTS = frozenset({3, -32000, -32003, -32015})


@dataclass(frozen=True)
class Call:
    """A contract call without its nonce. `gas` is the most that it may use, in units of gas."""

    sender: str
    to: str
    data: bytes
    gas: int

    def parameters(self) -> TxParams:
        """As JSON-RPC wants them."""
        return {
            "from": Web3.to_checksum_address(self.sender),
            "to": Web3.to_checksum_address(self.to),
            "data": Web3.to_hex(self.data),
            "gas": self.gas,
        }


def gas_limit(web3: Web3, call: Call) -> int:
    """Run the call against the pending state and return the gas to sign with: 1.2 times the estimate, at most the call's ceiling.

    Raises:
        ContractRevertedError: the contract refuses it.
        ChainError: the node can not run it, e.g. because it needs more gas than its ceiling.
        UnavailableError: the node answers with a failure of its own.
    """
    try:
        web3.eth.call(call.parameters(), "pending")
        estimate = web3.eth.estimate_gas(call.parameters(), "pending")
    except ContractLogicError as error:
        raise refusal(error) from error
    except Web3RPCError as error:
        _check_concerns_call(error)
        raise ChainError(f"the node can not run this call with at most {call.gas} gas: {error.message}") from error
    return min(int(estimate * GAS_MARGIN), call.gas)


def reason_of_failure(web3: Web3, call: Call, block: BlockIdentifier) -> ContractRevertedError:
    """Why a mined call failed: it is run again on the state of `block`, the one before its own.

    Raises:
        UnavailableError: the node answers with a failure of its own.
    """
    try:
        web3.eth.call(call.parameters(), block)
    except ContractLogicError as error:
        return refusal(error)
    except Web3RPCError as error:
        _check_concerns_call(error)
        return ContractRevertedError("", "Unknown", {"node": error.message}, NOT_REPEATABLE)
    # It depended on a call before it in its own block, or ran out of gas.
    return ContractRevertedError("", "Unknown", {}, NOT_REPEATABLE)


def _check_concerns_call(error: Web3RPCError) -> None:
    answer = error.rpc_response.get("error") if error.rpc_response is not None else None
    if not isinstance(answer, dict) or answer.get("code") not in CALL_FAULTS:
        raise UnavailableError(f"the chain does not answer now ({error.message}); calls wait") from error


def refusal(error: ContractLogicError) -> ContractRevertedError:
    """The contract's custom error, decoded from the bytes that the node returned."""
    data = error.data if isinstance(error.data, str) and error.data.startswith("0x") else "0x"
    return decode_revert(bytes.fromhex(data[2:]))


def current_fees(web3: Web3, *, max_fee_per_gas: int, max_priority_fee_per_gas: int) -> dict[str, int]:
    """Fee fields for the next transaction, in wei per gas: EIP-1559, or a gas price on a chain without base fee.

    Twice the base fee lasts through six full blocks in a row; what is not used is not paid.

    Raises:
        UnavailableError: the chain asks for more than `max_fee_per_gas` now.
    """
    base: Any = web3.eth.get_block("latest").get("baseFeePerGas")
    if base is None:
        price = int(web3.eth.gas_price)
        needed, fees = price, {"gasPrice": price}
    else:
        tip = min(int(web3.eth.max_priority_fee), max_priority_fee_per_gas)
        needed, fees = base + tip, {"maxFeePerGas": min(2 * base + tip, max_fee_per_gas), "maxPriorityFeePerGas": tip}
    if needed > max_fee_per_gas:
        raise UnavailableError(f"the chain asks for {needed} wei per gas, the ceiling is {max_fee_per_gas}; calls wait")
    return fees


def check_funds(web3: Web3, sender: str, gas: int, fees: dict[str, int]) -> None:
    """Refuse to sign what the sender can not pay for.

    Raises:
        UnavailableError: the balance is too small; the operator must fund the account.
    """
    needed = gas * (fees["gasPrice"] if "gasPrice" in fees else fees["maxFeePerGas"])
    balance = web3.eth.get_balance(Web3.to_checksum_address(sender), "pending")
    if balance < needed:
        raise UnavailableError(f"the relaying account {sender} has {balance} wei and needs {needed}: fund it; calls wait")
