"""HTTP bodies of the verifier."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rexis.encoding import checksum_address
from services.verifier.models import StoredReceipt
from services.verifier.receipts import receipt_of

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


class ReceiptBody(BaseModel):
    """An inference receipt as in section 3 of the wire formats."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [RECEIPT]})

    version: int
    model: Hex32
    input: Hex32
    output: Hex32
    batch: Hex32 | None = Field(default=None, description="not kept: the signature does not cover it")
    index: int | None = Field(default=None, description="not kept: the signature does not cover it")
    salt: Hex16
    issued: str = Field(max_length=20, description="RFC 3339, a whole minute of UTC")
    issuer: Address
    signature: str = Field(pattern="^0x[0-9a-f]{130}$", description="EIP-712 signature of the issuer")


class ReceiptView(BaseModel):
    """A receipt as its issuer and its depositors see it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"digest": "0x" + 64 * "0", "receipt": RECEIPT, "received_at": "2026-11-20T09:30:12Z"}]}
    )

    digest: Hex32
    receipt: ReceiptBody
    received_at: datetime

    @classmethod
    def of(cls, stored: StoredReceipt) -> "ReceiptView":
        """The view of a row."""
        return cls(digest=stored.digest, receipt=ReceiptBody(**receipt_of(stored).to_json()), received_at=stored.received_at)
