"""The marketplace: catalogue, registrations, documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from rexis.client.answers import Fields
from rexis.client.connection import Connection
from rexis.client.pages import fetch_pages
from rexis.client.relayed_calls import Relay
from rexis.encoding import canonical_json, sha256, to_hex
from rexis.errors import DigestMismatchError, MalformedMessageError
from rexis.protocol.relayed_call import RelayedCall

MAX_DOCUMENT_BYTES = 1 << 20


@dataclass(frozen=True)
class CatalogueEntry:
    """A data set as the marketplace shows it; the chain is what counts.

    Attributes:
        token_id: ERC-721 id.
        owner, registrant: checksum addresses.
        state: active, deprecated, or withdrawn.
        content_root, policy_hash, metadata_hash: 32 bytes each.
        uri: where the metadata are published.
        transaction_hash, block_number: where it was registered.
    """

    token_id: int
    owner: str
    registrant: str
    state: str
    name: str | None
    content_root: bytes
    policy_hash: bytes
    metadata_hash: bytes
    uri: str
    transaction_hash: bytes
    block_number: int

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read an answer."""
        fields = Fields("catalogue entry", value)
        return cls(
            token_id=fields.integer("token_id"),
            owner=fields.address("owner"),
            registrant=fields.address("registrant"),
            state=fields.text("state"),
            name=fields.optional_text("name"),
            content_root=fields.digest("content_root"),
            policy_hash=fields.digest("policy_hash"),
            metadata_hash=fields.digest("metadata_hash"),
            uri=fields.text("uri"),
            transaction_hash=fields.digest("transaction_hash"),
            block_number=fields.integer("block_number"),
        )


@dataclass(frozen=True)
class ChainInfo:
    """The chain that the marketplace works on: id, contract addresses by name, and the URL under which it publishes documents."""

    chain_id: int
    contracts: dict[str, str]
    documents_url: str


class MarketplaceClient:
    """Calls to one marketplace. What needs a session uses the connection's authoriser."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def chain(self) -> ChainInfo:
        """The chain it works on."""
        fields = Fields("chain", self.connection.get("/v1/chain", authorised=False))
        contracts = Fields("contracts", fields.object("contracts"))
        addresses = {name: contracts.address(name) for name in fields.object("contracts")}
        return ChainInfo(fields.integer("chain_id"), addresses, fields.text("documents_url"))

    def register_dataset(
        self, metadata: dict[str, Any], policy: dict[str, Any], call: RelayedCall, signature: bytes, *, idempotency_key: str
    ) -> Relay:
        """Hand over a signed call of `DatasetRegistry.register` with the documents that it hashes; safe to repeat with the same key.

        Raises:
            ServiceError: the marketplace refuses it: another digest, chain, signer, or a contract it does not relay to.
        """
        body = {"metadata": metadata, "policy": policy, "request": call.to_json(), "signature": to_hex(signature)}
        return Relay.parse(self.connection.post("/v1/datasets", body, idempotency_key=idempotency_key))

    def relay(self, relay_id: str) -> Relay:
        """The state of a call that was handed over."""
        return Relay.parse(self.connection.get(f"/v1/relays/{relay_id}"))

    def dataset(self, token_id: int) -> CatalogueEntry:
        """One entry.

        Raises:
            ServiceError: 404 if there is none.
        """
        return CatalogueEntry.parse(self.connection.get(f"/v1/datasets/{token_id}", authorised=False))

    def datasets(self, *, owner: str | None = None) -> Iterator[CatalogueEntry]:
        """All entries, newest first, fetched page by page as they are consumed; `owner` narrows the choice."""
        query: dict[str, str | int] = {} if owner is None else {"owner": owner}
        return fetch_pages(self.connection, "/v1/datasets", CatalogueEntry.parse, query=query, authorised=False)

    def document_url(self, digest: bytes) -> str:
        """Where the marketplace publishes a document: what `uri` on chain points at."""
        return f"{self.chain().documents_url}/{to_hex(digest)}"

    def document(self, digest: bytes) -> dict[str, Any]:
        """A public document, checked against its hash.

        Raises:
            DigestMismatchError: the marketplace sent another document.
        """
        answer = self.connection.request("GET", f"/v1/documents/{to_hex(digest)}", authorised=False, max_bytes=MAX_DOCUMENT_BYTES)
        if not isinstance(answer.body, dict):
            raise MalformedMessageError(f"document {to_hex(digest)}: expected a JSON object")
        got = sha256(canonical_json(answer.body))
        if got != digest:
            raise DigestMismatchError("document", digest, got)
        return answer.body
