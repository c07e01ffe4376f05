"""Secure-aggregation messages: five stages in one signed envelope (wire formats, section 5).

Here are form, bounds and signature. Which message is due when, and from whom, is the state machines' business (`rexis.secagg`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any

from rexis.encoding import (
    abi_encode,
    canonical_json,
    checksum_address,
    domain_tag,
    from_hex,
    keccak256,
    parse_canonical_json,
    sha256,
    to_hex,
)
from rexis.errors import EncodingError, MalformedMessageError, SignatureError
from rexis.protocol.signatures import SIGNATURE_BYTES, address_of
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer

VERSION = 1
MESSAGE_TYPE = "SecureAggregationMessage(bytes32 ctx,string stage,address sender,bytes32 payload)"
MAX_PARTICIPANTS = 1024
# A shares message to 1024 participants, 94 bytes each in hexadecimal with its address.
MAX_ENVELOPE_BYTES = 512 * 1024
# 12 bytes of nonce, two Shamir shares of 33, 16 of tag.
SHARE_CIPHERTEXT_BYTES = 94
SHARE_BYTES = 33
# Random bytes at the end of a vector that is uploaded without masks.
SALT_BYTES = 32
_FIELDS = frozenset({"version", "stage", "ctx", "sender", "payload", "signature"})


class Stage(StrEnum):
    """Stages of a round, in order."""

    KEYS = "keys"
    SHARES = "shares"
    MASKED = "masked"
    SURVIVORS = "survivors"
    UNMASK = "unmask"


def secagg_context(chain_id: int, registry: str, federation: bytes, round_number: int, attempt: int, manifest_hash: bytes) -> bytes:
    """ctx: what every hash, key derivation and signature of one attempt of one round includes (32 bytes).

    keccak256(abi.encode(uint256 chainId, address registry, bytes32 federation, uint64 round, uint64 attempt, bytes32 manifestHash)).

    Raises:
        EncodingError: a value out of range.
    """
    types = ["uint256", "address", "bytes32", "uint64", "uint64", "bytes32"]
    return keccak256(abi_encode(types, [chain_id, registry, federation, round_number, attempt, manifest_hash]))


def survivors_hash(ctx: bytes, survivors: list[str]) -> bytes:
    """keccak256(abi.encode(bytes32 ctx, address[] survivors)): what is fixed on chain, once per attempt (32 bytes).

    Args:
        ctx: 32 bytes.
        survivors: checksum addresses in ascending order of their bytes, none twice.
    """
    return keccak256(abi_encode(["bytes32", "address[]"], [ctx, survivors]))


@dataclass(frozen=True)
class Envelope:
    """One participant's message of one stage.

    Attributes:
        stage: which of the five.
        ctx: 32 bytes from `secagg_context`.
        sender: checksum address of the participant.
        payload: JSON object of the stage (see `check_payload`).
        signature: 65 bytes, empty until signed.

    Raises:
        MalformedMessageError: a payload that the stage does not admit.
        ValueError: a ctx, sender or signature of another form.
    """

    stage: Stage
    ctx: bytes
    sender: str
    payload: Mapping[str, Any]
    signature: bytes = b""

    def __post_init__(self) -> None:
        if len(self.ctx) != 32 or len(self.signature) not in (0, SIGNATURE_BYTES):
            raise ValueError(f"expected 32 bytes of ctx and {SIGNATURE_BYTES} of signature, got {len(self.ctx)} and {len(self.signature)}")
        if self.sender != checksum_address(self.sender):
            raise ValueError(f"sender: expected a checksum address, got {self.sender}")
        check_payload(self.stage, self.payload)

    @cached_property
    def payload_digest(self) -> bytes:
        """SHA-256 of the stage's tag, a zero byte and the payload's JCS (32 bytes)."""
        return sha256(domain_tag(f"secagg/{self.stage}", VERSION) + b"\0" + canonical_json(dict(self.payload)))

    def typed_data(self, chain_id: int, registry: str) -> TypedMessage:
        """What the sender signs; `registry` is the checksum address of the federation registry."""
        message = {"ctx": self.ctx, "stage": self.stage.value, "sender": self.sender, "payload": self.payload_digest}
        return TypedMessage(Domain(chain_id, registry), MESSAGE_TYPE, message)

    def sign(self, chain_id: int, registry: str, private_key: bytes) -> "Envelope":
        """The envelope with its sender's signature.

        Raises:
            ValueError: the key is not the sender's.
        """
        if address_of(private_key) != self.sender:
            raise ValueError(f"expected the key of the sender {self.sender}, got the key of {address_of(private_key)}")
        return replace(self, signature=self.typed_data(chain_id, registry).sign(private_key))

    def verify(self, chain_id: int, registry: str, ctx: bytes) -> None:
        """Check that the sender signed this for this attempt.

        Raises:
            SignatureError: unsigned, malformed, by another key, or for another ctx.
        """
        if self.ctx != ctx:
            raise SignatureError(f"{self.stage}: expected a message for ctx {to_hex(ctx)}, got one for {to_hex(self.ctx)}")
        verify_signer(self.typed_data(chain_id, registry), self.signature, self.sender)

    def to_bytes(self) -> bytes:
        """The body on the wire: canonical JSON, so that sending again sends the same bytes."""
        return canonical_json(
            {
                "version": VERSION,
                "stage": self.stage.value,
                "ctx": to_hex(self.ctx),
                "sender": self.sender,
                "payload": dict(self.payload),
                "signature": to_hex(self.signature),
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> "Envelope":
        """Read a signed envelope; its signature is not checked here.

        Raises:
            MalformedMessageError: not canonical, too large, or missing, unknown or ill-formed fields.
        """
        try:
            value = parse_canonical_json(data, max_bytes=MAX_ENVELOPE_BYTES)
            if not isinstance(value, dict) or set(value) != _FIELDS or type(value["version"]) is not int or value["version"] != VERSION:
                raise MalformedMessageError(f"expected version {VERSION} and exactly the fields {', '.join(sorted(_FIELDS))}")
            return cls(
                stage=Stage(value["stage"]),
                ctx=from_hex(value["ctx"], 32),
                sender=value["sender"],
                payload=value["payload"],
                signature=from_hex(value["signature"], SIGNATURE_BYTES),
            )
        except (EncodingError, ValueError) as error:
            raise MalformedMessageError(f"secure-aggregation message: {error}") from error


def check_payload(stage: Stage, payload: Any) -> None:
    """Check the form of a payload: exact fields, sizes, and lists in ascending order of address, none twice.

    keys       position (1..n, the Shamir x coordinate), mask and encryption: X25519 public keys of 32 bytes
    shares     commitment: 32 bytes; ciphertexts: list of {to, ciphertext} of 94 bytes
    masked     upload: id of the finished upload; digest: its 32 bytes; bits: 16, 32 or 64; length: entries of the vector
    survivors  survivors: list of addresses; masked: 32 bytes, record of the masked vectors
    unmask     survivors: survivors_hash, 32 bytes; self and pairwise: lists of {of, share} of 33 bytes, never both for one address

    Raises:
        MalformedMessageError: anything else.
    """
    checks = _PAYLOADS[stage]
    if not isinstance(payload, dict) or set(payload) != set(checks):
        raise MalformedMessageError(f"{stage}: expected a payload with exactly the fields {', '.join(checks)}")
    for name, check in checks.items():
        try:
            check(payload[name])
        except (EncodingError, ValueError) as error:
            raise MalformedMessageError(f"{stage}: {name}: {error}") from error
    if stage is Stage.UNMASK:
        both = {entry["of"] for entry in payload["self"]} & {entry["of"] for entry in payload["pairwise"]}
        # With both secrets of one site its update can be read.
        if both:
            raise MalformedMessageError(f"unmask: expected one share for each participant, got both for {', '.join(sorted(both)[:4])}")


def _hex(size: int) -> Callable[[Any], object]:
    return lambda value: from_hex(value, size)


def _integer(low: int, high: int) -> Callable[[Any], object]:
    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected an integer from {low} to {high}, got {str(value)[:40]}")

    return check


def _bits(value: Any) -> None:
    if value not in (16, 32, 64):
        raise ValueError(f"expected a ring of 16, 32 or 64 bits, got {str(value)[:40]}")


def _upload_id(value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= 64 or not all(c.isascii() and (c.isalnum() or c in "-_") for c in value):
        raise ValueError("expected an upload id of 1 to 64 letters, digits, - and _")


def _addresses(value: Any) -> None:
    if not isinstance(value, list) or len(value) > MAX_PARTICIPANTS:
        raise ValueError(f"expected a list of at most {MAX_PARTICIPANTS} addresses")
    if any(address != checksum_address(address) for address in value):
        raise ValueError("expected checksum addresses")
    order = [address.lower() for address in value]
    if order != sorted(set(order)):
        raise ValueError("expected addresses in ascending order, none twice")


def _by_address(key: str, item: str, size: int) -> Callable[[Any], object]:
    def check(value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(entry, dict) and set(entry) == {key, item} for entry in value):
            raise ValueError(f"expected a list of objects with exactly {key} and {item}")
        _addresses([entry[key] for entry in value])
        for entry in value:
            from_hex(entry[item], size)

    return check


_PAYLOADS: Mapping[Stage, Mapping[str, Callable[[Any], object]]] = {
    Stage.KEYS: {"position": _integer(1, MAX_PARTICIPANTS), "mask": _hex(32), "encryption": _hex(32)},
    Stage.SHARES: {"commitment": _hex(32), "ciphertexts": _by_address("to", "ciphertext", SHARE_CIPHERTEXT_BYTES)},
    Stage.MASKED: {"upload": _upload_id, "digest": _hex(32), "bits": _bits, "length": _integer(1, 2**40)},
    Stage.SURVIVORS: {"survivors": _addresses, "masked": _hex(32)},
    Stage.UNMASK: {
        "survivors": _hex(32),
        "self": _by_address("of", "share", SHARE_BYTES),
        "pairwise": _by_address("of", "share", SHARE_BYTES),
    },
}
