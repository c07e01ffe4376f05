"""Signed calls that a service sends as they are: what it admits, what it refuses, and that a call is sent once."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rexis.chain.connection import Chain
from rexis.chain.delegated_signer import DelegatedSigner
from rexis.chain.delegations import delegate_arguments, scopes_of
from rexis.chain.signer import LocalSigner, Signer, development_signer
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


def grant(marketplace: Marketplace, signer: Signer = OWNER, **changes: Any) -> SignedCall:
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


def delegate(marketplace: Marketplace, agent: LocalSigner, *names: str, version: int = 0) -> None:
    """The owner's own key signs once, the marketplace pays."""
    deployment = marketplace.chain.deployment
    arguments = delegate_arguments(agent.address, scopes_of(deployment, names), now() + timedelta(days=30), version)
    answer = post(marketplace, sign_call(OWNER, deployment, "KeyDelegation", "delegate", *arguments))
    assert (answer.status_code, answer.json().get("operation")) == (202, "delegate"), answer.text
    marketplace.work()


def test_an_agent_hands_in_calls_of_its_institution(marketplace: Marketplace) -> None:
    agent = LocalSigner.generate()
    acting = DelegatedSigner(OWNER.address, agent)
    before = post(marketplace, grant(marketplace, acting))
    assert (before.status_code, before.json()["type"]) == (401, "urn:rexis:problem:signature")
    assert "expected a signature by" in before.json()["detail"]
    delegate(marketplace, agent, "grants")
    answer = post(marketplace, grant(marketplace, acting))
    assert answer.status_code == 202, answer.text
    marketplace.work()
    assert has_access(marketplace)
    # The agent's account is another one: what it hands in is its own, not its institution's.
    stranger = post(marketplace, grant(marketplace, acting, grantEpoch=1), agent)
    assert (stranger.status_code, "from the account that is signed in" in stranger.json()["detail"]) == (401, True)


def test_an_agent_is_told_what_its_delegation_lacks(marketplace: Marketplace) -> None:
    agent = LocalSigner.generate()
    acting, deployment = DelegatedSigner(OWNER.address, agent), marketplace.chain.deployment
    delegate(marketplace, agent, "committee")
    revoking = sign_call(OWNER, deployment, "KeyDelegation", "revoke", agent.address)
    widening = sign_call(
        acting, deployment, "KeyDelegation", "delegate", *delegate_arguments(agent.address, scopes_of(deployment, ["grants"]), now(), 1)
    )
    for signed, why in ((grant(marketplace, acting), "AccessManager.grant"), (widening, "KeyDelegation.delegate")):
        answer = post(marketplace, signed)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:rexis:problem:signature"), answer.text
        assert f"does not cover {why}" in answer.json()["detail"]
    appointed = post(marketplace, sign_call(acting, deployment, "AccessManager", "setCommittee", 1, [CONSUMER.address], 0))
    assert (appointed.status_code, appointed.json()["operation"]) == (202, "setCommittee")
    assert post(marketplace, revoking).status_code == 202
    marketplace.work()
    assert marketplace.chain.contract("AccessManager").functions.isOnCommittee(1, CONSUMER.address).call() is True
    committee = sign_call(acting, deployment, "AccessManager", "setCommittee", 1, [], 1)
    assert "was revoked" in post(marketplace, committee).json()["detail"]


def test_a_call_that_an_agent_may_no_longer_sign_fails_on_its_way(marketplace: Marketplace) -> None:
    """Promised while the delegation stood; revoked before it was sent."""
    agent = LocalSigner.generate()
    delegate(marketplace, agent, "grants")
    promised = post(marketplace, grant(marketplace, DelegatedSigner(OWNER.address, agent)))
    assert promised.status_code == 202
    delegations = marketplace.chain.contract("KeyDelegation")
    sent = delegations.functions.revoke(agent.address).transact({"from": OWNER.address})
    marketplace.chain.web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)
    marketplace.work()
    relay = marketplace.get(f"/v1/relays/{promised.json()['id']}", OWNER)
    assert (relay["state"], relay["revert"]["error"]) == ("failed", "DelegationRevoked"), relay
    assert relay["revert"]["arguments"] == {"from": OWNER.address, "signer": agent.address}
    assert not has_access(marketplace)


def test_a_call_without_a_function_is_refused(marketplace: Marketplace) -> None:
    right = grant(marketplace)
    short = replace(right.call, data=right.call.data[:3])
    digest = short.typed_data(31337, marketplace.chain.deployment.contracts["Forwarder"].address)
    answer = post(marketplace, SignedCall(short, OWNER.sign_typed_data(digest)))
    assert answer.status_code == 422, answer.text
