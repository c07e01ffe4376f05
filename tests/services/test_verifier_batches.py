"""Receipts on their way to the chain: each in exactly one batch, whatever dies when, and provable without the verifier afterwards."""

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine, LargeBinary, String, column, func, select, table, update
from typer.testing import CliRunner

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner, development_signer
from rexis.cli.command import app
from rexis.cli.home import Profile, write_private, write_profile
from rexis.cli.receipt_claims import Evidence, examine
from rexis.client.verifier import VerifierClient
from rexis.commitments import Receipt
from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.errors import ServiceError, UnavailableError
from rexis.protocol.claims import Verdict
from rexis.protocol.receipt_bundle import ReceiptBundle
from services.foundation.chain_index import ChainIndex
from services.foundation.database import Instant, migrate, migration_config, now, open_engine, transaction
from services.foundation.outbox.transactions import ChainIntent
from services.verifier import batching
from services.verifier.background import PROJECTIONS, jobs
from services.verifier.models import CommittedBatch, ReceiptBatch, StoredReceipt
from services.verifier.settings import VerifierSettings
from tests.services.chain_process import Halt, Proxy, transact
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import RELAYER_KEY, running_chain, undone
from tests.services.service_applications import authorised, client_of, connected, environment_of, serving, settings_for
from tests.services.test_marketplace import ACCEPTS, REFUSES
from tests.services.test_verifier import CLINIC, PROVIDER, STRANGER, receipt

ROOT = Path(__file__).parents[2]
OPERATOR = LocalSigner(bytes.fromhex(RELAYER_KEY))
# Accounts of the node, with ether.
OWNER, OTHER = development_signer(2), development_signer(3)
# Account 4 of the development mnemonic.
OTHER_KEY = "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a"
SPEC = sha256(b"spec")
SUPERSEDED = 5


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def chain(rpc_url: str) -> Iterator[Chain]:
    with undone(rpc_url) as connection:
        yield connection


@dataclass
class Verifier:
    """One verifier with its background jobs, run by hand."""

    settings: VerifierSettings
    engine: Engine
    client: TestClient
    chain: Chain

    def __post_init__(self) -> None:
        self._jobs = jobs(self.settings, self.engine)

    def work(self, passes: int = 3) -> None:
        """So many passes of each job."""
        for _ in range(passes):
            for job in self._jobs:
                job.run()

    def promise(self) -> None:
        """Batch what is due, and go no further."""
        self._jobs[0].run()

    def deposit(self, *receipts: Receipt, by: LocalSigner = CLINIC, owner: LocalSigner | None = None) -> None:
        query = {"owner": owner.address} if owner else {}
        for each in receipts:
            answer = self.client.post("/v1/receipts", json=each.to_json(), params=query, headers=authorised(self.settings, by))
            assert answer.is_success, answer.text

    def get(self, path: str, by: LocalSigner = CLINIC, *, status: int = 200) -> Any:
        answer = self.client.get(path, headers=authorised(self.settings, by))
        assert answer.status_code == status, answer.text
        return answer.json()

    def view(self, given: Receipt) -> Any:
        return self.get(f"/v1/receipts/{to_hex(given.digest)}")

    def bundle(self, given: Receipt) -> ReceiptBundle:
        answer = self.client.get(f"/v1/receipts/{to_hex(given.digest)}/bundle", headers=authorised(self.settings, CLINIC))
        assert answer.status_code == 200, answer.text
        return ReceiptBundle.parse(answer.content)

    def count(self, table: type[Any]) -> int:
        with transaction(self.engine, read_only=True) as session:
            return session.scalar(select(func.count()).select_from(table)) or 0


def vouch(chain: Chain, model: bytes, owner: LocalSigner = OWNER) -> None:
    act(chain, owner, "authorise", model, SPEC, "https://trainer.example/v1/models/1")


def act(chain: Chain, owner: LocalSigner, function: str, *arguments: Any) -> None:
    to = chain.deployment.contracts["ModelRegistry"].address
    data = to_hex(encode_call("ModelRegistry", function, *arguments))
    transact(str(chain.web3.provider.endpoint_uri), **{"from": owner.address, "to": to, "data": data})


def settings_on(database_url: str, rpc_url: str, **changes: Any) -> VerifierSettings:
    given = {"chain_rpc_url": rpc_url, "relayer_key": RELAYER_KEY, "batch_seconds": 0.001, **changes}
    settings = settings_for("verifier", database_url, **given)
    assert isinstance(settings, VerifierSettings)
    return settings


@pytest.fixture
def verifier(database_url: str, chain: Chain, rpc_url: str) -> Iterator[Verifier]:
    engine = open_engine(database_url)
    migrate(engine, "services.verifier")
    settings = settings_on(database_url, rpc_url)
    with client_of(settings) as client:
        yield Verifier(settings, engine, client, chain)
    engine.dispose()


@pytest.fixture
def model() -> bytes:
    return secrets.token_bytes(32)


def some(count: int, model: bytes) -> list[Receipt]:
    return [receipt(model=model, input=sha256(b"x%d" % n), salt=secrets.token_bytes(16)) for n in range(count)]


def verify_on_chain(chain: Chain, bundle: ReceiptBundle) -> None:
    """The contract's own verdict; it reverts otherwise."""
    given, index = bundle.receipt, bundle.receipt.index
    call = chain.contract("InferenceRegistry").functions.verify(bundle.batch.id, index, given.digest, given.salt, list(bundle.proof))
    call.call()


def test_a_receipt_waits_for_its_owner_and_is_then_shown_on_chain_by_its_bundle(verifier: Verifier, model: bytes) -> None:
    given = some(5, model)
    verifier.deposit(*given)
    verifier.work()
    for each in given:
        found = verifier.view(each)
        assert (found["state"], found["batch"], found["receipt"]["batch"]) == ("waiting", None, None)
        assert found["reason"] == f"no owner vouches for model {to_hex(model)} on chain yet"
        refused = verifier.get(f"/v1/receipts/{to_hex(each.digest)}/bundle", status=409)
        assert refused["type"] == "urn:rexis:problem:not-on-chain"
    vouch(verifier.chain, model)
    verifier.work(1)
    verifier.promise()
    vouched = verifier.view(given[0])
    assert (vouched["state"], vouched["reason"]) == ("promised", None)
    verifier.work()

    places = {}
    for each in given:
        found = verifier.view(each)
        assert (found["state"], found["reason"]) == ("on-chain", None)
        bundle = verifier.bundle(each)
        bundle.verify()
        verify_on_chain(verifier.chain, bundle)
        assert Receipt.parse(found["receipt"]) == bundle.receipt
        assert replace(bundle.receipt, batch=None, index=None) == each
        assert (bundle.batch.operator, bundle.batch.owner, bundle.batch.sequence) == (OPERATOR.address, OWNER.address, 1)
        places[bundle.receipt.index] = bundle.batch.id
    assert sorted(places) == list(range(5))
    (batch,) = set(places.values())

    shown = verifier.get(f"/v1/batches/{to_hex(batch)}")
    assert (shown["state"], shown["count"], shown["operator"]) == ("on-chain", 5, OPERATOR.address)
    held = verifier.chain.contract("InferenceRegistry").functions.get(batch).call()
    assert to_hex(held[-1]) == shown["record"]
    for path in (f"/v1/batches/{to_hex(batch)}", f"/v1/receipts/{to_hex(given[0].digest)}/bundle"):
        verifier.get(path, by=STRANGER, status=404)
        verifier.get(path, by=PROVIDER)

    # What the chain tells can be told anew: nothing changes.
    ChainIndex(verifier.engine, verifier.chain, PROJECTIONS, 0).reindex()
    assert verifier.view(given[0])["state"] == "on-chain"
    verifier.work()
    assert verifier.count(ReceiptBatch) == 1


def test_batches_are_full_or_old(database_url: str, chain: Chain, rpc_url: str, model: bytes) -> None:
    engine = open_engine(database_url)
    migrate(engine, "services.verifier")
    settings = settings_on(database_url, rpc_url, batch_receipts=3, batch_seconds=3600)
    with client_of(settings) as client:
        verifier = Verifier(settings, engine, client, chain)
        vouch(chain, model)
        given = some(7, model)
        verifier.deposit(*given)
        verifier.work(4)
        assert sorted(verifier.view(each)["state"] for each in given) == ["on-chain"] * 6 + ["waiting"]
        (last,) = [each for each in given if verifier.view(each)["state"] == "waiting"]
        with transaction(engine) as session:
            session.execute(update(StoredReceipt).where(StoredReceipt.batch.is_(None)).values(waiting_since=now() - timedelta(hours=1)))
        verifier.work()
        bundle = verifier.bundle(last)
        assert (bundle.count, bundle.batch.sequence, bundle.proof) == (1, 3, ())
        verify_on_chain(chain, bundle)
    engine.dispose()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_claim_that_two_issuers_signed_stands_twice(verifier: Verifier, model: bytes) -> None:
    vouch(verifier.chain, model)
    mine, other = receipt(model=model), receipt(STRANGER, model=model)
    assert mine.digest == other.digest
    verifier.deposit(mine, other)
    verifier.work()
    bundles = []
    for each in (mine, other):
        path = f"/v1/receipts/{to_hex(each.digest)}/bundle?issuer={each.issuer}"
        bundles.append(ReceiptBundle.parse(verifier.client.get(path, headers=authorised(verifier.settings, CLINIC)).content))
        bundles[-1].verify()
        verify_on_chain(verifier.chain, bundles[-1])
    assert {bundle.receipt.index for bundle in bundles} == {0, 1}


def test_a_receipt_of_a_model_that_nobody_vouches_for_is_set_aside_and_may_come_again(verifier: Verifier, model: bytes) -> None:
    (given,) = some(1, model)
    verifier.deposit(given)
    with transaction(verifier.engine) as session:
        session.execute(update(StoredReceipt).values(waiting_since=now() - timedelta(hours=25)))
    verifier.work()
    found = verifier.view(given)
    assert found["state"] == "set-aside"
    assert "hand the receipt in again" in found["reason"]
    vouch(verifier.chain, model)
    verifier.work()
    assert verifier.view(given)["state"] == "set-aside"
    verifier.deposit(given)
    assert verifier.view(given)["state"] == "waiting"
    verifier.work()
    assert verifier.view(given)["state"] == "on-chain"


def test_who_authorises_somebody_elses_model_first_gets_none_of_its_receipts(verifier: Verifier, model: bytes) -> None:
    """Anybody who sees the record can authorise it before its owner does: the issuer says whose it is."""
    named, unnamed, others = some(3, model)
    vouch(verifier.chain, model, OTHER)
    verifier.deposit(named, by=PROVIDER, owner=OWNER)
    verifier.deposit(named)
    verifier.work()
    found = verifier.view(named)
    assert (found["state"], found["batch"], found["owner"]) == ("waiting", None, OWNER.address)
    assert found["reason"] == f"{OWNER.address}, whom the issuer named as the owner, does not vouch for model {to_hex(model)} on chain yet"

    vouch(verifier.chain, model, OWNER)
    verifier.work(1)
    verifier.deposit(unnamed)
    verifier.work()
    assert verifier.view(named)["state"] == "on-chain"
    assert verifier.bundle(named).batch.owner == OWNER.address
    found = verifier.view(unnamed)
    assert (found["state"], found["batch"]) == ("waiting", None)
    assert "several owners vouch" in found["reason"]

    # Nor does he hold anything up by taking it back while a batch of his own is on its way.
    verifier.deposit(others, by=PROVIDER, owner=OTHER)
    verifier.deposit(others)
    verifier.promise()
    assert verifier.view(others)["state"] == "promised"
    act(verifier.chain, OTHER, "revoke", model, SUPERSEDED)
    verifier.deposit(unnamed, by=PROVIDER, owner=OWNER)
    verifier.work()
    assert verifier.bundle(unnamed).batch.owner == OWNER.address
    assert verifier.view(others)["state"] == "waiting"
    verify_on_chain(verifier.chain, verifier.bundle(unnamed))


def test_a_receipt_without_owner_is_set_aside_in_time_and_comes_again_with_one(verifier: Verifier, model: bytes) -> None:
    for owner in (OTHER, OWNER):
        vouch(verifier.chain, model, owner)
    verifier.work(1)
    (given,) = some(1, model)
    verifier.deposit(given)
    with transaction(verifier.engine) as session:
        session.execute(update(StoredReceipt).values(waiting_since=now() - timedelta(hours=25)))
    verifier.work()
    found = verifier.view(given)
    assert (found["state"], "several owners vouch" in found["reason"]) == ("set-aside", True)
    verifier.deposit(given, by=PROVIDER, owner=OWNER)
    verifier.work()
    assert verifier.bundle(given).batch.owner == OWNER.address


def test_what_the_chain_refuses_goes_into_another_batch(verifier: Verifier, model: bytes) -> None:
    """The owner takes the model back after the batch was promised; another one vouches for it."""
    vouch(verifier.chain, model)
    verifier.work(1)
    given = some(3, model)
    verifier.deposit(*given)
    verifier.promise()
    promised = verifier.view(given[0])
    assert promised["state"] == "promised"
    act(verifier.chain, OWNER, "revoke", model, SUPERSEDED)
    verifier.work()
    assert [verifier.view(each)["state"] for each in given] == ["waiting"] * 3
    assert "no owner vouches" in verifier.view(given[0])["reason"]
    verifier.get(f"/v1/batches/{promised['batch']}", status=404)
    with transaction(verifier.engine, read_only=True) as session:
        given_up = session.get_one(ReceiptBatch, promised["batch"])
        assert given_up.outcome == "given-up"
        assert "ModelNotAuthorised" in str(given_up.reason)

    # At once: an owner whose batch failed holds up nobody else.
    vouch(verifier.chain, model, OTHER)
    verifier.work()
    for each in given:
        bundle = verifier.bundle(each)
        assert bundle.batch.owner == OTHER.address
        verify_on_chain(verifier.chain, bundle)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_verifier_that_lost_its_database_takes_no_number_twice(
    verifier: Verifier, model: bytes, rpc_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PAUSE", timedelta(0))
    vouch(verifier.chain, model)
    old, new = some(1, model)[0], some(2, model)[1]
    verifier.deposit(old)
    verifier.work()
    assert verifier.bundle(old).batch.sequence == 1

    settings = settings_on(f"sqlite:///{tmp_path / 'new.sqlite'}", rpc_url)
    engine = open_engine(settings.database_url)
    migrate(engine, "services.verifier")
    with client_of(settings) as client:
        reborn = Verifier(settings, engine, client, verifier.chain)
        reborn.deposit(new)
        reborn.work()
        bundle = reborn.bundle(new)
        assert bundle.batch.sequence == 2
        verify_on_chain(verifier.chain, bundle)
    engine.dispose()


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_a_key_that_is_changed_on_the_way_loses_no_receipt(verifier: Verifier, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator is part of a batch's id, so that a commitment by the new key is another batch than the promised one."""
    monkeypatch.setattr(batching, "INDEX_LAG", timedelta(0))
    vouch(verifier.chain, model)
    verifier.work(1)
    given = some(2, model)
    verifier.deposit(*given)
    verifier.promise()
    promised = verifier.view(given[0])["batch"]
    settings = verifier.settings.model_copy(update={"relayer_key": SecretStr(OTHER_KEY)})
    after = Verifier(settings, verifier.engine, verifier.client, verifier.chain)

    def reach(state: str) -> None:
        deadline = time.monotonic() + 30
        while after.view(given[0])["state"] != state:
            assert time.monotonic() < deadline
            after.work(1)
            time.sleep(0.1)

    reach("waiting")
    after.work()
    assert after.view(given[0])["state"] == "waiting"  # not at once, or a chain that refuses would be asked without end
    monkeypatch.setattr(batching, "PAUSE", timedelta(0))
    reach("on-chain")
    for each in given:
        bundle = after.bundle(each)
        assert bundle.batch.operator == LocalSigner(bytes.fromhex(OTHER_KEY)).address
        verify_on_chain(verifier.chain, bundle)
    with transaction(verifier.engine, read_only=True) as session:
        assert session.get_one(ReceiptBatch, promised).outcome == "given-up"


def test_receipts_from_before_there_were_batches_are_batched(database_url: str, chain: Chain, rpc_url: str, model: bytes) -> None:
    engine = open_engine(database_url)
    command.upgrade(migration_config(engine, "services.verifier"), "0001")
    (given,) = some(1, model)
    row = {"digest": to_hex(given.digest), "issuer": given.issuer, "content": canonical_json(given.to_json()), "received_at": now()}
    columns = {"digest": String, "issuer": String, "content": LargeBinary, "received_at": Instant}
    with engine.begin() as connection:
        connection.execute(table("receipt", *(column(name, kind) for name, kind in columns.items())).insert().values(**row))
    migrate(engine, "services.verifier")
    settings = settings_on(database_url, rpc_url)
    with client_of(settings) as client:
        verifier = Verifier(settings, engine, client, chain)
        verifier.deposit(given)
        vouch(chain, model)
        verifier.work()
        verify_on_chain(chain, verifier.bundle(given))
    engine.dispose()


# Processes that die.


def background(settings: VerifierSettings, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "services.verifier.background"], cwd=ROOT, env=environment_of(settings), stdout=file, stderr=file
        )


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def until(reached: Callable[[], bool], log: Path, *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not reached():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def assert_each_in_one_batch(verifier: Verifier, given: list[Receipt]) -> None:
    """By what the chain holds: the batches of this operator hold these receipts, each once, and nothing else."""
    events = verifier.chain.contract("InferenceRegistry").events.BatchCommitted().get_logs(from_block=0)
    mine = {bytes(event["args"]["batch"]): event["args"]["count"] for event in events if event["args"]["model"] == given[0].model}
    assert sum(mine.values()) == len(given)
    places = set()
    for each in given:
        bundle = verifier.bundle(each)
        bundle.verify()
        verify_on_chain(verifier.chain, bundle)
        assert bundle.count == mine[bundle.batch.id]
        places.add((bundle.batch.id, bundle.receipt.index))
    assert len(places) == len(given)


def all_on_chain(verifier: Verifier, expected: int) -> bool:
    with transaction(verifier.engine, read_only=True) as session:
        joined = select(func.count()).select_from(StoredReceipt).join(CommittedBatch, CommittedBatch.id == StoredReceipt.batch)
        return session.scalar(joined) == expected


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("place", ["before it is sent", "after it is sent", "before it is tried"])
def test_killed_at_the_worst_moments(verifier: Verifier, model: bytes, place: str, tmp_path: Path) -> None:
    """SIGKILL between signature and sending, between sending and its record, and between promise and signature."""
    log, proxy, halt = tmp_path / "log", Proxy(str(verifier.chain.web3.provider.endpoint_uri)), Halt()
    hooks, method = {
        "before it is sent": (proxy.before, "eth_sendRawTransaction"),
        "after it is sent": (proxy.after, "eth_sendRawTransaction"),
        "before it is tried": (proxy.before, "eth_estimateGas"),
    }[place]
    hooks[method] = halt
    settings = verifier.settings.model_copy(update={"chain_rpc_url": proxy.url})
    vouch(verifier.chain, model)
    given = some(6, model)
    verifier.deposit(*given)
    process = background(settings, log)
    try:
        assert halt.reached.wait(60), log.read_text()
        # What was sent is mined, so the index of this process may know it before the relay does.
        known = {"promised", "on-chain"} if place == "after it is sent" else {"promised"}
        assert {verifier.view(each)["state"] for each in given} <= known
        kill(process)
        halt.released.set()
        wait_for_lease = time.monotonic()
        process = background(settings, log)
        until(lambda: all_on_chain(verifier, 6), log)
        assert time.monotonic() - wait_for_lease < 60
    finally:
        kill(process)
        proxy.close()
    assert_each_in_one_batch(verifier, given)
    assert verifier.count(ReceiptBatch) == 1
    assert verifier.count(ChainIntent) == 1


def test_killed_again_and_again_while_receipts_come(verifier: Verifier, model: bytes, tmp_path: Path) -> None:
    """Two background processes on one database, of which one is always being killed, at arbitrary moments."""
    log = tmp_path / "log"
    vouch(verifier.chain, model)
    settings = verifier.settings.model_copy(update={"batch_receipts": 4, "batch_seconds": 0.2})
    given = some(18, model)
    processes = [background(settings, log) for _ in range(2)]
    try:
        until(lambda: log.exists() and "is active" in log.read_text(), log)
        for round_number in range(3):
            for each in given[6 * round_number : 6 * round_number + 6]:
                verifier.deposit(each)
                time.sleep(secrets.randbelow(100) / 1000)
            kill(processes[round_number % 2])
            processes[round_number % 2] = background(settings, log)
        until(lambda: all_on_chain(verifier, len(given)), log, within_s=120)
    finally:
        for process in processes:
            kill(process)
    assert_each_in_one_batch(verifier, given)


# The holder of a receipt.


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_auditor_asks_the_chain_itself(verifier: Verifier, model: bytes, rpc_url: str) -> None:
    vouch(verifier.chain, model)
    given = some(3, model)
    verifier.deposit(*given)
    verifier.work()
    bundle = verifier.bundle(given[1])

    def verdicts(changed: ReceiptBundle) -> dict[str, Verdict]:
        evidence = Evidence(issuer=PROVIDER.address, owner=OWNER.address, rpc_url=rpc_url)
        return {claim.name: claim.verdict for claim in examine(replace(changed, checksum=None).to_bytes(), evidence)}

    true = verdicts(bundle)
    asked = {"form", "checksum", "receipt-signature", "issuer-expected", "batch-id", "owner-expected", "inclusion"}
    asked |= {"record-on-chain", "batch-unrejected", "model-authorised"}
    assert {name for name, verdict in true.items() if verdict is Verdict.PASS} == asked
    assert Verdict.FAIL not in true.values()

    committed = bundle.committed
    for what, other in {
        "another transaction": replace(committed, transaction=bytes(32)),
        "a transaction of somebody else": replace(committed, transaction=a_transaction_before(verifier.chain, committed.block_number)),
        "another block": replace(committed, block_number=committed.block_number - 1),
        "no such block": replace(committed, block_number=committed.block_number + 10**6),
        "another block hash": replace(committed, block_hash=bytes(32)),
    }.items():
        assert verdicts(replace(bundle, committed=other))["record-on-chain"] is Verdict.FAIL, what
    for changed in (
        replace(bundle, record=bytes(32)),
        replace(bundle, count=4),
        replace(bundle, batch=replace(bundle.batch, sequence=2)),
        replace(bundle, batch=replace(bundle.batch, registry=OWNER.address)),
        replace(bundle, batch=replace(bundle.batch, chain_id=1)),
    ):
        assert verdicts(changed)["record-on-chain"] is Verdict.FAIL

    act(verifier.chain, OWNER, "revoke", model, SUPERSEDED)
    revoked = verdicts(bundle)
    assert (revoked["record-on-chain"], revoked["model-authorised"]) == (Verdict.PASS, Verdict.FAIL)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_only_its_chain_tells_whether_a_contract_account_signed(verifier: Verifier, model: bytes, rpc_url: str) -> None:
    wallet, key = LocalSigner.generate(), LocalSigner.generate()
    node: Any = verifier.chain.web3.provider
    node.make_request("anvil_setCode", [wallet.address, to_hex(ACCEPTS)])
    given = receipt(key, model=model, issuer=wallet.address)
    vouch(verifier.chain, model)
    verifier.deposit(given)
    verifier.work()
    bundle = verifier.bundle(given)

    def found(shown: ReceiptBundle, url: str | None = rpc_url) -> tuple[Verdict, str]:
        claims = {claim.name: claim for claim in examine(shown.to_bytes(), Evidence(issuer=shown.receipt.issuer, rpc_url=url))}
        return claims["receipt-signature"].verdict, claims["receipt-signature"].why

    assert found(bundle) == (Verdict.PASS, "")
    offline = found(bundle, None)
    assert offline[0] is Verdict.FAIL
    assert offline[1].endswith(f"if {wallet.address} is a contract account, check again with --rpc")
    elsewhere = found(replace(bundle, batch=replace(bundle.batch, chain_id=1), checksum=None))
    assert (elsewhere[0], "not on 1" in elsewhere[1]) == (Verdict.FAIL, True)
    # An account without code has a key only, and this is not its signature.
    other = replace(bundle, receipt=replace(bundle.receipt, issuer=key.address, signature=bytes(65)), checksum=None)
    assert found(other)[0] is Verdict.FAIL
    node.make_request("anvil_setCode", [wallet.address, to_hex(REFUSES)])
    assert found(bundle) == (Verdict.FAIL, f"the contract account {wallet.address} does not accept the signature")


def a_transaction_before(chain: Chain, number: int) -> bytes:
    return bytes(chain.web3.eth.get_block(number - 1)["transactions"][0])


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_client_and_command_fetch_and_verify(
    verifier: Verifier, model: bytes, rpc_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = verifier.settings.model_copy(update={"public_url": f"http://127.0.0.1:{free_port()}"})
    mine, other = some(2, model)
    states: list[str] = []
    with serving(settings), connected(settings, CLINIC, STRANGER) as (clinic, stranger):
        client = VerifierClient(clinic)
        client.deposit_receipt(mine)
        with pytest.raises(ServiceError) as early:
            client.bundle(mine.digest)
        assert early.value.status == 409
        with pytest.raises(UnavailableError, match="no owner vouches"):
            client.wait_for_bundle(mine.digest, timeout_s=0.1)
        vouch(verifier.chain, model)
        verifier.work()
        content = client.wait_for_bundle(mine.digest, on_state=lambda standing: states.append(standing.state))
        assert ReceiptBundle.parse(content) == verifier.bundle(mine)
        assert states == ["on-chain"]
        with pytest.raises(ServiceError) as hidden:
            VerifierClient(stranger).bundle(mine.digest)
        assert hidden.value.status == 404

        # The command, as an account that got the other receipt from the provider and hands it in first.
        client.deposit_receipt(other)
        verifier.work()
        log_in(tmp_path / "home", monkeypatch, settings)
        given, bundle = tmp_path / "receipt.json", tmp_path / "bundle.json"
        given.write_text(json.dumps(other.to_json()))
        fetched = CliRunner().invoke(app, ["verify", "fetch", str(given), "--output", str(bundle), "--json"])
        assert fetched.exit_code == 0, fetched.output
        assert json.loads(fetched.stdout) == {"bundle": str(bundle), "receipt": to_hex(other.digest)}
        again = CliRunner().invoke(app, ["verify", "fetch", to_hex(other.digest), "--output", str(bundle), "--issuer", PROVIDER.address])
        assert again.exit_code == 0, again.output
    checked = CliRunner().invoke(app, ["verify", "receipt", str(bundle), "--rpc", rpc_url, "--issuer", PROVIDER.address, "--json"])
    assert (checked.exit_code, json.loads(checked.stdout)["result"]) == (0, "PASS"), checked.output


def log_in(home: Path, monkeypatch: pytest.MonkeyPatch, settings: VerifierSettings) -> None:
    monkeypatch.setenv("REXIS_HOME", str(home))
    monkeypatch.setenv("REXIS_PASSPHRASE", "a passphrase for tests")
    auditor = LocalSigner.generate()
    keystore = home / "keys" / f"{auditor.address}.json"
    write_private(keystore, auditor.keystore("a passphrase for tests"))
    write_profile(Profile(auditor.address, str(keystore), settings.chain_id, {"verifier": settings.public_url}))


def test_the_ids_are_the_contracts(verifier: Verifier, model: bytes) -> None:
    vouch(verifier.chain, model)
    (given,) = some(1, model)
    verifier.deposit(given)
    verifier.work()
    batch = verifier.bundle(given).batch
    asked = verifier.chain.contract("InferenceRegistry").functions.batchId(batch.operator, batch.owner, batch.model, batch.sequence).call()
    assert bytes(asked) == batch.id == from_hex(verifier.view(given)["batch"], 32)
