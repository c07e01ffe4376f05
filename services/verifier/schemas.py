"""HTTP bodies of the verifier."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rexis.encoding import checksum_address
from services.verifier.batches import Standing, State
from services.verifier.models import CommittedBatch, ReceiptBatch, StoredReceipt

Hex32 = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$", description="32 bytes")]
Hex16 = Annotated[str, Field(pattern="^0x[0-9a-f]{32}$", description="16 bytes")]
Address = Annotated[str, AfterValidator(checksum_address), Field(max_length=42)]

RECEIPT: dict[str, Any] = {
    "version": 1,
    "model": "0x" + 64 * "1",
    "input": "0x" + 64 * "2",
    "output": "0x" + 64 * "3",
    "batch": None,
    "index": None,
    "salt": "0x" + 32 * "4",
    "issued": "2026-11-20T09:30:00Z",
    "issuer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "signature": "0x" + 130 * "5",
}

IDENTITY: dict[str, Any] = {
    "chain_id": 31337,
    "registry": "0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0",
    "operator": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "owner": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "model": "0x" + 64 * "1",
    "sequence": 1,
}
BATCH: dict[str, Any] = {
    "id": "0x" + 64 * "6",
    "state": "on-chain",
    "final": True,
    **IDENTITY,
    "count": 2,
    "record": "0x" + 64 * "7",
    "created_at": "2026-11-20T09:30:14Z",
    "transaction_hash": "0x" + 64 * "8",
    "block_number": 42,
    "block_hash": "0x" + 64 * "9",
}
BUNDLE: dict[str, Any] = {
    "version": 1,
    "receipt": {**RECEIPT, "batch": BATCH["id"], "index": 0},
    "batch": IDENTITY,
    "count": 2,
    "record": BATCH["record"],
    "proof": ["0x" + 64 * "a"],
    "transaction": {"hash": BATCH["transaction_hash"], "block_number": 42, "block_hash": BATCH["block_hash"]},
    "checksum": "0x" + 64 * "b",
}


class ReceiptBody(BaseModel):
    """An inference receipt as in section 3 of the wire formats."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [RECEIPT]})

    version: int
    model: Hex32
    input: Hex32
    output: Hex32
    batch: Hex32 | None = Field(default=None, description="set once the batch is on chain; as given it is not kept")
    index: int | None = Field(default=None, description="set once the batch is on chain; as given it is not kept")
    salt: Hex16
    issued: str = Field(max_length=20, description="RFC 3339, a whole minute of UTC")
    issuer: Address
    signature: str = Field(pattern="^0x[0-9a-f]{130}$", description="EIP-712 signature of the issuer")


class ReceiptView(BaseModel):
    """A receipt as its issuer and its depositors see it, and how far it got on its way to the chain."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "digest": "0x" + 64 * "0",
                    "receipt": RECEIPT,
                    "received_at": "2026-11-20T09:30:12Z",
                    "state": "waiting",
                    "reason": None,
                    "owner": IDENTITY["owner"],
                    "batch": None,
                }
            ]
        }
    )

    digest: Hex32
    receipt: ReceiptBody
    received_at: datetime
    state: State = Field(
        description="waiting for a batch; set aside, because no owner answered for its model in 24 hours; promised, in a batch on its way "
        "to the chain; on-chain"
    )
    reason: str | None = Field(description="why it is not farther, where that depends on somebody else")
    owner: Address | None = Field(description="whose model answered, as its issuer named him")
    batch: Hex32 | None = Field(description="id of its batch")

    @classmethod
    def of(cls, stored: StoredReceipt, standing: Standing) -> "ReceiptView":
        """The view of a row."""
        return cls(
            digest=stored.digest,
            receipt=ReceiptBody(**standing.receipt.to_json()),
            received_at=stored.received_at,
            state=standing.state,
            reason=standing.reason,
            owner=stored.owner,
            batch=stored.batch,
        )


class BatchView(BaseModel):
    """A batch of receipts: what its id is made of, what was committed, and where."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH]})

    id: Hex32
    state: Literal["promised", "on-chain"]
    final: bool = Field(description="the chain will not lose it any more")
    chain_id: int
    registry: Address
    operator: Address
    owner: Address
    model: Hex32
    sequence: int
    count: int
    record: Hex32
    created_at: datetime
    transaction_hash: Hex32 | None
    block_number: int | None
    block_hash: Hex32 | None

    @classmethod
    def of(cls, batch: ReceiptBatch, committed: CommittedBatch | None) -> "BatchView":
        """The view of a row."""
        return cls(
            id=batch.id,
            state="promised" if committed is None else "on-chain",
            final=committed is not None and batch.outcome == "committed",
            chain_id=batch.chain_id,
            registry=batch.contract,
            operator=batch.operator,
            owner=batch.owner,
            model=batch.model,
            sequence=batch.sequence,
            count=batch.count,
            record=batch.record,
            created_at=batch.created_at,
            transaction_hash=committed.transaction_hash if committed else None,
            block_number=committed.block_number if committed else None,
            block_hash=committed.block_hash if committed else None,
        )


class BundleBody(BaseModel):
    """A receipt bundle, canonical JSON, as section 3 of the wire formats has it; keep its bytes as they come."""

    model_config = ConfigDict(json_schema_extra={"examples": [BUNDLE]})

    version: int
    receipt: ReceiptBody
    batch: dict[str, Any]
    count: int
    record: Hex32
    proof: list[Hex32]
    transaction: dict[str, Any]
    checksum: Hex32
