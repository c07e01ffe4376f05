"""Models, and batches of a thousand receipts of their answers, with and without a stake on them."""

from datetime import UTC, datetime

from contracts.gas.access import URI
from contracts.gas.meter import HOUR, Meter
from rexis.commitments import LeafKind, MerkleTree, Receipt, batch_id, chain_context
from rexis.encoding import sha256

REGISTRY = "InferenceRegistry"
MODEL, SPEC = sha256(b"model"), sha256(b"spec")
RECEIPTS = 1_000
WEEK = 7 * 24 * HOUR


def batch(meter: Meter, operator: str, owner: str, sequence: int) -> tuple[bytes, MerkleTree]:
    """Id and tree of a batch of `RECEIPTS` receipts."""
    chain_id, registry = meter.chain.deployment.chain_id, meter.address(REGISTRY)
    identifier = batch_id(chain_id, registry, operator, owner, MODEL, sequence)
    issued = datetime(2026, 11, 21, 3, 34, tzinfo=UTC)
    receipts = [
        Receipt(MODEL, sha256(b"x%d" % n), sha256(b"y%d" % n), sha256(b"salt%d" % n)[:16], issued, operator) for n in range(RECEIPTS)
    ]
    context = chain_context(chain_id, registry, identifier)
    return identifier, MerkleTree(LeafKind.RECEIPT, context, [receipt.leaf() for receipt in receipts])


def weigh(meter: Meter) -> None:
    """Authorise, commit, prove, finalise."""
    owner, operator = meter.account("model owner"), meter.payer
    meter.relayed("authorise a model", owner, "ModelRegistry", "authorise", MODEL, SPEC, URI)
    for sequence, name in ((1, "commit 1,000 receipts, first"), (2, "commit 1,000 receipts")):
        _, tree = batch(meter, operator.address, owner.address, sequence)
        meter.sent(name, REGISTRY, "commit", owner.address, MODEL, sequence, tree.record, RECEIPTS)
