"""HTTP bodies of the marketplace."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rexis.encoding import checksum_address
from services.foundation.relays import RelayedCallBody, RelayView, Signature
from services.marketplace.catalogue import Dataset

Address = Annotated[str, AfterValidator(checksum_address), Field(max_length=42, description="Ethereum address with its EIP-55 checksum")]
Hex32 = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$", description="32 bytes")]
State = Literal["active", "deprecated", "withdrawn"]

OWNER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
REGISTRY_ADDRESS = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
METADATA: dict[str, Any] = {
    "@context": {"@vocab": "https://schema.org/", "sc": "https://schema.org/", "conformsTo": "dct:conformsTo"},
    "@type": "sc:Dataset",
    "conformsTo": "http://mlcommons.org/croissant/1.1",
    "name": "Heart disease, one hospital",
    "description": "Fourteen clinical attributes of patients referred for angiography.",
}
POLICY: dict[str, Any] = {"version": 1, "permission": "HMB", "diseases": [], "modifiers": {"IRB": [], "NCU": []}}


class RegistrationBody(BaseModel):
    """A data set to be registered: its public documents, and the signed call that puts their hashes on chain."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "metadata": METADATA,
                    "policy": POLICY,
                    "request": {
                        "from": OWNER,
                        "to": REGISTRY_ADDRESS,
                        "gas": "600000",
                        "nonce": "81985529216486895",
                        "deadline": "1795000000",
                        "data": "0x",
                    },
                    "signature": "0x" + 130 * "5",
                }
            ]
        },
    )

    metadata: dict[str, Any] = Field(description="Croissant JSON-LD, at most 512 KiB; decimals as strings; metadataHash is its SHA-256")
    policy: dict[str, Any] = Field(description="data-use policy (GA4GH DUO) in its normal form; policyHash is its SHA-256")
    request: RelayedCallBody
    signature: Signature


class DatasetRelayView(RelayView):
    """A relayed call, and the data set that it registered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5b0f6a0a4a0f4e0d8a3a8f6f0b1c2d3e",
                    "operation": "register",
                    "sender": OWNER,
                    "state": "final",
                    "transaction_hash": "0x" + 64 * "a",
                    "block_number": 12,
                    "token_id": 1,
                    "error": None,
                    "revert": None,
                    "created_at": "2026-11-20T09:30:00Z",
                    "state_since": "2026-11-20T09:30:05Z",
                }
            ]
        }
    )

    token_id: int | None = Field(description="the registered data set, once the chain index has seen it")


class DatasetSummary(BaseModel):
    """A data set in the catalogue. Everything but name and description is from the chain."""

    token_id: int
    owner: str
    registrant: str
    owner_epoch: int = Field(description="number of transfers so far")
    state: State
    content_root: str = Field(description="salted commitment to the rows")
    policy_hash: str
    policy_version: int
    metadata_hash: str
    metadata_version: int
    uri: str
    royalty_bps: int
    parents: list[int] = Field(description="token ids of the data sets that this one was made from")
    block_number: int
    transaction_hash: str
    name: str | None
    description: str | None = Field(description="the first 500 characters")
    note: str | None = Field(description='"metadata not available" if this marketplace does not hold the document behind metadata_hash')

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetSummary":
        """The summary of a data set."""
        return cls.model_validate(_members(dataset))


class DatasetView(DatasetSummary):
    """A data set with its documents; a document that this marketplace does not hold is null."""

    metadata: dict[str, Any] | None
    policy: dict[str, Any] | None

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetView":
        """The view of a data set."""
        documents = {"metadata": dataset.metadata, "policy": dataset.policy}
        contents = {name: None if document is None else json.loads(document.content) for name, document in documents.items()}
        return cls.model_validate({**_members(dataset), **contents})


class DatasetPage(BaseModel):
    """One page of the catalogue, newest first."""

    items: list[DatasetSummary]
    next_cursor: str | None = Field(description="pass it as `cursor` for the next page; null on the last one")


class ChainView(BaseModel):
    """The chain that this marketplace relays to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "chain_id": 31337,
                    "contracts": {"Forwarder": "0x5FbDB2315678afecb367f032d93F642f64180aa3", "DatasetRegistry": REGISTRY_ADDRESS},
                    "documents_url": "https://marketplace.example.org/v1/documents",
                }
            ]
        }
    )

    chain_id: int
    contracts: dict[str, str] = Field(description="address by contract name; compare with the record that ships with your Rexis")
    documents_url: str = Field(description="a document is published under this URL, a slash and its digest")


def _members(dataset: Dataset) -> dict[str, Any]:
    entry, metadata = dataset.entry, dataset.metadata
    return {
        **{column.name: getattr(entry, column.name) for column in entry.__table__.columns},
        "parents": list(dataset.parents),
        "name": metadata.name if metadata is not None else None,
        "description": metadata.description if metadata is not None else None,
        "note": None if metadata is not None else "metadata not available",
    }
