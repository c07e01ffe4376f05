"""Requests for access: a declared purpose, weighed against the data set's policy before the owner ever sees it.

A request is answered on chain. Its state is therefore read, not written: from the grant that names its conditions, and only where there
is none from the owner's decline.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from rexis.encoding import canonical_json, from_hex, to_hex
from rexis.errors import MalformedMessageError, PolicyError
from rexis.policy.conditions import Conditions, check_text, parse_purpose
from rexis.policy.duo import DataUsePolicy, evaluate
from services.foundation.database import lock
from services.foundation.problems import Problem, conflict, forbidden, not_found
from services.marketplace.catalogue import Dataset
from services.marketplace.grants import ACTIVE, decides_about, is_of, status_of
from services.marketplace.models import AccessChange, AccessRequest, CatalogueEntry

# Of one consumer, about all data sets together: more than anybody waits for, less than a flood.
MAX_UNDECIDED = 100


@dataclass(frozen=True)
class Request:
    """A request with the data set it is about.

    Attributes:
        row: what was asked for.
        entry: the data set as the chain has it now.
        state: requested, granted, declined, revoked, replaced, expired, suspended, or withdrawn.
        grant_epoch: what a grant that is signed now must name.
        decided_by_caller: whether the caller may grant and revoke.
    """

    row: AccessRequest
    entry: CatalogueEntry
    state: str
    grant_epoch: int
    decided_by_caller: bool


def make(
    session: Session, dataset: Dataset, consumer: str, purpose: Mapping[str, Any], *, days: int, text: str, instant: datetime
) -> AccessRequest:
    """Keep a request, after its purpose was weighed.

    Args:
        dataset: what the access is asked for.
        consumer: checksum address of the caller.
        purpose: as `parse_purpose` reads it, without `until`, which follows from `days`.

    Raises:
        MalformedMessageError: not a purpose, or of another user.
        Problem: 422 if the policy does not cover the purpose, with its rule; 409 if nothing is granted any more, or the policy is unknown
            here; 429 for a flood.
    """
    if "until" in purpose:
        raise MalformedMessageError("purpose: expected no until, it follows from days")
    if purpose.get("user") not in (None, consumer):
        raise MalformedMessageError(f"purpose: expected the account that is signed in, {consumer}, as user")
    check_text(text)
    declared = parse_purpose({**purpose, "user": consumer, "until": (instant + timedelta(days=days)).date().isoformat()})
    entry = dataset.entry
    if entry.state != "active":
        raise conflict("dataset-not-active", f"data set {entry.token_id} is {entry.state}: nothing new is granted")
    if dataset.policy is None:
        raise conflict(
            "policy-not-available", f"this marketplace does not hold the policy of data set {entry.token_id}; ask its owner for it"
        )
    try:
        evaluate(DataUsePolicy.parse(json.loads(dataset.policy.content)), declared)
    except PolicyError as refused:
        raise Problem(422, "purpose-refused", "The policy does not allow this use", f"data set {entry.token_id}: {refused}") from refused
    conditions = Conditions(
        request=secrets.token_hex(16),
        dataset=entry.token_id,
        consumer=consumer,
        policy_hash=from_hex(entry.policy_hash, 32),
        purpose=declared,
        days=days,
        text=text,
    )
    row = AccessRequest(
        id=conditions.request,
        dataset=entry.token_id,
        consumer=consumer,
        purpose=declared.use.number,
        conditions=canonical_json(conditions.document()),
        conditions_hash=to_hex(conditions.digest()),
        created_at=instant,
    )
    _check_quota(session, consumer, instant)
    session.add(row)
    session.flush()
    return row


def of_party(session: Session, request_id: str, caller: str, instant: datetime) -> Request:
    """A request, for its consumer and for who decides about the data set.

    Raises:
        Problem: 404.
    """
    row = session.execute(_requests(caller, instant).where(AccessRequest.id == request_id, _is_party(caller))).one_or_none()
    if row is None:
        raise not_found("access request", request_id)
    return Request(*row)


def page(session: Session, caller: str, *, role: str, after: str | None, limit: int, instant: datetime) -> Sequence[Request]:
    """Requests of a consumer, or those that the caller decides about, newest first, starting behind the request `after`.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    mine = AccessRequest.consumer == caller if role == "consumer" else decides_about(caller)
    place = tuple_(AccessRequest.created_at, AccessRequest.id)
    query = _requests(caller, instant).where(mine).order_by(AccessRequest.created_at.desc(), AccessRequest.id.desc()).limit(limit)
    if after is not None:
        last = session.get(AccessRequest, after)
        if last is None or session.execute(_requests(caller, instant).where(mine, AccessRequest.id == after)).first() is None:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(place < (last.created_at, last.id))
    return [Request(*row) for row in session.execute(query)]


def decline(session: Session, request: Request, caller: str, reason: str, instant: datetime) -> None:
    """Turn a request down; the same decision twice is one.

    Raises:
        EncodingError: a reason that people could not read.
        Problem: 403 to its consumer, 409 if it was decided otherwise.
    """
    if not request.decided_by_caller:
        raise forbidden("only the owner of the data set and its committee decide about a request")
    check_text(reason)
    # The state of a request is read in several steps: of two decisions at once, one comes first.
    session.refresh(request.row, with_for_update=True)
    if request.row.declined_at is not None:
        if request.row.reason != reason:
            raise conflict("request-decided", f"access request {request.row.id} was declined before, for another reason")
        return
    if request.state != "requested":
        raise conflict("request-decided", f"access request {request.row.id} is {request.state}; a grant ends with AccessManager.revoke")
    request.row.declined_at, request.row.declined_by, request.row.reason = instant, caller, reason
    session.flush()


def _is_party(caller: str) -> ColumnElement[bool]:
    return or_(AccessRequest.consumer == caller, decides_about(caller))


def _requests(caller: str, instant: datetime) -> Any:
    """Rows of request, catalogue entry, state, and whether the caller decides."""
    latest, own = aliased(AccessChange), aliased(AccessChange)
    named = select(own.grant_epoch).where(is_of(own, AccessRequest), own.conditions_hash == AccessRequest.conditions_hash)
    status = status_of(latest, instant)
    granted_by_latest = latest.conditions_hash == AccessRequest.conditions_hash
    state = case(
        (and_(granted_by_latest, status == ACTIVE), "granted"),
        (granted_by_latest, status),
        (and_(named.exists(), latest.until.is_(None)), "revoked"),
        (named.exists(), "replaced"),
        (AccessRequest.declined_at.is_not(None), "declined"),
        (CatalogueEntry.state == "withdrawn", "withdrawn"),
        else_="requested",
    ).label("request_state")
    return (
        select(AccessRequest, CatalogueEntry, state, func.coalesce(latest.grant_epoch, 0), decides_about(caller))
        .join(CatalogueEntry, CatalogueEntry.token_id == AccessRequest.dataset)
        .outerjoin(latest, and_(is_of(latest, AccessRequest), latest.latest))
    )


def _check_quota(session: Session, consumer: str, instant: datetime) -> None:
    lock(session, f"access requests of {consumer}")
    mine = _requests(consumer, instant).where(AccessRequest.consumer == consumer).subquery()
    undecided = session.scalars(select(func.count()).select_from(mine).where(mine.c.request_state == "requested")).one()
    if undecided >= MAX_UNDECIDED:
        detail = f"at most {MAX_UNDECIDED} requests of one account may be undecided"
        raise Problem(429, "request-quota", "Too many requests are undecided", detail, headers={"Retry-After": "3600"})
