"""Bonds come free: of batches of this operator on which something is staked, once nobody can challenge them any more.

A batch without stake is final by time alone, and no call is made for it. What the contract refuses, because its clock is behind ours or a
challenge was faster, is tried again after a pause; the outbox makes each call once, whatever dies when.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Engine, and_, exists, select
from sqlalchemy.orm import Session

from rexis.chain.calls import encode_call
from rexis.chain.deployments import Deployment
from rexis.encoding import from_hex
from services.foundation.database import lock, now, transaction
from services.foundation.outbox.transactions import ChainIntent, enqueue_call
from services.verifier.models import BatchChallenge, CommittedBatch
from services.verifier.stakes import UNDECIDED

log = structlog.get_logger(__name__)

REGISTRY = "InferenceRegistry"
# Under 60,000 is used by the first, under 110,000 by the second.
FINALISE_GAS, SETTLE_GAS = 120_000, 200_000
# The chain's clock may be behind this machine's.
MARGIN = timedelta(seconds=30)
# Before a call that was refused is made again.
PAUSE = timedelta(minutes=10)
# Batches, and challenges, of one pass.
LIMIT = 100


@dataclass(frozen=True)
class Release:
    """A call that brings a bond closer to being free; `key` without the number of the try."""

    key: str
    data: bytes
    gas: int
    label: str


class BondReleases:
    """The job that frees bonds. Any number of processes may run it on one database.

    Args:
        operator: whose batches.
        deployment: names the registry.
    """

    def __init__(self, engine: Engine, operator: str, deployment: Deployment) -> None:
        self.engine, self.operator = engine, operator
        self.registry = deployment.contracts[REGISTRY].address

    def run_once(self) -> int:
        """Promise the calls that are due. Returns their number."""
        with transaction(self.engine, read_only=True) as session:
            if next(self._due(session), None) is None:
                return 0
        with transaction(self.engine) as session:
            lock(session, "bond releases")
            return sum(self._promise(session, release) for release in list(self._due(session)))

    def _due(self, session: Session) -> Iterator[Release]:
        """Challenges of this operator's batches that the arbiter left undecided in time, and batches without any whose time is over.

        A challenge that was not answered in time costs the operator the bond: to end it is its challenger's call, or anybody's.
        """
        instant = int((now() - MARGIN).timestamp())
        mine = and_(CommittedBatch.operator == self.operator, CommittedBatch.terms != 0, CommittedBatch.outcome.is_(None))
        overdue = select(BatchChallenge).join(CommittedBatch, CommittedBatch.id == BatchChallenge.batch)
        overdue = overdue.where(mine, BatchChallenge.outcome == "answered", BatchChallenge.deadline < instant)
        contested = exists().where(BatchChallenge.batch == CommittedBatch.id, BatchChallenge.outcome.in_(UNDECIDED))
        over = select(CommittedBatch.id).where(mine, CommittedBatch.until < instant, ~contested)
        releases = [_settlement(made) for made in session.scalars(overdue.order_by(BatchChallenge.deadline).limit(LIMIT))]
        releases += [_finalisation(batch) for batch in session.scalars(over.order_by(CommittedBatch.until).limit(LIMIT))]
        for release in releases:
            last = _tries(session, release)[-1:]
            if not last or (last[0].state == "failed" and last[0].state_since < now() - PAUSE):
                yield release

    def _promise(self, session: Session, release: Release) -> int:
        number = len(_tries(session, release)) + 1
        key = f"{release.key} #{number}"
        enqueue_call(session, key=key, to=self.registry, data=release.data, gas=release.gas, label=release.label)
        log.info("bond release promised", call=key)
        return 1


def _settlement(made: BatchChallenge) -> Release:
    data = encode_call(REGISTRY, "settle", from_hex(made.batch), made.index, made.challenger)
    return Release(f"settle {made.batch} {made.index} {made.challenger}", data, SETTLE_GAS, "settle a challenge")


def _finalisation(batch: str) -> Release:
    return Release(f"finalise {batch}", encode_call(REGISTRY, "finalise", from_hex(batch)), FINALISE_GAS, "free a bond")


def _tries(session: Session, release: Release) -> Sequence[ChainIntent]:
    """What was promised of this call before, the last one last."""
    before = select(ChainIntent).where(ChainIntent.key.startswith(f"{release.key} #", autoescape=True))
    return session.scalars(before.order_by(ChainIntent.sequence)).all()
