"""HTTP bodies of access requests and grants."""

import json
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rexis.policy.conditions import MAX_DATASET, MAX_DAYS, MAX_TEXT
from services.marketplace.access import Request
from services.marketplace.grants import Grant

CONSUMER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
REQUEST_ID = "5b0f6a0a4a0f4e0d8a3a8f6f0b1c2d3e"
PURPOSE: dict[str, Any] = {"use": "HMB", "ethics_approval": True, "commercial": False, "for_profit": False}

Role = Literal["owner", "consumer"]
PurposeNumber = Literal[4, 6, 7, 11, 42]
GrantStatus = Literal["active", "expired", "suspended", "withdrawn", "revoked"]
RequestState = Literal["requested", "granted", "declined", "revoked", "replaced", "expired", "suspended", "withdrawn"]


class AccessRequestBody(BaseModel):
    """What somebody wants to use a data set for."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"dataset": 1, "purpose": PURPOSE, "days": 90, "conditions": "Approved under 2026-117."}]},
    )

    dataset: int = Field(ge=1, le=MAX_DATASET, description="token id")
    purpose: dict[str, Any] = Field(
        description="the declared use: `use` (NRES, GRU, HMB, DS, POA), and what applies of diseases, country, institution, project, "
        "research_type, publish_from, commercial, for_profit, methods_development, genetic_study, clinical_care, ethics_approval, "
        "collaboration, returns_results; silence promises nothing"
    )
    days: int = Field(ge=1, le=MAX_DAYS, description="how long, from the grant on")
    conditions: str = Field(default="", max_length=MAX_TEXT, description="what else the owner should know")


class DeclineBody(BaseModel):
    """Why a request is turned down."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "The approval does not name this study."}]})

    reason: str = Field(default="", max_length=MAX_TEXT, description="the requester reads it")


class AccessRequestView(BaseModel):
    """A request as its consumer and those who decide about it see it."""

    id: str
    state: RequestState = Field(
        description="requested → declined, or by the chain: granted → suspended (policy or owner changed), expired, revoked, replaced by "
        "other conditions, withdrawn with the data set"
    )
    dataset: int
    consumer: str
    owner: str = Field(description="of the data set, now")
    purpose: PurposeNumber = Field(description="DUO number, as on chain")
    conditions: dict[str, Any] = Field(description="what a grant names by its digest: the declared purpose, the term, and the words")
    conditions_hash: str = Field(description="SHA-256 of the canonical JSON of conditions")
    policy_hash: str = Field(description="of the policy in force; compare with the one in conditions")
    policy_version: int = Field(description="what a grant that is signed now must name as policyVersion")
    grant_epoch: int = Field(description="what a grant that is signed now must name as grantEpoch")
    reason: str | None = Field(description="why it was declined")
    created_at: datetime

    @classmethod
    def of(cls, request: Request) -> Self:
        """The view of a request."""
        row, entry = request.row, request.entry
        return cls.model_validate(
            {
                "id": row.id,
                "state": request.state,
                "dataset": row.dataset,
                "consumer": row.consumer,
                "owner": entry.owner,
                "purpose": row.purpose,
                "conditions": json.loads(row.conditions),
                "conditions_hash": row.conditions_hash,
                "policy_hash": entry.policy_hash,
                "policy_version": entry.policy_version,
                "grant_epoch": request.grant_epoch,
                "reason": row.reason,
                "created_at": row.created_at,
            }
        )


class AccessRequestPage(BaseModel):
    """One page of requests, newest first."""

    items: list[AccessRequestView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")


class GrantView(BaseModel):
    """A grant as the chain has it."""

    dataset: int
    consumer: str
    purpose: PurposeNumber
    status: GrantStatus = Field(description="as AccessManager.statusOf says it; revoked is its Absent, after there was a grant")
    until: datetime | None = Field(description="last second of the grant; null once it is revoked")
    granted_by: str = Field(description="who granted, or revoked")
    conditions_hash: str | None
    policy_version: int | None = Field(description="version of the policy that was weighed")
    grant_epoch: int = Field(description="changes of this grant so far")
    block_number: int
    transaction_hash: str

    @classmethod
    def of(cls, grant: Grant) -> Self:
        """The view of a grant."""
        change = grant.change
        return cls.model_validate(
            {
                "dataset": change.dataset,
                "consumer": change.consumer,
                "purpose": change.purpose,
                "status": grant.status,
                "until": datetime.fromtimestamp(change.until, UTC) if change.until is not None else None,
                "granted_by": change.decided_by,
                "conditions_hash": change.conditions_hash,
                "policy_version": change.policy_version,
                "grant_epoch": change.grant_epoch,
                "block_number": change.block_number,
                "transaction_hash": change.transaction_hash,
            }
        )


class GrantPage(BaseModel):
    """One page of grants, by data set, purpose and consumer."""

    items: list[GrantView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")
