"""A reward that is paid in before round 1, divided by scores, published, and claimed: commands, aggregator and contracts are the real ones.

The rounds are put on chain by hand, signed by the federation's aggregator: what sites send is made up, so that one of them sends nothing.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from sqlalchemy import Engine
from web3.types import TxParams

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.permits import sign_permit
from rexis.chain.signer import LocalSigner
from rexis.cli.home import Profile
from rexis.commitments import epoch_id
from rexis.encoding import canonical_json, from_hex, sha256, to_hex
from rexis.protocol.federation_rounds import RoundResult, Survivors, accumulate, approvals
from rexis.protocol.secagg_messages import secagg_context, survivors_hash
from rexis.secagg.scored_rounds import METRIC
from services.aggregator.models import Attempt, OnchainRound
from services.aggregator.settings import AggregatorSettings
from services.foundation.database import open_engine, transaction
from tests.services.aggregator_at_work import at_work
from tests.services.command_parties import PASSPHRASE, Machine
from tests.services.federation_stand_in import CHAIN_ID, send
from tests.services.federations_on_chain import founding_of, migrated, wait_until
from tests.services.marketplace_on_chain import undone
from tests.services.scored_rows import ScoredFederation

AMOUNT, HOUR = 10**18 + 1, 3600
MADE = [secrets.token_bytes(32) for _ in range(10)]
KEYS = {LocalSigner(key).address: key for key in MADE}
FOUNDER, MEMBERS = LocalSigner(MADE[0]), sorted(map(LocalSigner, MADE[1:]), key=lambda signer: signer.address.lower())
LABEL, NOTHING = sha256(b"label"), sha256(b"nothing")
REGISTRY, DISTRIBUTOR, TOKEN = "FederationRegistry", "RewardDistributor", "LocalCredit"


@dataclass
class Programme:
    """A scored federation and its reward on a chain, an aggregator at work, and everybody's files."""

    chain: Chain
    engine: Engine
    settings: AggregatorSettings
    rpc_url: str
    folder: Path
    scored: ScoredFederation = field(default_factory=lambda: ScoredFederation(FOUNDER, members=MEMBERS))
    seeds: dict[int, bytes] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)

    @property
    def federation(self) -> bytes:
        return from_hex(self.scored.id, 32)

    @property
    def epoch(self) -> bytes:
        return epoch_id(CHAIN_ID, self.address(DISTRIBUTOR), FOUNDER.address, self.federation, 1, 10, LABEL)

    @property
    def now(self) -> int:
        return int(self.chain.web3.eth.get_block("latest")["timestamp"])

    def address(self, contract: str) -> str:
        return self.chain.deployment.contracts[contract].address

    def ask(self, contract: str, function: str, *arguments: Any) -> Any:
        return getattr(self.chain.contract(contract).functions, function)(*arguments).call()

    def found(self) -> None:
        """On chain, with a reward."""
        node: Any = self.chain.web3.provider
        for signer in (FOUNDER, *MEMBERS, self.scored.aggregator):
            node.make_request("anvil_setBalance", [signer.address, hex(10**20)])
        send(self.chain, FOUNDER, REGISTRY, "create", founding_of(self.scored.config, NOTHING))
        send(self.chain, FOUNDER, TOKEN, "mint", FOUNDER.address, AMOUNT)
        terms = {
            "federation": self.federation,
            "firstRound": 1,
            "lastRound": 10,
            "label": LABEL,
            "token": self.address(TOKEN),
            "amount": AMOUNT,
            "publisher": FOUNDER.address,
            "arbiter": LocalSigner.generate().address,
            "publishBy": self.now + 90 * 24 * HOUR,
            "challengeSeconds": HOUR,
            "answerSeconds": HOUR,
            "claimSeconds": 7 * 24 * HOUR,
        }
        permit = sign_permit(self.chain.web3, FOUNDER, self.address(TOKEN), self.address(DISTRIBUTOR), AMOUNT, self.now + HOUR)
        send(self.chain, FOUNDER, DISTRIBUTOR, "fund", terms, permit)

    def play(self) -> None:
        """Every round on chain; then the aggregator's rows of them."""
        for number in range(1, 11):
            self._round(number)
        with transaction(self.engine) as session:
            self.scored.add(session, seeds=self.seeds)

    def is_indexed(self) -> bool:
        """Whether the aggregator has seen all of it on the chain."""
        with transaction(self.engine, read_only=True) as session:
            last = session.get(OnchainRound, (self.scored.id, 10, 1))
            return last is not None and last.finalised_transaction is not None

    def _round(self, number: int) -> None:
        aggregator, place = self.scored.aggregator, (CHAIN_ID, self.address(REGISTRY))
        opened = send(
            self.chain, aggregator, REGISTRY, "openRound", self.federation, number, 1, NOTHING, self.now + HOUR, self.now + 2 * HOUR
        )
        self.seeds[number] = bytes(opened["blockHash"])
        ctx = secagg_context(*place, self.federation, number, 1, NOTHING)
        self._commit(number, ctx)
        roster = list(self.scored.config.roster)
        fixed = Survivors(self.federation, number, 1, survivors_hash(ctx, roster), NOTHING)
        given = {"federation": self.federation, "round": number, "attempt": 1, "maskedRecord": NOTHING, "survivors": roster}
        signed = approvals({aggregator.address: aggregator.sign_typed_data(fixed.typed_data(*place))})
        send(self.chain, aggregator, REGISTRY, "fixSurvivors", given, signed)
        result = RoundResult(
            federation=self.federation,
            round_number=number,
            attempt=1,
            survivors_hash=fixed.survivors_hash,
            accumulator=accumulate(ctx, {address: sha256(address.encode()) for address in roster}),
            updates=len(roster),
            base_model=NOTHING,
            aggregate=NOTHING,
            model=NOTHING,
            metrics=sha256(canonical_json(self.scored.metrics(number, self.seeds))),
        )
        signed = approvals({aggregator.address: aggregator.sign_typed_data(result.typed_data(*place))})
        send(self.chain, aggregator, REGISTRY, "finalise", result.fields(), signed)

    def _commit(self, number: int, ctx: bytes) -> None:
        eth, hashes = self.chain.web3.eth, []
        for member in MEMBERS:
            transaction: TxParams = {
                "chainId": CHAIN_ID,
                "nonce": number - 1,
                "to": self.address(REGISTRY),
                "data": encode_call(REGISTRY, "commitUpdate", self.federation, ctx, sha256(member.address.encode())),
                "value": 0,
                "gas": 300_000,
                "maxFeePerGas": 10**11,
                "maxPriorityFeePerGas": 10**9,
            }
            hashes.append(eth.send_raw_transaction(member.sign_transaction(transaction)))
        assert all(eth.wait_for_transaction_receipt(each, poll_latency=0.01)["status"] == 1 for each in hashes)

    def machine(self, signer: LocalSigner) -> Machine:
        """The computer of somebody who is logged in."""
        home = self.folder / signer.address
        if home.exists():
            return self.machines[signer.address]
        machine = self.machines[signer.address] = Machine(home)
        # A work factor that costs nothing: every command opens the file anew.
        keystore = Account.encrypt(KEYS[signer.address], PASSPHRASE, iterations=2)
        (home / "key.json").write_text(json.dumps(keystore))
        urls = {"aggregator": self.settings.public_url, "chain": self.rpc_url}
        profile = Profile(signer.address, str(home / "key.json"), CHAIN_ID, urls)
        (home / "profile.json").write_text(json.dumps(asdict(profile)))
        return machine

    def done(self, signer: LocalSigner, *arguments: str) -> Any:
        return self.machine(signer).json("federation", *arguments)

    def refused(self, signer: LocalSigner, *arguments: str) -> str:
        return self.machine(signer).failure("federation", *arguments)

    def pass_time(self, seconds: int) -> None:
        node: Any = self.chain.web3.provider
        node.make_request("evm_increaseTime", [seconds])
        node.make_request("evm_mine", [])


@pytest.fixture
def programme(rpc_url: str, tmp_path: Path) -> Iterator[Programme]:
    with undone(rpc_url) as chain:
        settings = migrated(tmp_path, rpc_url)
        assert isinstance(settings, AggregatorSettings)
        engine = open_engine(settings.database_url)
        made = Programme(chain, engine, settings, rpc_url, tmp_path)
        made.found()
        made.play()
        with at_work(settings, engine):
            wait_until(made.is_indexed)
            yield made
        engine.dispose()


def test_a_reward_is_divided_by_scores_that_each_party_computes_from_the_chain_published_and_claimed(
    programme: Programme, tmp_path: Path
) -> None:
    one, federation, epoch = programme, programme.scored.id, to_hex(programme.epoch)
    idle, honest, *_ = MEMBERS
    shown = one.done(honest, "scores", federation)
    assert [member["band"] for member in shown["statement"]["members"]] == [0, *[1] * 8]

    folder = tmp_path / "shares"
    prepared = one.done(FOUNDER, "rewards", federation, epoch, "--output", str(folder))
    assert (prepared["transaction_hash"], prepared["total"], prepared["shares"]) == (None, str(AMOUNT // 8 * 8), 8)
    assert prepared["amounts"] == {member.address: str(0 if member is idle else AMOUNT // 8) for member in MEMBERS}
    assert "expected its publisher" in one.refused(honest, "rewards", federation, epoch, "--output", str(tmp_path / "own"), "--publish")
    published = one.done(FOUNDER, "rewards", federation, epoch, "--output", str(folder), "--publish")
    assert published["record"] == prepared["record"], "the salts that were written first"
    assert published["transaction_hash"] is not None
    again = one.done(FOUNDER, "rewards", federation, epoch, "--output", str(folder), "--publish")
    assert (again["record"], again["transaction_hash"]) == (prepared["record"], None)
    assert "its salts are lost" in one.refused(FOUNDER, "rewards", federation, epoch, "--output", str(tmp_path / "other"), "--publish")

    file = folder / f"{honest.address}.json"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{member.address}.json" for member in MEMBERS[1:])
    assert file.stat().st_mode & 0o077 == 0
    assert "NotClaimable" in one.refused(honest, "claim", str(file))
    one.pass_time(HOUR + 1)
    document = json.loads(file.read_text())
    for field_name, value in (("amount", str(AMOUNT)), ("account", idle.address), ("index", document["index"] ^ 1)):
        forged = tmp_path / f"forged-{field_name}.json"
        forged.write_text(json.dumps({**document, field_name: value}))
        assert "does not lead from this leaf" in one.refused(honest, "claim", str(forged))
    claimed = one.done(honest, "claim", str(file))
    assert (claimed["account"], claimed["amount"]) == (honest.address, str(AMOUNT // 8))
    assert one.ask(DISTRIBUTOR, "creditOf", one.address(TOKEN), honest.address) == AMOUNT // 8
    assert "AlreadyClaimed" in one.refused(honest, "claim", str(file))

    # Values that are not those that it signed: nobody takes an aggregator's word.
    with transaction(one.engine) as session:
        attempt = session.get_one(Attempt, (one.scored.id, 4, 1))
        assert attempt.metrics is not None
        attempt.metrics = {**attempt.metrics, METRIC: [0, *attempt.metrics[METRIC][1:]]}
    assert "metrics of round 4: expected digest" in one.refused(honest, "scores", one.scored.id)
