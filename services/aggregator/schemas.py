"""HTTP bodies of the aggregator."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rexis.encoding import to_hex
from rexis.protocol.approvals import Approval
from rexis.protocol.equivocation import Equivocation
from rexis.protocol.secagg_messages import Envelope
from services.aggregator.models import Federation
from services.foundation.relays import RelayedCallBody, Signature

ROSTER = [
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
]
FOUNDER, AGGREGATOR = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
CONFIG: dict[str, Any] = {
    "version": 1,
    "name": "Heart disease, four hospitals",
    "kind": "training",
    "founder": FOUNDER,
    "members": [{"address": address, "dataset": number} for number, address in enumerate(ROSTER, start=1)],
    "aggregators": [AGGREGATOR],
    "quorum": 1,
    "collusion_bound": 1,
    "threshold": 3,
    "min_survivors": 3,
    "purpose": 6,
    "features": {
        "version": 1,
        "inputs": [{"column": "age", "kind": "number"}, {"column": "sex", "kind": "levels", "levels": ["Male"]}],
        "target": {"column": "num", "above": "0"},
    },
    "stage_s": 60,
    "training": {
        "model": {"version": 1, "family": "logistic", "config": {"inputs": 2, "outputs": 1}},
        "rounds": 10,
        "steps": 5,
        "learning_rate": "0.5",
        "batch_size": None,
        "proximal": "0",
        "clipping_norm": "5",
        "weight_cap": 300,
        "weight_band": 25,
        "standardisation": None,
    },
    "statistics": None,
}
DIGEST = "0x" + 64 * "a"
FEDERATION: dict[str, Any] = {
    "id": DIGEST,
    "config": CONFIG,
    "state": "running",
    "reason": None,
    "joined": ROSTER,
    "round": 3,
    "rounds_total": 10,
    "model": DIGEST,
    "equivocators": [],
    "leader": AGGREGATOR,
    "created_at": "2026-11-20T09:30:00Z",
}
SURVIVORS: dict[str, Any] = {"federation": DIGEST, "round": 3, "attempt": 1, "survivorsHash": DIGEST, "maskedRecord": "0x" + 64 * "b"}
APPROVAL: dict[str, Any] = {"kind": "survivors", "signer": AGGREGATOR, "statement": SURVIVORS, "signature": "0x" + 130 * "0"}
OTHER_APPROVAL: dict[str, Any] = {**APPROVAL, "statement": {**SURVIVORS, "survivorsHash": "0x" + 64 * "c"}}
CALL: dict[str, Any] = {"from": FOUNDER, "to": AGGREGATOR, "gas": "900000", "nonce": "1", "deadline": "1795000000", "data": "0x00"}


class AccountView(BaseModel):
    """Who this aggregator is on chain."""

    address: str
    chain_id: int
    registry: str = Field(description="address of the FederationRegistry")


class FoundingBody(BaseModel):
    """A config, and the founder's signed call of `FederationRegistry.create` whose arguments are exactly the config's.

    Rules: threshold ≥ floor((n + collusion_bound) / 2) + 1 and min_survivors ≥ max(threshold, collusion_bound + 2), both ≤ n.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"config": CONFIG, "request": CALL, "signature": "0x" + 130 * "0", "initial_model": 32 * "a"}]},
    )

    config: dict[str, Any] = Field(description="federation config; SHA-256 of its canonical JSON is configHash on chain")
    request: RelayedCallBody
    signature: Signature
    initial_model: str | None = Field(
        pattern="^[0-9a-f]{32}$", description="complete upload of the model file that round 1 starts from; null for a statistic"
    )


class FederationView(BaseModel):
    """A federation as its founder, members and aggregators see it."""

    model_config = ConfigDict(json_schema_extra={"examples": [FEDERATION]})

    id: str
    config: dict[str, Any]
    state: Literal["founding", "inviting", "running", "finished", "failed", "witnessing"] = Field(
        description="witnessing: another aggregator leads it, this one recomputes its sums"
    )
    reason: str | None = Field(description="why it failed, or finished before its last round; of a witness, why it does not sign")
    joined: list[str]
    round: int = Field(description="the one that runs, or ran last; 0 before the first")
    rounds_total: int
    model: str = Field(description="record of the newest global model; of a statistic its digest")
    equivocators: list[str] = Field(description="aggregators that signed two different statements; the evidence is under equivocations")
    leader: str | None = Field(description="the aggregator that opens its attempts; null before the first one")
    created_at: datetime

    @classmethod
    def of(cls, federation: Federation) -> Self:
        """The view of a row."""
        joined = [member.address for member in federation.members if member.joined_at is not None]
        named = sorted({evidence.signer for evidence in federation.equivocations}, key=str.lower)
        columns = {name: getattr(federation, name) for name in cls.model_fields if name not in ("joined", "equivocators")}
        return cls.model_validate({**columns, "joined": joined, "equivocators": named})


class FederationPage(BaseModel):
    """One page of federations, newest first."""

    items: list[FederationView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")


class WorkItem(BaseModel):
    """A running attempt of one of the caller's federations, or of one that it aggregates for."""

    federation: str
    round: int
    attempt: int
    stage: Literal["opening", "keys", "shares", "masked", "fixing", "survivors", "unmask", "recording", "results", "finalising"]
    manifest: dict[str, Any]
    due: bool = Field(description="the caller could send its message of this stage, its result or its approval, and has not")
    commitment_due: bool = Field(description="a commitment of the caller's would still count, and none is on chain yet")


class WorkView(BaseModel):
    """Everything that runs."""

    items: list[WorkItem]


class EnvelopeBody(BaseModel):
    """A signed message (wire formats, section 5); on its way in it is in canonical JSON (RFC 8785)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "version": 1,
                    "stage": "keys",
                    "ctx": DIGEST,
                    "sender": ROSTER[0],
                    "payload": {"position": 1, "mask": DIGEST, "encryption": "0x" + 64 * "b"},
                    "signature": "0x" + 130 * "0",
                }
            ]
        },
    )

    version: Literal[1]
    stage: Literal["keys", "shares", "masked", "survivors", "unmask"]
    ctx: str = Field(pattern="^0x[0-9a-f]{64}$")
    sender: str = Field(max_length=42)
    payload: dict[str, Any]
    signature: str = Field(pattern="^0x[0-9a-f]{130}$")

    @classmethod
    def of(cls, envelope: Envelope) -> Self:
        """The view of a message."""
        return cls(
            version=1,
            stage=envelope.stage.value,
            ctx=to_hex(envelope.ctx),
            sender=envelope.sender,
            payload=dict(envelope.payload),
            signature=to_hex(envelope.signature),
        )


class MessagesView(BaseModel):
    """Messages of one stage, ascending by sender."""

    messages: list[EnvelopeBody]


class RoundTransactions(BaseModel):
    """Where the steps of an attempt stand on chain."""

    opened: str | None
    fixed: str | None
    finalised: str | None
    abandoned: str | None


class RoundView(BaseModel):
    """An attempt at a round that is over."""

    round: int
    attempt: int
    leader: str | None = Field(description="the aggregator that opened it on chain; null before the chain has it")
    state: Literal["finished", "aborted"]
    reason: str | None = Field(description="why it was aborted")
    survivors: list[str] = Field(description="whose updates the sum holds, as fixed on chain")
    base_model: str
    model: str | None
    aggregate: str | None = Field(description="digest of the sum")
    metrics: dict[str, Any] | None
    opened_at: datetime | None = Field(description="null if another aggregator led it, as finished_at")
    finished_at: datetime | None
    transactions: RoundTransactions


class RoundsView(BaseModel):
    """What rounds made."""

    items: list[RoundView]


class ApprovalBody(BaseModel):
    """An aggregator's signature under what it says about an attempt (wire formats, section 5)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [APPROVAL]})

    kind: Literal["survivors", "result"]
    signer: str = Field(max_length=42)
    statement: dict[str, Any] = Field(description="members of the typed data Survivors or Result, bytes in hexadecimal")
    signature: str = Field(pattern="^0x[0-9a-f]{130}$")

    @classmethod
    def of(cls, approval: Approval) -> Self:
        """The view of an approval."""
        return cls.model_validate(approval.document())


class ApprovalsView(BaseModel):
    """Approvals, ascending by kind and signer."""

    items: list[ApprovalBody]


class EquivocationBody(BaseModel):
    """Two approvals by one aggregator, of one kind and attempt, with different statements."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"first": APPROVAL, "second": OTHER_APPROVAL}]})

    first: ApprovalBody
    second: ApprovalBody

    @classmethod
    def of(cls, evidence: Equivocation) -> Self:
        """The view of evidence."""
        return cls.model_validate(evidence.document())


class EquivocationsView(BaseModel):
    """Evidence in the order in which it came."""

    items: list[EquivocationBody]
