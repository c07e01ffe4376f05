"""Compute-to-data queries: handed in by a consumer, worked off by the agent of the data set's owner, which puts the outcome.

The outcome says no more than the consumer may know: a result travels only once it is released; why a result is held, and what it is,
stays with the owner.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic, sleep
from typing import Any, Self

from rexis.client.access import read_purpose
from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.client.pages import fetch_pages
from rexis.encoding import canonical_json, sha256, to_hex
from rexis.errors import DigestMismatchError, UnavailableError
from rexis.policy.conditions import Conditions
from rexis.policy.duo import Permission
from rexis.protocol.queries import TableQuery, TableResult

FINAL_STATES = frozenset({"released", "refused", "failed", "expired"})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 1.0


@dataclass(frozen=True)
class QueryOutcome:
    """What the owner's agent tells the marketplace; made by one of the four class methods.

    Attributes:
        state: released, held, refused, or failed.
        result: the released result document, canonical JSON.
        rule: which rule of the owner's refused it, in words that do not depend on the data.
    """

    state: str
    result: dict[str, Any] | None = None
    rule: str | None = None

    @classmethod
    def released(cls, result: Mapping[str, Any]) -> Self:
        """The result document passed the gate, or a reviewer released what was held."""
        return cls("released", result=dict(result))

    @classmethod
    def held(cls) -> Self:
        """A person decides. Nothing of the result and no reason leaves the premises."""
        return cls("held")

    @classmethod
    def refused(cls, rule: str) -> Self:
        """The gate refuses, at once, by a rule that the consumer may know."""
        return cls("refused", rule=rule)

    @classmethod
    def refused_on_review(cls) -> Self:
        """A reviewer does not release what was held; the consumer learns that, and no rule."""
        return cls("refused")

    @classmethod
    def failed(cls) -> Self:
        """The query could not be run; why is in the agent's journal."""
        return cls("failed")

    def document(self) -> dict[str, Any]:
        """The body of `PUT /v1/queries/{id}/outcome`."""
        digest = None if self.result is None else to_hex(sha256(canonical_json(self.result)))
        return {"state": self.state, "result": self.result, "rule": self.rule, "result_digest": digest}


@dataclass(frozen=True)
class Query:
    """A query as its consumer and the data set's owner see it.

    Attributes:
        id: 32 hexadecimal digits.
        dataset: token id.
        consumer: checksum address of who asks.
        purpose: the grant that it runs under.
        document: the query, as `rexis.protocol.queries.TableQuery.parse` reads it.
        conditions: what was declared for the grant; None if the grant was not requested at this marketplace.
        state: queued, released, held, refused, failed, or expired.
        note: what the state means, for people; None where it says enough.
        rule: which rule refused it, if one did.
        result: the released result; it fits `result_digest`.
        created_at, state_since: when it was handed in, and when the state began.
    """

    id: str
    dataset: int
    consumer: str
    purpose: Permission
    document: dict[str, Any]
    conditions: Conditions | None
    state: str
    note: str | None
    rule: str | None
    result: dict[str, Any] | None
    created_at: datetime
    state_since: datetime

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer.

        Raises:
            MalformedMessageError: missing or ill-formed fields.
            DigestMismatchError: query or result are not those of the digests beside them.
            UnexpectedMessageError: the result answers another query.
        """
        fields = Fields("query", value)
        document = fields.object("query")
        query = TableQuery.parse(document)
        _check_digest("query", fields.digest("query_digest"), query.digest)
        result_digest = fields.optional_digest("result_digest")
        result = fields.object("result") if result_digest is not None else None
        if result is not None and result_digest is not None:
            table = TableResult.parse(result)
            _check_digest("result", result_digest, table.digest)
            table.check(query)
        conditions = value.get("conditions")
        return cls(
            id=fields.text("id"),
            dataset=fields.integer("dataset"),
            consumer=fields.address("consumer"),
            purpose=read_purpose(fields),
            document=document,
            conditions=Conditions.parse(conditions) if conditions is not None else None,
            state=fields.text("state"),
            note=fields.optional_text("note"),
            rule=fields.optional_text("rule"),
            result=result,
            created_at=fields.instant("created_at"),
            state_since=fields.instant("state_since"),
        )

    def summary(self) -> dict[str, Any]:
        """What people ask for, as a JSON value."""
        return {
            "id": self.id,
            "dataset": self.dataset,
            "consumer": self.consumer,
            "purpose": self.purpose.name,
            "query": self.document,
            "state": self.state,
            "note": self.note,
            "rule": self.rule,
            "result": self.result,
            "created_at": self.created_at.isoformat(),
            "state_since": self.state_since.isoformat(),
        }


class QueryClient:
    """Calls to one marketplace about queries; all of them need a session."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def submit(self, dataset: int, purpose: Permission, query: Mapping[str, Any], *, idempotency_key: str) -> Query:
        """Hand in a query; safe to repeat with the same key.

        Raises:
            ServiceError: no active grant for this purpose (`no-grant`, with what is the matter), or no such query.
        """
        body = {"dataset": dataset, "purpose": purpose.number, "query": dict(query)}
        return Query.parse(self.connection.post("/v1/queries", body, idempotency_key=idempotency_key))

    def query(self, query_id: str) -> Query:
        """One query.

        Raises:
            ServiceError: 404 to everybody but its consumer and the data set's owner.
        """
        return Query.parse(self.connection.get(f"/v1/queries/{query_id}"))

    def queries(self, role: str, *, state: str | None = None) -> Iterator[Query]:
        """Queries, newest first: `role` is "consumer" for the caller's own, "owner" for those about the caller's data sets."""
        query: dict[str, str | int] = {"role": role} if state is None else {"role": role, "state": state}
        return fetch_pages(self.connection, "/v1/queries", Query.parse, query=query)

    def wait_for(self, query_id: str, *, timeout_s: float, held_is_enough: bool = True) -> Query:
        """Wait until a query is decided, or held.

        Raises:
            UnavailableError: it is not in time; nothing is lost.
        """
        enough = FINAL_STATES | ({"held"} if held_is_enough else set())
        deadline, pause = monotonic() + timeout_s, FIRST_PAUSE_S
        while (query := self.query(query_id)).state not in enough:
            if monotonic() > deadline:
                raise UnavailableError(
                    f"query {query_id} is {query.state} after {timeout_s:.0f} s; nothing is lost: `rexis query show {query_id}` asks again"
                )
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return query

    # For the agent of a data set's owner.

    def work(self, datasets: Collection[int] = ()) -> tuple[Query, ...]:
        """The oldest queued queries about the caller's data sets whose grants are active; one cheap call.

        Args:
            datasets: token ids that the agent serves, at most 64; none means all of the caller's.

        The agent decides for itself: it checks the grant on chain and weighs the data set's policy against `conditions` before it runs one.
        """
        query = {"datasets": ",".join(map(str, datasets))} if datasets else None
        return Fields("work", self.connection.get("/v1/queries/work", query=query)).items("items", Query.parse)

    def put_outcome(self, query_id: str, outcome: QueryOutcome) -> Query:
        """Say what has become of a query; the same outcome again changes nothing.

        Raises:
            ServiceError: 409 if another outcome is there (`outcome-decided`) or the query's time is over (`query-over`), 404 if the
                caller does not own the data set.
        """
        answer = self.connection.request(
            "PUT",
            f"/v1/queries/{query_id}/outcome",
            content=canonical_json(outcome.document()),
            headers={"Content-Type": "application/json"},
        )
        return Query.parse(answer.body)


def _check_digest(what: str, announced: bytes, got: bytes) -> None:
    if got != announced:
        raise DigestMismatchError(f"{what} of a query job", announced, got)
