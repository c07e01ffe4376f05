"""Contract accounts: whether a signature is theirs, only their own code can say (ERC-1271)."""

import requests
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractLogicError, Web3Exception
from web3.types import TxParams

from rexis.encoding import abi_encode
from rexis.errors import SignatureError, UnavailableError

# About thirty owners' signatures at 3,000 gas for the recovery and as much again for storage, with room.
WALLET_GAS = 1_000_000
WALLET_TIMEOUT_S = 3.0

IS_VALID_SIGNATURE = bytes.fromhex("1626ba7e")
# The magic value is the function's own selector, padded to a word.
MAGIC_VALUE = IS_VALID_SIGNATURE + bytes(28)


def check_wallet_signature(web3: Web3, address: str, digest: bytes, signature: bytes, refused: SignatureError) -> None:
    """Ask the contract at `address` whether `signature` over the 32-byte `digest` is its own.

    The contract's owners may change: an answer holds for the moment of asking and is never kept.

    Args:
        web3: over HTTP; the question goes over a connection of its own, with a short timeout.
        refused: why the signature is not one by the key of `address`; raised if there is no contract.

    Raises:
        SignatureError: no contract, or it does not accept the signature within `WALLET_GAS`.
        UnavailableError: the node does not answer within `WALLET_TIMEOUT_S`.
    """
    node = impatient(web3)
    account = Web3.to_checksum_address(address)
    call: TxParams = {
        "to": account,
        "data": Web3.to_hex(IS_VALID_SIGNATURE + abi_encode(["bytes32", "bytes"], [digest, signature])),
        "gas": WALLET_GAS,
    }
    try:
        if not node.eth.get_code(account):
            raise refused
        answer = bytes(node.eth.call(call))
    except ContractLogicError as error:
        raise SignatureError(f"the contract account {address} refuses the signature") from error
    except Web3Exception as error:
        raise SignatureError(f"the contract account {address} can not check the signature within {WALLET_GAS} gas") from error
    except requests.RequestException as error:
        raise UnavailableError(
            f"the chain did not say within {WALLET_TIMEOUT_S} s whether {address} accepts the signature; try again"
        ) from error
    if answer != MAGIC_VALUE:
        raise SignatureError(f"the contract account {address} does not accept the signature")


def impatient(web3: Web3) -> Web3:
    """A connection of its own to the same node, for questions that a caller waits for: `WALLET_TIMEOUT_S`, and no second try.

    Raises:
        UnavailableError: the node is not connected over HTTP.
    """
    if not isinstance(web3.provider, HTTPProvider):
        raise UnavailableError(f"accounts are asked over HTTP, this node is connected by {type(web3.provider).__name__}")
    return Web3(HTTPProvider(web3.provider.endpoint_uri, request_kwargs={"timeout": WALLET_TIMEOUT_S}, exception_retry_configuration=None))
