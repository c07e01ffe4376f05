"""Shares of a reward (wire formats, section 2): what `RewardDistributor.sol` pays out, each by a proof of its own.

The salts hide who gets how much from whoever sees only the record on chain; who claims shows his own share and no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rexis.commitments.positional_tree import SALT_BYTES, Leaf, LeafKind, MerkleTree, chain_context
from rexis.encoding import abi_encode, checksum_address, keccak256


def epoch_id(chain_id: int, distributor: str, funder: str, federation: bytes, first_round: int, last_round: int, label: bytes) -> bytes:
    """Id of the reward of some rounds (32 bytes), known before it is paid in.

    Args:
        distributor: checksum address of the contract.
        funder: who pays it in.
        federation: id of the federation, 32 bytes.
        label: 32 bytes that tell rewards of this funder for the same rounds apart.

    Raises:
        EncodingError: a value out of range or of another form.
    """
    types = ["uint256", "address", "address", "bytes32", "uint64", "uint64", "bytes32"]
    return keccak256(abi_encode(types, [chain_id, distributor, funder, federation, first_round, last_round, label]))


@dataclass(frozen=True)
class Share:
    """What one account gets.

    Attributes:
        account: checksum address.
        amount: in the token's smallest unit.
        salt: 16 random bytes (`random_salt`), which the account needs to claim.

    Raises:
        ValueError: a field of another size or form.
    """

    account: str
    amount: int
    salt: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.account != checksum_address(self.account):
            raise ValueError(f"account: expected a checksum address, got {self.account}")
        if not 0 <= self.amount < 2**256:
            raise ValueError(f"amount: expected 0 to 2^256 - 1, got {self.amount}")
        if len(self.salt) != SALT_BYTES:
            raise ValueError(f"salt: expected {SALT_BYTES} bytes, got {len(self.salt)}")

    def leaf(self) -> Leaf:
        """The share's leaf in a tree of kind `reward`: keccak256(abi.encode(address account, uint256 amount)) under its salt."""
        return Leaf(keccak256(abi_encode(["address", "uint256"], [self.account, self.amount])), self.salt)


def reward_tree(chain_id: int, distributor: str, epoch: bytes, shares: Sequence[Share]) -> MerkleTree:
    """The tree whose record is published: share i stands at index i, and its proof counts for this epoch only.

    Raises:
        ValueError: no shares.
        EncodingError: a bad address, or an epoch that is not 32 bytes.
    """
    return MerkleTree(LeafKind.REWARD, chain_context(chain_id, distributor, epoch), [share.leaf() for share in shares])
