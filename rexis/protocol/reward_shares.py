"""A share of a reward as its payee gets it: what `RewardDistributor.claim` asks for, and the proof that it was published.

It holds a salt, without which nobody can guess from the record on chain who gets how much: it is for its payee alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from rexis.commitments import LeafKind, Share, chain_context, reward_tree, verify_inclusion
from rexis.encoding import from_hex, to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.document_members import address, bytes32, integer, members_of

VERSION = 1
MAX_SHARES = 1 << 16
MAX_SHARE_BYTES = 1 << 14
_FIELDS = "version chain_id distributor epoch federation statement index shares account amount salt proof"


@dataclass(frozen=True)
class RewardShare:
    """One account's share.

    Attributes:
        chain_id, distributor: where it is paid; a checksum address.
        epoch: id of the reward, 32 bytes.
        federation: id, 32 bytes.
        statement: digest of the scores that it follows from, 32 bytes.
        index, shares: its place in the tree, and how many there are.
        share: account, amount and salt.
        proof: siblings from the leaf up, 32 bytes each.
    """

    chain_id: int
    distributor: str
    epoch: bytes
    federation: bytes
    statement: bytes
    index: int
    shares: int
    share: Share
    proof: tuple[bytes, ...]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a file that came from someone else; `verify` says whether it was published.

        Raises:
            MalformedMessageError: no share, or a field out of bounds.
        """
        if len(content) > MAX_SHARE_BYTES:
            raise MalformedMessageError(f"reward share: expected at most {MAX_SHARE_BYTES} bytes, got {len(content)}")
        try:
            value: Any = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise MalformedMessageError(f"reward share: not JSON: {error}") from error
        fields = members_of("reward share", value, _FIELDS)
        integer("version", fields["version"], VERSION, VERSION)
        shares = integer("shares", fields["shares"], 1, MAX_SHARES)
        amount, listed = fields["amount"], fields["proof"]
        if not isinstance(amount, str) or not amount.isascii() or not amount.isdigit() or len(amount) > 78:
            raise MalformedMessageError(f"amount: expected a whole number in a string, got {str(amount)[:40]!r}")
        if not isinstance(listed, list) or len(listed) > MAX_SHARES.bit_length():
            raise MalformedMessageError("proof: expected a list of siblings")
        try:
            share = Share(address("account", fields["account"]), int(amount), from_hex(fields["salt"], 16))
        except (EncodingError, TypeError, AttributeError, ValueError) as error:
            raise MalformedMessageError(f"reward share: {error}") from error
        return cls(
            chain_id=integer("chain_id", fields["chain_id"], 1, (1 << 53) - 1),
            distributor=address("distributor", fields["distributor"]),
            epoch=bytes32("epoch", fields["epoch"]),
            federation=bytes32("federation", fields["federation"]),
            statement=bytes32("statement", fields["statement"]),
            index=integer("index", fields["index"], 0, shares - 1),
            shares=shares,
            share=share,
            proof=tuple(bytes32("proof", each) for each in listed),
        )

    def document(self) -> dict[str, Any]:
        """What `parse` reads, as a JSON value."""
        return {
            "version": VERSION,
            "chain_id": self.chain_id,
            "distributor": self.distributor,
            "epoch": to_hex(self.epoch),
            "federation": to_hex(self.federation),
            "statement": to_hex(self.statement),
            "index": self.index,
            "shares": self.shares,
            "account": self.share.account,
            "amount": str(self.share.amount),
            "salt": to_hex(self.share.salt),
            "proof": [to_hex(each) for each in self.proof],
        }

    def verify(self, record: bytes) -> None:
        """Check that it is in the tree with this record (32 bytes).

        Raises:
            InclusionProofError: it is not.
        """
        context = chain_context(self.chain_id, self.distributor, self.epoch)
        verify_inclusion(LeafKind.REWARD, context, self.index, self.share.leaf(), self.shares, self.proof, record)


def reward_shares(
    chain_id: int, distributor: str, epoch: bytes, federation: bytes, statement: bytes, shares: Sequence[Share]
) -> tuple[bytes, tuple[RewardShare, ...]]:
    """The record that is published, and what each payee is given.

    Raises:
        ValueError: no shares.
    """
    tree = reward_tree(chain_id, distributor, epoch, shares)
    made = (
        RewardShare(chain_id, distributor, epoch, federation, statement, index, len(shares), share, tuple(tree.proof(index)))
        for index, share in enumerate(shares)
    )
    return tree.record, tuple(made)
