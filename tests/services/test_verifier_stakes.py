"""Batches with a bond on them: as the verifier shows them, frees them, and lets their holders and operators act on them."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from web3 import Web3

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.permits import no_permit, sign_permit
from rexis.chain.signer import LocalSigner
from rexis.cli.receipt_claims import Evidence, examine
from rexis.commitments import LeafKind, Receipt
from rexis.commitments.positional_tree import leaf_hash
from rexis.encoding import from_hex, sha256, to_hex
from rexis.protocol.claims import Verdict
from rexis.protocol.relayed_call import RelayedCall, random_nonce
from services.foundation.chain_index import ChainIndex
from services.foundation.database import migrate, now, open_engine, transaction
from services.foundation.outbox.transactions import ChainIntent
from services.verifier import releases
from services.verifier.background import PROJECTIONS
from services.verifier.models import BatchChallenge, CommittedBatch, OperatorStake, OperatorTerms
from services.verifier.stakes import lack_of_stake
from tests.services.chain_process import transact
from tests.services.marketplace_on_chain import running_chain, undone
from tests.services.service_applications import authorised, client_of
from tests.services.test_verifier import CLINIC, STRANGER
from tests.services.test_verifier_batches import OPERATOR, Verifier, settings_on, some, vouch

REGISTRY, CREDIT = "InferenceRegistry", "LocalCredit"
ARBITER = LocalSigner.generate()
BOND = 50 * 10**18
DAY = 24 * 3600
WRONG = sha256(b"salted: the answer is not the model's")


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def chain(rpc_url: str) -> Iterator[Chain]:
    with undone(rpc_url) as connection:
        yield connection


@pytest.fixture
def model() -> bytes:
    return sha256(random_nonce().to_bytes(32))


@pytest.fixture
def verifier(database_url: str, chain: Chain, rpc_url: str, model: bytes) -> Iterator[Verifier]:
    """Has a stake for two batches, and a model that its owner vouches for."""
    engine = open_engine(database_url)
    migrate(engine, "services.verifier")
    settings = settings_on(database_url, rpc_url)
    send(chain, CREDIT, "mint", OPERATOR.address, 10 * BOND)
    send(chain, CREDIT, "mint", CLINIC.address, 10 * BOND)
    send(chain, CREDIT, "approve", address(chain, REGISTRY), 10 * BOND)
    send(chain, REGISTRY, "deposit", address(chain, CREDIT), 2 * BOND, no_permit())
    send(chain, REGISTRY, "setTerms", {"token": address(chain, CREDIT), "bond": BOND, "arbiter": ARBITER.address}, 0)
    vouch(chain, model)
    with client_of(settings) as client:
        made = Verifier(settings, engine, client, chain)
        made.work(1)
        yield made
    engine.dispose()


def address(chain: Chain, contract: str) -> str:
    return chain.deployment.contracts[contract].address


def send(chain: Chain, contract: str, function: str, *arguments: Any, by: str = OPERATOR.address) -> None:
    """By an account of the node, at once."""
    data = to_hex(encode_call(contract, function, *arguments))
    transact(str(chain.web3.provider.endpoint_uri), **{"from": by, "to": address(chain, contract), "data": data})


def wait(chain: Chain, seconds: int) -> None:
    for method, parameters in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
        chain.web3.manager.request_blocking(method, parameters)


def relay(verifier: Verifier, who: LocalSigner, function: str, *arguments: Any, contract: str = REGISTRY) -> Any:
    """`POST /v1/relays` with a call that `who` signed."""
    chain = verifier.chain
    data = encode_call(contract, function, *arguments)
    call = RelayedCall(who.address, address(chain, contract), 500_000, random_nonce(), int(now().timestamp()) + 3600, data)
    signature = who.sign_typed_data(call.typed_data(chain.deployment.chain_id, address(chain, "Forwarder")))
    body = {"request": call.to_json(), "signature": to_hex(signature)}
    return verifier.client.post("/v1/relays", json=body, headers=authorised(verifier.settings, who))


def anchored(verifier: Verifier, *given: Receipt) -> str:
    """Hands receipts in and has them committed; returns the id of their batch."""
    verifier.deposit(*given)
    verifier.work()
    (batch,) = {verifier.view(each)["batch"] for each in given}
    return str(batch)


def challenge(verifier: Verifier, given: Receipt) -> Any:
    """The clinic challenges its receipt, and pays by a permit within the relayed call."""
    bundle, chain = verifier.bundle(given), verifier.chain
    assert bundle.receipt.index is not None
    leaf = leaf_hash(LeafKind.RECEIPT, bundle.batch.context, bundle.receipt.index, bundle.receipt.leaf())
    deadline = int(now().timestamp()) + 3600
    permit = sign_permit(chain.web3, CLINIC, address(chain, CREDIT), address(chain, REGISTRY), BOND, deadline)
    return relay(verifier, CLINIC, "challenge", bundle.batch.id, bundle.receipt.index, leaf, list(bundle.proof), WRONG, permit)


def claim(verifier: Verifier, given: Receipt, rpc_url: str | None) -> tuple[Verdict, str]:
    claims = examine(verifier.bundle(given).to_bytes(), Evidence(rpc_url=rpc_url))
    (found,) = [(each.verdict, each.why) for each in claims if each.name == "batch-unrejected"]
    return found


def rows(verifier: Verifier) -> list[list[Any]]:
    """Everything that is projected."""
    tables = CommittedBatch, OperatorTerms, OperatorStake, BatchChallenge
    with transaction(verifier.engine, read_only=True) as session:
        return [session.execute(select(*table.__table__.columns).order_by(*table.__table__.primary_key)).all() for table in tables]


def test_a_challenge_that_nobody_answers_rejects_the_batch_for_everybody_who_asks(verifier: Verifier, model: bytes, rpc_url: str) -> None:
    given = some(3, model)
    batch = anchored(verifier, *given)
    shown = verifier.get(f"/v1/batches/{batch}")
    bond = {"token": address(verifier.chain, CREDIT), "amount": str(BOND), "arbiter": ARBITER.address}
    assert (shown["status"], shown["bond"], shown["challenges"]) == ("pending", bond, [])
    assert claim(verifier, given[0], rpc_url) == (Verdict.PASS, "")
    assert claim(verifier, given[0], None) == (Verdict.NOT_CHECKED, "name a node with --rpc")

    answer = challenge(verifier, given[1])
    assert answer.status_code == 202, answer.text
    verifier.work()
    shown = verifier.get(f"/v1/batches/{batch}")
    (made,) = shown["challenges"]
    index = verifier.bundle(given[1]).receipt.index
    assert (shown["status"], verifier.view(given[0])["status"]) == ("challenged", "challenged")
    assert (made["index"], made["challenger"], made["outcome"], made["reason"]) == (index, CLINIC.address, "open", to_hex(WRONG))
    verdict, why = claim(verifier, given[0], rpc_url)
    assert (verdict, "challenged on chain" in why) == (Verdict.NOT_CHECKED, True)

    wait(verifier.chain, 3 * DAY + 1)
    send(verifier.chain, REGISTRY, "settle", from_hex(batch), index, CLINIC.address)
    verifier.work()
    shown = verifier.get(f"/v1/batches/{batch}")
    assert (shown["status"], shown["challenges"][0]["outcome"], shown["challenges"][0]["grounds"]) == ("rejected", "upheld", None)
    assert verifier.view(given[2])["status"] == "rejected"
    verdict, why = claim(verifier, given[2], rpc_url)
    assert (verdict, "a challenge of one of its answers was upheld" in why) == (Verdict.FAIL, True)

    # What the chain tells can be told anew, row for row.
    before = rows(verifier)
    ChainIndex(verifier.engine, verifier.chain, PROJECTIONS, 0).reindex()
    assert rows(verifier) == before
    assert all(before)


def test_receipts_wait_while_the_stake_is_bound_and_no_call_is_wasted_on_them(verifier: Verifier, model: bytes) -> None:
    first, second, third = some(3, model)
    anchored(verifier, first)
    anchored(verifier, second)
    verifier.deposit(third)
    verifier.work()
    assert verifier.view(third)["state"] == "waiting"
    calls = verifier.count(ChainIntent)
    with transaction(verifier.engine, read_only=True) as session:
        assert f"expected free stake of {BOND}" in str(lack_of_stake(session, OPERATOR.address))
    send(verifier.chain, REGISTRY, "deposit", address(verifier.chain, CREDIT), BOND, no_permit())
    verifier.work()
    assert verifier.view(third)["state"] == "on-chain"
    assert verifier.count(ChainIntent) == calls + 1


def test_bonds_come_free_once_in_time_and_not_before(verifier: Verifier, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    given = some(1, model)
    batch = anchored(verifier, *given)

    def calls() -> list[tuple[str, str]]:
        with transaction(verifier.engine, read_only=True) as session:
            mine = select(ChainIntent).where(ChainIntent.label == "free a bond").order_by(ChainIntent.sequence)
            return [(intent.key, intent.state) for intent in session.scalars(mine)]

    verifier.work()
    assert calls() == []
    # This machine's clock is ahead of the chain's: the contract refuses, and is not asked again at once.
    monkeypatch.setattr(releases, "MARGIN", timedelta(days=-8))
    verifier.work()
    assert calls() == [(f"finalise {batch} #1", "failed")]
    monkeypatch.setattr(releases, "PAUSE", timedelta(0))
    wait(verifier.chain, 7 * DAY + 1)
    verifier.work(5)
    assert calls()[:1] == [(f"finalise {batch} #1", "failed")]
    assert [key for key, state in calls() if state != "failed"] == [calls()[-1][0]]
    registry = verifier.chain.contract(REGISTRY).functions
    assert registry.stakeOf(OPERATOR.address, address(verifier.chain, CREDIT)).call() == (2 * BOND, 0)
    assert verifier.get(f"/v1/batches/{batch}")["status"] == "final"
    made = calls()
    verifier.work(2)
    assert calls() == made


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_what_the_arbiter_leaves_undecided_is_settled_and_the_bond_freed(
    verifier: Verifier, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (given,) = some(1, model)
    batch = anchored(verifier, given)
    assert challenge(verifier, given).status_code == 202
    verifier.work()
    send(verifier.chain, REGISTRY, "answerChallenge", from_hex(batch), 0, CLINIC.address, WRONG)
    verifier.work()
    assert verifier.get(f"/v1/batches/{batch}")["challenges"][0]["outcome"] == "answered"
    wait(verifier.chain, 15 * DAY)
    monkeypatch.setattr(releases, "MARGIN", timedelta(days=-30))
    verifier.work(6)
    shown = verifier.get(f"/v1/batches/{batch}")
    assert (shown["status"], shown["challenges"][0]["outcome"]) == ("final", "undecided")
    registry, credit = verifier.chain.contract(REGISTRY).functions, address(verifier.chain, CREDIT)
    assert registry.stakeOf(OPERATOR.address, credit).call() == (2 * BOND, 0)
    assert registry.creditOf(credit, CLINIC.address).call() == BOND


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_doors_open_for_the_calls_of_parties_and_for_no_others(verifier: Verifier, model: bytes) -> None:
    (given,) = some(1, model)
    batch = anchored(verifier, given)
    refused = relay(verifier, STRANGER, "commit", OPERATOR.address, model, 1, model, 1)
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:rexis:problem:malformed-message")
    # What the contract refuses is a typed problem.
    refused = relay(verifier, STRANGER, "answerChallenge", from_hex(batch), 0, CLINIC.address, WRONG)
    assert refused.json()["type"] == "urn:rexis:problem:contract-reverted"
    assert refused.json()["error"] == "NotOperator"
    refused = relay(verifier, CLINIC, "deposit", address(verifier.chain, CREDIT), BOND, no_permit())
    assert refused.json()["type"] == "urn:rexis:problem:contract-reverted"  # he approved nothing
    # Who pays is who signed: the operator's own money, by a permit.
    chain, deadline = verifier.chain, int(now().timestamp()) + 3600
    permit = sign_permit(chain.web3, OPERATOR, address(chain, CREDIT), address(chain, REGISTRY), BOND, deadline)
    assert relay(verifier, OPERATOR, "deposit", address(chain, CREDIT), BOND, permit).status_code == 202
    verifier.work()
    registry = chain.contract(REGISTRY).functions
    assert registry.stakeOf(Web3.to_checksum_address(OPERATOR.address), address(chain, CREDIT)).call() == (3 * BOND, BOND)
