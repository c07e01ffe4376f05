"""Grants as the events of the AccessManager tell them, and their status, which follows from them, the catalogue, and the time.

The status is `AccessManager.statusOf`, written once, in SQL: so every list and every check has the same answer, and the chain's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, or_, select, tuple_, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import AliasedClass

from rexis.encoding import checksum_address, to_hex
from rexis.policy.duo import Permission
from services.foundation.chain_index import IndexedEvent
from services.foundation.problems import Problem
from services.marketplace.models import AccessChange, CatalogueEntry, CommitteeMember

ACCESS_MANAGER = "AccessManager"
ACTIVE = "active"
# What is the matter with a grant that is not active, in words that its consumer reads.
REASONS: Mapping[str, str] = {
    "absent": "there is none; ask for it with `rexis access request`",
    "revoked": "it was revoked",
    "expired": "its term is over; ask for a new one with `rexis access request`",
    "suspended": "the policy or the owner of the data set changed since, and it waits to be confirmed",
    "withdrawn": "the data set was withdrawn",
}


@dataclass(frozen=True)
class GrantKey:
    """What a grant is for: a data set's token id, a consumer's checksum address, the number of a DUO permission."""

    dataset: int
    consumer: str
    purpose: int


@dataclass(frozen=True)
class Grant:
    """The latest change of a grant, and what has become of it."""

    change: AccessChange
    status: str


class AccessProjection:
    """Writes `access_change` and `committee_member` from events, and from nothing else."""

    contract = ACCESS_MANAGER
    tables = (AccessChange, CommitteeMember)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        given: Mapping[str, Any] = event.arguments
        match event.name:
            case "AccessGranted":
                _keep(
                    session,
                    event,
                    decided_by=given["grantedBy"],
                    until=given["until"],
                    conditions_hash=to_hex(given["conditionsHash"]),
                    policy_version=given["policyVersion"],
                    owner_epoch=given["ownerEpoch"],
                )
            # The contract admits a revocation of any number; what was never granted has no row.
            case "AccessRevoked" if any(each.number == given["purpose"] for each in Permission):
                _keep(session, event, decided_by=given["revokedBy"])
            case "CommitteeSet":
                session.execute(delete(CommitteeMember).where(CommitteeMember.dataset == given["dataset"]))
                session.add_all(
                    CommitteeMember(dataset=given["dataset"], member=checksum_address(member), owner_epoch=given["ownerEpoch"])
                    for member in given["members"]
                )
                session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        for table in self.tables:
            session.execute(delete(table))


def status_of(change: "type[AccessChange] | AliasedClass[AccessChange]", instant: datetime) -> ColumnElement[str]:
    """The status of a change that is the latest of its grant, as SQL over it and its data set's `catalogue_entry`.

    The contract compares with the time of its block; `instant` is that time here.
    """
    changed = or_(change.policy_version != CatalogueEntry.policy_version, change.owner_epoch != CatalogueEntry.owner_epoch)
    return case(
        (change.until.is_(None), "revoked"),
        (CatalogueEntry.state == "withdrawn", "withdrawn"),
        (change.until < int(instant.timestamp()), "expired"),
        (changed, "suspended"),
        else_=ACTIVE,
    )


def decides_about(address: str) -> ColumnElement[bool]:
    """Whether `address` may grant and revoke, as SQL over `catalogue_entry`: the owner, or a member whom he appointed."""
    appointed = select(CommitteeMember.member).where(
        CommitteeMember.dataset == CatalogueEntry.token_id,
        CommitteeMember.owner_epoch == CatalogueEntry.owner_epoch,
        CommitteeMember.member == address,
    )
    return or_(CatalogueEntry.owner == address, appointed.exists())


def is_of(change: "type[AccessChange] | AliasedClass[AccessChange]", row: Any) -> ColumnElement[bool]:
    """Whether a change is of the grant that `row` needs, a table with data set, consumer and purpose."""
    return and_(change.dataset == row.dataset, change.consumer == row.consumer, change.purpose == row.purpose)


def find(session: Session, key: GrantKey, instant: datetime) -> Grant | None:
    """The grant with this key, None if there never was one."""
    found = session.execute(_latest(instant).where(is_of(AccessChange, key))).one_or_none()
    return Grant(found[0], found[1]) if found is not None else None


def require_active(session: Session, key: GrantKey, instant: datetime) -> AccessChange:
    """The grant that a use runs under.

    Raises:
        Problem: 403; the detail says what is the matter with the grant.
    """
    grant = find(session, key, instant)
    if grant is None or grant.status != ACTIVE:
        status = grant.status if grant is not None else "absent"
        raise Problem(403, "no-grant", "No active grant", describe(key, status), grant=status)
    return grant.change


def describe(key: GrantKey, status: str) -> str:
    """What is the matter with a grant that is not active, in one sentence."""
    purpose = next(str(each) for each in Permission if each.number == key.purpose)
    return f"data set {key.dataset}, purpose {purpose}: expected an active grant to {key.consumer}; {REASONS[status]}"


def page(
    session: Session,
    instant: datetime,
    *,
    dataset: int | None,
    consumer: str | None,
    after: tuple[int, int, str] | None,
    limit: int,
) -> Sequence[Grant]:
    """Grants by data set, purpose and consumer, starting behind the key `after`."""
    place = (AccessChange.dataset, AccessChange.purpose, AccessChange.consumer)
    query = _latest(instant).order_by(*place).limit(limit)
    if dataset is not None:
        query = query.where(AccessChange.dataset == dataset)
    if consumer is not None:
        query = query.where(AccessChange.consumer == consumer)
    if after is not None:
        query = query.where(tuple_(*place) > after)
    return [Grant(change, status) for change, status in session.execute(query)]


def _latest(instant: datetime) -> Any:
    query = select(AccessChange, status_of(AccessChange, instant)).join(CatalogueEntry, CatalogueEntry.token_id == AccessChange.dataset)
    return query.where(AccessChange.latest)


def _keep(session: Session, event: IndexedEvent, *, decided_by: str, **terms: Any) -> None:
    given = event.arguments
    key = GrantKey(given["dataset"], checksum_address(given["consumer"]), given["purpose"])
    session.execute(update(AccessChange).where(is_of(AccessChange, key)).values(latest=False))
    session.add(
        AccessChange(
            dataset=key.dataset,
            consumer=key.consumer,
            purpose=key.purpose,
            grant_epoch=given["grantEpoch"],
            latest=True,
            decided_by=checksum_address(decided_by),
            block_number=event.block_number,
            transaction_hash=event.transaction_hash,
            **terms,
        )
    )
    session.flush()
