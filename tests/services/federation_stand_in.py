"""An aggregator in this process that can lie, on a real chain, for agents whose client, journal and secure aggregation are the real ones.

The real aggregator is in `test_federation_agents`. This one exists to misbehave in ways that it must not, and to stop between two steps.
"""

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from web3.types import TxParams

from rexis.agent.duty import Event
from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.duty import FederationDuty
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.holding import hold
from rexis.agent.federation.membership import join
from rexis.agent.federation.records import FederationRecords
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.federation.text_bases import TextBases
from rexis.agent.journal import Journal
from rexis.agent.registration import Target, advance, prepare
from rexis.agent.table import Table
from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner, development_signer
from rexis.client.aggregator import AggregatorClient
from rexis.client.connection import Answer
from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.errors import ServiceError
from rexis.models.builders import build
from rexis.protocol.approvals import Approval
from rexis.protocol.batch import write_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_rounds import NO_METRICS, RoundResult, Survivors, accumulate, approvals
from rexis.protocol.manifest import Deadlines, Manifest
from rexis.protocol.member_results import MemberResult, disagreement, largest
from rexis.protocol.relayed_call import RelayedCall
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.uploads import UploadManifest, content_digest_header
from rexis.secagg import Coordinator
from rexis.secagg.coordinator import Phase
from rexis.secagg.masks import RingVector
from rexis.secagg.payloads import sums_record
from rexis.secagg.plain_coordinator import PlainCoordinator
from rexis.secagg.privacy import declared_micro
from rexis.secagg.server_steps import initial_state, server_step
from rexis.secagg.statistics import Moments, decode_statistic
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import Thresholds
from rexis.training.local import LocalSteps, clip_update, train_local

CHAIN_ID = 31337
AGGREGATOR, RELAYER, FOUNDER = (development_signer(index) for index in (1, 2, 3))
HOSPITALS = tuple(sorted((development_signer(index) for index in (4, 5, 6, 7)), key=lambda signer: signer.address.lower()))
# Rows of each.
COUNTS = (23, 31, 17, 12)
PASSPHRASE = "a passphrase for tests"
HMB = 6
COLUMNS = ("age", "sex", "num")
FEATURES = {
    "version": 1,
    "inputs": [{"column": "age", "kind": "number"}, {"column": "sex", "kind": "levels", "levels": ["Male"]}],
    "target": {"column": "num", "above": "0"},
}
STAGE_S = 60
PARTS = ("optimizer", "strategy", "personal", "stopping", "privacy", "ring_bits")


def send(chain: Chain, signer: LocalSigner, contract: str, function: str, *arguments: Any) -> Any:
    """Send a transaction of an account with ether, and return its receipt; it must succeed."""
    eth = chain.web3.eth
    transaction: TxParams = {
        "chainId": CHAIN_ID,
        "nonce": eth.get_transaction_count(signer.address),
        "to": chain.deployment.contracts[contract].address,
        "data": encode_call(contract, function, *arguments),
        "value": 0,
        "gas": 3_000_000,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 10**9,
    }
    receipt = eth.wait_for_transaction_receipt(eth.send_raw_transaction(signer.sign_transaction(transaction)))
    assert receipt["status"] == 1, (contract, function, arguments)
    return receipt


def rows_of(number: int, count: int) -> Table:
    """A hospital's table; the last one has patients of one class only, but for one."""
    generator = np.random.default_rng(number)
    rows = []
    for _ in range(count):
        age, male = int(generator.integers(30, 80)), bool(generator.integers(2))
        ill = age + 10 * male + generator.normal(0, 12) > 60 or number == 3
        rows.append((str(age), "Male" if male else "Female", str(int(ill))))
    return Table(COLUMNS, tuple(rows))


@dataclass
class Attempt:
    """A running attempt."""

    manifest: Manifest
    coordinator: Any
    graph_seed: bytes
    stage: str = "keys"
    uploads: dict[str, bytes] = field(default_factory=dict)
    stated: dict[str, MemberResult] = field(default_factory=dict)


@dataclass
class Kept:
    """A federation as the aggregator has it."""

    config: FederationConfig
    content: bytes
    model: bytes
    joined: set[str] = field(default_factory=set)
    result: bytes = b""
    attempt: Attempt | None = None
    sums: list[RingVector] = field(default_factory=list)
    groups: tuple[RingVector, ...] = ()
    first_block: bytes = b""
    state: bytes = b""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    initial: bytes = b""
    # As they were opened, by round and attempt: under the pads, if there are any.
    opened: dict[tuple[int, int], RingVector] = field(default_factory=dict)


@dataclass
class GroupKeyRecords:
    """Documents of a group key as they came."""

    recipients: dict[str, bytes] = field(default_factory=dict)
    dealing: bytes | None = None


class StandIn:
    """The aggregator, the first of its `signers`; all of them sign. `lies` changes an answer: a path's ending → what becomes of it.

    With `says_away` it says that the chain is away, whether or not it is: it asks for consents, and fixes nothing before `record`.
    """

    def __init__(self, chain: Chain, folder: Path, signers: Sequence[LocalSigner] = (AGGREGATOR,)) -> None:
        self.folder, self.signers = folder, signers
        self.chain, self.registry = chain, chain.deployment.contracts["FederationRegistry"].address
        self.kept: dict[bytes, Kept] = {}
        self.received: list[tuple[str, str, bytes]] = []
        self.group_keys: dict[bytes, GroupKeyRecords] = {}
        # What it signs in the place of what the sum gives.
        self.forged: dict[str, bytes] = {}
        self.lies: dict[str, Callable[[Any], Any]] = {}
        self.declared: Callable[[FederationConfig, int], int] = declared_micro
        self.says_away = False
        # What is answered to a path with this ending, whatever would be.
        self.shown: dict[str, Any] = {}

    def now(self) -> int:
        """The chain's time, which tests move."""
        return int(self.chain.web3.eth.get_block("latest")["timestamp"])

    def pass_time(self, seconds: int) -> None:
        """Let the chain's time pass."""
        provider: Any = self.chain.web3.provider
        provider.make_request("evm_increaseTime", [seconds])
        provider.make_request("evm_mine", [])

    def found(self, plan: FederationPlan, **changes: Any) -> bytes:
        """Put a federation on chain; `changes` are to what the founder signs."""
        config = plan.config
        founding = {
            "configHash": config.digest,
            "model": plan.model,
            "minSurvivors": config.min_survivors,
            "quorum": config.quorum,
            "participants": list(config.roster),
            "aggregators": list(config.aggregators),
        }
        send(self.chain, FOUNDER, "FederationRegistry", "create", {**founding, **changes})
        federation = config.id(CHAIN_ID, self.registry)
        self.kept[federation] = Kept(config, plan.initial, plan.model, initial=plan.initial)
        if config.training is not None:
            self.kept[federation].state = initial_state(config.training)
        return federation

    def open_round(self, federation: bytes) -> Attempt:
        """Open the next attempt on chain."""
        kept = self.kept[federation]
        seen = Registry(self.chain).federation(federation)
        deadlines = Deadlines.after(self.now(), kept.config.stage_s, masked=kept.config.masked)
        manifest = Manifest.of(
            kept.config,
            federation=federation,
            round_number=seen.round,
            attempt=seen.attempt + 1,
            base_model=kept.model,
            deadlines=deadlines,
        )
        numbers = (federation, manifest.round, manifest.attempt, manifest.digest, deadlines.masked, deadlines.abandon)
        opened = send(self.chain, self.signers[0], "FederationRegistry", "openRound", *numbers)
        given = kept.config
        terms = RoundTerms(
            CHAIN_ID,
            self.registry,
            federation,
            manifest.round,
            manifest.attempt,
            manifest.digest,
            given.trained_base(federation, manifest.base_model),
            given.roster,
            Thresholds(len(given.roster), given.collusion_bound, given.threshold, given.min_survivors),
            given.upload_length,
            given.ring_bits,
            given.degree,
            masked=given.masked,
            groups=given.groups,
        )
        if not given.masked:
            kept.attempt = Attempt(manifest, PlainCoordinator(terms), bytes(32), "masked")
            return kept.attempt
        block = bytes(opened["blockHash"])
        kept.first_block = kept.first_block or block
        # What orders a sparse graph is new in each attempt, groups without noise are drawn once.
        drawn = kept.first_block if given.groups and not given.groups.redrawn else block
        kept.attempt = Attempt(manifest, Coordinator(terms), drawn if given.degree or given.groups else bytes(32))
        return kept.attempt

    def close(self, federation: bytes) -> None:
        """Close the open stage with whoever has sent."""
        kept = self.kept[federation]
        attempt = kept.attempt
        assert attempt is not None
        coordinator = attempt.coordinator
        if attempt.stage == "keys":
            coordinator.close_keys(graph_seed=attempt.graph_seed)
            attempt.stage = "shares"
        elif attempt.stage == "shares":
            coordinator.close_shares()
            attempt.stage = "masked"
        elif attempt.stage == "masked":
            coordinator.close_masked()
            attempt.stage = "survivors"
            if not self.says_away:
                self._fix(kept, attempt)
                attempt.stage = "unmask"
        elif attempt.stage == "survivors":
            coordinator.close_survivors()
            attempt.stage = "unmask"
        elif attempt.stage == "unmask":
            totals = self._unmasked(kept, attempt)
            if kept.config.group_pad:
                attempt.stage = "results"
            else:
                self._finalise(kept, attempt, totals)
        else:
            self._finalise_stated(kept, attempt)

    def abandon(self, federation: bytes) -> None:
        """Give the attempt up on chain."""
        kept = self.kept[federation]
        assert kept.attempt is not None
        manifest = kept.attempt.manifest
        self.pass_time(manifest.deadlines.abandon - self.now() + 1)
        send(self.chain, self.signers[0], "FederationRegistry", "abandon", federation, manifest.round, manifest.attempt)
        kept.attempt = None

    def record(self, federation: bytes) -> None:
        """Have survivors fixed whose sum was opened by consents."""
        kept = self.kept[federation]
        assert kept.attempt is not None
        self._fix(kept, kept.attempt)

    def _approval(self, attempt: Attempt) -> Approval:
        manifest, fixed = attempt.manifest, attempt.coordinator.survivors.fixed
        signed = Survivors(manifest.federation, manifest.round, manifest.attempt, fixed.survivors, fixed.masked)
        me = self.signers[0]
        return Approval(signed, me.address, me.sign_typed_data(signed.typed_data(CHAIN_ID, self.registry)))

    def _fix(self, kept: Kept, attempt: Attempt) -> None:
        coordinator, manifest = attempt.coordinator, attempt.manifest
        addresses = coordinator.terms.addresses(coordinator.survivors.positions)
        if len(addresses) < len(kept.config.roster):
            self.pass_time(manifest.deadlines.masked - self.now() + 1)
        fixed = coordinator.survivors.fixed
        given = self._signatures(self._approval(attempt).statement.typed_data(CHAIN_ID, self.registry))
        survivors = {
            "federation": manifest.federation,
            "round": manifest.round,
            "attempt": manifest.attempt,
            "maskedRecord": fixed.masked,
            "survivors": addresses,
        }
        send(self.chain, self.signers[0], "FederationRegistry", "fixSurvivors", survivors, given)
        if coordinator.phase is Phase.SURVIVORS:
            coordinator.close_survivors(fixed=fixed)

    def _unmasked(self, kept: Kept, attempt: Attempt) -> tuple[RingVector, ...]:
        masked_sums = attempt.coordinator.masked_sums()
        for masked_sum in masked_sums:
            for address in masked_sum.missing:
                masked_sum.add(address, [attempt.uploads[address]])
        totals = attempt.coordinator.unmask(masked_sums)
        kept.opened[attempt.manifest.round, attempt.manifest.attempt] = totals[0]
        return totals

    def _finalise_stated(self, kept: Kept, attempt: Attempt) -> None:
        """Put on chain what enough members stated alike; this side has no model to compute."""
        alike = largest(list(attempt.stated.values()))
        assert len(alike) >= kept.config.threshold, disagreement(list(attempt.stated.values()))
        total = kept.opened[attempt.manifest.round, attempt.manifest.attempt]
        self._record(kept, attempt, (total,), alike[0].model, None, alike[0].metrics)

    def _finalise(self, kept: Kept, attempt: Attempt, totals: tuple[RingVector, ...]) -> None:
        kept.sums.append(totals[0])
        kept.groups = totals
        metrics: dict[str, Any] | None = None
        if kept.config.training is None:
            result = decode_statistic(kept.config, totals[0])
            kept.result, model = canonical_json(result.document()), result.digest
        else:
            base = read_model(kept.config.training, kept.content, kept.model)
            step = server_step(kept.config, base, kept.state, totals)
            kept.content, model = _written(kept.config, step.tensors)
            kept.state, metrics = step.state, step.metrics
        digest = NO_METRICS if metrics is None else sha256(canonical_json(metrics))
        self._record(kept, attempt, totals, model, metrics, digest)

    def _record(
        self,
        kept: Kept,
        attempt: Attempt,
        totals: tuple[RingVector, ...],
        model: bytes,
        metrics: dict[str, Any] | None,
        metrics_digest: bytes,
    ) -> None:
        coordinator, manifest = attempt.coordinator, attempt.manifest
        model, metrics_digest = self.forged.get("model", model), self.forged.get("metrics", metrics_digest)
        registry = Registry(self.chain)
        terms, survivors = coordinator.terms, coordinator.terms.addresses(coordinator.survivors.positions)
        commitments = {address: registry.commitment(terms.ctx, address) for address in survivors}
        result = RoundResult(
            federation=manifest.federation,
            round_number=manifest.round,
            attempt=manifest.attempt,
            survivors_hash=coordinator.survivors.fixed.survivors,
            accumulator=accumulate(terms.ctx, commitments),
            updates=len(survivors),
            base_model=manifest.base_model,
            aggregate=sums_record(totals),
            model=model,
            metrics=metrics_digest,
            epsilon_micro=self.declared(kept.config, manifest.round),
        )
        given = self._signatures(result.typed_data(CHAIN_ID, self.registry))
        send(self.chain, self.signers[0], "FederationRegistry", "finalise", result.fields(), given)
        kept.rounds.append(_round_view(manifest, survivors, result, metrics))
        kept.model, kept.attempt = model, None

    def _signatures(self, typed_data: Any) -> Any:
        return approvals({signer.address: signer.sign_typed_data(typed_data) for signer in self.signers})

    def answer(self, caller: str, method: str, path: str, content: bytes | None) -> Any:
        """JSON or bytes of one call, lies and all."""
        for ending, shown in self.shown.items():
            if method == "GET" and path.endswith(ending):
                return shown
        value = self._answer(caller, method, path.removeprefix("/v1/").split("/"), content)
        for ending, lie in self.lies.items():
            if path.endswith(ending):
                value = lie(value)
        return value

    def _answer(self, caller: str, method: str, parts: Sequence[str], content: bytes | None) -> Any:
        if parts == ["aggregator"]:
            return {"address": self.signers[0].address}
        if parts == ["work"]:
            return {"items": [self._work(caller, federation, kept) for federation, kept in self.kept.items() if kept.attempt is not None]}
        if parts[0] == "uploads":
            return self._upload(method, parts[1:], content)
        if parts == ["relays"]:
            return self._relay(content or b"")
        federation = from_hex(parts[1], 32)
        kept = self.kept[federation]
        if parts[2:3] == ["group-key"]:
            return self._group_key(caller, federation, parts[3:], content)
        if parts[2:] == ["membership"]:
            kept.joined.add(caller)
        if parts[2:] in ([], ["membership"]):
            return self._view(federation, kept)
        if parts[2:] == ["model"]:
            return kept.content
        if parts[2:] == ["initial-model"]:
            if not kept.initial:
                raise problem(404, "not-found")
            return kept.initial
        if parts[2:] == ["result"]:
            return kept.result
        if parts[2:] == ["server-state"]:
            return kept.state
        if parts[2:] == ["rounds"]:
            return {"items": kept.rounds}
        assert parts[2] == "rounds", parts
        if parts[6:] == ["sum"]:
            if (int(parts[3]), int(parts[5])) not in kept.opened:
                raise problem(404, "not-found")
            return kept.opened[int(parts[3]), int(parts[5])].tobytes()
        if parts[6:] == ["results"]:
            assert kept.attempt is not None
            self.received.append((caller, "results", content or b""))
            kept.attempt.stated.setdefault(caller, MemberResult.parse(json.loads(content or b"")))
            return None
        assert kept.attempt is not None, parts
        if parts[6:] == ["approvals"]:
            return {"items": [self._approval(kept.attempt).document()]}
        stage = Stage(parts[7])
        if method == "GET":
            return {"messages": [json.loads(message.to_bytes()) for message in kept.attempt.coordinator.messages(stage)]}
        self.received.append((caller, stage.value, content or b""))
        if stage.value != kept.attempt.stage:
            raise problem(409, "stage-closed")
        message = Envelope.parse(content or b"")
        if stage is Stage.MASKED:
            kept.attempt.uploads[caller] = b"".join(self._parts(message.payload["upload"]).values())
        kept.attempt.coordinator.receive(message)
        return None

    def _group_key(self, caller: str, federation: bytes, parts: Sequence[str], content: bytes | None) -> Any:
        records = self.group_keys.setdefault(federation, GroupKeyRecords())
        if parts:
            self.received.append((caller, parts[0], content or b""))
        if parts == ["recipient"]:
            records.recipients.setdefault(caller, content or b"")
        elif parts == ["dealing"]:
            records.dealing = records.dealing or content
            if records.dealing != content:
                raise problem(409, "group-key-dealt")
        return {
            "recipients": [json.loads(document) for document in records.recipients.values()],
            "dealing": None if records.dealing is None else json.loads(records.dealing),
        }

    def _work(self, caller: str, federation: bytes, kept: Kept) -> Any:
        attempt = kept.attempt
        assert attempt is not None
        manifest, registry = attempt.manifest, Registry(self.chain)
        committed = any(registry.commitment(attempt.coordinator.terms.ctx, caller))
        return {
            "federation": to_hex(federation),
            "round": manifest.round,
            "attempt": manifest.attempt,
            "stage": attempt.stage,
            "manifest": manifest.document(),
            "due": caller not in attempt.stated if attempt.stage == "results" else caller in attempt.coordinator.awaited,
            "commitment_due": attempt.stage in ("keys", "shares", "masked") and not committed,
        }

    def _upload(self, method: str, parts: Sequence[str], content: bytes | None) -> Any:
        if not parts:
            upload = secrets.token_hex(16)
            (self.folder / upload).mkdir()
            (self.folder / upload / "size").write_text(str(json.loads(content or b"")["total_bytes"]))
            return {"id": upload}
        if parts[1:2] == ["parts"]:
            self.received.append(("", "part", content or b""))
            (self.folder / parts[0] / f"{parts[2]}.part").write_bytes(content or b"")
            return None
        if parts[1:] == ["complete"]:
            return {"digest": to_hex(UploadManifest.parse(json.loads(content or b"")).digest)}
        stored = [{"number": number, "digest": to_hex(sha256(part))} for number, part in self._parts(parts[0]).items()]
        return {"total_bytes": int((self.folder / parts[0] / "size").read_text()), "parts": stored}

    def _parts(self, upload: str) -> dict[int, bytes]:
        return {int(path.stem): path.read_bytes() for path in sorted((self.folder / upload).glob("*.part"))}

    def _relay(self, content: bytes) -> Any:
        body = json.loads(content)
        call = RelayedCall.parse(body["request"])
        self.received.append((call.sender, "relay", content))
        request = {"from": call.sender, "to": call.to, "gas": call.gas, "nonce": call.nonce, "deadline": call.deadline, "data": call.data}
        send(self.chain, RELAYER, "Forwarder", "execute", request, from_hex(body["signature"]))
        return {"id": "r", "state": "mined", "transaction_hash": None, "error": None}

    def _view(self, federation: bytes, kept: Kept) -> Any:
        return {
            "id": to_hex(federation),
            "config": kept.config.document(),
            "state": "running",
            "reason": None,
            "joined": sorted(kept.joined),
            "round": 1,
            "rounds_total": kept.config.rounds,
            "model": to_hex(kept.model),
            "created_at": "2026-11-21T00:00:00Z",
        }


def problem(status: int, kind: str) -> ServiceError:
    return ServiceError(status, {"type": f"urn:rexis:problem:{kind}", "title": kind, "detail": "for the test", "status": status})


def _written(config: FederationConfig, tensors: Mapping[str, Any]) -> tuple[bytes, bytes]:
    assert config.training is not None
    stream = BytesIO()
    record = write_file(stream, model_file_spec(config.training), tensors).record
    return stream.getvalue(), record


def _round_view(manifest: Manifest, survivors: Sequence[str], result: RoundResult, metrics: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "round": manifest.round,
        "attempt": manifest.attempt,
        "state": "finished",
        "reason": None,
        "survivors": list(survivors),
        "base_model": to_hex(result.base_model),
        "model": to_hex(result.model),
        "aggregate": to_hex(result.aggregate),
        "metrics": metrics,
        "opened_at": "2026-11-21T00:00:00Z",
        "finished_at": "2026-11-21T00:00:00Z",
        "transactions": {},
    }


class Line:
    """What `Connection` is to a client, straight into the stand-in. `before` sees method, path and body of each call."""

    service, base_url = "the aggregator", "http://stand-in.test"

    def __init__(self, stand_in: StandIn, caller: str) -> None:
        self.stand_in, self.caller = stand_in, caller
        self.before: Callable[[str, str, bytes | None], None] = lambda _method, _path, _content: None

    def get(self, path: str, **_: Any) -> Any:
        return self.request("GET", path).body

    def post(self, path: str, body: Any, **_: Any) -> Any:
        return self.request("POST", path, content=json.dumps(body).encode()).body

    def request(self, method: str, path: str, *, content: bytes | None = None, **_: Any) -> Answer:
        self.before(method, path, content)
        value = self.stand_in.answer(self.caller, method, path, content)
        if isinstance(value, bytes):
            return Answer(200, {"content-digest": content_digest_header(sha256(value))}, None, value)
        return Answer(200, {}, value, b"")


@dataclass
class Hospital:
    """One institution: key, table, journal, and an agent that can be stopped and started."""

    chain: Chain
    signer: LocalSigner
    table: Table
    journal_file: Path
    line: Any
    dataset: int = 0
    policy: SitePolicy = field(default_factory=SitePolicy)
    events: list[Event] = field(default_factory=list)
    bases: TextBases = field(default_factory=TextBases)

    def __post_init__(self) -> None:
        contracts = self.chain.deployment.contracts
        self.target = Target(CHAIN_ID, contracts["Forwarder"].address, contracts["DatasetRegistry"].address)
        self.start()

    def start(self) -> None:
        """Open the journal and make an agent, as after a crash."""
        self.journal = Journal.open(self.journal_file, PASSPHRASE, work_factor=2)
        self.client = AggregatorClient(self.line)
        self.records = FederationRecords(self.journal)
        self.duty = self.agent() if self.dataset else None

    def stop(self) -> None:
        self.journal.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def agent(self) -> FederationDuty:
        holding = hold(self.journal, self.table, owner=self.signer.address, target=self.target)
        return FederationDuty(
            self.journal,
            self.signer,
            self.chain,
            self.client,
            {holding.dataset: holding},
            self.policy,
            bases=self.bases,
            report=self.events.append,
        )

    def register(self) -> None:
        """Register the table on chain, and in the journal."""
        prepared = prepare(self.journal, self.table, {"name": "t"}, {"version": 1}, owner=self.signer.address, target=self.target)
        registration = {
            "contentRoot": prepared.content_root,
            "policyHash": sha256(b"policy"),
            "metadataHash": sha256(b"metadata"),
            "uri": "https://marketplace.test/metadata",
            "parents": [],
            "royaltyBps": 0,
        }
        send(self.chain, self.signer, "DatasetRegistry", "register", registration)
        self.dataset = int(self.chain.contract("DatasetRegistry").functions.count().call())
        advance(self.journal, prepared, "registered", {"token_id": self.dataset}, token_id=self.dataset)
        self.duty = self.agent()

    def grant(self, consumer: str = FOUNDER.address, purpose: int = HMB) -> None:
        terms = {
            "dataset": self.dataset,
            "consumer": consumer,
            "purpose": purpose,
            "until": int(self.chain.web3.eth.get_block("latest")["timestamp"]) + 30 * 24 * 3600,
            "policyVersion": 1,
            "grantEpoch": 0,
            "conditionsHash": sha256(b"conditions"),
        }
        send(self.chain, self.signer, "AccessManager", "grant", terms)

    def join(self, federation: bytes) -> None:
        root = hold(self.journal, self.table, owner=self.signer.address, target=self.target).content_root
        registry = Registry(self.chain)
        who = self.signer.address
        join(self.records, registry, self.client, federation, member=who, content_root=root, policy=self.policy, bases=self.bases)

    def poll(self) -> None:
        assert self.duty is not None
        self.duty.poll()

    def stages(self, federation: bytes) -> list[tuple[str, int]]:
        """Stage and round of the journal's entries about a federation."""
        entries = self.journal.entries(subject=f"federation {to_hex(federation)}", limit=1000)
        return [(entry.stage, entry.detail["round"]) for entry in entries if "round" in entry.detail]


def plain_update(hospital: Hospital, config: FederationConfig, record: bytes, content: bytes) -> tuple[Any, int]:
    """What a hospital would send to a FedAvg server without masks: its clipped update in float64, and its weight."""
    plan = config.training
    assert plan is not None
    features = config.features.encode(hospital.table.columns, hospital.table.rows)
    module = build(plan.model, seed=1)
    module.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in read_model(plan, content, record).items()})
    steps = LocalSteps(plan.steps, float(plan.learning_rate))
    update = train_local(module, torch.from_numpy(features.inputs.astype(np.float32)), torch.from_numpy(features.labels), steps, seed=0)
    return clip_update(update.delta.double(), float(plan.clipping_norm)).numpy(), plan.weight(update.examples)


def config_of(hospitals: Sequence[Hospital], kind: str, **changes: Any) -> dict[str, Any]:
    """The config of a federation of these hospitals."""
    members = sorted(
        ({"address": each.signer.address, "dataset": each.dataset} for each in hospitals), key=lambda m: str(m["address"]).lower()
    )
    training = {
        "model": {"version": 1, "family": "logistic", "config": {"inputs": 2, "outputs": 1}},
        "rounds": 3,
        "steps": 4,
        "learning_rate": "0.05",
        "batch_size": None,
        "proximal": "0",
        "clipping_norm": "0.5",
        "weight_cap": 40,
        "weight_band": 8,
        "standardisation": None,
    }
    config = {
        "version": 1,
        "name": "test",
        "kind": kind,
        "founder": FOUNDER.address,
        "members": members,
        "aggregators": [AGGREGATOR.address],
        "quorum": 1,
        "collusion_bound": 1,
        "threshold": 3,
        "min_survivors": 3,
        "purpose": HMB,
        "features": FEATURES,
        "stage_s": STAGE_S,
        "training": training if kind == "training" else None,
        "statistics": None if kind == "training" else {"identifier": "moments", "scale_bits": 16},
    }
    plan = {name: changes.pop(name) for name in list(changes) if name in (*training, *PARTS)}
    if plan:
        config["training"] = training | plan
    return config | changes


def play(
    stand_in: StandIn, federation: bytes, hospitals: Sequence[Hospital], *, absent: Mapping[str, Collection[int]] | None = None
) -> None:
    """One whole attempt; `absent` names the stages at which hospitals by index are not there."""
    config = stand_in.kept[federation].config
    for stage in ("keys", "shares", "masked", "unmask") if config.masked else ("masked", "unmask"):
        for index, hospital in enumerate(hospitals):
            if index not in (absent or {}).get(stage, ()):
                hospital.poll()
        stand_in.close(federation)


def moments_of(stand_in: StandIn, federation: bytes) -> Moments:
    return Moments.parse(json.loads(stand_in.kept[federation].result))
