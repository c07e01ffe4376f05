"""Typed data, receipts, relayed calls, sign-in and secure-aggregation messages against their vectors."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from rexis.commitments import Receipt
from rexis.encoding import from_hex, to_hex
from rexis.errors import EncodingError, MalformedMessageError, SignatureError
from rexis.protocol.receipt_signature import receipt_message, sign_receipt, verify_receipt
from rexis.protocol.relayed_call import RelayedCall, random_nonce
from rexis.protocol.secagg_messages import Envelope, Stage, check_payload, secagg_context, survivors_hash
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.signatures import address_of, recover_address, sign_digest
from rexis.protocol.typed_data import Domain, recover_signer, verify_signer

DIRECTORY = Path(__file__).parents[1] / "vectors"


def vectors(name):
    return json.loads((DIRECTORY / name).read_text(encoding="utf-8"))


RECEIPTS = vectors("receipt.json")
CALLS = vectors("relayed_call.json")
MESSAGES = vectors("secagg_messages.json")
SIGN_IN = CALLS["signIn"]
KEY = from_hex(CALLS["privateKey"], 32)
OTHER_KEY = bytes(31) + b"\x07"


def named(items):
    return {"argvalues": items, "ids": [item["name"] for item in items]}


def test_keys_have_the_addresses_of_the_reference():
    assert address_of(KEY) == CALLS["sender"]


@pytest.mark.parametrize("vector", CALLS["calls"], ids=["empty", "largest"])
def test_relayed_calls_equal_the_reference(vector):
    call = RelayedCall.parse(vector["request"])
    assert call.to_json() == vector["request"]
    typed = call.typed_data(CALLS["chainId"], CALLS["forwarder"])
    assert typed.type_string == vector["eip712"]["type"]
    assert to_hex(typed.hash()) == vector["eip712"]["digest"]
    assert to_hex(typed.sign(KEY)) == vector["signature"]
    assert recover_signer(typed, from_hex(vector["signature"])) == call.sender


def test_a_wallet_signs_the_same_bytes():
    call = RelayedCall.parse(CALLS["calls"][1]["request"])
    typed = call.typed_data(CALLS["chainId"], CALLS["forwarder"])
    signed = Account.sign_typed_data(KEY, typed.domain.fields(), typed.types, dict(typed.message))
    assert bytes(signed.signature) == typed.sign(KEY)
    text = Account.sign_message(encode_defunct(text=SIGN_IN["text"]), KEY)
    assert bytes(text.signature) == SignInMessage.parse(SIGN_IN["text"]).sign(KEY)


@pytest.mark.parametrize("vector", **named(CALLS["refusedSignatures"]))
def test_signatures_in_another_form_are_refused(vector):
    typed = RelayedCall.parse(CALLS["calls"][0]["request"]).typed_data(CALLS["chainId"], CALLS["forwarder"])
    with pytest.raises(SignatureError):
        recover_signer(typed, from_hex(vector["signature"]))


def test_an_r_that_is_no_point_is_refused():
    # x = 5 is on no point of secp256k1.
    with pytest.raises(SignatureError, match="no key made this signature"):
        recover_address(bytes(31) + b"\x01", (5).to_bytes(32, "big") + (1).to_bytes(32, "big") + b"\x1b")


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "0x0000000000000000000000000000000000000001"},
        {"to": "0x0000000000000000000000000000000000000001"},
        {"gas": 1},
        {"nonce": 1},
        {"deadline": 1},
        {"data": b"\x00"},
    ],
)
def test_a_signature_binds_every_field_of_a_call(change):
    call = RelayedCall.parse(CALLS["calls"][0]["request"])
    signature = from_hex(CALLS["calls"][0]["signature"])
    with pytest.raises(SignatureError, match="expected a signature by"):
        verify_signer(replace(call, **change).typed_data(CALLS["chainId"], CALLS["forwarder"]), signature, call.sender)


def test_a_signature_binds_chain_and_forwarder():
    call = RelayedCall.parse(CALLS["calls"][0]["request"])
    signature = from_hex(CALLS["calls"][0]["signature"])
    for chain_id, forwarder in ((1, CALLS["forwarder"]), (CALLS["chainId"], call.to)):
        with pytest.raises(SignatureError):
            verify_signer(call.typed_data(chain_id, forwarder), signature, call.sender)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": 1},
        {"nonce": "-1"},
        {"nonce": "01"},
        {"nonce": "1e3"},
        {"nonce": "\u0661"},
        {"nonce": str(2**256)},
        {"nonce": "9" * 5000},
        {"deadline": str(2**48)},
        {"gas": ""},
        {"to": "0x00000000000000000000000000000000000000aa"},
        {"data": "0x0"},
        {"data": "0x" + "00" * (64 * 1024 + 1)},
        {"value": "0"},
        {"from": None},
    ],
)
def test_malformed_calls_are_refused(change):
    with pytest.raises(MalformedMessageError):
        RelayedCall.parse({**CALLS["calls"][0]["request"], **change})


@pytest.mark.parametrize("value", [None, [], "call", {}, {"from": "0x"}])
def test_what_is_no_call_is_refused(value):
    with pytest.raises(MalformedMessageError):
        RelayedCall.parse(value)


def test_nonces_do_not_repeat():
    nonces = {random_nonce() for _ in range(64)}
    assert len(nonces) == 64
    assert max(nonces) < 2**256
    assert max(nonces) >= 2**248


def test_domains_refuse_what_no_wallet_would_show():
    for chain_id, contract in ((0, None), (-1, None), (2**256, None), (1, "0x00000000000000000000000000000000000000aA")):
        with pytest.raises((ValueError, EncodingError), match=r"chain id|checksum"):
            Domain(chain_id, contract)


def test_receipt_signature_equals_the_reference():
    receipt = Receipt.parse(RECEIPTS["receipt"])
    typed = receipt_message(receipt, RECEIPTS["chainId"])
    assert typed.type_string == RECEIPTS["eip712"]["type"]
    assert to_hex(typed.hash()) == RECEIPTS["eip712"]["digest"]
    assert sign_receipt(replace(receipt, signature=b""), RECEIPTS["chainId"], KEY) == receipt
    verify_receipt(receipt, RECEIPTS["chainId"])
    verify_receipt(replace(receipt, batch=bytes(32), index=7), RECEIPTS["chainId"])


@pytest.mark.parametrize(
    "change",
    [
        {"model": bytes(32)},
        {"input": bytes(32)},
        {"output": bytes(32)},
        {"salt": bytes(16)},
        {"issued": datetime(2026, 11, 21, 3, 35, tzinfo=UTC)},
        {"issuer": address_of(OTHER_KEY)},
        {"signature": b""},
        {"signature": bytes(65)},
    ],
)
def test_a_changed_receipt_is_refused(change):
    with pytest.raises(SignatureError):
        verify_receipt(replace(Receipt.parse(RECEIPTS["receipt"]), **change), RECEIPTS["chainId"])


def test_a_receipt_counts_on_its_chain_only_and_is_signed_by_its_issuer():
    receipt = Receipt.parse(RECEIPTS["receipt"])
    with pytest.raises(SignatureError):
        verify_receipt(receipt, 1)
    with pytest.raises(ValueError, match="key of the issuer"):
        sign_receipt(receipt, RECEIPTS["chainId"], OTHER_KEY)


def test_sign_in_equals_the_reference():
    message = SignInMessage.parse(SIGN_IN["text"])
    assert message.text() == SIGN_IN["text"]
    assert message.address == CALLS["sender"]
    assert message.expiration_time - message.issued_at == timedelta(minutes=5)
    assert to_hex(message.digest()) == SIGN_IN["digest"]
    assert to_hex(message.sign(KEY)) == SIGN_IN["signature"]
    assert message.recover_signer(from_hex(SIGN_IN["signature"])) == message.address
    assert message.recover_signer(message.sign(OTHER_KEY)) != message.address


@pytest.mark.parametrize("vector", **named(SIGN_IN["refused"]))
def test_sign_in_texts_in_another_form_are_refused(vector):
    assert vector["text"] != SIGN_IN["text"]
    with pytest.raises(MalformedMessageError):
        SignInMessage.parse(vector["text"])


@pytest.mark.parametrize(
    "change",
    [
        {"domain": "a b"},
        {"domain": "evil.example/path"},
        {"statement": "two\nlines"},
        {"nonce": "short"},
        {"uri": "javascript:alert(1)"},
        {"issued_at": datetime(2026, 11, 21, 3, 34)},
        {"issued_at": datetime(2026, 11, 21, 3, 34, 0, 1, tzinfo=UTC)},
        {"chain_id": 0},
        {"version": "2"},
    ],
)
def test_sign_in_messages_out_of_form_are_the_callers_mistake(change):
    with pytest.raises(ValueError, match=r".+"):
        replace(SignInMessage.parse(SIGN_IN["text"]), **change)


def test_secure_aggregation_context_equals_the_reference():
    federation, manifest = from_hex(MESSAGES["federation"], 32), from_hex(MESSAGES["manifestHash"], 32)
    arguments = (MESSAGES["chainId"], MESSAGES["registry"], federation, MESSAGES["round"], MESSAGES["attempt"], manifest)
    ctx = secagg_context(*arguments)
    assert to_hex(ctx) == MESSAGES["ctx"]
    changed = [1, CALLS["forwarder"], manifest, 4, 2, federation]
    contexts = {secagg_context(*arguments[:i], value, *arguments[i + 1 :]) for i, value in enumerate(changed)}
    assert len(contexts | {ctx}) == 7
    assert to_hex(survivors_hash(ctx, MESSAGES["survivors"]["addresses"])) == MESSAGES["survivors"]["hash"]


@pytest.mark.parametrize("vector", MESSAGES["messages"], ids=[stage.value for stage in Stage])
def test_secure_aggregation_messages_equal_the_reference(vector):
    data, ctx = bytes.fromhex(vector["bytes_hex"]), from_hex(MESSAGES["ctx"], 32)
    message = Envelope.parse(data)
    assert message.to_bytes() == data
    assert to_hex(message.payload_digest) == vector["payloadDigest"]
    typed = message.typed_data(MESSAGES["chainId"], MESSAGES["registry"])
    assert typed.type_string == vector["eip712"]["type"]
    assert to_hex(typed.hash()) == vector["eip712"]["digest"]
    message.verify(MESSAGES["chainId"], MESSAGES["registry"], ctx)
    assert replace(message, signature=b"").sign(MESSAGES["chainId"], MESSAGES["registry"], KEY) == message


@pytest.mark.parametrize("vector", MESSAGES["messages"], ids=[stage.value for stage in Stage])
def test_secure_aggregation_messages_count_once(vector):
    message, ctx = Envelope.parse(bytes.fromhex(vector["bytes_hex"])), from_hex(MESSAGES["ctx"], 32)
    chain_id, registry = MESSAGES["chainId"], MESSAGES["registry"]
    with pytest.raises(SignatureError, match="for ctx"):
        message.verify(chain_id, registry, bytes(32))
    for forged in (
        replace(message, ctx=bytes(32)),
        replace(message, sender=address_of(OTHER_KEY)),
        replace(message, signature=b""),
        replace(message, signature=sign_digest(bytes(32), KEY)),
    ):
        with pytest.raises(SignatureError):
            forged.verify(chain_id, registry, forged.ctx)
    for other_chain, other_registry in ((1, registry), (chain_id, CALLS["forwarder"])):
        with pytest.raises(SignatureError):
            message.verify(other_chain, other_registry, ctx)
    with pytest.raises(ValueError, match="key of the sender"):
        message.sign(chain_id, registry, OTHER_KEY)


@pytest.mark.parametrize("vector", **named(MESSAGES["refused"]))
def test_payloads_out_of_form_are_refused(vector):
    with pytest.raises(MalformedMessageError):
        check_payload(Stage(vector["stage"]), vector["payload"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"version":1', b'"version":2'),
        (b'"version":1', b'"version":true'),
        (b'"stage":"keys"', b'"stage":"sums"'),
        (b'"stage":"keys"', b'"stage":"masked"'),
        (b'"stage":"keys"', b'"stage":["keys"]'),
        (b'"sender":"0x', b'"sender":"0X'),
        (b'"ctx":"0x', b'"ctx":"0xff'),
        (b'"signature":"0x', b'"signature":"'),
        (b'{"ctx"', b'{ "ctx"'),
        (b'{"ctx"', b'{"also":0,"ctx"'),
        (b'"payload":{', b'"payload":[],"x":{'),
    ],
)
def test_envelopes_out_of_form_are_refused(before, after):
    data = bytes.fromhex(MESSAGES["messages"][0]["bytes_hex"])
    assert before in data
    with pytest.raises(MalformedMessageError):
        Envelope.parse(data.replace(before, after))


def test_an_envelope_without_end_is_refused_before_it_is_parsed():
    with pytest.raises(MalformedMessageError, match="at most"):
        Envelope.parse(b"[" * (1 << 20))
