"""What the node says about a call before it is signed, and about one that failed: gas, funds, and the contract's own reason."""

from dataclasses import dataclass, replace

from eth_abi import encode
from web3 import Web3
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import BlockIdentifier, TxParams

from rexis.chain.reverts import decode_revert
from rexis.encoding import keccak256
from rexis.errors import ChainError, ContractRevertedError, UnavailableError
from services.foundation.outbox.fees import Fees

# State, and with it the cost of a call, may change between estimate and execution.
GAS_MARGIN = 1.2
# JSON-RPC codes of answers about a call; any other is about the node, such as a rate limit, and says nothing about the call.
CALL_FAULTS = frozenset({3, -32000, -32003, -32015})
# States of older blocks are kept by archive nodes only.
KEPT_STATES = 128
# L1's base fee moves between the question and the block, as the chain's own does.
DATA_FEE_MARGIN = 2
GET_L1_FEE = keccak256(b"getL1Fee(bytes)")[:4]


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

    def limited(self, gas: int) -> "Call":
        """The same call with another limit."""
        return replace(self, gas=gas)


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


def reason_of_failure(web3: Web3, call: Call, block: int) -> ContractRevertedError:
    """Why a mined call failed: it is run again on the state of `block`, the one before its own, if the node has it still.

    Raises:
        UnavailableError: the node answers with a failure of its own.
    """
    try:
        web3.eth.call(call.parameters(), block)
    except ContractLogicError as error:
        return refusal(error)
    except Web3RPCError as error:
        if int(web3.eth.block_number) - block < KEPT_STATES:
            _check_concerns_call(error)
        return ContractRevertedError("", "Unknown", {"node": error.message})
    # It depended on a call before it in its own block, or ran out of gas.
    return ContractRevertedError("", "Unknown", {})


def _check_concerns_call(error: Web3RPCError) -> None:
    answer = error.rpc_response.get("error") if error.rpc_response is not None else None
    if not isinstance(answer, dict) or answer.get("code") not in CALL_FAULTS:
        raise UnavailableError(f"the chain does not answer now ({error.message}); calls wait") from error


def refusal(error: ContractLogicError) -> ContractRevertedError:
    """The contract's custom error, decoded from the bytes that the node returned."""
    data = error.data if isinstance(error.data, str) and error.data.startswith("0x") else "0x"
    return decode_revert(bytes.fromhex(data[2:]))


def check_funds(
    web3: Web3,
    sender: str,
    gas: int,
    fees: Fees,
    *,
    oracle: str | None = None,
    data: bytes = b"",
    block: BlockIdentifier = "pending",
) -> None:
    """Refuse to sign what the sender can not pay for.

    Args:
        oracle: address of the contract that knows what `data`, the bytes of the transaction, cost besides; None where they are free.
        block: whose balance counts; not the pending one for a replacement, which does not pay beside what it replaces.

    Raises:
        UnavailableError: the balance is too small; the operator must fund the account.
    """
    needed = gas * fees.most + (0 if oracle is None else DATA_FEE_MARGIN * data_fee(web3, oracle, data))
    balance = web3.eth.get_balance(Web3.to_checksum_address(sender), block) if needed else 0
    if balance < needed:
        raise UnavailableError(f"the relaying account {sender} has {balance} wei and needs {needed}: fund it; calls wait")


def data_fee(web3: Web3, oracle: str, data: bytes) -> int:
    """Wei that an OP-stack chain takes for publishing the bytes of a transaction, before they are signed, on L1 now.

    Raises:
        UnavailableError: there is no such contract at `oracle`: the policy is for another kind of chain.
    """
    encoded = encode(["bytes"], [data])
    answer = bytes(web3.eth.call({"to": Web3.to_checksum_address(oracle), "data": Web3.to_hex(GET_L1_FEE + encoded)}))
    if len(answer) != 32:
        raise UnavailableError(f"no gas price oracle answers at {oracle}: is REXIS_CHAIN_POLICY the one of this chain? calls wait")
    return int.from_bytes(answer, "big")
