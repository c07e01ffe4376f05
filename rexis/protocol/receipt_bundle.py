"""A receipt with everything that shows it in a batch on chain, in one file that is checked offline (wire formats, section 3).

    {"version": 1, "receipt": {…, "batch": id, "index": n}, "batch": {"chain_id", "registry", "operator", "owner", "model", "sequence"},
     "count": leaves, "record": record, "proof": [siblings], "transaction": {"hash", "block_number", "block_hash"}, "checksum": digest}

The file is canonical JSON, byte for byte. Its checksum finds damage and clumsy edits, also in what only the chain can confirm (the
transaction); it is no signature. What binds the rest is the issuer's signature and the record that the chain holds.
"""

from dataclasses import dataclass
from typing import Any, Self

from rexis.commitments import LeafKind, Receipt, batch_id, chain_context
from rexis.commitments import verify_inclusion as verify_leaf
from rexis.encoding import MAX_SAFE_INTEGER, canonical_json, checksum_address, domain_tag, from_hex, parse_canonical_json, sha256, to_hex
from rexis.errors import CertificateError, DigestMismatchError, EncodingError, MalformedMessageError
from rexis.protocol.receipt_signature import verify_receipt

VERSION = 1
MAX_BUNDLE_BYTES = 1 << 14
# The registry counts receipts in 32 bits, so that no proof is longer.
MAX_COUNT = 2**32 - 1
_FIELDS = frozenset({"version", "receipt", "batch", "count", "record", "proof", "transaction", "checksum"})
_BATCH_FIELDS = frozenset({"chain_id", "registry", "operator", "owner", "model", "sequence"})
_TRANSACTION_FIELDS = frozenset({"hash", "block_number", "block_hash"})


@dataclass(frozen=True)
class BatchIdentity:
    """What a batch's id is made of: see `rexis.commitments.batch_id`."""

    chain_id: int
    registry: str
    operator: str
    owner: str
    model: bytes
    sequence: int

    @property
    def id(self) -> bytes:
        """The id, 32 bytes."""
        return batch_id(self.chain_id, self.registry, self.operator, self.owner, self.model, self.sequence)

    @property
    def context(self) -> bytes:
        """Context of the batch's leaves, 32 bytes."""
        return chain_context(self.chain_id, self.registry, self.id)


@dataclass(frozen=True)
class CommittedIn:
    """Where the chain took the batch: hash of the transaction, number and hash of its block (32 bytes each hash)."""

    transaction: bytes
    block_number: int
    block_hash: bytes


@dataclass(frozen=True)
class ReceiptBundle:
    """A parsed bundle; nothing of it is verified yet.

    Attributes:
        receipt: with batch and index.
        batch: what the batch's id is made of.
        count: receipts in the batch.
        record: what the registry holds for the batch, 32 bytes.
        proof: siblings from the receipt's leaf up, 32 bytes each.
        committed: where the chain took the batch.
        checksum: 32 bytes; None to have it computed.
    """

    receipt: Receipt
    batch: BatchIdentity
    count: int
    record: bytes
    proof: tuple[bytes, ...]
    committed: CommittedIn
    checksum: bytes | None = None

    def document(self) -> dict[str, Any]:
        """JSON value in the wire form."""
        content = self._content()
        return {**content, "checksum": to_hex(self.checksum or _checksum(content))}

    def to_bytes(self) -> bytes:
        """The file."""
        return canonical_json(self.document())

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a file that came from someone else.

        Raises:
            MalformedMessageError: too long, not canonical JSON, or not exactly the fields in their form and bounds.
        """
        try:
            return cls._read(parse_canonical_json(content, max_bytes=MAX_BUNDLE_BYTES))
        except EncodingError as error:
            raise MalformedMessageError(f"bundle: {error}") from error

    def verify_checksum(self) -> None:
        """Check that the file is as it was written.

        Raises:
            DigestMismatchError: something in it was changed.
        """
        expected = _checksum(self._content())
        if self.checksum is not None and self.checksum != expected:
            raise DigestMismatchError("bundle: something in it was changed", expected, self.checksum)

    def verify_signature(self) -> None:
        """Check that the issuer signed the receipt for the batch's chain.

        Raises:
            SignatureError: another key signed, or something else.
        """
        verify_receipt(self.receipt, self.batch.chain_id)

    def verify_batch_id(self) -> None:
        """Check that the receipt's batch is the one that the bundle describes, and is of the receipt's model.

        Raises:
            CertificateError: it is another one.
        """
        if self.receipt.batch != self.batch.id:
            named = "none" if self.receipt.batch is None else to_hex(self.receipt.batch)
            raise CertificateError(f"the receipt names batch {named}; chain, registry, operator, … make {to_hex(self.batch.id)}")
        if self.receipt.model != self.batch.model:
            raise CertificateError(f"the receipt is of model {to_hex(self.receipt.model)}, the batch of {to_hex(self.batch.model)}")

    def verify_inclusion(self) -> None:
        """Check that the record commits to the receipt at its index.

        Raises:
            InclusionProofError: it does not.
        """
        index = -1 if self.receipt.index is None else self.receipt.index
        verify_leaf(LeafKind.RECEIPT, self.batch.context, index, self.receipt.leaf(), self.count, self.proof, self.record)

    def verify(self) -> None:
        """All that can be checked without chain, files and expectations; raises as the functions above do."""
        self.verify_checksum()
        self.verify_signature()
        self.verify_batch_id()
        self.verify_inclusion()

    def _content(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "receipt": self.receipt.to_json(),
            "batch": {
                "chain_id": self.batch.chain_id,
                "registry": self.batch.registry,
                "operator": self.batch.operator,
                "owner": self.batch.owner,
                "model": to_hex(self.batch.model),
                "sequence": self.batch.sequence,
            },
            "count": self.count,
            "record": to_hex(self.record),
            "proof": [to_hex(sibling) for sibling in self.proof],
            "transaction": {
                "hash": to_hex(self.committed.transaction),
                "block_number": self.committed.block_number,
                "block_hash": to_hex(self.committed.block_hash),
            },
        }

    @classmethod
    def _read(cls, value: Any) -> Self:
        document = _object("bundle", value, _FIELDS)
        _number("version", document["version"], VERSION, VERSION)
        if not isinstance(document["proof"], list):
            raise MalformedMessageError("bundle: expected a list as proof")
        batch = _object("batch", document["batch"], _BATCH_FIELDS)
        transaction = _object("transaction", document["transaction"], _TRANSACTION_FIELDS)
        receipt = Receipt.parse(document["receipt"])
        if receipt.batch is None:
            raise MalformedMessageError("bundle: expected a receipt with batch and index, got one without")
        return cls(
            receipt=receipt,
            batch=BatchIdentity(
                chain_id=_number("chain_id", batch["chain_id"], 1),
                registry=_address("registry", batch["registry"]),
                operator=_address("operator", batch["operator"]),
                owner=_address("owner", batch["owner"]),
                model=from_hex(batch["model"], 32),
                sequence=_number("sequence", batch["sequence"]),
            ),
            count=_number("count", document["count"], 1, MAX_COUNT),
            record=from_hex(document["record"], 32),
            proof=tuple(from_hex(sibling, 32) for sibling in document["proof"]),
            committed=CommittedIn(
                transaction=from_hex(transaction["hash"], 32),
                block_number=_number("block_number", transaction["block_number"]),
                block_hash=from_hex(transaction["block_hash"], 32),
            ),
            checksum=from_hex(document["checksum"], 32),
        )


def _checksum(content: dict[str, Any]) -> bytes:
    return sha256(domain_tag("receipt-bundle", VERSION) + b"\0" + canonical_json(content))


def _object(what: str, value: Any, fields: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != fields:
        raise MalformedMessageError(f"{what}: expected an object with exactly the fields {', '.join(sorted(fields))}")
    return value


def _number(name: str, value: Any, least: int = 0, most: int = MAX_SAFE_INTEGER) -> int:
    if type(value) is not int or not least <= value <= most:
        raise MalformedMessageError(f"{name}: expected a whole number from {least} to {most}, got {str(value)[:40]}")
    return value


def _address(name: str, value: Any) -> str:
    if not isinstance(value, str) or checksum_address(value) != value:
        raise MalformedMessageError(f"{name}: expected an address in its checksum form, got {str(value)[:42]}")
    return value
