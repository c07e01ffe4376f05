"""Documents of data sets: Croissant metadata and the policy, kept as canonical JSON under their SHA-256.

A document is public from the moment an indexed event binds its digest to a data set, and unknown before: what nobody put on chain is not
published here.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.encoding import canonical_json, require_text, sha256, to_hex
from rexis.errors import MalformedMessageError
from rexis.policy import DataUsePolicy
from services.foundation.database import lock, now
from services.foundation.problems import not_found
from services.marketplace.models import BoundDocument, Document

MAX_METADATA_BYTES = 512 << 10
MAX_POLICY_BYTES = 256 << 10
MAX_NAME_CHARACTERS = 200
SUMMARY_CHARACTERS = 500
CROISSANT = "http://mlcommons.org/croissant/"


@dataclass(frozen=True)
class CheckedDocument:
    """A document that was read and found well formed.

    Attributes:
        content: canonical JSON.
        name, description: what the catalogue shows of metadata; None for a policy.
    """

    content: bytes
    name: str | None = None
    description: str | None = None

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content: what stands on chain."""
        return sha256(self.content)


def check_metadata(document: dict[str, Any]) -> CheckedDocument:
    """Check Croissant metadata as far as the catalogue relies on it.

    Raises:
        MalformedMessageError: not a Croissant data set, without a name or description, or too long.
        EncodingError: no canonical JSON, for example a float.
    """
    content = _canonical("metadata", document, MAX_METADATA_BYTES)
    if document.get("@type") not in ("sc:Dataset", "Dataset", "https://schema.org/Dataset"):
        raise MalformedMessageError(f'metadata: expected "@type": "sc:Dataset", got {str(document.get("@type"))[:40]!r}')
    if not str(document.get("conformsTo")).startswith(CROISSANT):
        raise MalformedMessageError(
            f"metadata: expected conformsTo to start with {CROISSANT}, got {str(document.get('conformsTo'))[:80]!r}"
        )
    name, description = document.get("name"), document.get("description")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise MalformedMessageError(f"metadata: expected a name of 1 to {MAX_NAME_CHARACTERS} characters")
    if not isinstance(description, str) or not description:
        raise MalformedMessageError("metadata: expected a description")
    require_text("metadata: name", name)
    require_text("metadata: description", description)
    return CheckedDocument(content, name, description[:SUMMARY_CHARACTERS])


def check_policy(document: dict[str, Any]) -> CheckedDocument:
    """Check a data-use policy; it must be in its one normal form, so that equal policies have equal digests.

    Raises:
        MalformedMessageError: not a policy, too long, or with its lists unsorted or left out.
    """
    content = _canonical("policy", document, MAX_POLICY_BYTES)
    if canonical_json(DataUsePolicy.parse(document).document()) != content:
        raise MalformedMessageError("policy: expected its normal form (DataUsePolicy.document): every field present, lists sorted")
    return CheckedDocument(content)


def store(session: Session, document: CheckedDocument) -> str:
    """Keep a document and return its digest in hexadecimal; one that is there already stays as it is."""
    digest = to_hex(document.digest)
    lock(session, f"document {digest}")
    if session.get(Document, digest) is None:
        row = Document(digest=digest, content=document.content, name=document.name, description=document.description, created_at=now())
        session.add(row)
        session.flush()
    return digest


def published(session: Session, digest: str) -> Document:
    """A document that a data set on chain binds, or bound before it was replaced.

    Raises:
        Problem: 404.
    """
    bound = select(BoundDocument.token_id).where(BoundDocument.digest == digest)
    document = session.scalar(select(Document).where(Document.digest == digest, bound.exists()))
    if document is None:
        raise not_found("document", digest)
    return document


def _canonical(what: str, document: dict[str, Any], max_bytes: int) -> bytes:
    content = canonical_json(document)
    if len(content) > max_bytes:
        raise MalformedMessageError(f"{what}: expected at most {max_bytes} bytes of canonical JSON, got {len(content)}")
    return content
