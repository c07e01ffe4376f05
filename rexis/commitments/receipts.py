"""Inference receipts (wire formats, section 3): what a provider signs for every answer.

The EIP-712 signature is made and checked in `rexis.protocol.receipt_signature`, which knows chains and keys.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rexis.commitments.positional_tree import SALT_BYTES, Leaf
from rexis.encoding import MAX_SAFE_INTEGER, abi_encode, canonical_json, checksum_address, from_hex, keccak256, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError

VERSION = 1
# Seconds are always 00: a finer time would expose the moment of care. They are written because RFC 3339 requires them.
_ISSUED_FORMAT = "%Y-%m-%dT%H:%M:00Z"
_FIELDS = frozenset({"version", "model", "input", "output", "batch", "index", "salt", "issued", "issuer", "signature"})


def batch_id(chain_id: int, registry: str, operator: str, owner: str, model: bytes, sequence: int) -> bytes:
    """Id of a batch of receipts on chain (32 bytes), known before the batch is; `chain_context` makes its leaves' context of it.

    keccak256(abi.encode(uint256 chainId, address registry, address operator, address owner, bytes32 model, uint64 sequence)).

    Args:
        registry: checksum address of the inference registry.
        operator: who commits the batch.
        owner: who authorised the model.
        model: model record, 32 bytes.
        sequence: any number that the operator has not used for this model.

    Raises:
        EncodingError: a value out of range or of another form.
    """
    types = ["uint256", "address", "address", "address", "bytes32", "uint64"]
    return keccak256(abi_encode(types, [chain_id, registry, operator, owner, model, sequence]))


@dataclass(frozen=True)
class Receipt:
    """The claim "this model gave this output for this input", salted, to be batched under one record on chain.

    Attributes:
        model: model record, 32 bytes.
        input: tensor digest of the encrypted input, 32 bytes.
        output: tensor digest of the encrypted output, 32 bytes.
        salt: 16 random bytes; without them members of a federation could enumerate coarse inputs.
        issued: UTC time, whole minutes.
        issuer: checksum address of the provider's key.
        batch: 32-byte id of the batch on chain, None until batched; the signature does not cover it.
        index: position in that batch, None until batched.
        signature: 65 bytes, empty until signed.

    Raises:
        ValueError: a field of another size or form.
    """

    model: bytes
    input: bytes
    output: bytes
    salt: bytes = field(repr=False)
    issued: datetime
    issuer: str
    batch: bytes | None = None
    index: int | None = None
    signature: bytes = b""

    def __post_init__(self) -> None:
        for name, value, size in (
            ("model", self.model, 32),
            ("input", self.input, 32),
            ("output", self.output, 32),
            ("salt", self.salt, 16),
        ):
            if len(value) != size:
                raise ValueError(f"{name}: expected {size} bytes, got {len(value)}")
        if self.issued.tzinfo is not UTC or self.issued.second or self.issued.microsecond or self.issued.year < 1970:
            raise ValueError(f"issued: expected a whole minute of UTC since 1970, got {self.issued.isoformat()}")
        if self.issuer != checksum_address(self.issuer):
            raise ValueError(f"issuer: expected a checksum address, got {self.issuer}")
        if (self.batch is None) != (self.index is None):
            raise ValueError("batch and index: expected both or neither")
        if self.batch is not None and len(self.batch) != 32:
            raise ValueError(f"batch: expected 32 bytes, got {len(self.batch)}")
        if self.index is not None and not 0 <= self.index <= MAX_SAFE_INTEGER:
            raise ValueError(f"index: expected 0 to 2^53 - 1, got {self.index}")
        if len(self.signature) not in (0, 65):
            raise ValueError(f"signature: expected 65 bytes, got {len(self.signature)}")

    @property
    def digest(self) -> bytes:
        """SHA-256 over the JCS of model, input, output and issued."""
        claim = {"model": to_hex(self.model), "input": to_hex(self.input), "output": to_hex(self.output), "issued": self._issued_text()}
        return sha256(canonical_json(claim))

    def leaf(self) -> Leaf:
        """The receipt's leaf in a batch tree of kind `receipt`."""
        return Leaf(self.digest, self.salt)

    def to_json(self) -> dict[str, Any]:
        """JSON value in the wire form; `signature` is null until signed."""
        return {
            "version": VERSION,
            "model": to_hex(self.model),
            "input": to_hex(self.input),
            "output": to_hex(self.output),
            "batch": None if self.batch is None else to_hex(self.batch),
            "index": self.index,
            "salt": to_hex(self.salt),
            "issued": self._issued_text(),
            "issuer": self.issuer,
            "signature": to_hex(self.signature) if self.signature else None,
        }

    @classmethod
    def parse(cls, value: Any) -> "Receipt":
        """Read a signed receipt from decoded JSON; the signature is not checked here.

        Raises:
            MalformedMessageError: a missing, unknown or ill-formed field, or another version.
        """
        if not isinstance(value, dict) or set(value) != _FIELDS:
            raise MalformedMessageError(f"receipt: expected an object with exactly the fields {', '.join(sorted(_FIELDS))}")
        if type(value["version"]) is not int or value["version"] != VERSION:
            raise MalformedMessageError(f"receipt: expected version {VERSION}, got {str(value['version'])[:40]}")
        index = value["index"]
        if index is not None and type(index) is not int:
            raise MalformedMessageError(f"receipt: expected an integer or null as index, got {type(index).__name__}")
        try:
            issued = datetime.strptime(value["issued"], _ISSUED_FORMAT).replace(tzinfo=UTC)
            receipt = cls(
                model=from_hex(value["model"], 32),
                input=from_hex(value["input"], 32),
                output=from_hex(value["output"], 32),
                salt=from_hex(value["salt"], SALT_BYTES),
                issued=issued,
                issuer=value["issuer"],
                batch=None if value["batch"] is None else from_hex(value["batch"], 32),
                index=index,
                signature=from_hex(value["signature"], 65),
            )
        except (EncodingError, ValueError, TypeError) as error:
            raise MalformedMessageError(f"receipt: {error}") from error
        # strptime is lenient ("2026-1-2T3:4:00Z"): one time has one text.
        if receipt._issued_text() != value["issued"]:
            raise MalformedMessageError(f"receipt: expected issued as {receipt._issued_text()}, got {value['issued'][:40]}")
        return receipt

    def _issued_text(self) -> str:
        # strftime does not pad years before 1000; __post_init__ admits none of them.
        return self.issued.strftime(_ISSUED_FORMAT)
