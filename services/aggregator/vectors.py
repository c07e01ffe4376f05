"""Masked vectors of an attempt's survivors, as its other aggregators fetch them: in the parts in which they were uploaded.

Nobody else's vector is given out. Of an institution that dropped out the sites open the key of its pairwise masks, so that its vector
would be guarded by nothing but its self mask.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from rexis.encoding import sha256
from rexis.errors import DigestMismatchError
from rexis.protocol.secagg_messages import Stage
from services.aggregator import attempts
from services.aggregator.attempts import ENDED, Phase
from services.aggregator.models import Attempt
from services.foundation.objects import ObjectStore
from services.foundation.problems import conflict, not_found
from services.foundation.uploads import StoredPart, open_upload


@dataclass(frozen=True)
class VectorPart:
    """Bytes of a part, and their SHA-256 (32 bytes)."""

    content: bytes
    digest: bytes


def find(session: Session, attempt: Attempt, sender: str, number: int) -> StoredPart:
    """Where a part of a survivor's vector lies.

    Args:
        sender: checksum address.
        number: from 1.

    Raises:
        Problem: 409 before the survivors are known and when the attempt is over; 404 for anyone who is none of them, and no such part.
    """
    phase = Phase(attempt.stage)
    if phase in ENDED or not phase.is_behind(Stage.MASKED):
        kind = "attempt-over" if phase in ENDED else "stage-open"
        raise conflict(kind, f"vectors are given out between the stage masked and the end: the attempt is {phase}")
    announced = {message.sender: message for message in attempts.messages_of(session, attempt, Stage.MASKED)}
    if sender not in (attempt.survivors or ()) or sender not in announced:
        raise not_found(f"masked vector in attempt {attempt.number} of round {attempt.round} by", sender)
    parts = open_upload(session, announced[sender].payload["upload"], sender).parts
    if not 1 <= number <= len(parts):
        raise not_found(f"part of that vector, which has {len(parts)}, with number", number)
    return parts[number - 1]


def read(objects: ObjectStore, stored: StoredPart) -> VectorPart:
    """A part's content.

    Raises:
        DigestMismatchError: the store holds other bytes than were uploaded.
        UnavailableError: the store does not answer.
    """
    content = objects.get(stored.object_key)
    if sha256(content) != stored.digest:
        raise DigestMismatchError("part of a masked vector", stored.digest, sha256(content))
    return VectorPart(content, stored.digest)
