"""The one upload protocol: parts, their digests, and what a finished upload is (wire formats, section 4). No input or output."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from rexis.encoding import domain_tag, from_hex, sha256, to_hex
from rexis.errors import EncodingError, MalformedMessageError

PART_SIZE = 8 * 1024 * 1024
# The S3 limit, so that every store takes the same plan: 78 GiB in parts of 8 MiB.
MAX_PARTS = 10_000
MAX_UPLOAD_BYTES = PART_SIZE * MAX_PARTS

_CONTENT_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):", re.ASCII)


@dataclass(frozen=True)
class Part:
    """One part: number from 1, as S3 counts; offset and size in bytes."""

    number: int
    offset: int
    size: int


def plan_parts(total_bytes: int) -> list[Part]:
    """Parts of an upload: `PART_SIZE` each but the last.

    Raises:
        ValueError: no bytes, or more than `MAX_PARTS` parts.
    """
    if not 0 < total_bytes <= MAX_UPLOAD_BYTES:
        raise ValueError(f"expected an upload of 1 to {MAX_UPLOAD_BYTES} bytes, got {total_bytes}")
    return [
        Part(number, offset, min(PART_SIZE, total_bytes - offset))
        for number, offset in enumerate(range(0, total_bytes, PART_SIZE), start=1)
    ]


def content_digest_header(digest: bytes) -> str:
    """Value of the `Content-Digest` header (RFC 9530) for a SHA-256 of 32 bytes."""
    if len(digest) != 32:
        raise ValueError(f"expected a SHA-256 of 32 bytes, got {len(digest)}")
    return f"sha-256=:{base64.b64encode(digest).decode('ascii')}:"


def parse_content_digest(header: str) -> bytes:
    """SHA-256 (32 bytes) of a `Content-Digest` header that has this one member only.

    Raises:
        MalformedMessageError: another algorithm, several members, or base64 in another than its one canonical form.
    """
    found = _CONTENT_DIGEST.fullmatch(header)
    if not found:
        raise MalformedMessageError(f"expected Content-Digest: sha-256=:<44 characters of base64>:, got {header[:80]!r}")
    try:
        digest = base64.b64decode(found[1], validate=True)
    except binascii.Error as error:
        raise MalformedMessageError(f"Content-Digest: {error}") from error
    # Base64 of 32 bytes leaves two bits free: only zero bits are canonical.
    if content_digest_header(digest) != header:
        raise MalformedMessageError("expected canonical base64 in Content-Digest, got unused bits set")
    return digest


@dataclass(frozen=True)
class UploadManifest:
    """What `complete` sends: the size and the SHA-256 of each part in order.

    Attributes:
        total_bytes: size of the whole content.
        parts: 32 bytes for each part of `plan_parts(total_bytes)`.

    Raises:
        ValueError: sizes and parts that do not fit.
    """

    total_bytes: int
    parts: tuple[bytes, ...]

    def __post_init__(self) -> None:
        planned = len(plan_parts(self.total_bytes))
        if len(self.parts) != planned or any(len(digest) != 32 for digest in self.parts):
            raise ValueError(f"expected {planned} part digests of 32 bytes for {self.total_bytes} bytes, got {len(self.parts)}")

    @property
    def digest(self) -> bytes:
        """The upload's digest: SHA-256 of tag, zero byte, u64le size, u64le part size and the part digests in order.

        A digest of digests, so that parts may arrive in any order and nobody reads the content a second time.
        """
        sizes = self.total_bytes.to_bytes(8, "little") + PART_SIZE.to_bytes(8, "little")
        return sha256(domain_tag("upload", 1) + b"\0" + sizes + b"".join(self.parts))

    def to_json(self) -> dict[str, Any]:
        """JSON value: `{"totalBytes", "parts"}`, digests in hexadecimal."""
        return {"totalBytes": self.total_bytes, "parts": [to_hex(digest) for digest in self.parts]}

    @classmethod
    def parse(cls, value: Any) -> "UploadManifest":
        """Read what `to_json` writes.

        Raises:
            MalformedMessageError: a missing, unknown or ill-formed field, or counts that do not fit.
        """
        if not isinstance(value, dict) or set(value) != {"totalBytes", "parts"}:
            raise MalformedMessageError("upload manifest: expected an object with exactly totalBytes and parts")
        total, parts = value["totalBytes"], value["parts"]
        if type(total) is not int or not isinstance(parts, list) or len(parts) > MAX_PARTS:
            raise MalformedMessageError(f"upload manifest: expected an integer and a list of at most {MAX_PARTS} digests")
        try:
            return cls(total, tuple(from_hex(digest, 32) for digest in parts))
        except (EncodingError, ValueError) as error:
            raise MalformedMessageError(f"upload manifest: {error}") from error
