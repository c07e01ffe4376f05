"""Jobs in escrow on real parts: signed steps through the relay → chain → index → what each party reads, and nobody else."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from rexis.chain.connection import Chain
from rexis.chain.permits import sign_permit
from rexis.chain.signer import LocalSigner
from rexis.client.relayed_calls import sign_call
from rexis.encoding import sha256, to_hex
from services.foundation.chain_index import ChainIndex
from services.marketplace import job_routes
from services.marketplace.background import PROJECTIONS
from tests.services.access_on_chain import (
    BUYER,
    DAY,
    HMB,
    HOSPITAL,
    STRANGER,
    access,
    act,
    chain_time,
    marketplace_with_a_data_set,
    problem_of,
    rpc,
    send,
    send_call,
)
from tests.services.marketplace_on_chain import Marketplace, running_chain, undone

# Without ether: they act through the marketplace alone.
CONSUMER, PROVIDER, ARBITER = (LocalSigner.generate() for _ in range(3))
PARTIES = {"consumer": CONSUMER, "provider": PROVIDER, "arbiter": ARBITER, "owner": HOSPITAL}
STATES = ("absent", "requested", "accepted", "committed", "disputed", "released", "resolved", "refunded")  # ComputeJobs.Status
ALGORITHM, RESULT, LOGS, REASON = (sha256(part) for part in (b"algorithm", b"result", b"logs", b"reason"))
# More than 64 bits hold.
PRICE = 10**24


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
    """With access for CONSUMER, trust in PROVIDER and ALGORITHM, and money."""
    with marketplace_with_a_data_set(chain, rpc_url, database_url) as found:
        access(found, consumer=CONSUMER)
        step(found, HOSPITAL, "trustAlgorithm", 1, ALGORITHM, 0)
        step(found, HOSPITAL, "trustProvider", 1, PROVIDER.address, 0)
        send_call(found, HOSPITAL, "LocalCredit", "mint", CONSUMER.address, PRICE)
        yield found


def step(marketplace: Marketplace, who: LocalSigner, function: str, *arguments: Any) -> None:
    """A signed call through the marketplace's relay, once the chain has it."""
    signed = sign_call(who, marketplace.chain.deployment, "ComputeJobs", function, *arguments)
    answer = send(marketplace, who, "POST", "/v1/relays", signed.to_json())
    assert answer.status_code == 202, answer.text
    # A busy node takes a transaction before it mines it.
    for _ in range(100):
        marketplace.work()
        relay = marketplace.get(f"/v1/relays/{answer.json()['id']}", who)
        if relay["state"] in ("mined", "final"):
            return
        time.sleep(0.05)
    raise AssertionError(relay)


def request_job(marketplace: Marketplace, *, price: int = PRICE, document: bytes = b"document") -> bytes:
    """Ask for a job, paid by a permit in the same call; its id."""
    chain, now = marketplace.chain, chain_time(marketplace)
    token, jobs = chain.deployment.contracts["LocalCredit"].address, chain.contract("ComputeJobs")
    terms = {
        "dataset": 1,
        "purpose": HMB,
        "provider": PROVIDER.address,
        "arbiter": ARBITER.address,
        "algorithm": ALGORITHM,
        "document": sha256(document),
        "token": token,
        "price": price,
        "acceptUntil": now + DAY,
        "runSeconds": 2 * DAY,
        "reviewSeconds": 3 * DAY,
    }
    permit = sign_permit(chain.web3, CONSUMER, token, jobs.address, price, now + DAY)
    step(marketplace, CONSUMER, "request", terms, permit)
    return bytes(jobs.functions.jobId(CONSUMER.address, terms).call())


def read(marketplace: Marketplace, job: bytes) -> dict[str, Any]:
    """A job as every party sees it, after comparing it with the contract."""
    seen = [marketplace.get(f"/v1/compute-jobs/{to_hex(job)}", party) for party in PARTIES.values()]
    seen += [item for role, party in PARTIES.items() for item in jobs_of(marketplace, party, role=role) if item["id"] == to_hex(job)]
    assert len(seen) == 8
    assert all(each == seen[0] for each in seen)
    assert seen[0]["state"] == STATES[marketplace.chain.contract("ComputeJobs").functions.statusOf(job).call()]
    return dict(seen[0])


def jobs_of(marketplace: Marketplace, who: LocalSigner, **query: Any) -> list[dict[str, Any]]:
    return list(marketplace.get("/v1/compute-jobs", who, **query)["items"])


def test_the_parties_read_what_the_chain_holds_at_every_step(marketplace: Marketplace) -> None:
    job = request_job(marketplace)
    found = read(marketplace, job)
    assert (found["consumer"], found["provider"], found["arbiter"], found["owner"]) == tuple(party.address for party in PARTIES.values())
    assert (found["state"], found["price"], found["purpose"], found["overdue"]) == ("requested", str(PRICE), HMB, False)
    assert (found["algorithm"], found["document"]) == (to_hex(ALGORITHM), to_hex(sha256(b"document")))

    step(marketplace, PROVIDER, "accept", job)
    assert read(marketplace, job)["state"] == "accepted"
    step(marketplace, PROVIDER, "commitResult", job, RESULT, LOGS, bytes(32))
    found = read(marketplace, job)
    assert (found["result"], found["logs"], found["meter"], found["ended_by"]) == (to_hex(RESULT), to_hex(LOGS), None, None)
    step(marketplace, CONSUMER, "dispute", job, REASON)
    assert read(marketplace, job)["dispute_reason"] == to_hex(REASON)
    step(marketplace, ARBITER, "resolve", job, 2_500)
    found = read(marketplace, job)
    assert (found["state"], found["ended_by"], found["deadline"]) == ("resolved", "arbiter", None)
    assert (found["paid"], found["royalty"], found["refunded"]) == (str(PRICE // 4), "0", str(PRICE - PRICE // 4))

    # What they are owed they fetch, without ether, the same way.
    token = marketplace.chain.contract("LocalCredit")
    step(marketplace, PROVIDER, "withdraw", token.address, PROVIDER.address)
    assert token.functions.balanceOf(PROVIDER.address).call() == PRICE // 4

    before = [marketplace.get("/v1/compute-jobs", party, role=role) for role, party in PARTIES.items()]
    ChainIndex(marketplace.engine, marketplace.chain, PROJECTIONS, marketplace.chain.deployment.start_block).reindex()
    assert [marketplace.get("/v1/compute-jobs", party, role=role) for role, party in PARTIES.items()] == before


def test_every_end_is_told_by_its_name(marketplace: Marketplace) -> None:
    ends: dict[str, list[tuple[LocalSigner, str, tuple[Any, ...]]]] = {
        "cancelled": [(CONSUMER, "cancel", ())],
        "declined": [(PROVIDER, "decline", ())],
        "abandoned": [(PROVIDER, "accept", ()), (PROVIDER, "abandon", ())],
        "consumer": [(PROVIDER, "accept", ()), (PROVIDER, "commitResult", (RESULT, LOGS, LOGS)), (CONSUMER, "release", ())],
    }
    for end, steps in ends.items():
        job = request_job(marketplace, price=100, document=end.encode())
        for who, function, arguments in steps:
            step(marketplace, who, function, job, *arguments)
        found = read(marketplace, job)
        assert found["ended_by"] == end
        assert int(found["paid"]) + int(found["royalty"]) + int(found["refunded"]) == 100
    pages = marketplace.get("/v1/compute-jobs", CONSUMER, role="consumer", limit=3)
    rest = marketplace.get("/v1/compute-jobs", CONSUMER, role="consumer", limit=3, cursor=pages["next_cursor"])
    assert [len(pages["items"]), len(rest["items"]), rest["next_cursor"]] == [3, 1, None]
    assert [item["ended_by"] for item in [*pages["items"], *rest["items"]]] == [*reversed(ends)]
    assert len(jobs_of(marketplace, CONSUMER, role="consumer", state="refunded")) == 3


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_job_is_its_parties_and_moves_with_its_data_set(marketplace: Marketplace) -> None:
    job = request_job(marketplace)
    path = f"/v1/compute-jobs/{to_hex(job)}"
    assert problem_of(send(marketplace, STRANGER, "GET", path)) == (404, "not-found")
    assert all(jobs_of(marketplace, STRANGER, role=role) == [] for role in PARTIES)
    act(marketplace, HOSPITAL, "DatasetRegistry", "transferFrom", HOSPITAL.address, BUYER.address, 1)
    assert problem_of(send(marketplace, HOSPITAL, "GET", path)) == (404, "not-found")
    assert marketplace.get(path, BUYER)["owner"] == BUYER.address
    assert [item["id"] for item in jobs_of(marketplace, BUYER, role="owner")] == [to_hex(job)]
    # What the contract refuses is answered at once, by its name.
    signed = sign_call(PROVIDER, marketplace.chain.deployment, "ComputeJobs", "accept", job)
    answer = send(marketplace, PROVIDER, "POST", "/v1/relays", signed.to_json())
    assert problem_of(answer)[1] == "contract-reverted"
    assert "AccessNotGranted" in answer.text


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_an_overdue_job_is_shown_and_anybody_ends_it(marketplace: Marketplace, monkeypatch: pytest.MonkeyPatch) -> None:
    job = request_job(marketplace)
    assert jobs_of(marketplace, PROVIDER, role="provider", overdue=True) == []
    deadline = marketplace.chain.contract("ComputeJobs").functions.get(job).call()[6]
    rpc(marketplace, "evm_setNextBlockTimestamp", deadline + 1)
    rpc(marketplace, "evm_mine")
    monkeypatch.setattr(job_routes, "now", lambda: datetime.fromtimestamp(deadline + 1, UTC))
    assert (read(marketplace, job)["state"], read(marketplace, job)["overdue"]) == ("requested", True)
    assert [item["id"] for item in jobs_of(marketplace, PROVIDER, role="provider", overdue=True)] == [to_hex(job)]
    act(marketplace, STRANGER, "ComputeJobs", "timeout", job)
    found = read(marketplace, job)
    assert (found["state"], found["ended_by"], found["overdue"], found["refunded"]) == ("refunded", "not-accepted", False, str(PRICE))
