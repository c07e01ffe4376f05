"""The file that `rexis verify inclusion` checks, offline: one leaf, its place, the siblings, and the record that was published.

    {"version": 1, "kind": "data", "context": "0x…", "index": 7, "n_leaves": 303, "digest": "0x…", "salt": "0x…", "sub": 0,
     "proof": ["0x…", …], "record": "0x…"}

Instead of `digest` a proof of kind `data` may carry the row itself as `row`, an object of strings (see `rexis.agent.table`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rexis.client.json_text import parse_json
from rexis.commitments import Leaf, LeafKind, verify_inclusion
from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.errors import EncodingError, InclusionProofError, MalformedMessageError

MAX_PROOF_BYTES = 1 << 20
_FIELDS = {"version", "kind", "context", "index", "n_leaves", "salt", "sub", "proof", "record"}


@dataclass(frozen=True)
class InclusionProof:
    """A parsed proof; nothing of it is verified yet."""

    kind: str
    context: bytes
    index: int
    n_leaves: int
    leaf: Leaf
    proof: tuple[bytes, ...]
    record: bytes

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a proof file.

        Raises:
            MalformedMessageError: too large, not JSON, or not exactly the fields above.
        """
        with path.open("rb") as file:
            content = file.read(MAX_PROOF_BYTES + 1)
        if len(content) > MAX_PROOF_BYTES:
            raise MalformedMessageError(f"{path.name}: expected a proof of at most {MAX_PROOF_BYTES} bytes")
        try:
            return cls.parse(parse_json(content, "proof"))
        except (MalformedMessageError, EncodingError) as error:
            raise MalformedMessageError(f"{path.name}: {error}") from error

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read the JSON value.

        Raises:
            MalformedMessageError: missing, unknown or ill-formed fields.
            EncodingError: bytes that are not in their hexadecimal form.
        """
        if not isinstance(value, dict) or set(value) not in (_FIELDS | {"digest"}, _FIELDS | {"row"}):
            raise MalformedMessageError(f"expected an object with {', '.join(sorted(_FIELDS))}, and either digest or row")
        if value["version"] != 1 or not isinstance(value["kind"], str) or value["kind"] not in set(LeafKind):
            raise MalformedMessageError(f"expected version 1 and a kind among {', '.join(LeafKind)}")
        numbers = [value[name] for name in ("index", "n_leaves", "sub")]
        if any(type(number) is not int or not 0 <= number < 2**64 for number in numbers) or not isinstance(value["proof"], list):
            raise MalformedMessageError("expected whole numbers below 2^64 as index, n_leaves and sub, and a list as proof")
        return cls(
            kind=value["kind"],
            context=from_hex(value["context"], 32),
            index=value["index"],
            n_leaves=value["n_leaves"],
            leaf=Leaf(_digest(value), from_hex(value["salt"], 16), value["sub"]),
            proof=tuple(from_hex(sibling, 32) for sibling in value["proof"]),
            record=from_hex(value["record"], 32),
        )

    def verify(self, record: bytes | None = None) -> None:
        """Check the proof, against `record` if given: a record that comes with the proof proves only that the file agrees with itself.

        Raises:
            InclusionProofError: it does not hold.
        """
        if record is not None and record != self.record:
            raise InclusionProofError(f"the proof is for record {to_hex(self.record)}, expected {to_hex(record)}")
        verify_inclusion(self.kind, self.context, self.index, self.leaf, self.n_leaves, self.proof, self.record)


def _digest(value: dict[str, Any]) -> bytes:
    if "digest" in value:
        return from_hex(value["digest"], 32)
    row = value["row"]
    if value["kind"] != LeafKind.DATA or not isinstance(row, dict) or not all(isinstance(cell, str) for cell in row.values()):
        raise MalformedMessageError("expected a row as an object of strings, and only with kind data")
    return sha256(canonical_json(row))
