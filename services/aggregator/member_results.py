"""What members of a federation with the group pad say that a round made: kept once each, and counted towards the threshold."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from rexis.encoding import to_hex
from rexis.errors import SignatureError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.member_results import NO_RESULT, MemberResult, disagreement, largest
from services.aggregator.attempts import ENDED, Phase
from services.aggregator.models import Attempt, Federation, MemberResultRow
from services.aggregator.registry_calls import Registry
from services.foundation.problems import conflict, forbidden


@dataclass(frozen=True)
class Tally:
    """How the statements of an attempt stand.

    Attributes:
        agreed: the statement of at least the threshold of members, or None.
        is_hopeless: whether no statement can reach it any more.
        reason: for people, which members say what.
    """

    agreed: MemberResult | None
    is_hopeless: bool
    reason: str


def require_member(federation: Federation, address: str) -> None:
    """What only a federation's members may do.

    Raises:
        Problem: 403 for its founder and aggregators.
    """
    if address not in {member.address for member in federation.members}:
        raise forbidden(f"{address} is not a member of federation {federation.id}, and only members state what a round made")


def take(session: Session, registry: Registry, federation: Federation, attempt: Attempt, result: MemberResult, caller: str) -> None:
    """Keep a member's statement about a sum that is open; the same one again, at any time, changes nothing.

    Args:
        attempt: locked for update.

    Raises:
        SignatureError: another account's, about another attempt, or not signed by it.
        Problem: 409 `equivocation` for a second, different statement; `stage-closed` or `stage-not-open` at another time.
    """
    if result.member != caller:
        raise SignatureError(f"expected a statement of the account that is signed in, {caller}, got one of {result.member}")
    place = (to_hex(result.federation), result.round, result.attempt)
    if place != (attempt.federation_id, attempt.round, attempt.number):
        raise SignatureError(f"expected a statement about round {attempt.round}, attempt {attempt.number}, got one about another")
    result.verify(registry.chain_id, registry.address)
    known = session.get(MemberResultRow, (*place, caller))
    if known is not None:
        if MemberResult.parse(known.document).said != result.said:
            raise conflict("equivocation", f"{caller} stated another result of this attempt before: the first one counts")
        return
    phase = Phase(attempt.stage)
    if phase is not Phase.RESULTS:
        over = phase in ENDED or phase.is_behind(Phase.RESULTS)
        raise conflict("stage-closed" if over else "stage-not-open", f"results are taken in the stage results: the attempt is {phase}")
    session.add(
        MemberResultRow(
            federation_id=attempt.federation_id, round=attempt.round, attempt=attempt.number, member=caller, document=result.document()
        )
    )


def of_attempt(session: Session, attempt: Attempt) -> tuple[MemberResult, ...]:
    """What members stated about an attempt, ascending by address."""
    query = select(MemberResultRow.document).where(
        MemberResultRow.federation_id == attempt.federation_id,
        MemberResultRow.round == attempt.round,
        MemberResultRow.attempt == attempt.number,
    )
    found = [MemberResult.parse(document) for document in session.scalars(query)]
    return tuple(sorted(found, key=lambda each: each.member.lower()))


def tally(session: Session, federation: Federation, attempt: Attempt) -> Tally:
    """Count what members stated about an attempt whose sum is open."""
    config, stated = FederationConfig.parse(federation.config), of_attempt(session, attempt)
    alike = largest(stated)
    found = alike[0] if alike else None
    # That the sum is none is a reason to give up; and a statement about another sum than is here is none about this one.
    counts = found is not None and found.model != NO_RESULT and to_hex(found.aggregate) == attempt.aggregate
    counts = counts and found is not None and to_hex(found.survivors_hash) == attempt.survivors_hash
    agreed = found if counts and len(alike) >= config.threshold else None
    silent = [address for address in config.roster if address not in {each.member for each in stated}]
    reason = f"{len(alike)} of {len(config.members)} members stated one result, {config.threshold} have to"
    if stated:
        reason += f": {disagreement(stated)}"
    if silent:
        reason += f"; {', '.join(silent)} stated none"
    is_hopeless = agreed is None and (len(alike) >= config.threshold or len(alike) + len(silent) < config.threshold)
    return Tally(agreed, is_hopeless, reason)
