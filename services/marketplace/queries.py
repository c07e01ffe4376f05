"""Compute-to-data queries: taken on under an active grant, worked off by the agent of the data set's owner.

    queued → released | held | refused | failed | expired        held → released | refused | expired

The consumer learns that a result is held, and neither why nor anything of it: so both stay with the owner, and this service refuses to be
told. The owner's agent polls; nothing here reaches into an institution.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session

from rexis.encoding import canonical_json, require_text, to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError
from rexis.protocol.queries import TableQuery, TableResult
from services.foundation.database import lock, now, transaction
from services.foundation.problems import Problem, conflict, forbidden, not_found
from services.marketplace import grants
from services.marketplace.grants import GrantKey
from services.marketplace.models import AccessChange, AccessRequest, CatalogueEntry, QueryJob

MAX_RULE_CHARACTERS = 500
# Of one consumer about one data set: the owner's budget bounds what they may learn, this what they may store.
MAX_OPEN = 64
WORK_ITEMS = 20
QUEUE_LIFETIME = timedelta(days=7)
# A person decides, who may be on holiday.
REVIEW_LIFETIME = timedelta(days=30)
LIFETIMES: Mapping[str, timedelta] = {"queued": QUEUE_LIFETIME, "held": REVIEW_LIFETIME}
# What may come after which state.
OUTCOMES: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"released", "held", "refused", "failed"}),
    "held": frozenset({"released", "refused"}),
}
# A suspended grant may be confirmed; these do not come back by themselves.
ENDED_GRANTS = ("revoked", "expired", "withdrawn")


@dataclass(frozen=True)
class Query:
    """A query with the data set's present owner, and the conditions of its grant where this marketplace holds them."""

    job: QueryJob
    owner: str
    conditions: bytes | None


@dataclass(frozen=True)
class Outcome:
    """What the owner's agent says, checked for itself; whether it fits the query, `decide` says."""

    state: str
    rule: str | None = None
    result: TableResult | None = None

    @classmethod
    def check(cls, state: str, result: Mapping[str, Any] | None, rule: str | None, result_digest: bytes | None) -> "Outcome":
        """Read an outcome.

        Raises:
            MalformedMessageError: a result that is missing, ill-formed, or not to be told; a rule with what is no refusal.
            DigestMismatchError: another result than the digest says.
        """
        if any((part is not None) != (state == "released") for part in (result, result_digest)):
            raise MalformedMessageError(
                "outcome: a result and its digest come with a release, and with nothing else; it stays with the owner"
            )
        if rule is not None:
            if state != "refused" or not 0 < len(rule) <= MAX_RULE_CHARACTERS:
                raise MalformedMessageError(f"outcome: a rule of at most {MAX_RULE_CHARACTERS} characters comes with a refusal only")
            require_text("rule", rule)
        if result is None:
            return cls(state, rule)
        table = TableResult.parse(result)
        if result_digest is not None and table.digest != result_digest:
            raise DigestMismatchError("result_digest, against the result", table.digest, result_digest)
        return cls(state, rule, table)


def submit(session: Session, consumer: str, dataset: int, purpose: int, query: Mapping[str, Any], instant: datetime) -> Query:
    """Take a query on.

    Raises:
        MalformedMessageError: not a query.
        Problem: 404 if there is no such data set, 403 without an active grant for the purpose, 429 if too many are open.
    """
    entry = session.get(CatalogueEntry, dataset)
    if entry is None:
        raise not_found("data set", dataset)
    grant = grants.require_active(session, GrantKey(dataset, consumer, purpose), instant)
    parsed = TableQuery.parse(query)
    content = canonical_json(parsed.document())
    lock(session, f"queries of {consumer}")
    open_ones = select(func.count()).where(QueryJob.consumer == consumer, QueryJob.dataset == dataset, QueryJob.state.in_(OUTCOMES))
    if session.scalars(open_ones).one() >= MAX_OPEN:
        detail = f"at most {MAX_OPEN} queries of one account about one data set may be undecided"
        raise Problem(429, "query-quota", "Too many queries are undecided", detail, headers={"Retry-After": "60"})
    job = QueryJob(
        id=secrets.token_hex(16),
        dataset=dataset,
        consumer=consumer,
        purpose=purpose,
        document=content,
        digest=to_hex(parsed.digest),
        conditions_hash=grant.conditions_hash,
        state="queued",
        state_since=instant,
        created_at=instant,
    )
    session.add(job)
    session.flush()
    return of_party(session, job.id, consumer)


def of_party(session: Session, query_id: str, caller: str) -> Query:
    """A query, for its consumer and for the data set's owner.

    Raises:
        Problem: 404.
    """
    party = or_(QueryJob.consumer == caller, CatalogueEntry.owner == caller)
    row = session.execute(_queries().where(QueryJob.id == query_id, party)).one_or_none()
    if row is None:
        raise not_found("query", query_id)
    return Query(*row)


def page(session: Session, caller: str, *, role: str, state: str | None, after: str | None, limit: int) -> Sequence[Query]:
    """Queries of a consumer, or about an owner's data sets, newest first, starting behind the query `after`.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    mine = QueryJob.consumer == caller if role == "consumer" else CatalogueEntry.owner == caller
    query = _queries().where(mine).order_by(QueryJob.created_at.desc(), QueryJob.id.desc()).limit(limit)
    if state is not None:
        query = query.where(QueryJob.state == state)
    if after is not None:
        last = session.execute(_queries().where(mine, QueryJob.id == after)).one_or_none()
        if last is None:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(tuple_(QueryJob.created_at, QueryJob.id) < (last[0].created_at, last[0].id))
    return [Query(*row) for row in session.execute(query)]


def work(session: Session, owner: str, instant: datetime, datasets: Sequence[int] = ()) -> Sequence[Query]:
    """The oldest queued queries about an owner's data sets whose grants are active, with the conditions of these grants.

    Args:
        datasets: those that the asking agent serves; none means all.
    """
    ready = (
        select(QueryJob, CatalogueEntry.owner, AccessRequest.conditions)
        .join(CatalogueEntry, CatalogueEntry.token_id == QueryJob.dataset)
        .join(AccessChange, and_(grants.is_of(AccessChange, QueryJob), AccessChange.latest))
        .outerjoin(AccessRequest, AccessRequest.conditions_hash == AccessChange.conditions_hash)
        .where(CatalogueEntry.owner == owner, QueryJob.state == "queued", grants.status_of(AccessChange, instant) == grants.ACTIVE)
        .order_by(QueryJob.created_at, QueryJob.id)
    )
    if datasets:
        # Else queries about a data set that no agent serves would fill every answer.
        ready = ready.where(QueryJob.dataset.in_(datasets))
    return [Query(*row) for row in session.execute(ready.limit(WORK_ITEMS))]


def decide(session: Session, query: Query, caller: str, outcome: Outcome, instant: datetime) -> None:
    """Keep what has become of a query; the same outcome again changes nothing.

    Raises:
        Problem: 403 to its consumer, 409 if there is another outcome, or its time is over.
        MalformedMessageError: a refusal without its rule, or one that would tell why the result was held.
        UnexpectedMessageError: the result answers another query.
    """
    if query.owner != caller:
        raise forbidden("only the owner of the data set says what becomes of a query")
    job = query.job
    session.refresh(job, with_for_update=True)
    result_digest = to_hex(outcome.result.digest) if outcome.result is not None else None
    told = (outcome.state, outcome.rule, result_digest)
    if (job.state, job.rule, job.result_digest) == told:
        return
    if job.state == "expired":
        raise conflict(
            "query-over", f"query {job.id} expired at {job.state_since:%Y-%m-%d %H:%M} UTC: nobody waits for its outcome any more"
        )
    if outcome.state not in OUTCOMES.get(job.state, ()):
        raise conflict("outcome-decided", f"query {job.id} is {job.state} already, and with another outcome")
    if outcome.state == "refused" and (outcome.rule is None) != (job.state == "held"):
        raise MalformedMessageError(
            "outcome: after a hold a refusal names no rule, it would tell why"
            if job.state == "held"
            else "outcome: a refusal names its rule"
        )
    if outcome.result is not None:
        outcome.result.check(TableQuery.parse(json.loads(job.document)))
        job.result, job.result_digest = canonical_json(outcome.result.document()), result_digest
    job.rule = outcome.rule
    _enter(job, outcome.state, instant)
    session.flush()


def close_overdue(engine: Engine) -> int:
    """Background job: end queries that waited too long, or whose grant is over. Returns their number."""
    instant = now()
    with transaction(engine) as session:
        overdue = or_(*(and_(QueryJob.state == state, QueryJob.state_since < instant - life) for state, life in LIFETIMES.items()))
        late = session.scalars(select(QueryJob).where(overdue).with_for_update(skip_locked=True)).all()
        for job in late:
            _enter(job, "expired", instant)
        status = grants.status_of(AccessChange, instant)
        ended = (
            select(QueryJob, status)
            .join(CatalogueEntry, CatalogueEntry.token_id == QueryJob.dataset)
            .join(AccessChange, and_(grants.is_of(AccessChange, QueryJob), AccessChange.latest))
            .where(QueryJob.state == "queued", status.in_(ENDED_GRANTS))
            .with_for_update(skip_locked=True, of=QueryJob)
        )
        closed = session.execute(ended).all()
        for job, found in closed:
            _enter(job, "expired", instant)
            job.rule = grants.describe(GrantKey(job.dataset, job.consumer, job.purpose), found)
        return len(late) + len(closed)


def _enter(job: QueryJob, state: str, instant: datetime) -> None:
    job.state, job.state_since = state, instant


def _queries() -> Any:
    """Rows of query, its data set's owner, and the conditions that it was taken on under."""
    return (
        select(QueryJob, CatalogueEntry.owner, AccessRequest.conditions)
        .join(CatalogueEntry, CatalogueEntry.token_id == QueryJob.dataset)
        .outerjoin(AccessRequest, AccessRequest.conditions_hash == QueryJob.conditions_hash)
    )
