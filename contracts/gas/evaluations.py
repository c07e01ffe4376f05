"""Evaluations with a data owner and three auditors, of whom two sign."""

from dataclasses import dataclass

from contracts.gas.access import URI
from contracts.gas.federations import accounts, ascending
from contracts.gas.meter import HOUR, Meter
from rexis.chain.evaluations import read_evaluation
from rexis.chain.model_registry import reason_number
from rexis.chain.signer import LocalSigner, Signer
from rexis.encoding import sha256
from rexis.protocol.evaluation import Attestation, EvaluationOpening, evaluation_nonce_commitment, resolution
from rexis.protocol.federation_rounds import approvals
from rexis.protocol.typed_data import TypedMessage

REGISTRY = "EvaluationRegistry"
SPEC, MODEL, DATA, KEY, EVIDENCE = (sha256(text) for text in (b"spec", b"evaluated model", b"test data", b"key", b"evidence"))
CERTIFICATE = sha256(b"certificate")
ROOTS = {name: sha256(name.encode()) for name in ("trace", "outputs", "scores", "claimHash")}
# To the block of the beacon and past it: the node weighs in its latest block.
BEACON_BLOCKS = 5


@dataclass(frozen=True)
class Evaluation:
    """Who takes part, and what was opened.

    Attributes:
        auditors: ascending by address; the first two sign.
    """

    meter: Meter
    provider: Signer
    data_owner: LocalSigner
    auditors: list[LocalSigner]
    opening: EvaluationOpening

    @property
    def place(self) -> tuple[int, str]:
        """Chain id and contract."""
        return self.meter.chain.deployment.chain_id, self.meter.address(REGISTRY)

    @property
    def id(self) -> bytes:
        """32 bytes."""
        return self.opening.evaluation_id(*self.place, self.provider.address)

    @property
    def parties(self) -> list[LocalSigner]:
        """Who gives a nonce, in the contract's order."""
        return ascending([self.data_owner, *self.auditors])

    def nonce(self, party: Signer) -> bytes:
        """Always the same: nothing is at stake here."""
        return sha256(self.id + party.address.encode())

    def commit_nonce(self, name: str | None, party: Signer) -> None:
        """One party commits."""
        commitment = evaluation_nonce_commitment(self.id, party.address, self.nonce(party))
        self.meter.relayed(name, party, REGISTRY, "commitNonce", self.id, commitment)

    def signed(self, typed: TypedMessage) -> list[dict[str, str | bytes]]:
        """By two auditors."""
        return approvals({signer.address: signer.sign_typed_data(typed) for signer in self.auditors[:2]})


def weigh(meter: Meter) -> None:
    """One evaluation from its opening to its revocation, and one that nobody runs."""
    provider, model_owner = meter.account("evaluation provider"), meter.account("evaluated model owner")
    data_owner, auditors = meter.account("test data owner"), accounts(meter, "auditor", 3)
    meter.relayed(None, model_owner, "ModelRegistry", "authorise", MODEL, SPEC, URI)

    def opening(sequence: int) -> EvaluationOpening:
        return EvaluationOpening(
            spec_hash=SPEC,
            model_owner=model_owner.address,
            model=MODEL,
            data_owner=data_owner.address,
            data_record=DATA,
            key_commitment=KEY,
            sequence=sequence,
            quorum=2,
            nonce_until=meter.now + HOUR,
            run_until=meter.now + 2 * HOUR,
            reveal_until=meter.now + 3 * HOUR,
            attest_until=meter.now + 4 * HOUR,
            auditors=[auditor.address for auditor in auditors],
        )

    one = Evaluation(meter, provider, data_owner, auditors, opening(1))
    meter.relayed("open an evaluation, three auditors", provider, REGISTRY, "open", one.opening.fields())
    one.commit_nonce("commit to a nonce, data owner", data_owner)
    for auditor in auditors:
        one.commit_nonce("commit to a nonce" if auditor is auditors[-1] else None, auditor)
    meter.relayed("commit to a run", provider, REGISTRY, "commitRun", one.id, ROOTS)
    meter.mine(BEACON_BLOCKS)
    meter.sent("fix the beacon", REGISTRY, "fixBeacon", one.id)
    names = ["reveal a nonce, first", "reveal a nonce", None, "reveal the last nonce"]
    state = read_evaluation(meter.chain, one.id)
    for name, party in zip(names, one.parties, strict=True):
        meter.relayed(name, party, REGISTRY, "revealNonce", one.id, state.transcript, state.beacon, one.nonce(party))

    seed = read_evaluation(meter.chain, one.id).seed
    attestation = Attestation(one.id, seed, CERTIFICATE, 2, meter.now + 365 * 24 * HOUR)
    signatures = one.signed(attestation.typed_data(*one.place))
    meter.sent("attest, two signatures", REGISTRY, "attest", attestation.fields(), signatures)
    disputer = auditors[-1]
    meter.relayed("dispute an evaluation", disputer, REGISTRY, "dispute", one.id, 3, 1, EVIDENCE)
    signatures = one.signed(resolution(*one.place, one.id, CERTIFICATE, disputer.address, upheld=False))
    meter.sent("dismiss a dispute, two signatures", REGISTRY, "resolve", one.id, disputer.address, False, signatures)
    meter.relayed("revoke an evaluation", model_owner, REGISTRY, "revoke", one.id, reason_number("model-withdrawn"))

    two = Evaluation(meter, provider, data_owner, auditors, opening(2))
    meter.relayed(None, provider, REGISTRY, "open", two.opening.fields())
    two.commit_nonce(None, data_owner)
    meter.wait(HOUR + 10)
    meter.sent("expire an evaluation", REGISTRY, "expire", two.id)
