"""Models, and batches of a thousand receipts of their answers, with and without a stake on them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from contracts.gas.access import URI
from contracts.gas.meter import HOUR, Meter
from rexis.chain.deployer import LOCAL_TOKEN
from rexis.chain.signer import Signer, development_signer
from rexis.commitments import LeafKind, MerkleTree, Receipt, batch_id, chain_context
from rexis.commitments.positional_tree import leaf_hash
from rexis.encoding import sha256

REGISTRY = "InferenceRegistry"
MODEL, SPEC = sha256(b"model"), sha256(b"spec")
ANSWER, REASON = sha256(b"answer"), sha256(b"reason")
RECEIPTS, BATCHES = 1_000, 2
BOND = 25_000_000
WEEK = 7 * 24 * HOUR
ISSUED = datetime(2026, 11, 21, 3, 34, tzinfo=UTC)


@dataclass(frozen=True)
class Batch:
    """A batch of `RECEIPTS` receipts.

    Attributes:
        owner: checksum address of who vouches for the model.
    """

    meter: Meter
    operator: Signer
    owner: str
    sequence: int

    @cached_property
    def id(self) -> bytes:
        """32 bytes."""
        return batch_id(*self._place, self.operator.address, self.owner, MODEL, self.sequence)

    @cached_property
    def tree(self) -> MerkleTree:
        """Of all receipts."""
        return MerkleTree(LeafKind.RECEIPT, self._context, [self._receipt(n).leaf() for n in range(RECEIPTS)])

    def leaf(self, index: int) -> bytes:
        """The hash by which a challenge names a receipt."""
        return leaf_hash(LeafKind.RECEIPT, self._context, index, self._receipt(index).leaf())

    def arguments(self) -> tuple[str, bytes, int, bytes, int]:
        """Arguments of `commit`."""
        return self.owner, MODEL, self.sequence, self.tree.record, RECEIPTS

    def _receipt(self, number: int) -> Receipt:
        parts = [sha256(b"%s%d" % (part, number)) for part in (b"x", b"y", b"salt")]
        return Receipt(MODEL, parts[0], parts[1], parts[2][:16], ISSUED, self.operator.address)

    @property
    def _place(self) -> tuple[int, str]:
        return self.meter.chain.deployment.chain_id, self.meter.address(REGISTRY)

    @property
    def _context(self) -> bytes:
        return chain_context(*self._place, self.id)


def weigh(meter: Meter) -> None:
    """Authorise, stake, commit, challenge, finalise."""
    owner, arbiter = meter.account("model owner"), meter.account("batch arbiter")
    meter.relayed("authorise a model", owner, "ModelRegistry", "authorise", MODEL, SPEC, URI)
    meter.sent("authorise a model", "ModelRegistry", "authorise", sha256(b"another model"), SPEC, URI)

    operator, staking, staking_sender = meter.account("operator"), meter.account("staking operator"), development_signer(2)
    _stake(meter, staking, arbiter)
    with meter.unweighed():
        _stake(meter, staking_sender, arbiter)
    sent = _send_batches(meter, meter.payer, owner.address, "receipts")
    sent |= _send_batches(meter, staking_sender, owner.address, "staked receipts")
    _relay_batches(meter, operator, owner.address, "receipts")
    doubted = _relay_batches(meter, staking, owner.address, "staked receipts")

    _challenge(meter, doubted[0], arbiter)
    # For the other one nobody stands up.
    challenger = _object(meter, None, doubted[1], 7)
    meter.wait(3 * 24 * HOUR + 1)
    meter.sent("uphold a challenge by silence", REGISTRY, "settle", doubted[1].id, 7, challenger.address)
    meter.wait(WEEK)
    for name, batch in sent.items():
        meter.sent(f"finalise {name}", REGISTRY, "finalise", batch.id)
    meter.sent("take stake back", REGISTRY, "unstake", meter.address(LOCAL_TOKEN), BOND, who=staking_sender)


def _stake(meter: Meter, operator: Signer, arbiter: Signer) -> None:
    """Put in what the batches need, and say so."""
    token, amount = meter.address(LOCAL_TOKEN), BATCHES * BOND
    meter.mint(operator, amount)
    meter.relayed("deposit stake with permit", operator, REGISTRY, "deposit", token, amount, meter.permit(operator, REGISTRY, amount))
    terms = {"token": token, "bond": BOND, "arbiter": arbiter.address}
    meter.relayed("set terms of stake", operator, REGISTRY, "setTerms", terms, 0)


def _send_batches(meter: Meter, operator: Signer, owner: str, kind: str) -> dict[str, Batch]:
    """Batches by name."""
    batches = {_name(kind, sequence): Batch(meter, operator, owner, sequence) for sequence in range(1, BATCHES + 1)}
    for name, batch in batches.items():
        meter.sent(f"commit {name}", REGISTRY, "commit", *batch.arguments(), who=operator)
    return batches


def _relay_batches(meter: Meter, operator: Signer, owner: str, kind: str) -> list[Batch]:
    batches = [Batch(meter, operator, owner, sequence) for sequence in range(1, BATCHES + 1)]
    for batch in batches:
        meter.relayed(f"commit {_name(kind, batch.sequence)}", operator, REGISTRY, "commit", *batch.arguments())
    return batches


def _name(kind: str, sequence: int) -> str:
    return f"{RECEIPTS:,} {kind}" + (", first" if sequence == 1 else "")


def _challenge(meter: Meter, batch: Batch, arbiter: Signer) -> None:
    """Two answers are doubted, of which one is wrong."""
    first = True
    for index, upheld, name in ((0, False, "dismiss a challenge"), (RECEIPTS // 2, True, "uphold a challenge")):
        challenger = _object(meter, "challenge an answer, first" if first else "challenge an answer", batch, index)
        given = (batch.id, index, challenger.address)
        meter.relayed("answer a challenge" if first else None, batch.operator, REGISTRY, "answerChallenge", *given, ANSWER)
        meter.relayed(name, arbiter, REGISTRY, "rule", *given, upheld, REASON)
        first = False


def _object(meter: Meter, name: str | None, batch: Batch, index: int) -> Signer:
    """Challenge a receipt by its leaf and ten hashes. Returns the challenger."""
    challenger = meter.account("challenger")
    meter.mint(challenger, BOND)
    permit = meter.permit(challenger, REGISTRY, BOND)
    given = (batch.id, index, batch.leaf(index), batch.tree.proof(index), REASON, permit)
    meter.relayed(name, challenger, REGISTRY, "challenge", *given)
    return challenger
