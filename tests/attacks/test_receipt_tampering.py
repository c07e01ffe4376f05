"""Who changes a receipt bundle is found out, and by which claim: a byte anywhere, or a field by somebody who mends what he can.

A thing that only the chain knows (the transaction) is caught offline by the checksum alone, which anyone can compute again; against the
chain it is caught always (tests/services/test_verifier_batches.py).
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rexis.chain.signer import LocalSigner
from rexis.cli.command import app
from rexis.cli.receipt_claims import Evidence, examine
from rexis.cli.verify import overall_verdict
from rexis.commitments import LeafKind, MerkleTree, Receipt
from rexis.encoding import canonical_json, domain_tag, from_hex, sha256, to_hex
from rexis.protocol.claims import Verdict
from rexis.protocol.receipt_bundle import BatchIdentity, ReceiptBundle
from rexis.protocol.receipt_signature import receipt_message

VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "receipt_bundle.json").read_text())
FILE: bytes = VECTOR["file"].encode()
BUNDLE: dict[str, Any] = VECTOR["bundle"]
ATTACKER = LocalSigner.generate()
ZERO = "0x" + 64 * "0"


def failed(content: bytes, **evidence: Any) -> set[str]:
    claims = examine(content, Evidence(**evidence))
    names = {claim.name for claim in claims if claim.verdict is Verdict.FAIL}
    assert (overall_verdict(claims) is Verdict.FAIL) == bool(names)
    assert overall_verdict(claims) is not Verdict.PASS or {"record", "issuer"} <= set(evidence)
    return names


def mended(document: dict[str, Any]) -> bytes:
    """The file of a changed bundle whose checksum fits again."""
    content = {name: value for name, value in document.items() if name != "checksum"}
    return canonical_json({**content, "checksum": to_hex(sha256(domain_tag("receipt-bundle", 1) + b"\0" + canonical_json(content)))})


def test_the_bundle_holds_before_anybody_touches_it() -> None:
    assert failed(FILE) == set()
    assert mended(BUNDLE) == FILE


def flipped(byte: int, bit: int) -> int:
    return byte ^ 1 << bit


def next_sign(byte: int, _: int) -> int:
    """Another of the same kind, so that most changes stay in form: the next digit, or the next letter of a to f."""
    for signs in (b"0123456789", b"abcdef", b"ABCDEF"):
        if byte in signs:
            return signs[(signs.index(byte) + 1) % len(signs)]
    return byte ^ 1


@pytest.mark.parametrize("change", [flipped, next_sign])
@pytest.mark.parametrize("bit", range(8))
def test_no_byte_can_be_changed(change: Callable[[int, int], int], bit: int) -> None:
    for place in range(bit, len(FILE), 8):
        changed = bytearray(FILE)
        changed[place] = change(FILE[place], place // 8 % 8)
        assert changed != FILE
        assert failed(bytes(changed)), f"byte {place}"


def test_no_byte_can_be_left_out_or_added() -> None:
    for place in range(0, len(FILE), 7):
        assert failed(FILE[:place])
        assert failed(FILE[:place] + FILE[place + 1 :])
        assert failed(FILE[:place] + b" " + FILE[place:])


@pytest.mark.parametrize("place", range(3, len(FILE), 101))
def test_the_command_says_so_in_one_value(place: int, tmp_path: Path) -> None:
    changed = bytearray(FILE)
    changed[place] ^= 1
    (tmp_path / "bundle.json").write_bytes(changed)
    result = CliRunner().invoke(app, ["verify", "receipt", str(tmp_path / "bundle.json"), "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["result"] == "FAIL"
    assert any(claim["verdict"] == "FAIL" and claim["why"] for claim in report["claims"])


# Fields whose change is mended as well as anybody can without the issuer's key.

RECEIPT, BATCH = BUNDLE["receipt"], BUNDLE["batch"]
SIGNED = {"receipt-signature", "inclusion"}
FIELDS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "model": ({"receipt": {**RECEIPT, "model": ZERO}}, {"receipt-signature", "batch-id"}),
    "model, everywhere": ({"receipt": {**RECEIPT, "model": ZERO}, "batch": {**BATCH, "model": ZERO}}, {"receipt-signature", "batch-id"}),
    "input": ({"receipt": {**RECEIPT, "input": ZERO}}, SIGNED),
    "output": ({"receipt": {**RECEIPT, "output": ZERO}}, SIGNED),
    "salt": ({"receipt": {**RECEIPT, "salt": "0x" + 32 * "0"}}, SIGNED),
    "time": ({"receipt": {**RECEIPT, "issued": "2026-11-21T03:35:00Z"}}, SIGNED),
    "issuer": ({"receipt": {**RECEIPT, "issuer": ATTACKER.address}}, {"receipt-signature"}),
    "signature": ({"receipt": {**RECEIPT, "signature": RECEIPT["signature"][:-2] + "1b"}}, {"receipt-signature"}),
    "batch of the receipt": ({"receipt": {**RECEIPT, "batch": ZERO}}, {"batch-id"}),
    "index": ({"receipt": {**RECEIPT, "index": 0}}, {"inclusion"}),
    "index beyond the end": ({"receipt": {**RECEIPT, "index": 3}}, {"inclusion"}),
    "chain": ({"batch": {**BATCH, "chain_id": 1}}, {"receipt-signature", "batch-id"}),
    "registry": ({"batch": {**BATCH, "registry": ATTACKER.address}}, {"batch-id"}),
    "operator": ({"batch": {**BATCH, "operator": ATTACKER.address}}, {"batch-id"}),
    "owner": ({"batch": {**BATCH, "owner": ATTACKER.address}}, {"batch-id"}),
    "number": ({"batch": {**BATCH, "sequence": 8}}, {"batch-id"}),
    "count": ({"count": 4}, {"inclusion"}),
    "count, other height": ({"count": 5}, {"inclusion"}),
    "record": ({"record": ZERO}, {"inclusion"}),
    "no proof": ({"proof": []}, {"inclusion"}),
    "proof turned round": ({"proof": BUNDLE["proof"][::-1]}, {"inclusion"}),
    "long proof": ({"proof": BUNDLE["proof"] * 40}, {"inclusion"}),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_changed_field_is_found_by_its_claim(name: str) -> None:
    change, claims = FIELDS[name]
    assert failed(mended({**BUNDLE, **change})) == claims
    # Who does not mend the checksum is found by that, too.
    assert failed(canonical_json({**BUNDLE, **change})) == {*claims, "checksum"}


@pytest.mark.parametrize("field", ["hash", "block_number", "block_hash"])
def test_the_transaction_is_not_vouched_for_offline(field: str) -> None:
    other = 43 if field == "block_number" else ZERO
    changed = {**BUNDLE, "transaction": {**BUNDLE["transaction"], field: other}}
    assert failed(canonical_json(changed)) == {"checksum"}
    claims = {claim.name: claim.verdict for claim in examine(mended(changed), Evidence())}
    assert claims["record-on-chain"] is Verdict.NOT_CHECKED


# Whole bundles made by somebody else.


def forged(change: Callable[[Receipt], Receipt], signer: LocalSigner) -> ReceiptBundle:
    """A bundle in which everything agrees, with a batch that its maker never committed."""
    true = ReceiptBundle.parse(FILE)
    plain = replace(change(true.receipt), issuer=signer.address, batch=None, index=None, signature=b"")
    signed = replace(plain, signature=signer.sign_typed_data(receipt_message(plain, true.batch.chain_id)))
    batch = BatchIdentity(true.batch.chain_id, true.batch.registry, true.batch.operator, true.batch.owner, signed.model, 7)
    tree = MerkleTree(LeafKind.RECEIPT, batch.context, [signed.leaf()])
    return replace(
        true, receipt=replace(signed, batch=batch.id, index=0), batch=batch, count=1, record=tree.record, proof=(), checksum=None
    )


def test_a_forgery_in_which_all_agrees_is_never_a_pass_and_meets_its_end_at_the_issuer_or_the_record() -> None:
    content = forged(lambda receipt: replace(receipt, output=bytes(32)), ATTACKER).to_bytes()
    assert failed(content) == set()
    assert overall_verdict(examine(content, Evidence())) is Verdict.NOT_CHECKED
    # Not even with a batch that the attacker did commit: anybody may, under a record that he authorised himself.
    own_record = ReceiptBundle.parse(content).record
    assert overall_verdict(examine(content, Evidence(record=own_record))) is Verdict.NOT_CHECKED
    assert failed(content, issuer=RECEIPT["issuer"], record=own_record) == {"issuer-expected"}
    assert failed(content, issuer=RECEIPT["issuer"]) == {"issuer-expected"}
    assert failed(content, record=from_hex(BUNDLE["record"], 32)) == {"record-expected"}


def test_a_receipt_does_not_borrow_the_place_of_its_neighbour() -> None:
    """Two receipts of one batch: neither salt, digest nor index of one fits the other."""
    true = ReceiptBundle.parse(FILE)
    for index in (0, 2):
        moved = replace(true, receipt=replace(true.receipt, index=index), proof=tuple(true.proof), checksum=None)
        proof = tuple(from_hex(sibling, 32) for sibling in VECTOR["batch"]["proofs"][index])
        assert failed(moved.to_bytes()) == {"inclusion"}
        assert failed(replace(moved, proof=proof).to_bytes()) == {"inclusion"}
