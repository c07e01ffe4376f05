"""Signed calls that a service sends as they are: what it admits, what it refuses, and that a call is sent once."""

from collections.abc import Iterator
from typing import Any

import pytest

from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner, development_signer
from rexis.client.relayed_calls import SignedCall, sign_call
from rexis.encoding import sha256
from services.foundation.database import migrate, now, open_engine
from services.marketplace.settings import MarketplaceSettings
from tests.services.marketplace_on_chain import RELAYER_KEY, Marketplace, body_of, running_chain, undone
from tests.services.service_applications import authorised, client_of, settings_for

OWNER, CONSUMER = development_signer(2), development_signer(3)
HMB = 6


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def chain(rpc_url: str) -> Iterator[Chain]:
    with undone(rpc_url) as connected:
        yield connected


@pytest.fixture
def marketplace(chain: Chain, rpc_url: str, database_url: str) -> Iterator[Marketplace]:
    engine = open_engine(database_url)
    migrate(engine, "services.marketplace")
    settings = settings_for("marketplace", database_url, chain_rpc_url=rpc_url, relayer_key=RELAYER_KEY)
    assert isinstance(settings, MarketplaceSettings)
    with client_of(settings) as client:
        found = Marketplace(settings, engine, client, chain)
        registered = client.post(
            "/v1/datasets", json=body_of(found, OWNER), headers={**authorised(settings, OWNER), "Idempotency-Key": "r"}
        )
        assert registered.status_code == 202, registered.text
        found.work()
        yield found
    engine.dispose()


def grant(marketplace: Marketplace, signer: LocalSigner = OWNER, **changes: Any) -> SignedCall:
    terms = {
        "dataset": 1,
        "consumer": CONSUMER.address,
        "purpose": HMB,
        "until": int(now().timestamp()) + 86_400,
        "policyVersion": 1,
        "grantEpoch": 0,
        "conditionsHash": sha256(b"conditions"),
        **changes,
    }
    return sign_call(signer, marketplace.chain.deployment, "AccessManager", "grant", terms)


def post(marketplace: Marketplace, signed: SignedCall, account: LocalSigner = OWNER) -> Any:
    return marketplace.client.post("/v1/relays", json=signed.to_json(), headers=authorised(marketplace.settings, account))


def has_access(marketplace: Marketplace) -> bool:
    return bool(marketplace.chain.contract("AccessManager").functions.hasAccess(1, CONSUMER.address, HMB).call())


def test_a_signed_call_reaches_its_contract_once(marketplace: Marketplace) -> None:
    signed = grant(marketplace)
    first, again = post(marketplace, signed), post(marketplace, signed)
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert first.json()["operation"] == "grant"
    marketplace.work()
    assert has_access(marketplace)
    relay = marketplace.get(f"/v1/relays/{first.json()['id']}", OWNER)
    assert relay["state"] in ("mined", "confirmed", "final")
    assert post(marketplace, signed).json()["id"] == relay["id"]
    assert marketplace.counts()[1:] == (2, 2)


def test_what_the_contract_would_refuse_is_answered_at_once(marketplace: Marketplace) -> None:
    answer = post(marketplace, grant(marketplace, purpose=5))
    assert answer.status_code == 409, answer.text
    assert answer.json()["error"] == "UnknownPurpose"
    assert marketplace.counts()[1] == 1


@pytest.mark.parametrize(
    ("contract", "function", "arguments"),
    [
        ("DatasetRegistry", "transferFrom", (OWNER.address, CONSUMER.address, 1)),
        ("ModelRegistry", "revoke", (b"\1" * 32, 1)),
        ("AccessManager", "hasAccess", (1, CONSUMER.address, HMB)),
    ],
)
def test_only_the_doors_that_are_open(marketplace: Marketplace, contract: str, function: str, arguments: tuple[Any, ...]) -> None:
    signed = sign_call(OWNER, marketplace.chain.deployment, contract, function, *arguments)
    answer = post(marketplace, signed)
    assert answer.status_code == 422, answer.text
    assert "expected" in answer.json()["detail"]
    assert marketplace.counts()[1] == 1


def test_nobody_hands_in_the_call_of_another(marketplace: Marketplace) -> None:
    answer = post(marketplace, grant(marketplace), CONSUMER)
    assert (answer.status_code, answer.json()["type"]) == (401, "urn:rexis:problem:signature"), answer.text
    assert "from the account that is signed in" in answer.json()["detail"]
    assert marketplace.counts()[1] == 1


def test_the_sender_must_have_signed(marketplace: Marketplace) -> None:
    right = grant(marketplace)
    for signature in (grant(marketplace, CONSUMER).signature, grant(marketplace).signature):
        answer = post(marketplace, SignedCall(right.call, signature))
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:rexis:problem:signature"), answer.text
        assert "expected a signature by" in answer.json()["detail"]
    assert marketplace.counts()[1] == 1
