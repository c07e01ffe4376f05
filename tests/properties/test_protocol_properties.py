"""Laws of messages and files: whatever a stranger changes is refused by name, or is another message with another digest."""

import contextlib
import io
import json
import struct
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.commitments import Receipt
from rexis.encoding import checksum_address, to_hex
from rexis.errors import EncodingError, MalformedMessageError, SignatureError
from rexis.protocol.batch import digest_file, write_file
from rexis.protocol.file_spec import FileSpec
from rexis.protocol.receipt_signature import verify_receipt
from rexis.protocol.relayed_call import RelayedCall
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.signatures import address_of, recover_address, sign_digest
from rexis.protocol.typed_data import Domain, TypedMessage
from rexis.protocol.uploads import MAX_UPLOAD_BYTES, PART_SIZE, UploadManifest, content_digest_header, parse_content_digest, plan_parts

KEY = bytes(31) + b"\x01"
HASH = st.binary(min_size=32, max_size=32)
ADDRESS = st.binary(min_size=20, max_size=20).map(lambda data: checksum_address(to_hex(data)))
MINUTE = st.integers(0, 4_000_000_000 // 60).map(lambda minute: datetime.fromtimestamp(60 * minute, UTC))
CALLS = st.builds(
    RelayedCall, ADDRESS, ADDRESS, st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1), st.integers(0, 2**48 - 1), st.binary(max_size=80)
)
RECEIPTS = st.builds(
    Receipt,
    model=HASH,
    input=HASH,
    output=HASH,
    salt=st.binary(min_size=16, max_size=16),
    issued=MINUTE,
    issuer=ADDRESS,
    signature=st.binary(min_size=65, max_size=65),
)
SPEC = FileSpec.parse(
    {
        "version": 1,
        "kind": "batch",
        "tensors": [{"name": "labels", "dtype": "i64", "shape": ["n"]}, {"name": "x", "dtype": "f32", "shape": ["n", 3]}],
    }
)


def batch_file():
    stream = io.BytesIO()
    tensors = {"x": np.linspace(1.0, 2.0, 12, dtype=np.float32).reshape(4, 3), "labels": np.arange(4)}
    record = write_file(stream, SPEC, tensors)
    return stream.getvalue(), record


DATA, RECORD = batch_file()


def file_record(data):
    return digest_file(io.BytesIO(data), SPEC, len(data)).record


def test_every_bit_of_a_header_counts():
    for bit in range(8 * RECORD.header.data_start):
        changed = bytearray(DATA)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MalformedMessageError):
            file_record(bytes(changed))


@given(
    domain=st.builds(Domain, st.integers(1, 2**256 - 1), st.none() | ADDRESS, name=st.text(max_size=8)),
    values=st.tuples(
        HASH, st.text(st.characters(exclude_categories=("Cs",)), max_size=40), ADDRESS, st.binary(max_size=70), st.integers(0, 2**64 - 1)
    ),
    rest=st.tuples(st.booleans(), st.binary(min_size=16, max_size=16), st.lists(ADDRESS, max_size=3)),
    with_list=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_typed_data_hash_to_what_a_wallet_hashes(domain, values, rest, with_list):
    members = "bytes32 a,string b,address c,bytes d,uint64 e,bool f,bytes16 g" + (",address[] h" if with_list else "")
    message = dict(zip("abcdefgh", [*values, *rest], strict=True))
    typed = TypedMessage(domain, f"Everything({members})", message if with_list else {k: v for k, v in message.items() if k != "h"})
    signable = encode_typed_data(domain.fields(), typed.types, dict(typed.message))
    assert typed.preimage() == b"\x19" + signable.version + signable.header + signable.body


@given(st.integers(8 * RECORD.header.data_start, 8 * len(DATA) - 1))
@settings(max_examples=100, deadline=None)
def test_every_bit_of_the_data_counts(bit):
    changed = bytearray(DATA)
    changed[bit // 8] ^= 1 << bit % 8
    # A flipped exponent bit can make infinity, which has no digest.
    with contextlib.suppress(EncodingError):
        assert file_record(bytes(changed)) != RECORD.record


@given(st.integers(0, len(DATA) - 1), st.binary(min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_cut_and_lengthened_files_are_refused(length, more):
    for data in (DATA[:length], DATA + more, DATA[:length] + more + DATA[length:]):
        with pytest.raises(MalformedMessageError):
            file_record(data)


LENGTHS = st.integers(-2, 6) | st.sampled_from([2**31, 2**53, 2**63, 2**64])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "I64", "U8", "BOOL", "F8_E4M3", "f32", ""]),
        "shape": st.lists(LENGTHS, max_size=3),
        "data_offsets": st.lists(LENGTHS | st.integers(0, 80), min_size=1, max_size=3),
    }
)


@given(st.dictionaries(st.sampled_from(["x", "labels", "mask", "", "x\u0000"]), ENTRY, max_size=3), st.integers(0, 90), st.integers(-9, 9))
@settings(max_examples=150, deadline=None)
def test_made_up_headers_are_refused(entries, size, lie):
    metadata = {"rexis.format": "1", "rexis.kind": "batch", "rexis.spec": to_hex(SPEC.digest)}
    text = json.dumps({"__metadata__": metadata, **entries}).encode()
    data = struct.pack("<Q", max(0, len(text) + lie)) + text + bytes(size)
    with pytest.raises(MalformedMessageError):
        file_record(data)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_as_a_file(data):
    for prefix in (b"", struct.pack("<Q", len(data)), struct.pack("<Q", len(data) // 2)):
        with pytest.raises(MalformedMessageError):
            file_record(prefix + data)


@given(CALLS, CALLS, st.integers(1, 2**64))
@settings(max_examples=40, deadline=None)
def test_calls_round_trip_and_have_hashes_of_their_own(call, other, chain_id):
    assert RelayedCall.parse(json.loads(json.dumps(call.to_json()))) == call
    digest = call.typed_data(chain_id, call.to).hash()
    assert (other.typed_data(chain_id, call.to).hash() == digest) == (other == call)
    assert call.typed_data(chain_id + 1, call.to).hash() != digest


@given(RECEIPTS, st.data())
@settings(max_examples=40, deadline=None)
def test_a_changed_character_of_a_receipt_is_refused_or_counts(receipt, data):
    value = receipt.to_json()
    assert Receipt.parse(value) == receipt
    with pytest.raises(SignatureError):
        verify_receipt(receipt, 1)
    name = data.draw(st.sampled_from(["model", "input", "output", "issued", "salt", "issuer", "signature"]))
    text = value[name]
    place = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from("0123456789abcdefABCDEFxTZ:- ").filter(lambda c: c != text[place]))
    try:
        changed = Receipt.parse({**value, name: text[:place] + character + text[place + 1 :]})
    except MalformedMessageError:
        return
    assert changed != receipt
    assert (changed.digest != receipt.digest) == (name in ("model", "input", "output", "issued"))


@given(MINUTE, st.integers(1, 10**6), st.integers(1, 2**64 - 1), ADDRESS, st.text("abcXYZ019", min_size=8, max_size=64), st.data())
@settings(max_examples=60, deadline=None)
def test_sign_in_texts_round_trip_and_every_character_counts(issued, seconds, chain_id, address, nonce, data):
    expiration = issued + timedelta(seconds=seconds)
    message = SignInMessage("rexis.example", address, "Sign in.", "https://rexis.example/a?b=c", "1", chain_id, nonce, issued, expiration)
    text = message.text()
    assert SignInMessage.parse(text) == message
    assert message.recover_signer(message.sign(KEY)) == address_of(KEY)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.sampled_from("aZ09 :\n\r\t\u00e9.-")) + text[place + data.draw(st.integers(0, 1)) :]
    try:
        parsed = SignInMessage.parse(changed)
    except MalformedMessageError:
        return
    assert parsed.text() == changed
    assert (parsed.digest() == message.digest()) == (changed == text)


@given(HASH, st.integers(0, 8 * 65 - 1), st.integers(0, 8 * 32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_changed_bit_of_signature_or_digest_is_another_signer_or_refused(digest, signature_bit, digest_bit):
    signature = sign_digest(digest, KEY)
    assert recover_address(digest, signature) == address_of(KEY)
    for data, bit in ((signature, signature_bit), (digest, digest_bit)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        pair = (digest, bytes(changed)) if data is signature else (bytes(changed), signature)
        with contextlib.suppress(SignatureError):
            assert recover_address(*pair) != address_of(KEY)


@given(st.binary(max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_as_a_signature_of_ours(signature):
    with contextlib.suppress(SignatureError):
        assert recover_address(bytes(32), signature) != address_of(KEY)


@given(st.integers(1, 1000), HASH, HASH, HASH, st.data())
@settings(max_examples=40, deadline=None)
def test_a_changed_byte_of_a_message_is_refused_or_breaks_its_signature(position, ctx, mask, encryption, data):
    registry = address_of(bytes(31) + b"\x02")
    payload = {"position": position, "mask": to_hex(mask), "encryption": to_hex(encryption)}
    message = Envelope(Stage.KEYS, ctx, address_of(KEY), payload).sign(31337, registry, KEY)
    encoded = bytearray(message.to_bytes())
    assert Envelope.parse(bytes(encoded)) == message
    message.verify(31337, registry, ctx)
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((MalformedMessageError, SignatureError)):
        Envelope.parse(bytes(encoded)).verify(31337, registry, ctx)


@given(st.integers(1, 40 * PART_SIZE), st.data())
@settings(max_examples=40, deadline=None)
def test_parts_tile_and_manifests_bind_their_order(total, data):
    parts = plan_parts(total)
    assert [part.offset for part in parts] == [PART_SIZE * i for i in range(len(parts))]
    assert sum(part.size for part in parts) == total
    assert all(part.size == PART_SIZE for part in parts[:-1])
    assert 0 < parts[-1].size <= PART_SIZE
    digests = tuple(data.draw(st.lists(HASH, min_size=len(parts), max_size=len(parts))))
    manifest = UploadManifest(total, digests)
    assert UploadManifest.parse(json.loads(json.dumps(manifest.to_json()))) == manifest
    shuffled = UploadManifest(total, tuple(data.draw(st.permutations(digests))))
    assert (shuffled.digest == manifest.digest) == (shuffled == manifest)
    for changed in (digests[:-1], (*digests, digests[-1])):
        with pytest.raises(ValueError, match="part digests"):
            UploadManifest(total, changed)
    assert total <= MAX_UPLOAD_BYTES


@given(HASH, st.data())
@settings(max_examples=60, deadline=None)
def test_content_digests_have_one_text(digest, data):
    header = content_digest_header(digest)
    assert parse_content_digest(header) == digest
    place = data.draw(st.integers(0, len(header) - 1))
    changed = header[:place] + data.draw(st.characters(max_codepoint=300)) + header[place + 1 :]
    try:
        parsed = parse_content_digest(changed)
    except MalformedMessageError:
        return
    assert (parsed == digest) == (changed == header)
