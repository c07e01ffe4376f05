"""HTTP bodies of the trainer."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.trainer.models import Batch

UploadId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]

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
