"""`rexis.client` against each service over real HTTP: sign-in, its operations, and what it makes of refusals."""

import io
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from rexis.chain.signer import LocalSigner
from rexis.client.aggregator import AggregatorClient
from rexis.client.connection import Connection
from rexis.client.marketplace import MarketplaceClient
from rexis.client.trainer import TrainerClient
from rexis.client.uploads import upload_file
from rexis.client.verifier import VerifierClient
from rexis.commitments import Receipt, tensor_digest
from rexis.encoding import sha256
from rexis.errors import ServiceError, UnavailableError
from rexis.protocol.batch import write_file
from rexis.protocol.file_spec import FileSpec, TensorSpec
from rexis.protocol.receipt_signature import receipt_message
from rexis.protocol.relayed_call import RelayedCall
from services.foundation.database import migrate, open_engine
from services.foundation.objects import open_store
from services.foundation.settings import LOCAL_CHAIN_ID, ServiceSettings
from services.marketplace.settings import MarketplaceSettings
from services.trainer import batches
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import RELAYER_KEY, Marketplace, body_of, running_chain, undone
from tests.services.service_applications import application, connected, serving, settings_for

HOSPITAL, STRANGER = LocalSigner.generate(), LocalSigner.generate()
Connect = Callable[[LocalSigner], Connection]


def migrated(service: str, folder: Path, **changes: Any) -> ServiceSettings:
    settings = settings_for(
        service,
        f"sqlite:///{folder / 'client.sqlite'}",
        public_url=f"http://127.0.0.1:{free_port()}",
        object_store_url=f"file://{folder / 'objects'}",
        **changes,
    )
    engine = open_engine(settings.database_url)
    migrate(engine, f"services.{service}")
    engine.dispose()
    return settings


def test_marketplace(tmp_path: Path) -> None:
    with running_chain(tmp_path) as rpc_url, undone(rpc_url) as chain:
        settings = migrated("marketplace", tmp_path, chain_rpc_url=rpc_url, relayer_key=RELAYER_KEY)
        assert isinstance(settings, MarketplaceSettings)
        engine = open_engine(settings.database_url)
        with serving(settings), connected(settings, HOSPITAL, STRANGER) as (mine, other):
            client = MarketplaceClient(mine)
            backstage = Marketplace(settings, engine, TestClient(application(settings)), chain)
            body = body_of(backstage, HOSPITAL)
            call, signature = RelayedCall.parse(body["request"]), bytes.fromhex(body["signature"][2:])

            def hand_in(by: MarketplaceClient) -> Any:
                return by.register_dataset(body["metadata"], body["policy"], call, signature, idempotency_key="key")

            with pytest.raises(ServiceError) as refused:
                hand_in(MarketplaceClient(other))
            assert (refused.value.status, refused.value.problem["type"]) == (401, "urn:rexis:problem:signature")
            relay = hand_in(client)
            assert hand_in(client) == relay
            backstage.work()
            assert client.relay(relay.id).token_id == 1
            [entry] = client.datasets(owner=HOSPITAL.address)
            assert (entry.token_id, entry.owner, entry.name) == (1, HOSPITAL.address, body["metadata"]["name"])
            assert client.dataset(1) == entry
            assert client.document(entry.metadata_hash) == body["metadata"]
            assert client.chain().contracts == {name: found.address for name, found in chain.deployment.contracts.items()}
            assert entry.uri == client.document_url(entry.metadata_hash)
            with pytest.raises(ServiceError) as missing:
                client.dataset(2)
            assert missing.value.status == 404
        engine.dispose()


def test_trainer(tmp_path: Path) -> None:
    settings = migrated("trainer", tmp_path)
    x, spec = np.ones((3, 4), np.float32), FileSpec("batch", (TensorSpec("x", "f32", ("n", 4)),))
    file = tmp_path / "batch.safetensors"
    with file.open("wb") as stream:
        write_file(stream, spec, {"x": x})
    with serving(settings), connected(settings, HOSPITAL, STRANGER) as (mine, other):
        client = TrainerClient(mine)
        batch = client.submit_batch(upload_file(mine, file), spec, idempotency_key="key")
        assert batch.state == "queued"
        engine = open_engine(settings.database_url)
        batches.validate(engine, open_store(settings.object_store_url), uuid.UUID(batch.id))
        engine.dispose()
        decided = client.wait_for_batch(batch.id, timeout_s=5)
        assert (decided.state, decided.digests) == ("accepted", {"x": tensor_digest(x)})
        assert decided.record == write_file(io.BytesIO(), spec, {"x": x}).record
        assert list(client.batches()) == [decided]
        assert list(TrainerClient(other).batches()) == []
        with pytest.raises(ServiceError) as hidden:
            TrainerClient(other).batch(batch.id)
        assert hidden.value.status == 404


def test_verifier(tmp_path: Path) -> None:
    settings = migrated("verifier", tmp_path)
    unsigned = Receipt(
        model=sha256(b"model"),
        input=sha256(b"input"),
        output=sha256(b"output"),
        salt=bytes(16),
        issued=datetime(2026, 11, 20, 9, 30, tzinfo=UTC),
        issuer=HOSPITAL.address,
    )
    receipt = replace(unsigned, signature=HOSPITAL.sign_typed_data(receipt_message(unsigned, LOCAL_CHAIN_ID)))
    with serving(settings), connected(settings, HOSPITAL, STRANGER) as (mine, other):
        client = VerifierClient(mine)
        assert client.deposit_receipt(receipt) == client.deposit_receipt(receipt) == receipt.digest
        assert client.receipt(receipt.digest) == receipt
        with pytest.raises(ServiceError) as hidden:
            VerifierClient(other).receipt(receipt.digest)
        assert hidden.value.status == 404


def test_a_session_outlives_the_services_key(tmp_path: Path) -> None:
    """A service that was restarted with another key refuses the token; the client signs in again by itself."""
    settings = migrated("aggregator", tmp_path)
    with connected(settings, HOSPITAL) as (mine,):
        client = AggregatorClient(mine)
        with serving(settings):
            assert list(client.federations()) == []
        with pytest.raises(UnavailableError):
            list(client.federations())
        with serving(settings.model_copy(update={"session_key": type(settings.session_key)("77" * 32)})):
            assert list(client.federations()) == []


def test_a_token_of_one_service_opens_no_other(tmp_path: Path) -> None:
    first, second = (migrated("verifier", folder) for folder in (tmp_path / "first", tmp_path / "second") if not folder.mkdir())
    with serving(first), serving(second), connected(first, HOSPITAL) as (mine,):
        token = mine.authorise(False) if mine.authorise else ""
        stolen = Connection(second.public_url)
        stolen.authorise = lambda _renew: token
        with pytest.raises(ServiceError) as refused:
            VerifierClient(stolen).receipt(bytes(32))
        assert (refused.value.status, refused.value.problem["type"]) == (401, "urn:rexis:problem:token-audience")
        stolen.close()
