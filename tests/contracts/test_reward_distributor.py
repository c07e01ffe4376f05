"""Rewards of rounds, over relayed calls: paid in by a permit before the round opens, claimed by proofs that Python makes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.commitments import MerkleTree, Share, chain_context, epoch_id, random_salt, reward_tree
from rexis.encoding import from_hex, sha256
from rexis.errors import ContractRevertedError
from rexis.protocol.federation_rounds import RoundResult, Survivors, accumulate, approvals, federation_id
from rexis.protocol.secagg_messages import secagg_context, survivors_hash
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rewards.json").read_text())
ABSENT, FUNDED, PUBLISHED, CHALLENGED, CONFIRMED, CLOSED = range(6)
CONFIG, MODEL, MANIFEST, LABEL, REASON = (sha256(text) for text in (b"config", b"model", b"manifest", b"label", b"reason"))
PERMIT_DOMAIN = "Rexis local credit"
PERMIT_TYPE = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
AMOUNT = 10**18

Act = Callable[..., Any]


def refused(act: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.error, caught.value.arguments


@dataclass
class Programme:
    """A federation of three sites, and somebody who rewards its first round."""

    chain: Chain
    relay: Act
    transact: Act
    funder: LocalSigner
    sites: list[LocalSigner] = field(
        default_factory=lambda: sorted((LocalSigner.generate() for _ in range(3)), key=lambda site: site.address.lower())
    )
    aggregator: LocalSigner = field(default_factory=LocalSigner.generate)
    publisher: LocalSigner = field(default_factory=LocalSigner.generate)
    arbiter: LocalSigner = field(default_factory=LocalSigner.generate)

    def address(self, name: str) -> str:
        return self.chain.deployment.contracts[name].address

    def functions(self, name: str = "RewardDistributor") -> Any:
        return self.chain.contract(name).functions

    def act(self, who: LocalSigner, function: str, *arguments: Any, contract: str = "RewardDistributor") -> Any:
        return self.relay(who, function, *arguments, contract=contract)

    @property
    def now(self) -> int:
        return int(self.chain.web3.eth.get_block("latest")["timestamp"])

    @property
    def federation(self) -> bytes:
        return federation_id(self.chain.deployment.chain_id, self.address("FederationRegistry"), self.funder.address, CONFIG)

    @property
    def epoch(self) -> bytes:
        place = (self.chain.deployment.chain_id, self.address("RewardDistributor"))
        return epoch_id(*place, self.funder.address, self.federation, 1, 1, LABEL)

    @property
    def state(self) -> dict[str, Any]:
        (output,) = self.chain.contract("RewardDistributor").get_function_by_name("get").abi["outputs"]
        names = [component["name"] for component in output["components"]]
        return dict(zip(names, self.functions().get(self.epoch).call(), strict=True))

    def found(self) -> None:
        founding = {
            "configHash": CONFIG,
            "model": MODEL,
            "minSurvivors": 3,
            "quorum": 1,
            "participants": [site.address for site in self.sites],
            "aggregators": [self.aggregator.address],
        }
        self.act(self.funder, "create", founding, contract="FederationRegistry")

    def open(self) -> None:
        arguments = (self.federation, 1, 1, MANIFEST, self.now + 3600, self.now + 7200)
        self.act(self.aggregator, "openRound", *arguments, contract="FederationRegistry")

    def train(self) -> None:
        """The first round, with everybody's update."""
        registry = self.address("FederationRegistry")
        place = (self.chain.deployment.chain_id, registry)
        ctx = secagg_context(*place, self.federation, 1, 1, MANIFEST)
        self.open()
        for site in self.sites:
            self.act(site, "commitUpdate", self.federation, ctx, sha256(site.address.encode()), contract="FederationRegistry")
        roster = [site.address for site in self.sites]
        fixed = Survivors(self.federation, 1, 1, survivors_hash(ctx, roster), MODEL)
        given = {"federation": self.federation, "round": 1, "attempt": 1, "maskedRecord": MODEL, "survivors": roster}
        signed = approvals({self.aggregator.address: self.aggregator.sign_typed_data(fixed.typed_data(*place))})
        self.transact(registry, encode_call("FederationRegistry", "fixSurvivors", given, signed))
        total = accumulate(ctx, {address: sha256(address.encode()) for address in roster})
        result = RoundResult(self.federation, 1, 1, fixed.survivors_hash, total, 3, MODEL, MODEL, CONFIG, MODEL)
        signed = approvals({self.aggregator.address: self.aggregator.sign_typed_data(result.typed_data(*place))})
        self.transact(registry, encode_call("FederationRegistry", "finalise", result.fields(), signed))

    def terms(self, **changes: Any) -> dict[str, Any]:
        given = {
            "federation": self.federation,
            "firstRound": 1,
            "lastRound": 1,
            "label": LABEL,
            "token": self.address("LocalCredit"),
            "amount": AMOUNT,
            "publisher": self.publisher.address,
            "arbiter": self.arbiter.address,
            "publishBy": self.now + 90 * 86400,
            "challengeSeconds": 86400,
            "answerSeconds": 2 * 86400,
            "claimSeconds": 30 * 86400,
        }
        return given | changes

    def permit(self) -> dict[str, Any]:
        """The funder's signature over the amount, as any wallet makes it (ERC-2612)."""
        domain = Domain(self.chain.deployment.chain_id, self.address("LocalCredit"), PERMIT_DOMAIN)
        message = {
            "owner": self.funder.address,
            "spender": self.address("RewardDistributor"),
            "value": AMOUNT,
            "nonce": self.functions("LocalCredit").nonces(self.funder.address).call(),
            "deadline": self.now + 3600,
        }
        signature = self.funder.sign_typed_data(TypedMessage(domain, PERMIT_TYPE, message))
        return {"deadline": message["deadline"], "v": signature[64], "r": signature[:32], "s": signature[32:64]}

    def fund(self, **changes: Any) -> Any:
        mint = encode_call("LocalCredit", "mint", self.funder.address, AMOUNT)
        self.transact(self.address("LocalCredit"), mint)
        return self.act(self.funder, "fund", self.terms(**changes), self.permit())

    def shares(self, amounts: Sequence[int]) -> list[Share]:
        return [Share(site.address, amount, random_salt()) for site, amount in zip(self.sites, amounts, strict=True)]

    def tree(self, shares: Sequence[Share]) -> MerkleTree:
        return reward_tree(self.chain.deployment.chain_id, self.address("RewardDistributor"), self.epoch, shares)

    def publish(self, shares: Sequence[Share], number: int = 1) -> Any:
        total = sum(share.amount for share in shares)
        record = self.tree(shares).record
        return self.act(self.publisher, "publish", self.epoch, number, record, len(shares), total, "https://example.org/rewards")

    def claim(self, shares: Sequence[Share], index: int) -> Any:
        """Anybody may send it: the relayer does, without the forwarder."""
        share, proof = shares[index], self.tree(shares).proof(index)
        call = encode_call("RewardDistributor", "claim", self.epoch, index, share.account, share.amount, share.salt, proof)
        return self.transact(self.address("RewardDistributor"), call)

    def event(self, name: str, receipt: Any) -> dict[str, Any]:
        (found,) = self.chain.contract("RewardDistributor").events[name]().process_receipt(receipt, errors=DISCARD)
        return dict(found["args"])


@pytest.fixture
def programme(chain: Chain, act: Act, transact: Act, institution: LocalSigner) -> Programme:
    one = Programme(chain, act, transact, institution)
    one.found()
    return one


def test_a_reward_is_told_by_its_events_from_the_permit_to_the_last_withdrawal(programme: Programme, warp: Callable[[int], None]) -> None:
    one, token = programme, programme.functions("LocalCredit")
    receipt = one.fund()
    funded = one.event("EpochFunded", receipt)
    assert (funded["epoch"], funded["federation"], funded["funder"]) == (one.epoch, one.federation, one.funder.address)
    assert funded["terms"]["amount"] == AMOUNT
    assert funded["terms"]["arbiter"] == one.arbiter.address
    assert token.balanceOf(one.address("RewardDistributor")).call() == AMOUNT
    one.train()

    shares = one.shares((5 * 10**17, 3 * 10**17, 10**17))
    published = one.event("RewardsPublished", one.publish(shares))
    assert (published["record"], published["nLeaves"], published["total"]) == (one.tree(shares).record, 3, 9 * 10**17)
    assert published["claimFrom"] == published["challengeUntil"] + 1 == one.now + 86401
    warp(published["claimFrom"])
    claimed = 0
    for index, share in enumerate(shares):
        told = one.event("RewardClaimed", one.claim(shares, index))
        claimed += share.amount
        assert (told["account"], told["amount"], told["index"], told["claimed"]) == (share.account, share.amount, index, claimed)
    twice = refused(lambda: one.claim(shares, 1))
    assert twice == ("AlreadyClaimed", {"epoch": "0x" + one.epoch.hex(), "index": 1})
    one.act(one.sites[0], "withdraw", one.address("LocalCredit"), one.publisher.address)
    assert token.balanceOf(one.publisher.address).call() == 5 * 10**17

    warp(published["claimUntil"] + 1)
    closed = one.event("EpochClosed", one.act(LocalSigner.generate(), "close", one.epoch))
    assert (closed["funder"], closed["returned"]) == (one.funder.address, 10**17)
    one.act(one.funder, "withdraw", one.address("LocalCredit"), one.funder.address)
    assert (one.state["status"], token.balanceOf(one.funder.address).call()) == (CLOSED, 10**17)


def test_nobody_is_promised_a_reward_after_training_began(programme: Programme) -> None:
    programme.open()
    name, arguments = refused(programme.fund)
    assert (name, arguments["firstRound"], arguments["currentRound"]) == ("RoundHasOpened", 1, 1)


def test_an_objection_leads_to_another_publication(programme: Programme, warp: Callable[[int], None]) -> None:
    one = programme
    one.fund()
    one.train()
    unfair, fair = one.shares((AMOUNT, 0, 0)), one.shares((4 * 10**17, 3 * 10**17, 3 * 10**17))
    one.publish(unfair)
    told = one.event("RewardsChallenged", one.act(one.sites[1], "challenge", one.epoch, 1, REASON))
    assert (told["challenger"], told["number"], told["reasonHash"]) == (one.sites[1].address, 1, REASON)
    assert refused(lambda: one.act(one.publisher, "reject", one.epoch, 1, REASON))[0] == "NotArbiter"
    one.act(one.arbiter, "reject", one.epoch, 1, REASON)
    # Sent before, relayed after: it names what it meant.
    assert refused(lambda: one.publish(unfair))[0] == "PublicationMismatch"
    published = one.event("RewardsPublished", one.publish(fair, 2))
    assert refused(lambda: one.act(one.sites[1], "challenge", one.epoch, 1, REASON))[0] == "PublicationMismatch"
    warp(published["claimFrom"])
    assert refused(lambda: one.claim(unfair, 0))[0] == "RecordMismatch"
    one.claim(fair, 1)
    assert one.functions().creditOf(one.address("LocalCredit"), one.sites[1].address).call() == 3 * 10**17


def test_what_was_never_published_goes_back(programme: Programme, warp: Callable[[int], None]) -> None:
    one = programme
    one.fund(publishBy=one.now + 3600)
    assert refused(lambda: one.act(one.funder, "close", one.epoch))[0] == "NotOver"
    warp(one.now + 7200)
    one.act(LocalSigner.generate(), "close", one.epoch)
    assert one.functions().creditOf(one.address("LocalCredit"), one.funder.address).call() == AMOUNT


def test_nobody_publishes_in_anothers_name_without_the_forwarder(programme: Programme) -> None:
    programme.fund()
    forged = encode_call("RewardDistributor", "publish", programme.epoch, 1, MODEL, 1, 1, "") + bytes.fromhex(
        programme.publisher.address[2:]
    )
    assert refused(lambda: programme.transact(programme.address("RewardDistributor"), forged))[0] == "NotPublisher"


def test_the_contract_and_python_reproduce_the_vectors(chain: Chain) -> None:
    # The vectors fix a contract's address: its code is put there.
    place, chain_id = VECTORS["distributor"], VECTORS["chainId"]
    code = chain.web3.eth.get_code(chain.contract("RewardDistributor").address)
    chain.web3.provider.make_request("anvil_setCode", [place, "0x" + bytes(code).hex()])
    functions = chain.web3.eth.contract(address=place, abi=chain.contract("RewardDistributor").abi).functions
    epoch, rounds = from_hex(VECTORS["epoch"], 32), (VECTORS["firstRound"], VECTORS["lastRound"])
    given = (VECTORS["funder"], from_hex(VECTORS["federation"], 32), *rounds, from_hex(VECTORS["label"], 32))
    assert functions.epochId(*given).call() == epoch == epoch_id(chain_id, place, *given)
    tree = VECTORS["tree"]
    assert functions.contextOf(epoch).call() == from_hex(tree["context"], 32) == chain_context(chain_id, place, epoch)
    salts = [from_hex(salt, 16) for salt in tree["salts"]]
    shares = [Share(one["account"], int(one["amount"]), salt) for one, salt in zip(VECTORS["shares"], salts, strict=True)]
    for share, digest in zip(shares, tree["digests"], strict=True):
        assert functions.digestOf(share.account, share.amount).call() == from_hex(digest, 32) == share.leaf().digest
    made = reward_tree(chain_id, place, epoch, shares)
    assert (made.root, made.record) == (from_hex(tree["root"], 32), from_hex(tree["record"], 32))
    assert [[from_hex(sibling, 32) for sibling in proof] for proof in tree["proofs"]] == [list(made.proof(i)) for i in range(3)]


def test_a_permit_equals_the_vectors() -> None:
    permit = VECTORS["permit"]
    message = {**permit["message"], "value": int(permit["message"]["value"])}
    typed = TypedMessage(Domain(VECTORS["chainId"], permit["token"], PERMIT_DOMAIN), PERMIT_TYPE, message)
    assert typed.type_string == permit["eip712"]["type"]
    assert typed.hash() == from_hex(permit["eip712"]["digest"], 32)
    verify_signer(typed, from_hex(permit["r"], 32) + from_hex(permit["s"], 32) + bytes([permit["v"]]), message["owner"])


def test_shares_out_of_range_are_the_callers_mistake() -> None:
    account = VECTORS["shares"][0]["account"]
    for arguments in ((account.lower(), 1, bytes(16)), (account, -1, bytes(16)), (account, 2**256, bytes(16)), (account, 1, bytes(15))):
        with pytest.raises(ValueError, match="expected"):
            Share(*arguments)


def test_gas_stays_bounded(programme: Programme, warp: Callable[[int], None]) -> None:
    one = programme
    assert one.fund()["gasUsed"] < 520_000
    one.train()
    shares = one.shares((1, 2, 3))
    assert one.publish(shares)["gasUsed"] < 230_000
    warp(one.state["claimFrom"])
    one.claim(shares, 0)
    assert one.claim(shares, 1)["gasUsed"] < 110_000
