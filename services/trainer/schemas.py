"""HTTP bodies of the trainer."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rexis.commitments import Receipt
from rexis.encoding import checksum_address
from rexis.models.knowledge import Knowledge, protection
from rexis.protocol.report_summary import (
    MAX_ATTACKS,
    MAX_VERSION,
    MAX_VERSIONS,
    NAME_PATTERN,
    VERSION_PATTERN,
    Grade,
    ReportSummary,
    Verdict,
)
from services.foundation.relays import RelayedCallBody, Signature
from services.trainer.models import Batch, Inference, KeyedModel
from services.trainer.publications import MAX_USERS, Standing

UploadId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Hex32 = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$", description="32 bytes")]
Address = Annotated[str, AfterValidator(checksum_address), Field(max_length=42, description="Ethereum address with its EIP-55 checksum")]
Users = Annotated[list[Address], Field(max_length=MAX_USERS, description="accounts besides the owner that may use the model")]
ModelState = Literal["checking", "authorising", "authorised", "revoked", "refused", "failed"]

SPEC: dict[str, Any] = {
    "version": 1,
    "kind": "batch",
    "tensors": [{"name": "labels", "dtype": "i64", "shape": ["n"]}, {"name": "x", "dtype": "f32", "shape": ["n", 13]}],
}


class BatchBody(BaseModel):
    """A complete upload that is to become a batch."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"upload_id": "0d6c6f9bb4a44f5c8f7e2b1a3c5d7e9f", "spec": SPEC}]}
    )

    upload_id: UploadId
    spec: dict[str, Any] = Field(description="file specification (wire formats, section 4): version, kind batch, tensors")


class TensorView(BaseModel):
    """One tensor of an accepted batch."""

    name: str
    dtype: str
    shape: list[int]
    digest: str


class BatchView(BaseModel):
    """A batch as its owner sees it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "6f1f9a1e-62a1-4a0e-9a63-0f6c0f1f4d2a",
                    "state": "accepted",
                    "reason": None,
                    "upload_id": "0d6c6f9bb4a44f5c8f7e2b1a3c5d7e9f",
                    "total_bytes": 4096,
                    "spec": SPEC,
                    "spec_digest": "0x" + 64 * "1",
                    "record": "0x" + 64 * "2",
                    "tensors": [
                        {"name": "labels", "dtype": "i64", "shape": [64], "digest": "0x" + 64 * "3"},
                        {"name": "x", "dtype": "f32", "shape": [64, 13], "digest": "0x" + 64 * "4"},
                    ],
                    "created_at": "2026-11-20T09:30:00Z",
                    "decided_at": "2026-11-20T09:30:02Z",
                }
            ]
        }
    )

    id: uuid.UUID
    state: Literal["queued", "running", "accepted", "refused", "failed"] = Field(
        description="refused: the file is not what its specification says; failed: the trainer could not check it"
    )
    reason: str | None = Field(description="why it was refused or failed")
    upload_id: str
    total_bytes: int
    spec: dict[str, Any]
    spec_digest: str
    record: str | None = Field(description="root record over specification and tensors, once accepted")
    tensors: list[TensorView] | None
    created_at: datetime
    decided_at: datetime | None

    @classmethod
    def of(cls, batch: Batch) -> "BatchView":
        """The view of a row."""
        return cls.model_validate(
            {
                "id": batch.id,
                "state": batch.verdict or batch.state,
                "reason": batch.reason if batch.verdict else batch.failure,
                "upload_id": batch.upload_id,
                "total_bytes": batch.total_bytes,
                "spec": batch.spec,
                "spec_digest": batch.spec_digest,
                "record": batch.record,
                "tensors": batch.tensors,
                "created_at": batch.created_at,
                "decided_at": batch.decided_at,
            }
        )


class BatchPage(BaseModel):
    """One page of batches, newest first."""

    items: list[BatchView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")


OWNER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
MODEL_ID = "9a4f4a0e-7d0b-4f0e-8a0c-1c9d6f3a2b10"
MODEL_SPEC: dict[str, Any] = {
    "version": 1,
    "family": "mlp",
    "config": {"inputs": 13, "hidden": [16], "outputs": 1, "activation": "relu"},
}
REQUEST: dict[str, Any] = {
    "from": OWNER,
    "to": "0x5FC8d32690cc91D4c39d9d3abcBD16989F875707",
    "gas": "500000",
    "nonce": "81985529216486895",
    "deadline": "1795000000",
    "data": "0x",
}
KEYED = {"suite": "dense", "mode": "infer", "knowledge": "members", "key_id": "0x" + 32 * "8"}
REPORT: dict[str, Any] = {
    "version": 1,
    "grade": "D",
    "attacks": [
        {"name": "record_budget", "version": 1, "verdict": "pass"},
        {"name": "known_pairs", "version": 1, "verdict": "fail"},
    ],
    "versions": {"suite": "1"},
    "report": "0x" + 64 * "9",
}
MODEL: dict[str, Any] = {
    "id": MODEL_ID,
    "owner": OWNER,
    "name": "Heart disease, keyed",
    "description": "Coronary artery disease from thirteen clinical attributes; standardised inputs.",
    "model_spec": MODEL_SPEC,
    "spec_digest": "0x" + 64 * "1",
    "record": "0x" + 64 * "2",
    "ee": {**KEYED, "protection": "obfuscation only"},
    "report": REPORT,
    "state": "authorised",
    "reason": None,
    "uri": "https://trainer.example.org/v1/descriptions/" + OWNER + "/0x" + 64 * "2",
    "users": [],
    "relay_id": "5b0f6a0a4a0f4e0d8a3a8f6f0b1c2d3e",
    "transaction_hash": "0x" + 64 * "a",
    "block_number": 12,
    "created_at": "2026-11-20T09:30:00Z",
}
RECEIPT: dict[str, Any] = {
    "version": 1,
    "model": "0x" + 64 * "2",
    "input": "0x" + 64 * "3",
    "output": "0x" + 64 * "4",
    "batch": None,
    "index": None,
    "salt": "0x" + 32 * "5",
    "issued": "2026-11-20T09:31:00Z",
    "issuer": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "signature": "0x" + 130 * "6",
}


class KeyBody(BaseModel):
    """How a model was keyed, by its owner's own word: the trainer never holds a key."""

    model_config = ConfigDict(extra="forbid")

    suite: Literal["dense", "permutation"]
    mode: Literal["infer", "train"]
    knowledge: Knowledge = Field(description="who holds the plain weights; if anyone but the owner does, keying is obfuscation only")
    key_id: str = Field(pattern="^0x[0-9a-f]{32}$", description="public name of the key, so that nobody decrypts with another one")


class KeyView(KeyBody):
    """How a model was keyed, and what may be said of it."""

    protection: Literal["keyed transformation", "obfuscation only"]

    @classmethod
    def of(cls, model: KeyedModel) -> "KeyView":
        """The view of a row."""
        keyed = {name: getattr(model, name) for name in ("suite", "mode", "knowledge", "key_id")}
        return cls.model_validate({**keyed, "protection": protection(model.knowledge)})


class AttackBody(BaseModel):
    """What one attack of a privacy report came to."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME_PATTERN)
    version: int = Field(ge=1, le=MAX_VERSION)
    verdict: Verdict = Field(description="not run: it applies, and nobody knows; this is no pass")


class ReportBody(BaseModel):
    """Summary of the privacy report that the owner's own client made of his model and data; the report itself stays with him."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [REPORT]})

    version: Literal[1]
    grade: Grade = Field(description="A to F; D, obfuscation only, at best where others hold the plain weights or an attack got through")
    attacks: list[AttackBody] = Field(min_length=1, max_length=MAX_ATTACKS)
    versions: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Annotated[str, Field(pattern=VERSION_PATTERN)]] = Field(
        max_length=MAX_VERSIONS, description="of the attacks and of the libraries that they ran on"
    )
    report: Hex32 = Field(description="salted SHA-256 of the report, by which its owner can show later that it is this one")

    def summary(self, knowledge: Knowledge) -> ReportSummary:
        """The summary.

        Raises:
            MalformedMessageError: a grade that the verdicts, or who knows the plain weights, do not admit.
        """
        summary = ReportSummary.parse(self.model_dump(mode="json"))
        summary.check_knowledge(knowledge)
        return summary


class ModelBody(BaseModel):
    """A keyed model to be checked and put on chain: its complete upload, public description, and signed authorisation."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "upload_id": "0d6c6f9bb4a44f5c8f7e2b1a3c5d7e9f",
                    "model_spec": MODEL_SPEC,
                    "ee": KEYED,
                    "report": REPORT,
                    "name": MODEL["name"],
                    "description": MODEL["description"],
                    "users": [],
                    "request": REQUEST,
                    "signature": "0x" + 130 * "5",
                }
            ]
        },
    )

    upload_id: UploadId
    model_spec: dict[str, Any] = Field(description="declarative model specification: version, family, config")
    ee: KeyBody
    report: ReportBody | None = Field(default=None, description="by the owner's word; a model without one says nothing of its privacy")
    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", description="public")
    description: str = Field(default="", max_length=2000, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f]*$", description="public")
    users: Users = []
    request: RelayedCallBody = Field(description="signed call of ModelRegistry.authorise")
    signature: Signature


class UsersBody(BaseModel):
    """Who besides the owner may use a model from now on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"users": [OWNER]}]})

    users: Users


class ModelView(BaseModel):
    """A model as its owner, and those whom he lets use it, see it."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL]})

    id: uuid.UUID
    owner: str
    name: str
    description: str
    model_spec: dict[str, Any]
    spec_digest: str
    record: str = Field(description="root record over specification and keyed weights: what receipts name")
    ee: KeyView
    report: ReportBody | None = Field(description="summary of the owner's privacy report, null where he gave none")
    state: ModelState = Field(
        description="checking → authorising → authorised → revoked; refused: the file is not what was signed; failed: see reason"
    )
    reason: str | None = Field(description="why it was refused, failed or revoked")
    uri: str | None = Field(description="of the public description, as it stands on chain")
    users: list[str] | None = Field(description="accounts that may use it; for its owner only")
    relay_id: str | None = Field(description="the signed call on its way to the chain, for GET /v1/relays")
    transaction_hash: str | None
    block_number: int | None
    created_at: datetime

    @classmethod
    def of(cls, model: KeyedModel, standing: Standing, users: Sequence[str] | None) -> "ModelView":
        """The view of a row."""
        registered = standing.registered
        return cls.model_validate(
            {
                **{name: getattr(model, name) for name in ("id", "owner", "name", "description", "spec_digest", "record", "created_at")},
                "model_spec": model.spec,
                "ee": KeyView.of(model),
                "report": model.report,
                "state": standing.state,
                "reason": standing.reason,
                "uri": None if registered is None else registered.uri,
                "users": None if users is None else list(users),
                "relay_id": None if users is None else model.relay_id,
                "transaction_hash": None if registered is None else registered.transaction_hash,
                "block_number": None if registered is None else registered.block_number,
            }
        )


class ModelPage(BaseModel):
    """One page of models, newest first."""

    items: list[ModelView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")


class DescriptionView(BaseModel):
    """What everybody may know of a model that its owner put on chain."""

    owner: str
    record: str
    name: str
    description: str
    model_spec: dict[str, Any]
    ee: KeyView
    report: ReportBody | None = Field(description="summary of the owner's privacy report, null where he gave none")
    state: ModelState
    reason: str | None

    @classmethod
    def of(cls, model: KeyedModel, standing: Standing) -> "DescriptionView":
        """The view of a row."""
        return cls.model_validate(
            {
                **{name: getattr(model, name) for name in ("owner", "record", "name", "description")},
                "model_spec": model.spec,
                "ee": KeyView.of(model),
                "report": model.report,
                "state": standing.state,
                "reason": standing.reason,
            }
        )


class InferenceBody(BaseModel):
    """A complete upload of encrypted rows that is a question to a model."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": MODEL_ID, "upload_id": "0d6c6f9bb4a44f5c8f7e2b1a3c5d7e9f"}]}
    )

    model: uuid.UUID
    upload_id: UploadId


class InferenceView(BaseModel):
    """A question as whoever asked it sees it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "3f6d0a52-5a5e-4a58-8a55-0d8e2b9f1c77",
                    "model": MODEL_ID,
                    "state": "answered",
                    "reason": None,
                    "items": 64,
                    "items_done": 64,
                    "output_record": "0x" + 64 * "7",
                    "output_bytes": 512,
                    "created_at": "2026-11-20T09:31:00Z",
                    "decided_at": "2026-11-20T09:31:01Z",
                }
            ]
        }
    )

    id: uuid.UUID
    model: uuid.UUID
    state: Literal["queued", "running", "answered", "refused", "failed"] = Field(
        description="refused: rows or model do not allow an answer; failed: the trainer could not answer"
    )
    reason: str | None = Field(description="why it was refused or failed")
    items: int | None = Field(description="rows, once the file was looked at")
    items_done: int
    output_record: str | None
    output_bytes: int | None
    created_at: datetime
    decided_at: datetime | None

    @classmethod
    def of(cls, inference: Inference) -> "InferenceView":
        """The view of a row."""
        names = ("id", "items", "items_done", "output_record", "output_bytes", "created_at", "decided_at")
        return cls.model_validate(
            {
                **{name: getattr(inference, name) for name in names},
                "model": inference.model_id,
                "state": inference.verdict or inference.state,
                "reason": inference.reason if inference.verdict else inference.failure,
            }
        )


class InferencePage(BaseModel):
    """One page of questions, newest first."""

    items: list[InferenceView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")


class ItemReceipt(BaseModel):
    """The receipt of one row."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item": 0, "receipt": RECEIPT}]})

    item: int = Field(description="place of the row in the question, from 0")
    receipt: dict[str, Any] = Field(description="inference receipt (wire formats, section 3); its salt is for its holders only")

    @classmethod
    def of(cls, item: int, receipt: Receipt) -> "ItemReceipt":
        """The view of a row's receipt."""
        return cls(item=item, receipt=receipt.to_json())


class ReceiptPage(BaseModel):
    """One page of receipts, in the order of the rows."""

    items: list[ItemReceipt]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")
