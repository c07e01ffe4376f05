"""Documents by which the members and the founder of a federation come to one key that no aggregator has (wire formats, section 5).

Each of them publishes an X25519 public key; one member deals the key to all of them, encrypted to each. Both documents carry the EIP-712
signature of who made them, so that who passes them on can leave them away, and change nothing in them. What is inside the ciphertexts is
the business of `rexis.secagg.group_dealing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from rexis.encoding import canonical_json, checksum_address, domain_tag, from_hex, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.document_members import address, bytes32, members_of
from rexis.protocol.federation_config import MAX_MEMBERS, FederationConfig
from rexis.protocol.signatures import SIGNATURE_BYTES
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer

VERSION = 1
RECIPIENT_TYPE = "GroupKeyRecipient(bytes32 federation,address recipient,bytes32 publicKey)"
DEALING_TYPE = "GroupKeyDealing(bytes32 federation,address dealer,bytes32 commitment,bytes32 shares)"
# 12 bytes of nonce, a key and a salt of 32 each, 16 of tag.
SEALED_BYTES = 92
# Everybody of the largest roster, and the founder.
MAX_DEALING_BYTES = 512 * (MAX_MEMBERS + 2)


@dataclass(frozen=True)
class GroupKeyRecipient:
    """The public key to which somebody wants the federation's group key encrypted.

    Attributes:
        federation: id, 32 bytes.
        recipient: checksum address.
        public_key: X25519, 32 bytes.
        signature: 65 bytes, empty until signed.

    Raises:
        ValueError: an id, address, key or signature of another form.
    """

    federation: bytes
    recipient: str
    public_key: bytes
    signature: bytes = b""

    def __post_init__(self) -> None:
        _check_form(self.federation, self.recipient, self.signature)
        if len(self.public_key) != 32:
            raise ValueError(f"expected a public key of 32 bytes, got {len(self.public_key)}")

    def typed_data(self, chain_id: int, registry: str) -> TypedMessage:
        """What the recipient signs; `registry` is the checksum address of the federation registry."""
        message = {"federation": self.federation, "recipient": self.recipient, "publicKey": self.public_key}
        return TypedMessage(Domain(chain_id, registry), RECIPIENT_TYPE, message)

    def signed(self, signature: bytes) -> Self:
        """The document with its signature."""
        return replace(self, signature=signature)

    def verify(self, chain_id: int, registry: str) -> None:
        """Check that the recipient signed this.

        Raises:
            SignatureError: it did not.
        """
        verify_signer(self.typed_data(chain_id, registry), self.signature, self.recipient)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": VERSION,
            "federation": to_hex(self.federation),
            "recipient": self.recipient,
            "public_key": to_hex(self.public_key),
            "signature": to_hex(self.signature),
        }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a document that came from someone else; its signature is not checked here.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed members.
        """
        fields = members_of("group key recipient", value, "version federation recipient public_key signature")
        _check_version(fields["version"])
        return cls(
            bytes32("federation", fields["federation"]),
            address("recipient", fields["recipient"]),
            bytes32("public_key", fields["public_key"]),
            _bytes("signature", fields["signature"], SIGNATURE_BYTES),
        )


@dataclass(frozen=True)
class GroupKeyShare:
    """The group key as one recipient gets it.

    Attributes:
        recipient: checksum address.
        public_key: to which it is encrypted, as the recipient published it, 32 bytes.
        sealed: nonce, ciphertext and tag, 92 bytes.
    """

    recipient: str
    public_key: bytes
    sealed: bytes

    def document(self) -> dict[str, str]:
        """What `parse` reads."""
        return {"recipient": self.recipient, "public_key": to_hex(self.public_key), "sealed": to_hex(self.sealed)}

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read one of a dealing; raises as `GroupKeyDealing.parse`."""
        fields = members_of("group key share", value, "recipient public_key sealed")
        sealed = _bytes("sealed", fields["sealed"], SEALED_BYTES)
        return cls(address("recipient", fields["recipient"]), bytes32("public_key", fields["public_key"]), sealed)


@dataclass(frozen=True)
class GroupKeyDealing:
    """One member's dealing of the group key to everybody who is to have it.

    Attributes:
        federation: id, 32 bytes.
        dealer: checksum address of a member.
        commitment: salted digest of the key, 32 bytes.
        shares: one for each recipient, ascending by address.
        signature: 65 bytes, empty until signed.

    Raises:
        ValueError: an id, address, commitment or signature of another form.
    """

    federation: bytes
    dealer: str
    commitment: bytes
    shares: tuple[GroupKeyShare, ...]
    signature: bytes = b""

    def __post_init__(self) -> None:
        _check_form(self.federation, self.dealer, self.signature)
        if len(self.commitment) != 32:
            raise ValueError(f"expected a commitment of 32 bytes, got {len(self.commitment)}")

    @property
    def shares_digest(self) -> bytes:
        """SHA-256 of the tag `rexis/group-key-shares/1`, a zero byte and the shares' JCS (32 bytes)."""
        return sha256(domain_tag("group-key-shares", VERSION) + b"\0" + canonical_json([share.document() for share in self.shares]))

    def typed_data(self, chain_id: int, registry: str) -> TypedMessage:
        """What the dealer signs; `registry` is the checksum address of the federation registry."""
        message = {
            "federation": self.federation,
            "dealer": self.dealer,
            "commitment": self.commitment,
            "shares": self.shares_digest,
        }
        return TypedMessage(Domain(chain_id, registry), DEALING_TYPE, message)

    def signed(self, signature: bytes) -> Self:
        """The document with its signature."""
        return replace(self, signature=signature)

    def share(self, recipient: str) -> GroupKeyShare:
        """What somebody gets.

        Raises:
            UnexpectedMessageError: it is no recipient.
        """
        found = [share for share in self.shares if share.recipient == recipient]
        if not found:
            raise UnexpectedMessageError(f"the dealing of {self.dealer} has no share for {recipient}")
        return found[0]

    def verify(self, config: FederationConfig, chain_id: int, registry: str) -> None:
        """Check that one of the federation's members dealt to exactly those who are to have the key.

        Args:
            config: of the federation, compared with the chain.

        Raises:
            UnexpectedMessageError: of another federation, by somebody who is no member, or to others.
            SignatureError: not signed by its dealer.
        """
        expected = config.id(chain_id, registry)
        if self.federation != expected:
            raise UnexpectedMessageError(f"expected a dealing in federation {to_hex(expected)}, got one in {to_hex(self.federation)}")
        if self.dealer not in config.roster:
            raise UnexpectedMessageError(f"expected a member to deal the group key, got a dealing by {self.dealer}")
        named = tuple(share.recipient for share in self.shares)
        if named != recipients_of(config):
            raise UnexpectedMessageError(
                f"the dealing of {self.dealer}: expected shares for {', '.join(recipients_of(config))}, got them for {', '.join(named)}"
            )
        verify_signer(self.typed_data(chain_id, registry), self.signature, self.dealer)

    def document(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "version": VERSION,
            "federation": to_hex(self.federation),
            "dealer": self.dealer,
            "commitment": to_hex(self.commitment),
            "shares": [share.document() for share in self.shares],
            "signature": to_hex(self.signature),
        }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a document that came from someone else; see `verify` for what is not checked here.

        Raises:
            MalformedMessageError: unknown, missing or ill-formed members, or more shares than a federation has recipients.
        """
        fields = members_of("group key dealing", value, "version federation dealer commitment shares signature")
        _check_version(fields["version"])
        shares = fields["shares"]
        if not isinstance(shares, list) or not 0 < len(shares) <= MAX_MEMBERS + 1:
            raise MalformedMessageError(f"shares: expected a list of 1 to {MAX_MEMBERS + 1}")
        return cls(
            bytes32("federation", fields["federation"]),
            address("dealer", fields["dealer"]),
            bytes32("commitment", fields["commitment"]),
            tuple(GroupKeyShare.parse(share) for share in shares),
            _bytes("signature", fields["signature"], SIGNATURE_BYTES),
        )


def recipients_of(config: FederationConfig) -> tuple[str, ...]:
    """Who is to have a federation's group key: its members, and the founder who uses the model; ascending checksum addresses."""
    return tuple(sorted({*config.roster, config.founder}, key=str.lower))


def check_recipients(given: Sequence[GroupKeyRecipient], federation: bytes, chain_id: int, registry: str) -> dict[str, bytes]:
    """Public key by address, from documents that an aggregator shows.

    Raises:
        UnexpectedMessageError: of another federation, or two of one recipient.
        SignatureError: one was not signed by its recipient.
    """
    found: dict[str, bytes] = {}
    for each in given:
        if each.federation != federation:
            raise UnexpectedMessageError(f"expected keys of federation {to_hex(federation)}, got one of {to_hex(each.federation)}")
        each.verify(chain_id, registry)
        if found.setdefault(each.recipient, each.public_key) != each.public_key:
            raise UnexpectedMessageError(f"{each.recipient} signed two public keys for one group key: it has to keep to one")
    return found


def _check_form(federation: bytes, who: str, signature: bytes) -> None:
    if len(federation) != 32 or len(signature) not in (0, SIGNATURE_BYTES):
        raise ValueError(f"expected an id of 32 bytes and a signature of {SIGNATURE_BYTES}, got {len(federation)} and {len(signature)}")
    if who != checksum_address(who):
        raise ValueError(f"expected a checksum address, got {who}")


def _check_version(version: Any) -> None:
    if type(version) is not int or version != VERSION:
        raise MalformedMessageError(f"expected version {VERSION} of a group key document, got {str(version)[:40]}")


def _bytes(name: str, value: Any, size: int) -> bytes:
    try:
        return from_hex(value, size)
    except (EncodingError, TypeError, AttributeError) as error:
        raise MalformedMessageError(f"{name}: {error}") from error
