"""The leading aggregator's calls to the FederationRegistry, promised in the transaction that made them necessary.

Each has a key of the attempt's context and the number of the try, so that a step which is taken twice is one call. What became of a call
is read from the registry's events; the outbox only tells of one that failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.chain.calls import encode_call
from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.chain.silence import ChainSilence
from rexis.encoding import from_hex
from rexis.protocol.approvals import Approval
from rexis.protocol.federation_rounds import RoundResult, approvals
from rexis.protocol.manifest import Manifest
from rexis.protocol.secagg_messages import Envelope
from services.aggregator.models import Attempt
from services.aggregator.projection import REGISTRY
from services.foundation.outbox.transactions import ChainIntent, enqueue_call

# Events, and one signature check; then reading a commitment, hashing it, and its share of call data and event, for each survivor.
GAS, GAS_PER_SURVIVOR, GAS_PER_APPROVAL = 600_000, 25_000, 30_000


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
    """Promises calls as this aggregator.

    Args:
        signer: its address in its federations' lists of aggregators.
        silence: what this aggregator's own node says about the chain being away.
    """

    def __init__(self, registry: Registry, signer: Signer, silence: ChainSilence) -> None:
        self.registry, self.signer, self.silence = registry, signer, silence

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

    def fix_survivors(self, session: Session, attempt: Attempt, given: Sequence[Approval]) -> None:
        """Have the survivors fixed whose vectors the attempt's sum will hold; `given` are a quorum's approvals of them."""
        self._enqueue(session, attempt, "fixSurvivors", _survivor_set(attempt), _signatures(given), signatures=len(given))

    def fix_consented(self, session: Session, attempt: Attempt, given: Sequence[Approval], signed: Sequence[Envelope]) -> None:
        """Have the survivors fixed after the deadline; `signed` are the participants' messages of the stage survivors."""
        consents = approvals({message.sender: message.signature for message in signed})
        arguments = (_survivor_set(attempt), _signatures(given), consents)
        self._enqueue(session, attempt, "fixConsented", *arguments, signatures=len(given) + len(consents))

    def finalise(self, session: Session, attempt: Attempt, result: RoundResult, given: Sequence[Approval]) -> None:
        """Have the result of the attempt recorded; `given` are a quorum's approvals of it."""
        self._enqueue(session, attempt, "finalise", result.fields(), _signatures(given), signatures=len(given))

    def abandon(self, session: Session, attempt: Attempt) -> None:
        """Have an attempt given up on chain."""
        self._enqueue(session, attempt, "abandon", from_hex(attempt.federation_id), attempt.round, attempt.number)

    def _enqueue(self, session: Session, attempt: Attempt, function: str, *arguments: Any, signatures: int = 1) -> None:
        enqueue_call(
            session,
            key=_key(attempt, function),
            to=self.registry.address,
            data=encode_call(REGISTRY, function, *arguments),
            gas=GAS + GAS_PER_SURVIVOR * len(attempt.survivors or ()) + GAS_PER_APPROVAL * (signatures - 1),
            label=f"{function} {attempt.federation_id[:10]} {attempt.round}.{attempt.number}",
        )


def failure_of(session: Session, attempt: Attempt, function: str) -> ChainIntent | None:
    """The latest call of this function for the attempt, if it failed."""
    intent = session.scalar(select(ChainIntent).where(ChainIntent.key == _key(attempt, function)))
    return intent if intent is not None and intent.state == "failed" else None


def is_promised(session: Session, attempt: Attempt, function: str) -> bool:
    """Whether the latest call of this function for the attempt is in the outbox, whatever became of it."""
    return session.scalar(select(ChainIntent.sequence).where(ChainIntent.key == _key(attempt, function))) is not None


def _survivor_set(attempt: Attempt) -> dict[str, Any]:
    if attempt.survivors is None or attempt.masked_record is None:
        raise ValueError("expected an attempt whose stage masked is closed")
    return {
        "federation": from_hex(attempt.federation_id),
        "round": attempt.round,
        "attempt": attempt.number,
        "maskedRecord": from_hex(attempt.masked_record),
        "survivors": attempt.survivors,
    }


def _signatures(given: Sequence[Approval]) -> list[dict[str, str | bytes]]:
    return approvals({approval.signer: approval.signature for approval in given})


def _key(attempt: Attempt, function: str) -> str:
    return f"{function}:{attempt.ctx}:{attempt.tries}"
