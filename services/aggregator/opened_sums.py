"""Sums as they were opened, one for each round: from them members compute the rounds' results themselves.

In a federation with the group pad the sum is under the members' pads, and nothing that this aggregator has takes them off. The sums of
rounds that are final are kept as models are, since who missed rounds goes through them one after the other.
"""

from collections.abc import Iterator

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from rexis.encoding import sha256, to_hex
from rexis.errors import DigestMismatchError
from rexis.secagg.masks import RingVector
from services.aggregator.attempts import Phase
from services.aggregator.models import Attempt, OpenedSum
from services.foundation.database import transaction
from services.foundation.objects import ObjectStore
from services.foundation.problems import not_found

# From where on a sum is open.
_SHOWN = (Phase.RESULTS, Phase.FINALISING, Phase.FINISHED)


def keep(engine: Engine, objects: ObjectStore, attempt: tuple[str, int, int], total: RingVector) -> None:
    """Store the sum of an attempt; a second time changes nothing.

    Raises:
        DigestMismatchError: there is another sum of this attempt.
    """
    content, (federation_id, round_number, number) = total.tobytes(), attempt
    name, digest = f"opened/{federation_id}/{round_number}.{number}", to_hex(sha256(content))
    # The row is there before the object, so that no object is left that nobody knows of.
    with transaction(engine) as session:
        row = OpenedSum(federation_id=federation_id, round=round_number, attempt=number, object_key=name, size=len(content), digest=digest)
        session.merge(row)
    try:
        objects.put_new(name, content)
    except FileExistsError:
        if objects.get(name) != content:
            raise DigestMismatchError(f"object {name}", sha256(content), sha256(objects.get(name))) from None


def find(session: Session, attempt: Attempt) -> OpenedSum:
    """The sum of an attempt.

    Raises:
        Problem: 404 before it is open, and of an attempt that was given up.
    """
    row = session.get(OpenedSum, (attempt.federation_id, attempt.round, attempt.number))
    if row is None or Phase(attempt.stage) not in _SHOWN:
        raise not_found("opened sum of attempt", f"{attempt.round}.{attempt.number} of federation {attempt.federation_id}")
    return row


def chunks(objects: ObjectStore, row: OpenedSum) -> Iterator[bytes]:
    """A stored sum, for sending."""
    return objects.open_stream(row.object_key)


def drop_aborted(engine: Engine, objects: ObjectStore) -> None:
    """Delete the sums of attempts that came to no result."""
    same = (Attempt.federation_id == OpenedSum.federation_id, Attempt.round == OpenedSum.round, Attempt.number == OpenedSum.attempt)
    query = select(OpenedSum).join(Attempt, same[0] & same[1] & same[2]).where(Attempt.stage == Phase.ABORTED.value)
    with transaction(engine, read_only=True) as session:
        found = session.scalars(query).all()
    for row in found:
        objects.delete(row.object_key)
        with transaction(engine) as session:
            known = session.get(OpenedSum, (row.federation_id, row.round, row.attempt))
            if known is not None:
                session.delete(known)
