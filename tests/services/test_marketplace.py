"""The path of a data set on real parts: signed call → checks → outbox → chain → index → catalogue, and everything that is refused on it."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from httpx2 import Response

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner, development_signer
from rexis.encoding import canonical_json, sha256, to_hex
from rexis.protocol.relayed_call import RelayedCall
from rexis.protocol.sign_in import SignInMessage
from services.foundation.chain_index import ChainIndex
from services.foundation.database import migrate, now, open_engine
from services.foundation.relays import records
from services.foundation.settings import LOCAL_CHAIN_ID
from services.marketplace.catalogue import CatalogueProjection
from services.marketplace.settings import MarketplaceSettings
from tests.services.marketplace_on_chain import (
    POLICY,
    RELAYER_KEY,
    Marketplace,
    body_of,
    call_of,
    croissant,
    registration_of,
    running_chain,
    signed,
    undone,
)
from tests.services.service_applications import authorised, client_of, settings_for

# An account that lends itself to contracts and accepts every signature (ERC-1271), and one that accepts none.
ACCEPTS, REFUSES = (
    bytes.fromhex(f"7f{word:064x}60005260206000f3") for word in (int.from_bytes(bytes.fromhex("1626ba7e"), "big") << 224, 0)
)


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
        yield Marketplace(settings, engine, client, chain)
    engine.dispose()


def post(marketplace: Marketplace, account: LocalSigner, body: Any, **headers: str) -> Response:
    return marketplace.client.post("/v1/datasets", json=body, headers={**authorised(marketplace.settings, account), **headers})


def register(marketplace: Marketplace, owner: LocalSigner, **changes: Any) -> dict[str, Any]:
    """Hand a right request in and return the relay's view once it is mined and indexed."""
    answer = post(marketplace, owner, body_of(marketplace, owner, **changes))
    assert answer.status_code == 202, answer.text
    marketplace.work()
    found: dict[str, Any] = marketplace.get(f"/v1/relays/{answer.json()['id']}", owner)
    return found


def on_chain(marketplace: Marketplace, sender: LocalSigner, function: str, *arguments: Any) -> None:
    """A call of the registry that does not go through the marketplace; the sender pays itself."""
    web3 = marketplace.chain.web3
    account = web3.to_checksum_address(sender.address)
    if web3.eth.get_balance(account) == 0:
        payer = web3.to_checksum_address(development_signer(0).address)
        web3.eth.wait_for_transaction_receipt(web3.eth.send_transaction({"from": payer, "to": account, "value": web3.to_wei(1, "ether")}))
    fields = {
        "chainId": LOCAL_CHAIN_ID,
        "to": marketplace.chain.deployment.contracts["DatasetRegistry"].address,
        "value": 0,
        "data": encode_call("DatasetRegistry", function, *arguments),
        "gas": 1_000_000,
        "gasPrice": web3.eth.gas_price,
        "nonce": web3.eth.get_transaction_count(account),
    }
    sent = web3.eth.send_raw_transaction(sender.sign_transaction(fields))
    assert web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)["status"] == 1


def sign_in(marketplace: Marketplace, signer: LocalSigner) -> dict[str, str]:
    """Sign in as a wallet does, and return the headers."""
    offer = marketplace.client.post("/v1/sign-in/nonce").json()
    issued = now().replace(microsecond=0)
    message = SignInMessage(
        domain=offer["domain"],
        address=signer.address,
        statement="Sign in to Rexis.",
        uri=offer["uri"],
        version="1",
        chain_id=offer["chain_id"],
        nonce=offer["nonce"],
        issued_at=issued,
        expiration_time=issued.replace(year=issued.year + 1),
    )
    answer = marketplace.client.post("/v1/sign-in", json={"message": message.text(), "signature": to_hex(signer.sign_in(message))})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def test_a_data_set_goes_from_a_signature_to_the_catalogue(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    headers = sign_in(marketplace, hospital)
    body = body_of(marketplace, hospital)
    answer = marketplace.client.post("/v1/datasets", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    relay = answer.json()
    assert (relay["state"], relay["operation"], relay["sender"], relay["token_id"]) == ("queued", "register", hospital.address, None)
    digests = {name: to_hex(sha256(canonical_json(body[name]))) for name in ("metadata", "policy")}
    for digest in digests.values():
        assert marketplace.client.get(f"/v1/documents/{digest}").status_code == 404, "published before it is on chain"

    deadline = time.monotonic() + 30
    while relay["state"] != "final":
        assert time.monotonic() < deadline, relay
        marketplace.work()
        relay = marketplace.client.get(f"/v1/relays/{relay['id']}", headers=headers).json()
        time.sleep(0.2)
    entry = marketplace.get(f"/v1/datasets/{relay['token_id']}")
    registry = marketplace.chain.contract("DatasetRegistry")
    record = registry.functions.get(relay["token_id"]).call()
    assert [entry["content_root"], entry["policy_hash"], entry["metadata_hash"]] == [to_hex(value) for value in record[:3]]
    assert entry["owner"] == entry["registrant"] == registry.functions.ownerOf(relay["token_id"]).call() == hospital.address
    assert (entry["transaction_hash"], entry["block_number"]) == (relay["transaction_hash"], relay["block_number"])
    assert (entry["metadata"], entry["policy"], entry["note"]) == (body["metadata"], body["policy"], None)
    summary = {name: value for name, value in entry.items() if name not in ("metadata", "policy")}
    assert marketplace.get("/v1/datasets") == {"items": [summary], "next_cursor": None}

    document = marketplace.client.get(registry.functions.tokenURI(relay["token_id"]).call())
    assert to_hex(sha256(document.content)) == entry["metadata_hash"]
    assert document.headers["content-type"] == "application/json"
    assert marketplace.client.get(f"/v1/documents/{digests['policy']}").json() == body["policy"]


HOSPITAL, RIVAL = LocalSigner.generate(), LocalSigner.generate()
Tamper = Callable[[Marketplace], dict[str, Any]]


def resigned(marketplace: Marketplace, **changes: Any) -> dict[str, Any]:
    return body_of(marketplace, HOSPITAL, call=changes)


def relayed(marketplace: Marketplace, data: bytes) -> dict[str, Any]:
    call = call_of(marketplace, HOSPITAL.address, data)
    documents = {"metadata": croissant(), "policy": POLICY}
    return {**documents, "request": call.to_json(), "signature": to_hex(signed(marketplace, HOSPITAL, call))}


def changed_after_signing(marketplace: Marketplace, **changes: Any) -> dict[str, Any]:
    body = body_of(marketplace, HOSPITAL)
    return {**body, "request": {**body["request"], **changes}}


def for_another_chain(marketplace: Marketplace) -> dict[str, Any]:
    body = body_of(marketplace, HOSPITAL)
    return {**body, "signature": to_hex(signed(marketplace, HOSPITAL, RelayedCall.parse(body["request"]), chain_id=1))}


def by_another_key(marketplace: Marketplace) -> dict[str, Any]:
    body = body_of(marketplace, HOSPITAL)
    return {**body, "signature": to_hex(signed(marketplace, RIVAL, RelayedCall.parse(body["request"])))}


def with_trailing_bytes(marketplace: Marketplace) -> dict[str, Any]:
    return relayed(marketplace, encode_call("DatasetRegistry", "register", registration_of(marketplace, croissant(), POLICY)) + bytes(32))


MALFORMED, REVERTED, UNSIGNED = (422, "malformed-message"), (409, "contract-reverted"), (401, "signature")
REFUSED: dict[str, tuple[Tamper, tuple[int, str], str]] = {
    "other metadata": (lambda m: {**body_of(m, HOSPITAL), "metadata": croissant("another")}, (422, "verification"), "metadataHash"),
    "other policy": (lambda m: {**body_of(m, HOSPITAL), "policy": {**POLICY, "permission": "GRU"}}, (422, "verification"), "policyHash"),
    "policy out of its normal form": (
        lambda m: body_of(m, HOSPITAL, policy={"version": 1, "permission": "HMB"}), MALFORMED, "normal form",
    ),
    "unknown permission": (lambda m: body_of(m, HOSPITAL, policy={**POLICY, "permission": "ANY"}), MALFORMED, "expected one of"),
    "not Croissant": (lambda m: body_of(m, HOSPITAL, metadata={"name": "x"}), MALFORMED, "sc:Dataset"),
    "a float": (lambda m: {**body_of(m, HOSPITAL), "metadata": croissant(mean=0.5)}, (422, "encoding"), "float"),
    "a name too long": (lambda m: body_of(m, HOSPITAL, metadata=croissant("x" * 201)), MALFORMED, "200 characters"),
    "too deep": (lambda m: {**body_of(m, HOSPITAL), "metadata": croissant(x=json.loads("[" * 90 + "]" * 90))}, (422, "encoding"), "levels"),
    "too large": (lambda m: {**body_of(m, HOSPITAL), "metadata": croissant(x="x" * (513 << 10))}, MALFORMED, "524288 bytes"),
    "another's call": (lambda m: body_of(m, RIVAL), UNSIGNED, "account that is signed in"),
    "another's signature": (by_another_key, UNSIGNED, RIVAL.address),
    "signed for another chain": (for_another_chain, UNSIGNED, "expected a signature by"),
    "gas changed after signing": (lambda m: changed_after_signing(m, gas="700000"), UNSIGNED, "expected a signature by"),
    "nonce changed after signing": (lambda m: changed_after_signing(m, nonce="7"), UNSIGNED, "expected a signature by"),
    "another contract": (lambda m: resigned(m, to=m.chain.deployment.contracts["Forwarder"].address), MALFORMED, "expected one to"),
    "another function": (lambda m: relayed(m, encode_call("DatasetRegistry", "setState", 1, 2)), MALFORMED, "register, got"),
    "no function": (lambda m: relayed(m, b"\x00\x01"), MALFORMED, "no function"),
    "trailing bytes": (with_trailing_bytes, MALFORMED, "canonical form"),
    "a deadline that passed": (lambda m: resigned(m, deadline=int(now().timestamp()) - 5), MALFORMED, "deadline"),
    "a deadline too near": (lambda m: resigned(m, deadline=int(now().timestamp()) + 30), MALFORMED, "deadline"),
    "a deadline too far": (lambda m: resigned(m, deadline=2**48 - 1), MALFORMED, "deadline"),
    "too little gas": (lambda m: resigned(m, gas=100), MALFORMED, "gas"),
    "too much gas": (lambda m: resigned(m, gas=30_000_000), MALFORMED, "gas"),
    "a place that is not ours": (
        lambda m: body_of(m, HOSPITAL, registration={"uri": "http://elsewhere.example/x"}), MALFORMED, "uri",
    ),
    "an unknown member": (lambda m: {**body_of(m, HOSPITAL), "price": 5}, (422, "validation"), "rule(s) broken"),
    "royalty over the limit": (lambda m: body_of(m, HOSPITAL, registration={"royaltyBps": 5000}), REVERTED, "RoyaltyTooHigh"),
    "a parent that is not there": (lambda m: body_of(m, HOSPITAL, registration={"parents": [9]}), REVERTED, "UnknownParent"),
    "no content": (lambda m: body_of(m, HOSPITAL, registration={"contentRoot": bytes(32)}), REVERTED, "ZeroHash"),
}  # fmt: skip


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_and_leaves_nothing(marketplace: Marketplace, name: str) -> None:
    tamper, (status, kind), detail = REFUSED[name]
    answer = post(marketplace, HOSPITAL, tamper(marketplace))
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:rexis:problem:{kind}"), answer.text
    assert detail in answer.json()["detail"]
    assert marketplace.counts() == (0, 0, 0)


def test_a_revert_reaches_the_caller_decoded(marketplace: Marketplace) -> None:
    hospital, root = LocalSigner.generate(), bytes([7]) * 32
    relay = register(marketplace, hospital, registration={"contentRoot": root})
    answer = post(marketplace, hospital, body_of(marketplace, hospital, registration={"contentRoot": root}))
    problem = answer.json()
    assert (answer.status_code, problem["contract"], problem["error"]) == (409, "DatasetRegistry", "ContentAlreadyRegistered")
    assert problem["arguments"] == {"registrant": hospital.address, "contentRoot": to_hex(root), "id": relay["token_id"]}


def test_of_two_calls_that_can_not_both_succeed_one_fails_with_its_reason(marketplace: Marketplace) -> None:
    """Both pass the check before either is mined."""
    hospital, root = LocalSigner.generate(), bytes([8]) * 32
    relays = [post(marketplace, hospital, body_of(marketplace, hospital, registration={"contentRoot": root})).json() for _ in range(2)]
    marketplace.work()
    marketplace.work()
    first, second = (marketplace.get(f"/v1/relays/{relay['id']}", hospital) for relay in relays)
    assert first["token_id"] is not None
    assert (second["state"], second["revert"]["error"], second["token_id"]) == ("failed", "ContentAlreadyRegistered", None)
    assert "ContentAlreadyRegistered" in second["error"]
    assert len(marketplace.get("/v1/datasets", owner=hospital.address)["items"]) == 1


def test_a_request_sent_again_is_one_relay(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    body = body_of(marketplace, hospital)
    first = post(marketplace, hospital, body, **{"Idempotency-Key": "one"})
    # Without the key, after a lost answer, and with the key after it was mined, when the chain would refuse the nonce.
    without_key = post(marketplace, hospital, body)
    marketplace.work()
    replayed, mined = post(marketplace, hospital, body, **{"Idempotency-Key": "one"}), post(marketplace, hospital, body)
    assert {answer.json()["id"] for answer in (first, without_key, replayed, mined)} == {first.json()["id"]}
    assert replayed.json() == first.json()
    assert (replayed.headers["Idempotency-Replayed"], mined.json()["token_id"]) == ("true", 1)
    other = post(marketplace, hospital, body_of(marketplace, hospital), **{"Idempotency-Key": "one"})
    assert (other.status_code, other.json()["type"]) == (422, "urn:rexis:problem:idempotency-key-reused")
    assert marketplace.counts() == (2, 1, 1)


def test_a_nonce_that_promises_another_call_already_is_refused(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    assert post(marketplace, hospital, body_of(marketplace, hospital, call={"nonce": 5})).status_code == 202
    answer = post(marketplace, hospital, body_of(marketplace, hospital, call={"nonce": 5}))
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:rexis:problem:unexpected-message")
    assert marketplace.counts() == (2, 1, 1)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_nobody_makes_the_marketplace_pay_for_any_number_of_calls(marketplace: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_UNSETTLED", 2)
    hospital, other = LocalSigner.generate(), LocalSigner.generate()
    bodies = [body_of(marketplace, hospital) for _ in range(3)]
    assert [post(marketplace, hospital, body).status_code for body in bodies] == [202, 202, 429]
    assert post(marketplace, hospital, bodies[0]).status_code == 202, "what was taken on before is no new call"
    assert post(marketplace, other, body_of(marketplace, other)).status_code == 202
    assert marketplace.counts() == (2, 3, 3)


def test_a_data_set_registered_without_us_is_in_the_catalogue(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    registration = registration_of(marketplace, croissant("elsewhere"), POLICY, uri="ipfs://x")
    on_chain(marketplace, hospital, "register", registration)
    marketplace.work()
    [summary] = marketplace.get("/v1/datasets")["items"]
    assert (summary["owner"], summary["name"], summary["note"]) == (hospital.address, None, "metadata not available")
    entry = marketplace.get(f"/v1/datasets/{summary['token_id']}")
    assert (entry["metadata"], entry["policy"], entry["uri"]) == (None, None, "ipfs://x")


@pytest.mark.parametrize("poison", [b"\xff", b"\x00"], ids=["not UTF-8", "zero byte"])
def test_an_event_with_hostile_bytes_does_not_stop_the_catalogue(marketplace: Marketplace, poison: bytes) -> None:
    registration = registration_of(marketplace, croissant("poison"), POLICY, uri="ipfs://POISON")
    call_data = encode_call("DatasetRegistry", "register", registration).replace(b"POISON", poison * 6)
    registry: Any = marketplace.chain.deployment.contracts["DatasetRegistry"].address
    anyone: Any = development_signer(2).address
    eth = marketplace.chain.web3.eth
    sent = eth.send_transaction({"from": anyone, "to": registry, "data": to_hex(call_data)})
    assert eth.wait_for_transaction_receipt(sent)["status"] == 1
    honest = register(marketplace, LocalSigner.generate())
    [newest, poisoned] = marketplace.get("/v1/datasets")["items"]
    assert newest["token_id"] == honest["token_id"]
    assert marketplace.get(f"/v1/datasets/{poisoned['token_id']}")["uri"] == "ipfs://" + "\ufffd" * 6


def test_the_catalogue_follows_what_owners_change(marketplace: Marketplace) -> None:
    hospital, buyer = LocalSigner.generate(), LocalSigner.generate()
    parent = register(marketplace, hospital)["token_id"]
    child = register(marketplace, hospital, metadata=croissant("derived"), registration={"parents": [parent], "royaltyBps": 250})[
        "token_id"
    ]
    before = marketplace.get(f"/v1/datasets/{child}")
    assert (before["parents"], before["royalty_bps"], before["policy_version"], before["state"]) == ([parent], 250, 1, "active")
    on_chain(marketplace, hospital, "setPolicy", child, bytes([1]) * 32, "ipfs://policy", 1)
    on_chain(marketplace, hospital, "setMetadata", child, bytes([2]) * 32, "ipfs://metadata", 1)
    on_chain(marketplace, hospital, "transferFrom", hospital.address, buyer.address, child)
    on_chain(marketplace, buyer, "setState", child, 2)
    marketplace.work()
    after = marketplace.get(f"/v1/datasets/{child}")
    assert (after["policy_hash"], after["policy_version"]) == ("0x" + "01" * 32, 2)
    assert (after["metadata_hash"], after["metadata_version"], after["uri"]) == ("0x" + "02" * 32, 2, "ipfs://metadata")
    assert (after["owner"], after["registrant"], after["owner_epoch"], after["state"]) == (buyer.address, hospital.address, 1, "withdrawn")
    assert after["note"] == "metadata not available"
    # Grants refer to the policy that was in force: a document that was replaced stays where it was published.
    assert marketplace.client.get(f"/v1/documents/{before['policy_hash']}").json() == POLICY
    assert [item["token_id"] for item in marketplace.get("/v1/datasets", owner=buyer.address)["items"]] == [child]
    assert [item["token_id"] for item in marketplace.get("/v1/datasets", registrant=hospital.address)["items"]] == [child, parent]
    assert [item["token_id"] for item in marketplace.get("/v1/datasets", state="active")["items"]] == [parent]
    assert [item["token_id"] for item in marketplace.get("/v1/datasets", content_root=before["content_root"])["items"]] == [child]


def test_the_catalogue_is_a_function_of_the_events(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    parent = register(marketplace, hospital)["token_id"]
    child = register(marketplace, hospital, metadata=croissant("derived"), registration={"parents": [parent]})["token_id"]
    on_chain(marketplace, hospital, "setState", parent, 1)
    marketplace.work()
    paths = ["/v1/datasets", f"/v1/datasets/{parent}", f"/v1/datasets/{child}"]
    before = [marketplace.get(path) for path in paths]
    assert before[1]["state"] == "deprecated"
    index = ChainIndex(marketplace.engine, marketplace.chain, [CatalogueProjection()], marketplace.chain.deployment.start_block)
    assert index.reindex() > 0
    assert [marketplace.get(path) for path in paths] == before


def test_a_registration_that_the_chain_forgets_leaves_the_catalogue(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    kept = register(marketplace, hospital)["token_id"]
    node: Any = marketplace.chain.web3.provider
    taken = node.make_request("evm_snapshot", [])["result"]
    registration = registration_of(marketplace, croissant(), POLICY)
    on_chain(marketplace, hospital, "register", registration)
    marketplace.work()
    lost = marketplace.get("/v1/datasets")["items"][0]
    assert lost["content_root"] == to_hex(registration["contentRoot"])
    assert node.make_request("evm_revert", [taken])["result"] is True
    # Another history: the same token id is another data set now.
    on_chain(marketplace, hospital, "register", {**registration, "contentRoot": bytes([9]) * 32, "uri": "ipfs://y"})
    marketplace.work()
    after = marketplace.get("/v1/datasets")["items"]
    assert [(item["token_id"], item["content_root"]) for item in after] == [
        (lost["token_id"], "0x" + "09" * 32),
        (kept, marketplace.get(f"/v1/datasets/{kept}")["content_root"]),
    ]


def test_pages_hold_each_data_set_once_newest_first(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    for _ in range(5):
        on_chain(marketplace, hospital, "register", registration_of(marketplace, croissant(), POLICY))
    marketplace.work()
    seen: list[int] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        page = marketplace.get("/v1/datasets", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [item["token_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("code", "status"), [(ACCEPTS, 202), (REFUSES, 401)])
def test_a_contract_account_signs_as_its_code_says(marketplace: Marketplace, code: bytes, status: int) -> None:
    wallet, key = LocalSigner.generate(), LocalSigner.generate()
    node: Any = marketplace.chain.web3.provider
    node.make_request("anvil_setCode", [wallet.address, to_hex(code)])
    body = body_of(marketplace, wallet)
    call = RelayedCall.parse(body["request"])
    answer = post(marketplace, wallet, {**body, "signature": to_hex(signed(marketplace, key, call))})
    assert answer.status_code == status, answer.text
    marketplace.work()
    owners = [item["owner"] for item in marketplace.get("/v1/datasets")["items"]]
    assert owners == ([wallet.address] if status == 202 else [])


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_without_the_chain_the_catalogue_is_read_and_nothing_is_promised(marketplace: Marketplace) -> None:
    hospital = LocalSigner.generate()
    register(marketplace, hospital)
    settings = settings_for("marketplace", marketplace.settings.database_url)
    body = body_of(marketplace, hospital)
    with client_of(settings) as client:
        assert len(client.get("/v1/datasets").json()["items"]) == 1
        assert client.get("/v1/chain").json()["chain_id"] == LOCAL_CHAIN_ID
        assert client.get("/readyz").json()["failures"]["chain"] == "UnavailableError"
        answer = client.post("/v1/datasets", json=body, headers=authorised(settings, hospital))
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:rexis:problem:unavailable")
    assert marketplace.counts() == (2, 1, 1)


def test_the_chain_and_its_contracts_are_public(marketplace: Marketplace) -> None:
    found = marketplace.get("/v1/chain")
    recorded = {name: contract.address for name, contract in marketplace.chain.deployment.contracts.items()}
    assert (found["chain_id"], found["contracts"]) == (LOCAL_CHAIN_ID, recorded)
    assert found["documents_url"] == f"{marketplace.settings.public_url}/v1/documents"
