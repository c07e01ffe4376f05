"""Models, and batches of a thousand receipts of their answers, with and without a stake on them."""

from datetime import UTC, datetime

from contracts.gas.access import URI
from contracts.gas.meter import HOUR, Meter
from rexis.chain.permits import no_permit, sign_permit
from rexis.chain.signer import Signer
from rexis.commitments import LeafKind, MerkleTree, Receipt, batch_id, chain_context
from rexis.commitments.positional_tree import leaf_hash
from rexis.encoding import sha256

REGISTRY = "InferenceRegistry"
MODEL, SPEC = sha256(b"model"), sha256(b"spec")
RECEIPTS = 1_000
WEEK = 7 * 24 * HOUR
BOND = 50 * 10**18


def receipts(issuer: str) -> list[Receipt]:
    """`RECEIPTS` receipts of an issuer."""
    issued = datetime(2026, 11, 21, 3, 34, tzinfo=UTC)
    return [Receipt(MODEL, sha256(b"x%d" % n), sha256(b"y%d" % n), sha256(b"salt%d" % n)[:16], issued, issuer) for n in range(RECEIPTS)]


def batch(meter: Meter, operator: str, owner: str, sequence: int) -> tuple[bytes, MerkleTree]:
    """Id and tree of a batch of `RECEIPTS` receipts."""
    chain_id, registry = meter.chain.deployment.chain_id, meter.address(REGISTRY)
    identifier = batch_id(chain_id, registry, operator, owner, MODEL, sequence)
    context = chain_context(chain_id, registry, identifier)
    return identifier, MerkleTree(LeafKind.RECEIPT, context, [receipt.leaf() for receipt in receipts(operator)])


def weigh(meter: Meter) -> None:
    """Authorise, commit, stake, commit, challenge, finalise."""
    owner, operator = meter.account("model owner"), meter.payer
    meter.relayed("authorise a model", owner, "ModelRegistry", "authorise", MODEL, SPEC, URI)
    for sequence, name in ((1, "commit 1,000 receipts, first"), (2, "commit 1,000 receipts")):
        _, tree = batch(meter, operator.address, owner.address, sequence)
        meter.sent(name, REGISTRY, "commit", owner.address, MODEL, sequence, tree.record, RECEIPTS)
    _stake(meter, operator)
    staked = {sequence: batch(meter, operator.address, owner.address, sequence) for sequence in (3, 4, 5)}
    for sequence, name in ((3, "commit 1,000 receipts, staked, first"), (4, "commit 1,000 receipts, staked"), (5, None)):
        meter.sent(name, REGISTRY, "commit", owner.address, MODEL, sequence, staked[sequence][1].record, RECEIPTS)
    _challenge(meter, *staked[5])
    meter.wait(WEEK)
    meter.sent("finalise a staked batch, first", REGISTRY, "finalise", staked[3][0])
    meter.sent("finalise a staked batch", REGISTRY, "finalise", staked[4][0])


def _stake(meter: Meter, operator: Signer) -> None:
    token, registry = meter.address("LocalCredit"), meter.address(REGISTRY)
    meter.sent(None, "LocalCredit", "mint", operator.address, 10 * BOND)
    meter.sent(None, "LocalCredit", "approve", registry, 10 * BOND)
    meter.sent("deposit a stake", REGISTRY, "deposit", token, 5 * BOND, no_permit())
    terms = {"token": token, "bond": BOND, "arbiter": meter.account("arbiter of batches").address}
    meter.sent("set terms of a stake", REGISTRY, "setTerms", terms, 0)


def _challenge(meter: Meter, identifier: bytes, tree: MerkleTree) -> None:
    challenger, arbiter = meter.account("challenger"), meter.account("arbiter of batches")
    token, registry, place = meter.address("LocalCredit"), meter.address(REGISTRY), 7
    meter.sent(None, "LocalCredit", "mint", challenger.address, BOND)
    permit = sign_permit(meter.chain.web3, challenger, token, registry, BOND, meter.now + HOUR)
    leaf, proof = leaf_hash(LeafKind.RECEIPT, tree.context, place, receipts(meter.payer.address)[place].leaf()), tree.proof(place)
    meter.relayed("challenge a receipt", challenger, REGISTRY, "challenge", identifier, place, leaf, proof, SPEC, permit)
    meter.sent("answer a challenge", REGISTRY, "answerChallenge", identifier, place, challenger.address, SPEC)
    meter.relayed("uphold a challenge", arbiter, REGISTRY, "rule", identifier, place, challenger.address, True, SPEC)
