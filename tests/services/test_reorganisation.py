"""Reorganisations of five blocks under everything that services project from the chain, and under the calls that they relayed."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.events import decode_event
from rexis.chain.permits import no_permit
from rexis.chain.signer import LocalSigner, development_signer
from rexis.client.relayed_calls import sign_call
from rexis.commitments import LeafKind, batch_id
from rexis.commitments.positional_tree import record_of
from rexis.encoding import from_hex, to_hex
from rexis.protocol.federation_rounds import RoundResult, Survivors, accumulate, approvals, federation_id, update_commitment
from rexis.protocol.secagg_messages import secagg_context, survivors_hash
from services.foundation.chain_comparison import projected_rows
from services.foundation.chain_index import ChainEvent, ChainIndex
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.outbox.policies import ChainPolicy
from services.foundation.outbox.relay import Relay
from services.foundation.outbox.transactions import ChainIntent, ChainTransaction, enqueue_call
from services.foundation.relays import promise
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.campaign.accounting import Account, check_projections, read
from tests.services.access_on_chain import free_job
from tests.services.chain_process import rpc
from tests.services.marketplace_on_chain import running_chain

DEPTH, HMB, DAY = 5, 6, 86_400
BOND = 50 * 10**18
# The first two depend on what the others have put on the chain: after a reorganisation their turn comes too early.
SERVICES = ("verifier", "aggregator", "trainer", "marketplace")
OWNER, HEIR, MEMBER, CONSUMER = (LocalSigner.generate() for _ in range(4))
SITES = sorted((LocalSigner.generate() for _ in range(3)), key=lambda site: int(site.address, 16))
STRANGER = development_signer(9)


@dataclass
class Service:
    """A service's outbox and index, run by hand."""

    name: str
    engine: Engine
    signer: LocalSigner
    relay: Relay
    index: ChainIndex

    @classmethod
    def of(cls, name: str, rpc_url: str, folder: Path, policy: ChainPolicy) -> "Service":
        engine, signer = open_engine(f"sqlite:///{folder / name}.sqlite"), development_signer(1 + SERVICES.index(name))
        migrate(engine, f"services.{name}")
        chain, projections = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID)), import_module(f"services.{name}.background").PROJECTIONS
        index = ChainIndex(engine, chain, projections, chain.deployment.start_block)
        return cls(name, engine, signer, Relay(engine, chain, signer, policy), index)

    def rows(self) -> dict[str, list[Any]]:
        with transaction(self.engine, read_only=True) as session:
            return {name: sorted(rows, key=repr) for name, rows in projected_rows(session, self.index).items()}

    def intents(self) -> list[ChainIntent]:
        with transaction(self.engine, read_only=True) as session:
            return list(session.scalars(select(ChainIntent).order_by(ChainIntent.sequence)))

    def raw(self) -> list[str]:
        """Signed transactions, by nonce."""
        with transaction(self.engine, read_only=True) as session:
            return [to_hex(row.raw) for row in session.scalars(select(ChainTransaction).order_by(ChainTransaction.nonce))]

    def events(self) -> Counter[str]:
        """What is stored, without its place on the chain, and without the times that follow from it."""
        with transaction(self.engine, read_only=True) as session:
            stored = session.scalars(select(ChainEvent)).all()
        return Counter(_without_times(event) for event in stored)


def _without_times(event: ChainEvent) -> str:
    decoded = decode_event(event.contract, [from_hex(topic) for topic in event.topics], event.data)
    if decoded is None or event.contract != "InferenceRegistry":
        return str(decoded)
    # Its deadlines count from the block.
    name, arguments = decoded
    return str((name, {key: value for key, value in arguments.items() if key not in ("until", "deadline")}))


class World:
    """A chain of its own, four services, and a history whose last five blocks hold something of every kind."""

    def __init__(self, rpc_url: str, folder: Path, policy: ChainPolicy) -> None:
        self.url, self.folder = rpc_url, folder
        self.chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        self.services = {name: Service.of(name, rpc_url, folder, policy) for name in SERVICES}
        self.registry = self.chain.deployment.contracts["FederationRegistry"].address
        self.started = int(time.time())
        self.models = [secrets.token_bytes(32) for _ in range(2)]

    # Calls.

    def signed(self, service: str, signer: LocalSigner, contract: str, function: str, *arguments: Any) -> None:
        """A call of an institution, relayed by a service."""
        made = sign_call(signer, self.chain.deployment, contract, function, *arguments, gas=900_000)
        with transaction(self.services[service].engine) as session:
            promise(session, self.chain, made.call, made.signature, operation=function)

    def own(self, service: str, contract: str, function: str, *arguments: Any) -> None:
        """A call of a service's own."""
        to, data = self.chain.deployment.contracts[contract].address, encode_call(contract, function, *arguments)
        with transaction(self.services[service].engine) as session:
            enqueue_call(session, key=secrets.token_hex(8), to=to, data=data, gas=1_500_000, label=function)

    def register(self, owner: LocalSigner, parents: tuple[int, ...] = ()) -> None:
        registration = {
            "contentRoot": secrets.token_bytes(32),
            "policyHash": secrets.token_bytes(32),
            "metadataHash": secrets.token_bytes(32),
            "uri": "https://example.org/d",
            "parents": list(parents),
            "royaltyBps": 250,
        }
        self.signed("marketplace", owner, "DatasetRegistry", "register", registration)

    def grant(self, signer: LocalSigner, *, policy: int, epoch: int) -> None:
        terms = {
            "dataset": 1,
            "consumer": CONSUMER.address,
            "purpose": HMB,
            "until": self.started + 30 * DAY,
            "policyVersion": policy,
            "grantEpoch": epoch,
            "conditionsHash": secrets.token_bytes(32),
        }
        self.signed("marketplace", signer, "AccessManager", "grant", terms)

    def job(self) -> None:
        """A free compute-to-data job on data set 1, asked for and not yet accepted."""
        algorithm = secrets.token_bytes(32)
        terms = free_job(OWNER, MEMBER, algorithm, self.started + DAY)
        self.signed("marketplace", OWNER, "ComputeJobs", "trustAlgorithm", 1, algorithm, 0)
        self.signed("marketplace", CONSUMER, "ComputeJobs", "request", terms, no_permit())

    def found(self, config: bytes) -> bytes:
        aggregator = self.services["aggregator"].signer.address
        founding = {
            "configHash": config,
            "model": self.models[0],
            "minSurvivors": 2,
            "quorum": 1,
            "participants": [site.address for site in SITES],
            "aggregators": [aggregator],
        }
        self.signed("aggregator", OWNER, "FederationRegistry", "create", founding)
        return federation_id(LOCAL_CHAIN_ID, self.registry, OWNER.address, config)

    # Time.

    def block(self) -> None:
        """One block with everything that was promised."""
        rpc(self.url, "evm_setAutomine", False)
        for service in self.services.values():
            service.relay.run_once()
        rpc(self.url, "evm_mine")
        rpc(self.url, "evm_setAutomine", True)

    def follow(self) -> None:
        """Every index reads what is new."""
        for service in self.services.values():
            service.index.run_once()

    def settle(self) -> None:
        """Passes of all relays, in turn, until every call has ended; then the indexes."""
        deadline = time.monotonic() + 60
        while sum(service.relay.run_once() for service in self.services.values()):
            assert time.monotonic() < deadline, {name: Counter(i.state for i in each.intents()) for name, each in self.services.items()}
        self.follow()

    def check(self) -> None:
        """Every table against its events, against an index that starts from nothing, and against the contracts."""
        account = Account()
        for name, service in self.services.items():
            folder = self.folder / secrets.token_hex(4)
            folder.mkdir()
            check_projections(account, self.chain, service.engine, name, service.index.projections, folder)
        assert account.projections == []

    # History.

    def play(self) -> None:
        """Some blocks that stay, and the five that go."""
        self.register(OWNER)
        self.signed("trainer", OWNER, "ModelRegistry", "authorise", self.models[0], secrets.token_bytes(32), "https://example.org/m")
        closed = self.found(secrets.token_bytes(32))
        operator, token = self.services["verifier"].signer.address, self.chain.deployment.contracts["LocalCredit"].address
        self.own("verifier", "LocalCredit", "mint", operator, 10 * BOND)
        self.own("verifier", "LocalCredit", "approve", self.chain.deployment.contracts["InferenceRegistry"].address, 10 * BOND)
        self.block()
        self.own("verifier", "InferenceRegistry", "deposit", token, 2 * BOND, no_permit())
        self.own("verifier", "InferenceRegistry", "setTerms", {"token": token, "bond": BOND, "arbiter": OWNER.address}, 0)
        self.own("verifier", "InferenceRegistry", "commit", OWNER.address, self.models[0], 1, secrets.token_bytes(32), 5)
        self.block()

        federation = self.found(secrets.token_bytes(32))
        self.register(OWNER)
        self.register(HEIR, parents=(1,))
        self.signed("trainer", OWNER, "ModelRegistry", "authorise", self.models[1], secrets.token_bytes(32), "https://example.org/n")
        self.block()
        manifest, aggregator = secrets.token_bytes(32), self.services["aggregator"].signer
        ctx = secagg_context(LOCAL_CHAIN_ID, self.registry, federation, 1, 1, manifest)
        times = (self.started + 3600, self.started + 7200)
        self.own("aggregator", "FederationRegistry", "openRound", federation, 1, 1, manifest, *times)
        leaf = secrets.token_bytes(32)
        inferences = self.chain.deployment.contracts["InferenceRegistry"].address
        batch = batch_id(LOCAL_CHAIN_ID, inferences, operator, OWNER.address, self.models[1], 1)
        self.own("verifier", "InferenceRegistry", "commit", OWNER.address, self.models[1], 1, record_of(LeafKind.RECEIPT, 1, leaf), 1)
        self.signed("marketplace", OWNER, "DatasetRegistry", "setPolicy", 1, secrets.token_bytes(32), "https://example.org/p", 1)
        self.signed("marketplace", OWNER, "AccessManager", "setCommittee", 1, [MEMBER.address], 0)
        self.block()
        commitments = {
            site.address: update_commitment(ctx, site.address, secrets.token_bytes(32), secrets.token_bytes(16)) for site in SITES
        }
        for site in SITES:
            self.signed("aggregator", site, "FederationRegistry", "commitUpdate", federation, ctx, commitments[site.address])
        self.own("verifier", "InferenceRegistry", "challenge", batch, 0, leaf, [], secrets.token_bytes(32), no_permit())
        self.grant(MEMBER, policy=2, epoch=0)
        self.job()
        self.signed("marketplace", HEIR, "DatasetRegistry", "setState", 3, 1)
        self.block()
        names = [site.address for site in SITES]
        survivors = Survivors(federation, 1, 1, survivors_hash(ctx, names), secrets.token_bytes(32))
        approved = approvals({aggregator.address: aggregator.sign_typed_data(survivors.typed_data(LOCAL_CHAIN_ID, self.registry))})
        given = {"federation": federation, "round": 1, "attempt": 1, "maskedRecord": survivors.masked_record, "survivors": names}
        self.own("aggregator", "FederationRegistry", "fixSurvivors", given, approved)
        self.signed("marketplace", MEMBER, "AccessManager", "revoke", 1, CONSUMER.address, HMB)
        self.signed("marketplace", OWNER, "DatasetRegistry", "transferFrom", OWNER.address, HEIR.address, 2)
        self.signed("trainer", OWNER, "ModelRegistry", "revoke", self.models[0], 2)
        self.own("verifier", "InferenceRegistry", "answerChallenge", batch, 0, operator, secrets.token_bytes(32))
        self.block()
        result = RoundResult(
            federation=federation,
            round_number=1,
            attempt=1,
            survivors_hash=survivors.survivors_hash,
            accumulator=accumulate(ctx, commitments),
            updates=len(SITES),
            base_model=self.models[0],
            aggregate=secrets.token_bytes(32),
            model=secrets.token_bytes(32),
        )
        approved = approvals({aggregator.address: aggregator.sign_typed_data(result.typed_data(LOCAL_CHAIN_ID, self.registry))})
        self.own("aggregator", "FederationRegistry", "finalise", result.fields(), approved)
        self.signed("aggregator", OWNER, "FederationRegistry", "close", closed)
        self.grant(OWNER, policy=2, epoch=2)
        self.signed("marketplace", HEIR, "DatasetRegistry", "setMetadata", 2, secrets.token_bytes(32), "https://example.org/q", 1)
        self.block()
        self.settle()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[[float], World]]:
    """A played world; `settle_s` as in the relay's policy."""
    with running_chain(tmp_path) as rpc_url:
        worlds: list[World] = []

        def make(settle_s: float) -> World:
            worlds.append(World(rpc_url, tmp_path, ChainPolicy(confirmations=0, final_may_be_lost=True, settle_s=settle_s)))
            worlds[0].play()
            return worlds[0]

        yield make
        for service in worlds[0].services.values():
            service.engine.dispose()


def test_every_projection_follows_five_blocks_back_and_the_calls_come_back(make_world: Callable[[float], World]) -> None:
    world = make_world(60.0)
    whole = {name: (service.rows(), service.events()) for name, service in world.services.items()}
    assert all(rows for tables, _ in whole.values() for rows in tables.values()), "every projected table has rows"
    assert all(intent.state == "final" for service in world.services.values() for intent in service.intents())
    world.check()

    rpc(world.url, "anvil_reorg", DEPTH, [])
    world.follow()
    for name, service in world.services.items():
        assert service.events() < whole[name][1], f"the {name} has fewer events than before"
    world.check()

    world.settle()
    for name, service in world.services.items():
        assert service.events() == whole[name][1], f"everything of the {name} came back, and nothing twice"
        assert {intent.state for intent in service.intents()} == {"final"}
    executed = read(world.chain, gate=STRANGER.address).requests
    assert set(executed.values()) == {1}
    world.check()


def test_every_projection_follows_into_another_history(make_world: Callable[[float], World]) -> None:
    """The new blocks hold a stranger's registration first, which takes an id, and some of our transactions at other places."""
    world = make_world(0.5)
    marketplace, trainer = world.services["marketplace"], world.services["trainer"]
    registration = (*(secrets.token_bytes(32) for _ in range(3)), "https://example.org/s", [], 0)
    fields = {
        "chainId": LOCAL_CHAIN_ID,
        "nonce": 0,
        "to": world.chain.deployment.contracts["DatasetRegistry"].address,
        "value": 0,
        "gas": 600_000,
        "gasPrice": 10**10,
        "data": encode_call("DatasetRegistry", "register", registration),
    }
    stranger = to_hex(STRANGER.sign_transaction(fields))
    ours = [[raw, 1] for raw in marketplace.raw()[1:3]] + [[trainer.raw()[1], 3]]
    rpc(world.url, "anvil_reorg", DEPTH, [[stranger, 0], *ours])
    owner = world.chain.contract("DatasetRegistry").functions.ownerOf
    assert [owner(number).call() for number in (2, 3, 4)] == [STRANGER.address, OWNER.address, HEIR.address]
    world.follow()
    world.check()

    world.settle()
    world.check()
    failed = [intent for service in world.services.values() for intent in service.intents() if intent.state == "failed"]
    # What was said of the data sets 2 and 3 is true of other ones now, and not the signers' to say.
    assert sorted((intent.label, intent.error["error"]) for intent in failed if intent.error) == [
        ("setMetadata", "NotDatasetOwner"),
        ("setState", "NotDatasetOwner"),
        ("transferFrom", "ERC721InsufficientApproval"),
    ]
    assert set(read(world.chain, gate=STRANGER.address).requests.values()) == {1}
