"""The aggregator's own calls to the FederationRegistry, promised in the transaction that made them necessary.

Each has a key of the attempt's context and the number of the try, so that a step which is taken twice is one call. What became of a call
is read from the registry's events; the outbox only tells of one that failed.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.chain.calls import encode_call
from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.encoding import from_hex
from rexis.protocol.federation_rounds import RoundResult, Survivors, approvals
from rexis.protocol.manifest import Manifest
from services.aggregator.models import Attempt, OnchainRound
from services.aggregator.projection import REGISTRY
from services.foundation.outbox.transactions import ChainIntent, enqueue_call

# Signature checks and events; then reading a commitment, hashing it, and its share of call data and event, for each survivor.
GAS, GAS_PER_SURVIVOR = 600_000, 25_000


@dataclass(frozen=True)
class Registry:
    """Where federations stand; `address` is a checksum address."""

    chain_id: int
    address: str

    @classmethod
    def of(cls, deployment: Deployment) -> "Registry":
        """The registry of a deployment."""
        return cls(deployment.chain_id, deployment.contracts[REGISTRY].address)


class Calls:
    """Promises calls as this aggregator; `signer` is the one address in its federations' lists of aggregators."""

    def __init__(self, registry: Registry, signer: Signer) -> None:
        self.registry, self.signer = registry, signer

    def open_round(self, session: Session, attempt: Attempt) -> None:
        """Have the attempt opened on chain, under its manifest."""
        due = Manifest.parse(attempt.manifest).deadlines
        arguments = (
            from_hex(attempt.federation_id),
            attempt.round,
            attempt.number,
            from_hex(attempt.manifest_digest),
            due.masked,
            due.abandon,
        )
        self._enqueue(session, attempt, "openRound", *arguments)

    def fix_survivors(self, session: Session, attempt: Attempt) -> None:
        """Have the survivors fixed whose vectors the attempt's sum will hold."""
        if attempt.survivors is None or attempt.survivors_hash is None or attempt.masked_record is None:
            raise ValueError("expected an attempt whose stage masked is closed")
        message = Survivors(
            federation=from_hex(attempt.federation_id),
            round_number=attempt.round,
            attempt=attempt.number,
            survivors_hash=from_hex(attempt.survivors_hash),
            masked_record=from_hex(attempt.masked_record),
        )
        signature = self.signer.sign_typed_data(message.typed_data(self.registry.chain_id, self.registry.address))
        given = {
            "federation": message.federation,
            "round": attempt.round,
            "attempt": attempt.number,
            "maskedRecord": message.masked_record,
            "survivors": attempt.survivors,
        }
        self._enqueue(session, attempt, "fixSurvivors", given, approvals({self.signer.address: signature}))

    def finalise(
        self,
        session: Session,
        attempt: Attempt,
        fixed: OnchainRound,
        *,
        aggregate: bytes,
        model: bytes,
        metrics: bytes,
        epsilon_micro: int,
    ) -> None:
        """Have the result of the attempt recorded.

        Args:
            fixed: what the chain has of it.
            aggregate: digest of the sum, 32 bytes.
            model: record of the new model, or digest of the statistic, 32 bytes.
            metrics: digest of the canonical metrics, 32 bytes.
            epsilon_micro: privacy loss of the federation so far, this round included; 0 where its plan claims none.
        """
        if fixed.survivors_hash is None or fixed.accumulator is None or attempt.survivors is None:
            raise ValueError("expected an attempt whose survivors are fixed on chain")
        result = RoundResult(
            federation=from_hex(attempt.federation_id),
            round_number=attempt.round,
            attempt=attempt.number,
            survivors_hash=from_hex(fixed.survivors_hash),
            accumulator=from_hex(fixed.accumulator),
            updates=len(attempt.survivors),
            base_model=from_hex(attempt.base_model),
            aggregate=aggregate,
            model=model,
            metrics=metrics,
            epsilon_micro=epsilon_micro,
        )
        signature = self.signer.sign_typed_data(result.typed_data(self.registry.chain_id, self.registry.address))
        self._enqueue(session, attempt, "finalise", result.fields(), approvals({self.signer.address: signature}))

    def abandon(self, session: Session, attempt: Attempt) -> None:
        """Have an attempt given up on chain."""
        self._enqueue(session, attempt, "abandon", from_hex(attempt.federation_id), attempt.round, attempt.number)

    def _enqueue(self, session: Session, attempt: Attempt, function: str, *arguments: Any) -> None:
        enqueue_call(
            session,
            key=_key(attempt, function),
            to=self.registry.address,
            data=encode_call(REGISTRY, function, *arguments),
            gas=GAS + GAS_PER_SURVIVOR * len(attempt.survivors or ()),
            label=f"{function} {attempt.federation_id[:10]} {attempt.round}.{attempt.number}",
        )


def failure_of(session: Session, attempt: Attempt, function: str) -> ChainIntent | None:
    """The latest call of this function for the attempt, if it failed."""
    intent = session.scalar(select(ChainIntent).where(ChainIntent.key == _key(attempt, function)))
    return intent if intent is not None and intent.state == "failed" else None


def is_promised(session: Session, attempt: Attempt, function: str) -> bool:
    """Whether the latest call of this function for the attempt is in the outbox, whatever became of it."""
    return session.scalar(select(ChainIntent.sequence).where(ChainIntent.key == _key(attempt, function))) is not None


def _key(attempt: Attempt, function: str) -> str:
    return f"{function}:{attempt.ctx}:{attempt.tries}"
