"""A marketplace on a real chain: what its tests and those of its client have in common."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner, development_signer
from rexis.encoding import canonical_json, keccak256, sha256, to_hex
from rexis.protocol.relayed_call import RelayedCall, random_nonce
from services.foundation.database import now, transaction
from services.foundation.outbox.transactions import ChainIntent
from services.foundation.relays import RelayedCallRow
from services.foundation.settings import LOCAL_CHAIN_ID
from services.local.anvil import anvil_command, find_anvil, wait_for_anvil
from services.marketplace.background import jobs
from services.marketplace.models import Document
from services.marketplace.settings import MarketplaceSettings
from tests.services.conftest import free_port
from tests.services.service_applications import authorised

# Account 1 of the development mnemonic, which has ether on a fresh chain.
RELAYER_KEY = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
POLICY = {"version": 1, "permission": "HMB", "diseases": [], "modifiers": {"IRB": [], "NCU": []}}


@contextmanager
def running_chain(folder: Path) -> Iterator[str]:
    """The URL of a chain with the contracts, whose time moves with transactions only."""
    port, ready = free_port(), folder / "ready.json"
    with subprocess.Popen(anvil_command(find_anvil(), port, ready, block_time_s=None)) as process:
        try:
            rpc_url = wait_for_anvil(process, port, ready)
            deploy_contracts(rpc_url, development_signer(0), load(LOCAL_CHAIN_ID))
            yield rpc_url
        finally:
            process.terminate()


@contextmanager
def undone(rpc_url: str) -> Iterator[Chain]:
    """A connection; what is done to the chain inside the block is undone after it."""
    connected = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
    node: Any = connected.web3.provider
    taken = node.make_request("evm_snapshot", [])["result"]
    yield connected
    assert node.make_request("evm_revert", [taken])["result"] is True


@dataclass
class Marketplace:
    """One marketplace with its background jobs, run by hand."""

    settings: MarketplaceSettings
    engine: Engine
    client: TestClient
    chain: Chain

    def __post_init__(self) -> None:
        self._jobs = jobs(self.settings, self.engine)

    def work(self) -> None:
        """One pass of each job, relay first; twice, because a pass follows before it signs."""
        for job in self._jobs * 2:
            job.run()

    def counts(self) -> tuple[int, int, int]:
        """Rows of documents, relays and promised calls."""
        with transaction(self.engine, read_only=True) as session:
            found = [session.scalar(select(func.count()).select_from(table)) or 0 for table in (Document, RelayedCallRow, ChainIntent)]
        return found[0], found[1], found[2]

    def get(self, path: str, account: LocalSigner | None = None, **query: str | int) -> Any:
        answer = self.client.get(path, params=query, headers=authorised(self.settings, account) if account else {})
        assert answer.status_code == 200, answer.text
        return answer.json()


def croissant(name: str = "Heart disease, one hospital", **changes: Any) -> dict[str, Any]:
    return {
        "@context": {"@vocab": "https://schema.org/", "sc": "https://schema.org/"},
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": "Fourteen clinical attributes, ärztlich erhoben.",
        **changes,
    }


def registration_of(marketplace: Marketplace, metadata: Any, policy: Any, **changes: Any) -> dict[str, Any]:
    """Arguments of `register` for two documents and fresh rows."""
    digest = sha256(canonical_json(metadata))
    return {
        "contentRoot": keccak256(random_nonce().to_bytes(32, "big")),
        "policyHash": sha256(canonical_json(policy)),
        "metadataHash": digest,
        "uri": f"{marketplace.settings.public_url}/v1/documents/{to_hex(digest)}",
        "parents": [],
        "royaltyBps": 0,
        **changes,
    }


def call_of(marketplace: Marketplace, owner: str, data: bytes, **changes: Any) -> RelayedCall:
    fields = {
        "sender": owner,
        "to": marketplace.chain.deployment.contracts["DatasetRegistry"].address,
        "gas": 600_000,
        "nonce": random_nonce(),
        "deadline": int(now().timestamp()) + 3600,
        "data": data,
    }
    return RelayedCall(**{**fields, **changes})


def signed(marketplace: Marketplace, signer: LocalSigner, call: RelayedCall, *, chain_id: int = LOCAL_CHAIN_ID) -> bytes:
    forwarder = marketplace.chain.deployment.contracts["Forwarder"].address
    return signer.sign_typed_data(call.typed_data(chain_id, forwarder))


def body_of(
    marketplace: Marketplace,
    owner: LocalSigner,
    *,
    metadata: Any = None,
    policy: Any = None,
    registration: dict[str, Any] | None = None,
    call: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A right request of `owner`; `registration` and `call` change what is signed."""
    metadata, policy = metadata or croissant(), policy or POLICY
    data = encode_call("DatasetRegistry", "register", registration_of(marketplace, metadata, policy, **(registration or {})))
    relayed = call_of(marketplace, owner.address, data, **(call or {}))
    return {"metadata": metadata, "policy": policy, "request": relayed.to_json(), "signature": to_hex(signed(marketplace, owner, relayed))}
