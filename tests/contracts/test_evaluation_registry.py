"""Evaluations over relayed calls, and the ways in which a provider, an owner or an auditor would choose the seed or the verdict
(verification.md, Correction 2; sections 5 and 9)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.evaluations import EvaluationState, evaluations_of, read_evaluation, verify_certificate, verify_seed, verify_standing
from rexis.chain.model_registry import reason_number
from rexis.chain.signer import LocalSigner
from rexis.commitments.positional_tree import Leaf, LeafKind, MerkleTree, chain_context, kind_hash, random_salt
from rexis.commitments.transcript import Commitments, evaluation_seed, transcript_digest
from rexis.encoding import sha256
from rexis.errors import CertificateError, ContractRevertedError, VerificationError
from rexis.protocol.evaluation import (
    NO_CERTIFICATE,
    Attestation,
    EvaluationOpening,
    evaluation_nonce_commitment,
    random_evaluation_nonce,
    resolution,
    revocation,
)
from rexis.protocol.federation_rounds import approvals
from rexis.protocol.typed_data import TypedMessage

REGISTRY = "EvaluationRegistry"
OPEN, RUN, SEEDED, ATTESTED, DISPUTED, REVOKED, EXPIRED = range(1, 8)
SPEC, MODEL, DATA, KEY = (sha256(name) for name in (b"spec", b"model", b"data", b"key"))
CERTIFICATE = sha256(b"certificate")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BEACON_DELAY, BEACON_WINDOW = 4, 256
NOTHING = {"started": 0, "runs": 0, "seeded": 0, "attested": 0, "disputed": 0, "revoked": 0, "expired": 0}

Warp = Callable[[int], None]


def ascending(count: int) -> list[LocalSigner]:
    return sorted((LocalSigner.generate() for _ in range(count)), key=lambda signer: signer.address.lower())


def refused(act: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.error, caught.value.arguments


def as_hex(data: bytes) -> str:
    return "0x" + data.hex()


@dataclass
class Evaluation:
    """A provider, the owners of model and data, three auditors of whom two must sign, and what they do."""

    chain: Chain
    relay: Callable[..., Any]
    transact: Callable[..., Any]
    provider: LocalSigner = field(default_factory=LocalSigner.generate)
    model_owner: LocalSigner = field(default_factory=LocalSigner.generate)
    data_owner: LocalSigner = field(default_factory=LocalSigner.generate)
    auditors: list[Any] = field(default_factory=lambda: ascending(3))
    nonces: dict[str, bytes] = field(default_factory=dict)
    opening: EvaluationOpening | None = None

    @property
    def chain_id(self) -> int:
        return self.chain.deployment.chain_id

    @property
    def registry(self) -> str:
        return self.chain.deployment.contracts[REGISTRY].address

    @property
    def functions(self) -> Any:
        return self.chain.contract(REGISTRY).functions

    @property
    def now(self) -> int:
        return int(self.chain.web3.eth.get_block("latest")["timestamp"])

    @property
    def parties(self) -> list[LocalSigner]:
        return sorted([*self.auditors, self.data_owner], key=lambda signer: signer.address.lower())

    @property
    def id(self) -> bytes:
        assert self.opening is not None
        return self.opening.evaluation_id(self.chain_id, self.registry, self.provider.address)

    @property
    def state(self) -> EvaluationState:
        return read_evaluation(self.chain, self.id)

    def terms(self, **changes: Any) -> EvaluationOpening:
        now = self.now
        fields = {
            "spec_hash": SPEC,
            "model_owner": self.model_owner.address,
            "model": MODEL,
            "data_owner": self.data_owner.address,
            "data_record": DATA,
            "key_commitment": KEY,
            "sequence": 1,
            "quorum": 2,
            "nonce_until": now + 3600,
            "run_until": now + 7200,
            "reveal_until": now + 10_800,
            "attest_until": now + 14_400,
            "auditors": [auditor.address for auditor in self.auditors],
        }
        return EvaluationOpening(**{**fields, **changes})

    def act(self, who: LocalSigner, function: str, *arguments: Any) -> Any:
        return self.relay(who, function, *arguments, contract=REGISTRY)

    def send(self, function: str, *arguments: Any) -> Any:
        """By the relayer itself, who is nobody here."""
        return self.transact(self.registry, encode_call(REGISTRY, function, *arguments))

    def open(self, **changes: Any) -> Any:
        self.opening = self.terms(**changes)
        return self.act(self.provider, "open", self.opening.fields())

    def commitment(self, who: LocalSigner) -> bytes:
        nonce = self.nonces.setdefault(who.address, random_evaluation_nonce())
        return evaluation_nonce_commitment(self.id, who.address, nonce)

    def commit_nonces(self, who: Sequence[LocalSigner] | None = None) -> None:
        for party in self.parties if who is None else who:
            self.act(party, "commitNonce", self.id, self.commitment(party))

    def roots(self, **changes: bytes) -> dict[str, bytes]:
        return {name: sha256(name.encode()) for name in ("trace", "outputs", "scores", "claimHash")} | changes

    def run(self, **changes: bytes) -> Any:
        return self.act(self.provider, "commitRun", self.id, self.roots(**changes))

    def mine(self, blocks: int = BEACON_DELAY + 1) -> None:
        """As many blocks as it takes to the beacon and past it: the node estimates in its latest block."""
        self.chain.web3.provider.make_request("anvil_mine", [hex(blocks), hex(0)])

    def beacon(self) -> bytes:
        return bytes(self.chain.web3.eth.get_block(self.state.beacon_block)["hash"])

    def reveal(self, *who: LocalSigner) -> Any:
        beacon = self.beacon()
        for party in who:
            receipt = self.act(party, "revealNonce", self.id, self.state.transcript, beacon, self.nonces[party.address])
        return receipt

    def seed(self) -> Any:
        """All the way to the seed."""
        self.open()
        self.commit_nonces()
        self.run()
        self.mine()
        return self.reveal(*self.parties)

    def attestation(self, **changes: Any) -> Attestation:
        given = Attestation(self.id, self.state.seed, CERTIFICATE, 2, self.now + 86_400)
        return replace(given, **changes)

    def signed(self, typed: TypedMessage, *signers: LocalSigner) -> list[dict[str, Any]]:
        return approvals({signer.address: signer.sign_typed_data(typed) for signer in signers})

    def attest(self, attestation: Attestation | None = None, *signers: LocalSigner) -> Any:
        attestation = attestation or self.attestation()
        typed = attestation.typed_data(self.chain_id, self.registry)
        return self.send("attest", attestation.fields(), self.signed(typed, *(signers or self.auditors[:2])))

    def counts(self) -> dict[str, int]:
        return dict(evaluations_of(self.chain, self.data_owner.address, DATA))

    def events(self, name: str, receipt: Any) -> list[dict[str, Any]]:
        found = self.chain.contract(REGISTRY).events[name]().process_receipt(receipt, errors=DISCARD)
        return [dict(entry["args"]) for entry in found]

    def event(self, name: str, receipt: Any) -> dict[str, Any]:
        (found,) = self.events(name, receipt)
        return found


@pytest.fixture
def evaluation(chain: Chain, act: Callable[..., Any], transact: Callable[..., Any]) -> Evaluation:
    made = Evaluation(chain, act, transact)
    act(made.model_owner, "authorise", MODEL, sha256(b"spec of the model"), "https://models.example/1", contract="ModelRegistry")
    return made


def test_an_evaluation_is_told_by_its_events_and_recomputed_from_them(evaluation: Evaluation) -> None:
    one = evaluation
    opened = one.open()
    fields = one.opening.fields()
    told = one.event("EvaluationOpened", opened) | one.event("AuditAnnounced", opened)
    assert told == {**fields, "evaluation": one.id, "provider": one.provider.address}
    assert one.functions.evaluationId(one.provider.address, tuple(fields.values())).call() == one.id
    assert one.counts() == NOTHING

    for party in one.parties:
        receipt = one.act(party, "commitNonce", one.id, one.commitment(party))
        assert one.event("NonceCommitted", receipt) == {
            "evaluation": one.id,
            "party": party.address,
            "commitment": one.commitment(party),
        }
        if party is one.data_owner:
            counted = {"dataOwner": party.address, "dataRecord": DATA, "model": MODEL, "number": 1}
            assert one.event("EvaluationCounted", receipt) == {"evaluation": one.id, **counted}
    receipt = one.run()
    committed = Commitments(SPEC, MODEL, DATA, KEY, *one.roots().values())
    transcript = transcript_digest(one.chain_id, one.registry, one.id, committed)
    beacon_block = receipt["blockNumber"] + BEACON_DELAY
    assert one.event("RunCommitted", receipt) == {
        "evaluation": one.id,
        **one.roots(),
        "transcript": transcript,
        "beaconBlock": beacon_block,
    }
    one.mine()
    beacon = one.beacon()
    last = one.parties[-1]
    assert one.event("BeaconFixed", one.reveal(one.parties[0])) == {
        "evaluation": one.id,
        "beaconBlock": beacon_block,
        "beacon": beacon,
    }
    receipt = one.reveal(*one.parties[1:])
    revealed = {"evaluation": one.id, "party": last.address, "nonce": one.nonces[last.address]}
    assert one.event("NonceRevealed", receipt) == revealed
    seed = evaluation_seed(transcript, beacon, one.nonces)
    assert one.event("SeedFixed", receipt) == {"evaluation": one.id, "seed": seed}

    attestation = one.attestation()
    assert attestation.seed == seed
    assert one.event("EvaluationAttested", one.attest(attestation)) == {
        **attestation.fields(),
        "signers": [auditor.address for auditor in one.auditors[:2]],
    }
    verify_standing(one.chain, one.id, CERTIFICATE)
    state = one.state
    assert (state.status, state.number, state.level, state.nonces) == ("attested", 1, 2, one.nonces)
    assert (state.commitments, state.quorum) == (committed, 2)
    assert one.functions.standing(one.id, CERTIFICATE).call()
    assert one.counts() == NOTHING | {"started": 1, "runs": 1, "seeded": 1, "attested": 1}


def test_roots_are_posted_once_and_another_evaluation_is_counted(evaluation: Evaluation, warp: Warp) -> None:
    one = evaluation
    one.seed()
    first, seed = one.id, one.state.seed
    again = ("WrongEvaluationStatus", {"evaluation": as_hex(first), "expected": OPEN, "got": SEEDED})
    assert refused(lambda: one.run(trace=sha256(b"a trace that this seed would like"))) == again
    assert refused(lambda: one.act(one.provider, "open", one.opening.fields())) == (
        "EvaluationExists",
        {"evaluation": as_hex(first)},
    )
    one.nonces = {}
    one.open(sequence=2)
    one.commit_nonces()
    one.run(trace=sha256(b"another trace"))
    one.mine()
    one.reveal(*one.parties)
    assert one.id != first
    assert one.state.number == 2
    assert one.state.seed != seed
    assert one.counts() == NOTHING | {"started": 2, "runs": 2, "seeded": 2}
    # The first was dropped without a certificate: that is public too.
    one.attest()
    warp(one.now + 14_401)
    one.send("expire", first)
    assert one.counts() == NOTHING | {"started": 2, "runs": 2, "seeded": 2, "attested": 1, "expired": 1}


def test_nobody_changes_or_adds_a_nonce(evaluation: Evaluation, warp: Warp) -> None:
    one = evaluation
    one.open()
    *early, late = one.parties
    one.commit_nonces(early)
    other = sha256(b"a nonce that fits better")
    present = as_hex(one.commitment(early[0]))
    changed = ("NonceAlreadyCommitted", {"party": early[0].address, "commitment": present})
    assert refused(lambda: one.act(early[0], "commitNonce", one.id, other)) == changed
    assert refused(one.run) == ("NoncesMissing", {"required": 4, "got": 3})
    stranger = LocalSigner.generate()
    outside = ("NotParty", {"evaluation": as_hex(one.id), "caller": stranger.address})
    assert refused(lambda: one.act(stranger, "commitNonce", one.id, other)) == outside
    one.commit_nonces([late])
    one.run()
    after = ("WrongEvaluationStatus", {"evaluation": as_hex(one.id), "expected": OPEN, "got": RUN})
    assert refused(lambda: one.act(late, "commitNonce", one.id, other)) == after
    one.mine()
    # Another nonce than the committed one, and the commitment of another party under the own name.
    transcript, beacon = one.state.transcript, one.beacon()
    for nonce in (other, one.nonces[early[1].address]):
        mismatch = refused(lambda nonce=nonce: one.act(early[0], "revealNonce", one.id, transcript, beacon, nonce))
        assert mismatch[0] == "CommitmentMismatch"
        assert mismatch[1]["expected"] == present


def test_a_late_auditor_does_not_hold_the_count_up(evaluation: Evaluation, warp: Warp) -> None:
    one = evaluation
    one.open()
    *early, late = one.auditors
    one.commit_nonces([*early, one.data_owner])
    warp(one.opening.nonce_until + 1)
    assert refused(lambda: one.commit_nonces([late]))[0] == "DeadlinePassed"
    expired = one.event("EvaluationExpired", one.send("expire", one.id))
    assert expired == {"evaluation": one.id, "from": OPEN, "beaconMissed": False, "missing": [late.address]}
    assert one.counts() == NOTHING | {"started": 1, "expired": 1}


def test_a_withheld_nonce_expires_in_public(evaluation: Evaluation, warp: Warp) -> None:
    """The last to reveal knows the seed that would follow, and may only destroy it."""
    one = evaluation
    one.open()
    one.commit_nonces()
    one.run()
    one.mine()
    withholding = one.parties[-1]
    one.reveal(*one.parties[:-1])
    assert one.state.seed == bytes(32)
    early = ("NotOverdue", {"evaluation": as_hex(one.id), "status": RUN})
    assert refused(lambda: one.send("expire", one.id)) == early
    warp(one.opening.reveal_until + 1)
    assert refused(lambda: one.reveal(withholding))[0] == "DeadlinePassed"
    expired = one.event("EvaluationExpired", one.send("expire", one.id))
    assert expired == {"evaluation": one.id, "from": RUN, "beaconMissed": False, "missing": [withholding.address]}
    assert one.counts() == NOTHING | {"started": 1, "runs": 1, "expired": 1}
    assert [one.functions.withheldBy(party.address).call() for party in one.parties] == [0, 0, 0, 1]
    assert refused(one.run)[0] == "WrongEvaluationStatus"
    with pytest.raises(CertificateError, match="has no certificate: it is expired"):
        verify_standing(one.chain, one.id, CERTIFICATE)


def test_the_beacon_is_kept_within_256_blocks_or_missed(evaluation: Evaluation) -> None:
    one = evaluation
    one.open()
    one.commit_nonces()
    block = one.run()["blockNumber"]
    early = ("BeaconNotYet", {"beaconBlock": block + BEACON_DELAY, "blockNumber": block + BEACON_DELAY})
    one.mine(BEACON_DELAY)
    assert refused(lambda: one.send("fixBeacon", one.id)) == early
    taken = one.chain.web3.provider.make_request("evm_snapshot", [])["result"]

    # The call is in the last block that remembers.
    one.mine(BEACON_WINDOW - 1)
    assert one.chain.web3.eth.block_number == block + BEACON_DELAY + BEACON_WINDOW - 1
    assert one.event("BeaconFixed", one.send("fixBeacon", one.id))["beacon"] == one.beacon()
    # Kept now: the nonces may wait until the run is final.
    one.mine(BEACON_WINDOW + 10)
    assert refused(lambda: one.send("expire", one.id))[0] == "NotOverdue"
    one.reveal(*one.parties)
    assert one.state.status == "seeded"

    one.chain.web3.provider.make_request("evm_revert", [taken])
    one.mine(BEACON_WINDOW + 1)
    missed = ("BeaconMissed", {"beaconBlock": block + BEACON_DELAY, "blockNumber": block + BEACON_DELAY + BEACON_WINDOW + 1})
    assert refused(lambda: one.send("fixBeacon", one.id)) == missed
    assert refused(lambda: one.reveal(one.parties[0])) == missed
    expired = one.event("EvaluationExpired", one.send("expire", one.id))
    assert (expired["from"], expired["beaconMissed"]) == (RUN, True)
    assert one.counts() == NOTHING | {"started": 1, "runs": 1, "expired": 1}


def test_a_nonce_seen_before_a_reorganisation_is_not_mixed_after_it(
    evaluation: Evaluation, call_to: Callable[..., Any], sign: Callable[..., bytes], execute: Callable[..., Any]
) -> None:
    """A signed reveal that everybody has seen names the run and the beacon: under other roots it is worth nothing."""
    one = evaluation
    one.open()
    one.commit_nonces()
    taken = one.chain.web3.provider.make_request("evm_snapshot", [])["result"]
    one.run()
    one.mine()
    party = one.parties[0]
    beacon, nonce = one.beacon(), one.nonces[party.address]
    call = call_to(party.address, "revealNonce", one.id, one.state.transcript, beacon, nonce, contract=REGISTRY)
    signature = sign(party, call)

    one.chain.web3.provider.make_request("evm_revert", [taken])
    one.run(trace=sha256(b"a trace for these nonces"))
    one.mine()
    assert refused(lambda: execute(call, signature))[0] == "TranscriptMismatch"
    given = (one.id, one.state.transcript, sha256(b"the hash of the orphaned block"), nonce)
    assert refused(lambda: one.act(party, "revealNonce", *given)) == (
        "BeaconMismatch",
        {"expected": as_hex(one.beacon()), "got": as_hex(given[2])},
    )


def test_an_attestation_counts_once_here(evaluation: Evaluation) -> None:
    one = evaluation
    one.seed()
    given = one.attestation()
    first, second, third = one.auditors

    def sent(signatures: list[dict[str, Any]], **changes: Any) -> tuple[str, dict[str, Any]]:
        return refused(lambda: one.send("attest", replace(given, **changes).fields(), signatures))

    here = given.typed_data(one.chain_id, one.registry)
    signatures = one.signed(here, first, second)
    assert sent(signatures[:1]) == ("QuorumNotReached", {"required": 2, "got": 1})
    same = ("AddressesNotAscending", {"previous": first.address, "next": first.address})
    assert sent([signatures[0], signatures[0]]) == same
    raw = signatures[1]["signature"]
    high = ORDER - int.from_bytes(raw[32:64], "big")
    malleated = raw[:32] + high.to_bytes(32, "big") + bytes([55 - raw[64]])
    invalid = ("InvalidApproval", {"signer": second.address})
    assert sent([signatures[0], {"signer": second.address, "signature": malleated}]) == invalid
    assert sent([signatures[0], {"signer": second.address, "signature": raw + b"\x00"}]) == invalid
    # Another chain, another contract, another certificate, level or time than were signed.
    elsewhere = (one.chain_id + 1, one.registry), (one.chain_id, one.chain.deployment.contracts["FederationRegistry"].address)
    for place in elsewhere:
        assert sent(one.signed(given.typed_data(*place), first, second))[0] == "InvalidApproval"
    for changes in ({"certificate": sha256(b"another")}, {"level": 3}, {"valid_until": given.valid_until + 1}):
        assert sent(signatures, **changes)[0] == "InvalidApproval"
    assert sent(signatures, seed=sha256(b"another"))[0] == "SeedMismatch"
    for outsider in (one.provider, one.model_owner, one.data_owner, LocalSigner.generate()):
        denied = ("NotAuditor", {"evaluation": as_hex(one.id), "signer": outsider.address})
        assert sent(one.signed(here, first, outsider)) == denied

    one.send("attest", given.fields(), signatures)
    attested = ("WrongEvaluationStatus", {"evaluation": as_hex(one.id), "expected": SEEDED, "got": ATTESTED})
    assert sent(one.signed(here, second, third)) == attested
    # In another evaluation of the same auditors, and the same certificate is not that one's.
    before = one.id
    one.nonces, one.opening = {}, None
    one.open(sequence=2)
    one.commit_nonces()
    one.run()
    one.mine()
    one.reveal(*one.parties)
    assert sent(signatures, evaluation=one.id, seed=one.state.seed)[0] == "InvalidApproval"
    assert one.functions.standing(before, CERTIFICATE).call()
    assert not one.functions.standing(one.id, CERTIFICATE).call()
    with pytest.raises(CertificateError, match="has no certificate: it is seeded"):
        verify_standing(one.chain, one.id, CERTIFICATE)


@dataclass
class WalletOwner:
    """Signs for a contract account (ERC-1271) with the key that the wallet asks."""

    address: str
    key: LocalSigner

    def sign_typed_data(self, typed: TypedMessage) -> bytes:
        return self.key.sign_typed_data(typed)


def test_an_auditor_may_be_a_contract_account(evaluation: Evaluation, deploy_test_contract: Callable[..., Any]) -> None:
    one = evaluation
    key = LocalSigner.generate()
    wallet = WalletOwner(deploy_test_contract("SignatureWallet", key.address).address, key)
    one.auditors = sorted([wallet, *one.auditors[:2]], key=lambda signer: signer.address.lower())
    one.seed()
    given, other = one.attestation(), next(auditor for auditor in one.auditors if auditor is not wallet)
    stolen = WalletOwner(wallet.address, LocalSigner.generate())
    assert refused(lambda: one.attest(given, stolen, other)) == ("InvalidApproval", {"signer": wallet.address})
    one.attest(given, wallet, other)
    verify_standing(one.chain, one.id, CERTIFICATE)


def test_a_certificate_stands_until_somebody_entitled_takes_it_back(evaluation: Evaluation, warp: Warp) -> None:
    one = evaluation
    one.seed()
    one.attest()
    verify_standing(one.chain, one.id, CERTIFICATE)
    with pytest.raises(CertificateError, match="expected the certificate of evaluation"):
        verify_standing(one.chain, one.id, sha256(b"another"))
    with pytest.raises(VerificationError, match="holds no evaluation"):
        verify_standing(one.chain, sha256(b"nothing"), CERTIFICATE)
    taken = one.chain.web3.provider.make_request

    def afterwards(match: str, act: Callable[[], Any], error: type[Exception] = CertificateError) -> None:
        snapshot = taken("evm_snapshot", [])["result"]
        act()
        assert not one.functions.standing(one.id, CERTIFICATE).call()
        with pytest.raises(error, match=match):
            verify_standing(one.chain, one.id, CERTIFICATE)
        taken("evm_revert", [snapshot])

    number = reason_number
    afterwards("revoked .model-withdrawn", lambda: one.act(one.model_owner, "revoke", one.id, number("model-withdrawn")))
    afterwards("revoked .data-withdrawn", lambda: one.act(one.data_owner, "revoke", one.id, number("data-withdrawn")))
    typed = revocation(one.chain_id, one.registry, one.id, CERTIFICATE, number("audit-failed"))
    given = (one.id, CERTIFICATE, number("audit-failed"), one.signed(typed, *one.auditors[1:]))
    afterwards("revoked .audit-failed", lambda: one.send("revokeByAuditors", *given))
    afterwards("was valid until", lambda: warp(one.state.valid_until + 1))
    gone = ("revoke", MODEL, number("key-compromise"))
    afterwards("took model", lambda: one.relay(one.model_owner, *gone, contract="ModelRegistry"), VerificationError)
    disputed = ("dispute", one.id, 3, 1, sha256(b"evidence"))
    afterwards("does not stand: it is disputed", lambda: one.act(one.auditors[2], *disputed))

    denied = ("NotEntitled", {"evaluation": as_hex(one.id), "caller": one.provider.address, "reason": 5})
    assert refused(lambda: one.act(one.provider, "revoke", one.id, number("superseded"))) == denied
    assert refused(lambda: one.act(one.data_owner, "revoke", one.id, number("model-withdrawn")))[0] == "NotEntitled"
    verify_standing(one.chain, one.id, CERTIFICATE)


def test_auditors_say_that_the_audit_failed(evaluation: Evaluation) -> None:
    one = evaluation
    one.seed()
    typed = revocation(one.chain_id, one.registry, one.id, NO_CERTIFICATE, reason_number("audit-failed"))
    given = (one.id, NO_CERTIFICATE, reason_number("audit-failed"))
    assert refused(lambda: one.send("revokeByAuditors", *given, one.signed(typed, one.auditors[0])))[0] == "QuorumNotReached"
    receipt = one.send("revokeByAuditors", *given, one.signed(typed, *one.auditors))
    assert one.event("EvaluationRevoked", receipt) == {
        "evaluation": one.id,
        "certificate": NO_CERTIFICATE,
        "reason": reason_number("audit-failed"),
        "signers": [auditor.address for auditor in one.auditors],
    }
    assert refused(one.attest)[0] == "WrongEvaluationStatus"
    assert one.counts() == NOTHING | {"started": 1, "runs": 1, "seeded": 1, "revoked": 1}


def test_a_dispute_is_judged_or_lost(evaluation: Evaluation, warp: Warp) -> None:
    one = evaluation
    one.seed()
    one.attest()
    first, second, third = one.auditors
    disputed = (one.id, 3, 1, sha256(b"evidence"))
    told = one.event("EvaluationDisputed", one.act(third, "dispute", *disputed))
    assert (told["certificate"], told["disputer"], told["item"], told["boundary"]) == (CERTIFICATE, third.address, 3, 1)
    typed = resolution(one.chain_id, one.registry, one.id, CERTIFICATE, third.address, upheld=False)
    dismissed = (one.id, third.address, False, one.signed(typed, first, second))
    # The same signatures do not uphold it.
    upheld = (one.id, third.address, True, one.signed(typed, first, second))
    assert refused(lambda: one.send("resolve", *upheld))[0] == "InvalidApproval"
    assert one.event("DisputeResolved", one.send("resolve", *dismissed))["signers"] == [first.address, second.address]
    verify_standing(one.chain, one.id, CERTIFICATE)
    again = ("AlreadyDisputed", {"evaluation": as_hex(one.id), "party": third.address})
    assert refused(lambda: one.act(third, "dispute", *disputed)) == again

    until = one.event("EvaluationDisputed", one.act(one.data_owner, "dispute", *disputed))["disputeUntil"]
    assert refused(lambda: one.send("resolve", *dismissed))[0] == "DisputerMismatch"
    warp(until + 1)
    expired = one.event("EvaluationExpired", one.send("expire", one.id))
    assert expired == {"evaluation": one.id, "from": DISPUTED, "beaconMissed": False, "missing": []}
    with pytest.raises(CertificateError, match="does not stand: it is expired"):
        verify_standing(one.chain, one.id, CERTIFICATE)
    assert one.counts() == NOTHING | {"started": 1, "runs": 1, "seeded": 1, "attested": 1, "disputed": 2, "expired": 1}


def test_a_seed_that_does_not_follow_is_found_offline(evaluation: Evaluation) -> None:
    """A snapshot of the state is checked without the chain: whoever changed it, or lied when he took it."""
    one = evaluation
    one.seed()
    state = one.state
    verify_seed(state, one.chain_id, one.registry)
    other = sha256(b"another")
    (party, commitment, _), *rest = state.parties
    lies = (
        ({"parties": ((party, commitment, other), *rest)}, "committed to before the run"),
        ({"parties": ((party, commitment, bytes(32)), *rest)}, "committed to before the run"),
        ({"commitments": replace(state.commitments, trace=other)}, "transcript"),
        ({"beacon": other}, "seed"),
        ({"seed": other}, "seed"),
        ({"seed": bytes(32)}, "has no seed"),
        ({"parties": tuple(rest)}, "seed"),
    )
    for changes, match in lies:
        with pytest.raises(VerificationError, match=match):
            verify_seed(replace(state, **changes), one.chain_id, one.registry)
    with pytest.raises(VerificationError, match="transcript"):
        verify_seed(state, one.chain_id + 1, one.registry)
    one.attest()
    snapshot = one.state
    verify_certificate(snapshot, CERTIFICATE, one.chain_id, one.registry)
    with pytest.raises(VerificationError, match="seed"):
        verify_certificate(replace(snapshot, seed=other), CERTIFICATE, one.chain_id, one.registry)


def test_strangers_do_not_raise_an_owners_count(evaluation: Evaluation, warp: Warp) -> None:
    one = evaluation
    for sequence in (1, 2):
        one.open(sequence=sequence)
        one.commit_nonces(one.auditors)
        one.nonces = {}
    assert one.counts() == NOTHING
    warp(one.opening.nonce_until + 1)
    one.send("expire", one.id)
    assert one.counts() == NOTHING
    assert tuple(one.functions.evaluationsOfRecord(DATA).call()) == (0,) * 7


def test_leaves_of_a_run_are_opened_on_chain(evaluation: Evaluation) -> None:
    one = evaluation
    one.open()
    one.commit_nonces()
    context = chain_context(one.chain_id, one.registry, one.id)
    assert one.functions.contextOf(one.id).call() == context
    items = [Leaf(sha256(bytes([i])), random_salt(), i % 3) for i in range(6)]
    tree = MerkleTree(LeafKind.ACT, context, items)
    one.run(trace=tree.record)
    for index in (0, 4):
        leaf = items[index]
        opened = (kind_hash("act"), 6, index, leaf.sub, leaf.digest, leaf.salt, tree.proof(index))
        one.functions.verify(one.id, opened).call()
        with pytest.raises(Exception, match="0x"):
            one.functions.verify(one.id, (*opened[:3], leaf.sub + 1, *opened[4:])).call()


def test_nobody_acts_in_a_partys_name_without_the_forwarder(evaluation: Evaluation, relayer: LocalSigner) -> None:
    one = evaluation
    one.open()
    party = one.auditors[0]
    forged = encode_call(REGISTRY, "commitNonce", one.id, one.commitment(party)) + bytes.fromhex(party.address[2:])
    denied = ("NotParty", {"evaluation": as_hex(one.id), "caller": relayer.address})
    assert refused(lambda: one.transact(one.registry, forged)) == denied


WORD = st.binary(min_size=32, max_size=32)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.tuples(WORD, WORD, WORD), level=st.integers(1, 3), until=st.integers(1, 2**48 - 1), reason=st.integers(0, 6))
def test_python_and_solidity_hash_alike(chain: Chain, words: tuple[bytes, ...], level: int, until: int, reason: int) -> None:
    registry = chain.contract(REGISTRY)
    functions, place = registry.functions, (chain.deployment.chain_id, registry.address)
    evaluation, seed, certificate = words
    attestation = Attestation(evaluation, seed, certificate, level, until)
    assert functions.hashAttestation(tuple(attestation.fields().values())).call() == attestation.typed_data(*place).hash()
    revoked = revocation(*place, evaluation, certificate, reason)
    assert functions.hashRevocation(evaluation, certificate, reason).call() == revoked.hash()
    for upheld in (False, True):
        judged = resolution(*place, evaluation, certificate, registry.address, upheld=upheld)
        assert functions.hashResolution(evaluation, certificate, registry.address, upheld).call() == judged.hash()
    nonce = evaluation_nonce_commitment(evaluation, registry.address, seed)
    assert functions.nonceCommitment(evaluation, registry.address, seed).call() == nonce


def test_gas_stays_bounded(evaluation: Evaluation) -> None:
    one = evaluation
    assert one.open()["gasUsed"] < 560_000
    for party in one.parties:
        assert one.act(party, "commitNonce", one.id, one.commitment(party))["gasUsed"] < 230_000
    assert one.run()["gasUsed"] < 320_000
    one.mine()
    assert one.reveal(*one.parties[:-1])["gasUsed"] < 130_000
    assert one.reveal(one.parties[-1])["gasUsed"] < 220_000
    assert one.attest()["gasUsed"] < 200_000
