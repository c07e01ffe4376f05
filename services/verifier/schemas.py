"""HTTP bodies of the verifier."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rexis.encoding import checksum_address
from services.verifier.batches import BatchStanding, Standing, State
from services.verifier.models import BatchChallenge, OperatorTerms, StoredReceipt
from services.verifier.stakes import Status

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
BOND: dict[str, Any] = {
    "token": "0x5FbDB2315678afecb367f032d93F642f64180aa3",
    "amount": "50000000000000000000",
    "arbiter": "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
}
CHALLENGE: dict[str, Any] = {
    "index": 1,
    "challenger": "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    "outcome": "open",
    "deadline": "2026-11-24T10:00:00Z",
    "leaf": "0x" + 64 * "c",
    "reason": "0x" + 64 * "d",
    "answer": None,
    "grounds": None,
}
BATCH: dict[str, Any] = {
    "id": "0x" + 64 * "6",
    "state": "on-chain",
    "status": "challenged",
    "final": True,
    **IDENTITY,
    "count": 2,
    "record": "0x" + 64 * "7",
    "created_at": "2026-11-20T09:30:14Z",
    "transaction_hash": "0x" + 64 * "8",
    "block_number": 42,
    "block_hash": "0x" + 64 * "9",
    "challenge_until": "2026-11-27T09:30:15Z",
    "bond": BOND,
    "challenges": [CHALLENGE],
}
STATUS = (
    "what became of the batch on chain: pending, while it can be challenged; challenged, until all challenges are decided; final; or "
    "rejected, because one was upheld"
)
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
                    "status": None,
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
    status: Status | None = Field(description=f"{STATUS}; null before it is there")
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
            status=standing.status,
            owner=stored.owner,
            batch=stored.batch,
        )


class BondView(BaseModel):
    """What the operator staked on a batch, and a challenger puts against it."""

    token: Address
    amount: str = Field(description="in the token's smallest unit")
    arbiter: Address = Field(description="who judges a challenge that the operator answered")

    @classmethod
    def of(cls, terms: OperatorTerms) -> "BondView":
        """The view of a row."""
        return cls(token=terms.token, amount=terms.bond, arbiter=terms.arbiter)


class ChallengeView(BaseModel):
    """A challenge of one receipt of a batch, as it stands on chain; its digests are salted."""

    index: int
    challenger: Address
    outcome: Literal["open", "answered", "upheld", "dismissed", "undecided", "moot"]
    deadline: datetime = Field(description="for the operator's answer while it is open, for the arbiter once it was answered")
    leaf: Hex32
    reason: Hex32
    answer: Hex32 | None
    grounds: Hex32 | None = Field(description="of the arbiter's ruling")

    @classmethod
    def of(cls, made: BatchChallenge) -> "ChallengeView":
        """The view of a row."""
        same = {name: getattr(made, name) for name in ("index", "challenger", "outcome", "leaf", "reason", "answer", "grounds")}
        return cls(**same, deadline=datetime.fromtimestamp(made.deadline, UTC))


class BatchView(BaseModel):
    """A batch of receipts: what its id is made of, what was committed, and where; what is staked on it, and who challenged it."""

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH]})

    id: Hex32
    state: Literal["promised", "on-chain"]
    final: bool = Field(description="the chain will not lose it any more; whether it can be challenged is told by status")
    status: Status | None = Field(description=f"{STATUS}; null before it is there")
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
    challenge_until: datetime | None = Field(description="last moment at which it can be challenged")
    bond: BondView | None = Field(description="null where nothing is staked: such a batch can be proved, and not be challenged")
    challenges: list[ChallengeView]

    @classmethod
    def of(cls, standing: BatchStanding) -> "BatchView":
        """The view of a row."""
        batch, committed, terms = standing.batch, standing.committed, standing.terms
        return cls(
            id=batch.id,
            state="promised" if committed is None else "on-chain",
            final=committed is not None and batch.outcome == "committed",
            status=standing.status,
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
            challenge_until=datetime.fromtimestamp(committed.until, UTC) if committed and terms else None,
            bond=BondView.of(terms) if terms else None,
            challenges=[ChallengeView.of(made) for made in standing.challenges],
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
