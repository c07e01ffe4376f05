"""Federations: who sees them, and who takes part."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, or_, select, tuple_
from sqlalchemy.orm import Session, selectinload

from services.aggregator.models import Account, Federation, FederationAggregator, Member
from services.foundation.database import now
from services.foundation.problems import Problem, conflict, forbidden, not_found


def account(session: Session) -> str:
    """The address under which federations name this aggregator.

    Raises:
        Problem: 503 before its background process has ever run.
    """
    address: str | None = session.scalar(select(Account.address))
    if address is None:
        detail = "this aggregator's background process has not run yet, and only that has its key; try again in a moment"
        raise Problem(503, "unavailable", "Unavailable", detail, headers={"Retry-After": "2"})
    return address


def join(session: Session, federation: Federation, address: str) -> None:
    """A member takes part from now on; a second time changes nothing.

    Raises:
        Problem: 403 for a founder who is no member, 409 when the federation is over.
    """
    member = session.get(Member, (federation.id, address), with_for_update=True)
    if member is None:
        raise forbidden(f"{address} is not a member of federation {federation.id}, and can not join it")
    if member.joined_at is not None:
        return
    if federation.state not in ("founding", "inviting"):
        raise conflict("federation-over", f"federation {federation.id} is {federation.state}: nobody can join it any more")
    member.joined_at = now()


def of_institution(session: Session, address: str, *, after: str | None, limit: int) -> Sequence[Federation]:
    """Federations that `address` founded, belongs to or aggregates for, newest first, starting behind the federation `after`.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    newest = Federation.created_at.desc(), Federation.id.desc()
    shown = selectinload(Federation.equivocations)
    query = select(Federation).where(_visible_to(address)).order_by(*newest).limit(limit).options(shown)
    if after is not None:
        last = session.scalar(select(Federation).where(Federation.id == after, _visible_to(address)))
        if last is None:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(tuple_(Federation.created_at, Federation.id) < (last.created_at, last.id))
    return session.scalars(query).all()


def visible(session: Session, federation_id: str, address: str) -> Federation:
    """One federation, for its founder, members and aggregators; to everyone else it does not exist.

    Raises:
        Problem: 404.
    """
    federation = session.scalar(select(Federation).where(Federation.id == federation_id, _visible_to(address)))
    if federation is None:
        raise not_found("federation", federation_id)
    return federation


def require_aggregator(federation: Federation, address: str) -> None:
    """What only the federation's aggregators may do.

    Raises:
        Problem: 403 for its founder and members.
    """
    if address not in {aggregator.address for aggregator in federation.aggregators}:
        raise forbidden(f"{address} is not among the aggregators of federation {federation.id}, and only they may do this")


def _visible_to(address: str) -> Any:
    membership = select(Member.federation_id).where(and_(Member.address == address, Member.federation_id == Federation.id))
    return or_(Federation.founder == address, membership.exists(), _aggregated_by(address))


def _aggregated_by(address: str) -> Any:
    aggregator = FederationAggregator
    query = select(aggregator.federation_id).where(and_(aggregator.address == address, aggregator.federation_id == Federation.id))
    return query.exists()
