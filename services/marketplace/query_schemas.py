"""HTTP bodies of compute-to-data queries."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rexis.policy.conditions import MAX_DATASET
from services.marketplace.access_schemas import PurposeNumber
from services.marketplace.queries import MAX_RULE_CHARACTERS, Query

QueryState = Literal["queued", "released", "held", "refused", "failed", "expired"]
OutcomeState = Literal["released", "held", "refused", "failed"]
Hex32 = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$", description="32 bytes")]

QUERY: dict[str, Any] = {
    "version": 1,
    "kind": "table",
    "dimensions": [{"column": "age", "bands": ["40", "50", "60"]}, {"column": "num", "above": "0"}],
    "filters": [{"column": "sex", "in": ["Male"]}],
}
NOTES = {
    "queued": "waits for the owner's agent",
    "held": "held for review",
    "refused on review": "a reviewer did not release the result",
    "failed": "the owner's agent could not run it; the owner knows why",
    "expired": "its time is over",
}


class QueryBody(BaseModel):
    """A query to be run where the data are."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"dataset": 1, "purpose": 6, "query": QUERY}]})

    dataset: int = Field(ge=1, le=MAX_DATASET, description="token id")
    purpose: PurposeNumber = Field(description="DUO number of the grant that it runs under")
    query: dict[str, Any] = Field(description="the query (rexis.protocol.queries.TableQuery)")


class OutcomeBody(BaseModel):
    """What has become of a query. Of a held result nothing is told but that it is held."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"state": "held", "result": None, "rule": None, "result_digest": None},
                {"state": "refused", "result": None, "rule": "rule query-budget: no query is left this month", "result_digest": None},
            ]
        },
    )

    state: OutcomeState
    result: dict[str, Any] | None = Field(default=None, description="with a release only (rexis.protocol.queries.TableResult)")
    rule: str | None = Field(
        default=None,
        max_length=MAX_RULE_CHARACTERS,
        description="with a refusal only, and not after a hold: the rule, in words that do not depend on the data",
    )
    result_digest: Hex32 | None = Field(default=None, description="SHA-256 of the canonical JSON of the result")


class QueryView(BaseModel):
    """A query as its consumer and the data set's owner see it."""

    id: str
    dataset: int
    consumer: str
    owner: str = Field(description="of the data set, now")
    purpose: PurposeNumber
    query: dict[str, Any]
    query_digest: str = Field(description="SHA-256 of the canonical JSON of query")
    conditions: dict[str, Any] | None = Field(
        description="what the grant was given for; null if it was not requested at this marketplace. The chain has their digest"
    )
    state: QueryState = Field(description="queued → released, held, refused, failed or expired; held → released, refused or expired")
    note: str | None = Field(description="what the state means, for people")
    rule: str | None = Field(description="which rule refused it, or why its time is over")
    result: dict[str, Any] | None = Field(description="once it is released")
    result_digest: str | None
    created_at: datetime
    state_since: datetime

    @classmethod
    def of(cls, query: Query) -> Self:
        """The view of a query; the same for consumer and owner, because nothing is stored that one of them may not see."""
        job = query.job
        meaning = "refused on review" if job.state == "refused" and job.rule is None else job.state
        return cls.model_validate(
            {
                "id": job.id,
                "dataset": job.dataset,
                "consumer": job.consumer,
                "owner": query.owner,
                "purpose": job.purpose,
                "query": json.loads(job.document),
                "query_digest": job.digest,
                "conditions": json.loads(query.conditions) if query.conditions is not None else None,
                "state": job.state,
                "note": NOTES.get(meaning),
                "rule": job.rule,
                "result": json.loads(job.result) if job.result is not None else None,
                "result_digest": job.result_digest,
                "created_at": job.created_at,
                "state_since": job.state_since,
            }
        )


class QueryPage(BaseModel):
    """One page of queries, newest first."""

    items: list[QueryView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")


class WorkView(BaseModel):
    """The queries that an owner's agent should run now, oldest first."""

    items: list[QueryView]
