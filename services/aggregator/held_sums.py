"""The masked sums of an attempt as a witness holds them: made from the survivors' vectors once, and kept instead of them.

A witness fetches the vectors before it signs whose they are, so that one who signed can open the sum whatever becomes of them. They pass
through: what stays is their sum, or that of each group, under the masks that only the sites' answers for exactly these survivors take off.
"""

import numpy as np
from sqlalchemy import Engine, select

from rexis.encoding import sha256, to_hex
from rexis.secagg.accumulator import MaskedSum
from rexis.secagg.coordinator import Coordinator
from rexis.secagg.masks import RingVector
from services.aggregator.models import HeldSum, OnchainRound
from services.aggregator.peers import Peer
from services.foundation.database import transaction
from services.foundation.objects import ObjectStore

Key = tuple[str, int, int, str]


def hold(engine: Engine, objects: ObjectStore, peer: Peer, coordinator: Coordinator) -> tuple[MaskedSum, ...]:
    """The whole sums of the survivors' vectors; fetched from the leading aggregator if it is not here yet.

    Args:
        coordinator: with the stage masked closed.

    Raises:
        DigestMismatchError, MalformedMessageError: the leader gives out another vector than its owner signed; the owner is named.
        ServiceError, UnavailableError: it gives out none.
    """
    terms, record = coordinator.terms, to_hex(coordinator.survivors.fixed.masked)
    key = to_hex(terms.federation), terms.round, terms.attempt, record
    known = _known(engine, key)
    if known is not None:
        content = _read(objects, known)
        if content is not None:
            return _whole(coordinator, np.frombuffer(content, dtype=terms.dtype).copy())
    masked_sums = coordinator.masked_sums()
    for masked_sum in masked_sums:
        for sender in masked_sum.missing:
            size = terms.length * terms.dtype.itemsize
            masked_sum.add(sender, peer.approvals.vector(terms.federation, terms.round, terms.attempt, sender, size))
    totals = np.concatenate([masked_sum.take() for masked_sum in masked_sums])
    _keep(engine, objects, key, totals)
    return _whole(coordinator, totals)


def drop_ended(engine: Engine, objects: ObjectStore) -> None:
    """Delete the sums of attempts that are over on chain."""
    over = (OnchainRound.finalised_transaction.is_not(None)) | (OnchainRound.abandoned_transaction.is_not(None))
    same = (
        OnchainRound.federation_id == HeldSum.federation_id,
        OnchainRound.round == HeldSum.round,
        OnchainRound.attempt == HeldSum.attempt,
    )
    with transaction(engine, read_only=True) as session:
        ended = session.scalars(select(HeldSum).join(OnchainRound, (same[0]) & (same[1]) & (same[2])).where(over)).all()
    for row in ended:
        objects.delete(row.object_key)
        with transaction(engine) as session:
            found = session.get(HeldSum, (row.federation_id, row.round, row.attempt, row.masked_record))
            if found is not None:
                session.delete(found)


def _whole(coordinator: Coordinator, totals: RingVector) -> tuple[MaskedSum, ...]:
    empty = coordinator.masked_sums()
    return tuple(each.filled(total) for each, total in zip(empty, np.split(totals, len(empty)), strict=True))


def _known(engine: Engine, key: Key) -> HeldSum | None:
    with transaction(engine, read_only=True) as session:
        row = session.get(HeldSum, key)
    return row if row is not None and row.digest is not None else None


def _read(objects: ObjectStore, row: HeldSum) -> bytes | None:
    """What was kept, or None if it was damaged or lost: it is made again then."""
    try:
        content = objects.get(row.object_key)
    except FileNotFoundError:
        return None
    return content if to_hex(sha256(content)) == row.digest else None


def _keep(engine: Engine, objects: ObjectStore, key: Key, total: RingVector) -> None:
    content, (federation_id, round_number, number, record) = total.tobytes(), key
    name = f"sums/{federation_id}/{record}"
    # The row is there before the object, so that no object is left that nobody knows of.
    row = HeldSum(federation_id=federation_id, round=round_number, attempt=number, masked_record=record, object_key=name, digest=None)
    with transaction(engine) as session:
        session.merge(row)
    try:
        objects.put_new(name, content)
    except FileExistsError:
        # What a run left that was interrupted before it could record this, or what was damaged since.
        objects.delete(name)
        objects.put_new(name, content)
    with transaction(engine) as session:
        session.get_one(HeldSum, key).digest = to_hex(sha256(content))
