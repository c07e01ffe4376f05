"""Messages of participants: taken while their stage is open, given out when it is closed."""

from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from rexis.encoding import sha256, to_hex
from rexis.errors import MalformedMessageError, SignatureError
from rexis.protocol.plan_parts import MASKED
from rexis.protocol.secagg_messages import Envelope, Stage
from services.aggregator import attempts, plain_attempts
from services.aggregator.attempts import ENDED, Phase
from services.aggregator.models import Attempt, Federation, Member, MemberResultRow, OnchainCommitment, RoundMessage
from services.aggregator.registry_calls import Registry
from services.foundation.problems import Problem, conflict, not_found
from services.foundation.uploads import Upload, claim_upload

# Who can send at a stage has sent at this one.
_BEFORE = {Stage.SHARES: Stage.KEYS, Stage.MASKED: Stage.SHARES, Stage.SURVIVORS: Stage.SHARES, Stage.UNMASK: Stage.SHARES}


def find(session: Session, federation: Federation, round_number: int, number: int, *, for_update: bool = False) -> Attempt:
    """One attempt of a federation that the caller may see.

    Raises:
        Problem: 404.
    """
    attempt = session.get(Attempt, (federation.id, round_number, number), with_for_update=for_update)
    if attempt is None:
        raise not_found("attempt", f"{round_number}.{number} of federation {federation.id}")
    return attempt


def take(session: Session, registry: Registry, federation: Federation, attempt: Attempt, stage: Stage, body: bytes, caller: str) -> None:
    """Take a participant's message of an open stage; the same one again, at any time, changes nothing.

    Args:
        attempt: locked for update.
        body: the envelope's bytes.
        caller: who is signed in; participants hand in their own messages only.

    Raises:
        SignatureError: another account's message, or not signed for this attempt.
        MalformedMessageError: not canonical, of another stage, or with contents that this attempt does not admit.
        UnexpectedMessageError: its sender has dropped out of the attempt before.
        Problem: 409 `equivocation` for a second, different message; `stage-closed` or `stage-not-open` at another time; for the stage
            masked as `claim_upload`.
    """
    envelope = Envelope.parse(body)
    if envelope.sender != caller:
        raise SignatureError(f"expected a message of the account that is signed in, {caller}, got one of {envelope.sender}")
    if envelope.stage is not stage:
        raise MalformedMessageError(f"expected a message of the stage {stage}, got one of {envelope.stage}")
    known = session.get(RoundMessage, (*_key(attempt), stage.value, caller))
    if known is not None:
        if known.digest != to_hex(sha256(body)) and not _says_the_same(known, envelope):
            raise conflict("equivocation", f"{caller} handed in another message of the stage {stage} before: the first one counts")
        return
    phase = Phase(attempt.stage)
    if phase.value != stage.value:
        over = phase.is_behind(stage)
        detail = f"the stage {stage} is {'closed' if over else 'not open yet'}: the attempt is in the stage {phase}"
        raise conflict("stage-closed" if over else "stage-not-open", detail)
    plain_attempts.coordinator_of(session, registry, federation, attempt).receive(envelope)
    if stage is Stage.MASKED:
        _claim_vector(session, envelope)
    session.add(
        RoundMessage(
            federation_id=attempt.federation_id,
            round=attempt.round,
            attempt=attempt.number,
            stage=stage.value,
            sender=caller,
            digest=to_hex(sha256(body)),
            body=body,
        )
    )


def closed(session: Session, attempt: Attempt, stage: Stage) -> list[Envelope]:
    """What counts of a closed stage.

    Raises:
        Problem: 409 `stage-open` before it is closed, `attempt-over` when its messages were forgotten.
    """
    phase = Phase(attempt.stage)
    if phase in ENDED:
        raise conflict("attempt-over", f"attempt {attempt.number} of round {attempt.round} is {phase}: its messages were forgotten")
    if not phase.is_behind(stage):
        raise conflict("stage-open", f"the stage {stage} is not closed yet: the attempt is in the stage {phase}")
    return attempts.messages_of(session, attempt, stage)


def work_of(session: Session, address: str) -> list[dict[str, Any]]:
    """Every running attempt of the federations that an institution takes part in, with what is due from it; one query."""
    ended = [phase.value for phase in ENDED]
    mine = and_(
        RoundMessage.federation_id == Attempt.federation_id,
        RoundMessage.round == Attempt.round,
        RoundMessage.attempt == Attempt.number,
        RoundMessage.sender == address,
    )
    committed = and_(OnchainCommitment.ctx == Attempt.ctx, OnchainCommitment.participant == address)
    query = (
        select(Attempt, RoundMessage.stage, OnchainCommitment.participant, Federation.config["protection"].as_string())
        .join(Federation, Federation.id == Attempt.federation_id)
        .join(Member, and_(Member.federation_id == Attempt.federation_id, Member.address == address))
        .outerjoin(RoundMessage, mine)
        .outerjoin(OnchainCommitment, committed)
        .where(Attempt.stage.not_in(ended))
        .order_by(Attempt.federation_id, Attempt.round, Attempt.number)
    )
    sent: dict[str, set[str]] = {}
    found: dict[str, tuple[Attempt, bool, bool]] = {}
    for attempt, stage, has_committed, protection in session.execute(query):
        found[attempt.ctx] = attempt, has_committed is not None, protection is None or protection in MASKED
        sent.setdefault(attempt.ctx, set()).update({stage} - {None})
    stated = {ctx for ctx, (attempt, *_) in found.items() if attempt.stage == Phase.RESULTS and _has_stated(session, attempt, address)}
    return [
        _item(attempt, sent[ctx], has_committed, has_stated=ctx in stated, masked=masked)
        for ctx, (attempt, has_committed, masked) in found.items()
    ]


def _has_stated(session: Session, attempt: Attempt, address: str) -> bool:
    return session.get(MemberResultRow, (*_key(attempt), address)) is not None


def _item(attempt: Attempt, sent: set[str], has_committed: bool, *, has_stated: bool, masked: bool) -> dict[str, Any]:
    phase = Phase(attempt.stage)
    sending, before = (attempts.SENDING, _BEFORE) if masked else ((Stage.MASKED,), {})
    stage = next((each for each in sending if each.value == phase.value), None)
    due = stage is not None and stage.value not in sent and (stage not in before or before[stage].value in sent)
    due = due or (phase is Phase.RESULTS and not has_stated)
    return {
        "federation": attempt.federation_id,
        "round": attempt.round,
        "attempt": attempt.number,
        "stage": phase.value,
        "manifest": attempt.manifest,
        "due": due,
        "commitment_due": phase in (Phase.KEYS, Phase.SHARES, Phase.MASKED) and not has_committed,
    }


def _claim_vector(session: Session, envelope: Envelope) -> None:
    payload = envelope.payload
    used = session.get(Upload, payload["upload"], with_for_update=True)
    if used is not None and used.owner == envelope.sender and used.state == "claimed":
        # It would be deleted with the first attempt that ends, under the feet of the other one.
        raise conflict("upload-used", f"upload {used.id} belongs to another attempt already: upload each masked vector by itself")
    upload = claim_upload(session, payload["upload"], envelope.sender)
    expected = payload["length"] * payload["bits"] // 8
    if upload.total_bytes != expected or to_hex(upload.digest) != payload["digest"]:
        detail = f"expected upload {upload.id} to have {expected} bytes and digest {payload['digest']}, as the message says"
        raise Problem(422, "upload-differs", "The upload is another one", f"{detail}; got {upload.total_bytes} and {to_hex(upload.digest)}")


def _says_the_same(known: RoundMessage, envelope: Envelope) -> bool:
    """Signatures have more than one valid form: only what was signed counts."""
    return known.body is not None and Envelope.parse(known.body).payload == envelope.payload


def _key(attempt: Attempt) -> tuple[str, int, int]:
    return attempt.federation_id, attempt.round, attempt.number
