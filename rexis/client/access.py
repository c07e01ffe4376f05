"""Access to data sets: requests with a purpose, and the grants on chain that answer them.

A request is a row of the marketplace; a grant is the owner's signed call to `AccessManager`, which the marketplace relays. So an owner
checks here what he signs: the conditions are read, their digest is computed on this side, and they must be for this data set under the
policy that the catalogue shows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from time import monotonic, sleep
from typing import Any, Self

from rexis.chain.deployments import Deployment
from rexis.chain.signer import Signer
from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.client.marketplace import MarketplaceClient
from rexis.client.pages import fetch_pages
from rexis.client.relayed_calls import SignedCall, sign_call
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, PolicyError, UnavailableError, UnexpectedMessageError
from rexis.policy.conditions import Conditions
from rexis.policy.duo import DataUsePolicy, Permission, evaluate

MANAGER = "AccessManager"
# `grant` takes 100,000 gas when its storage is cold.
GRANT_GAS = 300_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0


@dataclass(frozen=True)
class Grant:
    """A grant as the marketplace's index of the chain has it.

    Attributes:
        dataset: token id.
        consumer: checksum address.
        purpose: what it is for.
        status: active, expired, suspended, withdrawn, or revoked.
        until: last second of the grant; None once it was revoked.
        granted_by: checksum address of who granted or revoked.
        conditions_hash: digest of the conditions, 32 bytes; None once it was revoked.
        grant_epoch: changes of this grant so far.
        transaction_hash: where the latest of them was made, 32 bytes.
    """

    dataset: int
    consumer: str
    purpose: Permission
    status: str
    until: datetime | None
    granted_by: str
    conditions_hash: bytes | None
    grant_epoch: int
    transaction_hash: bytes

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("grant", value)
        return cls(
            dataset=fields.integer("dataset"),
            consumer=fields.address("consumer"),
            purpose=read_purpose(fields),
            status=fields.text("status"),
            until=fields.instant("until") if fields.optional_text("until") is not None else None,
            granted_by=fields.address("granted_by"),
            conditions_hash=fields.optional_digest("conditions_hash"),
            grant_epoch=fields.integer("grant_epoch"),
            transaction_hash=fields.digest("transaction_hash"),
        )


@dataclass(frozen=True)
class AccessRequest:
    """A request as its consumer and the data set's owner see it.

    Attributes:
        id: 32 hexadecimal digits; part of the conditions.
        state: requested, granted, declined, revoked, replaced, expired, suspended, or withdrawn.
        conditions: what was asked for; they fit `conditions_hash`.
        owner: checksum address of the data set's present owner.
        policy_hash: digest of the data set's present policy, 32 bytes.
        policy_version, grant_epoch: what a grant that is signed now must name.
        reason: why it was declined, if it was.
        created_at: when it was made.
    """

    id: str
    state: str
    conditions: Conditions
    owner: str
    policy_hash: bytes
    policy_version: int
    grant_epoch: int
    reason: str | None
    created_at: datetime

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer.

        Raises:
            DigestMismatchError: the conditions are not those of the digest beside them.
            UnexpectedMessageError: they are those of another request.
        """
        fields = Fields("access request", value)
        conditions, announced = Conditions.parse(fields.object("conditions")), fields.digest("conditions_hash")
        if conditions.digest() != announced:
            raise DigestMismatchError("conditions of an access request", announced, conditions.digest())
        if conditions.request != fields.text("id"):
            raise UnexpectedMessageError(f"access request {fields.text('id')}: the conditions are those of {conditions.request}")
        return cls(
            id=conditions.request,
            state=fields.text("state"),
            conditions=conditions,
            owner=fields.address("owner"),
            policy_hash=fields.digest("policy_hash"),
            policy_version=fields.integer("policy_version"),
            grant_epoch=fields.integer("grant_epoch"),
            reason=fields.optional_text("reason"),
            created_at=fields.instant("created_at"),
        )

    def document(self) -> dict[str, Any]:
        """The request as a JSON value."""
        return {
            "id": self.id,
            "state": self.state,
            "dataset": self.conditions.dataset,
            "consumer": self.conditions.consumer,
            "owner": self.owner,
            "purpose": self.conditions.purpose.use.name,
            "conditions": self.conditions.document(),
            "conditions_hash": to_hex(self.conditions.digest()),
            "reason": self.reason,
            "created_at": self.created_at.isoformat(),
        }


class AccessClient:
    """Calls to one marketplace about access. All but `grants` need a session."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def request(self, dataset: int, purpose: Mapping[str, Any], days: int, *, text: str = "", idempotency_key: str) -> AccessRequest:
        """Ask for access; safe to repeat with the same key.

        Args:
            dataset: token id.
            purpose: a purpose as `rexis.policy.conditions.parse_purpose` reads it, without `until`, which follows from `days`.
            days: for how long.
            text: what else the owner should know.
            idempotency_key: the same request with the same key is made once.

        Raises:
            ServiceError: the data set's policy does not cover the purpose (`purpose-refused`, which names the rule), or there is no such
                data set.
        """
        body = {"dataset": dataset, "purpose": dict(purpose), "days": days, "conditions": text}
        return AccessRequest.parse(self.connection.post("/v1/access-requests", body, idempotency_key=idempotency_key))

    def access_request(self, request_id: str) -> AccessRequest:
        """One request, for its consumer and for who decides about the data set.

        Raises:
            ServiceError: 404 to everybody else.
        """
        return AccessRequest.parse(self.connection.get(f"/v1/access-requests/{request_id}"))

    def requests(self, role: str) -> Iterator[AccessRequest]:
        """Requests, newest first: `role` is "consumer" for the caller's own, "owner" for those about the caller's data sets."""
        return fetch_pages(self.connection, "/v1/access-requests", AccessRequest.parse, query={"role": role})

    def grants(self, *, dataset: int | None = None, consumer: str | None = None) -> Iterator[Grant]:
        """Grants as the chain has them, of one data set, of one consumer, or all; revoked ones are among them."""
        query: dict[str, str | int] = {} if dataset is None else {"dataset": dataset}
        if consumer is not None:
            query["consumer"] = consumer
        return fetch_pages(self.connection, "/v1/grants", Grant.parse, query=query, authorised=False)

    def decline(self, request_id: str, reason: str = "") -> AccessRequest:
        """Turn a request down, with a reason that the requester reads; the same twice is one decision.

        Raises:
            ServiceError: 409 if it is granted (a grant ends by `sign_revocation`), 404 if the caller does not decide about it.
        """
        answer = self.connection.post(f"/v1/access-requests/{request_id}/decline", {"reason": reason}, repeatable=True)
        return AccessRequest.parse(answer)

    def sign_grant(self, request: AccessRequest, signer: Signer, deployment: Deployment) -> SignedCall:
        """Check a request against the data set's policy once more, and sign its grant; `RelayClient.hand_in` sends it.

        Raises:
            PolicyError: the policy changed since or does not cover the purpose, which the message names, or the declared use is over.
            DigestMismatchError: the marketplace shows another policy than the one whose digest stands in its catalogue.
        """
        conditions = request.conditions
        marketplace = MarketplaceClient(self.connection)
        in_force = marketplace.dataset(conditions.dataset).policy_hash
        if conditions.policy_hash != in_force:
            raise PolicyError(
                f"data set {conditions.dataset}: its policy changed since request {request.id} was made; ask for a new request"
            )
        evaluate(DataUsePolicy.parse(marketplace.document(in_force)), conditions.purpose)
        until = _last_second(conditions)
        if until <= datetime.now(UTC).timestamp():
            raise PolicyError(f"request {request.id}: the declared use ended on {conditions.purpose.until}; ask for a new request")
        terms = {
            "dataset": conditions.dataset,
            "consumer": conditions.consumer,
            "purpose": conditions.purpose.use.number,
            "until": until,
            "policyVersion": request.policy_version,
            "grantEpoch": request.grant_epoch,
            "conditionsHash": conditions.digest(),
        }
        return sign_call(signer, deployment, MANAGER, "grant", terms, gas=GRANT_GAS)

    def wait_for(self, request_id: str, states: frozenset[str] = frozenset({"granted"}), *, timeout_s: float = 60.0) -> AccessRequest:
        """Wait until a request is in one of `states`, such as granted after its grant was mined.

        Raises:
            UnavailableError: it is not in time; the message says where it is.
        """
        deadline, pause = monotonic() + timeout_s, FIRST_PAUSE_S
        while (request := self.access_request(request_id)).state not in states:
            if monotonic() > deadline:
                raise UnavailableError(
                    f"access request {request_id} is {request.state} after {timeout_s:.0f} s; nothing is lost: ask again"
                )
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return request


def sign_revocation(dataset: int, consumer: str, purpose: Permission, signer: Signer, deployment: Deployment) -> SignedCall:
    """Sign the end of a grant; it also outdates every grant that was signed before. `RelayClient.hand_in` sends it."""
    return sign_call(signer, deployment, MANAGER, "revoke", dataset, consumer, purpose.number, gas=GRANT_GAS)


def read_purpose(fields: Fields) -> Permission:
    """The member `purpose`, a DUO number.

    Raises:
        UnexpectedMessageError: none of the permissions.
    """
    number = fields.integer("purpose")
    for each in Permission:
        if each.number == number:
            return each
    raise UnexpectedMessageError(f"expected a DUO permission as purpose, got {number}")


def _last_second(conditions: Conditions) -> int:
    """Unix time: the asked term from now on, and never beyond the last day of the declared use."""
    end_of_use = datetime.combine(conditions.purpose.until, time.max, UTC)
    return int(min(datetime.now(UTC) + timedelta(days=conditions.days), end_of_use).timestamp())
