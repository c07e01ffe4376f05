"""Keys that sign transactions, typed data and sign-in messages: the protocol, what all kinds share, and a key in this process.

Production keeps keys in a vault behind the same protocol: `rexis.chain.web3signer`, `rexis.chain.kms`.
"""

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from eth_account import Account

from rexis.chain.transactions import signed_bytes, unsigned_bytes
from rexis.encoding import checksum_address, keccak256
from rexis.errors import ConfigurationError, KeyFileError
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.signatures import address_of, sign_digest
from rexis.protocol.typed_data import TypedMessage

LOCAL_CHAIN_ID = 31337

# Known to everybody: anvil's, Hardhat's and Ganache's accounts derive from it, and bots empty them on public chains.
DEVELOPMENT_MNEMONIC = "test test test test test test test test test test test junk"
# Its first twenty addresses, m/44'/60'/0'/0/0 to 19.
DEVELOPMENT_ADDRESSES = frozenset(
    {
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
        "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
        "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
        "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
        "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
        "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
        "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
        "0xBcd4042DE499D14e55001CcbB24a551F3b954096",
        "0x71bE63f3384f5fb98995898A86B02Fb2426c5788",
        "0xFABB0ac9d68B0B445fB7357272Ff202C5651694a",
        "0x1CBd3b2770909D4e10f157cABC84C7264073C9Ec",
        "0xdF3e18d64BC6A983f673Ab319CCaE4f1a57C7097",
        "0xcd3B766CCDd6AE721141F452C550Ca635964ce71",
        "0x2546BcD3c84621e976D8185a91A922aE77ECEc30",
        "0xbDA5747bFD65F08deb54cb465eB87D40e51B197E",
        "0xdD2FD4581271e230360230F9337D5c0430Bf44C0",
        "0x8626f6940E2eb28930eFb4CeF49B2d1F2C9C1199",
    }
)

MAX_KEYSTORE_BYTES = 64 * 1024


class Signer(Protocol):
    """An account that signs."""

    @property
    def address(self) -> str:
        """Checksum address."""
        ...

    def sign_transaction(self, transaction: Mapping[str, Any]) -> bytes:
        """The signed raw transaction, ready to be stored and sent; `chainId` must be in it."""
        ...

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """EIP-712 signature of 65 bytes, s in the lower half."""
        ...

    def sign_in(self, message: SignInMessage) -> bytes:
        """EIP-191 signature of 65 bytes over the text of a sign-in message."""
        ...


def refuse_development_key(address: str, chain_id: int) -> None:
    """Check that a key which everybody knows is used on the local chain only.

    Raises:
        ConfigurationError: it is for another one.
    """
    if chain_id != LOCAL_CHAIN_ID and address in DEVELOPMENT_ADDRESSES:
        raise ConfigurationError(
            f"{address} is a well-known development key and signs for chain {LOCAL_CHAIN_ID} only, not for {chain_id}: "
            "make a key of your own"
        )


class PreimageSigner(ABC):
    """Whatever signs keccak256 of given bytes, as everything on Ethereum is signed, made a `Signer`.

    The bytes and not their digest, because a vault that hashes on its own wants them. Refuses to sign anything for another chain than
    the local one with a key that everybody knows.

    Attributes:
        address: checksum address.
    """

    address: str

    @abstractmethod
    def sign_preimage(self, preimage: bytes) -> bytes:
        """Signature of 65 bytes over keccak256 of `preimage`, by the key of `address`, s in the lower half, v 27 or 28."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address})"

    def sign_transaction(self, transaction: Mapping[str, Any]) -> bytes:
        """Sign; see `Signer` and, for the fields, `rexis.chain.transactions.unsigned_bytes`.

        Raises:
            ConfigurationError: a well-known development key for another chain than the local one.
            ValueError: `from` is another account.
        """
        refuse_development_key(self.address, transaction["chainId"])
        fields = {name: value for name, value in transaction.items() if name != "from"}
        if "from" in transaction and checksum_address(transaction["from"]) != self.address:
            raise ValueError(f"expected a transaction from {self.address}, got one from {transaction['from']}")
        return signed_bytes(fields, self.sign_preimage(unsigned_bytes(fields)))

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """Sign; see `Signer`.

        Raises:
            ConfigurationError: a well-known development key for another chain than the local one.
        """
        refuse_development_key(self.address, message.domain.chain_id)
        return self.sign_preimage(message.preimage())

    def sign_in(self, message: SignInMessage) -> bytes:
        """Sign; see `Signer`.

        Raises:
            ConfigurationError: a well-known development key for another chain than the local one.
        """
        refuse_development_key(self.address, message.chain_id)
        return self.sign_preimage(message.preimage())


class LocalSigner(PreimageSigner):
    """A private key in this process's memory."""

    def __init__(self, private_key: bytes) -> None:
        if len(private_key) != 32:
            raise ValueError(f"expected a private key of 32 bytes, got {len(private_key)}")
        self._private_key = private_key
        self.address = address_of(private_key)

    @classmethod
    def generate(cls) -> "LocalSigner":
        """A new key from the operating system."""
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_keystore(cls, path: Path, passphrase: str) -> "LocalSigner":
        """Open a key file (web3 secret storage, version 3).

        Raises:
            KeyFileError: unreadable, not such a file, or another passphrase.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_KEYSTORE_BYTES)
            return cls(bytes(Account.decrypt(json.loads(data), passphrase)))
        except OSError as error:
            raise KeyFileError(f"key file {path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise KeyFileError(f"key file {path} does not open: {error}") from error

    def keystore(self, passphrase: str) -> bytes:
        """Contents of a key file (web3 secret storage, version 3, scrypt)."""
        return json.dumps(Account.encrypt(self._private_key, passphrase)).encode()

    def sign_preimage(self, preimage: bytes) -> bytes:
        """Sign; see `PreimageSigner`."""
        return sign_digest(keccak256(preimage), self._private_key)


def development_signer(index: int) -> LocalSigner:
    """Account `index` of the development mnemonic: anvil gives accounts 0 to 9 ether at genesis."""
    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(DEVELOPMENT_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return LocalSigner(bytes(account.key))
