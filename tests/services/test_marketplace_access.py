"""Access on real parts: request → policy → owner's signed grant → chain → index → state, and everything that is refused on it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command

from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.client.relayed_calls import sign_call
from rexis.encoding import sha256, to_hex
from rexis.policy.conditions import Conditions
from services.foundation.chain_index import ChainIndex
from services.foundation.database import migration_config, transaction
from services.marketplace import access as access_requests
from services.marketplace import grants
from services.marketplace.background import PROJECTIONS
from services.marketplace.catalogue import CatalogueProjection
from services.marketplace.grants import GrantKey
from tests.services.access_on_chain import (
    BUYER,
    GRU,
    HMB,
    HOSPITAL,
    MEMBER,
    PURPOSE,
    RESEARCHER,
    STRANGER,
    access,
    act,
    ask,
    chain_time,
    grant,
    marketplace_with_a_data_set,
    problem_of,
    register,
    rpc,
    send,
    send_call,
    terms,
)
from tests.services.marketplace_on_chain import Marketplace, croissant, registration_of, running_chain, undone

STATUSES = ("absent", "active", "expired", "suspended", "withdrawn")  # AccessManager.Status
FRESH = {"policy_version": 1, "grant_epoch": 0}
OTHER_POLICY = {"version": 1, "permission": "GRU", "diseases": [], "modifiers": {}}


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
    with marketplace_with_a_data_set(chain, rpc_url, database_url) as found:
        yield found


def state(marketplace: Marketplace, request: dict[str, Any]) -> str:
    return str(marketplace.get(f"/v1/access-requests/{request['id']}", RESEARCHER)["state"])


def status_here_and_there(marketplace: Marketplace) -> tuple[str, str]:
    """What the projection and what the contract says about the grant of data set 1 to RESEARCHER for HMB, at the same time."""
    key = GrantKey(1, RESEARCHER.address, HMB)
    with transaction(marketplace.engine, read_only=True) as session:
        block = marketplace.chain.web3.eth.get_block("latest")
        found = grants.find(session, key, datetime.fromtimestamp(block["timestamp"], UTC))
    functions = marketplace.chain.contract("AccessManager").functions
    there = STATUSES[functions.statusOf(1, RESEARCHER.address, HMB).call(block_identifier=block["number"])]
    here = found.status if found is not None else "absent"
    return "absent" if here == "revoked" else here, there


def test_from_a_request_to_a_grant_and_its_end(marketplace: Marketplace) -> None:
    request = ask(marketplace)
    assert (request["state"], request["purpose"], request["owner"], request["grant_epoch"]) == ("requested", HMB, HOSPITAL.address, 0)
    conditions = Conditions.parse(request["conditions"])
    assert (conditions.request, conditions.consumer, conditions.dataset) == (request["id"], RESEARCHER.address, 1)
    assert to_hex(conditions.digest()) == request["conditions_hash"]
    for account, role in ((RESEARCHER, "consumer"), (HOSPITAL, "owner")):
        assert marketplace.get("/v1/access-requests", account, role=role)["items"] == [request]

    def relayed(function: str, *arguments: Any) -> None:
        signed = sign_call(HOSPITAL, marketplace.chain.deployment, "AccessManager", function, *arguments)
        answer = send(marketplace, HOSPITAL, "POST", "/v1/relays", signed.to_json())
        assert answer.status_code == 202, answer.text
        marketplace.work()

    relayed("grant", terms(marketplace, request))
    assert state(marketplace, request) == "granted"
    [given] = marketplace.get("/v1/grants", dataset=1)["items"]
    assert (given["consumer"], given["purpose"], given["status"], given["grant_epoch"]) == (RESEARCHER.address, HMB, "active", 1)
    assert (given["conditions_hash"], given["granted_by"]) == (request["conditions_hash"], HOSPITAL.address)
    assert marketplace.chain.contract("AccessManager").functions.hasAccess(1, RESEARCHER.address, HMB).call()

    relayed("revoke", 1, RESEARCHER.address, HMB)
    assert state(marketplace, request) == "revoked"
    [ended] = marketplace.get("/v1/grants", consumer=RESEARCHER.address)["items"]
    assert (ended["status"], ended["until"], ended["conditions_hash"], ended["grant_epoch"]) == ("revoked", None, None, 2)


def test_the_projection_says_what_the_contract_says(marketplace: Marketplace) -> None:
    said: list[str] = []

    def both() -> None:
        here, there = status_here_and_there(marketplace)
        assert here == there, (said, here, there)
        said.append(here)

    def manager(who: LocalSigner, function: str, *arguments: Any) -> None:
        act(marketplace, who, "AccessManager", function, *arguments)
        both()

    def registry(who: LocalSigner, function: str, *arguments: Any) -> None:
        act(marketplace, who, "DatasetRegistry", function, *arguments)
        both()

    def given(epoch: int, version: int, **changes: Any) -> dict[str, Any]:
        return terms(marketplace, {**request, "grant_epoch": epoch, "policy_version": version}, **changes)

    request = ask(marketplace)
    both()
    manager(HOSPITAL, "grant", given(0, 1))
    registry(HOSPITAL, "setPolicy", 1, sha256(b"another policy"), "ipfs://policy", 1)
    manager(HOSPITAL, "grant", given(1, 2))
    registry(HOSPITAL, "transferFrom", HOSPITAL.address, BUYER.address, 1)
    manager(BUYER, "grant", given(2, 2))
    manager(BUYER, "revoke", 1, RESEARCHER.address, HMB)
    manager(BUYER, "grant", given(4, 2))
    # A grant for another purpose, and one to another consumer, are other grants.
    manager(BUYER, "grant", given(0, 2, purpose=GRU))
    manager(BUYER, "revoke", 1, STRANGER.address, HMB)
    registry(BUYER, "setState", 1, 1)
    registry(BUYER, "setState", 1, 0)
    last = chain_time(marketplace) + 30
    manager(BUYER, "grant", given(5, 2, until=last))
    for instant in (last, last + 1):
        rpc(marketplace, "evm_setNextBlockTimestamp", instant)
        rpc(marketplace, "evm_mine")
        both()
    registry(BUYER, "setState", 1, 2)
    manager(BUYER, "revoke", 1, RESEARCHER.address, HMB)
    assert said == [
        *("absent", "active", "suspended", "active", "suspended", "active", "absent", "active"),
        *("active", "active", "active", "active", "active", "active", "expired", "withdrawn", "absent"),
    ]

    before = marketplace.get("/v1/grants")
    index = ChainIndex(marketplace.engine, marketplace.chain, PROJECTIONS, marketplace.chain.deployment.start_block)
    index.reindex()
    assert marketplace.get("/v1/grants") == before


def test_a_grant_that_the_chain_forgets_is_none(marketplace: Marketplace) -> None:
    request = ask(marketplace)
    taken = rpc(marketplace, "evm_snapshot")
    grant(marketplace, request)
    assert state(marketplace, request) == "granted"
    rpc(marketplace, "evm_revert", taken)
    act(marketplace, HOSPITAL, "DatasetRegistry", "setMetadata", 1, sha256(b"x"), "ipfs://x", 1)
    assert state(marketplace, request) == "requested"
    assert marketplace.get("/v1/grants")["items"] == []


def test_grants_of_before_the_migration_are_found_after_it(marketplace: Marketplace) -> None:
    """The index of an earlier version asked the node for the registry's events only."""
    history = migration_config(marketplace.engine, "services.marketplace")
    command.downgrade(history, "0002")
    given = terms(marketplace, {"dataset": 1, "consumer": RESEARCHER.address, "purpose": HMB, "conditions_hash": "0x" + 64 * "1"} | FRESH)
    deployment = marketplace.chain.deployment
    earlier = ChainIndex(marketplace.engine, marketplace.chain, [CatalogueProjection()], deployment.start_block)
    send_call(marketplace, HOSPITAL, "AccessManager", "grant", given)
    earlier.run_once()
    command.upgrade(history, "head")
    marketplace.work()
    assert [item["status"] for item in marketplace.get("/v1/grants")["items"]] == ["active"]
    assert [item["name"] for item in marketplace.get("/v1/datasets")["items"]] == [croissant()["name"]]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_revocation_of_no_purpose_stops_nobody_from_reading_grants(marketplace: Marketplace) -> None:
    """The contract admits a revocation of any number, by whoever registered a data set."""
    access(marketplace)
    before = marketplace.get("/v1/grants")
    act(marketplace, HOSPITAL, "AccessManager", "revoke", 1, RESEARCHER.address, 5)
    assert marketplace.get("/v1/grants") == before


def test_a_request_has_the_state_of_the_grant_that_names_it(marketplace: Marketplace) -> None:
    first, second = ask(marketplace), ask(marketplace, conditions="Another study.")
    assert first["conditions_hash"] != second["conditions_hash"]
    grant(marketplace, first)
    assert (state(marketplace, first), state(marketplace, second)) == ("granted", "requested")
    shown = marketplace.get(f"/v1/access-requests/{second['id']}", HOSPITAL)
    assert shown["grant_epoch"] == 1
    grant(marketplace, shown)
    assert (state(marketplace, first), state(marketplace, second)) == ("replaced", "granted")
    act(marketplace, HOSPITAL, "DatasetRegistry", "setPolicy", 1, sha256(b"another policy"), "ipfs://policy", 1)
    assert state(marketplace, second) == "suspended"
    act(marketplace, HOSPITAL, "DatasetRegistry", "setState", 1, 2)
    assert state(marketplace, second) == "withdrawn"


REFUSED: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "a wider use than the policy's": ({"purpose": {**PURPOSE, "use": "GRU"}}, (422, "purpose-refused"), "HMB (DUO:0000006"),
    "ancestry": ({"purpose": {**PURPOSE, "use": "POA"}}, (422, "purpose-refused"), "does not cover POA"),
    "no ethics approval": ({"purpose": {**PURPOSE, "ethics_approval": False}}, (422, "purpose-refused"), "IRB (DUO:0000021"),
    "silence about commerce": ({"purpose": {"use": "HMB", "ethics_approval": True}}, (422, "purpose-refused"), "NCU (DUO:0000046"),
    "clinical care": ({"purpose": {**PURPOSE, "clinical_care": True}}, (422, "purpose-refused"), "CC (DUO:0000043"),
    "a modifier as use": ({"purpose": {**PURPOSE, "use": "IRB"}}, (422, "malformed-message"), "expected a purpose among"),
    "an unknown field": ({"purpose": {**PURPOSE, "because": "I can"}}, (422, "malformed-message"), "a purpose has the fields"),
    "another's account": ({"purpose": {**PURPOSE, "user": STRANGER.address}}, (422, "malformed-message"), "account that is signed in"),
    "an end of its own": ({"purpose": {**PURPOSE, "until": "2090-01-01"}}, (422, "malformed-message"), "follows from days"),
    "a flag that is a text": ({"purpose": {**PURPOSE, "commercial": "no"}}, (422, "malformed-message"), "true or false"),
    "too long": ({"days": 730}, (422, "validation"), "rule(s) broken"),
    "no time": ({"days": 0}, (422, "validation"), "rule(s) broken"),
    "too many words": ({"conditions": "x" * 2001}, (422, "validation"), "rule(s) broken"),
    "words that hide": ({"conditions": "approved\u202e"}, (422, "encoding"), "U+202E"),
    "no such data set": ({"dataset": 9}, (404, "not-found"), "data set 9"),
}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_is_wrong_is_refused_and_leaves_nothing(marketplace: Marketplace) -> None:
    for name, (changes, expected, detail) in REFUSED.items():
        body = {"dataset": 1, "purpose": PURPOSE, "days": 90, "conditions": "", **changes}
        answer = send(marketplace, RESEARCHER, "POST", "/v1/access-requests", body)
        assert problem_of(answer) == expected, (name, answer.text)
        assert detail in answer.json()["detail"], name
    assert marketplace.get("/v1/access-requests", RESEARCHER, role="consumer")["items"] == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_nothing_is_asked_for_where_nothing_can_be_granted(marketplace: Marketplace) -> None:
    act(marketplace, HOSPITAL, "DatasetRegistry", "register", registration_of(marketplace, croissant("elsewhere"), OTHER_POLICY))
    body = {"dataset": 2, "purpose": PURPOSE, "days": 90}
    assert problem_of(send(marketplace, RESEARCHER, "POST", "/v1/access-requests", body)) == (409, "policy-not-available")
    act(marketplace, HOSPITAL, "DatasetRegistry", "setState", 1, 1)
    assert problem_of(send(marketplace, RESEARCHER, "POST", "/v1/access-requests", {**body, "dataset": 1})) == (409, "dataset-not-active")


def test_declined_is_declined_until_the_chain_says_otherwise(marketplace: Marketplace) -> None:
    request = ask(marketplace)

    def decline(who: LocalSigner, reason: str) -> tuple[int, str]:
        answer = send(marketplace, who, "POST", f"/v1/access-requests/{request['id']}/decline", {"reason": reason})
        return (200, answer.json()["state"]) if answer.status_code == 200 else problem_of(answer)

    assert decline(STRANGER, "no") == (404, "not-found")
    assert decline(RESEARCHER, "no") == (403, "forbidden")
    assert decline(HOSPITAL, "\x00") == (422, "encoding")
    assert state(marketplace, request) == "requested"
    assert [decline(HOSPITAL, "no approval") for _ in range(2)] == [(200, "declined")] * 2
    assert decline(HOSPITAL, "another reason") == (409, "request-decided")
    assert marketplace.get(f"/v1/access-requests/{request['id']}", RESEARCHER)["reason"] == "no approval"
    grant(marketplace, request)
    assert state(marketplace, request) == "granted"
    granted = access(marketplace, consumer=STRANGER)
    answer = send(marketplace, HOSPITAL, "POST", f"/v1/access-requests/{granted['id']}/decline", {"reason": "too late"})
    assert problem_of(answer) == (409, "request-decided")


def test_each_sees_what_is_his_to_see(marketplace: Marketplace) -> None:
    request = ask(marketplace)
    path = f"/v1/access-requests/{request['id']}"
    assert problem_of(send(marketplace, STRANGER, "GET", path)) == (404, "not-found")
    for role in ("owner", "consumer"):
        assert marketplace.get("/v1/access-requests", STRANGER, role=role)["items"] == []
    assert marketplace.get("/v1/access-requests", RESEARCHER, role="owner")["items"] == []

    # A committee decides beside the owner, and goes with him.
    assert send(marketplace, MEMBER, "GET", path).status_code == 404
    act(marketplace, HOSPITAL, "AccessManager", "setCommittee", 1, [MEMBER.address], 0)
    assert [item["id"] for item in marketplace.get("/v1/access-requests", MEMBER, role="owner")["items"]] == [request["id"]]
    act(marketplace, HOSPITAL, "AccessManager", "setCommittee", 1, [], 1)
    assert send(marketplace, MEMBER, "GET", path).status_code == 404
    act(marketplace, HOSPITAL, "AccessManager", "setCommittee", 1, [MEMBER.address], 2)
    act(marketplace, HOSPITAL, "DatasetRegistry", "transferFrom", HOSPITAL.address, BUYER.address, 1)
    seen = {who.address: send(marketplace, who, "GET", path).status_code for who in (MEMBER, HOSPITAL, BUYER, RESEARCHER)}
    assert seen == {MEMBER.address: 404, HOSPITAL.address: 404, BUYER.address: 200, RESEARCHER.address: 200}


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_request_sent_again_is_one_request(marketplace: Marketplace) -> None:
    body = {"dataset": 1, "purpose": PURPOSE, "days": 90}
    answers = [send(marketplace, RESEARCHER, "POST", "/v1/access-requests", body, **{"Idempotency-Key": "one"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(marketplace.get("/v1/access-requests", RESEARCHER, role="consumer")["items"]) == 1


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_nobody_floods_an_owner_with_requests(marketplace: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_requests, "MAX_UNDECIDED", 2)
    first, _ = ask(marketplace), ask(marketplace)
    body = {"dataset": 1, "purpose": PURPOSE, "days": 90}
    refused = send(marketplace, RESEARCHER, "POST", "/v1/access-requests", body)
    assert problem_of(refused) == (429, "request-quota")
    ask(marketplace, consumer=STRANGER)
    grant(marketplace, first)
    ask(marketplace)


def test_pages_hold_each_request_and_each_grant_once(marketplace: Marketplace) -> None:
    register(marketplace, HOSPITAL, metadata=croissant("second"))
    for dataset in (1, 2, 1):
        ask(marketplace, dataset=dataset)
    for dataset, consumer in ((2, RESEARCHER), (1, STRANGER), (1, RESEARCHER)):
        grant(marketplace, ask(marketplace, dataset=dataset, consumer=consumer))

    def pages(path: str, account: LocalSigner | None = None, **query: str | int) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        cursor = None
        while cursor is not None or not seen:
            page = marketplace.get(path, account, limit=2, **query, **({"cursor": cursor} if cursor else {}))
            seen += page["items"]
            cursor = page["next_cursor"]
        return seen

    requests = pages("/v1/access-requests", HOSPITAL, role="owner")
    assert [item["created_at"] for item in requests] == sorted((item["created_at"] for item in requests), reverse=True)
    assert len({item["id"] for item in requests}) == 6
    found = [(item["dataset"], item["consumer"]) for item in pages("/v1/grants")]
    assert found == [*((1, address) for address in sorted((STRANGER.address, RESEARCHER.address))), (2, RESEARCHER.address)]
    other = send(marketplace, STRANGER, "GET", f"/v1/access-requests?role=consumer&cursor={requests[0]['id']}")
    expected = 200 if requests[0]["consumer"] == STRANGER.address else 422
    assert other.status_code == expected
