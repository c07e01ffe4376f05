"""Receipts: kept once, only if their issuer signed them, and shown to those who hold them only."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rexis.chain.signer import LocalSigner
from rexis.commitments import Receipt
from rexis.encoding import to_hex
from rexis.protocol.receipt_signature import receipt_message
from services.foundation.database import migrate, open_engine
from services.foundation.settings import LOCAL_CHAIN_ID, ServiceSettings
from tests.services.marketplace_on_chain import running_chain
from tests.services.service_applications import authorised, client_of, settings_for

PROVIDER, CLINIC, STRANGER = (LocalSigner.generate() for _ in range(3))


@pytest.fixture
def settings(database_url: str) -> ServiceSettings:
    engine = open_engine(database_url)
    migrate(engine, "services.verifier")
    engine.dispose()
    return settings_for("verifier", database_url)


@pytest.fixture
def client(settings: ServiceSettings) -> Iterator[TestClient]:
    with client_of(settings) as client:
        yield client


def receipt(signer: LocalSigner = PROVIDER, chain_id: int = LOCAL_CHAIN_ID, **changes: Any) -> Receipt:
    unsigned = Receipt(
        **{
            "model": bytes([1]) * 32,
            "input": bytes([2]) * 32,
            "output": bytes([3]) * 32,
            "salt": bytes([4]) * 16,
            "issued": datetime(2026, 11, 20, 9, 30, tzinfo=UTC),
            "issuer": signer.address,
            **changes,
        }
    )
    return replace(unsigned, signature=signer.sign_typed_data(receipt_message(unsigned, chain_id)))


def test_a_receipt_is_kept_once_and_shown_to_issuer_and_depositor(client: TestClient, settings: ServiceSettings) -> None:
    given = receipt()
    clinic = authorised(settings, CLINIC)
    first = client.post("/v1/receipts", json=given.to_json(), headers=clinic)
    again = client.post("/v1/receipts", json=given.to_json(), headers=clinic)
    assert (first.status_code, again.status_code) == (201, 200), first.text
    assert first.json() == again.json()
    assert first.json()["digest"] == to_hex(given.digest)
    assert Receipt.parse(first.json()["receipt"]) == given
    path = f"/v1/receipts/{to_hex(given.digest)}"
    assert client.get(path, headers=clinic).json() == first.json()
    assert client.get(path, headers=authorised(settings, PROVIDER)).json() == first.json()
    assert client.get(path, headers=authorised(settings, STRANGER)).status_code == 404
    # Who holds the receipt can show it again and is a depositor from then on.
    assert client.post("/v1/receipts", json=given.to_json(), headers=authorised(settings, STRANGER)).status_code == 200
    assert client.get(path, headers=authorised(settings, STRANGER)).json() == first.json()


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def client_with_chain(settings: ServiceSettings, rpc_url: str) -> Iterator[TestClient]:
    with client_of(settings.model_copy(update={"chain_rpc_url": rpc_url})) as client:
        yield client


FORGED = {
    "other output": (replace(receipt(), output=bytes(32)), "expected a signature by"),
    "other salt": (replace(receipt(), salt=bytes(16)), "expected a signature by"),
    "other issuer": (replace(receipt(), issuer=STRANGER.address), "expected a signature by"),
    "other chain": (receipt(chain_id=1), "expected a signature by"),
    "no signature": (replace(receipt(), signature=bytes(65)), "expected v 27 or 28"),
}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", FORGED)
def test_what_the_issuer_did_not_sign_is_refused(client_with_chain: TestClient, settings: ServiceSettings, name: str) -> None:
    forged, reason = FORGED[name]
    answer = client_with_chain.post("/v1/receipts", json=forged.to_json(), headers=authorised(settings, CLINIC))
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:rexis:problem:signature")
    assert reason in answer.json()["detail"]
    path = f"/v1/receipts/{to_hex(forged.digest)}"
    assert client_with_chain.get(path, headers=authorised(settings, CLINIC)).status_code == 404


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_whether_an_issuer_is_a_contract_account_only_the_chain_can_say(client: TestClient, settings: ServiceSettings) -> None:
    forged = replace(receipt(), output=bytes(32))
    answer = client.post("/v1/receipts", json=forged.to_json(), headers=authorised(settings, CLINIC))
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:rexis:problem:unavailable")


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_receipt_from_the_future_is_refused(client: TestClient, settings: ServiceSettings) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(second=0, microsecond=0)
    answer = client.post("/v1/receipts", json=receipt(issued=tomorrow).to_json(), headers=authorised(settings, CLINIC))
    assert answer.status_code == 422
    assert "clock" in answer.json()["detail"]


def test_two_salts_for_one_claim_are_a_contradiction(client: TestClient, settings: ServiceSettings) -> None:
    clinic = authorised(settings, CLINIC)
    assert client.post("/v1/receipts", json=receipt().to_json(), headers=clinic).status_code == 201
    answer = client.post("/v1/receipts", json=receipt(salt=bytes(16)).to_json(), headers=clinic)
    assert answer.status_code == 409
    assert "another salt" in answer.json()["detail"]


def test_nobody_takes_a_digest_by_signing_a_copy_first(client: TestClient, settings: ServiceSettings) -> None:
    """The digest does not name the issuer: a copy under another name must not stand in the way of the true receipt."""
    copy, true = receipt(STRANGER), receipt()
    assert copy.digest == true.digest
    clinic, path = authorised(settings, CLINIC), f"/v1/receipts/{to_hex(true.digest)}"
    for each in (copy, true):
        assert client.post("/v1/receipts", json=each.to_json(), headers=clinic).status_code == 201
    assert client.get(path, headers=clinic).status_code == 409
    for each in (copy, true):
        found = client.get(path, params={"issuer": each.issuer}, headers=clinic).json()
        assert Receipt.parse(found["receipt"]) == each
    assert Receipt.parse(client.get(path, headers=authorised(settings, PROVIDER)).json()["receipt"]) == true


def test_the_issuer_alone_names_the_owner_and_only_once(client: TestClient, settings: ServiceSettings) -> None:
    given, path = receipt().to_json(), "/v1/receipts"

    def name(owner: LocalSigner | None, by: LocalSigner) -> tuple[int, Any]:
        query = {"owner": owner.address} if owner else {}
        answer = client.post(path, json=given, params=query, headers=authorised(settings, by))
        return answer.status_code, answer.json().get("owner", answer.json().get("type"))

    owner, rival = LocalSigner.generate(), LocalSigner.generate()
    assert name(owner, CLINIC) == (403, "urn:rexis:problem:forbidden")
    assert client.get(f"{path}/{to_hex(receipt().digest)}", headers=authorised(settings, CLINIC)).status_code == 404
    assert name(None, CLINIC) == (201, None)
    assert name(None, PROVIDER) == (200, None)
    assert name(owner, PROVIDER) == (200, owner.address)
    assert name(rival, PROVIDER) == (409, "urn:rexis:problem:other-owner")
    for again in (owner, None):
        assert name(again, PROVIDER) == (200, owner.address)
    assert name(None, CLINIC) == (200, owner.address)
    assert client.post(path, json=given, params={"owner": "0x12"}, headers=authorised(settings, PROVIDER)).status_code == 422


def test_what_the_signature_does_not_cover_is_not_kept(client: TestClient, settings: ServiceSettings) -> None:
    claimed = replace(receipt(), batch=bytes(32), index=7)
    stored = client.post("/v1/receipts", json=claimed.to_json(), headers=authorised(settings, STRANGER)).json()
    assert Receipt.parse(stored["receipt"]) == receipt()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("change", [{"version": 2}, {"model": "0x12"}, {"note": "x"}, {"issued": "2026-11-20T09:30:15Z"}, {"index": 3}])
def test_malformed_receipts_are_refused(client: TestClient, settings: ServiceSettings, change: dict[str, Any]) -> None:
    answer = client.post("/v1/receipts", json={**receipt().to_json(), **change}, headers=authorised(settings, CLINIC))
    assert answer.status_code == 422
