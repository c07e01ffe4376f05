"""Settings of the verifier."""

from pydantic import Field

from services.foundation.settings import RelayerSettings


class VerifierSettings(RelayerSettings):
    """When receipts are batched; the account of the relayer key is the operator of the batches.

    Each batch is one transaction that the operator pays for, about 150,000 gas whatever it holds, and at most one per model is made in
    `batch_seconds`: two seconds suit a local chain, a minute or more one that costs.

    Where the operator stakes a bond on each batch, it is bound for the seven days in which the batch can be challenged: the stake bounds
    the number of batches a week, so longer times between them suit it, and receipts wait while none of it is free.
    """

    service = "verifier"

    batch_receipts: int = Field(default=256, ge=1, le=65_536, description="a batch is made as soon as so many receipts of a model wait")
    batch_seconds: float = Field(default=2.0, gt=0, description="or as soon as one has waited so long")
