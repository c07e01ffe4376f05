"""HTTP bodies of compute-to-data jobs in escrow."""

from datetime import UTC, datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from services.marketplace.jobs import Job

JobRole = Literal["consumer", "provider", "arbiter", "owner"]
JobState = Literal["requested", "accepted", "committed", "disputed", "released", "resolved", "refunded"]
JobEnd = Literal["consumer", "timeout", "arbiter", "cancelled", "declined", "abandoned", "not-accepted", "not-committed", "not-resolved"]
Amount = Field(description="in the token's smallest unit, decimal")

PARTY = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"


class ComputeJobView(BaseModel):
    """A job as the chain has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0x" + 64 * "1",
                    "state": "committed",
                    "deadline": "2026-11-24T09:30:00Z",
                    "overdue": False,
                    "dataset": 1,
                    "owner": PARTY,
                    "consumer": PARTY,
                    "provider": PARTY,
                    "arbiter": PARTY,
                    "purpose": 6,
                    "algorithm": "0x" + 64 * "2",
                    "document": "0x" + 64 * "3",
                    "token": PARTY,
                    "price": "40000000",
                    "run_seconds": 172800,
                    "review_seconds": 259200,
                    "result": "0x" + 64 * "4",
                    "logs": None,
                    "meter": None,
                    "dispute_reason": None,
                    "ended_by": None,
                    "paid": None,
                    "royalty": None,
                    "refunded": None,
                    "block_number": 12,
                    "transaction_hash": "0x" + 64 * "a",
                }
            ]
        }
    )

    id: str = Field(description="as ComputeJobs.jobId gives it")
    state: JobState = Field(description="requested → accepted → committed → released, or disputed → resolved; or refunded")
    deadline: datetime | None = Field(description="last second of the present state; null at the end")
    overdue: bool = Field(description="the deadline has passed: anybody may send ComputeJobs.timeout, which is what ends the job")
    dataset: int
    owner: str = Field(description="of the data set, now")
    consumer: str
    provider: str
    arbiter: str
    purpose: int = Field(description="DUO number, as on chain")
    algorithm: str = Field(description="digest of image digest, entry point and schema of the parameters")
    document: str = Field(description="salted digest of what was asked for")
    token: str = Field(description="of the price; the zero address where the job is free")
    price: str = Amount
    run_seconds: int
    review_seconds: int
    result: str | None = Field(description="digest that the provider committed to")
    logs: str | None
    meter: str | None
    dispute_reason: str | None = Field(description="salted digest")
    ended_by: JobEnd | None = Field(description="who or what ended the job")
    paid: str | None = Field(description="credited to the provider, in the token's smallest unit")
    royalty: str | None = Field(description="credited to the receiver of the data set's royalty")
    refunded: str | None = Field(description="credited to the consumer")
    block_number: int = Field(description="of the request")
    transaction_hash: str = Field(description="of the request")

    @classmethod
    def of(cls, job: Job) -> Self:
        """The view of a job."""
        row = job.row
        columns = {column.key: getattr(row, column.key) for column in row.__table__.columns}
        deadline = datetime.fromtimestamp(row.deadline, UTC) if row.deadline is not None else None
        return cls.model_validate({**columns, "deadline": deadline, "overdue": job.overdue, "owner": job.owner})


class ComputeJobPage(BaseModel):
    """One page of jobs, newest first."""

    items: list[ComputeJobView]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")
