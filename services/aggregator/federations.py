"""Federations: who takes part, and the thresholds under which no single update can be opened (`rexis.secagg.thresholds`)."""

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, or_, select, tuple_
from sqlalchemy.orm import Session

from rexis.encoding import require_text, to_hex
from rexis.errors import BelowThresholdError, ProtocolError
from rexis.models.spec import ModelSpec
from rexis.secagg.thresholds import MIN_PARTICIPANTS, thresholds
from services.aggregator.models import Federation, Member
from services.foundation.database import now
from services.foundation.problems import Problem, not_found

MAX_MEMBERS = 64  # the complete graph of pairwise masks; larger rosters need a neighbour graph
ZERO_ADDRESS = "0x" + 40 * "0"


def check_thresholds(members: int, collusion_bound: int, threshold: int, min_survivors: int) -> None:
    """Refuse thresholds under which a single update could be opened, or that no round could reach; higher ones than needed are sound.

    Raises:
        ProtocolError: with the rule that is broken and the value that would do.
    """
    try:
        needed = thresholds(members, collusion_bound)
    except BelowThresholdError as error:
        raise ProtocolError(f"collusion_bound: {error}; a sum with fewer than two honest inputs shows one of them") from error
    rule = f"for n = {members} and t_c = {collusion_bound}"
    if threshold < needed.threshold:
        raise ProtocolError(f"threshold: expected at least floor((n + t_c) / 2) + 1 = {needed.threshold} {rule}, got {threshold}")
    least = max(threshold, needed.min_survivors)
    if min_survivors < least:
        raise ProtocolError(f"min_survivors: expected at least max(t, t_c + 2) = {least} {rule} and t = {threshold}, got {min_survivors}")
    if min_survivors > members:
        raise ProtocolError(f"min_survivors: expected at most n = {members}, got {min_survivors}: no round could ever end")


def found(
    session: Session,
    *,
    founder: str,
    name: str,
    roster: Sequence[str],
    collusion_bound: int,
    threshold: int,
    min_survivors: int,
    strategy: str,
    model_spec: dict[str, Any],
) -> Federation:
    """Found a federation. `roster` holds checksum addresses; their order fixes the positions 1..n.

    Raises:
        ProtocolError: an unsound threshold, or a repeated or zero address.
        EncodingError: a name that can not be read as it is stored.
        MalformedMessageError: a model specification of an unknown family, or out of its bounds.
    """
    require_text("name", name)
    if not MIN_PARTICIPANTS <= len(roster) <= MAX_MEMBERS:
        raise ProtocolError(f"roster: expected {MIN_PARTICIPANTS} to {MAX_MEMBERS} members, got {len(roster)}")
    if len(set(roster)) != len(roster):
        raise ProtocolError("roster: expected distinct addresses, got one twice: it would hold two shares of every secret")
    if ZERO_ADDRESS in roster:
        raise ProtocolError("roster: the zero address has no key and could never take part")
    check_thresholds(len(roster), collusion_bound, threshold, min_survivors)
    spec = ModelSpec.parse(model_spec)
    federation = Federation(
        id=secrets.token_hex(16),
        founder=founder,
        name=name,
        collusion_bound=collusion_bound,
        threshold=threshold,
        min_survivors=min_survivors,
        strategy=strategy,
        model_spec=spec.document(),
        spec_digest=to_hex(spec.digest()),
        created_at=now(),
        members=[Member(position=position, address=address) for position, address in enumerate(roster, start=1)],
    )
    session.add(federation)
    session.flush()
    return federation


def of_institution(session: Session, address: str, *, after: str | None, limit: int) -> Sequence[Federation]:
    """Federations that `address` founded or belongs to, newest first, starting behind the federation `after`.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    query = select(Federation).where(_visible_to(address)).order_by(Federation.created_at.desc(), Federation.id.desc()).limit(limit)
    if after is not None:
        last = session.scalar(select(Federation).where(Federation.id == after, _visible_to(address)))
        if last is None:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(tuple_(Federation.created_at, Federation.id) < (last.created_at, last.id))
    return session.scalars(query).all()


def visible(session: Session, federation_id: str, address: str) -> Federation:
    """One federation, for its founder and members; to everyone else it does not exist.

    Raises:
        Problem: 404.
    """
    federation = session.scalar(select(Federation).where(Federation.id == federation_id, _visible_to(address)))
    if federation is None:
        raise not_found("federation", federation_id)
    return federation


def _visible_to(address: str) -> Any:
    membership = select(Member.federation_id).where(and_(Member.address == address, Member.federation_id == Federation.id))
    return or_(Federation.founder == address, membership.exists())
