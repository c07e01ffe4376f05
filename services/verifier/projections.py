"""What the chain tells the verifier: which owners vouch for which models, which batches of receipts were committed, and what is staked."""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from rexis.encoding import MAX_SAFE_INTEGER, checksum_address, to_hex
from services.foundation.chain_index import IndexedEvent
from services.verifier.models import BatchChallenge, CommittedBatch, OperatorStake, OperatorTerms, VouchedModel

# As the contract numbers them.
OUTCOMES = ("absent", "open", "answered", "upheld", "dismissed", "undecided", "moot")


class VouchedModels:
    """Writes `vouched_model` from the events of the ModelRegistry."""

    contract = "ModelRegistry"
    tables = (VouchedModel,)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        if event.name not in ("ModelAuthorised", "ModelRevoked"):
            return
        model, owner = to_hex(event.arguments["model"]), checksum_address(event.arguments["owner"])
        found = session.get(VouchedModel, (model, owner))
        if found is None:
            found = VouchedModel(model=model, owner=owner)
            session.add(found)
        found.authorised = event.name == "ModelAuthorised"
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(VouchedModel))


class CommittedBatches:
    """Writes `committed_batch` from the events of the InferenceRegistry."""

    contract = "InferenceRegistry"
    tables = (CommittedBatch,)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        if event.name == "BatchCommitted":
            self._commit(session, event)
        elif event.name in ("BatchFinalised", "BatchRejected"):
            found = session.get(CommittedBatch, to_hex(event.arguments["batch"]))
            if found is not None:
                found.outcome = "final" if event.name == "BatchFinalised" else "rejected"
                session.flush()

    def _commit(self, session: Session, event: IndexedEvent) -> None:
        # Numbers beyond what JSON can hold are another operator's: none of ours gets there.
        if event.arguments["sequence"] > MAX_SAFE_INTEGER:
            return
        session.add(
            CommittedBatch(
                id=to_hex(event.arguments["batch"]),
                operator=checksum_address(event.arguments["operator"]),
                owner=checksum_address(event.arguments["owner"]),
                model=to_hex(event.arguments["model"]),
                sequence=event.arguments["sequence"],
                count=event.arguments["count"],
                record=to_hex(event.arguments["record"]),
                transaction_hash=event.transaction_hash,
                block_number=event.block_number,
                block_hash=event.block_hash,
                terms=event.arguments["terms"],
                until=event.arguments["until"],
            )
        )
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(CommittedBatch))


class OperatorStakes:
    """Writes `operator_terms` and `operator_stake` from the events of the InferenceRegistry."""

    contract = "InferenceRegistry"

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        if event.name not in ("TermsSet", "StakeChanged"):
            return
        told = event.arguments
        operator, token = checksum_address(told["operator"]), checksum_address(told["token"])
        if event.name == "TermsSet":
            arbiter, bond = checksum_address(told["arbiter"]), str(told["bond"])
            session.add(OperatorTerms(operator=operator, number=told["number"], token=token, bond=bond, arbiter=arbiter))
        else:
            session.merge(OperatorStake(operator=operator, token=token, total=str(told["total"])))
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(OperatorTerms))
        session.execute(delete(OperatorStake))


class BatchChallenges:
    """Writes `batch_challenge` from the events of the InferenceRegistry."""

    contract = "InferenceRegistry"

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        if event.name not in ("ChallengeOpened", "ChallengeAnswered", "ChallengeClosed"):
            return
        told = event.arguments
        batch, index, challenger = to_hex(told["batch"]), told["index"], checksum_address(told["challenger"])
        if event.name == "ChallengeOpened":
            made = BatchChallenge(batch=batch, index=index, challenger=challenger, leaf=to_hex(told["leaf"]), reason=to_hex(told["reason"]))
            made.outcome, made.deadline = "open", told["deadline"]
            session.add(made)
        else:
            made = session.get_one(BatchChallenge, (batch, index, challenger))
            if event.name == "ChallengeAnswered":
                made.outcome, made.answer, made.deadline = "answered", to_hex(told["answer"]), told["deadline"]
            else:
                # A ruling has grounds; what time decided has none.
                made.outcome, made.grounds = OUTCOMES[told["outcome"]], to_hex(told["reason"]) if any(told["reason"]) else None
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(BatchChallenge))
