"""Models that owners vouch for, and batches of receipts that prove their answers, over relayed calls (wire formats, section 3)."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3
from web3.exceptions import ContractLogicError
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.permits import sign_permit
from rexis.chain.reverts import decode_revert
from rexis.chain.signer import LocalSigner
from rexis.commitments import LeafKind, MerkleTree, Receipt, batch_id, chain_context, random_salt, verify_inclusion
from rexis.commitments.positional_tree import leaf_hash
from rexis.encoding import from_hex, sha256
from rexis.errors import ContractRevertedError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "receipt.json").read_text())["batch"]
ABSENT, AUTHORISED, REVOKED = range(3)
AUDIT_FAILED, SUPERSEDED = 4, 5
MODEL, SPEC = sha256(b"model"), sha256(b"spec")
CHALLENGE_TIME, ANSWER_TIME, RULING_TIME = 7 * 86_400, 3 * 86_400, 14 * 86_400
BOND = 50 * 10**18
PENDING, CHALLENGED, FINAL, REJECTED = 1, 2, 3, 4
OPEN, ANSWERED, UPHELD, DISMISSED, UNDECIDED, MOOT = range(1, 7)
WHY = sha256(b"salted: why")
URI = "https://trainer.example/v1/models/1"

Act = Callable[..., Any]


def refused(act: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.error, caught.value.arguments


def as_hex(data: bytes) -> str:
    return "0x" + data.hex()


@dataclass
class Batch:
    """Receipts of an operator, committed on chain."""

    id: bytes
    receipts: list[Receipt]
    tree: MerkleTree


@pytest.fixture
def owner(act: Act, institution: LocalSigner) -> LocalSigner:
    """Has authorised the model."""
    act(institution, "authorise", MODEL, SPEC, URI, contract="ModelRegistry")
    return institution


@pytest.fixture
def operator() -> LocalSigner:
    return LocalSigner.generate()


@pytest.fixture
def make(chain: Chain, owner: LocalSigner, operator: LocalSigner) -> Callable[..., Batch]:
    def batch(count: int, sequence: int = 1) -> Batch:
        chain_id, registry = chain.deployment.chain_id, chain.deployment.contracts["InferenceRegistry"].address
        identifier = batch_id(chain_id, registry, operator.address, owner.address, MODEL, sequence)
        issued = datetime(2026, 11, 21, 3, 34, tzinfo=UTC)
        receipts = [Receipt(MODEL, sha256(b"x%d" % n), sha256(b"y%d" % n), random_salt(), issued, operator.address) for n in range(count)]
        context = chain_context(chain_id, registry, identifier)
        return Batch(identifier, receipts, MerkleTree(LeafKind.RECEIPT, context, [receipt.leaf() for receipt in receipts]))

    return batch


@pytest.fixture
def commit(act: Act, owner: LocalSigner, operator: LocalSigner) -> Callable[..., Any]:
    def send(batch: Batch, sequence: int = 1) -> Any:
        arguments = (owner.address, MODEL, sequence, batch.tree.record, len(batch.receipts))
        return act(operator, "commit", *arguments, contract="InferenceRegistry")

    return send


@pytest.fixture
def verify(chain: Chain) -> Callable[..., None]:
    """Ask the contract; a refusal is raised decoded."""

    def ask(*arguments: Any) -> None:
        try:
            chain.contract("InferenceRegistry").functions.verify(*arguments).call()
        except ContractLogicError as error:
            raise decode_revert(bytes.fromhex(str(error.data).removeprefix("0x"))) from error

    return ask


def test_a_model_is_authorised_and_revoked_by_its_owner(chain: Chain, act: Act, institution: LocalSigner) -> None:
    registry = chain.contract("ModelRegistry")
    receipt = act(institution, "authorise", MODEL, SPEC, URI, contract="ModelRegistry")
    (authorised,) = registry.events.ModelAuthorised().process_receipt(receipt, errors=DISCARD)
    assert dict(authorised["args"]) == {"owner": institution.address, "model": MODEL, "specDigest": SPEC, "uri": URI}
    then = chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"]
    assert registry.functions.statusOf(institution.address, MODEL).call() == (AUTHORISED, 0, then, 0, SPEC)

    receipt = act(institution, "revoke", MODEL, AUDIT_FAILED, contract="ModelRegistry")
    (revoked,) = registry.events.ModelRevoked().process_receipt(receipt, errors=DISCARD)
    assert dict(revoked["args"]) == {"owner": institution.address, "model": MODEL, "reason": AUDIT_FAILED}
    now = chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"]
    assert registry.functions.statusOf(institution.address, MODEL).call() == (REVOKED, AUDIT_FAILED, then, now, SPEC)
    assert registry.functions.isAuthorised(institution.address, MODEL).call() is False

    gone = {"owner": institution.address, "model": as_hex(MODEL)}
    assert refused(lambda: act(institution, "authorise", MODEL, SPEC, URI, contract="ModelRegistry")) == (
        "ModelNotNew",
        {**gone, "status": REVOKED},
    )
    assert refused(lambda: act(institution, "revoke", MODEL, SUPERSEDED, contract="ModelRegistry")) == ("ModelAlreadyRevoked", gone)
    # The record is not the owner's alone: another one may vouch for the same weights.
    other = LocalSigner.generate()
    act(other, "authorise", MODEL, SPEC, URI, contract="ModelRegistry")
    assert registry.functions.isAuthorised(other.address, MODEL).call() is True


def test_an_authorisation_that_arrives_after_its_revocation_is_refused(
    act: Act, institution: LocalSigner, call_to: Act, sign: Act, execute: Act
) -> None:
    held_back = call_to(institution.address, "authorise", MODEL, SPEC, URI, contract="ModelRegistry")
    signature = sign(institution, held_back)
    act(institution, "revoke", MODEL, SUPERSEDED, contract="ModelRegistry")
    assert refused(lambda: execute(held_back, signature))[0] == "ModelNotNew"


@pytest.mark.parametrize(
    ("function", "arguments", "error"),
    [
        ("authorise", (bytes(32), SPEC, ""), "MissingModel"),
        ("authorise", (MODEL, bytes(32), ""), "MissingModel"),
        ("authorise", (MODEL, SPEC, "x" * 513), "LocationTooLong"),
        ("revoke", (MODEL, 0), "MissingReason"),
        ("revoke", (bytes(32), 1), "MissingModel"),
    ],
)
def test_models_out_of_form_are_refused(function: str, arguments: tuple[Any, ...], error: str, act: Act, institution: LocalSigner) -> None:
    assert refused(lambda: act(institution, function, *arguments, contract="ModelRegistry"))[0] == error


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_receipt_of_a_batch_verifies_on_chain_and_off(
    count: int, chain: Chain, owner: LocalSigner, operator: LocalSigner, make: Act, commit: Act, verify: Act
) -> None:
    batch = make(count)
    receipt = commit(batch)
    registry = chain.contract("InferenceRegistry")
    then = chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"]
    (committed,) = registry.events.BatchCommitted().process_receipt(receipt, errors=DISCARD)
    assert dict(committed["args"]) == {
        "batch": batch.id,
        "operator": operator.address,
        "model": MODEL,
        "owner": owner.address,
        "sequence": 1,
        "record": batch.tree.record,
        "count": count,
        "terms": 0,
        "until": then + CHALLENGE_TIME,
    }
    pending, no_terms, none_open = 1, 0, 0
    stored = (operator.address, then, count, pending, no_terms, owner.address, none_open, MODEL, batch.tree.record)
    assert registry.functions.get(batch.id).call() == stored
    for index, answer in enumerate(batch.receipts):
        proof = batch.tree.proof(index)
        verify(batch.id, index, answer.digest, answer.salt, proof)
        verify_inclusion(LeafKind.RECEIPT, batch.tree.context, index, answer.leaf(), count, proof, batch.tree.record)


def test_a_changed_answer_or_place_is_refused_by_name(make: Act, commit: Act, verify: Act) -> None:
    batch = make(5)
    commit(batch)
    answer, proof = batch.receipts[3], batch.tree.proof(3)
    changed = replace(answer, output=sha256(b"another answer"))
    for wrong in (
        (batch.id, 3, changed.digest, answer.salt, proof),
        (batch.id, 3, answer.digest, bytes(16), proof),
        (batch.id, 2, answer.digest, answer.salt, proof),
        (batch.id, 3, answer.digest, answer.salt, [bytes(32), *proof[1:]]),
    ):
        with pytest.raises(ContractRevertedError) as caught:
            verify(*wrong)
        # The library's error, though the registry raised it.
        assert (caught.value.contract, caught.value.error) == ("PositionalTree", "RecordMismatch")
    out_of_range = ("LeafOutOfRange", {"index": 5, "nLeaves": 5})
    assert refused(lambda: verify(batch.id, 5, answer.digest, answer.salt, proof)) == out_of_range
    assert refused(lambda: verify(batch.id, 3, answer.digest, answer.salt, proof[:2])) == (
        "ProofLengthMismatch",
        {"expected": 3, "got": 2},
    )
    assert refused(lambda: verify(MODEL, 3, answer.digest, answer.salt, proof)) == ("UnknownBatch", {"batch": as_hex(MODEL)})


def test_a_batch_is_written_once_for_a_model_that_its_owner_vouches_for(
    act: Act, owner: LocalSigner, operator: LocalSigner, make: Act, commit: Act, verify: Act
) -> None:
    batch = make(2)
    commit(batch)
    assert refused(lambda: commit(make(3))) == ("BatchExists", {"batch": as_hex(batch.id)})
    # The same number by somebody else is another batch.
    taken = (owner.address, MODEL, 1, batch.tree.record, 2)
    act(LocalSigner.generate(), "commit", *taken, contract="InferenceRegistry")

    act(owner, "revoke", MODEL, AUDIT_FAILED, contract="ModelRegistry")
    unauthorised = ("ModelNotAuthorised", {"owner": owner.address, "model": as_hex(MODEL)})
    assert refused(lambda: commit(make(2, sequence=2), sequence=2)) == unauthorised
    # What was answered before stays provable.
    verify(batch.id, 0, batch.receipts[0].digest, batch.receipts[0].salt, batch.tree.proof(0))


def test_nobody_commits_in_an_operators_name_without_the_forwarder(
    chain: Chain, owner: LocalSigner, operator: LocalSigner, relayer: LocalSigner, make: Act, transact: Act
) -> None:
    call = encode_call("InferenceRegistry", "commit", owner.address, MODEL, 1, make(1).tree.record, 1)
    registry = chain.contract("InferenceRegistry")
    receipt = transact(registry.address, call + bytes.fromhex(operator.address[2:]))
    (committed,) = registry.events.BatchCommitted().process_receipt(receipt, errors=DISCARD)
    assert committed["args"]["operator"] == relayer.address


def test_ids_and_contexts_equal_the_vectors(chain: Chain) -> None:
    # The vectors fix the registry's address: its code is put there.
    place = Web3.to_checksum_address(VECTORS["contract"])
    code = chain.web3.eth.get_code(chain.contract("InferenceRegistry").address)
    chain.web3.provider.make_request("anvil_setCode", [place, "0x" + bytes(code).hex()])
    functions = chain.web3.eth.contract(address=place, abi=chain.contract("InferenceRegistry").abi).functions
    arguments = (VECTORS["operator"], VECTORS["owner"], from_hex(VECTORS["model"], 32), VECTORS["sequence"])
    identifier = from_hex(VECTORS["id"], 32)
    assert functions.batchId(*arguments).call() == identifier
    assert batch_id(chain.web3.eth.chain_id, place, *arguments) == identifier
    assert functions.contextOf(identifier).call() == from_hex(VECTORS["context"], 32)


# Stakes and challenges.


@dataclass
class Stakes:
    """An operator with two bonds in the registry, a challenger with money and no ether, and an arbiter, all over relayed calls."""

    chain: Chain
    act: Act
    operator: LocalSigner
    challenger: LocalSigner
    arbiter: LocalSigner

    def do(self, who: LocalSigner, function: str, *arguments: Any) -> Any:
        return self.act(who, function, *arguments, contract="InferenceRegistry")

    def ask(self, function: str, *arguments: Any) -> Any:
        return self.chain.contract("InferenceRegistry").get_function_by_name(function)(*arguments).call()

    @property
    def token(self) -> str:
        return self.chain.deployment.contracts["LocalCredit"].address

    @property
    def now(self) -> int:
        return int(self.chain.web3.eth.get_block("latest")["timestamp"])

    def permit(self, who: LocalSigner, amount: int) -> dict[str, Any]:
        registry = self.chain.deployment.contracts["InferenceRegistry"].address
        return sign_permit(self.chain.web3, who, self.token, registry, amount, self.now + 3600)

    def challenge(self, batch: Batch, index: int, who: LocalSigner | None = None) -> Any:
        who = who or self.challenger
        leaf = leaf_hash(LeafKind.RECEIPT, batch.tree.context, index, batch.receipts[index].leaf())
        return self.do(who, "challenge", batch.id, index, leaf, batch.tree.proof(index), WHY, self.permit(who, BOND))

    def outcome(self, batch: Batch, index: int, who: LocalSigner | None = None) -> int:
        return int(self.ask("challengeOf", batch.id, index, (who or self.challenger).address)[0])

    def standing(self, batch: Batch) -> tuple[Any, ...]:
        """Status of a batch; the operator's stake and locked part; credits of operator and challenger."""
        credits = [self.ask("creditOf", self.token, who.address) for who in (self.operator, self.challenger)]
        return self.ask("statusOf", batch.id), *self.ask("stakeOf", self.operator.address, self.token), *credits


@pytest.fixture
def stakes(chain: Chain, act: Act, operator: LocalSigner, transact: Act) -> Stakes:
    made = Stakes(chain, act, operator, LocalSigner.generate(), LocalSigner.generate())
    for who in (made.operator, made.challenger):
        transact(made.token, encode_call("LocalCredit", "mint", who.address, 10 * BOND))
    made.do(operator, "deposit", made.token, 2 * BOND, made.permit(operator, 2 * BOND))
    made.do(operator, "setTerms", {"token": made.token, "bond": BOND, "arbiter": made.arbiter.address}, 0)
    return made


def test_a_stake_is_put_in_by_permit_locked_by_a_batch_and_freed_in_time(stakes: Stakes, make: Act, commit: Act, warp: Act) -> None:
    first, second, third = (make(2, sequence=number) for number in (1, 2, 3))
    commit(first, 1)
    commit(second, 2)
    assert stakes.standing(first) == (PENDING, 2 * BOND, 2 * BOND, 0, 0)
    lack = {"operator": stakes.operator.address, "token": stakes.token, "required": BOND, "free": 0}
    assert refused(lambda: commit(third, 3)) == ("StakeTooSmall", lack)
    assert refused(lambda: stakes.do(stakes.operator, "unstake", stakes.token, 1)) == ("StakeTooSmall", {**lack, "required": 1})
    nothing = {"token": "0x" + 40 * "0", "bond": 0, "arbiter": "0x" + 40 * "0"}
    stale = ("TermsVersionMismatch", {"expected": 1, "got": 0})
    assert refused(lambda: stakes.do(stakes.operator, "setTerms", nothing, 0)) == stale

    until = stakes.ask("get", first.id)[1] + CHALLENGE_TIME
    early = refused(lambda: stakes.do(LocalSigner.generate(), "finalise", first.id))
    assert (early[0], early[1]["deadline"]) == ("DeadlineNotReached", until)
    warp(until + 1)
    assert stakes.ask("statusOf", first.id) == FINAL  # by time; the bond waits for a call
    stakes.do(LocalSigner.generate(), "finalise", first.id)
    assert stakes.standing(first) == (FINAL, 2 * BOND, BOND, 0, 0)
    assert refused(lambda: stakes.do(stakes.operator, "finalise", first.id))[0] == "WrongBatchStatus"
    stakes.do(stakes.operator, "unstake", stakes.token, BOND)
    stakes.do(stakes.operator, "withdraw", stakes.token, stakes.operator.address)
    assert stakes.chain.contract("LocalCredit").functions.balanceOf(stakes.operator.address).call() == 9 * BOND


def test_whoever_does_not_answer_loses_his_bond_and_the_other_challengers_nothing(
    stakes: Stakes, make: Act, commit: Act, warp: Act, transact: Act
) -> None:
    batch, other = make(5), LocalSigner.generate()
    commit(batch)
    transact(stakes.token, encode_call("LocalCredit", "mint", other.address, BOND))
    opened = stakes.challenge(batch, 3)
    registry = stakes.chain.contract("InferenceRegistry")
    (event,) = registry.events.ChallengeOpened().process_receipt(opened, errors=DISCARD)
    leaf = leaf_hash(LeafKind.RECEIPT, batch.tree.context, 3, batch.receipts[3].leaf())
    deadline = stakes.now + ANSWER_TIME
    who = stakes.challenger.address
    assert dict(event["args"]) == {"batch": batch.id, "index": 3, "challenger": who, "leaf": leaf, "reason": WHY, "deadline": deadline}
    stakes.challenge(batch, 3, other)
    assert refused(lambda: stakes.challenge(batch, 3))[0] == "ChallengeExists"
    assert stakes.standing(batch)[0] == CHALLENGED

    warp(deadline + 1)
    assert refused(lambda: stakes.do(stakes.operator, "answerChallenge", batch.id, 3, who, WHY))[0] == "DeadlinePassed"
    closed = stakes.do(LocalSigner.generate(), "settle", batch.id, 3, who)
    (event,) = registry.events.BatchRejected().process_receipt(closed, errors=DISCARD)
    assert dict(event["args"]) == {"batch": batch.id, "operator": stakes.operator.address, "challenger": who, "index": 3}
    assert stakes.standing(batch) == (REJECTED, BOND, 0, 0, BOND + BOND // 2)
    stakes.do(LocalSigner.generate(), "settle", batch.id, 3, other.address)
    assert (stakes.outcome(batch, 3), stakes.outcome(batch, 3, other)) == (UPHELD, MOOT)
    assert stakes.ask("creditOf", stakes.token, other.address) == BOND
    stakes.do(stakes.challenger, "withdraw", stakes.token, who)
    assert stakes.chain.contract("LocalCredit").functions.balanceOf(who).call() == 10 * BOND + BOND // 2


@pytest.mark.parametrize(
    ("ruling", "expected"),
    [
        (True, (UPHELD, REJECTED, BOND, 0, 0, BOND + BOND // 2)),
        (False, (DISMISSED, PENDING, 2 * BOND, BOND, BOND, 0)),
        (None, (UNDECIDED, FINAL, 2 * BOND, BOND, 0, BOND)),
    ],
)
def test_what_was_answered_the_arbiter_judges_or_time(
    ruling: bool | None, expected: tuple[int, ...], stakes: Stakes, make: Act, commit: Act, warp: Act
) -> None:
    batch = make(2)
    commit(batch)
    stakes.challenge(batch, 0)
    who = stakes.challenger.address
    assert refused(lambda: stakes.do(stakes.arbiter, "rule", batch.id, 0, who, True, WHY))[0] == "WrongOutcome"
    assert refused(lambda: stakes.do(stakes.challenger, "answerChallenge", batch.id, 0, who, WHY))[0] == "NotOperator"
    stakes.do(stakes.operator, "answerChallenge", batch.id, 0, who, WHY)
    assert refused(lambda: stakes.do(stakes.operator, "rule", batch.id, 0, who, False, WHY))[0] == "NotArbiterOfBatch"
    if ruling is None:
        warp(stakes.now + RULING_TIME + 1)
        assert refused(lambda: stakes.do(stakes.arbiter, "rule", batch.id, 0, who, True, WHY))[0] == "DeadlinePassed"
        stakes.do(LocalSigner.generate(), "settle", batch.id, 0, who)
    else:
        stakes.do(stakes.arbiter, "rule", batch.id, 0, who, ruling, WHY)
    assert (stakes.outcome(batch, 0), *stakes.standing(batch)) == expected


def test_a_challenge_after_the_models_revocation_counts_and_one_of_an_unstaked_batch_does_not(
    stakes: Stakes, owner: LocalSigner, make: Act, commit: Act, warp: Act
) -> None:
    batch, unstaked = make(2), make(2, sequence=2)
    commit(batch)
    nothing = {"token": "0x" + 40 * "0", "bond": 0, "arbiter": "0x" + 40 * "0"}
    stakes.do(stakes.operator, "setTerms", nothing, 1)
    commit(unstaked, 2)
    stakes.act(owner, "revoke", MODEL, AUDIT_FAILED, contract="ModelRegistry")
    assert refused(lambda: stakes.challenge(unstaked, 0)) == ("NothingStaked", {"batch": as_hex(unstaked.id)})
    # What was staked stays staked, whatever the operator says of later batches.
    stakes.challenge(batch, 1)
    warp(stakes.now + ANSWER_TIME + 1)
    stakes.do(stakes.challenger, "settle", batch.id, 1, stakes.challenger.address)
    assert stakes.standing(batch) == (REJECTED, BOND, 0, 0, BOND + BOND // 2)
    # Rejected says nothing about what is proved: the receipt was given.
    answer = batch.receipts[1]
    stakes.ask("verify", batch.id, 1, answer.digest, answer.salt, batch.tree.proof(1))
    late = make(2, sequence=2)
    warp(stakes.now + CHALLENGE_TIME)
    assert refused(lambda: stakes.challenge(late, 0))[0] == "NothingStaked"


def test_a_batch_of_any_size_costs_the_same(make: Act, commit: Act) -> None:
    """Issue 4's bound for 1,000 answers is 175,000."""
    assert commit(make(2), 1)["gasUsed"] < 175_000
    assert commit(make(1000, sequence=2), 2)["gasUsed"] < 175_000
