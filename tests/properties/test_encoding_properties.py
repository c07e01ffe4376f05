"""Laws of the canonical encoding."""

import json

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.encoding import abi_encode, canonical_json, checksum_address, from_hex, parse_canonical_json, parse_json, to_hex
from rexis.errors import EncodingError

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_canonical_json_round_trip(value):
    data = canonical_json(value)
    assert parse_canonical_json(data, max_bytes=len(data)) == value
    assert canonical_json(parse_json(json.dumps(value, indent=2).encode(), max_bytes=1 << 20)) == data


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_canonical_json_is_what_a_library_of_rfc_8785_writes(value):
    assert canonical_json(value) == rfc8785.dumps(value)


@given(VALUES, st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_refused_or_another_value(value, data):
    encoded = bytearray(canonical_json(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        parsed = parse_canonical_json(bytes(encoded), max_bytes=len(encoded))
    except EncodingError:
        return
    assert canonical_json(parsed) == bytes(encoded) != canonical_json(value)


@given(VALUES, st.sampled_from(" \n\t"), st.data())
@settings(max_examples=75, deadline=None)
def test_inserted_white_space_is_refused_or_inside_a_string(value, space, data):
    encoded = canonical_json(value).decode()
    place = data.draw(st.integers(0, len(encoded)))
    try:
        parsed = parse_canonical_json((encoded[:place] + space + encoded[place:]).encode(), max_bytes=1 << 20)
    except EncodingError:
        return
    assert space == " "
    assert parsed != value


@given(st.dictionaries(TEXT, SCALARS, min_size=1, max_size=4), st.data())
@settings(max_examples=50, deadline=None)
def test_duplicate_keys_are_refused_wherever_they_stand(value, data):
    key = data.draw(st.sampled_from(sorted(value)))
    members = [f"{json.dumps(k)}:{json.dumps(v)}" for k, v in value.items()]
    members.insert(data.draw(st.integers(0, len(members))), f"{json.dumps(key)}:{json.dumps(data.draw(SCALARS))}")
    document = "{" + ",".join(members) + "}"
    for text in (document, f"[{document}]", f'{{"inner":{document}}}'):
        with pytest.raises(EncodingError, match="duplicate key"):
            parse_json(text.encode(), max_bytes=1 << 20)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_canonical_or_refused_by_name(data):
    try:
        value = parse_canonical_json(data, max_bytes=200)
    except EncodingError:
        return
    assert canonical_json(value) == data


@given(st.binary(max_size=64), st.binary(min_size=20, max_size=20))
@settings(max_examples=50, deadline=None)
def test_hexadecimal_and_addresses_round_trip(data, address):
    assert from_hex(to_hex(data), len(data)) == data
    checksummed = checksum_address(to_hex(address))
    assert from_hex(checksummed.lower(), 20) == address
    assert checksum_address(checksummed) == checksummed


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=4), st.lists(st.binary(min_size=32, max_size=32), max_size=4))
@settings(max_examples=50, deadline=None)
def test_abi_encode_keeps_lists_apart(first, second):
    moved = (first[:-1], first[-1:] + second) if first else (first, second)
    types = ["bytes32[]", "bytes32[]"]
    assert (abi_encode(types, [first, second]) == abi_encode(types, list(moved))) == ((first, second) == moved)
